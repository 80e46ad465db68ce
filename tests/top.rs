//! `wgnat top` in a real terminal, over real load.

// What is on the screen is for the person who reads the output.
#![allow(clippy::print_stdout)]

mod lab;

use lab::{
    ChurnPlan, Lab, LoadProcess, Namespace, Nat, Serve, TcpServer, Terminal, Tunnel, Work, exec, hold,
};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

const TOP: &str = concat!(env!("CARGO_BIN_EXE_wgnat"), " top");

fn at(lab: &Lab, port: u16) -> SocketAddr {
    SocketAddr::new(lab.server_ip(), port)
}

/// A program named `node` that opens and closes a hundred connections a second.
fn churn(lab: &Lab) -> (TcpServer, LoadProcess) {
    let server = TcpServer::start(lab.server(), at(lab, 8080), Serve::Echo);
    let plan = ChurnPlan {
        to: at(lab, 8080),
        rate: 100,
        lifetime: Duration::from_millis(50),
        server_closes: false,
    };
    (
        server,
        LoadProcess::start(lab.client(), "node", None, Work::Churn(plan)),
    )
}

/// What a person keeps for later.
fn show(name: &str, screen: &str) {
    if std::env::var_os("WGNAT_SHOW").is_some() {
        println!("== {name}\n{screen}");
    }
}

/// The rows of the table: those with an address of the lab's server.
fn rows(screen: &str, lab: &Lab) -> Vec<String> {
    let address = format!("{}:", lab.server_ip());
    screen
        .lines()
        .filter(|l| l.contains(&address) && !l.contains('✗') && !l.contains('!'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn destinations_are_shown_sorted_filtered_held_still_and_opened() {
    let Some(lab) = Lab::pair() else { return };
    let (_server, _process) = churn(&lab);
    let other = TcpServer::start(lab.server(), at(&lab, 9000), Serve::Echo);
    let _held = hold(lab.client(), other.address(), 30);
    let terminal = Terminal::open(lab.client(), 80, 24, &[]);
    terminal.line(TOP);

    // Under real load, worst first; the process is named.
    let busy = format!("{}:8080", lab.server_ip());
    let idle = format!("{}:9000", lab.server_ip());
    // A screen may be looked at while it is drawn, so all that is expected of it is awaited together.
    let first_is = |screen: &str, parts: &[&str]| {
        rows(screen, &lab)
            .first()
            .is_some_and(|row| parts.iter().all(|part| row.contains(part)))
    };
    let screen = terminal.await_screen("both destinations and the finding", |s| {
        first_is(s, &[&busy, "node "]) && s.contains(&idle) && s.contains("connections a second to")
    });
    show("destinations", &screen);
    for part in ["wgnat top · ", "1 warning", "opens/s", "q quit"] {
        assert!(screen.contains(part), "{part}:\n{screen}");
    }

    // By held, the smallest first.
    terminal.keys(&["s", "s", "s", "s", "r"]);
    terminal.await_screen("the smallest first", |s| {
        s.contains("held▴") && first_is(s, &[&idle])
    });

    // Only one of them.
    terminal.keys(&["/"]);
    terminal.await_text("Only rows with:");
    terminal.keys(&[":", "9", "0", "0", "0", "Enter"]);
    let screen = terminal.await_screen("one row", |s| {
        s.contains("only rows with “:9000” (1)") && rows(s, &lab).len() == 1 && first_is(s, &[&idle])
    });
    show("filtered", &screen);
    terminal.keys(&["Escape"]);
    terminal.await_screen("all rows", |s| s.contains(&busy) && s.contains(&idle));

    // It stands still: what is held grows by a hundred a second, and the time goes on.
    terminal.keys(&["p"]);
    let paused = terminal.await_screen("a pause", |s| s.contains("PAUSED") && s.contains("q quit"));
    let later = lab.client().sockstat("TCP", "tw") + 200;
    lab::wait_until(Duration::from_secs(60), "200 more in TIME_WAIT", || {
        lab.client().sockstat("TCP", "tw") >= later.min(5000)
    });
    assert_eq!(terminal.screen(), paused);
    terminal.keys(&["p"]);
    terminal.await_screen("going on", |s| !s.contains("PAUSED") && s != paused);

    // One row with its advice.
    terminal.keys(&["r", "Home", "Enter"]);
    let screen = terminal.await_screen("the row in full", |s| {
        s.contains("local ports (") && s.contains(&format!("→ {busy}")) && s.contains("Esc back")
    });
    show("detail", &screen);
    terminal.resize(100, 60);
    let screen = terminal.await_screen("its advice", |s| {
        s.contains("Reuse connections")
            && s.contains("The arithmetic:")
            && s.contains("keepAlive: true, maxSockets:")
    });
    show("detail, whole", &screen);
    terminal.keys(&["Escape"]);

    // A small terminal.
    terminal.resize(40, 12);
    let screen = terminal.await_text("1 Dest 2 Proc 3 Conn 4 Peer 5 Find 6 Src");
    show("small", &screen);
    assert!(
        screen.contains("held▾") && screen.lines().all(|l| l.chars().count() <= 40),
        "{screen}"
    );
    terminal.resize(80, 24);
    terminal.await_text("1 Destinations  2 Processes");

    // The other tabs, and the keys.
    for (key, expected) in [
        ("2", "files"),
        ("3", "entries"),
        ("4", "No WireGuard peer"),
        ("5", "connection-churn"),
        ("6", "sockets"),
        ("?", "sort by the next column"),
    ] {
        terminal.keys(&[key]);
        show(key, &terminal.await_text(expected));
    }
}

/// `stty` of a shell that reads lines and echoes.
fn as_before(terminal: &Terminal<'_>) {
    terminal.line("clear; stty -a | tr -d ';' | tr ' ' '\\n' | grep -xE 'icanon|echo' | tr '\\n' '+'");
    terminal.await_text("icanon+echo+");
}

#[test]
fn the_terminal_is_given_back() {
    let Some(lab) = Lab::lone() else { return };
    let terminal = Terminal::open(lab.client(), 80, 24, &[]);
    for (way, keys) in [
        ("q", vec!["q"]),
        ("Ctrl-C", vec!["C-c"]),
        ("Ctrl-C in a filter", vec!["/", "a", "C-c"]),
    ] {
        terminal.line(&format!("clear; echo before; {TOP}; echo \"$? after\""));
        terminal.await_text("q quit");
        assert!(
            !terminal.screen().contains("before"),
            "it has a screen of its own"
        );
        terminal.keys(&keys);
        let screen = terminal.await_text("0 after");
        assert!(
            screen.contains("before") && !screen.contains("q quit"),
            "{way}: {screen}"
        );
        as_before(&terminal);
    }
    // SIGTERM, as at the end of a session.
    let pid = lab.dir().join("pid");
    terminal.line(&format!(
        "clear; sh -c 'echo $$ > {}; exec {TOP}'; echo \"$? after\"",
        pid.display()
    ));
    terminal.await_text("q quit");
    let pid = std::fs::read_to_string(pid).expect("it was written before top began");
    let mut kill = Command::new("kill");
    kill.args(["-TERM", pid.trim()]);
    exec::run(kill);
    terminal.await_text("0 after");
    as_before(&terminal);
}

#[test]
fn without_a_terminal_it_says_so() {
    let run = |stdin: Stdio, term: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgnat"));
        command.arg("top").stdin(stdin).env("TERM", term);
        exec::output(command)
    };
    let out = run(Stdio::null(), "xterm");
    assert_eq!(out.code, 3);
    assert!(
        out.stderr.contains("top draws on a terminal") && out.stderr.contains("wgnat doctor"),
        "{}",
        out.stderr
    );
    assert_eq!(out.stdout, "");
}

#[test]
fn without_root_it_shows_what_it_can_and_says_what_is_missing() {
    let Some(lab) = Lab::pair() else { return };
    let server = TcpServer::start(lab.server(), at(&lab, 9000), Serve::Echo);
    let _held = hold(lab.client(), server.address(), 30);
    let terminal = Terminal::open(lab.client(), 80, 24, &[]);
    // A copy that everybody may run.
    let copy = lab.dir().join("wgnat");
    std::fs::copy(env!("CARGO_BIN_EXE_wgnat"), &copy).expect("it can be copied");
    terminal.line(&format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups {} top",
        copy.display()
    ));
    let screen = terminal.await_screen("a destination and what is missing", |s| {
        s.contains(&format!("{}:9000", lab.server_ip())) && s.contains("Not observed (6 says why)")
    });
    show("without root", &screen);
    terminal.keys(&["6"]);
    terminal.resize(160, 24);
    let screen = terminal.await_screen("the reason", |s| {
        s.contains("CAP_NET_") && s.contains("unavailable")
    });
    show("sources without root", &screen);
}

#[test]
fn no_colour_where_none_is_wanted() {
    let Some(lab) = Lab::lone() else { return };
    let coloured = |environment: &[(&str, &str)], ns: &Namespace| {
        let terminal = Terminal::open(ns, 80, 24, environment);
        terminal.line(TOP);
        terminal.await_text("q quit");
        terminal.await_screen("the first look", |s| s.contains("watched"));
        let screen = terminal.coloured_screen();
        // By number in the palette, as the drawing library asks for them, or as tmux may write the first eight.
        screen.contains("38;5;") || (1..8).any(|n| screen.contains(&format!("\u{1b}[3{n}m")))
    };
    assert!(coloured(&[], lab.client()), "it has colours otherwise");
    assert!(!coloured(&[("NO_COLOR", "1")], lab.client()));
}

const PANIC: &str = "WGNAT_TEST_PANIC";

/// Not a test: what [`a_panic_gives_the_terminal_back`] runs in a terminal. Passes at once elsewhere.
#[test]
fn panics_with_a_screen() {
    if std::env::var_os(PANIC).is_none() {
        return;
    }
    let _screen = wgnat::cmd::top::Screen::open().expect("it runs in a terminal");
    let observer = std::thread::spawn(|| panic!("an observer fails"));
    assert!(observer.join().is_err());
    // It would be on the shell's screen if that panic had given the terminal back.
    println!("still on a screen of its own");
    panic!("the view fails");
}

#[test]
fn a_panic_gives_the_terminal_back() {
    let Some(lab) = Lab::lone() else { return };
    let terminal = Terminal::open(lab.client(), 120, 50, &[(PANIC, "1")]);
    let exe = std::env::current_exe().expect("a process has an executable");
    terminal.line(&format!(
        "clear; echo before; RUST_BACKTRACE=0 {} panics_with_a_screen --exact --nocapture --test-threads=1; echo \"$? after\"",
        exe.display()
    ));
    let screen = terminal.await_text("101 after");
    assert!(
        screen.contains("before") && screen.contains("the view fails"),
        "{screen}"
    );
    assert!(
        !screen.contains("still on a screen") && !screen.contains("an observer fails"),
        "{screen}"
    );
    as_before(&terminal);
}

#[test]
fn peers_and_source_nat_are_shown() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    tunnel.knock();
    let terminal = Terminal::open(lab.client(), 80, 24, &[]);
    terminal.line(TOP);
    terminal.keys(&["4"]);
    let screen = terminal.await_screen("a peer that is up", |s| {
        s.contains("wg0 ") && s.contains(" up") && s.contains(&format!("{}:", lab.server_ip()))
    });
    show("peers", &screen);
    terminal.keys(&["Enter"]);
    show(
        "a peer",
        &terminal.await_screen("the peer in full", |s| {
            s.contains("AllowedIPs") && s.contains("Handshake")
        }),
    );
    drop(terminal);

    let server = TcpServer::start(lab.server(), at(&lab, 9000), Serve::Echo);
    let _held = hold(lab.client(), server.address(), 30);
    let terminal = Terminal::open(lab.router(), 80, 24, &[]);
    terminal.line(TOP);
    terminal.keys(&["3"]);
    let screen = terminal.await_screen("NAT ports towards the server", |s| {
        let row = |l: &str| l.contains(" → ") && l.contains(":9000") && l.contains(" 30 ");
        s.lines().any(row) && s.contains("TCP established")
    });
    show("conntrack", &screen);
    terminal.keys(&["Enter"]);
    show("a NAT", &terminal.await_text("30 NAT ports"));
}

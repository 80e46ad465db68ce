//! What a confined agent can still do, and what it cannot.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

mod agent;

use agent::Agent;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use wgnat::agent::confine::{Confinement, Reach, Role, Wanted};
use wgnat::observation::Source;

fn is_root() -> bool {
    if nix::unistd::Uid::effective().is_root() {
        return true;
    }
    println!("skipped: needs root");
    false
}

/// What came of each try on a thread that is confined as `role`.
fn tries(role: Role, history: &Path, secret: &Path) -> BTreeMap<&'static str, Result<(), ErrorKind>> {
    let wanted = Wanted {
        sources: Source::ALL.to_vec(),
        write: Some(history.to_owned()),
        ..Wanted::default()
    };
    let (history, secret) = (history.to_owned(), secret.to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
    let other = sleeper.id();
    // Confinement is a thread's own: the test goes on free.
    let confined = std::thread::spawn(move || {
        let confinement = Confinement::begin(wanted);
        assert_eq!(confinement.missing(), [] as [String; 0]);
        confinement.apply(role).unwrap();
        let tried = |done: std::io::Result<()>| done.map_err(|error| error.kind());
        let exec = Command::new("/bin/true").exec();
        BTreeMap::from([
            (
                "read its own",
                tried(std::fs::read("/proc/self/status").map(drop)),
            ),
            ("read another file", tried(std::fs::read(&secret).map(drop))),
            ("read /etc/passwd", tried(std::fs::read("/etc/passwd").map(drop))),
            ("write another file", tried(std::fs::write(&secret, "x"))),
            ("remove another file", tried(std::fs::remove_file(&secret))),
            ("write history", tried(std::fs::write(history.join("h"), "x"))),
            (
                "write a sysctl",
                tried(std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")),
            ),
            ("execute", Err(exec.kind())),
            (
                "start a program",
                tried(Command::new("/bin/true").status().map(drop)),
            ),
            ("connect", tried(TcpStream::connect(at).map(drop))),
            ("start a thread", {
                let started = std::thread::Builder::new().spawn(|| ());
                tried(started.map(|thread| thread.join().unwrap()))
            }),
            ("set the host's name", {
                tried(nix::unistd::sethostname("wgnat-test").map_err(Into::into))
            }),
            (
                "look into another process",
                tried(std::fs::read_link(format!("/proc/{other}/ns/net")).map(drop)),
            ),
        ])
    });
    let tried = confined.join();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    tried.unwrap()
}

fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("history");
    std::fs::create_dir(&history).unwrap();
    let secret = agent::file(dir.path(), "secret", "secret");
    (dir, history, secret)
}

#[test]
fn who_talks_to_strangers_can_read_no_other_file_execute_nothing_and_write_no_sysctl() {
    if !is_root() {
        return;
    }
    let (_dir, history, secret) = place();
    let tries = tries(Role::Http, &history, &secret);
    for (what, came) in &tries {
        let allowed = ["read its own", "start a thread", "write history"].contains(what);
        assert_eq!(came.is_ok(), allowed, "{what}: {came:?}");
        if !allowed {
            assert_eq!(*came, Err(ErrorKind::PermissionDenied), "{what}");
        }
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
}

#[test]
fn observers_write_nothing_and_only_those_that_must_look_into_other_processes() {
    if !is_root() {
        return;
    }
    for source in Source::ALL {
        let (_dir, history, secret) = place();
        let tries = tries(Role::Observer(source), &history, &secret);
        let looks = matches!(source, Source::Processes | Source::WireguardUapi | Source::Bpf);
        for (what, came) in &tries {
            let allowed = match *what {
                "read its own" | "start a thread" => true,
                "read another file" | "read /etc/passwd" | "look into another process" | "connect" => looks,
                _ => false,
            };
            assert_eq!(came.is_ok(), allowed, "{source:?}, {what}: {came:?}");
        }
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    }
}

#[test]
fn whoever_is_to_ask_others_reaches_the_named_ports_and_nobody_else_does() {
    if !is_root() {
        return;
    }
    let named = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, elsewhere) = (named.local_addr().unwrap(), other.local_addr().unwrap());
    let tries = |role: Role| {
        let reach = Reach {
            ports: vec![at.port()],
            resolve: true,
        };
        let wanted = Wanted {
            sources: Source::ALL.to_vec(),
            reach: BTreeMap::from([(Source::Paths, reach)]),
            ..Wanted::default()
        };
        let confined = std::thread::spawn(move || {
            let confinement = Confinement::begin(wanted);
            confinement.apply(role).unwrap();
            let echo = socket2::Socket::new(
                socket2::Domain::IPV4,
                socket2::Type::RAW,
                Some(socket2::Protocol::ICMPV4),
            );
            [
                TcpStream::connect(at).is_ok(),
                TcpStream::connect(elsewhere).is_ok(),
                TcpListener::bind("127.0.0.1:0").is_ok(),
                std::fs::read("/etc/resolv.conf").is_ok(),
                std::fs::read("/etc/passwd").is_ok(),
                echo.is_ok(),
            ]
        });
        confined.join().unwrap()
    };
    assert_eq!(
        tries(Role::Observer(Source::Paths)),
        [true, false, false, true, false, true]
    );
    assert_eq!(tries(Role::Observer(Source::Nat)), [false; 6]);
    assert_eq!(tries(Role::Http), [false; 6]);
}

/// A field of each thread's status, by the thread's name.
fn threads(agent: &Agent, field: &str) -> BTreeMap<String, String> {
    let tasks = format!("/proc/{}/task", agent.child.id());
    let statuses = std::fs::read_dir(tasks).unwrap().map(|task| {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        let get = |name: &str| {
            let line = status
                .lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        (get("Name"), get(field))
    });
    statuses.collect()
}

#[test]
fn each_thread_of_the_agent_has_only_what_it_needs() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("history");
    let agent = Agent::start(&["--store", store.to_str().unwrap(), "--confine", "require"]);
    for (field, expected) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        for (thread, value) in threads(&agent, field) {
            assert_eq!(value, expected, "{field} of {thread}");
        }
    }
    let held = threads(&agent, "CapPrm");
    let bits = |thread: &str| u64::from_str_radix(&held[thread], 16).unwrap();
    let (net_admin, net_raw, search, trace) = (1 << 12, 1 << 13, 1 << 2, 1 << 19);
    let (syslog, bpf) = (1 << 34, 1 << 38 | 1 << 39);
    for (thread, expected) in [
        ("http", 0),
        ("store", 0),
        ("sockets", bpf),
        ("signals", 0),
        ("nat-rules", net_admin),
        ("kernel-log", syslog),
        ("bpf", bpf | search | trace),
        ("routes", 0),
        ("host", 0),
        ("counters", 0),
        ("capture", net_raw),
        ("conntrack", net_admin),
        ("processes", search | trace),
        // The loop starts them anew.
        ("wgnat", net_admin | net_raw | search | trace | syslog | bpf),
    ] {
        assert_eq!(bits(thread), expected, "{thread}: {held:?}");
    }
    for mechanism in ["capabilities", "no_new_privs", "landlock", "seccomp"] {
        let name = format!("wgnat_confinement{{mechanism=\"{mechanism}\"}}");
        assert_eq!(agent.metric(&name), Some(1.0), "{name}");
    }
    let confinement = &agent.get("/api/v1/report").json()["agent"]["confinement"];
    assert_eq!(confinement.as_array().unwrap().len(), 4, "{confinement}");
    // It sees as well as before: no source is blind that was not.
    let report = agent.get("/api/v1/report").json();
    for collector in report["collectors"].as_array().unwrap() {
        assert_ne!(collector["state"], "unavailable", "{collector:#}");
    }
    agent.until("history is written", |agent| {
        agent.metric("wgnat_store_size_bytes").unwrap_or(0.0) > 4096.0
            && agent.metric("wgnat_store_state{state=\"file\"}") == Some(1.0)
    });
}

#[test]
fn another_user_than_root_sees_as_much() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::chown(dir.path(), Some(65534.into()), None).unwrap();
    let store = dir.path().join("history");
    let agent = Agent::start(&["--store", store.to_str().unwrap(), "--user", "nobody"]);
    for (thread, uid) in threads(&agent, "Uid") {
        assert_eq!(uid.split_whitespace().next(), Some("65534"), "{thread}");
    }
    let report = agent.get("/api/v1/report").json();
    for collector in report["collectors"].as_array().unwrap() {
        assert_ne!(collector["state"], "unavailable", "{collector:#}");
    }
    let said = agent::refusal(&["--listen", "127.0.0.1:0", "--user", "nobody-of-this-name"]);
    assert!(said.contains("there is no user"), "{said}");
}

#[test]
fn without_any_privilege_it_sees_what_it_may_and_says_what_it_may_not() {
    if !is_root() {
        return;
    }
    // Where every user can execute it.
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("wgnat");
    std::fs::copy(env!("CARGO_BIN_EXE_wgnat"), &program).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            "--bounding-set=-all",
            "--inh-caps=-all",
        ])
        .arg(&program)
        .arg("agent");
    let agent = Agent::of(command, agent::free_port());
    let report = agent.get("/api/v1/report").json();
    let state = |name: &str| {
        let collectors = report["collectors"].as_array().unwrap();
        let found = collectors.iter().find(|c| c["name"] == name).unwrap();
        (
            found["state"].as_str().unwrap().to_owned(),
            found["reason"].to_string(),
        )
    };
    assert_eq!(state("sockets").0, "ok");
    let (captured, reason) = state("capture");
    assert_eq!(captured, "unavailable");
    assert!(reason.contains("CAP_NET_RAW"), "{reason}");
    let confinement = report["agent"]["confinement"].as_array().unwrap();
    assert!(confinement.contains(&"seccomp".into()), "{confinement:?}");
    assert_eq!(
        agent.metric("wgnat_collector_restarts_total{collector=\"sockets\"}"),
        None
    );
    agent.until("capture is tried again", |agent| {
        agent.metric("wgnat_collector_restarts_total{collector=\"capture\"}") >= Some(1.0)
    });
}

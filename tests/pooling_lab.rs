//! The pooling advice is true: real programs use their ports up, what doctor advises is pasted into them as it stands, and the
//! same load then runs on the ports that were foretold.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used, clippy::unwrap_used)]
// What was measured is for the person who reads the output.
#![allow(clippy::print_stdout)]

mod lab;
mod truth;

use lab::{BatchServer, Lab, Serve, TcpServer, exec, wait};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use truth::{Look, Verdict};

/// Requests at a time.
const BATCH: usize = 12;
/// Local ports that the client has.
const PORTS: u16 = 300;
/// Between two rounds: some hundred requests a second.
const PAUSE_MS: &str = "80";
/// A starved machine makes a few rounds a second.
const PATIENCE: Duration = Duration::from_secs(90);

/// A program in one of the languages, in two versions: as it is written first, and with the advice pasted.
struct Client {
    runtime: &'static str,
    /// Gives the command that runs it.
    make: fn(&Path, Option<&str>) -> Command,
}

/// What a running client has told last.
struct Running {
    child: Child,
    told: Arc<Mutex<Value>>,
}

impl Running {
    fn start(client: &Client, lab: &Lab, url: &str, snippet: Option<&str>) -> Self {
        let made = (client.make)(lab.dir(), snippet);
        let mut command = lab.client().command(made.get_program());
        command
            .args(made.get_args())
            .args([url, &BATCH.to_string(), PAUSE_MS]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().to_ascii_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        if let Some(snippet) = snippet {
            command.env("SNIPPET", snippet);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", client.runtime));
        let told = Arc::new(Mutex::new(Value::Null));
        let theirs = Arc::clone(&told);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *theirs.lock().unwrap() = serde_json::from_str(&line).unwrap();
            }
        });
        Self { child, told }
    }

    fn told(&self) -> Value {
        self.told.lock().unwrap().clone()
    }

    fn number(&self, name: &str) -> u64 {
        self.told()[name].as_u64().unwrap_or(0)
    }

    /// Waits until so many requests are done or failed.
    #[track_caller]
    fn await_number(&self, name: &str, least: u64) {
        let what = format!("{least} requests {name}");
        wait::wait_until(PATIENCE, &what, || self.number(name) >= least);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn place(lab: &Lab) -> SocketAddr {
    let last = 40_000 + PORTS - 1;
    lab.client().set_port_range(40_000, last);
    SocketAddr::new(lab.server_ip(), 8080)
}

/// Whatever the finding is by then, it is about this destination and begins with the pool.
fn advice(verdict: &Verdict, to: SocketAddr) -> Value {
    let about =
        |f: &&Value| f["subject"]["address"] == to.ip().to_string() && f["subject"]["port"] == to.port();
    let findings = verdict.report["findings"].as_array().unwrap();
    let finding = findings
        .iter()
        .find(about)
        .unwrap_or_else(|| panic!("nothing about {to}: {}", verdict.everything()));
    finding.clone()
}

#[track_caller]
fn the_advice_holds(client: &Client) {
    let Some(lab) = Lab::pair() else { return };
    let to = place(&lab);
    let server = BatchServer::start(lab.server(), to, BATCH);
    let doctor = Look::at(&lab, lab.client())
        .args(&["--count-connects"])
        .duration("120s")
        .start()
        .await_watching();
    let churning = Running::start(client, &lab, &server.url(), None);
    // Two rounds that found no port.
    churning.await_number("failed", 2 * BATCH as u64);
    let failures = churning.told();
    assert!(
        failures["errors"]["EADDRNOTAVAIL"].as_u64() >= Some(1),
        "{failures}"
    );
    let verdict = doctor.enough();
    drop(churning);
    let finding = advice(&verdict, to);
    let everything = verdict.everything();
    assert_eq!(
        finding["subject"]["process"]["runtime"], client.runtime,
        "{everything}"
    );
    let fix = &finding["fixes"][0];
    let snippet = fix["snippet"]
        .as_str()
        .unwrap_or_else(|| panic!("no snippet: {everything}"));
    let ports = fix["expect"]["ports_in_use"]
        .as_u64()
        .expect("it foretells the ports");
    let most = fix["expect"]["ports_at_most"].as_u64().expect("it says the most");
    assert!(snippet.contains(&most.to_string()), "{snippet}");

    // The same again, on other namespaces: the ports of these stay in TIME_WAIT for a minute.
    let Some(lab) = Lab::pair() else { return };
    let to = place(&lab);
    let server = BatchServer::start(lab.server(), to, BATCH);
    // The first paragraph: what follows is for other libraries.
    let snippet = snippet.split("\n\n").next().unwrap();
    let pooled = Running::start(client, &lab, &server.url(), Some(snippet));
    let mut held = 0;
    wait::wait_until(PATIENCE, "twice as many requests as there are ports", || {
        held = held.max(lab.client().sockstat("TCP", "inuse") + lab.client().sockstat("TCP", "tw"));
        pooled.number("done") >= 2 * u64::from(PORTS)
    });
    assert_eq!(pooled.number("failed"), 0, "{}", pooled.told());
    println!(
        "{}: {ports} ports foretold, {most} at most; {held} held",
        client.runtime
    );
    assert!(
        held <= most,
        "{held} ports were held, and {most} at most were foretold"
    );
    assert!(
        held * 4 >= ports * 3 && held * 4 <= ports * 5,
        "{held} ports were held, and {ports} were foretold; the advice was: {fix:#}"
    );
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/clients")
}

#[test]
fn node_with_the_agent_as_given() {
    the_advice_holds(&Client {
        runtime: "node",
        make: |_, _| {
            let mut command = Command::new("node");
            command.arg(clients().join("churn.js"));
            command
        },
    });
}

#[test]
fn python_with_the_session_as_given() {
    the_advice_holds(&Client {
        runtime: "python",
        make: |_, _| {
            let mut command = Command::new("python3");
            command.arg(clients().join("churn.py"));
            command
        },
    });
}

#[test]
fn go_with_the_transport_as_given() {
    the_advice_holds(&Client {
        runtime: "go",
        make: |dir, snippet| Command::new(build_go(dir, snippet)),
    });
}

/// Builds the Go program, with the snippet in place of its client.
fn build_go(dir: &Path, snippet: Option<&str>) -> PathBuf {
    let source = std::fs::read_to_string(clients().join("churn.go")).unwrap();
    let marked = source
        .lines()
        .find(|line| line.ends_with("// SNIPPET"))
        .expect("the line is marked");
    let source = snippet.map_or_else(|| source.clone(), |code| source.replace(marked, code));
    let (file, program) = (dir.join("churner.go"), dir.join("churner"));
    std::fs::write(&file, source).unwrap();
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(&file);
    build
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "")
        .env("GOCACHE", std::env::temp_dir().join("wgnat-go-cache"));
    // Debian's Go of some releases compiles its library first.
    let built = exec::output_within(build, None, Duration::from_secs(300));
    assert_eq!(built.code, 0, "{}", built.stderr);
    program
}

/// A script in a loop, as cron, CGI or a deploy hook is: each process opens one connection and ends.
const ONE_EACH: &str = "while :; do
    bash -c 'exec 3<>/dev/tcp/$HOST/8080 && printf hello >&3 && read -r -N 5 <&3' || exit 1
done";

#[test]
fn processes_that_end_at_once_are_not_told_to_pool() {
    let Some(lab) = Lab::pair() else { return };
    let to = SocketAddr::new(lab.server_ip(), 8080);
    let server = TcpServer::start(lab.server(), to, Serve::Echo);
    let doctor = Look::at(&lab, lab.client())
        .args(&["--count-connects"])
        .duration("120s")
        .start()
        .await_watching();
    let mut script = lab.client().command("sh");
    script
        .args(["-c", ONE_EACH])
        .env("HOST", lab.server_ip().to_string());
    let mut script = Script(script.stdin(Stdio::null()).spawn().expect("there is a shell"));
    // Enough processes, over enough looks, to be a habit.
    let watch = lab::Watch::start();
    wait::wait_until(PATIENCE, "a hundred processes", || {
        assert!(
            script.0.try_wait().expect("it is our child").is_none(),
            "the script failed"
        );
        server.accepted() >= 100 && watch.elapsed() >= Duration::from_secs(5)
    });
    let verdict = doctor.enough();
    let finding = advice(&verdict, to);
    let everything = verdict.everything();
    assert_eq!(finding["code"], "connection-churn", "{everything}");
    let fix = &finding["fixes"][0];
    assert_eq!(
        fix["title"], "Keep the connections outside of the short-lived processes",
        "{everything}"
    );
    assert!(
        fix["snippet"].as_str().is_some_and(|s| s.contains("keepalive")),
        "{everything}"
    );
    assert!(
        fix["why"].as_str().is_some_and(|s| s.contains("1 at most each")),
        "{everything}"
    );
}

/// A program of the lab's own in Python, with arguments.
fn python(ns: &lab::Namespace, file: &str, args: &[&str]) -> Script {
    let mut command = ns.command("python3");
    command.arg(clients().join(file)).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Script(command.spawn().expect("there is Python"))
}

/// What doctor says of a pool of connections, each wanted each `pause` seconds, to a server that closes what is idle for 2.5 s.
#[track_caller]
fn idle_pool(connections: &str, pause: &str, watched: u64) {
    let Some(lab) = Lab::pair() else { return };
    let to = SocketAddr::new(lab.server_ip(), 8080);
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    let _server = python(lab.server(), "idle_server.py", &[&host, &port, "2.5"]);
    wait::wait_until(PATIENCE, "the server to listen", || {
        lab.client().run(|| std::net::TcpStream::connect(to)).is_ok()
    });
    let doctor = Look::at(&lab, lab.client())
        .args(&["--count-connects"])
        .duration("120s")
        .start()
        .await_watching();
    let _pool = python(lab.client(), "idle_pool.py", &[&host, &port, connections, pause]);
    // Connections have been closed and opened anew, over enough looks to be a habit.
    let watch = lab::Watch::start();
    wait::wait_until(PATIENCE, "the pool to go round", || {
        watch.elapsed() >= Duration::from_secs(watched)
    });
    doctor.interrupt();
    let verdict = doctor.finish();
    let finding = advice(&verdict, to);
    let everything = verdict.everything();
    assert_eq!(finding["code"], "connection-churn", "{everything}");
    assert_eq!(
        finding["evidence"]["closed_first_by"], "the other side",
        "{everything}"
    );
    // The pool is there already: what is wrong is that two time-outs do not fit.
    let fix = &finding["fixes"][0];
    assert!(
        fix["title"]
            .as_str()
            .is_some_and(|title| title.contains("idle time-outs")),
        "{everything}"
    );
    let texts = finding.to_string();
    assert!(!texts.contains("leak"), "{everything}");
}

#[test]
fn a_pool_whose_server_closes_idle_connections_is_told_to_fit_the_time_outs() {
    idle_pool("50", "3.5", 20);
}

#[test]
fn a_pool_that_notices_late_that_its_connections_were_closed_is_no_leak() {
    idle_pool("100", "7", 40);
}

/// Destinations of the fan-out.
const PLACES: u8 = 48;

#[track_caller]
fn fan_out(hot: bool) -> Option<(Verdict, SocketAddr)> {
    let lab = Lab::pair()?;
    let addresses: Vec<String> = (1..=PLACES).map(|n| format!("10.66.0.{n}")).collect();
    for address in &addresses {
        lab.server().ip(&[&format!("addr add {address}/32 dev lo")]);
    }
    lab.client()
        .ip(&[&format!("route add 10.66.0.0/24 via {}", lab.server_ip())]);
    let server = TcpServer::start(lab.server(), "0.0.0.0:8080".parse().unwrap(), Serve::Echo);
    let doctor = Look::at(&lab, lab.client())
        .args(&["--count-connects"])
        .duration("120s")
        .start()
        .await_watching();
    let mut args = vec!["8080", "40", if hot { "1" } else { "0" }];
    args.extend(addresses.iter().map(String::as_str));
    let _program = python(lab.client(), "fan_out.py", &args);
    let watch = lab::Watch::start();
    wait::wait_until(PATIENCE, "each place to be called a few times", || {
        server.accepted() >= 300 && watch.elapsed() >= Duration::from_secs(6)
    });
    doctor.interrupt();
    Some((
        doctor.finish(),
        SocketAddr::new(addresses[0].parse().unwrap(), 8080),
    ))
}

#[test]
fn a_fan_out_with_one_busy_place_is_told_both() {
    let Some((verdict, busy)) = fan_out(true) else {
        return;
    };
    let finding = advice(&verdict, busy);
    let everything = verdict.everything();
    assert_eq!(finding["code"], "connection-churn", "{everything}");
    let fixes = finding["fixes"].as_array().unwrap();
    let titled = |words: &str| {
        fixes
            .iter()
            .any(|f| f["title"].as_str().is_some_and(|t| t.contains(words)))
    };
    assert!(titled("Reuse connections"), "{everything}");
    assert!(titled("fan-out"), "{everything}");
    assert!(finding.to_string().contains("48 destinations"), "{everything}");
}

#[test]
fn a_fan_out_that_calls_each_place_now_and_then_is_not_told_to_pool() {
    let Some((verdict, _)) = fan_out(false) else {
        return;
    };
    verdict.nothing_wrong();
}

/// A script that ends with its handle.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! `wgnat report` against real faults that begin, grow and end, read from the history of a real agent and from fresh samples.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod agent;
mod lab;

use agent::{Agent, file};
use lab::{Lab, Namespace, Serve, TcpServer};
use serde_json::Value;
use socket2::SockRef;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use wgnat::sys::clock;

/// The machine is shared: what takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(110);

/// The share of a destination's ports that is held.
const USED: &str = "wgnat_destination_ports_used_ratio";

/// What a run left.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("no JSON ({e}): {}\n{}", self.stdout, self.stderr))
    }
}

#[track_caller]
fn run(mut command: Command) -> Said {
    let out = command.stdin(Stdio::null()).output().expect("it can be run");
    Said {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8(out.stdout).expect("UTF-8"),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// Codes of one kind of change.
fn codes(report: &Value, kind: &str) -> Vec<String> {
    let list = report["changes"][kind].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|c| c["code"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Connections that are gone at once when they are dropped, without TIME_WAIT.
#[track_caller]
fn hold(ns: &Namespace, to: SocketAddr, count: usize) -> Vec<TcpStream> {
    ns.run(move || {
        (0..count)
            .map(|_| {
                let stream = TcpStream::connect(to).expect("the server listens");
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                stream
            })
            .collect()
    })
}

/// A host with two hundred ports towards a server, watched by an agent with history.
struct Watched {
    lab: Lab,
    agent: Agent,
    to: SocketAddr,
    store: PathBuf,
    _server: TcpServer,
}

impl Watched {
    fn start() -> Option<Self> {
        let lab = Lab::pair()?;
        let to = SocketAddr::new(lab.server_ip(), 7000);
        let server = TcpServer::start(lab.server(), to, Serve::Echo);
        lab.client().set_port_range(40_000, 40_199);
        let store = lab.dir().join("history.db");
        let config = file(
            lab.dir(),
            "wgnat.toml",
            "[agent]\nevaluate_every = \"1s\"\nbpf = false\n",
        );
        let mut command = lab.wgnat(lab.client());
        command
            .arg("agent")
            .arg("--store")
            .arg(&store)
            .arg("--config")
            .arg(config);
        let inside = lab.client().clone();
        let connect = move |at| inside.run(move || TcpStream::connect(at));
        let at = "127.0.0.1:9986".parse().unwrap();
        let mut agent = Agent::begun(command, at, Box::new(connect));
        agent.until_ready();
        let watched = Self {
            lab,
            agent,
            to,
            store,
            _server: server,
        };
        // The first batch is written after some seconds.
        watched.until("an agent has written", |report| {
            report["period"]["reaches"].is_string()
        });
        Some(watched)
    }

    fn report(&self, extra: &[&str]) -> Said {
        let mut command = self.lab.wgnat(self.lab.client());
        command.args(["report", "--store"]).arg(&self.store).args(extra);
        run(command)
    }

    /// Waits until a report, which is not remembered, is as `wanted`.
    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = clock::instant() + PATIENCE;
        loop {
            let said = self.report(&["--json", "--no-remember"]);
            if let Ok(report) = serde_json::from_str(&said.stdout)
                && wanted(&report)
            {
                return report;
            }
            assert!(
                clock::instant() < end,
                "not in time: {what}: {}\n{}\n{}",
                said.stdout,
                said.stderr,
                self.agent.log()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

#[test]
fn a_fault_is_new_then_worse_then_better_since_the_last_report() {
    let Some(watched) = Watched::start() else {
        return;
    };
    let calm = watched.report(&["--json"]);
    assert_eq!(calm.code, 0, "{}{}", calm.stdout, calm.stderr);
    let report = calm.json();
    assert_eq!(report["status"], "ok");
    assert_eq!(report["changes"]["compared_with"]["with"], "history");
    assert!(report["host"]["kernel"].is_string(), "{report:#}");
    let quiet = watched.report(&["--only-changes"]);
    assert_eq!((quiet.code, quiet.stdout.as_str()), (0, ""), "{}", quiet.stderr);

    let _first = hold(watched.lab.client(), watched.to, 150);
    watched.until("it is new", |r| codes(r, "new") == ["ports-low"]);
    let new = watched.report(&["--json", "--only-changes"]);
    assert_eq!(new.code, 1, "{}{}", new.stdout, new.stderr);
    let report = new.json();
    assert_eq!(report["changes"]["compared_with"]["with"], "report");
    assert_eq!(report["findings"][0]["code"], "ports-low");
    assert_eq!(report["findings"][0]["evidence"]["available"], 200, "{report:#}");
    assert_eq!(report["changes"]["new"][0]["severity"], "warning");
    let same = watched.report(&["--only-changes"]);
    assert_eq!((same.code, same.stdout.as_str()), (1, ""), "{}", same.stderr);

    let second = hold(watched.lab.client(), watched.to, 42);
    watched.until("it is worse", |r| codes(r, "worse") == ["ports-low"]);
    let worse = watched.report(&["--json"]);
    assert_eq!(worse.code, 2, "{}", worse.stdout);
    let change = &worse.json()["changes"]["worse"][0];
    assert_eq!(change["severity"], "critical");
    assert_eq!(change["severity_was"], "warning");
    assert_eq!(watched.report(&["--only-changes", "--fail-on", "never"]).code, 0);

    drop(second);
    watched.until("it is better", |r| codes(r, "better") == ["ports-low"]);
    let text = watched.report(&[]);
    assert_eq!(text.code, 1);
    assert!(text.stdout.contains("Since the last report, "), "{}", text.stdout);
    assert!(text.stdout.contains("v better"), "{}", text.stdout);
    assert!(text.stdout.contains("was critical"), "{}", text.stdout);
    for line in text.stdout.lines() {
        // Commands are never broken.
        assert!(line.chars().count() <= 80 || line.starts_with("    "), "{line}");
    }
}

#[test]
fn a_fault_that_ends_is_gone_and_one_in_between_came_and_went() {
    let Some(watched) = Watched::start() else {
        return;
    };
    let held = hold(watched.lab.client(), watched.to, 150);
    watched.until("it is found, and its number was kept", |r| {
        let kept = |t: &Value| t["metric"] == USED && t["greatest"].as_f64() >= Some(0.7);
        let trends = r["period"]["trends"].as_array();
        codes(r, "new") == ["ports-low"] && trends.is_some_and(|all| all.iter().any(kept))
    });
    // This one remembers in another place that nothing was there.
    let elsewhere = watched.lab.dir().join("elsewhere.json");
    std::fs::write(
        &elsewhere,
        format!(
            "{{\"schema\":\"wgnat.report-state/1\",\"at\":\"{}\",\"status\":\"ok\",\"findings\":[]}}",
            watched.report(&["--json", "--no-remember"]).json()["period"]["episodes"][0]["from"]
                .as_str()
                .unwrap()
        ),
    )
    .unwrap();
    assert_eq!(watched.report(&["--json"]).code, 1);
    drop(held);
    watched.until("it is gone", |r| codes(r, "gone") == ["ports-low"]);
    let between = watched.report(&["--json", "--no-remember", "--state", elsewhere.to_str().unwrap()]);
    assert_eq!(
        codes(&between.json(), "passed"),
        ["ports-low"],
        "{}",
        between.stdout
    );
    let gone = watched.report(&["--json", "--only-changes"]);
    assert_eq!(gone.code, 0, "{}{}", gone.stdout, gone.stderr);
    let report = gone.json();
    assert_eq!(codes(&report, "gone"), ["ports-low"]);
    assert!(report["changes"]["gone"][0]["over_at"].is_string(), "{report:#}");
    assert_eq!(report["findings"].as_array().unwrap().len(), 0);
    let quiet = watched.report(&["--only-changes"]);
    assert_eq!((quiet.code, quiet.stdout.as_str()), (0, ""), "{}", quiet.stderr);
    // Whoever looks back over the whole time sees it, and how the number moved.
    let whole = watched.report(&["--json", "--no-remember"]).json();
    let episode = &whole["period"]["episodes"][0];
    assert_eq!(episode["code"], "ports-low", "{whole:#}");
    assert!(episode["to"].is_string());
    let ratio = whole["period"]["trends"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["metric"] == USED)
        .unwrap_or_else(|| panic!("{whole:#}"));
    assert!(ratio["greatest"].as_f64().unwrap() >= 0.7, "{ratio:#}");
    let html = watched.report(&["--format", "html", "--no-remember"]).stdout;
    keep_page(&html);
    assert!(html.contains("<svg class=\"chart\""), "{html}");
    assert!(!html.contains("<script"), "{html}");
    let markdown = watched.report(&["--format", "markdown", "--no-remember"]).stdout;
    assert!(markdown.contains("## Over this time"), "{markdown}");
    let nagios = watched.report(&["--format", "nagios", "--no-remember"]).stdout;
    assert!(nagios.starts_with("WGNAT OK - no problem "), "{nagios}");
    assert!(nagios.contains(" new=0;;;0; "), "{nagios}");
    assert!(nagios.contains(" time_wait=0;;;0;"), "{nagios}");
    // Nothing is held towards it now: that is no number, and surely not the last one that there was.
    assert!(!nagios.contains("ports_busiest_destination"), "{nagios}");
    a_killed_agent_is_not_health(watched);
}

/// For whoever wants to look at it.
fn keep_page(html: &str) {
    if let Some(path) = std::env::var_os("WGNAT_KEEP_PAGE") {
        std::fs::write(path, html).unwrap();
    }
}

/// The same history, long after its agent has died.
fn a_killed_agent_is_not_health(mut watched: Watched) {
    watched.agent.child.kill().unwrap();
    watched.agent.wait();
    let connection = rusqlite::Connection::open(&watched.store).unwrap();
    let hour = 3_600_i64 * 1_000_000_000;
    connection
        .execute("UPDATE runs SET last = last - ?1, began = began - ?1", [hour])
        .unwrap();
    drop(connection);
    let said = watched.report(&["--json", "--fail-on", "never"]);
    assert_eq!(said.code, 3, "{}", said.stdout);
    let report = said.json();
    assert_eq!(report["status"], "unknown");
    assert_eq!(report["period"]["stale"], true);
    // That nobody watches is told once, and again only when that changes.
    let quiet = watched.report(&["--only-changes"]);
    assert_eq!((quiet.code, quiet.stdout.as_str()), (3, ""), "{}", quiet.stderr);
    let text = watched.report(&[]).stdout;
    assert!(text.contains("no agent has watched for 1 h"), "{text}");
}

#[test]
fn without_a_history_a_fresh_sample_is_compared_with_the_last_one() {
    let Some(lab) = Lab::pair() else { return };
    let to = SocketAddr::new(lab.server_ip(), 7000);
    let _server = TcpServer::start(lab.server(), to, Serve::Echo);
    lab.client().set_port_range(40_000, 40_199);
    let report = |extra: &[&str]| {
        let mut command = lab.wgnat(lab.client());
        command
            .args(["report", "--duration", "0", "--no-bpf"])
            .args(extra);
        run(command)
    };
    let held = hold(lab.client(), to, 150);
    let first = report(&["--json"]);
    assert_eq!(first.code, 1, "{}{}", first.stdout, first.stderr);
    let first = first.json();
    assert_eq!(first["changes"]["compared_with"], Value::Null);
    assert_eq!(codes(&first, "new"), ["ports-low"]);
    assert_eq!(first["period"], Value::Null);
    let state = lab.dir().join(".local/state/wgnat/report.json");
    assert!(state.is_file(), "it is remembered under the user's home");
    let same = report(&["--only-changes"]);
    assert_eq!((same.code, same.stdout.as_str()), (1, ""), "{}", same.stderr);
    drop(held);
    let page = lab.dir().join("report.txt");
    let gone = report(&["--only-changes", "--output", page.to_str().unwrap()]);
    assert_eq!((gone.code, gone.stdout.as_str()), (0, ""), "{}", gone.stderr);
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("- gone") && text.contains("ports-low"), "{text}");
    // Nothing changed since: the file stays as it is.
    let quiet = report(&["--only-changes", "--output", page.to_str().unwrap()]);
    assert_eq!(quiet.code, 0, "{}", quiet.stderr);
    assert_eq!(std::fs::read_to_string(&page).unwrap(), text);
    // A history that is not there yet.
    let store = lab.dir().join("none.db");
    let fresh = report(&["--json", "--store", store.to_str().unwrap()]);
    assert!(fresh.stderr.contains("there is no history"), "{}", fresh.stderr);
    assert_eq!(fresh.json()["period"], Value::Null);
}

#[test]
fn a_bundle_names_nobody_unless_told_to() {
    let Some(watched) = Watched::start() else {
        return;
    };
    let _held = hold(watched.lab.client(), watched.to, 150);
    watched.until("it is found", |r| codes(r, "new") == ["ports-low"]);
    let secrets = [
        watched.lab.server_ip().to_string(),
        "report-".to_owned() + &std::process::id().to_string(),
    ];
    let at = watched.lab.dir().join("bundle.tar.gz");
    let of = |extra: &[&str]| {
        let mut args = vec![
            "--duration",
            "1s",
            "--no-remember",
            "--bundle",
            at.to_str().unwrap(),
        ];
        args.extend(extra);
        let said = watched.report(&args);
        assert_eq!(said.code, 1, "{}", said.stderr);
        assert!(
            said.stdout.contains("ports-low"),
            "the report is told all the same"
        );
        (said.stderr, unpacked(&at))
    };
    let (listed, files) = of(&[]);
    assert!(listed.contains("anonymised"), "{listed}");
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "README.txt",
            "report.json",
            "events.jsonl",
            "look.json",
            "observations.jsonl",
            "versions.json"
        ]
    );
    for (name, text) in &files {
        assert!(listed.contains(name.as_str()), "{name} is not listed: {listed}");
        assert!(!text.is_empty(), "{name}");
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{name} tells {secret}: {text}");
        }
    }
    let report: Value = serde_json::from_str(&files[1].1).unwrap();
    assert_eq!(report["findings"][0]["code"], "ports-low");
    // What was observed can be judged again.
    let record = watched.lab.dir().join("observations.jsonl");
    std::fs::write(&record, &files[4].1).unwrap();
    let mut command = watched.lab.wgnat(watched.lab.client());
    command.args(["doctor", "--json", "--replay"]).arg(&record);
    assert_eq!(run(command).json()["findings"][0]["code"], "ports-low");
    let (listed, files) = of(&["--bundle-raw"]);
    assert!(listed.contains("NOT anonymised"), "{listed}");
    assert!(files[1].1.contains(&secrets[0]), "raw is raw");
}

/// The files of a bundle, by name.
fn unpacked(path: &Path) -> Vec<(String, String)> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (name.strip_prefix("wgnat-bundle/").unwrap().to_owned(), text)
        })
        .collect()
}

//! `wgnat path --store`: what is usual by the agent's history, read beside an agent that writes it.
#![allow(clippy::expect_used)] // a panic is how a test fails
#![allow(clippy::disallowed_methods)] // a test is an edge

mod agent;
mod lab;
mod truth;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use agent::Agent;
use lab::{Lab, UdpReflector, UdpRelay};
use truth::{Look, Verdict};
use wgnat::store::{self, Limits, Point, Record, Store, Writer};
use wgnat::time::{Span, Timestamp};

/// Half an hour of points as the agent writes them, of round trips of `rtt` seconds each. The writer still holds the file,
/// as a running agent does.
fn history(file: &Path, target: &str, rtt: f64) -> Writer {
    let limits = Limits {
        bytes: 64 * 1024 * 1024,
        age: Span::from_secs(86_400),
    };
    let history = Store::open(file).expect("it is new");
    let (writer, reader) = store::start(history, limits, || ()).expect("a thread");
    let labels = serde_json::json!({ "method": "udp", "target": target }).to_string();
    let seconds = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    let now = Timestamp::from_secs(i64::try_from(seconds).expect("a time"));
    let point = |name, value| Point {
        name,
        labels: labels.clone(),
        value,
    };
    for n in 0..180 {
        writer.write(Record::Samples {
            at: now.before(Span::from_secs(1800 - n * 10)),
            points: vec![
                point(store::paths::RTT, rtt),
                point(store::paths::JITTER, 0.001),
                point(store::paths::LOSS, 0.0),
            ],
        });
    }
    lab::wait_until(Duration::from_secs(30), "the history to be written", || {
        let query = store::SeriesQuery {
            name: Some(store::paths::LOSS.to_owned()),
            labels: None,
            from: now.before(Span::from_secs(3600)),
            to: now,
            points: 1000,
        };
        reader
            .series_json(&query)
            .is_ok_and(|json| json.matches("],[").count() > 170)
    });
    writer
}

#[track_caller]
fn path(lab: &Lab, args: &[&str]) -> Verdict {
    let mut command = lab.wgnat(lab.client());
    command
        .args(["-v", "path", "--json", "--timeout", "8s"])
        .args(args);
    Look::with(command).run()
}

/// An echo service behind a relay that takes 150 ms each way.
fn slow_echo(lab: &Lab) -> (UdpReflector, UdpRelay) {
    let echo = SocketAddr::new(lab.server_ip(), 7000);
    let service = UdpReflector::start(lab.server(), echo);
    let gate = SocketAddr::new(lab.client_at().gateway().v4.into(), 7001);
    let relay = UdpRelay::start(lab.router(), gate, echo, &[Duration::from_millis(150)]);
    (service, relay)
}

#[test]
fn slower_than_the_history_is_worse_than_usual_and_as_slow_is_nothing() {
    let Some(lab) = Lab::routed() else { return };
    let (_service, relay) = slow_echo(&lab);
    let target = format!("udp:{}", relay.address());
    let file = |name: &str| -> PathBuf { lab.dir().join(name) };
    let (fast, slow) = (file("fast.db"), file("slow.db"));
    let _agents = [history(&fast, &target, 0.012), history(&slow, &target, 5.0)];
    let text = |file: &Path| file.to_str().expect("a path").to_owned();

    let worse = path(&lab, &[&target, "--store", &text(&fast)]);
    let found = worse.says_only(&["path-latency"]);
    found
        .is("warning", "likely")
        .evidence("usual_rtt_seconds", 0.012)
        .measures("rtt_median_seconds", 0.15..);
    let summary = found.value["summary"].as_str().expect("text");
    // The history reaches back from when it was written, and it is read a while later.
    let over = summary
        .split_once("slower than usual: usual 12 ms (p50 over ")
        .and_then(|(_, rest)| rest.split_once(" min), now "));
    let minutes = over.and_then(|(minutes, _)| minutes.parse::<u32>().ok());
    assert!(minutes.is_some_and(|m| (30..60).contains(&m)), "{summary}");
    let usual = &worse.report["paths"][0]["usual"];
    assert_eq!(
        (&usual["rtt_p50_seconds"], &usual["loss_share"]),
        (&0.012.into(), &0.0.into())
    );

    let same = path(&lab, &[&target, "--store", &text(&slow)]);
    same.nothing_wrong();
    assert_eq!(same.code, 0);

    // Less of it than makes a usual, or none of this target: said, and nothing compared.
    let fast = text(&fast);
    for args in [
        [&target, "--store", &fast, "--since", "2min"],
        ["tcp:127.0.0.1:9", "--store", &fast, "--since", "24h"],
    ] {
        let unknown = path(&lab, &args);
        unknown.nothing_wrong();
        assert!(
            unknown.stderr.contains("too little about"),
            "{}",
            unknown.everything()
        );
        assert!(unknown.report["paths"][0]["usual"].is_null());
    }
}

/// An agent at the client with this configuration.
fn agent_at(lab: &Lab, config: &Path) -> Agent {
    let mut command = lab.wgnat(lab.client());
    command.arg("--config").arg(config).arg("agent");
    let inside = lab.client().clone();
    let at = SocketAddr::from(([127, 0, 0, 1], 9986));
    let mut agent = Agent::begun(
        command,
        at,
        Box::new(move |at| inside.run(move || TcpStream::connect(at))),
    );
    agent.until_ready();
    agent
}

/// Points that `file` has of the metric with the fewest, for the target that has the fewest.
fn points(file: &Path, targets: usize) -> i64 {
    let Ok(history) = store::open_readonly(file) else {
        return 0;
    };
    let mut fewest = i64::MAX;
    for metric in [store::paths::RTT, store::paths::LOSS] {
        let query = "SELECT COUNT(*) FROM samples JOIN series ON series.id = samples.series \
                     WHERE name = ?1 AND step = (SELECT MIN(step) FROM samples) GROUP BY series.id";
        let Ok(mut statement) = history.prepare(query) else {
            return 0;
        };
        let counts: Vec<i64> = statement
            .query_map([metric], |row| row.get(0))
            .and_then(Iterator::collect)
            .unwrap_or_default();
        if counts.len() < targets {
            return 0;
        }
        fewest = counts.into_iter().fold(fewest, i64::min);
    }
    fewest
}

#[test]
fn what_an_agent_wrote_is_what_is_usual() {
    let Some(lab) = Lab::routed() else { return };
    let echo = SocketAddr::new(lab.server_ip(), 7000);
    let _service = UdpReflector::start(lab.server(), echo);
    let gate = SocketAddr::new(lab.client_at().gateway().v4.into(), 7001);
    let relay = UdpRelay::start(lab.router(), gate, echo, &[Duration::ZERO]);
    let targets = [format!("udp:{gate}"), lab.server_ip().to_string()];
    let history = lab.dir().join("history.db");
    let config = lab.file(
        "wgnat.toml",
        &format!(
            "[agent]\nstore = {history:?}\ntargets = {targets:?}\npath_interval = \"10s\"\nevaluate_every = \"1s\"\n"
        ),
    );
    let config = Path::new(&config);
    let mut first = agent_at(&lab, config);
    first.until("the first points", |_| points(&history, targets.len()) >= 3);
    first.signal("TERM");
    assert!(first.wait().success());
    // Instead of a wait of ten minutes, what was written becomes ten minutes older.
    let written = rusqlite::Connection::open(&history).expect("a history");
    written
        .execute("UPDATE samples SET at = at - 600", [])
        .expect("nobody writes it");
    drop(written);
    let second = agent_at(&lab, config);
    second.until("further points", |_| points(&history, targets.len()) >= 6);
    // Beside the running agent.
    let text = history.to_str().expect("a path");
    let args = [targets[0].as_str(), &targets[1], "--store", text, "--since", "1h"];
    let same = path(&lab, &args);
    same.nothing_wrong();
    for target in &targets {
        let rows = same.report["paths"].as_array().expect("rows");
        let row = rows
            .iter()
            .find(|row| row["target"] == target.as_str())
            .expect("a row");
        let usual = &row["usual"];
        assert!(
            usual["rtt_p50_seconds"].as_f64().is_some_and(|s| s > 0.0),
            "{row:#}"
        );
        assert_eq!(usual["loss_share"], 0.0, "{row:#}");
    }
    // Both ways a quarter of a second later than it was.
    drop(relay);
    let _relay = UdpRelay::start(lab.router(), gate, echo, &[Duration::from_millis(250)]);
    let worse = path(&lab, &args);
    let found = worse.says_only(&["path-latency"]);
    found
        .is("warning", "likely")
        .measures("rtt_median_seconds", 0.25..);
    let summary = found.value["summary"].as_str().expect("text");
    assert!(summary.contains("slower than usual: usual "), "{summary}");
    drop(second);
}

#[test]
fn what_is_no_history_is_refused_in_words() {
    let Some(lab) = Lab::lone() else { return };
    let broken = lab.dir().join("broken.db");
    std::fs::write(&broken, "this is no database, and long enough to be seen as none").expect("written");
    for (file, words) in [
        (lab.dir().join("absent.db"), "there is no such file"),
        (lab.dir().to_path_buf(), "there is no such file"),
        (broken, "cannot be read"),
    ] {
        let mut command = lab.wgnat(lab.client());
        command.args(["path", "127.0.0.1", "--store"]).arg(&file);
        let out = lab::exec::output(command);
        assert_eq!(out.code, 3, "{out:?}");
        assert!(out.stderr.contains(words), "{}", out.stderr);
        assert!(out.stderr.contains(&file.display().to_string()), "{}", out.stderr);
    }
    let mut command = lab.wgnat(lab.client());
    command.args(["path", "127.0.0.1", "--since", "24h"]);
    assert_eq!(lab::exec::output(command).code, 3, "--since is of a history");
}

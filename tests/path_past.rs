//! `wgnat path --store`: what is usual by the agent's history, read beside an agent that writes it.
#![allow(clippy::expect_used)] // a panic is how a test fails
#![allow(clippy::disallowed_methods)] // a test is an edge

mod lab;
mod truth;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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
    assert!(
        summary.contains("slower than usual: usual 12 ms (p50 over 30 min), now "),
        "{summary}"
    );
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

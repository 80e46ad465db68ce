//! The metrics are what Prometheus expects: promtool finds no fault, and a real Prometheus scrapes them.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod agent;
#[path = "common/prometheus.rs"]
mod prometheus;

use agent::{Agent, PATIENCE, file, free_port, read_answer};
use prometheus::{Prometheus, check_metrics, there};
use serde_json::Value;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;
use wgnat::sys::clock;

#[test]
fn promtool_finds_no_fault() {
    if !there("promtool") {
        return;
    }
    let agent = Agent::start(&[]);
    let text = agent.get("/metrics").body;
    check_metrics(&text);
    assert!(text.lines().filter(|l| !l.starts_with('#')).count() > 50);
}

fn ask(at: SocketAddr, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    serde_json::from_str(&read_answer(&mut stream).ok()?.body).ok()
}

#[test]
fn a_real_prometheus_scrapes_it() {
    if !there("prometheus") {
        return;
    }
    let agent = Agent::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: wgnat\n  static_configs: [{{targets: ['{}']}}]\n",
        agent.at
    );
    let config = file(dir.path(), "prometheus.yml", &config);
    let at = free_port();
    let _prometheus = Prometheus(
        Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={at}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let end = clock::instant() + PATIENCE;
    let value = |query: &str| -> Option<String> {
        let answer = ask(at, &format!("/api/v1/query?query={query}"))?;
        Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
    };
    while value("wgnat_evaluations_total").is_none() {
        assert!(
            clock::instant() < end,
            "never scraped: {:?}",
            ask(at, "/api/v1/targets")
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(value("up").as_deref(), Some("1"));
    let targets = ask(at, "/api/v1/targets").unwrap();
    assert_eq!(
        targets["data"]["activeTargets"][0]["lastError"], "",
        "{targets:#}"
    );
    let kind = ask(at, "/api/v1/metadata?metric=wgnat_evaluations").unwrap();
    let kind_old = ask(at, "/api/v1/metadata?metric=wgnat_evaluations_total").unwrap();
    let counter = [kind, kind_old].iter().any(|k| {
        k["data"]
            .as_object()
            .is_some_and(|d| d.values().any(|v| v[0]["type"] == "counter"))
    });
    assert!(counter, "a counter by its metadata");
}

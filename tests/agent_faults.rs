//! An observer fails inside a running agent, for real: what it has opened breaks, or it can open nothing more. It is reported and
//! started anew, ever later, and the rest goes on.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod agent;
mod lab;

use agent::{Agent, KeptOpen, file};
use lab::sabotage::{OpenFiles, deafen_netlink};
use lab::{CtFill, Lab, Namespace, Nat};
use netlink_sys::protocols::NETLINK_ROUTE;
use serde_json::Value;
use std::net::TcpStream;
use std::time::Duration;
use wgnat::time::Timestamp;

/// Whoever looks at a host without being told of more.
const SOURCES: [&str; 13] = [
    "host",
    "wireguard-netlink",
    "wireguard-uapi",
    "capture",
    "routes",
    "sockets",
    "conntrack",
    "nat-rules",
    "counters",
    "processes",
    "bpf",
    "keys",
    "kernel-log",
];

/// An agent with history in `ns`, which judges each second.
fn agent_in(lab: &Lab, ns: &Namespace) -> Agent {
    let config = file(lab.dir(), "wgnat.toml", "[agent]\nevaluate_every = \"1s\"\n");
    let store = lab.dir().join("kept");
    std::fs::create_dir(&store).unwrap();
    let mut command = lab.wgnat(ns);
    command.arg("agent").arg("--config").arg(config);
    command.arg("--store").arg(store.join("history"));
    let inside = ns.clone();
    let connect = move |at| inside.run(move || TcpStream::connect(at));
    let mut agent = Agent::begun(command, "127.0.0.1:9986".parse().unwrap(), Box::new(connect));
    agent.until_ready();
    agent
}

fn state(collector: &str, state: &str) -> String {
    format!("wgnat_collector_state{{collector=\"{collector}\",state=\"{state}\"}}")
}

fn sees_all(collector: &str) -> String {
    format!("sees all collector=\"{collector}\"")
}

fn restarts(collector: &str) -> String {
    format!("wgnat_collector_restarts_total{{collector=\"{collector}\"}}")
}

fn number(metrics: &str, name: &str) -> Option<f64> {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The collectors that see all.
fn well(report: &Value) -> Vec<&str> {
    let all = report["collectors"].as_array().unwrap();
    let ok = all.iter().filter(|c| c["state"] == "ok");
    ok.map(|c| c["name"].as_str().unwrap()).collect()
}

fn reason<'a>(report: &'a Value, collector: &str) -> &'a str {
    let all = report["collectors"].as_array().unwrap();
    let own = all.iter().find(|c| c["name"] == collector).unwrap();
    own["reason"].as_str().unwrap_or_default()
}

/// When each new start of `collector` was logged.
fn starts(log: &str, collector: &str) -> Vec<Timestamp> {
    let wanted = format!("source=\"{collector}\"");
    log.lines()
        .filter(|line| line.contains("starting the observer anew") && line.contains(&wanted))
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn an_agent_that_can_open_nothing_more_says_so_and_recovers_when_it_can() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let agent = agent_in(&lab, lab.router());
    agent.logs("every source has looked once");
    let before: Vec<String> = SOURCES
        .into_iter()
        // This one looks once a minute.
        .filter(|source| *source != "processes" && agent.log().contains(&sees_all(source)))
        .map(str::to_owned)
        .collect();
    assert!(
        before.iter().any(|source| source == "counters"),
        "{}",
        agent.log()
    );
    // No connection can be taken any more either, so these two are made before.
    let mut asking = KeptOpen::to(&agent);
    let mut events = KeptOpen::to(&agent);
    events.listen();
    let fault = OpenFiles::none_more(agent.child.id());
    let waiting = KeptOpen::to(&agent);
    let mut metrics = String::new();
    while number(&metrics, &restarts("counters")) < Some(3.0) {
        events.until_event("report");
        metrics = asking.get("/metrics").body;
        for path in ["/readyz", "/healthz"] {
            assert_eq!(asking.get(path).status, 200, "{path}");
        }
    }
    assert_eq!(number(&metrics, &state("counters", "ok")), Some(0.0));
    let report = asking.get("/api/v1/report").json();
    assert!(
        reason(&report, "counters").contains("Too many open files"),
        "{report:#}"
    );
    agent.logs("WARN reading /proc/thread-self/net/snmp: Too many open files");
    // Whoever has open what it needs goes on, and what it sees is judged.
    for other in ["capture", "wireguard-netlink", "routes"] {
        assert!(well(&report).contains(&other), "{other}: {report:#}");
        assert_eq!(number(&metrics, &restarts(other)), None, "{other}");
    }
    let max = lab.router().conntrack_max();
    let count = u32::try_from(max * 93 / 100).unwrap();
    lab.router().fill_conntrack(CtFill::assured(count));
    fault.lift();
    // Who knocked meanwhile is let in.
    let mut waiting = waiting;
    assert_eq!(waiting.get("/readyz").status, 200);
    for source in &before {
        agent.until("whoever saw all sees all again", |agent| {
            let log = agent.log();
            let own = format!(" collector=\"{source}\"");
            let last = log.lines().rfind(|line| line.contains(&own));
            last.is_some_and(|line| line.contains("sees all"))
        });
    }
    agent.finding("conntrack-low");
    // Ever later: after one second, two, four.
    let starts = starts(&agent.log(), "counters");
    let pauses: Vec<Duration> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, least) in pauses.iter().zip([2, 4, 8, 16]) {
        // A log's time is taken a moment before or after.
        assert!(
            *pause + Duration::from_millis(100) >= Duration::from_secs(least),
            "{pauses:?}"
        );
    }
    assert!(pauses.len() >= 2, "{}", agent.log());
    let told = agent.log().matches("cannot take a connection").count();
    assert!(
        (1..=3).contains(&told),
        "once, and not ten times a second: {told}"
    );
}

#[test]
fn an_observer_whose_socket_breaks_opens_another_and_the_rest_goes_on() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let agent = agent_in(&lab, lab.router());
    let broken = ["wireguard-netlink", "routes"];
    agent.until("they look", |agent| {
        broken
            .iter()
            .all(|source| agent.metric(&state(source, "ok")) == Some(1.0))
    });
    // Whatever these sockets are asked for good is refused: looking again and again would never help.
    let sockets = deafen_netlink(agent.child.id(), NETLINK_ROUTE);
    assert!(sockets >= broken.len(), "{sockets}");
    let max = lab.router().conntrack_max();
    lab.router()
        .fill_conntrack(CtFill::assured(u32::try_from(max * 93 / 100).unwrap()));
    agent.finding("conntrack-low");
    for source in broken {
        agent.until("it was started anew and sees all again", |agent| {
            agent.metric(&restarts(source)) >= Some(1.0)
                && agent.log().matches(&sees_all(source)).count() == 2
        });
    }
    assert_eq!(agent.get("/readyz").status, 200);
    // It was told when it happened, with its reason, and when it was over.
    agent.until("history has both", |agent| {
        let history = agent.get("/api/v1/history").json();
        let events = history["events"].as_array().unwrap();
        let told = |state: &str, why: &str| {
            events.iter().any(|event| {
                let data = &event["data"];
                let reason = data["reason"].as_str().unwrap_or_default();
                event["kind"] == "collector"
                    && data["collector"] == "wireguard-netlink"
                    && data["state"] == state
                    && reason.contains(why)
            })
        };
        told("unavailable", "Connection refused") && told("ok", "")
    });
    // Only those that broke.
    let metrics = agent.get("/metrics").body;
    for other in ["capture", "conntrack", "counters", "host", "processes"] {
        assert_eq!(number(&metrics, &restarts(other)), None, "{other}");
    }
}

//! A real Prometheus in the lab scrapes confined agents that ask others: the rules of docs/prometheus/ are evaluated, and every
//! query of the dashboard is answered, with data.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod agent;
mod common;
mod lab;
#[path = "common/metrics.rs"]
mod metrics;
#[path = "common/prometheus.rs"]
mod prometheus;

use agent::{Agent, file, read_answer};
use lab::{
    Churn, ChurnPlan, CtFill, DnsReply, DnsServer, Lab, Namespace, Nat, Serve, StunServer, TcpServer, Tunnel,
};
use prometheus::{Prometheus, Query, check_metrics, dashboard, encoded, place, queries, there};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use wgnat::sys::clock;

/// A busy machine takes minutes, where seconds would do.
const PATIENCE: Duration = Duration::from_secs(100);

/// An agent in `ns` that listens at `at`, asked from within.
fn agent_at(lab: &Lab, ns: &Namespace, at: SocketAddr, args: &[&str]) -> Agent {
    let mut command = lab.wgnat(ns);
    command.arg("agent").args(args);
    let inside = ns.clone();
    let connect = move |at| inside.run(move || TcpStream::connect(at));
    let mut agent = Agent::begun(command, at, Box::new(connect));
    agent.until_ready();
    agent
}

/// Servers of every kind that the agent is told to ask, on the lab's server.
struct Others {
    _stun: StunServer,
    _dns: DnsServer,
    _tcp: TcpServer,
}

impl Others {
    fn start(lab: &Lab) -> Self {
        // Every name is the server's.
        let address = DnsReply::Address(Ipv4Addr::new(203, 0, 113, 9), Duration::ZERO);
        Self {
            _stun: StunServer::reflect_all(lab),
            _dns: DnsServer::start(lab.server(), lab.server_ip(), address),
            _tcp: TcpServer::start(lab.server(), SocketAddr::new(lab.server_ip(), 7000), Serve::Echo),
        }
    }
}

fn configuration(dir: &Path, lines: &str) -> String {
    let text = format!("[agent]\npath_interval = \"10s\"\nconfine = \"require\"\n{lines}");
    file(dir, "wgnat.toml", &text).to_str().unwrap().to_owned()
}

/// Asks the Prometheus at `at` in `ns`.
fn ask(ns: &Namespace, at: SocketAddr, path: &str) -> Option<Value> {
    let mut stream = ns.run(move || TcpStream::connect(at)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    serde_json::from_str(&read_answer(&mut stream).ok()?.body).ok()
}

/// A Prometheus in `ns` that scrapes `targets` each second, with our rules.
fn prometheus(ns: &Namespace, dir: &Path, targets: &[SocketAddr]) -> (Prometheus, SocketAddr) {
    let targets: Vec<String> = targets.iter().map(|at| format!("'{at}'")).collect();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}', '{}']\nscrape_configs:\n- job_name: wgnat\n  \
         static_configs: [{{targets: [{}]}}]\n",
        place("rules/recording.yml").display(),
        place("rules/alerts.yml").display(),
        targets.join(", ")
    );
    let config = file(dir, "prometheus.yml", &config);
    let at: SocketAddr = "127.0.0.1:9090".parse().unwrap();
    let mut command = ns.command("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address={at}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    (Prometheus(command.spawn().unwrap()), at)
}

/// Waits until `pending` says nothing more.
#[track_caller]
fn until_none(mut pending: impl FnMut() -> Vec<String>, agents: &[&Agent]) {
    let end = clock::instant() + PATIENCE;
    loop {
        let left = pending();
        if left.is_empty() {
            return;
        }
        let logs: Vec<String> = agents.iter().map(|agent| agent.log()).collect();
        assert!(
            clock::instant() < end,
            "not in time: {left:#?}\n{}",
            logs.join("\n---\n")
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Every name and label that `text` tells is in the catalogue.
#[track_caller]
fn in_the_catalogue(text: &str) {
    let stored = metrics::stored();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let has = stored
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        for selector in metrics::selectors(line) {
            for label in selector.labels {
                assert!(
                    has.contains(label.as_str()),
                    "{name}: {label} is not in docs/metrics.md"
                );
            }
        }
    }
}

/// Panels that a healthy lab has nothing for.
const MAY_BE_EMPTY: [&str; 2] = ["How long an idle mapping lives", "Collectors that do not see all"];

#[test]
fn every_query_of_the_dashboard_is_answered_by_a_real_prometheus() {
    if !there("prometheus") || !there("promtool") {
        return;
    }
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _others = Others::start(&lab);
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(
        dir.path(),
        "stun = [\"203.0.113.9\"]\nnat_profile = \"1000\"\ntargets = [\"203.0.113.9\", \"tcp:203.0.113.9:7000\", \
         \"tcp:203.0.113.9:7001\", \"dns:a.example@203.0.113.9\"]\n",
    );
    let store = dir.path().join("history");
    let client_at = "127.0.0.1:9986".parse().unwrap();
    let client = agent_at(
        &lab,
        lab.client(),
        client_at,
        &["--config", &config, "--store", store.to_str().unwrap()],
    );
    // A router that is nearly full has something to find.
    let max = lab.router().conntrack_max();
    let many = u32::try_from(max * 80 / 100).unwrap();
    lab.router().fill_conntrack(CtFill::assured(many));
    let router_at = SocketAddr::new(lab.client_at().gateway().v4.into(), 9986);
    let router = agent_at(&lab, lab.router(), router_at, &["--allow-unauthenticated"]);
    let (_prometheus, at) = prometheus(lab.client(), dir.path(), &[client_at, router_at]);
    // What begins while it is watched: a tunnel, and connections.
    let tunnel = Tunnel::up(&lab);
    let _churn = Churn::start(
        lab.client(),
        ChurnPlan {
            to: SocketAddr::new(lab.server_ip(), 7000),
            rate: 5,
            lifetime: Duration::ZERO,
            server_closes: false,
        },
    );
    let agents = [&client, &router];

    let asked = queries(&dashboard());
    let counts = client.metric("wgnat_collector_state{collector=\"bpf\",state=\"unavailable\"}") != Some(1.0);
    let needs_data = |query: &Query| {
        !MAY_BE_EMPTY.contains(&query.panel.as_str()) && (counts || query.panel != "Connects by result")
    };
    until_none(
        || {
            tunnel.knock();
            let mut left = Vec::new();
            for query in &asked {
                let expr = query
                    .expr
                    .replace("$__rate_interval", "1m")
                    .replace("$job", ".*")
                    .replace("$instance", ".*");
                let Some(answer) = ask(
                    lab.client(),
                    at,
                    &format!("/api/v1/query?query={}", encoded(&expr)),
                ) else {
                    return vec!["Prometheus answers".to_owned()];
                };
                assert_eq!(answer["status"], "success", "{}: {expr}\n{answer:#}", query.panel);
                if needs_data(query) && answer["data"]["result"].as_array().unwrap().is_empty() {
                    left.push(format!("{}: {expr}", query.panel));
                }
            }
            left
        },
        &agents,
    );

    // Each rule is evaluated, and those that should hold do.
    until_none(
        || {
            let Some(rules) = ask(lab.client(), at, "/api/v1/rules") else {
                return vec!["Prometheus answers".to_owned()];
            };
            let groups = rules["data"]["groups"].as_array().unwrap().clone();
            let rules = groups.iter().flat_map(|g| g["rules"].as_array().unwrap());
            let ill = rules.filter(|rule| rule["health"] != "ok");
            let mut left: Vec<String> = ill.map(|rule| format!("{rule:#}")).collect();
            left.extend(groups.is_empty().then(|| "there are rules".to_owned()));
            left
        },
        &agents,
    );
    for (query, least) in [
        ("instance:wgnat_conntrack_used:ratio > 0.75", 1),
        ("severity:wgnat_findings:sum{severity=\"warning\"}", 1),
        ("target:wgnat_path_failures:ratio_rate15m == 0", 3),
        ("target:wgnat_dns_latency_seconds:median < 5", 1),
        (
            "ALERTS{alertname=\"WgnatWarningFinding\",code=\"conntrack-low\"}",
            1,
        ),
        ("up == 1", 2),
    ] {
        until_none(
            || {
                let answer = ask(
                    lab.client(),
                    at,
                    &format!("/api/v1/query?query={}", encoded(query)),
                );
                let found = answer.map_or(0, |a| a["data"]["result"].as_array().map_or(0, Vec::len));
                if found >= least {
                    Vec::new()
                } else {
                    vec![format!("{query}: {found}")]
                }
            },
            &agents,
        );
    }
    let alerts = ask(
        lab.client(),
        at,
        "/api/v1/query?query=ALERTS{severity=\"critical\"}"
            .replace('"', "%22")
            .as_str(),
    );
    assert_eq!(alerts.unwrap()["data"]["result"], Value::Array(Vec::new()));

    // The confined agent reached whom it was told to, by TCP too, and nobody else.
    for (name, value) in [
        (
            "wgnat_stun_up{server=\"203.0.113.9\",family=\"ipv4\",transport=\"udp\"}",
            1.0,
        ),
        (
            "wgnat_stun_up{server=\"203.0.113.9\",family=\"ipv4\",transport=\"tcp\"}",
            1.0,
        ),
        ("wgnat_nat_translated{family=\"ipv4\"}", 1.0),
        (
            "wgnat_path_loss_ratio{target=\"203.0.113.9\",method=\"icmp\"}",
            0.0,
        ),
        (
            "wgnat_path_loss_ratio{target=\"tcp:203.0.113.9:7000\",method=\"tcp\"}",
            0.0,
        ),
        (
            "wgnat_path_mtu_bytes{target=\"203.0.113.9\",method=\"icmp\"}",
            1500.0,
        ),
        ("wgnat_nat_budget_flows_limit{profile=\"1000\"}", 1000.0),
        ("wgnat_collector_state{collector=\"nat\",state=\"ok\"}", 1.0),
        ("wgnat_confinement{mechanism=\"landlock\"}", 1.0),
    ] {
        client.until(name, |agent| agent.metric(name) == Some(value));
    }
    let refused =
        "wgnat_path_failures_total{target=\"tcp:203.0.113.9:7001\",method=\"tcp\",cause=\"refused\"}";
    assert!(client.metric(refused) >= Some(10.0));
    for agent in agents {
        let text = agent.get("/metrics").body;
        check_metrics(&text);
        in_the_catalogue(&text);
    }

    // History keeps the new numbers as it keeps the others.
    client.until("history has the paths", |agent| {
        let names = agent.get("/api/v1/series").json();
        let names: BTreeSet<&str> = names["names"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let wanted = [
            "wgnat_path_loss_ratio",
            "wgnat_path_rtt_median_seconds",
            "wgnat_path_attempts",
            "wgnat_nat_mapping",
            "wgnat_nat_external_changes",
            "wgnat_nat_budget_used_ratio",
            "wgnat_stun_rtt_seconds",
        ];
        assert!(!names.contains("wgnat_path_measured_time_seconds"), "{names:?}");
        wanted.iter().all(|name| names.contains(name))
    });
}

#[test]
fn whom_a_confined_agent_asks_is_changed_by_a_reload() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _others = Others::start(&lab);
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "");
    let at = "127.0.0.1:9986".parse().unwrap();
    let agent = agent_at(&lab, lab.client(), at, &["--config", &config]);
    let tcp = "wgnat_path_loss_ratio{target=\"tcp:203.0.113.9:7000\",method=\"tcp\"}";
    let icmp = "wgnat_path_loss_ratio{target=\"203.0.113.10\",method=\"icmp\"}";
    let mapping = "wgnat_nat_discoveries_total";
    // Nobody is asked who is not named.
    assert!(!agent.get("/metrics").body.contains("wgnat_path_"));
    let sources = |agent: &Agent| -> BTreeSet<String> {
        let report = agent.get("/api/v1/report").json();
        let collectors = report["collectors"].as_array().unwrap();
        collectors
            .iter()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(sources(&agent).is_disjoint(&["nat".to_owned(), "paths".to_owned()].into()));
    // The port is one that the agent had no leave for when it began.
    configuration(
        dir.path(),
        "stun = [\"203.0.113.9\"]\ntargets = [\"tcp:203.0.113.9:7000\"]\n",
    );
    agent.signal("HUP");
    agent.until("the target is measured", |agent| agent.metric(tcp) == Some(0.0));
    agent.until("the NAT is discovered", |agent| {
        agent.metric(mapping) >= Some(1.0)
    });
    assert_eq!(
        agent.get("/api/v1/report").json()["nat"]["external"][0],
        lab.server_at().gateway().v4.to_string(),
    );
    // A bad file changes nothing.
    configuration(dir.path(), "targets = [\"gopher:x:1\"]\n");
    agent.signal("HUP");
    agent.until("the reload is refused", |agent| {
        agent.metric("wgnat_config_last_reload_successful") == Some(0.0)
    });
    agent.logs("no kind of target");
    assert_eq!(agent.metric(tcp), Some(0.0));
    // Another target, and no STUN server any more.
    configuration(dir.path(), "targets = [\"203.0.113.10\"]\n");
    agent.signal("HUP");
    agent.until("the other target is measured", |agent| {
        agent.metric(icmp) == Some(0.0)
    });
    let text = agent.get("/metrics").body;
    assert!(
        !text.contains("tcp:203.0.113.9:7000") && !text.contains("wgnat_nat_"),
        "{text}"
    );
    assert!(!sources(&agent).contains("nat"));
    // By name: the resolver's files and its server are within reach, confined as the thread is.
    lab.client().set_resolv_conf("nameserver 203.0.113.9\n");
    configuration(
        dir.path(),
        "targets = [\"tcp:db.example:7000\", \"dns:a.example\"]\n",
    );
    agent.signal("HUP");
    for name in [
        "wgnat_path_loss_ratio{target=\"tcp:db.example:7000\",method=\"tcp\"}",
        "wgnat_path_loss_ratio{target=\"dns:a.example@203.0.113.9\",method=\"dns\"}",
    ] {
        agent.until(name, |agent| agent.metric(name) == Some(0.0));
    }
    let lookup =
        "wgnat_path_stage_median_seconds{target=\"tcp:db.example:7000\",method=\"tcp\",stage=\"name\"}";
    assert!(agent.metric(lookup).is_some());
    configuration(dir.path(), "");
    agent.signal("HUP");
    agent.until("nobody is measured", |agent| {
        !agent.get("/metrics").body.contains("wgnat_path_")
    });
    assert!(sources(&agent).is_disjoint(&["nat".to_owned(), "paths".to_owned()].into()));
}

#[test]
fn a_mapping_s_lifetime_is_measured_where_it_is_asked_for_and_holds_up_nothing() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _others = Others::start(&lab);
    for name in ["udp_timeout", "udp_timeout_stream"] {
        lab.router()
            .sysctl(&format!("net.netfilter.nf_conntrack_{name}"), "6");
    }
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "stun = [\"203.0.113.9\"]\nnat_lifetime = \"30s\"\n");
    let at = "127.0.0.1:9986".parse().unwrap();
    let agent = agent_at(&lab, lab.client(), at, &["--config", &config]);
    let alive = "wgnat_nat_mapping_lifetime_seconds{family=\"ipv4\"}";
    let gone = "wgnat_nat_mapping_lifetime_at_most_seconds{family=\"ipv4\"}";
    agent.until("the first discovery has told the rest", |agent| {
        agent.metric("wgnat_nat_discoveries_total") == Some(1.0)
    });
    assert_eq!(agent.metric(alive), None);
    agent.until("the lifetime is measured", |agent| agent.metric(alive).is_some());
    let (alive, gone) = (agent.metric(alive).unwrap(), agent.metric(gone).unwrap());
    // The kernel ends entries up to a second late, and the search is as fine as a quarter.
    assert!(alive < 8.5 && gone > 5.0 && alive < gone, "{alive} {gone}");
    let finding = agent.finding("nat-mapping-short");
    assert_eq!(finding["severity"], "warning", "{finding:#}");
    // Nothing is thought to hang meanwhile.
    assert!(!agent.log().contains("has not come back"), "{}", agent.log());
}

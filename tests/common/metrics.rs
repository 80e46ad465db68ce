//! The catalogue of metrics, made from a report in which everything was measured; and what a query asks for.
#![allow(dead_code, clippy::expect_used)] // each test uses a part; a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::common::samples;
use wgnat::finding::Severity;
use wgnat::observation::Source;
use wgnat::observation::nat::{
    Behaviour, Family as IpFamily, FamilyFacts, LifetimeFacts, NatFacts, ServerFacts,
};
use wgnat::observation::path::{PathMtu, PathSample, Rtts, Stage};
use wgnat::output::prometheus::{Family, Kind, families};
use wgnat::report::Report;
use wgnat::report::agent::{AgentStats, BudgetStats, Histogram, NatTotals, PathTotals, StoreStats, Totals};
use wgnat::report::paths::PathRow;
use wgnat::report::unseen::Unseen;
use wgnat::time::Span;
use wgnat::track::paths::Summary;

/// A host of which everything is known.
fn report() -> Report {
    let mut report = samples::ports_exhausted();
    let unseen = Unseen::new(report.generated_at, &[Source::Conntrack]);
    if let Some(finding) = report.findings.pop() {
        report.findings.push(unseen.mark(finding));
    }
    report.host = samples::tunnel_silent().host;
    let mut family = FamilyFacts::new(IpFamily::Ipv4);
    family.translated = Some(true);
    family.mapping = Behaviour::EndpointIndependent;
    family.hairpinning = Some(false);
    family.port_preservation = Some(true);
    family.udp_blocked = Some(false);
    family.external_addresses = vec![samples::addr("192.0.2.1:0").ip()];
    family.lifetime = Some(LifetimeFacts {
        alive_after: Span::from_secs(30),
        gone_after: Some(60.0),
    });
    report.nat = Some(NatFacts {
        servers: vec![ServerFacts {
            name: "stun.example.org".to_owned(),
            address: samples::addr("203.0.113.9:3478"),
            udp_rtt: Some(0.02),
            tcp_rtt: Some(0.04),
            software: None,
            other: None,
            problems: Vec::new(),
        }],
        families: vec![family],
        ..NatFacts::default()
    });
    let span = Span::from_millis(23);
    let sample = PathSample {
        sent: 2,
        rtts: Rtts(vec![span, span]),
        ..PathSample::unmeasured("tcp:db.example:5432".parse().expect("a target"))
    };
    let summary = Summary::of(&sample);
    report.paths = vec![PathRow {
        target: sample.target.to_string(),
        method: sample.target.method.name(),
        address: None,
        system_resolver: false,
        summary,
        loss: summary.loss(),
        stages: vec![(Stage::Connect, span)],
        failures: Vec::new(),
        http_status: None,
        certificate: None,
        usual: None,
        mtu: Some(PathMtu {
            interface: 1500,
            passed: 1420,
            lost: Some(1421),
            told: None,
        }),
        hops: Vec::new(),
        problems: Vec::new(),
        sibling: None,
    }];
    report
}

fn stats(report: &Report) -> AgentStats {
    let mut rtt = Histogram::default();
    rtt.add(Span::from_millis(23));
    let peer = report.wireguard.peers.first().expect("a peer").public_key;
    AgentStats {
        resident_bytes: Some(1),
        costs: vec![(Source::Host, Span::from_secs(1))],
        restarts: vec![(Source::Host, 1)],
        confined: vec![("seccomp", true)],
        requests: vec![("/metrics", "2xx", 1)],
        store: StoreStats::default(),
        totals: Totals {
            handshakes: vec![("answered", 2)],
            rtt,
            endpoint_changes: vec![("wg0".to_owned(), peer, 2)],
            conntrack: Some(vec![("drop", 3)]),
            connects: Some(vec![("established", 5)]),
            findings: vec![("ports-low", Severity::Warning, 1)],
            paths: vec![PathTotals {
                target: "tcp:db.example:5432".to_owned(),
                method: "tcp",
                ..PathTotals::default()
            }],
            nat: Some(NatTotals {
                changes: vec![(IpFamily::Ipv4, 0)],
                ..NatTotals::default()
            }),
        },
        budget: Some(BudgetStats {
            profile: "fly-static-egress".to_owned(),
            limit: 1024,
            fullest: 12,
        }),
        top_destinations: 2,
        top_peers: 1,
        ..AgentStats::default()
    }
}

/// One metric, as it is scraped.
pub struct Metric {
    /// Its name with the ending of its kind.
    pub name: String,
    pub family: Family,
    pub labels: BTreeSet<&'static str>,
}

/// Every metric, in the order in which they are told.
pub fn catalogue() -> Vec<Metric> {
    let report = report();
    let metric = |family: Family| {
        let ending = match family.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let labels = family
            .samples
            .iter()
            .flat_map(|s| s.labels.iter().map(|(label, _)| *label));
        Metric {
            name: format!("{}{ending}", family.name),
            labels: labels.collect(),
            family,
        }
    };
    families(&report, &stats(&report))
        .into_iter()
        .map(metric)
        .collect()
}

/// Names as Prometheus stores them, with their labels: a histogram is three.
pub fn stored() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut all = BTreeMap::new();
    for metric in catalogue() {
        if metric.family.kind == Kind::Histogram {
            let without: BTreeSet<_> = metric.labels.iter().copied().filter(|l| *l != "le").collect();
            all.insert(format!("{}_bucket", metric.name), metric.labels);
            for ending in ["_sum", "_count"] {
                all.insert(format!("{}{ending}", metric.name), without.clone());
            }
        } else {
            all.insert(metric.name, metric.labels);
        }
    }
    all
}

/// docs/metrics.md.
pub fn page() -> String {
    let mut page = String::from(
        "# Metrics of `wgnat agent`\n\nGenerated from the code (`WGNAT_UPDATE=1 cargo test --test prometheus_docs`). What was not \
         measured has no sample. OpenMetrics names counters and infos without `_total` and `_info` in TYPE. Prometheus adds `job` and \
         `instance`. History keeps gauges and counters of the host under the name without `_total`.\n\n\
         | name | type | unit | labels | what it tells |\n| --- | --- | --- | --- | --- |\n",
    );
    for metric in catalogue() {
        let kind = match metric.family.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(
            page,
            "| `{}` | {kind} | {} | {} | {} |",
            metric.name,
            metric.family.unit.unwrap_or(""),
            labels.join(", "),
            metric.family.help.replace('|', "\\|"),
        )
        .expect("written");
    }
    page
}

/// A selector in a query: a metric, and the labels that its braces name.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    pub labels: Vec<String>,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Every selector of one of our metrics in `query`.
pub fn selectors(query: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find("wgnat_") {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
        let (metric, after) = from.split_at(end);
        rest = after;
        // Part of a recorded name, such as instance:wgnat_….
        if before.ends_with(is_word) {
            continue;
        }
        let inside = after
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'))
            .map_or("", |(inside, _)| inside);
        found.push(Selector {
            metric: metric.to_owned(),
            labels: matched(inside),
        });
    }
    found
}

/// The labels that are compared with a quoted text.
fn matched(inside: &str) -> Vec<String> {
    let mut labels = Vec::new();
    let mut rest = inside;
    while let Some(at) = rest.find(['=', '!']) {
        let (label, after) = rest.split_at(at);
        labels.push(label.trim_matches([',', ' ']).to_owned());
        let Some(quote) = after.find(['"', '\'']) else {
            break;
        };
        let mark = if after[quote..].starts_with('"') {
            '"'
        } else {
            '\''
        };
        let Some((_, after)) = after[quote + 1..].split_once(mark) else {
            break;
        };
        rest = after;
    }
    labels
}

/// Labels that `by`, `on`, `without`, `ignoring` and `group_left` name.
pub fn grouped(query: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for keyword in ["by", "on", "without", "ignoring", "group_left", "group_right"] {
        let mut rest = query;
        while let Some(at) = rest.find(keyword) {
            let (before, after) = rest.split_at(at);
            rest = &after[keyword.len()..];
            let Some(list) = rest.trim_start().strip_prefix('(') else {
                continue;
            };
            if before.ends_with(is_word) {
                continue;
            }
            let list = list.split_once(')').map_or("", |(list, _)| list);
            labels.extend(
                list.split(',')
                    .map(|label| label.trim().to_owned())
                    .filter(|l| !l.is_empty()),
            );
        }
    }
    labels
}

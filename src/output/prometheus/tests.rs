//! Metrics of a made-up report, by the conventions.

use std::collections::BTreeSet;

use super::*;
use crate::report::agent::{Histogram, Totals};
use crate::report::sample;
use crate::time::Span;
use crate::types::PublicKey;

/// A host with destinations and peers.
fn busy() -> Report {
    let mut report = sample::ports_exhausted();
    report.wireguard = sample::tunnel_silent().wireguard;
    report
}

fn stats() -> AgentStats {
    let mut rtt = Histogram::default();
    rtt.add(Span::from_millis(23));
    rtt.add(Span::from_secs(9));
    AgentStats {
        pace: 1.0,
        totals: Totals {
            handshakes: vec![("answered", 2), ("unanswered", 1)],
            rtt,
            endpoint_changes: vec![("wg0".to_owned(), PublicKey([1; 32]), 2)],
            conntrack: Some(vec![("drop", 3)]),
            connects: Some(vec![("established", 5), ("no_port", 1)]),
            ..Totals::default()
        },
        top_destinations: 2,
        top_peers: 1,
        ..AgentStats::default()
    }
}

fn value(text: &str, name: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn names_keep_the_conventions_and_no_label_is_the_platforms() {
    let mut seen = BTreeSet::new();
    for family in families(&busy(), &stats()) {
        let name = family.name;
        assert!(seen.insert(name), "{name} is there twice");
        assert!(name.starts_with("wgnat_"), "{name}");
        assert!(!name.ends_with("_total") && !name.ends_with("_info"), "{name}");
        assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        let mut labels = BTreeSet::new();
        for sample in &family.samples {
            assert!(
                labels.insert((sample.suffix, format!("{:?}", sample.labels))),
                "{name}"
            );
            for (label, _) in &sample.labels {
                let taken = ["app", "region", "host", "instance", "job"];
                assert!(!taken.contains(label), "{name}: {label} is set by others");
            }
        }
    }
}

#[test]
fn what_was_not_measured_has_no_sample() {
    let text = render(&families(&sample::empty(), &stats()), Exposition::Prometheus);
    for name in [
        "wgnat_tcp_sockets",
        "wgnat_conntrack_entries",
        "wgnat_wireguard_handshakes_total",
        "wgnat_nat_",
        "wgnat_path_",
        "wgnat_stun_",
    ] {
        assert!(!text.contains(name), "{name} is told:\n{text}");
    }
}

#[test]
fn cardinality_is_bounded_and_nothing_is_lost_of_the_sum() {
    let report = busy();
    let held = |stats: &AgentStats| -> (usize, f64) {
        let families = families(&report, stats);
        let family = families
            .iter()
            .find(|f| f.name == "wgnat_destination_ports")
            .unwrap();
        (family.samples.len(), family.samples.iter().map(|s| s.value).sum())
    };
    let all = AgentStats {
        top_destinations: 1000,
        ..stats()
    };
    let few = AgentStats {
        top_destinations: 1,
        ..stats()
    };
    let ((n_all, sum_all), (n_few, sum_few)) = (held(&all), held(&few));
    assert_eq!(n_all, report.sockets.destinations.len());
    assert!(n_few <= 3 && n_few < n_all, "{n_few} of {n_all}");
    assert!((sum_all - sum_few).abs() < 1e-9);
}

#[test]
fn histograms_are_cumulative() {
    let text = render(&families(&busy(), &stats()), Exposition::Prometheus);
    let bucket = |le: &str| {
        let name = format!("wgnat_wireguard_handshake_rtt_seconds_bucket{{le=\"{le}\"}}");
        value(&text, &name)
    };
    assert_eq!(bucket("0.01"), Some(0.0));
    assert_eq!(bucket("0.025"), Some(1.0));
    assert_eq!(bucket("5"), Some(1.0));
    assert_eq!(bucket("+Inf"), Some(2.0));
    assert_eq!(
        value(&text, "wgnat_wireguard_handshake_rtt_seconds_count"),
        Some(2.0)
    );
}

#[test]
fn what_comes_from_the_network_ends_no_line_and_no_value() {
    let family = Family::gauge("wgnat_x", "A\nB \\ \"c\".")
        .with(vec![("comm", "evil\"\n} 1\u{7}\\".to_owned())], f64::INFINITY);
    let text = render(&[family], Exposition::Prometheus);
    assert_eq!(
        text,
        "# HELP wgnat_x A\\nB \\\\ \"c\".\n# TYPE wgnat_x gauge\nwgnat_x{comm=\"evil\\\"\\n} 1\u{fffd}\\\\\"} +Inf\n"
    );
}

#[test]
fn the_format_is_what_was_asked_for() {
    for (accept, expected) in [
        ("", Exposition::Prometheus),
        ("*/*", Exposition::Prometheus),
        ("text/html,text/plain", Exposition::Prometheus),
        (
            "application/openmetrics-text; version=1.0.0",
            Exposition::OpenMetrics,
        ),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.9",
            Exposition::Prometheus,
        ),
        (
            "text/plain;q=0.5, application/openmetrics-text;q=0.5",
            Exposition::OpenMetrics,
        ),
        ("application/openmetrics-text;q=x", Exposition::OpenMetrics),
    ] {
        assert_eq!(Exposition::accepted(accept), expected, "{accept}");
    }
}

//! docs/prometheus/ and docs/metrics.md hold what they promise: rules that Prometheus takes and that fire for what they name, a
//! dashboard that can be imported, and no name or label that no agent tells. What a real Prometheus makes of them is in
//! tests/agent_prometheus.rs.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

mod common;
#[path = "common/metrics.rs"]
mod metrics;
#[path = "common/prometheus.rs"]
mod prometheus;

use common::check_file;
use metrics::{Selector, grouped, selectors};
use prometheus::{dashboard, queries, text, there};
use std::collections::BTreeSet;
use std::process::Command;

/// What Prometheus itself puts on every series.
const TARGET: [&str; 2] = ["job", "instance"];

#[track_caller]
fn promtool(args: &[&str]) {
    let output = Command::new("promtool")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/prometheus/rules"))
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn promtool_takes_the_rules() {
    if there("promtool") {
        promtool(&["check", "rules", "--lint-fatal", "recording.yml", "alerts.yml"]);
    }
}

#[test]
fn every_alert_fires_for_its_fault_and_is_silent_at_what_comes_near() {
    if !there("promtool") {
        return;
    }
    promtool(&["test", "rules", "alerts_test.yml", "recording_test.yml"]);
    let (alerts, tests) = (text("rules/alerts.yml"), text("rules/alerts_test.yml"));
    let named: BTreeSet<&str> = alerts
        .lines()
        .filter_map(|l| l.trim().strip_prefix("- alert: "))
        .collect();
    let tested: BTreeSet<&str> = tests
        .lines()
        .filter_map(|l| l.trim().strip_prefix("alertname: "))
        .collect();
    assert_eq!(named, tested);
    assert!(named.len() >= 12);
    let (rules, tests) = (text("rules/recording.yml"), text("rules/recording_test.yml"));
    for record in rules.lines().filter_map(|l| l.trim().strip_prefix("- record: ")) {
        assert!(tests.contains(record), "{record} is not tested");
    }
}

/// Whether `query` asks only for what agents tell.
#[track_caller]
fn known(query: &str, place: &str) {
    let stored = metrics::stored();
    let found = selectors(query);
    let mut labels: BTreeSet<&str> = TARGET.into();
    for Selector {
        metric,
        labels: asked,
    } in &found
    {
        let Some(has) = stored.get(metric) else {
            panic!("{place}: no agent tells {metric}: {query}");
        };
        for label in asked {
            let there = TARGET.contains(&label.as_str()) || has.contains(label.as_str());
            assert!(there, "{place}: {metric} has no label {label}: {query}");
        }
        labels.extend(has);
    }
    for label in grouped(query) {
        assert!(
            labels.contains(label.as_str()),
            "{place}: nothing has a label {label}: {query}"
        );
    }
}

#[test]
fn rules_and_dashboard_ask_only_for_what_agents_tell() {
    for file in ["rules/recording.yml", "rules/alerts.yml"] {
        let text = text(file);
        // Rule by rule: each begins with a dash.
        for rule in text.split("\n      - ").skip(1) {
            known(rule, file);
        }
        assert!(selectors(&text).len() > 5);
    }
    let dashboard = dashboard();
    let asked = queries(&dashboard);
    assert!(asked.len() > 30);
    for query in &asked {
        known(&query.expr, &query.panel);
        // A legend names labels that are there after the query's own grouping.
        let kept = grouped(&query.expr);
        for label in query
            .legend
            .split("{{")
            .skip(1)
            .filter_map(|rest| rest.split_once("}}"))
        {
            let has = selectors(&query.expr)
                .iter()
                .any(|s| metrics::stored()[&s.metric].contains(label.0));
            let there = kept.contains(label.0) || (kept.is_empty() && (has || TARGET.contains(&label.0)));
            assert!(there, "{}: the legend's {} is not there", query.panel, label.0);
        }
    }
}

#[test]
fn explanations_are_of_findings_that_there_are() {
    let codes: BTreeSet<&str> = wgnat::rules::registry::catalogue()
        .map(|rule| rule.code)
        .collect();
    let alerts = text("rules/alerts.yml");
    let mut explained = 0;
    for line in alerts
        .lines()
        .filter_map(|l| l.trim().strip_prefix("explain: \"wgnat explain "))
    {
        let code = line.trim_end_matches('"');
        assert!(code == "{{ $labels.code }}" || codes.contains(code), "{code}");
        explained += 1;
    }
    assert!(explained > 8);
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard = dashboard();
    assert!(dashboard["id"].is_null(), "a number of somebody's database");
    assert_eq!(dashboard["uid"], "wgnat");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["name"], "datasource");
    assert_eq!(variables[0]["type"], "datasource");
    let mut ids = BTreeSet::new();
    let mut taken: BTreeSet<(u64, u64)> = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(!panel["title"].as_str().unwrap().is_empty());
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "two panels in one place: {panel}");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        for source in std::iter::once(panel).chain(panel["targets"].as_array().unwrap()) {
            assert_eq!(source["datasource"]["uid"], "${datasource}", "{panel}");
        }
    }
    for query in queries(&dashboard) {
        for Selector { metric, labels } in selectors(&query.expr) {
            assert!(
                labels.starts_with(&["job".to_owned(), "instance".to_owned()]),
                "{metric}: {}",
                query.expr
            );
        }
    }
}

#[test]
fn the_published_catalogue_of_metrics_is_current() {
    check_file("docs/metrics.md", &metrics::page());
    for metric in metrics::catalogue() {
        let (name, unit) = (metric.family.name, metric.family.unit);
        assert!(
            metric
                .labels
                .is_disjoint(&BTreeSet::from(["app", "region", "host", "instance", "job"])),
            "{name}"
        );
        assert!(unit.is_none_or(|unit| name.ends_with(unit)), "{name}");
    }
}

#[test]
fn what_is_checked_here_would_be_found() {
    let found = selectors(
        "sum by (a) (rate(wgnat_x_total{k=~\"a|b=c\", l!='d'}[5m])) / instance:wgnat_y:sum > wgnat_z",
    );
    let names: Vec<(&str, usize)> = found
        .iter()
        .map(|s| (s.metric.as_str(), s.labels.len()))
        .collect();
    assert_eq!(names, [("wgnat_x_total", 2), ("wgnat_z", 0)]);
    assert_eq!(found[0].labels, ["k", "l"]);
    let query = "a * on (x, y) group_left (z) sum by(w) (b)";
    assert_eq!(grouped(query), ["w", "x", "y", "z"].map(str::to_owned).into());
    for bad in [
        "wgnat_nothing",
        "wgnat_status{state=\"x\"}",
        "sum by (nobody) (wgnat_status)",
    ] {
        assert!(
            std::panic::catch_unwind(|| known(bad, "a test")).is_err(),
            "{bad}"
        );
    }
}

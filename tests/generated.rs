//! Files in docs/ that are generated from the code are current, and reports keep the schema that is published.
#![allow(clippy::expect_used)] // a panic is how a test fails

mod common;
mod scenarios;

use common::{check_file, samples};
use serde_json::Value;
use wgnat::output::{Format, Options, json, render};
use wgnat::report::Report;

/// Made from whatever rules the registry holds.
#[test]
fn the_published_catalogue_is_current() {
    let rules: Vec<_> = wgnat::rules::registry::catalogue().collect();
    check_file("docs/findings.md", &wgnat::output::catalogue::markdown(&rules));
}

const SCHEMA: &str = "docs/schema/wgnat.report-1.json";

fn document(report: &Report) -> Value {
    let mut out = Vec::new();
    render(report, Format::Json, &Options::default(), &mut out).expect("written");
    serde_json::from_slice(&out).expect("JSON")
}

fn reports() -> Vec<(&'static str, Report)> {
    vec![
        ("empty", samples::empty()),
        ("ports exhausted", samples::ports_exhausted()),
        ("tunnel silent", samples::tunnel_silent()),
        ("healthy", samples::healthy()),
        ("without root", samples::without_root()),
        ("hostile names", samples::hostile_names()),
        ("two places", samples::two_places()),
    ]
}

#[test]
fn the_published_scenarios_are_current() {
    check_file("docs/scenarios.md", &scenarios::page());
}

#[test]
fn the_published_schema_is_current() {
    check_file(SCHEMA, &json::schema());
}

#[test]
fn reports_keep_the_schema() {
    let schema: Value = serde_json::from_str(&json::schema()).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for (name, report) in reports() {
        let errors: Vec<String> = validator
            .iter_errors(&document(&report))
            .map(|e| format!("{} at {}", e, e.instance_path()))
            .collect();
        assert_eq!(errors, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_schema_refuses_what_is_not_a_report() {
    let schema: Value = serde_json::from_str(&json::schema()).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let good = document(&samples::ports_exhausted());
    for (at, wrong) in [
        ("/schema", Value::from("wgnat.report/2")),
        ("/status", Value::from("fine")),
        ("/findings/0/severity", Value::from("fatal")),
        ("/findings/0/confidence", Value::from("sure")),
        ("/findings/0/subject/kind", Value::from("moon")),
        ("/findings/0/subject/port", Value::from(-1)),
        ("/findings/0/evidence", Value::from(7)),
        ("/collectors/0/state", Value::from("tired")),
        ("/wireguard/peers/0/rx_bytes", Value::from("1.2 MiB")),
        ("/generated_at", Value::Null),
        ("/sockets/destinations", Value::Null),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(at).unwrap_or_else(|| panic!("{at} is there")) = wrong;
        assert!(!validator.is_valid(&bad), "{at}");
    }
    for gone in ["schema", "findings", "not_checked", "nat", "paths"] {
        let mut bad = good.clone();
        bad.as_object_mut().expect("an object").remove(gone);
        assert!(!validator.is_valid(&bad), "without {gone}");
    }
}

/// The contract's names and shapes, as its example has them. Names may be added, none may go.
#[test]
fn the_contract_holds() {
    let d = document(&samples::ports_exhausted());
    let names = |at: &str| -> Vec<String> {
        let object = d.pointer(at).and_then(Value::as_object);
        object.map_or_else(Vec::new, |o| o.keys().cloned().collect())
    };
    for (at, expected) in [
        (
            "",
            "schema generated_at duration_seconds agent host status collectors findings wireguard sockets conntrack \
             nat paths suppressed not_checked",
        ),
        ("/agent", "version"),
        ("/host", "hostname kernel boot_at netns fly"),
        ("/collectors/0", "name state reason cost_cpu_seconds"),
        (
            "/findings/0",
            "code severity confidence title subject evidence impact fixes first_seen last_seen count summary \
             candidates explains",
        ),
        ("/findings/0/subject", "kind proto source address port process"),
        ("/findings/0/subject/process", "pid comm exe runtime"),
        ("/findings/0/fixes/0", "title why command snippet expect"),
        ("/findings/0/evidence", "in_use available opens_per_second"),
        ("/findings/0/explains/0", "code subject"),
        ("/findings/1/subject", "kind device public_key endpoint local"),
        ("/wireguard", "devices peers handshakes messages"),
        ("/wireguard/messages", "initiation response cookie_reply data"),
        ("/sockets", "destinations processes"),
        (
            "/sockets/processes/0",
            "pid comm exe runtime sockets fds fd_limit",
        ),
    ] {
        let have = names(at);
        for name in expected.split_whitespace() {
            assert!(have.iter().any(|n| n == name), "{at} has {name}");
        }
    }
    assert_eq!(d["schema"], "wgnat.report/1");
    assert_eq!(d["generated_at"], "2026-03-01T10:00:05Z");
    assert_eq!(d["findings"][0]["explains"][0]["code"], "timewait-pileup");
    assert_eq!(d["suppressed"][0]["explained_by"], "ports-exhausted");
    assert!(d["conntrack"].is_object() && d["nat"].is_object() && d["paths"].is_array());
}

#[test]
fn unknown_is_null_or_absent_and_never_zero() {
    let d = document(&samples::empty());
    for at in [
        "/host/hostname",
        "/host/fly",
        "/wireguard/messages/initiation",
        "/sockets/tcp",
        "/sockets/ports_available",
        "/conntrack/count",
        "/conntrack/snat",
    ] {
        assert_eq!(d.pointer(at), Some(&Value::Null), "{at}");
    }
    let d = document(&samples::ports_exhausted());
    assert_eq!(d["wireguard"]["messages"]["data"], Value::Null);
    assert_eq!(d["findings"][0]["evidence"].get("errno_eaddrnotavail"), None);
}

/// Readers rely on the order in which evidence is told.
#[test]
fn evidence_keeps_its_order() {
    let mut out = Vec::new();
    render(
        &samples::ports_exhausted(),
        Format::Json,
        &Options::default(),
        &mut out,
    )
    .expect("written");
    let text = String::from_utf8(out).expect("UTF-8");
    let place = |name: &str| text.find(&format!("\"{name}\": ")).expect("there");
    assert!(place("in_use") < place("available"));
    assert!(place("available") < place("time_wait"));
}

//! With --all-netns doctor looks at every network namespace of the host. Those of other tests are among them, so only this
//! lab's own are judged here.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::{CtFill, Lab, Namespace, Nat, SOON, UdpFlows, UdpReflector};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::Command;
use truth::{Look, Verdict};

/// The findings about this namespace, by code.
fn codes<'a>(verdict: &'a Verdict, ns: &Namespace) -> Vec<&'a str> {
    let all = verdict.report["findings"].as_array().expect("a list");
    all.iter()
        .filter(|f| f["evidence"]["netns"] == ns.name())
        .filter_map(|f| f["code"].as_str())
        .collect()
}

/// Its row.
#[track_caller]
fn row<'a>(verdict: &'a Verdict, ns: &Namespace) -> &'a Value {
    let all = verdict.report["namespaces"].as_array().expect("a list");
    let found = all.iter().find(|n| n["name"] == ns.name());
    found.unwrap_or_else(|| panic!("{} is not listed.\n{}", ns.name(), verdict.everything()))
}

#[test]
fn a_full_range_in_another_namespace_is_found_and_named() {
    let Some(lab) = Lab::nat(Nat::Range(20_000, 20_099)) else {
        return;
    };
    let at = SocketAddr::new(lab.server_ip(), 7000);
    let _reflector = UdpReflector::start(lab.server(), at);
    let flows = UdpFlows::open(lab.client(), at, 100);
    assert_eq!(flows.answered(SOON), 100);
    let verdict = Look::at(&lab, lab.client())
        .duration("2s")
        .args(&["--all-netns"])
        .run();
    assert_eq!(codes(&verdict, lab.router()), ["snat-ports-exhausted"]);
    assert_eq!(codes(&verdict, lab.server()), [""; 0]);
    let router = row(&verdict, lab.router());
    assert_eq!((&router["state"], &router["findings"]), (&"ok".into(), &1.into()));
    assert_eq!(router["inode"], lab.router().inode());
    assert!(router["conntrack_count"].as_u64() >= Some(100), "{router}");
    assert_eq!(row(&verdict, lab.server())["state"], "ok");
    // Its own is what the rest of the report is about.
    let own = verdict.report["namespaces"].as_array().expect("a list");
    assert!(own.iter().all(|n| n["name"] != lab.client().name()));
    let finding = verdict
        .findings()
        .find(|f| f.code() == "snat-ports-exhausted")
        .expect("it was just counted");
    finding.tells("/title", &["in netns"]);
}

#[test]
fn a_namespace_that_ends_half_way_is_said_to_be_gone() {
    let Some(mut lab) = Lab::pair() else {
        return;
    };
    let passing = lab.add("passing");
    passing.track_connections();
    passing.fill_conntrack(CtFill::assured(50));
    let running = Look::at(&lab, lab.client())
        // Ended by hand: on a starved host each look takes seconds.
        .duration("60s")
        .args(&["--all-netns", "-v"])
        .start()
        .await_said("namespaces: each has been looked at once");
    let deleted = Command::new("ip")
        .args(["netns", "delete", passing.name()])
        .status()
        .expect("ip is there");
    assert!(deleted.success());
    let verdict = running.enough();
    let gone = row(&verdict, &passing);
    assert_eq!(gone["state"], "gone", "{}", verdict.everything());
    assert_eq!(gone["conntrack_count"], 50, "what was seen until then is told");
    let collector = verdict.collector("namespaces");
    assert_eq!(collector["state"], "degraded");
    assert!(
        collector["reason"]
            .as_str()
            .is_some_and(|r| r.contains("gone while")),
        "{collector}"
    );
    assert_eq!(row(&verdict, lab.server())["state"], "ok");
}

#[test]
fn without_the_privilege_each_is_said_not_to_be_seen() {
    let Some(lab) = Lab::pair() else {
        return;
    };
    let mut doctor = lab.wgnat_as_nobody(lab.client());
    doctor.args(["doctor", "--json", "--all-netns"]);
    let verdict = Look::with(doctor).duration("1s").run();
    assert_eq!(row(&verdict, lab.server())["state"], "unavailable");
    let collector = verdict.collector("namespaces");
    assert_eq!(collector["state"], "unavailable", "{collector}");
    assert!(
        collector["reason"]
            .as_str()
            .is_some_and(|r| r.contains("CAP_SYS_ADMIN")),
        "{collector}"
    );
}

//! doctor says the truth of connection tracking and of NAT on this host: tables near full and full, ranges used up, clashes.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::{CtFill, Lab, Namespace, Nat, SOON, UdpFlows, UdpReflector, natrace};
use std::net::SocketAddr;
use std::time::Duration;
use truth::{Look, Repeat, Verdict};

const NAT_AT: &str = "203.0.113.1";

fn at(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.server_ip(), 7000)
}

fn router(lab: &Lab, case: &str, duration: &str) -> Verdict {
    Look::at(lab, lab.router()).duration(duration).case(case).run()
}

/// Fills this share of a host's table with entries that stay.
#[track_caller]
fn fill(ns: &Namespace, percent: u64) {
    let count = u32::try_from(ns.conntrack_max() * percent / 100).expect("it is no larger");
    ns.fill_conntrack(CtFill::assured(count));
}

#[test]
fn a_table_at_eighty_percent_is_low() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    fill(lab.router(), 80);
    let client = Look::at(&lab, lab.client()).duration("1s").start();
    let verdict = router(&lab, "conntrack-low-warning", "5s");
    verdict
        .says_only(&["conntrack-low"])
        .is("warning", "certain")
        .field("/subject/kind", "conntrack")
        .evidence("max", lab.router().conntrack_max())
        .measures("count", 200_000.0..)
        .fix(&["nf_conntrack_max"]);
    // Each namespace has a table of its own.
    client.finish().nothing_wrong();
}

#[test]
fn a_table_at_ninety_three_percent_is_critically_low() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    fill(lab.router(), 93);
    let verdict = router(&lab, "conntrack-low-critical", "5s");
    verdict.says_only(&["conntrack-low"]).is("critical", "certain");
    assert_eq!(verdict.code, 2);
}

#[test]
fn a_full_table_drops() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    lab.router().fill_conntrack_up();
    let flows = UdpFlows::open(lab.client(), at(&lab), 20);
    let _load = Repeat::every(Duration::from_millis(200), move || flows.send());
    let client = Look::at(&lab, lab.client()).duration("2s").start();
    let verdict = router(&lab, "conntrack-full", "5s");
    verdict
        .says_only(&["conntrack-full"])
        .is("critical", "certain")
        .field("/subject/kind", "conntrack")
        .measures("dropped", 20.0..)
        .fix(&["nf_conntrack_max"]);
    client.finish().nothing_wrong();
}

#[test]
fn a_full_table_that_makes_room_is_full_without_loss() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let max = u32::try_from(lab.router().conntrack_max()).expect("it is no larger");
    lab.router().fill_conntrack(CtFill::unreplied(max));
    let client = lab.client().clone();
    let to = at(&lab);
    let _load = Repeat::every(Duration::from_millis(200), move || {
        UdpFlows::open(&client, to, 20).send()
    });
    let verdict = router(&lab, "conntrack-full-early-drop", "5s");
    // Nothing was lost: early drops are of entries that never saw a reply.
    verdict.says_at_most(&["conntrack-full", "conntrack-low"]);
    assert_eq!(verdict.wrong().len(), 1, "{}", verdict.everything());
    for found in verdict.findings().filter(|f| f.severity() == "critical") {
        found.is("critical", "certain").measures("early_drop", 1.0..);
    }
    assert_eq!(verdict.code, 2);
}

#[test]
fn four_fifths_of_a_nat_range_are_low() {
    let Some(lab) = Lab::nat(Nat::Range(20000, 20099)) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let flows = UdpFlows::open(lab.client(), at(&lab), 80);
    assert_eq!(flows.answered(SOON), 80);
    let client = Look::at(&lab, lab.client()).duration("1s").start();
    let verdict = router(&lab, "snat-ports-low", "1s");
    verdict
        .says_only(&["snat-ports-low"])
        .is("warning", "certain")
        .field("/subject/kind", "nat")
        .field("/subject/address", NAT_AT)
        .field("/subject/proto", "udp")
        .field("/subject/destination", at(&lab).to_string())
        .evidence("in_use", 80);
    client.finish().nothing_wrong();
}

#[test]
fn a_nat_range_without_a_free_port_is_exhausted() {
    let Some(lab) = Lab::nat(Nat::Range(20000, 20099)) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let flows = UdpFlows::open(lab.client(), at(&lab), 150);
    assert_eq!(flows.answered(SOON), 100);
    // Those without a port try again.
    let _load = Repeat::every(Duration::from_millis(200), move || flows.send());
    let client = Look::at(&lab, lab.client()).duration("2s").start();
    let server = Look::at(&lab, lab.server()).duration("2s").start();
    let verdict = router(&lab, "snat-ports-exhausted", "2s");
    verdict
        .says_only(&["snat-ports-exhausted"])
        .is("critical", "certain")
        .field("/subject/kind", "nat")
        .field("/subject/proto", "udp")
        .field("/subject/address", NAT_AT)
        .field("/subject/destination", at(&lab).to_string())
        .evidence("in_use", 100)
        .measures("insert_failed", 50.0..);
    assert_eq!(verdict.code, 2);
    // To the clients it is silence, and to the server nothing at all.
    client.finish().nothing_wrong();
    server.finish().nothing_wrong();
}

#[test]
fn a_used_up_range_towards_one_destination_leaves_others_alone() {
    let Some(lab) = Lab::nat(Nat::Range(20000, 20099)) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let other = SocketAddr::new(lab.server_ip(), 7001);
    let _other_reflector = UdpReflector::start(lab.server(), other);
    let flows = UdpFlows::open(lab.client(), at(&lab), 120);
    let few = UdpFlows::open(lab.client(), other, 30);
    assert_eq!(flows.answered(SOON), 100);
    assert_eq!(few.answered(SOON), 30);
    let _load = Repeat::every(Duration::from_millis(200), move || flows.send());
    let verdict = router(&lab, "snat-ports-exhausted-one-of-two", "2s");
    verdict
        .says_only(&["snat-ports-exhausted"])
        .is("critical", "certain")
        .field("/subject/destination", at(&lab).to_string());
}

#[test]
fn clashes_without_a_used_up_range_are_failed_insertions() {
    let Some(lab) = Lab::builder().nat(Nat::Masquerade).second_client().build() else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let before = lab.router().conntrack_stats();
    let _race = natrace::start(&lab, at(&lab));
    lab::wait_until(SOON, "insertions to fail", || {
        lab.router().conntrack_stats().insert_failed > before.insert_failed + 10
    });
    let verdict = router(&lab, "conntrack-insert-failed", "3s");
    verdict
        .says_only(&["conntrack-insert-failed"])
        .field("/confidence", "certain")
        .field("/subject/kind", "conntrack")
        .measures("insert_failed", 1.0..)
        // As root the table was read: ports are not what is short.
        .candidates(&["one port at the same moment"])
        .ruled_out(&["snat-ports-exhausted"])
        .fix(&["fully-random"]);
}

//! `wgnat nat` says what a NAT is: real NATs by nftables, asked through `wgnat reflect` and through coturn, with coturn's
//! discovery client as referee.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod lab;
mod truth;

use lab::{Lab, Namespace, Nat, StunServer};
use serde_json::Value;
use truth::{Look, Verdict};

const STUN: &str = "203.0.113.9:3478";

/// `wgnat nat --json` in a namespace.
#[track_caller]
fn nat(lab: &Lab, ns: &Namespace, args: &[&str]) -> Verdict {
    let mut command = lab.wgnat(ns);
    command.args(["-v", "nat", "--json", "--stun"]).args(args);
    Look::with(command).run()
}

/// Compares fields of `nat`.
#[track_caller]
fn says(verdict: &Verdict, expected: &[(&str, Value)]) {
    for (field, value) in expected {
        let found = &verdict.report["nat"][field];
        assert_eq!(found, value, "nat.{field}\n{}", verdict.everything());
    }
}

const EIM: &str = "endpoint-independent";
const APDM: &str = "address-and-port-dependent";

#[test]
fn masquerade_is_endpoint_independent_and_filters_by_port() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    let verdict = nat(&lab, lab.client(), &[STUN]);
    says(
        &verdict,
        &[
            ("mapping", EIM.into()),
            ("filtering", APDM.into()),
            ("port_preservation", true.into()),
            ("hairpinning", false.into()),
            ("udp_blocked", false.into()),
            ("external", vec!["203.0.113.1"].into()),
        ],
    );
    assert_eq!(verdict.code, 0);
    verdict.nothing_wrong();
}

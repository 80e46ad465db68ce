//! What the default gateway says of itself, by a real one (miniupnpd): that its outside is what servers see, that it has none
//! although there is one, that it speaks PCP. `wgnat nat` and `doctor` say the same.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod lab;
mod truth;

use lab::{Lab, Miniupnpd, Namespace, Nat, StunServer};
use serde_json::Value;
use truth::{Look, Verdict};

/// What `wgnat nat` and doctor say.
#[track_caller]
fn both(lab: &Lab, ns: &Namespace, stun: &str) -> [Verdict; 2] {
    let mut command = lab.wgnat(ns);
    command.args(["-v", "nat", "--json", "--stun", stun]);
    let doctor = Look::at(lab, ns).duration("1s").args(&["--stun", stun]);
    [Look::with(command).run(), doctor.run()]
}

/// What the gateway says by this protocol.
#[track_caller]
fn by<'a>(verdict: &'a Verdict, protocol: &str) -> &'a Value {
    let gateways = verdict.report["nat"]["gateways"].as_array().expect("a list");
    let found = gateways.iter().find(|g| g["protocol"] == protocol);
    found.unwrap_or_else(|| panic!("nothing by {protocol}.\n{}", verdict.everything()))
}

/// What is beyond the lab's router has addresses that could be on the internet, which miniupnpd insists on. They are nobody's
/// here: no packet leaves the lab.
#[track_caller]
fn beyond_documentation(lab: &Lab) {
    lab.router().ip(&[
        "address del 203.0.113.1/24 dev wan0",
        "address add 203.0.112.1/24 dev wan0",
    ]);
    lab.server().ip(&[
        "address add 203.0.112.9/24 dev eth0",
        "address add 203.0.112.10/24 dev eth0",
    ]);
}

#[test]
fn a_gateway_that_names_what_servers_see_is_one_nat() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    beyond_documentation(&lab);
    let _gateway = Miniupnpd::start(lab.router(), "wan0", "lan0");
    let _server = StunServer::reflect(&lab, lab.server(), &["--address", "203.0.112.9,203.0.112.10"]);
    for verdict in both(&lab, lab.client(), "203.0.112.9") {
        for protocol in ["nat-pmp", "upnp"] {
            let said = by(&verdict, protocol);
            assert_eq!(
                (&said["gateway"], &said["external"], &said["problem"]),
                (&"10.77.0.1".into(), &"203.0.112.1".into(), &Value::Null),
                "{}",
                verdict.everything()
            );
        }
        let pcp = by(&verdict, "pcp");
        assert!(pcp["external"].is_null(), "{pcp}");
        assert_eq!(
            verdict.report["nat"]["external"],
            serde_json::json!(["203.0.112.1"])
        );
        assert_eq!(verdict.codes(), [""; 0], "{}", verdict.everything());
        verdict.nothing_wrong();
    }
    // Asking has mapped nothing.
    let rules = lab::exec::output({
        let mut nft = lab.router().command("nft");
        nft.args(["list", "ruleset"]);
        nft
    });
    assert!(!rules.stdout.contains("dnat"), "{}", rules.stdout);
    let mut command = lab.wgnat(lab.client());
    command.args(["nat", "--stun", "203.0.112.9"]);
    let out = lab::exec::output(command);
    for words in [
        "10.77.0.1 says that its outside is 203.0.112.1 (nat-pmp)",
        "10.77.0.1 says that its outside is 203.0.112.1 (upnp)",
        "10.77.0.1 speaks PCP, which names its outside with a mapping only (pcp)",
        "routers 1 10.77.0.1 (hops)",
    ] {
        assert!(out.words().contains(words), "{words}\n{}", out.stdout);
    }
}

#[test]
fn a_gateway_behind_another_nat_names_no_outside_and_the_way_tells_why() {
    let Some(mut lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let inner = lab.behind_home_router();
    let _gateway = Miniupnpd::start(lab.client(), "eth0", "lan0");
    let _server = StunServer::reflect_all(&lab);
    for verdict in both(&lab, &inner, "203.0.113.9") {
        for protocol in ["nat-pmp", "upnp"] {
            let said = by(&verdict, protocol);
            assert!(said["external"].is_null(), "{}", verdict.everything());
            assert!(said["problem"].is_string(), "{}", verdict.everything());
        }
        verdict
            .finding("nat-double")
            .is("info", "likely")
            .evidence("gateway", "192.168.7.1")
            .evidence("hop", "10.77.0.1")
            .evidence("external", "203.0.113.1")
            .candidates(&["second nat", "does not know its own"]);
        verdict.nothing_wrong();
    }
}

#[test]
fn a_gateway_in_a_carrier_s_range_names_no_outside_and_the_way_tells_the_carrier() {
    let Some(mut lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    lab.carrier_range();
    lab.client().ip(&["address del 10.77.0.2/24 dev eth0"]);
    let inner = lab.behind_home_router();
    let _gateway = Miniupnpd::start(lab.client(), "eth0", "lan0");
    let _server = StunServer::reflect_all(&lab);
    for verdict in both(&lab, &inner, "203.0.113.9") {
        assert!(
            by(&verdict, "nat-pmp")["external"].is_null(),
            "{}",
            verdict.everything()
        );
        verdict
            .finding("nat-cgn")
            .is("info", "likely")
            .evidence("seen_at", "hop")
            .evidence("shared_address", "100.64.0.1");
        assert_eq!(verdict.codes(), ["nat-cgn"], "{}", verdict.everything());
        verdict.nothing_wrong();
    }
}

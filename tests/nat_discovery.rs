//! `wgnat nat` says what a NAT is: real NATs by nftables, asked through `wgnat reflect` and through coturn, with coturn's
//! discovery client as referee.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod lab;
mod truth;

use lab::{Lab, Namespace, Nat, StunServer, nats};
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

#[test]
fn a_port_range_is_not_kept_and_random_ports_vary() {
    let Some(lab) = Lab::nat(Nat::Range(20000, 20999)) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    let range = nat(&lab, lab.client(), &[STUN]);
    says(
        &range,
        &[
            ("mapping", EIM.into()),
            ("filtering", APDM.into()),
            ("port_preservation", false.into()),
        ],
    );
    range.nothing_wrong();
    for random in [Nat::Random, Nat::FullyRandom] {
        lab.rebind(random);
        let verdict = nat(&lab, lab.client(), &[STUN]);
        says(&verdict, &[("mapping", APDM.into()), ("filtering", APDM.into())]);
        verdict.nothing_wrong();
        let found = verdict.finding("nat-mapping-varies");
        found
            .field("/severity", "info")
            .field("/subject/address", "203.0.113.1");
        assert_eq!(verdict.code, 0);
    }
}

#[test]
fn cones_are_told_by_what_they_let_in() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    for (rules, filtering, hairpinning) in [
        (nats::full_cone(), EIM, false),
        (nats::address_restricted(), "address-dependent", false),
        (nats::hairpinning(), EIM, true),
    ] {
        lab.router().nft(&rules);
        lab.router().conntrack_flush();
        let verdict = nat(&lab, lab.client(), &[STUN]);
        says(
            &verdict,
            &[
                ("mapping", EIM.into()),
                ("filtering", filtering.into()),
                ("hairpinning", hairpinning.into()),
            ],
        );
        verdict.nothing_wrong();
    }
}

#[test]
fn without_a_nat_there_is_none_in_either_family() {
    let Some(lab) = Lab::routed() else {
        return;
    };
    lab.server()
        .ip(&["address add 2001:db8:113::10/64 dev eth0 nodad"]);
    let _server = StunServer::reflect(
        &lab,
        lab.server(),
        &[
            "--address",
            "203.0.113.9,203.0.113.10,2001:db8:113::9,2001:db8:113::10",
        ],
    );
    let verdict = nat(&lab, lab.client(), &[STUN, "--stun", "[2001:db8:113::9]"]);
    says(
        &verdict,
        &[
            ("mapping", "none".into()),
            ("filtering", "none".into()),
            ("hairpinning", Value::Null),
            ("external", vec!["10.77.0.2", "fd77::2"].into()),
        ],
    );
    let v6 = &verdict.report["nat"]["families"][1];
    assert_eq!(v6["family"], "ipv6", "{}", verdict.everything());
    assert_eq!(
        (&v6["mapping"], &v6["translated"]),
        (&"none".into(), &false.into()),
        "{v6}"
    );
    verdict.nothing_wrong();

    // A unique local address that comes out as a global one.
    lab.router().nft(
        "table ip6 lab_nat6 { chain post { type nat hook postrouting priority srcnat; oifname \"wan0\" masquerade; }; }",
    );
    let verdict = nat(&lab, lab.client(), &["[2001:db8:113::9]"]);
    let v6 = &verdict.report["nat"]["families"][0];
    assert_eq!(v6["translated"], true, "{}", verdict.everything());
    assert_eq!(v6["mapping"], EIM, "{}", verdict.everything());
    assert_eq!(v6["external_addresses"][0], "2001:db8:113::1");
}

#[test]
fn one_host_has_one_address_of_a_persistent_pool() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    lab.router().ip(&[
        "address add 203.0.113.2/24 dev wan0",
        "address add 203.0.113.3/24 dev wan0",
    ]);
    lab.router().nft(&nats::pool(true));
    let _server = StunServer::reflect_all(&lab);
    let verdict = nat(&lab, lab.client(), &[STUN]);
    assert_eq!(
        verdict.report["nat"]["families"][0]["pooling"],
        "paired",
        "{}",
        verdict.everything()
    );
    says(&verdict, &[("mapping", EIM.into())]);
}

#[test]
fn dropped_udp_is_blocked_and_one_server_is_only_a_hint() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    let _other = StunServer::reflect(&lab, lab.server(), &["--address", "203.0.113.11"]);
    lab.router().nft(&nats::udp_dropped());
    let verdict = nat(&lab, lab.client(), &[STUN, "--stun", "203.0.113.11"]);
    verdict
        .says_only(&["udp-blocked"])
        .is("critical", "likely")
        .evidence("servers_over_tcp", 2);
    says(
        &verdict,
        &[("udp_blocked", true.into()), ("mapping", "unknown".into())],
    );
    assert_eq!(verdict.code, 2);
    let verdict = nat(&lab, lab.client(), &[STUN]);
    verdict.says_only(&["udp-blocked"]).is("warning", "possible");
    assert_eq!(verdict.code, 1);
    // A server that is not there says nothing of UDP.
    let verdict = nat(&lab, lab.client(), &["203.0.113.12"]);
    says(&verdict, &[("udp_blocked", Value::Null)]);
    assert_eq!(
        (verdict.code, verdict.codes()),
        (3, vec![]),
        "{}",
        verdict.everything()
    );
}

#[test]
fn an_idle_mapping_s_life_is_bracketed() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    for key in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        lab.router().sysctl(&format!("net.netfilter.{key}"), 6);
    }
    let _server = StunServer::reflect_all(&lab);
    let verdict = nat(&lab, lab.client(), &[STUN, "--lifetime", "13s"]);
    let number = |field: &str| verdict.report["nat"][field].as_f64();
    let (alive, gone) = (
        number("mapping_lifetime_seconds"),
        number("mapping_lifetime_at_most_seconds"),
    );
    assert!(
        alive.is_some_and(|s| (3.0..=6.5).contains(&s)),
        "{}",
        verdict.everything()
    );
    assert!(
        gone.is_some_and(|s| (5.5..=8.1).contains(&s)),
        "{}",
        verdict.everything()
    );
    verdict
        .says_only(&["nat-mapping-short"])
        .is("warning", "certain")
        .fix(&["PersistentKeepalive"]);
}

/// Begins a search for the lifetime, and makes `happen` once mappings are told to live.
#[track_caller]
fn while_mappings_age(lab: &Lab, happen: impl FnOnce()) -> Verdict {
    let mut command = lab.wgnat(lab.client());
    command.args(["-v", "nat", "--json", "--stun", STUN, "--lifetime", "13s"]);
    let running = Look::with(command).start().await_said("idle for 3.0 s lives");
    happen();
    running.finish()
}

/// Mappings lived for so long at least, and how long at most is not known, for this reason.
#[track_caller]
fn no_bound_is_told(verdict: &Verdict, why: &str) {
    let family = &verdict.report["nat"]["families"][0];
    for of in [&verdict.report["nat"], family] {
        assert_eq!(
            of["mapping_lifetime_at_most_seconds"],
            Value::Null,
            "{}",
            verdict.everything()
        );
        let alive = of["mapping_lifetime_seconds"].as_f64();
        assert!(
            alive.is_some_and(|s| (3.0..13.0).contains(&s)),
            "{}",
            verdict.everything()
        );
    }
    let left_out = family["left_out"].as_array().expect("a list");
    let said = left_out.iter().find(|l| l["test"] == "lifetime");
    let said = said.and_then(|l| l["why"].as_str()).unwrap_or_default();
    assert!(
        said.contains("not known") && said.contains(why),
        "{said}\n{}",
        verdict.everything()
    );
    verdict.nothing_wrong();
    assert!(
        !verdict.codes().contains(&"nat-mapping-short"),
        "{}",
        verdict.everything()
    );
}

#[test]
fn a_link_that_goes_down_while_mappings_age_is_no_lifetime() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    // The router's outside goes down and up: masquerading forgets every mapping, and the server answers as before.
    let verdict = while_mappings_age(&lab, || {
        lab.router().ip(&["link set wan0 down", "link set wan0 up"]);
    });
    no_bound_is_told(&verdict, "interrupted");
    // It stays down.
    let verdict = while_mappings_age(&lab, || lab.router().ip(&["link set wan0 down"]));
    no_bound_is_told(&verdict, "not reached any more");
    lab.router().ip(&["link set wan0 up"]);
    // This host's own link goes down: there is no route any more, so no socket can be opened either.
    let verdict = while_mappings_age(&lab, || lab.client().ip(&["link set eth0 down"]));
    no_bound_is_told(&verdict, "not reached any more");
}

#[test]
fn a_nat_s_quota_and_block_are_measured_at_our_own_reflector_only() {
    let Some(lab) = Lab::nat(Nat::Range(20480, 20543)) else {
        return;
    };
    let server = StunServer::reflect_all(&lab);
    let verdict = nat(&lab, lab.client(), &[STUN, "--port-quota", "128"]);
    let quota = &verdict.report["nat"]["quota"];
    let answered = quota["answered"].as_u64().unwrap_or(0);
    // The discovery before has used some of the ports.
    assert!((40..=64).contains(&answered), "{}", verdict.everything());
    assert_eq!(quota["quota"], quota["answered"], "{}", verdict.everything());
    assert_eq!(
        (&quota["block_first"], &quota["block_size"]),
        (&20480.into(), &64.into()),
        "{quota}"
    );
    assert_eq!(quota["overloading"], true, "{quota}");
    drop(server);
    lab.router().conntrack_flush();
    let _coturn = StunServer::coturn(lab.server(), &["203.0.113.9", "203.0.113.10"]);
    let mut command = lab.wgnat(lab.client());
    command.args(["nat", "--stun", STUN, "--port-quota", "64"]);
    let out = lab::exec::output(command);
    assert_eq!(out.code, 3, "{out:?}");
    assert!(out.stderr.contains("wgnat reflect"), "{}", out.stderr);
}

#[test]
fn a_changed_external_address_is_told_while_watching() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let snat = nats::snat;
    lab.router().ip(&["address add 203.0.113.2/24 dev wan0"]);
    lab.router().nft(&snat("203.0.113.1"));
    let _server = StunServer::reflect_all(&lab);
    let mut command = lab.wgnat(lab.client());
    command.args(["-v", "nat", "--json", "--stun", STUN, "--watch", "6s"]);
    let running = Look::with(command).start().await_said("once more");
    lab.router().nft(&snat("203.0.113.2"));
    lab.router().conntrack_flush();
    let verdict = running.finish();
    verdict
        .says_only(&["nat-external-changed"])
        .is("warning", "certain")
        .evidence("before", "203.0.113.1")
        .evidence("now", "203.0.113.2")
        .evidence("own_address_changed", false);
}

#[test]
fn two_nats_in_a_row_are_told_by_the_gateway() {
    let Some(mut lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let inner = lab.behind_home_router();
    let _server = StunServer::reflect_all(&lab);
    // Without a word of the gateway, the second router's private address is only a hint.
    let verdict = nat(&lab, &inner, &[STUN]);
    verdict.finding("nat-double").is("info", "possible");
    verdict.nothing_wrong();
    let _gateway = lab::stun::NatPmp::start(lab.client(), "192.168.7.1", [10, 77, 0, 2]);
    let verdict = nat(&lab, &inner, &[STUN]);
    verdict
        .finding("nat-double")
        .is("info", "certain")
        .evidence("gateway_external", "10.77.0.2")
        .evidence("external", "203.0.113.1");
    says(&verdict, &[("mapping", EIM.into()), ("filtering", APDM.into())]);
    verdict.nothing_wrong();
}

#[test]
fn a_carrier_s_range_on_the_way_is_a_carrier_s_nat() {
    let Some(mut lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    lab.carrier_range();
    let inner = lab.behind_home_router();
    let _server = StunServer::reflect_all(&lab);
    let verdict = nat(&lab, &inner, &[STUN]);
    verdict
        .finding("nat-cgn")
        .is("info", "possible")
        .candidates(&["provider's nat", "uses that range inside"])
        .evidence("seen_at", "hop")
        .evidence("shared_address", "100.64.0.1");
    assert!(
        !verdict.codes().contains(&"nat-double"),
        "{}",
        verdict.everything()
    );
    // The home router itself has such an address.
    let verdict = nat(&lab, lab.client(), &[STUN]);
    verdict
        .finding("nat-cgn")
        .is("info", "likely")
        .evidence("seen_at", "own-address");
    verdict.nothing_wrong();
}

#[test]
fn a_server_of_one_address_says_what_it_leaves_out() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect(
        &lab,
        lab.server(),
        &["--address", "203.0.113.9", "--port", "3478"],
    );
    let verdict = nat(&lab, lab.client(), &[STUN]);
    says(
        &verdict,
        &[
            ("mapping", "unknown".into()),
            ("filtering", "unknown".into()),
            ("port_preservation", true.into()),
            ("hairpinning", false.into()),
        ],
    );
    let left_out = verdict.report["nat"]["families"][0]["left_out"]
        .as_array()
        .expect("a list");
    let tests: Vec<&str> = left_out.iter().filter_map(|l| l["test"].as_str()).collect();
    assert_eq!(tests, ["mapping", "filtering"], "{}", verdict.everything());
    // A second server makes the mapping known.
    let _other = StunServer::reflect(
        &lab,
        lab.server(),
        &["--address", "203.0.113.11", "--port", "3478"],
    );
    let verdict = nat(&lab, lab.client(), &[STUN, "--stun", "203.0.113.11"]);
    says(
        &verdict,
        &[("mapping", EIM.into()), ("filtering", "unknown".into())],
    );
}

//! `wgnat doctor --stun` says of each kind of NAT in front what `wgnat nat` says of it, and both say the truth: real NATs by
//! nftables.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod lab;
mod truth;

use lab::{Lab, Namespace, Nat, StunServer, nats};
use serde_json::Value;
use truth::{Look, Verdict};

const STUN: &str = "203.0.113.9";
const EIM: &str = "endpoint-independent";
const AD: &str = "address-dependent";
const APDM: &str = "address-and-port-dependent";

/// What doctor says at the lab's client, or at another host.
#[track_caller]
fn doctor(lab: &Lab, ns: &Namespace, args: &[&str]) -> Verdict {
    Look::at(lab, ns).duration("1s").args(args).run()
}

/// What `wgnat nat` and doctor say, each of a NAT that remembers no flow.
#[track_caller]
fn both(lab: &Lab, ns: &Namespace, args: &[&str]) -> [Verdict; 2] {
    both_of(lab, ns, "", args)
}

/// The same of a NAT by these rules, which remembers nothing either.
#[track_caller]
fn both_of(lab: &Lab, ns: &Namespace, rules: &str, args: &[&str]) -> [Verdict; 2] {
    let forget = || {
        // A table that is made anew has no sets of addresses that were called.
        lab.router().nft(rules);
        lab.router().conntrack_flush();
    };
    forget();
    let mut command = lab.wgnat(ns);
    command.args(["-v", "nat", "--json"]).args(args);
    let nat = Look::with(command).run();
    forget();
    [nat, doctor(lab, ns, args)]
}

/// Compares fields of `nat` in the reports of both.
#[track_caller]
fn say(verdicts: &[Verdict; 2], what: &str, expected: &[(&str, Value)]) {
    for (verdict, who) in verdicts.iter().zip(["nat", "doctor"]) {
        for (field, value) in expected {
            let found = &verdict.report["nat"][field];
            assert_eq!(
                found,
                value,
                "{who} of {what}: nat.{field}\n{}",
                verdict.everything()
            );
        }
        verdict.nothing_wrong();
    }
}

#[test]
fn each_way_to_give_out_ports_is_told() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    for (what, rules, mapping, kept) in [
        ("masquerade", Nat::Masquerade.ruleset(), EIM, true),
        ("persistent", nats::masquerade("persistent"), EIM, true),
        ("a range of 100", Nat::Range(20_000, 20_099).ruleset(), EIM, false),
        (
            "a range of 4,000",
            Nat::Range(30_000, 33_999).ruleset(),
            EIM,
            false,
        ),
        ("random", Nat::Random.ruleset(), APDM, false),
        ("fully-random", Nat::FullyRandom.ruleset(), APDM, false),
        (
            "fully-random and persistent",
            nats::masquerade("fully-random,persistent"),
            APDM,
            false,
        ),
    ] {
        let verdicts = both_of(&lab, lab.client(), &rules, &["--stun", STUN]);
        let expected = [
            ("mapping", mapping.into()),
            ("filtering", APDM.into()),
            ("port_preservation", kept.into()),
            ("hairpinning", false.into()),
            ("udp_blocked", false.into()),
            ("external", vec!["203.0.113.1"].into()),
        ];
        say(&verdicts, what, &expected);
        for verdict in &verdicts {
            if mapping == APDM {
                let found = verdict.finding("nat-mapping-varies").is("info", "certain");
                found.field("/subject/address", "203.0.113.1");
            } else {
                assert_eq!(verdict.codes(), [""; 0], "{what}: {}", verdict.everything());
            }
        }
    }
}

#[test]
fn each_cone_is_told() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    for (what, rules, filtering, hairpinning) in [
        ("full cone", nats::full_cone(), EIM, false),
        ("restricted cone", nats::address_restricted(), AD, false),
        ("full cone with hairpinning", nats::hairpinning(), EIM, true),
    ] {
        let verdicts = both_of(&lab, lab.client(), &rules, &["--stun", STUN]);
        let expected = [
            ("mapping", EIM.into()),
            ("filtering", filtering.into()),
            ("hairpinning", hairpinning.into()),
        ];
        say(&verdicts, what, &expected);
    }
    // In words, for who reads and does not parse.
    let mut command = lab.wgnat(lab.client());
    command.args(["doctor", "--duration", "1s", "--stun", STUN]);
    let out = lab::exec::output(command);
    for words in [
        "one outside port for all destinations (endpoint-independent mapping)",
        "anybody may call in once a port is open",
        "hosts behind it reach each other by its address (hairpinning)",
    ] {
        assert!(out.words().contains(words), "{words}\n{}", out.stdout);
    }
}

#[test]
fn pools_are_told() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _servers = nats::pool_and_servers(&lab);
    let args = ["--stun", STUN, "--stun", "203.0.113.11", "--stun", "203.0.113.12"];
    for (persistent, pooling) in [(false, "arbitrary"), (true, "paired")] {
        for verdict in both_of(&lab, lab.client(), &nats::pool(persistent), &args) {
            let family = &verdict.report["nat"]["families"][0];
            assert_eq!(family["pooling"], pooling, "{}", verdict.everything());
            assert_eq!(family["mapping"], EIM, "{}", verdict.everything());
            verdict.nothing_wrong();
        }
    }
}

#[test]
fn a_second_nat_is_told() {
    let Some(mut lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let inner = lab.behind_home_router();
    let _server = StunServer::reflect_all(&lab);
    for verdict in both(&lab, &inner, &["--stun", STUN]) {
        verdict
            .finding("nat-double")
            .is("info", "possible")
            .evidence("hop", "10.77.0.1")
            .candidates(&["second nat", "one large private network"]);
        verdict.nothing_wrong();
    }
    let _gateway = lab::stun::NatPmp::start(lab.client(), "192.168.7.1", [10, 77, 0, 2]);
    let verdicts = both(&lab, &inner, &["--stun", STUN]);
    say(
        &verdicts,
        "two NATs",
        &[("mapping", EIM.into()), ("filtering", APDM.into())],
    );
    for verdict in &verdicts {
        verdict
            .finding("nat-double")
            .is("info", "certain")
            .evidence("gateway_external", "10.77.0.2")
            .evidence("external", "203.0.113.1");
    }
}

#[test]
fn a_carrier_s_nat_is_told_from_behind_it_and_from_behind_a_home_router() {
    let Some(mut lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    lab.carrier_range();
    let inner = lab.behind_home_router();
    let _server = StunServer::reflect_all(&lab);
    for (ns, seen_at, confidence) in [
        (lab.client(), "own-address", "likely"),
        (&inner, "hop", "possible"),
    ] {
        for verdict in both(&lab, ns, &["--stun", STUN]) {
            verdict
                .finding("nat-cgn")
                .is("info", confidence)
                .evidence("seen_at", seen_at);
            verdict.nothing_wrong();
        }
    }
}

#[test]
fn a_mapping_s_life_is_bracketed_where_doctor_is_asked_to() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    for key in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        lab.router().sysctl(&format!("net.netfilter.{key}"), 6);
    }
    let _server = StunServer::reflect_all(&lab);
    let args = ["--stun", STUN, "--nat-lifetime", "13s"];
    let verdict = doctor(&lab, lab.client(), &args);
    let found = verdict
        .says_only(&["nat-mapping-short"])
        .is("warning", "certain")
        .measures("mapping_lifetime_seconds", 3.0..=6.5)
        .measures("mapping_lifetime_at_most_seconds", 5.5..=8.1);
    found.fix(&["PersistentKeepalive"]);
    assert_eq!(verdict.code, 1);
}

#[test]
fn a_measurement_that_is_interrupted_tells_what_it_knows() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    let mut nat = lab.wgnat(lab.client());
    nat.args(["-v", "nat", "--json"]);
    for look in [
        Look::with(nat).args(&["--lifetime", "100s"]),
        Look::at(&lab, lab.client())
            .duration("1s")
            .args(&["--nat-lifetime", "100s"]),
    ] {
        let running = look.args(&["--stun", STUN]).start();
        let verdict = running.await_said("idle for 5.0 s lives").enough();
        let family = &verdict.report["nat"]["families"][0];
        let lived = family["mapping_lifetime_seconds"].as_f64().unwrap_or_default();
        assert!((5.0..60.0).contains(&lived), "{}", verdict.everything());
        assert!(family["mapping_lifetime_at_most_seconds"].is_null(), "{family:#}");
        assert!(
            family["left_out"]
                .to_string()
                .contains("ended before it was done"),
            "{family:#}"
        );
        assert_eq!(
            (&family["mapping"], &family["filtering"]),
            (&EIM.into(), &APDM.into())
        );
        verdict.nothing_wrong();
    }
}

#[test]
fn a_lifetime_without_a_server_is_refused_in_words() {
    let Some(lab) = Lab::lone() else { return };
    let mut command = lab.wgnat(lab.client());
    command.args(["doctor", "--nat-lifetime"]);
    let out = lab::exec::output(command);
    assert_eq!(out.code, 3, "{out:?}");
    assert!(out.stderr.contains("expected --stun HOST"), "{}", out.stderr);
}

/// Another program's flows take every port of the NAT towards both servers.
#[test]
fn a_full_nat_is_named_beside_a_firewall() {
    let Some(lab) = Lab::nat(Nat::Range(20_480, 20_489)) else {
        return;
    };
    let _servers = [
        StunServer::reflect_all(&lab),
        StunServer::reflect(&lab, lab.server(), &["--address", "203.0.113.11"]),
    ];
    let flows: Vec<_> = ["203.0.113.9", "203.0.113.10", "203.0.113.11"]
        .iter()
        .flat_map(|ip| [3478, 3479].map(|port| format!("{ip}:{port}")))
        .flat_map(|to| {
            let lab = &lab;
            (0..12).map(move |_| {
                let socket = lab
                    .client()
                    .run(|| std::net::UdpSocket::bind("0.0.0.0:0"))
                    .unwrap();
                socket.send_to(&[0; 8], &to).unwrap();
                socket
            })
        })
        .collect();
    let verdict = doctor(&lab, lab.client(), &["--stun", STUN, "--stun", "203.0.113.11"]);
    verdict
        .says_only(&["udp-blocked"])
        .candidates(&["drops udp", "no udp port left"]);
    // The NAT's own host sees its table: there it is certain.
    let router = doctor(&lab, lab.router(), &[]);
    // Towards each address and port that the flows go to.
    router
        .says_only(&["snat-ports-exhausted"; 6])
        .is("critical", "certain");
    drop(flows);
}

#[test]
fn a_limit_on_new_flows_is_not_misread() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    lab.router().nft(&nats::rate_limited(2));
    for verdict in both(&lab, lab.client(), &["--stun", STUN]) {
        let nat = &verdict.report["nat"];
        for (field, truth) in [("mapping", EIM), ("filtering", APDM)] {
            let said = nat[field].as_str().unwrap_or_default();
            assert!(
                [truth, "unknown"].contains(&said),
                "{field}: {}",
                verdict.everything()
            );
        }
        verdict.says_at_most(&["udp-blocked"]);
        assert_ne!(verdict.code, 2, "{}", verdict.everything());
    }
}

/// As Fly's newer machines leave by IPv6.
#[test]
fn a_unique_local_address_that_comes_out_as_a_global_one_is_told() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    lab.server()
        .ip(&["address add 2001:db8:113::10/64 dev eth0 nodad"]);
    let addresses = "203.0.113.9,203.0.113.10,2001:db8:113::9,2001:db8:113::10";
    let _server = StunServer::reflect(&lab, lab.server(), &["--address", addresses]);
    let args = ["--stun", STUN, "--stun", "[2001:db8:113::9]"];
    for (flags, mapping) in [("", EIM), (" fully-random", APDM)] {
        lab.router().nft(&nats::masquerade_ipv6(flags));
        for verdict in both(&lab, lab.client(), &args) {
            let v6 = &verdict.report["nat"]["families"][1];
            assert_eq!(v6["family"], "ipv6", "{}", verdict.everything());
            assert_eq!(
                (&v6["translated"], &v6["mapping"], &v6["filtering"]),
                (&true.into(), &mapping.into(), &APDM.into()),
                "{}",
                verdict.everything()
            );
            assert_eq!(v6["external_addresses"], serde_json::json!(["2001:db8:113::1"]));
            assert!(
                v6["local"].as_str().is_some_and(|l| l.starts_with("[fd77::2]:")),
                "{v6:#}"
            );
            verdict.nothing_wrong();
        }
    }
    for command in ["nat", "doctor"] {
        let mut run = lab.wgnat(lab.client());
        run.arg(command).args(args);
        let out = lab::exec::output(run);
        assert!(
            out.words()
                .contains("a unique local address (ULA) comes out as a global one (NAT66)"),
            "{}",
            out.stdout
        );
    }
}

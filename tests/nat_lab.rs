//! `wgnat nat` and `doctor` on the NATs that are easily taken for something else: pools, rewriting ones, those that limit how
//! fast flows begin, those that are full, and how long each takes.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod lab;
mod truth;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use lab::{Delay, Lab, Nat, StunServer, UdpRelay, nats};
use serde_json::Value;
use truth::{Look, Verdict};

const STUN: &str = "203.0.113.9:3478";
const EIM: &str = "endpoint-independent";
const APDM: &str = "address-and-port-dependent";

#[track_caller]
fn nat(lab: &Lab, args: &[&str]) -> Verdict {
    let mut command = lab.wgnat(lab.client());
    command.args(["-v", "nat", "--json", "--stun"]).args(args);
    Look::with(command).run()
}

fn family(verdict: &Verdict) -> &Value {
    &verdict.report["nat"]["families"][0]
}

#[test]
fn a_pool_that_gives_addresses_out_by_destination_is_arbitrary() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _servers = nats::pool_and_servers(&lab);
    let servers = [STUN, "--stun", "203.0.113.11", "--stun", "203.0.113.12"];
    lab.router().nft(&nats::pool(false));
    let verdict = nat(&lab, &servers);
    let f = family(&verdict);
    assert_eq!(f["pooling"], "arbitrary", "{}", verdict.everything());
    assert!(
        f["external_addresses"].as_array().is_some_and(|a| a.len() > 1),
        "{f:#}"
    );
    // One socket keeps its first address, whomever it calls.
    assert_eq!(verdict.report["nat"]["mapping"], EIM, "{}", verdict.everything());
    verdict.nothing_wrong();
    // The kernel's `persistent` leaves the destination out of the choice.
    lab.router().nft(&nats::pool(true));
    lab.router().conntrack_flush();
    let verdict = nat(&lab, &servers);
    assert_eq!(family(&verdict)["pooling"], "paired", "{}", verdict.everything());
    assert_eq!(verdict.report["nat"]["mapping"], EIM, "{}", verdict.everything());
}

#[test]
fn each_way_to_masquerade_is_told() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    for (flags, mapping, kept) in [
        ("persistent", EIM, true),
        ("random,persistent", APDM, false),
        ("fully-random,persistent", APDM, false),
    ] {
        lab.router().nft(&nats::masquerade(flags));
        lab.router().conntrack_flush();
        let verdict = nat(&lab, &[STUN]);
        let nat = &verdict.report["nat"];
        assert_eq!(
            (&nat["mapping"], &nat["port_preservation"]),
            (&mapping.into(), &kept.into()),
            "{flags}: {}",
            verdict.everything()
        );
        assert_eq!(nat["filtering"], APDM, "{flags}: {}", verdict.everything());
        verdict.nothing_wrong();
    }
}

#[test]
fn addresses_rewritten_in_payloads_are_told_and_the_true_one_is_kept() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect(
        &lab,
        lab.server(),
        &["--address", "203.0.113.9", "--port", "3478"],
    );
    let honest = nat(&lab, &[STUN]);
    assert_eq!(family(&honest)["alg_rewrites"], false, "{}", honest.everything());
    let gateway = SocketAddr::new(IpAddr::V4(lab.client_at().gateway().v4), 7100);
    let (outside, inside) = (Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(10, 77, 0, 2));
    let _alg = UdpRelay::rewriting(lab.router(), gateway, STUN.parse().unwrap(), outside, inside);
    lab.router().nft(&nats::through_alg(7100));
    lab.router().conntrack_flush();
    let verdict = nat(&lab, &[STUN]);
    let f = family(&verdict);
    assert_eq!(f["alg_rewrites"], true, "{}", verdict.everything());
    assert_eq!(
        f["external_addresses"],
        serde_json::json!(["203.0.113.1"]),
        "{f:#}"
    );
    assert_eq!(f["translated"], true, "{f:#}");
    verdict.nothing_wrong();
    let mut command = lab.wgnat(lab.client());
    command.args(["nat", "--stun", STUN]);
    let out = lab::exec::output(command);
    assert!(
        out.stdout
            .contains("addresses inside packets are rewritten (ALG)"),
        "{}",
        out.stdout
    );
}

#[test]
fn a_limit_on_new_flows_is_no_quota() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    lab.router().nft(&nats::rate_limited(10));
    let verdict = nat(&lab, &[STUN, "--port-quota", "100"]);
    let quota = &verdict.report["nat"]["quota"];
    assert_eq!(
        (&quota["quota"], &quota["rate_limited"]),
        (&Value::Null, &true.into()),
        "{}",
        verdict.everything()
    );
    assert!(quota["answered"].as_u64() < quota["tried"].as_u64(), "{quota:#}");
}

#[test]
fn ranges_of_other_sizes_are_quotas_of_their_size() {
    let Some(lab) = Lab::nat(Nat::Range(20480, 20495)) else {
        return;
    };
    let _server = StunServer::reflect_all(&lab);
    for (last, least, most, block) in [(20495, 4, 16, None), (20735, 200, 256, Some(256))] {
        lab.rebind(Nat::Range(20480, last));
        let verdict = nat(&lab, &[STUN, "--port-quota", "300"]);
        let quota = &verdict.report["nat"]["quota"];
        let n = quota["quota"].as_u64().unwrap_or(0);
        // The discovery before has used some of the ports.
        assert!((least..=most).contains(&n), "{}", verdict.everything());
        assert_eq!(quota["rate_limited"], false, "{quota:#}");
        assert_eq!(
            quota["block_size"],
            block.map_or(Value::Null, Value::from),
            "{quota:#}"
        );
        assert!(quota["highest_port"].as_u64() <= Some(last.into()), "{quota:#}");
    }
}

#[test]
fn how_long_a_port_is_held_is_measured() {
    let Some(lab) = Lab::nat(Nat::Range(20480, 20511)) else {
        return;
    };
    for key in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        lab.router().sysctl(&format!("net.netfilter.{key}"), 15);
    }
    let _server = StunServer::reflect_all(&lab);
    let args = [STUN, "--port-quota", "64", "--port-hold", "40s"];
    let verdict = nat(&lab, &args);
    let quota = &verdict.report["nat"]["quota"];
    assert!(quota["quota"].is_u64(), "{}", verdict.everything());
    // From the end of the flows on; the slow look before it takes some of the fifteen seconds.
    let hold = quota["hold_seconds"].as_f64().expect("room came back");
    assert!((2.0..=30.0).contains(&hold), "{}", verdict.everything());
}

#[test]
fn a_full_nat_is_not_called_a_firewall_for_udp() {
    let Some(lab) = Lab::nat(Nat::Range(20480, 20489)) else {
        return;
    };
    let _servers = [
        StunServer::reflect_all(&lab),
        StunServer::reflect(&lab, lab.server(), &["--address", "203.0.113.11"]),
    ];
    // Another program's flows take every port towards both servers.
    let flows: Vec<_> = [
        "203.0.113.9:3478",
        "203.0.113.9:3479",
        "203.0.113.10:3478",
        "203.0.113.11:3478",
        "203.0.113.11:3479",
    ]
    .iter()
    .flat_map(|to| {
        let lab = &lab;
        (0..12).map(move |_| {
            let socket = lab
                .client()
                .run(|| std::net::UdpSocket::bind("0.0.0.0:0"))
                .unwrap();
            socket.send_to(&[0; 8], to).unwrap();
            socket
        })
    })
    .collect();
    let verdict = nat(&lab, &[STUN, "--stun", "203.0.113.11"]);
    // From here a full NAT and a firewall look alike: both are named.
    verdict
        .says_only(&["udp-blocked"])
        .candidates(&["drops udp", "no udp port left"]);
    drop(flows);
}

#[test]
fn over_a_very_slow_way_silence_tells_nothing() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let slow = Duration::from_millis(1500);
    let _way = Delay::start(lab.server(), "203.0.113.1".parse().unwrap(), slow);
    let _server = StunServer::reflect_all(&lab);
    let verdict = nat(&lab, &[STUN]);
    let nat = &verdict.report["nat"];
    assert_eq!(
        (&nat["mapping"], &nat["filtering"], &nat["udp_blocked"]),
        (&EIM.into(), &"unknown".into(), &false.into()),
        "{}",
        verdict.everything()
    );
    let left_out = nat["families"][0]["left_out"].to_string();
    assert!(left_out.contains("too slowly"), "{left_out}");
    verdict.nothing_wrong();
}

#[test]
fn discovery_over_a_long_way_is_right_and_its_time_is_told() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _way = Delay::start(
        lab.server(),
        "203.0.113.1".parse().unwrap(),
        Duration::from_millis(50),
    );
    let _server = StunServer::reflect_all(&lab);
    let verdict = nat(&lab, &[STUN]);
    let nat = &verdict.report["nat"];
    assert_eq!(
        (&nat["mapping"], &nat["filtering"]),
        (&EIM.into(), &APDM.into()),
        "{}",
        verdict.everything()
    );
    let rtt = nat["servers"][0]["udp_rtt_seconds"]
        .as_f64()
        .expect("it answered");
    assert!(rtt >= 0.05, "the way is no longer than {rtt} s");
    verdict.nothing_wrong();
    println!(
        "nat over a way of {:.0} ms took {:.2} s",
        rtt * 1000.0,
        verdict.took.as_secs_f64()
    );
}

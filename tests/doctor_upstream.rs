//! doctor says the truth of the NAT that it cannot see: near its budget, full, and what only looks like it.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod lab;
mod truth;

use lab::{Fault, Held, Lab, Nat, Serve, StunServer, TcpServer, Tunnel, hold};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;
use truth::{Look, Repeat};

/// The lab's server has four addresses.
const SERVERS: [[u8; 4]; 4] = [
    [203, 0, 113, 9],
    [203, 0, 113, 10],
    [203, 0, 113, 11],
    [203, 0, 113, 12],
];

fn at(ip: [u8; 4]) -> SocketAddr {
    SocketAddr::new(IpAddr::from(ip), 8080)
}

/// Servers at all addresses, and ten connections of the client to each.
#[track_caller]
fn held(lab: &Lab) -> (Vec<TcpServer>, Vec<Held>) {
    let servers = SERVERS
        .map(|ip| TcpServer::start(lab.server(), at(ip), Serve::Echo))
        .into();
    let held: Vec<Held> = SERVERS.map(|ip| hold(lab.client(), at(ip), 10)).into();
    assert!(held.iter().all(|h| h.streams.len() == 10), "{held:?}");
    (servers, held)
}

/// Traffic on one connection to each address.
fn talk(held: &mut [Held]) -> Repeat {
    let mut talkers: Vec<TcpStream> = held.iter_mut().filter_map(|h| h.streams.pop()).collect();
    for talker in &talkers {
        talker
            .set_read_timeout(Some(Duration::from_secs(2)))
            .expect("it is open");
    }
    Repeat::every(Duration::from_millis(200), move || {
        for talker in &mut talkers {
            let _ = talker.write_all(b"ping");
            let _ = talker.read(&mut [0; 64]);
        }
    })
}

/// New connections to each address, again and again; those that get through stay.
fn dial(lab: &Lab, to: &[[u8; 4]]) -> Vec<Repeat> {
    to.iter()
        .map(|ip| {
            let (ns, to) = (lab.client().clone(), at(*ip));
            let mut kept = Vec::new();
            Repeat::every(Duration::from_millis(100), move || {
                kept.extend(
                    ns.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(3500)))
                        .ok(),
                );
            })
        })
        .collect()
}

#[test]
fn four_fifths_of_a_budget_are_low() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let (_servers, _held) = held(&lab);
    let look = |profile: &str| {
        Look::at(&lab, lab.client())
            .duration("1s")
            .args(&["--nat-profile", profile])
            .run()
    };
    let verdict = look("50/host");
    verdict
        .says_only(&["upstream-budget-low"])
        .is("warning", "likely")
        .evidence("in_use", 40)
        .evidence("available", 50);
    assert_eq!(verdict.code, 1);
    // By address it is ten of fifty, and of Fly's thousand less.
    look("50/address").nothing_wrong();
    look("fly-static-egress").nothing_wrong();
    look("12/address").finding_count("upstream-budget-low", 4);
    // What leaves through the router's NAT counts there too, though no socket of it does.
    let router = Look::at(&lab, lab.router())
        .duration("1s")
        .args(&["--nat-profile", "50/host"])
        .run();
    router.says_only(&["upstream-budget-low"]).evidence("in_use", 40);
}

#[test]
fn an_unknown_profile_is_refused_with_the_nearest() {
    let Some(lab) = Lab::lone() else { return };
    let mut command = lab.wgnat(lab.client());
    command.args(["doctor", "--nat-profile", "aws-nat-gatway"]);
    let out = lab::exec::output(command);
    assert_eq!(out.code, 3);
    assert!(
        out.stderr.contains("did you mean aws-nat-gateway?"),
        "{}",
        out.stderr
    );
}

#[test]
fn a_full_nat_upstream_is_inferred() {
    // Ten ports for each destination, all of them taken.
    let Some(lab) = Lab::nat(Nat::Range(20000, 20009)) else {
        return;
    };
    // A port that comes free is soon given out again.
    for key in ["time_wait", "close", "fin_wait", "last_ack", "close_wait"] {
        lab.router()
            .sysctl(&format!("net.netfilter.nf_conntrack_tcp_timeout_{key}"), 1);
    }
    let (_servers, mut held) = held(&lab);
    let _talk = talk(&mut held);
    let _dials = dial(&lab, &SERVERS);
    let mut few: Vec<TcpStream> = held.iter_mut().flat_map(|h| h.streams.drain(..4)).collect();
    let look = Look::at(&lab, lab.client())
        .duration("10s")
        .start()
        .await_watching();
    let _closing = Repeat::every(Duration::from_millis(700), move || drop(few.pop()));
    let verdict = look.finish();
    verdict
        .says_only(&["upstream-nat-exhausted"])
        .is("critical", "likely")
        .measures("addresses", 3.0..)
        .measures("new_established", 1.0..)
        .candidates(&["no port left", "firewall"]);
    assert_eq!(verdict.code, 2);
}

#[test]
fn a_firewall_that_lets_nothing_new_out_is_a_hint_that_an_active_check_settles() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let (_servers, mut held) = held(&lab);
    let _talk = talk(&mut held);
    lab.router().nft(
        "table ip wall { chain new { type filter hook forward priority filter; iifname \"lan0\" tcp dport 8080 ct state new drop; }; }",
    );
    let _dials = dial(&lab, &SERVERS);
    let verdict = Look::at(&lab, lab.client()).duration("6s").run();
    // A hint explains nothing away: the connections that time out are told, too.
    verdict.says_at_most(&["upstream-nat-exhausted", "connect-timeout"]);
    verdict
        .finding("upstream-nat-exhausted")
        .is("warning", "possible")
        .candidates(&["firewall"]);
    // Another new connection gets out: it is not the NAT that is full.
    let _stun = StunServer::reflect_all(&lab);
    let settled = Look::at(&lab, lab.client())
        .duration("6s")
        .args(&["--stun", "203.0.113.9"])
        .run();
    settled.says_at_most(&["connect-timeout"]);
}

#[test]
fn a_nat_that_limits_new_connections_is_at_most_a_hint() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let (_servers, mut held) = held(&lab);
    let _talk = talk(&mut held);
    lab.router().nft(&lab::nats::rate_limited(3));
    let _dials = dial(&lab, &SERVERS);
    let verdict = Look::at(&lab, lab.client()).duration("7s").run();
    verdict.says_at_most(&["upstream-nat-exhausted", "connect-timeout"]);
    if verdict.codes().contains(&"upstream-nat-exhausted") {
        let found = verdict
            .finding("upstream-nat-exhausted")
            .is("warning", "possible");
        found.candidates(&["rate"]);
    }
}

#[test]
fn one_destination_down_and_this_host_s_own_firewall_are_no_full_nat() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let (_servers, mut held) = held(&lab);
    let _talk = talk(&mut held);
    let dials = dial(&lab, &SERVERS);
    lab.router().nft(
        "table ip wall { chain new { type filter hook forward priority filter; ip daddr 203.0.113.12 ct state new drop; }; }",
    );
    let verdict = Look::at(&lab, lab.client()).duration("6s").run();
    assert!(
        !verdict.codes().contains(&"upstream-nat-exhausted"),
        "{}",
        verdict.everything()
    );
    drop(dials);
    lab.router().nft("table ip wall\ndelete table ip wall\n");
    lab.client().nft(
        "table ip own { chain out { type filter hook output priority filter; tcp dport 8080 ct state new drop; }; }",
    );
    let _dials = dial(&lab, &SERVERS);
    let verdict = Look::at(&lab, lab.client()).duration("6s").run();
    assert!(
        !verdict.codes().contains(&"upstream-nat-exhausted"),
        "{}",
        verdict.everything()
    );
}

#[test]
fn doctor_asks_only_whom_it_is_told_to_and_tells_the_nat() {
    let Some(lab) = Lab::nat(Nat::FullyRandom) else {
        return;
    };
    let _stun = StunServer::reflect_all(&lab);
    let passive = Look::at(&lab, lab.client()).duration("1s").run();
    assert!(
        passive.report["nat"]["mapping"].is_null(),
        "{}",
        passive.everything()
    );
    passive.nothing_wrong();
    let verdict = Look::at(&lab, lab.client())
        .duration("1s")
        .args(&["--stun", "203.0.113.9"])
        .run();
    assert_eq!(
        verdict.report["nat"]["mapping"],
        "address-and-port-dependent",
        "{}",
        verdict.everything()
    );
    verdict.finding("nat-mapping-varies").is("info", "certain");
    verdict.nothing_wrong();
}

/// Two reflectors at different addresses of the server.
fn reflectors(lab: &Lab) -> [StunServer; 2] {
    [
        StunServer::reflect_all(lab),
        StunServer::reflect(lab, lab.server(), &["--address", "203.0.113.11"]),
    ]
}

const BOTH: [&str; 4] = ["--stun", "203.0.113.9", "--stun", "203.0.113.11"];

#[test]
fn blocked_udp_explains_the_tunnel_that_does_not_come_up() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _stun = reflectors(&lab);
    let _fault = lab.inflict(&Fault::drop_udp());
    let tunnel = Tunnel::start(&lab);
    tunnel.knock();
    let verdict = Look::at(&lab, lab.client()).duration("7s").args(&BOTH).run();
    verdict
        .says_only(&["udp-blocked"])
        .is("critical", "likely")
        .evidence("family", "ipv4")
        .evidence("peers_heard", 0);
    assert!(
        verdict.suppressed().contains(&"wg-handshake-timeout"),
        "{}",
        verdict.everything()
    );
    assert_eq!(verdict.code, 2);
}

#[test]
fn a_tunnel_that_works_shows_that_only_those_servers_are_blocked() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _stun = reflectors(&lab);
    let tunnel = Tunnel::up(&lab);
    let (ns, to) = (tunnel.server.namespace().clone(), lab::tunnel::CLIENT_IN);
    let _talk = Repeat::every(Duration::from_millis(200), move || {
        lab::tunnel::knock_of(&ns, to, 64);
    });
    let _fault = lab.inflict(&Fault::new("udp dport { 3478, 3479 }", "drop"));
    let verdict = Look::at(&lab, lab.client()).duration("3s").args(&BOTH).run();
    verdict
        .says_only(&["udp-blocked"])
        .is("warning", "possible")
        .evidence("peers_heard", 1);
    assert_eq!(verdict.code, 1);
}

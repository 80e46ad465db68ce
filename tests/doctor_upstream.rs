//! doctor says the truth of the NAT that it cannot see: near its budget, full, and what only looks like it.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod lab;
mod truth;

use lab::{DnsReply, DnsServer, Fault, Held, Lab, Nat, Serve, StunServer, TcpServer, Tunnel, hold};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;
use truth::{Found, Look, Repeat, Verdict};

/// Servers in three networks: those of one may have a firewall of their own.
const SERVERS: [[u8; 4]; 4] = [
    [203, 0, 113, 9],
    [203, 0, 113, 10],
    [198, 51, 100, 11],
    [192, 0, 2, 12],
];

/// A lab whose server has these addresses.
fn networks(nat: Nat) -> Option<Lab> {
    let lab = Lab::nat(nat)?;
    let far = SERVERS
        .iter()
        .filter(|ip| ip[0] != 203)
        .map(|ip| IpAddr::from(*ip));
    for ip in far {
        lab.server().ip(&[&format!("address add {ip}/32 dev lo")]);
        lab.router()
            .ip(&[&format!("route add {ip}/32 via {}", lab.server_ip())]);
    }
    Some(lab)
}

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
    // Several at a time: one alone is between two attempts now and then.
    to.iter()
        .flat_map(|ip| [*ip; 3])
        .map(|ip| {
            let (ns, to) = (lab.client().clone(), at(ip));
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

/// What doctor says of the client, after SYNs have been sent again.
#[track_caller]
fn look(lab: &Lab) -> Verdict {
    Look::at(lab, lab.client()).duration("7s").run()
}

#[test]
fn four_fifths_of_a_budget_are_low() {
    let Some(lab) = networks(Nat::Masquerade) else {
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

/// Closed connections are forgotten soon, so that what they held is given out again while a test looks.
fn forget_soon(lab: &Lab) {
    for key in ["time_wait", "close", "fin_wait", "last_ack", "close_wait"] {
        lab.router()
            .sysctl(&format!("net.netfilter.nf_conntrack_tcp_timeout_{key}"), 1);
    }
}

/// Closes some of the connections that are held, one after the other.
fn closing(held: &mut [Held]) -> Repeat {
    let mut few: Vec<TcpStream> = held.iter_mut().flat_map(|h| h.streams.drain(..4)).collect();
    Repeat::every(Duration::from_millis(1500), move || drop(few.pop()))
}

/// New connections that are closed as soon as they are established.
fn churn(lab: &Lab) -> Vec<Repeat> {
    SERVERS
        .iter()
        .flat_map(|ip| [*ip; 3])
        .map(|ip| {
            let (ns, to) = (lab.client().clone(), at(ip));
            Repeat::every(Duration::from_millis(100), move || {
                drop(ns.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(3500))));
            })
        })
        .collect()
}

/// One of several findings with this code.
#[track_caller]
fn one<'a>(verdict: &'a Verdict, code: &str) -> Found<'a> {
    let found = verdict.findings().find(|f| f.code() == code);
    found.unwrap_or_else(|| panic!("there is no `{code}`.\n{}", verdict.everything()))
}

#[track_caller]
fn not_the_nat(verdict: &Verdict) {
    let all = [verdict.codes(), verdict.suppressed()].concat();
    assert!(
        !all.contains(&"upstream-nat-exhausted"),
        "{}",
        verdict.everything()
    );
}

#[test]
fn a_full_nat_upstream_is_inferred() {
    // Ten ports for each destination, all of them taken.
    let Some(lab) = networks(Nat::Range(20000, 20009)) else {
        return;
    };
    forget_soon(&lab);
    let (_servers, mut held) = held(&lab);
    let mut freed: Vec<Held> = held
        .iter_mut()
        .map(|h| Held {
            streams: h.streams.drain(..5).collect(),
            error: None,
        })
        .collect();
    let _talk = talk(&mut held);
    let _dials = dial(&lab, &SERVERS);
    let look = Look::at(&lab, lab.client())
        .duration("12s")
        .start()
        .await_watching();
    let _closing = closing(&mut freed);
    let verdict = look.finish();
    verdict
        .says_only(&["upstream-nat-exhausted"])
        .is("critical", "likely")
        .measures("addresses", 3.0..)
        .measures("networks", 2.0..)
        .measures("destinations_heard", 1.0..)
        .measures("new_established_kept", 1.0..)
        .candidates(&["no port left", "table of connections"])
        .ruled_out(&["limits the rate", "lets no new"]);
    assert_eq!(verdict.code, 2);
}

#[test]
fn a_reflector_that_a_nat_full_by_destination_lets_reach_rules_nothing_out() {
    let Some(lab) = networks(Nat::Range(20000, 20009)) else {
        return;
    };
    forget_soon(&lab);
    let _stun = StunServer::reflect_all(&lab);
    let (_servers, mut held) = held(&lab);
    let mut freed: Vec<Held> = held
        .iter_mut()
        .map(|h| Held {
            streams: h.streams.drain(..5).collect(),
            error: None,
        })
        .collect();
    let _talk = talk(&mut held);
    let _dials = dial(&lab, &SERVERS);
    let look = Look::at(&lab, lab.client())
        .duration("12s")
        .args(&["--stun", "203.0.113.9"])
        .start()
        .await_watching();
    let _closing = closing(&mut freed);
    let verdict = look.finish();
    verdict
        .finding("upstream-nat-exhausted")
        .is("critical", "likely")
        .tells("/summary", &["got through", "by destination"]);
}

#[test]
fn a_limit_of_flows_for_each_host_is_a_full_nat_and_a_reflector_agrees() {
    let Some(lab) = networks(Nat::Masquerade) else {
        return;
    };
    forget_soon(&lab);
    let _stun = StunServer::reflect_all(&lab);
    lab.router().nft(&lab::nats::flow_limited(40));
    let (_servers, mut held) = held(&lab);
    let mut freed: Vec<Held> = held
        .iter_mut()
        .map(|h| Held {
            streams: h.streams.drain(..5).collect(),
            error: None,
        })
        .collect();
    let _talk = talk(&mut held);
    let _dials = dial(&lab, &SERVERS);
    let asked = Look::at(&lab, lab.client())
        .duration("8s")
        .args(&["--stun", "203.0.113.9", "--nat-profile", "40/host/1s"])
        .run();
    asked
        .finding("upstream-nat-exhausted")
        .is("critical", "likely")
        .evidence("available", 40)
        .measures("in_use", 40.0..);
    let look = Look::at(&lab, lab.client())
        .duration("12s")
        .start()
        .await_watching();
    let _closing = closing(&mut freed);
    let verdict = look.finish();
    verdict
        .says_only(&["upstream-nat-exhausted"])
        .is("critical", "likely")
        .measures("new_established_kept", 1.0..);
}

/// Without privilege connects are not counted: what is left is a hint, and no less silent about this host's own firewall.
#[test]
fn without_privilege_a_full_nat_is_a_hint() {
    let Some(lab) = networks(Nat::Masquerade) else {
        return;
    };
    forget_soon(&lab);
    lab.router().nft(&lab::nats::flow_limited(40));
    let (_servers, mut held) = held(&lab);
    let mut freed: Vec<Held> = held
        .iter_mut()
        .map(|h| Held {
            streams: h.streams.drain(..5).collect(),
            error: None,
        })
        .collect();
    let _talk = talk(&mut held);
    let _dials = dial(&lab, &SERVERS);
    let look = || {
        Look::with(lab.wgnat_as_nobody(lab.client()))
            .args(&["-v", "doctor", "--json"])
            .duration("7s")
    };
    let running = look().start().await_watching();
    let closing = closing(&mut freed);
    let verdict = running.finish();
    verdict
        .finding("upstream-nat-exhausted")
        .is("warning", "possible")
        .candidates(&["no port left"]);
    drop(closing);
    lab.client().nft(
        "table ip own { chain c { type filter hook output priority filter; tcp dport 8080 ct state new drop; }; }",
    );
    not_the_nat(&look().run());
}

#[test]
fn a_firewall_that_lets_nothing_new_out_is_a_hint_that_an_active_check_settles() {
    let Some(lab) = networks(Nat::Masquerade) else {
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
        .candidates(&["no port left", "firewall or an egress policy"])
        .ruled_out(&["limits the rate"]);
    // Another new connection gets out: it is not the NAT that is full.
    let _stun = StunServer::reflect_all(&lab);
    let settled = Look::at(&lab, lab.client())
        .duration("6s")
        .args(&["--stun", "203.0.113.9"])
        .run();
    settled.says_at_most(&["connect-timeout"]);
    not_the_nat(&settled);
}

#[test]
fn a_nat_that_limits_new_connections_is_at_most_a_hint() {
    let Some(lab) = networks(Nat::Masquerade) else {
        return;
    };
    let (_servers, mut held) = held(&lab);
    let _talk = talk(&mut held);
    lab.router().nft(&lab::nats::rate_limited(3));
    let at_most_a_hint = |verdict: &Verdict| {
        verdict.says_at_most(&["upstream-nat-exhausted", "connect-timeout"]);
        if verdict.codes().contains(&"upstream-nat-exhausted") {
            let found = verdict
                .finding("upstream-nat-exhausted")
                .is("warning", "possible");
            found.candidates(&["limits the rate", "no port left"]);
        }
    };
    let _stun = StunServer::reflect_all(&lab);
    let dials = dial(&lab, &SERVERS);
    at_most_a_hint(&look(&lab));
    // Whether the one that asks is let through is chance.
    let asked = Look::at(&lab, lab.client())
        .duration("7s")
        .args(&["--stun", "203.0.113.9"])
        .run();
    let all = asked.codes();
    assert!(
        !asked
            .findings()
            .any(|f| f.severity() == "critical" && f.code() == "upstream-nat-exhausted"),
        "{all:?} {}",
        asked.everything()
    );
    drop(dials);
    // Those that are closed at once make no more of them, and yet nothing is full.
    let _churn = churn(&lab);
    at_most_a_hint(&look(&lab));
}

#[test]
fn one_destination_that_is_down_is_no_full_nat() {
    let Some(lab) = networks(Nat::Masquerade) else {
        return;
    };
    let (_servers, mut held) = held(&lab);
    let _talk = talk(&mut held);
    let _dials = dial(&lab, &SERVERS);
    lab.router().nft(
        "table ip wall { chain new { type filter hook forward priority filter; ip daddr 192.0.2.12 ct state new drop; }; }",
    );
    let verdict = look(&lab);
    not_the_nat(&verdict);
    verdict
        .says_only(&["connect-timeout"])
        .about_destination("tcp", at(SERVERS[3]));
}

#[test]
fn a_path_that_several_destinations_share_and_that_is_down_is_no_full_nat() {
    let Some(lab) = networks(Nat::Masquerade) else {
        return;
    };
    let (_servers, mut held) = held(&lab);
    let _talk = talk(&mut held);
    let down = |others: &str| {
        lab.router().nft(&format!(
            "table ip wall {{ chain way {{ type filter hook forward priority filter; ip daddr {{ {others} }} drop; ip saddr {{ {others} }} drop; }}; }}"
        ));
    };
    down("203.0.113.10, 198.51.100.11, 192.0.2.12");
    // New connections to all, and nothing of the old ones to three.
    let dials = dial(&lab, &SERVERS);
    let verdict = look(&lab);
    not_the_nat(&verdict);
    verdict.says_at_most(&["connect-timeout"]);
    verdict.finding_count("connect-timeout", 3);
    one(&verdict, "connect-timeout")
        .candidates(&["firewall on the way", "destination is down"])
        .ruled_out(&["this host's own firewall"]);
    drop(dials);
    // The same where nobody wants anything new of the one that lives.
    let _dials = dial(&lab, &SERVERS[1..]);
    let verdict = look(&lab);
    not_the_nat(&verdict);
    verdict.says_at_most(&["connect-timeout"]);
}

#[test]
fn this_host_s_own_firewall_is_no_full_nat_and_is_named() {
    let Some(lab) = networks(Nat::Masquerade) else {
        return;
    };
    let (_servers, mut held) = held(&lab);
    let _talk = talk(&mut held);
    let wall = |chain: &str| {
        lab.client().nft(&format!(
            "table ip own\ndelete table ip own\ntable ip own {{ chain c {{ {chain} }}; }}"
        ));
    };
    wall("type filter hook output priority filter; tcp dport 8080 ct state new drop;");
    let dials = dial(&lab, &SERVERS);
    let verdict = look(&lab);
    not_the_nat(&verdict);
    verdict.says_at_most(&["connect-timeout"]);
    one(&verdict, "connect-timeout")
        .measures("not_sent_here", 1.0..)
        .candidates(&["this host's own firewall"])
        .ruled_out(&["on the way back", "destination is down"]);
    drop(dials);
    // The same for answers: whoever drops SYN and ACK of both kinds keeps connections from being made, and leaves those that are.
    wall("type filter hook input priority filter; tcp sport 8080 tcp flags & syn == syn drop;");
    let _dials = dial(&lab, &SERVERS);
    let verdict = look(&lab);
    not_the_nat(&verdict);
    verdict.says_at_most(&["connect-timeout"]);
    one(&verdict, "connect-timeout").candidates(&["this host drops the answers"]);
}

#[test]
fn ports_used_up_here_are_no_full_nat() {
    let Some(lab) = networks(Nat::Masquerade) else {
        return;
    };
    // Ten for each destination, and all of them are held.
    lab.client().set_port_range(40000, 40009);
    let (_servers, mut held) = held(&lab);
    let _talk = talk(&mut held);
    let _dials = dial(&lab, &SERVERS);
    let verdict = Look::at(&lab, lab.client()).duration("5s").run();
    not_the_nat(&verdict);
    verdict.says_at_most(&["ports-exhausted"]);
    verdict.finding_count("ports-exhausted", 4);
}

#[test]
fn a_full_table_here_is_no_full_nat() {
    let Some(lab) = networks(Nat::Masquerade) else {
        return;
    };
    lab.client().nft(
        "table ip own { chain c { type filter hook output priority filter; ct state established accept; }; }",
    );
    let (_servers, mut held) = held(&lab);
    let _talk = talk(&mut held);
    lab.client().fill_conntrack_up();
    let _dials = dial(&lab, &SERVERS);
    let verdict = Look::at(&lab, lab.client()).duration("6s").run();
    not_the_nat(&verdict);
    verdict.finding("conntrack-full").is("critical", "certain");
    let wrong = verdict.wrong();
    let critical = verdict.findings().filter(|f| f.severity() == "critical").count();
    assert!(
        wrong.contains(&"conntrack-full") && critical == 1,
        "{}",
        verdict.everything()
    );
}

#[test]
fn names_that_do_not_resolve_are_no_full_nat() {
    let Some(lab) = networks(Nat::Masquerade) else {
        return;
    };
    let (_servers, mut held) = held(&lab);
    let _talk = talk(&mut held);
    let silent = DnsServer::start(lab.server(), lab.server_ip(), DnsReply::Silence);
    lab.client().set_resolv_conf(&format!(
        "nameserver {}\noptions timeout:1 attempts:1\n",
        lab.server_ip()
    ));
    // A program that asks for a name before each connection, and gets none; those with addresses go on.
    let ns = lab.client().clone();
    let _asks = Repeat::every(Duration::from_millis(100), move || {
        let mut ask = ns.command("getent");
        ask.args(["ahosts", "service.example"]);
        let _ = lab::exec::output(ask);
    });
    let _churn = churn(&lab);
    let verdict = Look::at(&lab, lab.client())
        .duration("5s")
        .args(&["--target", "dns:service.example"])
        .run();
    assert!(silent.questions() > 0);
    not_the_nat(&verdict);
    verdict.finding("dns-failing").is("critical", "certain");
    let critical = verdict.findings().filter(|f| f.severity() == "critical").count();
    assert_eq!(critical, 1, "{}", verdict.everything());
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

//! coturn as the outside referee: its server and its discovery client say of a NAT what `wgnat reflect` and `wgnat nat` say,
//! and all say the truth. Every kind of NAT that nftables makes is put before all four.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod lab;
mod truth;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lab::stun::{natdiscovery, stun_client};
use lab::{Lab, Namespace, Nat, StunServer, UdpRelay, nats};
use truth::{Look, Verdict};

const STUN: &str = "203.0.113.9:3478";
const IPS: [&str; 2] = ["203.0.113.9", "203.0.113.10"];
const EIM: &str = "endpoint-independent";
const AD: &str = "address-dependent";
const APDM: &str = "address-and-port-dependent";

/// A NAT, and what is true of it.
struct Case {
    what: &'static str,
    rules: String,
    mapping: &'static str,
    filtering: &'static str,
}

fn case(what: &'static str, rules: String, mapping: &'static str, filtering: &'static str) -> Case {
    Case {
        what,
        rules,
        mapping,
        filtering,
    }
}

/// The product's server as coturn's client needs it, whose requests have no room for an answer.
#[track_caller]
fn ours(lab: &Lab) -> StunServer {
    let args = ["--address", "203.0.113.9,203.0.113.10", "--answer-short-requests"];
    StunServer::reflect(lab, lab.server(), &args)
}

/// The NAT has no flow and no address in mind.
#[track_caller]
fn forget(lab: &Lab, case: &Case) {
    lab.router().nft(&case.rules);
    lab.router().conntrack_flush();
}

#[track_caller]
fn nat(lab: &Lab, ns: &Namespace, more: &[&str]) -> Verdict {
    let mut command = lab.wgnat(ns);
    command.args(["-v", "nat", "--json", "--stun", STUN]).args(more);
    Look::with(command).run()
}

/// RFC 4787's term in what coturn's client says of "Mapping" or of "Filtering".
#[track_caller]
fn term(said: &str, of: &str) -> &'static str {
    let line = said
        .lines()
        .find(|line| line.contains(&format!(" {of}!")) || (of == "Mapping" && line.contains("No NAT!")))
        .unwrap_or_else(|| panic!("it says nothing of {of}: {said}"))
        .to_lowercase();
    match () {
        () if line.contains("no nat") => "none",
        () if line.contains("endpoint independent") => EIM,
        () if line.contains("address and port dependent") => APDM,
        () if line.contains("address dependent") => AD,
        () => panic!("no term in {line:?}"),
    }
}

/// What both clients say of this NAT, asked from `ns`, by the server that is there.
#[track_caller]
fn agree(lab: &Lab, ns: &Namespace, case: &Case) {
    forget(lab, case);
    let verdict = nat(lab, ns, &[]);
    let said = &verdict.report["nat"];
    assert_eq!(
        (&said["mapping"], &said["filtering"]),
        (&case.mapping.into(), &case.filtering.into()),
        "{}: {}",
        case.what,
        verdict.everything()
    );
    // Only by its own address can the client tell that there is no NAT.
    let local = said["families"][0]["local"].as_str().expect("an address");
    let local = local
        .parse::<SocketAddr>()
        .expect("an address and a port")
        .ip()
        .to_string();
    for (flag, of, truth) in [
        ("-f", "Filtering", case.filtering),
        ("-m", "Mapping", case.mapping),
    ] {
        // It uses one socket for all, so each test is one of a NAT that remembers nothing.
        forget(lab, case);
        let theirs = natdiscovery(ns, &[flag, "-L", &local], IPS[0]);
        // It has no word for a filter where there is none.
        let truth = if truth == "none" && flag == "-f" {
            EIM
        } else {
            truth
        };
        assert_eq!(term(&theirs, of), truth, "{}: {theirs}", case.what);
    }
}

/// With our server, and with coturn's.
#[track_caller]
fn agree_by_either_server(cases: &[Case]) {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    for server in [ours as fn(&Lab) -> StunServer, |lab| {
        StunServer::coturn(lab.server(), &IPS)
    }] {
        let _server = server(&lab);
        for case in cases {
            agree(&lab, lab.client(), case);
        }
    }
}

#[test]
fn by_either_server_all_are_of_one_mind() {
    agree_by_either_server(&[
        case("masquerade", Nat::Masquerade.ruleset(), EIM, APDM),
        case("full cone", nats::full_cone(), EIM, EIM),
        case("random", Nat::Random.ruleset(), APDM, APDM),
    ]);
}

#[test]
fn of_what_a_filter_depends_on() {
    agree_by_either_server(&[
        case("restricted cone", nats::address_restricted(), EIM, AD),
        case("full cone with hairpinning", nats::hairpinning(), EIM, EIM),
    ]);
}

#[test]
fn of_each_way_to_give_out_ports() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::coturn(lab.server(), &IPS);
    for case in [
        case("persistent", nats::masquerade("persistent"), EIM, APDM),
        case("a range", Nat::Range(20_000, 20_999).ruleset(), EIM, APDM),
        case("fully-random", Nat::FullyRandom.ruleset(), APDM, APDM),
        case(
            "fully-random and persistent",
            nats::masquerade("fully-random,persistent"),
            APDM,
            APDM,
        ),
    ] {
        agree(&lab, lab.client(), &case);
    }
}

#[test]
fn of_two_nats_of_which_the_stricter_counts() {
    let Some(mut lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    lab.carrier_range();
    let inner = lab.behind_home_router();
    let _server = StunServer::coturn(lab.server(), &IPS);
    for case in [
        case("a carrier's NAT", Nat::Masquerade.ruleset(), EIM, APDM),
        case("a carrier's random NAT", Nat::FullyRandom.ruleset(), APDM, APDM),
    ] {
        agree(&lab, &inner, &case);
    }
}

#[test]
fn of_no_nat_at_all() {
    let Some(lab) = Lab::routed() else {
        return;
    };
    let _server = StunServer::coturn(lab.server(), &IPS);
    agree(
        &lab,
        lab.client(),
        &case("a router", Nat::None.ruleset(), "none", "none"),
    );
}

#[test]
fn of_hairpinning() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::coturn(lab.server(), &IPS);
    for (case, hairpinning) in [
        (case("masquerade", Nat::Masquerade.ruleset(), EIM, APDM), false),
        (case("hairpinning", nats::hairpinning(), EIM, EIM), true),
    ] {
        forget(&lab, &case);
        let verdict = nat(&lab, lab.client(), &[]);
        assert_eq!(
            verdict.report["nat"]["hairpinning"],
            hairpinning,
            "{}",
            verdict.everything()
        );
        forget(&lab, &case);
        let theirs = natdiscovery(lab.client(), &["-H"], IPS[0]);
        assert_eq!(theirs.contains("successful hairpinning"), hairpinning, "{theirs}");
    }
}

#[test]
fn of_how_long_a_mapping_lives() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    for key in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        lab.router().sysctl(&format!("net.netfilter.{key}"), 7);
    }
    let _server = StunServer::coturn(lab.server(), &IPS);
    let verdict = nat(&lab, lab.client(), &["--lifetime", "13s"]);
    let seconds = |field: &str| {
        let found = verdict.report["nat"][field].as_f64();
        found.unwrap_or_else(|| panic!("no {field}: {}", verdict.everything()))
    };
    let (alive, gone) = (
        seconds("mapping_lifetime_seconds"),
        seconds("mapping_lifetime_at_most_seconds"),
    );
    assert!(alive < gone, "{}", verdict.everything());
    // Its client tries one age. A second on either side is the tests' own: what is asked takes its time.
    for (age, lives) in [(alive - 1.0, true), (gone + 2.0, false)] {
        let age = format!("{:.0}", age.floor());
        let theirs = natdiscovery(lab.client(), &["-t", "-T", &age], IPS[0]);
        assert_eq!(theirs.contains("response 2"), lives, "idle for {age} s: {theirs}");
    }
}

#[test]
fn of_addresses_rewritten_in_payloads() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = StunServer::coturn(lab.server(), &IPS);
    let said = |rewritten: bool| {
        let verdict = nat(&lab, lab.client(), &[]);
        assert_eq!(
            verdict.report["nat"]["families"][0]["alg_rewrites"],
            rewritten,
            "{}",
            verdict.everything()
        );
        let theirs = natdiscovery(lab.client(), &["-m"], IPS[0]);
        assert_eq!(theirs.contains("ALG detected"), rewritten, "{theirs}");
    };
    said(false);
    let gateway = SocketAddr::new(IpAddr::V4(lab.client_at().gateway().v4), 7100);
    let (outside, inside) = (Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(10, 77, 0, 2));
    let _alg = UdpRelay::rewriting(lab.router(), gateway, STUN.parse().unwrap(), outside, inside);
    lab.router().nft(&nats::through_alg(7100));
    lab.router().conntrack_flush();
    said(true);
}

#[test]
fn an_older_client_is_served() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = ours(&lab);
    let said = stun_client(lab.client(), "203.0.113.9");
    assert!(
        said.contains("Independent Mapping, Port Dependent Filter"),
        "{said}"
    );
    assert!(said.contains("preserves ports"), "{said}");
}

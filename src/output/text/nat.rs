//! The NAT in front, in plain words with the terms beside them.
//!
//! In: a [`Report`]. Out: a line for each thing that was found. Pure. Lines and not a table: words that are cut in the middle
//! explain nothing.

use crate::observation::nat::{
    Behaviour, Family, FamilyFacts, NatFacts, Pooling, is_inside, is_unique_local,
};
use crate::output::human;
use crate::report::Report;
use crate::time::Span;

/// What was found of each family, of flows, and of the servers.
pub fn lines(report: &Report) -> Vec<(&'static str, String)> {
    let Some(facts) = &report.nat else {
        return Vec::new();
    };
    let mut rows = Rows(Vec::new());
    for f in &facts.families {
        family(&mut rows, facts, f);
    }
    quota(&mut rows, facts);
    servers(&mut rows, facts);
    rows.0
}

struct Rows(Vec<(&'static str, String)>);

impl Rows {
    fn say(&mut self, name: &'static str, words: impl Into<String>, term: &str) {
        let mut words = words.into();
        if !term.is_empty() {
            words.push_str(&format!(" ({term})"));
        }
        self.0.push((name, words));
    }
}

fn family(rows: &mut Rows, facts: &NatFacts, f: &FamilyFacts) {
    let heading = match f.family {
        Family::Ipv4 => "NAT IPv4",
        Family::Ipv6 => "NAT IPv6",
    };
    match (f.local, f.external) {
        (Some(local), Some(external)) if f.translated == Some(true) => {
            rows.say(
                heading,
                format!("{local} is {external} outside"),
                "mapped address",
            );
        }
        (Some(local), Some(_)) => rows.say(heading, format!("{local}, the same outside"), "no NAT"),
        _ => rows.say(heading, "its outside was not learned", ""),
    }
    if let (Some(local), Some(external)) = (f.local, f.external)
        && is_unique_local(local.ip())
        && !is_inside(external.ip())
    {
        rows.say(
            "source",
            "a unique local address (ULA) comes out as a global one",
            "NAT66",
        );
    }
    if f.external_addresses.len() > 1 {
        let all: Vec<String> = f.external_addresses.iter().map(ToString::to_string).collect();
        rows.say("outside", all.join(", "), "external addresses");
    }
    let known = |b: Behaviour| b != Behaviour::Unknown;
    if known(f.mapping) {
        rows.say(
            "outgoing",
            mapping(f.mapping),
            &format!("{} mapping", f.mapping.name()),
        );
    }
    if known(f.filtering) {
        rows.say(
            "incoming",
            filtering(f.filtering),
            &format!("{} filtering", f.filtering.name()),
        );
    }
    behaviours(rows, f);
    if let Some(l) = f.lifetime {
        let words = match l.gone_after {
            Some(gone) => format!(
                "an idle mapping lives {} to {}",
                human::span(l.alive_after),
                human::span(Span::try_from_secs_f64(gone).unwrap_or_default())
            ),
            None => format!("an idle mapping lives longer than {}", human::span(l.alive_after)),
        };
        rows.say("idle", words, "mapping lifetime");
    }
    if f.udp_blocked == Some(true) {
        rows.say("UDP", "nothing comes back; TCP works", "UDP blocked");
    }
    gateway(rows, facts, f);
    hops(rows, facts, f);
    for test in &f.left_out {
        rows.say("not told", format!("{}: {}", test.test, test.why), "");
    }
}

fn behaviours(rows: &mut Rows, f: &FamilyFacts) {
    match f.hairpinning {
        Some(true) => rows.say(
            "inside",
            "hosts behind it reach each other by its address",
            "hairpinning",
        ),
        Some(false) => rows.say(
            "inside",
            "hosts behind it cannot use its address to meet",
            "no hairpinning",
        ),
        None => {}
    }
    if let Some(kept) = f.port_preservation {
        let words = format!("{} of {} sockets kept their port", f.ports_kept, f.ports_seen);
        rows.say(
            "ports",
            words,
            if kept {
                "port preservation"
            } else {
                "no port preservation"
            },
        );
    }
    if f.port_preservation == Some(false) && f.parity_preservation == Some(true) {
        rows.say(
            "ports",
            "even ones stay even, odd ones odd",
            "parity preservation",
        );
    }
    if f.pooling == Some(Pooling::Arbitrary) {
        rows.say("addresses", "one host has several outside", "arbitrary pooling");
    }
    if f.alg == Some(true) {
        rows.say("contents", "addresses inside packets are rewritten", "ALG");
    }
}

fn gateway(rows: &mut Rows, facts: &NatFacts, f: &FamilyFacts) {
    for g in facts
        .gateways
        .iter()
        .filter(|g| Family::of(g.gateway) == f.family)
    {
        let words = match (g.external, &g.problem) {
            _ if g.protocol == "pcp" => format!(
                "{} speaks PCP, which names its outside with a mapping only",
                g.gateway
            ),
            (Some(external), _) => format!("{} says that its outside is {external}", g.gateway),
            (None, Some(problem)) => format!("{} does not tell its outside: {problem}", g.gateway),
            (None, None) => format!("{} does not tell its outside", g.gateway),
        };
        rows.say("gateway", words, &g.protocol);
    }
}

/// The routers that were heard of; beyond the gateway they tell of more NATs.
fn hops(rows: &mut Rows, facts: &NatFacts, f: &FamilyFacts) {
    let of_family = facts.hops.iter().filter(|h| Family::of(h.address) == f.family);
    let heard: Vec<String> = of_family.map(|h| format!("{} {}", h.ttl, h.address)).collect();
    if !heard.is_empty() {
        rows.say("routers", heard.join(", "), "hops");
    }
}

fn mapping(behaviour: Behaviour) -> &'static str {
    match behaviour {
        Behaviour::None => "addresses and ports are not changed",
        Behaviour::EndpointIndependent => "one outside port for all destinations",
        Behaviour::AddressDependent => "another outside port for each address called",
        Behaviour::AddressAndPortDependent => "another outside port for each address and port",
        Behaviour::Unknown => "not known",
    }
}

fn filtering(behaviour: Behaviour) -> &'static str {
    match behaviour {
        Behaviour::None => "anybody may call in: nothing filters",
        Behaviour::EndpointIndependent => "anybody may call in once a port is open",
        Behaviour::AddressDependent => "only addresses that were called may answer",
        Behaviour::AddressAndPortDependent => "only who was called may answer, port and all",
        Behaviour::Unknown => "not known",
    }
}

fn quota(rows: &mut Rows, facts: &NatFacts) {
    let Some(q) = &facts.quota else {
        return;
    };
    let all = format!(
        "{} of {} were answered",
        human::count(q.answered),
        human::count(q.tried)
    );
    rows.say("flows", all, "");
    match q.quota {
        None if q.rate_limited == Some(true) => rows.say(
            "limit",
            "none on all flows, but on how many begin in a second",
            "rate limit on new flows",
        ),
        None if q.answered < q.tried => rows.say(
            "limit",
            "none was met; what is missing may be loss or a limit",
            "quota",
        ),
        Some(n) => rows.say(
            "limit",
            format!("no more than {} at once", human::count(n)),
            "quota",
        ),
        None => rows.say("limit", "none was met", "quota"),
    }
    if let Some((low, high)) = q.ports {
        rows.say("ports", format!("{low} to {high}"), "external ports");
    }
    if let Some((first, size)) = q.block {
        rows.say(
            "block",
            format!("{} ports from {first}", human::count(size)),
            "aligned port block",
        );
    }
    match q.overloading {
        Some(true) => rows.say(
            "sharing",
            "one outside port serves several destinations",
            "port overloading",
        ),
        Some(false) => rows.say(
            "sharing",
            "each flow has an outside port of its own",
            "no port overloading",
        ),
        None => {}
    }
    if let Some(hold) = q.hold_seconds.and_then(|s| Span::try_from_secs_f64(s).ok()) {
        rows.say(
            "hold",
            format!("a port was free again after {}", human::span(hold)),
            "hold time",
        );
    }
}

fn servers(rows: &mut Rows, facts: &NatFacts) {
    let time = |rtt: Option<f64>| {
        let span = rtt.and_then(|s| Span::try_from_secs_f64(s).ok());
        span.map_or_else(|| "no answer".to_owned(), human::span)
    };
    for s in &facts.servers {
        let kind = match s.other {
            Some(other) if other.ip() != s.address.ip() => "RFC 5780",
            Some(_) => "one address, two ports",
            None => "one address",
        };
        let mut words = format!("{}: UDP {}, TCP {}", s.address, time(s.udp_rtt), time(s.tcp_rtt));
        if s.udp_rtt.is_some() {
            words.push_str(&format!(" ({kind})"));
        }
        if !s.problems.is_empty() {
            words.push_str(&format!("; {}", s.problems.join("; ")));
        }
        rows.say("STUN", words, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::nat::{GatewayFacts, Hop, ServerFacts};
    use crate::report::sample;

    #[test]
    fn plain_words_come_with_their_terms_and_nothing_is_cut() {
        let mut f = FamilyFacts::new(Family::Ipv4);
        f.local = Some("10.0.0.2:40000".parse().unwrap());
        f.external = Some("198.51.100.7:40001".parse().unwrap());
        f.translated = Some(true);
        (f.mapping, f.filtering) = (Behaviour::AddressAndPortDependent, Behaviour::EndpointIndependent);
        f.hairpinning = Some(false);
        let mut report = sample::empty();
        report.nat = Some(NatFacts {
            families: vec![f],
            servers: vec![ServerFacts {
                name: "s".to_owned(),
                address: "192.0.2.1:3478".parse().unwrap(),
                udp_rtt: Some(0.02),
                tcp_rtt: None,
                software: None,
                other: None,
                problems: vec!["over TCP: connection refused".to_owned()],
            }],
            ..NatFacts::default()
        });
        let text: Vec<String> = lines(&report)
            .into_iter()
            .map(|(name, words)| format!("{name}: {words}"))
            .collect();
        let text = text.join("\n");
        for words in [
            "NAT IPv4: 10.0.0.2:40000 is 198.51.100.7:40001 outside (mapped address)",
            "another outside port for each address and port (address-and-port-dependent mapping)",
            "anybody may call in once a port is open (endpoint-independent filtering)",
            "STUN: 192.0.2.1:3478: UDP 20 ms, TCP no answer (one address); over TCP: connection refused",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
    }

    #[test]
    fn what_the_gateway_and_the_routers_tell_stands_with_their_family() {
        let mut v6 = FamilyFacts::new(Family::Ipv6);
        v6.local = Some("[fdaa::3]:40000".parse().unwrap());
        v6.external = Some("[2001:db8::7]:40000".parse().unwrap());
        v6.translated = Some(true);
        let gateway = |protocol: &str, external: Option<&str>, problem: Option<&str>| GatewayFacts {
            gateway: "10.0.0.1".parse().unwrap(),
            protocol: protocol.to_owned(),
            external: external.map(|e| e.parse().unwrap()),
            says_none: false,
            problem: problem.map(str::to_owned),
        };
        let mut report = sample::empty();
        report.nat = Some(NatFacts {
            families: vec![FamilyFacts::new(Family::Ipv4), v6],
            gateways: vec![
                gateway("nat-pmp", Some("198.51.100.7"), None),
                gateway("upnp", None, Some("it says that it has none")),
            ],
            hops: vec![Hop {
                ttl: 1,
                address: "10.0.0.1".parse().unwrap(),
            }],
            ..NatFacts::default()
        });
        let text: Vec<String> = lines(&report)
            .into_iter()
            .map(|(name, words)| format!("{name}: {words}"))
            .collect();
        assert_eq!(
            text,
            [
                "NAT IPv4: its outside was not learned",
                "gateway: 10.0.0.1 says that its outside is 198.51.100.7 (nat-pmp)",
                "gateway: 10.0.0.1 does not tell its outside: it says that it has none (upnp)",
                "routers: 1 10.0.0.1 (hops)",
                "NAT IPv6: [fdaa::3]:40000 is [2001:db8::7]:40000 outside (mapped address)",
                "source: a unique local address (ULA) comes out as a global one (NAT66)",
            ]
        );
    }
}

//! The NAT in front, in plain words with the terms beside them.
//!
//! In: a [`Report`]. Out: one table a family. Pure.

use super::page::Role;
use super::table::{Cell, Column, Table};
use crate::observation::nat::{Behaviour, FamilyFacts, NatFacts, Pooling};
use crate::output::human;
use crate::report::Report;
use crate::time::Span;

/// One table a family that was probed, and one of the servers.
pub fn tables(report: &Report) -> Vec<Table> {
    let Some(facts) = &report.nat else {
        return Vec::new();
    };
    facts
        .families
        .iter()
        .filter_map(|f| family(facts, f))
        .chain(quota(facts))
        .chain(servers(facts))
        .collect()
}

fn columns(heading: String) -> Vec<Column> {
    vec![
        Column::text(heading, 10),
        Column::text("", 30),
        Column::text("", 10),
    ]
}

struct Rows(Vec<Vec<Cell>>);

impl Rows {
    fn say(&mut self, name: &str, words: impl Into<String>, term: &str) {
        let term = Cell::of(Role::Dim, term);
        self.0.push(vec![Cell::plain(name), Cell::plain(words), term]);
    }
}

fn family(facts: &NatFacts, f: &FamilyFacts) -> Option<Table> {
    let mut rows = Rows(Vec::new());
    match (f.local, f.external) {
        (Some(local), Some(external)) if f.translated == Some(true) => {
            rows.say(
                "address",
                format!("{local} is {external} outside"),
                "mapped address",
            );
        }
        (Some(local), Some(_)) => rows.say("address", format!("{local}, the same outside"), "no NAT"),
        _ => {}
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
    behaviours(&mut rows, f);
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
    gateway(&mut rows, facts, f);
    for test in &f.left_out {
        rows.say("not told", format!("{}: {}", test.test, test.why), "");
    }
    (!rows.0.is_empty()).then(|| Table {
        columns: columns(format!("NAT {}", f.family.title())),
        rows: rows.0,
        note: None,
    })
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
        .filter(|g| g.gateway.is_ipv4() == f.local.is_some_and(|l| l.is_ipv4()))
    {
        if let Some(external) = g.external {
            rows.say(
                "gateway",
                format!("{} says that its outside is {external}", g.gateway),
                &g.protocol,
            );
        }
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

fn quota(facts: &NatFacts) -> Option<Table> {
    let q = facts.quota.as_ref()?;
    let mut rows = Rows(Vec::new());
    let all = format!(
        "{} of {} flows were answered",
        human::count(q.answered),
        human::count(q.tried)
    );
    rows.say("flows", all, "");
    match q.quota {
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
    Some(Table {
        columns: columns("Flows".to_owned()),
        rows: rows.0,
        note: None,
    })
}

fn servers(facts: &NatFacts) -> Option<Table> {
    let time = |rtt: Option<f64>| {
        let span = rtt.and_then(|s| Span::try_from_secs_f64(s).ok());
        span.map_or_else(|| "no answer".to_owned(), human::span)
    };
    let rows: Vec<_> = facts
        .servers
        .iter()
        .flat_map(|s| {
            let role = if s.udp_rtt.is_some() {
                Role::Plain
            } else {
                Role::Warning
            };
            let mut rows = vec![vec![
                Cell::plain(s.address.to_string()),
                Cell::of(role, format!("UDP {}, TCP {}", time(s.udp_rtt), time(s.tcp_rtt))),
                Cell::of(Role::Dim, if s.other.is_some() { "RFC 5780" } else { "basic" }),
            ]];
            rows.extend(
                s.problems
                    .iter()
                    .map(|p| vec![Cell::plain(""), Cell::plain(p.clone()), Cell::plain("")]),
            );
            rows
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        columns: columns("STUN".to_owned()),
        rows,
        note: None,
    })
}

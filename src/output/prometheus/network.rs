//! Destinations and their ports, TIME_WAIT, connects, conntrack and SNAT.

use super::{Family, count};
use crate::report::agent::AgentStats;
use crate::report::{Conntrack, DestinationRow, Report};
use crate::types::Proto;

pub(super) fn families(report: &Report, stats: &AgentStats) -> Vec<Family> {
    let mut all = sockets(report);
    all.extend(destinations(report, stats));
    all.extend(connects(stats));
    if let Some(table) = &report.conntrack {
        all.extend(conntrack(table, stats));
    }
    all
}

fn sockets(report: &Report) -> Vec<Family> {
    let sockets = &report.sockets;
    vec![
        Family::gauge("wgnat_tcp_sockets", "TCP sockets of this namespace.")
            .maybe(Vec::new(), sockets.tcp_total.map(f64::from)),
        Family::gauge("wgnat_tcp_time_wait_sockets", "TCP sockets in TIME_WAIT.")
            .maybe(Vec::new(), sockets.time_wait_total.map(f64::from)),
        Family::gauge(
            "wgnat_ephemeral_ports",
            "Usable ephemeral ports: the range less reserved ones.",
        )
        .maybe(Vec::new(), sockets.ports_available.map(f64::from)),
    ]
}

fn proto_label(row: &DestinationRow) -> Vec<(&'static str, String)> {
    vec![
        ("proto", row.proto.name().to_owned()),
        ("source", row.source.to_string()),
        ("destination", row.destination.to_string()),
    ]
}

/// The busiest by name; the others' sum as `other`.
fn destinations(report: &Report, stats: &AgentStats) -> Vec<Family> {
    let mut held = Family::gauge(
        "wgnat_destination_ports",
        "Ephemeral ports held towards a destination; `other` is the sum over those without a name here.",
    );
    let mut ratio = Family::gauge(
        "wgnat_destination_ports_used_ratio",
        "Of the ports usable towards a destination, the share that is held.",
    );
    let mut waiting = Family::gauge(
        "wgnat_destination_time_wait_sockets",
        "Sockets in TIME_WAIT towards a destination.",
    );
    let mut opens = Family::gauge(
        "wgnat_destination_opens_per_second",
        "Connections opened per second towards a destination, in the last seconds.",
    );
    let rows = &report.sockets.destinations;
    let named = rows.len().min(stats.top_destinations);
    for row in rows.iter().take(named) {
        held.add(proto_label(row), f64::from(row.held));
        let share = row
            .available
            .filter(|n| *n > 0)
            .map(|n| f64::from(row.held) / f64::from(n));
        if let Some(share) = share {
            ratio.add(proto_label(row), share);
        }
        if row.proto == Proto::Tcp {
            waiting.add(proto_label(row), f64::from(row.time_wait));
        }
        if let Some(rate) = row.opens_per_second {
            opens.add(proto_label(row), rate);
        }
    }
    for proto in [Proto::Tcp, Proto::Udp] {
        let others = || rows.iter().skip(named).filter(move |row| row.proto == proto);
        if others().next().is_none() {
            continue;
        }
        let labels = || {
            vec![
                ("proto", proto.name().to_owned()),
                ("source", "other".to_owned()),
                ("destination", "other".to_owned()),
            ]
        };
        let sum = |of: fn(&DestinationRow) -> u32| count(others().map(|row| u64::from(of(row))).sum());
        held.add(labels(), sum(|row| row.held));
        if proto == Proto::Tcp {
            waiting.add(labels(), sum(|row| row.time_wait));
        }
    }
    let left_out = Family::gauge(
        "wgnat_destinations_left_out",
        "Destinations that are not in the report, for want of room.",
    )
    .maybe(
        Vec::new(),
        report
            .sockets
            .tcp_total
            .map(|_| count(report.sockets.destinations_left_out)),
    );
    vec![held, ratio, waiting, opens, left_out]
}

fn connects(stats: &AgentStats) -> Option<Family> {
    let mut family = Family::counter(
        "wgnat_connects",
        "Outgoing TCP connects by what came of them, counted in the kernel.",
    );
    for (result, n) in stats.totals.connects.as_ref()? {
        family.add(vec![("result", (*result).to_owned())], count(*n));
    }
    Some(family)
}

fn conntrack(table: &Conntrack, stats: &AgentStats) -> Vec<Family> {
    let mut events = Family::counter(
        "wgnat_conntrack_events",
        "Conntrack's own counters by the kernel's names, over all CPUs, since the agent began.",
    );
    for (name, n) in stats.totals.conntrack.iter().flatten() {
        events.add(vec![("event", (*name).to_owned())], count(*n));
    }
    let mut used = Family::gauge(
        "wgnat_snat_ports",
        "NAT ports in use towards a destination; `other` is the sum over those without a name here.",
    );
    let mut ratio = Family::gauge(
        "wgnat_snat_ports_used_ratio",
        "Of the NAT ports usable towards a destination, the share in use.",
    );
    for row in table.snat.iter().take(stats.top_destinations) {
        let labels = || {
            vec![
                ("proto", row.tally.proto.name().to_owned()),
                ("nat_address", row.tally.nat_address.to_string()),
                ("destination", row.tally.destination.to_string()),
            ]
        };
        used.add(labels(), f64::from(row.held));
        if let Some(range) = row.range.filter(|n| *n > 0) {
            ratio.add(labels(), f64::from(row.held) / f64::from(range));
        }
    }
    for proto in [Proto::Tcp, Proto::Udp] {
        let others = table.snat.iter().skip(stats.top_destinations);
        let others: Vec<u64> = others
            .filter(|row| row.tally.proto == proto)
            .map(|row| row.held.into())
            .collect();
        if !others.is_empty() {
            let other = || "other".to_owned();
            let labels = vec![
                ("proto", proto.name().to_owned()),
                ("nat_address", other()),
                ("destination", other()),
            ];
            used.add(labels, count(others.iter().sum()));
        }
    }
    vec![
        Family::gauge("wgnat_conntrack_entries", "Entries in the conntrack table.")
            .maybe(Vec::new(), table.count.map(f64::from)),
        Family::gauge("wgnat_conntrack_entries_limit", "The most entries that it takes.")
            .maybe(Vec::new(), table.max.map(f64::from)),
        events,
        used,
        ratio,
    ]
}

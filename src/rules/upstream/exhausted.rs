//! `upstream-nat-exhausted`: inferred from this side, since the NAT that is full says nothing.
//!
//! docs/decisions/0036 has what else looks alike, and by what each is kept out.

mod finding;
mod places;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::flows::{Flows, Group, flows, group};
use super::view::network;
use crate::finding::Finding;
use crate::observation::Source;
use crate::observation::nat::Family;
use crate::rules::conntrack::counters::{limit, share};
use crate::rules::own_drops::OwnDrops;
use crate::rules::ports::tuple::tuples;
use crate::rules::{Area, Input, Rule};
use crate::time::{Span, Timestamp};
use places::{Place, Places};

/// The rule.
pub const RULE: Rule = Rule {
    code: "upstream-nat-exhausted",
    area: Area::Upstream,
    severity: "critical; warning where something else in front would look the same",
    holds_when: "new connections to many destinations go unanswered while established ones keep moving and no limit of this host is near",
    meaning: "A NAT that has no port left drops each new flow without a word: SYNs are repeated and never answered, while connections that \
are open go on as before. Seen from this host it looks like many servers that are down at once.",
    detection: "An inference, likely at most. It needs, at three or more outside addresses: a SYN that was sent again, at a look of the \
last seconds; and life at the same address and port, which is something that came within a second on a connection that is open there while the \
SYN waited, or new connections that got through since. No more destinations whose open connections are dead as well, and \
fewer that take new connections without trouble. Ports, conntrack and NAT of this host not near their limits; no SYN that its own \
firewall dropped (TcpExt.TCPRetransFail), nor answers (received and not delivered, rp_filter); and no loss of data, which is a path's. \
Connections from a public address of this host, or into a tunnel, do not pass a NAT in front and do not count. \
It is likely where most new connections die, and those that get through stay and are no more than others end there, at destinations in two \
networks or more: freed ports are given out again. That needs connects counted in the kernel. It is likely too where a limit that `--nat-profile` gives is \
reached. All else may be a firewall that lets nothing new out, a limit of the rate of new flows, one dead link of several, or \
another device's full table, and is a hint. Where none gets through and, with `--stun`, a new connection to a server outside does while these \
wait, it is no NAT that is full.",
    fix: "- Reuse connections, so that fewer flows are needed.\n- More addresses or ports at that NAT (`wgnat explain \
upstream-budget-low`).\n- `wgnat nat --port-quota` against a reflector of yours measures the limit.",
    needs: &[&[Source::Sockets], &[Source::Counters]],
    explained_by: &["ports-exhausted", "conntrack-full", "snat-ports-exhausted"],
    check,
};

/// A share of a local limit from which on it may be the cause.
const NEAR: f64 = 0.9;
/// A discovery that ended so long before the first look at which a SYN had been sent again still overlaps with the wait: the
/// SYN was a second old by then, and looks are a second apart.
const OVERLAP: Span = Span::from_secs(2);
/// Data sent again is a share of all that was sent: above it the path loses packets of whatever kind…
const LOSSY: f64 = 0.05;
/// …and so many at least: fewer are of one connection.
const LOST_LEAST: u64 = 5;

/// So many new connections must die for each that gets through: of two equal links of which one is dead, as many do, and of
/// more links fewer…
const MOST_FAIL: u64 = 2;
/// …and so many must have been tried, that chance does not make two of three out of one of two.
const TRIED_LEAST: u64 = 12;

/// What holds against the NAT, and how well.
struct Case<'a> {
    family: Family,
    /// New connections wait there, and it is alive.
    failing: Vec<(&'a SocketAddr, &'a Place)>,
    /// The addresses of these.
    addresses: BTreeSet<IpAddr>,
    /// The networks of these: who answers from one may stand behind one firewall of their own.
    networks: usize,
    probe: Probe,
    /// Why it is likely, where it is.
    likely: Option<Likely>,
    /// This host's own table of connections was not seen.
    table_unseen: bool,
}

/// Why it is more than a hint.
enum Likely {
    /// As many new connections got through, and stayed, as others ended.
    Exchanged,
    /// The limit that is known is reached.
    Limit(Group, Box<Flows>),
}

impl Case<'_> {
    fn sum(&self, of: impl Fn(&Place) -> u64) -> u64 {
        self.failing.iter().map(|(_, place)| of(place)).sum()
    }

    fn admitted(&self) -> u64 {
        self.sum(|p| p.admitted)
    }

    fn since(&self) -> Option<Timestamp> {
        self.failing.iter().filter_map(|(_, p)| p.since).min()
    }
}

fn check(input: &Input<'_>) -> Vec<Finding> {
    [Family::Ipv4, Family::Ipv6]
        .into_iter()
        .filter_map(|family| {
            let places = Places::of(input, family);
            Some(finding::finding(input, &judge(input, family, &places)?))
        })
        .collect()
}

fn judge<'a>(input: &Input<'_>, family: Family, places: &'a Places) -> Option<Case<'a>> {
    let thresholds = input.thresholds;
    let failing: Vec<_> = places
        .stuck
        .iter()
        .filter(|(_, p)| p.alive() && p.failed_share() >= thresholds.connect_failed_share)
        .collect();
    let dead = places
        .stuck
        .values()
        .filter(|p| !p.alive() && p.unacknowledged)
        .count();
    if failing.is_empty() || dead >= failing.len() || this_host(input, family) || lossy(input) {
        return None;
    }
    let addresses: BTreeSet<IpAddr> = failing.iter().map(|(to, _)| to.ip()).collect();
    let networks: BTreeSet<IpAddr> = addresses.iter().map(|ip| network(*ip)).collect();
    let mut case = Case {
        family,
        failing,
        addresses,
        networks: networks.len(),
        probe: Probe::None,
        likely: None,
        table_unseen: !input.world.sources.sees(Source::Conntrack),
    };
    if let Some((group, flows)) = limit_reached(input, &case, places.well) {
        case.likely = Some(Likely::Limit(group, Box::new(flows)));
        return Some(case);
    }
    case.probe = probe(input, family, case.since()?);
    // A NAT that is full for all gives what comes free to any; where it gives nothing to some and all to others, it is these
    // destinations, their port or the path to them.
    let elsewhere = if case.admitted() == 0 {
        places.well > 0 || case.probe == Probe::Passes
    } else {
        places.well >= case.failing.len()
    };
    if case.addresses.len() < thresholds.nat_exhausted_addresses || elsewhere {
        return None;
    }
    if exchanged(&case) && case.networks >= 2 && !case.table_unseen {
        case.likely = Some(Likely::Exchanged);
    }
    Some(case)
}

/// Whether new connections that got through took the places of others. Those that are closed again make their own place for the
/// next, as they do at a limit of the rate; where there are ever more, nothing was full; and where every second one gets
/// through, one of two links may be dead.
fn exchanged(case: &Case<'_>) -> bool {
    let counted = case.failing.iter().all(|(_, p)| p.kept.is_some());
    let kept = case.sum(|p| p.kept.unwrap_or(0));
    let grown: i64 = case.failing.iter().map(|(_, p)| p.grown).sum();
    let (failed, admitted) = (case.sum(Place::failed), case.admitted());
    counted
        && kept > 0
        && failed >= MOST_FAIL * admitted
        && failed + admitted >= TRIED_LEAST
        && kept * 2 >= admitted
        && grown.saturating_mul(2) <= i64::try_from(kept).unwrap_or(i64::MAX)
}

/// A limit that the user gave, that is reached where new connections wait. One that open connections have passed by is not
/// that NAT's limit.
fn limit_reached(input: &Input<'_>, case: &Case<'_>, well: usize) -> Option<(Group, Flows)> {
    let budget = input.world.nat.budget().filter(|b| !b.assumed)?;
    let all = flows(input, budget);
    case.failing.iter().find_map(|(to, _)| {
        let group = group(budget.scope, crate::types::Proto::Tcp, **to);
        let flows = all.get(&group)?;
        let others_pass = group == Group::Host && well > 0 && case.admitted() == 0;
        let fits = flows.established <= budget.flows;
        (flows.filled() >= budget.flows && fits && !others_pass).then(|| (group, flows.clone()))
    })
}

/// Whether something on this host may be what stops new connections.
fn this_host(input: &Input<'_>, family: Family) -> bool {
    let world = input.world;
    let ports = tuples(input)
        .iter()
        .any(|t| t.no_port().is_some() || t.usable.share(t.blocked(&t.sample)) >= NEAR);
    let table = world
        .conntrack
        .newest()
        .zip(limit(input))
        .is_some_and(|(stats, limit)| share(stats.count, limit) >= NEAR);
    let dropped = world
        .conntrack
        .moved()
        .is_some_and(|m| m.drop > 0 || m.insert_failed > 0);
    // One or two are of other traffic: a discovery of the NAT makes some itself.
    let own = OwnDrops::of(input, family);
    let discarded: u64 = [
        "Ip.OutDiscards",
        "Ip6.OutDiscards",
        "Ip.OutNoRoutes",
        "Ip6.OutNoRoutes",
    ]
    .iter()
    .filter_map(|name| world.counters.delta(name))
    .sum();
    let discarded = discarded * 2 >= own.syns_again;
    // SYN_SENT alone is not enough: none was sent again since watching began.
    let silent = own.syns_again == 0;
    silent || ports || table || dropped || discarded || own.outbound() || own.inbound()
}

/// Whether data is lost as well: then SYNs are lost with it.
fn lossy(input: &Input<'_>) -> bool {
    let moved = |name: &str| input.world.counters.delta(name).unwrap_or(0);
    let data = moved("Tcp.RetransSegs").saturating_sub(moved("TcpExt.TCPSynRetrans"));
    #[allow(clippy::cast_precision_loss)] // a share
    let share = data as f64 / moved("Tcp.OutSegs").max(1) as f64;
    data >= LOST_LEAST && share > LOSSY
}

/// What new connections to a STUN server tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Nobody was asked while connections waited, or it tells nothing.
    None,
    /// One got through while others waited. That the NAT gives a socket one port for all destinations does not make it a NAT
    /// that has none left for anybody: Linux's keeps a socket's port where it can, and counts by destination all the same.
    Passes,
    /// None got through.
    Fails,
}

fn probe(input: &Input<'_>, family: Family, since: Timestamp) -> Probe {
    let Some((at, facts)) = input.world.nat.newest() else {
        return Probe::None;
    };
    if at < since.before(OVERLAP) {
        return Probe::None;
    }
    let servers = || {
        facts
            .servers
            .iter()
            .filter(|s| Family::of(s.address.ip()) == family)
    };
    if servers().any(|s| s.tcp_rtt.is_some()) {
        return Probe::Passes;
    }
    // A server that takes no TCP at all says so at once; only silence is a new flow that died.
    let silent = servers().any(|s| {
        s.problems
            .iter()
            .any(|p| p.contains("over TCP: no answer within"))
    });
    if silent { Probe::Fails } else { Probe::None }
}

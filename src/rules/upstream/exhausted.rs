//! `upstream-nat-exhausted`: inferred from this side, since the NAT that is full says nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::flows::leaves;
use super::view::subject;
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::rules::conntrack::counters::{limit, share};
use crate::rules::ports::tuple::tuples;
use crate::rules::{Area, Input, Rule};
use crate::time::{Span, Timestamp};
use crate::types::Proto;
use crate::words::{count, counted};

/// The rule.
pub const RULE: Rule = Rule {
    code: "upstream-nat-exhausted",
    area: Area::Upstream,
    severity: "critical; warning where a firewall upstream would look the same",
    holds_when: "new connections to many destinations go unanswered while established ones keep moving and no limit of this host is near",
    meaning: "A NAT that has no port left drops each new flow without a word: SYNs are repeated and never answered, while connections that \
are open go on as before. Seen from this host it looks like many servers that are down at once.",
    detection: "An inference, likely at most. It needs: SYN_SENT sockets at two looks 2 s apart towards three or more outside addresses; SYNs \
repeated (TcpExt.TCPSynRetrans); at one of these addresses a connection that is established, and segments arriving; ports, conntrack and NAT of \
this host not near their limits, and no packet dropped by its own firewall (Ip.OutDiscards). It is likely where new \
connections now and then still succeed at the same addresses, as many as others end there: freed ports are given out again. Where none \
succeeds a firewall that lets no new connection out looks the same, and where ever more do a NAT that limits the rate of new flows: then it is \
a hint. Where more addresses take new connections than not, it is a path or a server and not \
the NAT. With `--stun` a new flow to a server outside settles it.",
    fix: "- Reuse connections, so that fewer flows are needed.\n- More addresses or ports at that NAT (`wgnat explain \
upstream-budget-low`).\n- `wgnat nat --port-quota` against a reflector of yours measures the limit.",
    needs: &[&[Source::Sockets], &[Source::Counters]],
    explained_by: &["ports-exhausted", "conntrack-full", "snat-ports-exhausted"],
    check,
};

/// A SYN that is not answered for so long has been repeated once (RFC 6298: after 1 s).
const STUCK: Span = Span::from_secs(2);
/// Looks older than this tell nothing of now.
const RECENT: Span = Span::from_secs(30);
/// A share of a local limit from which on it may be the cause.
const NEAR: f64 = 0.9;

/// New connections to one address.
#[derive(Clone, Copy, Debug, Default)]
struct Address {
    /// In SYN_SENT now.
    waiting: u32,
    /// Was in SYN_SENT at an earlier look, long enough ago.
    waited: bool,
    established: u32,
    /// New connections became established, or came and went.
    taken: u32,
    /// Established at the first recent look.
    at_first: u32,
    since: Option<Timestamp>,
}

impl Address {
    fn fails(&self) -> bool {
        self.waiting > 0 && self.waited
    }
}

fn check(input: &Input<'_>) -> Vec<Finding> {
    let addresses = addresses(input);
    let failing: Vec<(&IpAddr, &Address)> = addresses.iter().filter(|(_, a)| a.fails()).collect();
    let well = addresses
        .values()
        .filter(|a| !a.fails() && a.taken > 0 && a.waiting == 0)
        .count();
    let repeated = input.world.counters.delta("TcpExt.TCPSynRetrans").unwrap_or(0);
    let enough =
        failing.len() >= input.thresholds.nat_exhausted_addresses && repeated > 0 && well < failing.len();
    if !enough || local_limit(input) {
        return Vec::new();
    }
    let mixed = failing.iter().filter(|(_, a)| a.established > 0).count();
    let arriving = input.world.counters.delta("Tcp.InSegs").unwrap_or(0);
    if mixed == 0 || arriving == 0 {
        return Vec::new();
    }
    let probe = probe(input);
    if probe == Probe::Passes {
        return Vec::new();
    }
    let taken: u32 = failing.iter().map(|(_, a)| a.taken).sum();
    // A full NAT takes as many as others leave; one that takes ever more is not full but slow.
    let sum = |of: fn(&Address) -> u32| failing.iter().map(|(_, a)| of(a)).sum::<u32>();
    let grown = sum(|a| a.established).saturating_sub(sum(|a| a.at_first));
    let likely = (taken > 0 && grown * 2 <= taken) || probe == Probe::QuotaReached;
    vec![finding(input, &failing, mixed, taken, repeated, probe, likely)]
}

fn addresses(input: &Input<'_>) -> BTreeMap<IpAddr, Address> {
    let mut addresses: BTreeMap<IpAddr, Address> = BTreeMap::new();
    let Some((at, _)) = input.world.sockets.newest() else {
        return addresses;
    };
    let outside = |proto: Proto, ip: IpAddr| proto == Proto::Tcp && leaves(ip);
    for (key, history) in input.world.sockets.destinations() {
        if !outside(key.proto, key.destination.ip()) {
            continue;
        }
        let address = addresses.entry(key.destination.ip()).or_default();
        let mut before: Option<u32> = None;
        for sample in history.samples().filter(|s| at.since(s.at) <= RECENT) {
            if sample.at == at {
                address.waiting += sample.syn_sent;
                address.established += sample.established;
            } else if sample.syn_sent > 0 && at.since(sample.at) >= STUCK {
                address.waited = true;
                address.since = Some(address.since.map_or(sample.at, |s| s.min(sample.at)));
            }
            // Growth of what is established is a new connection that got through.
            if before.is_none() {
                address.at_first += sample.established;
            }
            if let Some(before) = before {
                address.taken += sample.established.saturating_sub(before);
            }
            before = Some(sample.established);
        }
        // Where connects are counted, short ones are seen too.
        if let Some(seen) = input.world.connects.seen(key) {
            address.taken += u32::try_from(seen.established).unwrap_or(u32::MAX);
        }
    }
    addresses
}

/// Whether something on this host may be what stops new connections.
fn local_limit(input: &Input<'_>) -> bool {
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
    let discarded = [
        "Ip.OutDiscards",
        "Ip6.OutDiscards",
        "Ip.OutNoRoutes",
        "Ip6.OutNoRoutes",
    ]
    .iter()
    .any(|name| world.counters.delta(name).is_some_and(|n| n > 0));
    ports || table || dropped || discarded
}

/// What new flows to a STUN server tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Nobody was asked, or it tells nothing.
    None,
    /// A new TCP flow got through at once.
    Passes,
    /// None got through.
    Fails,
    /// The NAT's quota was measured and is reached.
    QuotaReached,
}

fn probe(input: &Input<'_>) -> Probe {
    let Some((_, facts)) = input.world.nat.newest() else {
        return Probe::None;
    };
    if facts.quota.as_ref().is_some_and(|q| q.quota.is_some()) {
        return Probe::QuotaReached;
    }
    if facts.servers.iter().any(|s| s.tcp_rtt.is_some()) {
        return Probe::Passes;
    }
    // A server that takes no TCP at all says so at once; only silence is a new flow that died.
    let silent = facts.servers.iter().any(|s| {
        s.problems
            .iter()
            .any(|p| p.contains("over TCP: no answer within"))
    });
    if silent { Probe::Fails } else { Probe::None }
}

fn finding(
    input: &Input<'_>,
    failing: &[(&IpAddr, &Address)],
    mixed: usize,
    taken: u32,
    repeated: u64,
    probe: Probe,
    likely: bool,
) -> Finding {
    let waiting: u32 = failing.iter().map(|(_, a)| a.waiting).sum();
    let established: u32 = failing.iter().map(|(_, a)| a.established).sum();
    let now = input.now();
    let mut summary = format!(
        "{} to {} wait in SYN_SENT while {} there are established and segments arrive. No limit of this host is near.",
        counted(waiting, "new connection", "new connections"),
        counted(failing.len() as u64, "address", "addresses"),
        count(established),
    );
    if taken > 0 {
        summary.push_str(&format!(
            " {} got through meanwhile, as where ports that come free are given out again.",
            counted(taken, "new connection", "new connections")
        ));
    }
    match probe {
        Probe::Fails => summary.push_str(" A new connection to the STUN server died in the same way."),
        Probe::QuotaReached => summary.push_str(" The quota of flows that was measured is reached."),
        Probe::None | Probe::Passes => {}
    }
    let external = input
        .world
        .nat
        .newest()
        .and_then(|(_, f)| f.families.first()?.external);
    Finding {
        code: RULE.code,
        severity: if likely {
            Severity::Critical
        } else {
            Severity::Warning
        },
        confidence: if likely {
            Confidence::Likely
        } else {
            Confidence::Possible
        },
        title: "The NAT in front takes no new connections: it looks full".to_owned(),
        subject: subject(external.map(|e| e.ip())),
        summary,
        evidence: Evidence::new()
            .with("syn_sent", waiting)
            .with("addresses", failing.len())
            .with("addresses_with_established", mixed)
            .with("established", established)
            .with("new_established", taken)
            .with("syn_retransmits", repeated),
        impact:
            "New connections of this host, and of every host behind the same NAT, time out; open ones go on."
                .to_owned(),
        candidates: candidates(),
        fixes: fixes(input, failing),
        first_seen: failing.iter().filter_map(|(_, a)| a.since).min().unwrap_or(now),
        last_seen: now,
        count: 1,
    }
}

fn candidates() -> Vec<Candidate> {
    vec![
        Candidate {
            cause: "The NAT in front has no port left for this host".to_owned(),
            code: None,
            settle: "wgnat nat --port-quota against a reflector of yours; the NAT's own counter of dropped allocations".to_owned(),
        },
        Candidate {
            cause: "A firewall or an egress policy upstream lets no new connection out".to_owned(),
            code: None,
            settle: "close some connections: a full NAT then takes as many new ones, a firewall none".to_owned(),
        },
        Candidate {
            cause: "A NAT or firewall upstream limits the rate of new connections".to_owned(),
            code: None,
            settle: "whether connections that wait get through in the end, ever more of them".to_owned(),
        },
        Candidate {
            cause: "The path to these destinations is down for new and old alike".to_owned(),
            code: None,
            settle: "whether the established connections still deliver: ss -ti, lastrcv".to_owned(),
        },
    ]
}

fn fixes(input: &Input<'_>, failing: &[(&IpAddr, &Address)]) -> Vec<Fix> {
    let busiest = tuples(input)
        .into_iter()
        .filter(|t| failing.iter().any(|(ip, _)| **ip == t.key.destination.ip()))
        .max_by_key(|t| t.sample.live + t.sample.time_wait);
    let mut fixes = busiest.map(|t| t.advice().fixes).unwrap_or_default();
    fixes.truncate(1);
    let more = input.world.nat.budget().map_or_else(
        || "each port or address that it gets is room for more flows".to_owned(),
        |b| b.more.clone(),
    );
    fixes.push(Fix {
        title: "Give the NAT in front more ports or addresses".to_owned(),
        why: more,
        ..Fix::default()
    });
    fixes
}

#[cfg(test)]
#[path = "exhausted_tests.rs"]
mod tests;

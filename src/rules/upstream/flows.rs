//! Flows of this host through the NAT in front, counted as that NAT counts them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::observation::nat::{Budget, Scope, is_inside};
use crate::rules::Input;
use crate::time::{Span, Timestamp};
use crate::track::sockets::{History, Key, Sample};
use crate::types::Proto;
use crate::words::whole32;

/// The widest class of TIME_WAIT, in seconds.
const CLASS: f64 = 10.0;
/// TIME_WAIT's length (`TCP_TIMEWAIT_LEN`), in seconds.
const TIME_WAIT: f64 = 60.0;

/// What a limit is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// One address, port and protocol.
    Destination(Proto, SocketAddr),
    /// One address.
    Address(IpAddr),
    /// Everything.
    Host,
}

/// Flows of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flows {
    /// Connections that live.
    pub live: u32,
    /// Connections that have ended and hold their port at the NAT, as far as can be told.
    pub ended: u32,
    /// Both at each look.
    pub over_time: BTreeMap<Timestamp, f64>,
    /// The tuple with most of them.
    pub largest: Option<(u32, Key)>,
    /// Counted in this host's own conntrack table, which also has what it forwards.
    pub forwarded: u32,
}

impl Flows {
    /// What the NAT holds.
    pub fn held(&self) -> u32 {
        self.live.saturating_add(self.ended).max(self.forwarded)
    }
}

/// Whether traffic to `ip` goes out through the NAT in front.
pub fn leaves(ip: IpAddr) -> bool {
    !is_inside(ip) && !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast()
}

fn group(scope: Scope, proto: Proto, to: SocketAddr) -> Group {
    match scope {
        Scope::Destination => Group::Destination(proto, to),
        Scope::Address => Group::Address(to.ip()),
        Scope::Host => Group::Host,
    }
}

/// Closed connections that the NAT still holds: the TIME_WAITs that are young enough, and what the pace of closing adds
/// where the NAT holds longer than the sockets do or the other side closed first.
fn ended(sample: &Sample, closing: f64, hold: Span) -> f64 {
    let hold = hold.as_secs_f64();
    // Class i has 10·i to 10·(i+1) seconds left, so it closed 50−10·i to 60−10·i seconds ago.
    let young: u32 = sample
        .left
        .iter()
        .zip(0_u8..)
        .filter(|(_, class)| TIME_WAIT - CLASS * (f64::from(*class) + 1.0) < hold)
        .map(|(n, _)| *n)
        .sum();
    f64::from(young).max(closing * hold)
}

/// Connections that end per second.
fn closing(history: &History) -> f64 {
    let Some(newest) = history.newest() else {
        return 0.0;
    };
    let by_time_wait = newest.left.last().map_or(0.0, |n| f64::from(*n) / CLASS);
    let looks: Vec<&Sample> = history.samples().collect();
    let watched = match (looks.first(), looks.last()) {
        (Some(a), Some(b)) => (b.at - a.at).as_secs_f64(),
        _ => 0.0,
    };
    // A shorter watch than a few seconds makes a rate of one event.
    let vanished: u32 = looks.iter().skip(1).filter_map(|s| s.vanished).sum();
    let by_vanishing = if watched >= 3.0 {
        f64::from(vanished) / watched
    } else {
        0.0
    };
    by_time_wait.max(by_vanishing)
}

/// Flows by group.
pub fn flows(input: &Input<'_>, budget: &Budget) -> BTreeMap<Group, Flows> {
    let mut groups: BTreeMap<Group, Flows> = BTreeMap::new();
    let newest = input.world.sockets.newest().map(|(at, _)| at);
    for (key, history) in input.world.sockets.destinations() {
        if !leaves(key.destination.ip()) {
            continue;
        }
        let closing = closing(history);
        let held = |s: &Sample| f64::from(s.live) + ended(s, closing, budget.hold);
        let flows = groups
            .entry(group(budget.scope, key.proto, key.destination))
            .or_default();
        for sample in history.samples() {
            *flows.over_time.entry(sample.at).or_default() += held(sample);
        }
        let Some(sample) = history.newest().filter(|s| Some(s.at) == newest) else {
            continue;
        };
        flows.live = flows.live.saturating_add(sample.live);
        flows.ended = flows
            .ended
            .saturating_add(whole32(ended(sample, closing, budget.hold)));
        let own = whole32(held(sample));
        if flows.largest.is_none_or(|(most, _)| own > most) {
            flows.largest = Some((own, *key));
        }
    }
    if let Some((_, tally)) = input.world.conntrack.tally() {
        for row in tally.snat.iter().filter(|row| leaves(row.destination.ip())) {
            let flows = groups
                .entry(group(budget.scope, row.proto, row.destination))
                .or_default();
            flows.forwarded = flows.forwarded.saturating_add(row.ports);
        }
    }
    groups
}

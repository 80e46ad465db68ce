//! Flows of this host through the NAT in front, counted as that NAT counts them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::view::{faces_nat, in_tunnel};
use crate::observation::nat::{Budget, Scope, is_inside};
use crate::rules::Input;
use crate::time::Timestamp;
use crate::track::sockets::{History, Key, Sample};
use crate::types::Proto;
use crate::words::whole32;

/// The width of a class of TIME_WAIT, in seconds.
const CLASS: f64 = 10.0;
/// TIME_WAIT's length (`TCP_TIMEWAIT_LEN`), in seconds.
const TIME_WAIT: f64 = 60.0;
/// A watch shorter than this makes a pace of one event.
const WATCH_LEAST: f64 = 3.0;

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
    /// Connections that live, in whatever state.
    pub live: u32,
    /// Of these, the established.
    pub established: u32,
    /// Of these, those that wait in SYN_SENT: a NAT that is full holds nothing for them.
    pub waiting: u32,
    /// Connections that have ended and hold their port at the NAT, as far as can be told.
    pub ended: u32,
    /// Of these, those that were not seen: they follow from the pace at which others have ended.
    pub estimated: u32,
    /// Live and ended at each look.
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

    /// What it holds of what was seen.
    pub fn seen(&self) -> u32 {
        self.held().saturating_sub(self.estimated).max(self.forwarded)
    }

    /// What it holds for certain where it takes no new connections: without those that wait.
    pub fn filled(&self) -> u32 {
        self.held().saturating_sub(self.waiting).max(self.forwarded)
    }
}

/// Whether traffic to `ip` goes out through the NAT in front.
pub fn leaves(ip: IpAddr) -> bool {
    !is_inside(ip) && !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast()
}

/// The group of a flow.
pub fn group(scope: Scope, proto: Proto, to: SocketAddr) -> Group {
    match scope {
        Scope::Destination => Group::Destination(proto, to),
        Scope::Address => Group::Address(to.ip()),
        Scope::Host => Group::Host,
    }
}

/// Closed connections that the NAT still holds.
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    /// Seen to end within the hold time.
    seen: f64,
    /// Further ones, by the pace of those.
    estimated: f64,
}

impl Ended {
    fn all(self) -> f64 {
        self.seen + self.estimated
    }
}

/// Those that this side closed: TIME_WAIT shows the last minute of them. Where the NAT holds longer, what was closed before that is
/// taken to have gone at the pace of the oldest that are seen: a burst of the last seconds says nothing of then.
fn closed_here(sample: &Sample, hold: f64) -> Ended {
    // Class i has 10·i to 10·(i+1) seconds left, so it closed 50−10·i to 60−10·i seconds ago.
    let youngest = |class: u8| TIME_WAIT - CLASS * (f64::from(class) + 1.0);
    let seen = sample
        .left
        .iter()
        .zip(0_u8..)
        .map(|(n, class)| f64::from(*n) * ((hold - youngest(class)) / CLASS).clamp(0.0, 1.0))
        .sum();
    let [oldest, older, ..] = sample.left;
    let pace = f64::from(oldest + older) / (2.0 * CLASS);
    Ended {
        seen,
        estimated: pace * (hold - TIME_WAIT).max(0.0),
    }
}

/// Those that the other side closed, which leave nothing here: counted in the kernel where that can be, else sockets that were no
/// longer there at the next look (`ours`: this side's are among them). A pace is read off them only where they have ended all
/// along: a program that ends, or a pool that is emptied, closes many at once and no more.
fn closed_there(input: &Input<'_>, key: &Key, history: &History, hold: f64) -> (Ended, bool) {
    let seen = input.world.connects.seen(key);
    let (ended, watched, ours) = match seen {
        Some(seen) => (count(seen.closed_there), seen.watched.as_secs_f64(), false),
        None => {
            let looks: Vec<&Sample> = history.samples().collect();
            let watched = match (looks.first(), looks.last()) {
                (Some(a), Some(b)) => (b.at - a.at).as_secs_f64(),
                _ => 0.0,
            };
            // Attempts that are given up vanish too.
            let attempts = looks.iter().any(|s| s.syn_sent > 0);
            let vanished = looks.iter().skip(1).filter_map(|s| s.vanished).sum::<u32>();
            (if attempts { 0.0 } else { f64::from(vanished) }, watched, true)
        }
    };
    if watched < WATCH_LEAST || ended == 0.0 {
        return (Ended::default(), ours);
    }
    let pace = ended / watched;
    let steady = input.world.connects.turns_over(key, pace) || history.turns_over(pace);
    let seen = ended * (hold / watched).min(1.0);
    let estimated = if steady {
        pace * (hold - watched).max(0.0)
    } else {
        0.0
    };
    (Ended { seen, estimated }, ours)
}

/// All that ended.
fn ended(sample: &Sample, there: (Ended, bool), hold: f64) -> Ended {
    let here = closed_here(sample, hold);
    match there {
        // The same ones twice: whichever shows more.
        (there, true) if there.all() > here.all() => there,
        (_, true) => here,
        (there, false) => Ended {
            seen: here.seen + there.seen,
            estimated: here.estimated + there.estimated,
        },
    }
}

#[allow(clippy::cast_precision_loss)] // counts of a watch
fn count(n: u64) -> f64 {
    n as f64
}

/// Flows by group.
pub fn flows(input: &Input<'_>, budget: &Budget) -> BTreeMap<Group, Flows> {
    let mut groups: BTreeMap<Group, Flows> = BTreeMap::new();
    let newest = input.world.sockets.newest().map(|(at, _)| at);
    let hold = budget.hold.as_secs_f64();
    for (key, history) in input.world.sockets.destinations() {
        if !passes(input, key) {
            continue;
        }
        let there = closed_there(input, key, history, hold);
        let held = |s: &Sample| f64::from(s.live) + ended(s, there, hold).all();
        let flows = groups
            .entry(group(budget.scope, key.proto, key.destination))
            .or_default();
        for sample in history.samples() {
            *flows.over_time.entry(sample.at).or_default() += held(sample);
        }
        let Some(sample) = history.newest().filter(|s| Some(s.at) == newest) else {
            continue;
        };
        let ended = ended(sample, there, hold);
        let add = |to: &mut u32, n: u32| *to = to.saturating_add(n);
        add(&mut flows.live, sample.live);
        add(&mut flows.established, sample.established);
        add(&mut flows.waiting, sample.syn_sent);
        add(&mut flows.ended, whole32(ended.all()));
        add(&mut flows.estimated, whole32(ended.estimated));
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

/// Whether a flow passes the NAT that the user says is in front. A public IPv4 address does not keep it from that, for there the
/// user knows better; IPv6 addresses that mean something outside are not translated by any NAT that has a profile.
fn passes(input: &Input<'_>, key: &Key) -> bool {
    leaves(key.destination.ip())
        && !in_tunnel(input, key.source)
        && (key.source.is_ipv4() || faces_nat(input, key.source))
}

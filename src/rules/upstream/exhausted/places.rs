//! Destinations beyond the NAT in front: towards which new connections wait, whether what is open there is alive, and how many
//! new ones get through meanwhile.
//!
//! Each of these has a look-alike, and this file keeps them apart. A SYN_SENT is of a moment unless its SYN was sent again. An
//! ESTABLISHED is of a dead path too, for a quarter of an hour, unless something was just heard. What got through before the
//! trouble began tells nothing of it, and what got through and was closed again makes room for the next by itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::observation::nat::Family;
use crate::rules::Input;
use crate::rules::upstream::flows::leaves;
use crate::rules::upstream::view::faces_nat;
use crate::time::{Span, Timestamp};
use crate::track::sockets::{History, Key};
use crate::types::Proto;

/// Looks older than this tell nothing of now.
const RECENT: Span = Span::from_secs(30);
/// A destination where nothing has waited for so long has recovered. A client that gives up sooner than the kernel does is, for
/// a second after each attempt, one whose SYN was not yet sent again.
const LATELY: Span = Span::from_secs(6);

/// One destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The most connections that waited at one look with a SYN sent again.
    pub stuck: u32,
    /// The first and the last look at which any did.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// In SYN_SENT now.
    pub waiting: u32,
    /// In ESTABLISHED now.
    pub established: u32,
    /// By how much ESTABLISHED has changed since.
    pub grown: i64,
    /// Something came on a connection that is open, while a SYN waited.
    pub heard: bool,
    /// What was sent on a connection that is open is not acknowledged.
    pub unacknowledged: bool,
    /// New connections that got through since.
    pub admitted: u64,
    /// Of these, those that were not closed again; `None` where connects are not counted.
    pub kept: Option<u64>,
    /// Connects since; likewise.
    pub attempts: Option<u64>,
}

impl Place {
    /// Something is there and answers: what waits is not waiting for a host that is gone.
    pub fn alive(&self) -> bool {
        self.heard || self.admitted > 0
    }

    /// New connections that did not get through, as far as known.
    pub fn failed(&self) -> u64 {
        let tried = self.attempts.map_or(0, |n| n.saturating_sub(self.admitted));
        tried.max(self.stuck.into())
    }

    /// Their share of all.
    #[allow(clippy::cast_precision_loss)] // counts of half a minute
    pub fn failed_share(&self) -> f64 {
        self.failed() as f64 / (self.failed() + self.admitted).max(1) as f64
    }
}

/// Every destination of one family beyond the NAT in front.
#[derive(Debug, Default)]
pub struct Places {
    /// Those towards which new connections wait.
    pub stuck: BTreeMap<SocketAddr, Place>,
    /// Of the others, those that took new connections since.
    pub well: usize,
}

impl Places {
    /// What the newest looks show.
    pub fn of(input: &Input<'_>, family: Family) -> Self {
        let Some((now, _)) = input.world.sockets.newest() else {
            return Self::default();
        };
        let beyond = |source: IpAddr, to: SocketAddr| {
            Family::of(to.ip()) == family && leaves(to.ip()) && faces_nat(input, source)
        };
        let mut stuck: BTreeMap<SocketAddr, Place> = BTreeMap::new();
        let looks = || {
            input
                .world
                .sockets
                .waits()
                .filter(move |(at, _)| now.since(*at) <= RECENT)
        };
        for (at, rows) in looks() {
            let waiting = rows.iter().filter(|r| r.sent_again > 0);
            for row in waiting.filter(|r| beyond(r.source, r.destination)) {
                let place = stuck.entry(row.destination).or_default();
                place.stuck = place.stuck.max(row.sent_again);
                place.since.get_or_insert(at);
                place.until = Some(at);
            }
        }
        stuck.retain(|_, place| place.until.is_some_and(|until| now.since(until) <= LATELY));
        for (at, rows) in looks() {
            for row in rows {
                let Some(place) = stuck.get_mut(&row.destination) else {
                    continue;
                };
                if place.since.is_some_and(|since| at >= since) {
                    place.heard |= row.heard > 0;
                    place.unacknowledged = row.unacknowledged > 0 && row.heard == 0;
                }
            }
        }
        let Some(first) = stuck.values().filter_map(|p| p.since).min() else {
            return Self::default();
        };
        let first = counted_from(input, first);
        let mut well: BTreeMap<SocketAddr, u64> = BTreeMap::new();
        for (key, history) in keys(input) {
            if key.proto != Proto::Tcp || !beyond(key.source, key.destination) {
                continue;
            }
            match stuck.get_mut(&key.destination) {
                Some(place) => place.add(input, &key, history, now),
                None => *well.entry(key.destination).or_default() += admitted(input, &key, history, first).0,
            }
        }
        Self {
            stuck,
            well: well.values().filter(|n| **n > 0).count(),
        }
    }
}

impl Place {
    fn add(&mut self, input: &Input<'_>, key: &Key, history: Option<&History>, now: Timestamp) {
        let Some(since) = self.since.map(|since| counted_from(input, since)) else {
            return;
        };
        let (admitted, kept) = admitted(input, key, history, since);
        self.admitted += admitted;
        self.kept = match (self.kept, kept) {
            (before, Some(kept)) => Some(before.unwrap_or(0) + kept),
            (before, None) => before,
        };
        let tried = input.world.connects.after(key, since).map(|a| a.attempts);
        if let Some(tried) = tried {
            self.attempts = Some(self.attempts.unwrap_or(0) + tried);
        }
        let newest = history.and_then(History::newest).filter(|s| s.at == now);
        self.waiting += newest.map_or(0, |s| s.syn_sent);
        self.established += newest.map_or(0, |s| s.established);
        let then = history.and_then(|h| h.samples().rfind(|s| s.at <= since).or(h.samples().next()));
        let count = |n: Option<u32>| i64::from(n.unwrap_or(0));
        self.grown += count(newest.map(|s| s.established)) - count(then.map(|s| s.established));
    }
}

/// From when on new connections count: where the kernel counts them, it may have begun a moment later than looking did.
fn counted_from(input: &Input<'_>, since: Timestamp) -> Timestamp {
    let counting = input.world.connects.newest().map(|(_, tally)| tally.since);
    counting.map_or(since, |counting| since.max(counting))
}

/// Every (source, destination) that a look showed or that connects were counted of.
fn keys<'a>(input: &Input<'a>) -> impl Iterator<Item = (Key, Option<&'a History>)> {
    let world = input.world;
    let shown = world.sockets.destinations().map(|(key, h)| (*key, Some(h)));
    let counted = world
        .connects
        .keys()
        .filter(|key| world.sockets.get(key).is_none());
    shown.chain(counted.map(|key| (key, None)))
}

/// New connections that got through after `since`, and how many of these are still open. Counted in the kernel where that can
/// be; else what ESTABLISHED grew by between looks, and then the latter is not known.
fn admitted(input: &Input<'_>, key: &Key, history: Option<&History>, since: Timestamp) -> (u64, Option<u64>) {
    if let Some(after) = input.world.connects.after(key, since) {
        return (
            after.established,
            Some(after.established.saturating_sub(after.closed)),
        );
    }
    let Some(history) = history else { return (0, None) };
    let (mut sum, mut before) = (0_u64, None);
    for sample in history.samples() {
        if let Some(before) = before.filter(|_| sample.at > since) {
            sum += u64::from(sample.established.saturating_sub(before));
        }
        before = Some(sample.established);
    }
    (sum, None)
}

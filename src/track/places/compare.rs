//! From two logs to what lies between their places.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use hashbrown::HashMap;

use super::clocks::{Clocks, difference};
use super::link::{Link, MAPPINGS_KEPT, Mapping, Passage, Size};
use super::log::{PlaceLog, Sample, Sighting, StreamLog, mask};
use crate::observation::packet::Direction as Passing;
use crate::time::{Span, Timestamp};
use crate::types::SessionIndex;

/// Data that two logs must have in common to count as the same: less may be chance.
const ENOUGH: u64 = 4;
/// Octets of a data message around the inner packet.
const OVERHEAD: u32 = 32;
/// How long a message may be under way between the places: one that leaves so soon before a capture's end may come after
/// it.
const UNDER_WAY: Span = Span::from_secs(1);
/// Files of one tap may differ by the resolution of their times: a microsecond.
const ONE_TAP_NANOS: u64 = 2_000;
/// Links that are kept; further ones are left out and counted.
const LINKS_KEPT: usize = 1024;

/// Two addresses in one order.
type Pair = (SocketAddr, SocketAddr);

fn pair(a: SocketAddr, b: SocketAddr) -> Pair {
    if a <= b { (a, b) } else { (b, a) }
}

/// What two places have in common, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// By how much the clocks differ.
    pub clocks: Clocks,
    /// The links, those with the most messages first.
    pub links: Vec<Link>,
    /// Links that did not fit.
    pub links_left_out: u64,
    /// Messages that both places saw.
    pub common: u64,
    /// Of these, those that passed both at one moment and between the same addresses, as when one tap was written twice.
    pub at_once: u64,
    /// Of each session's data one message in so many was compared.
    pub one_in: u64,
}

/// A message as both places saw it, or one of them.
#[derive(Clone, Copy)]
struct Seen {
    kind: Kind,
    first: Option<Sighting>,
    second: Option<Sighting>,
    len: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Initiation,
    Response,
    Data,
}

impl Comparison {
    /// Of two places.
    pub fn of(first: &PlaceLog, second: &PlaceLog) -> Self {
        let seen = messages(first, second);
        let groups = groups(&seen);
        let mut clocks = Clocks::default();
        let oriented: Vec<(Vec<Seen>, Option<SocketAddr>)> = groups
            .into_iter()
            .map(|group| {
                let near = nearer_to_first(&group);
                (group, near)
            })
            .collect();
        for (group, near) in &oriented {
            let Some(near) = near else { continue };
            for s in group {
                if let (Some(a), Some(b)) = (s.first, s.second) {
                    clocks.note(a.at, b.at, a.source == *near);
                }
            }
        }
        let places = Places {
            clocks,
            first: first.span,
            second: second.span,
        };
        let mut links: Vec<Link> = oriented
            .iter()
            .filter_map(|(group, near)| places.link(group, *near))
            .collect();
        let messages = |l: &Link| l.onward.sent() + l.back.sent() + l.onward.after_end + l.back.after_end;
        links.sort_by_key(|l| (std::cmp::Reverse(messages(l)), l.ends));
        let links_left_out = links.len().saturating_sub(LINKS_KEPT) as u64;
        links.truncate(LINKS_KEPT);
        Self {
            clocks,
            common: links.iter().map(|l| l.common).sum(),
            at_once: seen.iter().filter(|s| is_at_once(s)).count() as u64,
            links,
            links_left_out,
            one_in: mask(first.power.max(second.power)) + 1,
        }
    }

    /// Whether the same messages passed both places, one after the other, so that they are two.
    pub fn is_of_two_places(&self) -> bool {
        self.common > self.at_once
    }
}

/// Whether one tap may have seen both: no way between two places is that short.
fn is_at_once(s: &Seen) -> bool {
    let (Some(a), Some(b)) = (s.first, s.second) else {
        return false;
    };
    let same = (a.source, a.destination) == (b.source, b.destination);
    same && difference(a.at, b.at).unsigned_abs() < ONE_TAP_NANOS
}

/// Every message that can be compared, once. Data counts only where the two places share enough of its session, or a
/// handshake vouches for it.
fn messages(first: &PlaceLog, second: &PlaceLog) -> Vec<Seen> {
    let mut seen = Vec::new();
    join(
        &first.initiations,
        &second.initiations,
        Kind::Initiation,
        &mut seen,
    );
    join(&first.responses, &second.responses, Kind::Response, &mut seen);
    // By an index of a handshake, the addresses of its session's data.
    let vouched: BTreeSet<u32> = first
        .responses
        .keys()
        .chain(second.responses.keys())
        .flat_map(|(SessionIndex(a), SessionIndex(b))| [*a, *b])
        .collect();
    let mask = mask(first.power.max(second.power));
    let indices: BTreeSet<u32> = first
        .streams
        .keys()
        .chain(second.streams.keys())
        .copied()
        .collect();
    for index in indices {
        let none = StreamLog::default();
        let (a, b) = (
            first.streams.get(&index).unwrap_or(&none),
            second.streams.get(&index).unwrap_or(&none),
        );
        let joined = join_data(a, b, mask);
        let common = joined
            .iter()
            .filter(|s| s.first.is_some() && s.second.is_some())
            .count() as u64;
        if common >= ENOUGH || vouched.contains(&index) {
            seen.extend(joined);
        }
    }
    seen
}

fn join<K: std::hash::Hash + Eq + Ord + Copy>(
    first: &HashMap<K, Sighting>,
    second: &HashMap<K, Sighting>,
    kind: Kind,
    into: &mut Vec<Seen>,
) {
    let keys: BTreeSet<K> = first.keys().chain(second.keys()).copied().collect();
    into.extend(keys.into_iter().map(|key| Seen {
        kind,
        first: first.get(&key).copied(),
        second: second.get(&key).copied(),
        len: 0,
    }));
}

fn join_data(first: &StreamLog, second: &StreamLog, mask: u64) -> Vec<Seen> {
    let by_counter = |stream: &StreamLog| -> BTreeMap<u64, Sample> {
        let mut samples = BTreeMap::new();
        for sample in stream.samples.iter().filter(|s| s.counter & mask == 0) {
            // Of one message on several interfaces the first sighting.
            samples.entry(sample.counter).or_insert(*sample);
        }
        samples
    };
    let (a, b) = (by_counter(first), by_counter(second));
    let counters: BTreeSet<u64> = a.keys().chain(b.keys()).copied().collect();
    counters
        .into_iter()
        .map(|counter| {
            let (at_first, at_second) = (a.get(&counter), b.get(&counter));
            Seen {
                kind: Kind::Data,
                first: at_first.and_then(|s| first.sighting(s)),
                second: at_second.and_then(|s| second.sighting(s)),
                len: u32::from(at_first.or(at_second).map_or(0, |s| s.len)),
            }
        })
        .collect()
}

impl StreamLog {
    /// Where a sample passed: by the way that was in use at its time.
    fn sighting(&self, sample: &Sample) -> Option<Sighting> {
        let way = self
            .ways
            .iter()
            .rev()
            .find(|w| w.first_at <= sample.at && sample.at <= w.last_at)
            .or(self.ways.first())?;
        Some(Sighting {
            at: sample.at,
            source: way.source,
            destination: way.destination,
            direction: way.direction,
        })
    }
}

/// Messages by the two parties that they are of: by the addresses at the first place; those that only the second saw, by
/// what messages that both saw say of its addresses.
fn groups(seen: &[Seen]) -> Vec<Vec<Seen>> {
    let mut as_first: HashMap<Pair, Pair> = HashMap::new();
    for s in seen {
        if let (Some(a), Some(b)) = (s.first, s.second) {
            as_first.insert(pair(b.source, b.destination), pair(a.source, a.destination));
        }
    }
    let mut groups: BTreeMap<Pair, Vec<Seen>> = BTreeMap::new();
    for s in seen {
        let at_first = s.first.map(|a| pair(a.source, a.destination));
        let at_second = s.second.map(|b| pair(b.source, b.destination));
        let key = at_first.or_else(|| at_second.map(|b| as_first.get(&b).copied().unwrap_or(b)));
        if let Some(key) = key {
            groups.entry(key).or_default().push(*s);
        }
    }
    groups.into_values().collect()
}

/// The party, by its address at the first place, that is on the first place's side.
fn nearer_to_first(group: &[Seen]) -> Option<SocketAddr> {
    // What leaves a host is from there.
    let leaves = group
        .iter()
        .filter_map(|s| s.first)
        .find(|a| a.direction == Passing::Out);
    let comes = group
        .iter()
        .filter_map(|s| s.first)
        .find(|a| a.direction == Passing::In);
    match (leaves, comes) {
        (Some(a), None) => return Some(a.source),
        (None, Some(a)) => return Some(a.destination),
        (Some(a), Some(c)) if a.source == c.destination => return Some(a.source),
        // A host that forwards sees everything both ways.
        _ => {}
    }
    by_timing(group).or_else(|| by_losses(group))
}

/// A message onward shows its delay and the clocks' difference, one back the difference less its delay: onward ones show
/// more.
fn by_timing(group: &[Seen]) -> Option<SocketAddr> {
    let mut shown: BTreeMap<SocketAddr, Vec<i64>> = BTreeMap::new();
    for s in group {
        if let (Some(a), Some(b)) = (s.first, s.second) {
            shown.entry(a.source).or_default().push(difference(a.at, b.at));
        }
    }
    let mut medians: Vec<(i64, SocketAddr)> = shown
        .into_iter()
        .filter_map(|(source, mut seen)| {
            seen.sort_unstable();
            Some((*seen.get(seen.len() / 2)?, source))
        })
        .collect();
    medians.sort_unstable();
    match medians.as_slice() {
        [(less, _), (more, source)] if more > less => Some(*source),
        _ => None,
    }
}

/// What is lost was seen where it came from only.
fn by_losses(group: &[Seen]) -> Option<SocketAddr> {
    let only_first: BTreeSet<SocketAddr> = group
        .iter()
        .filter(|s| s.second.is_none())
        .filter_map(|s| Some(s.first?.source))
        .collect();
    match only_first.len() {
        1 => only_first.first().copied(),
        _ => None,
    }
}

struct Places {
    clocks: Clocks,
    first: Option<(Timestamp, Timestamp)>,
    second: Option<(Timestamp, Timestamp)>,
}

/// Whether a place was captured at a moment.
#[derive(PartialEq, Eq)]
enum Cover {
    Yes,
    /// Before its first packet: perhaps not.
    Before,
    /// After its last packet: perhaps not.
    After,
}

fn cover(span: Option<(Timestamp, Timestamp)>, at: Timestamp) -> Cover {
    match span {
        None => Cover::After,
        Some((first, _)) if at < first => Cover::Before,
        Some((_, last)) if at + UNDER_WAY > last => Cover::After,
        Some(_) => Cover::Yes,
    }
}

impl Places {
    fn link(&self, group: &[Seen], near: Option<SocketAddr>) -> Option<Link> {
        let known = group.iter().find_map(|s| s.first);
        let other = group.iter().rev().find_map(|s| s.second);
        let a = known.or(other)?;
        let near = near.unwrap_or(a.source);
        let far = if near == a.source { a.destination } else { a.source };
        let mut link = Link {
            ends: [near, far],
            ends_at_second: None,
            oriented: nearer_to_first(group).is_some(),
            onward: Passage::default(),
            back: Passage::default(),
            mappings: Vec::new(),
            mappings_left_out: 0,
            common: 0,
        };
        let mut ordered: Vec<&Seen> = group.iter().collect();
        ordered.sort_by_key(|s| self.first_time(s));
        let far_as_second = self.map(&ordered, near, &mut link);
        let mut sizes = [Sizes::default(), Sizes::default()];
        for s in ordered {
            let onward = match (s.first, s.second) {
                (Some(a), _) => a.source == near,
                (None, Some(b)) => Some(b.source) != far_as_second && b.source != far,
                (None, None) => continue,
            };
            self.count(s, onward, &mut link, &mut sizes);
        }
        let [onward, back] = sizes;
        link.onward.size = onward.told();
        link.back.size = back.told();
        Some(link)
    }

    /// When a message passed, by the first place's clock.
    fn first_time(&self, s: &Seen) -> Timestamp {
        match (s.first, s.second) {
            (Some(a), _) => a.at,
            (None, Some(b)) => self.clocks.to_first(b.at),
            (None, None) => Timestamp::EPOCH,
        }
    }

    /// Notes which address at the first place is which at the second. Gives the far party's at the second.
    fn map(&self, ordered: &[&Seen], near: SocketAddr, link: &mut Link) -> Option<SocketAddr> {
        let mut newest: BTreeMap<SocketAddr, (SocketAddr, Timestamp)> = BTreeMap::new();
        let mut far_as_second = None;
        for s in ordered {
            let (Some(a), Some(b)) = (s.first, s.second) else {
                // What was sent and lost keeps a translation alive all the same.
                if let Some(a) = s.first
                    && let Some((_, last)) = newest.get_mut(&a.source)
                {
                    *last = a.at;
                }
                continue;
            };
            link.common += 1;
            for (first, second, is_source) in
                [(a.source, b.source, true), (a.destination, b.destination, false)]
            {
                let known = newest.get(&first).copied();
                if known.map(|(known, _)| known) != Some(second) {
                    let mapping = Mapping {
                        first,
                        second,
                        from: a.at,
                        silence: known.map(|(_, last)| a.at - last),
                    };
                    if link.mappings.len() < MAPPINGS_KEPT {
                        link.mappings.push(mapping);
                    } else {
                        link.mappings_left_out += 1;
                    }
                }
                // A silence is the party's own: what comes for it is no packet of its.
                let last = match known {
                    Some((_, last)) if !is_source => last,
                    _ => a.at,
                };
                newest.insert(first, (second, last));
                if first != near {
                    far_as_second = Some(second);
                }
            }
            let ends = if a.source == near {
                [b.source, b.destination]
            } else {
                [b.destination, b.source]
            };
            link.ends_at_second = Some(ends);
        }
        far_as_second
    }

    fn count(&self, s: &Seen, onward: bool, link: &mut Link, [to, from]: &mut [Sizes; 2]) {
        let (passage, sizes) = match onward {
            true => (&mut link.onward, to),
            false => (&mut link.back, from),
        };
        // The place that a message comes to must have been captured when it came; the one that it comes from has it.
        let (sent, arrived) = if onward {
            (s.first, s.second)
        } else {
            (s.second, s.first)
        };
        let Some(sent) = sent else {
            // Seen at the far place only: the near one was not captured yet, lost it itself, or it took another way.
            return;
        };
        let (there, at) = match onward {
            true => (self.second, self.clocks.to_second(sent.at)),
            false => (self.first, self.clocks.to_first(sent.at)),
        };
        let is_there = arrived.is_some();
        let at_first = self.first_time(s);
        if !is_there {
            match cover(there, at) {
                Cover::Before => return,
                Cover::After => {
                    passage.after_end += 1;
                    return;
                }
                Cover::Yes => passage.note_loss(at_first),
            }
        } else {
            passage.arrived_until = passage.arrived_until.max(Some(at_first));
        }
        let (all, arrived) = match s.kind {
            Kind::Initiation => (&mut passage.initiations, &mut passage.initiations_arrived),
            Kind::Response => (&mut passage.responses, &mut passage.responses_arrived),
            Kind::Data => (&mut passage.data, &mut passage.data_arrived),
        };
        *all += 1;
        *arrived += u64::from(is_there);
        if s.kind == Kind::Data {
            sizes.note(s.len.saturating_sub(OVERHEAD), is_there);
        }
    }
}

/// How many of each inner size arrived and were lost.
#[derive(Default)]
struct Sizes(BTreeMap<u32, [u64; 2]>);

impl Sizes {
    fn note(&mut self, inner: u32, arrived: bool) {
        // Lengths of a datagram: at most 65,536 different ones.
        let [yes, no] = self.0.entry(inner).or_default();
        *(if arrived { yes } else { no }) += 1;
    }

    fn told(&self) -> Option<Size> {
        let largest_arrived = self
            .0
            .iter()
            .rev()
            .find(|(_, [yes, _])| *yes > 0)
            .map(|(size, _)| *size)?;
        let lost = || self.0.iter().filter(|(_, [_, no])| *no > 0);
        Some(Size {
            largest_arrived,
            smallest_lost: lost().next().map(|(size, _)| *size)?,
            largest_lost: lost().next_back().map(|(size, _)| *size)?,
            lost_above: lost()
                .filter(|(size, _)| **size > largest_arrived)
                .map(|(_, [_, no])| no)
                .sum(),
            arrived: self.0.values().map(|[yes, _]| yes).sum(),
        })
    }
}

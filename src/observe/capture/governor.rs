//! A bound on what a flood of initiations costs: so many a second are shown one by one, the rest is counted.
//!
//! In: initiations that the tap handed out, each for as many as it stands for ([`super::share`]). Out: whether one is to be
//! shown, and once a second how many were not. Asked before anything of a message is copied. Responses, cookie replies and
//! errors never come here: they answer this host's own attempts, on which verdicts hang.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::decode::Id;
use crate::observation::packet::{Direction, InitiationTally};
use crate::time::{Span, Timestamp};
use crate::types::IfIndex;

/// Initiations a second that come in and are shown: a hub whose 1,000 peers all come back within seconds stays below.
pub const IN_A_SECOND: u32 = 1_000;
/// The same of a sample: enough to tell who sends the most, and as many as are ever tried with keys.
pub const SAMPLED_A_SECOND: u32 = 200;
/// Initiations a second that leave and are shown: a hub calls each of 10,000 peers at most every five seconds.
pub const OUT_A_SECOND: u32 = 4_000;
/// Destinations that are counted apart; what goes to further ones is counted with the first.
const DESTINATIONS: usize = 64;

/// An initiation, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Initiation {
    /// When it passed.
    pub at: Timestamp,
    /// Which way.
    pub direction: Direction,
    /// On which interface.
    pub if_index: Option<IfIndex>,
    /// To whom.
    pub destination: SocketAddr,
    /// Which one it is; `None` where it is cut.
    pub id: Option<Id>,
    /// It was taken at random as one in so many, a power of two.
    pub one_in: u32,
}

/// What is not shown of one destination.
#[derive(Clone, Copy, Debug)]
struct Counted {
    count: u64,
    one_in: u32,
    variance: u64,
}

/// The state of one second.
#[derive(Debug, Default)]
pub struct Governor {
    second: i64,
    shown_in: u32,
    shown_out: u32,
    /// What came in and was shown, this second and the one before.
    came_in: [HashSet<Id>; 2],
    counted: HashMap<(Option<IfIndex>, SocketAddr), Counted>,
}

impl Governor {
    /// Whether an initiation is to be shown. What is not is counted, and so are those for which it stands.
    pub fn admits(&mut self, seen: &Initiation) -> bool {
        self.turn_to(seen.at);
        let (shown, limit) = match seen.direction {
            Direction::Out => (&mut self.shown_out, OUT_A_SECOND),
            _ if seen.one_in > 1 => (&mut self.shown_in, SAMPLED_A_SECOND),
            _ => (&mut self.shown_in, IN_A_SECOND),
        };
        let admitted = *shown < limit;
        *shown += u32::from(admitted);
        if seen.direction == Direction::Out {
            return admitted || self.goes_on(seen);
        }
        self.count(seen, admitted);
        if admitted {
            let [now, _] = &mut self.came_in;
            now.extend(seen.id);
        }
        admitted
    }

    /// Whether what leaves is what was shown as it came in: where this host forwards a flood, one of which it is not shown
    /// that it went on would look dropped here. Each is shown once more so.
    fn goes_on(&mut self, seen: &Initiation) -> bool {
        seen.id
            .is_some_and(|id| self.came_in.iter_mut().any(|ids| ids.remove(&id)))
    }

    fn count(&mut self, seen: &Initiation, is_shown: bool) {
        let n = u64::from(seen.one_in.max(1));
        let count = n - u64::from(is_shown);
        if count == 0 {
            return;
        }
        let key = (seen.if_index, seen.destination);
        let has_room = self.counted.len() < DESTINATIONS || self.counted.contains_key(&key);
        let key = match (has_room, self.counted.keys().next()) {
            (false, Some(first)) => *first,
            _ => key,
        };
        let counted = self.counted.entry(key).or_insert(Counted {
            count: 0,
            one_in: 1,
            variance: 0,
        });
        counted.count += count;
        counted.one_in = counted.one_in.max(seen.one_in);
        counted.variance += n * (n - 1);
    }

    /// What was counted and not shown, once its second is over, and that second's last moment.
    pub fn flush(
        &mut self,
        now: Timestamp,
    ) -> Option<(Timestamp, impl Iterator<Item = InitiationTally> + use<>)> {
        if self.counted.is_empty() || second(now) == self.second {
            return None;
        }
        let began = Timestamp::from_nanos(self.second.saturating_mul(A_SECOND));
        let end = began + Span::from_nanos(A_SECOND.unsigned_abs() - 1);
        Some((end, self.so_far()))
    }

    /// What was counted and not shown of the second that is not over: for who does not wait for its end.
    pub fn so_far(&mut self) -> impl Iterator<Item = InitiationTally> + use<> {
        let counted = std::mem::take(&mut self.counted);
        counted
            .into_iter()
            .map(|((if_index, destination), counted)| InitiationTally {
                if_index,
                destination,
                count: counted.count,
                one_in: counted.one_in,
                variance: counted.variance,
            })
    }

    fn turn_to(&mut self, at: Timestamp) {
        let now = second(at);
        if now != self.second {
            (self.second, self.shown_in, self.shown_out) = (now, 0, 0);
            // Each holds no more than are shown in a second.
            self.came_in.swap(0, 1);
            self.came_in[0].clear();
        }
    }
}

/// Nanoseconds.
const A_SECOND: i64 = 1_000_000_000;

fn second(at: Timestamp) -> i64 {
    at.as_nanos().div_euclid(A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SessionIndex;

    fn initiation(direction: Direction, port: u16, one_in: u32) -> Initiation {
        Initiation {
            at: Timestamp::from_secs(100),
            direction,
            if_index: Some(IfIndex(2)),
            destination: ([192, 0, 2, 2], port).into(),
            id: Some((SessionIndex(7), [7; 16])),
            one_in,
        }
    }

    fn tallies(governor: &mut Governor, now: Timestamp) -> (Timestamp, Vec<InitiationTally>) {
        let (at, tallies) = governor.flush(now).unwrap();
        (at, tallies.collect())
    }

    #[test]
    fn a_flood_is_counted_and_what_leaves_is_shown() {
        let mut governor = Governor::default();
        let incoming = initiation(Direction::In, 51820, 1);
        let at = incoming.at;
        let shown = (0..5_000).filter(|_| governor.admits(&incoming)).count();
        assert_eq!(shown, IN_A_SECOND as usize);
        assert!(governor.admits(&initiation(Direction::Out, 51820, 1)));
        // More destinations than are counted apart are all counted.
        for port in 0..1_000 {
            assert!(!governor.admits(&initiation(Direction::In, port, 1)));
        }
        assert!(governor.flush(at).is_none(), "its second is not over");
        let later = at + Span::from_secs(3);
        let (told_at, tallies) = tallies(&mut governor, later);
        // It belongs to the second in which it came.
        assert_eq!(told_at, at + Span::from_nanos(999_999_999));
        assert!(tallies.len() <= DESTINATIONS);
        assert_eq!(tallies.iter().map(|t| t.count).sum::<u64>(), 5_000);
        assert!(tallies.iter().all(|t| (t.one_in, t.variance) == (1, 0)));
        assert!(governor.admits(&Initiation {
            at: later,
            ..incoming
        }));
    }

    #[test]
    fn who_cannot_wait_is_told_what_was_counted_so_far_and_once() {
        let mut governor = Governor::default();
        let incoming = initiation(Direction::In, 51820, 1);
        let mut shown = (0..4_000).filter(|_| governor.admits(&incoming)).count() as u64;
        let so_far: u64 = governor.so_far().map(|tally| tally.count).sum();
        assert_eq!(shown + so_far, 4_000);
        shown += (0..500).filter(|_| governor.admits(&incoming)).count() as u64;
        let (_, rest) = tallies(&mut governor, incoming.at + Span::from_secs(1));
        let rest: u64 = rest.iter().map(|tally| tally.count).sum();
        assert_eq!(shown + so_far + rest, 4_500);
    }

    #[test]
    fn what_is_shown_as_it_comes_in_is_shown_as_it_goes_on() {
        let mut governor = Governor::default();
        let one = |direction, index: u32, one_in| Initiation {
            id: Some((SessionIndex(index), [1; 16])),
            ..initiation(direction, 51820, one_in)
        };
        // Strangers' that leave fill the second.
        for n in 0..OUT_A_SECOND {
            assert!(governor.admits(&one(Direction::Out, n, 1)));
        }
        for n in 10_000..10_000 + SAMPLED_A_SECOND {
            assert!(!governor.admits(&one(Direction::Out, n, 1)), "not seen coming in");
            assert!(governor.admits(&one(Direction::In, n, 64)));
        }
        assert!(!governor.admits(&one(Direction::In, 20_000, 64)));
        assert!(!governor.admits(&one(Direction::Out, 20_000, 1)));
        for n in 10_000..10_000 + SAMPLED_A_SECOND {
            assert!(governor.admits(&one(Direction::Out, n, 1)));
            assert!(!governor.admits(&one(Direction::Out, n, 1)), "once");
        }
        // Over the second's end too, and then no longer.
        assert!(governor.admits(&Initiation {
            at: Timestamp::from_secs(101),
            ..one(Direction::In, 5, 1)
        }));
        let out = |at, index| Initiation {
            at: Timestamp::from_secs(at),
            ..one(Direction::Out, index, 1)
        };
        for n in 0..OUT_A_SECOND {
            assert!(governor.admits(&out(102, n + 30_000)));
        }
        assert!(governor.admits(&out(102, 5)));
        assert!(!governor.admits(&out(102, 5)));
        assert!(governor.came_in.iter().map(HashSet::len).sum::<usize>() <= 2 * IN_A_SECOND as usize);
    }

    #[test]
    fn each_of_a_sample_counts_for_those_it_stands_for() {
        let mut governor = Governor::default();
        let shown = |governor: &mut Governor, times, one_in| {
            let one = initiation(Direction::In, 51820, one_in);
            (0..times).filter(|_| governor.admits(&one)).count() as u64
        };
        let mut seen = shown(&mut governor, 50, 1);
        assert_eq!(seen, 50);
        seen += shown(&mut governor, 1_000, 64);
        assert_eq!(seen, u64::from(SAMPLED_A_SECOND));
        seen += shown(&mut governor, 10, 4);
        let (_, tallies) = tallies(&mut governor, Timestamp::from_secs(101));
        let [tally] = tallies.as_slice() else {
            panic!("{tallies:?}")
        };
        assert_eq!(tally.count + seen, 50 + 64_000 + 40);
        assert_eq!((tally.one_in, tally.variance), (64, 1_000 * 64 * 63 + 10 * 4 * 3));
    }
}

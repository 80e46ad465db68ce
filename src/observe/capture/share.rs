//! How large a share of incoming initiations the kernel hands out: all of them, and in a flood one in 2^n.
//!
//! In: what was handed out, and when. Out: a new n, and for each packet as one in how many it was taken. Pure. A share is
//! made smaller as soon as a flood shows, in the middle of a second too, and judged anew each second. The estimate that
//! comes of it has a known error: each message taken as one in N adds N × (N - 1) to its variance, so of M messages it is
//! off by sqrt((N - 1) / M) of them (one standard error): 1.1 % for one second of 500,000 and N = 64.

use std::time::Instant;

use super::filter::COARSEST;
use crate::time::Span;

/// Initiations handed out in a second beyond which the share is made smaller. Those to which it is not applied cost each
/// about as much as the kernel's own delivery of a datagram.
const MOST_A_SECOND: f64 = 2_000.0;
/// A new share is chosen so that no more than this many are handed out; half of it at least.
const WANTED_A_SECOND: f64 = 1_000.0;
/// Fewer than this make the share larger. A quarter of what a new share gives at least, so no step undoes another.
const FEW_A_SECOND: f64 = 125.0;
/// A share is judged at the latest after this.
const JUDGED_AFTER: Span = Span::from_secs(1);
/// Before that it is judged as if so much time had passed: 500 at once are a hub that is back, and no flood.
const AT_LEAST: Span = Span::from_millis(250);

/// The share and what came of it.
#[derive(Debug)]
pub struct Share {
    power: u32,
    /// Packets that wait still and passed under the power before, and that one.
    old: (u64, u32),
    since: Instant,
    handed_out: u64,
}

impl Share {
    /// All of them, from `now` on.
    pub fn whole(now: Instant) -> Self {
        Self {
            power: 0,
            old: (0, 0),
            since: now,
            handed_out: 0,
        }
    }

    /// The next packet has come: as one in how many it was taken, were it an incoming initiation.
    pub fn taken(&mut self) -> Taken {
        match self.old {
            (0, _) => Taken {
                one_in: 1 << self.power,
                is_old: false,
            },
            (waiting, power) => {
                self.old.0 = waiting - 1;
                Taken {
                    one_in: 1 << power,
                    is_old: true,
                }
            }
        }
    }

    /// It was an incoming initiation.
    pub fn count(&mut self, taken: Taken) {
        self.handed_out += u64::from(!taken.is_old);
    }

    /// A power that would do better, by what came until `now`.
    pub fn better(&mut self, now: Instant) -> Option<u32> {
        // While some wait of the share before, not all that came under this one has been counted.
        if self.old.0 > 0 {
            return None;
        }
        let time = now.saturating_duration_since(self.since);
        let next = adapted(self.power, self.handed_out, time);
        if next == self.power {
            if time >= JUDGED_AFTER {
                (self.since, self.handed_out) = (now, 0);
            }
            return None;
        }
        Some(next)
    }

    /// From `now` on the filter has `power`; `waiting` packets had passed before.
    pub fn turn_to(&mut self, power: u32, waiting: u64, now: Instant) {
        *self = Self {
            power,
            old: (waiting, self.power),
            since: now,
            handed_out: 0,
        };
    }
}

/// Under which share a packet was taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// One in so many.
    pub one_in: u32,
    is_old: bool,
}

/// The power to go on with, after `handed_out` came in `time`.
#[allow(clippy::cast_precision_loss)] // a rate
fn adapted(power: u32, handed_out: u64, time: Span) -> u32 {
    let rate = handed_out as f64 / time.max(AT_LEAST).as_secs_f64();
    let is_few = time >= JUDGED_AFTER && rate < FEW_A_SECOND;
    if rate <= MOST_A_SECOND && !is_few {
        return power;
    }
    let all = rate * f64::from(1u32 << power);
    (0..COARSEST)
        .find(|power| all / f64::from(1u32 << power) <= WANTED_A_SECOND)
        .unwrap_or(COARSEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn the_share_follows_the_rate() {
        for (power, handed_out, millis, expected) in [
            (0, 2_000, 1_000, 0),
            (0, 2_001, 1_000, 2),
            (0, 100_000, 1_000, 7),
            // At once, and with care: these may be all that come.
            (0, 500, 20, 0),
            (0, 501, 20, 2),
            (0, 2_000, 20, 3),
            (0, 25_000, 250, 7),
            (3, 2_000, 20, 6),
            (7, 782, 1_000, 7),
            (7, 2_000, 1_000, 7),
            (7, 2_001, 1_000, 9),
            (7, 125, 1_000, 7),
            (7, 124, 1_000, 4),
            // The flood is over; but not before a second has passed.
            (7, 7, 1_000, 0),
            (7, 0, 1_000, 0),
            (7, 0, 999, 7),
            (0, 0, 5_000, 0),
            (COARSEST, 1_000_000, 1_000, COARSEST),
        ] {
            let time = Span::from_millis(millis);
            assert_eq!(
                adapted(power, handed_out, time),
                expected,
                "{power} {handed_out} {millis}"
            );
        }
    }

    #[test]
    fn no_step_undoes_another() {
        for rate in (0..24).map(|n| 1u64 << n) {
            let step = |power: u32| adapted(power, rate >> power, Span::from_secs(1));
            // The first may be a large one, by an estimate from few.
            for settled in (0..=COARSEST).map(|power| step(step(power))) {
                assert_eq!(step(settled), settled, "{rate} a second");
            }
        }
    }

    #[test]
    fn a_flood_of_some_seconds() {
        let mut now = clock::instant();
        let mut share = Share::whole(now);
        let (mut told, mut handed_out, mut owed) = (0u64, 0u64, 0u64);
        // Looks 20 ms apart, at 100,000 a second for three seconds, then at none.
        for look in 0..250 {
            let sent = if look < 150 { 2_000 } else { 0 };
            owed += sent;
            let power = share.power;
            for _ in 0..owed >> power {
                let taken = share.taken();
                told += u64::from(taken.one_in);
                share.count(taken);
                handed_out += 1;
            }
            owed -= (owed >> power) << power;
            now += Span::from_millis(20);
            if let Some(power) = share.better(now) {
                share.turn_to(power, 0, now);
            }
        }
        assert_eq!(told + owed, 300_000);
        assert!(handed_out < 10_000, "{handed_out}");
        assert_eq!(share.power, 0, "the flood is over");
    }

    #[test]
    fn what_waits_counts_by_the_share_under_which_it_passed() {
        let now = clock::instant();
        let mut share = Share::whole(now);
        share.turn_to(6, 3, now);
        let later = now + Span::from_secs(2);
        for expected in [1, 1, 1, 64, 64] {
            assert!(expected == 64 || share.better(later).is_none());
            let taken = share.taken();
            assert_eq!(taken.one_in, expected);
            share.count(taken);
        }
        assert_eq!(share.handed_out, 2);
        assert_eq!(share.better(later), Some(0));
    }
}

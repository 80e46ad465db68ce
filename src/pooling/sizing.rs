//! How many connections carry a load, and how many local ports it holds with and without a pool.
//!
//! In: a [`Load`]. Out: a [`Sizing`]. Little's law (Operations Research 9(3), 1961): the connections in use at a time are
//! λ · W, the opens per second times the time that each is held. Bursts are met by square-root staffing: the mean R plus
//! a few √R, the standard deviation of independent arrivals.

use crate::words::whole32;

/// How long a closed connection keeps its port, in seconds (`TCP_TIMEWAIT_LEN`, include/net/tcp.h).
pub const TIME_WAIT_SECONDS: f64 = 60.0;

/// Standard deviations of headroom. With independent arrivals fewer than one moment in a thousand wants more.
const HEADROOM: f64 = 3.5;

/// A pool of one makes every request wait for the slowest.
const LEAST: u32 = 2;

/// What is known of the connections to one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Connections opened per second (λ).
    pub opens_per_second: f64,
    /// Connections open at a time, on average (R).
    pub mean_concurrency: f64,
    /// The most that were seen open at a time.
    pub peak_concurrency: u32,
    /// Processes that share the load; each has a pool of its own.
    pub processes: u32,
    /// This side closes first, so that each connection leaves a TIME_WAIT here.
    pub closes_here: bool,
}

/// The arithmetic, done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizing {
    /// Connections that carry the load, in all.
    pub pool: u32,
    /// The pool of each process: the share of `pool`, rounded up.
    pub per_process: u32,
    /// Ports that the pools hold at most, together.
    pub ports_pooled: u32,
    /// Ports that the load holds in the long run without a pool: λ · (W + 60 s) where this side closes first, else λ · W.
    pub ports_unpooled: u32,
    /// How long one connection is held (W = R / λ, Little's law), in seconds.
    pub lifetime_seconds: f64,
}

/// Sizes a pool for `load`; `None` where the load is nothing, or not a number.
pub fn size(load: &Load) -> Option<Sizing> {
    let Load {
        opens_per_second: rate,
        mean_concurrency: mean,
        ..
    } = *load;
    if !(rate.is_finite() && mean.is_finite() && rate > 0.0 && mean >= 0.0) {
        return None;
    }
    let pool = whole32((mean + HEADROOM * mean.sqrt()).ceil())
        .max(load.peak_concurrency)
        .max(LEAST);
    let processes = load.processes.max(1);
    let per_process = pool.div_ceil(processes);
    let waiting = if load.closes_here {
        rate * TIME_WAIT_SECONDS
    } else {
        0.0
    };
    Some(Sizing {
        pool,
        per_process,
        ports_pooled: per_process.saturating_mul(processes),
        ports_unpooled: whole32((waiting + mean).ceil()),
        lifetime_seconds: mean / rate,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(rate: f64, mean: f64, peak: u32, processes: u32) -> Load {
        Load {
            opens_per_second: rate,
            mean_concurrency: mean,
            peak_concurrency: peak,
            processes,
            closes_here: true,
        }
    }

    #[test]
    fn worked_examples() {
        for (name, load, expected) in [
            // 400 requests a second of 20 ms each: R = 8, √8 · 3.5 = 9.9.
            (
                "400 rps of 20 ms",
                load(400.0, 8.0, 11, 1),
                Some((18, 18, 18, 24_008, 0.02)),
            ),
            (
                "four workers",
                load(400.0, 8.0, 11, 4),
                Some((18, 5, 20, 24_008, 0.02)),
            ),
            (
                "a peak above the staffing",
                load(400.0, 8.0, 30, 1),
                Some((30, 30, 30, 24_008, 0.02)),
            ),
            (
                "too short to be seen open",
                load(50.0, 0.0, 0, 1),
                Some((2, 2, 2, 3000, 0.0)),
            ),
            ("nothing", load(0.0, 8.0, 8, 1), None),
            ("nonsense", load(f64::NAN, 8.0, 8, 1), None),
            ("more nonsense", load(1.0, f64::INFINITY, 8, 1), None),
        ] {
            let got = size(&load).map(|s| {
                (
                    s.pool,
                    s.per_process,
                    s.ports_pooled,
                    s.ports_unpooled,
                    s.lifetime_seconds,
                )
            });
            assert_eq!(got, expected, "{name}");
        }
        let theirs = Load {
            closes_here: false,
            ..load(400.0, 8.0, 8, 1)
        };
        assert_eq!(size(&theirs).map(|s| s.ports_unpooled), Some(8));
    }

    proptest! {
        #[test]
        fn never_panics_and_is_always_a_number(
            rate in proptest::num::f64::ANY, mean in proptest::num::f64::ANY,
            peak in any::<u32>(), processes in any::<u32>(), closes_here in any::<bool>(),
        ) {
            let load = Load { closes_here, ..load(rate, mean, peak, processes) };
            if let Some(s) = size(&load) {
                prop_assert!(s.lifetime_seconds >= 0.0);
                prop_assert!(s.pool >= 2 && s.per_process >= 1);
                prop_assert!(s.ports_pooled >= s.pool.min(s.per_process));
            }
        }

        #[test]
        fn more_load_never_needs_less(
            rate in 0.1..1e6_f64, mean in 0.0..1e6_f64, more in 0.0..1e6_f64,
            peak in 0..1_000_000_u32, processes in 1..64_u32,
        ) {
            let base = size(&load(rate, mean, peak, processes)).unwrap();
            let wider = size(&load(rate, mean + more, peak, processes)).unwrap();
            let faster = size(&load(rate + more, mean, peak, processes)).unwrap();
            prop_assert!(wider.pool >= base.pool && wider.per_process >= base.per_process);
            prop_assert!(wider.ports_unpooled >= base.ports_unpooled);
            prop_assert!(faster.pool == base.pool && faster.ports_unpooled >= base.ports_unpooled);
            prop_assert!(base.ports_pooled >= base.pool);
            prop_assert!(f64::from(base.pool) >= mean && base.pool >= peak);
        }
    }
}

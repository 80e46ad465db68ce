//! How many connections carry a load, and how many local ports it holds with and without a pool.
//!
//! In: a [`Load`]. Out: a [`Sizing`]. Little's law (Operations Research 9(3), 1961): the connections in use at a time are
//! λ · W, the opens per second times the time that each is held. It holds for averages and says nothing of bursts. Where the
//! most that were held at a time was counted, that and a tenth is the pool. Where connections were only looked at now and
//! then, bursts in between are met by square-root staffing: the mean R plus a few √R, the standard deviation of independent
//! arrivals. Pools of several processes cannot lend each other connections: each is sized for its share, and they add up.

use crate::words::whole32;

/// How long a closed connection keeps its port, in seconds (`TCP_TIMEWAIT_LEN`, include/net/tcp.h).
pub const TIME_WAIT_SECONDS: f64 = 60.0;

/// How long a NAT or firewall keeps a closed connection, in seconds (nf_conntrack_tcp_timeout_time_wait; others are alike).
pub const NAT_TIME_WAIT_SECONDS: f64 = 120.0;

/// Standard deviations of headroom. With independent arrivals fewer than one moment in a thousand wants more.
const HEADROOM: f64 = 3.5;

/// A counted peak is the most of a short while; the most of a day is a little more.
const OVER_PEAK: f64 = 1.1;

/// A pool of one makes every request wait for the slowest.
const LEAST: u32 = 2;

/// Requests that one HTTP/2 connection carries at a time: RFC 9113 (6.5.2) asks servers to allow no fewer.
pub const HTTP2_STREAMS: u32 = 100;

/// What is known of the connections to one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Connections opened per second (λ).
    pub opens_per_second: f64,
    /// Connections open at a time, on average (R).
    pub mean_concurrency: f64,
    /// The most that were seen open at a time.
    pub peak_concurrency: u32,
    /// That is the most that there were, for each open and close was counted.
    pub peak_is_exact: bool,
    /// Processes that share the load; each has a pool of its own.
    pub processes: u32,
    /// This side closes first, so that each connection leaves a TIME_WAIT here.
    pub closes_here: bool,
}

/// The arithmetic, done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizing {
    /// Connections that the pools may open at most, together: `per_process` times the processes.
    pub pool: u32,
    /// The pool of each process.
    pub per_process: u32,
    /// Ports that the pools will hold: as many as are in use at the busiest moment, for they are kept from then on.
    pub ports_pooled: u32,
    /// Ports that the load holds in the long run without a pool: λ · (W + 60 s) where this side closes first, else λ · W.
    pub ports_unpooled: u32,
    /// What it holds in a NAT on the way without a pool: λ · (W + 120 s), whoever closes.
    pub nat_unpooled: u32,
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
    let processes = load.processes.max(1);
    let share = mean / f64::from(processes);
    let peak = load.peak_concurrency.div_ceil(processes);
    // What one process's busiest moment takes, and how many it may have.
    let (busiest, limit) = if load.peak_is_exact && load.peak_concurrency > 0 {
        let busiest = peak.max(whole32(share.ceil()));
        (busiest, whole32((f64::from(busiest) * OVER_PEAK).ceil()))
    } else {
        let staffed = whole32((share + HEADROOM * share.sqrt()).ceil()).max(peak);
        (staffed, staffed)
    };
    let per_process = limit.max(LEAST);
    let waiting = if load.closes_here {
        rate * TIME_WAIT_SECONDS
    } else {
        0.0
    };
    Some(Sizing {
        pool: per_process.saturating_mul(processes),
        per_process,
        ports_pooled: busiest.max(LEAST).saturating_mul(processes),
        ports_unpooled: whole32((waiting + mean).ceil()),
        nat_unpooled: whole32((rate * NAT_TIME_WAIT_SECONDS + mean).ceil()),
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
            peak_is_exact: false,
            processes,
            closes_here: true,
        }
    }

    #[test]
    fn worked_examples() {
        let exact = |rate, mean, peak, processes| Load {
            peak_is_exact: true,
            ..load(rate, mean, peak, processes)
        };
        // (pool, per process, ports with it, ports without)
        for (name, load, expected) in [
            // 400 requests a second of 20 ms each: R = 8, √8 · 3.5 = 9.9.
            (
                "400 rps of 20 ms",
                load(400.0, 8.0, 11, 1),
                Some((18, 18, 18, 24_008)),
            ),
            // Each of four has R = 2 and needs 2 + 3.5 · √2: what is split needs more together.
            ("four workers", load(400.0, 8.0, 11, 4), Some((28, 7, 28, 24_008))),
            (
                "a peak above the staffing",
                load(400.0, 8.0, 30, 1),
                Some((30, 30, 30, 24_008)),
            ),
            (
                "too short to be seen open",
                load(50.0, 0.0, 0, 1),
                Some((2, 2, 2, 3000)),
            ),
            (
                "twelve threads in a loop",
                exact(400.0, 11.5, 12, 1),
                Some((14, 14, 12, 24_012)),
            ),
            (
                "bursts of forty",
                exact(400.0, 8.0, 40, 1),
                Some((44, 44, 40, 24_008)),
            ),
            (
                "one after another",
                exact(400.0, 0.4, 1, 1),
                Some((2, 2, 2, 24_001)),
            ),
            (
                "four workers, counted",
                exact(400.0, 8.0, 14, 4),
                Some((20, 5, 16, 24_008)),
            ),
            (
                "counting that saw no peak",
                exact(400.0, 8.0, 0, 1),
                Some((18, 18, 18, 24_008)),
            ),
            ("nothing", load(0.0, 8.0, 8, 1), None),
            ("nonsense", load(f64::NAN, 8.0, 8, 1), None),
            ("more nonsense", load(1.0, f64::INFINITY, 8, 1), None),
        ] {
            let got = size(&load).map(|s| (s.pool, s.per_process, s.ports_pooled, s.ports_unpooled));
            assert_eq!(got, expected, "{name}");
        }
        let theirs = Load {
            closes_here: false,
            ..load(400.0, 8.0, 8, 1)
        };
        let sized = size(&theirs).unwrap();
        assert_eq!((sized.ports_unpooled, sized.nat_unpooled), (8, 48_008));
        assert_eq!(sized.lifetime_seconds, 0.02);
    }

    proptest! {
        #[test]
        fn never_panics_and_is_always_a_number(
            rate in proptest::num::f64::ANY, mean in proptest::num::f64::ANY,
            peak in any::<u32>(), processes in any::<u32>(), closes_here in any::<bool>(), peak_is_exact in any::<bool>(),
        ) {
            let load = Load { closes_here, peak_is_exact, ..load(rate, mean, peak, processes) };
            if let Some(s) = size(&load) {
                prop_assert!(s.lifetime_seconds >= 0.0);
                prop_assert!(s.pool >= 2 && s.per_process >= 1);
                prop_assert!(s.ports_pooled >= 2 && s.ports_pooled <= s.pool);
            }
        }

        #[test]
        fn more_load_never_needs_less(
            rate in 0.1..1e6_f64, mean in 0.0..1e6_f64, more in 0.0..1e6_f64,
            peak in 0..1_000_000_u32, processes in 1..64_u32, peak_is_exact in any::<bool>(),
        ) {
            let load = |rate, mean| Load { peak_is_exact, ..load(rate, mean, peak, processes) };
            let base = size(&load(rate, mean)).unwrap();
            let wider = size(&load(rate, mean + more)).unwrap();
            let faster = size(&load(rate + more, mean)).unwrap();
            prop_assert!(wider.pool >= base.pool && wider.per_process >= base.per_process);
            prop_assert!(wider.ports_unpooled >= base.ports_unpooled);
            prop_assert!(faster.pool == base.pool && faster.ports_unpooled >= base.ports_unpooled);
            prop_assert!(f64::from(base.pool) >= mean && base.pool >= peak);
            prop_assert!(f64::from(base.ports_pooled) >= mean.floor() && base.ports_pooled >= peak);
        }
    }
}

//! A rate limit per source prefix without a state per client: a fixed table of cells, each shared by whoever hashes to it.
//!
//! In: a source and the time. Out: whether it may be answered. The generic cell rate algorithm (ITU-T I.371) keeps one
//! number a cell, the time at which it is empty again. Where two prefixes share a cell they share its rate; the hash is
//! seeded, so nobody can choose whose.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

/// Cells: 512 KiB. With a thousand prefixes at once, under two in a hundred share theirs.
const CELLS: usize = 65_536;
/// A subscriber's prefix: /24 holds a small office's or a CGN's outside, /56 what a provider gives one customer
/// (RFC 6177).
const PREFIX_V4: u32 = 24;
const PREFIX_V6: u32 = 56;

/// The limit.
#[derive(Debug)]
pub struct Limiter {
    cells: Box<[AtomicU64]>,
    hasher: std::hash::RandomState,
    /// Nanoseconds between two requests at the sustained rate; 0 for no limit.
    interval: u64,
    /// How far ahead of the sustained rate a burst may run, in nanoseconds.
    burst: u64,
}

impl Limiter {
    /// At most `per_second` requests per prefix, with bursts of `burst` requests; 0 per second for no limit.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = 1_000_000_000_u64.checked_div(per_second.into()).unwrap_or(0);
        Self {
            cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(),
            hasher: std::hash::RandomState::new(),
            interval,
            burst: interval.saturating_mul(burst.into()),
        }
    }

    /// Whether a request of `source` at `now` (nanoseconds of any steady clock) may be answered.
    pub fn allows(&self, source: IpAddr, now: u64) -> bool {
        if self.interval == 0 {
            return true;
        }
        let hash = self.hasher.hash_one(prefix(source));
        let place = usize::try_from(hash % CELLS as u64).unwrap_or(0);
        let Some(cell) = self.cells.get(place) else {
            return false;
        };
        cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |empty_at| {
            let empty_at = empty_at.max(now);
            (empty_at - now <= self.burst).then(|| empty_at.saturating_add(self.interval))
        })
        .is_ok()
    }
}

/// The source's prefix as an address.
fn prefix(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << (32 - PREFIX_V4))).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - PREFIX_V6))).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn allowed(limiter: &Limiter, source: &str, now: u64, requests: usize) -> usize {
        let source = source.parse().unwrap();
        (0..requests).filter(|_| limiter.allows(source, now)).count()
    }

    #[test]
    fn a_prefix_has_a_burst_and_a_rate() {
        let limiter = Limiter::new(10, 20);
        assert_eq!(allowed(&limiter, "192.0.2.1", SECOND, 100), 21);
        // A neighbour in the same /24 has the same allowance, another /24 its own.
        assert_eq!(allowed(&limiter, "192.0.2.200", SECOND, 100), 0);
        assert_eq!(allowed(&limiter, "192.0.3.1", SECOND, 100), 21);
        assert_eq!(allowed(&limiter, "192.0.2.1", 2 * SECOND, 100), 10);
        assert_eq!(allowed(&limiter, "192.0.2.1", 100 * SECOND, 100), 21);
    }

    #[test]
    fn ipv6_is_limited_by_customer_and_mapped_addresses_are_ipv4() {
        let limiter = Limiter::new(1, 0);
        assert_eq!(allowed(&limiter, "2001:db8:0:ff00::1", SECOND, 2), 1);
        assert_eq!(allowed(&limiter, "2001:db8:0:ffaa:9::2", SECOND, 2), 0);
        assert_eq!(allowed(&limiter, "192.0.2.1", SECOND, 2), 1);
        assert_eq!(allowed(&limiter, "::ffff:192.0.2.7", SECOND, 2), 0);
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(allowed(&Limiter::new(0, 0), "192.0.2.1", 0, 1000), 1000);
    }
}

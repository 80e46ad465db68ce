//! TAI64N timestamps, as initiations carry them (WireGuard paper, section 5.4.2; D. J. Bernstein's format).
//!
//! In: twelve bytes. Out: an order, and a wall-clock time on one of the two scales that implementations use.

use std::fmt;

use crate::time::Timestamp;

/// 2^62: the label of 1970-01-01 00:00:00 TAI.
const EPOCH: u64 = 0x4000_0000_0000_0000;
/// The kernel and wireguard-go clear the low 24 bits of the nanoseconds, so as not to tell their clock.
const WHITENED: u32 = (1 << 24) - 1;

/// Seconds of TAI and nanoseconds, big-endian: bytes compare as times do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64n(pub [u8; 12]);

/// What an implementation adds to Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// 10 s, the leap seconds of 1972: the kernel (messages.h, noise.c) and wireguard-go (tai64n.go).
    Kernel,
    /// 37 s, the leap seconds since 2017: the tai64 crate, thus boringtun and its kin.
    Rust,
}

impl Scale {
    /// Seconds added to Unix time.
    pub const fn offset(self) -> u64 {
        match self {
            Self::Kernel => 10,
            Self::Rust => 37,
        }
    }
}

impl Tai64n {
    /// Whole seconds since 2^62.
    fn seconds(self) -> Option<u64> {
        let bytes = *self.0.first_chunk::<8>()?;
        u64::from_be_bytes(bytes).checked_sub(EPOCH)
    }

    /// Nanoseconds within the second; a sound stamp has less than 10^9.
    pub fn nanoseconds(self) -> u32 {
        self.0.last_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b))
    }

    /// The scale of whoever made it, by its nanoseconds: the kernel's are whitened, and of others one in 16 million
    /// looks so by chance.
    pub fn likely_scale(self) -> Scale {
        if self.nanoseconds() & WHITENED == 0 {
            Scale::Kernel
        } else {
            Scale::Rust
        }
    }

    /// The wall-clock time, on `scale`; `None` where it is not a sound stamp or lies outside of what [`Timestamp`]
    /// holds. To the nanosecond, or to 16.8 ms where it is whitened.
    pub fn unix(self, scale: Scale) -> Option<Timestamp> {
        let seconds = i64::try_from(self.seconds()?.checked_sub(scale.offset())?).ok()?;
        let nanos = self.nanoseconds();
        let whole = seconds
            .checked_mul(1_000_000_000)?
            .checked_add(i64::from(nanos))?;
        (nanos < 1_000_000_000).then(|| Timestamp::from_nanos(whole))
    }

    /// The stamp of `at` as the kernel and wireguard-go make it: on their scale, whitened, and later than `after`, as a
    /// responder demands. Two within one step of 16.8 ms would be a replay, so the second takes the next step.
    pub fn like_the_kernel(at: Timestamp, after: Option<Self>) -> Self {
        let step = i64::from(WHITENED) + 1;
        let mut stamp = Self::new(at, Scale::Kernel).whitened();
        if let Some(after) = after.filter(|after| stamp <= *after) {
            let last = after.unix(Scale::Kernel).unwrap_or(at);
            let next = Timestamp::from_nanos(last.as_nanos().saturating_add(step));
            stamp = Self::new(next, Scale::Kernel).whitened();
            if stamp <= after {
                // The second's last step was over: a second is no multiple of the step.
                let next = Timestamp::from_nanos(last.as_nanos().saturating_add(2 * step));
                stamp = Self::new(next, Scale::Kernel).whitened();
            }
        }
        stamp
    }

    fn whitened(self) -> Self {
        let mut bytes = self.0;
        if let Some(low) = bytes.last_chunk_mut::<4>() {
            *low = (u32::from_be_bytes(*low) & !WHITENED).to_be_bytes();
        }
        Self(bytes)
    }

    /// The stamp of `at` on `scale`, not whitened. Times before 1970 become 1970.
    pub fn new(at: Timestamp, scale: Scale) -> Self {
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(0);
        let seconds = EPOCH + scale.offset() + nanos / 1_000_000_000;
        let fraction = u32::try_from(nanos % 1_000_000_000).unwrap_or(0);
        let mut bytes = [0; 12];
        let parts = seconds.to_be_bytes().into_iter().chain(fraction.to_be_bytes());
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        Self(bytes)
    }
}

impl fmt::Debug for Tai64n {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("@")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_scales() {
        // 2023-11-14 22:13:20 UTC and 2^24 ns.
        let kernel = Tai64n([0x40, 0, 0, 0, 0x65, 0x53, 0xf1, 0x0a, 1, 0, 0, 0]);
        let at = Timestamp::from_nanos(1_700_000_000_016_777_216);
        assert_eq!(kernel.unix(Scale::Kernel), Some(at));
        assert_eq!(kernel.likely_scale(), Scale::Kernel);
        assert_eq!(Tai64n::new(at, Scale::Kernel), kernel);
        let rust = Tai64n::new(at + std::time::Duration::from_nanos(1), Scale::Rust);
        assert_eq!(rust.likely_scale(), Scale::Rust);
        assert_eq!(rust.0[7], 0x0a + 27);
        assert!(rust > kernel);
    }

    #[test]
    fn stamps_that_are_none() {
        for bytes in [[0; 12], [255; 12]] {
            assert_eq!(Tai64n(bytes).unix(Scale::Kernel), None);
        }
        let mut long_second = Tai64n::new(Timestamp::from_secs(1), Scale::Kernel);
        long_second.0[8..].copy_from_slice(&1_000_000_000u32.to_be_bytes());
        assert_eq!(long_second.unix(Scale::Kernel), None);
        let mut early = Tai64n::new(Timestamp::EPOCH, Scale::Kernel);
        early.0[7] = 9;
        assert_eq!(early.unix(Scale::Kernel), None);
    }

    proptest! {
        #[test]
        fn stamps_like_the_kernels_always_rise(at in 0..4_000_000_000_000_000_000i64, back in 0..2_000_000_000i64) {
            let mut last = None;
            for n in 0..70 {
                let at = Timestamp::from_nanos((at - back * n).max(0));
                let stamp = Tai64n::like_the_kernel(at, last);
                prop_assert!(last.is_none_or(|last| stamp > last));
                prop_assert_eq!(stamp.likely_scale(), Scale::Kernel);
                prop_assert!(stamp.nanoseconds() < 1_000_000_000);
                last = Some(stamp);
            }
        }

        #[test]
        fn round_trips_and_keeps_the_order(a in 0..i64::MAX, b in 0..i64::MAX) {
            let stamp = |n| Tai64n::new(Timestamp::from_nanos(n), Scale::Rust);
            prop_assert_eq!(stamp(a).unix(Scale::Rust), Some(Timestamp::from_nanos(a)));
            prop_assert_eq!(stamp(a).cmp(&stamp(b)), a.cmp(&b));
        }

        #[test]
        fn any_bytes(bytes in any::<[u8; 12]>()) {
            let _ = (Tai64n(bytes).unix(Scale::Kernel), Tai64n(bytes).unix(Scale::Rust));
        }
    }
}

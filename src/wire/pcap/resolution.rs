//! pcapng's timestamps: a count of units that each interface chooses (`if_tsresol`, `if_tsoffset`).

use crate::time::Timestamp;

/// How an interface's timestamps become nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    unit: Unit,
    offset_secs: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// So many nanoseconds.
    Nanos(u64),
    /// So many to a nanosecond.
    PerNano(u64),
    /// Two to this power to a second.
    BinaryPerSecond(u8),
}

impl Default for Resolution {
    /// Microseconds, where the option is absent.
    fn default() -> Self {
        Self {
            unit: Unit::Nanos(1000),
            offset_secs: 0,
        }
    }
}

impl Resolution {
    /// With `if_tsresol`: the lower seven bits are a negative power of ten, or of two where the top bit is set.
    #[must_use]
    pub fn with_exponent(self, exponent: u8) -> Self {
        let power = exponent & 0x7f;
        let unit = match power {
            _ if exponent & 0x80 != 0 => Unit::BinaryPerSecond(power),
            0..=9 => Unit::Nanos(10u64.pow(u32::from(9 - power))),
            // A finer unit than 10^-19 s counts past u64 in less than a second: it can only be nonsense.
            _ => Unit::PerNano(10u64.saturating_pow(u32::from(power - 9))),
        };
        Self { unit, ..self }
    }

    /// With `if_tsoffset`: seconds to add.
    #[must_use]
    pub fn with_offset(self, offset_secs: i64) -> Self {
        Self { offset_secs, ..self }
    }

    /// The time that `count` units stand for; what lies beyond a [`Timestamp`]'s range becomes its end.
    #[inline]
    pub fn timestamp(self, count: u64) -> Timestamp {
        let nanos = match self.unit {
            Unit::Nanos(nanos) => u128::from(count) * u128::from(nanos),
            Unit::PerNano(per_nano) => u128::from(count / per_nano),
            // A count has 64 bits, so a finer unit than 2^-64 s makes less than a second of any.
            Unit::BinaryPerSecond(power) => (u128::from(count) * 1_000_000_000)
                .checked_shr(power.into())
                .unwrap_or(0),
        };
        let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
        Timestamp::from_nanos(nanos.saturating_add(self.offset_secs.saturating_mul(1_000_000_000)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units() {
        let default = Resolution::default();
        for (resolution, count, nanos) in [
            (default, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
            (default.with_exponent(6), 1, 1000),
            (default.with_exponent(9), 5, 5),
            (default.with_exponent(0), 5, 5_000_000_000),
            (default.with_exponent(12), 5999, 5),
            (default.with_exponent(0x80 | 10), 1024 + 512, 1_500_000_000),
            (default.with_exponent(0x80 | 32), 3 << 31, 1_500_000_000),
            (default.with_exponent(0xff), u64::MAX, 0),
            (default.with_exponent(9).with_offset(-3), 3_000_000_001, 1),
            (default.with_exponent(0), u64::MAX, i64::MAX),
        ] {
            assert_eq!(
                resolution.timestamp(count),
                Timestamp::from_nanos(nanos),
                "{resolution:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_never_runs_backwards(exponent: u8, offset: i64, a: u64, b: u64) {
            let resolution = Resolution::default().with_exponent(exponent).with_offset(offset);
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(resolution.timestamp(low) <= resolution.timestamp(high));
        }
    }
}

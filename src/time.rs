//! Wall-clock points and lengths of time, as values.
//!
//! In: nothing reads a clock here; the edge (`observe`, `cmd`) makes a [`Timestamp`] and passes it down.
//! Out: arithmetic and RFC 3339 text. Why an own type: the core must be replayable, so a time is data.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time.
pub type Span = Duration;

/// A point in time: nanoseconds since the Unix epoch (UTC), good until the year 2262.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// From nanoseconds since the Unix epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From whole seconds since the Unix epoch; saturates.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// From seconds and nanoseconds, as `struct timespec` has them; saturates.
    pub const fn from_parts(secs: i64, nanos: u32) -> Self {
        Self(secs.saturating_mul(1_000_000_000).saturating_add(nanos as i64))
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Span {
        Span::from_nanos(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }

    /// The same moment in whole milliseconds, rounded down: what is told to people and programs needs no more digits.
    pub const fn millis(self) -> Self {
        Self(self.0.saturating_sub(self.0.rem_euclid(1_000_000)))
    }

    /// `self` less `span`, saturating.
    pub fn before(self, span: Span) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

fn nanos(span: Span) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

impl Add<Span> for Timestamp {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

impl Sub for Timestamp {
    type Output = Span;
    fn sub(self, earlier: Self) -> Span {
        self.since(earlier)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every i64 of nanoseconds lies inside jiff's range, so this cannot fail.
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{}ns", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed: jiff::Timestamp = text
            .parse()
            .map_err(|e| format!("expected a time as RFC 3339 has it, got {text:?}: {e}"))?;
        i64::try_from(parsed.as_nanosecond())
            .map(Self)
            .map_err(|_| format!("the time {text:?} lies outside the years 1678 to 2262"))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Serde for a [`Span`] as seconds with a fraction, the contract's form.
pub mod span_secs {
    use super::{Deserialize, Deserializer, Serializer, Span, de};

    /// Writes seconds.
    pub fn serialize<S: Serializer>(span: &Span, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(span.as_secs_f64())
    }

    /// Reads seconds; refuses what is negative or not finite.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Span, D::Error> {
        Span::try_from_secs_f64(f64::deserialize(d)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for nanos in [0, 1, 1_700_000_000_123_456_789, -5] {
            let t = Timestamp::from_nanos(nanos);
            assert_eq!(t.to_string().parse::<Timestamp>(), Ok(t));
        }
        assert_eq!(
            Timestamp::from_secs(1_700_000_000).to_string(),
            "2023-11-14T22:13:20Z"
        );
    }

    #[test]
    fn milliseconds_are_the_last_digits() {
        let t = Timestamp::from_nanos(1_700_000_000_123_456_789);
        assert_eq!(t.millis().to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(
            Timestamp::from_nanos(-1).millis(),
            Timestamp::from_nanos(-1_000_000)
        );
        assert_eq!(
            Timestamp::from_secs(1).millis().to_string(),
            "1970-01-01T00:00:01Z"
        );
        assert_eq!(Timestamp::from_nanos(i64::MIN + 1).millis().as_nanos(), i64::MIN);
    }

    #[test]
    fn arithmetic_saturates() {
        let t = Timestamp::from_secs(10);
        assert_eq!(t - Timestamp::from_secs(12), Span::ZERO);
        assert_eq!((t + Span::from_secs(2)) - t, Span::from_secs(2));
        assert_eq!(
            Timestamp::from_nanos(i64::MAX) + Span::MAX,
            Timestamp::from_nanos(i64::MAX)
        );
    }
}

//! When something that fills is full, at the pace of the watch, with the soonest and the latest that the pace allows.
//!
//! In: a [`Trend`], what is used now, the limit, and where known the level at which it settles. Out: an [`Outlook`], or
//! nothing where the trend does not support one: it is flat, falling, scattered, or leads further ahead than it can be
//! trusted. Shared by ports, NAT ranges and conntrack, so that all speak of the future alike.

use crate::finding::Evidence;
use crate::time::Span;
use crate::track::trend::Trend;
use crate::words::{count, rounded, seconds, whole32};

/// A line is not drawn further ahead than this many times the watch it rests on: five seconds say something of the next
/// eight minutes, not of the next day.
const AHEAD: f64 = 100.0;

/// …and never further than this, in seconds: by then the load is another.
const FURTHEST: f64 = 30.0 * 86_400.0;

/// When it is full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Seconds from now, at the pace of the watch.
    pub seconds: f64,
    /// …at the fastest pace that the points allow (90 %).
    pub low: f64,
    /// …at the slowest.
    pub high: f64,
    /// The pace, in units per second.
    pub per_second: f64,
}

/// Where it is going.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outlook {
    /// It fills.
    Full(Forecast),
    /// It grows, but settles at about this much, below the limit.
    LevelsOff(u32),
}

impl Forecast {
    /// `None` where the trend does not support one, or leads further ahead than `within`.
    pub fn of(trend: Option<Trend>, now: f64, limit: f64, within: Span) -> Option<Self> {
        let trend = trend.filter(Trend::rises)?;
        let left = (limit - now).max(0.0);
        let forecast = Self {
            seconds: left / trend.per_second,
            low: left / trend.high,
            high: left / trend.low,
            per_second: trend.per_second,
        };
        let furthest = within
            .as_secs_f64()
            .min(FURTHEST)
            .min(trend.over.as_secs_f64() * AHEAD);
        (forecast.seconds.is_finite() && forecast.seconds <= furthest).then_some(forecast)
    }

    /// `in 59 s`, or `in 59 s (50 s to 75 s)` where the bounds read differently.
    pub fn words(&self) -> String {
        let [at, low, high] = [self.seconds, self.low, self.high].map(seconds);
        if low == at && high == at {
            format!("in {at}")
        } else {
            format!("in {at} ({low} to {high})")
        }
    }

    /// Adds it by the names that all findings share.
    pub fn evidence(&self, evidence: Evidence) -> Evidence {
        evidence
            .with("exhausted_in_seconds", rounded(self.seconds))
            .with("exhausted_in_seconds_low", rounded(self.low))
            .with("exhausted_in_seconds_high", rounded(self.high))
    }
}

impl Outlook {
    /// As [`Forecast::of`]. `level` is where it settles if the pace of what comes in stays (arrivals per second times the
    /// seconds that each stays), where that is known.
    pub fn of(trend: Option<Trend>, now: f64, limit: f64, level: Option<f64>, within: Span) -> Option<Self> {
        let rising = trend.filter(Trend::rises)?;
        match level {
            Some(level) if level < limit => Some(Self::LevelsOff(whole32(level.max(now)))),
            _ => Forecast::of(Some(rising), now, limit, within).map(Self::Full),
        }
    }

    /// Adds it by the names that all findings share.
    pub fn evidence(&self, evidence: Evidence) -> Evidence {
        match self {
            Self::Full(forecast) => forecast.evidence(evidence),
            Self::LevelsOff(level) => evidence.with("levels_off_at", *level),
        }
    }

    /// One sentence; `none` says what is then: `none is left`, `it is full`.
    pub fn sentence(&self, none: &str) -> String {
        match self {
            Self::Full(forecast) => format!("At the present pace {none} {}.", forecast.words()),
            Self::LevelsOff(level) => {
                format!("At the present pace it levels off at about {}.", count(*level))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    const HOUR: Span = Span::from_secs(3600);

    fn trend(values: &[f64]) -> Option<Trend> {
        Trend::of(values.iter().zip(0..).map(|(v, s)| (Timestamp::from_secs(s), *v)))
    }

    fn full(values: &[f64], limit: f64, within: Span) -> Option<Forecast> {
        Forecast::of(trend(values), *values.last().unwrap(), limit, within)
    }

    #[test]
    fn a_line_leads_to_the_limit() {
        let f = full(&[50.0, 55.0, 60.0, 65.0, 70.0], 100.0, HOUR).unwrap();
        assert_eq!((f.seconds, f.low, f.high, f.per_second), (6.0, 6.0, 6.0, 5.0));
        assert_eq!(f.words(), "in 6 s");
        let at_it = full(&[85.0, 90.0, 95.0, 100.0], 100.0, HOUR).unwrap();
        assert_eq!((at_it.seconds, at_it.high), (0.0, 0.0));
    }

    #[test]
    fn an_uneven_pace_gives_an_interval() {
        let f = full(&[50.0, 54.0, 61.0, 64.0, 70.0, 76.0], 100.0, HOUR).unwrap();
        assert!(f.low < f.seconds && f.seconds < f.high, "{f:?}");
        let evidence = f.evidence(Evidence::new());
        let get = |name| evidence.get(name).and_then(|v| v.as_f64()).unwrap();
        assert!(get("exhausted_in_seconds_low") < get("exhausted_in_seconds"));
        assert!(get("exhausted_in_seconds") < get("exhausted_in_seconds_high"));
        assert!(f.words().contains(" to "), "{}", f.words());
    }

    #[test]
    fn none_where_the_trend_supports_none() {
        for (name, values, limit, within) in [
            ("flat", vec![50.0; 6], 100.0, HOUR),
            ("falling", vec![70.0, 65.0, 60.0, 55.0], 100.0, HOUR),
            ("too few", vec![50.0, 60.0, 70.0], 100.0, HOUR),
            ("scattered", vec![50.0, 80.0, 45.0, 75.0, 60.0, 70.0], 100.0, HOUR),
            (
                "beyond the horizon",
                vec![50.0, 55.0, 60.0, 65.0],
                1000.0,
                Span::from_secs(60),
            ),
            (
                "too far for so short a watch",
                vec![50.0, 51.0, 52.0, 53.0],
                1000.0,
                HOUR,
            ),
        ] {
            assert_eq!(full(&values, limit, within), None, "{name}");
        }
    }

    #[test]
    fn what_settles_below_the_limit_is_said_to() {
        let growing = trend(&[50.0, 55.0, 60.0, 65.0]);
        let of = |level| Outlook::of(growing, 65.0, 100.0, level, HOUR);
        assert_eq!(of(Some(80.0)), Some(Outlook::LevelsOff(80)));
        assert_eq!(of(Some(60.0)), Some(Outlook::LevelsOff(65)));
        assert!(matches!(of(Some(120.0)), Some(Outlook::Full(_))));
        assert!(matches!(of(None), Some(Outlook::Full(_))));
        assert_eq!(Outlook::of(trend(&[5.0; 5]), 5.0, 100.0, Some(50.0), HOUR), None);
        assert_eq!(
            of(None).unwrap().sentence("it is full"),
            "At the present pace it is full in 7 s."
        );
    }
}

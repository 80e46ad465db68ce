//! Whether a number that was looked at a few times rises or falls, and how fast: a straight line by least squares, and
//! only where the points really lie on one.
//!
//! In: (time, value) points, oldest first. Out: units per second, or nothing. Why so strict: a forecast from two noisy
//! points is a guess with a number on it.

use crate::time::{Span, Timestamp};

/// Fewer points than this are no trend.
const MIN_POINTS: usize = 3;

/// A shorter watch than this is no trend.
const MIN_SPAN: Span = Span::from_millis(1500);

/// The least share of the variance that the line must explain (R²).
const MIN_FIT: f64 = 0.8;

/// Units per second, where the points support a straight line; `None` where they do not (too few, too short, or
/// scattered). Points that all have one value have the slope zero.
pub fn slope(points: impl Iterator<Item = (Timestamp, f64)> + Clone) -> Option<f64> {
    let (first, _) = points.clone().next()?;
    let (last, _) = points.clone().last()?;
    let n = points.clone().count();
    if n < MIN_POINTS || last.since(first) < MIN_SPAN {
        return None;
    }
    #[allow(clippy::cast_precision_loss)] // a few dozen points
    let count = n as f64;
    let xy = |(at, y): (Timestamp, f64)| (at.since(first).as_secs_f64(), y);
    let (sx, sy) = points
        .clone()
        .map(xy)
        .fold((0.0, 0.0), |s, (x, y)| (s.0 + x, s.1 + y));
    let (mx, my) = (sx / count, sy / count);
    let (mut sxx, mut sxy, mut syy) = (0.0, 0.0, 0.0);
    for (x, y) in points.map(xy) {
        sxx += (x - mx) * (x - mx);
        sxy += (x - mx) * (y - my);
        syy += (y - my) * (y - my);
    }
    if syy == 0.0 {
        return Some(0.0);
    }
    if sxx <= 0.0 || sxy * sxy / (sxx * syy) < MIN_FIT {
        return None;
    }
    Some(sxy / sxx).filter(|s| s.is_finite())
}

/// Seconds until a value that is `now` and rises by `per_second` reaches `limit`; `None` where it never does.
pub fn seconds_until(now: f64, limit: f64, per_second: f64) -> Option<f64> {
    if now >= limit {
        return Some(0.0);
    }
    let seconds = (limit - now) / per_second;
    (per_second > 0.0 && seconds.is_finite()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(points: &[(f64, f64)]) -> Option<f64> {
        let at = |s: f64| Timestamp::EPOCH + Span::from_secs_f64(s);
        slope(points.iter().map(|(x, y)| (at(*x), *y)))
    }

    #[test]
    fn slopes() {
        for (points, expected) in [
            (vec![], None),
            (vec![(0.0, 1.0), (5.0, 2.0)], None),
            (vec![(0.0, 1.0), (0.5, 2.0), (1.0, 3.0)], None),
            (vec![(0.0, 0.0), (1.0, 10.0), (2.0, 20.0)], Some(10.0)),
            (vec![(0.0, 30.0), (1.0, 20.0), (2.0, 10.0)], Some(-10.0)),
            (vec![(0.0, 7.0), (1.0, 7.0), (2.0, 7.0)], Some(0.0)),
            (vec![(0.0, 1.0), (1.0, 9.0), (2.0, 0.0), (3.0, 8.0)], None),
            (vec![(1.0, 1.0), (1.0, 9.0), (1.0, 3.0)], None),
        ] {
            let got = of(&points);
            match (got, expected) {
                (Some(g), Some(e)) => assert!((g - e).abs() < 1e-9, "{points:?}: {g}"),
                _ => assert_eq!(got, expected, "{points:?}"),
            }
        }
    }

    #[test]
    fn times_to_a_limit() {
        assert_eq!(seconds_until(50.0, 100.0, 5.0), Some(10.0));
        assert_eq!(seconds_until(100.0, 100.0, 0.0), Some(0.0));
        assert_eq!(seconds_until(50.0, 100.0, 0.0), None);
        assert_eq!(seconds_until(50.0, 100.0, -1.0), None);
    }
}

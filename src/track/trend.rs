//! Whether a number that was looked at a few times rises or falls, how fast, and how sure that is: a straight line by
//! Theil and Sen (P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", J. Am. Stat. Assoc. 63,
//! 1968), which a fifth of wild points does not bend, with Sen's interval.
//!
//! In: (time, value) points, oldest first. Out: a [`Trend`], or nothing. Why so strict: a forecast from two noisy points is
//! a guess with a number on it. What is not one line is cut to its newest part first: before a clock step, a gap, a reset
//! or a bend nothing tells about now.

use crate::time::{Span, Timestamp};

/// A shorter watch than this is no trend.
const MIN_SPAN: Span = Span::from_millis(1500);

/// More points than this are thinned out: pairs are compared, and there are n²/2 of them.
const MAX_POINTS: usize = 128;

/// The two-sided 90 % point of the normal distribution. For four points it asks for six slopes of one sign, which chance
/// gives in one case of twelve.
const Z: f64 = 1.645;

/// A pause between two points that is longer than this many usual ones, and longer than [`MIN_GAP`], is a gap: the watch
/// was interrupted, or the clock stepped.
const GAP_FACTOR: f64 = 10.0;
const MIN_GAP: f64 = 10.0;

/// A count that falls below this share of itself from one look to the next was reset (a flush, a restart).
const RESET: f64 = 0.5;

/// A pace whose ends differ by more than this factor is no basis for a number.
const MAX_SPREAD: f64 = 5.0;

/// The whole is bent where its line misses the newer half by more than this many times what the half's own line does.
const BENT: f64 = 3.0;

/// A straight line through points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Units per second.
    pub per_second: f64,
    /// The least that the points allow, at 90 % (both ends together).
    pub low: f64,
    /// The most.
    pub high: f64,
    /// Points that it rests on.
    pub points: usize,
    /// The time that they span.
    pub over: Span,
}

impl Trend {
    /// The line through the newest part of `points` that is one; `None` where they are too few (four), too short a time
    /// (1.5 s), or too scattered to give the slope any bounds. Points that all have one value have the slope zero.
    pub fn of(points: impl IntoIterator<Item = (Timestamp, f64)>) -> Option<Self> {
        let mut points = thin(newest_run(points));
        let mut line = Line::through(&points)?;
        while points.len() >= 8 {
            let newer = &points[points.len() / 2..];
            match Line::through(newer) {
                Some(half) if off(newer, half.slope) * BENT < off(newer, line.slope) => {
                    line = half;
                    points = newer.to_vec();
                }
                _ => break,
            }
        }
        Some(Self {
            per_second: line.slope,
            low: line.low,
            high: line.high,
            points: points.len(),
            over: Span::from_secs_f64(points.last()?.0 - points.first()?.0),
        })
    }

    /// The pace, where its bounds agree on the direction and are within a factor of five of each other; zero where nothing
    /// moved at all.
    pub fn pace(&self) -> Option<f64> {
        let (near, far) = (
            self.low.abs().min(self.high.abs()),
            self.low.abs().max(self.high.abs()),
        );
        let one_way = (self.low > 0.0) == (self.high > 0.0) && near > 0.0;
        let still = far == 0.0;
        (still || one_way && far <= near * MAX_SPREAD).then_some(self.per_second)
    }

    /// Whether it surely rises, at a pace that is known well enough to build on.
    pub fn rises(&self) -> bool {
        self.low > 0.0 && self.pace().is_some()
    }
}

/// The newest points that belong together, as seconds after the first of them.
fn newest_run(points: impl IntoIterator<Item = (Timestamp, f64)>) -> Vec<(f64, f64)> {
    let mut run: Vec<(Timestamp, f64)> = Vec::new();
    for (at, value) in points {
        if !value.is_finite() {
            continue;
        }
        if let Some((before, last)) = run.last().copied() {
            if at == before {
                run.pop();
            } else if at < before || value < last * RESET {
                // The clock was set back, or the count begins anew.
                run.clear();
            }
        }
        run.push((at, value));
    }
    let mut gaps: Vec<f64> = run.windows(2).map(|w| seconds(w[0].0, w[1].0)).collect();
    gaps.sort_by(f64::total_cmp);
    let usual = gaps.get(gaps.len() / 2).copied().unwrap_or(0.0);
    let broken = (usual * GAP_FACTOR).max(MIN_GAP);
    let from = run
        .windows(2)
        .rposition(|w| seconds(w[0].0, w[1].0) > broken)
        .map_or(0, |i| i + 1);
    let Some((first, _)) = run.get(from).copied() else {
        return Vec::new();
    };
    run[from..]
        .iter()
        .map(|(at, value)| (seconds(first, *at), *value))
        .collect()
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64()
}

/// At most [`MAX_POINTS`], evenly, the newest kept.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(MAX_POINTS).max(1);
    let keep = (points.len() + step - 1) % step;
    let kept = points.iter().enumerate().filter(|(i, _)| i % step == keep);
    kept.map(|(_, point)| *point).collect()
}

struct Line {
    slope: f64,
    low: f64,
    high: f64,
}

impl Line {
    fn through(points: &[(f64, f64)]) -> Option<Self> {
        let (first, last) = (points.first()?, points.last()?);
        if last.0 - first.0 < MIN_SPAN.as_secs_f64() {
            return None;
        }
        let mut slopes = Vec::with_capacity(points.len() * points.len().saturating_sub(1) / 2);
        for (i, (x0, y0)) in points.iter().enumerate() {
            for (x1, y1) in &points[i + 1..] {
                slopes.push((y1 - y0) / (x1 - x0));
            }
        }
        slopes.retain(|s| s.is_finite());
        slopes.sort_by(f64::total_cmp);
        let slope = median(&slopes)?;
        #[allow(clippy::cast_precision_loss)] // 128 points, 8128 pairs at most
        let (n, pairs) = (points.len() as f64, slopes.len() as f64);
        // Kendall's variance of the count of rising less falling pairs, wider where neighbours resemble each other: such
        // points tell less than as many independent ones.
        let spread = Z * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt() * resemblance(points, slope);
        if spread >= pairs {
            return None;
        }
        let below = crate::words::whole(((pairs - spread) / 2.0).floor());
        let below = usize::try_from(below).ok()?.min(slopes.len() - 1);
        Some(Self {
            slope,
            low: slopes[below],
            high: slopes[slopes.len() - 1 - below],
        })
    }
}

/// How much wider the interval must be because what lies off the line does so for several points in a row:
/// √((1 + r) / (1 - r)) of the first autocorrelation r of what remains.
fn resemblance(points: &[(f64, f64)], slope: f64) -> f64 {
    if points.len() < 8 {
        return 1.0;
    }
    let off = residuals(points, slope);
    let square: f64 = off.iter().map(|o| o * o).sum();
    if square <= 0.0 {
        return 1.0;
    }
    let r: f64 = off.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / square;
    let r = r.clamp(0.0, 0.9);
    ((1.0 + r) / (1.0 - r)).sqrt()
}

/// How far the points lie off the line with this slope that halves them.
fn residuals(points: &[(f64, f64)], slope: f64) -> Vec<f64> {
    let levels: Vec<f64> = points.iter().map(|(x, y)| y - slope * x).collect();
    let mut sorted = levels.clone();
    sorted.sort_by(f64::total_cmp);
    let level = median(&sorted).unwrap_or(0.0);
    // What the rounding of binary fractions leaves resembles itself, and is nothing.
    let nothing = points.iter().map(|(_, y)| y.abs()).fold(0.0, f64::max) * 1e-9;
    levels
        .iter()
        .map(|l| l - level)
        .map(|r| if r.abs() <= nothing { 0.0 } else { r })
        .collect()
}

/// The sum of [`residuals`] whatever their sign.
fn off(points: &[(f64, f64)], slope: f64) -> f64 {
    residuals(points, slope).iter().map(|r| r.abs()).sum()
}

/// Of sorted values.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(middle.checked_sub(1)?)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
#[path = "trend_tests.rs"]
mod tests;

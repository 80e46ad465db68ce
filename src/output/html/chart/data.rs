//! Points made fit to be drawn: in order, finite, few enough, and cut where they have gaps.

use super::POINTS;

/// Seconds since 1970; mean, least and greatest over the time that the point stands for. As `/api/v1/series` has them.
pub type Point = (i64, f64, f64, f64);

/// Values beyond this are drawn as this: what follows is arithmetic that must not overflow.
const GREATEST: f64 = 1e15;

/// Points further apart than this many steps have a gap between them.
const GAP: i64 = 3;

/// The points between `from` and `to` (seconds since 1970), in order, as runs without gaps. `step` is how far apart points
/// usually are; where it is zero or less it is taken from the points. At most [`POINTS`] come back.
pub(super) fn runs(points: &[Point], from: i64, to: i64, step: i64) -> Vec<Vec<Point>> {
    let mut fit: Vec<Point> = points
        .iter()
        .filter(|(at, mean, ..)| (from..=to).contains(at) && mean.is_finite())
        .map(|(at, mean, low, high)| {
            let bound = |v: f64| if v.is_finite() { v } else { *mean }.clamp(-GREATEST, GREATEST);
            let mean = bound(*mean);
            (*at, mean, bound(*low).min(mean), bound(*high).max(mean))
        })
        .collect();
    fit.sort_by_key(|point| point.0);
    fit.dedup_by_key(|point| point.0);
    let step = if step > 0 { step } else { usual_step(&fit) };
    let most = step.saturating_mul(GAP);
    let mut runs: Vec<Vec<Point>> = Vec::new();
    for point in fit {
        match runs.last_mut() {
            Some(run)
                if run
                    .last()
                    .is_some_and(|last| point.0.saturating_sub(last.0) <= most) =>
            {
                run.push(point);
            }
            _ => runs.push(vec![point]),
        }
    }
    thinned(runs, from, to)
}

/// The median distance of neighbours.
fn usual_step(points: &[Point]) -> i64 {
    let mut steps: Vec<i64> = points
        .windows(2)
        .filter_map(|pair| match pair {
            [a, b] => Some(b.0.saturating_sub(a.0)),
            _ => None,
        })
        .collect();
    steps.sort_unstable();
    steps.get(steps.len() / 2).copied().unwrap_or(1).max(1)
}

/// Draws neighbours together where there are too many: by slots of equal time, never across a gap.
fn thinned(runs: Vec<Vec<Point>>, from: i64, to: i64) -> Vec<Vec<Point>> {
    if runs.iter().map(Vec::len).sum::<usize>() <= POINTS {
        return runs;
    }
    // A run begins a slot of its own, so half as many slots leave room for as many runs.
    let slots = i64::try_from(POINTS / 2).unwrap_or(i64::MAX);
    let slot = (to.saturating_sub(from) / slots).max(1);
    let together: Vec<Vec<Point>> = runs.iter().map(|run| merged(run, from, slot)).collect();
    if together.iter().map(Vec::len).sum::<usize>() <= POINTS {
        return together;
    }
    // More gaps than there is room for: what is so torn is drawn as single slots.
    let all: Vec<Point> = runs.into_iter().flatten().collect();
    merged(&all, from, slot)
        .into_iter()
        .map(|point| vec![point])
        .collect()
}

fn merged(run: &[Point], from: i64, slot: i64) -> Vec<Point> {
    run.chunk_by(|a, b| a.0.saturating_sub(from) / slot == b.0.saturating_sub(from) / slot)
        .filter_map(|chunk| {
            let (first, last) = (chunk.first()?, chunk.last()?);
            #[allow(clippy::cast_precision_loss)] // a few hundred
            let n = chunk.len() as f64;
            Some((
                first.0.midpoint(last.0),
                chunk.iter().map(|p| p.1).sum::<f64>() / n,
                chunk.iter().map(|p| p.2).fold(f64::INFINITY, f64::min),
                chunk.iter().map(|p| p.3).fold(f64::NEG_INFINITY, f64::max),
            ))
        })
        .collect()
}

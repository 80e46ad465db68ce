use proptest::prelude::*;

use super::*;

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_secs(1_000_000) + Span::from_secs_f64(seconds)
}

fn of(points: &[(f64, f64)]) -> Option<Trend> {
    Trend::of(points.iter().map(|(x, y)| (at(*x), *y)))
}

/// `n` points a second apart.
fn each_second(n: u32, value: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    (0..n).map(f64::from).map(|x| (x, value(x))).collect()
}

/// Noise between -1 and 1 that is the same at each run.
fn noise(seed: &mut u64) -> f64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    f64::from(u32::try_from(*seed >> 32).unwrap()) / f64::from(u32::MAX) * 2.0 - 1.0
}

#[test]
fn paces() {
    for (name, points, expected) in [
        ("nothing", vec![], None),
        ("three points", each_second(3, |x| x * 10.0), None),
        (
            "a second",
            vec![(0.0, 1.0), (0.3, 2.0), (0.6, 3.0), (1.0, 4.0)],
            None,
        ),
        ("a line", each_second(4, |x| x * 10.0), Some(10.0)),
        ("down", each_second(4, |x| 300.0 - x * 10.0), Some(-10.0)),
        ("still", each_second(4, |_| 7.0), Some(0.0)),
        (
            "scattered",
            vec![(0.0, 5.0), (1.0, 9.0), (2.0, 5.0), (3.0, 8.0)],
            None,
        ),
        (
            "all at once",
            vec![(1.0, 1.0), (1.0, 9.0), (1.0, 3.0), (1.0, 4.0)],
            None,
        ),
        (
            "not a number",
            vec![(0.0, 0.0), (1.0, f64::NAN), (2.0, 20.0), (3.0, 30.0), (4.0, 40.0)],
            Some(10.0),
        ),
        (
            "a wild point",
            each_second(9, |x| if x == 4.0 { 90.0 } else { 50.0 + x * 10.0 }),
            Some(10.0),
        ),
    ] {
        let got = of(&points).and_then(|t| t.pace());
        match (got, expected) {
            (Some(g), Some(e)) => assert!((g - e).abs() < 1e-9, "{name}: {g}"),
            _ => assert_eq!(got, expected, "{name}"),
        }
    }
}

#[test]
fn only_the_newest_part_that_is_one_counts() {
    let shift = |points: Vec<(f64, f64)>, by: f64| points.into_iter().map(move |(x, y)| (x + by, y));
    let rising = || each_second(5, |x| 1000.0 + x * 10.0);
    for (name, points, expected) in [
        // The clock is set back by an hour: the five points before it are of another time.
        (
            "clock back",
            shift(rising(), 3600.0)
                .chain(each_second(5, |x| 1100.0 + x * 30.0))
                .collect::<Vec<_>>(),
            Some(30.0),
        ),
        // …or forward, or the machine slept.
        (
            "gap",
            rising()
                .into_iter()
                .chain(shift(each_second(5, |x| 1100.0 + x * 30.0), 3600.0))
                .collect(),
            Some(30.0),
        ),
        // `conntrack -F`.
        (
            "flushed",
            rising()
                .into_iter()
                .chain(shift(each_second(5, |x| 100.0 + x * 20.0), 5.0))
                .collect(),
            Some(20.0),
        ),
        (
            "just flushed",
            rising().into_iter().chain([(5.0, 3.0)]).collect(),
            None,
        ),
        // What rose has stopped: no forecast from the rise.
        (
            "levelled off",
            each_second(24, |x| (x.min(10.0)) * 100.0),
            Some(0.0),
        ),
        // What was still has begun to rise.
        (
            "began",
            each_second(24, |x| 500.0 + (x - 12.0).max(0.0) * 100.0),
            Some(100.0),
        ),
    ] {
        let got = of(&points).and_then(|t| t.pace());
        match (got, expected) {
            (Some(g), Some(e)) => assert!((g - e).abs() < 1e-6, "{name}: {g}"),
            _ => assert_eq!(got, expected, "{name}"),
        }
    }
}

#[test]
fn noise_widens_and_then_forbids() {
    let mut seed = 7;
    let mut with = |amount: f64| {
        let points = each_second(30, |x| 100_000.0 + x * 10.0)
            .into_iter()
            .map(|(x, y)| (x, y + amount * noise(&mut seed)))
            .collect::<Vec<_>>();
        of(&points).expect("thirty points")
    };
    let (calm, rough, storm) = (with(5.0), with(60.0), with(5000.0));
    assert!(calm.rises() && rough.rises());
    assert!(calm.high - calm.low < rough.high - rough.low);
    assert_eq!(storm.pace(), None, "{storm:?}");
    assert!(!storm.rises());
}

/// The interval holds the true pace about as often as it says (90 %), for independent noise and for noise that lingers.
#[test]
fn the_interval_is_honest() {
    for (lingering, least) in [(0.0, 0.86), (0.6, 0.70)] {
        for n in [6, 12, 40] {
            let mut seed = 0x9e37_79b9_7f4a_7c15;
            let held = (0..400)
                .filter(|_| {
                    let mut off = 0.0;
                    let points: Vec<_> = each_second(n, |x| 100_000.0 + x * 50.0)
                        .into_iter()
                        .map(|(x, y)| {
                            off = off * lingering + 40.0 * noise(&mut seed);
                            (x, y + off)
                        })
                        .collect();
                    of(&points).is_some_and(|t| t.low <= 50.0 && 50.0 <= t.high)
                })
                .count();
            let share = f64::from(u32::try_from(held).unwrap()) / 400.0;
            assert!(share >= least, "{n} points, {lingering}: {share}");
        }
    }
}

#[test]
fn long_histories_are_thinned_and_keep_their_newest() {
    let points = each_second(10_000, |x| x * 3.0);
    let trend = of(&points).unwrap();
    assert!((trend.per_second - 3.0).abs() < 1e-9 && trend.points <= MAX_POINTS);
    assert_eq!(thin(points).last(), Some(&(9999.0, 29_997.0)));
}

proptest! {
    #[test]
    fn any_points_give_ordered_bounds(points in prop::collection::vec((any::<i64>(), any::<f64>()), 0..60)) {
        let points = points.into_iter().map(|(at, value)| (Timestamp::from_nanos(at), value));
        if let Some(t) = Trend::of(points) {
            prop_assert!(t.low <= t.per_second && t.per_second <= t.high);
            prop_assert!(t.points >= 4);
        }
    }

    #[test]
    fn any_steady_count_gives_bounds(steps in prop::collection::vec(0u32..1000, 4..60)) {
        let rising = steps.iter().scan(1_000_000u32, |sum, step| { *sum += step; Some(f64::from(*sum)) });
        // Steps of very different size one after another may give the pace no bounds at all.
        if let Some(trend) = Trend::of(rising.zip(0..).map(|(v, s)| (at(f64::from(s)), v))) {
            prop_assert!(0.0 <= trend.low && trend.low <= trend.per_second && trend.per_second <= trend.high);
            prop_assert!(trend.high <= 1000.0);
        }
    }
}

//! What history says is usual for a measured path.
//!
//! In: a history and a target as the agent names it. Out: [`Usual`]. A point is one measurement's median, or the mean of
//! those within its step, so the median of the points is what a measurement at any time of the day would have shown.

use rusqlite::{Connection, params};
use serde_json::Value;

use super::retain::STEPS;
use crate::observation::path::{Rtts, Usual};
use crate::time::{Span, Timestamp};
use crate::track::stats::quantile;

/// The metrics of paths in history (src/output/prometheus); their label `target` says of which.
pub const RTT: &str = "wgnat_path_rtt_median_seconds";
/// See [`RTT`].
pub const JITTER: &str = "wgnat_path_jitter_seconds";
/// See [`RTT`].
pub const LOSS: &str = "wgnat_path_loss_ratio";

/// A history with fewer points, or of less time from the first to the last, tells nothing usual: a look or two may have been
/// the exception, and fine points repeat what was measured once a minute.
const LEAST_POINTS: usize = 5;
/// See [`LEAST_POINTS`].
const LEAST_SECONDS: i64 = 240;

/// What `connection` knows of `target` between `from` and `now`; `None` where that is too little.
pub fn usual(
    connection: &Connection,
    target: &str,
    from: Timestamp,
    now: Timestamp,
) -> rusqlite::Result<Option<Usual>> {
    let rtt = points(connection, RTT, target, from, now)?;
    let loss = points(connection, LOSS, target, from, now)?;
    let jitter = points(connection, JITTER, target, from, now)?;
    let oldest = [&rtt, &loss].into_iter().filter_map(|points| points.first());
    let Some((oldest, _)) = oldest.min_by_key(|(at, _)| *at) else {
        return Ok(None);
    };
    let number = rtt.len().max(loss.len());
    if !enough(&rtt) && !enough(&loss) {
        return Ok(None);
    }
    let spans = |points: &[(i64, f64)]| {
        let spans = points
            .iter()
            .filter_map(|(_, v)| Span::try_from_secs_f64(*v).ok());
        let mut spans: Vec<Span> = spans.collect();
        spans.sort_unstable();
        spans
    };
    let of =
        |spans: &[Span], shares: &[f64]| Rtts(shares.iter().filter_map(|q| quantile(spans, *q)).collect());
    #[allow(clippy::cast_precision_loss)] // a count of points
    let mean = |points: &[(i64, f64)]| points.iter().map(|(_, v)| v).sum::<f64>() / points.len() as f64;
    Ok(Some(Usual {
        over: now - Timestamp::from_secs(*oldest),
        points: u32::try_from(number).unwrap_or(u32::MAX),
        rtt: of(&spans(&rtt), &[0.5, 0.95]),
        jitter: of(&spans(&jitter), &[0.5]),
        loss: (!loss.is_empty()).then(|| mean(&loss)),
    }))
}

/// The points of one metric of `target`, oldest first: of the coarsest step that has enough of them, for what is young has
/// no coarse points yet.
fn points(
    connection: &Connection,
    name: &str,
    target: &str,
    from: Timestamp,
    to: Timestamp,
) -> rusqlite::Result<Vec<(i64, f64)>> {
    let Some(series) = series_of(connection, name, target)? else {
        return Ok(Vec::new());
    };
    let seconds = |at: Timestamp| at.as_nanos().div_euclid(1_000_000_000);
    let mut statement = connection.prepare_cached(
        "SELECT at, value FROM samples WHERE step = ?1 AND series = ?2 AND at BETWEEN ?3 AND ?4 ORDER BY at",
    )?;
    let mut best: Vec<(i64, f64)> = Vec::new();
    // Coarse points only where fine ones do not reach back: within two days a minute is as fine as the measurements are.
    let coarsest = if to - from <= STEPS[1].keep() { 1 } else { 2 };
    for step in STEPS.iter().take(coarsest + 1).rev() {
        let found: Vec<(i64, f64)> = statement
            .query_map(
                params![step.seconds(), series, seconds(from), seconds(to)],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?
            .collect::<rusqlite::Result<_>>()?;
        if found.len() > best.len() {
            best = found;
        }
        if enough(&best) {
            break;
        }
    }
    Ok(best)
}

fn enough(points: &[(i64, f64)]) -> bool {
    match (points.first(), points.last()) {
        (Some((first, _)), Some((last, _))) => points.len() >= LEAST_POINTS && last - first >= LEAST_SECONDS,
        _ => false,
    }
}

/// The series of `name` whose label `target` is this one. Targets may hold commas, so this is no query by text.
fn series_of(connection: &Connection, name: &str, target: &str) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT id, labels FROM series WHERE name = ?1")?;
    let mut rows = statement.query([name])?;
    while let Some(row) = rows.next()? {
        let labels: Value = serde_json::from_str(&row.get::<_, String>(1)?).unwrap_or_default();
        if labels.get("target").and_then(Value::as_str) == Some(target) {
            return Ok(Some(row.get(0)?));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    const DAY: i64 = 86_400;

    /// Of one metric: its name, the target, and points of (step, seconds, value).
    type Series<'a> = (&'a str, &'a str, &'a [(i64, i64, f64)]);

    /// A history that holds these.
    fn history(of: &[Series<'_>]) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::migrate(&mut connection).unwrap();
        for (id, (name, target, points)) in (1_i64..).zip(of) {
            let labels = serde_json::json!({ "method": "tcp", "target": target }).to_string();
            connection
                .execute(
                    "INSERT INTO series VALUES (?1, ?2, ?3)",
                    params![id, name, labels],
                )
                .unwrap();
            for (step, at, value) in *points {
                connection
                    .execute(
                        "INSERT INTO samples VALUES (?1, ?2, ?3, ?4, ?4, ?4, 1)",
                        params![step, id, at, value],
                    )
                    .unwrap();
            }
        }
        connection
    }

    fn ask(connection: &Connection, target: &str) -> Option<Usual> {
        let at = Timestamp::from_secs;
        usual(connection, target, at(DAY), at(2 * DAY)).unwrap()
    }

    #[test]
    fn the_median_of_a_day_is_usual_and_a_bad_hour_is_not() {
        let calm: Vec<_> = (0..1440)
            .map(|n| (60, DAY + n * 60, if n < 60 { 0.090 } else { 0.012 }))
            .collect();
        let lossy: Vec<_> = (0..100)
            .map(|n| (60, DAY + n * 60, f64::from(u8::from(n < 10))))
            .collect();
        let url = "https://a.example/?q=1,2&b=c";
        let connection = history(&[
            (RTT, "tcp:other:1", &[(60, DAY, 9.0)]),
            (RTT, url, &calm),
            (LOSS, url, &lossy),
        ]);
        let usual = ask(&connection, url).unwrap();
        assert_eq!((usual.over, usual.points), (Span::from_secs(86_400), 1440));
        assert_eq!(usual.median(), Some(Span::from_millis(12)));
        assert_eq!(usual.p95(), Some(Span::from_millis(12)));
        assert!((usual.loss.unwrap() - 0.1).abs() < 1e-9);
        assert!(usual.jitter.0.is_empty(), "what was not measured is not zero");
    }

    #[test]
    fn what_is_young_is_read_from_fine_points_and_what_is_less_than_that_is_unknown() {
        let fine: Vec<_> = (0..30).map(|n| (10, 2 * DAY - 300 + n * 10, 0.020)).collect();
        let connection = history(&[
            (RTT, "a", &fine),
            (RTT, "b", &fine[..3]),
            (RTT, "brief", &fine[..20]),
            (RTT, "old", &[(60, 5, 0.1), (600, 600, 0.1)]),
        ]);
        let usual = ask(&connection, "a").unwrap();
        assert_eq!((usual.over, usual.points), (Span::from_secs(300), 30));
        assert_eq!(usual.median(), Some(Span::from_millis(20)));
        for none in ["b", "brief", "c", "old"] {
            assert_eq!(ask(&connection, none), None);
        }
    }

    #[test]
    fn a_target_that_never_answered_is_known_by_its_loss() {
        let all: Vec<_> = (0..20).map(|n| (60, DAY + n * 60, 1.0)).collect();
        let usual = ask(&history(&[(LOSS, "a", &all)]), "a").unwrap();
        assert_eq!((usual.median(), usual.loss), (None, Some(1.0)));
    }
}

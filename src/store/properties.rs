//! What holds of history whatever is written and whenever it is tidied.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::retain::STEPS;
use super::*;

/// Seconds at which every story begins: within a minute and within ten.
const BEGIN: i64 = 1_700_000_123;
const HOUR: i64 = 3600;
const LABELS: [&str; 3] = ["{\"n\":\"a\"}", "{\"n\":\"b\"}", "{\"n\":\"c\"}"];

/// A row: series, second, mean, least, greatest, number of points.
type Row = (i64, i64, f64, f64, f64, i64);

/// A history in memory.
fn history(limits: Limits) -> write::Db {
    let lock = tempfile::tempfile().unwrap();
    let connection = file::in_memory().unwrap();
    write::Db::new("properties".into(), lock, connection, true, limits)
}

const WIDE: Limits = Limits {
    bytes: 64 * 1024 * 1024,
    age: Span::from_secs(30 * 86_400),
};

fn rows(db: &write::Db, step: i64) -> Vec<Row> {
    let sql = "SELECT series, at, value, low, high, n FROM samples WHERE step = ?1 ORDER BY series, at";
    let mut statement = db.connection().prepare(sql).unwrap();
    let rows = statement.query_map([step], |row| {
        Ok((
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(3)?,
            row.get(4)?,
            row.get(5)?,
        ))
    });
    rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

fn all_rows(db: &write::Db) -> Vec<Vec<Row>> {
    STEPS.iter().map(|step| rows(db, step.seconds())).collect()
}

/// What was written, by series and point: the last word counts.
#[derive(Debug, Default)]
struct Written {
    points: BTreeMap<(usize, i64), f64>,
    ids: BTreeMap<usize, i64>,
}

impl Written {
    fn write(&mut self, db: &mut write::Db, second: i64, values: &[(usize, f64)]) {
        let at = Timestamp::from_secs(second);
        let point = |(series, value): &(usize, f64)| Point {
            name: "wgnat_x",
            labels: LABELS[*series].to_owned(),
            value: *value,
        };
        let points = values.iter().map(point).collect();
        db.write(&[Record::Samples { at, points }], at).unwrap();
        for (series, value) in values {
            self.points.insert((*series, STEPS[0].floor(at)), *value);
            let sql = "SELECT id FROM series WHERE labels = ?1";
            let id = db
                .connection()
                .query_row(sql, [LABELS[*series]], |row| row.get(0));
            self.ids.insert(*series, id.unwrap());
        }
    }

    /// Points `step` apart, made of what was written, in order.
    fn rolled(&self, step: i64) -> Vec<Row> {
        let mut slots: BTreeMap<(i64, i64), Vec<f64>> = BTreeMap::new();
        for ((series, at), value) in &self.points {
            let slot = (self.ids[series], at - at.rem_euclid(step));
            slots.entry(slot).or_default().push(*value);
        }
        let row = |((series, at), values): ((i64, i64), Vec<f64>)| {
            let n = values.len();
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mean = values.iter().sum::<f64>() / n as f64;
            (series, at, mean, least, most, n as i64)
        };
        slots.into_iter().map(row).collect()
    }
}

fn same(one: &Row, other: &Row) -> bool {
    (one.0, one.1, one.3, one.4, one.5) == (other.0, other.1, other.3, other.4, other.5)
        && (one.2 - other.2).abs() < 1e-6
}

#[derive(Clone, Debug)]
enum Event {
    /// Seconds go by.
    Pass(i64),
    /// The clock is set back by so many seconds.
    Back(i64),
    /// A batch, written so many seconds after it was made.
    Write(i64, Vec<(usize, f64)>),
    Tidy,
    /// The agent ends in order, and another begins.
    Restart,
}

fn values() -> impl Strategy<Value = Vec<(usize, f64)>> {
    // Whole numbers, so that sums are exact.
    proptest::collection::vec((0..LABELS.len(), (-1000..1000_i32).prop_map(f64::from)), 1..4)
}

fn event(back: bool) -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1..90_i64).prop_map(Event::Pass),
        1 => (90..5 * HOUR).prop_map(Event::Pass),
        8 => (0..8_i64, values()).prop_map(|(late, values)| Event::Write(late, values)),
        4 => Just(Event::Tidy),
        1 => Just(Event::Restart),
        u32::from(back) => (1..30 * HOUR).prop_map(Event::Back),
    ]
}

/// Lets it all happen; what was written comes back, and the time at the end, at which it was tidied.
fn live(db: &mut write::Db, events: &[Event], trusted: bool) -> (Written, i64) {
    let mut written = Written::default();
    let mut now = BEGIN;
    let tidy = |db: &mut write::Db, now| db.tidy(Timestamp::from_secs(now), trusted).unwrap();
    for event in events {
        match event {
            Event::Pass(seconds) => now += seconds,
            Event::Back(seconds) => now -= seconds,
            Event::Write(late, values) => written.write(db, now - late, values),
            Event::Tidy => tidy(db, now),
            Event::Restart => {
                tidy(db, now);
                db.forget_what_is_fresh();
            }
        }
    }
    tidy(db, now);
    (written, now)
}

proptest! {
    /// Every coarse point is the mean, the least, the greatest and the number of what was written in its time, whatever came
    /// late or was written again after the clock was set back; and no fine point is lost by that.
    #[test]
    fn coarse_points_are_what_the_fine_ones_were(events in proptest::collection::vec(event(true), 1..60)) {
        let mut db = history(WIDE);
        let (written, now) = live(&mut db, &events, false);
        prop_assert_eq!(rows(&db, 10), written.rolled(10));
        for step in [60, 600] {
            let told = rows(&db, step);
            let over = now - now.rem_euclid(step);
            let mut expected = written.rolled(step);
            expected.retain(|row| row.1 < over);
            for row in &expected {
                let own = told.iter().find(|own| (own.0, own.1) == (row.0, row.1));
                prop_assert!(own.is_some_and(|own| same(own, row)), "{step}: {row:?} is {own:?}");
            }
            for row in told.iter().filter(|row| row.1 < over) {
                prop_assert!(row.3 <= row.2 + 1e-6 && row.2 <= row.4 + 1e-6, "{row:?}");
                prop_assert!(expected.iter().any(|own| (own.0, own.1) == (row.0, row.1)), "{row:?}");
            }
        }
    }

    /// What is younger than its step is kept is there, what is older is gone, and what is gone lives on in the coarser points.
    #[test]
    fn what_is_young_enough_is_kept_and_nothing_else(
        events in proptest::collection::vec(event(false), 1..40),
        hours in 0..24 * 40_i64,
    ) {
        let mut db = history(WIDE);
        let (written, mut now) = live(&mut db, &events, true);
        // As an agent does, each minute; here as seldom as what is too old is looked for.
        now += hours * HOUR + 600;
        db.tidy(Timestamp::from_secs(now), true).unwrap();
        for (step, keep) in [(10, 6 * HOUR), (60, 48 * HOUR), (600, 30 * 24 * HOUR)] {
            let over = if step == 10 { i64::MAX } else { now - now.rem_euclid(step) };
            let mut expected = written.rolled(step);
            expected.retain(|row| row.1 >= now - keep && row.1 < over);
            let told = rows(&db, step);
            prop_assert_eq!(told.len(), expected.len(), "{}", step);
            for (own, row) in told.iter().zip(&expected) {
                prop_assert!(same(own, row), "{step}: {own:?} {row:?}");
            }
        }
    }

    /// What is asked for is told over its whole time, in no more points than are wanted, and nothing is higher or lower than it
    /// was.
    #[test]
    fn a_series_is_told_whole_in_as_many_points_as_are_wanted(
        hours in 1..24 * 30_i64,
        points in 1..500_usize,
    ) {
        let mut db = history(WIDE);
        let mut written = Written::default();
        let now = BEGIN;
        let apart = (hours * HOUR / 300).max(10);
        for n in 0..300 {
            let value = f64::from(i32::try_from(n * 7919 % 1000).unwrap());
            written.write(&mut db, now - n * apart, &[(0, value)]);
        }
        db.tidy(Timestamp::from_secs(now), false).unwrap();
        let asked = SeriesQuery {
            name: Some("wgnat_x".to_owned()),
            labels: None,
            from: Timestamp::from_secs(now - hours * HOUR),
            to: Timestamp::from_secs(now),
            points,
        };
        let (step, series) = query::series(db.connection(), &asked).unwrap();
        let told = &series[0].points;
        prop_assert!(told.len() <= points, "{} of {points}", told.len());
        prop_assert!(told.windows(2).all(|pair| pair[1].0 - pair[0].0 >= step), "{told:?}");
        prop_assert!(told.iter().all(|p| p.2 <= p.1 && p.1 <= p.3), "{told:?}");
        // From one end to the other, as far as whole points reach.
        let slack = step + apart.max(600);
        let (first, last) = (told.first().unwrap().0, told.last().unwrap().0);
        prop_assert!(first <= now - hours * HOUR + slack, "{first}");
        prop_assert!(last + slack >= now, "{last}");
    }
}

proptest! {
    // Each writes thousands of points.
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Tidied again at the same time, nothing changes; and where it must become smaller, the oldest of a step go first.
    #[test]
    fn what_is_thrown_away_for_room_is_the_oldest_and_once_is_enough(
        events in proptest::collection::vec(event(true), 1..20),
        minutes in 1..600_i64,
        kib in 60..300_u64,
    ) {
        let mut db = history(WIDE);
        let (mut written, mut now) = live(&mut db, &events, false);
        for _ in 0..minutes * 6 {
            now += 10;
            written.write(&mut db, now, &[(0, 1.0), (1, 2.0), (2, 3.0)]);
        }
        let at = Timestamp::from_secs(now);
        db.tidy(at, false).unwrap();
        let before = all_rows(&db);
        db.tidy(at, false).unwrap();
        prop_assert_eq!(&all_rows(&db), &before);
        let bytes = retain::bytes(db.connection()).unwrap();
        db.limits.bytes = kib * 1024;
        // Each time some: a limit that was lowered is reached within minutes.
        for _ in 0..10 {
            db.tidy(at, false).unwrap();
        }
        let after = all_rows(&db);
        let left = retain::bytes(db.connection()).unwrap();
        prop_assert!(left <= kib * 1024, "{left} of {bytes}");
        if bytes <= kib * 1024 {
            prop_assert_eq!(&after, &before);
        }
        for (before, after) in before.iter().zip(&after) {
            let key = |row: &Row| (row.0, row.1);
            let kept: BTreeSet<_> = after.iter().map(key).collect();
            prop_assert!(after.iter().all(|row| before.contains(row)));
            let oldest_kept = after.iter().map(|row| row.1).min();
            let newest_gone = before.iter().filter(|row| !kept.contains(&key(row))).map(|row| row.1).max();
            if let (Some(kept), Some(gone)) = (oldest_kept, newest_gone) {
                prop_assert!(gone < kept, "{gone} is gone, {kept} is there");
            }
        }
    }
}

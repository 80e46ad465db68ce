use proptest::prelude::*;

use super::*;
use crate::observation::conntrack::CtCpuStats;

fn secs(n: f64) -> Span {
    Span::from_secs_f64(n)
}

fn stats(count: u32, found: u32, insert_failed: u32) -> CtStats {
    CtStats {
        count,
        max: Some(262_144),
        cpus: vec![CtCpuStats {
            found,
            insert_failed,
            ..CtCpuStats::default()
        }],
    }
}

fn reading(entries: u64, nat: bool, millis: u64) -> Reading {
    Reading {
        entries,
        nat,
        unclear: false,
        cpu: Span::from_millis(millis),
    }
}

/// A plan whose table of `count` was read at zero, for nothing.
fn read(budget: Budget, count: u32, nat: bool) -> DumpPlan {
    let mut plan = DumpPlan::new(budget);
    plan.look(Span::ZERO, &stats(count, 0, 0));
    plan.read(Span::ZERO, reading(0, nat, 0));
    plan
}

#[test]
fn the_first_reading() {
    for (name, budget, count, expected) in [
        ("small", Budget::steady(0.01), 1000, Decision::Whole(Why::Start)),
        (
            "just affordable",
            Budget::steady(0.01),
            150_000,
            Decision::Whole(Why::Start),
        ),
        (
            "large",
            Budget::steady(0.01),
            1_000_000,
            Decision::Slices(Why::Start),
        ),
        (
            "large, and somebody waits",
            Budget::once(0.01),
            1_000_000,
            Decision::Whole(Why::Start),
        ),
        ("empty", Budget::steady(0.01), 0, Decision::Whole(Why::Start)),
    ] {
        assert_eq!(
            DumpPlan::new(budget).look(Span::ZERO, &stats(count, 0, 0)),
            expected,
            "{name}"
        );
    }
}

#[test]
fn again_only_when_something_moved() {
    for (name, then, now, after, expected) in [
        ("nothing", (1000, 0, 0), (1000, 0, 0), 60.0, None),
        ("a little growth", (50_000, 0, 0), (55_000, 0, 0), 60.0, None),
        (
            "a quarter more",
            (50_000, 0, 0),
            (62_500, 0, 0),
            60.0,
            Some(Why::Filling),
        ),
        (
            "a quarter less",
            (50_000, 0, 0),
            (37_500, 0, 0),
            60.0,
            Some(Why::Filling),
        ),
        ("a few more of few", (100, 0, 0), (900, 0, 0), 60.0, None),
        (
            "a tenth of the limit",
            (200_000, 0, 0),
            (226_300, 0, 0),
            60.0,
            Some(Why::Filling),
        ),
        (
            "near full and moving",
            (200_000, 0, 0),
            (200_001, 0, 0),
            60.0,
            Some(Why::Filling),
        ),
        (
            "near full and still",
            (200_000, 0, 0),
            (200_000, 0, 0),
            60.0,
            None,
        ),
        (
            "collisions",
            (1000, 0, 0),
            (1000, 700, 0),
            60.0,
            Some(Why::Collisions),
        ),
        ("few collisions", (1000, 0, 0), (1000, 500, 0), 60.0, None),
        ("failures", (1000, 0, 7), (1000, 0, 8), 60.0, Some(Why::Failing)),
        ("failures, too soon", (1000, 0, 7), (1000, 0, 8), 5.0, None),
        (
            "a counter that wrapped",
            (1000, 0, u32::MAX),
            (1000, 0, 0),
            60.0,
            Some(Why::Failing),
        ),
        (
            "counters that were reset",
            (1000, 900_000, 700),
            (1000, 0, 0),
            60.0,
            None,
        ),
    ] {
        let mut plan = DumpPlan::new(Budget::steady(0.05));
        let of = |(count, found, failed)| stats(count, found, failed);
        plan.look(Span::ZERO, &of(then));
        plan.read(Span::ZERO, reading(0, true, 0));
        let expected = expected.map_or(Decision::Rest, Decision::Whole);
        assert_eq!(plan.look(secs(after), &of(now)), expected, "{name}");
    }
}

#[test]
fn where_there_is_nat_the_table_does_not_grow_old() {
    for (name, count, nat, after, expected) in [
        ("not yet", 1001, true, 119.0, None),
        ("old", 1001, true, 120.0, Some(Why::Old)),
        ("nothing moved", 1000, true, 120.0, None),
        ("no NAT", 1001, false, 120.0, None),
    ] {
        let mut plan = read(Budget::steady(0.01), 1000, nat);
        let expected = expected.map_or(Decision::Rest, Decision::Whole);
        assert_eq!(plan.look(secs(after), &stats(count, 0, 0)), expected, "{name}");
    }
    // 100,000 entries at 4 µs each are 0.4 s, and half of one per cent affords that every 80 s…
    let mut plan = read(Budget::steady(0.01), 100_000, true);
    assert_eq!(
        plan.look(secs(120.0), &stats(100_001, 0, 0)),
        Decision::Whole(Why::Old)
    );
    // …and a tenth of that every 800 s.
    let mut plan = read(Budget::steady(0.001), 100_000, true);
    assert_eq!(plan.look(secs(799.0), &stats(100_001, 0, 0)), Decision::Rest);
    assert_eq!(
        plan.look(secs(801.0), &stats(100_001, 0, 0)),
        Decision::Slices(Why::Old)
    );
}

#[test]
fn a_failure_that_came_too_soon_is_not_forgotten() {
    let mut plan = read(Budget::steady(0.01), 1000, true);
    assert_eq!(plan.look(secs(2.0), &stats(1000, 0, 5)), Decision::Rest);
    assert_eq!(plan.look(secs(9.0), &stats(1000, 0, 5)), Decision::Rest);
    assert_eq!(
        plan.look(secs(11.0), &stats(1000, 0, 5)),
        Decision::Whole(Why::Failing)
    );
    plan.read(secs(11.0), reading(1000, true, 4));
    assert_eq!(plan.look(secs(30.0), &stats(1000, 0, 5)), Decision::Rest);
}

#[test]
fn doctor_follows_nat_while_its_burst_lasts() {
    let mut plan = read(Budget::once(0.01), 100_000, true);
    let mut readings = 0;
    for second in 1..20_u32 {
        let now = secs(f64::from(second));
        if plan.look(now, &stats(100_000 + second, 0, 0)) == Decision::Whole(Why::Follow) {
            plan.spent(Span::from_millis(300));
            plan.read(now, reading(100_000, true, 300));
            readings += 1;
        }
    }
    assert_eq!(readings, 3, "a second of CPU time");
    let mut without = read(Budget::once(0.01), 1000, false);
    assert_eq!(
        without.look(secs(1.0), &stats(1001, 0, 0)),
        Decision::Rest,
        "no NAT"
    );
    let mut still = read(Budget::once(0.01), 1000, true);
    assert_eq!(
        still.look(secs(1.0), &stats(1000, 0, 0)),
        Decision::Rest,
        "nothing moved"
    );
}

#[test]
fn crowded_ports_are_looked_at_closer_while_nat_fails() {
    let unclear = |entries, cpu| Reading {
        unclear: true,
        ..reading(entries, true, cpu)
    };
    let next = |budget, cpu, failed| {
        let mut plan = DumpPlan::new(budget);
        plan.look(Span::ZERO, &stats(60_000, 0, 0));
        plan.spent(Span::from_millis(cpu));
        plan.read(Span::ZERO, unclear(60_000, cpu));
        plan.look(secs(1.0), &stats(60_000, 0, failed))
    };
    let doctor = Budget::once(0.01);
    assert_eq!(next(doctor, 240, 5), Decision::Whole(Why::Closer));
    assert_eq!(
        next(doctor, 1200, 5),
        Decision::Whole(Why::Closer),
        "beyond what may be spent"
    );
    assert_eq!(next(doctor, 4000, 5), Decision::Rest, "the answer would be late");
    assert_eq!(next(doctor, 240, 0), Decision::Rest, "nothing fails");
    assert_eq!(next(Budget::steady(0.01), 240, 5), Decision::Rest, "in its turn");
}

#[test]
fn a_clock_that_goes_back_fills_no_purse() {
    let mut plan = read(Budget::steady(0.01), 1000, true);
    plan.look(secs(100.0), &stats(1000, 0, 0));
    plan.spent(secs(0.6));
    plan.look(secs(50.0), &stats(1000, 0, 0));
    assert_eq!(plan.allowance(), None);
}

/// Ten minutes of a table that always has something moving, at this size and cost an entry.
fn ten_minutes(count: u32, per_entry: Span) -> (f64, f64) {
    let mut plan = DumpPlan::new(Budget::steady(0.01));
    let (mut total, mut worst_minute, mut minute) = (0.0_f64, 0.0_f64, 0.0_f64);
    let mut left: Option<Span> = None;
    for second in 0..600_u32 {
        let now = secs(f64::from(second));
        let whole = per_entry.saturating_mul(count);
        if second % 60 == 0 {
            worst_minute = worst_minute.max(minute);
            minute = 0.0;
        }
        let slice = match left {
            Some(open) => {
                plan.refill(now);
                plan.allowance().map(|a| a.min(open))
            }
            None => match plan.look(now, &stats(count, second * 1000, second)) {
                Decision::Rest => None,
                Decision::Whole(_) => {
                    left = Some(whole);
                    Some(whole)
                }
                Decision::Slices(_) => {
                    left = Some(whole);
                    plan.allowance()
                }
            },
        };
        if let Some(slice) = slice {
            plan.spent(slice);
            total += slice.as_secs_f64();
            minute += slice.as_secs_f64();
            left = left.map(|l| l.saturating_sub(slice)).filter(|l| !l.is_zero());
            if left.is_none() {
                plan.read(
                    now,
                    Reading {
                        cpu: whole,
                        ..reading(count.into(), true, 0)
                    },
                );
            }
        }
    }
    (total, worst_minute.max(minute))
}

#[test]
fn the_budget_holds_whatever_the_table() {
    for count in [1000, 100_000, 300_000, 1_000_000, 4_000_000] {
        for per_entry in [2, 4, 8] {
            let (total, worst) = ten_minutes(count, Span::from_micros(per_entry));
            // 1 % of ten minutes, and what the bucket held at the start; one reading may cost twice what it was thought to.
            assert!(total <= 6.0 + 0.6 + 0.61, "{count} × {per_entry} µs: {total}");
            assert!(worst <= 1.9, "{count} × {per_entry} µs: {worst} s in a minute");
        }
    }
}

proptest! {
    #[test]
    fn any_statistics_are_survived(
        looks in prop::collection::vec((0u32..1000, any::<u32>(), any::<u32>(), any::<u32>()), 0..40),
        eager: bool,
    ) {
        let budget = if eager { Budget::once(0.01) } else { Budget::steady(0.01) };
        let mut plan = DumpPlan::new(budget);
        for (at, count, found, failed) in looks {
            let now = secs(f64::from(at));
            if plan.look(now, &stats(count, found, failed)) != Decision::Rest {
                plan.spent(Span::from_millis(3));
                plan.read(now, reading(count.into(), true, 3));
            }
        }
    }
}

use super::*;
use crate::observation::connect::{Bursts, Failures};

const TO: ([u8; 4], u16) = ([203, 0, 113, 9], 443);

fn key() -> Key {
    Key {
        proto: Proto::Tcp,
        source: [10, 0, 0, 2].into(),
        destination: TO.into(),
    }
}

/// A process that has opened and closed these many, each after a tenth of a second.
fn row(pid: u32, comm: &str, established: u64, closed_here: u64) -> ConnectRow {
    ConnectRow {
        process: ProcessIdentity {
            pid,
            start_ticks: 1,
            comm: comm.to_owned(),
            exe: None,
            runtime: None,
        },
        source: key().source,
        destination: key().destination,
        attempts: established,
        established,
        failed: Failures::default(),
        closed_here,
        closed_there: 0,
        reset_there: 0,
        open: established - closed_here,
        peak: 3,
        lifetime_total: Span::from_millis(100) * u32::try_from(closed_here).unwrap(),
        syn_retransmits: 0,
        bytes_sent: 0,
        bytes_received: 0,
        bursts: Bursts::default(),
        lifetimes: Vec::new(),
    }
}

fn at(seconds: u32) -> Timestamp {
    Timestamp::from_secs(1000) + Span::from_secs(seconds.into())
}

fn state(looks: impl IntoIterator<Item = (u32, Vec<ConnectRow>)>) -> ConnectState {
    let mut state = ConnectState::default();
    for (second, rows) in looks {
        let tally = ConnectTally {
            since: at(0),
            rows,
            ..ConnectTally::default()
        };
        state.apply(at(second), &tally);
    }
    state
}

#[test]
fn rate_life_and_concurrency_are_measured() {
    let state = state((1..=20).map(|i| (i, vec![row(7, "node", u64::from(i) * 40, u64::from(i) * 40 - 4)])));
    let seen = state.seen(&key()).unwrap();
    let opens = seen.opens.unwrap();
    assert_eq!(
        (opens.per_second, opens.basis, opens.lower_bound),
        (40.0, Basis::Counted, false)
    );
    assert_eq!(seen.mean_lifetime, Some(Span::from_millis(100)));
    assert_eq!(seen.mean_concurrency(), Some(4.0));
    assert!(state.turns_over(&key(), 40.0));
    assert!(!state.turns_over(&key(), 100.0));
}

#[test]
fn a_rate_needs_time_and_begins_with_the_counting() {
    let first = |second| {
        state([(second, vec![row(7, "node", 30, 30)])])
            .seen(&key())
            .unwrap()
    };
    assert_eq!(first(0).opens, None);
    assert_eq!(first(2).opens.map(|o| o.per_second), Some(15.0));
    // Nothing of it was there at the look before.
    let late = state([(8, vec![]), (9, vec![row(7, "node", 30, 30)])]);
    assert_eq!(late.seen(&key()).unwrap().opens.map(|o| o.per_second), Some(30.0));
}

#[test]
fn a_clock_that_is_set_does_not_change_rates() {
    for step in [-3600_i64, 3600] {
        let mut state = ConnectState::default();
        let mut told = Vec::new();
        for i in 0..20_u32 {
            let set = if i < 10 { 0 } else { step };
            let moved = |second: u32| Timestamp::from_secs(1000 + i64::from(second) + set);
            let n = u64::from(i) * 40;
            let tally = ConnectTally {
                since: moved(0),
                rows: vec![row(7, "node", n, n)],
                ..ConnectTally::default()
            };
            state.apply(moved(i), &tally);
            let seen = state.seen(&key()).unwrap();
            assert_eq!(seen.watched, Span::from_secs(i.into()), "{step} {i}");
            told.push(seen.opens.map(|o| o.per_second));
        }
        // Unknown at the first look, and at that of the step.
        let right = |(i, rate): (usize, &Option<f64>)| match i {
            0 | 10 => rate.is_none(),
            _ => *rate == Some(40.0),
        };
        assert!(told.iter().enumerate().all(right), "{step}: {told:?}");
        assert_eq!(state.recent(&key()).unwrap().over, Span::from_secs(9));
        assert!(state.turns_over(&key(), 40.0));
    }
}

#[test]
fn a_pool_that_fills_and_a_program_that_ended_do_not_turn_over() {
    let filling = state((1..=6).map(|i| (i, vec![row(7, "node", u64::from(i) * 40, 0)])));
    assert!(!filling.turns_over(&key(), 5.0));
    assert_eq!(filling.seen(&key()).unwrap().mean_concurrency(), None);
    let ended = state((1..=6).map(|i| (i, vec![row(7, "node", 40, 40)])));
    assert!(!ended.turns_over(&key(), 5.0));
}

#[test]
fn the_owner_opened_more_than_half() {
    for (name, rows, expected) in [
        ("one", vec![row(7, "node", 10, 0)], Some((7, 1, 10, 10))),
        (
            "workers add up, and the busiest is named",
            vec![row(7, "node", 4, 0), row(8, "node", 5, 0), row(9, "curl", 6, 0)],
            Some((8, 2, 9, 15)),
        ),
        ("a tie", vec![row(7, "node", 5, 0), row(9, "curl", 5, 0)], None),
        ("nobody", vec![row(7, "node", 0, 0)], None),
    ] {
        let owner = state([(1, rows)]).seen(&key()).unwrap().owner;
        let got = owner.map(|o| (o.process.pid, o.processes, o.sockets, o.known));
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn the_process_that_was_refused_a_port_is_named_and_counts_as_owner_where_none_succeeded() {
    let mut row = row(7, "node", 0, 0);
    row.attempts = 5;
    row.failed.no_port = 5;
    row.failed.no_port_first = Some(at(1));
    row.failed.no_port_last = Some(at(3));
    let seen = state([(3, vec![row])]).seen(&key()).unwrap();
    let no_port = seen.no_port.unwrap();
    assert_eq!((no_port.count, no_port.first, no_port.last), (5, at(1), at(3)));
    assert_eq!((no_port.process.pid, seen.owner.unwrap().process.pid), (7, 7));
}

#[test]
fn memory_follows_the_newest_counts() {
    let mut state = ConnectState::default();
    for i in 0..200_u32 {
        let mut one = row(7, "node", 1, 0);
        one.destination.set_port(u16::try_from(i % 50).unwrap());
        let tally = ConnectTally {
            rows: vec![one],
            ..ConnectTally::default()
        };
        state.apply(at(i), &tally);
        assert_eq!(state.keys().count(), 1);
    }
    let busy = (0..200).map(|i| (i, vec![row(7, "node", 1, 0)]));
    let kept = self::state(busy);
    assert!(kept.samples.values().all(|s| s.len() <= MAX_SAMPLES));
}

#[test]
fn what_came_after_a_moment_is_told_from_the_look_before_it() {
    let state = state([
        (2, vec![row(1, "node", 10, 4)]),
        (4, vec![row(1, "node", 15, 5)]),
        (6, vec![row(1, "node", 18, 9)]),
    ]);
    let after = |second| {
        state
            .after(&key(), at(second))
            .map(|a| (a.attempts, a.established, a.closed))
    };
    assert_eq!(after(4), Some((3, 3, 4)));
    // Between two looks: from the earlier, so that none is missed.
    assert_eq!(after(5), Some((3, 3, 4)));
    // From the beginning on all that was counted.
    assert_eq!(after(0), Some((18, 18, 9)));
    // Before counting began nothing is known; a destination without a row has none.
    assert_eq!(state.after(&key(), Timestamp::from_secs(1)), None);
    let other = Key {
        destination: ([203, 0, 113, 9], 80).into(),
        ..key()
    };
    assert_eq!(state.after(&other, at(4)), Some(After::default()));
}

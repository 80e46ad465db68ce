use super::*;
use crate::observation::socket::StateCounts;
use crate::types::Proto;

/// A look: when (s), established, TIME_WAIT classes (oldest first), inodes.
type Look<'a> = (f64, u32, [u32; 6], &'a [u32]);

fn history(looks: &[Look<'_>]) -> History {
    let mut history = History::default();
    for (at, established, left, inodes) in looks {
        let mut states = StateCounts::default();
        states.0[TcpState::Established as usize] = *established;
        states.0[TcpState::TimeWait as usize] = left.iter().sum();
        let tally = DestinationTally {
            proto: Proto::Tcp,
            source: [10, 0, 0, 2].into(),
            destination: ([203, 0, 113, 9], 443).into(),
            states,
            ports_in_range: states.total(),
            time_wait_left: *left,
            inodes: inodes.to_vec(),
            uids: Vec::new(),
        };
        history.push(Timestamp::EPOCH + Span::from_secs_f64(*at), &tally);
    }
    history
}

#[test]
fn opens_per_second() {
    for (name, looks, expected) in [
        ("nothing", vec![], None),
        ("one look at an idle pool", vec![(0.0, 9, [0; 6], &[][..])], None),
        (
            "one look at a churn",
            vec![(0.0, 0, [100; 6], &[][..])],
            Some((10.0, Basis::TimeWait, false)),
        ),
        (
            "one look just after the start",
            vec![(0.0, 0, [0, 0, 0, 0, 0, 40], &[][..])],
            Some((4.0, Basis::TimeWait, true)),
        ),
        (
            "growth tells what the class of 10 s spreads",
            vec![(0.0, 0, [0; 6], &[][..]), (4.0, 8, [0, 0, 0, 0, 0, 400], &[][..])],
            Some((102.0, Basis::Growth, false)),
        ),
        (
            "steady: as many expire as are opened",
            vec![(0.0, 0, [100; 6], &[][..]), (5.0, 0, [100; 6], &[][..])],
            Some((10.0, Basis::TimeWait, false)),
        ),
        (
            "closed by the other side: only new sockets tell",
            vec![
                (0.0, 3, [0; 6], &[1, 2, 3][..]),
                (1.0, 3, [0; 6], &[4, 5, 6][..]),
                (2.0, 3, [0; 6], &[7, 8, 9][..]),
            ],
            Some((3.0, Basis::Appeared, true)),
        ),
        (
            "an idle pool opens nothing",
            vec![(0.0, 2, [0; 6], &[1, 2][..]), (2.0, 2, [0; 6], &[2, 1][..])],
            Some((0.0, Basis::Growth, false)),
        ),
    ] {
        let got = history(&looks)
            .opens()
            .map(|o| (o.per_second, o.basis, o.lower_bound));
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn an_incomplete_list_of_inodes_tells_the_least() {
    // The list holds the greatest: what is greater than all of them is new, and has taken the place of another.
    let looks = [(0.0, 9, [0; 6], &[2, 1][..]), (2.0, 9, [0; 6], &[4, 3][..])];
    let h = history(&looks);
    assert_eq!(
        h.opens().map(|o| (o.per_second, o.basis, o.lower_bound)),
        Some((1.0, Basis::Appeared, true))
    );
    assert_eq!(h.newest().and_then(|s| s.vanished), Some(2));
    // A pool that grows loses none.
    let looks = [(0.0, 9, [0; 6], &[2, 1][..]), (2.0, 11, [0; 6], &[4, 3][..])];
    assert_eq!(history(&looks).newest().and_then(|s| s.vanished), Some(0));
    // What was named and now is not may have slipped below the list; nothing is known of what was never named.
    for inodes in [[&[5, 4][..], &[4, 3]], [&[], &[4, 3]]] {
        let looks = [(0.0, 9, [0; 6], inodes[0]), (2.0, 9, [0; 6], inodes[1])];
        let h = history(&looks);
        assert_eq!(h.newest().and_then(|s| s.vanished), Some(0));
        assert_eq!(h.opens().map(|o| o.basis), Some(Basis::Growth));
    }
}

#[test]
fn a_burst_of_closes_is_not_a_churn() {
    let none = &[][..];
    for (name, looks, steady) in [
        ("one look", vec![(0.0, 0, [0, 0, 0, 0, 0, 500], none)], false),
        ("a minute of it", vec![(0.0, 0, [100; 6], none)], true),
        (
            "a pool shut down while watched",
            vec![
                (0.0, 500, [0; 6], none),
                (1.0, 500, [0; 6], none),
                (2.0, 0, [0, 0, 0, 0, 0, 500], none),
                (3.0, 0, [0, 0, 0, 0, 0, 500], none),
            ],
            false,
        ),
        (
            "begun while watched",
            vec![
                (0.0, 0, [0, 0, 0, 0, 0, 0], none),
                (1.0, 1, [0, 0, 0, 0, 0, 10], none),
                (2.0, 0, [0, 0, 0, 0, 0, 20], none),
                (3.0, 2, [0, 0, 0, 0, 0, 30], none),
            ],
            true,
        ),
        (
            "closed by the other side, seen by vanishing sockets",
            vec![
                (0.0, 5, [0; 6], &[1, 2, 3, 4, 5]),
                (1.0, 5, [0; 6], &[6, 7, 8, 9, 10]),
                (2.0, 5, [0; 6], &[11, 12, 13, 14, 15]),
            ],
            true,
        ),
        (
            "a pool that fills",
            vec![
                (0.0, 100, [0; 6], none),
                (1.0, 200, [0; 6], none),
                (2.0, 300, [0; 6], none),
            ],
            false,
        ),
        (
            "all opened at once and kept",
            vec![
                (0.0, 0, [0; 6], none),
                (1.0, 400, [0; 6], none),
                (2.0, 400, [0; 6], none),
            ],
            false,
        ),
    ] {
        assert_eq!(history(&looks).turns_over(5.0), steady, "{name}");
    }
}

#[test]
fn concurrency_and_growth() {
    let none = &[][..];
    let h = history(&[
        (0.0, 10, [0; 6], none),
        (1.0, 20, [0; 6], none),
        (2.0, 30, [0; 6], none),
        (3.0, 40, [0; 6], none),
    ]);
    assert_eq!(h.mean_concurrency(), Some(25.0));
    assert_eq!(h.peak_concurrency(), 40);
    assert_eq!(h.held_per_second(), Some(10.0));
    assert!(h.rising(1000) && !h.rising(28_232));
    assert_eq!(History::default().mean_concurrency(), None);
}

#[test]
fn memory_is_bounded() {
    let mut all = Vec::new();
    let inodes: Vec<u32> = (0..1000).collect();
    for i in 0..100_u32 {
        all.push((f64::from(i), 5, [0; 6], &inodes[i as usize..i as usize + 5]));
    }
    let h = history(&all);
    assert_eq!(h.samples().count(), MAX_SAMPLES);
    assert_eq!(h.inodes().count(), MAX_INODES);
    assert_eq!(h.inodes().next_back(), Some(103));
}

#[test]
fn a_clock_that_is_set_does_not_change_rates() {
    // 20 a second, and each closed at once.
    let at = |second: u32| {
        let closed = second * 20;
        let left = [0, 0, 0, 0, closed.saturating_sub(200), closed.min(200)];
        (f64::from(second), 4, left, &[][..])
    };
    for step in [-1000.0, 3600.0] {
        let set: Vec<_> = (0..12_u32)
            .map(|i| {
                let (second, established, left, inodes) = at(i);
                let moved = if i < 6 { 0.0 } else { step };
                (5000.0 + second + moved, established, left, inodes)
            })
            .collect();
        let told = history(&set);
        let opens = told.opens().unwrap();
        assert_eq!((opens.per_second, opens.basis), (20.0, Basis::Growth), "{step}");
        assert_eq!(
            told.samples().count(),
            6,
            "what was before the step is of another time"
        );
        assert!(told.turns_over(20.0), "{step}");
    }
}

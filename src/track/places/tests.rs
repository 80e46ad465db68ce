//! Two captures around a translation: what passes, what is lost which way, clocks that differ.

use std::net::SocketAddr;

use super::*;
use crate::observation::packet::{Bytes, Direction as Passing, WirePacket};
use crate::time::{Span, Timestamp};

const CLIENT: &str = "10.0.0.2:51820";
const NAT: &str = "203.0.113.1:20001";
const REBOUND: &str = "203.0.113.1:20002";
const SERVER: &str = "198.51.100.9:51820";

/// Nanoseconds by which the second clock is ahead, and of one way.
const OFFSET: i64 = 7_300_000_000;
const DELAY: i64 = 10_000_000;

struct Two {
    first: PlaceLog,
    second: PlaceLog,
    nat: &'static str,
    directions: bool,
}

/// Where a message gets lost.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Arrives,
    Lost,
}
use Fate::{Arrives, Lost};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000_000 + millis * 1_000_000)
}

fn packet(from: &str, to: &str, direction: Passing, payload: &[u8], len: u32) -> WirePacket {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    WirePacket {
        direction,
        if_index: None,
        source: addr(from),
        destination: addr(to),
        tos: 0,
        payload_len: len,
        payload: Bytes(payload.to_vec()),
    }
}

impl Two {
    fn new() -> Self {
        Self {
            first: PlaceLog::default(),
            second: PlaceLog::default(),
            nat: NAT,
            directions: false,
        }
    }

    /// A message that leaves at `millis` of the first clock.
    fn send(&mut self, millis: i64, onward: bool, payload: &[u8], len: u32, fate: Fate) {
        let known = |d| if self.directions { d } else { Passing::Unknown };
        let here = at(millis);
        let shift = |t: Timestamp, nanos: i64| Timestamp::from_nanos(t.as_nanos() + nanos);
        let (at_first, at_second) = match onward {
            true => (here, shift(here, OFFSET + DELAY)),
            false => (shift(here, DELAY), shift(here, OFFSET)),
        };
        let (a, b) = match onward {
            true => (
                packet(CLIENT, SERVER, known(Passing::Out), payload, len),
                packet(self.nat, SERVER, known(Passing::In), payload, len),
            ),
            false => (
                packet(SERVER, CLIENT, known(Passing::In), payload, len),
                packet(SERVER, self.nat, known(Passing::Out), payload, len),
            ),
        };
        if onward || fate == Arrives {
            self.first.passed(at_first);
            self.first.packet(at_first, &a);
        }
        if !onward || fate == Arrives {
            self.second.passed(at_second);
            self.second.packet(at_second, &b);
        }
    }

    fn initiation(&mut self, millis: i64, sender: u32, fate: Fate) {
        let mut payload = vec![1, 0, 0, 0];
        payload.extend(sender.to_le_bytes());
        payload.resize(116, 7);
        payload.extend(sender.to_le_bytes().repeat(8));
        self.send(millis, true, &payload, 148, fate);
    }

    fn response(&mut self, millis: i64, receiver: u32, sender: u32, fate: Fate) {
        let mut payload = vec![2, 0, 0, 0];
        payload.extend(sender.to_le_bytes());
        payload.extend(receiver.to_le_bytes());
        payload.resize(92, 7);
        self.send(millis, false, &payload, 92, fate);
    }

    fn data(&mut self, millis: i64, onward: bool, counter: u64, len: u32, fate: Fate) {
        let index: u32 = if onward { 9 } else { 1 };
        let mut payload = vec![4, 0, 0, 0];
        payload.extend(index.to_le_bytes());
        payload.extend(counter.to_le_bytes());
        self.send(millis, onward, &payload, len, fate);
    }

    fn handshake(&mut self) -> &mut Self {
        self.initiation(0, 1, Arrives);
        self.response(20, 1, 9, Arrives);
        self
    }

    fn compare(&self) -> Comparison {
        Comparison::of(&self.first, &self.second)
    }
}

#[test]
fn a_healthy_link_and_its_clocks() {
    for directions in [false, true] {
        let mut two = Two::new();
        two.directions = directions;
        two.handshake();
        for n in 0..50i64 {
            two.data(100 + n * 10, true, n.unsigned_abs(), 128, Arrives);
            two.data(105 + n * 10, false, n.unsigned_abs(), 128, Arrives);
        }
        let c = two.compare();
        assert!(c.is_of_two_places());
        assert_eq!(
            (c.clocks.offset(), c.clocks.uncertainty()),
            (Some(OFFSET), Some(10_000_000))
        );
        let [link] = c.links.as_slice() else {
            panic!("{c:?}")
        };
        assert_eq!(link.ends.map(|e| e.to_string()), [CLIENT, SERVER]);
        assert_eq!(link.ends_at_second.unwrap().map(|e| e.to_string()), [NAT, SERVER]);
        assert!(link.oriented);
        // The last ones left so late that they may have come after the other capture's end.
        assert!(link.onward.lost() == 0 && link.back.lost() == 0, "{link:?}");
        assert_eq!(link.common, 102);
        let translated: Vec<_> = link.mappings.iter().filter(|m| m.is_translated()).collect();
        assert_eq!(translated.len(), 1);
        assert_eq!(link.remapped().count(), 0);
    }
}

#[test]
fn losses_have_a_direction() {
    for (lost_onward, lost_back) in [(true, false), (false, true), (true, true), (false, false)] {
        let fate = |lost| if lost { Lost } else { Arrives };
        let mut two = Two::new();
        two.handshake();
        for n in 0..100i64 {
            let is_late = n >= 50;
            two.data(
                100 + n * 50,
                true,
                n.unsigned_abs(),
                128,
                fate(lost_onward && is_late),
            );
            two.data(
                105 + n * 50,
                false,
                n.unsigned_abs(),
                128,
                fate(lost_back && is_late),
            );
        }
        // Something else passes both places to the end.
        two.first.passed(at(9_000));
        two.second
            .passed(Timestamp::from_nanos(at(9_000).as_nanos() + OFFSET));
        let c = two.compare();
        let [link] = c.links.as_slice() else {
            panic!("{c:?}")
        };
        let expected = |lost| if lost { 50 } else { 0 };
        assert_eq!(
            link.onward.lost(),
            expected(lost_onward),
            "{lost_onward} {lost_back}: {link:?}"
        );
        assert_eq!(
            link.back.lost(),
            expected(lost_back),
            "{lost_onward} {lost_back}: {link:?}"
        );
        assert_eq!((link.onward.sent(), link.back.sent()), (101, 101));
        if lost_onward {
            assert_eq!(link.onward.lost_from, Some(at(100 + 50 * 50)));
        }
    }
}

#[test]
fn what_leaves_after_the_other_capture_ended_is_not_called_lost() {
    let mut two = Two::new();
    two.handshake();
    for n in 0..10i64 {
        two.data(100 + n * 10, true, n.unsigned_abs(), 128, Arrives);
    }
    for n in 10..20i64 {
        two.data(5_000 + n * 10, true, n.unsigned_abs(), 128, Lost);
    }
    let c = two.compare();
    assert_eq!((c.links[0].onward.lost(), c.links[0].onward.after_end), (0, 10));
}

#[test]
fn responses_that_do_not_arrive() {
    let mut two = Two::new();
    for n in 0..3u32 {
        two.initiation(i64::from(n) * 5_200, n + 1, Arrives);
        two.response(i64::from(n) * 5_200 + 20, n + 1, n + 100, Lost);
    }
    two.first.passed(at(20_000));
    let c = two.compare();
    let [link] = c.links.as_slice() else {
        panic!("{c:?}")
    };
    assert_eq!(link.ends.map(|e| e.to_string()), [CLIENT, SERVER]);
    assert_eq!((link.onward.initiations, link.onward.initiations_arrived), (3, 3));
    assert_eq!(
        (link.back.responses, link.back.responses_arrived),
        (3, 0),
        "{link:?}"
    );
}

#[test]
fn sizes_tell_a_black_hole() {
    let mut two = Two::new();
    two.handshake();
    for n in 0..40i64 {
        let large = n % 2 == 0;
        let (len, fate) = if large { (1452, Lost) } else { (1292, Arrives) };
        two.data(100 + n * 10, true, n.unsigned_abs(), len, fate);
        two.data(105 + n * 10, false, n.unsigned_abs(), 96, Arrives);
    }
    two.second
        .passed(Timestamp::from_nanos(at(9_000).as_nanos() + OFFSET));
    let c = two.compare();
    let size = c.links[0].onward.size.unwrap();
    assert_eq!(
        (size.largest_arrived, size.smallest_lost, size.lost_above),
        (1260, 1420, 20)
    );
    assert_eq!(c.links[0].back.size, None);
}

#[test]
fn another_mapping_of_the_same_party() {
    let mut two = Two::new();
    two.handshake();
    for n in 0..10i64 {
        two.data(100 + n * 10, true, n.unsigned_abs(), 128, Arrives);
    }
    two.nat = REBOUND;
    for n in 10..20i64 {
        two.data(40_000 + n * 10, true, n.unsigned_abs(), 128, Arrives);
    }
    let c = two.compare();
    let [link] = c.links.as_slice() else {
        panic!("{c:?}")
    };
    let [(before, after)] = link.remapped().collect::<Vec<_>>()[..] else {
        panic!("{link:?}")
    };
    assert_eq!(
        (before.second.to_string(), after.second.to_string()),
        (NAT.to_owned(), REBOUND.to_owned())
    );
    let silence = after.silence.unwrap();
    assert!(
        silence > Span::from_secs(39) && silence < Span::from_secs(41),
        "{silence:?}"
    );
}

#[test]
fn captures_without_anything_in_common_are_no_two_places() {
    let mut two = Two::new();
    two.initiation(0, 1, Lost);
    let mut other = Two::new();
    other.initiation(0, 2, Arrives);
    let c = Comparison::of(&two.first, &other.second);
    assert!(!c.is_of_two_places());
}

#[test]
fn memory_is_bounded_and_thinned_data_still_compares() {
    let mut two = Two::new();
    two.handshake();
    let n = i64::try_from(KEPT).unwrap() * 3;
    for counter in 0..n {
        let fate = if counter % 4 == 0 { Lost } else { Arrives };
        two.data(100 + counter, true, counter.unsigned_abs() * 3, 128, fate);
    }
    for log in [&two.first, &two.second] {
        assert!(log.streams.values().map(|s| s.samples.len()).sum::<usize>() <= KEPT);
    }
    let c = two.compare();
    assert!(c.one_in > 1);
    let link = &c.links[0];
    assert!(link.onward.data > 1000 && link.onward.lost() > 0, "{link:?}");
}

proptest::proptest! {
    /// Nothing is lost twice, nothing arrives that was not sent, whatever the two places saw.
    #[test]
    fn any_two_logs(events in proptest::collection::vec((0u8..4, 0u32..4, 0u64..20, 0u8..3, -50i64..50), 0..120)) {
        let mut two = Two::new();
        for (n, (kind, index, counter, fate, jitter)) in events.into_iter().enumerate() {
            let millis = i64::try_from(n).unwrap() * 10 + jitter;
            let fate = if fate == 0 { Lost } else { Arrives };
            match kind {
                0 => two.initiation(millis, index, fate),
                1 => two.response(millis, index, index + 7, fate),
                _ => two.data(millis, kind == 2, counter, 96 + index * 16, fate),
            }
        }
        let c = two.compare();
        for link in &c.links {
            for passage in [&link.onward, &link.back] {
                proptest::prop_assert!(passage.arrived() <= passage.sent());
            }
        }
    }
}

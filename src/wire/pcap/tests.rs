//! Files built by hand, both formats, both byte orders; and any bytes at all.

use proptest::prelude::*;

use super::*;

/// A packet as a test compares it.
type Seen = (Option<i64>, LinkType, Direction, u32, Vec<u8>);

/// Reads `file` in one piece; the error or what is left comes last.
fn read(file: &[u8]) -> (Vec<Seen>, Result<usize, PcapError>) {
    let mut decoder = Decoder::new();
    let (mut seen, mut rest) = (Vec::new(), file);
    loop {
        match decoder.step(rest) {
            Err(error) => return (seen, Err(error)),
            Ok(Step::Need(need)) => {
                assert!(
                    need > rest.len() && need <= MAX_NEED,
                    "needs {need} of {}",
                    rest.len()
                );
                return (seen, Ok(rest.len()));
            }
            Ok(Step::Skip(length)) => {
                assert!(length > 0);
                rest = usize::try_from(length)
                    .ok()
                    .and_then(|l| rest.get(l..))
                    .unwrap_or(&[]);
            }
            Ok(Step::Packet { packet: p, used }) => {
                assert!(used > 0 && p.bytes.len() <= used && p.bytes.len() <= p.wire_len as usize);
                let at = p.at.map(Timestamp::as_nanos);
                seen.push((at, p.link, p.direction, p.wire_len, p.bytes.to_vec()));
                rest = &rest[used..];
            }
        }
    }
}

fn problem(file: &[u8]) -> (u64, Problem) {
    let error = read(file).1.expect_err("an error");
    (error.offset, error.problem)
}

/// Writes numbers in one byte order.
#[derive(Clone, Copy)]
struct Writer(Order);

impl Writer {
    fn n16(self, n: u16) -> [u8; 2] {
        if self.0 == Order::Little {
            n.to_le_bytes()
        } else {
            n.to_be_bytes()
        }
    }

    fn n32(self, n: u32) -> [u8; 4] {
        if self.0 == Order::Little {
            n.to_le_bytes()
        } else {
            n.to_be_bytes()
        }
    }

    fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| self.n32(*w)).collect()
    }

    fn pcap(self, magic: u32, link: u32) -> Vec<u8> {
        let version = [self.n16(2), self.n16(4)].concat();
        [&self.n32(magic)[..], &version, &self.words(&[0, 0, 65535, link])].concat()
    }

    fn record(self, secs: u32, fraction: u32, wire: u32, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        [&self.words(&[secs, fraction, length, wire]), bytes].concat()
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = self.n32(u32::try_from(body.len() + 12).unwrap());
        [&self.n32(kind)[..], &length, &body, &length].concat()
    }

    fn section(self) -> Vec<u8> {
        let magic = [
            &self.n32(BYTE_ORDER_MAGIC)[..],
            &self.n16(1),
            &self.n16(0),
            &[0xff; 8],
        ]
        .concat();
        self.block(0x0a0d_0d0a, &magic)
    }

    fn interface(self, link: u16, snap_len: u32, options: &[u8]) -> Vec<u8> {
        self.block(
            1,
            &[&self.n16(link)[..], &[0, 0], &self.n32(snap_len), options].concat(),
        )
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let length = self.n16(u16::try_from(value.len()).unwrap());
        let mut option = [&self.n16(code)[..], &length, value].concat();
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn enhanced(self, interface: u32, time: u64, wire: u32, bytes: &[u8], options: &[u8]) -> Vec<u8> {
        let (high, low) = (u32::try_from(time >> 32).unwrap(), (time & 0xffff_ffff) as u32);
        let length = u32::try_from(bytes.len()).unwrap();
        let mut body = [&self.words(&[interface, high, low, length, wire]), bytes].concat();
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(options);
        self.block(6, &body)
    }
}

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const BOTH: [Writer; 2] = [Writer(Order::Little), Writer(Order::Big)];
const NO_DIRECTION: Direction = Direction::Unknown;

#[test]
fn pcap_in_both_orders_and_units() {
    for w in BOTH {
        for (magic, nanos) in [(0xa1b2_c3d4, 7_000), (0xa1b2_3c4d, 7)] {
            // The length of a frame check sequence sits above the link type.
            let file = [
                w.pcap(magic, 0x2400_0001),
                w.record(5, 7, 3, &[1, 2, 3]),
                w.record(6, 0, 90, &[]),
            ]
            .concat();
            let (seen, end) = read(&file);
            assert_eq!(end, Ok(0));
            assert_eq!(
                seen,
                [
                    (
                        Some(5_000_000_000 + nanos),
                        LinkType::Ethernet,
                        NO_DIRECTION,
                        3,
                        vec![1, 2, 3]
                    ),
                    (Some(6_000_000_000), LinkType::Ethernet, NO_DIRECTION, 90, vec![]),
                ]
            );
        }
    }
}

#[test]
fn pcapng_with_sections_interfaces_and_options() {
    for w in BOTH {
        let nanos = [w.option(2, b"eth0"), w.option(9, &[9]), w.option(0, &[])].concat();
        let file = [
            w.section(),
            w.interface(1, 0, &nanos),
            w.interface(113, 0, &[]),
            w.block(0x0000_0bad, &[1; 40]),
            w.enhanced(0, 5_000_000_007, 60, &[1, 2, 3, 4, 5], &w.option(2, &w.n32(2))),
            w.block(4, &[0; 400]),
            w.enhanced(1, 5_000_007, 5, &[9; 5], &w.option(1, b"a comment")),
            // Another section, another order, other interfaces.
            Writer(Order::Big).section(),
            Writer(Order::Big).interface(101, 4, &[]),
            Writer(Order::Big).block(3, &[&9u32.to_be_bytes()[..], &[7; 4]].concat()),
            Writer(Order::Big).block(2, &[&[0, 0, 0, 0][..], &w_words(&[0, 3, 2, 2]), &[8; 2]].concat()),
        ]
        .concat();
        let (seen, end) = read(&file);
        assert_eq!(end, Ok(0));
        assert_eq!(
            seen,
            [
                (
                    Some(5_000_000_007),
                    LinkType::Ethernet,
                    Direction::Out,
                    60,
                    vec![1, 2, 3, 4, 5]
                ),
                (
                    Some(5_000_007_000),
                    LinkType::LinuxCooked,
                    NO_DIRECTION,
                    5,
                    vec![9; 5]
                ),
                (None, LinkType::RawIp, NO_DIRECTION, 9, vec![7; 4]),
                (Some(3_000), LinkType::RawIp, NO_DIRECTION, 2, vec![8; 2]),
            ]
        );
    }
}

fn w_words(words: &[u32]) -> Vec<u8> {
    Writer(Order::Big).words(words)
}

#[test]
fn lost_packets_add_up_over_interfaces_and_sections() {
    let w = BOTH[0];
    let statistics = |interface, lost: u64| {
        let options = [w.option(4, &9u64.to_le_bytes()), w.option(5, &lost.to_le_bytes())].concat();
        w.block(5, &[w.words(&[interface, 0, 0]), options].concat())
    };
    let mut file = [w.section(), w.interface(1, 0, &[]), w.interface(1, 0, &[])].concat();
    let lost = |file: &[u8]| {
        let mut decoder = Decoder::new();
        let mut rest = file;
        while let Ok(Step::Skip(length)) = decoder.step(rest) {
            rest = &rest[usize::try_from(length).unwrap()..];
        }
        decoder.lost()
    };
    assert_eq!(lost(&file), None);
    for (more, expected) in [
        (statistics(0, 3), 3),
        (statistics(1, 4), 7),
        (statistics(1, 6), 9),
        (statistics(7, 100), 9),
        ([w.section(), w.interface(1, 0, &[])].concat(), 9),
        (statistics(0, 1), 10),
    ] {
        file.extend(more);
        assert_eq!(lost(&file), Some(expected));
    }
}

#[test]
fn what_cannot_be_read_says_where_and_why() {
    let w = BOTH[0];
    let pcap = w.pcap(0xa1b2_c3d4, 1);
    let ng = [w.section(), w.interface(1, 0, &[])].concat();
    let at = |file: &[u8]| file.len() as u64;
    let magic = [0x1f, 0x8b, 8, 0];
    assert_eq!(problem(&magic), (0, Problem::NotACapture { magic }));
    assert!(read(&magic).1.unwrap_err().to_string().contains("gunzip"));
    assert!(matches!(
        problem(&w.pcap(0xa1b2_cd34, 1)),
        (0, Problem::Modified { .. })
    ));
    assert!(matches!(
        problem(&BOTH[1].pcap(0xa1b2_34cd, 1)),
        (0, Problem::Modified { .. })
    ));

    let long = [&pcap[..], &w.words(&[0, 0, 262_145, 1])].concat();
    assert_eq!(problem(&long), (24, Problem::PacketTooLong { length: 262_145 }));
    let mut old = pcap.clone();
    old[4] = 1;
    assert!(matches!(problem(&old), (0, Problem::Version { major: 1, .. })));

    let stranger = [&ng[..], &w.enhanced(1, 0, 1, &[1], &[])].concat();
    assert_eq!(
        problem(&stranger),
        (
            at(&ng),
            Problem::NoSuchInterface {
                interface: 1,
                known: 1
            }
        )
    );
    let mut torn = [&ng[..], &w.enhanced(0, 0, 1, &[1], &[])].concat();
    let last = torn.len() - 4;
    torn[last] ^= 4;
    assert!(matches!(problem(&torn), (offset, Problem::BlockEnd { .. }) if offset == at(&ng)));
    for length in [8, 30, 29, 0, 400_000] {
        let bad = [&ng[..], &w.words(&[6, length])].concat();
        assert!(
            matches!(problem(&bad), (offset, Problem::BlockLength { .. }) if offset == at(&ng)),
            "{length}"
        );
    }
    let mut bigger = w.enhanced(0, 0, 9, &[1; 9], &[]);
    bigger[20] = 13;
    assert_eq!(
        problem(&[&ng[..], &bigger].concat()),
        (at(&ng), Problem::PacketTooLong { length: 13 })
    );
    let mut order = w.section();
    order[8] = 0;
    assert_eq!(
        problem(&order),
        (
            0,
            Problem::ByteOrder {
                got: [0, 0x3c, 0x2b, 0x1a]
            }
        )
    );
    let many = [w.section(), w.interface(1, 0, &[]).repeat(4097)].concat();
    assert!(matches!(
        problem(&many),
        (_, Problem::TooManyInterfaces { limit: 4096 })
    ));
}

/// Sound files in all flavours, of the packets in `packets`.
fn sound(packets: &[Vec<u8>], w: Writer, ng: bool) -> Vec<u8> {
    let mut file = if ng {
        [w.section(), w.interface(1, 0, &[])].concat()
    } else {
        w.pcap(0xa1b2_c3d4, 1)
    };
    for (n, bytes) in (0u32..).zip(packets) {
        let length = u32::try_from(bytes.len()).unwrap();
        file.extend(match ng {
            true => w.enhanced(0, n.into(), length, bytes, &[]),
            false => w.record(0, n, length, bytes),
        });
    }
    file
}

proptest! {
    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..400), start in 0usize..5) {
        let w = BOTH[start % 2];
        let head = match start {
            0 | 1 => w.pcap(0xa1b2_c3d4, 1),
            2 | 3 => [w.section(), w.interface(1, 0, &[])].concat(),
            _ => vec![],
        };
        let _ = read(&[head, bytes].concat());
    }

    #[test]
    fn damage_is_an_error_or_changes_packets_but_never_hangs(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..8),
        little: bool, ng: bool, place: prop::sample::Index, byte: u8,
    ) {
        let mut file = sound(&packets, BOTH[usize::from(little)], ng);
        let place = place.index(file.len());
        file[place] = byte;
        let _ = read(&file);
    }

    #[test]
    fn what_was_written_is_read(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..8),
        little: bool, ng: bool, cut: prop::sample::Index,
    ) {
        let file = sound(&packets, BOTH[usize::from(little)], ng);
        let (seen, end) = read(&file);
        prop_assert_eq!(end, Ok(0));
        let bytes: Vec<_> = seen.iter().map(|s| s.4.clone()).collect();
        prop_assert_eq!(&bytes, &packets);
        // Cut anywhere, it gives the packets before the cut and no error.
        let (some, end) = read(&file[..cut.index(file.len())]);
        prop_assert!(end.is_ok() && some == seen[..some.len()]);
    }
}

//! The filter in the kernel: of all packets only handshake messages on any port, and ICMP errors about WireGuard; in a
//! flood a share of the initiations that come in ([`sampling`]).
//!
//! Data messages stay out (`data_filter` samples these), so a saturated tunnel costs a few loads a packet and no copy. The program reads from the
//! network header on, as a cooked packet socket shows packets. IPv6 with extension headers and fragments stay out:
//! a handshake message needs neither.

use crate::sys::cbpf::{AssembleError, Assembler, Instruction, Label, Test};
use crate::wire::wireguard::Kind;

/// Bytes that are handed out of each packet: the most that a handshake message (60 + 8 + 148) or an error that
/// quotes one (60 + 8 + 60 + 8 + 148) takes.
pub const SNAP: u32 = 320;

pub(super) const ETHERTYPE_V4: u32 = 0x0800;
pub(super) const ETHERTYPE_V6: u32 = 0x86dd;
const ICMP: u32 = 1;
pub(super) const UDP: u32 = 17;
const ICMP_V6: u32 = 58;
/// MF and the offset in an IPv4 header's fragment field (RFC 791).
pub(super) const FRAGMENT: u32 = 0x3fff;
/// The offset alone.
const FRAGMENT_OFFSET: u32 = 0x1fff;
/// Octets of an IPv6, an ICMP and a UDP header.
pub(super) const V6: u32 = 40;
const ICMP_HEADER: u32 = 8;
pub(super) const UDP_HEADER: u32 = 8;

/// The smallest share of incoming initiations: one in 2^[`COARSEST`].
pub const COARSEST: u32 = 12;

/// The program that passes everything of these.
pub fn program() -> Result<Vec<Instruction>, AssembleError> {
    sampling(0)
}

/// The program that passes one in 2^`power` of the initiations that come in, at random, and everything else: what leaves,
/// what answers and errors are few, and verdicts hang on each.
///
/// At random and not by a part of the message, because whoever floods chooses the message.
pub fn sampling(power: u32) -> Result<Vec<Instruction>, AssembleError> {
    let mut asm = Assembler::new();
    let (v4, v6) = (asm.label(), asm.label());
    let (udp, quoted) = (asm.label(), asm.label());
    let (initiation, accept, reject) = (asm.label(), asm.label(), asm.label());
    asm.load_protocol();
    asm.jump_if(Test::Equal, ETHERTYPE_V4, v4);
    asm.jump_if(Test::Equal, ETHERTYPE_V6, v6);
    asm.jump(reject);

    asm.place(v4);
    from_v4(&mut asm, udp, quoted, reject);
    asm.place(v6);
    from_v6(&mut asm, udp, quoted, reject);

    // X is where the UDP header begins.
    asm.place(udp);
    asm.load_word_x(UDP_HEADER);
    handshake(&mut asm, initiation, accept, reject);
    asm.place(initiation);
    let mask = (1 << power.min(COARSEST)) - 1;
    if mask != 0 {
        asm.load_packet_type();
        asm.jump_if(Test::Equal, u32::from(libc::PACKET_OUTGOING), accept);
        asm.load_random();
        asm.jump_if(Test::AnyBit, mask, reject);
    }
    asm.jump(accept);

    // X is where the quoted UDP header begins. Routers may quote no more than that.
    let short = asm.label();
    asm.place(quoted);
    asm.load_length();
    asm.subtract_x();
    asm.jump_unless(Test::AtLeast, UDP_HEADER + 4, short);
    asm.load_word_x(UDP_HEADER);
    asm.jump_if(Test::Equal, type_word(Kind::Data), short);
    handshake(&mut asm, accept, accept, reject);
    asm.place(short);
    asm.load_half_x(4);
    asm.jump_if(Test::AtLeast, UDP_HEADER + Kind::Data.payload_len(), accept);

    asm.place(reject);
    asm.end(0);
    asm.place(accept);
    asm.end(SNAP);
    asm.finish()
}

fn from_v4(asm: &mut Assembler, udp: Label, quoted: Label, reject: Label) {
    let icmp = asm.label();
    asm.load_half(6);
    asm.jump_if(Test::AnyBit, FRAGMENT, reject);
    asm.header_length_to_x(0);
    asm.load_byte(9);
    asm.jump_if(Test::Equal, UDP, udp);
    asm.jump_unless(Test::Equal, ICMP, reject);
    // Destination unreachable, time exceeded, parameter problem.
    asm.load_byte_x(0);
    asm.jump_if(Test::Equal, 3, icmp);
    asm.jump_if(Test::Equal, 11, icmp);
    asm.jump_unless(Test::Equal, 12, reject);
    asm.place(icmp);
    asm.load_byte_x(ICMP_HEADER + 9);
    asm.jump_unless(Test::Equal, UDP, reject);
    asm.load_half_x(ICMP_HEADER + 6);
    asm.jump_if(Test::AnyBit, FRAGMENT_OFFSET, reject);
    // X += ICMP header + the quoted header's length.
    asm.load_byte_x(ICMP_HEADER);
    asm.and(0x0f);
    asm.shift_left(2);
    asm.add_x();
    asm.add(ICMP_HEADER);
    asm.a_to_x();
    asm.jump(quoted);
}

fn from_v6(asm: &mut Assembler, udp: Label, quoted: Label, reject: Label) {
    asm.set_x(V6);
    asm.load_byte(6);
    asm.jump_if(Test::Equal, UDP, udp);
    asm.jump_unless(Test::Equal, ICMP_V6, reject);
    // Unreachable, too big, time exceeded, parameter problem: 1 to 4.
    asm.load_byte(V6);
    asm.jump_if(Test::Equal, 0, reject);
    asm.jump_if(Test::AtLeast, 5, reject);
    asm.load_byte(V6 + ICMP_HEADER + 6);
    asm.jump_unless(Test::Equal, UDP, reject);
    asm.set_x(V6 + ICMP_HEADER + V6);
    asm.jump(quoted);
}

/// A is the payload's first word, X the UDP header: handshake messages of the right length go to `initiation` or to
/// `accept`.
fn handshake(asm: &mut Assembler, initiation: Label, accept: Label, reject: Label) {
    for kind in [Kind::Initiation, Kind::Response, Kind::CookieReply] {
        let accept = if kind == Kind::Initiation {
            initiation
        } else {
            accept
        };
        let other = asm.label();
        asm.jump_unless(Test::Equal, type_word(kind), other);
        asm.load_half_x(4);
        asm.jump_if(Test::Equal, UDP_HEADER + kind.payload_len(), accept);
        asm.jump(reject);
        asm.place(other);
    }
    asm.jump(reject);
}

/// The type byte and three zero bytes, as a big-endian load reads them.
pub(super) fn type_word(kind: Kind) -> u32 {
    u32::from(kind.type_byte()) << 24
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::cbpf::machine::{self, Beside};
    use crate::wire::frame::build;
    use crate::wire::wireguard::{Class, classify};

    fn passes(packet: &[u8]) -> bool {
        let protocol = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
        match machine::run(&program().unwrap(), protocol, packet) {
            0 => false,
            SNAP => true,
            other => panic!("{other} bytes"),
        }
    }

    fn message(kind: u8, len: usize) -> Vec<u8> {
        let mut payload = vec![0x5a; len];
        payload[..4].copy_from_slice(&[kind, 0, 0, 0]);
        payload
    }

    const CASES: [(u8, usize, bool); 9] = [
        (1, 148, true),
        (2, 92, true),
        (3, 64, true),
        (1, 147, false),
        (2, 148, false),
        (3, 92, false),
        (4, 32, false),
        (0, 148, false),
        (5, 64, false),
    ];

    #[test]
    fn handshakes_of_both_families_and_nothing_else() {
        for (kind, len, wanted) in CASES {
            let datagram = build::udp(&message(kind, len));
            assert_eq!(passes(&build::v4(17, &datagram)), wanted, "v4, {kind}, {len}");
            assert_eq!(passes(&build::v6(17, &datagram)), wanted, "v6, {kind}, {len}");
            assert!(!passes(&build::v4(6, &datagram)));
        }
        let mut warp = message(1, 148);
        warp[2] = 9;
        assert!(!passes(&build::v4(17, &build::udp(&warp))));
    }

    #[test]
    fn options_move_the_header_and_fragments_stay_out() {
        let mut packet = build::v4(17, &build::udp(&message(1, 148)));
        packet[0] = 0x4f;
        packet.splice(20..20, [1; 40]);
        assert!(passes(&packet));
        for (at, value) in [(6, 0x20), (7, 1)] {
            let mut fragment = build::v4(17, &build::udp(&message(1, 148)));
            fragment[at] = value;
            assert!(!passes(&fragment));
        }
    }

    #[test]
    fn errors_that_quote_wireguard() {
        for (kind, len, wanted) in CASES {
            let datagram = build::udp(&message(kind, len));
            let wanted = wanted || kind == 4;
            for icmp_type in [3, 11, 12] {
                let about = build::icmp(icmp_type, 0, [0; 4], &build::v4(17, &datagram));
                assert_eq!(
                    passes(&build::v4(1, &about)),
                    wanted,
                    "v4, {icmp_type}, {kind}, {len}"
                );
            }
            for icmp_type in 1..=4 {
                let about = build::icmp(icmp_type, 0, [0; 4], &build::v6(17, &datagram));
                assert_eq!(
                    passes(&build::v6(58, &about)),
                    wanted,
                    "v6, {icmp_type}, {kind}, {len}"
                );
            }
        }
    }

    #[test]
    fn other_icmp_stays_out() {
        let (v4, v6) = (build::udp(&message(1, 148)), build::udp(&message(1, 148)));
        for icmp_type in [0, 4, 5, 8, 13] {
            let about = build::icmp(icmp_type, 0, [0; 4], &build::v4(17, &v4));
            assert!(!passes(&build::v4(1, &about)), "{icmp_type}");
        }
        for icmp_type in [0, 5, 128, 135] {
            let about = build::icmp(icmp_type, 0, [0; 4], &build::v6(17, &v6));
            assert!(!passes(&build::v6(58, &about)), "{icmp_type}");
        }
        let tcp = build::icmp(3, 3, [0; 4], &build::v4(6, &v4));
        assert!(!passes(&build::v4(1, &tcp)));
    }

    #[test]
    fn short_quotes_pass_by_length_alone() {
        for (len, wanted) in [(148, true), (92, true), (64, true), (32, true), (31, false)] {
            let inner = build::v4(17, &build::udp(&message(4, len)));
            let about = build::icmp(3, 3, [0; 4], &inner[..28]);
            assert_eq!(passes(&build::v4(1, &about)), wanted, "{len}");
        }
        let mut inner = build::v4(17, &build::udp(&message(1, 148)));
        inner[0] = 0x46;
        inner.splice(20..20, [1; 4]);
        assert!(passes(&build::v4(1, &build::icmp(3, 3, [0; 4], &inner))));
    }

    /// Of `packet`, with these random bits, by the program that passes one in 2^`power`.
    fn sampled(power: u32, packet_type: u8, random: u32, packet: &[u8]) -> bool {
        let beside = Beside {
            protocol: if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 },
            packet_type,
            random,
        };
        machine::run_beside(&sampling(power).unwrap(), beside, packet) == SNAP
    }

    /// `PACKET_HOST`, `PACKET_OTHERHOST`, `PACKET_OUTGOING`.
    const WAYS: [(u8, bool); 3] = [(0, true), (3, true), (4, false)];

    #[test]
    fn a_share_of_incoming_initiations_passes_and_all_else() {
        for (power, random, chosen) in [
            (0, 0xffff_ffff, true),
            (1, 0, true),
            (1, 2, true),
            (1, 1, false),
            (6, 0xffff_ffc0, true),
            (6, 0x20, false),
            (12, 0x1000, true),
            (12, 0x0800, false),
            (40, 0x1000, true), // no coarser than the coarsest
        ] {
            for (way, comes_in) in WAYS {
                let pass = |packet: &[u8]| sampled(power, way, random, packet);
                let initiation = build::udp(&message(1, 148));
                for packet in [build::v4(17, &initiation), build::v6(17, &initiation)] {
                    assert_eq!(pass(&packet), chosen || !comes_in, "{power} {random:#x} {way}");
                }
                for (kind, len) in [(2, 92), (3, 64)] {
                    assert!(pass(&build::v4(17, &build::udp(&message(kind, len)))), "{kind}");
                }
                let v4 = build::v4(17, &initiation);
                assert!(pass(&build::v4(1, &build::icmp(3, 3, [0; 4], &v4))));
                assert!(pass(&build::v4(1, &build::icmp(3, 3, [0; 4], &v4[..28]))));
                assert!(!pass(&build::v4(17, &build::udp(&message(4, 148)))));
            }
        }
    }

    proptest! {
        #[test]
        fn a_share_changes_nothing_about_anything_else(
            power in 0..=COARSEST, random in any::<u32>(), way in 0..5u8,
            kind in 0..6u8, len in prop_oneof![Just(148usize), Just(92), Just(64), 32..200usize],
        ) {
            let packet = build::v4(17, &build::udp(&message(kind, len)));
            let spared = kind == 1 && way != 4 && random & ((1 << power) - 1) != 0;
            prop_assert_eq!(sampled(power, way, random, &packet), passes(&packet) && !spared);
        }

        #[test]
        fn agrees_with_the_codec(
            kind in 0..6u8,
            reserved in prop_oneof![9 => Just([0; 3]), 1 => any::<[u8; 3]>()],
            len in prop_oneof![Just(148usize), Just(92), Just(64), 32..200usize],
            options in 0..=10usize,
        ) {
            let mut payload = vec![0; len];
            payload[0] = kind;
            payload[1..4].copy_from_slice(&reserved);
            let class = classify(&payload, u32::try_from(len).unwrap());
            let wanted = class.is_some_and(|c: Class| c.is_standard() && c.kind != Kind::Data);
            let mut packet = build::v4(17, &build::udp(&payload));
            packet[0] += u8::try_from(options).unwrap();
            packet.splice(20..20, vec![1; options * 4]);
            prop_assert_eq!(passes(&packet), wanted);
        }

        #[test]
        fn ends_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 1..200), six in any::<bool>()) {
            machine::run(&program().unwrap(), if six { 0x86dd } else { 0x0800 }, &bytes);
        }
    }
}

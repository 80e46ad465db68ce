//! The filter in the kernel for data messages: a sample of them, cut to their clear header.
//!
//! Which ones pass is decided by the message's own counter, so all interfaces of this host, and a second observer
//! elsewhere, take the same ones: every N-th of each session, the first few of each session (a new one shows at once)
//! and every keepalive (a peer that has nothing to say shows that it is there, and from where). A message that is
//! rejected costs about ten instructions and no copy.

use super::filter::{ETHERTYPE_V4, ETHERTYPE_V6, FRAGMENT, UDP, UDP_HEADER, V6, type_word};
use crate::sys::cbpf::{AssembleError, Assembler, Instruction, Test};
use crate::wire::wireguard::{DATA_HEADER_LEN, Kind};

/// Bytes that are handed out of each packet: the longest IPv4 header, UDP, and the clear header.
#[allow(clippy::cast_possible_truncation)] // 16
pub const SNAP: u32 = 60 + UDP_HEADER + DATA_HEADER_LEN as u32;

/// Of each session so many pass in any case.
pub const FIRST: u32 = 8;

/// The coarsest sample: one in 2^[`COARSEST`].
pub const COARSEST: u32 = 12;

/// The program that passes one message in 2^`power` of each session.
pub fn program(power: u32) -> Result<Vec<Instruction>, AssembleError> {
    let mut asm = Assembler::new();
    let (v4, v6, udp) = (asm.label(), asm.label(), asm.label());
    let (later, accept, reject) = (asm.label(), asm.label(), asm.label());
    asm.load_protocol();
    asm.jump_if(Test::Equal, ETHERTYPE_V4, v4);
    asm.jump_if(Test::Equal, ETHERTYPE_V6, v6);
    asm.jump(reject);

    asm.place(v4);
    asm.load_byte(9);
    asm.jump_unless(Test::Equal, UDP, reject);
    // A first fragment has the header, but its UDP length is not its own.
    asm.load_half(6);
    asm.jump_if(Test::AnyBit, FRAGMENT, reject);
    asm.header_length_to_x(0);
    asm.jump(udp);

    asm.place(v6);
    asm.load_byte(6);
    asm.jump_unless(Test::Equal, UDP, reject);
    asm.set_x(V6);

    asm.place(udp);
    asm.load_word_x(UDP_HEADER);
    asm.jump_unless(Test::Equal, type_word(Kind::Data), reject);
    asm.load_half_x(4);
    asm.jump_if(Test::Equal, UDP_HEADER + Kind::Data.payload_len(), accept);
    asm.jump_unless(Test::AtLeast, UDP_HEADER + Kind::Data.payload_len(), reject);
    // The counter is little-endian: its lowest byte comes first.
    asm.load_word_x(UDP_HEADER + 8);
    asm.jump_if(Test::AnyBit, 0x00ff_ffff, later);
    asm.jump_unless(Test::AtLeast, FIRST << 24, accept);
    asm.place(later);
    let mask = mask(power);
    if mask != 0 {
        asm.jump_if(Test::AnyBit, mask, reject);
    }
    asm.jump(accept);

    asm.place(reject);
    asm.end(0);
    asm.place(accept);
    asm.end(SNAP);
    asm.finish()
}

/// The bits of the counter's first four bytes, as a big-endian load reads them, that are zero in every 2^`power`-th.
fn mask(power: u32) -> u32 {
    let counter: u32 = (1 << power.min(COARSEST)) - 1;
    u32::from_be_bytes(counter.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::cbpf::machine;
    use crate::wire::frame::build;
    use crate::wire::wireguard::classify;

    fn data(counter: u64, len: usize) -> Vec<u8> {
        let mut payload = vec![4, 0, 0, 0, 9, 9, 9, 9];
        payload.extend(counter.to_le_bytes());
        payload.resize(len, 0x5a);
        payload
    }

    fn passes(power: u32, packet: &[u8]) -> bool {
        let protocol = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
        match machine::run(&program(power).unwrap(), protocol, packet) {
            0 => false,
            SNAP => true,
            other => panic!("{other} bytes"),
        }
    }

    #[test]
    fn what_is_sampled() {
        for (power, counter, len, expected) in [
            (0, 12_345, 128, true),
            (0, u64::MAX, 1452, true),
            (4, 12_345, 128, false),
            (4, 12_352, 128, true),
            (4, 12_345, 32, true),  // a keepalive
            (4, 12_352, 31, false), // too short for one
            (4, 7, 128, true),      // the first of a session
            (4, 8, 128, false),
            (10, 1024, 128, true),
            (10, 1024 + 256, 128, false),
            (12, 1 << 40, 128, true),
            (12, (1 << 40) + (1 << 11), 128, false),
            (99, 4096, 128, true),
        ] {
            let datagram = build::udp(&data(counter, len));
            for packet in [build::v4(17, &datagram), build::v6(17, &datagram)] {
                assert_eq!(passes(power, &packet), expected, "{power} {counter} {len}");
            }
        }
    }

    #[test]
    fn nothing_else_passes() {
        for head in [[1, 0, 0, 0], [4, 1, 0, 0], [4, 0, 0, 1], [5, 0, 0, 0]] {
            let mut payload = data(0, 148);
            payload[..4].copy_from_slice(&head);
            assert!(!passes(0, &build::v4(17, &build::udp(&payload))), "{head:?}");
        }
        let datagram = build::udp(&data(0, 148));
        assert!(!passes(0, &build::v4(6, &datagram)));
        let mut fragment = build::v4(17, &datagram);
        fragment[6] = 0x20;
        assert!(!passes(0, &fragment));
    }

    proptest! {
        #[test]
        fn one_in_so_many_and_options_move_the_header(power in 0..=COARSEST, counter in any::<u64>(), len in 33..1500usize, options in 0..=10usize) {
            let payload = data(counter, len);
            let class = classify(&payload, u32::try_from(len).unwrap()).unwrap();
            prop_assert!(class.is_standard());
            let wanted = counter & ((1 << power) - 1) == 0 || counter % (1 << 32) < u64::from(FIRST);
            let mut packet = build::v4(17, &build::udp(&payload));
            packet[0] += u8::try_from(options).unwrap();
            packet.splice(20..20, vec![1; options * 4]);
            prop_assert_eq!(passes(power, &packet), wanted);
        }

        #[test]
        fn ends_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 1..200), six in any::<bool>()) {
            machine::run(&program(3).unwrap(), if six { 0x86dd } else { 0x0800 }, &bytes);
        }
    }
}

use proptest::prelude::*;

use super::*;
use crate::wire::boring;

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

fn parse(bytes: &[u8]) -> Message<'_> {
    Message::parse(bytes, len(bytes)).unwrap_or_else(|| panic!("not read: {bytes:02x?}"))
}

/// The bytes again, from the parsed parts.
fn emit(message: &Message<'_>, encrypted: &[u8]) -> Vec<u8> {
    let mut out = vec![0xaa; 148];
    match message {
        Message::Initiation(m) => m.emit(out[..148].as_mut_array().unwrap()),
        Message::Response(m) => m.emit(out[..92].as_mut_array().unwrap()),
        Message::CookieReply(m) => m.emit(out[..64].as_mut_array().unwrap()),
        Message::Data(m) => {
            m.emit(out[..16].as_mut_array().unwrap());
            out.truncate(16);
            out.extend(encrypted);
            return out;
        }
    }
    out
}

#[test]
fn reads_and_rewrites_all_that_boringtun_makes() {
    let mut pair = boring::pair();
    let initiation = boring::initiation(&mut pair.initiator);
    let response = boring::answer(&mut pair.responder, &initiation);
    let keepalive = boring::answer(&mut pair.initiator, &response);
    let mut out = [0; 256];
    let confirmed = pair
        .responder
        .decapsulate(Some(boring::FROM), &keepalive, &mut out);
    assert!(matches!(confirmed, boringtun::noise::TunnResult::Done));
    let inner = [
        &[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..],
        &[0; 8],
    ]
    .concat();
    let data = boring::sent(pair.initiator.encapsulate(&inner, &mut [0; 256]));
    let (_, cookie) = boring::cookie_reply(&mut pair);

    let Message::Initiation(one) = parse(&initiation) else {
        panic!("not an initiation");
    };
    assert_eq!(one.sender.0 >> 8, 0x00a1b2c3);
    assert!(!one.has_mac2());
    let Message::Response(two) = parse(&response) else {
        panic!("not a response");
    };
    assert_eq!((two.receiver, two.sender.0 >> 8), (one.sender, 0x00d4e5f6));
    let Message::Data(first) = parse(&keepalive) else {
        panic!("not data");
    };
    assert!(first.is_keepalive());
    assert_eq!((first.receiver, first.counter), (two.sender, 0));
    let Message::Data(second) = parse(&data) else {
        panic!("not data");
    };
    assert_eq!(
        (second.counter, second.len, second.is_keepalive()),
        (1, 60, false)
    );
    assert!(matches!(parse(&cookie), Message::CookieReply(_)));

    for bytes in [&initiation, &response, &cookie, &keepalive, &data] {
        let again = emit(&parse(bytes), bytes.get(16..).unwrap());
        assert_eq!(&again[..bytes.len()], &bytes[..]);
        assert!(again[bytes.len()..].iter().all(|b| *b == 0xaa));
    }
}

#[test]
fn lengths_and_types_that_do_not_fit_are_not_wireguard() {
    for (kind, len, standard) in [
        (1, 148, true),
        (1, 147, false),
        (1, 149, false),
        (2, 92, true),
        (2, 91, false),
        (3, 64, true),
        (3, 65, false),
        (4, 31, false),
        (4, 32, true),
        (4, 1452, true),
        (0, 148, false),
        (5, 64, false),
    ] {
        let seen = classify(&[kind, 0, 0, 0], len);
        assert_eq!(
            seen.is_some_and(Class::is_standard),
            standard,
            "type {kind}, {len} bytes"
        );
        assert_eq!(
            seen.map(|c| c.kind),
            Kind::from_type(kind)
                .filter(|k| k.fits(len))
                .or(seen.map(|c| c.kind))
        );
    }
    assert_eq!(classify(&[1, 0, 0], 148), None);
    assert_eq!(Message::parse(&[1, 0, 0, 0], 148), None, "cut short");
}

#[test]
fn dialects_are_told_apart() {
    let class = |payload: &[u8], len| classify(payload, len);
    let warp = [1, 0x12, 0x34, 0x56];
    assert_eq!(
        class(&warp, 148),
        Some(Class {
            kind: Kind::Initiation,
            variant: Variant::Reserved([0x12, 0x34, 0x56])
        })
    );
    let amnezia = [0x6f, 0x21, 0x9c, 0x4b];
    for (len, kind) in [(148, Kind::Initiation), (92, Kind::Response)] {
        let variant = Variant::CustomHeader(amnezia);
        assert_eq!(class(&amnezia, len), Some(Class { kind, variant }));
    }
    for len in [64, 32, 204, 100] {
        assert_eq!(class(&amnezia, len), None, "{len} bytes");
    }
    assert_eq!(Message::parse(&[0x6f; 148], 148), None);
    let mut bytes = [7; 148];
    bytes[..4].copy_from_slice(&warp);
    let Some(Message::Initiation(warp)) = Message::parse(&bytes, 148) else {
        panic!("not read");
    };
    assert_eq!(warp.reserved, [0x12, 0x34, 0x56]);
}

#[test]
fn an_index_needs_eight_bytes() {
    assert_eq!(
        first_index(&[1, 0, 0, 0, 4, 3, 2, 1]),
        Some(SessionIndex(0x0102_0304))
    );
    assert_eq!(first_index(&[1, 0, 0, 0, 4, 3, 2]), None);
}

proptest! {
    #[test]
    fn what_parses_is_rewritten_byte_for_byte(
        mut bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 148),
            proptest::collection::vec(any::<u8>(), 92),
            proptest::collection::vec(any::<u8>(), 64),
            proptest::collection::vec(any::<u8>(), 0..200),
        ],
        kind in 0..6u8,
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Some(message) = Message::parse(&bytes, len(&bytes)) {
            let again = emit(&message, bytes.get(16..).unwrap_or(&[]));
            prop_assert_eq!(&again[..bytes.len()], &bytes[..]);
        }
    }
}

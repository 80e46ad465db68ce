use super::*;
use proptest::prelude::*;

const ID: TransactionId = TransactionId([
    0x21, 0x12, 0xA4, 0x42, 0xB7, 0xE7, 0xA7, 0x01, 0xBC, 0x34, 0xD6, 0x86, 0xFA, 0x87, 0xDF, 0xAE,
]);

/// RFC 5769, section 2.2 (IPv4), without its integrity attributes.
#[test]
fn the_rfcs_own_response() {
    let bytes = [
        0x01, 0x01, 0x00, 0x1c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa,
        0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f,
        0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
    ];
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class, message.method), (Class::Success, BINDING));
    assert_eq!(message.id, ID);
    assert!(!message.id.is_classic());
    assert_eq!(message.software(), Some("test vector"));
    assert_eq!(message.mapped(), Some("192.0.2.1:32853".parse().unwrap()));
}

/// RFC 5769, section 2.3 (IPv6): the masked address.
#[test]
fn the_rfcs_ipv6_address() {
    let address = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
    let mut buffer = [0; 64];
    let mut writer = Writer::new(&mut buffer, Class::Success, BINDING, ID).unwrap();
    assert!(writer.xor_address(attribute::XOR_MAPPED_ADDRESS, address));
    let length = writer.finish();
    assert_eq!(
        buffer[24..length],
        [
            0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5,
            0xbe, 0xd2, 0xb9, 0xd9
        ]
    );
    assert_eq!(Message::parse(&buffer[..length]).unwrap().mapped(), Some(address));
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut buffer = [0; 30];
    let mut writer = Writer::new(&mut buffer, Class::Request, BINDING, ID).unwrap();
    assert!(!writer.address(attribute::MAPPED_ADDRESS, "192.0.2.1:1".parse().unwrap()));
    assert!(writer.change_request(Change {
        ip: true,
        port: false
    }));
    let length = writer.finish();
    let message = Message::parse(&buffer[..length]).unwrap();
    assert_eq!(
        message.change_request(),
        Some(Change {
            ip: true,
            port: false
        })
    );
    assert_eq!(message.attributes().count(), 1);
    assert!(Writer::new(&mut [0; 19], Class::Request, BINDING, ID).is_none());
}

#[test]
fn broken_messages_say_why() {
    let mut good = [0; 28];
    let mut writer = Writer::new(&mut good, Class::Request, BINDING, ID).unwrap();
    assert!(writer.response_port(7));
    assert_eq!(writer.finish(), 28);
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.to_vec();
        change(&mut bytes);
        Message::parse(&bytes).map(|m| m.class).unwrap_err()
    };
    assert_eq!(broken(&|b| b.truncate(19)), StunError::Short(19));
    assert_eq!(broken(&|b| b[0] |= 0x80), StunError::Leading);
    assert_eq!(
        broken(&|b| b.truncate(24)),
        StunError::Length { said: 8, have: 4 }
    );
    assert_eq!(
        broken(&|b| b.extend([0; 4])),
        StunError::Length { said: 8, have: 12 }
    );
    // An attribute of 65,535 bytes in a message of 28.
    assert_eq!(
        broken(&|b| b[22..24].fill(0xFF)),
        StunError::Attribute {
            kind: attribute::RESPONSE_PORT
        }
    );
}

#[test]
fn addresses_of_another_length_than_their_family_are_none() {
    for value in [
        &[0, 1, 0, 7, 1, 2, 3][..],
        &[0, 1, 0, 7, 1, 2, 3, 4, 5],
        &[0, 2, 0, 7, 1, 2, 3, 4],
        &[0, 3, 0, 7],
        &[],
    ] {
        assert_eq!(address(value), None, "{value:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert!(message.attributes().all(|(_, value)| value.len() <= bytes.len()));
            let _ = (message.mapped(), message.other_address(), message.change_request(), message.error_code());
            let _ = (message.response_port(), message.software());
        }
    }

    #[test]
    fn what_is_written_is_read(
        method in 0_u16..0x1000, port: u16, v4: u32, v6: u128, id: [u8; 16], ip: bool, change_port: bool, text in "[a-z]{0,40}",
    ) {
        let id = TransactionId(id);
        let (v4, v6) = (
            SocketAddr::new(Ipv4Addr::from_bits(v4).into(), port),
            SocketAddr::new(Ipv6Addr::from_bits(v6).into(), port),
        );
        let mut buffer = [0; LARGEST];
        let mut writer = Writer::new(&mut buffer, Class::Error, method, id).unwrap();
        let change = Change { ip, port: change_port };
        let all = writer.change_request(change)
            && writer.xor_address(attribute::XOR_MAPPED_ADDRESS, v6)
            && writer.address(attribute::OTHER_ADDRESS, v4)
            && writer.attribute(attribute::SOFTWARE, text.as_bytes())
            && writer.error(420)
            && writer.response_port(port);
        prop_assert!(all);
        let length = writer.finish();
        let message = Message::parse(&buffer[..length]).unwrap();
        prop_assert_eq!((message.class, message.method, message.id), (Class::Error, method, id));
        prop_assert_eq!(message.change_request(), Some(change));
        prop_assert_eq!(message.mapped(), Some(v6));
        prop_assert_eq!(message.other_address(), Some(v4));
        prop_assert_eq!(message.software(), Some(text.as_str()));
        prop_assert_eq!(message.error_code(), Some(420));
        prop_assert_eq!(message.response_port(), Some(port));
    }
}

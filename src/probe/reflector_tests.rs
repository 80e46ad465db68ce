use super::*;
use proptest::prelude::*;

fn grid() -> Grid {
    Grid {
        ips: ("192.0.2.1".parse().unwrap(), Some("192.0.2.2".parse().unwrap())),
        ports: (3478, Some(3479)),
    }
}

fn lone() -> Grid {
    Grid {
        ips: ("192.0.2.1".parse().unwrap(), None),
        ports: (3478, Some(3479)),
    }
}

const HERE: Slot = Slot {
    ip: false,
    port: false,
};

fn client() -> SocketAddr {
    "198.51.100.7:40000".parse().unwrap()
}

fn request(classic: bool, fill: usize, add: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; 1000];
    let id = if classic {
        TransactionId([9; 16])
    } else {
        TransactionId::new([9; 12])
    };
    let mut writer = Writer::new(&mut bytes, Class::Request, BINDING, id).unwrap();
    add(&mut writer);
    if fill > 0 {
        writer.attribute(attribute::SOFTWARE, &vec![b' '; fill]);
    }
    let length = writer.finish();
    bytes.truncate(length);
    bytes
}

fn ask(grid: &Grid, by: Transport, bytes: &[u8]) -> (Reply, Vec<u8>) {
    let mut out = vec![0; 2000];
    let reply = answer(grid, HERE, client(), by, bytes, &mut out);
    if let Reply::Send { length, .. } = reply {
        out.truncate(length);
    }
    (reply, out)
}

#[test]
fn a_long_request_is_answered_in_full() {
    let bytes = request(false, 80, |_| {});
    let (reply, out) = ask(&grid(), Transport::Udp, &bytes);
    assert!(
        matches!(reply, Reply::Send { via: HERE, to, error: false, .. } if to == client()),
        "{reply:?}"
    );
    let message = Message::parse(&out).unwrap();
    assert_eq!(message.mapped(), Some(client()));
    assert_eq!(message.address(attribute::MAPPED_ADDRESS), Some(client()));
    assert_eq!(message.other_address(), Some("192.0.2.2:3479".parse().unwrap()));
    assert_eq!(
        message.address(attribute::RESPONSE_ORIGIN),
        Some("192.0.2.1:3478".parse().unwrap())
    );
    assert!(message.software().unwrap().starts_with(SOFTWARE_PREFIX));
}

#[test]
fn a_short_request_gets_what_fits_or_nothing() {
    let bytes = request(false, 0, |_| {});
    assert_eq!(
        ask(&grid(), Transport::Udp, &bytes).0,
        Reply::Ignore(Ignored::TooShort)
    );
    let (_, out) = ask(&grid(), Transport::UdpInFull, &bytes);
    assert_eq!(Message::parse(&out).unwrap().mapped(), Some(client()));
    // 32 bytes: the mapped address alone.
    let (_, out) = ask(&grid(), Transport::Udp, &request(false, 8, |_| {}));
    let message = Message::parse(&out).unwrap();
    assert_eq!(
        (message.mapped(), message.other_address()),
        (Some(client()), None)
    );
    assert_eq!(out.len(), 32);
}

#[test]
fn the_answer_comes_from_and_goes_to_where_it_was_asked() {
    for (ip, port) in [(true, true), (false, true), (true, false)] {
        let change = Change { ip, port };
        let bytes = request(false, 80, |w| assert!(w.change_request(change)));
        let (reply, _) = ask(&grid(), Transport::Udp, &bytes);
        assert!(
            matches!(reply, Reply::Send { via, .. } if via == Slot { ip, port }),
            "{reply:?}"
        );
        // On one address only the port can change; the rest is refused, not answered from where it was asked.
        let (reply, out) = ask(&lone(), Transport::Udp, &bytes);
        assert!(
            matches!(reply, Reply::Send { error, .. } if error == ip),
            "{reply:?}"
        );
        if ip {
            assert_eq!(Message::parse(&out).unwrap().error_code(), Some(420));
        }
        let (reply, _) = ask(&grid(), Transport::Tcp, &bytes);
        assert!(matches!(reply, Reply::Send { error: true, .. }), "{reply:?}");
    }
    let bytes = request(false, 80, |w| assert!(w.response_port(7)));
    let (reply, out) = ask(&grid(), Transport::Udp, &bytes);
    assert!(
        matches!(reply, Reply::Send { to, .. } if to.port() == 7 && to.ip() == client().ip()),
        "{reply:?}"
    );
    assert_eq!(Message::parse(&out).unwrap().mapped(), Some(client()));
    let (reply, _) = ask(
        &grid(),
        Transport::Udp,
        &request(false, 80, |w| assert!(w.response_port(0))),
    );
    assert_eq!(reply, Reply::Ignore(Ignored::NoPort));
}

#[test]
fn older_clients_get_what_they_know() {
    let bytes = request(true, 80, |w| assert!(w.change_request(Change::default())));
    let (_, out) = ask(&grid(), Transport::Udp, &bytes);
    let message = Message::parse(&out).unwrap();
    assert!(message.id.is_classic());
    assert_eq!(message.address(attribute::MAPPED_ADDRESS), Some(client()));
    assert_eq!(
        message.address(attribute::CHANGED_ADDRESS),
        Some("192.0.2.2:3479".parse().unwrap())
    );
    assert_eq!(
        message.address(attribute::SOURCE_ADDRESS),
        Some("192.0.2.1:3478".parse().unwrap())
    );
    assert_eq!(message.get(attribute::XOR_MAPPED_ADDRESS), None);
}

#[test]
fn nobody_may_aim_answers_at_others() {
    let victim = "203.0.113.99:53".parse().unwrap();
    let bytes = request(true, 80, |w| {
        assert!(w.address(attribute::RESPONSE_ADDRESS, victim))
    });
    let (reply, out) = ask(&grid(), Transport::Udp, &bytes);
    assert!(
        matches!(reply, Reply::Send { to, error: true, .. } if to == client()),
        "{reply:?}"
    );
    assert_eq!(
        Message::parse(&out).unwrap().get(attribute::UNKNOWN_ATTRIBUTES),
        Some(&[0, 2][..])
    );
}

proptest! {
    #[test]
    fn no_answer_is_longer_than_its_request(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300), binding: bool, port: u16, v6: bool,
    ) {
        if binding && bytes.len() >= 20 {
            bytes.truncate(20 + (bytes.len() - 20) / 4 * 4);
            let length = u16::try_from(bytes.len() - 20).unwrap();
            bytes[..2].copy_from_slice(&[0, 1]);
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            if bytes.len() >= 24 {
                // One attribute that fills the rest, so that most inputs are messages.
                bytes[22..24].copy_from_slice(&(length - 4).to_be_bytes());
            }
        }
        let from = if v6 { format!("[2001:db8::7]:{port}") } else { format!("192.0.2.7:{port}") };
        let from: SocketAddr = from.parse().unwrap();
        let mut out = vec![0; 2000];
        if let Reply::Send { length, to, .. } = answer(&grid(), HERE, from, Transport::Udp, &bytes, &mut out) {
            prop_assert!(length <= bytes.len());
            prop_assert_eq!(to.ip(), from.ip());
            let whole = Message::parse(&out[..length]);
            prop_assert!(whole.is_ok());
        }
    }
}

//! Servers that lie.

use super::*;
use crate::wire::stun::{BINDING, Class, TransactionId, Writer, attribute};

/// A discovery whose first request is under way.
fn begun() -> (Discovery, SocketId, TransactionId) {
    let plan = Plan {
        servers: vec![("s".to_owned(), addr("192.0.2.1:3478"))],
        key: [3; 32],
        lifetime: None,
    };
    let now = Timestamp::from_secs(1000);
    let mut discovery = Discovery::new(plan, now);
    discovery.handle_tcp(0, Err("refused".to_owned()));
    let mut asked = None;
    while let Some(effect) = discovery.poll_transmit() {
        match effect {
            Effect::Open(id, _) => discovery.handle_opened(now, id, Ok(addr("10.0.0.2:40000"))),
            Effect::Send(id, _, bytes) => asked = Some((id, Message::parse(&bytes).unwrap().id)),
            Effect::Close(_) => {}
        }
    }
    let (id, transaction) = asked.unwrap();
    (discovery, id, transaction)
}

fn response(id: TransactionId, mapped: &str, other: Option<&str>) -> Vec<u8> {
    let mut bytes = vec![0; 400];
    let mut writer = Writer::new(&mut bytes, Class::Success, BINDING, id).unwrap();
    writer.xor_address(attribute::XOR_MAPPED_ADDRESS, addr(mapped));
    if let Some(other) = other {
        writer.address(attribute::OTHER_ADDRESS, addr(other));
    }
    let length = writer.finish();
    bytes.truncate(length);
    bytes
}

#[test]
fn what_a_liar_says_is_not_believed() {
    let good = "198.51.100.7:40000";
    let stranger = TransactionId::new([1; 12]);
    for (from, make, why) in [
        ("192.0.2.1:3478", (stranger, good), "another transaction"),
        (
            "203.0.113.5:3478",
            (TransactionId([0; 16]), good),
            "another server",
        ),
        (
            "192.0.2.1:3478",
            (TransactionId([0; 16]), "[2001:db8::1]:40000"),
            "another family",
        ),
        (
            "192.0.2.1:3478",
            (TransactionId([0; 16]), "0.0.0.0:40000"),
            "no address",
        ),
        (
            "192.0.2.1:3478",
            (TransactionId([0; 16]), "198.51.100.7:0"),
            "no port",
        ),
    ] {
        let (mut discovery, socket, asked) = begun();
        let id = if make.0 == TransactionId([0; 16]) {
            asked
        } else {
            make.0
        };
        let now = Timestamp::from_secs(1000);
        discovery.handle_input(now, socket, addr(from), &response(id, make.1, None));
        assert!(discovery.families[&Family::Ipv4].seen.is_empty(), "{why}");
        assert!(discovery.poll_event().is_none(), "{why}: it goes on waiting");
        // The true answer still counts, once, however often it comes.
        for _ in 0..3 {
            discovery.handle_input(now, socket, addr("192.0.2.1:3478"), &response(asked, good, None));
        }
        assert_eq!(discovery.families[&Family::Ipv4].seen.len(), 1, "{why}");
    }
}

#[test]
fn nobody_is_called_on_a_liars_word() {
    for other in [
        "127.0.0.1:3479",
        "224.0.0.1:3479",
        "0.0.0.0:1",
        "192.0.2.9:0",
        "[2001:db8::1]:1",
        "192.0.2.1:3478",
    ] {
        let (mut discovery, socket, asked) = begun();
        let bytes = response(asked, "198.51.100.7:40000", Some(other));
        discovery.handle_input(Timestamp::from_secs(1000), socket, addr("192.0.2.1:3478"), &bytes);
        assert_eq!(discovery.servers[0].other, None, "{other}");
        assert_eq!(
            discovery.servers[0].problems.len(),
            2,
            "{other}: {:?}",
            discovery.servers[0].problems
        );
        while let Some(effect) = discovery.poll_transmit() {
            assert!(
                !matches!(effect, Effect::Send(_, to, _) if to == addr(other) && other != "192.0.2.1:3478")
            );
        }
    }
}

#[test]
fn an_answer_from_a_third_address_opens_no_filter() {
    let (mut discovery, socket, asked) = begun();
    let now = Timestamp::from_secs(1000);
    let server = addr("192.0.2.1:3478");
    discovery.handle_input(
        now,
        socket,
        server,
        &response(asked, "198.51.100.7:40000", Some("192.0.2.2:3479")),
    );
    let mut filter = None;
    while let Some(effect) = discovery.poll_transmit() {
        if let Effect::Send(id, _, bytes) = effect {
            let message = Message::parse(&bytes).unwrap();
            if id.role == Role::Filter(Change { ip: true, port: true }) && message.change_request().is_some()
            {
                filter = Some((id, message.id));
            }
        }
    }
    let (socket, asked) = filter.unwrap();
    discovery.handle_input(
        now,
        socket,
        addr("203.0.113.5:53"),
        &response(asked, "198.51.100.7:40001", None),
    );
    let passed = discovery.families[&Family::Ipv4]
        .filter
        .values()
        .collect::<Vec<_>>();
    assert_eq!(passed, [&Passed::NotTried]);
}

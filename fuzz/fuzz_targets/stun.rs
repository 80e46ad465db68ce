//! What STUN clients, servers and gateways send: the codec, the reflector's answers, and discovery under a hostile server.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use wgnat::probe::natdisc::{Discovery, Effect, Plan};
use wgnat::probe::reflector::{Grid, Reply, Transport, answer};
use wgnat::time::{Span, Timestamp};
use wgnat::wire::stun::Message;
use wgnat::wire::{natpmp, upnp};

fn discover(answers: &[Vec<u8>]) {
    let start = Timestamp::from_secs(1_000_000);
    let server: SocketAddr = ([192, 0, 2, 1], 3478).into();
    let plan = Plan {
        servers: vec![("s".to_owned(), server)],
        key: [7; 32],
        lifetime: Some(Span::from_secs(20)),
    };
    let mut discovery = Discovery::new(plan, start);
    discovery.handle_tcp(0, Err("x".to_owned()));
    let (mut now, mut answers) = (start, answers.iter());
    let mut port = 1000;
    for _ in 0..10_000 {
        while let Some(effect) = discovery.poll_transmit() {
            match effect {
                Effect::Open(id, _) => {
                    port += 1;
                    discovery.handle_opened(now, id, Ok(([10, 0, 0, 2], port).into()));
                }
                Effect::Send(id, to, request) => {
                    // A true transaction, so that what the fuzzer says is looked at.
                    if let Some(answer) = answers.next() {
                        let mut answer = answer.clone();
                        if let (Some(to), Some(from)) = (answer.get_mut(4..20), request.get(4..20)) {
                            to.copy_from_slice(from);
                        }
                        discovery.handle_input(now, id, to, &answer);
                    }
                }
                Effect::Close(_) => {}
            }
        }
        if discovery.poll_event().is_some() {
            return;
        }
        let Some(due) = discovery.poll_timeout() else {
            panic!("it waits for nothing and has not ended");
        };
        now = now.max(due);
        discovery.handle_timeout(now);
    }
    panic!("it does not end");
}

fuzz_target!(|input: (Vec<u8>, u16, Vec<Vec<u8>>)| {
    let (bytes, port, answers) = input;
    let _ = natpmp::parse(&bytes);
    if let Ok(text) = std::str::from_utf8(&bytes) {
        let _ = (upnp::location(text), upnp::control(text), upnp::external(text));
    }
    if let Ok(message) = Message::parse(&bytes) {
        assert!(message.attributes().map(|(_, v)| v.len()).sum::<usize>() <= bytes.len());
        let _ = (message.mapped(), message.other_address(), message.error_code(), message.software());
    }
    let grid = Grid {
        ips: ([192, 0, 2, 1].into(), Some([192, 0, 2, 2].into())),
        ports: (3478, Some(3479)),
    };
    let from: SocketAddr = ([198, 51, 100, 7], port).into();
    let mut out = [0; 512];
    for slot in grid.slots() {
        if let Reply::Send { length, to, .. } = answer(&grid, slot, from, Transport::Udp, &bytes, &mut out) {
            assert!(length <= bytes.len() && to.ip() == from.ip());
            assert!(Message::parse(&out[..length]).is_ok());
        }
    }
    discover(&answers);
});

use smoltcp::socket::tcp;

use super::*;
use crate::probe::stack::Stack;

const US: &str = "10.99.0.9";
const SERVER: &str = "10.99.0.1:22";

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000_000 + millis * 1_000_000)
}

/// A server that greets, behind a NAT that forgets after `lifetime` without a packet; what comes in through a mapping keeps
/// it alive, as in Linux.
fn search(lifetime: Span) -> (Lifetime, Span) {
    let server: SocketAddr = SERVER.parse().unwrap();
    let mut stack = Stack::new(server.ip(), 3, at(0));
    let handle = stack.sockets.add(tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; 4096]),
        tcp::SocketBuffer::new(vec![0; 4096]),
    ));
    let mut now = at(0);
    let mut search = LifetimeSearch::new(US.parse().unwrap(), server, 0x0102_0304_0506_0708, now);
    let (mut used, mut greeted) = (now, false);
    for _ in 0..200_000 {
        search.handle_timeout(now);
        if let Some(Fact::Lifetime(result)) = search.poll_event() {
            let told = (search.connections, now - at(0));
            assert!(
                result.error.is_some() || told.0 < CONNECTIONS,
                "{told:?} {result:?}"
            );
            return (result, told.1);
        }
        while let Some(packet) = search.poll_transmit() {
            used = now;
            let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(handle);
            if !socket.is_open() {
                socket.listen(22).unwrap();
                greeted = false;
            }
            if !packet.is_empty() {
                stack.handle_input(now, packet);
            }
        }
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(handle);
        if socket.may_send() && !greeted {
            greeted = socket.send_slice(b"SSH-2.0-lab\r\n").is_ok();
        }
        stack.handle_timeout(now);
        while let Some(packet) = stack.poll_transmit() {
            if now - used <= lifetime {
                used = now;
                search.handle_input(now, packet);
            }
        }
        now = now + Span::from_millis(20);
    }
    panic!(
        "{lifetime:?}: no end in {:?}, {:?}, {} connections, {:?}",
        now - at(0),
        search.phase,
        search.connections,
        search.tried
    );
}

#[test]
fn the_lifetime_lies_between_what_passes_and_what_does_not() {
    for secs in [5, 12, 30, 55] {
        let (result, took) = search(Span::from_secs(secs));
        let alive = result.alive_after_seconds.unwrap_or(0.0);
        let dead = result
            .dead_after_seconds
            .unwrap_or_else(|| panic!("{secs}: {result:?}"));
        assert!(alive <= secs as f64 && dead > secs as f64, "{secs}: {result:?}");
        assert!(dead <= alive * 1.6, "{secs}: {result:?}");
        assert!(took < Span::from_secs(1200), "{secs}: {took:?}");
    }
}

#[test]
fn a_server_that_is_not_there_ends_the_search() {
    let mut now = at(0);
    let mut search = LifetimeSearch::new(US.parse().unwrap(), SERVER.parse().unwrap(), 1, now);
    for _ in 0..2000 {
        while search.poll_transmit().is_some() {}
        search.handle_timeout(now);
        if let Some(Fact::Lifetime(result)) = search.poll_event() {
            assert_eq!(result.error.as_deref(), Some("the server does not answer"));
            return;
        }
        now = now + Span::from_millis(20);
    }
    panic!("no end");
}

//! Delay and jitter, which this kernel may have no queueing discipline for: a relay that holds datagrams back.

use super::Namespace;
use super::udp::readable_before;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Passes datagrams between its clients and one target, each held back by a delay. Clients see the relay's address.
#[derive(Debug)]
pub struct UdpRelay {
    at: SocketAddr,
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl UdpRelay {
    /// Starts it in `ns`, usually the router. The n-th datagram of each direction waits `delays[n % len]`.
    #[track_caller]
    pub fn start(ns: &Namespace, at: SocketAddr, target: SocketAddr, delays: &[Duration]) -> Self {
        Self::begin(ns, at, target, delays, |_| ())
    }

    /// An application-level gateway: it writes `inside` wherever an answer has the four bytes of `outside`, as those do that
    /// know no protocol and look for addresses in payloads.
    #[track_caller]
    pub fn rewriting(
        ns: &Namespace,
        at: SocketAddr,
        target: SocketAddr,
        outside: Ipv4Addr,
        inside: Ipv4Addr,
    ) -> Self {
        Self::begin(ns, at, target, &[Duration::ZERO], move |answer: &mut [u8]| {
            while let Some(found) = answer.windows(4).position(|w| w == outside.octets()) {
                answer[found..found + 4].copy_from_slice(&inside.octets());
            }
        })
    }

    #[track_caller]
    fn begin(
        ns: &Namespace,
        at: SocketAddr,
        target: SocketAddr,
        delays: &[Duration],
        rewrite: impl Fn(&mut [u8]) + Send + Sync + 'static,
    ) -> Self {
        let rewrite: Rewrite = Arc::new(rewrite);
        assert!(!delays.is_empty(), "a relay needs a delay");
        let socket = ns
            .run(|| UdpSocket::bind(at))
            .unwrap_or_else(|e| panic!("cannot bind UDP {at}: {e}"));
        let at = socket.local_addr().expect("it is bound");
        let (stopped, stop) = io::pipe().expect("a pipe can be made");
        let delays = delays.to_vec();
        // The thread lives in the namespace, for it opens a socket for each client.
        let thread = ns.spawn(move || relay(&Arc::new(socket), target, &delays, &rewrite, &stopped));
        Self {
            at,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where clients send.
    pub fn address(&self) -> SocketAddr {
        self.at
    }
}

impl Drop for UdpRelay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is done to each answer.
type Rewrite = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

fn relay(
    front: &Arc<UdpSocket>,
    target: SocketAddr,
    delays: &[Duration],
    rewrite: &Rewrite,
    stopped: &io::PipeReader,
) {
    let mut backs: HashMap<SocketAddr, (Arc<UdpSocket>, io::PipeWriter)> = HashMap::new();
    let mut buffer = vec![0; 65536];
    let mut number = 0;
    while readable_before(front, stopped) {
        let Ok((length, client)) = front.recv_from(&mut buffer) else {
            continue;
        };
        let (back, _) = backs.entry(client).or_insert_with(|| {
            let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = Arc::new(UdpSocket::bind(any).expect("a port is free"));
            socket.connect(target).expect("there is a route");
            let (ended, end) = io::pipe().expect("a pipe can be made");
            let (from, to, delays) = (Arc::clone(&socket), Arc::clone(front), delays.to_vec());
            let rewrite = Arc::clone(rewrite);
            std::thread::spawn(move || back_to(client, &from, &to, &delays, &rewrite, &ended));
            (socket, end)
        });
        let (back, datagram) = (Arc::clone(back), buffer[..length].to_vec());
        after(delays[number % delays.len()], move || back.send(&datagram));
        number += 1;
    }
}

/// Passes answers to one client, until the relay ends.
fn back_to(
    client: SocketAddr,
    from: &UdpSocket,
    to: &Arc<UdpSocket>,
    delays: &[Duration],
    rewrite: &Rewrite,
    ended: &io::PipeReader,
) {
    let mut buffer = vec![0; 65536];
    let mut number = 0;
    while readable_before(from, ended) {
        let Ok(length) = from.recv(&mut buffer) else {
            continue;
        };
        let (to, mut datagram) = (Arc::clone(to), buffer[..length].to_vec());
        rewrite(&mut datagram);
        after(delays[number % delays.len()], move || {
            to.send_to(&datagram, client)
        });
        number += 1;
    }
}

/// A thread for each datagram is costly and simple; the lab's paths carry tens of them a second.
fn after<T>(delay: Duration, send: impl FnOnce() -> io::Result<T> + Send + 'static) {
    std::thread::spawn(move || {
        std::thread::sleep(delay);
        let _ = send();
    });
}

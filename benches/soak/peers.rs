//! WireGuard peers in userspace, one thread for all: each goes silent for a while and comes back on another port.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

use super::lab::{Keys, Namespace};

/// The first one's port; each has two.
const PORT: u16 = 52_000;
/// boringtun wants to be told of the time this often.
const TICK: Duration = Duration::from_millis(250);

/// The peers; they end with this.
pub struct Peers {
    pub keys: Vec<Keys>,
    /// The first peer does not flap: it is silent while this holds.
    pub silent: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct One {
    tunn: Tunn,
    sockets: [UdpSocket; 2],
    /// Who called last.
    from: Option<SocketAddr>,
}

impl Peers {
    /// `count` of them in `ns`, which know `client`.
    pub fn start(ns: &Namespace, count: u16, client: &Keys) -> Self {
        let keys: Vec<Keys> = (0..count).map(|_| Keys::generate()).collect();
        let (silent, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let public = PublicKey::from(&StaticSecret::from(*client.private_bytes()));
        let own: Vec<StaticSecret> = keys
            .iter()
            .map(|k| StaticSecret::from(*k.private_bytes()))
            .collect();
        let (quiet, stopped) = (Arc::clone(&silent), Arc::clone(&stop));
        let thread = ns.spawn(move || {
            let all = (0_u16..).zip(own).map(|(n, secret)| One {
                tunn: Tunn::new(secret, public, None, None, u32::from(n), None),
                sockets: [0, 1].map(|way| {
                    let socket = UdpSocket::bind(("0.0.0.0", PORT + 2 * n + way)).expect("the port is free");
                    socket.set_nonblocking(true).expect("it can be set");
                    socket
                }),
                from: None,
            });
            serve(all.collect(), &quiet, &stopped);
        });
        Self {
            keys,
            silent,
            stop,
            thread: Some(thread),
        }
    }

    /// Where peer `n` is at first.
    pub fn endpoint(server: IpAddr, n: usize) -> SocketAddr {
        SocketAddr::new(server, PORT + 2 * u16::try_from(n).expect("few"))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether peer `n` answers, and by which of its ports: periods of 20 to 60 s, three fifths of each answered.
fn phase(n: usize, since: Duration) -> (bool, usize) {
    let period = 20.0 + (n * 7 % 41) as f64;
    let at = (since.as_secs_f64() + n as f64 * 3.0) / period;
    (at.fract() < 0.6, at as usize % 2)
}

fn serve(mut peers: Vec<One>, silent: &AtomicBool, stop: &AtomicBool) {
    let began = Instant::now();
    let mut ticked = began;
    let (mut datagram, mut answer) = ([0; 2048], [0; 2048]);
    while !stop.load(Ordering::Relaxed) {
        let sockets = peers.iter().flat_map(|peer| &peer.sockets);
        let mut ready: Vec<PollFd<'_>> = sockets
            .map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN))
            .collect();
        let _ = poll(&mut ready, PollTimeout::from(100_u8));
        let readable: Vec<bool> = ready.iter().map(|fd| fd.any() == Some(true)).collect();
        let tick = ticked.elapsed() >= TICK;
        if tick {
            ticked = Instant::now();
        }
        for (n, peer) in peers.iter_mut().enumerate() {
            let (up, way) = match n {
                0 => (!silent.load(Ordering::Relaxed), 0),
                n => phase(n, began.elapsed()),
            };
            for at in [0, 1].into_iter().filter(|at| readable[2 * n + at]) {
                while let Ok((length, from)) = peer.sockets[at].recv_from(&mut datagram) {
                    if !up {
                        continue;
                    }
                    peer.from = Some(from);
                    let mut result = peer
                        .tunn
                        .decapsulate(Some(from.ip()), &datagram[..length], &mut answer);
                    while let TunnResult::WriteToNetwork(bytes) = result {
                        let _ = peer.sockets[way].send_to(bytes, from);
                        result = peer.tunn.decapsulate(None, &[], &mut answer);
                    }
                }
            }
            if tick && up {
                let due = peer.tunn.update_timers(&mut answer);
                if let (TunnResult::WriteToNetwork(bytes), Some(to)) = (due, peer.from) {
                    let _ = peer.sockets[way].send_to(bytes, to);
                }
            }
        }
    }
}

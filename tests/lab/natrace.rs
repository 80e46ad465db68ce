//! A race inside the NAT: two new flows that are given one external port at the same moment, of which one is dropped.
//!
//! netfilter chooses a flow's port in the postrouting hook and enters it into the table behind that hook. Two packets of
//! two clients that are both in between do not see each other; both keep the same source port, and the second to be
//! entered fails (`insert_failed`, `drop`). A real ruleset makes the time in between long by many rules; so does this.

use super::Lab;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::fmt::Write;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Rules between choice and entry: together some tenths of a millisecond.
const RULES: u32 = 5_000;
/// Time between two pairs of packets.
const PAUSE: Duration = Duration::from_millis(5);

/// From the agreement to the shot: longer than a barrier takes to wake its second thread.
const AIM: u64 = 300_000;

/// The race; it ends with the handle.
#[derive(Debug)]
pub struct NatRace {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts it between `client` and `client2`, towards one destination. The lab needs a NAT and `second_client()`.
#[track_caller]
pub fn start(lab: &Lab, to: SocketAddr) -> NatRace {
    let head = "table ip lab_slow { chain late { type filter hook postrouting priority srcnat + 10;\n";
    let mut rules = head.to_owned();
    for number in 0..RULES {
        let _ = writeln!(rules, "udp dport {} udp sport 1 counter", 1 + number % 1000);
    }
    rules.push_str("}; }\n");
    lab.router().nft(&rules);
    let stop = Arc::new(AtomicBool::new(false));
    let start = Arc::new(Start {
        meet: Barrier::new(2),
        base: Instant::now(),
        shot: AtomicU64::new(0),
    });
    let threads = [lab.client(), lab.host("client2")]
        .into_iter()
        .enumerate()
        .map(|(index, ns)| {
            let (start, stop) = (Arc::clone(&start), Arc::clone(&stop));
            ns.spawn(move || race(index, to, &start, &stop))
        });
    NatRace {
        threads: threads.collect(),
        stop,
    }
}

impl Drop for NatRace {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// How two threads agree on a moment.
struct Start {
    meet: Barrier,
    base: Instant,
    /// Nanoseconds since `base` at which both send; 0 for the end.
    shot: AtomicU64,
}

impl Start {
    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).expect("a test is shorter than centuries")
    }
}

/// Sends a datagram from each port at the same moment as the other thread does.
fn race(index: usize, to: SocketAddr, start: &Start, stop: &AtomicBool) {
    pin(index);
    for port in (20_000..60_000).cycle() {
        let socket = UdpSocket::bind(("0.0.0.0", port));
        if start.meet.wait().is_leader() {
            let ended = stop.load(Ordering::SeqCst);
            start
                .shot
                .store(if ended { 0 } else { start.now() + AIM }, Ordering::SeqCst);
        }
        start.meet.wait();
        let shot = start.shot.load(Ordering::SeqCst);
        if shot == 0 {
            return;
        }
        while start.now() < shot {
            std::hint::spin_loop();
        }
        if let Ok(socket) = socket {
            let _ = socket.send_to(b"race", to);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Keeps the calling thread on the n-th CPU of those that it may use: packets are forwarded where they are sent.
fn pin(index: usize) {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("a thread may ask for its own CPUs");
    let cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    if let Some(cpu) = cpus.collect::<Vec<_>>().get(index) {
        let mut one = CpuSet::new();
        one.set(*cpu).expect("it is in the set that the kernel gave");
        sched_setaffinity(this, &one).expect("it is one of those allowed");
    }
}

//! Load that clients make: connections held, churned, left in TIME_WAIT, opened until no port is left; UDP flows.

use super::Namespace;
use super::SOON;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A connect that has no answer after this is counted as failed. A busy machine drops packets between namespaces, so a
/// SYN may need its first two retransmissions (RFC 6298: after one second, and two more).
const CONNECT: Duration = Duration::from_secs(4);
/// Connections that churn makes in a row when it is late.
const BURST: u64 = 256;

/// Connections that stay open for as long as this lives.
#[derive(Debug)]
pub struct Held {
    /// The connections.
    pub streams: Vec<TcpStream>,
    /// The error that ended the opening, if one did.
    pub error: Option<io::Error>,
}

/// Opens `count` connections, or as many as go.
pub fn hold(ns: &Namespace, to: SocketAddr, count: usize) -> Held {
    ns.run(|| hold_here(to, count))
}

/// Opens connections until connect says that no port is left, and holds them all.
#[track_caller]
pub fn exhaust(ns: &Namespace, to: SocketAddr) -> Held {
    let held = hold(ns, to, usize::MAX);
    let errno = held.error.as_ref().and_then(io::Error::raw_os_error);
    assert!(
        errno == Some(libc::EADDRNOTAVAIL),
        "expected EADDRNOTAVAIL after {} connections, found {:?}",
        held.streams.len(),
        held.error
    );
    held
}

/// Opens connections from the calling thread's namespace.
pub(super) fn hold_here(to: SocketAddr, count: usize) -> Held {
    let mut streams = Vec::new();
    while streams.len() < count {
        match TcpStream::connect_timeout(&to, CONNECT) {
            Ok(stream) => streams.push(stream),
            Err(error) => {
                return Held {
                    streams,
                    error: Some(error),
                };
            }
        }
    }
    Held { streams, error: None }
}

/// Leaves `count` ports of the client in TIME_WAIT towards `to`, which must be a [`super::Serve::Echo`] server.
#[track_caller]
pub fn fill_time_wait(ns: &Namespace, to: SocketAddr, count: u64) {
    let before = ns.sockstat("TCP", "tw");
    ns.run(|| {
        for number in 0..count {
            exchange(to, false).unwrap_or_else(|e| panic!("connection {number} of {count} failed: {e}"));
        }
    });
    super::wait_until(SOON, "all closed connections to be in TIME_WAIT", || {
        ns.sockstat("TCP", "tw") >= before + count
    });
}

/// One short connection: some bytes, their echo, and the end; to the server's end, or else to ours.
fn exchange(to: SocketAddr, await_close: bool) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT)?;
    stream.set_read_timeout(Some(CONNECT))?;
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    if await_close {
        let _ = stream.read(&mut answer)?;
    }
    Ok(stream)
}

/// How connections are churned.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct ChurnPlan {
    /// The server: `Echo` lets the client close first, `CloseFirst` is needed for the other.
    pub to: SocketAddr,
    /// Connections a second; some thousands are reached.
    pub rate: u32,
    /// How long the client keeps each open after its exchange.
    pub lifetime: Duration,
    /// The server closes first, and the client only then.
    pub server_closes: bool,
}

/// What churn did so far.
#[derive(Debug, Default)]
pub struct ChurnStats {
    /// Connections with a complete exchange.
    pub done: AtomicU64,
    /// Failures by errno; 0 for those without.
    pub failed: Mutex<BTreeMap<i32, u64>>,
}

/// Churn in the background; it ends with the handle.
#[derive(Debug)]
pub struct Churn {
    stats: Arc<ChurnStats>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    /// Starts it from `ns`.
    pub fn start(ns: &Namespace, plan: ChurnPlan) -> Self {
        let stats = Arc::new(ChurnStats::default());
        let theirs = Arc::clone(&stats);
        let (stop, stopped) = mpsc::channel();
        let thread = ns.spawn(move || churn_here(plan, &theirs, &stopped));
        Self {
            stats,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Complete exchanges so far.
    pub fn done(&self) -> u64 {
        self.stats.done.load(Ordering::Relaxed)
    }

    /// Failures so far, by errno.
    pub fn failed(&self) -> BTreeMap<i32, u64> {
        self.stats.failed.lock().expect("no panic while locked").clone()
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Churns from the calling thread's namespace until the other end of `stopped` is dropped.
pub(super) fn churn_here(plan: ChurnPlan, stats: &ChurnStats, stopped: &mpsc::Receiver<()>) {
    let start = Instant::now();
    let mut begun = 0_u64;
    let mut open = VecDeque::new();
    while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_millis(2)) {
        let now = Instant::now();
        while open.front().is_some_and(|(until, _)| *until <= now) {
            open.pop_front();
        }
        let due = start.elapsed().as_micros() * u128::from(plan.rate) / 1_000_000;
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        // A path that times out must not owe a burst for the time that it took.
        begun = begun.max(due.saturating_sub(BURST));
        if begun >= due {
            continue;
        }
        for _ in begun..due {
            match exchange(plan.to, plan.server_closes) {
                Ok(stream) => {
                    stats.done.fetch_add(1, Ordering::Relaxed);
                    if !plan.lifetime.is_zero() {
                        open.push_back((Instant::now() + plan.lifetime, stream));
                    }
                }
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(0);
                    *stats
                        .failed
                        .lock()
                        .expect("no panic while locked")
                        .entry(errno)
                        .or_default() += 1;
                    // Look whether to stop before the next one, which may take as long.
                    break;
                }
            }
        }
        begun = due;
    }
}

/// UDP sockets connected to one place, each a flow of its own.
#[derive(Debug)]
pub struct UdpFlows(pub Vec<UdpSocket>);

impl UdpFlows {
    /// Opens `count` sockets to a [`super::UdpReflector`].
    #[track_caller]
    pub fn open(ns: &Namespace, to: SocketAddr, count: usize) -> Self {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let open = || -> io::Result<Vec<UdpSocket>> {
            let sockets = (0..count).map(|_| {
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            sockets.collect()
        };
        Self(
            ns.run(open)
                .unwrap_or_else(|e| panic!("cannot open {count} UDP sockets: {e}")),
        )
    }

    /// Sends a datagram on each flow; errors are the network's answer and count as no answer.
    pub fn send(&self) {
        for socket in &self.0 {
            let _ = socket.send(b"flow");
        }
    }

    /// Sends on each flow and returns how many were answered when all were, or after `limit`.
    pub fn answered(&self, limit: Duration) -> usize {
        self.send();
        let start = Instant::now();
        let mut waiting: Vec<&UdpSocket> = self.0.iter().collect();
        while !waiting.is_empty() && start.elapsed() < limit {
            waiting.retain(|socket| socket.recv(&mut [0; 128]).is_err());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.0.len() - waiting.len()
    }
}

impl Namespace {
    /// Narrows the local ports that connect and bind take.
    #[track_caller]
    pub fn set_port_range(&self, first: u16, last: u16) {
        self.sysctl("net.ipv4.ip_local_port_range", format!("{first} {last}"));
    }
}

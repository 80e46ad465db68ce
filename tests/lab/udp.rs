//! UDP: a reflector that tells each sender where it seems to be, and those who ask it.

use super::Namespace;
use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Answers each datagram with its source address as text, padded to the datagram's length where that is longer.
#[derive(Debug)]
pub struct UdpReflector {
    at: SocketAddr,
    seen: Arc<Mutex<BTreeSet<SocketAddr>>>,
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl UdpReflector {
    /// Starts it in `ns`.
    #[track_caller]
    pub fn start(ns: &Namespace, at: SocketAddr) -> Self {
        let socket = ns
            .run(|| UdpSocket::bind(at))
            .unwrap_or_else(|e| panic!("cannot bind UDP {at}: {e}"));
        // A burst of a thousand datagrams must not be lost here: on a busy machine the thread comes late to it.
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20))
            .unwrap_or_else(|e| panic!("cannot set the reflector's buffer: {e}"));
        let at = socket.local_addr().expect("it is bound");
        let (stopped, stop) = io::pipe().expect("a pipe can be made");
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let theirs = Arc::clone(&seen);
        let thread = std::thread::spawn(move || reflect(&socket, &stopped, &theirs));
        Self {
            at,
            seen,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// All sources seen so far.
    pub fn seen(&self) -> BTreeSet<SocketAddr> {
        self.seen.lock().expect("no panic while locked").clone()
    }
}

impl Drop for UdpReflector {
    fn drop(&mut self) {
        // Closing the pipe's writing end is the event that ends the thread.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn reflect(socket: &UdpSocket, stopped: &io::PipeReader, seen: &Mutex<BTreeSet<SocketAddr>>) {
    let mut buffer = vec![0; 65536];
    while readable_before(socket, stopped) {
        // An ICMP error of an earlier answer is reported here, and is nobody's business.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        seen.lock().expect("no panic while locked").insert(from);
        let mut answer = from.to_string().into_bytes();
        answer.resize(answer.len().max(length), b' ');
        let _ = socket.send_to(&answer, from);
    }
}

/// Waits for `socket` to be readable; false when `stopped` came first.
pub fn readable_before(socket: &impl AsFd, stopped: &io::PipeReader) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [
        PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        PollFd::new(socket.as_fd(), PollFlags::POLLIN),
    ];
    while let Err(error) = poll(&mut fds, PollTimeout::NONE) {
        assert!(error == nix::errno::Errno::EINTR, "poll failed: {error}");
    }
    fds[0].revents().is_none_or(|r| r.is_empty())
}

/// Asks a reflector from a new socket in `from` with a datagram of `size` bytes; returns the source that it saw.
pub fn ask(from: &Namespace, reflector: SocketAddr, size: usize, limit: Duration) -> io::Result<SocketAddr> {
    from.run(|| {
        let any = if reflector.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(reflector)?;
        external_of(&socket, size, limit)
    })
}

/// Asks the reflector that `socket` is connected to; returns the source that it saw.
pub fn external_of(socket: &UdpSocket, size: usize, limit: Duration) -> io::Result<SocketAddr> {
    socket.set_read_timeout(Some(limit))?;
    socket.send(&vec![b'?'; size])?;
    let mut buffer = vec![0; 65536];
    let length = socket.recv(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    text.trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a reflector's answer"))
}

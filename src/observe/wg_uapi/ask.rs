//! Asks many UAPI sockets at once, so that daemons that hang cost one time limit together and not one each.
//!
//! In: paths. Out: for each its reply or why there is none. Nothing is ever unlinked or written but the question.
//! Bound: the time limit; a reply is parsed as it arrives, so its length does not matter.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, getsockopt, recv, send, socket, sockopt,
};
use zeroize::{Zeroize, Zeroizing};

use crate::sys::clock;
use crate::types::PrivateKey;
use crate::wire::uapi::{self, Parser, Reply};

const BUFFER: usize = 64 * 1024;

/// What came of asking one socket.
#[derive(Debug)]
pub enum Outcome {
    /// The daemon answered; whether wholly, the reply tells.
    Answered(Box<Reply>),
    /// Nobody serves the socket (ECONNREFUSED): the daemon is dead.
    Dead,
    /// The daemon did not end its answer within the limit.
    Hung,
    /// The socket vanished meanwhile.
    Gone,
    /// Not permitted to ask.
    Denied,
    /// Something else.
    Failed(Errno),
}

/// A connected socket, before the question.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
    /// The process that listens, where its id is known here (SO_PEERCRED).
    pub pid: Option<u32>,
}

/// Connects without waiting.
pub fn connect_to(path: &Path) -> Result<Connection, Outcome> {
    let failed = |errno| match errno {
        Errno::ECONNREFUSED => Outcome::Dead,
        Errno::ENOENT => Outcome::Gone,
        Errno::EACCES | Errno::EPERM => Outcome::Denied,
        // The queue of connections is full: the daemon has long ceased to accept.
        Errno::EAGAIN => Outcome::Hung,
        errno => Outcome::Failed(errno),
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(Outcome::Failed)?;
    let address = UnixAddr::new(path).map_err(Outcome::Failed)?;
    connect(fd.as_raw_fd(), &address).map_err(failed)?;
    let pid = getsockopt(&fd, sockopt::PeerCredentials)
        .ok()
        .and_then(|c| u32::try_from(c.pid()).ok())
        .filter(|pid| *pid != 0);
    Ok(Connection { fd, pid })
}

/// Asks each connection for its device's state and waits for all, `limit` in all. The answers are in order. `keep` gets
/// the private keys that came along.
pub fn ask_all(
    connections: Vec<(Connection, String)>,
    limit: Duration,
    keep: &mut dyn FnMut(Box<PrivateKey>),
) -> Vec<Outcome> {
    let until = clock::instant() + limit;
    let mut buffer = Zeroizing::new(vec![0; BUFFER]);
    let mut asked: Vec<Asked> = connections
        .into_iter()
        .map(|(connection, name)| Asked::begin(connection, &name))
        .collect();
    while wait(&mut asked, until) {
        for one in asked
            .iter_mut()
            .filter(|one| one.readable && one.outcome.is_none())
        {
            one.read(&mut buffer, keep);
        }
    }
    asked
        .into_iter()
        .map(|one| one.outcome.unwrap_or(Outcome::Hung))
        .collect()
}

struct Asked {
    fd: OwnedFd,
    parser: Option<Parser>,
    readable: bool,
    outcome: Option<Outcome>,
}

impl Asked {
    fn begin(connection: Connection, name: &str) -> Self {
        // Seven bytes always fit into the empty buffer of a new connection.
        let sent = send(connection.fd.as_raw_fd(), uapi::GET, MsgFlags::MSG_NOSIGNAL);
        Self {
            fd: connection.fd,
            parser: Some(Parser::new(name)),
            readable: false,
            outcome: sent.err().map(|errno| match errno {
                Errno::EPIPE | Errno::ECONNRESET => Outcome::Dead,
                errno => Outcome::Failed(errno),
            }),
        }
    }

    fn read(&mut self, buffer: &mut [u8], keep: &mut dyn FnMut(Box<PrivateKey>)) {
        let Some(parser) = self.parser.as_mut() else {
            return;
        };
        let received = match recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            // A daemon that goes away in mid-answer leaves a cut reply.
            Err(Errno::ECONNRESET) => 0,
            Err(errno) => return self.outcome = Some(Outcome::Failed(errno)),
        };
        let piece = buffer.get_mut(..received).unwrap_or_default();
        parser.feed(piece);
        piece.zeroize();
        if received == 0 || parser.is_complete() {
            let reply = self.parser.take().map(|mut parser| {
                parser.take_private_key().into_iter().for_each(keep);
                parser.finish(clock::now())
            });
            self.outcome = reply.map(|reply| Outcome::Answered(Box::new(reply)));
        }
    }
}

/// Waits until some of the unanswered are readable. False when none is left or the time is over.
fn wait(asked: &mut [Asked], until: Instant) -> bool {
    let mut open: Vec<&mut Asked> = asked.iter_mut().filter(|one| one.outcome.is_none()).collect();
    let left = until.saturating_duration_since(clock::instant());
    if open.is_empty() || left.is_zero() {
        return false;
    }
    let mut fds: Vec<PollFd<'_>> = open
        .iter()
        .map(|one| PollFd::new(one.fd.as_fd(), PollFlags::POLLIN))
        .collect();
    let millis = u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
    match poll(&mut fds, PollTimeout::from(millis)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(_) => return false,
    }
    let readable: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
    for (one, readable) in open.iter_mut().zip(readable) {
        one.readable = readable;
    }
    true
}

//! A TCP server in a namespace: one thread, any number of connections.

use super::Namespace;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What the server does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serve {
    /// Sends back what it gets, and closes after the client: TIME_WAIT stays with the client.
    Echo,
    /// Answers the first bytes and closes: TIME_WAIT stays with the server.
    CloseFirst,
}

/// A listening server; it ends with the handle, and its connections with it.
#[derive(Debug)]
pub struct TcpServer {
    at: SocketAddr,
    state: Arc<State>,
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    accepted: AtomicU64,
    open: AtomicU64,
    seen: Mutex<BTreeSet<SocketAddr>>,
}

impl TcpServer {
    /// Starts it in `ns`; port 0 takes any.
    #[track_caller]
    pub fn start(ns: &Namespace, at: SocketAddr, serve: Serve) -> Self {
        let listen = || -> io::Result<socket2::Socket> {
            let socket = socket2::Socket::new(socket2::Domain::for_address(at), socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&at.into())?;
            // The machine's somaxconn cuts this to what it allows.
            socket.listen(65_535)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = ns
            .run(listen)
            .unwrap_or_else(|e| panic!("cannot listen on {at}: {e}"));
        let at = socket
            .local_addr()
            .ok()
            .and_then(|a| a.as_socket())
            .expect("it is bound");
        let (stopped, stop) = io::pipe().expect("a pipe can be made");
        let state = Arc::new(State::default());
        let theirs = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            Loop {
                listener: socket.into(),
                stopped,
                serve,
                state: theirs,
                streams: HashMap::new(),
            }
            .run()
            .expect("epoll works");
        });
        Self {
            at,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// Connections accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.state.open.load(Ordering::Relaxed)
    }

    /// All clients' addresses seen so far.
    pub fn seen(&self) -> BTreeSet<SocketAddr> {
        self.state.seen.lock().expect("no panic while locked").clone()
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Loop {
    listener: std::net::TcpListener,
    stopped: io::PipeReader,
    serve: Serve,
    state: Arc<State>,
    streams: HashMap<RawFd, TcpStream>,
}

impl Loop {
    fn run(mut self) -> io::Result<()> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = |fd: RawFd| EpollEvent::new(EpollFlags::EPOLLIN, fd.cast_unsigned().into());
        let (listener, stopped) = (self.listener.as_raw_fd(), self.stopped.as_raw_fd());
        epoll.add(&self.listener, readable(listener))?;
        epoll.add(&self.stopped, readable(stopped))?;
        let mut events = vec![EpollEvent::empty(); 256];
        loop {
            let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                let fd = u32::try_from(event.data())
                    .expect("we put it there")
                    .cast_signed();
                if fd == stopped {
                    return Ok(());
                }
                if fd != listener {
                    self.serve(fd);
                    continue;
                }
                while let Ok((stream, from)) = self.listener.accept() {
                    stream.set_nonblocking(true)?;
                    epoll.add(&stream, readable(stream.as_raw_fd()))?;
                    self.state
                        .seen
                        .lock()
                        .expect("no panic while locked")
                        .insert(from);
                    self.state.accepted.fetch_add(1, Ordering::Relaxed);
                    self.state.open.fetch_add(1, Ordering::Relaxed);
                    self.streams.insert(stream.as_raw_fd(), stream);
                }
            }
        }
    }

    /// Answers one readable connection. Messages are a few bytes, so a write never has to wait.
    fn serve(&mut self, fd: RawFd) {
        let Some(mut stream) = self.streams.get(&fd) else {
            return;
        };
        let mut buffer = [0; 4096];
        let ended = match stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(length) => stream.write_all(&buffer[..length]).is_err() || self.serve == Serve::CloseFirst,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        if ended {
            self.streams.remove(&fd);
            self.state.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

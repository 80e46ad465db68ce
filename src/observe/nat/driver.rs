//! Gives a [`Discovery`] its sockets and its time.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Stop, tcp};
use crate::observation::nat::NatFacts;
use crate::probe::natdisc::{Discovery, Effect, Plan, SocketId};
use crate::sys::clock;
use crate::time::{Span, Timestamp};
use crate::wire::stun::LARGEST;

/// Datagrams read from one socket before the others have their turn: a flood must not starve time-outs.
const BATCH: usize = 32;
/// Beyond every test's own time-out; a discovery that has not ended then has a bug, and is ended.
pub(super) const LIMIT: Span = Span::from_secs(30);

/// Runs a discovery to its end, without the rest of a lifetime's measurement once that is to stop.
pub fn run(plan: Plan, stop: Option<&Stop>) -> io::Result<NatFacts> {
    // Steps of the wall clock must not end or stretch a test.
    let (wall, steady) = (clock::now(), clock::instant());
    let now = || wall + (clock::instant() - steady);
    let limit = wall + super::longest(plan.lifetime.unwrap_or_default());
    let mut discovery = Discovery::new(plan, now());
    let (tcp_done, tcp_results) = mpsc::channel();
    let wake = Arc::new(EventFd::from_value_and_flags(
        0,
        EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
    )?);
    for (server, address) in discovery.servers().collect::<Vec<_>>() {
        let (done, wake) = (tcp_done.clone(), Arc::clone(&wake));
        std::thread::Builder::new()
            .name("stun-tcp".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                let _ = done.send((server, tcp::ask(address)));
                let _ = wake.write(1);
            })?;
    }
    let mut sockets: BTreeMap<SocketId, UdpSocket> = BTreeMap::new();
    let mut buffer = vec![0; 65_536];
    let mut stop = stop;
    loop {
        for (server, outcome) in tcp_results.try_iter() {
            discovery.handle_tcp(server, outcome);
        }
        while let Some(effect) = discovery.poll_transmit() {
            perform(effect, &mut sockets, &mut discovery, &now);
        }
        if let Some(facts) = discovery.poll_event() {
            return Ok(facts);
        }
        if now() > limit {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the tests did not end"));
        }
        let left = discovery.poll_timeout().map(|at| at - now());
        if wait(&sockets, &wake, stop, left)? {
            stop = None;
            discovery.handle_stop();
        }
        let _ = wake.read();
        for (id, socket) in &sockets {
            receive(*id, socket, &mut buffer, &mut discovery, &now);
        }
        discovery.handle_timeout(now());
    }
}

fn perform(
    effect: Effect,
    sockets: &mut BTreeMap<SocketId, UdpSocket>,
    discovery: &mut Discovery,
    now: &impl Fn() -> Timestamp,
) {
    match effect {
        Effect::Open(id, toward) => {
            let opened = open(toward).and_then(|socket| Ok((socket.local_addr()?, socket)));
            let outcome = match opened {
                Ok((local, socket)) => {
                    sockets.insert(id, socket);
                    Ok(local)
                }
                Err(error) => Err(format!("no way to {}: {error}", toward.ip())),
            };
            discovery.handle_opened(now(), id, outcome);
        }
        Effect::Send(id, to, bytes) => {
            let Some(socket) = sockets.get(&id) else {
                return;
            };
            match socket.send_to(&bytes, to) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EPERM as i32) => {
                    let why = "this host's own firewall refuses the datagram (EPERM)";
                    discovery.handle_refused(now(), to, why);
                }
                Err(error) => discovery.handle_refused(now(), to, &format!("cannot send: {error}")),
            }
        }
        Effect::Close(id) => {
            if sockets.remove(&id).is_some()
                && let Some((age, words)) = discovery.aged_as(id)
            {
                tracing::info!("a mapping idle for {:.1} s {words}", age.as_secs_f64());
            }
        }
    }
}

/// A socket at the address that this host has towards `toward`: its own address must be known to be compared.
pub(super) fn open(toward: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match toward {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let asking = UdpSocket::bind((any, 0))?;
    asking.connect(toward)?;
    let mut local = asking.local_addr()?;
    drop(asking);
    local.set_port(0);
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Waits until something is to be read, is due, or is to stop: then it is true.
fn wait(
    sockets: &BTreeMap<SocketId, UdpSocket>,
    wake: &EventFd,
    stop: Option<&Stop>,
    left: Option<Span>,
) -> io::Result<bool> {
    let mut fds: Vec<PollFd<'_>> = sockets
        .values()
        .map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN))
        .collect();
    fds.push(PollFd::new(wake.as_fd(), PollFlags::POLLIN));
    fds.extend(stop.map(|stop| PollFd::new(stop.fd(), PollFlags::POLLIN)));
    let left = left.unwrap_or(Span::from_millis(500)) + Span::from_millis(1);
    let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
    match poll(&mut fds, PollTimeout::from(millis)) {
        Ok(_) => Ok(stop.is_some() && fds.last().and_then(PollFd::any) == Some(true)),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn receive(
    id: SocketId,
    socket: &UdpSocket,
    buffer: &mut [u8],
    discovery: &mut Discovery,
    now: &impl Fn() -> Timestamp,
) {
    for _ in 0..BATCH {
        match socket.recv_from(buffer) {
            Ok((length, from)) if length <= LARGEST => {
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                discovery.handle_input(now(), id, from, buffer.get(..length).unwrap_or_default());
            }
            // Giants are no answers to anything that was asked.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

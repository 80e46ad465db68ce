//! The first routers on the way to a server: datagrams whose TTL ends there, and who complains.
//!
//! Unprivileged: the kernel queues ICMP errors for the socket that provoked them. A carrier's NAT shows itself by the
//! addresses of its range among them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::observation::nat::Hop;
use crate::probe::natdisc::transaction::{Ask, request};
use crate::sys::{clock, errqueue};
use crate::time::Span;
use crate::wire::stun::TransactionId;

/// Routers asked for: beyond them lies the internet.
const HOPS: u8 = 8;
/// Time for the answers.
const PATIENCE: Span = Span::from_millis(1500);
/// ICMP Time Exceeded (RFC 792), and ICMPv6's (RFC 4443).
const TIME_EXCEEDED: [u8; 2] = [11, 3];

/// The routers on the way to `server`; those that stay silent are absent.
pub fn find(server: SocketAddr) -> Vec<Hop> {
    // One socket for all: each would be a flow of its own at the NAT, and some allow few new ones a second.
    let Ok(socket) = open(server) else {
        return Vec::new();
    };
    let started = clock::instant();
    let left = || {
        PATIENCE
            .checked_sub(clock::instant() - started)
            .filter(|l| !l.is_zero())
    };
    let mut hops: Vec<Hop> = Vec::new();
    for ttl in 1..=HOPS {
        // An error that is queued already is reported by the next send.
        for _ in 0..2 {
            if send(&socket, server, ttl).is_ok() {
                break;
            }
            collect(&socket, &mut hops);
        }
    }
    while let Some(left) = left().filter(|_| hops.len() < usize::from(HOPS)) {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        if poll(&mut fds, PollTimeout::from(millis)).is_err() {
            break;
        }
        collect(&socket, &mut hops);
        // What reached the server is answered; the answers tell nothing of the way.
        while socket.recv(&mut [0; 64]).is_ok() {}
    }
    hops.sort_by_key(|h| h.ttl);
    hops
}

/// Takes what routers complained of, each once.
fn collect(socket: &UdpSocket, hops: &mut Vec<Hop>) {
    while let Ok(Some(offence)) = errqueue::take(socket) {
        let ttl = offence.quoted.get(TRANSACTION).copied().unwrap_or(0);
        let known = (1..=HOPS).contains(&ttl) && hops.iter().all(|h| h.ttl != ttl);
        if known && TIME_EXCEEDED.contains(&offence.kind) {
            hops.push(Hop {
                ttl,
                address: offence.from,
            });
        }
    }
}

/// Where the transaction's identity begins in a message: it is the TTL, twelve times over, so that the quoted datagram
/// tells which it was.
const TRANSACTION: usize = 8;

fn open(server: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    errqueue::enable(&socket)?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    Ok(socket)
}

fn send(socket: &UdpSocket, server: SocketAddr, ttl: u8) -> std::io::Result<usize> {
    let options = socket2::SockRef::from(socket);
    match server {
        SocketAddr::V4(_) => options.set_ttl_v4(ttl.into())?,
        SocketAddr::V6(_) => options.set_unicast_hops_v6(ttl.into())?,
    }
    // A request that nobody needs to read: what reaches the server is a valid one.
    socket.send(&request(TransactionId::new([ttl; 12]), server, Ask::default()))
}

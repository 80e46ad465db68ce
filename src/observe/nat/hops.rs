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
    let sockets: Vec<(u8, UdpSocket)> = (1..=HOPS)
        .filter_map(|ttl| Some((ttl, send(server, ttl).ok()?)))
        .collect();
    let started = clock::instant();
    let mut hops: Vec<Hop> = Vec::new();
    let mut open: Vec<&(u8, UdpSocket)> = sockets.iter().collect();
    while !open.is_empty() {
        let Some(left) = PATIENCE
            .checked_sub(clock::instant() - started)
            .filter(|l| !l.is_zero())
        else {
            break;
        };
        let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        let mut fds: Vec<PollFd<'_>> = open
            .iter()
            .map(|(_, s)| PollFd::new(s.as_fd(), PollFlags::POLLIN))
            .collect();
        if poll(&mut fds, PollTimeout::from(millis)).is_err() {
            break;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let mut still = Vec::new();
        for (one, ready) in open.into_iter().zip(ready) {
            let (ttl, socket) = one;
            if !ready {
                still.push(one);
                continue;
            }
            // An answer of the server itself, or another error, ends the wait for this TTL.
            if let Ok(Some(offence)) = errqueue::take(socket)
                && TIME_EXCEEDED.contains(&offence.kind)
            {
                hops.push(Hop {
                    ttl: *ttl,
                    address: offence.from,
                });
            }
        }
        open = still;
    }
    hops.sort_by_key(|h| h.ttl);
    hops
}

fn send(server: SocketAddr, ttl: u8) -> std::io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    errqueue::enable(&socket)?;
    let options = socket2::SockRef::from(&socket);
    match server {
        SocketAddr::V4(_) => options.set_ttl_v4(ttl.into())?,
        SocketAddr::V6(_) => options.set_unicast_hops_v6(ttl.into())?,
    }
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    // A request that nobody will read: what reaches the server is a valid one.
    socket.send(&request(TransactionId::new([ttl; 12]), server, Ask::default()))?;
    Ok(socket)
}

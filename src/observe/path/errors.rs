//! What the network said against a packet: a socket's error queue (ip(7), `IP_RECVERR`), and errnos in words.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};

use crate::observation::path::Failure;
use crate::wire::icmp;

/// `SO_EE_ORIGIN_LOCAL`: this host's own kernel (errqueue.h).
const ORIGIN_LOCAL: u8 = 1;

/// One entry of an error queue.
#[derive(Debug)]
pub(super) struct Queued {
    /// Its errno.
    pub errno: i32,
    /// Who sent it; `None` for this host's own kernel.
    pub from: Option<IpAddr>,
    /// The MTU that a "too big" names.
    pub mtu: u32,
    /// What it says.
    pub says: String,
}

/// Asks for ICMP errors in the error queue of `socket`.
pub(super) fn ask_for(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    if v6 {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
    }
    Ok(())
}

/// The next entry of the error queue of `socket`.
pub(super) fn next(socket: &impl AsFd) -> Option<Queued> {
    let mut payload = [0_u8; 256];
    let mut parts = [IoSliceMut::new(&mut payload)];
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
    )
    .ok()?;
    for part in message.cmsgs().ok()? {
        let (error, from, v6) = match part {
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                let from = from.map(|a| IpAddr::from(u32::from_be(a.sin_addr.s_addr).to_be_bytes()));
                (error, from, false)
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                (error, from.map(|a| IpAddr::from(a.sin6_addr.s6_addr)), true)
            }
            _ => continue,
        };
        let errno = i32::try_from(error.ee_errno).unwrap_or(libc::EIO);
        let local = error.ee_origin == ORIGIN_LOCAL;
        let says = if local {
            words(errno)
        } else {
            icmp::meaning(v6, error.ee_type, error.ee_code).1.to_owned()
        };
        return Some(Queued {
            errno,
            from: from.filter(|_| !local),
            mtu: error.ee_info,
            says,
        });
    }
    None
}

/// What `error` of a send or a receive on `socket` towards `target` means. The error queue knows more than the errno.
pub(super) fn failure(socket: &impl AsFd, error: &io::Error, target: IpAddr) -> Failure {
    match next(socket) {
        Some(queued) if queued.errno == libc::ECONNREFUSED && queued.from == Some(target) => Failure::Refused,
        Some(Queued {
            from: Some(from),
            says,
            ..
        }) => Failure::Unreachable {
            from: Some(from),
            says,
        },
        _ => of_errno(error),
    }
}

/// What an errno alone says.
pub(super) fn of_errno(error: &io::Error) -> Failure {
    let says = || error.raw_os_error().map_or_else(|| error.to_string(), words);
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Failure::Refused,
        Some(libc::ETIMEDOUT) => Failure::Timeout,
        Some(libc::ECONNRESET | libc::EPIPE) => Failure::Cut(says()),
        // The kernel's own, where the neighbour did not answer, or an ICMP error that said so.
        Some(libc::EHOSTUNREACH) => Failure::Unreachable {
            from: None,
            says: says(),
        },
        _ => Failure::Local(says()),
    }
}

fn words(errno: i32) -> String {
    match errno {
        libc::EPERM => "not permitted (a firewall rule of this host refuses the packet)".to_owned(),
        libc::ENETUNREACH => "no route to the network".to_owned(),
        libc::EHOSTUNREACH => "the host does not answer, or is not reachable".to_owned(),
        libc::EADDRNOTAVAIL => "no free local port or address".to_owned(),
        libc::EMSGSIZE => "larger than the interface's MTU".to_owned(),
        other => io::Error::from_raw_os_error(other).to_string(),
    }
}

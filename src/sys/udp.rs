//! UDP sockets that learn of ICMP errors, and that can be told not to fragment.
#![allow(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// `SO_EE_ORIGIN_*` (include/uapi/linux/errqueue.h).
const ORIGIN_LOCAL: u8 = 1;
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// An error about a datagram that was sent.
#[derive(Clone, Debug)]
pub struct QueuedError {
    /// The errno that it stands for.
    pub errno: i32,
    /// Whether ICMP (`Some(false)`) or ICMPv6 (`Some(true)`) said so; `None` for this host itself.
    pub icmp_v6: Option<bool>,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub code: u8,
    /// The MTU, with EMSGSIZE.
    pub mtu: Option<u32>,
    /// Who sent the ICMP error.
    pub from: Option<IpAddr>,
    /// What is quoted of the datagram's payload.
    pub quoted: Vec<u8>,
}

/// A non-blocking socket on a free port, connected to `to`, that collects errors (`IP_RECVERR`, ip(7)).
pub fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if to.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Sets "don't fragment" on every datagram and ignores what the kernel believes of the path's MTU
/// (`IP_PMTUDISC_PROBE`): what is too large for the way is for the way to say.
pub fn never_fragment(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    let (level, name, value) = if v6 {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        )
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    };
    let len = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(4);
    // SAFETY: the kernel reads `len` bytes of `value`, an integer that outlives the call; the descriptor is borrowed for it.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            len,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The next error in the socket's queue; `None` where there is none.
pub fn next_error(socket: &impl AsFd) -> Option<QueuedError> {
    let mut payload = [0; 2048];
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6, [u8; 64]);
    let mut parts = [IoSliceMut::new(&mut payload)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let (bytes, error) = {
        let message =
            recvmsg::<SockaddrStorage>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut control), flags)
                .ok()?;
        let error = message.cmsgs().ok()?.find_map(|c| match c {
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                let from = from.map(|a| IpAddr::from(u32::from_be(a.sin_addr.s_addr).to_be_bytes()));
                Some((error, from))
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                Some((error, from.map(|a| IpAddr::from(a.sin6_addr.s6_addr))))
            }
            _ => None,
        });
        (message.bytes, error?)
    };
    let (error, from) = error;
    let icmp_v6 = match error.ee_origin {
        ORIGIN_ICMP => Some(false),
        ORIGIN_ICMP6 => Some(true),
        _ => None,
    };
    let errno = i32::try_from(error.ee_errno).unwrap_or(0);
    Some(QueuedError {
        errno,
        icmp_v6,
        icmp_type: error.ee_type,
        code: error.ee_code,
        mtu: (errno == libc::EMSGSIZE).then_some(error.ee_info),
        from: from.filter(|_| error.ee_origin != ORIGIN_LOCAL),
        quoted: payload.get(..bytes).unwrap_or_default().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_is_told_with_what_was_sent() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = connect(gone).unwrap();
        assert!(next_error(&socket).is_none());
        socket.send(b"anybody there?").unwrap();
        // On loopback the error is queued before send returns.
        let error = next_error(&socket).expect("an error");
        assert_eq!((error.icmp_v6, error.icmp_type, error.code), (Some(false), 3, 3));
        assert_eq!(error.errno, libc::ECONNREFUSED);
        assert_eq!(error.from, Some(gone.ip()));
        assert_eq!(error.quoted, b"anybody there?");
    }

    #[test]
    fn what_is_larger_than_the_interface_is_refused_with_its_mtu() {
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = connect(there.local_addr().unwrap()).unwrap();
        never_fragment(&socket, false).unwrap();
        assert!(socket.send(&vec![0; 65_507]).is_ok(), "lo's MTU is 65,536");
        assert_eq!(
            socket.send(&vec![0; 65_508]).unwrap_err().raw_os_error(),
            Some(libc::EMSGSIZE)
        );
    }
}

//! A UDP socket's error queue: which router sent an ICMP error about one of its datagrams (`IP_RECVERR`, ip(7)). Needs no
//! privilege.
#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// An ICMP or ICMPv6 error about a datagram of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpOffence {
    /// Who sent the error.
    pub from: IpAddr,
    /// ICMP's type.
    pub kind: u8,
    /// ICMP's code.
    pub code: u8,
    /// The beginning of the datagram's payload, as far as the error quotes it.
    pub quoted: [u8; QUOTED],
}

/// Bytes of the payload that are kept.
pub const QUOTED: usize = 16;

/// Asks the kernel to queue errors of this socket.
pub fn enable(socket: &UdpSocket) -> io::Result<()> {
    let (level, name) = match socket.local_addr()?.ip() {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; `on` is an int of the size given.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), size) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes one error off the queue; `None` where it is empty or the error was a local one.
pub fn take(socket: &UdpSocket) -> io::Result<Option<IcmpOffence>> {
    let mut data = [0_u8; 512];
    // Aligned as `cmsghdr` wants it.
    let mut control = [0_u64; 64];
    let mut part = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    // SAFETY: all of msghdr's fields may be zero: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // How wide this is differs between C libraries.
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: `message` points at buffers that outlive the call, with their true lengths.
    let got = unsafe {
        libc::recvmsg(
            socket.as_raw_fd(),
            &raw mut message,
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
    if got < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock {
            Ok(None)
        } else {
            Err(error)
        };
    }
    // SAFETY: the kernel has filled `message`; its control buffer is alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole header inside the control buffer.
        let (level, kind, length) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
        let about = (level == libc::IPPROTO_IP && kind == libc::IP_RECVERR)
            || (level == libc::IPPROTO_IPV6 && kind == libc::IPV6_RECVERR);
        if about {
            // SAFETY: `header` is a header as above; its data begin behind it.
            let (start, control_data) = unsafe { (libc::CMSG_LEN(0) as usize, libc::CMSG_DATA(header)) };
            let length: usize = length as _;
            let bytes = length.saturating_sub(start).min(size_of_val(&control));
            // SAFETY: the kernel wrote `cmsg_len` bytes there, header included, inside the control buffer.
            let bytes = unsafe { std::slice::from_raw_parts(control_data, bytes) };
            let length = usize::try_from(got).unwrap_or(0);
            return Ok(offence(bytes, data_of(&data, length)));
        }
        // SAFETY: as for CMSG_FIRSTHDR; `header` is one that it or this returned.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(None)
}

fn data_of(data: &[u8], length: usize) -> [u8; QUOTED] {
    let mut quoted = [0; QUOTED];
    for (to, from) in quoted.iter_mut().zip(data.iter().take(length)) {
        *to = *from;
    }
    quoted
}

/// `struct sock_extended_err` (linux/errqueue.h) and the offender's address behind it.
fn offence(bytes: &[u8], quoted: [u8; QUOTED]) -> Option<IcmpOffence> {
    const ORIGIN_ICMP: u8 = 2;
    const ORIGIN_ICMP6: u8 = 3;
    let (error, offender) = bytes.split_at_checked(16)?;
    if !matches!(error[4], ORIGIN_ICMP | ORIGIN_ICMP6) {
        return None;
    }
    let family = offender
        .first_chunk::<2>()
        .map(|f| i32::from(u16::from_ne_bytes(*f)))?;
    let from: IpAddr = match family {
        libc::AF_INET => Ipv4Addr::from(*offender.get(4..)?.first_chunk::<4>()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(*offender.get(8..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(IcmpOffence {
        from,
        kind: error[5],
        code: error[6],
        quoted,
    })
}

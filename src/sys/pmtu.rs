//! Sockets that probe a path's MTU: ip(7) and ipv6(7), `IP_MTU_DISCOVER` and `IP_MTU`.
//!
//! In: a socket. Out: packets that leave with DF set whatever the kernel remembers of the path; the MTU that it does remember.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, c_void, socklen_t};

/// Sets DF on what `socket` sends, ignores the path MTU that the kernel remembers, and lets it learn none
/// (`IP_PMTUDISC_PROBE`).
pub fn probe_only(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    let (level, name, value): (c_int, c_int, c_int) = if v6 {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        )
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    };
    // SAFETY: the descriptor is open while it is borrowed; `value` is an int that lives through the call, and its length is
    // given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            int_length(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The MTU of the way to the peer of a connected `socket`, as the kernel knows it: the interface's or route's, or what it
/// learnt from ICMP.
pub fn known_mtu(socket: &impl AsFd, v6: bool) -> io::Result<u32> {
    let (level, name) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU)
    };
    let mut value: c_int = 0;
    let mut length = int_length();
    // SAFETY: the descriptor is open while it is borrowed; `value` and `length` live through the call, and `length` says how
    // much room `value` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast::<c_void>(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(value).map_err(io::Error::other)
}

#[allow(clippy::cast_possible_truncation)] // four
const fn int_length() -> socklen_t {
    size_of::<c_int>() as socklen_t
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn loopback_has_an_mtu_and_takes_the_option() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        probe_only(&socket, false).unwrap();
        assert!(known_mtu(&socket, false).unwrap() >= 1280);
    }
}

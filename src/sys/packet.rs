//! A packet socket that sees every interface of its namespace through a filter in the kernel.
//!
//! In: a classic BPF program. Out: packets from the network header on, with the kernel's timestamp, interface and
//! direction; and how many were lost. See packet(7). Needs CAP_NET_RAW.
#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{LinkAddr, SockaddrLike as _, bind, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::cbpf::Instruction;
use crate::time::Timestamp;
use crate::types::IfIndex;

/// The packet's first bytes that are kept. A filter should hand out no more.
const SNAP: usize = 2048;

/// Why a packet socket could not be opened: what was tried, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("packet socket: {doing}: {source}")]
pub struct PacketError {
    /// What was tried.
    pub doing: &'static str,
    /// The kernel's answer.
    pub source: io::Error,
}

impl PacketError {
    fn at(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self { doing, source }
    }

    /// Whether a missing capability is the reason.
    pub fn is_denied(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::EPERM | libc::EACCES))
    }
}

/// Which way a packet passed (`sll_pkttype`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// Came in through the interface, to whomever.
    In,
    /// Goes out through the interface.
    Out,
}

/// One packet.
#[derive(Debug)]
pub struct Received<'a> {
    /// From the network header on; cut where the filter cut it, or this socket.
    pub bytes: &'a [u8],
    /// When the kernel saw it (wall clock).
    pub at: Option<Timestamp>,
    /// Which way it passed.
    pub passing: Passing,
    /// The interface.
    pub if_index: IfIndex,
}

/// Cumulative counts since the socket was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that passed the filter.
    pub passed: u64,
    /// Packets of these that found the receive buffer full.
    pub dropped: u64,
}

/// The socket with its buffers.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    buffer: Box<[u8]>,
    counts: Counts,
    /// Packets that were handed out.
    received: u64,
}

impl PacketSocket {
    /// Opens the socket: the filter is in place before the first packet can come. `receive_buffer` is asked for in
    /// bytes of kernel memory; without CAP_NET_ADMIN the kernel caps it at `net.core.rmem_max`.
    pub fn open(filter: &[Instruction], receive_buffer: usize) -> Result<Self, PacketError> {
        // Protocol 0 registers no tap. The bind below does, with everything set.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))
            .map_err(PacketError::at("opening it"))?;
        socket
            .attach_filter(&native(filter))
            .map_err(PacketError::at("attaching the filter"))?;
        socket
            .set_nonblocking(true)
            .map_err(PacketError::at("making it nonblocking"))?;
        if setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer).is_err() {
            // What the kernel grants must do; losses are counted.
            let _ = setsockopt(&socket, sockopt::RcvBuf, &receive_buffer);
        }
        let errno = |doing| {
            move |e: Errno| PacketError {
                doing,
                source: e.into(),
            }
        };
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).map_err(errno("asking for timestamps"))?;
        bind(socket.as_raw_fd(), &every_interface(libc::ETH_P_ALL))
            .map_err(errno("binding it to every interface"))?;
        Ok(Self {
            socket,
            buffer: vec![0; SNAP].into_boxed_slice(),
            counts: Counts::default(),
            received: 0,
        })
    }

    /// Puts another filter in the place of the one before, at once and with nothing lost between. What waits already
    /// passed the old one.
    pub fn set_filter(&self, filter: &[Instruction]) -> Result<(), PacketError> {
        self.socket
            .attach_filter(&native(filter))
            .map_err(PacketError::at("attaching another filter"))
    }

    /// Takes its tap off the host's packets, or puts it on again. What waits already stays.
    ///
    /// Off means bound to an ethertype that nobody sends: protocol 0 would keep the tap (net/packet/af_packet.c, `packet_bind`).
    pub fn listen(&self, on: bool) -> io::Result<()> {
        let protocol = if on { libc::ETH_P_ALL } else { NOBODYS };
        bind(self.socket.as_raw_fd(), &every_interface(protocol)).map_err(io::Error::from)
    }

    /// The next packet; `None` when none waits.
    pub fn receive(&mut self) -> io::Result<Option<Received<'_>>> {
        let mut part = libc::iovec {
            iov_base: self.buffer.as_mut_ptr().cast(),
            iov_len: self.buffer.len(),
        };
        // SAFETY: both are plain integers, for which zero is a value.
        let (mut address, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
        // Words, because control messages are aligned to them; one `struct timespec` takes 32 bytes of it.
        let mut control = [0u64; 8];
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = size::<libc::sockaddr_ll>();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        // How wide this is differs between C libraries.
        message.msg_controllen = size_of_val(&control) as _;
        let length = loop {
            // SAFETY: name, part and control point to live buffers of the lengths given, which nothing else uses
            // during the call.
            let received =
                unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
            match Errno::result(received) {
                Ok(received) => break usize::try_from(received).unwrap_or(0),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        self.received += 1;
        // SAFETY: the kernel has filled `message` and the control buffer that it points to, and both still live.
        let at = unsafe { timestamp(&message) };
        Ok(Some(Received {
            bytes: self.buffer.get(..length).unwrap_or(&self.buffer),
            at,
            passing: if address.sll_pkttype == libc::PACKET_OUTGOING {
                Passing::Out
            } else {
                Passing::In
            },
            if_index: IfIndex(u32::try_from(address.sll_ifindex).unwrap_or(0)),
        }))
    }

    /// How many packets passed the filter and wait to be received. Asked right after [`PacketSocket::set_filter`] it says
    /// how many of the next ones passed the old filter, but for those that pass between the two calls.
    pub fn waiting(&mut self) -> io::Result<u64> {
        let counts = self.counts()?;
        Ok(counts
            .passed
            .saturating_sub(counts.dropped)
            .saturating_sub(self.received))
    }

    /// How many packets passed and how many of these were lost, since the socket was opened.
    pub fn counts(&mut self) -> io::Result<Counts> {
        // SAFETY: `tpacket_stats` is two integers, for which zero is a value.
        let mut stats: libc::tpacket_stats = unsafe { zeroed() };
        let mut length = size::<libc::tpacket_stats>();
        // SAFETY: the descriptor is open; the kernel writes at most `length` bytes, which `stats` has.
        let answer = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        Errno::result(answer)?;
        // The kernel sets its own counts to zero with each reading.
        self.counts.passed += u64::from(stats.tp_packets);
        self.counts.dropped += u64::from(stats.tp_drops);
        Ok(self.counts)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn native(filter: &[Instruction]) -> Vec<SockFilter> {
    let native = |i: &Instruction| SockFilter::new(i.code, i.jt, i.jf, i.k);
    filter.iter().map(native).collect()
}

/// The kernel's timestamp among a message's control messages (`SCM_TIMESTAMPNS`).
///
/// # Safety
/// `message` must be as `recvmsg` left it, with its control buffer alive.
unsafe fn timestamp(message: &libc::msghdr) -> Option<Timestamp> {
    // SAFETY: by this function's contract the control buffer holds `msg_controllen` bytes of control messages.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: the macros hand out only headers that lie whole inside the control buffer.
        let header = unsafe { &*next };
        // SAFETY: `CMSG_LEN` only computes.
        let whole = unsafe { libc::CMSG_LEN(size::<libc::timespec>()) } as usize;
        let length: usize = header.cmsg_len as _;
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)
            && length >= whole
        {
            // SAFETY: the length says that a whole timespec follows; it may be unaligned.
            let time = unsafe { libc::CMSG_DATA(next).cast::<libc::timespec>().read_unaligned() };
            return Some(Timestamp::from_parts(
                time.tv_sec,
                u32::try_from(time.tv_nsec).unwrap_or(0),
            ));
        }
        // SAFETY: as above; `next` came from the same message.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    None
}

/// Local experimental ethertype 2 (IEEE 802): no protocol has it.
const NOBODYS: libc::c_int = 0x88b6;

/// An ethertype on interface 0, which is all; with `ETH_P_ALL` what this host sends is seen too.
#[allow(clippy::cast_possible_truncation)] // AF_PACKET is 17, ethertypes have 16 bits
#[allow(clippy::cast_sign_loss)]
fn every_interface(protocol: libc::c_int) -> LinkAddr {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size::<libc::sockaddr_ll>();
    // SAFETY: the pointer is to a `sockaddr_ll` of that length, which outlives the call and is copied.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
    // Family and length are right by construction.
    address.unwrap_or_else(|| unreachable!("a packet address of its own size"))
}

/// A C structure's size, as system calls want it.
#[allow(clippy::cast_possible_truncation)] // the structures above are tens of bytes
const fn size<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

//! A TCP connection that acknowledges nothing after its handshake (RFC 9293), segment by segment.

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

/// What makes most servers say something: a web server answers it, others complain.
const REQUEST: &[u8] = b"HEAD / HTTP/1.0\r\n\r\n";
/// A DNS server over TCP answers this: the root's name servers (RFC 1035, section 4.2.2).
const QUERY: &[u8] = &[0, 17, 0x77, 0x67, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
const DNS: u16 = 53;
const WINDOW: u16 = 8192;

/// What a segment of the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// It took the connection.
    Accepted,
    /// It sent data, or its end.
    Data,
    /// It broke it off.
    Reset,
}

pub(super) struct Connection {
    source: IpAddr,
    to: SocketAddr,
    port: u16,
    next: TcpSeqNumber,
    acknowledged: Option<TcpSeqNumber>,
}

impl Connection {
    pub(super) fn new(source: IpAddr, to: SocketAddr, seed: u64) -> Self {
        let mut connection = Self {
            source,
            to,
            port: 0,
            next: TcpSeqNumber(0),
            acknowledged: None,
        };
        connection.renew(seed);
        connection
    }

    /// Another port and another sequence.
    pub(super) fn renew(&mut self, seed: u64) {
        let [a, b, c, d, e, f, ..] = seed.to_le_bytes();
        self.port = u16::from_le_bytes([a, b]) | 0x8000;
        self.next = TcpSeqNumber(i32::from_le_bytes([c, d, e, f]));
        self.acknowledged = None;
    }

    pub(super) fn syn(&self) -> Option<Vec<u8>> {
        self.segment(TcpControl::Syn, self.next, None, &[])
    }

    pub(super) fn ack(&self) -> Option<Vec<u8>> {
        self.segment(TcpControl::None, self.next, self.acknowledged, &[])
    }

    pub(super) fn reset(&self) -> Option<Vec<u8>> {
        self.acknowledged?;
        self.segment(TcpControl::Rst, self.next, self.acknowledged, &[])
    }

    /// Something to answer, for a server that does not speak first.
    pub(super) fn ask(&mut self) -> Option<Vec<u8>> {
        let request = if self.to.port() == DNS { QUERY } else { REQUEST };
        let segment = self.segment(TcpControl::Psh, self.next, self.acknowledged, request);
        self.next += request.len();
        segment
    }

    /// What `inner` says, where it is the server's.
    pub(super) fn receive(&mut self, inner: &[u8]) -> Option<Arrived> {
        let checksums = ChecksumCapabilities::ignored();
        let (source, destination, payload): (IpAddress, IpAddress, &[u8]) = match inner.first()? >> 4 {
            4 => {
                let packet = Ipv4Packet::new_checked(inner).ok()?;
                if packet.next_header() != IpProtocol::Tcp {
                    return None;
                }
                (
                    packet.src_addr().into(),
                    packet.dst_addr().into(),
                    packet.payload(),
                )
            }
            6 => {
                let packet = Ipv6Packet::new_checked(inner).ok()?;
                if packet.next_header() != IpProtocol::Tcp {
                    return None;
                }
                (
                    packet.src_addr().into(),
                    packet.dst_addr().into(),
                    packet.payload(),
                )
            }
            _ => return None,
        };
        let packet = TcpPacket::new_checked(payload).ok()?;
        let tcp = TcpRepr::parse(&packet, &source, &destination, &checksums).ok()?;
        let ours = IpAddr::from(source) == self.to.ip()
            && IpAddr::from(destination) == self.source
            && (tcp.src_port, tcp.dst_port) == (self.to.port(), self.port);
        if !ours {
            return None;
        }
        match (tcp.control, self.acknowledged) {
            (TcpControl::Rst, _) => Some(Arrived::Reset),
            (TcpControl::Syn, None) if tcp.ack_number == Some(self.next + 1) => {
                self.next += 1;
                self.acknowledged = Some(tcp.seq_number + 1);
                Some(Arrived::Accepted)
            }
            (TcpControl::Fin, Some(_)) => Some(Arrived::Data),
            (_, Some(_)) if !tcp.payload.is_empty() => Some(Arrived::Data),
            _ => None,
        }
    }

    fn segment(
        &self,
        control: TcpControl,
        seq: TcpSeqNumber,
        ack: Option<TcpSeqNumber>,
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let tcp = TcpRepr {
            src_port: self.port,
            dst_port: self.to.port(),
            control,
            seq_number: seq,
            ack_number: ack,
            window_len: WINDOW,
            window_scale: None,
            // One small segment: what is repeated is then the same each time.
            max_seg_size: (control == TcpControl::Syn).then_some(536),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        if self.source.is_ipv4() != self.to.is_ipv4() {
            return None;
        }
        let (source, to) = (IpAddress::from(self.source), IpAddress::from(self.to.ip()));
        let ip = IpRepr::new(source, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let checksums = ChecksumCapabilities::default();
        let mut packet = vec![0; ip.header_len() + tcp.buffer_len()];
        ip.emit(&mut packet, &checksums);
        let segment = packet.get_mut(ip.header_len()..)?;
        tcp.emit(&mut TcpPacket::new_unchecked(segment), &source, &to, &checksums);
        Some(packet)
    }
}

//! Folds `sock_diag` dumps into a [`SocketTally`].
//!
//! In: answers, **those without a remote end first** (TCP in LISTEN, UDP not connected): they say which local ports
//! are served here, and that decides whether a connection is inbound. Out: the tally. A connection is outbound when
//! its local end is not served; TCP in SYN_RECV is inbound always.

use super::inbound::Inbound;
use super::ports::PortSet;
use super::samples::{List, Pool};
use super::served::Served;
use super::table::{Key, Table};
use crate::observation::socket::{
    DestinationTally, ServedPorts, SocketTally, StateCounts, TIME_WAIT_CLASSES, TcpState,
};
use crate::types::{PortRange, Proto};
use crate::wire::netlink::sock_diag::{Socket, TIMER_TIME_WAIT, socket};

/// Inodes kept of one destination: enough to find the processes behind it.
const INODES: u8 = 16;
/// User ids kept of one destination.
const UIDS: u8 = 8;

/// Served ports listed at most: a host that serves more has no room for a wider range anyway.
const SERVED: usize = 512;

const LISTEN: u8 = TcpState::Listen as u8;
const SYN_RECV: u8 = TcpState::SynRecv as u8;
const NEW_SYN_RECV: u8 = TcpState::NewSynRecv as u8;
const TIME_WAIT: u8 = TcpState::TimeWait as u8;

/// Outbound sockets of one key.
#[derive(Debug)]
struct Use {
    states: StateCounts,
    ports_in_range: u32,
    time_wait_left: [u32; TIME_WAIT_CLASSES],
    inodes: List,
    uids: List,
}

impl Use {
    const fn new() -> Self {
        Self {
            states: StateCounts([0; 13]),
            ports_in_range: 0,
            time_wait_left: [0; TIME_WAIT_CLASSES],
            inodes: List::EMPTY,
            uids: List::EMPTY,
        }
    }
}

/// The fold. One serves for many looks: [`SocketFold::finish`] empties it and keeps its memory.
pub struct SocketFold {
    usable: PortSet,
    served_tcp: Served,
    served_udp: Served,
    udp_ports: PortSet,
    tcp: StateCounts,
    udp: u32,
    destinations: Table<Use>,
    samples: Pool,
    inbound: Inbound,
    malformed: u64,
}

impl SocketFold {
    /// For a namespace whose `ip_local_port_range` and `ip_local_reserved_ports` are these.
    pub fn new(range: PortRange, reserved: &[PortRange]) -> Self {
        Self {
            usable: PortSet::usable(range, reserved),
            served_tcp: Served::new(),
            served_udp: Served::new(),
            udp_ports: PortSet::new(),
            tcp: StateCounts::default(),
            udp: 0,
            destinations: Table::new(),
            samples: Pool::default(),
            inbound: Inbound::default(),
            malformed: 0,
        }
    }

    /// The settings have changed: from the next socket on these hold.
    pub fn set_range(&mut self, range: PortRange, reserved: &[PortRange]) {
        self.usable = PortSet::usable(range, reserved);
    }

    /// The ports that the kernel hands out.
    pub fn usable(&self) -> &PortSet {
        &self.usable
    }

    /// Takes one answer's payload in.
    #[inline]
    pub fn add(&mut self, proto: Proto, payload: &[u8]) {
        match socket(payload) {
            Some(socket) if usize::from(socket.state) < self.tcp.0.len() => self.add_socket(proto, &socket),
            _ => self.malformed += 1,
        }
    }

    #[inline]
    fn add_socket(&mut self, proto: Proto, socket: &Socket) {
        match proto {
            Proto::Tcp => self.add_tcp(socket),
            Proto::Udp => self.add_udp(socket),
        }
    }

    #[inline]
    fn add_tcp(&mut self, socket: &Socket) {
        self.tcp.0[usize::from(socket.state)] += 1;
        if socket.state == LISTEN {
            self.served_tcp.insert(socket.source, socket.source_port);
        } else if matches!(socket.state, SYN_RECV | NEW_SYN_RECV)
            || self.served_tcp.contains(socket.source, socket.source_port)
        {
            self.inbound.add(socket.source_port, socket.state);
        } else if socket.destination_port != 0 {
            self.add_outbound(Proto::Tcp, socket);
        }
    }

    fn add_udp(&mut self, socket: &Socket) {
        self.udp += 1;
        self.udp_ports.insert(socket.source_port);
        if socket.destination_port == 0 {
            self.served_udp.insert(socket.source, socket.source_port);
        } else if !self.served_udp.contains(socket.source, socket.source_port) {
            self.add_outbound(Proto::Udp, socket);
        }
    }

    #[inline]
    fn add_outbound(&mut self, proto: Proto, socket: &Socket) {
        let key = Key {
            proto,
            near: socket.source,
            far: socket.destination,
            port: socket.destination_port,
            zone: 0,
        };
        let Some(used) = self.destinations.entry(key, Use::new) else {
            return;
        };
        used.states.0[usize::from(socket.state)] += 1;
        used.ports_in_range += u32::from(self.usable.contains(socket.source_port));
        if socket.state == TIME_WAIT && socket.timer == TIMER_TIME_WAIT {
            let class = usize::try_from(socket.expires / 10_000).unwrap_or(usize::MAX);
            used.time_wait_left[class.min(TIME_WAIT_CLASSES - 1)] += 1;
        }
        // TIME_WAIT and orphans have neither.
        if socket.inode != 0 {
            self.samples.keep_greatest(&mut used.inodes, INODES, socket.inode);
            self.samples.keep_distinct(&mut used.uids, UIDS, socket.uid);
        }
    }

    /// Answers that could not be read since the last [`SocketFold::finish`].
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// The tally of what was taken in since the last call; empties the fold. `cut`: the kernel said that the dump is
    /// not whole.
    pub fn finish(&mut self, cut: bool) -> SocketTally {
        let (busiest, left_out) = self
            .destinations
            .busiest(|u| (u.ports_in_range, u.states.total()), |u| u.states.total());
        let destinations = busiest
            .into_iter()
            .map(|(key, used)| self.destination(key, used))
            .collect();
        let (inbound, inbound_left_out) = self.inbound.busiest();
        let tally = SocketTally {
            tcp: self.tcp,
            udp: self.udp,
            udp_ports_in_range: self.udp_ports.count_common(&self.usable),
            listen_ports_in_range: self.served_tcp.count_common(&self.usable),
            served_ports: Some(served_ports(
                self.served_udp
                    .ports()
                    .listed(&self.usable, self.served_tcp.ports()),
                self.served_tcp.loopback_only(),
            )),
            destinations,
            left_out,
            inbound,
            inbound_left_out,
            inexact: cut || self.malformed > 0 || self.destinations.overflowed() || self.inbound.overflowed(),
            waiting: None,
        };
        self.clear();
        tally
    }

    fn destination(&self, key: &Key, used: &Use) -> DestinationTally {
        let (source, proto, destination) = key.parts();
        let mut inodes: Vec<u32> = self.samples.iter(used.inodes).collect();
        // Inode numbers grow, so the greatest are the newest (but for a wrap, and batches per CPU).
        inodes.sort_unstable_by_key(|inode| std::cmp::Reverse(*inode));
        let mut uids: Vec<u32> = self.samples.iter(used.uids).collect();
        uids.sort_unstable();
        DestinationTally {
            proto,
            source,
            destination,
            states: used.states,
            ports_in_range: used.ports_in_range,
            time_wait_left: used.time_wait_left,
            inodes,
            uids,
        }
    }

    /// Empties the fold: what was taken in is forgotten.
    pub fn clear(&mut self) {
        self.served_tcp.clear();
        self.served_udp.clear();
        self.udp_ports.clear();
        self.tcp = StateCounts::default();
        self.udp = 0;
        self.destinations.clear();
        self.samples.clear();
        self.inbound.clear();
        self.malformed = 0;
    }
}

/// The list that a tally has of them.
pub(super) fn served_ports(ports: impl Iterator<Item = u16>, mut loopback_only: Vec<u16>) -> ServedPorts {
    loopback_only.truncate(SERVED);
    let mut served = ServedPorts {
        loopback_only: Some(loopback_only),
        ..ServedPorts::default()
    };
    for port in ports {
        if served.ports.len() < SERVED {
            served.ports.push(port);
        } else {
            served.left_out += 1;
        }
    }
    served
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::socket::LeftOut;
    use crate::wire::netlink::addr::Addr;

    const HERE: Addr = Addr::from_v4([10, 0, 0, 2]);
    const THERE: Addr = Addr::from_v4([192, 0, 2, 7]);

    fn sock(state: TcpState, source_port: u16, destination_port: u16) -> Socket {
        Socket {
            state: state as u8,
            timer: 0,
            source: HERE,
            destination: if destination_port == 0 {
                Addr::UNSPECIFIED
            } else {
                THERE
            },
            source_port,
            destination_port,
            expires: 0,
            uid: 1000,
            inode: u32::from(source_port),
        }
    }

    fn time_wait(source_port: u16, expires: u32) -> Socket {
        Socket {
            timer: TIMER_TIME_WAIT,
            expires,
            uid: 0,
            inode: 0,
            ..sock(TcpState::TimeWait, source_port, 443)
        }
    }

    fn fold(sockets: &[(Proto, Socket)]) -> SocketTally {
        let reserved = [PortRange {
            low: 40_000,
            high: 40_001,
        }];
        let mut fold = SocketFold::new(PortRange::LINUX_DEFAULT, &reserved);
        for (proto, socket) in sockets {
            fold.add_socket(*proto, socket);
        }
        fold.finish(false)
    }

    #[test]
    fn served_ports_make_connections_inbound() {
        use TcpState::{Established, Listen, NewSynRecv, SynRecv, TimeWait};
        let tally = fold(&[
            (Proto::Tcp, sock(Listen, 80, 0)),
            (Proto::Tcp, sock(Listen, 50_000, 0)),
            (Proto::Tcp, sock(Listen, 40_000, 0)),
            (Proto::Tcp, sock(Established, 80, 5000)),
            (Proto::Tcp, sock(TimeWait, 80, 5001)),
            (Proto::Tcp, sock(SynRecv, 81, 5002)),
            (Proto::Tcp, sock(NewSynRecv, 81, 5003)),
            (Proto::Tcp, sock(Established, 45_000, 80)),
        ]);
        assert_eq!(
            (
                tally.tcp.total(),
                tally.tcp.get(Listen),
                tally.tcp.get(Established)
            ),
            (8, 3, 2)
        );
        assert_eq!(
            tally.listen_ports_in_range, 1,
            "a reserved port is none that connect would take"
        );
        assert_eq!(tally.served_ports.unwrap().ports, [80, 40_000, 50_000]);
        let inbound: Vec<_> = tally.inbound.iter().map(|i| (i.port, i.states.total())).collect();
        assert_eq!(inbound, [(80, 2), (81, 2)]);
        assert_eq!(tally.destinations.len(), 1);
        assert_eq!(tally.destinations[0].destination, "192.0.2.7:80".parse().unwrap());
        assert!(!tally.inexact);
    }

    #[test]
    fn ports_in_range_and_time_wait_classes() {
        let mut sockets = vec![
            (Proto::Tcp, sock(TcpState::Established, 32_767, 443)),
            (Proto::Tcp, sock(TcpState::Established, 40_001, 443)),
            (Proto::Tcp, sock(TcpState::SynSent, 60_999, 443)),
        ];
        for (port, expires) in [
            (41_000, 0),
            (41_001, 9_999),
            (41_002, 10_000),
            (41_003, 59_999),
            (41_004, 60_000),
            (41_005, u32::MAX),
        ] {
            sockets.push((Proto::Tcp, time_wait(port, expires)));
        }
        let tally = fold(&sockets);
        let [one] = &tally.destinations[..] else {
            panic!("{:?}", tally.destinations)
        };
        assert_eq!((one.proto, one.source), (Proto::Tcp, HERE.ip()));
        assert_eq!(one.ports_in_range, 7);
        assert_eq!(one.time_wait_left, [2, 1, 0, 0, 0, 3]);
        assert_eq!(one.states.get(TcpState::TimeWait), 6);
        assert_eq!(
            (&one.inodes[..], &one.uids[..]),
            (&[60_999, 40_001, 32_767][..], &[1000][..])
        );
    }

    #[test]
    fn udp_counts_ports_once_and_keeps_servers_out() {
        let tally = fold(&[
            (Proto::Udp, sock(TcpState::Close, 53, 0)),
            (Proto::Udp, sock(TcpState::Close, 50_000, 0)),
            (Proto::Udp, sock(TcpState::Close, 50_000, 0)),
            (Proto::Udp, sock(TcpState::Established, 53, 7000)),
            (Proto::Udp, sock(TcpState::Established, 50_001, 51_820)),
        ]);
        assert_eq!(
            (tally.udp, tally.udp_ports_in_range, tally.tcp.total()),
            (5, 2, 0)
        );
        // 50,000 may be a client that has not connected yet.
        assert_eq!(tally.served_ports.as_ref().unwrap().ports, [53]);
        assert_eq!(tally.destinations.len(), 1);
        assert_eq!(
            (
                tally.destinations[0].proto,
                tally.destinations[0].destination.port()
            ),
            (Proto::Udp, 51_820)
        );
    }

    #[test]
    fn the_busiest_by_ports_in_range_come_first() {
        let far = |n: u8, port| Socket {
            destination: Addr::from_v4([192, 0, 2, n]),
            ..sock(TcpState::Established, port, 443)
        };
        let mut sockets = vec![];
        // Five sockets on low ports rank below two inside the range.
        sockets.extend((1..=5).map(|port| (Proto::Tcp, far(1, port))));
        sockets.extend((50_000..=50_001).map(|port| (Proto::Tcp, far(2, port))));
        let tally = fold(&sockets);
        let order: Vec<_> = tally
            .destinations
            .iter()
            .map(|d| d.destination.ip().to_string())
            .collect();
        assert_eq!(order, ["192.0.2.2", "192.0.2.1"]);
    }

    #[test]
    fn bounds_hold_and_what_is_beyond_is_counted() {
        let mut fold = SocketFold::new(PortRange::LINUX_DEFAULT, &[]);
        for port in 0..5000 {
            fold.add_socket(Proto::Tcp, &sock(TcpState::Listen, port, 0));
        }
        for port in 0..5000 {
            fold.add_socket(Proto::Tcp, &sock(TcpState::Established, port, 9));
        }
        for n in 0..300u16 {
            let far = Addr::from_v4([198, 51, (n >> 8) as u8, (n & 255) as u8]);
            fold.add_socket(
                Proto::Tcp,
                &Socket {
                    destination: far,
                    ..sock(TcpState::Established, 50_000, 443)
                },
            );
        }
        for port in 50_000..50_100 {
            fold.add_socket(Proto::Tcp, &sock(TcpState::Established, port, 443));
        }
        fold.add(Proto::Tcp, &[0; 40]);
        assert_eq!(fold.malformed(), 1);
        let tally = fold.finish(false);
        let served = tally.served_ports.as_ref().unwrap();
        assert_eq!((served.ports.len(), served.left_out), (SERVED, 5000 - 512));
        assert_eq!(tally.inbound.len(), 64);
        assert_eq!(tally.inbound_left_out.members, 5000 - 64);
        assert_eq!(tally.inbound_left_out.items, 4096 - 64);
        assert_eq!(tally.destinations.len(), super::super::REPORTED);
        assert_eq!(
            tally.left_out,
            LeftOut {
                items: 301 - 256,
                members: 301 - 256
            }
        );
        assert_eq!(
            tally.destinations[0].inodes,
            (50_084..50_100).rev().collect::<Vec<u32>>()
        );
        assert!(tally.inexact);
        let empty = fold.finish(false);
        let nothing = SocketTally {
            served_ports: Some(ServedPorts {
                loopback_only: Some(Vec::new()),
                ..ServedPorts::default()
            }),
            ..SocketTally::default()
        };
        assert_eq!(empty, nothing, "finishing empties the fold");
        assert!(fold.finish(true).inexact);
    }
}

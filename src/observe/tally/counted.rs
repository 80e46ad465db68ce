//! A [`SocketTally`] from tables that were counted in the kernel: in the same order and within the same bounds as
//! [`SocketFold`](super::sockets::SocketFold) makes it of a dump.

use std::cmp::Reverse;
use std::net::SocketAddr;

use super::REPORTED;
use super::inbound::listed;
use super::ports::PortSet;
use super::served::loopback_only;
use super::sockets::served_ports;
use crate::observation::socket::{DestinationTally, InboundTally, LeftOut, SocketTally, StateCounts};
use crate::types::Proto;
use crate::wire::bpf_tables::{Board, Place, Ports, Use};
use crate::wire::netlink::addr::Addr;

/// `IPPROTO_UDP`.
const UDP: u8 = 17;

/// Outbound sockets of one destination.
pub struct Outbound {
    place: Place,
    used: Use,
}

impl Outbound {
    /// As the kernel counted them.
    pub fn new(place: Place, used: Use) -> Self {
        Self { place, used }
    }

    fn proto(&self) -> Proto {
        if self.place.protocol == UDP {
            Proto::Udp
        } else {
            Proto::Tcp
        }
    }
}

/// The tally of one look, of which nothing was left out in the kernel.
pub fn tally(
    board: &Board,
    mut outbound: Vec<Outbound>,
    inbound: Vec<(u16, StateCounts)>,
    served_at: &[(Addr, u16)],
    usable: &PortSet,
) -> SocketTally {
    outbound.sort_by_cached_key(|o| {
        (
            Reverse((o.used.ports_in_range, o.used.states.total())),
            o.proto(),
            o.place.source,
            o.place.destination,
            o.place.port,
        )
    });
    let beyond = outbound.split_off(outbound.len().min(REPORTED));
    let left_out = LeftOut {
        items: beyond.len() as u64,
        members: beyond
            .iter()
            .map(|o| u64::from(o.used.states.total()))
            .sum::<u64>(),
    };
    let inbound = inbound
        .into_iter()
        .map(|(port, states)| InboundTally { port, states })
        .collect();
    let (inbound, inbound_left_out) = listed(inbound, 0);
    let in_range = |ports: &mut dyn Iterator<Item = u16>| {
        u32::try_from(ports.filter(|port| usable.contains(*port)).count()).unwrap_or(u32::MAX)
    };
    let [served, everywhere, udp_served] =
        [&board.tcp_served, &board.tcp_everywhere, &board.udp_served].map(set);
    SocketTally {
        tcp: board.tcp,
        udp: board.udp,
        udp_ports_in_range: in_range(&mut board.udp_ports.iter()),
        listen_ports_in_range: in_range(&mut board.tcp_served.iter()),
        served_ports: Some(served_ports(
            udp_served.listed(usable, &served),
            loopback_only(served_at.iter().copied(), |port| everywhere.contains(port)),
        )),
        destinations: outbound.into_iter().map(destination).collect(),
        left_out,
        inbound,
        inbound_left_out,
        // A bucket of the table at a time is read under its lock, as `sock_diag` does.
        inexact: false,
        waiting: None,
    }
}

fn set(ports: &Ports) -> PortSet {
    let mut set = PortSet::new();
    ports.iter().for_each(|port| set.insert(port));
    set
}

fn destination(outbound: Outbound) -> DestinationTally {
    let proto = outbound.proto();
    let Outbound { place, used } = outbound;
    DestinationTally {
        proto,
        source: place.source.ip(),
        destination: SocketAddr::new(place.destination.ip(), place.port),
        states: used.states,
        ports_in_range: used.ports_in_range,
        time_wait_left: used.left,
        inodes: used.inodes,
        uids: used.uids,
    }
}

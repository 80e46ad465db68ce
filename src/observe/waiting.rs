//! A closer look at addresses towards which connections wait in SYN_SENT: was the SYN sent again, and does anything come from
//! there on connections that are open? Part of the look at the socket table ([`super::sockets`]).
//!
//! In: the tally of a look. Out: [`WaitingTally`]s. Why: a SYN_SENT at one look may be of a connection that is established a
//! moment later, and an ESTABLISHED may be of one whose other end has been gone for minutes; the table's fixed part tells
//! neither. Only what waited at the look before too is asked for, and the kernel filters by address, so a host whose
//! connections are answered pays nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::observation::nat::is_inside;
use crate::observation::socket::{SocketTally, TcpState, WaitingTally};
use crate::sys::netlink::{DUMP, Netlink};
use crate::types::Proto;
use crate::wire::netlink::sock_alive::{Alive, MOST, alive, request_towards};
use crate::wire::netlink::sock_diag::{BY_FAMILY, INET, INET6};

/// Destinations told; those beyond are left out, for what is asked is whether many wait.
const MOST_ROWS: usize = 256;

/// What came within this many milliseconds came after the SYN that was sent again: that waits for a second at least.
const JUST_NOW: u32 = 1_000;

/// TCP_ESTABLISHED and TCP_SYN_SENT as bits.
const STATES: u32 = 1 << TcpState::Established as u32 | 1 << TcpState::SynSent as u32;

/// The addresses that waited at the look before.
#[derive(Debug, Default)]
pub struct Waiting {
    before: BTreeSet<IpAddr>,
}

impl Waiting {
    /// Looks closer at what has waited at two looks running. `None` where nothing has, or the kernel did not answer.
    pub fn look(&mut self, netlink: &mut Netlink, tally: &SocketTally) -> Option<Vec<WaitingTally>> {
        let now = waiting(tally);
        let both: Vec<IpAddr> = now.intersection(&self.before).copied().take(MOST).collect();
        self.before = now;
        if both.is_empty() {
            return None;
        }
        let mut rows = Rows::default();
        for family in [INET, INET6] {
            let Some(payload) = request_towards(family, STATES, &both) else {
                continue;
            };
            let asked = netlink.request(BY_FAMILY, DUMP, &payload, |_, answer| {
                if let Some(socket) = alive(answer) {
                    rows.add(&socket);
                }
            });
            // A kernel without IPv6 has the one family; without the other there is nothing to tell.
            if asked.is_err() && family == INET {
                return None;
            }
        }
        Some(rows.finish())
    }
}

/// Addresses beyond this host's own networks towards which a connection waits.
fn waiting(tally: &SocketTally) -> BTreeSet<IpAddr> {
    let waits = tally
        .destinations
        .iter()
        .filter(|d| d.proto == Proto::Tcp && d.states.get(TcpState::SynSent) > 0);
    waits
        .map(|d| d.destination.ip())
        .filter(|ip| !is_inside(*ip) && !ip.is_loopback())
        .collect()
}

#[derive(Default)]
struct Rows(BTreeMap<(IpAddr, SocketAddr), WaitingTally>);

impl Rows {
    fn add(&mut self, socket: &Alive) {
        let key = (socket.source, socket.destination);
        if !self.0.contains_key(&key) && self.0.len() >= MOST_ROWS {
            return;
        }
        let row = self.0.entry(key).or_insert(WaitingTally {
            source: socket.source,
            destination: socket.destination,
            syn_sent: 0,
            sent_again: 0,
            established: 0,
            heard: 0,
            unacknowledged: 0,
        });
        if socket.state == TcpState::SynSent as u8 {
            row.syn_sent += 1;
            row.sent_again += u32::from(socket.sent_again > 0);
        } else if socket.state == TcpState::Established as u8 {
            row.established += 1;
            row.heard += u32::from(socket.heard_ago.is_some_and(|ago| ago <= JUST_NOW));
            row.unacknowledged += u32::from(socket.sent_again > 0);
        }
    }

    fn finish(self) -> Vec<WaitingTally> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::observation::Body;
    use crate::observe::Observer;
    use crate::observe::sockets::SocketObserver;
    use crate::observe::testing::{in_own_netns, ip, look};

    fn tally(observer: &mut dyn Observer) -> SocketTally {
        let (bodies, _) = look(observer);
        match bodies.into_iter().next() {
            Some(Body::Sockets(tally)) => tally,
            other => panic!("{other:?}"),
        }
    }

    /// A kernel's answers about a connection that is talked over, one that is silent, and one that nobody answers.
    #[test]
    fn the_kernel_tells_what_waits_and_what_is_alive() {
        in_own_netns(|| {
            ip("link set lo up");
            // Addresses that count as outside; the other end of the link has no address, so a SYN to .2 gets no answer.
            ip("link add d0 type veth peer name d1");
            ip("link set d0 up");
            ip("link set d1 up");
            ip("address add 198.51.100.1/24 dev d0");
            ip("neigh add 198.51.100.2 lladdr 02:00:00:00:00:02 dev d0 nud permanent");
            ip("address add 2001:db8::1/64 dev d0 nodad");
            ip("neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev d0 nud permanent");
            let server = TcpListener::bind("198.51.100.1:8080").unwrap();
            let mut talks = TcpStream::connect("198.51.100.1:8080").unwrap();
            let _idle = TcpStream::connect("198.51.100.1:8080").unwrap();
            let (mut theirs, _) = server.accept().unwrap();
            let dial = |to: &'static str| {
                let socket = socket2::Socket::new(
                    socket2::Domain::for_address(to.parse().unwrap()),
                    socket2::Type::STREAM,
                    None,
                )
                .unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&to.parse::<SocketAddr>().unwrap().into());
                socket
            };
            let waits = [
                dial("198.51.100.2:443"),
                dial("[2001:db8::2]:443"),
                dial("198.51.100.2:444"),
            ];
            let mut observer = SocketObserver::open().unwrap();
            assert_eq!(tally(&mut observer).waiting, None, "one look tells of no wait");
            let deadline = crate::sys::clock::instant() + Duration::from_secs(30);
            let rows = loop {
                let rows = tally(&mut observer).waiting.unwrap_or_default();
                if rows.iter().filter(|r| r.sent_again > 0).count() == waits.len() {
                    break rows;
                }
                assert!(crate::sys::clock::instant() < deadline, "{rows:?}");
                std::thread::sleep(Duration::from_millis(20));
            };
            assert!(
                rows.iter().all(|r| r.syn_sent == 1 && r.established == 0),
                "{rows:?}"
            );
            // Connections that are open, by the same request.
            let mut heard = Rows::default();
            let mut netlink = Netlink::open(
                netlink_sys::protocols::NETLINK_SOCK_DIAG,
                "sock_diag",
                crate::time::Span::from_secs(5),
            )
            .unwrap();
            talks.write_all(b"ping").unwrap();
            theirs.read_exact(&mut [0; 4]).unwrap();
            theirs.write_all(b"pong").unwrap();
            talks.read_exact(&mut [0; 4]).unwrap();
            let to = ["198.51.100.1".parse().unwrap()];
            let payload = request_towards(INET, STATES, &to).unwrap();
            netlink
                .request(BY_FAMILY, DUMP, &payload, |_, answer| {
                    heard.add(&alive(answer).unwrap());
                })
                .unwrap();
            let rows = heard.finish();
            let to_server = rows
                .iter()
                .find(|r| r.destination.port() == 8080)
                .unwrap_or_else(|| panic!("{rows:?}"));
            assert_eq!((to_server.established, to_server.unacknowledged), (2, 0));
            assert!(to_server.heard >= 1, "{to_server:?}");
            drop(waits);
        });
    }

    #[test]
    fn rows_are_bounded() {
        let mut rows = Rows::default();
        for port in 0..1000 {
            rows.add(&Alive {
                state: TcpState::SynSent as u8,
                source: [10, 0, 0, 2].into(),
                destination: ([203, 0, 113, 9], port).into(),
                sent_again: 1,
                heard_ago: None,
            });
        }
        assert_eq!(rows.finish().len(), MOST_ROWS);
    }
}

//! Whether handshake messages that came in at an interface got as far as a socket.
//!
//! In: arrivals on the wire, the protocol counters. Out: [`Delivery`]. Why: the tap lies before the firewall's input rules
//! and before reverse path filtering, the counters behind them; what is missing in between this host has dropped itself.

use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::track::handshake::{End, Handshakes};

/// A message that came in this shortly before the last reading of the counters may not be in it yet.
const SLACK: Span = Span::from_millis(300);

/// What came in for one UDP port of this host, and what the kernel accounts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Handshake messages that came in at an interface, between the first and the last reading of the counters.
    pub arrived: u64,
    /// UDP datagrams of that address family that reached a socket meanwhile, or failed behind the firewall (a bad
    /// checksum, a full buffer, no socket): of all ports, so at least those of this one.
    pub accounted: u64,
    /// Packets that reverse path filtering dropped meanwhile, whosesoever.
    pub filtered: Option<u64>,
}

impl Delivery {
    /// To `port`, over IPv6 or IPv4. `None` where the counters were not read twice.
    pub fn to_port(world: &World, port: u16, v6: bool) -> Option<Self> {
        let (handshakes, counters) = (&world.handshakes, &world.counters);
        let (first, last) = counters.window()?;
        let group = if v6 { "Udp6" } else { "Udp" };
        let moved = |name: &str| counters.delta(&format!("{group}.{name}"));
        let accounted = moved("InDatagrams")?.saturating_add(moved("InErrors").unwrap_or(0));
        let counted = |at: &Timestamp| *at > first && *at < last.before(SLACK);
        // What is forwarded to somebody else's port of that number does not pass our sockets.
        let here = |end: &&End| {
            end.address.port() == port
                && end.address.is_ipv6() == v6
                && world.routes.is_local(end.address.ip())
        };
        let arrived = arrivals(handshakes, here).filter(counted).count();
        Some(Self {
            arrived: arrived as u64,
            accounted: accounted.saturating_add(moved("NoPorts").unwrap_or(0)),
            filtered: (!v6)
                .then(|| counters.delta("TcpExt.IPReversePathFilter"))
                .flatten(),
        })
    }

    /// Messages that surely were dropped between the interface and the sockets.
    pub fn dropped(&self) -> u64 {
        self.arrived.saturating_sub(self.accounted)
    }

    /// Whether nothing at all got through although something came.
    pub fn nothing_passed(&self) -> bool {
        self.arrived > 0 && self.accounted == 0
    }
}

/// When initiations and responses came in for the ends that are `here`. A message that came twice counts once, which errs towards what
/// accuses nobody.
fn arrivals<'a>(
    handshakes: &'a Handshakes,
    here: impl Fn(&&'a End) -> bool + Copy + 'a,
) -> impl Iterator<Item = Timestamp> + 'a {
    handshakes.conversations().flat_map(move |c| {
        let ours = c.ends().iter().filter(here);
        ours.flat_map(move |end| {
            let called = c.other(end.address).into_iter().flat_map(End::attempts);
            let called = called.filter(|a| a.taps.came_in()).map(|a| a.at);
            let answers = end.attempts().filter_map(|a| a.answer);
            called.chain(answers.filter(|a| a.taps.came_in()).map(|a| a.at))
        })
    })
}

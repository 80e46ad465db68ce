//! What this host itself keeps from leaving or from arriving, as counters show it.
//!
//! A packet that the firewall of this host drops on its way out is no `OutDiscards` where TCP sends it: `connect` goes on
//! waiting, as if the network had lost the SYN. But TCP counts each retransmission that the floors below refused
//! (`TcpExt.TCPRetransFail`, net/ipv4/tcp_output.c; measured with nftables in the hooks output and postrouting). What is
//! dropped on its way in has been received and is not delivered.

use crate::observation::nat::Family;
use crate::rules::Input;
use crate::track::counters::CounterState;

/// Of the segments that were sent again, or that came in, what this host dropped while watched. Counters are of the whole
/// host: how many, not which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnDrops {
    /// SYNs sent again.
    pub syns_again: u64,
    /// Segments that should have been sent again and did not leave.
    pub not_sent: u64,
    /// Packets received and delivered to nobody; `None` where counters do not tell.
    pub not_delivered: Option<u64>,
    /// Packets refused for the way that they came by (`rp_filter`).
    pub reverse_path: u64,
}

impl OwnDrops {
    /// What was dropped of one family while watched.
    pub fn of(input: &Input<'_>, family: Family) -> Self {
        let counters = &input.world.counters;
        let moved = |name: &str| counters.delta(name).unwrap_or(0);
        Self {
            syns_again: moved("TcpExt.TCPSynRetrans"),
            not_sent: moved("TcpExt.TCPRetransFail"),
            not_delivered: not_delivered(counters, family),
            reverse_path: moved("TcpExt.IPReversePathFilter"),
        }
    }

    /// Whether SYNs that wait for an answer were, as many of them as not, never let out by this host.
    pub fn outbound(&self) -> bool {
        self.not_sent > 0 && self.not_sent * 2 >= self.syns_again
    }

    /// Whether as many packets were dropped on their way in as half the SYNs that wait for an answer: the answers may be
    /// among them.
    pub fn inbound(&self) -> bool {
        let dropped = self.not_delivered.unwrap_or(0).max(self.reverse_path);
        dropped > 0 && dropped * 2 >= self.syns_again
    }
}

/// Packets received, less those that were delivered, forwarded, or put together from fragments, and those whose own counter
/// says why not.
fn not_delivered(counters: &CounterState, family: Family) -> Option<u64> {
    let group = match family {
        Family::Ipv4 => "Ip",
        Family::Ipv6 => "Ip6",
    };
    let moved = |name: &str| counters.delta(&format!("{group}.{name}"));
    let (received, delivered) = (moved("InReceives")?, moved("InDelivers")?);
    let forwarded = match family {
        Family::Ipv4 => "ForwDatagrams",
        Family::Ipv6 => "OutForwDatagrams",
    };
    let told = [
        forwarded,
        "InHdrErrors",
        "InAddrErrors",
        "InDiscards",
        "InUnknownProtos",
    ];
    let told: u64 = told.iter().filter_map(|name| moved(name)).sum();
    let joined = moved("ReasmReqds")
        .unwrap_or(0)
        .saturating_sub(moved("ReasmOKs").unwrap_or(0));
    Some(received.saturating_sub(delivered + told + joined))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Thresholds;
    use crate::observation::host::Counters;
    use crate::observation::{Body, Observation, Source};
    use crate::time::{Span, Timestamp};
    use crate::track::World;

    fn drops(moved: &[(&str, u64)]) -> OwnDrops {
        let mut world = World::new(Timestamp::EPOCH);
        for (second, factor) in [(0, 0), (5, 1)] {
            let all = moved.iter().map(|(name, n)| ((*name).to_owned(), n * factor));
            world.apply(&Observation {
                at: Timestamp::from_secs(second),
                took: Span::ZERO,
                source: Source::Counters,
                body: Body::Counters(Counters(all.collect())),
            });
        }
        let input = Input {
            world: &world,
            thresholds: &Thresholds::default(),
        };
        OwnDrops::of(&input, Family::Ipv4)
    }

    #[test]
    fn both_ways() {
        let again = ("TcpExt.TCPSynRetrans", 10);
        // (counters, dropped on the way out, on the way in)
        type Row<'a> = (&'a [(&'a str, u64)], bool, bool);
        let table: &[Row<'_>] = &[
            (&[again], false, false),
            (&[again, ("TcpExt.TCPRetransFail", 10)], true, false),
            (&[again, ("TcpExt.TCPRetransFail", 1)], false, false),
            (
                &[again, ("Ip.InReceives", 125), ("Ip.InDelivers", 100)],
                false,
                true,
            ),
            (
                &[again, ("Ip.InReceives", 103), ("Ip.InDelivers", 100)],
                false,
                false,
            ),
            // A router forwards what it does not deliver, and fragments become one.
            (
                &[
                    again,
                    ("Ip.InReceives", 225),
                    ("Ip.InDelivers", 100),
                    ("Ip.ForwDatagrams", 100),
                    ("Ip.ReasmReqds", 30),
                    ("Ip.ReasmOKs", 5),
                ],
                false,
                false,
            ),
            (&[again, ("TcpExt.IPReversePathFilter", 9)], false, true),
            (&[("TcpExt.TCPRetransFail", 0)], false, false),
        ];
        for (moved, out, inn) in table {
            let d = drops(moved);
            assert_eq!((d.outbound(), d.inbound()), (*out, *inn), "{moved:?}: {d:?}");
        }
        assert_eq!(drops(&[again]).not_delivered, None);
    }
}

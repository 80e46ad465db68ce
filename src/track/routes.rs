//! Links, addresses, routes, and the kernel's answers to route look-ups.
//!
//! In: [`RouteTables`] and [`RouteAnswer`]s. Out: which way a packet goes and over what link. Why the answers are
//! kept apart from the tables: only the kernel knows how rules, marks and tables combine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::observation::host::{Link, LinkStats, Route, RouteAnswer, RouteTables, RouteWay};
use crate::observation::{RoutePurpose, RouteQuery};
use crate::time::Timestamp;
use crate::types::{Cidr, IfIndex, PublicKey};

/// Answers kept; [`super::tunnels::Tunnels`] bounds its questions far below. Beyond it new ones are dropped and
/// counted.
const MAX_ANSWERS: usize = 16_384;
/// Links whose first counters are kept.
const MAX_LINKS: usize = 4_096;

/// State.
#[derive(Debug, Default)]
pub struct RouteState {
    tables: Option<RouteTables>,
    first_stats: BTreeMap<IfIndex, (Timestamp, LinkStats)>,
    newest_at: Option<Timestamp>,
    answers: BTreeMap<RoutePurpose, (RouteQuery, RouteWay)>,
    answers_dropped: u64,
}

impl RouteState {
    /// Takes tables in.
    pub fn apply_tables(&mut self, at: Timestamp, tables: &RouteTables) {
        for link in &tables.links {
            if self.first_stats.len() < MAX_LINKS {
                self.first_stats.entry(link.index).or_insert((at, link.stats));
            }
        }
        self.newest_at = Some(at);
        self.tables = Some(tables.clone());
    }

    /// Takes an answer in.
    pub fn apply_answer(&mut self, _at: Timestamp, answer: &RouteAnswer) {
        let query = &answer.query;
        if self.answers.len() >= MAX_ANSWERS && !self.answers.contains_key(&query.purpose) {
            self.answers_dropped += 1;
            return;
        }
        // One answer for each purpose: a peer's old endpoint is of no interest.
        self.answers
            .insert(query.purpose.clone(), (query.clone(), answer.way.clone()));
    }

    /// The newest tables.
    pub fn tables(&self) -> Option<&RouteTables> {
        self.tables.as_ref()
    }

    /// Answers that did not fit.
    pub fn answers_dropped(&self) -> u64 {
        self.answers_dropped
    }

    /// The link with `index`.
    pub fn link(&self, index: IfIndex) -> Option<&Link> {
        self.tables.as_ref()?.links.iter().find(|l| l.index == index)
    }

    /// The link called `name`.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.tables.as_ref()?.links.iter().find(|l| l.name == name)
    }

    /// The link's name, or its number where the link is not known.
    pub fn link_name(&self, index: IfIndex) -> String {
        self.link(index)
            .map_or_else(|| format!("interface {}", index.0), |l| l.name.clone())
    }

    /// The first counters of the link while watched, where it was read more than once since.
    pub fn first_stats(&self, index: IfIndex) -> Option<LinkStats> {
        let (at, stats) = self.first_stats.get(&index)?;
        (Some(*at) != self.newest_at).then_some(*stats)
    }

    /// Whether `address` is one of this host's own.
    pub fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback()
            || self
                .tables
                .as_ref()
                .is_some_and(|t| t.addresses.iter().any(|a| a.address == address))
    }

    /// The way to a peer's endpoint, as the kernel answered for a packet of `device` with `mark`.
    pub fn to_endpoint(
        &self,
        device: &str,
        peer: PublicKey,
        destination: IpAddr,
        mark: u32,
    ) -> Option<&RouteWay> {
        let purpose = RoutePurpose::Endpoint {
            device: device.to_owned(),
            peer,
        };
        self.answers
            .get(&purpose)
            .filter(|(query, _)| query.destination == destination && query.mark == mark)
            .map(|(_, way)| way)
    }

    /// The ways to a peer's AllowedIPs: `(prefix, the address asked for, the way)`.
    pub fn to_allowed_ips<'a>(
        &'a self,
        device: &'a str,
        peer: PublicKey,
    ) -> impl Iterator<Item = (Cidr, IpAddr, &'a RouteWay)> {
        // Purposes are ordered by device, peer and prefix, and this is the least prefix.
        let least = Cidr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let from = least.map(|prefix| RoutePurpose::AllowedIp {
            device: device.to_owned(),
            peer,
            prefix,
        });
        from.into_iter()
            .flat_map(|from| self.answers.range(from..))
            .map_while(move |(purpose, (query, way))| match purpose {
                RoutePurpose::AllowedIp {
                    device: d,
                    peer: p,
                    prefix,
                } if d == device && *p == peer => Some((*prefix, query.destination, way)),
                _ => None,
            })
    }

    /// Routes of every table that contain `address`.
    pub fn covering(&self, address: IpAddr) -> impl Iterator<Item = &Route> {
        self.tables
            .iter()
            .flat_map(|t| &t.routes)
            .filter(move |r| r.destination.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_by_their_question() {
        let mut state = RouteState::default();
        let query = RouteQuery {
            destination: IpAddr::from([198, 51, 100, 7]),
            mark: 51820,
            purpose: RoutePurpose::Endpoint {
                device: "wg0".to_owned(),
                peer: PublicKey([1; 32]),
            },
        };
        let way = RouteWay::None { errno: 101 };
        state.apply_answer(
            Timestamp::EPOCH,
            &RouteAnswer {
                query: query.clone(),
                way: way.clone(),
            },
        );
        let ask = |mark| state.to_endpoint("wg0", PublicKey([1; 32]), query.destination, mark);
        assert_eq!(ask(51820), Some(&way));
        assert_eq!(ask(0), None, "another mark is another question");
    }

    #[test]
    fn own_addresses_are_local() {
        let mut state = RouteState::default();
        assert!(!state.is_local(IpAddr::from([10, 0, 0, 2])));
        state.apply_tables(
            Timestamp::EPOCH,
            &RouteTables {
                addresses: vec![crate::observation::host::Address {
                    index: IfIndex(2),
                    address: IpAddr::from([10, 0, 0, 2]),
                    prefix: 24,
                }],
                ..RouteTables::default()
            },
        );
        assert!(state.is_local(IpAddr::from([10, 0, 0, 2])));
        assert!(!state.is_local(IpAddr::from([10, 0, 0, 3])));
    }

    #[test]
    fn allowed_ips_are_those_of_one_peer_of_one_device() {
        let mut state = RouteState::default();
        let prefix = |text: &str| text.parse::<Cidr>().unwrap();
        for (device, peer, inner) in [
            ("wg0", 1, "10.0.0.0/24"),
            ("wg0", 1, "fd00::/64"),
            ("wg0", 2, "10.0.0.0/24"),
            ("wg1", 1, "10.0.0.0/24"),
        ] {
            let query = RouteQuery {
                destination: prefix(inner).addr(),
                mark: 0,
                purpose: RoutePurpose::AllowedIp {
                    device: device.to_owned(),
                    peer: PublicKey([peer; 32]),
                    prefix: prefix(inner),
                },
            };
            let way = RouteWay::None { errno: 101 };
            state.apply_answer(Timestamp::EPOCH, &RouteAnswer { query, way });
        }
        let found: Vec<_> = state
            .to_allowed_ips("wg0", PublicKey([1; 32]))
            .map(|(prefix, _, _)| prefix.to_string())
            .collect();
        assert_eq!(found, ["10.0.0.0/24", "fd00::/64"]);
    }
}

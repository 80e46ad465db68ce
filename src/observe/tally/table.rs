//! A bounded table keyed by (near address, destination, protocol).

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{REPORTED, TRACKED};
use crate::observation::socket::LeftOut;
use crate::types::Proto;
use crate::wire::netlink::addr::Addr;

/// What items are kept apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The transport.
    pub proto: Proto,
    /// The local or translated source address.
    pub near: Addr,
    /// The remote address.
    pub far: Addr,
    /// The remote port.
    pub port: u16,
    /// The zone of connection tracking; 0 for sockets, and unless a rule sets one.
    pub zone: u16,
}

impl Key {
    /// Near address, protocol and destination as the observations have them.
    pub fn parts(&self) -> (IpAddr, Proto, SocketAddr) {
        (
            self.near.ip(),
            self.proto,
            SocketAddr::new(self.far.ip(), self.port),
        )
    }
}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.near.hash(state);
        self.far.hash(state);
        let port = u64::from(self.port) << 1 | u64::from(self.proto == Proto::Udp);
        state.write_u64(u64::from(self.zone) << 17 | port);
    }
}

/// A table of at most [`TRACKED`] keys. The hash is keyed at random per process: strangers choose the addresses.
#[derive(Debug)]
pub struct Table<V> {
    hasher: DefaultHashBuilder,
    /// Indices of `items`: the items themselves lie dense, so that empty slots cost little.
    index: HashTable<u32>,
    items: Vec<(Key, V)>,
    /// Members whose key did not fit.
    beyond: u64,
}

impl<V> Table<V> {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            items: Vec::new(),
            beyond: 0,
        }
    }

    /// The value of `key`, made by `new` where there is none yet; `None` (and counted) where the table is full.
    #[inline]
    pub fn entry(&mut self, key: Key, new: impl FnOnce() -> V) -> Option<&mut V> {
        let Self {
            hasher, index, items, ..
        } = self;
        let hash = hasher.hash_one(key);
        let found = index.find(hash, |at| {
            items.get(*at as usize).is_some_and(|item| item.0 == key)
        });
        let at = match found {
            Some(at) => *at,
            None => {
                let at = u32::try_from(items.len())
                    .ok()
                    .filter(|at| (*at as usize) < TRACKED);
                let Some(at) = at else {
                    self.beyond += 1;
                    return None;
                };
                items.push((key, new()));
                index.insert_unique(hash, at, |at| {
                    items.get(*at as usize).map_or(0, |item| hasher.hash_one(item.0))
                });
                at
            }
        };
        items.get_mut(at as usize).map(|item| &mut item.1)
    }

    /// The items of highest `rank`, highest first (then by key, so that the same table gives the same list), at most
    /// [`REPORTED`]; and what is left out, with `members` of an item.
    pub fn busiest<R: Ord>(
        &self,
        rank: impl Fn(&V) -> R,
        members: impl Fn(&V) -> u32,
    ) -> (Vec<&(Key, V)>, LeftOut) {
        let order = |a: &&(Key, V), b: &&(Key, V)| rank(&b.1).cmp(&rank(&a.1)).then(a.0.cmp(&b.0));
        let mut items: Vec<&(Key, V)> = self.items.iter().collect();
        let mut left_out = LeftOut {
            items: 0,
            members: self.beyond,
        };
        if items.len() > REPORTED {
            items.select_nth_unstable_by(REPORTED, order);
            for (_, value) in items.drain(REPORTED..) {
                left_out.items += 1;
                left_out.members += u64::from(members(value));
            }
        }
        items.sort_unstable_by(order);
        (items, left_out)
    }

    /// Whether something did not fit: then [`LeftOut::items`] is the least that it can be.
    pub fn overflowed(&self) -> bool {
        self.beyond > 0
    }

    /// Empties the table and keeps its memory.
    pub fn clear(&mut self) {
        self.index.clear();
        self.items.clear();
        self.beyond = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        Key {
            proto: Proto::Tcp,
            near: Addr::default(),
            far: Addr::from_v4(n.to_be_bytes()),
            port: 443,
            zone: 0,
        }
    }

    #[test]
    fn the_busiest_are_listed_and_the_rest_is_counted() {
        let mut table = Table::new();
        for n in 0..1000u32 {
            for _ in 0..=(n % 10) {
                *table.entry(key(n), || 0u32).unwrap() += 1;
            }
        }
        let (items, left_out) = table.busiest(|v| *v, |v| *v);
        assert_eq!(items.len(), REPORTED);
        assert!(items.is_sorted_by(|a, b| a.1 > b.1 || a.1 == b.1 && a.0 < b.0));
        // 100 each of 10, 9 and then 8: 56 of those fit.
        assert_eq!((items[0].1, items[255].1), (10, 8));
        let all: u64 = 100 * (1..=10).sum::<u64>();
        let listed: u64 = items.iter().map(|i| u64::from(i.1)).sum();
        assert_eq!(
            left_out,
            LeftOut {
                items: 744,
                members: all - listed
            }
        );
        assert!(!table.overflowed());
    }

    #[test]
    fn a_full_table_counts_what_it_turns_away() {
        let mut table = Table::new();
        let bound = u32::try_from(TRACKED).unwrap();
        for n in 0..bound + 7 {
            let fits = table.entry(key(n), || 1u32).is_some();
            assert_eq!(fits, n < bound);
        }
        assert!(table.entry(key(0), || 1).is_some(), "what is in stays reachable");
        let (_, left_out) = table.busiest(|v| *v, |v| *v);
        assert_eq!(left_out.members, u64::from(bound) - 256 + 7);
        assert!(table.overflowed());
        table.clear();
        assert!(table.busiest(|v| *v, |v| *v).0.is_empty() && !table.overflowed());
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let base = key(1);
        let others = [
            Key {
                proto: Proto::Udp,
                ..base
            },
            Key {
                near: Addr::from_v4([1; 4]),
                ..base
            },
            Key {
                far: Addr::from_v4([1; 4]),
                ..base
            },
            Key { port: 80, ..base },
            Key { zone: 7, ..base },
        ];
        let mut table = Table::new();
        for key in others.iter().chain([&base, &base]) {
            *table.entry(*key, || 0u32).unwrap() += 1;
        }
        assert_eq!(table.busiest(|v| *v, |v| *v).0.len(), 6);
    }
}

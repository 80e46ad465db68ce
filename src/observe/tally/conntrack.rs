//! Folds a ctnetlink dump into a [`CtTally`].
//!
//! In: answers. Out: the tally. What NAT did is read off the tuples: an untranslated entry's reply is its original
//! mirrored; source translation (SNAT, masquerade) changes the reply's destination, destination translation (DNAT)
//! the reply's source. An entry may have both: the NAT port is then taken towards the destination after DNAT.

use super::table::{Key, Table};
use crate::observation::conntrack::{CtTally, ROWS, SnatTally};
use crate::types::{PortRange, Proto};
use crate::wire::netlink::addr::Addr;
use crate::wire::netlink::conntrack::{Entry, TCP, UDP, entry, status, tcp_state};

/// The port of DNS (RFC 1035).
const DNS: u16 = 53;
/// An established entry that has seen nothing for this long counts as idle.
const IDLE_SECS: u32 = 3600;
/// Retransmission and unacknowledged data shorten an established entry's time-out to
/// `nf_conntrack_tcp_timeout_max_retrans` and `…_unacknowledged`, both 300 s: with no more than that left, a
/// time-out says nothing about idleness.
const SHORTENED_SECS: u32 = 300;

/// Source-translated entries of one key.
#[derive(Debug)]
struct Use {
    ports: u32,
    min_port: u16,
    max_port: u16,
    preserved: u32,
    /// `low` above `high` until an entry's port was rewritten.
    rewritten: PortRange,
    closing: u32,
    unreplied: u32,
    /// A bit for each port, of keys whose ports are looked at more closely.
    bits: Option<Box<PortBits>>,
}

/// A bit for each port.
type PortBits = [u64; 1024];

/// Keys whose ports are looked at more closely at most: 8 KiB each.
pub const WATCHED: usize = 8;

/// The fold of one dump.
pub struct CtFold {
    tally: CtTally,
    /// `nf_conntrack_tcp_timeout_established` in seconds.
    established_timeout: Option<u32>,
    idle: u64,
    snat: Table<Use>,
    watched: Vec<Key>,
    malformed: u64,
}

impl CtFold {
    /// For a namespace whose `nf_conntrack_tcp_timeout_established` is this (seconds), where known.
    pub fn new(established_timeout: Option<u32>) -> Self {
        Self {
            tally: CtTally::default(),
            established_timeout,
            idle: 0,
            snat: Table::new(),
            watched: Vec::new(),
            malformed: 0,
        }
    }

    /// Also looks at how the ports of these lie together: those of the first [`WATCHED`], as an earlier fold told them.
    #[must_use]
    pub fn watching(mut self, rows: &[SnatTally]) -> Self {
        let keys = rows.iter().take(WATCHED).map(|row| Key {
            proto: row.proto,
            near: Addr::from(row.nat_address),
            far: Addr::from(row.destination.ip()),
            port: row.destination.port(),
            zone: row.zone,
        });
        self.watched = keys.collect();
        self
    }

    /// Takes one answer's payload in.
    #[inline]
    pub fn add(&mut self, payload: &[u8]) {
        match entry(payload) {
            Some(entry) => self.add_entry(&entry),
            None => self.malformed += 1,
        }
    }

    #[inline]
    fn add_entry(&mut self, entry: &Entry) {
        let unreplied = entry.status & status::SEEN_REPLY == 0;
        self.tally.entries += 1;
        self.tally.unreplied += u64::from(unreplied);
        self.tally.assured += u64::from(entry.status & status::ASSURED != 0);
        let proto = match entry.original.protocol {
            TCP => {
                self.tally.tcp += 1;
                self.add_tcp(entry);
                Proto::Tcp
            }
            UDP => {
                self.tally.udp += 1;
                Proto::Udp
            }
            _ => {
                self.tally.other += 1;
                return;
            }
        };
        self.tally.dns += u64::from(entry.original.destination_port == DNS);
        if is_source_translated(entry) {
            self.add_snat(proto, entry, unreplied);
        }
    }

    fn add_tcp(&mut self, entry: &Entry) {
        match entry.tcp_state {
            Some(tcp_state::ESTABLISHED) => {
                self.tally.tcp_established += 1;
                self.idle += u64::from(self.is_idle(entry.timeout));
            }
            Some(tcp_state::TIME_WAIT | tcp_state::CLOSE) => self.tally.tcp_closing += 1,
            // Only established connections are handed to a flow table, and they leave it when they close.
            None if entry.status & status::OFFLOAD != 0 => self.tally.tcp_established += 1,
            _ => {}
        }
    }

    fn is_idle(&self, left: Option<u32>) -> bool {
        self.established_timeout.zip(left).is_some_and(|(full, left)| {
            left > SHORTENED_SECS && left.checked_add(IDLE_SECS).is_some_and(|sum| sum < full)
        })
    }

    #[inline]
    fn add_snat(&mut self, proto: Proto, entry: &Entry, unreplied: bool) {
        let key = Key {
            proto,
            near: entry.reply.destination,
            far: entry.reply.source,
            port: entry.reply.source_port,
            zone: entry.zone,
        };
        let watched = &self.watched;
        let new = || Use {
            ports: 0,
            min_port: u16::MAX,
            max_port: 0,
            preserved: 0,
            rewritten: PortRange {
                low: u16::MAX,
                high: 0,
            },
            closing: 0,
            unreplied: 0,
            bits: watched.contains(&key).then(|| Box::new([0; 1024])),
        };
        let Some(used) = self.snat.entry(key, new) else {
            return;
        };
        let port = entry.reply.destination_port;
        let closing = entry
            .tcp_state
            .is_some_and(|s| (tcp_state::FIN_WAIT..=tcp_state::CLOSE).contains(&s));
        used.ports += 1;
        used.min_port = used.min_port.min(port);
        used.max_port = used.max_port.max(port);
        if port == entry.original.source_port {
            used.preserved += 1;
        } else {
            used.rewritten.low = used.rewritten.low.min(port);
            used.rewritten.high = used.rewritten.high.max(port);
        }
        if let Some(bits) = &mut used.bits
            && let Some(word) = bits.get_mut(usize::from(port / 64))
        {
            *word |= 1 << (port % 64);
        }
        used.closing += u32::from(closing);
        used.unreplied += u32::from(unreplied);
    }

    /// Answers that could not be read.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// The tally. `cut`: the kernel said that the dump is not whole.
    pub fn finish(self, cut: bool) -> CtTally {
        let (busiest, snat_left_out) = self.snat.busiest(|u| u.ports, |u| u.ports);
        let snat = busiest
            .into_iter()
            .map(|(key, used)| snat_tally(key, used))
            .collect();
        CtTally {
            tcp_established_idle: self.established_timeout.map(|_| self.idle),
            snat,
            snat_left_out,
            inexact: cut || self.malformed > 0 || self.snat.overflowed(),
            ..self.tally
        }
    }
}

fn is_source_translated(entry: &Entry) -> bool {
    let (original, reply) = (&entry.original, &entry.reply);
    reply.destination != original.source || reply.destination_port != original.source_port
}

fn snat_tally(key: &Key, used: &Use) -> SnatTally {
    let (nat_address, proto, destination) = key.parts();
    SnatTally {
        nat_address,
        proto,
        destination,
        zone: key.zone,
        ports: used.ports,
        min_port: used.min_port,
        max_port: used.max_port,
        preserved: used.preserved,
        rewritten: Some(used.rewritten).filter(|range| !range.is_empty()),
        closing: used.closing,
        unreplied: used.unreplied,
        runs: used.bits.as_deref().map(runs),
    }
}

/// Ports at which a row of each of the allocator's lengths, all in use, ends; there are as many at which one begins.
fn runs(bits: &PortBits) -> [u32; 5] {
    let (mut length, mut found) = (0, [0; 5]);
    for word in bits {
        for bit in 0..64 {
            length = if word >> bit & 1 == 1 { length + 1 } else { 0 };
            for (row, found) in ROWS.iter().zip(&mut found) {
                *found += u32::from(length >= *row);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::netlink::addr::Addr;
    use crate::wire::netlink::conntrack::Tuple;

    const CLIENT: Addr = Addr::from_v4([10, 0, 0, 2]);
    const NAT: Addr = Addr::from_v4([198, 51, 100, 1]);
    const SERVER: Addr = Addr::from_v4([192, 0, 2, 7]);
    const BACKEND: Addr = Addr::from_v4([172, 16, 0, 9]);

    /// CLIENT:`port` → SERVER:443, answered from `answers` to `back`.
    fn tracked(protocol: u8, port: u16, answers: (Addr, u16), back: (Addr, u16)) -> Entry {
        Entry {
            original: Tuple {
                source: CLIENT,
                destination: SERVER,
                protocol,
                source_port: port,
                destination_port: 443,
            },
            reply: Tuple {
                source: answers.0,
                destination: back.0,
                protocol,
                source_port: answers.1,
                destination_port: back.1,
            },
            status: status::SEEN_REPLY | status::ASSURED,
            timeout: Some(100),
            tcp_state: (protocol == TCP).then_some(tcp_state::ESTABLISHED),
            zone: 0,
        }
    }

    fn fold(timeout: Option<u32>, entries: &[Entry]) -> CtTally {
        let mut fold = CtFold::new(timeout);
        for entry in entries {
            fold.add_entry(entry);
        }
        fold.finish(false)
    }

    #[test]
    fn translations_are_told_apart_by_their_tuples() {
        let plain = tracked(TCP, 5000, (SERVER, 443), (CLIENT, 5000));
        let dnat = tracked(TCP, 5000, (BACKEND, 8443), (CLIENT, 5000));
        let snat = tracked(TCP, 5000, (SERVER, 443), (NAT, 5000));
        let port_only = tracked(TCP, 5000, (SERVER, 443), (CLIENT, 1024));
        let both = tracked(UDP, 5000, (BACKEND, 8443), (NAT, 1025));
        let seen = |entry| {
            let tally = fold(None, &[entry]);
            tally
                .snat
                .first()
                .map(|s| (s.nat_address, s.proto, s.destination, s.preserved))
        };
        assert_eq!(seen(plain), None);
        assert_eq!(seen(dnat), None);
        let server = "192.0.2.7:443".parse().unwrap();
        assert_eq!(seen(snat), Some((NAT.ip(), Proto::Tcp, server, 1)));
        assert_eq!(seen(port_only), Some((CLIENT.ip(), Proto::Tcp, server, 0)));
        assert_eq!(
            seen(both),
            Some((NAT.ip(), Proto::Udp, "172.16.0.9:8443".parse().unwrap(), 0))
        );
    }

    #[test]
    fn each_zone_has_ports_of_its_own() {
        let entry = tracked(TCP, 5000, (SERVER, 443), (NAT, 2000));
        let tally = fold(None, &[entry, Entry { zone: 7, ..entry }]);
        let rows: Vec<_> = tally.snat.iter().map(|row| (row.zone, row.ports)).collect();
        assert_eq!(rows, [(0, 1), (7, 1)]);
    }

    #[test]
    fn nat_ports_by_state() {
        let mut entries = Vec::new();
        for (port, state, status) in [
            (2000, Some(1), 0),
            (1024, Some(tcp_state::ESTABLISHED), 6),
            (65_535, Some(tcp_state::FIN_WAIT), 6),
            (5000, Some(tcp_state::TIME_WAIT), 6),
            (3000, Some(tcp_state::CLOSE), 2),
            (3001, Some(9), 0),
            (3002, None, 6 | status::OFFLOAD),
        ] {
            let entry = tracked(TCP, 5000, (SERVER, 443), (NAT, port));
            entries.push(Entry {
                tcp_state: state,
                status,
                ..entry
            });
        }
        let tally = fold(Some(432_000), &entries);
        let expected = SnatTally {
            nat_address: NAT.ip(),
            proto: Proto::Tcp,
            destination: "192.0.2.7:443".parse().unwrap(),
            zone: 0,
            ports: 7,
            min_port: 1024,
            max_port: 65_535,
            preserved: 1,
            rewritten: Some(PortRange {
                low: 1024,
                high: 65_535,
            }),
            closing: 3,
            unreplied: 2,
            runs: None,
        };
        assert_eq!(tally.snat, [expected]);
        assert_eq!(
            (tally.entries, tally.tcp, tally.unreplied, tally.assured),
            (7, 7, 2, 4)
        );
        assert_eq!((tally.tcp_established, tally.tcp_closing), (2, 2));
    }

    #[test]
    fn ports_that_lie_together() {
        let entries: Vec<Entry> = (2000..2200)
            .chain([5000, 5002])
            .map(|port| tracked(TCP, 5000, (SERVER, 443), (NAT, port)))
            .collect();
        let first = fold(None, &entries).snat;
        assert_eq!(first[0].runs, None);
        let mut closer = CtFold::new(None).watching(&first);
        entries.iter().for_each(|e| closer.add_entry(e));
        closer.add_entry(&tracked(UDP, 5000, (SERVER, 443), (NAT, 9)));
        let tally = closer.finish(false);
        assert_eq!(tally.snat[0].runs, Some([73, 137, 169, 185, 193]));
        assert_eq!(tally.snat[1].runs, None, "not watched");
    }

    #[test]
    fn protocols_and_dns() {
        let mut dns = tracked(UDP, 5000, (SERVER, 53), (CLIENT, 5000));
        dns.original.destination_port = 53;
        let icmp = Entry {
            reply: Tuple {
                destination: NAT,
                ..Tuple::default()
            },
            ..tracked(1, 0, (SERVER, 0), (NAT, 0))
        };
        let tally = fold(None, &[dns, icmp, tracked(TCP, 1, (SERVER, 443), (CLIENT, 1))]);
        assert_eq!(
            (tally.entries, tally.tcp, tally.udp, tally.other, tally.dns),
            (3, 1, 1, 1, 1)
        );
        assert!(
            tally.snat.is_empty(),
            "other protocols have no ports to run out of"
        );
    }

    #[test]
    fn idleness_by_the_remaining_time_out() {
        let count = |full, left| {
            let entry = Entry {
                timeout: left,
                ..tracked(TCP, 1, (SERVER, 443), (CLIENT, 1))
            };
            fold(full, &[entry]).tcp_established_idle
        };
        for (full, left, idle) in [
            (Some(432_000), Some(432_000), Some(0)),
            (Some(432_000), Some(428_400), Some(0)),
            (Some(432_000), Some(428_399), Some(1)),
            (Some(432_000), Some(300), Some(0)),
            (Some(432_000), Some(301), Some(1)),
            (Some(600), Some(400), Some(0)),
            (Some(432_000), None, Some(0)),
            (Some(10), Some(u32::MAX), Some(0)),
            (None, Some(1000), None),
        ] {
            assert_eq!(count(full, left), idle, "{full:?} {left:?}");
        }
    }

    #[test]
    fn the_fullest_come_first_and_damage_shows() {
        let mut fold = CtFold::new(None);
        for n in 0..300u16 {
            for port in 0..=n % 3 {
                let far = Addr::from_v4([198, 18, (n >> 8) as u8, (n & 255) as u8]);
                fold.add_entry(&tracked(TCP, 1, (far, 443), (NAT, 2000 + port)));
            }
        }
        fold.add(&[1, 2, 3]);
        assert_eq!(fold.malformed(), 1);
        let tally = fold.finish(false);
        assert_eq!((tally.entries, tally.snat.len()), (600, 256));
        assert!(tally.snat.is_sorted_by(|a, b| a.ports >= b.ports));
        assert_eq!((tally.snat_left_out.items, tally.snat_left_out.members), (44, 44));
        assert!(tally.inexact);
        assert!(!fold_nothing().inexact && CtFold::new(None).finish(true).inexact);
    }

    fn fold_nothing() -> CtTally {
        fold(None, &[])
    }
}

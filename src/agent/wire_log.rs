//! The last of what was seen of WireGuard on the wire, so that two agents' logs can be compared as two places.
//!
//! In: observations. Out: a record as `doctor --record` writes it, of messages and ICMP errors only. Bounded by bytes: the
//! oldest make room, and the record then begins with the oldest that is left, so nothing is taken for missing that was only
//! forgotten. Pure.

use std::collections::VecDeque;
use std::io;

use crate::observation::log::{Header, VERSION, Writer};
use crate::observation::{Body, Observation, Source};
use crate::time::Timestamp;

/// The log.
#[derive(Debug)]
pub struct WireLog {
    kept: VecDeque<Observation>,
    bytes: usize,
    limit: usize,
    /// From when on nothing is missing.
    since: Timestamp,
    /// How data was sampled when the oldest that is left was seen.
    sampling: Option<Observation>,
    /// Observations that made room.
    pub dropped: u64,
}

impl WireLog {
    /// An empty one that begins at `since` and holds `limit` bytes.
    pub const fn new(since: Timestamp, limit: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            bytes: 0,
            limit,
            since,
            sampling: None,
            dropped: 0,
        }
    }

    /// Keeps it, where it was seen on the wire.
    pub fn note(&mut self, observation: &Observation) {
        let is_wire = observation.source == Source::Capture
            && matches!(
                observation.body,
                Body::Packet(_) | Body::IcmpError(_) | Body::Sampling(_)
            );
        if !is_wire || self.limit == 0 {
            return;
        }
        self.bytes += size(observation);
        self.kept.push_back(observation.clone());
        while self.bytes > self.limit
            && let Some(oldest) = self.kept.pop_front()
        {
            self.bytes -= size(&oldest);
            self.dropped += 1;
            self.since = self.kept.front().map_or(oldest.at, |next| next.at);
            if matches!(oldest.body, Body::Sampling(_)) {
                self.sampling = Some(oldest);
            }
        }
    }

    /// Forgets all: the clock was set, so times before and after do not compare.
    pub fn begin_anew(&mut self, since: Timestamp) {
        *self = Self::new(since, self.limit);
    }

    /// Whether anything is kept at all.
    pub const fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// As a record that ends at `end`.
    pub fn record(&self, end: Timestamp) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let header = Header {
            wgnat_record: VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.since,
            anonymised: false,
        };
        let mut writer = Writer::begin(&mut text, &header)?;
        if let Some(sampling) = &self.sampling {
            writer.write(&Observation {
                at: self.since,
                ..sampling.clone()
            })?;
        }
        for observation in &self.kept {
            writer.write(observation)?;
        }
        writer.end(end.max(self.since))?;
        Ok(text)
    }
}

/// What it takes in memory, in bytes.
fn size(observation: &Observation) -> usize {
    let held = match &observation.body {
        Body::Packet(packet) => packet.payload.0.capacity(),
        Body::IcmpError(error) => error.quoted_payload.0.capacity(),
        _ => 0,
    };
    size_of::<Observation>() + held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::log;
    use crate::observation::packet::{Bytes, Direction, Sampling, WirePacket};
    use crate::time::Span;

    fn seen(secs: i64, body: Body) -> Observation {
        Observation {
            at: Timestamp::from_secs(secs),
            took: Span::ZERO,
            source: Source::Capture,
            body,
        }
    }

    fn packet(secs: i64) -> Observation {
        seen(
            secs,
            Body::Packet(WirePacket {
                direction: Direction::In,
                if_index: None,
                source: ([192, 0, 2, 1], 1).into(),
                destination: ([192, 0, 2, 2], 2).into(),
                tos: 0,
                payload_len: 148,
                payload: Bytes(vec![1; 148]),
            }),
        )
    }

    fn read(log: &WireLog) -> (Timestamp, Vec<Observation>) {
        let text = log.record(Timestamp::from_secs(1_000_000)).unwrap();
        let mut all = Vec::new();
        let (header, end) = log::read(text.as_slice(), |_| {}, |o| all.push(o.clone())).unwrap();
        assert_eq!(end, Some(Timestamp::from_secs(1_000_000)));
        (header.started, all)
    }

    #[test]
    fn it_holds_the_newest_and_says_from_when_on() {
        let mut log = WireLog::new(Timestamp::from_secs(5), 10 * size(&packet(0)));
        let one_in = |n| Body::Sampling(Sampling { one_in: n, lost: 0 });
        log.note(&seen(6, one_in(4)));
        assert_eq!(read(&log).0, Timestamp::from_secs(5));
        (10..1000).for_each(|secs| log.note(&packet(secs)));
        let (since, all) = read(&log);
        assert!(log.bytes <= log.limit);
        assert_eq!(since, Timestamp::from_secs(990));
        assert_eq!(all.len(), 11);
        // The sampling that held when they were seen comes first.
        assert_eq!(all[0], seen(990, one_in(4)));
        assert_eq!(all[1], packet(990));
        assert_eq!(log.dropped, 981);
        log.begin_anew(Timestamp::from_secs(7));
        assert_eq!(read(&log), (Timestamp::from_secs(7), Vec::new()));
    }

    #[test]
    fn only_the_wire_is_kept_and_nothing_where_it_is_off() {
        let mut log = WireLog::new(Timestamp::EPOCH, 1 << 20);
        log.note(&seen(1, Body::Devices(Vec::new())));
        assert!(read(&log).1.is_empty());
        let mut off = WireLog::new(Timestamp::EPOCH, 0);
        off.note(&packet(1));
        assert!(!off.is_on() && read(&off).1.is_empty());
    }
}

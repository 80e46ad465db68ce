//! From captured packets to the world: link, IP, UDP, message.
//!
//! In: packets of a capture file, in the order in which they passed. Out: a [`World`] and what the file held. Data
//! messages, which are nearly all of a large file, go straight to the session tracker; handshakes and ICMP errors
//! become observations as a live capture makes them, so that the same rules judge both.

use std::net::SocketAddr;

use crate::observation::packet::{Bytes, Direction, IcmpError, WirePacket};
use crate::observation::{Body, Observation, Source};
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::track::places::PlaceLog;
use crate::track::sessions::DataMessage;
use crate::types::SessionIndex;
use crate::wire::dialect::{self, ChangedHeaders};
use crate::wire::frame::{self, Frame, IcmpQuote};
use crate::wire::key_ring::KeyRing;
use crate::wire::pcap::datagram::{Datagram, Network, network};
use crate::wire::pcap::{LinkType, Packet};
use crate::wire::shape::{Shape, shape};
use crate::wire::wireguard::{self, DATA_HEADER_LEN, INITIATION_LEN, Kind, RESPONSE_LEN};

/// What a capture held, by packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Packets in all.
    pub packets: u64,
    /// Frames without an IP packet, or of a link type that is not read.
    pub not_ip: u64,
    /// Of these, frames of a link type that is not read, and its number.
    pub unknown_link: Option<(u64, u32)>,
    /// IP packets that are neither UDP nor ICMP.
    pub other: u64,
    /// ICMP and ICMPv6 packets.
    pub icmp: u64,
    /// Fragments after the first, which hold no message's beginning.
    pub later_fragments: u64,
    /// Packets cut before the end of their UDP header, or that contradict themselves.
    pub malformed: u64,
    /// UDP datagrams.
    pub udp: u64,
    /// Handshake messages that were cut by the snapshot length.
    pub cut_handshakes: u64,
    /// Handshake messages with their reserved bytes in use (Cloudflare's WARP).
    pub reserved: u64,
    /// Datagrams that begin as a handshake message does and hold no key material.
    pub unlikely: u64,
    /// Handshakes whose header bytes were replaced (AmneziaWG).
    pub changed_headers: u64,
    /// Tailscale's disco messages.
    pub disco: u64,
    /// Packets that a file does not date.
    pub undated: u64,
    /// Packets dated earlier than the one before.
    pub backwards: u64,
}

/// Feeds a world.
pub struct Feed {
    /// The world so far.
    pub world: World,
    /// What was held so far.
    pub held: Held,
    /// Keys to open handshakes with.
    keys: KeyRing,
    /// Handshakes in other dialects.
    changed: ChangedHeaders,
    /// What passed, to be compared with another place's; `None` where there is none.
    pub log: Option<PlaceLog>,
    /// When the first packet passed, and the latest.
    pub span: Option<(Timestamp, Timestamp)>,
}

impl Feed {
    /// Into an empty world, with keys to open what they open.
    pub fn new(keys: KeyRing) -> Self {
        let mut world = World::new(Timestamp::EPOCH);
        world.opened.listening = keys.listening().to_vec();
        Self {
            world,
            held: Held::default(),
            keys,
            changed: ChangedHeaders::default(),
            log: None,
            span: None,
        }
    }

    /// The same, and a log to compare with another place's.
    pub fn with_log(keys: KeyRing) -> Self {
        Self {
            log: Some(PlaceLog::default()),
            ..Self::new(keys)
        }
    }

    /// Takes in what `doctor --record` saw of the wire at one place; the rest of a record is about that host only.
    pub fn recorded(&mut self, observation: &Observation) {
        if observation.source != Source::Capture {
            return;
        }
        match &observation.body {
            Body::Packet(packet) => {
                self.held.packets += 1;
                self.held.udp += 1;
                self.date(Some(observation.at));
                if let Some(log) = &mut self.log {
                    log.packet(observation.at, packet);
                }
            }
            Body::IcmpError(_) => {
                self.held.packets += 1;
                self.held.icmp += 1;
                self.date(Some(observation.at));
            }
            Body::Sampling(sampling) => {
                if let Some(log) = &mut self.log {
                    log.sampled(sampling.one_in);
                }
            }
            // How many initiations came that were too many to be shown.
            Body::Initiations(tally) => self.held.packets += tally.count,
            _ => return,
        }
        self.world.apply(observation);
    }

    /// Notes until when a record was made: it goes on after its last packet.
    pub fn recorded_until(&mut self, started: Timestamp, end: Timestamp) {
        if let Some(log) = &mut self.log {
            log.passed(started);
            log.passed(end);
        }
    }

    /// Takes a packet in.
    #[inline]
    pub fn packet(&mut self, packet: &Packet<'_>) {
        self.held.packets += 1;
        let at = self.date(packet.at);
        if let Some(log) = &mut self.log {
            log.passed(at);
        }
        let Some((by_link, bytes)) = packet.link.ip(packet.bytes) else {
            return self.not_ip(packet.link);
        };
        let direction = if packet.direction == Direction::Unknown {
            by_link
        } else {
            packet.direction
        };
        match network(bytes) {
            Network::Udp(datagram) => {
                self.held.udp += 1;
                self.datagram(at, direction, &datagram);
            }
            Network::Icmp => {
                self.held.icmp += 1;
                if let Some(Frame::IcmpError(error)) = frame::parse(bytes) {
                    self.icmp(at, direction, &error);
                }
            }
            Network::LaterFragment => self.held.later_fragments += 1,
            Network::Other => self.held.other += 1,
            Network::Malformed => self.held.malformed += 1,
        }
    }

    /// Takes note of a source's state: how well the file could be read.
    pub fn observe(&mut self, source: Source, body: Body) {
        let at = self.span.map_or(Timestamp::EPOCH, |(_, last)| last);
        self.world.apply(&Observation {
            at,
            took: Span::ZERO,
            source,
            body,
        });
    }

    /// The world as it is at the end of the last file.
    pub fn finish(self) -> (World, Held) {
        let (world, held, _) = self.finish_with_log();
        (world, held)
    }

    /// The same, and the log.
    pub fn finish_with_log(mut self) -> (World, Held, PlaceLog) {
        if let Some((first, last)) = self.span {
            self.world.started = first;
            self.world.handle_timeout(last);
        }
        self.world.sessions.finish();
        (self.world, self.held, self.log.unwrap_or_default())
    }

    /// A packet without a date passed with the one before it.
    #[inline]
    fn date(&mut self, at: Option<Timestamp>) -> Timestamp {
        let Some((first, last)) = &mut self.span else {
            let at = at.unwrap_or_else(|| {
                self.held.undated += 1;
                Timestamp::EPOCH
            });
            self.span = Some((at, at));
            self.world.started = at;
            return at;
        };
        match at {
            Some(at) if at >= *last => {
                *last = at;
                at
            }
            Some(at) => {
                self.held.backwards += 1;
                *first = at.min(*first);
                at
            }
            None => {
                self.held.undated += 1;
                *last
            }
        }
    }

    #[cold]
    fn not_ip(&mut self, link: LinkType) {
        self.held.not_ip += 1;
        if let LinkType::Other(number) = link {
            let (count, _) = self.held.unknown_link.unwrap_or_default();
            self.held.unknown_link = Some((count + 1, number));
        }
    }

    #[inline]
    fn datagram(&mut self, at: Timestamp, direction: Direction, datagram: &Datagram<'_>) {
        if let Some(header) = datagram.payload.first_chunk::<DATA_HEADER_LEN>()
            && let Some(message) = wireguard::Data::parse(header, datagram.payload_len)
        {
            if message.reserved == [0; 3] && Kind::Data.fits(datagram.payload_len) {
                let data = DataMessage {
                    at,
                    source: datagram.source,
                    destination: datagram.destination,
                    receiver: message.receiver,
                    counter: message.counter,
                    len: message.len,
                };
                self.world.sessions.data(&data);
                if let Some(log) = &mut self.log {
                    log.data_message(&data, direction);
                }
            }
            return;
        }
        match shape(datagram.payload, datagram.payload_len) {
            Shape::Standard(kind) if kind != Kind::Data => self.handshake(at, direction, datagram),
            Shape::Reserved(_) => self.held.reserved += 1,
            Shape::Unlikely(_) => self.held.unlikely += 1,
            Shape::Standard(_) => {}
            Shape::Other => self.other(datagram),
        }
    }

    /// What is no standard message may be something that explains what is seen beside it.
    #[inline]
    fn other(&mut self, datagram: &Datagram<'_>) {
        let (payload, len) = (datagram.payload, datagram.payload_len);
        if dialect::is_disco(payload, len) {
            self.held.disco += 1;
            self.world.sessions.finds_its_own_way(datagram.source);
            self.world.sessions.finds_its_own_way(datagram.destination);
        } else if len as usize == INITIATION_LEN || len as usize == RESPONSE_LEN {
            self.changed
                .note(datagram.source, datagram.destination, payload, len);
            self.held.changed_headers = self.changed.handshakes;
        }
    }

    fn handshake(&mut self, at: Timestamp, direction: Direction, datagram: &Datagram<'_>) {
        let mut payload = datagram.payload.to_vec();
        let whole = usize::try_from(datagram.payload_len)
            .unwrap_or(0)
            .min(INITIATION_LEN);
        if payload.len() < whole {
            // Indices are enough to tell what answers what. Without them there is nothing to tell.
            if payload.len() < 12 {
                self.held.malformed += 1;
                return;
            }
            self.held.cut_handshakes += 1;
            payload.resize(whole, 0);
        }
        let checked = self
            .keys
            .try_on(datagram.payload)
            .and_then(|verdict| verdict.about(datagram.payload, datagram.source, datagram.destination));
        if let Some(checked) = checked {
            self.world.opened.apply(at, &checked);
        }
        let packet = WirePacket {
            direction,
            if_index: None,
            source: datagram.source,
            destination: datagram.destination,
            tos: datagram.tos,
            payload_len: datagram.payload_len,
            payload: Bytes(payload),
        };
        if let Some(log) = &mut self.log {
            log.packet(at, &packet);
        }
        self.apply(at, Body::Packet(packet));
    }

    fn icmp(&mut self, at: Timestamp, direction: Direction, error: &IcmpQuote<'_>) {
        let quoted = &error.quoted;
        if !self.is_ours(
            quoted.source,
            quoted.destination,
            quoted.payload,
            quoted.payload_len,
        ) {
            return;
        }
        let error = IcmpError {
            direction,
            from: error.from,
            icmp_type: error.icmp_type,
            code: error.code,
            mtu: error.mtu,
            quoted_source: quoted.source,
            quoted_destination: quoted.destination,
            quoted_payload: Bytes(quoted.payload.get(..16).unwrap_or(quoted.payload).to_vec()),
        };
        self.apply(at, Body::IcmpError(error));
    }

    /// Whether an error is about WireGuard: between addresses that speak it, or about a handshake message.
    fn is_ours(&self, source: SocketAddr, destination: SocketAddr, quoted: &[u8], len: u32) -> bool {
        let is_handshake = match shape(quoted, len) {
            Shape::Standard(Kind::Initiation) => len as usize == INITIATION_LEN,
            Shape::Standard(Kind::Response) => len as usize == RESPONSE_LEN,
            _ => false,
        };
        is_handshake
            || self.world.sessions.between(source, destination).is_some()
            || self
                .world
                .handshakes
                .conversation(Some(source), destination)
                .is_some()
            || wireguard::first_index(quoted).is_some_and(|index| self.knows(index))
    }

    fn knows(&self, index: SessionIndex) -> bool {
        self.world.sessions.knows(index)
    }

    fn apply(&mut self, at: Timestamp, body: Body) {
        self.world.apply(&Observation {
            at,
            took: Span::ZERO,
            source: Source::Capture,
            body,
        });
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;

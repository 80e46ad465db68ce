//! The UAPI: what a userspace WireGuard answers to `get=1` on its socket.
//!
//! In: the reply as text, in pieces as they arrive. Out: a [`DeviceSnapshot`], and how whole the reply was.
//! Why an own parser: implementations leave the specification (<https://www.wireguard.com/xplatform/>) in ways that
//! matter (boringtun tells a handshake's age instead of its time), and keys must be wiped as they pass.
//!
//! Bounds: lines of 1 KiB (longer ones are skipped), 65,536 peers, 262,144 AllowedIPs, 16 noted problems; what is
//! beyond is counted and said in the device's problems.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use zeroize::{Zeroize, Zeroizing};

use crate::observation::device::{DeviceSnapshot, Implementation, PeerSnapshot};
use crate::time::{Span, Timestamp};
use crate::types::{Cidr, PrivateKey, PublicKey};

/// The request: `get=1` and an empty line.
pub const GET: &[u8] = b"get=1\n\n";

const MAX_LINE: usize = 1024;
const MAX_PEERS: usize = 65_536;
const MAX_ALLOWED_IPS: usize = 262_144;
const MAX_PROBLEMS: usize = 16;

/// A handshake "time" below this many seconds is an age: as a time it would lie before September 2001, as an age
/// it would be 31 years.
const LOWEST_TIME: u64 = 1_000_000_000;

/// A reply, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The device. What was wrong with the reply is in its problems.
    pub device: DeviceSnapshot,
    /// The daemon's `errno`; `None` where the reply was cut before it.
    pub errno: Option<i32>,
    /// Keys that this parser does not know, passed over.
    pub unknown_keys: u32,
}

/// Reads a whole reply of the device `name` that arrived at `at`.
pub fn parse(name: &str, reply: &[u8], at: Timestamp) -> Reply {
    let mut parser = Parser::new(name);
    parser.feed(reply);
    parser.finish(at)
}

/// The implementation that a daemon's process name tells, for replies that do not.
pub fn implementation_of_daemon(comm: &str) -> Option<Implementation> {
    // The kernel cuts a process's name to 15 bytes (TASK_COMM_LEN).
    let starts = |name: &str| comm.starts_with(name);
    if starts("wireguard-go") {
        Some(Implementation::WireguardGo)
    } else if starts("boringtun") {
        Some(Implementation::Boringtun)
    } else if starts("gotatun") {
        Some(Implementation::Gotatun)
    } else {
        None
    }
}

/// `IP:port`, `[IPv6]:port` or `[IPv6%zone]:port`. A zone by number is kept, one by name is dropped; an IPv4 address
/// in IPv6 clothes becomes IPv4, as it is on the wire.
pub fn parse_endpoint(text: &str) -> Option<SocketAddr> {
    let address = match SocketAddr::from_str(text) {
        Ok(address) => address,
        Err(_) => {
            let (ip, rest) = text.strip_prefix('[')?.split_once('%')?;
            let (_, port) = rest.split_once("]:")?;
            SocketAddrV6::new(ip.parse().ok()?, port.parse().ok()?, 0, 0).into()
        }
    };
    Some(match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, address.port())),
        IpAddr::V6(_) => address,
    })
}

/// Reads a reply piece by piece. It holds at most one line of text, which it wipes.
pub struct Parser {
    name: String,
    /// The beginning of a line whose end has not arrived: `MAX_LINE` bytes that never move, of which `carried` count.
    carry: Zeroizing<Vec<u8>>,
    carried: usize,
    /// The rest of a line that is too long is being passed over.
    skipping: bool,
    line: u32,
    private_key: Option<Box<PrivateKey>>,
    public_key: Option<PublicKey>,
    listen_port: Option<u16>,
    fwmark: u32,
    peers: Vec<PeerDraft>,
    /// The lines belong to a peer that is left out, or whose key could not be read.
    passing_over: bool,
    allowed_ips: usize,
    peers_dropped: u64,
    allowed_ips_dropped: u64,
    problems: Vec<String>,
    problems_dropped: u64,
    errno: Option<i32>,
    unknown_keys: u32,
    signs: Signs,
}

struct PeerDraft {
    peer: PeerSnapshot,
    handshake_sec: u64,
    handshake_nsec: u32,
}

/// What tells one implementation from another.
#[derive(Default)]
struct Signs {
    own_public_key: bool,
    daita: bool,
    amnezia: bool,
    private_key: bool,
    protocol_version: bool,
}

impl Parser {
    /// For the device `name`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            carry: Zeroizing::new(vec![0; MAX_LINE]),
            carried: 0,
            skipping: false,
            line: 0,
            private_key: None,
            public_key: None,
            listen_port: None,
            fwmark: 0,
            peers: Vec::new(),
            passing_over: false,
            allowed_ips: 0,
            peers_dropped: 0,
            allowed_ips_dropped: 0,
            problems: Vec::new(),
            problems_dropped: 0,
            errno: None,
            unknown_keys: 0,
            signs: Signs::default(),
        }
    }

    /// Whether the reply has ended (its `errno` was seen): nothing more needs to be read.
    pub fn is_complete(&self) -> bool {
        self.errno.is_some()
    }

    /// The device's private key, where the reply told it. It is wiped when dropped.
    pub fn take_private_key(&mut self) -> Option<Box<PrivateKey>> {
        self.private_key.take()
    }

    /// Takes the next piece. The caller wipes its own buffer.
    pub fn feed(&mut self, mut piece: &[u8]) {
        while let Some(end) = piece.iter().position(|b| *b == b'\n') {
            let (head, tail) = piece.split_at(end);
            piece = tail.get(1..).unwrap_or_default();
            self.end_line(head);
        }
        self.keep(piece);
    }

    /// Ends the reply, which arrived at `at`.
    pub fn finish(mut self, at: Timestamp) -> Reply {
        if self.carried > 0 || self.skipping {
            self.end_line(&[]);
        }
        match self.errno {
            None => {
                let text = format!(
                    "the reply was cut after {} lines: peers may be missing",
                    self.line
                );
                self.problems.push(text);
            }
            Some(0) => {}
            Some(errno) => self
                .problems
                .push(format!("the daemon refused to answer (errno {errno})")),
        }
        for (count, what) in [
            (self.peers_dropped, "peers beyond the first 65,536 were left out"),
            (
                self.allowed_ips_dropped,
                "AllowedIPs beyond the first 262,144 were left out",
            ),
            (self.problems_dropped, "further problems in the reply"),
        ] {
            if count > 0 {
                self.problems.push(format!("{count} {what}"));
            }
        }
        let implementation = self.signs.implementation(!self.peers.is_empty());
        let peers = std::mem::take(&mut self.peers);
        Reply {
            device: DeviceSnapshot {
                name: std::mem::take(&mut self.name),
                if_index: None,
                implementation,
                public_key: self.public_key,
                listen_port: self.listen_port,
                fwmark: self.fwmark,
                peers: peers.into_iter().map(|draft| draft.finish(at)).collect(),
                problems: std::mem::take(&mut self.problems),
            },
            errno: self.errno,
            unknown_keys: self.unknown_keys,
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let end = self.carried + piece.len();
        match self.carry.get_mut(self.carried..end) {
            Some(room) if !self.skipping => {
                room.copy_from_slice(piece);
                self.carried = end;
            }
            _ => self.skipping = true,
        }
    }

    fn end_line(&mut self, tail: &[u8]) {
        self.line = self.line.saturating_add(1);
        if self.carried == 0 && !self.skipping && tail.len() <= MAX_LINE {
            return self.read_line(tail);
        }
        self.keep(tail);
        let mut carry = std::mem::take(&mut self.carry);
        let used = carry.get_mut(..self.carried).unwrap_or_default();
        if self.skipping {
            self.unknown_keys = self.unknown_keys.saturating_add(1);
        } else {
            self.read_line(used);
        }
        used.zeroize();
        self.carry = carry;
        self.carried = 0;
        self.skipping = false;
    }

    fn read_line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || self.is_complete() {
            return;
        }
        match std::str::from_utf8(line).ok().and_then(|l| l.split_once('=')) {
            Some((key, value)) => self.read_key(key, value),
            None => self.problem("expected KEY=VALUE"),
        }
    }

    fn read_key(&mut self, key: &str, value: &str) {
        match key {
            "errno" => match value.parse() {
                Ok(errno) => self.errno = Some(errno),
                Err(_) => self.problem("errno: expected a number"),
            },
            "private_key" => {
                self.signs.private_key = true;
                match PrivateKey::from_hex(value) {
                    // All zeros is "no key" (the specification's way to remove it).
                    Ok(key) if *key.expose() == [0; 32] => {}
                    Ok(key) => {
                        self.public_key = Some(key.public());
                        self.private_key = Some(Box::new(key));
                    }
                    Err(_) => self.problem("private_key: expected 64 hexadecimal digits"),
                }
            }
            "own_public_key" => {
                self.signs.own_public_key = true;
                match PublicKey::from_hex(value) {
                    Ok(key) => self.public_key = Some(key),
                    Err(_) => self.problem("own_public_key: expected 64 hexadecimal digits"),
                }
            }
            "listen_port" => match value.parse::<u16>() {
                Ok(port) => self.listen_port = Some(port).filter(|p| *p != 0),
                Err(_) => self.problem("listen_port: expected 0 to 65535"),
            },
            "fwmark" => match parse_mark(value) {
                Some(mark) => self.fwmark = mark,
                None => self.problem("fwmark: expected a number"),
            },
            "public_key" => self.begin_peer(value),
            _ => self.read_peer_key(key, value),
        }
    }

    fn begin_peer(&mut self, value: &str) {
        self.passing_over = true;
        let public_key = match PublicKey::from_hex(value) {
            Ok(key) => key,
            Err(_) => return self.problem("public_key: expected 64 hexadecimal digits"),
        };
        if self.peers.len() >= MAX_PEERS {
            self.peers_dropped += 1;
            return;
        }
        self.passing_over = false;
        self.peers.push(PeerDraft {
            peer: PeerSnapshot {
                public_key,
                has_preshared_key: false,
                endpoint: None,
                last_handshake: None,
                rx_bytes: 0,
                tx_bytes: 0,
                keepalive: None,
                allowed_ips: Vec::new(),
            },
            handshake_sec: 0,
            handshake_nsec: 0,
        });
    }

    fn read_peer_key(&mut self, key: &str, value: &str) {
        if self.passing_over {
            return;
        }
        let Some(draft) = self.peers.last_mut() else {
            return self.unknown(key);
        };
        let expected = match key {
            "preshared_key" => {
                draft.peer.has_preshared_key = value.bytes().any(|b| b != b'0');
                return;
            }
            "endpoint" => match parse_endpoint(value) {
                Some(endpoint) => return draft.peer.endpoint = Some(endpoint),
                None => "endpoint: expected ADDRESS:PORT",
            },
            "last_handshake_time_sec" => match value.parse() {
                Ok(seconds) => return draft.handshake_sec = seconds,
                Err(_) => "last_handshake_time_sec: expected seconds",
            },
            "last_handshake_time_nsec" => match value.parse() {
                Ok(nanos) if nanos < 1_000_000_000 => return draft.handshake_nsec = nanos,
                _ => "last_handshake_time_nsec: expected nanoseconds below one second",
            },
            "rx_bytes" => match value.parse() {
                Ok(bytes) => return draft.peer.rx_bytes = bytes,
                Err(_) => "rx_bytes: expected a number",
            },
            "tx_bytes" => match value.parse() {
                Ok(bytes) => return draft.peer.tx_bytes = bytes,
                Err(_) => "tx_bytes: expected a number",
            },
            "persistent_keepalive_interval" => match value {
                "off" => return,
                _ => match value.parse::<u16>() {
                    Ok(seconds) => return draft.peer.keepalive = Some(seconds).filter(|s| *s != 0),
                    Err(_) => "persistent_keepalive_interval: expected 0 to 65535 seconds",
                },
            },
            "allowed_ip" => match value.parse::<Cidr>() {
                Ok(prefix) if self.allowed_ips < MAX_ALLOWED_IPS => {
                    self.allowed_ips += 1;
                    return draft.peer.allowed_ips.push(prefix);
                }
                Ok(_) => return self.allowed_ips_dropped += 1,
                Err(_) => "allowed_ip: expected ADDRESS/PREFIX",
            },
            "protocol_version" => return self.signs.protocol_version = true,
            _ => return self.unknown(key),
        };
        self.problem(expected);
    }

    fn unknown(&mut self, key: &str) {
        self.unknown_keys = self.unknown_keys.saturating_add(1);
        self.signs.daita |= key.starts_with("daita_");
        self.signs.amnezia |= matches!(
            key,
            "jc" | "jmin" | "jmax" | "s1" | "s2" | "s3" | "s4" | "h1" | "h2" | "h3" | "h4"
        );
    }

    /// Notes what is wrong with the line. Never with its value, which may be a key.
    fn problem(&mut self, what: &str) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(format!("line {}: {what}", self.line));
        } else {
            self.problems_dropped += 1;
        }
    }
}

impl Signs {
    fn implementation(&self, has_peers: bool) -> Implementation {
        if self.own_public_key {
            Implementation::Boringtun
        } else if self.daita {
            Implementation::Gotatun
        } else if self.amnezia {
            // Its messages may be longer than WireGuard's, so wireguard-go's counting rules do not hold.
            Implementation::Unknown
        } else if self.protocol_version {
            Implementation::WireguardGo
        } else if self.private_key && has_peers {
            // It keeps to the specification but never writes protocol_version.
            Implementation::Gotatun
        } else {
            Implementation::Unknown
        }
    }
}

impl PeerDraft {
    fn finish(self, at: Timestamp) -> PeerSnapshot {
        let mut peer = self.peer;
        let (seconds, nanos) = (self.handshake_sec, self.handshake_nsec);
        // A host without a battery-backed clock lives in 1970, and there a small number is a time.
        let clock_is_set = at.since(Timestamp::EPOCH).as_secs() >= LOWEST_TIME;
        peer.last_handshake = if seconds == 0 && nanos == 0 {
            None
        } else if seconds < LOWEST_TIME && clock_is_set {
            Some(at.before(Span::new(seconds, nanos)))
        } else {
            Some(Timestamp::from_parts(
                i64::try_from(seconds).unwrap_or(i64::MAX),
                nanos,
            ))
        };
        peer
    }
}

/// A mark in decimal, or in hexadecimal after `0x`.
fn parse_mark(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
#[path = "uapi_tests.rs"]
mod tests;

//! wg-quick's files (wg-quick(8), wg(8)).
//!
//! In: a file's text. Out: the interface and its peers, with notes on what was passed over; or the first wrong value,
//! by line and key and what was expected in its place. Names are not resolved here. A message never holds a key: no
//! value of a key field, and nothing else that is long enough to be one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::observation::device::ConfiguredPeer;
use crate::types::{Cidr, PresharedKey, PrivateKey, PublicKey};
use crate::wire::uapi::parse_endpoint;

/// A key in base64 has 44 characters; what is as short as this cannot be one.
const LONGEST_SHOWN: usize = 40;
const MAX_NOTES: usize = 32;

/// Keys that wg-quick acts on and diagnosis does not need.
const NOT_NEEDED: [&str; 6] = ["dns", "preup", "postup", "predown", "postdown", "saveconfig"];

/// A file, read.
pub struct Config {
    /// `[Interface]`.
    pub interface: Interface,
    /// Each `[Peer]`, in order.
    pub peers: Vec<Peer>,
    /// What was passed over, by line.
    pub notes: Vec<String>,
}

/// `[Interface]`. It holds the private key and so has no `Debug`.
#[derive(Default)]
pub struct Interface {
    /// `PrivateKey`.
    pub private_key: Option<PrivateKey>,
    /// `Address`, with prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// `MTU`; `None` leaves it to wg-quick.
    pub mtu: Option<u32>,
    /// `ListenPort`; `None` leaves it to WireGuard.
    pub listen_port: Option<u16>,
    /// `FwMark`; `None` for off or not set.
    pub fwmark: Option<u32>,
    /// `Table`.
    pub table: Table,
}

/// Where wg-quick puts the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// `auto`: `main`, and for default routes a table of their own.
    #[default]
    Auto,
    /// `off`: nowhere.
    Off,
    /// Into this table, by number.
    Number(u32),
    /// Into this table, by a name of /etc/iproute2/rt_tables.
    Name(String),
}

/// `[Peer]`. It may hold a preshared key and so has no `Debug`.
pub struct Peer {
    /// The line of its `[Peer]`.
    pub line: usize,
    /// `PublicKey`.
    pub public_key: PublicKey,
    /// `PresharedKey`; all zeros counts as none.
    pub preshared_key: Option<PresharedKey>,
    /// `Endpoint`.
    pub endpoint: Option<Endpoint>,
    /// `PersistentKeepalive`, seconds; `None` for off or not set.
    pub keepalive: Option<u16>,
    /// `AllowedIPs`.
    pub allowed_ips: Vec<Cidr>,
}

/// A host and a port, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, without brackets; an IPv6 address may have a zone.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

/// The first wrong value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {}expected {expected}{}", key.as_ref().map(|k| format!("{k}: ")).unwrap_or_default(), Got(got))]
pub struct ConfigError {
    /// Its line, from 1.
    pub line: usize,
    /// The key, where there is one.
    pub key: Option<String>,
    /// What should have been there.
    pub expected: &'static str,
    /// What was there, where that cannot be a secret.
    pub got: Option<String>,
}

struct Got<'a>(&'a Option<String>);

impl fmt::Display for Got<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(got) => write!(f, ", got {got:?}"),
            None => Ok(()),
        }
    }
}

impl Endpoint {
    /// The address, where the host is one and not a name.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip.to_canonical(), self.port)),
            Err(_) => parse_endpoint(&format!("[{}]:{}", self.host, self.port)),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Endpoint {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let port: u16 = port.parse().map_err(|_| ())?;
        let endpoint = Self {
            host: host.to_owned(),
            port,
        };
        // Names are at most 253 characters (RFC 1035, section 2.3.4); only addresses have colons or brackets.
        let named = !host.is_empty() && host.len() <= 253 && !host.contains(|c: char| "[]/ ".contains(c));
        let address_like = bracketed.is_some() || host.contains(':');
        let good = port != 0 && named && (!address_like || endpoint.address().is_some());
        good.then_some(endpoint).ok_or(())
    }
}

impl Config {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            reader.read_line(number + 1, line)?;
        }
        reader.finish()
    }

    /// The peers as observation has them. `origin` names the file, `device` the interface that it is for.
    pub fn configured_peers(&self, origin: &str, device: Option<&str>) -> Vec<ConfiguredPeer> {
        let local_public_key = self.interface.private_key.as_ref().map(PrivateKey::public);
        let configured = |peer: &Peer| ConfiguredPeer {
            origin: format!("{origin}:{}", peer.line),
            device: device.map(str::to_owned),
            local_public_key,
            public_key: peer.public_key,
            has_preshared_key: peer.preshared_key.is_some(),
            endpoint: peer.endpoint.as_ref().map(ToString::to_string),
            resolved: peer.endpoint.iter().filter_map(Endpoint::address).collect(),
            keepalive: peer.keepalive,
            allowed_ips: peer.allowed_ips.clone(),
            mtu: self.interface.mtu,
        };
        self.peers.iter().map(configured).collect()
    }
}

#[derive(Default)]
struct Reader {
    section: Section,
    interface: Interface,
    peers: Vec<Peer>,
    notes: Vec<String>,
    notes_dropped: usize,
}

#[derive(Default)]
enum Section {
    #[default]
    None,
    Interface,
    Peer(Draft),
    /// One that is not known: its keys are passed over.
    Other,
}

struct Draft {
    line: usize,
    public_key: Option<PublicKey>,
    preshared_key: Option<PresharedKey>,
    endpoint: Option<Endpoint>,
    keepalive: Option<u16>,
    allowed_ips: Vec<Cidr>,
}

/// One `KEY = VALUE`.
struct Entry<'a> {
    line: usize,
    key: &'a str,
    value: &'a str,
}

impl Entry<'_> {
    /// For values that are keys: the error shows nothing of it.
    fn secret<T, E>(&self, result: Result<T, E>) -> Result<T, ConfigError> {
        result.map_err(|_| ConfigError {
            line: self.line,
            key: Some(self.key.to_owned()),
            expected: "44 characters of base64 that hold 32 bytes",
            got: None,
        })
    }

    fn wrong(&self, value: &str, expected: &'static str) -> ConfigError {
        ConfigError {
            line: self.line,
            key: Some(self.key.to_owned()),
            expected,
            got: (value.len() <= LONGEST_SHOWN).then(|| value.to_owned()),
        }
    }

    fn parse<T: FromStr>(&self, expected: &'static str) -> Result<T, ConfigError> {
        self.value.parse().map_err(|_| self.wrong(self.value, expected))
    }

    /// A value that may be `off`.
    fn unless_off<T: FromStr + Default + PartialEq>(
        &self,
        expected: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        if self.value.eq_ignore_ascii_case("off") {
            return Ok(None);
        }
        self.parse(expected)
            .map(|v| Some(v).filter(|v| *v != T::default()))
    }

    /// The parts of a value with commas between.
    fn parts(&self) -> impl Iterator<Item = &str> {
        self.value
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
    }
}

impl Reader {
    fn read_line(&mut self, line: usize, text: &str) -> Result<(), ConfigError> {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            return Ok(());
        }
        if text.starts_with('[') {
            return self.begin_section(line, text);
        }
        let (key, value) = text.split_once('=').ok_or(ConfigError {
            line,
            key: None,
            expected: "KEY = VALUE, a [Section] or a # comment",
            got: None,
        })?;
        let entry = Entry {
            line,
            key: key.trim(),
            value: value.trim(),
        };
        let known = match &mut self.section {
            Section::None => {
                return Err(ConfigError {
                    line,
                    key: None,
                    expected: "[Interface] or [Peer] before the first key",
                    got: None,
                });
            }
            Section::Interface => self.interface.read(&entry)?,
            Section::Peer(draft) => draft.read(&entry)?,
            Section::Other => true,
        };
        if !known {
            // A key's text may itself be a secret: base64 ends in "=".
            let shown = Some(entry.key)
                .filter(|k| k.len() <= LONGEST_SHOWN)
                .unwrap_or("…");
            self.note(format!("line {line}: unknown key {shown:?} passed over"));
        }
        Ok(())
    }

    fn begin_section(&mut self, line: usize, text: &str) -> Result<(), ConfigError> {
        self.end_section()?;
        self.section = if text.eq_ignore_ascii_case("[interface]") {
            Section::Interface
        } else if text.eq_ignore_ascii_case("[peer]") {
            Section::Peer(Draft {
                line,
                public_key: None,
                preshared_key: None,
                endpoint: None,
                keepalive: None,
                allowed_ips: Vec::new(),
            })
        } else {
            self.note(format!("line {line}: unknown section passed over"));
            Section::Other
        };
        Ok(())
    }

    fn end_section(&mut self) -> Result<(), ConfigError> {
        if let Section::Peer(draft) = std::mem::take(&mut self.section) {
            self.peers.push(Peer {
                line: draft.line,
                public_key: draft.public_key.ok_or(ConfigError {
                    line: draft.line,
                    key: Some("[Peer]".to_owned()),
                    expected: "a PublicKey in it",
                    got: None,
                })?,
                preshared_key: draft.preshared_key,
                endpoint: draft.endpoint,
                keepalive: draft.keepalive,
                allowed_ips: draft.allowed_ips,
            });
        }
        Ok(())
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(note);
        } else {
            self.notes_dropped += 1;
        }
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        if matches!(self.section, Section::None) {
            return Err(ConfigError {
                line: 1,
                key: None,
                expected: "[Interface] or [Peer]",
                got: None,
            });
        }
        self.end_section()?;
        if self.notes_dropped > 0 {
            let more = self.notes_dropped;
            self.notes.push(format!("{more} further lines passed over"));
        }
        Ok(Config {
            interface: self.interface,
            peers: self.peers,
            notes: self.notes,
        })
    }
}

impl Interface {
    /// False where the key is not known.
    fn read(&mut self, entry: &Entry<'_>) -> Result<bool, ConfigError> {
        match entry.key.to_ascii_lowercase().as_str() {
            "privatekey" => self.private_key = Some(entry.secret(PrivateKey::from_base64(entry.value))?),
            "address" => {
                for part in entry.parts() {
                    let address = parse_address(part)
                        .ok_or_else(|| entry.wrong(part, "addresses, with or without /PREFIX"))?;
                    self.addresses.push(address);
                }
            }
            "mtu" => self.mtu = Some(entry.parse("a number of bytes")?),
            "listenport" => {
                self.listen_port = Some(entry.parse("a port from 0 to 65535")?).filter(|p| *p != 0)
            }
            "fwmark" => self.fwmark = parse_mark(entry)?,
            "table" => {
                self.table = match entry.value.to_ascii_lowercase().as_str() {
                    "auto" => Table::Auto,
                    "off" => Table::Off,
                    other => match (other.parse(), entry.value) {
                        (Ok(number), _) => Table::Number(number),
                        (Err(_), name) if !name.is_empty() => Table::Name(name.to_owned()),
                        _ => return Err(entry.wrong(entry.value, "auto, off, or a table's number or name")),
                    },
                }
            }
            other => return Ok(NOT_NEEDED.contains(&other)),
        }
        Ok(true)
    }
}

impl Draft {
    /// False where the key is not known.
    fn read(&mut self, entry: &Entry<'_>) -> Result<bool, ConfigError> {
        match entry.key.to_ascii_lowercase().as_str() {
            "publickey" => self.public_key = Some(entry.secret(entry.value.parse())?),
            "presharedkey" => {
                let key = entry.secret(PresharedKey::from_base64(entry.value))?;
                self.preshared_key = Some(key).filter(|key| !key.is_none());
            }
            "endpoint" => {
                let expected = "HOST:PORT or [IPv6]:PORT, with a port from 1 to 65535";
                self.endpoint = Some(entry.parse(expected)?);
            }
            "persistentkeepalive" => self.keepalive = entry.unless_off("off or seconds from 0 to 65535")?,
            "allowedips" => {
                for part in entry.parts() {
                    let prefix = part
                        .parse()
                        .map_err(|_| entry.wrong(part, "ADDRESS/PREFIX, with commas between"))?;
                    self.allowed_ips.push(prefix);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn parse_mark(entry: &Entry<'_>) -> Result<Option<u32>, ConfigError> {
    let expected = "off, a number, or 0x and hexadecimal digits";
    match entry.value.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16)
            .map(|mark| Some(mark).filter(|m| *m != 0))
            .map_err(|_| entry.wrong(entry.value, expected)),
        None => entry.unless_off(expected),
    }
}

/// An address of an interface: unlike a prefix it keeps its host bits.
fn parse_address(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.trim().parse().ok()?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => prefix.trim().parse().ok().filter(|p| *p <= full)?,
        None => full,
    };
    Some((address, prefix))
}

#[cfg(test)]
#[path = "wg_quick_tests.rs"]
mod tests;

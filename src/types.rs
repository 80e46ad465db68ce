//! Newtypes for what is easily confused, and the types that hold secrets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::ZeroizeOnDrop;

/// Implements serde by `Display` and `FromStr`.
macro_rules! serde_by_text {
    ($t:ty) => {
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(d)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// Why a text is not a 32-byte key. Never contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64 (RFC 4648, with padding).
    #[error("not a key: expected 44 characters of base64 that hold 32 bytes")]
    NotBase64,
    /// Not hexadecimal.
    #[error("not a key: expected 64 hexadecimal digits that hold 32 bytes")]
    NotHex,
    /// Right alphabet, wrong length.
    #[error("not a key: expected 32 bytes, got {0}")]
    Length(usize),
}

fn decode_base64(text: &str) -> Result<[u8; 32], KeyError> {
    let bytes = zeroize::Zeroizing::new(BASE64.decode(text.trim()).map_err(|_| KeyError::NotBase64)?);
    bytes
        .as_slice()
        .try_into()
        .map_err(|_| KeyError::Length(bytes.len()))
}

fn decode_hex(text: &str) -> Result<[u8; 32], KeyError> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return Err(KeyError::NotHex);
    }
    let mut key = [0; 32];
    for (out, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| (c as char).to_digit(16).ok_or(KeyError::NotHex);
        let value = digit(pair[0])? * 16 + digit(pair[1])?;
        *out = u8::try_from(value).map_err(|_| KeyError::NotHex)?;
    }
    Ok(key)
}

/// A Curve25519 public key: 32 bytes, in text base64 (as `wg` prints it).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// From 64 hexadecimal digits, as the UAPI has it.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        decode_hex(text).map(Self)
    }

    /// The first six characters of the base64 text and an ellipsis: enough to recognise a peer in a table.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(6);
        text.push('…');
        text
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode_base64(text).map(Self)
    }
}
serde_by_text!(PublicKey);

/// A Curve25519 private key. It has no `Debug`, `Display` or serde on purpose, and is wiped when dropped.
#[derive(Clone, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// Takes the bytes over.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From 64 hexadecimal digits, as the UAPI has it.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        decode_hex(text).map(Self)
    }

    /// From base64, as wg-quick's files have it.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        decode_base64(text).map(Self)
    }

    /// The matching public key (X25519 of the base point; clamps as the kernel does).
    pub fn public(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    /// The bytes, for cryptography only.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A pre-shared key. Like [`PrivateKey`] it never shows itself.
#[derive(Clone, ZeroizeOnDrop)]
pub struct PresharedKey([u8; 32]);

impl PresharedKey {
    /// From base64, as wg-quick's files have it.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        decode_base64(text).map(Self)
    }

    /// All zeros means "none" to WireGuard (paper, section 5.4).
    pub fn is_none(&self) -> bool {
        self.0 == [0; 32]
    }

    /// The bytes, for cryptography only.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A WireGuard session's index, chosen by its receiver (paper, section 5.4.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionIndex(pub u32);

/// A network interface's index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfIndex(pub u32);

/// A network namespace, by the inode of its nsfs file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetnsId(pub u64);

/// A transport protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Proto {
    /// `tcp` or `udp`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// An inclusive range of ports.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest port.
    pub low: u16,
    /// The highest port.
    pub high: u16,
}

impl PortRange {
    /// Linux's default `ip_local_port_range` (since 4.2): 28,232 ports.
    pub const LINUX_DEFAULT: Self = Self {
        low: 32768,
        high: 60999,
    };

    /// How many ports it holds.
    pub const fn len(self) -> u32 {
        if self.high < self.low {
            0
        } else {
            self.high as u32 - self.low as u32 + 1
        }
    }

    /// Whether it holds none.
    pub const fn is_empty(self) -> bool {
        self.high < self.low
    }

    /// Whether `port` lies inside.
    pub const fn contains(self, port: u16) -> bool {
        self.low <= port && port <= self.high
    }
}

/// An address prefix, as AllowedIPs and routes have it. Host bits are cleared on the way in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    addr: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Masks `addr`; `None` where `prefix` is longer than the family's addresses.
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Self> {
        let addr = match addr {
            IpAddr::V4(a) => {
                let keep = 32u32.checked_sub(prefix.into())?;
                IpAddr::V4(Ipv4Addr::from_bits(
                    a.to_bits() & u32::MAX.checked_shl(keep).unwrap_or(0),
                ))
            }
            IpAddr::V6(a) => {
                let keep = 128u32.checked_sub(prefix.into())?;
                IpAddr::V6(Ipv6Addr::from_bits(
                    a.to_bits() & u128::MAX.checked_shl(keep).unwrap_or(0),
                ))
            }
        };
        Some(Self { addr, prefix })
    }

    /// The network's address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The prefix length in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is `0.0.0.0/0` or `::/0`.
    pub fn is_default(&self) -> bool {
        self.prefix == 0
    }

    /// Whether `addr` lies inside (never across families).
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4()
            && Self::new(addr, self.prefix).is_some_and(|masked| masked.addr == self.addr)
    }

    /// Whether one of the two contains the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.addr) && self.prefix <= other.prefix
            || other.contains(self.addr) && other.prefix <= self.prefix
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected an address or ADDRESS/PREFIX, got {text:?}");
        let (addr, prefix) = match text.split_once('/') {
            Some((a, p)) => (a, Some(p)),
            None => (text, None),
        };
        let addr: IpAddr = addr.trim().parse().map_err(|_| wrong())?;
        let full = if addr.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(full), |p| p.trim().parse().map_err(|_| wrong()))?;
        Self::new(addr, prefix).ok_or_else(wrong)
    }
}
serde_by_text!(Cidr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_text() {
        let private = PrivateKey::from_base64("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=").ok();
        let public = private.map(|k| k.public().to_string());
        // The base64 of X25519(private, 9), as `wg pubkey` prints it.
        assert_eq!(
            public.as_deref(),
            Some("HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=")
        );
        assert_eq!("c2hvcnQ=".parse::<PublicKey>(), Err(KeyError::Length(5)));
        assert_eq!("?".parse::<PublicKey>(), Err(KeyError::NotBase64));
        assert_eq!(PublicKey::from_hex(&"é".repeat(32)), Err(KeyError::NotHex));
        assert_eq!(PublicKey::from_hex(&"ff".repeat(32)), Ok(PublicKey([255; 32])));
    }

    #[test]
    fn prefixes() {
        let c: Cidr = "10.1.2.3/8".parse().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(c.to_string(), "10.0.0.0/8");
        assert!(c.contains("10.255.0.1".parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))));
        for (a, b, yes) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.1.0.0/16", "10.0.0.0/8", true),
            ("10.0.0.0/16", "10.1.0.0/16", false),
            ("0.0.0.0/0", "::/0", false),
            ("::/0", "fd00::1", true),
        ] {
            let (a, b): (Result<Cidr, _>, Result<Cidr, _>) = (a.parse(), b.parse());
            assert_eq!(a.ok().zip(b.ok()).map(|(a, b)| a.overlaps(&b)), Some(yes));
        }
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
        assert!("x/8".parse::<Cidr>().is_err());
    }
}

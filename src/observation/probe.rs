//! What an active probe of a WireGuard peer saw. No keys but public ones, and no judgement.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::time::{Span, Timestamp, span_secs};
use crate::types::PublicKey;

/// How WireGuard's messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Over UDP, as WireGuard itself does.
    Udp,
    /// Over a WebSocket in TLS to TCP port 443, as flyctl can.
    Websocket,
}

impl Transport {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Websocket => "websocket",
        }
    }
}

/// One fact of a probe; `target` says which one it is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeFact {
    /// Its target, by number; [`Fact::Target`] comes first.
    pub target: u32,
    /// What was seen.
    pub fact: Fact,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// Who is probed, and how.
    Target(Box<Target>),
    /// It was not probed, and why: a refusal, a name that does not resolve, a file that lacks a part.
    Skipped(Skipped),
    /// An initiation, and what came of it.
    Attempt(Attempt),
    /// Something arrived that answers no initiation.
    Stray(Stray),
    /// How far the WebSocket came.
    Websocket(Websocket),
    /// Something was asked through the tunnel.
    Inner(Inner),
    /// The largest packet through the tunnel.
    Mtu(Mtu),
    /// How long a NAT keeps the mapping.
    Lifetime(Lifetime),
}

/// Who is probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Where it was read: a file and line, an option, a device.
    pub origin: String,
    /// The device whose peer it is, or that a file is for.
    pub device: Option<String>,
    /// The prober's public key.
    pub local_public_key: PublicKey,
    /// The peer's public key.
    pub public_key: PublicKey,
    /// Whether a pre-shared key is used.
    pub has_preshared_key: bool,
    /// The endpoint as written.
    pub endpoint: String,
    /// Where messages go.
    pub address: Option<SocketAddr>,
    /// How they travel.
    pub transport: Transport,
    /// Persistent keepalive as configured, in seconds; `None` for off or not known.
    pub keepalive: Option<u16>,
    /// The tunnel's MTU as configured or as its device has it.
    pub mtu: Option<u32>,
    /// The transport that flyctl would choose, for its peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured_transport: Option<Transport>,
}

/// Why a target was not probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// In a few words.
    pub reason: String,
    /// What to do instead.
    pub way_round: Option<String>,
    /// Whether it was refused because a probe would do harm.
    pub refused: bool,
}

/// One initiation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// This side's address and port.
    pub local: Option<SocketAddr>,
    /// Whether it carried a cookie.
    pub with_cookie: bool,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an initiation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A response that authenticates.
    Answered {
        /// From initiation to response.
        #[serde(with = "span_secs")]
        rtt: Span,
    },
    /// The peer called back with an initiation of its own, which opens and is its own; it was answered.
    CalledBack {
        /// From our initiation to its.
        #[serde(with = "span_secs")]
        after: Span,
        /// From our initiation to its first message under the session that it began; `None` where none came.
        confirmed: Option<f64>,
    },
    /// A response for this initiation and our public key that does not authenticate: the pre-shared keys differ.
    PresharedKeyDiffers {
        /// From initiation to response.
        #[serde(with = "span_secs")]
        rtt: Span,
    },
    /// A cookie reply that opens under the peer's public key.
    Cookie {
        /// From initiation to reply.
        #[serde(with = "span_secs")]
        rtt: Span,
    },
    /// An ICMP error about it.
    Icmp {
        /// Who sent it.
        from: Option<IpAddr>,
        /// The address family is IPv6.
        v6: bool,
        /// Its type.
        icmp_type: u8,
        /// Its code.
        code: u8,
        /// From initiation to error.
        #[serde(with = "span_secs")]
        after: Span,
    },
    /// The system refused to send it.
    NotSent {
        /// The error's number.
        errno: i32,
        /// The error in words.
        error: String,
    },
    /// Nothing within the time.
    Silent {
        /// How long was waited.
        #[serde(with = "span_secs")]
        waited: Span,
    },
}

/// A datagram that answers nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    /// What it is.
    pub kind: StrayKind,
    /// Its length in bytes.
    pub len: u32,
    /// Its first bytes, in hexadecimal: what the other protocol begins with.
    pub begins: String,
}

/// What a datagram is that answers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrayKind {
    /// Not WireGuard.
    NotWireguard,
    /// A response for another initiation or another public key.
    OtherResponse,
    /// A cookie reply that does not open.
    OtherCookie,
    /// An initiation that does not open with our key, or is of another peer.
    OtherInitiation,
    /// Data of no session of ours.
    OtherData,
}

/// How far a WebSocket came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Websocket {
    /// Whether TCP connected.
    pub tcp: bool,
    /// Whether TLS was agreed on.
    pub tls: bool,
    /// Whether the server upgraded to a WebSocket.
    pub upgraded: bool,
    /// How long all that took, where it came so far.
    pub took_seconds: Option<f64>,
    /// What went wrong.
    pub error: Option<String>,
    /// The certificates that the server showed, the server's own first. They are not verified, as flyctl does not.
    pub certificates: Vec<Certificate>,
    /// The first bytes where what answered is not TLS, as text where they are text.
    pub not_tls: Option<String>,
}

/// A certificate that a server showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whom it names.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub sha256: String,
}

/// A question through the tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inner {
    /// Which kind.
    pub kind: InnerKind,
    /// Whom it was put to, as asked for.
    pub target: String,
    /// Sent.
    pub sent: u32,
    /// Answered.
    pub answered: u32,
    /// The round trips, in seconds.
    pub rtts: Vec<f64>,
    /// What was answered, in a few words (`2 addresses`, `refused`).
    pub answer: Option<String>,
    /// Why it failed, where that is known.
    pub error: Option<String>,
}

/// Which kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InnerKind {
    /// ICMP echo.
    Ping,
    /// A DNS query over UDP.
    Dns,
    /// A TCP connection.
    Tcp,
}

impl InnerKind {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
        }
    }
}

/// The largest inner packet that gets through and back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mtu {
    /// Whom was asked.
    pub target: IpAddr,
    /// The largest inner packet that was answered, in bytes.
    pub passes: Option<u32>,
    /// The smallest that was not.
    pub fails: Option<u32>,
    /// The largest that was tried.
    pub ceiling: u32,
    /// WireGuard's and the outer headers' bytes.
    pub overhead: u32,
    /// The path MTU that a router or this host's interface named, and who.
    pub told: Option<ToldMtu>,
    /// Packets sent for it.
    pub packets: u32,
}

/// A path MTU that somebody named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldMtu {
    /// In bytes, outer.
    pub mtu: u32,
    /// Who; `None` for this host itself.
    pub from: Option<IpAddr>,
}

/// How long a NAT keeps the mapping of an idle tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lifetime {
    /// The longest silence after which the peer still got through, in seconds.
    pub alive_after_seconds: Option<f64>,
    /// The shortest after which it did not.
    pub dead_after_seconds: Option<f64>,
    /// Silences tried, in seconds, and whether the peer got through.
    pub tried: Vec<(f64, bool)>,
    /// Why it ended without a result, where it did.
    pub error: Option<String>,
}

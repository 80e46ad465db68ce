//! What was measured towards named targets: round trips, losses, stages of a connection, path MTU and hops.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::observation::target::Target;
use crate::time::{Span, Timestamp, span_secs};

/// Round-trip times in the order in which they were measured. Serialised as seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rtts(pub Vec<Span>);

impl Serialize for Rtts {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.0.iter().map(Span::as_secs_f64))
    }
}

impl<'de> Deserialize<'de> for Rtts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let seconds = Vec::<f64>::deserialize(d)?;
        let spans: Result<Vec<Span>, _> = seconds.into_iter().map(Span::try_from_secs_f64).collect();
        spans.map(Self).map_err(serde::de::Error::custom)
    }
}

/// One target, as one batch of attempts found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathSample {
    /// What was asked for.
    pub target: Target,
    /// The address that was tried; for DNS the server's.
    pub address: Option<IpAddr>,
    /// This DNS server is one of the system's own (resolv.conf), and not one that was named.
    #[serde(default)]
    pub system_resolver: bool,
    /// Attempts made.
    pub sent: u32,
    /// From each answered attempt's beginning to its answer.
    pub rtts: Rtts,
    /// Parts of the round trip, where it has parts.
    #[serde(default)]
    pub stages: Vec<(Stage, Rtts)>,
    /// What came of the other attempts.
    #[serde(default)]
    pub failures: Vec<(Failure, u32)>,
    /// The HTTP status of the last answer.
    #[serde(default)]
    pub http_status: Option<u16>,
    /// The certificate that a TLS server showed.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// What the size search found, where it was asked for.
    #[serde(default)]
    pub mtu: Option<PathMtu>,
    /// Routers on the way, where they were asked for; in order of their distance.
    #[serde(default)]
    pub hops: Vec<HopSample>,
    /// What could not be measured, and why.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The Fly machine that this is, where the target was discovered.
    #[serde(default)]
    pub sibling: Option<Sibling>,
}

impl PathSample {
    /// Of a target that nothing was sent to yet.
    pub fn unmeasured(target: Target) -> Self {
        Self {
            target,
            address: None,
            system_resolver: false,
            sent: 0,
            rtts: Rtts::default(),
            stages: Vec::new(),
            failures: Vec::new(),
            http_status: None,
            certificate: None,
            mtu: None,
            hops: Vec::new(),
            problems: Vec::new(),
            sibling: None,
        }
    }
}

/// What an earlier run measured of a target: the past that the present is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathPast {
    /// Which one.
    pub target: Target,
    /// Attempts made.
    pub sent: u32,
    /// Attempts lost.
    pub lost: u32,
    /// The median round trip; empty where none was answered.
    pub median: Rtts,
    /// The mean step from one round trip to the next; empty where there were fewer than two.
    pub jitter: Rtts,
    /// What a history of many runs says; the fields above are empty then.
    #[serde(default)]
    pub usual: Option<Usual>,
}

/// What is usual for a target, by a history of its measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// From the oldest of its points to now.
    #[serde(with = "span_secs")]
    pub over: Span,
    /// Points with a round trip or a share of loss.
    pub points: u32,
    /// The median of the points' round trips and the value below which 95 % of them lie; empty where none was measured.
    pub rtt: Rtts,
    /// The median of the points' jitter; empty where none was measured.
    pub jitter: Rtts,
    /// The mean share of attempts lost.
    pub loss: Option<f64>,
}

impl Usual {
    /// The usual round trip.
    pub fn median(&self) -> Option<Span> {
        self.rtt.0.first().copied()
    }

    /// What it seldom exceeds.
    pub fn p95(&self) -> Option<Span> {
        self.rtt.0.get(1).copied()
    }
}

/// The certificate of a TLS server. It is read and judged; nothing that is measured relies on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whom it names (`CN=example.org`).
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Until when it is good, where that could be read.
    pub not_after: Option<Timestamp>,
    /// What a client with this host's roots makes of it.
    pub verdict: CertificateVerdict,
}

/// What a client makes of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateVerdict {
    /// It would be taken.
    Trusted,
    /// Its time is over.
    Expired,
    /// Its time has not begun: the server's, or this host's, clock may be wrong.
    NotYetValid,
    /// No root of this host has signed it, directly or through what the server sent along.
    UnknownIssuer,
    /// It is for other names.
    OtherName,
    /// Something else is wrong with it.
    Refused(String),
    /// It could not be judged, and why.
    NotJudged(String),
}

impl CertificateVerdict {
    /// In a word, for programs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::UnknownIssuer => "unknown-issuer",
            Self::OtherName => "other-name",
            Self::Refused(_) => "refused",
            Self::NotJudged(_) => "not-judged",
        }
    }

    /// In words, where there is something to say against it.
    pub fn says(&self) -> Option<String> {
        Some(match self {
            Self::Trusted => return None,
            Self::Expired => "certificate expired".to_owned(),
            Self::NotYetValid => "certificate not valid yet (or a clock is wrong)".to_owned(),
            Self::UnknownIssuer => "certificate of an issuer unknown here".to_owned(),
            Self::OtherName => "certificate for another name".to_owned(),
            Self::Refused(why) => format!("certificate refused: {why}"),
            Self::NotJudged(why) => format!("certificate not judged: {why}"),
        })
    }
}

/// A Fly machine of the same organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    /// Its app.
    pub app: String,
    /// Its region.
    pub region: String,
    /// Its id.
    pub machine: String,
}

/// A part of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The name, by the system's resolver.
    NameLookup,
    /// The TCP handshake.
    Connect,
    /// The TLS handshake.
    TlsHandshake,
    /// From the request to the first byte of the answer.
    FirstByte,
}

impl Stage {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NameLookup => "name",
            Self::Connect => "connect",
            Self::TlsHandshake => "TLS",
            Self::FirstByte => "first byte",
        }
    }
}

/// Why an attempt has no round trip.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// Nothing came back in time.
    Timeout,
    /// The connection was there, and the answer of this stage did not come in time.
    Silent(Stage),
    /// The target refused: a reset, or a port unreachable of its own. The way there and back is open.
    Refused,
    /// An ICMP error.
    Unreachable {
        /// Who sent it, where that could be told.
        from: Option<IpAddr>,
        /// What it says (IANA's words).
        says: String,
    },
    /// The connection was cut after it was there.
    Cut(String),
    /// DNS: an answer that is no use (`SERVFAIL`, `REFUSED`, …).
    Dns(String),
    /// This host did not send: no route, a firewall rule, no free port.
    Local(String),
}

impl Failure {
    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::Timeout => "no answer".to_owned(),
            Self::Refused => "refused".to_owned(),
            Self::Unreachable { says, .. } | Self::Cut(says) | Self::Local(says) => says.clone(),
            Self::Dns(code) => code.clone(),
        }
    }
}

/// What a search for the largest packet found. Sizes are of whole IP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathMtu {
    /// The MTU of the interface (and route) that packets leave by.
    pub interface: u32,
    /// The largest packet that was answered.
    pub passed: u32,
    /// The smallest that was not.
    pub lost: Option<u32>,
    /// The smallest MTU that an ICMP "too big" named.
    pub told: Option<u32>,
}

/// One distance on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HopSample {
    /// Routers away.
    pub ttl: u8,
    /// Who answered; several where packets take several ways.
    pub addresses: Vec<IpAddr>,
    /// Probes sent.
    pub sent: u32,
    /// Probes answered. Routers limit how many they answer: a loss here that later hops do not show is none.
    pub answered: u32,
    /// The mean round trip.
    pub rtt: Option<Span>,
}

//! What a probe proved, in version 1.

use schemars::JsonSchema;
use serde::Serialize;

use crate::observation::probe as seen;
use crate::report::probed::ProbeRow;

/// A peer that was probed, over one transport.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Probe {
    /// Where it was read: a file and line, an option, a device.
    pub origin: String,
    /// The device whose peer it is, or that the file is for.
    pub device: Option<String>,
    /// Its public key in base64.
    pub public_key: String,
    /// The prober's public key in base64.
    pub local_public_key: String,
    /// Its endpoint as written.
    pub endpoint: String,
    /// Where messages went: address and port.
    pub address: Option<String>,
    /// `udp` or `websocket`.
    pub transport: String,
    /// Why it was not probed; null where it was.
    pub skipped: Option<Refusal>,
    /// Initiations by what came of them.
    pub attempts: Attempts,
    /// The share of initiations that got no answer of any kind, 0 to 1; null where none was to be expected.
    pub loss: Option<f64>,
    /// The first contact in seconds: the peer may have had to be installed first.
    pub cold_seconds: Option<f64>,
    /// Round trips after the first contact.
    pub rtt: Option<RoundTrips>,
    /// What the answers prove, a sentence each.
    pub proved: Vec<String>,
    /// How far the WebSocket came; null over UDP.
    pub websocket: Option<Websocket>,
    /// Questions put through the tunnel.
    pub inner: Vec<Inner>,
    /// The search for the largest packet through the tunnel; null where it was not asked for.
    pub mtu: Option<MtuSearch>,
    /// The search for how long a NAT keeps an idle mapping; null where it was not asked for.
    pub mapping_lifetime: Option<LifetimeSearch>,
}

/// Why a peer was not probed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Refusal {
    /// In a few words.
    pub reason: String,
    /// What to do instead.
    pub way_round: Option<String>,
    /// Whether a probe would have done harm.
    pub refused: bool,
}

/// Initiations by what came of them.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Attempts {
    /// Those that left.
    pub sent: u64,
    /// Answered by a response that authenticates.
    pub answered: u64,
    /// Followed by an initiation of the peer, which took our answer to it.
    pub called_back: u64,
    /// Followed by an initiation of the peer, which took no answer of ours.
    pub called_back_unconfirmed: u64,
    /// Answered by a response that proves another preshared key.
    pub preshared_key_differs: u64,
    /// Answered by a cookie.
    pub cookies: u64,
    /// Answered by an ICMP error.
    pub icmp_errors: u64,
    /// Refused by this host's own system.
    pub not_sent: u64,
    /// Not answered in time.
    pub silent: u64,
}

/// Round trips, in seconds.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RoundTrips {
    /// The shortest.
    pub min_seconds: f64,
    /// The mean.
    pub mean_seconds: f64,
    /// The longest.
    pub max_seconds: f64,
}

/// How far a WebSocket came.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Websocket {
    /// Whether TCP connected.
    pub tcp: bool,
    /// Whether TLS was agreed on.
    pub tls: bool,
    /// Whether the server upgraded to a WebSocket.
    pub upgraded: bool,
    /// How long that took.
    pub took_seconds: Option<f64>,
    /// What went wrong.
    pub error: Option<String>,
    /// The certificates that the server showed, its own first; not verified, as flyctl does not.
    pub certificates: Vec<Certificate>,
    /// The first bytes where what answered is not TLS.
    pub not_tls: Option<String>,
}

/// A certificate.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Certificate {
    /// Whom it names.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// SHA-256 of it, in hexadecimal.
    pub sha256: String,
}

/// A question through the tunnel.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Inner {
    /// `ping`, `dns` or `tcp`.
    pub kind: String,
    /// Whom it was put to.
    pub target: String,
    /// Sent.
    pub sent: u32,
    /// Answered.
    pub answered: u32,
    /// The round trips, in seconds.
    pub rtt_seconds: Vec<f64>,
    /// What was answered.
    pub answer: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The search for the largest packet.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MtuSearch {
    /// The largest inner packet that got through and back, in bytes.
    pub passes: Option<u32>,
    /// The smallest that did not.
    pub fails: Option<u32>,
    /// The largest that was tried.
    pub ceiling: u32,
    /// The path MTU that a router or this host named, in bytes; null where nobody did.
    pub told_path_mtu: Option<u32>,
    /// Who named it; null for this host.
    pub told_by: Option<String>,
    /// The MTU to set on the tunnel; null where the present one does.
    pub mtu_to_set: Option<u32>,
}

/// The search for the lifetime of an idle mapping.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LifetimeSearch {
    /// The longest silence that the mapping outlived, in seconds.
    pub alive_after_seconds: Option<f64>,
    /// The shortest that it did not.
    pub dead_after_seconds: Option<f64>,
    /// The persistent keepalive to set, in seconds; null where none is needed as far as was searched.
    pub keepalive_to_set: Option<u16>,
    /// Why there is no result.
    pub error: Option<String>,
}

pub(super) fn probe(p: &ProbeRow) -> Probe {
    Probe {
        origin: p.origin.clone(),
        device: p.device.clone(),
        public_key: p.public_key.to_string(),
        local_public_key: p.local_public_key.to_string(),
        endpoint: p.endpoint.clone(),
        address: p.address.map(|a| a.to_string()),
        transport: p.transport.name().to_owned(),
        skipped: p.skipped.as_ref().map(|s| Refusal {
            reason: s.reason.clone(),
            way_round: s.way_round.clone(),
            refused: s.refused,
        }),
        attempts: Attempts {
            sent: p.tally.sent,
            answered: p.tally.answered,
            called_back: p.tally.called_back,
            called_back_unconfirmed: p.tally.unconfirmed,
            preshared_key_differs: p.tally.preshared_key_differs,
            cookies: p.tally.cookies,
            icmp_errors: p.tally.icmp,
            not_sent: p.tally.not_sent,
            silent: p.tally.silent,
        },
        loss: p.loss,
        cold_seconds: p.cold.map(|s| s.as_secs_f64()),
        rtt: p.warm.map(|(min, mean, max)| RoundTrips {
            min_seconds: min.as_secs_f64(),
            mean_seconds: mean.as_secs_f64(),
            max_seconds: max.as_secs_f64(),
        }),
        proved: p.proved.clone(),
        websocket: p.websocket.as_ref().map(websocket),
        inner: p.inner.iter().map(inner).collect(),
        mtu: p.mtu.as_ref().map(|m| MtuSearch {
            passes: m.passes,
            fails: m.fails,
            ceiling: m.ceiling,
            told_path_mtu: m.told.as_ref().map(|t| t.mtu),
            told_by: m.told.as_ref().and_then(|t| t.from).map(|ip| ip.to_string()),
            mtu_to_set: p.mtu_to_set,
        }),
        mapping_lifetime: p.lifetime.as_ref().map(|l| LifetimeSearch {
            alive_after_seconds: l.alive_after_seconds,
            dead_after_seconds: l.dead_after_seconds,
            keepalive_to_set: p.keepalive_to_set,
            error: l.error.clone(),
        }),
    }
}

fn websocket(w: &seen::Websocket) -> Websocket {
    Websocket {
        tcp: w.tcp,
        tls: w.tls,
        upgraded: w.upgraded,
        took_seconds: w.took_seconds,
        error: w.error.clone(),
        certificates: w
            .certificates
            .iter()
            .map(|c| Certificate {
                subject: c.subject.clone(),
                issuer: c.issuer.clone(),
                sha256: c.sha256.clone(),
            })
            .collect(),
        not_tls: w.not_tls.clone(),
    }
}

fn inner(i: &seen::Inner) -> Inner {
    Inner {
        kind: i.kind.name().to_owned(),
        target: i.target.clone(),
        sent: i.sent,
        answered: i.answered,
        rtt_seconds: i.rtts.clone(),
        answer: i.answer.clone(),
        error: i.error.clone(),
    }
}

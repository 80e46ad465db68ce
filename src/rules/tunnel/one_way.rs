//! `wg-one-way`: handshakes complete, and data flows in one direction only.

use super::view::{View, views};
use super::words::time;
use crate::config::Thresholds;
use crate::finding::{Confidence, Evidence, Finding, Severity};
use crate::observation::device::{Implementation, KernelReason};
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::tunnels::due::AFTER_HANDSHAKE;

mod causes;

const CODE: &str = "wg-one-way";

/// Handshakes this far apart are the protocol's answer to silence: 15 s after unanswered data, plus jitter and one
/// retry. A normal renewal takes 120 s, a crossing or a restart less.
const RENEWED_FOR_SILENCE: std::ops::RangeInclusive<u64> = 14..=25;
/// Packets with a foreign source address that are more than a stray one.
const REFUSED_AT_LEAST: u64 = 3;

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "critical, warning where the peer is heard but sends no data",
    holds_when: "handshakes complete and data flows in one direction only, beyond keepalive timing",
    meaning: "The two sides agree on keys, so packets pass both ways and the keys are right. Still, what this host sends \
              into the tunnel brings nothing back. Programs see connections that time out while `wg` shows a fresh \
              handshake.\n\n\
              Every healthy WireGuard peer answers data within ten seconds: with data, or with an empty keepalive if \
              it has nothing to say. So silence is never just a quiet peer.",
    detection: "By the device's byte counters, which in the kernel and wireguard-go hold handshakes (148 and 92 bytes) \
                and keepalives (32) too. `certain`: data was sent for more than 15 s, nothing beyond handshakes was \
                received, and a handshake completed in between. `likely`: the same so far, and the handshake was \
                renewed after 15 to 20 s instead of 120 s, which is the protocol's own reaction to silence; or the \
                kernel counts packets that it refused on arrival.\n\n\
                Where keepalives do come back but hardly any data ever did, our data arrives and the far side has \
                nothing to say to it or drops it: `possible`, for it is normal where only one side ever talks \
                (syslog, statsd). boringtun counts neither handshakes nor keepalives, so there it is `possible` at \
                most.",
    fix: "Compare AllowedIPs: each side must list the other's inner addresses, or it drops their packets after \
          decrypting them. Then the peer's own firewall and route back for the inner addresses. If not even \
          keepalives return, something on the way lets handshakes pass and drops data: try another port, and see \
          wg-mtu-too-large.",
    needs: &[super::DEVICES],
    explained_by: &[
        "wg-endpoint-unreachable",
        "wg-local-drop",
        "wg-handshake-timeout",
        "wg-mtu-blackhole",
    ],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    views(input)
        .filter_map(|view| {
            let (kind, confidence) = kind(&view, input.thresholds)?;
            Some(finding(&view, kind, confidence))
        })
        .collect()
}

/// How one-way it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing but handshakes comes back.
    Deaf,
    /// Packets come back and this device refuses them: their inner source is not in AllowedIPs.
    Refused(u64),
    /// Keepalives come back, data does not.
    KeepalivesOnly,
}

fn kind(view: &View<'_>, thresholds: &Thresholds) -> Option<(Kind, Confidence)> {
    if !view.live() || view.silence.failed > 0 || view.silence.pending.is_some() {
        return None;
    }
    let traffic = &view.peer.traffic;
    let at = view.peer.newest_at;
    // Who only listens refuses what it hears all the same: nothing of it was delivered.
    if let Some(refused) = refused(view).filter(|n| *n >= REFUSED_AT_LEAST && traffic.data_heard_at.is_none())
    {
        return Some((Kind::Refused(refused), Confidence::Likely));
    }
    if view.implementation().counts_handshake_bytes() != Some(false)
        && let Some(since) = traffic.unheard_since
    {
        let unheard = at - since;
        if let Some(refused) = refused(view).filter(|_| unheard >= AFTER_HANDSHAKE) {
            return Some((Kind::Refused(refused), Confidence::Likely));
        }
        let newest = *view.peer.handshakes.back()?;
        // Data after the handshake had its time to be answered.
        let given_time = at - newest >= AFTER_HANDSHAKE && traffic.data_sent_at.is_some_and(|t| t > newest);
        if given_time && newest > since && unheard >= thresholds.one_way_after {
            return Some((Kind::Deaf, Confidence::Certain));
        }
        let renewed = view
            .peer
            .handshake_gap()
            .is_some_and(|gap| RENEWED_FOR_SILENCE.contains(&gap.as_secs()));
        if given_time && renewed && traffic.heard_at.is_none() && unheard >= AFTER_HANDSHAKE {
            return Some((Kind::Deaf, Confidence::Likely));
        }
    }
    let since = traffic.undelivered_since?;
    let heard = traffic.heard_at.is_some() || view.implementation() == Implementation::Boringtun;
    (heard
        && view.peer.hardly_answered()
        && at - since >= thresholds.one_way_after
        && traffic.undelivered_bytes >= thresholds.one_way_min_bytes)
        .then_some((Kind::KeepalivesOnly, Confidence::Possible))
}

/// Packets that the kernel's device refused while watched because their inner source is in no AllowedIPs of their
/// peer (`rx_frame_errors`, wg_packet_consume_data_done in drivers/net/wireguard/receive.c). Only where one peer
/// alone is alive can they be laid at its door.
fn refused(view: &View<'_>) -> Option<u64> {
    if view.implementation() != Implementation::Kernel {
        return None;
    }
    let live = |peer: &crate::track::tunnels::PeerTrack| peer.live(view.world.now);
    if view.device.present_peers().filter(|(_, peer)| live(peer)).count() != 1 {
        return None;
    }
    let link = view.link()?;
    let first = view.world.routes.first_stats(link.index)?;
    link.stats
        .rx_frame_errors
        .checked_sub(first.rx_frame_errors)
        .filter(|n| *n > 0)
}

fn finding(view: &View<'_>, kind: Kind, confidence: Confidence) -> Finding {
    let name = view.name();
    let whom = view
        .endpoint()
        .map_or_else(|| view.key.short(), |endpoint| endpoint.to_string());
    let traffic = &view.peer.traffic;
    let (rx, tx) = view.peer.delta();
    let severity = match kind {
        Kind::KeepalivesOnly => Severity::Warning,
        _ => Severity::Critical,
    };
    let mut finding = view.finding(CODE, severity, confidence);
    let since = match kind {
        Kind::KeepalivesOnly => traffic.undelivered_since,
        _ => traffic.unheard_since,
    };
    let silent = since.map_or(Span::ZERO, |since| view.peer.newest_at - since);
    finding.first_seen = since.unwrap_or(view.world.started);
    finding.title = match kind {
        Kind::Deaf => format!("{name} sends to {whom} and no data comes back"),
        Kind::Refused(_) => format!("{name} refuses what {whom} sends"),
        Kind::KeepalivesOnly => format!("{name} gets only keepalives back from {whom}"),
    };
    let gap = view.peer.handshake_gap();
    finding.summary = match kind {
        Kind::Deaf => format!(
            "Handshakes complete, but of {} bytes sent in {} nothing was answered: only handshake messages came back. \
             A healthy peer answers data within 10 s, if only with a keepalive.{}",
            traffic.unheard_bytes,
            time(silent),
            match gap.filter(|gap| RENEWED_FOR_SILENCE.contains(&gap.as_secs())) {
                Some(gap) => format!(
                    " WireGuard itself reacts to the silence: it renewed the handshake after {} instead of 2 min.",
                    time(gap)
                ),
                None => String::new(),
            }
        ),
        Kind::Refused(n) => format!(
            "{n} packets arrived and were dropped after decryption, for their inner source address is not in this \
             peer's AllowedIPs.{}",
            match traffic.unheard_bytes {
                0 => String::new(),
                sent => format!(" Of {sent} bytes sent in {} nothing was answered.", time(silent)),
            }
        ),
        Kind::KeepalivesOnly if view.implementation() == Implementation::Boringtun => format!(
            "{} bytes of data went out in {} and none came back, and hardly any ever did ({} received, {} sent in \
             all). boringtun does not count keepalives, so whether the peer hears us cannot be told. Where only this \
             side ever talks (syslog, statsd) this is normal.",
            traffic.undelivered_bytes,
            time(silent),
            view.peer.newest.rx_bytes,
            view.peer.newest.tx_bytes
        ),
        Kind::KeepalivesOnly => format!(
            "{} bytes went out in {} and only keepalives came back; hardly any data ever did ({} received, {} sent in \
             all). So the peer gets our packets, and what they carry is not answered. Where only this side ever \
             talks (syslog, statsd) this is normal.",
            traffic.undelivered_bytes,
            time(silent),
            view.peer.newest.rx_bytes,
            view.peer.newest.tx_bytes
        ),
    };
    finding.evidence = Evidence::new()
        .with("silent_seconds", silent.as_secs_f64())
        .with(
            "unanswered_bytes",
            if kind == Kind::KeepalivesOnly {
                traffic.undelivered_bytes
            } else {
                traffic.unheard_bytes
            },
        )
        .with("rx_bytes_while_watched", rx)
        .with("tx_bytes_while_watched", tx)
        .with("rx_bytes", view.peer.newest.rx_bytes)
        .with("tx_bytes", view.peer.newest.tx_bytes)
        .maybe(
            "last_handshake_age_seconds",
            view.handshake_age().map(|a| a.as_secs_f64()),
        )
        .maybe("handshake_gap_seconds", gap.map(|g| g.as_secs_f64()))
        .maybe(
            "rx_frame_errors",
            match kind {
                Kind::Refused(n) => Some(n),
                _ => None,
            },
        )
        .maybe(
            "kernel_says_unallowed_source",
            view.kernel_says(KernelReason::UnallowedSource),
        )
        .with("implementation", view.implementation().name());
    finding.impact = match kind {
        Kind::KeepalivesOnly => {
            "If answers are expected, connections through the tunnel time out.".to_owned()
        }
        _ => "Connections through the tunnel time out although the tunnel looks up.".to_owned(),
    };
    finding.candidates = causes::candidates(view, kind);
    finding.fixes = causes::fixes(view, kind);
    finding
}

#[cfg(test)]
mod tests;

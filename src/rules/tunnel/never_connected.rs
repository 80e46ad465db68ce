//! `wg-never-connected`: a peer that was configured, never reached, and is not being called.

use std::collections::BTreeMap;

use super::view::{View, views};
use super::words::count;
use crate::finding::{Candidate, Confidence, Evidence, Finding, Severity, Subject};
use crate::observation::device::Implementation;
use crate::rules::{Area, Input, Rule};
use crate::track::tunnels::peer::RETRY_SEEN;

mod absent;
mod fixes;

const CODE: &str = "wg-never-connected";

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "a configured peer with an endpoint has never completed a handshake and none is being tried",
    meaning: "WireGuard is silent: it does not connect when it is configured, it waits until a packet wants to go \
              through the tunnel, and only then calls the peer. So a peer that has never been reached may be quite \
              all right and merely unused, or nothing on this host sends its traffic into the tunnel.\n\n\
              The same is found where the device is down or does not exist, although a configuration names it, and \
              where attempts were made once, went unanswered, and WireGuard gave up after about 20 of them (100 s).",
    detection: "The device lists the peer with an endpoint, without any handshake, with nothing received, and neither \
                the wire nor the byte counter shows an attempt while watched. boringtun does not count handshakes: \
                where the wire cannot be watched either, it is only `possible` that none is tried.",
    fix: "Send something to one of the peer's AllowedIPs (`ping`), and look again: either a handshake follows, or \
          wg-handshake-timeout says what is wrong.\n\n\
          If the tunnel should be up without traffic, or the peer must be able to reach this host through a NAT, set \
          `PersistentKeepalive = 25`.",
    needs: &[super::DEVICES],
    explained_by: &[
        "wg-endpoint-loop",
        "wg-no-route",
        "wg-endpoint-unreachable",
        "wg-local-drop",
    ],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A mesh has many peers that nobody needs just now: they are one finding, or they would bury the others.
    let mut unused: BTreeMap<&str, Vec<View<'_>>> = BTreeMap::new();
    for view in views(input) {
        match silent(&view) {
            Some(Why::Untried) => unused.entry(view.name()).or_default().push(view),
            Some(why) => findings.push(finding(&view, why)),
            None => {}
        }
    }
    for views in unused.values() {
        match views.as_slice() {
            [first, ..] if views.len() > ONE_BY_ONE => findings.push(many(first, views)),
            few => findings.extend(few.iter().map(|view| finding(view, Why::Untried))),
        }
    }
    findings.extend(absent::check(input));
    findings
}

/// Unused peers of a device that are reported each on its own.
const ONE_BY_ONE: usize = 5;
/// Keys named in the evidence of a finding about many.
const KEYS_NAMED: usize = 50;

/// Why a peer is silent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The device is down.
    Down,
    /// The device has no private key.
    NoKey,
    /// A persistent keepalive makes it call, and nothing leaves.
    Stuck,
    /// It tried and gave up.
    GaveUp(u64),
    /// Nothing was ever tried.
    Untried,
    /// Neither the wire nor the counters would show an attempt.
    Unseen,
}

fn silent(view: &View<'_>) -> Option<Why> {
    let peer = &view.peer.newest;
    view.endpoint()?;
    // Whatever was received of an unknown handshake: the peer calls us, and that is another matter.
    if peer.last_handshake.is_some() || peer.rx_bytes > 0 || !view.wire.called.is_empty() {
        return None;
    }
    if view.link().is_some_and(|link| !link.admin_up) {
        return Some(Why::Down);
    }
    let silence = &view.silence;
    if silence.on_wire > 0 || silence.trying {
        return None;
    }
    // Only the kernel's source tells for sure that there is none (WGDEVICE_A_PUBLIC_KEY is absent then).
    if view.implementation() == Implementation::Kernel && view.info().public_key.is_none() {
        return Some(Why::NoKey);
    }
    if let Some(counted) = silence.counted {
        let settled = view.peer.newest_at - counted.newest_before >= RETRY_SEEN;
        return settled.then_some(Why::GaveUp(counted.sent));
    }
    if view.counts() {
        return match (peer.tx_bytes, peer.keepalive) {
            (0, None) => Some(Why::Untried),
            (0, Some(_)) => (view.peer.watched() >= RETRY_SEEN).then_some(Why::Stuck),
            _ => None,
        };
    }
    let watched_long = view.wire_watched() && view.world.watched() >= RETRY_SEEN;
    if watched_long || (view.wire_watched() && peer.keepalive.is_none()) {
        return Some(Why::Untried);
    }
    Some(Why::Unseen)
}

fn finding(view: &View<'_>, why: Why) -> Finding {
    let name = view.name();
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let confidence = match why {
        Why::Unseen => Confidence::Possible,
        _ => Confidence::Certain,
    };
    let mut finding = view.finding(CODE, Severity::Warning, confidence);
    finding.title = match why {
        Why::Down => format!("{name} is down, so {endpoint} was never reached"),
        Why::NoKey => format!("{name} has no private key, so {endpoint} was never reached"),
        Why::Stuck => format!("{name} should call {endpoint}, and nothing leaves"),
        Why::GaveUp(_) => format!("{name} gave up calling {endpoint}, which never answered"),
        _ => format!("{name} has never connected to {endpoint}"),
    };
    finding.summary = match why {
        Why::Down => {
            format!("The peer is configured, but the interface {name} is set down: WireGuard does nothing.")
        }
        Why::NoKey => format!(
            "The peer is configured, but {name} itself has no private key: without one it can neither call nor answer."
        ),
        Why::Stuck => format!(
            "A persistent keepalive of {} s is set, so WireGuard calls the peer again and again; yet not a single byte \
             was counted as sent.",
            view.peer.newest.keepalive.unwrap_or_default()
        ),
        Why::GaveUp(sent) => format!(
            "{} left since the peer was configured ({} bytes sent, none received), none while watched. Nothing wants \
             through the tunnel now, so nothing is tried.",
            count(sent, "handshake attempt"),
            view.peer.newest.tx_bytes
        ),
        Why::Untried if discards(view) > 0 && view.implementation() != Implementation::Kernel => format!(
            "No handshake was ever made and none left. Either nothing wants to go through the tunnel, or this host's own \
             firewall drops the attempts: it discarded {} while watched.",
            count(discards(view), "outgoing packet")
        ),
        Why::Untried => {
            "No handshake was ever made and none is being tried. WireGuard calls a peer only when a packet \
                         wants to go through the tunnel, and none did."
                .to_owned()
        }
        Why::Unseen => format!(
            "No handshake was ever made. Whether one is being tried cannot be seen: {} does not count handshakes, and \
             the wire is not watched.",
            view.implementation().name()
        ),
    };
    let counters = &view.world.counters;
    finding.evidence = Evidence::new()
        .with("rx_bytes", view.peer.newest.rx_bytes)
        .with("tx_bytes", view.peer.newest.tx_bytes)
        .maybe("attempts_by_counters", view.silence.counted.map(|c| c.sent))
        .maybe(
            "attempts_on_wire",
            view.wire_watched().then_some(view.silence.on_wire),
        )
        .maybe("persistent_keepalive_seconds", view.peer.newest.keepalive)
        .maybe("device_up", view.link().map(|link| link.admin_up))
        .maybe("ip_out_discards", counters.delta("Ip.OutDiscards"))
        .with("implementation", view.implementation().name());
    finding.impact = "Nothing has ever passed through the tunnel to this peer.".to_owned();
    finding.candidates = candidates(view, why);
    finding.fixes = fixes::fixes(view, why);
    finding
}

/// Outgoing packets that this host discarded while watched, whosesoever.
fn discards(view: &View<'_>) -> u64 {
    let name = match view.endpoint() {
        Some(endpoint) if endpoint.is_ipv6() => "Ip6.OutDiscards",
        _ => "Ip.OutDiscards",
    };
    view.world.counters.delta(name).unwrap_or(0)
}

/// Many peers of one device that nothing was ever sent to.
fn many(first: &View<'_>, views: &[View<'_>]) -> Finding {
    let name = first.name();
    let mut finding = finding(first, Why::Untried);
    finding.title = format!("{name} has never connected to {} of its peers", views.len());
    finding.subject = Subject::Device {
        name: name.to_owned(),
    };
    finding.summary = format!(
        "No handshake was ever made with {} of {} peers and none is being tried. WireGuard calls a peer only when a \
         packet wants to go through the tunnel, and none did; in a mesh this may be as it should.",
        views.len(),
        first.device.present_peers().count()
    );
    let keys: Vec<String> = views.iter().take(KEYS_NAMED).map(|v| v.key.to_string()).collect();
    finding.evidence = Evidence::new()
        .with("peers", views.len() as u64)
        .with("peers_in_all", first.device.present_peers().count() as u64)
        .with("public_keys", keys)
        .with("implementation", first.implementation().name());
    finding.impact = "Nothing has ever passed through the tunnel to these peers.".to_owned();
    finding
}

fn candidates(view: &View<'_>, why: Why) -> Vec<Candidate> {
    let mut list = Vec::new();
    // wireguard-go counts only what the socket took; a firewall's EPERM leaves the counter at zero.
    let discards = discards(view) > 0;
    if (why == Why::Stuck || why == Why::Untried && discards)
        && view.implementation() != Implementation::Kernel
    {
        list.push(Candidate {
            cause: "This host's firewall drops what leaves (IpOutDiscards moves), so attempts never get out"
                .to_owned(),
            code: Some("wg-local-drop"),
            settle: view.here("nft list ruleset") + " (an output rule that drops UDP?)",
        });
    }
    list
}

#[cfg(test)]
mod tests;

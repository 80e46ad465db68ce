//! `wg-never-connected`: a peer that was configured, never reached, and is not being called.

use super::view::{View, views};
use super::words::{count, quote};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::device::{ConfiguredPeer, Implementation};
use crate::observation::{Source, SourceState};
use crate::rules::{Area, Input, Rule};
use crate::track::tunnels::peer::RETRY_SEEN;

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
    explained_by: &["wg-endpoint-loop", "wg-no-route", "wg-endpoint-unreachable"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = views(input)
        .filter_map(|view| silent(&view).map(|why| finding(&view, why)))
        .collect();
    findings.extend(without_device(input));
    findings
}

/// Why a peer is silent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The device is down.
    Down,
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
    if let Some(counted) = silence.counted {
        let settled = view.peer.newest_at - counted.newest_before >= RETRY_SEEN;
        return settled.then_some(Why::GaveUp(counted.sent));
    }
    if view.counts() {
        return (peer.tx_bytes == 0).then_some(Why::Untried);
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
        Why::GaveUp(_) => format!("{name} gave up calling {endpoint}, which never answered"),
        _ => format!("{name} has never connected to {endpoint}"),
    };
    finding.summary = match why {
        Why::Down => {
            format!("The peer is configured, but the interface {name} is set down: WireGuard does nothing.")
        }
        Why::GaveUp(sent) => format!(
            "{} left since the peer was configured ({} bytes sent, none received), none while watched. Nothing wants \
             through the tunnel now, so nothing is tried.",
            count(sent, "handshake attempt"),
            view.peer.newest.tx_bytes
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
    finding.fixes = fixes(view, why);
    finding
}

fn candidates(view: &View<'_>, why: Why) -> Vec<Candidate> {
    let mut list = Vec::new();
    // wireguard-go counts only what the socket took; a firewall's EPERM leaves the counter at zero.
    let counters = &view.world.counters;
    let discards = counters.delta("Ip.OutDiscards").is_some_and(|n| n > 0);
    if why == Why::Untried && discards && view.implementation() != Implementation::Kernel {
        list.push(Candidate {
            cause: "This host's firewall drops what leaves (IpOutDiscards moves), so attempts never get out"
                .to_owned(),
            code: Some("wg-local-drop"),
            settle: view.here("nft list ruleset") + " (an output rule that drops UDP?)",
        });
    }
    list
}

fn fixes(view: &View<'_>, why: Why) -> Vec<Fix> {
    let name = quote(view.name());
    let expect = || Evidence::new().with("last_handshake_age_seconds", "under 180");
    if why == Why::Down {
        return vec![Fix {
            title: format!("Bring {} up", view.name()),
            why: "A WireGuard interface that is down neither calls nor answers.".to_owned(),
            command: Some(view.here(&format!("ip link set up dev {name}"))),
            expect: Evidence::new().with("device_up", true),
            ..Fix::default()
        }];
    }
    let target = view
        .peer
        .newest
        .allowed_ips
        .iter()
        .find(|prefix| prefix.addr().is_ipv4() && prefix.prefix() == 32 || prefix.prefix() == 128)
        .map(|prefix| prefix.addr());
    let ping = Fix {
        title: "Send something through the tunnel".to_owned(),
        why: "The first packet makes WireGuard call the peer; then either a handshake follows or the next look says \
              what fails."
            .to_owned(),
        command: target.map(|address| view.here(&format!("ping -c 3 {address}"))),
        expect: expect(),
        ..Fix::default()
    };
    let keepalive = Fix {
        title: "Keep the tunnel up without traffic".to_owned(),
        why: "A keepalive each 25 s makes the handshake now and keeps the mapping of a NAT open; it costs a small \
              packet each time."
            .to_owned(),
        command: view.wg_set("persistent-keepalive 25"),
        snippet: Some("[Peer]\nPersistentKeepalive = 25".to_owned()),
        expect: expect(),
    };
    match view.peer.newest.keepalive {
        Some(_) => vec![ping],
        None => vec![ping, keepalive],
    }
}

/// Configured peers whose device does not exist here.
fn without_device(input: &Input<'_>) -> Vec<Finding> {
    let sources = &input.world.sources;
    // A source that sees a part may just not see this device.
    let all_seen = [Source::WireguardNetlink, Source::WireguardUapi]
        .iter()
        .all(|s| sources.get(*s).is_none_or(|s| s.state == SourceState::Ok));
    if !all_seen {
        return Vec::new();
    }
    let tunnels = &input.world.tunnels;
    tunnels
        .configured()
        .iter()
        .filter(|peer| peer.endpoint.is_some())
        .filter_map(|peer| peer.device.as_deref().map(|device| (peer, device)))
        .filter(|(_, device)| {
            tunnels.device(device).is_none() && input.world.routes.link_named(device).is_none()
        })
        // The same tunnel under another interface's name is there.
        .filter(|(peer, _)| !tunnels.devices().any(|d| d.peers.contains_key(&peer.public_key)))
        .map(|(peer, device)| absent(input, peer, device))
        .collect()
}

fn absent(input: &Input<'_>, peer: &ConfiguredPeer, device: &str) -> Finding {
    let world = input.world;
    let endpoint = peer.endpoint.as_deref().unwrap_or("its endpoint");
    Finding {
        code: CODE,
        severity: Severity::Warning,
        confidence: Confidence::Certain,
        title: format!("{device} does not exist, so {endpoint} was never reached"),
        subject: Subject::Peer {
            device: Some(device.to_owned()),
            public_key: Some(peer.public_key),
            endpoint: peer.resolved.first().copied(),
            local: None,
        },
        summary: format!(
            "{} names this peer, but there is no interface {device} here: the configuration has not been applied.",
            peer.origin
        ),
        evidence: Evidence::new()
            .with("configured_in", peer.origin.clone())
            .with("device_exists", false),
        impact: "Nothing can pass to this peer.".to_owned(),
        candidates: Vec::new(),
        fixes: vec![Fix {
            title: format!("Apply the configuration of {device}"),
            why: "wg-quick makes the interface, its addresses and its routes from the file.".to_owned(),
            command: Some(super::words::here(
                world.host.as_ref(),
                &format!("wg-quick up {}", quote(device)),
            )),
            expect: Evidence::new().with("device_exists", true),
            ..Fix::default()
        }],
        first_seen: world.started,
        last_seen: world.now,
        count: 1,
    }
}

#[cfg(test)]
mod tests;

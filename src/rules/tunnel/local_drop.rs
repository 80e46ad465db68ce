//! `wg-local-drop`: this host itself drops the handshake, on its way out or in.

use super::response_rejected;
use super::view::{View, views};
use super::words::{count, here, quote};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::device::Implementation;
use crate::observation::host::RouteWay;
use crate::rules::captured::view::{finding, initiators};
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::tunnels::peer::RETRY_SEEN;
use crate::track::tunnels::{Delivery, DeviceTrack};

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-local-drop",
    area: Area::Wireguard,
    severity: "critical",
    holds_when: "this host itself drops handshake messages: initiations that are wanted leave by no interface, or messages \
                 that came in at an interface do not get to the device",
    meaning: "The tunnel's own packets are UDP packets of this host like any other, and its firewall judges them too. A rule \
              in the output chain keeps them from leaving; a rule in the input chain, or reverse path filtering (which \
              drops what comes in by another interface than answers would leave by), keeps them from the device after \
              `tcpdump` has shown them. Nothing on the network is at fault.",
    detection: "Outward: attempts are wanted (the device counts them, data is queued for the tunnel, or a persistent \
                keepalive is due), there is a route, and for all the time watched none passed any interface. wireguard-go \
                is told of the refusal (EPERM), so its counter stands still while `IpOutDiscards` moves; the kernel counts \
                148 bytes for each all the same.\n\n\
                Inward: initiations or responses came in at an interface for the device's port, and the kernel's UDP counters \
                (datagrams delivered, in error, without a socket; of all ports) moved by less than their number, so they did not \
                reach a socket. `IPReversePathFilter` tells one reason from the other. On a host with much other UDP the \
                counters cannot show this, and it stays a candidate of other findings.",
    fix: "Allow UDP out to the peer's port, and in to the device's: `nft list ruleset` shows every rule, and counters in it \
          which one it is. For reverse path filtering set `net.ipv4.conf.all.rp_filter = 2` (loose), or \
          `net.ipv4.conf.all.src_valid_mark = 1` where wg-quick routes by mark.",
    needs: &[super::DEVICES, &[Source::Capture], &[Source::Counters]],
    explained_by: &["wg-endpoint-loop", "wg-no-route"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    let mut findings = Vec::new();
    for view in views(input) {
        let dropped = outward(&view)
            .map(|how| out_report(&view, &how))
            .or_else(|| Some(in_report(&view, &inward(&view, needed)?)));
        findings.extend(dropped);
    }
    let devices = input.world.tunnels.devices().filter(|d| d.vanished_at.is_none());
    findings.extend(devices.filter_map(|device| called(input, device, needed)));
    findings
}

/// How attempts that are wanted fail to leave.
struct Outward {
    /// What shows that they are wanted.
    wanted: &'static str,
    /// Attempts that the device counted as sent.
    counted: u64,
    /// Responses rather than initiations.
    responses: bool,
    discards: u64,
}

/// Outgoing packets that this host discarded while watched, whosesoever.
fn discards(view: &View<'_>) -> u64 {
    let name = match view.endpoint() {
        Some(endpoint) if endpoint.is_ipv6() => "Ip6.OutDiscards",
        _ => "Ip.OutDiscards",
    };
    view.world.counters.delta(name).unwrap_or(0)
}

fn outward(view: &View<'_>) -> Option<Outward> {
    let leads_out = match view.way()? {
        RouteWay::Via { out, .. } => view.info().if_index != Some(*out),
        RouteWay::None { .. } => false,
    };
    let up = view.link().is_none_or(|link| link.admin_up);
    let asleep = !view.info().problems.is_empty();
    if !leads_out || !up || asleep || !view.wire_watched() {
        return None;
    }
    let discards = discards(view);
    let unanswered_calls = view.wire.called.iter().filter(|call| !call.answered).count() as u64;
    // It accepted the peer's initiations, and its answers do not leave.
    if view.peer.traffic.called >= 2 && unanswered_calls >= 2 && view.wire.called.iter().all(|c| !c.answered)
    {
        return Some(Outward {
            wanted: "it accepted initiations of the peer",
            counted: 0,
            responses: true,
            discards,
        });
    }
    if !view.wire.attempts.is_empty() {
        return None;
    }
    let counted = view.peer.traffic.initiations;
    if view.implementation() == Implementation::Kernel {
        // One that left before the tap was open, or after its last look, proves nothing.
        let (from, to) = view.world.sources.watched(Source::Capture)?;
        let traffic = &view.peer.traffic;
        let mut seen = traffic.initiation.iter().chain(&traffic.initiation_before);
        let tapped = seen.any(|between| between.after >= from && between.until <= to);
        return tapped.then_some(Outward {
            wanted: "the device counts attempts as sent",
            counted,
            responses: false,
            discards,
        });
    }
    let nothing_sent = view.peer.delta().1 == 0;
    let wanted = wanted(view)?;
    (nothing_sent && discards > 0).then_some(Outward {
        wanted,
        counted: 0,
        responses: false,
        discards,
    })
}

/// What shows that something wants to be sent to this peer, where the counter of what was sent stands still.
fn wanted(view: &View<'_>) -> Option<&'static str> {
    let watched = view.peer.watched();
    if let Some(keepalive) = view.peer.newest.keepalive {
        let due = Span::from_secs(u64::from(keepalive)) + Span::from_secs(1);
        if !view.live() && watched >= RETRY_SEEN || watched >= due {
            return Some("a persistent keepalive is due");
        }
    }
    // Of several peers it cannot be told for whom it is.
    let with_endpoint = view
        .device
        .present_peers()
        .filter(|(_, p)| p.newest.endpoint.is_some());
    if with_endpoint.count() != 1 || watched < Span::from_secs(1) {
        return None;
    }
    let link = view.link()?;
    let first = view.world.routes.first_stats(link.index)?;
    (link.stats.tx_packets > first.tx_packets).then_some("packets go into the tunnel's interface")
}

fn out_report(view: &View<'_>, how: &Outward) -> Finding {
    let name = view.name();
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let confidence = match how.discards {
        0 => Confidence::Likely,
        _ => Confidence::Certain,
    };
    let mut f = view.finding(RULE.code, Severity::Critical, confidence);
    let what = if how.responses { "answers" } else { "attempts" };
    f.title = format!("This host drops {name}'s handshake {what} to {endpoint}");
    f.summary = format!(
        "Handshake {what} are due ({}), and none passed any interface of this host{}{}.",
        how.wanted,
        match how.counted {
            0 => String::new(),
            n => format!(" although {name} counted {n} as sent"),
        },
        match how.discards {
            0 => String::new(),
            n => format!("; meanwhile this host discarded {}", count(n, "outgoing packet")),
        }
    );
    f.impact = "Nothing passes through the tunnel to this peer.".to_owned();
    let (rx, tx) = view.peer.delta();
    f.evidence = Evidence::new()
        .with("direction", "out")
        .with("ip_out_discards", how.discards)
        .with("attempts_counted_as_sent", how.counted)
        .with("attempts_on_wire", view.silence.on_wire)
        .with("initiations_from_peer", view.wire.called.len() as u64)
        .with("rx_bytes_while_watched", rx)
        .with("tx_bytes_while_watched", tx)
        .with("implementation", view.implementation().name());
    if how.discards == 0 {
        f.candidates = vec![
            Candidate {
                cause: "An output rule of this host's firewall drops them".to_owned(),
                code: Some(RULE.code),
                settle: view.here("nft list ruleset") + ": a counter that grows with each attempt is it",
            },
            Candidate {
                cause: "The device's socket lives in another network namespace, where the interface was made"
                    .to_owned(),
                code: None,
                settle: "Look there: `wgnat doctor --netns …`, or `tcpdump` in that namespace".to_owned(),
            },
        ];
    }
    let port = view.endpoint().map_or(0, |e| e.port());
    f.fixes = vec![Fix {
        title: format!("Allow UDP out to {endpoint}"),
        why: "An output rule of this host's own firewall refuses it; counters show which.".to_owned(),
        command: Some(view.here("nft list ruleset")),
        snippet: Some(format!("udp dport {port} accept # before the rule that drops")),
        expect: Evidence::new().with("ip_out_discards", 0),
    }];
    f
}

/// What came in and did not get to the device.
struct Inward {
    what: &'static str,
    arrived: u64,
    delivery: Delivery,
    confidence: Confidence,
}

/// How sure it is that what arrived was dropped here.
fn dropped(delivery: Delivery, needed: u64) -> Option<Confidence> {
    if delivery.nothing_passed() {
        return Some(match delivery.arrived >= needed {
            true => Confidence::Certain,
            false => Confidence::Likely,
        });
    }
    // One datagram may be counted a little later than it came.
    (delivery.dropped() > 1).then_some(Confidence::Likely)
}

fn inward(view: &View<'_>, needed: u64) -> Option<Inward> {
    let rejected = view.silence.rejected;
    if !response_rejected::rejected(view, needed) || !view.info().problems.is_empty() {
        return None;
    }
    let local = view.wire.local?;
    let delivery = Delivery::to_port(view.world, local.port(), local.is_ipv6())?;
    Some(Inward {
        what: "response",
        arrived: rejected,
        confidence: dropped(delivery, needed)?,
        delivery,
    })
}

/// The reason, as far as counters tell: `true` for reverse path filtering.
fn is_filtered(delivery: &Delivery) -> bool {
    delivery
        .filtered
        .is_some_and(|n| n > 0 && n >= delivery.dropped())
}

fn in_report(view: &View<'_>, how: &Inward) -> Finding {
    let name = view.name();
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let mut f = view.finding(RULE.code, Severity::Critical, how.confidence);
    f.first_seen = view.failing_since();
    f.title = format!("This host drops the handshake answers of {endpoint} before {name}");
    f.impact = "No session comes up with this peer.".to_owned();
    explain(
        &mut f,
        how,
        name,
        view.wire.local.map_or(0, |l| l.port()),
        view.world.host.as_ref(),
    );
    f
}

/// Initiations that came for a device here and did not get to it.
fn called(input: &Input<'_>, device: &DeviceTrack, needed: u64) -> Option<Finding> {
    let world = input.world;
    let port = device.info.listen_port?;
    if !device.info.problems.is_empty() {
        return None;
    }
    let for_us = |i: &crate::rules::captured::view::Initiator<'_>| {
        i.responder.port() == port && world.routes.is_local(i.responder.ip())
    };
    let mut callers: Vec<_> = initiators(input).filter(for_us).collect();
    // An answer proves that the way to the device is open.
    let is_answered =
        |i: &crate::rules::captured::view::Initiator<'_>| i.end.attempts().any(|a| a.is_answered());
    if callers.iter().any(is_answered) {
        return None;
    }
    callers.sort_by_key(|i| i.end.first_attempt);
    let first = callers.first()?;
    let delivery = Delivery::to_port(world, port, first.responder.is_ipv6())?;
    if delivery.arrived < needed {
        return None;
    }
    let how = Inward {
        what: "initiation",
        arrived: delivery.arrived,
        confidence: dropped(delivery, needed)?,
        delivery,
    };
    let name = &device.info.name;
    let subject = Subject::Device { name: name.clone() };
    let seen = (first.end.first_attempt.unwrap_or(world.started), world.now);
    let mut f = finding(RULE.code, (Severity::Critical, how.confidence), subject, seen);
    f.title = format!("This host drops handshake initiations before {name}");
    f.impact = "No peer can begin a session with this device.".to_owned();
    explain(&mut f, &how, name, port, world.host.as_ref());
    f.evidence = f
        .evidence
        .with("callers", callers.len() as u64)
        .with("first_caller", first.end.address.to_string());
    Some(f)
}

/// The texts that both directions of a handshake share.
fn explain(
    f: &mut Finding,
    how: &Inward,
    name: &str,
    port: u16,
    host: Option<&crate::observation::host::HostFacts>,
) {
    let delivery = &how.delivery;
    let filtered = is_filtered(delivery);
    f.count = u32::try_from(how.arrived).unwrap_or(u32::MAX);
    f.summary = format!(
        "{} came in at an interface for port {port} and {}; {}.",
        count(how.arrived, how.what),
        match delivery.accounted {
            0 => "no UDP datagram reached any socket of this host meanwhile".to_owned(),
            n => format!(
                "only {} reached sockets of this host meanwhile, of {} that came for this port alone",
                count(n, "UDP datagram"),
                delivery.arrived
            ),
        },
        if filtered {
            "reverse path filtering dropped as many: answers would leave by another interface than they came in by"
        } else {
            "reverse path filtering dropped none, so it is a rule of the firewall's input"
        }
    );
    f.evidence = Evidence::new()
        .with("direction", "in")
        .with("arrived", delivery.arrived)
        .with("udp_datagrams_accounted_for", delivery.accounted)
        .maybe("reverse_path_drops", delivery.filtered)
        .with("port", port);
    f.fixes = vec![if filtered {
        Fix {
            title: "Loosen reverse path filtering, or route answers by the interface that the peer's packets come in by"
                .to_owned(),
            why: "Strict filtering (1) drops a packet whose sender would be answered by another interface; loose (2) asks \
                  only that there is a way."
                .to_owned(),
            command: Some(here(host, "sysctl -w net.ipv4.conf.all.rp_filter=2")),
            expect: Evidence::new().with("reverse_path_drops", 0),
            ..Fix::default()
        }
    } else {
        Fix {
            title: format!("Allow UDP in to port {port} ({})", quote(name)),
            why: "A rule in the input chain drops it; counters show which. Where a port is chosen anew at each start, let \
                  answers in by connection tracking (`ct state established accept`) or set a ListenPort."
                .to_owned(),
            command: Some(here(host, "nft list ruleset")),
            snippet: Some(format!("udp dport {port} accept # before the rule that drops")),
            expect: Evidence::new().with("udp_datagrams_accounted_for", "as many as arrived, at least"),
        }
    }];
}

#[cfg(test)]
mod tests;

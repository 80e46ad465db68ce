//! `wg-endpoint-unreachable`: the network says that the peer cannot be reached.

use super::parties::{Passing, passing};
use super::view::{View, views};
use super::words::count;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::rules::captured::endpoint_unreachable as captured;
use crate::rules::{Area, Input, Rule};
use crate::track::tunnels::wire::IcmpSeen;
use crate::wire::icmp::IcmpClass;
use crate::wire::wireguard::Kind;

mod here;

pub(super) use here::forward;

const CODE: &str = "wg-endpoint-unreachable";

/// Attempts after an error that went without one: the error's reason is then gone, and it is silence.
const SILENT_SINCE: usize = 2;

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "critical, warning where it is about what is only forwarded, or what this host itself turns back",
    holds_when: "the network answers a message to the peer with an ICMP or ICMPv6 error that it cannot be delivered",
    meaning: "WireGuard's packets to the peer are turned back. The error that came says by whom and why: the peer's host \
              has nothing listening on that UDP port, a router knows no way, the host does not answer on its own \
              network, or a firewall refuses.",
    detection: "An ICMP error that quotes a WireGuard message of this host to the peer's endpoint, with nothing heard from \
                the peer since. Who sent it and its type and code are evidence. An error followed by a good handshake, or \
                by two attempts that met plain silence, does not count.\n\n\
                \"Port unreachable\" from the peer's address is what a host without a listener sends, and what a \
                firewall's REJECT sends by default; a NAT may speak in the peer's name.\n\n\
                At the host that turns them back (a router whose address the peers call, or a host on which WireGuard does \
                not run): two or more errors of its own about initiations to a port of its own that no device here has and \
                that nothing forwards; at a host that translates, about data too: its NAT has no mapping (any more). Never \
                above a warning: anybody may call a port.",
    fix: "By what the error says:\n\n\
          - port unreachable: start WireGuard on the peer (`wg-quick up wg0`), check its ListenPort against the endpoint, \
          and its firewall for a REJECT rule; behind a NAT, the port forwarding.\n\
          - host unreachable: the host is off or the address is wrong.\n\
          - network unreachable: a route is missing at the router that answered.\n\
          - prohibited: a firewall at the address that answered; allow UDP to the endpoint there.\n\
          - time exceeded: two routers send it in a circle.\n\n\
          At the router that turns them back: forward the port to the host behind it that runs WireGuard, or let that host \
          send a keepalive, so that its mapping stays.",
    needs: &[super::DEVICES, &[Source::Capture]],
    explained_by: &["wg-endpoint-loop", "wg-no-route", "wg-endpoint-stale-dns"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let own = views(input).filter_map(|view| {
        let icmp = standing(&view)?;
        Some(finding(&view, icmp))
    });
    // What is only forwarded is somebody else's tunnel.
    let passing = passing(input);
    let turned_back = |p: &Passing<'_>| {
        let beyond = p.beyond.and_then(|c| captured::passing(input.world, c));
        beyond.or_else(|| captured::passing(input.world, p.initiator.conversation))
    };
    let forwarded = passing.iter().filter_map(turned_back).map(|finding| Finding {
        severity: Severity::Warning,
        ..finding
    });
    own.chain(forwarded).chain(here::check(input, &passing)).collect()
}

/// The error, where nothing since disproves it.
fn standing(view: &View<'_>) -> Option<IcmpSeen> {
    let icmp = view.wire.icmp?;
    let heard_since = view
        .peer
        .last_handshake(view.world.now)
        .is_some_and(|at| at > icmp.at)
        || view.peer.traffic.heard_at.is_some_and(|at| at > icmp.at);
    let later = view.wire.attempts.iter().filter(|a| a.at > icmp.at).count();
    (!heard_since && later < SILENT_SINCE).then_some(icmp)
}

/// What the error means: the title's words, a sentence, and what to do.
struct Meaning {
    short: &'static str,
    long: String,
    fix: String,
    command: Option<String>,
}

fn meaning(view: &View<'_>, icmp: &IcmpSeen) -> Meaning {
    let endpoint = view.endpoint();
    let address = endpoint.map_or_else(String::new, |e| e.ip().to_string());
    let port = endpoint.map_or(0, |e| e.port());
    let from = icmp.note.from;
    let by_peer = endpoint.is_some_and(|e| e.ip() == from);
    let by_us = view.world.routes.is_local(from);
    let listening = Some("wg show all listen-port; ss -lun".to_owned());
    let look = Some(view.here(&format!("ip route get {address}")));
    match icmp.note.class() {
        IcmpClass::PortUnreachable if by_peer => Meaning {
            short: "nothing listens there",
            long: format!(
                "Its host answers that nothing listens on UDP port {port} (a firewall's REJECT looks the same)."
            ),
            fix: format!(
                "On the peer's host, start WireGuard on UDP port {port}, or correct the endpoint's port"
            ),
            command: listening,
        },
        IcmpClass::PortUnreachable => Meaning {
            short: "refused on the way",
            long: format!(
                "{from}, which is not the peer, answers that the port is unreachable: a firewall there rejects it, or a \
                 NAT has no forwarding for it."
            ),
            fix: format!("At {from}, allow or forward UDP port {port} to the peer"),
            command: None,
        },
        IcmpClass::HostUnreachable if by_us => Meaning {
            short: "the host does not answer on its network",
            long: format!(
                "This host itself says so: nobody answers for {address} on the network that it is directly connected to."
            ),
            fix: "Check that the peer's host is on, on this network, and has that address".to_owned(),
            command: Some(view.here(&format!("ip neigh show to {address}"))),
        },
        IcmpClass::HostUnreachable => Meaning {
            short: "the host does not answer on its network",
            long: format!("{from}, the last router before it, gets no answer from the host."),
            fix: "Check that the peer's host is on and that the endpoint's address is right".to_owned(),
            command: look,
        },
        IcmpClass::NetUnreachable => Meaning {
            short: "no way leads there",
            long: format!("{from} knows no way to its network."),
            fix: format!("Check the endpoint's address; if it is right, the route is missing at {from}"),
            command: look,
        },
        IcmpClass::Prohibited => Meaning {
            short: "a firewall refuses",
            long: format!(
                "A firewall at {from} refuses{}.",
                if by_peer {
                    ", which is the peer's own host"
                } else {
                    ""
                }
            ),
            fix: format!("Allow UDP to {address} port {port} in the firewall at {from}"),
            command: None,
        },
        IcmpClass::TimeExceeded => Meaning {
            short: "packets go in a circle",
            long: format!("At {from} the packets ran out of hops: routers send them in a circle."),
            fix: format!("The routes around {from} are wrong; tell who runs it"),
            command: look,
        },
        _ => Meaning {
            short: "the network turns packets back",
            long: format!("{from} answers that it cannot be delivered."),
            fix: "Check the endpoint's address and port".to_owned(),
            command: look,
        },
    }
}

fn finding(view: &View<'_>, icmp: IcmpSeen) -> Finding {
    let name = view.name();
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let meaning = meaning(view, &icmp);
    let mut finding = view.finding(CODE, Severity::Critical, Confidence::Certain);
    finding.first_seen = icmp.note.at;
    finding.last_seen = icmp.at;
    finding.count = u32::try_from(icmp.count).unwrap_or(u32::MAX);
    finding.title = format!("{endpoint}, the peer of {name}: {}", meaning.short);
    finding.summary = format!(
        "{} to {endpoint} came back as \"{}\". {}",
        count(icmp.count, about(&icmp)),
        icmp.note.words(),
        meaning.long
    );
    finding.evidence = Evidence::new()
        .with("icmp_from", icmp.note.from.to_string())
        .with("icmp_type", icmp.note.icmp_type)
        .with("icmp_code", icmp.note.code)
        .with("icmp_meaning", icmp.note.words())
        .with("icmp_count", icmp.count)
        .with(
            "from_endpoint",
            view.endpoint().is_some_and(|e| e.ip() == icmp.note.from),
        )
        .with("about", about(&icmp))
        .maybe(
            "last_handshake_age_seconds",
            view.handshake_age().map(|age| age.as_secs_f64()),
        );
    finding.impact = "Nothing passes through the tunnel to this peer.".to_owned();
    let forgotten = is_forgotten(view, &icmp);
    if forgotten {
        finding.summary.push_str(
            " The peer came to this address and port by itself and was heard there before: if it is behind a NAT, that has \
             forgotten the mapping.",
        );
    }
    finding.fixes = vec![Fix {
        title: meaning.fix,
        why: "WireGuard tries again by itself every 5 s while traffic wants through.".to_owned(),
        command: meaning.command,
        expect: Evidence::new()
            .with("icmp_count", 0)
            .with("last_handshake_age_seconds", "under 180"),
        ..Fix::default()
    }];
    if forgotten {
        finding.fixes.insert(
            0,
            Fix {
                title: "If the peer is behind a NAT, let it send a keepalive every 25 s".to_owned(),
                why: "On the peer's host: the NAT then never forgets it. What it sends next heals this."
                    .to_owned(),
                snippet: Some("[Peer]\nPersistentKeepalive = 25".to_owned()),
                ..Fix::default()
            },
        );
    }
    finding
}

/// Whether what refuses may be a NAT that no longer knows the peer: it speaks with the peer's address, the peer was heard
/// there, and nobody configured this endpoint.
fn is_forgotten(view: &View<'_>, icmp: &IcmpSeen) -> bool {
    let from_there = view.endpoint().is_some_and(|e| e.ip() == icmp.note.from);
    let is_port = icmp.note.class() == IcmpClass::PortUnreachable;
    let was_heard = view.peer.newest.rx_bytes > 0;
    let configured = view.configured().is_some_and(|c| c.endpoint.is_some());
    from_there && is_port && was_heard && !configured && icmp.about == Some(Kind::Data)
}

/// Which of our messages it is about, as a noun.
fn about(icmp: &IcmpSeen) -> &'static str {
    match icmp.about {
        None => "message",
        Some(Kind::Data) => "data message",
        Some(kind) => kind.name(),
    }
}

#[cfg(test)]
mod tests;

//! `wg-keepalive-missing`: this host is behind a NAT, its peer wants to reach it, and nothing keeps the mapping open.

use std::net::IpAddr;

use super::view::{View, views};
use super::words::time;
use crate::config::Thresholds;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::sessions::Side;

const CODE: &str = "wg-keepalive-missing";

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "this host is behind a NAT, the peer needs to reach it, and persistent keepalive is off or longer than a \
                 NAT remembers a flow",
    meaning: "A NAT lets packets in only for flows that it remembers, and forgets one that is silent: often after 30 s, \
              by RFC 4787 after two minutes at the earliest. From then on the peer cannot reach this host until this host \
              sends something. A persistent keepalive is that something: an empty packet of 32 bytes, sent when nothing \
              else was.",
    detection: "Behind a NAT: the tunnel's outer packets leave from a private or carrier-grade address (RFC 1918, \
                RFC 6598) towards a public one, which cannot work without a translation. That the peer needs to reach \
                this host is either said by the setting itself (a keepalive is on, but longer than NATs remember), or \
                seen on the wire: after 12 s or more in which neither side said a word the peer spoke first, in a session \
                that this host began (so no port is forwarded to it, as far as can be seen). A tunnel that only ever \
                carries what this host asks for needs no keepalive, and is no finding.",
    fix: "`PersistentKeepalive = 25` in the `[Peer]` section on this host, the one behind the NAT. It costs about 5 \
          bytes a second. With `wg set DEVICE peer KEY persistent-keepalive 25` it takes effect at once.",
    needs: &[super::DEVICES],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    views(input)
        .filter_map(|view| {
            let local = view.local_ip()?;
            if !is_translated(local, view.endpoint()?.ip()) {
                return None;
            }
            let (need, confidence) = need(&view, input.thresholds)?;
            Some(finding(&view, local, need, confidence))
        })
        .collect()
}

/// Why the peer needs to reach this host.
#[derive(Clone, Copy)]
enum Need {
    /// The keepalive that is set, in seconds.
    Set(u16),
    /// It spoke first, so often, after so long.
    SpokeFirst(u64, Span),
}

fn need(view: &View<'_>, thresholds: &Thresholds) -> Option<(Need, Confidence)> {
    if let Some(secs) = view.peer.newest.keepalive {
        let every = Span::from_secs(u64::from(secs));
        return match every {
            every if every > thresholds.keepalive_too_long => Some((Need::Set(secs), Confidence::Likely)),
            every if every > thresholds.keepalive_doubtful => Some((Need::Set(secs), Confidence::Possible)),
            _ => None,
        };
    }
    let (tunnel, ours) = view.tunnel()?;
    let world = view.world;
    let mut pushes = 0;
    let mut longest = Span::ZERO;
    for session in world.sessions.live(tunnel) {
        // Begun by the peer, or nobody knows: then a port may be forwarded to us.
        if session.began.is_none() || session.initiator != ours {
            continue;
        }
        let theirs = session.sent_by(other(ours));
        pushes += theirs.pushes;
        longest = longest.max(theirs.longest_push);
    }
    (pushes > 0).then_some((Need::SpokeFirst(pushes, longest), Confidence::Likely))
}

fn other(side: Side) -> Side {
    side.other()
}

/// Whether an address like this cannot talk to one like that without a translation.
fn is_translated(local: IpAddr, remote: IpAddr) -> bool {
    match (local.to_canonical(), remote.to_canonical()) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => is_private(local) && !is_private(remote),
        // Hardly any IPv6 is translated, and what is unique-local talks to its like.
        _ => false,
    }
}

fn is_private(address: std::net::Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    // 100.64.0.0/10 is between a customer and its carrier (RFC 6598).
    address.is_private() || address.is_link_local() || address.is_loopback() || (a == 100 && b & 0xc0 == 64)
}

fn finding(view: &View<'_>, local: IpAddr, need: Need, confidence: Confidence) -> Finding {
    let (name, key) = (view.name(), view.key.short());
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let mut f = view.finding(CODE, Severity::Warning, confidence);
    f.title = match need {
        Need::Set(secs) => format!("{name}'s keepalive of {secs} s may be too long for its NAT"),
        Need::SpokeFirst(..) => format!("{name} sends no keepalive, and its peer {key} wants to reach it"),
    };
    let behind = format!(
        "This host ({local}) reaches {endpoint} through a NAT, which forgets a silent flow, often after 30 s."
    );
    f.summary = match need {
        Need::Set(secs) => format!(
            "{behind} The keepalive says that the peer is to reach this host at any time, but comes only every {secs} s."
        ),
        Need::SpokeFirst(times, longest) => format!(
            "{behind} After {} without a word from either side the peer spoke first ({times} times seen): it needs to \
             reach this host, and after a longer silence it cannot.",
            time(longest)
        ),
    };
    f.impact = "After a silence the peer's packets do not arrive until this host sends something.".to_owned();
    let (spoke_first, longest) = match need {
        Need::Set(_) => (None, None),
        Need::SpokeFirst(times, longest) => (Some(times), Some(longest.as_secs_f64())),
    };
    f.evidence = Evidence::new()
        .with("local_address", local.to_string())
        .with("endpoint", endpoint)
        .with(
            "persistent_keepalive_seconds",
            view.peer.newest.keepalive.unwrap_or(0),
        )
        .maybe("peer_spoke_first", spoke_first)
        .maybe("after_silence_seconds", longest);
    f.fixes = vec![Fix {
        title: "Send a keepalive every 25 s".to_owned(),
        why: "It is below what NATs commonly keep, and costs about 5 bytes a second.".to_owned(),
        command: view.wg_set("persistent-keepalive 25"),
        snippet: Some("[Peer]\nPersistentKeepalive = 25".to_owned()),
        expect: Evidence::new().with("persistent_keepalive_seconds", 25),
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::observation::RoutePurpose;
    use crate::observation::device::Implementation::Kernel;
    use crate::observation::device::PeerSnapshot;
    use crate::observation::host::RouteWay;

    fn host(local: &str, keepalive: Option<u16>) -> Host {
        let mut host = Host::new(Kernel);
        host.peer(
            0.0,
            PeerSnapshot {
                keepalive,
                ..peer_with(5_000, 5_000, Some(-10.0))
            },
        );
        host.tables(0.0, tables());
        let source = Some(local.parse().unwrap());
        host.answer(0.0, |purpose, _| match purpose {
            RoutePurpose::Endpoint { .. } => RouteWay::Via {
                out: ETH0,
                gateway: None,
                source,
                mtu: None,
                local: false,
            },
            RoutePurpose::AllowedIp { .. } => via(WG0),
        });
        host
    }

    #[test]
    fn a_keepalive_that_is_longer_than_nats_remember() {
        for (local, keepalive, expected) in [
            ("10.1.2.3", Some(25), None),
            ("10.1.2.3", Some(30), None),
            ("10.1.2.3", Some(60), Some(Confidence::Possible)),
            ("100.64.3.4", Some(300), Some(Confidence::Likely)),
            ("10.1.2.3", None, None),
            ("192.0.2.2", Some(300), None),
        ] {
            let found = host(local, keepalive).find(CODE);
            assert_eq!(found.map(|f| f.confidence), expected, "{local} {keepalive:?}");
        }
    }

    #[test]
    fn a_peer_that_speaks_first_needs_to_reach_us() {
        for (ours_began, quiet, keepalive, expected) in [
            (true, 20.0, None, true),
            (true, 8.0, None, false),
            (false, 20.0, None, false),
            (true, 20.0, Some(25), false),
        ] {
            let mut host = host("10.1.2.3", keepalive);
            match ours_began {
                true => host.call(0.1, 1).answered(0.2, 1),
                false => host.called(0.1, 1).answer_call(0.2, 1),
            };
            // Each side sends under the index that the other chose.
            let (to_peer, to_us) = if ours_began { (1001, 1) } else { (1, 1001) };
            host.data(0.3, (US, PEER), to_peer, 0);
            host.data(0.4, (PEER, US), to_us, 0);
            host.data(0.4 + quiet, (PEER, US), to_us, 1);
            host.until(0.5 + quiet);
            assert_eq!(
                host.find(CODE).is_some(),
                expected,
                "{ours_began} {quiet} {keepalive:?}"
            );
        }
    }
}

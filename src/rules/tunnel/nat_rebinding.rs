//! `wg-nat-rebinding` at a live host: at a peer's device, and at the NAT itself.

use super::view::{View, views};
use super::words::{count, time};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::rules::captured::NAT_REBINDING;
use crate::rules::{Input, Rule};
use crate::time::Span;
use crate::track::sessions::{Alias, Tunnel};
use crate::track::tunnels::peer::EndpointChange;

const CODE: &str = "wg-nat-rebinding";

/// The rule.
pub const RULE: Rule = Rule {
    detection: "Three places can tell. The peer's device: two readings of it differ in the endpoint's port alone, and \
                nothing had been received from the peer for longer than NATs commonly remember (20 s); a daemon that \
                is told another listen port looks the same, which is rare, so this is likely. The NAT itself: the same \
                message is seen before and after translation, and after a silence the address inside is the same and \
                the port outside is another; that is certain. A capture: the same session, by its index and rising \
                counters, goes on from the same address and another port, and nothing had passed either way for a \
                while.\n\n\
                Where the silence began before wgnat looked only its least length is known; a change after a shorter \
                one is wg-roamed.",
    needs: &[&[Source::WireguardNetlink, Source::WireguardUapi, Source::Capture]],
    explained_by: &["wg-duplicate-key", "wg-roaming-unstable"],
    check,
    ..NAT_REBINDING
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let after = input.thresholds.rebinding_after;
    let mut found: Vec<Finding> = views(input)
        .filter(|view| !super::duplicate_key::is_fought_over(view))
        .filter_map(|view| at_the_peer(&view, after))
        .collect();
    let tunnels = input.world.sessions.tunnels().iter();
    found.extend(tunnels.filter_map(|tunnel| at_the_nat(input, tunnel, after)));
    found
}

/// Changes of this peer's endpoint that a NAT made.
pub(super) fn rebindings(view: &View<'_>, after: Span) -> Vec<EndpointChange> {
    let rebound = |c: &&EndpointChange| c.is_port_only() && silence(view, c) >= after;
    view.peer
        .endpoint_changes
        .iter()
        .filter(rebound)
        .copied()
        .collect()
}

/// How long the peer had been silent before a change: by the counters, or by the wire where that saw more.
fn silence(view: &View<'_>, change: &EndpointChange) -> Span {
    let seen = view.tunnel().and_then(|(tunnel, _)| {
        let same = |m: &&crate::track::sessions::Move| (m.from, m.to) == (change.old, change.new);
        tunnel.moves().rev().find(same).map(|m| m.silence)
    });
    change.silence.max(seen.unwrap_or(Span::ZERO))
}

fn at_the_peer(view: &View<'_>, after: Span) -> Option<Finding> {
    let changes = rebindings(view, after);
    let (first, last) = (changes.first()?, changes.last()?);
    let shortest = changes.iter().map(|c| silence(view, c)).min()?;
    let long = silence(view, last);
    let (name, key) = (view.name(), view.key.short());
    let whole = if last.silence_is_whole { "" } else { "at least " };
    let ours = view.peer.newest.keepalive;
    let mut f = view.finding(CODE, Severity::Warning, Confidence::Likely);
    f.title = format!(
        "{name}'s peer {key} came back on another port after {}",
        time(long)
    );
    f.summary = format!(
        "It was at {} and, after {whole}{} in which nothing came from it, is at port {}: the NAT before it had forgotten \
         the mapping.{}{}",
        last.old,
        time(long),
        last.new.port(),
        match ours {
            Some(secs) => format!(
                " This side's keepalive of {secs} s did not keep it open: only what the peer itself sends does with many \
                 NATs."
            ),
            None => String::new(),
        },
        if changes.len() > 1 {
            format!(
                " So it was {} while watched.",
                count(changes.len() as u64, "time")
            )
        } else {
            String::new()
        }
    );
    f.impact =
        "Until the peer sent again nothing could reach it: what was sent to the old port is lost.".to_owned();
    f.evidence = Evidence::new()
        .with("old_endpoint", last.old.to_string())
        .with("new_endpoint", last.new.to_string())
        .with("silence_seconds", long.as_secs_f64())
        .with("silence_is_at_least", !last.silence_is_whole)
        .with("shortest_silence_seconds", shortest.as_secs_f64())
        .with("rebindings", changes.len())
        .maybe("persistent_keepalive_here_seconds", ours);
    f.fixes = vec![keepalive_on("the peer", shortest)];
    (f.first_seen, f.last_seen) = (first.at, last.at);
    f.count = u32::try_from(changes.len()).unwrap_or(u32::MAX);
    Some(f)
}

/// On whose host, and why 25 s.
fn keepalive_on(whose: &str, shortest: Span) -> Fix {
    Fix {
        title: format!("On {whose}, send a keepalive every 25 s"),
        why: format!(
            "The mapping did not outlive {}; 25 s is below what NATs commonly keep.",
            time(shortest)
        ),
        snippet: Some("[Peer]\nPersistentKeepalive = 25".to_owned()),
        expect: Evidence::new().with("rebindings", 0),
        ..Fix::default()
    }
}

/// This host translates, and gave the same party another port after a silence: both sides of the translation are in
/// sight, so there is no other reading.
fn at_the_nat(input: &Input<'_>, tunnel: &Tunnel, after: Span) -> Option<Finding> {
    let world = input.world;
    let aliases: Vec<&Alias> = tunnel.aliases().collect();
    let again = |pair: &&[&Alias]| match pair {
        [old, new] => {
            old.address.ip() == new.address.ip()
                && world.routes.is_local(new.address.ip())
                && new.silence.is_some_and(|silence| silence >= after)
        }
        _ => false,
    };
    let pairs: Vec<(&Alias, &Alias)> = aliases
        .windows(2)
        .filter(again)
        .filter_map(|pair| Some((*pair.first()?, *pair.last()?)))
        .collect();
    let (_, first) = pairs.first()?;
    let (old, new) = pairs.last()?;
    let silence = new.silence?;
    let [one, two] = tunnel.ends;
    // Who is behind the translation: the end that is not reached by the address outside.
    let (inside, outside) = match world.routes.is_local(one.ip()) {
        true => (two, one),
        false => (one, two),
    };
    let setting = |name: &str| world.sysctls.as_ref()?.others.get(name).copied();
    let subject = Subject::Peer {
        device: None,
        public_key: None,
        endpoint: Some(inside),
        local: Some(outside),
    };
    let mut f = super::super::captured::blank(
        CODE,
        (Severity::Warning, Confidence::Certain),
        subject,
        (first.at, new.at),
    );
    f.count = u32::try_from(pairs.len()).unwrap_or(u32::MAX);
    f.title = format!("This NAT gave {inside} another port after {}", time(silence));
    f.summary = format!(
        "The same session left as {} and, after {} without a packet from {inside}, leaves as {}: the mapping had been \
         forgotten.",
        old.address,
        time(silence),
        new.address
    );
    f.impact = format!("Between the two {outside} could not reach {inside}.");
    f.evidence = Evidence::new()
        .with("inside", inside.to_string())
        .with("old_mapping", old.address.to_string())
        .with("new_mapping", new.address.to_string())
        .with("silence_seconds", silence.as_secs_f64())
        .with("rebindings", pairs.len())
        .maybe(
            "udp_timeout_seconds",
            setting("net.netfilter.nf_conntrack_udp_timeout"),
        )
        .maybe(
            "udp_timeout_stream_seconds",
            setting("net.netfilter.nf_conntrack_udp_timeout_stream"),
        );
    f.fixes = vec![keepalive_on(&inside.to_string(), silence)];
    Some(f)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::observation::device::Implementation::Kernel;
    use crate::observation::device::PeerSnapshot;

    const ELSEWHERE: &str = "198.51.100.7:40000";

    fn came_back(to: &str, silence: u32) -> Host {
        let mut host = Host::new(Kernel);
        let peer = |place: &str, rx| PeerSnapshot {
            endpoint: Some(sock(place)),
            ..peer_with(rx, 5_000, Some(-10.0))
        };
        host.peer(0.0, peer(PEER, 5_000)).peer(1.0, peer(PEER, 5_128));
        for secs in 2..=silence {
            host.peer(f64::from(secs), peer(PEER, 5_128));
        }
        host.peer(f64::from(silence + 1), peer(to, 5_256));
        host
    }

    #[test]
    fn another_port_after_a_silence() {
        for (to, silence, expected) in [
            (ELSEWHERE, 40, vec![CODE]),
            (ELSEWHERE, 5, vec!["wg-roamed"]),
            ("203.0.113.9:51820", 40, vec!["wg-roamed"]),
            (PEER, 40, vec![]),
        ] {
            let host = came_back(to, silence);
            assert_eq!(host.codes().0, expected, "{to} after {silence} s");
        }
        let finding = came_back(ELSEWHERE, 40).find(CODE).unwrap();
        assert_eq!(finding.evidence.get("silence_seconds"), Some(&40.0.into()));
        assert_eq!(finding.evidence.get("silence_is_at_least"), Some(&false.into()));
    }

    #[test]
    fn the_nat_itself_sees_both_sides() {
        // 192.0.2.2 is this host's: what comes from 10.0.0.9 leaves by it.
        for (silence, port, expected) in [
            (30.0, "192.0.2.2:2000", 1),
            (5.0, "192.0.2.2:2000", 0),
            (30.0, "192.0.2.2:1000", 0),
        ] {
            let mut host = Host::new(Kernel);
            host.routed(0.0);
            let inside = "10.0.0.9:51820";
            let mut counter = 0;
            let mut pass = |host: &mut Host, secs: f64, outside: &str| {
                host.data(secs, (inside, PEER), 7, counter);
                host.data(secs + 0.001, (outside, PEER), 7, counter);
                counter += 1;
            };
            for n in 0..6 {
                pass(&mut host, f64::from(n) * 0.1, "192.0.2.2:1000");
            }
            for n in 0..3 {
                pass(&mut host, 0.5 + silence + f64::from(n) * 0.1, port);
            }
            host.until(60.0);
            let found = host.evaluate().findings;
            assert_eq!(
                found.iter().filter(|f| f.code == CODE).count(),
                expected,
                "{silence} {port}: {found:?}"
            );
        }
    }
}

//! `wg-response-lost`: a device here answers, and the initiator goes on calling.

use super::view::{View, views};
use super::words::{count, time};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::handshake::ANSWER_WITHIN;
use crate::track::tunnels::wire::Call;
use crate::wire::wireguard::REKEY_TIMEOUT;

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-response-lost",
    area: Area::Wireguard,
    severity: "critical",
    holds_when: "this host answers a peer's initiations, yet the same peer keeps initiating and no data follows",
    meaning: "The peer's initiations arrive here, are accepted and answered, so the keys are right. But the peer does not \
              act on the answers: it begins anew every five seconds, and nothing comes under the sessions that it was \
              offered. Its responses do not get back: a firewall or NAT on the way lets packets out and not in, or they \
              leave this host by another interface or address than the one that the peer called.",
    detection: "At the responder: initiations of a peer came in, a response to each went out, and neither the device's \
                handshake time (which the kernel and wireguard-go set when the initiator's first data arrives) nor its \
                received bytes moved beyond the initiations (148 bytes each). Twice in a row at least.\n\n\
                A preshared key that differs looks the same from here: the peer then refuses the answers. Where a handshake \
                with this peer once completed, or no preshared key is set here, loss explains it far better: likely. Where \
                one is set and there never was a handshake, it is reported as wg-response-rejected, as a possibility.",
    fix: "Capture on the peer's host: whether the 92-byte answers arrive there decides it. Then look at what is between: \
          a stateful firewall that does not know the flow, a NAT with another mapping for the way back, and at this \
          host's routes: the answer must leave from the address that was called (`ip route get PEER from ADDRESS`).",
    needs: &[super::DEVICES, &[Source::Capture]],
    explained_by: &["wg-endpoint-unreachable", "wg-local-drop"],
    check,
};

/// After an answer an initiator that takes it sends data or a keepalive at once; slow paths and queues included.
const EFFECT_WITHIN: Span = Span::from_secs(2);

/// An initiator that waits for an answer calls again after REKEY_TIMEOUT, as clocks go; one that calls sooner is no WireGuard
/// device, but a probe that wants nothing but the answers.
pub(super) const LEAST_GAP: Span = REKEY_TIMEOUT.saturating_sub(Span::from_millis(500));

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    views(input)
        .filter_map(|view| {
            let calls = ineffective(&view, needed)?;
            (!is_ambiguous(&view)).then(|| report(&view, calls))
        })
        .collect()
}

/// How many of the peer's newest calls in a row were answered without effect, where they are enough.
pub(super) fn ineffective(view: &View<'_>, needed: u64) -> Option<u64> {
    // Others set the handshake's time when they answer, and count no keepalives.
    if !view.counts() || !view.wire_watched() {
        return None;
    }
    let heard = view
        .peer
        .traffic
        .heard_at
        .max(view.peer.last_handshake(view.world.now));
    let mut count = 0;
    let mut next: Option<&Call> = None;
    for call in view.wire.called.iter().rev() {
        let followed = next.is_some_and(|next| {
            let gap = next.at - call.at;
            gap >= LEAST_GAP && gap <= ANSWER_WITHIN * 2
        });
        let waited = next.is_none() && view.peer.newest_at > call.at + EFFECT_WITHIN;
        if next.is_none() && !waited {
            // It still has time.
            next = Some(call);
            continue;
        }
        let had_effect = heard.is_some_and(|heard| heard >= call.at);
        if !call.answered || had_effect || !(followed || waited) {
            break;
        }
        count += 1;
        next = Some(call);
    }
    (count >= needed).then_some(count)
}

/// Whether a differing preshared key explains it as well as loss does.
pub(super) fn is_ambiguous(view: &View<'_>) -> bool {
    view.peer.newest.has_preshared_key && view.peer.newest.last_handshake.is_none()
}

/// What is known of it.
pub(super) fn evidence(view: &View<'_>, calls: u64) -> Evidence {
    let (rx, tx) = view.peer.delta();
    Evidence::new()
        .with("answered_without_effect", calls)
        .with("initiations_from_peer", view.wire.called.len() as u64)
        .with("preshared_key_set_here", view.peer.newest.has_preshared_key)
        .maybe(
            "last_handshake_age_seconds",
            view.handshake_age().map(|age| age.as_secs_f64()),
        )
        .with("rx_bytes_while_watched", rx)
        .with("tx_bytes_while_watched", tx)
        .with("implementation", view.implementation().name())
}

/// The cause that this rule is named after.
pub(super) fn candidate(view: &View<'_>) -> Candidate {
    Candidate {
        cause: "The responses are lost on the way back (a firewall, a NAT, another way out than the way in)"
            .to_owned(),
        code: Some(RULE.code),
        settle: format!(
            "On the peer's host: `tcpdump -ni any udp port {}`; no 92-byte answers arrive",
            view.info().listen_port.unwrap_or_default()
        ),
    }
}

fn report(view: &View<'_>, calls: u64) -> Finding {
    let name = view.name();
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let mut f = view.finding(RULE.code, Severity::Critical, Confidence::Likely);
    f.first_seen = view.wire.called.first().map_or(view.world.started, |c| c.at);
    f.count = u32::try_from(calls).unwrap_or(u32::MAX);
    f.title = format!("{name}'s handshake answers do not get back to {endpoint}");
    f.summary = format!(
        "{} of {endpoint} were answered, and nothing followed: it began anew each time.{}",
        count(calls, "attempt"),
        match view.handshake_age() {
            Some(age) => format!(" The last handshake with it completed {} ago.", time(age)),
            None => " There never was a handshake with it.".to_owned(),
        }
    );
    f.impact = match view.live() {
        true => "The session still carries data; when it is 180 s old nothing passes.".to_owned(),
        false => "No session comes up with this peer.".to_owned(),
    };
    f.evidence = evidence(view, calls);
    f.candidates = vec![
        candidate(view),
        Candidate {
            cause: format!(
                "The peer does not accept them: it has a preshared key for this host and {}",
                match view.peer.newest.has_preshared_key {
                    true => "another one is set here since the last handshake",
                    false => "none is set here",
                }
            ),
            code: Some("wg-response-rejected"),
            settle: "On the peer's host: the 92-byte answers arrive, and `wg show` lists a preshared key"
                .to_owned(),
        },
    ];
    let local = view.wire.local.map(|l| l.ip().to_string());
    f.fixes = vec![
        Fix {
            title: "On the peer's host, look whether the answers arrive".to_owned(),
            why: "Nothing there: they are lost on the way back. 92-byte packets: the peer or its own firewall refuses them."
                .to_owned(),
            command: Some(format!(
                "tcpdump -ni any udp port {}",
                view.info().listen_port.unwrap_or_default()
            )),
            expect: Evidence::new().with("answered_without_effect", 0),
            ..Fix::default()
        },
        Fix {
            title: "See that the answers leave the way that the calls came".to_owned(),
            why: "A firewall or NAT on the way takes an answer from another address or by another path for a stranger's."
                .to_owned(),
            command: view.endpoint().zip(local).map(|(endpoint, local)| {
                view.here(&format!("ip route get {} from {local}", endpoint.ip()))
            }),
            ..Fix::default()
        },
    ];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::observation::device::Implementation::{Boringtun, Kernel};
    use crate::observation::device::PeerSnapshot;

    fn answering(rx: u64, change: impl Fn(&mut PeerSnapshot)) -> Host {
        let mut host = Host::new(Kernel);
        let mut peer = |secs: f64, rx, tx| {
            let mut peer = peer_with(rx, tx, None);
            change(&mut peer);
            host.peer(secs, peer);
        };
        peer(0.0, 0, 0);
        peer(1.5, 148, 92);
        peer(14.0, rx, 3 * 92);
        host.routed(0.1);
        for (index, secs) in [(1, 1.0), (2, 6.1), (3, 11.3)] {
            host.called(secs, index).answer_call(secs + 0.01, index);
        }
        host.until(14.0);
        host
    }

    #[test]
    fn answers_without_effect_are_lost() {
        let host = answering(3 * 148, |_| {});
        let found = host.find(RULE.code).unwrap();
        assert_eq!(found.confidence, Confidence::Likely);
        assert_eq!(found.evidence.get("answered_without_effect"), Some(&3.into()));
        assert_eq!(host.codes(), (vec![RULE.code], vec![]));
    }

    #[test]
    fn with_a_psk_and_no_handshake_ever_it_may_be_refused_as_well() {
        let host = answering(3 * 148, |p| p.has_preshared_key = true);
        let (found, folded) = host.codes();
        assert_eq!((found, folded), (vec!["wg-response-rejected"], vec![]));
        let found = host.find("wg-response-rejected").unwrap();
        assert_eq!(
            (found.severity, found.confidence),
            (Severity::Warning, Confidence::Possible)
        );
        // It worked once.
        let host = answering(3 * 148, |p| {
            p.has_preshared_key = true;
            p.last_handshake = Some(at(-500.0));
        });
        assert!(host.find(RULE.code).is_some());
    }

    #[test]
    fn data_a_handshake_or_no_answer_is_none() {
        assert!(answering(3 * 148 + 32, |_| {}).find(RULE.code).is_none());
        assert!(
            answering(3 * 148, |p| p.last_handshake = Some(at(11.4)))
                .find(RULE.code)
                .is_none()
        );
        let mut host = Host::new(Boringtun);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.called(1.0, 1)
            .answer_call(1.1, 1)
            .called(6.1, 2)
            .answer_call(6.2, 2);
        host.peer(14.0, peer_with(0, 0, None)).until(14.0);
        assert!(host.find(RULE.code).is_none());
    }

    #[test]
    fn the_newest_still_has_time() {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.called(1.0, 1)
            .answer_call(1.1, 1)
            .called(6.1, 2)
            .answer_call(6.2, 2);
        host.peer(6.5, peer_with(296, 184, None)).until(6.5);
        assert!(host.find(RULE.code).is_none());
    }
}

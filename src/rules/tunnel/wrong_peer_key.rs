//! `wg-wrong-peer-key`: an initiation that reaches a device here was made for another key.

use super::callers::{about, attempts, few, subject};
use super::words::count;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::device::KernelReason;
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::opened::Call;
use crate::track::tunnels::DeviceTrack;
use crate::types::PublicKey;
use crate::wire::wireguard::REKEY_TIMEOUT;

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-wrong-peer-key",
    area: Area::Wireguard,
    severity: "critical",
    holds_when: "the first MAC of an initiation does not match the public key of the responder that it reaches",
    meaning: "An initiator makes its message for one public key: that which its configuration names for the peer. The \
              responder that gets it has another key, so it cannot even tell that the message is WireGuard's and drops \
              it. Typical after the responder was set up again with a new key, or with two interfaces on swapped ports.",
    detection: "The first MAC (mac1) is keyed by the responder's public key, so public keys alone can check it.\n\n\
                At the responder (`doctor`): the message came to the port of a device here, and its mac1 does not verify \
                under that device's key. It is also tried under the keys of the other devices and of the peers, and \
                under keys that the device had while watched: one that verifies is named. Two attempts at the protocol's \
                distance are asked for, since anybody may send one datagram that looks like an initiation.\n\n\
                In a capture, with `--keys`: each key given can be tried. The responder's own key is the one under which \
                it has answered: then it is certain. Else it is likely: the key of the wg-quick file whose ListenPort is \
                the responder's port.",
    fix: "On the initiator set the peer's PublicKey to what `wg show DEVICE public-key` prints on the responder, or \
          correct the endpoint's port if the responder has several interfaces.",
    needs: &[super::DEVICES, &[Source::Capture], &[Source::Keys]],
    explained_by: &[],
    check,
};

/// A retry comes no sooner after the attempt before; less what clocks and queues make of it.
const RETRY: Span = REKEY_TIMEOUT.saturating_sub(Span::from_millis(500));

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    let calls = input.world.opened.calls();
    let devices = input.world.tunnels.devices().filter(|d| d.vanished_at.is_none());
    devices
        .filter_map(|device| Some((device, device.info.public_key?)))
        .flat_map(|(device, key)| {
            let wrong = calls.iter().filter(|call| {
                call.reached == Some(key)
                    && call.made_for != Some(key)
                    && call.count >= needed.max(2)
                    && call.last_at - call.first_at >= RETRY
                    && !is_answered(input, call)
            });
            let found = wrong
                .map(|call| (call.initiator, report(input, device, call, key)))
                .collect();
            few(device, "have the wrong public key for it", found)
        })
        .collect()
}

/// Whether any of its attempts got an answer: then the key was right after all (it changed meanwhile).
fn is_answered(input: &Input<'_>, call: &Call) -> bool {
    attempts(input.world, (call.initiator, call.responder)).any(|a| a.at >= call.first_at && a.is_answered())
}

fn report(input: &Input<'_>, device: &DeviceTrack, call: &Call, key: PublicKey) -> Finding {
    let name = &device.info.name;
    let way = (call.initiator, call.responder);
    let mut f = about(
        RULE.code,
        (Severity::Critical, Confidence::Certain),
        subject(device, None, way),
        (call.first_at, call.last_at),
        call.count,
    );
    f.title = format!("{} has the wrong public key for {name}", call.initiator);
    let made_for = match call.made_for {
        Some(other) => format!("the key {other}, which is known here but is not that of {name}"),
        None => "a key that is not known here".to_owned(),
    };
    f.summary = format!(
        "{} came from {}, made for {made_for}. {name} has {key} and drops such messages in silence.",
        count(call.count, "initiation"),
        call.initiator
    );
    f.impact = "The caller gets no answer and no session.".to_owned();
    f.evidence = Evidence::new()
        .with("initiations", call.count)
        .with("responder_key", key.to_string())
        .maybe("made_for", call.made_for.map(|k| k.to_string()))
        .maybe(
            "kernel_says_invalid_mac",
            input
                .world
                .kernel_log
                .count(name, KernelReason::InvalidMac, call.initiator),
        )
        .with("caller", call.initiator.to_string());
    f.fixes = vec![Fix {
        title: format!("On {}, set the peer's public key to that of {name}", call.initiator.ip()),
        why: "Each message is made for one key. If the caller means another interface of this host, correct the port in \
              its endpoint instead."
            .to_owned(),
        snippet: Some(format!("[Peer]\nPublicKey = {key}")),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::observation::device::Implementation::Kernel;

    fn called(made_for: Option<PublicKey>, at: &[f64]) -> Host {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        for (index, secs) in (1..).zip(at) {
            host.called(*secs, index).checked(*secs, index, made_for, None);
        }
        host.until(12.0);
        host
    }

    #[test]
    fn two_tries_for_another_key_are_certain() {
        for made_for in [None, Some(OTHER)] {
            let host = called(made_for, &[1.0, 6.1]);
            let found = host.find(RULE.code).unwrap();
            assert_eq!(found.evidence.get("initiations"), Some(&2.into()));
            assert_eq!(
                found.evidence.get("made_for"),
                made_for.map(|k| k.to_string().into()).as_ref()
            );
            assert_eq!(host.codes(), (vec![RULE.code], vec![]));
        }
    }

    #[test]
    fn right_keys_single_datagrams_and_bursts_are_none() {
        for (made_for, at) in [
            (Some(OURS), &[1.0, 6.1][..]),
            // A scanner's.
            (None, &[1.0]),
            (None, &[1.0, 1.01, 1.02]),
        ] {
            assert!(
                called(made_for, at).find(RULE.code).is_none(),
                "{made_for:?} {at:?}"
            );
        }
        // Answered after all.
        let mut host = called(None, &[1.0, 6.1]);
        host.answer_call(6.2, 2);
        assert!(host.find(RULE.code).is_none());
    }

    #[test]
    fn many_callers_are_one_finding() {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        for (secs, round) in [(1.0, 100), (6.2, 600)] {
            for port in 1..=10u16 {
                host.checked_from(
                    secs,
                    &format!("203.0.113.1:{port}"),
                    u32::from(port) + round,
                    None,
                );
            }
        }
        let found = host.evaluate().findings;
        let of_ours: Vec<_> = found.iter().filter(|f| f.code == RULE.code).collect();
        assert_eq!(of_ours.len(), 1);
        assert_eq!(of_ours[0].evidence.get("callers"), Some(&10.into()));
    }
}

//! `wg-unknown-initiator`: an initiation to a device here opens to a key that none of its peers has.

use super::callers::{Caller, about, callers, few, subject};
use super::words::{count, quote};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::rules::shell::here;
use crate::rules::{Area, Input, Rule};
use crate::track::tunnels::DeviceTrack;

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-unknown-initiator",
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "an initiation opens with the responder's private key to a static key that no peer of it has",
    meaning: "Somebody calls with a sound message for this responder, but under a key that is not in its configuration: a \
              peer that was removed, that got a new key, or that was never added. The responder drops such messages in \
              silence, so to the caller it looks dead.",
    detection: "The responder's private key opens the caller's static key in the initiation.\n\n\
                At the responder (`doctor`): the device's own key is used, as the kernel or the daemon tells it to root; it \
                never leaves the process's memory. None of the device's peers has the caller's key. Where the private \
                key cannot be read (boringtun does not tell it) this is not checked, and the report says so.\n\n\
                In a capture, with `--keys` and the responder's wg-quick file: no `[Peer]` of it has the key. The file \
                must be the one that was in use when the capture was made.",
    fix: "If the caller is to be let in, add a `[Peer]` section with its key to the responder. If it is not, nothing \
          needs fixing here: it gets no answer.",
    needs: &[super::DEVICES, &[Source::Capture], &[Source::Keys]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    // Where peers are left out, an unknown one may be among them.
    if input.world.tunnels.left_out().peers > 0 {
        return Vec::new();
    }
    let mut by_device: Vec<(&DeviceTrack, Vec<Caller<'_>>)> = Vec::new();
    for caller in callers(input) {
        let is_unknown = caller.device.info.problems.is_empty()
            && caller.peer().is_none()
            && !caller.attempts().any(|a| a.answer.is_some());
        if !is_unknown {
            continue;
        }
        match by_device
            .iter_mut()
            .find(|(d, _)| d.info.name == caller.device.info.name)
        {
            Some((_, known)) => known.push(caller),
            None => by_device.push((caller.device, vec![caller])),
        }
    }
    by_device
        .iter()
        .flat_map(|(device, callers)| {
            let found = callers.iter().map(|c| (c.identity.last.0, report(input, c)));
            few(device, "have keys that it does not know", found.collect())
        })
        .collect()
}

fn report(input: &Input<'_>, caller: &Caller<'_>) -> Finding {
    let (device, i) = (caller.device, caller.identity);
    let name = &device.info.name;
    let from = i.last.0;
    let mut f = about(
        RULE.code,
        (Severity::Warning, Confidence::Certain),
        subject(device, Some(i.initiator), i.last),
        (i.first_at, i.last_at),
        i.count,
    );
    f.title = format!("{from} calls with a key that {name} does not know");
    f.summary = format!(
        "{} from {from} open to the key {}, which none of the {} of {name} has.",
        count(i.count, "initiation"),
        i.initiator,
        count(device.present_peers().count() as u64, "peer")
    );
    f.impact = "The caller gets no answer.".to_owned();
    f.evidence = Evidence::new()
        .with("initiator_key", i.initiator.to_string())
        .with("responder_key", i.responder.to_string())
        .with("initiations", i.count)
        .with("peers", device.present_peers().count() as u64);
    f.fixes = vec![Fix {
        title: format!("If the caller is to be let in, add it to {name}"),
        why: "WireGuard answers known keys only. Put its addresses in the tunnel for ADDRESSES; a peer whose key it \
              replaces is to be removed."
            .to_owned(),
        command: Some(here(
            input.world.host.as_ref(),
            &format!("wg set {} peer {} allowed-ips ADDRESSES", quote(name), i.initiator),
        )),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::observation::device::Implementation::{Boringtun, Kernel};
    use crate::observation::{Body, SourceStatus};

    #[test]
    fn a_key_that_no_peer_has_is_unknown() {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.called(1.0, 1).checked(1.0, 1, Some(OURS), Some((OTHER, 0)));
        let found = host.find(RULE.code).unwrap();
        assert_eq!(
            found.evidence.get("initiator_key"),
            Some(&OTHER.to_string().into())
        );
        assert_eq!(host.codes(), (vec![RULE.code], vec![]));
    }

    #[test]
    fn peers_and_those_that_were_answered_are_known() {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.called(1.0, 1).checked(1.0, 1, Some(OURS), Some((KEY, 0)));
        assert!(host.find(RULE.code).is_none());
        host.called(7.0, 2)
            .checked(7.0, 2, Some(OURS), Some((OTHER, 6)))
            .answer_call(7.1, 2);
        assert!(host.find(RULE.code).is_none());
    }

    #[test]
    fn a_key_that_cannot_be_read_is_not_checked() {
        let mut host = Host::new(Boringtun);
        let status = SourceStatus::unavailable("the private key of wg0 cannot be read");
        host.see(0.0, Source::Keys, Body::Status(status));
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.called(1.0, 1);
        let evaluation = host.evaluate();
        let not_checked: Vec<_> = evaluation
            .not_checked
            .iter()
            .filter(|n| n.code == RULE.code)
            .collect();
        assert_eq!(not_checked[0].missing, [Source::Keys]);
    }
}

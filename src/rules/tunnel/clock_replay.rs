//! `wg-clock-replay`: a peer's clock went back, so a device here takes its initiations for replays.

use super::callers::{Caller, about, callers, subject};
use super::words::{count, quote, time};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::device::KernelReason;
use crate::rules::{Area, Input, Rule};
use crate::track::handshake::Outcome;
use crate::track::opened::Replay;
use crate::track::tunnels::Delivery;
use crate::wire::tai64n::Scale;

use super::view::View;

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-clock-replay",
    area: Area::Wireguard,
    severity: "critical",
    holds_when: "an initiation's timestamp is not later than the greatest that was seen from that key",
    meaning: "Each initiation carries its maker's time, and a responder takes only what is later than all before, so that \
              old messages cannot be replayed. A clock that went back (no battery, a restored snapshot, a resumed \
              virtual machine) makes every new message look like a replay: the responder drops it in silence until \
              the clock has caught up.",
    detection: "With the responder's private key the timestamps open: a new message (another first MAC) has one that is not \
                later than the greatest before it from that key, and got no answer: certain. Implementations in Rust \
                count 27 s ahead of the kernel's scale; a key that moved from one to the other shows exactly that.\n\n\
                At the responder (`doctor`) the greatest may be from before wgnat looked, and the device does not tell it. \
                There it is found by exclusion: the message was made for this device, opens with its key, its maker is one \
                of the peers, it reached a socket as far as the counters tell, and yet the device neither answered nor \
                counted it. Nothing but the timestamp is left that it can have refused: likely, and certain where the \
                kernel's log calls the initiation invalid.",
    fix: "Set the initiator's clock before WireGuard starts (`chronyc makestep`, or a unit that orders wg-quick after \
          time synchronisation). To let it in at once, remove the peer on the responder and add it again: that forgets \
          the greatest timestamp.",
    needs: &[super::DEVICES, &[Source::Capture], &[Source::Keys]],
    explained_by: &["wg-local-drop"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    callers(input)
        .iter()
        .filter_map(|caller| {
            let view = caller.peer()?;
            let proof = match proven(caller) {
                Some(replay) => Proof::Replay(replay),
                None => Proof::Exclusion(excluded(input, caller, &view)?),
            };
            Some(report(caller, &view, &proof))
        })
        .collect()
}

/// What shows it.
enum Proof<'a> {
    /// A message that is not later than one before it.
    Replay(&'a Replay),
    /// Nothing else is left; how sure that is.
    Exclusion(Confidence),
}

/// The newest message that is not later than one before it, and got no answer.
fn proven<'a>(caller: &Caller<'a>) -> Option<&'a Replay> {
    let refused = |r: &&Replay| !caller.attempts().any(|a| a.sender == r.sender && a.is_answered());
    caller.identity.replays.iter().rfind(refused)
}

/// How sure it is that nothing but the timestamp is left for which the device can have refused its messages; `None` where
/// something else is.
fn excluded(input: &Input<'_>, caller: &Caller<'_>, view: &View<'_>) -> Option<Confidence> {
    // Where handshake bytes are not counted, an accepted message cannot be told from a refused one.
    if !view.counts() || !view.info().problems.is_empty() {
        return None;
    }
    let now = input.now();
    let over = |a: &&crate::track::handshake::Attempt| a.outcome(now) == Outcome::Unanswered;
    let refused: Vec<_> = caller
        .attempts()
        .rev()
        .skip_while(|a| a.outcome(now) == Outcome::Pending)
        .take_while(over)
        .collect();
    let needed = usize::try_from(input.thresholds.unanswered_attempts).unwrap_or(usize::MAX);
    let first = refused.last()?;
    // What it accepts it counts as 148 bytes. Data of an older session may still come in between.
    let accepted =
        view.peer.traffic.called > 0 || view.peer.last_handshake(now).is_some_and(|at| at > first.at);
    let port = caller.identity.last.1.port();
    let v6 = caller.identity.last.1.is_ipv6();
    let delivery = Delivery::to_port(input.world, port, v6)?;
    if refused.len() < needed || accepted || delivery.dropped() > 0 {
        return None;
    }
    // Where much other UDP comes, the counters would hide an input rule for this port; another peer that gets through
    // shows that there is none.
    let quiet = delivery.accounted <= delivery.arrived + 1;
    let others = caller.device.present_peers();
    let others_heard = others
        .filter(|(key, _)| **key != view.key)
        .any(|(_, peer)| peer.delta().0 > 0);
    Some(match quiet || others_heard {
        true => Confidence::Likely,
        false => Confidence::Possible,
    })
}

fn report(caller: &Caller<'_>, view: &View<'_>, proof: &Proof<'_>) -> Finding {
    let (proven, excluded) = match *proof {
        Proof::Replay(replay) => (Some(replay), Confidence::Certain),
        Proof::Exclusion(confidence) => (None, confidence),
    };
    let (i, name) = (caller.identity, view.name());
    let from = i.last.0;
    // The kernel's word for an unknown key, a replay, or one that comes too soon; neither of the others is left.
    let kernel = caller
        .world
        .kernel_log
        .count(name, KernelReason::InvalidInitiation, from);
    let confidence = match kernel {
        Some(_) => Confidence::Certain,
        None => excluded,
    };
    let mut f = about(
        RULE.code,
        (Severity::Critical, confidence),
        subject(caller.device, Some(i.initiator), i.last),
        (i.first_at, i.last_at),
        i.count,
    );
    // On one scale, so that only their distance counts.
    let back = proven.and_then(|r| Some(r.greatest.unix(Scale::Kernel)? - r.stamp.unix(Scale::Kernel)?));
    let stamp = i.last_stamp;
    let told = stamp.unix(stamp.likely_scale());
    // A message takes no time to speak of, so this is how far its clock is behind ours, where it is.
    let behind = told.map(|told| i.last_at.since(told));
    f.title = format!("{name} takes the handshakes of {from} for replays: its clock went back");
    f.summary = match proven {
        Some(_) => format!(
            "{} of {} carry a time that is not later than one before{}, and got no answer.",
            count(i.replay_count, "initiation"),
            i.initiator.short(),
            back.map_or_else(String::new, |back| format!(" ({} behind it)", time(back)))
        ),
        None => format!(
            "{} of the peer {} were made for {name}, opened with its key, and were neither answered nor counted. Only \
             their time can be what {name} refused: it has seen a later one from this key before.{}",
            count(i.count, "initiation"),
            i.initiator.short(),
            match behind.filter(|b| b.as_secs() >= 2) {
                Some(behind) => format!(" That clock is {} behind this host's.", time(behind)),
                None => " That clock agrees with this host's now, so it was ahead before, or the key was used by an \
                         implementation that counts 27 s ahead (boringtun and its kin)."
                    .to_owned(),
            }
        ),
    };
    f.impact = "No handshake succeeds until that clock has caught up.".to_owned();
    f.evidence = Evidence::new()
        .with("initiator_key", i.initiator.to_string())
        .with("initiations", i.count)
        .with("replays", i.replay_count)
        .maybe("seconds_behind_greatest", back.map(|b| b.as_secs_f64()))
        .maybe("stamp", told.map(|t| t.to_string()))
        .maybe("behind_this_host_seconds", behind.map(|b| b.as_secs_f64()))
        .maybe(
            "greatest_before",
            proven.and_then(|r| Some(r.greatest.unix(r.greatest.likely_scale())?.to_string())),
        )
        .maybe("kernel_says_invalid_initiation", kernel)
        .with("rx_bytes_while_watched", view.peer.delta().0);
    if confidence != Confidence::Certain {
        f.candidates = vec![Candidate {
            cause: "This host drops them between the interface and the device (an input rule)".to_owned(),
            code: Some("wg-local-drop"),
            settle: view.here("nft list ruleset") + ": a counter that grows with each attempt is it",
        }];
    }
    let mut fixes = vec![Fix {
        title: format!(
            "On {}, set the clock and let it be set before WireGuard starts",
            from.ip()
        ),
        why: "A responder takes only messages that are later than all before.".to_owned(),
        command: Some("chronyc makestep || timedatectl set-ntp true".to_owned()),
        ..Fix::default()
    }];
    fixes.push(Fix {
        title: "To let it in at once, make this host forget the time".to_owned(),
        why: format!(
            "The greatest time belongs to the peer's entry: remove it (`wg set {} peer {} remove`) and apply the \
             configuration again, which adds it anew.",
            quote(name),
            i.initiator
        ),
        ..Fix::default()
    });
    f.fixes = fixes;
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::observation::device::Implementation::{Boringtun, Kernel};

    /// A peer calls three times, at that clock, and is neither answered nor counted.
    fn refused(
        implementation: crate::observation::device::Implementation,
        back: i64,
        datagrams: u64,
    ) -> Host {
        let mut host = Host::new(implementation);
        host.counters(0.0, "Udp.InDatagrams", 5);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        for (index, secs) in [(1, 1), (2, 6), (3, 12)] {
            host.called(secs as f64, index);
            host.checked(secs as f64, index, Some(OURS), Some((KEY, secs - back)));
        }
        host.counters(13.0, "Udp.InDatagrams", 5 + datagrams);
        host.peer(13.0, peer_with(0, 0, None)).until(14.0);
        host
    }

    #[test]
    fn what_is_neither_answered_nor_counted_is_likely_a_replay() {
        let host = refused(Kernel, 100, 3);
        let found = host.find(RULE.code).unwrap();
        assert_eq!(found.confidence, Confidence::Likely);
        let behind = found
            .evidence
            .get("behind_this_host_seconds")
            .and_then(serde_json::Value::as_f64);
        assert!(behind.is_some_and(|b| (99.0..101.0).contains(&b)), "{behind:?}");
        assert_eq!(host.codes(), (vec![RULE.code], vec![]));
    }

    #[test]
    fn what_goes_back_while_watched_is_certain() {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.called(1.0, 1).checked(1.0, 1, Some(OURS), Some((KEY, 30)));
        host.called(6.0, 2).checked(6.0, 2, Some(OURS), Some((KEY, 6)));
        let found = host.find(RULE.code).unwrap();
        assert_eq!(found.confidence, Confidence::Certain);
        assert_eq!(found.evidence.get("seconds_behind_greatest"), Some(&24.0.into()));
        // Answered: it was no replay to the device.
        host.answer_call(6.1, 2);
        assert!(host.find(RULE.code).is_none());
    }

    #[test]
    fn what_is_counted_uncountable_or_dropped_before_is_none() {
        assert!(refused(Boringtun, 0, 3).find(RULE.code).is_none());
        let mut host = refused(Kernel, 0, 3);
        host.peer(15.0, peer_with(148, 0, None));
        assert!(host.find(RULE.code).is_none(), "accepted");
        // Much other UDP comes: an input rule would not show.
        let found = refused(Kernel, 0, 500).find(RULE.code).unwrap();
        assert_eq!(found.confidence, Confidence::Possible);
        // No UDP was delivered although three messages came.
        let mut host = Host::new(Kernel);
        host.counters(0.0, "Udp.InDatagrams", 5);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        for (index, secs) in [(1, 1), (2, 6), (3, 12)] {
            host.called(secs as f64, index);
            host.checked(secs as f64, index, Some(OURS), Some((KEY, secs)));
        }
        host.counters(13.0, "Udp.InDatagrams", 5);
        host.peer(13.0, peer_with(0, 0, None)).until(14.0);
        assert!(host.find(RULE.code).is_none());
    }
}

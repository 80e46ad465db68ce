//! `wg-handshake-loss`: handshakes complete, but only after retransmission.

use super::parties::{Role, passing, roles};
use crate::finding::Finding;
use crate::observation::Source;
use crate::rules::captured::handshake_loss::{Tally, report};
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-handshake-loss",
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "handshakes complete, but a share of the attempts needs a retransmission first",
    meaning: "Each handshake is one message there and one back. When either is lost the initiator waits five seconds and \
              tries again, so every loss delays the tunnel by that long, or cuts it when the old session is over in the \
              meantime. Here handshakes do get through, but not at the first try.",
    detection: "Attempts that were retried without an answer, against attempts that were answered. A retry proves that \
                the initiator got no answer that it accepted, so captures of one direction only do not deceive. The \
                share comes with its 95 % confidence interval (Wilson's), because attempts are few: a look of a minute \
                or the agent's history tell more than five seconds. Attempts that were answered by a cookie or an ICMP \
                error do not count. On a live host: those that this host makes, and those that it forwards.",
    fix: "Find where packets are lost: capture on both hosts and compare. A policer, a full uplink or a weak radio loses \
          any packet; a stateful firewall that forgets UDP loses only the first ones.\n\n\
          `PersistentKeepalive = 25` keeps firewalls and NATs on the way open, so that the first attempt passes.",
    needs: &[super::DEVICES, &[Source::Capture]],
    explained_by: &["wg-handshake-timeout"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    let holds = |tally: &Tally| tally.lost >= needed && tally.answered > 0 && tally.recovered;
    let own = roles(input).filter_map(|(initiator, role)| match role {
        Role::Caller(view) => {
            let tally = Tally::of(initiator.end);
            // Answers that the device did not accept are another matter.
            (holds(&tally) && view.silence.rejected == 0).then(|| Finding {
                subject: view.subject(),
                ..report(&initiator, &tally)
            })
        }
        Role::Called(_) | Role::Former | Role::Passing => None,
    });
    let mut findings: Vec<Finding> = own.collect();
    findings.extend(passing(input).iter().filter_map(|p| {
        let tally = Tally::of(p.initiator.end);
        holds(&tally).then(|| report(&p.initiator, &tally))
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::finding::Confidence;
    use crate::observation::device::Implementation::Kernel;

    #[test]
    fn two_retries_before_an_answer_are_a_loss() {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.call(0.5, 1).call(5.6, 2).call(10.8, 3).answered(10.83, 3);
        host.peer(12.0, peer_with(92, 476, Some(10.83)));
        let found = host.find(RULE.code).unwrap();
        assert_eq!(found.confidence, Confidence::Certain);
        assert_eq!(found.evidence.get("lost_attempts"), Some(&2.into()));
        assert_eq!(host.codes(), (vec![RULE.code], vec![]));
    }

    #[test]
    fn one_retry_or_no_answer_is_none() {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.call(0.5, 1).call(5.6, 2).answered(5.63, 2);
        host.peer(6.0, peer_with(92, 328, Some(5.63)));
        assert_eq!(host.codes(), (vec![], vec![]));
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.call(0.5, 1).call(5.6, 2).call(10.8, 3).until(16.5);
        assert!(host.find(RULE.code).is_none());
    }
}

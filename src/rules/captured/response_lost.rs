//! `wg-response-lost` in a capture made on the responder's host: its answers leave, and the initiator starts over.

use super::CAPTURE;
use super::response_rejected::refused;
use super::view::{Initiator, count, finding, initiators};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::packet::Direction;
use crate::rules::{Area, Input, Rule};
use crate::track::handshake::Attempt;

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-response-lost",
    area: Area::Wireguard,
    severity: "critical, warning where a rejection is as likely",
    holds_when: "a host answers initiations, yet the same initiator keeps initiating and no data follows: the responses do \
                 not get back",
    meaning: "The way to the responder is open, its keys are right, it answers; and the initiator behaves as if nothing \
              had come. So the answers are lost on their way back: a firewall that lets UDP in and not out, a NAT that \
              forgot the flow, a route back that leads elsewhere.",
    detection: "Twice or more in a row: an initiation comes in, its response goes out, no data follows under the session \
                that it offers, and the initiator starts over within the time of a retry. From the responder's host alone \
                a response that is lost looks like one that is refused (another preshared key), so there it is a hint. With \
                a second capture, made at the initiator, it is certain.",
    fix: "Follow the response: `tcpdump` on each hop for UDP of 92 bytes. Allow UDP from the responder's port out and \
          back; where the responder has several addresses, let it answer from the one that was called.",
    needs: CAPTURE,
    explained_by: &["wg-duplicate-key"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = usize::try_from(input.thresholds.unanswered_attempts).unwrap_or(usize::MAX);
    initiators(input)
        .filter_map(|initiator| {
            let lost = refused(&initiator);
            (lost.len() >= needed && all_left(&lost)).then(|| report(&initiator, &lost))
        })
        .collect()
}

/// Whether all these answers were seen leaving, and none coming in: the capture was made where they began.
pub(super) fn all_left(refused: &[&Attempt]) -> bool {
    refused.iter().filter_map(|a| a.answer.as_ref()).all(|answer| {
        let mut taps = answer.taps.iter().peekable();
        taps.peek().is_some() && taps.all(|(direction, _)| direction == Direction::Out)
    })
}

fn report(i: &Initiator<'_>, lost: &[&Attempt]) -> Finding {
    let (first, last) = match lost {
        [first, .., last] => (first.at, last.at),
        [only] => (only.at, only.at),
        [] => (i.world.started, i.world.now),
    };
    let n = lost.len() as u64;
    let levels = (Severity::Warning, Confidence::Possible);
    let mut f = finding(RULE.code, levels, i.subject(), (first, last));
    f.count = u32::try_from(n).unwrap_or(u32::MAX);
    f.title = format!(
        "{} does not seem to get the answers of {}",
        i.end.address, i.responder
    );
    f.summary = format!(
        "{} of it were answered from this host, and each time it started over without sending data.",
        count(n, "attempt")
    );
    f.impact = "No session comes up between the two.".to_owned();
    f.evidence = Evidence::new()
        .with("responses_without_effect", n)
        .with("initiations", i.end.messages.initiations)
        .with("answered_attempts", i.end.answered);
    let candidate = |cause: &str, code, settle: &str| Candidate {
        cause: cause.to_owned(),
        code,
        settle: settle.to_owned(),
    };
    f.candidates = vec![
        candidate(
            "the responses are lost on the way to the initiator",
            None,
            "capture on the initiator's host too: `wgnat analyze THERE.pcap HERE.pcap`",
        ),
        candidate(
            "they arrive and are refused: the preshared keys differ",
            Some("wg-response-rejected"),
            "compare `wg show all preshared-keys` on both hosts",
        ),
    ];
    f.fixes = vec![Fix {
        title: "Capture on the initiator's host while it tries".to_owned(),
        why: "Responses of 92 bytes arrive there: they are refused. They do not: the way back is blocked."
            .to_owned(),
        command: Some(format!(
            "tcpdump -ni any -w initiator.pcap udp port {}",
            i.responder.port()
        )),
        ..Fix::default()
    }];
    f
}

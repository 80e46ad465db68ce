//! `wg-handshake-timeout` by a probe: initiations leave and nothing comes back.

use super::PROBE;
use super::view::{count, finding, place, probes, secs, waited};
use crate::finding::{Candidate, Confidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, tunnel};
use crate::time::Span;
use crate::track::probes::Probe;

/// The rule.
pub const RULE: Rule = Rule {
    needs: PROBE,
    explained_by: &[
        "wg-no-route",
        "wg-endpoint-unreachable",
        "wg-response-rejected",
        "wg-stale-key",
        "wg-websocket-only",
        "udp-blocked",
    ],
    check,
    ..tunnel::HANDSHAKE_TIMEOUT
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    probes(input)
        .filter(|p| fails(p, needed))
        .map(|p| report(p, input))
        .collect()
}

/// Whether nothing that could carry a session came of it.
pub(super) fn fails(probe: &Probe, needed: u64) -> bool {
    let t = probe.tally();
    !probe.works() && t.preshared_key_differs == 0 && t.silent + t.cookies + t.unconfirmed >= needed
}

fn report(probe: &Probe, input: &Input<'_>) -> Finding {
    let mut f = finding(RULE.code, (Severity::Critical, Confidence::Certain), probe);
    let t = probe.tally();
    f.count = u32::try_from(t.silent).unwrap_or(u32::MAX);
    f.title = format!("{} does not answer handshakes", place(probe));
    f.summary = format!(
        "{} over {}, {} waited for each, and {}.",
        count(t.sent, "initiation"),
        probe.target.transport.name(),
        secs(waited(probe).unwrap_or(Span::ZERO)),
        match (t.cookies, probe.not_wireguard()) {
            (0, None) => "nothing came back. WireGuard is silent about refusals, so the causes below look alike from here".to_owned(),
            (0, Some(stray)) => format!("what came back is not WireGuard (it begins {})", stray.begins),
            (cookies, _) => format!("{} came instead of an answer", count(cookies, "cookie reply").replace("replys", "replies")),
        }
    );
    f.impact = "No session comes up with this peer over this way.".to_owned();
    f.candidates = candidates(probe, input);
    let port = probe.target.address.map_or(0, |a| a.port());
    f.fixes = vec![Fix {
        title: "Look at the peer's host while this runs again".to_owned(),
        why: "Nothing arrives: the way. 148 bytes arrive and no 92 leave: a key or the clock. They leave: the way back.".to_owned(),
        command: Some(format!("tcpdump -ni any udp port {port}")),
        ..Fix::default()
    }];
    f
}

fn candidate(code: Option<&'static str>, cause: String, settle: String) -> Candidate {
    Candidate { cause, code, settle }
}

/// What the silence leaves open.
fn candidates(probe: &Probe, input: &Input<'_>) -> Vec<Candidate> {
    let target = &probe.target;
    let t = probe.tally();
    let mut list = Vec::new();
    if probe.not_wireguard().is_some() {
        list.push(candidate(
            None,
            "Another service answers at this address and port".to_owned(),
            "Compare the endpoint with `wg show all listen-port` on the peer".to_owned(),
        ));
    }
    if t.unconfirmed > 0 {
        list.push(candidate(
            Some("wg-response-rejected"),
            "It called back and did not take our answer: the preshared keys differ, or our answer is lost"
                .to_owned(),
            "Compare the preshared keys on both sides, in private".to_owned(),
        ));
        return list;
    }
    if t.cookies > 0 {
        list.push(candidate(
            Some("wg-under-load"),
            "The peer gets more handshakes than it can check, and rations them".to_owned(),
            format!(
                "On the peer: `tcpdump -ni any 'udp dst port {} and udp[8] = 1'` shows who floods it",
                target.address.map_or(0, |a| a.port())
            ),
        ));
    } else {
        // Another peer at that address that answers excludes most of the way.
        let neighbour = probes(input).any(|other| {
            other.works()
                && other.target.address == target.address
                && other.target.transport == target.transport
        });
        if !neighbour {
            list.push(candidate(
                None,
                "UDP is dropped on the way there or back, the peer is off, or the endpoint is wrong"
                    .to_owned(),
                format!(
                    "On the peer: `tcpdump -ni any udp port {}`; no initiation arrives",
                    target.address.map_or(0, |a| a.port())
                ),
            ));
        }
        list.push(candidate(
            Some("wg-wrong-peer-key"),
            format!("{} is not the peer's public key", target.public_key.short()),
            format!(
                "On the peer: `wg show all public-key` does not print {}",
                target.public_key
            ),
        ));
    }
    list.push(candidate(
        Some("wg-unknown-initiator"),
        format!(
            "The peer does not know the key that we probe with ({})",
            target.local_public_key.short()
        ),
        format!(
            "On the peer: `wg show all peers` does not list {}",
            target.local_public_key
        ),
    ));
    list.push(candidate(
        Some("wg-clock-replay"),
        "This host's clock is behind one that this key was used with, so the peer takes each initiation for a replay".to_owned(),
        "Compare `date -u` on both hosts".to_owned(),
    ));
    if t.cookies == 0 {
        list.push(candidate(
            None,
            "Something on the way recognises WireGuard and blocks it".to_owned(),
            "Try from another network: if it works there, it is the network".to_owned(),
        ));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Probed, codes, millis, secs};
    use super::*;
    use crate::observation::probe::Outcome;

    #[test]
    fn two_silences_and_nothing_else() {
        let silent = Outcome::Silent { waited: secs(5) };
        let mut probed = Probed::new();
        probed.attempt(silent.clone());
        assert!(probed.check(&RULE).is_empty(), "one lost packet is no finding");
        probed.attempt(silent.clone());
        let found = probed.check(&RULE);
        assert_eq!(codes(&found), ["wg-handshake-timeout"]);
        let causes: Vec<_> = found[0].candidates.iter().filter_map(|c| c.code).collect();
        assert_eq!(
            causes,
            ["wg-wrong-peer-key", "wg-unknown-initiator", "wg-clock-replay"]
        );
        probed.attempt(Outcome::Answered { rtt: millis(20) });
        assert!(probed.check(&RULE).is_empty());
    }

    #[test]
    fn a_gateway_that_calls_back_and_takes_no_answer() {
        let mut probed = Probed::new();
        for confirmed in [None, None] {
            let after = millis(300);
            probed.attempt(Outcome::CalledBack { after, confirmed });
        }
        let found = probed.check(&RULE);
        let causes: Vec<_> = found[0].candidates.iter().filter_map(|c| c.code).collect();
        assert_eq!(causes, ["wg-response-rejected"]);
    }

    #[test]
    fn a_cookie_excludes_the_way_and_the_peers_key() {
        let mut probed = Probed::new();
        probed.attempt(Outcome::Cookie { rtt: millis(20) });
        probed.attempt(Outcome::Silent { waited: secs(5) });
        let found = probed.check(&RULE);
        let causes: Vec<_> = found[0].candidates.iter().filter_map(|c| c.code).collect();
        assert_eq!(
            causes,
            ["wg-under-load", "wg-unknown-initiator", "wg-clock-replay"]
        );
    }
}

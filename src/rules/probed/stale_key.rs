//! `wg-stale-key` by a probe: the gateway is there, and this key gets silence.

use super::PROBE;
use super::handshake_timeout::fails;
use super::view::{finding, place, probes};
use crate::finding::{Candidate, Confidence, Finding, Fix, Severity};
use crate::rules::{Area, Input, Rule};
use crate::track::probes::Probe;

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-stale-key",
    area: Area::Wireguard,
    severity: "critical",
    holds_when: "the gateway is reachable (another transport or another peer proves it), yet this key gets silence: removed or \
                 expired at the gateway",
    meaning: "WireGuard does not answer a key that it does not know. So a key that was removed at the gateway, or that expired \
              there, looks like a dead gateway. Here the gateway is alive: another key gets its answer from the same address, or \
              the gateway takes connections over its other transport. flyctl removes the keys of its peers at the gateway when \
              they have not been used for a while, and keeps them in its file until its agent looks.",
    detection: "Two initiations or more without any answer, while another key of this host is answered by the same gateway key at \
                the same address, or the gateway's WebSocket opens and is silent for this key too. What is left is the key, or \
                a clock that went back (a gateway takes rising timestamps only), hence likely and not certain.",
    fix: "Make a new peer: for flyctl `fly wireguard reset`, else a new key pair that the gateway learns. Before that compare \
          `date -u` with another clock.",
    needs: PROBE,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    let mut told = Vec::new();
    let mut found = Vec::new();
    for probe in probes(input).filter(|p| fails(p, needed) && p.tally().cookies == 0) {
        let keys = (probe.target.local_public_key, probe.target.public_key);
        // Over another transport the same key does get its answer: then it is the transport.
        let works =
            probes(input).any(|p| (p.target.local_public_key, p.target.public_key) == keys && p.works());
        if works || told.contains(&keys) {
            continue;
        }
        if let Some(proof) = proof(probe, input) {
            told.push(keys);
            found.push(report(probe, proof));
        }
    }
    found
}

/// What shows that the gateway is there.
fn proof(probe: &Probe, input: &Input<'_>) -> Option<String> {
    let target = &probe.target;
    let neighbour = probes(input).find(|other| {
        other.works()
            && other.target.address == target.address
            && other.target.public_key == target.public_key
    });
    if let Some(other) = neighbour {
        return Some(format!(
            "the same gateway answers the key {} over {}",
            other.target.local_public_key.short(),
            other.target.transport.name()
        ));
    }
    let websocket = probes(input).find(|other| {
        other.target.public_key == target.public_key
            && other.target.local_public_key == target.local_public_key
            && other.websocket.as_ref().is_some_and(|w| w.upgraded)
            && other.tally().silent > 0
    });
    websocket.map(|_| "the gateway's WebSocket opens, and is silent for this key too".to_owned())
}

fn report(probe: &Probe, proof: String) -> Finding {
    let mut f = finding(RULE.code, (Severity::Critical, Confidence::Likely), probe);
    f.count = u32::try_from(probe.tally().silent).unwrap_or(u32::MAX);
    f.title = format!(
        "{} does not know the key {} (any more)",
        place(probe),
        probe.target.local_public_key.short()
    );
    f.summary = format!(
        "{} initiations with it got no answer, while {proof}.",
        probe.tally().sent
    );
    f.impact = "No session comes up with this key.".to_owned();
    f.evidence = f
        .evidence
        .with("local_public_key", probe.target.local_public_key.to_string())
        .with("gateway_is_there", proof);
    f.candidates = vec![Candidate {
        cause: "This host's clock is behind one that this key was used with".to_owned(),
        code: Some("wg-clock-replay"),
        settle: "Compare `date -u` with another clock".to_owned(),
    }];
    let fly = probe.target.configured_transport.is_some();
    f.fixes = vec![Fix {
        title: "Make a new peer at the gateway".to_owned(),
        why: "The old key stays in the file and is known to nobody.".to_owned(),
        command: fly.then(|| "fly wireguard reset".to_owned()),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Probed, codes, millis, secs, target};
    use super::*;
    use crate::observation::probe::{Fact, Outcome, Target, Transport, Websocket};
    use crate::types::PublicKey;

    fn silent(probed: &mut Probed) {
        for _ in 0..2 {
            probed.attempt(Outcome::Silent { waited: secs(5) });
        }
    }

    #[test]
    fn another_key_is_answered_by_the_same_gateway() {
        let mut probed = Probed::new();
        silent(&mut probed);
        assert!(probed.check(&RULE).is_empty());
        probed.next(Target {
            local_public_key: PublicKey([7; 32]),
            ..target()
        });
        probed.attempt(Outcome::Answered { rtt: millis(9) });
        assert_eq!(codes(&probed.check(&RULE)), ["wg-stale-key"]);
    }

    #[test]
    fn the_websocket_opens_and_is_silent_too() {
        let mut probed = Probed::new();
        silent(&mut probed);
        probed.next(Target {
            transport: Transport::Websocket,
            ..target()
        });
        let websocket = |upgraded| {
            Fact::Websocket(Websocket {
                tcp: true,
                tls: upgraded,
                upgraded,
                ..Websocket::default()
            })
        };
        probed.fact(websocket(true));
        assert!(probed.check(&RULE).is_empty(), "it has not been silent yet");
        silent(&mut probed);
        let found = probed.check(&RULE);
        assert_eq!(codes(&found), ["wg-stale-key"], "once for both transports");
        assert_eq!(found[0].confidence, Confidence::Likely);
        // One answer over either: it is not the key.
        probed.attempt(Outcome::Answered { rtt: millis(9) });
        assert!(probed.check(&RULE).is_empty());
    }
}

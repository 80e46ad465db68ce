//! `nat-mapping-short`: the NAT forgets an idle UDP mapping sooner than the keepalive comes.

use super::view::{translated, udp_subject};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::nat::FamilyFacts;
use crate::rules::{Area, Input, Rule};
use crate::time::Timestamp;
use crate::words::{rounded, seconds, whole};

/// The rule.
pub const RULE: Rule = Rule {
    code: "nat-mapping-short",
    area: Area::Upstream,
    severity: "warning",
    holds_when: "the NAT in front forgets an idle UDP mapping sooner than the persistent keepalive in use, or within 30 s",
    meaning: "A NAT keeps the way back open for a while after the last packet. When it forgets, what the peer sends is lost until this \
side sends again, and then from another port. RFC 4787 asks for two minutes at least; some NATs keep 20 or 30 seconds.",
    detection: "Mappings of different ages are each called once, from another socket by way of the server (RESPONSE-PORT; RFC 5780, \
section 4.6): the longest that still let the answer in and the shortest that did not bound the lifetime. What did not must be found gone in two rounds, so a link that went down or a NAT that restarted is none. Measured with one packet each \
way; a NAT may keep busier flows longer.",
    fix: "Set PersistentKeepalive below the lifetime on the side behind the NAT; the finding names the number.",
    needs: &[&[Source::Nat]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let keepalives = input
        .world
        .tunnels
        .devices()
        .flat_map(|device| device.present_peers())
        .filter_map(|(_, peer)| peer.newest.keepalive.filter(|k| *k > 0));
    let longest = keepalives.max();
    translated(input)
        .filter_map(|(at, f)| short(input, at, f, longest))
        .collect()
}

fn short(input: &Input<'_>, at: Timestamp, f: &FamilyFacts, keepalive: Option<u16>) -> Option<Finding> {
    let lifetime = f.lifetime?;
    let gone = lifetime.gone_after?;
    let alive = lifetime.alive_after.as_secs_f64();
    // It lies between the two: only what is certain to be too short is told.
    let under_keepalive = keepalive.filter(|k| f64::from(*k) >= gone);
    if under_keepalive.is_none() && gone > input.thresholds.mapping_short.as_secs_f64() {
        return None;
    }
    // Room for a lost keepalive is not given by half the time alone; two thirds keep the traffic low and come in time.
    let advised = whole((alive * 2.0 / 3.0).floor()).clamp(1, 25);
    Some(Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: Confidence::Certain,
        title: format!("The NAT in front forgets an idle UDP flow within {}", seconds(gone)),
        subject: udp_subject(f),
        summary: format!(
            "A mapping idle for {} still let an answer in; one idle for {} no longer did.{}",
            seconds(alive),
            seconds(gone),
            match under_keepalive {
                Some(k) => format!(" The longest persistent keepalive here is {k} s: too slow."),
                None => String::new(),
            }
        ),
        evidence: Evidence::new()
            .with("family", f.family.name())
            .with("mapping_lifetime_seconds", rounded(alive))
            .with("mapping_lifetime_at_most_seconds", rounded(gone))
            .maybe("keepalive_seconds", keepalive),
        impact: "After a silence nothing from outside reaches this host until it sends again; a tunnel's peer then sees another port."
            .to_owned(),
        candidates: Vec::new(),
        fixes: vec![Fix {
            title: format!("Set PersistentKeepalive to {advised} s for the peers behind this NAT"),
            why: "A packet in time keeps the mapping.".to_owned(),
            command: Some(format!("wg set DEVICE peer PUBLIC-KEY persistent-keepalive {advised}")),
            snippet: Some(format!("[Peer]\nPersistentKeepalive = {advised}")),
            expect: Evidence::new(),
        }],
        first_seen: at,
        last_seen: at,
        count: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::nat::LifetimeFacts;
    use crate::rules::upstream::testing::{facts, found};
    use crate::time::Span;

    #[test]
    fn short_is_what_is_certain_to_be() {
        for (alive, gone, fires) in [
            (17, Some(22.0), true),
            (28, Some(30.0), true),
            (28, Some(33.0), false),
            (115, Some(125.0), false),
            (20, None, false),
        ] {
            let mut f = facts();
            f.families[0].lifetime = Some(LifetimeFacts {
                alive_after: Span::from_secs(alive),
                gone_after: gone,
            });
            assert_eq!(found(&RULE, f).len(), usize::from(fires), "{alive} {gone:?}");
        }
    }
}

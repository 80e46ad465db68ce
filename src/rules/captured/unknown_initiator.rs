//! `wg-unknown-initiator`: an initiation opens to a key that no peer of the responder has.

use super::WITH_KEYS;
use super::view::{count, finding, peer};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, tunnel};
use crate::track::opened::Identity;

/// The rule.
pub const RULE: Rule = Rule {
    needs: WITH_KEYS,
    explained_by: &[],
    check,
    ..tunnel::UNKNOWN_INITIATOR
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let identities = input.world.opened.identities();
    identities
        .into_iter()
        .filter(|i| i.is_listed == Some(false))
        .map(report)
        .collect()
}

fn report(i: &Identity) -> Finding {
    let (from, to) = i.last;
    let levels = (Severity::Warning, Confidence::Certain);
    let mut f = finding(RULE.code, levels, peer(to, from), (i.first_at, i.last_at));
    f.count = u32::try_from(i.count).unwrap_or(u32::MAX);
    f.title = format!("{from} calls with a key that {to} does not know");
    f.summary = format!(
        "{} from {from} open to the key {}, which no peer of {} has.",
        count(i.count, "initiation"),
        i.initiator,
        i.responder.short()
    );
    f.impact = "The caller gets no answer.".to_owned();
    f.evidence = Evidence::new()
        .with("initiator_key", i.initiator.to_string())
        .with("responder_key", i.responder.to_string())
        .with("initiations", i.count);
    f.fixes = vec![Fix {
        title: "If the caller is to be let in, add it to the responder's configuration".to_owned(),
        why: "WireGuard answers known keys only.".to_owned(),
        snippet: Some(format!(
            "[Peer]\nPublicKey = {}\nAllowedIPs = # its addresses in the tunnel",
            i.initiator
        )),
        ..Fix::default()
    }];
    f
}

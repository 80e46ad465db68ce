//! `wg-clock-replay`: an initiator's clock went back, so its messages look like replays.

use super::WITH_KEYS;
use super::view::{count, finding, peer, secs};
use super::wrong_peer_key::answered;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, tunnel};
use crate::track::opened::{Identity, Replay};
use crate::wire::tai64n::Scale;

/// The rule.
pub const RULE: Rule = Rule {
    needs: WITH_KEYS,
    explained_by: &[],
    check,
    ..tunnel::CLOCK_REPLAY
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let identities = input.world.opened.identities();
    identities
        .into_iter()
        .filter_map(|identity| {
            let refused = |r: &&Replay| !answered(input.world, r.way.0, r.way.1, r.sender);
            let last = identity.replays.iter().rfind(refused)?;
            let first = identity.replays.iter().find(refused)?;
            Some(report(identity, first, last))
        })
        .collect()
}

fn report(i: &Identity, first: &Replay, last: &Replay) -> Finding {
    let (from, to) = last.way;
    let levels = (Severity::Critical, Confidence::Certain);
    let mut f = finding(RULE.code, levels, peer(to, from), (first.at, last.at));
    f.count = u32::try_from(i.replay_count).unwrap_or(u32::MAX);
    // On one scale, so that only their distance counts.
    let back = last
        .greatest
        .unix(Scale::Kernel)
        .zip(last.stamp.unix(Scale::Kernel))
        .map(|(g, s)| g - s);
    f.title = format!("{from} has a clock that went back: {to} takes its handshakes for replays");
    f.summary = format!(
        "{} of {} carry a time that is not later than one before{}, and got no answer.",
        count(i.replay_count, "initiation"),
        i.initiator.short(),
        back.map_or_else(String::new, |back| format!(" ({} behind it)", secs(back)))
    );
    f.impact = "No handshake succeeds until that clock has caught up.".to_owned();
    f.evidence = Evidence::new()
        .with("initiator_key", i.initiator.to_string())
        .with("replays", i.replay_count)
        .maybe("seconds_behind", back.map(|b| b.as_secs_f64()))
        .maybe(
            "stamp",
            last.stamp.unix(last.stamp.likely_scale()).map(|t| t.to_string()),
        )
        .maybe(
            "greatest_before",
            last.greatest
                .unix(last.greatest.likely_scale())
                .map(|t| t.to_string()),
        );
    f.fixes = vec![Fix {
        title: format!(
            "On {}, set the clock and let it be set before WireGuard starts",
            from.ip()
        ),
        why: "A responder takes only messages that are later than all before.".to_owned(),
        command: Some("chronyc makestep || timedatectl set-ntp true".to_owned()),
        ..Fix::default()
    }];
    f
}

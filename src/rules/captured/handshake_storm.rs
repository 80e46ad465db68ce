//! `wg-handshake-storm` in a capture: far more initiations go to one address than its peers make by the schedule.

use std::net::SocketAddr;

use super::CAPTURE;
use super::view::{count, finding};
use crate::finding::{Confidence, Finding, Severity, Subject};
use crate::rules::tunnel::handshake_storm as storm;
use crate::rules::{Input, Rule, tunnel};
use crate::time::Span;
use crate::track::World;
use crate::track::handshake::{End, Flow};
use crate::wire::wireguard::REKEY_TIMEOUT;

/// The rule.
pub const RULE: Rule = Rule {
    needs: CAPTURE,
    explained_by: &[],
    check,
    ..tunnel::HANDSHAKE_STORM
};

/// Whoever repeats its initiations no faster keeps to the schedule: REKEY_TIMEOUT, as clocks of captures go.
const ON_SCHEDULE: Span = Span::from_secs(4);

fn check(input: &Input<'_>) -> Vec<Finding> {
    let least = input.thresholds.storm_initiations as f64;
    let flows = input.world.handshakes.inflow.all();
    let flows = flows.into_iter().filter(|flow| flow.count as f64 >= least);
    flows
        .filter_map(|flow| {
            let peers = peers(input.world, flow.destination);
            let tries = 1.0 + flow.span().as_secs_f64() / REKEY_TIMEOUT.as_secs_f64();
            let schedule = peers.max(1) as f64 * tries;
            let limit = (schedule * input.thresholds.storm_factor).max(least);
            (flow.count as f64 >= limit).then(|| report(flow, peers, schedule))
        })
        .collect()
}

/// How many of those who call `responder` behave as peers do. A flood has a caller for each packet, or one that never stops.
fn peers(world: &World, responder: SocketAddr) -> u64 {
    let is_peer = |end: &End| {
        let keeps_to_it = || end.retry_spacing().is_some_and(|spacing| spacing >= ON_SCHEDULE);
        end.first_attempt.is_some() && (end.answered > 0 || keeps_to_it())
    };
    let callers = world
        .handshakes
        .by_remote(responder)
        .filter_map(|c| c.other(responder));
    callers.filter(|caller| is_peer(caller)).count() as u64
}

fn report(flow: &Flow, peers: u64, schedule: f64) -> Finding {
    let to = flow.destination;
    let levels = (Severity::Warning, Confidence::Certain);
    let subject = Subject::Peer {
        device: None,
        public_key: None,
        endpoint: Some(to),
        local: None,
    };
    let mut f = finding(RULE.code, levels, subject, (flow.first_at, flow.last_at));
    f.count = u32::try_from(flow.count).unwrap_or(u32::MAX);
    f.title = format!("{to} is flooded with handshake initiations");
    f.summary = format!(
        "{} went to {to} in {:.1} s; the {} seen here would have made {schedule:.0} at most. {}",
        count(flow.count, "initiation"),
        storm::seconds(flow),
        count(peers.max(1), "peer"),
        storm::origin(flow)
    );
    f.impact =
        "Each costs its host cryptography; when too many wait, real peers are put off by 5 s each time."
            .to_owned();
    f.evidence = storm::evidence(flow, schedule).with("peers_seen", peers);
    f.fixes = vec![storm::fix(None, flow)];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{A, B, Wire, codes};
    use super::*;

    #[test]
    fn far_more_than_the_schedule_is_a_storm() {
        let mut wire = Wire::new();
        for n in 0..100u32 {
            wire.initiation(i64::from(n) * 10, n + 1);
        }
        let found = wire.check(&RULE, 5_000);
        assert_eq!(codes(&found), ["wg-handshake-storm"]);
        assert_eq!((found[0].severity, found[0].count), (Severity::Warning, 100));
        assert_eq!(found[0].evidence.get("busiest_source"), Some(&A.into()));
        assert_eq!(found[0].evidence.get("from_one_source"), Some(&true.into()));
    }

    #[test]
    fn a_flood_of_forged_addresses_is_one_too() {
        let mut wire = Wire::new();
        for n in 0..200u32 {
            let from = format!("203.0.113.{}:{}", n % 250 + 1, 1000 + n);
            wire.initiation_from(i64::from(n) * 10, &from, n + 1);
        }
        let found = wire.check(&RULE, 5_000);
        assert_eq!(codes(&found), ["wg-handshake-storm"]);
        assert_eq!(found[0].evidence.get("peers_seen"), Some(&0.into()));
        assert!(found[0].summary.contains("many addresses") || found[0].summary.contains("Most come"));
    }

    #[test]
    fn many_peers_on_schedule_are_none() {
        // A gateway restarts: sixty peers call at once, some are answered, the others try again every five seconds.
        let mut wire = Wire::new();
        for round in 0..3u32 {
            for n in 0..60u32 {
                let from = format!("203.0.113.{}:51820", n + 1);
                if n % 2 == 0 && round > 0 {
                    continue;
                }
                let sender = round * 100 + n + 1;
                let at = i64::from(round) * 5_200 + i64::from(n);
                wire.initiation_from(at, &from, sender);
                if n % 2 == 0 {
                    wire.response_to(at + 5, &from, sender, 5_000 + sender);
                }
            }
        }
        assert!(wire.check(&RULE, 16_000).is_empty());
        // One peer that restarts now and then.
        let mut wire = Wire::new();
        for n in 0..45u32 {
            wire.initiation(i64::from(n) * 1_000, n + 1)
                .response(i64::from(n) * 1_000 + 9, n + 1, 900 + n);
        }
        assert!(wire.check(&RULE, 60_000).is_empty());
        assert!(B.ends_with(":51820"));
    }
}

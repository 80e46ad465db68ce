//! `wg-roaming-unstable`: an endpoint that changes again and again.

use super::CAPTURE;
use super::view::{Moved, finding, moving, peer};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-roaming-unstable",
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "one peer's endpoint changes three times or more within ten minutes",
    meaning: "WireGuard follows a peer to wherever its newest packet came from. A peer that comes from another address \
              every few minutes, or from two in turn, draws its traffic back and forth; what was sent to the place that \
              it has just left is lost.",
    detection: "The same session, by its index and rising counters, goes on from another address or port, three times or \
                more within ten minutes. That it is one host is proven by the session; two hosts with one key are \
                another finding.",
    fix: "Find out why it moves: two uplinks used in turn (pin the route to the endpoint to one), a load-balancing or \
          carrier-grade NAT that gives each mapping another address (ask for a fixed one, or use IPv6), a radio at the \
          edge of two cells.",
    needs: CAPTURE,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let (most, within) = (input.thresholds.roaming_changes, input.thresholds.roaming_window);
    moving(input)
        .filter_map(|(_, moves)| {
            let many = moves.windows(most.max(1)).find(|w| match (w.first(), w.last()) {
                (Some(first), Some(last)) => last.moved.at - first.moved.at <= within,
                _ => false,
            });
            Some(report(
                moves.first().copied()?,
                moves.last().copied()?,
                many.map(|_| moves.len())?,
            ))
        })
        .collect()
}

fn report(first: Moved<'_>, last: Moved<'_>, times: usize) -> Finding {
    let m = last.moved;
    let levels = (Severity::Warning, Confidence::Certain);
    let mut f = finding(
        RULE.code,
        levels,
        peer(m.to, last.other()),
        (first.moved.at, m.at),
    );
    f.count = u32::try_from(times).unwrap_or(u32::MAX);
    f.title = format!("{} keeps changing its address", m.to);
    let mut places: Vec<String> = last
        .tunnel
        .moves()
        .flat_map(|m| [m.from, m.to])
        .map(|a| a.to_string())
        .collect();
    places.sort_unstable();
    places.dedup();
    f.summary = format!(
        "One session went on from another address {times} times: {}.",
        places.join(", ")
    );
    f.impact = "What is under way to the address it has just left is lost.".to_owned();
    f.evidence = Evidence::new().with("changes", times).with("addresses", places);
    f.fixes = vec![Fix {
        title: "On the moving host, pin the route to the endpoint to one uplink".to_owned(),
        why: "Packets of one tunnel that leave by two uplinks in turn come from two addresses.".to_owned(),
        command: Some(format!("ip route get {}", last.other().ip())),
        ..Fix::default()
    }];
    f
}

//! `wg-nat-rebinding`: after a silence a peer comes back from the same address with another port.

use super::CAPTURE;
use super::view::{Moved, count, finding, moving, peer, secs};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Area, Input, Rule};
use crate::time::Span;

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-nat-rebinding",
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "a peer comes back from the same address with another port after a silence: its NAT dropped the mapping",
    meaning: "A NAT remembers a UDP flow only while packets pass, often for 30 seconds. When the tunnel is silent for \
              longer the NAT forgets it, and the next packet from inside leaves by another port. Until the peer behind \
              the NAT sends again, nothing can reach it.",
    detection: "The same session, by its index and rising counters, goes on from the same address and another port, and \
                nothing had passed either way for a while before. A daemon that is told another listen port without a \
                restart looks the same, which is rare; so this is likely and not certain.",
    fix: "Set `PersistentKeepalive = 25` on the peer behind the NAT: it keeps the mapping open. With `wg set DEVICE peer \
          KEY persistent-keepalive 25` it takes effect at once.",
    needs: CAPTURE,
    explained_by: &["wg-roaming-unstable"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let after = input.thresholds.rebinding_after;
    moving(input)
        .filter_map(|(_, moves)| {
            let rebound: Vec<Moved<'_>> = moves.into_iter().filter(|m| m.is_rebinding(after)).collect();
            let shortest = rebound.iter().map(|m| m.moved.quiet).min()?;
            Some(report(
                rebound.first().copied()?,
                rebound.last().copied()?,
                (rebound.len(), shortest),
            ))
        })
        .collect()
}

fn report(first: Moved<'_>, last: Moved<'_>, (times, shortest): (usize, Span)) -> Finding {
    let m = last.moved;
    let levels = (Severity::Warning, Confidence::Likely);
    let mut f = finding(
        RULE.code,
        levels,
        peer(m.to, last.other()),
        (first.moved.at, m.at),
    );
    f.count = u32::try_from(times).unwrap_or(u32::MAX);
    f.title = format!(
        "{} came back on port {} after {} of silence",
        m.from,
        m.to.port(),
        secs(m.quiet)
    );
    f.summary = format!(
        "The same session went on from {} instead of {}, after nothing had passed either way for {}: the NAT before it \
         had forgotten the mapping.{}",
        m.to,
        m.from,
        secs(m.quiet),
        if times > 1 {
            format!(" {} in this capture.", count(times as u64, "time"))
        } else {
            String::new()
        }
    );
    f.impact = "Between the two nothing could reach this peer.".to_owned();
    f.evidence = Evidence::new()
        .with("old_endpoint", m.from.to_string())
        .with("new_endpoint", m.to.to_string())
        .with("silence_seconds", m.quiet.as_secs_f64())
        .with("shortest_silence_seconds", shortest.as_secs_f64())
        .with("rebindings", times);
    f.fixes = vec![Fix {
        title: "On the host behind the NAT, send a keepalive every 25 s".to_owned(),
        why: format!(
            "The mapping did not outlive {}; 25 s is below what NATs commonly keep.",
            secs(shortest)
        ),
        snippet: Some("[Peer]\nPersistentKeepalive = 25".to_owned()),
        ..Fix::default()
    }];
    f
}

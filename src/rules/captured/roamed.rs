//! `wg-roamed` in a capture: a session goes on from another address.

use super::CAPTURE;
use super::view::{Moved, count, finding, moving, peer, secs};
use crate::finding::{Confidence, Evidence, Finding, Severity};
use crate::rules::{Input, Rule, tunnel};

/// The rule.
pub const RULE: Rule = Rule {
    needs: CAPTURE,
    check,
    explained_by: &["wg-roaming-unstable"],
    ..tunnel::ROAMED
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let after = input.thresholds.rebinding_after;
    moving(input)
        .filter_map(|(_, moves)| {
            let roams: Vec<Moved<'_>> = moves.into_iter().filter(|m| !m.is_rebinding(after)).collect();
            Some(report(
                roams.first().copied()?,
                roams.last().copied()?,
                roams.len(),
            ))
        })
        .collect()
}

fn report(first: Moved<'_>, last: Moved<'_>, times: usize) -> Finding {
    let m = last.moved;
    let levels = (Severity::Info, Confidence::Certain);
    let mut f = finding(
        RULE.code,
        levels,
        peer(m.to, last.other()),
        (first.moved.at, m.at),
    );
    f.count = u32::try_from(times).unwrap_or(u32::MAX);
    let (part, words) = match () {
        () if m.from.is_ipv4() != m.to.is_ipv4() => ("address_family", "it changed between IPv4 and IPv6"),
        () if m.is_port_only() => (
            "port",
            "only the port changed, without a silence in which a NAT could forget it",
        ),
        () => ("address", "it came from another address"),
    };
    f.title = format!("{} moved to {}", m.from, m.to);
    f.summary = format!(
        "The same session went on from there: {words}. It had been silent for {}.{}",
        secs(m.silence),
        if times > 1 {
            format!(" It moved {} in this capture.", count(times as u64, "time"))
        } else {
            String::new()
        }
    );
    f.impact = "None by itself: WireGuard follows.".to_owned();
    f.evidence = Evidence::new()
        .with("old_endpoint", m.from.to_string())
        .with("new_endpoint", m.to.to_string())
        .with("changed", part)
        .with("changes", times)
        .with("silence_seconds", m.silence.as_secs_f64())
        .with("sent_to_old_address_since", last.tunnel.to_old_address);
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{A, B, Wire, codes};
    use super::super::{nat_rebinding, roaming_unstable};
    use super::*;

    fn moved(to: &str, silence: i64) -> Wire {
        let mut wire = Wire::new();
        wire.initiation(0, 1).response(10, 1, 9);
        for n in 0..5 {
            wire.data(100 + n, 9, n.unsigned_abs());
        }
        for n in 0..5 {
            wire.data_between(105 + silence + n, (to, B), 9, 5 + n.unsigned_abs());
        }
        wire
    }

    #[test]
    fn address_port_and_silence_tell_roaming_from_rebinding() {
        for (to, silence, expected) in [
            ("203.0.113.7:40000", 1_000, (1, 0)),
            ("203.0.113.7:40000", 60_000, (1, 0)),
            ("192.0.2.1:40001", 60_000, (0, 1)),
            ("192.0.2.1:40001", 1_000, (1, 0)),
            (A, 60_000, (0, 0)),
        ] {
            let mut wire = moved(to, silence);
            let roamed = wire.check(&RULE, 100_000).len();
            let rebound = wire.check(&nat_rebinding::RULE, 100_000).len();
            assert_eq!((roamed, rebound), expected, "{to} after {silence} ms");
            assert!(wire.check(&roaming_unstable::RULE, 100_000).is_empty());
        }
    }

    #[test]
    fn many_moves_are_one_finding_and_unstable() {
        let mut wire = moved("203.0.113.7:40000", 1_000);
        for (round, to) in (2i64..6).zip(["203.0.113.8:1", "203.0.113.9:1", "203.0.113.8:1", "203.0.113.9:1"])
        {
            for n in 0..3 {
                wire.data_between(round * 30_000 + n, (to, B), 9, (round * 10 + n).unsigned_abs());
            }
        }
        let found = wire.check(&RULE, 200_000);
        assert_eq!((codes(&found), found[0].count), (vec!["wg-roamed"], 5));
        assert_eq!(
            codes(&wire.check(&roaming_unstable::RULE, 200_000)),
            ["wg-roaming-unstable"]
        );
    }
}

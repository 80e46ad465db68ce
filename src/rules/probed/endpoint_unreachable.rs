//! `wg-endpoint-unreachable` by a probe: ICMP errors answer our initiations.

use super::PROBE;
use super::view::{count, finding, place, probes};
use crate::finding::{Confidence, Finding, Fix, Severity};
use crate::observation::probe::Outcome;
use crate::rules::{Input, Rule, tunnel};
use crate::track::probes::Probe;
use crate::wire::icmp::{self, IcmpClass};

/// The rule.
pub const RULE: Rule = Rule {
    needs: PROBE,
    explained_by: &[],
    check,
    ..tunnel::ENDPOINT_UNREACHABLE
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    probes(input)
        .filter(|p| p.tally().heard() == 0)
        .filter_map(report)
        .collect()
}

fn report(probe: &Probe) -> Option<Finding> {
    let (from, v6, icmp_type, code) = probe.attempts.iter().rev().find_map(|a| match a.outcome {
        Outcome::Icmp {
            from,
            v6,
            icmp_type,
            code,
            ..
        } => Some((from, v6, icmp_type, code)),
        _ => None,
    })?;
    let (class, words) = icmp::meaning(v6, icmp_type, code);
    let by_peer = from.is_some() && from == probe.target.address.map(|a| a.ip());
    let who = match from {
        Some(ip) if by_peer => format!("{ip}, the peer's own host"),
        Some(ip) => format!("{ip}, on the way"),
        None => "a host that is not named".to_owned(),
    };
    let mut f = finding(RULE.code, (Severity::Critical, Confidence::Certain), probe);
    let n = probe.tally().icmp;
    f.count = u32::try_from(n).unwrap_or(u32::MAX);
    f.title = format!("{} is unreachable: {words}", place(probe));
    f.summary = format!("{} from {who}: \"{words}\".", count(n, "ICMP error"));
    f.impact = "Nothing passes to this peer.".to_owned();
    f.evidence = f
        .evidence
        .maybe("icmp_from", from.map(|ip| ip.to_string()))
        .with("icmp_type", icmp_type)
        .with("icmp_code", code)
        .with("icmp_errors", n);
    let title = match (class, by_peer) {
        (IcmpClass::PortUnreachable, true) => format!(
            "On the peer's host, start WireGuard on UDP port {}, or correct the endpoint's port",
            probe.target.address.map_or(0, |a| a.port())
        ),
        (IcmpClass::PortUnreachable | IcmpClass::Prohibited, _) => {
            format!("At {who}: allow UDP to {}, or forward it", place(probe))
        }
        (IcmpClass::TimeExceeded, _) => {
            format!("Look at the routes around {who}: packets go in a circle there")
        }
        _ => format!(
            "Check that {} is on and has that address, and the routes at {who}",
            place(probe)
        ),
    };
    f.fixes = vec![Fix {
        title,
        why: "The error names what turned the packets back.".to_owned(),
        ..Fix::default()
    }];
    Some(f)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Probed, codes, millis};
    use super::*;

    #[test]
    fn an_error_and_no_answer() {
        let mut probed = Probed::new();
        probed.attempt(Outcome::Icmp {
            from: "192.0.2.1".parse().ok(),
            v6: false,
            icmp_type: 3,
            code: 3,
            after: millis(1),
        });
        let found = probed.check(&RULE);
        assert_eq!(codes(&found), ["wg-endpoint-unreachable"]);
        assert!(found[0].title.ends_with("port unreachable"));
        assert!(
            found[0].fixes[0]
                .title
                .contains("start WireGuard on UDP port 51820")
        );
        probed.attempt(Outcome::Answered { rtt: millis(20) });
        assert!(probed.check(&RULE).is_empty());
    }
}

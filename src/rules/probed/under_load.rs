//! `wg-under-load` by a probe: cookie replies that open under the peer's public key.

use super::PROBE;
use super::view::{count, finding, place, probes};
use crate::finding::{Confidence, Finding, Fix, Severity};
use crate::observation::probe::Outcome;
use crate::rules::{Input, Rule, captured};
use crate::track::probes::Probe;

/// The rule.
pub const RULE: Rule = Rule {
    needs: PROBE,
    explained_by: &[],
    check,
    ..captured::UNDER_LOAD
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    probes(input)
        .filter(|p| p.tally().cookies > 0)
        .map(report)
        .collect()
}

fn report(probe: &Probe) -> Finding {
    let mut f = finding(RULE.code, (Severity::Warning, Confidence::Certain), probe);
    let t = probe.tally();
    let again = probe
        .attempts
        .iter()
        .filter(|a| a.with_cookie && matches!(a.outcome, Outcome::Cookie { .. }))
        .count() as u64;
    f.count = u32::try_from(t.cookies).unwrap_or(u32::MAX);
    f.title = format!("{} is rate limiting handshakes", place(probe));
    f.summary = format!(
        "{} of {} got a cookie instead of an answer; {} answered in the end.",
        t.cookies,
        count(t.sent, "initiation"),
        t.answered
    );
    if again > 0 {
        f.summary.push_str(&format!(
            " {again} already carried a cookie: the peer saw it come from another address or port, so a NAT changes ours."
        ));
    }
    f.impact = "Each cookie costs a handshake 5 s.".to_owned();
    f.evidence = f.evidence.with("cookies_refused", again);
    let port = probe.target.address.map_or(0, |a| a.port());
    f.fixes = vec![Fix {
        title: "On the peer's host, find who sends the initiations".to_owned(),
        why: "The load is theirs; the cookies are only its sign.".to_owned(),
        command: Some(format!("tcpdump -nni any 'udp dst port {port} and udp[8] = 1'")),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Probed, codes, millis};
    use super::*;

    #[test]
    fn cookies_are_load() {
        let mut probed = Probed::new();
        probed.attempt(Outcome::Answered { rtt: millis(20) });
        assert!(probed.check(&RULE).is_empty());
        probed.attempt(Outcome::Cookie { rtt: millis(20) });
        assert_eq!(codes(&probed.check(&RULE)), ["wg-under-load"]);
    }
}

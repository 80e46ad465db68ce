//! `wg-under-load`: the responder answers with cookies.

use super::CAPTURE;
use super::view::{Initiator, count, finding, initiators};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, tunnel};

/// The rule.
pub const RULE: Rule = Rule {
    needs: CAPTURE,
    explained_by: &["wg-handshake-storm"],
    check,
    ..tunnel::UNDER_LOAD
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    initiators(input)
        .filter(|i| i.end.cookies > 0)
        .map(|i| report(&i))
        .collect()
}

/// What cookie replies to an initiator mean.
pub(in crate::rules) fn report(i: &Initiator<'_>) -> Finding {
    let with_cookie = || i.end.attempts().filter(|a| a.cookie_at.is_some());
    let first = with_cookie().find_map(|a| a.cookie_at).unwrap_or(i.world.started);
    let last = with_cookie().filter_map(|a| a.cookie_at).max().unwrap_or(first);
    let again = with_cookie().filter(|a| a.mac2_set).count();
    let mut f = finding(
        RULE.code,
        (Severity::Warning, Confidence::Certain),
        i.subject(),
        (first, last),
    );
    f.count = u32::try_from(i.end.cookies).unwrap_or(u32::MAX);
    f.title = format!("{} is rate limiting handshakes", i.responder);
    let replies = if i.end.cookies == 1 {
        "1 cookie reply".to_owned()
    } else {
        format!("{} cookie replies", i.end.cookies)
    };
    f.summary = format!(
        "It answered {replies} to {} of {}; {} of its attempts were answered in the end.",
        count(i.end.messages.initiations, "initiation"),
        i.end.address,
        i.end.answered
    );
    if again > 0 {
        f.summary.push_str(&format!(
            " {} with a cookie got another cookie: the responder saw it come from another address or port.",
            count(again as u64, "retry").replace("retrys", "retries")
        ));
    }
    f.impact = "Each cookie costs the handshake 5 s.".to_owned();
    f.evidence = Evidence::new()
        .with("cookie_replies", i.end.cookies)
        .with("initiations", i.end.messages.initiations)
        .with("answered_attempts", i.end.answered)
        .with("cookies_refused", again);
    f.fixes = vec![Fix {
        title: "On the responder, find who sends the initiations".to_owned(),
        why: "The load is theirs; the cookies are only its sign.".to_owned(),
        command: Some(format!(
            "tcpdump -nni any 'udp dst port {} and udp[8] = 1'",
            i.responder.port()
        )),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Wire, codes};
    use super::*;

    #[test]
    fn cookies_and_only_cookies() {
        let mut wire = Wire::new();
        wire.initiation(0, 1)
            .cookie(10, 1)
            .initiation(5_100, 2)
            .response(5_130, 2, 9);
        let found = wire.check(&RULE, 60_000);
        assert_eq!(codes(&found), ["wg-under-load"]);
        assert_eq!(found[0].count, 1);
        let mut wire = Wire::new();
        // A cookie for nobody.
        wire.initiation(0, 1)
            .cookie(10, 77)
            .initiation(5_100, 2)
            .response(5_130, 2, 9);
        assert!(wire.check(&RULE, 60_000).is_empty());
    }
}

//! `wg-endpoint-unreachable` in a capture: an ICMP error turns a message back, and nothing is heard from there since.

use super::CAPTURE;
use super::view::{count, finding, peer};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, tunnel};
use crate::track::World;
use crate::track::handshake::{Conversation, IcmpTally};
use crate::wire::icmp::IcmpClass;
use crate::wire::wireguard::Kind;

/// The rule.
pub const RULE: Rule = Rule {
    needs: CAPTURE,
    check,
    explained_by: &[],
    ..tunnel::ENDPOINT_UNREACHABLE
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let conversations = input.world.handshakes.conversations();
    conversations
        .filter_map(|c| {
            let tally = standing(input.world, c)?;
            // A cookie reply goes to whoever seems to call, for nothing is known of it: a flood's source is no peer.
            (tally.kind != Some(Kind::CookieReply)).then(|| report(c, tally))
        })
        .collect()
}

/// An error about initiations that are forwarded by this host, where nothing came back since. What this host itself says of
/// its own ports is another matter.
pub(in crate::rules) fn passing(world: &World, c: &Conversation) -> Option<Finding> {
    let tally = standing(world, c)?;
    let by_responder = c
        .other(tally.about)
        .is_some_and(|to| to.address.ip() == tally.first.from);
    let forwarded = tally.kind == Some(Kind::Initiation) && !(tally.first.sent_here && by_responder);
    forwarded.then(|| report(c, tally))
}

/// The newest error that says "not delivered", where nothing came back since.
fn standing<'a>(world: &World, conversation: &'a Conversation) -> Option<&'a IcmpTally> {
    let says_no = |t: &&IcmpTally| {
        !matches!(
            t.first.class(),
            IcmpClass::TooBig | IcmpClass::ParameterProblem | IcmpClass::Other
        )
    };
    let tally = conversation
        .errors()
        .iter()
        .filter(says_no)
        .max_by_key(|t| t.last_at)?;
    let to = conversation.other(tally.about)?;
    let answered = conversation.end(tally.about).and_then(|e| e.last_answer);
    let tunnel = world.sessions.between(tally.about, to.address);
    let data = tunnel.and_then(|t| world.sessions.last_sent(t, super::view::side_at(t, to.address)?));
    let tried = to.last_attempt;
    [answered, data, tried]
        .into_iter()
        .flatten()
        .all(|at| at < tally.last_at)
        .then_some(tally)
}

fn report(conversation: &Conversation, tally: &IcmpTally) -> Finding {
    let to = conversation.other(tally.about).map_or(tally.about, |e| e.address);
    let by_peer = tally.first.from == to.ip();
    let levels = (Severity::Critical, Confidence::Certain);
    let mut f = finding(
        RULE.code,
        levels,
        peer(to, tally.about),
        (tally.first.at, tally.last_at),
    );
    f.count = u32::try_from(tally.count).unwrap_or(u32::MAX);
    f.title = format!("{to} is unreachable: {}", tally.first.words());
    let who = if by_peer {
        "its own address".to_owned()
    } else {
        format!("{}, on the way", tally.first.from)
    };
    f.summary = format!(
        "{} from {who}: \"{}\", about messages of {}. Nothing came from {to} since.",
        count(tally.count, "ICMP error"),
        tally.first.words(),
        tally.about
    );
    f.impact = "Nothing passes to this peer.".to_owned();
    f.evidence = Evidence::new()
        .with("icmp_from", tally.first.from.to_string())
        .with("icmp_type", tally.first.icmp_type)
        .with("icmp_code", tally.first.code)
        .with("icmp_errors", tally.count)
        .maybe("about", tally.kind.map(|k| k.name()));
    let (title, command) = match (tally.first.class(), by_peer) {
        (IcmpClass::PortUnreachable, true) => (
            format!(
                "On {}, start WireGuard on UDP port {}, or correct the endpoint's port",
                to.ip(),
                to.port()
            ),
            Some("wg show all listen-port; ss -lun".to_owned()),
        ),
        (IcmpClass::PortUnreachable | IcmpClass::Prohibited, _) => (
            format!("At {}, allow UDP to {to}, or forward it", tally.first.from),
            None,
        ),
        (IcmpClass::TimeExceeded, _) => (
            format!(
                "Look at the routes around {}: packets go in a circle there",
                tally.first.from
            ),
            None,
        ),
        _ => (
            format!(
                "Check that {} is on and has that address, and the routes at {}",
                to.ip(),
                tally.first.from
            ),
            None,
        ),
    };
    let why = "The error names what turned the packets back.".to_owned();
    f.fixes = vec![Fix {
        title,
        why,
        command,
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Wire, codes};
    use super::*;

    #[test]
    fn an_error_with_nothing_after_it() {
        let mut wire = Wire::new();
        wire.initiation(0, 1)
            .icmp(1, (3, 3), 1)
            .initiation(5_100, 2)
            .icmp(5_101, (3, 3), 2);
        let found = wire.check(&RULE, 9_000);
        assert_eq!(codes(&found), ["wg-endpoint-unreachable"]);
        assert!(found[0].title.contains("port unreachable"));
        assert_eq!(found[0].count, 2);
    }

    #[test]
    fn an_error_that_is_over_or_about_size_is_none() {
        let mut wire = Wire::new();
        wire.initiation(0, 1)
            .icmp(1, (3, 3), 1)
            .initiation(5_100, 2)
            .response(5_120, 2, 9);
        assert!(wire.check(&RULE, 9_000).is_empty());
        let mut wire = Wire::new();
        wire.initiation(0, 1).icmp(1, (3, 4), 1);
        assert!(wire.check(&RULE, 9_000).is_empty());
    }
}

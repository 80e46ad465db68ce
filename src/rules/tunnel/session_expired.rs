//! `wg-session-expired`: traffic wants through, and the session is too old to carry it.

use super::view::{View, views};
use super::words::{quote, time};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::tunnels::peer::RETRY_SEEN;
use crate::wire::wireguard::REJECT_AFTER_TIME;

const CODE: &str = "wg-session-expired";

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "critical",
    holds_when: "data is wanted while the last handshake is older than REJECT_AFTER_TIME (180 s)",
    meaning: "A WireGuard session lasts three minutes; each side renews it by a new handshake every two minutes as \
              long as there is something to send. Here there is something to send, the session has run out, and no \
              new one came about. So whatever is sent into the tunnel waits or is thrown away.\n\n\
              An old handshake alone is harmless: a tunnel that nobody uses makes none.",
    detection: "The device's last handshake is older than 180 s, and a handshake attempt of this host failed (on the \
                wire, or as 148 bytes in the device's counter while nothing came back). Where neither wire nor \
                counters can show attempts, a persistent keepalive that has been due for long serves as a hint that \
                something wants to be sent; the finding is then `likely`.\n\n\
                Mostly this is a symptom, and folded beneath the reason why the handshake fails.",
    fix: "Find out why the handshake fails; where this finding stands alone only one attempt has failed so far: run \
          wgnat again in ten seconds.",
    needs: &[super::DEVICES],
    explained_by: &[
        "wg-endpoint-loop",
        "wg-no-route",
        "wg-endpoint-unreachable",
        "wg-local-drop",
        "wg-handshake-timeout",
    ],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    views(input)
        .filter_map(|view| {
            let age = view.handshake_age().filter(|age| *age > REJECT_AFTER_TIME)?;
            let confidence = wanted(&view, age)?;
            Some(finding(&view, age, confidence))
        })
        .collect()
}

/// How sure it is that something wants to be sent; `None` where nothing shows it.
fn wanted(view: &View<'_>, age: Span) -> Option<Confidence> {
    let endpoint_known = view.endpoint().is_some();
    if view.silence.failed > 0 && view.silence.trying {
        return Some(Confidence::Certain);
    }
    // Attempts would show on the wire or in the counters; only where neither tells may the keepalive speak.
    let blind = !view.wire_watched() && !view.counts();
    let keepalive = Span::from_secs(u64::from(view.peer.newest.keepalive?));
    let up = view.link().is_none_or(|link| link.admin_up);
    let overdue = age > REJECT_AFTER_TIME + keepalive + RETRY_SEEN;
    (blind && endpoint_known && up && overdue && view.peer.watched() >= Span::from_secs(4))
        .then_some(Confidence::Likely)
}

fn finding(view: &View<'_>, age: Span, confidence: Confidence) -> Finding {
    let name = view.name();
    let whom = view
        .endpoint()
        .map_or_else(|| view.key.short(), |endpoint| endpoint.to_string());
    let (rx, tx) = view.peer.delta();
    let mut finding = view.finding(CODE, Severity::Critical, confidence);
    finding.first_seen = view.failing_since();
    finding.title = format!("{name}'s session with {whom} has run out");
    finding.summary = match confidence {
        Confidence::Certain => format!(
            "The last handshake is {} old, the limit is 3 min, and {name} tries for a new one without success \
             ({} so far).",
            time(age),
            super::words::count(view.silence.failed, "failed attempt")
        ),
        _ => format!(
            "The last handshake is {} old, the limit is 3 min. The persistent keepalive of {} s should have renewed \
             it; attempts could not be watched.",
            time(age),
            view.peer.newest.keepalive.unwrap_or_default()
        ),
    };
    finding.evidence = Evidence::new()
        .with("last_handshake_age_seconds", age.as_secs_f64())
        .with("reject_after_seconds", REJECT_AFTER_TIME.as_secs())
        .with("unanswered_attempts", view.silence.failed)
        .maybe("persistent_keepalive_seconds", view.peer.newest.keepalive)
        .with("rx_bytes_while_watched", rx)
        .with("tx_bytes_while_watched", tx);
    finding.impact = "Nothing passes through the tunnel to this peer.".to_owned();
    finding.fixes = vec![Fix {
        title: "Watch the next attempts".to_owned(),
        why: "One failed attempt may be a lost packet; two in a row are told apart by cause.".to_owned(),
        command: Some(again(view)),
        expect: Evidence::new().with("last_handshake_age_seconds", "under 180"),
        ..Fix::default()
    }];
    finding
}

/// A longer look at the same namespace.
fn again(view: &View<'_>) -> String {
    let netns = view.world.host.as_ref().and_then(|h| h.netns_name.as_deref());
    let netns = netns.map_or_else(String::new, |name| format!(" --netns {}", quote(name)));
    format!("wgnat doctor{netns} --duration 15s")
}

#[cfg(test)]
mod tests;

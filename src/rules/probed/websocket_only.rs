//! `wg-websocket-only` by a probe: one of flyctl's two transports works and the other does not.

use super::PROBE;
use super::view::{finding, place, probes};
use crate::finding::{Confidence, Finding, Fix, Severity};
use crate::observation::probe::Transport;
use crate::rules::{Area, Input, Rule};
use crate::track::probes::Probe;

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-websocket-only",
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "flyctl's UDP path fails while its WebSocket path works (UDP blocked), or the reverse; says which transport is \
                 configured",
    meaning: "flyctl reaches its gateways over UDP, as WireGuard itself does, or over a WebSocket in TLS to port 443, where a \
              network lets nothing else out. It uses the one that is configured and never falls back to the other. So where that \
              one is blocked flyctl hangs, although the other would work.",
    detection: "The same handshake with the same key over both, one after the other. Over one it is answered; over the other the \
                initiations get no answer, or the WebSocket does not open. What answers with something that is not TLS, or with \
                another's certificate, is a middlebox and is named.",
    fix: "Configure the transport that works: `fly wireguard websockets enable` or `disable`. Or open what is blocked: UDP to port \
          51820, or TCP to port 443 without inspection.",
    needs: PROBE,
    explained_by: &["wg-no-route"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let of = |transport| probes(input).filter(move |p| p.target.transport == transport);
    let mut found = Vec::new();
    for udp in of(Transport::Udp) {
        let same = |p: &&Probe| {
            (p.target.public_key, p.target.local_public_key)
                == (udp.target.public_key, udp.target.local_public_key)
        };
        let Some(websocket) = of(Transport::Websocket).find(same) else {
            continue;
        };
        match (udp.works(), websocket.works()) {
            (false, true) if tried(udp) => found.push(report(websocket, udp)),
            (true, false) if tried(websocket) => found.push(report(udp, websocket)),
            _ => {}
        }
    }
    found
}

/// Whether it had its chance.
fn tried(probe: &Probe) -> bool {
    let t = probe.tally();
    t.silent >= 2 || t.icmp > 0 || probe.websocket.as_ref().is_some_and(|w| !w.upgraded)
}

fn report(works: &Probe, fails: &Probe) -> Finding {
    let mut f = finding(RULE.code, (Severity::Warning, Confidence::Certain), fails);
    let (good, bad) = (works.target.transport, fails.target.transport);
    let configured = fails.target.configured_transport;
    let name = |transport| match transport {
        Transport::Udp => "UDP",
        Transport::Websocket => "a WebSocket",
    };
    f.title = format!(
        "{} answers over {} only, not over {}",
        place(fails),
        name(good),
        name(bad)
    );
    let why = match &fails.websocket {
        Some(w) if !w.upgraded => {
            let seen = w
                .not_tls
                .as_ref()
                .map(|bytes| format!("; what answers is not TLS and begins {bytes:?}"));
            let who = w
                .certificates
                .first()
                .map(|c| format!("; its certificate is of {}, signed by {}", c.subject, c.issuer));
            format!(
                "The WebSocket does not open: {}{}{}.",
                w.error.as_deref().unwrap_or("no reason is known"),
                seen.unwrap_or_default(),
                who.unwrap_or_default()
            )
        }
        _ => format!(
            "{} initiations over {} got no answer.",
            fails.tally().sent,
            name(bad)
        ),
    };
    f.summary = match configured {
        Some(t) if t == bad => format!("{why} flyctl is configured for it, and does not fall back."),
        Some(_) => format!("{why} flyctl is configured for the other, which works."),
        None => why,
    };
    f.impact = match configured {
        Some(t) if t == bad => {
            "flyctl's commands through the tunnel (`proxy`, `ssh`, deploys) hang.".to_owned()
        }
        _ => "None as long as the configuration stays.".to_owned(),
    };
    f.evidence = f
        .evidence
        .with("works", good.name())
        .with("fails", bad.name())
        .maybe("configured", configured.map(Transport::name));
    let switch = match good {
        Transport::Websocket => "fly wireguard websockets enable",
        Transport::Udp => "fly wireguard websockets disable",
    };
    let open = match bad {
        Transport::Udp => "Open UDP to port 51820 in this network's firewall",
        Transport::Websocket => "Let TCP to port 443 of the gateway pass without inspection",
    };
    f.fixes = vec![Fix {
        title: open.to_owned(),
        why: "That is what is blocked.".to_owned(),
        ..Fix::default()
    }];
    if configured == Some(bad) {
        f.fixes.insert(
            0,
            Fix {
                title: format!("Let flyctl use {}", name(good)),
                why: "It works here.".to_owned(),
                command: Some(switch.to_owned()),
                ..Fix::default()
            },
        );
    }
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Probed, codes, millis, secs, target};
    use super::*;
    use crate::observation::probe::{Fact, Outcome, Target, Websocket};

    fn both(udp: &[Outcome], websocket: &[Outcome], upgraded: bool) -> Vec<Finding> {
        let mut probed = Probed::new();
        udp.iter().for_each(|o| probed.attempt(o.clone()));
        probed.next(Target {
            transport: Transport::Websocket,
            configured_transport: Some(Transport::Udp),
            ..target()
        });
        probed.fact(Fact::Websocket(Websocket {
            tcp: true,
            upgraded,
            error: (!upgraded).then(|| "TLS: no".to_owned()),
            not_tls: (!upgraded).then(|| "HTTP/1.1 403".to_owned()),
            ..Websocket::default()
        }));
        websocket.iter().for_each(|o| probed.attempt(o.clone()));
        probed.check(&RULE)
    }

    #[test]
    fn one_works_and_the_other_does_not() {
        let answered = [Outcome::Answered { rtt: millis(9) }];
        let silent = [
            Outcome::Silent { waited: secs(5) },
            Outcome::Silent { waited: secs(5) },
        ];
        let found = both(&silent, &answered, true);
        assert_eq!(codes(&found), ["wg-websocket-only"]);
        assert_eq!(
            found[0].evidence.get("works").and_then(|v| v.as_str()),
            Some("websocket")
        );
        let found = both(&answered, &[], false);
        assert!(found[0].summary.contains("HTTP/1.1 403"), "{}", found[0].summary);
        assert!(both(&answered, &answered, true).is_empty());
        assert!(both(&silent, &silent, true).is_empty());
        assert!(
            both(&silent[..1], &answered, true).is_empty(),
            "one lost packet is no finding"
        );
    }
}

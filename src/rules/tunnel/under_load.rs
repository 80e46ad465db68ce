//! `wg-under-load`: cookie replies on the wire, at either end or in between.

use super::parties::{Role, passing, roles};
use super::words::count;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::rules::captured::under_load::report;
use crate::rules::captured::view::{Initiator, finding};
use crate::rules::shell::here;
use crate::rules::{Area, Input, Rule};
use crate::track::tunnels::DeviceTrack;

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-under-load",
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "a responder answers handshake initiations with cookie replies: it is rate limiting handshakes",
    meaning: "A WireGuard responder that gets more handshakes than it can work off (512 waiting, in the kernel) answers \
              with a cookie instead: it asks the initiator to prove its address, and limits each address to 20 \
              handshakes a second. The initiator repeats its attempt with the cookie after five seconds. So handshakes \
              take longer, and where many initiators share one address, some fail.",
    detection: "Cookie replies (type 3, 64 bytes) that carry the index of an initiation before them, on their way to this \
                host, from it or through it. Nothing else sends them. Retries that carry a cookie have their second MAC \
                set; retries that do not, or that get another cookie, point to an address that changes on the way.",
    fix: "Find who floods the responder: `tcpdump -ni any 'udp[8] = 1'` there, by source address. Drop that traffic \
          before WireGuard. Many real peers after a restart are a flood too: it passes by itself.\n\n\
          Where each retry gets another cookie, a NAT gives it another port each time; the kernel's cookies are bound \
          to the port.",
    needs: &[super::DEVICES, &[Source::Capture]],
    explained_by: &["wg-handshake-storm"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A flood has a caller for each packet: what a device does is one finding.
    let mut rationing: Vec<(&DeviceTrack, Vec<Initiator<'_>>)> = Vec::new();
    for (initiator, role) in roles(input).filter(|(i, _)| i.end.cookies > 0) {
        match role {
            Role::Caller(view) => findings.push(Finding {
                subject: view.subject(),
                ..report(&initiator)
            }),
            Role::Called(device) => {
                let known = rationing
                    .iter_mut()
                    .find(|(d, _)| d.info.name == device.info.name);
                match known {
                    Some((_, callers)) => callers.push(initiator),
                    None => rationing.push((device, vec![initiator])),
                }
            }
            Role::Former | Role::Passing => {}
        }
    }
    findings.extend(
        rationing
            .iter()
            .map(|(device, callers)| rationed(input, device, callers)),
    );
    let passing = passing(input);
    let passing = passing.iter().filter(|p| p.initiator.end.cookies > 0);
    findings.extend(passing.map(|p| report(&p.initiator)));
    findings
}

/// A device here answers with cookies.
fn rationed(input: &Input<'_>, device: &DeviceTrack, callers: &[Initiator<'_>]) -> Finding {
    let name = &device.info.name;
    let cookies: u64 = callers.iter().map(|i| i.end.cookies).sum();
    let times = || {
        callers
            .iter()
            .flat_map(|i| i.end.attempts())
            .filter_map(|a| a.cookie_at)
    };
    let seen = (
        times().min().unwrap_or(input.world.started),
        times().max().unwrap_or(input.world.now),
    );
    let subject = Subject::Device { name: name.clone() };
    let mut f = finding(RULE.code, (Severity::Warning, Confidence::Certain), subject, seen);
    f.count = u32::try_from(cookies).unwrap_or(u32::MAX);
    f.title = format!("{name} is rate limiting handshakes");
    let replies = if cookies == 1 {
        "1 cookie reply".to_owned()
    } else {
        format!("{cookies} cookie replies")
    };
    f.summary = format!(
        "It gets more handshakes than it can check, and answered {replies} to {}.",
        count(callers.len() as u64, "caller")
    );
    f.impact = "Each cookie costs the caller's handshake 5 s.".to_owned();
    f.evidence = Evidence::new()
        .with("cookie_replies", cookies)
        .with("callers", callers.len() as u64)
        .maybe("listen_port", device.info.listen_port);
    let port = device.info.listen_port.unwrap_or_default();
    f.fixes = vec![Fix {
        title: "Find who sends the initiations".to_owned(),
        why: "The load is theirs; the cookies are only its sign.".to_owned(),
        command: Some(here(
            input.world.host.as_ref(),
            &format!("tcpdump -nni any 'udp dst port {port} and udp[8] = 1'"),
        )),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::observation::device::Implementation::Kernel;

    #[test]
    fn cookies_to_us_are_about_the_peer_and_cookies_from_us_about_the_device() {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.call(0.5, 1).cookie(0.53, 1);
        let found = host.find(RULE.code).unwrap();
        assert!(matches!(
            found.subject,
            Subject::Peer {
                public_key: Some(KEY),
                ..
            }
        ));
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.called(0.5, 1).give_cookie(0.51, 1);
        let found = host.find(RULE.code).unwrap();
        assert_eq!(
            found.subject,
            Subject::Device {
                name: "wg0".to_owned()
            }
        );
        assert_eq!(found.evidence.get("cookie_replies"), Some(&1.into()));
    }

    #[test]
    fn no_cookie_is_no_load() {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.call(0.5, 1)
            .answered(0.6, 1)
            .called(1.0, 2)
            .answer_call(1.1, 2);
        assert!(host.find(RULE.code).is_none());
    }
}

//! `wg-response-rejected`: responses come in, and the device goes on calling.

use super::response_lost;
use super::view::{View, views};
use super::words::{count, quote};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::device::KernelReason;
use crate::rules::captured::response_rejected as captured;
use crate::rules::{Area, Input, Rule};
use crate::track::opened::ResponseTally;

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-response-rejected",
    area: Area::Wireguard,
    severity: "critical, warning where it is not proven that responses arrive",
    holds_when: "an initiator's attempts are answered, yet it starts over after five seconds and sends no data under \
                 the session that each answer offers",
    meaning: "The responder knows the initiator: it accepted its initiation and answered. The initiator does not take \
              the answer. Its preshared key differs from the responder's (that key is mixed in only when the answer is \
              made, so a difference shows only here), or the answer is lost behind the point where it was captured: a \
              firewall on the initiator's host, reverse path filtering, or the way back.",
    detection: "At the initiator (`doctor`): two or more responses with the index of an attempt came in at an interface, and \
                the device's handshake time stands still. Their first MAC is checked against the device's public key: \
                where it verifies, the responder accepted this host's key and made them for it, and what is left that can \
                differ is the preshared key: likely; certain where the kernel's log says \
                `Invalid handshake response` of them (its debug lines are read where they are on, and never switched on). \
                Where the counters show that this host dropped them on the way to the \
                device, it is wg-local-drop instead.\n\n\
                At the responder both that and a lost response look alike; see wg-response-lost.\n\n\
                In a capture, or where handshakes are only forwarded: twice or more in a row an initiation, its response, no \
                data from the initiator under the session that the response offers, and a new initiation within the time of a \
                retry. Where the capture says that the response came in (captures with `-i any`, or pcapng with directions) it \
                was made on the initiator's host, and the way is ruled out: likely. Otherwise it is a hint.",
    fix: "Give both sides the same PresharedKey, or neither. If they are the same, look on the initiator's host for what \
          drops the answer: an INPUT rule, `net.ipv4.conf.*.rp_filter = 1` with two uplinks, or a security group.",
    needs: &[super::DEVICES, &[Source::Capture]],
    explained_by: &["wg-local-drop"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    let mut findings = Vec::new();
    for view in views(input) {
        if rejected(&view, needed) {
            findings.push(at_initiator(&view));
        } else if let Some(calls) = response_lost::ineffective(&view, needed)
            && response_lost::is_ambiguous(&view)
        {
            findings.push(at_responder(&view, calls));
        }
    }
    let passing = super::parties::passing(input);
    let went_on = |p: &&super::parties::Passing<'_>| p.failed_run(input.now()).is_empty();
    findings.extend(
        passing
            .iter()
            .filter(went_on)
            .filter_map(|p| captured::passing(&p.initiator, input)),
    );
    findings
}

/// Whether responses come in and the device does not take them, more often than none comes. Attempts from before wgnat
/// looked count as far as the device's bytes prove them.
pub(super) fn rejected(view: &View<'_>, needed: u64) -> bool {
    let silence = &view.silence;
    silence.failed >= needed && silence.rejected > silence.unanswered && silence.cookies == 0
}

/// For whom the responses of the peer were made, where their first MAC could be checked.
fn made_for(view: &View<'_>) -> Option<ResponseTally> {
    let (endpoint, local) = (view.endpoint()?, view.wire.local?);
    view.world.opened.responses(endpoint, local).copied()
}

fn at_initiator(view: &View<'_>) -> Finding {
    let name = view.name();
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let rejected = view.silence.rejected;
    let macs = made_for(view);
    let foreign = macs.is_some_and(|m| m.for_us == 0 && m.for_others > 0);
    // The kernel itself says that they did not authenticate.
    let kernel = view.kernel_says(KernelReason::InvalidResponse);
    let confidence = match kernel {
        Some(_) if !foreign => Confidence::Certain,
        _ => Confidence::Likely,
    };
    let mut f = view.finding(RULE.code, Severity::Critical, confidence);
    f.first_seen = view.failing_since();
    f.count = u32::try_from(rejected).unwrap_or(u32::MAX);
    f.title = format!("{name} does not accept the handshake answers of {endpoint}");
    f.summary = format!(
        "{} came in from {endpoint}, and {name} took none: after each it began anew. {}",
        count(rejected, "response"),
        match macs {
            Some(_) if foreign =>
                "Their first MAC is not made with this host's public key: they are answers to somebody else, or were \
                 changed on the way.",
            Some(m) if m.for_us > 0 =>
                "Their first MAC is made with this host's public key, so the peer knows this host and the way is open \
                 both ways. What else goes into a response and can differ is the preshared key.",
            _ => "So the way is open both ways.",
        }
    );
    f.impact = "No new session comes up; when the old one is 180 s old nothing passes.".to_owned();
    f.evidence = evidence(view)
        .with("responses_not_accepted", rejected)
        .maybe("kernel_says_invalid_response", kernel)
        .maybe("responses_made_for_us", macs.map(|m| m.for_us))
        .maybe("responses_made_for_others", macs.map(|m| m.for_others));
    if confidence == Confidence::Likely {
        f.candidates = candidates(view, foreign);
    }
    f.fixes = fixes(view);
    f
}

fn evidence(view: &View<'_>) -> Evidence {
    let (rx, tx) = view.peer.delta();
    Evidence::new()
        .with("preshared_key_set_here", view.peer.newest.has_preshared_key)
        .with("attempts_on_wire", view.silence.on_wire)
        .with("unanswered_attempts", view.silence.unanswered)
        .with("rx_bytes_while_watched", rx)
        .with("tx_bytes_while_watched", tx)
        .with("implementation", view.implementation().name())
}

/// What a response that is not taken can be due to.
pub(super) fn candidates(view: &View<'_>, foreign: bool) -> Vec<Candidate> {
    let here = match view.peer.newest.has_preshared_key {
        true => "one is set here",
        false => "none is set here",
    };
    let psk = Candidate {
        cause: format!("The two sides hold different preshared keys ({here})"),
        code: Some(RULE.code),
        settle: format!(
            "Compare `{}` with the same on the peer, in private: equal lines exclude it",
            view.here(&format!("wg show {} preshared-keys", quote(view.name())))
        ),
    };
    let dropped = Candidate {
        cause: "This host drops the responses between the interface and the device (an input rule, or reverse path \
                filtering)"
            .to_owned(),
        code: Some("wg-local-drop"),
        settle: format!(
            "`{}` and `{}`: a counter that grows with each attempt is it",
            view.here("nstat -az TcpExtIPReversePathFilter"),
            view.here("nft list ruleset")
        ),
    };
    let stranger = Candidate {
        cause: "Another host or device answers in the peer's place (a port forward to the wrong host, a second device with \
                this key's port)"
            .to_owned(),
        code: None,
        settle: "On the peer: `tcpdump -ni any udp` shows whether these responses leave there".to_owned(),
    };
    if foreign {
        vec![stranger, dropped, psk]
    } else {
        vec![psk, dropped]
    }
}

fn fixes(view: &View<'_>) -> Vec<Fix> {
    vec![Fix {
        title: "Give both sides the same preshared key, or neither".to_owned(),
        why: "It is mixed in when the response is made, so a difference shows only here. An empty file means none."
            .to_owned(),
        command: view.wg_set("preshared-key /path/to/the.psk"),
        expect: Evidence::new().with("last_handshake_age_seconds", "under 180"),
        ..Fix::default()
    }]
}

/// Our answers have no effect, there never was a handshake, and a preshared key is set: either cause may be it.
fn at_responder(view: &View<'_>, calls: u64) -> Finding {
    let name = view.name();
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let mut f = view.finding(RULE.code, Severity::Warning, Confidence::Possible);
    f.count = u32::try_from(calls).unwrap_or(u32::MAX);
    f.title = format!("{name}'s handshake answers to {endpoint} have no effect");
    f.summary = format!(
        "{} of {endpoint} were answered, and nothing followed: it began anew. There never was a handshake with this \
         peer and a preshared key is set, so either the two keys differ or the answers are lost on the way back: from \
         here both look alike.",
        count(calls, "attempt")
    );
    f.impact = "No session comes up with this peer.".to_owned();
    f.evidence = response_lost::evidence(view, calls);
    f.candidates = vec![
        Candidate {
            cause: "The two sides hold different preshared keys (one is set here)".to_owned(),
            code: Some(RULE.code),
            settle: format!(
                "On the peer's host: `tcpdump -ni any udp port {}`; 92-byte answers arrive",
                view.info().listen_port.unwrap_or_default()
            ),
        },
        response_lost::candidate(view),
    ];
    f.fixes = fixes(view);
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::observation::device::Implementation::{Kernel, WireguardGo};

    fn rejecting(implementation: crate::observation::device::Implementation) -> Host {
        let mut host = Host::new(implementation);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        for (index, secs) in [(1, 0.5), (2, 5.7), (3, 10.9)] {
            host.call(secs, index).answered(secs + 0.03, index);
        }
        host.peer(12.0, peer_with(0, 3 * 148, None)).until(12.5);
        host
    }

    #[test]
    fn answers_that_the_device_does_not_take_are_rejected() {
        for implementation in [Kernel, WireguardGo] {
            let host = rejecting(implementation);
            let found = host.find(RULE.code).unwrap();
            assert_eq!(found.confidence, Confidence::Likely);
            assert_eq!(found.evidence.get("responses_not_accepted"), Some(&3.into()));
            assert_eq!(host.codes(), (vec![RULE.code], vec!["wg-handshake-timeout"]));
        }
    }

    #[test]
    fn one_that_is_seen_after_others_that_only_the_counters_prove_will_do() {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 2 * 148, None)).routed(0.1);
        host.call(1.0, 1).answered(1.03, 1);
        host.peer(6.0, peer_with(0, 3 * 148, None)).until(6.2);
        assert_eq!(host.codes(), (vec![RULE.code], vec!["wg-handshake-timeout"]));
        // One alone may be an accident.
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.call(1.0, 1).answered(1.03, 1);
        host.peer(6.0, peer_with(0, 148, None)).until(6.2);
        assert!(host.find(RULE.code).is_none());
    }

    #[test]
    fn the_kernels_own_word_is_certain() {
        let mut host = rejecting(Kernel);
        let line = |device: &str| {
            crate::observation::Body::KernelLine(crate::observation::device::KernelLine {
                device: device.to_owned(),
                reason: KernelReason::InvalidResponse,
                endpoint: Some(sock(PEER)),
            })
        };
        // Of a device of that endpoint in another namespace.
        host.see(12.0, Source::KernelLog, line("wg7"));
        assert_eq!(host.find(RULE.code).unwrap().confidence, Confidence::Likely);
        host.see(12.0, Source::KernelLog, line("wg0"));
        let found = host.find(RULE.code).unwrap();
        assert_eq!(found.confidence, Confidence::Certain);
        assert_eq!(
            found.evidence.get("kernel_says_invalid_response"),
            Some(&1.into())
        );
    }

    #[test]
    fn an_answer_that_is_taken_or_lost_is_none() {
        let mut host = rejecting(Kernel);
        host.call(16.0, 4).answered(16.03, 4);
        host.peer(17.0, peer_with(92, 4 * 148 + 32, Some(16.03)));
        assert!(host.find(RULE.code).is_none());
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.call(0.5, 1)
            .answered(0.53, 1)
            .call(5.7, 2)
            .call(10.9, 3)
            .until(17.0);
        host.peer(17.0, peer_with(0, 444, None));
        assert!(host.find(RULE.code).is_none());
    }
}

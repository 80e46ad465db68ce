//! `wg-handshake-timeout`: handshake attempts leave and no valid answer comes.

use super::view::{View, views};
use super::words::{count, time};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::device::KernelReason;
use crate::rules::{Area, Input, Rule};

mod causes;
mod passing;

pub(super) const CODE: &str = "wg-handshake-timeout";

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "critical, warning where they are only forwarded",
    holds_when: "at least two handshake attempts of this host ran out (REKEY_TIMEOUT, 5 s each) and no valid answer \
                 came",
    meaning: "Before two WireGuard peers exchange any data they agree on keys by a handshake: one side sends an \
              initiation (148 bytes over UDP), the other answers with a response (92 bytes). This host sends \
              initiations, repeats them every five seconds, and hears nothing that it can accept. The tunnel \
              carries nothing until that changes.\n\n\
              WireGuard never says no: a peer that does not know your key, holds another key, takes your message \
              for a replay or is switched off behaves exactly like a network that drops UDP. So from this host alone \
              the cause often cannot be told; what can be excluded is excluded, and the rest is listed with what \
              would settle each.",
    detection: "By the wire, where capturing is allowed: initiations towards the peer's endpoint without a response \
                within 5 s and up to a third of a second. By the device's counters, without capturing: the kernel \
                and wireguard-go count each initiation as 148 bytes sent, so `tx` = 148 · n with `rx` = 0 and no \
                handshake ever is n attempts without an answer. A response that is seen on the wire while the \
                device's handshake time stands still was not accepted, and is counted as a failed attempt too.\n\n\
                Only attempts of this host count: a peer that calls us and does not get through is another matter. \
                Attempts that are only forwarded (a router's) are a warning, which says on which side the silence is: \
                whether they went on, and whether answers came. \
                Two failed attempts are needed, so one lost packet is no finding. `certain` refers to the silence; \
                the causes are candidates.",
    fix: "Look at the peer's host first: `tcpdump -ni any udp port PORT` there.\n\n\
          - Nothing arrives: the way is blocked or the endpoint is wrong. Open the UDP port in the peer's firewall \
          and in its provider's (security group), check the address and port.\n\
          - Initiations arrive and nothing leaves: the keys do not match (`wg show` on both sides) or this host's \
          clock went back.\n\
          - Responses leave and do not get here: look for a firewall or NAT between, or an answer that leaves by \
          another interface.",
    needs: &[super::DEVICES],
    explained_by: &[
        "wg-endpoint-loop",
        "wg-no-route",
        "wg-endpoint-unreachable",
        "wg-local-drop",
        "wg-response-rejected",
        "wg-endpoint-stale-dns",
        "udp-blocked",
    ],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    let own = views(input)
        .filter(|view| fails(view, needed))
        .map(|view| finding(&view));
    own.chain(passing::check(input)).collect()
}

/// Whether handshakes of this side fail, and are still being tried as far as can be told.
pub(super) fn fails(view: &View<'_>, needed: u64) -> bool {
    let silence = &view.silence;
    let seen_failing = silence.unanswered + silence.cookies + silence.rejected >= needed;
    view.endpoint().is_some() && silence.failed >= needed && (silence.trying || seen_failing)
}

fn finding(view: &View<'_>) -> Finding {
    let (name, silence) = (view.name(), &view.silence);
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let only_rejected = silence.rejected > 0 && silence.unanswered == 0 && silence.cookies == 0;
    let mut finding = view.finding(CODE, Severity::Critical, Confidence::Certain);
    finding.first_seen = view.failing_since();
    finding.title = if only_rejected {
        format!("{name} does not accept the handshake answers of {endpoint}")
    } else {
        format!("{name} gets no handshake answer from {endpoint}")
    };
    finding.summary = summary(view, &endpoint);
    finding.evidence = evidence(view);
    finding.impact = match view.handshake_age() {
        Some(age) if view.live() => format!(
            "The session of {} ago still carries data; when it is 180 s old nothing passes.",
            time(age)
        ),
        _ => "Nothing passes through the tunnel to this peer.".to_owned(),
    };
    finding.candidates = causes::candidates(view);
    finding.fixes = fixes(view, only_rejected);
    finding
}

fn summary(view: &View<'_>, endpoint: &str) -> String {
    let silence = &view.silence;
    let attempts = count(silence.failed, "handshake attempt");
    let mut text = match (silence.rejected, silence.cookies, silence.counted) {
        (0, 0, Some(c)) if c.since_configured => format!(
            "{attempts} to {endpoint} ran out: {} bytes sent (148 for each attempt), none received, and never a \
             handshake since the peer was configured.",
            view.peer.newest.tx_bytes
        ),
        (0, 0, _) => format!("{attempts} to {endpoint} ran out, and nothing came back."),
        (0, cookies, _) => format!(
            "{attempts} to {endpoint} failed; {} came instead of an answer: the peer is under load and asks for a \
             retry with proof of our address.",
            count(cookies, "cookie reply").replace("replys", "replies")
        ),
        (rejected, _, _) => format!(
            "{attempts} to {endpoint} failed although {} came: the device did not accept {}, so the way is open both \
             ways.",
            count(rejected, "response"),
            if rejected == 1 { "it" } else { "them" }
        ),
    };
    match view.handshake_age() {
        Some(age) => text.push_str(&format!(" The last good handshake was {} ago.", time(age))),
        None if view.peer.clock_went_back(view.world.now) => {
            text.push_str(" The last good handshake lies in the future: this host's clock went back.");
        }
        None if silence.counted.is_none_or(|c| !c.since_configured) => {
            text.push_str(" There was never a handshake with this peer.");
        }
        None => {}
    }
    if !view.wire.called.is_empty() {
        text.push_str(&format!(
            " The peer calls too ({} arrived), so its packets get here.",
            count(view.wire.called.len() as u64, "initiation")
        ));
    }
    if silence.failed > 0 && silence.rejected == 0 && silence.cookies == 0 {
        text.push_str(" WireGuard is silent about refusals, so the causes below look alike from here.");
    }
    text
}

fn evidence(view: &View<'_>) -> Evidence {
    let silence = &view.silence;
    let (rx, tx) = view.peer.delta();
    let watched = view.wire_watched();
    Evidence::new()
        .with("unanswered_attempts", silence.failed)
        .maybe("attempts_by_counters", silence.counted.map(|c| c.sent))
        .maybe("attempts_on_wire", watched.then_some(silence.on_wire))
        .maybe("responses_not_accepted", watched.then_some(silence.rejected))
        .maybe("cookie_replies", watched.then_some(silence.cookies))
        .maybe(
            "initiations_from_peer",
            watched.then_some(view.wire.called.len() as u64),
        )
        .maybe(
            "last_attempt_age_seconds",
            silence.newest.map(|at| (view.world.now - at).as_secs_f64()),
        )
        .maybe(
            "last_handshake_age_seconds",
            view.handshake_age().map(|age| age.as_secs_f64()),
        )
        .with("rx_bytes", view.peer.newest.rx_bytes)
        .with("tx_bytes", view.peer.newest.tx_bytes)
        .with("rx_bytes_while_watched", rx)
        .with("tx_bytes_while_watched", tx)
        .with("implementation", view.implementation().name())
        .with("other_live_peers", view.other_live_peers())
        .maybe(
            "reverse_path_drops",
            view.world.counters.delta("TcpExt.IPReversePathFilter"),
        )
        .maybe("ip_out_discards", view.world.counters.delta("Ip.OutDiscards"))
        .maybe("kernel_says_gave_up", view.kernel_says(KernelReason::GaveUp))
}

fn fixes(view: &View<'_>, only_rejected: bool) -> Vec<Fix> {
    let expect = || Evidence::new().with("last_handshake_age_seconds", "under 180");
    let Some(endpoint) = view.endpoint() else {
        return Vec::new();
    };
    let mut fixes = Vec::new();
    if let Some((title, command)) = causes::moved_name(view) {
        fixes.push(Fix {
            title,
            why: "WireGuard resolves a name once, when the peer is configured, and never again.".to_owned(),
            command,
            expect: expect(),
            ..Fix::default()
        });
    }
    if only_rejected {
        fixes.push(Fix {
            title: "Give both sides the same preshared key, or neither".to_owned(),
            why: "It is mixed in when the response is made, so a difference shows only here.".to_owned(),
            expect: expect(),
            ..Fix::default()
        });
        return fixes;
    }
    fixes.push(Fix {
        title: "On the peer's host, look whether the initiations arrive".to_owned(),
        why: "Nothing there: the network or the endpoint. 148-byte packets and no 92-byte answer: keys or clock. \
              Answers leave: the way back."
            .to_owned(),
        command: Some(format!("tcpdump -ni any udp port {}", endpoint.port())),
        expect: expect(),
        ..Fix::default()
    });
    if let Some(ours) = view.info().public_key {
        fixes.push(Fix {
            title: "On the peer's host, compare the keys".to_owned(),
            why: format!(
                "The first command must print {} and the second must list {ours}.",
                view.key
            ),
            command: Some("wg show all public-key; wg show all peers".to_owned()),
            expect: expect(),
            ..Fix::default()
        });
    }
    fixes
}

#[cfg(test)]
mod tests;

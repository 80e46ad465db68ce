//! `wg-one-way` in a capture: data goes out, a handshake completes, and nothing but handshakes comes back.

use super::CAPTURE;
use super::view::{finding, peer, secs};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, tunnel};
use crate::time::{Span, Timestamp};
use crate::track::sessions::{Run, Side, Tunnel};

/// After a new handshake an answer takes a round trip; this is ample.
const AFTER_HANDSHAKE: Span = Span::from_secs(3);

/// The rule.
pub const RULE: Rule = Rule {
    needs: CAPTURE,
    explained_by: &[
        "wg-endpoint-unreachable",
        "wg-handshake-timeout",
        "wg-response-rejected",
        "wg-response-lost",
        "wg-duplicate-key",
        "wg-mtu-blackhole",
    ],
    check,
    ..tunnel::ONE_WAY
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let tunnels = input.world.sessions.tunnels().iter();
    tunnels
        .flat_map(|tunnel| [(tunnel, Side::First), (tunnel, Side::Second)])
        .filter_map(|(tunnel, side)| {
            let (run, renewed) = deaf(input, tunnel, side)?;
            Some(report(input, tunnel, side, run, renewed))
        })
        .collect()
}

/// What `side` sent without an answer, and when a handshake completed meanwhile: without one the capture may miss the
/// other direction, or the other host may be gone.
fn deaf(input: &Input<'_>, tunnel: &Tunnel, side: Side) -> Option<(Run, Timestamp)> {
    let world = input.world;
    let run = world.sessions.answers(tunnel, side).open()?;
    let renewed = tunnel.newest_began().filter(|at| *at > run.since)?;
    let heard = world.sessions.last_sent(tunnel, side.other());
    let holds = heard.is_none_or(|heard| heard < run.since)
        && run.last > renewed
        && world.now - renewed >= AFTER_HANDSHAKE
        && world.now - run.since >= input.thresholds.one_way_after;
    holds.then_some((run, renewed))
}

fn report(input: &Input<'_>, tunnel: &Tunnel, side: Side, run: Run, renewed: Timestamp) -> Finding {
    let [first, second] = tunnel.ends;
    let (from, to) = if side == Side::First {
        (first, second)
    } else {
        (second, first)
    };
    let now = input.world.now;
    let levels = (Severity::Critical, Confidence::Certain);
    let mut f = finding(RULE.code, levels, peer(to, from), (run.since, now));
    f.title = format!("{from} sends to {to} and no data comes back");
    f.summary = format!(
        "{} messages in {} and nothing but handshakes came back; one completed in between. A healthy peer answers data \
         within 10 s, if only with a keepalive.",
        run.count,
        secs(now - run.since)
    );
    f.impact = "Connections through the tunnel time out although handshakes complete.".to_owned();
    f.evidence = Evidence::new()
        .with("unanswered_messages", run.count)
        .with("silent_seconds", (now - run.since).as_secs_f64())
        .with("smallest_unanswered_bytes", run.shortest)
        .with("largest_unanswered_bytes", run.longest)
        .with("handshake_completed_at", renewed.to_string());
    let candidate = |cause: &str, code, settle: &str| Candidate {
        cause: cause.to_owned(),
        code,
        settle: settle.to_owned(),
    };
    f.candidates = vec![
        candidate(
            "its data does not arrive: something lets handshakes pass and drops data",
            None,
            "capture on the other host too: `wgnat analyze HERE.pcap THERE.pcap` says which way is lost",
        ),
        candidate(
            "it arrives, and the answers are lost on the way back",
            None,
            "the same",
        ),
    ];
    f.fixes = vec![Fix {
        title: "Capture on both hosts at once".to_owned(),
        why: "One capture shows that nothing comes back; two show where it is lost.".to_owned(),
        command: Some(format!(
            "tcpdump -ni any -s 200 -w there.pcap udp port {}",
            to.port()
        )),
        ..Fix::default()
    }];
    f.count = u32::try_from(run.count).unwrap_or(u32::MAX);
    f
}

//! WireGuard peers: when each had a session, shook hands, got no answer, moved; and a table.

use super::past::{Key, Past};
use super::view::View;
use super::{rest, section, shown, table};
use crate::agent::shared::Snapshot;
use crate::output::html::chart::{Mark, Point, Row, Shape, Span, State, Timeline, Times};
use crate::output::html::escape;
use crate::output::human;
use crate::report::{PeerRow, PeerState, Report};
use crate::words;

const UP: &str = "wgnat_wireguard_peer_up";
const AGE: &str = "wgnat_wireguard_peer_handshake_age_seconds";
const UNANSWERED: &str = "wgnat_wireguard_peer_unanswered_handshakes";
const CHANGES: &str = "wgnat_wireguard_peer_endpoint_changes";

fn key(name: &'static str, peer: &PeerRow) -> Key {
    let device = peer.device.clone().unwrap_or_default();
    (
        name,
        vec![("device", device), ("public_key", peer.public_key.to_string())],
    )
}

/// Those that fail first, then those that move most.
fn worst(report: &Report) -> Vec<&PeerRow> {
    let mut peers: Vec<&PeerRow> = report.wireguard.peers.iter().collect();
    peers.sort_by_key(|p| {
        let order = match p.state {
            PeerState::Failing => 0,
            PeerState::Handshaking | PeerState::Never => 1,
            PeerState::Up => 2,
            PeerState::Idle | PeerState::NoEndpoint | PeerState::Unknown => 3,
        };
        let bytes = p.rx_bytes.unwrap_or(0).saturating_add(p.tx_bytes.unwrap_or(0));
        (order, std::cmp::Reverse(bytes))
    });
    peers
}

/// The series that are shown.
pub(super) fn series(snapshot: &Snapshot, most: usize) -> Vec<Key> {
    let peers = worst(&snapshot.report);
    let named = peers.into_iter().take(most.min(super::SHOWN));
    named
        .flat_map(|peer| [UP, AGE, UNANSWERED, CHANGES].map(|name| key(name, peer)))
        .collect()
}

/// The section.
pub(super) fn write(snapshot: &Snapshot, past: &Past, view: View, out: &mut String) {
    let report = &snapshot.report;
    let peers = worst(report);
    if peers.is_empty() {
        return;
    }
    let named: Vec<(String, &PeerRow)> = peers.iter().take(super::SHOWN).map(|p| (name(p), *p)).collect();
    let rows: Vec<Row<'_>> = named
        .iter()
        .map(|(name, peer)| row(name, peer, report, past))
        .collect();
    let mut inner = String::new();
    let picture = Timeline {
        id: "handshakes",
        title: "Handshakes, sessions and endpoint changes of WireGuard peers",
        times: Times::Before(past.to),
        from: past.from,
        to: past.to,
        states: [(State::Good, "session"), (State::Bad, "no session")],
        shapes: [
            (Shape::Tick, "handshake"),
            (Shape::Cross, "no answer"),
            (Shape::Diamond, "moved"),
        ],
        rows,
    };
    inner.push_str("<div class=\"wide\">\n");
    inner.push_str(&picture.svg());
    inner.push_str("</div>\n");
    let columns = [
        ("peer", false),
        ("state", false),
        ("endpoint", false),
        ("last handshake", false),
        ("round trip", true),
        ("received", true),
        ("sent", true),
    ];
    let cells: Vec<Vec<String>> = peers
        .iter()
        .take(shown(view))
        .map(|peer| cells(peer, report))
        .collect();
    inner.push_str(&table(
        "peers-t",
        "WireGuard peers, failing ones first",
        &columns,
        &cells,
    ));
    inner.push_str(&rest(
        view,
        peers.len(),
        report.wireguard.peers_left_out,
        "peers",
        "peers",
    ));
    section("peers", "WireGuard peers", &inner, out);
}

fn name(peer: &PeerRow) -> String {
    let key = peer.public_key.short();
    let endpoint = peer.endpoint.map_or_else(String::new, |e| format!("  {e}"));
    match &peer.device {
        Some(device) => format!("{device} {key}{endpoint}"),
        None => format!("{key}{endpoint}"),
    }
}

fn cells(peer: &PeerRow, report: &Report) -> Vec<String> {
    let (class, sign) = match peer.state {
        PeerState::Up => ("ok", "✓ "),
        PeerState::Failing => ("critical", "✗ "),
        PeerState::Handshaking | PeerState::Never => ("warning", "! "),
        _ => ("note", ""),
    };
    let state = match peer.unanswered.filter(|n| *n > 0) {
        Some(n) => format!("{}, {} unanswered", peer.state.name(), words::count(n)),
        None => peer.state.name().to_owned(),
    };
    let handshake = match (peer.last_handshake, peer.state) {
        (Some(at), _) => human::ago(report.generated_at, at),
        (None, PeerState::Unknown) => "–".to_owned(),
        (None, _) => "never".to_owned(),
    };
    let bytes = |n: Option<u64>| n.map_or_else(|| "–".to_owned(), human::bytes);
    // Escaping trims, so the space between the two is not part of the name.
    let device = peer
        .device
        .as_deref()
        .map_or_else(String::new, |d| format!("{} ", escape(d)));
    vec![
        format!("{device}<code>{}</code>", escape(&peer.public_key.short())),
        format!("<span class=\"{class}\">{sign}{}</span>", escape(&state)),
        escape(&peer.endpoint.map_or_else(|| "–".to_owned(), |e| e.to_string())),
        escape(&handshake),
        peer.rtt.map_or_else(|| "–".to_owned(), human::span),
        bytes(peer.rx_bytes),
        bytes(peer.tx_bytes),
    ]
}

fn row<'a>(name: &'a str, peer: &PeerRow, report: &Report, past: &Past) -> Row<'a> {
    let series = |name| past.series(&key(name, peer));
    let mut marks: Vec<(Shape, Mark<'a>)> = Vec::new();
    let mut add = |shape, at: i64, label: &'static str| {
        let label = label.into();
        marks.push((shape, Mark { at, label }));
    };
    let mut shakes = handshakes(series(AGE), past.step);
    let last = peer
        .last_handshake
        .map(|at| at.as_nanos().div_euclid(1_000_000_000));
    if let Some(last) = last {
        // The newest is known exactly.
        shakes.retain(|at| *at < last - past.step - SLACK);
        shakes.push(last);
    }
    for at in shakes {
        add(Shape::Tick, at, "handshake");
    }
    for at in rises(series(CHANGES)) {
        add(Shape::Diamond, at, "endpoint changed");
    }
    let tried = rises(series(UNANSWERED));
    let first_known = tried.first().copied().unwrap_or(i64::MAX);
    for at in &tried {
        add(Shape::Cross, *at, "handshake without an answer");
    }
    // What the wire shows of the last minutes, where memory or history does not reach.
    for shake in &report.wireguard.handshakes {
        let own = shake.public_key == Some(peer.public_key) && shake.device == peer.device;
        let at = shake.at.as_nanos().div_euclid(1_000_000_000);
        if own && matches!(shake.outcome, "unanswered" | "unreachable") && at < first_known {
            add(Shape::Cross, at, "handshake without an answer");
        }
    }
    Row {
        name,
        spans: spans(series(UP), past.step),
        marks,
    }
}

/// A sample's time is rounded down to history's step, so an age leads to a moment that is this many seconds off at most.
const SLACK: i64 = 11;

/// When handshakes were, from their age at each point.
pub(super) fn handshakes(ages: &[Point], step: i64) -> Vec<i64> {
    let mut found: Vec<i64> = Vec::new();
    for (at, _, least, _) in ages {
        if !least.is_finite() || *least < 0.0 {
            continue;
        }
        let when = at.saturating_sub(i64::try_from(words::whole(*least)).unwrap_or(i64::MAX));
        // WireGuard shakes hands again after two minutes at the soonest, unless something fails.
        if found
            .last()
            .is_none_or(|last| when > last.saturating_add(step.max(0)).saturating_add(SLACK))
        {
            found.push(when);
        }
    }
    found
}

/// When a count grew. One that fell was begun anew, and what it holds then is new.
pub(super) fn rises(points: &[Point]) -> Vec<i64> {
    let mut before: Option<f64> = None;
    let mut found = Vec::new();
    for (at, _, _, most) in points {
        // What was there at the first point may be old.
        if before.is_some_and(|before| *most > before || *most < before && *most > 0.0) {
            found.push(*at);
        }
        before = Some(*most);
    }
    found
}

/// Stretches with and without a session.
pub(super) fn spans(points: &[Point], step: i64) -> Vec<Span> {
    let step = step.max(1);
    let mut spans: Vec<Span> = Vec::new();
    for (at, mean, ..) in points {
        let state = if *mean >= 0.5 { State::Good } else { State::Bad };
        match spans.last_mut() {
            Some(last) if last.state == state && at.saturating_sub(last.to) <= step.saturating_mul(2) => {
                last.to = at.saturating_add(step);
            }
            _ => spans.push(Span {
                from: *at,
                to: at.saturating_add(step),
                state,
            }),
        }
    }
    spans
}

//! Probed peers: a table of round trips and, for each, what its answers prove.
//!
//! In: a [`Report`]. Out: a few rows and lines; the whole is in the JSON. Pure.

use super::page::{Page, Role, piece};
use super::table::{Cell, Column, Table};
use crate::observation::probe::{Inner, Transport};
use crate::output::human;
use crate::report::Report;
use crate::report::probed::ProbeRow;
use crate::time::Span;

/// Rows of the table.
pub const ROWS: usize = 20;
/// Peers of which it is told what was proved.
const TOLD: usize = 8;
/// Where the text of a peer's lines begins.
const INDENT: usize = 12;

/// The table, where something was probed.
pub fn table(report: &Report) -> Option<Table> {
    let all = &report.wireguard.probes;
    if all.is_empty() {
        return None;
    }
    let mut rows: Vec<&ProbeRow> = all.iter().collect();
    // What fails must not be hidden by what works.
    rows.sort_by_key(|p| (works(p), p.skipped.is_some()));
    let left_out = all.len().saturating_sub(ROWS) as u64;
    Some(Table {
        columns: vec![
            Column::text("Probed", 10),
            Column::text("at", 16),
            Column::number("answered"),
            Column::number("first"),
            Column::number("then min/mean/max"),
            Column::fixed("state"),
        ],
        rows: rows.iter().take(ROWS).map(|p| row(p)).collect(),
        note: (left_out > 0).then(|| format!("and {} more in --json", human::count(left_out))),
    })
}

fn works(p: &ProbeRow) -> bool {
    p.tally.answered + p.tally.called_back > 0
}

fn name(p: &ProbeRow) -> String {
    let key = p.public_key.short();
    let way = match p.transport {
        Transport::Udp => "",
        Transport::Websocket => " ws",
    };
    match &p.device {
        Some(device) => format!("{device} {key}{way}"),
        None => format!("{key}{way}"),
    }
}

fn row(p: &ProbeRow) -> Vec<Cell> {
    let none = || "–".to_owned();
    let answered = p.tally.answered + p.tally.called_back;
    let (role, state) = match &p.skipped {
        Some(skipped) if skipped.refused => (Role::Warning, "refused".to_owned()),
        Some(_) => (Role::Dim, "skipped".to_owned()),
        None if answered > 0 && p.tally.silent > 0 => (
            Role::Warning,
            format!("{:.0} % lost", p.loss.unwrap_or(0.0) * 100.0),
        ),
        None if answered > 0 => (Role::Good, "answers".to_owned()),
        None if p.tally.preshared_key_differs > 0 => (Role::Critical, "other PSK".to_owned()),
        None if p.tally.icmp > 0 => (Role::Critical, "unreachable".to_owned()),
        None if p.tally.not_sent > 0 => (Role::Critical, "not sent".to_owned()),
        None if p.tally.cookies > 0 => (Role::Warning, "under load".to_owned()),
        None => (Role::Critical, "silent".to_owned()),
    };
    vec![
        Cell::plain(name(p)),
        Cell::plain(p.address.map_or_else(|| p.endpoint.clone(), |a| a.to_string())),
        Cell::plain(match &p.skipped {
            Some(_) => none(),
            None => format!("{answered} of {}", p.tally.sent),
        }),
        Cell::plain(p.cold.map_or_else(none, human::span)),
        Cell::plain(p.warm.map_or_else(none, |(min, mean, max)| trips(min, mean, max))),
        Cell::of(role, state),
    ]
}

fn trips(min: Span, mean: Span, max: Span) -> String {
    let ms = |span: Span| human::float(span.as_secs_f64() * 1000.0);
    format!("{}/{}/{} ms", ms(min), ms(mean), ms(max))
}

/// What was proved, peer by peer.
pub fn write(page: &mut Page, report: &Report) {
    let mut rows: Vec<&ProbeRow> = report.wireguard.probes.iter().collect();
    rows.sort_by_key(|p| (works(p), p.skipped.is_some()));
    for p in rows.iter().take(TOLD) {
        page.paragraph(
            piece(Role::Strong, name(p)),
            INDENT,
            &[piece(Role::Plain, told(p).join(" "))],
        );
    }
}

/// A sentence for each thing.
fn told(p: &ProbeRow) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(skipped) = &p.skipped {
        said.push(format!("Not probed: {}.", skipped.reason));
        said.extend(skipped.way_round.iter().map(|way| format!("{way}.")));
    }
    said.extend(p.proved.iter().cloned());
    if let Some(websocket) = &p.websocket {
        said.push(match &websocket.error {
            Some(error) => format!("WebSocket: {error}."),
            None => "The WebSocket opens.".to_owned(),
        });
        said.extend(
            websocket
                .not_tls
                .iter()
                .map(|bytes| format!("What answers is not TLS; it begins {bytes:?}.")),
        );
        said.extend(
            websocket
                .certificates
                .first()
                .map(|c| format!("Certificate of {}, signed by {}.", c.subject, c.issuer)),
        );
    }
    said.extend(p.inner.iter().map(inner));
    if let Some(mtu) = &p.mtu {
        said.push(match (mtu.passes, mtu.fails) {
            (Some(passes), None) => format!("Packets of {passes} bytes pass, as large as the tunnel sends."),
            (Some(passes), Some(_)) => {
                format!("Packets of {passes} bytes pass and no larger ones: set the tunnel's MTU to that.")
            }
            (None, _) => "The MTU cannot be told: not even small packets are answered.".to_owned(),
        });
    }
    if let Some(lifetime) = &p.lifetime {
        said.push(
            match (lifetime.alive_after_seconds, lifetime.dead_after_seconds) {
                (Some(alive), Some(dead)) => format!(
                    "The mapping outlives {} of silence and not {}.",
                    human::seconds(alive),
                    human::seconds(dead)
                ),
                (Some(alive), None) => format!("The mapping outlives {} of silence.", human::seconds(alive)),
                (None, Some(dead)) => format!(
                    "The mapping does not outlive {} of silence.",
                    human::seconds(dead)
                ),
                (None, None) => format!(
                    "The mapping's lifetime cannot be told: {}.",
                    lifetime.error.as_deref().unwrap_or("no reason is known")
                ),
            },
        );
        said.extend(
            p.keepalive_to_set
                .map(|s| format!("Set PersistentKeepalive = {s}.")),
        );
    }
    said
}

fn inner(i: &Inner) -> String {
    let rtt = i.rtts.iter().copied().reduce(f64::min).map(human::seconds);
    let outcome = match (&i.answer, &i.error) {
        (Some(answer), _) => answer.clone(),
        (None, Some(error)) => error.clone(),
        (None, None) => format!("{} of {} answered", i.answered, i.sent),
    };
    match rtt {
        Some(rtt) => format!("Inside, {} {}: {outcome} in {rtt}.", i.kind.name(), i.target),
        None => format!("Inside, {} {}: {outcome}.", i.kind.name(), i.target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::probe::Skipped;
    use crate::output::{Options, text};
    use crate::report::sample;
    use crate::track::probes::Tally;

    fn probed() -> ProbeRow {
        ProbeRow {
            origin: "wg0.conf:4".to_owned(),
            device: Some("wg0".to_owned()),
            public_key: sample::key(9),
            local_public_key: sample::key(8),
            endpoint: "gw.example:51820".to_owned(),
            address: Some(sample::addr("198.51.100.7:51820")),
            transport: Transport::Udp,
            skipped: None,
            tally: Tally {
                sent: 3,
                answered: 3,
                ..Tally::default()
            },
            loss: Some(0.0),
            cold: Some(Span::from_millis(412)),
            warm: Some((
                Span::from_millis(20),
                Span::from_millis(22),
                Span::from_millis(23),
            )),
            proved: vec!["It holds its key.".to_owned()],
            websocket: None,
            inner: Vec::new(),
            mtu: None,
            mtu_to_set: None,
            lifetime: None,
            keepalive_to_set: None,
        }
    }

    fn rendered(rows: Vec<ProbeRow>) -> String {
        let mut report = sample::empty();
        report.status = crate::report::Status::Ok;
        report.wireguard.probes = rows;
        let mut out = Vec::new();
        text::render(&report, &Options::default(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_of_round_trips_that_fits_and_what_was_proved() {
        let refused = ProbeRow {
            skipped: Some(Skipped {
                reason: "its key is in use by wg0".to_owned(),
                way_round: Some("Give the peer another key".to_owned()),
                refused: true,
            }),
            tally: Tally::default(),
            cold: None,
            warm: None,
            proved: Vec::new(),
            ..probed()
        };
        let text = rendered(vec![probed(), refused]);
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        for words in [
            "3 of 3",
            "412 ms",
            "20/22/23 ms",
            "answers",
            "refused",
            "It holds its key.",
            "Not probed: its key is in use by wg0.",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}

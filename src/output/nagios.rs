//! The report for a monitoring system: one status line with performance data, as Nagios and its kin read it.
//!
//! In: a [`Report`]. Out: `WGNAT STATE - text | 'label'=value[unit];warn;crit;min;max …`, by the Nagios Plugin
//! Development Guidelines (sections "Plugin output" and "Performance data"). What was not measured has no label: a
//! graph with a gap is right, one with a zero is not. Pure.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::clean;
use crate::finding::Severity;
use crate::report::period::Period;
use crate::report::{PeerState, Report, Status};

/// Findings that are named in the line; of the rest only how many there are.
const NAMED: usize = 3;

/// Characters of the text before the performance data: receivers cut long lines, and the counts come first.
const TEXT: usize = 400;

/// Writes `report`.
pub fn render(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let state = match report.status {
        Status::Ok => "OK",
        Status::Warning => "WARNING",
        Status::Critical => "CRITICAL",
        Status::Unknown => "UNKNOWN",
    };
    let text = clean::elide(&text(report), TEXT).replace('|', "/");
    writeln!(out, "WGNAT {state} - {text} | {}", perfdata(report))
}

fn text(report: &Report) -> String {
    if report.status == Status::Unknown {
        return super::changes::unknown(report);
    }
    let counts: Vec<String> = counts(report)
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(severity, n)| format!("{n} {}", severity.name()))
        .collect();
    let mut text = match (counts.is_empty(), report.not_checked.len()) {
        (false, _) => counts.join(", "),
        (true, 0) => super::changes::calm(report).to_owned(),
        (true, n) => format!("no problem seen, {n} not checked"),
    };
    let named = report.findings.iter().take(NAMED);
    for (i, f) in named.enumerate() {
        let title = clean::shorten_keys(&f.title).into_owned();
        let joint = if i == 0 { ": " } else { "; " };
        let _ = write!(text, "{joint}{} ({})", clean::line(&title), f.code);
    }
    if report.findings.len() > NAMED {
        let _ = write!(text, "; and {} more", report.findings.len() - NAMED);
    }
    if let Some(changes) = report.changes.as_ref().filter(|changes| changes.any()) {
        let since = super::changes::since(changes, report.generated_at).to_lowercase();
        let _ = write!(text, " ({since}: {})", super::changes::summary(changes));
    }
    text
}

fn counts(report: &Report) -> [(Severity, usize); 3] {
    [Severity::Critical, Severity::Warning, Severity::Info].map(|severity| {
        let n = report.findings.iter().filter(|f| f.severity == severity).count();
        (severity, n)
    })
}

fn perfdata(report: &Report) -> String {
    let mut data = Data::default();
    for (severity, n) in counts(report) {
        let warn_crit = match severity {
            Severity::Critical => ";;0",
            Severity::Warning => ";0;",
            Severity::Info => ";;",
        };
        data.put(severity.name(), n, &format!("{warn_crit};0;"));
    }
    for (kind, list) in report.changes.iter().flat_map(|changes| changes.kinds()) {
        data.put(kind, list.len(), ";;;0;");
    }
    if let Some(period) = &report.period {
        history(period, &mut data);
    }
    if let Some(conntrack) = &report.conntrack {
        let max = conntrack.max.map(|max| max.to_string()).unwrap_or_default();
        data.maybe("conntrack_entries", conntrack.count, &format!(";;;0;{max}"));
    }
    data.maybe("tcp_sockets", report.sockets.tcp_total, ";;;0;");
    data.maybe("time_wait", report.sockets.time_wait_total, ";;;0;");
    let busiest = report.sockets.destinations.iter().max_by_key(|row| row.held);
    if let Some(row) = busiest {
        let max = row.available.map(|max| max.to_string()).unwrap_or_default();
        data.put("ports_busiest_destination", row.held, &format!(";;;0;{max}"));
    }
    let peers = &report.wireguard.peers;
    if !peers.is_empty() {
        let of = |state| peers.iter().filter(|peer| peer.state == state).count();
        data.put("peers", peers.len(), ";;;0;");
        data.put("peers_up", of(PeerState::Up), ";;;0;");
        data.put("peers_failing", of(PeerState::Failing), ";;;0;");
    }
    let rtt = peers.iter().filter_map(|peer| peer.rtt).max();
    data.maybe(
        "handshake_rtt_worst",
        rtt.map(|rtt| format!("{:.6}s", rtt.as_secs_f64())),
        ";;;0;",
    );
    data.0
}

/// What history knows of now, by the labels that a look has where it is the same.
fn history(period: &Period, data: &mut Data) {
    data.put(
        "watched",
        format!("{:.0}s", period.watched.as_secs_f64()),
        ";;;0;",
    );
    for (label, metric, state, unit) in [
        ("conntrack_entries", "wgnat_conntrack_entries", "", ""),
        ("time_wait", "wgnat_tcp_time_wait_sockets", "", ""),
        ("peers_up", "wgnat_wireguard_peers", "up", ""),
        ("peers_failing", "wgnat_wireguard_peers", "failing", ""),
        (
            "handshake_rtt_worst",
            "wgnat_wireguard_peer_handshake_rtt_seconds",
            "",
            "s",
        ),
        (
            "ports_busiest_destination_percent",
            "wgnat_destination_ports_used_ratio",
            "",
            "%",
        ),
    ] {
        let own = period.trends.iter().filter(|trend| {
            let of_state = trend
                .labels
                .iter()
                .any(|(name, value)| name == "state" && value == state);
            trend.metric == metric && (state.is_empty() || of_state)
        });
        let worst = own.filter_map(|trend| Some((trend.last?, trend.limit)));
        let worst = worst.max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((value, limit)) = worst {
            let (scale, digits) = match unit {
                "%" => (100.0, 1),
                "s" => (1.0, 6),
                _ => (1.0, 0),
            };
            let max = limit.map_or_else(String::new, |max| format!("{:.0}", max * scale));
            data.put(
                label,
                format!("{:.digits$}{unit}", value * scale),
                &format!(";;;0;{max}"),
            );
        }
    }
}

/// `label=value;…` pairs, a space between.
#[derive(Default)]
struct Data(String);

impl Data {
    fn put(&mut self, label: &str, value: impl std::fmt::Display, limits: &str) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        let _ = write!(self.0, "{label}={value}{limits}");
    }

    fn maybe(&mut self, label: &str, value: Option<impl std::fmt::Display>, limits: &str) {
        if let Some(value) = value {
            self.put(label, value, limits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn line(report: &Report) -> String {
        let mut out = Vec::new();
        render(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_was_not_measured_has_no_label() {
        let line = line(&sample::empty());
        assert_eq!(
            line,
            "WGNAT UNKNOWN - nothing could be observed | critical=0;;0;0; warning=0;0;;0; info=0;;;0;\n"
        );
    }

    #[test]
    fn the_worst_is_named_and_numbers_have_their_limits() {
        let line = line(&sample::ports_exhausted());
        assert!(line.starts_with("WGNAT CRITICAL - 1 critical"), "{line}");
        assert!(line.contains("(ports-exhausted)"), "{line}");
        assert!(line.contains(" ports_busiest_destination="), "{line}");
        assert!(line.contains(" conntrack_entries="), "{line}");
    }

    #[test]
    fn one_line_with_one_bar_whatever_names_hold() {
        let mut report = sample::hostile_names();
        if let Some(finding) = report.findings.first_mut() {
            finding.title = "a|b\nc\u{1b}[2J 'quoted'=7;8".repeat(60);
        }
        let line = line(&report);
        assert_eq!(line.matches('|').count(), 1, "{line}");
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.len() < 1500, "{line}");
    }
}

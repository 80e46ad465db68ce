//! The report for a person at a terminal: the verdict, findings worst first, compact tables, and what could not
//! be seen.
//!
//! In: a [`Report`]. Out: lines of at most [`Options::width`] columns, except commands and snippets, which are never
//! broken. Pure.

mod captured;
pub mod changes;
mod finding;
mod fly;
mod nat;
pub mod page;
mod paths;
mod places;
mod probed;
pub mod prose;
pub mod table;
pub mod tables;

use std::io::{self, Write};

use super::{Options, clean, human, unseen};
use crate::report::{Report, Status};
use page::{Page, Piece, Role, piece, whole};

/// The narrowest layout.
pub const MIN_WIDTH: usize = 60;
/// The widest: prose in longer lines is hard to read.
pub const MAX_WIDTH: usize = 100;

/// Findings that are told in full; of the rest only how many there are.
const IN_FULL: usize = 20;

/// Columns for the host's name in the verdict line.
const HOSTNAME_COLUMNS: usize = 24;
/// Columns for the kernel's release there.
const KERNEL_COLUMNS: usize = 24;

/// Writes `report`.
pub fn render(report: &Report, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page::new(Options {
        width: options.width.clamp(MIN_WIDTH, MAX_WIDTH),
        ..*options
    });
    verdict(&mut page, report);
    if let Some(changes) = &report.changes {
        changes::write(&mut page, changes, report.generated_at);
    }
    for (index, finding) in report.findings.iter().enumerate().take(IN_FULL) {
        page.gap();
        finding::write(
            &mut page,
            finding,
            report.explained_by(index),
            report.generated_at,
        );
    }
    further(&mut page, report);
    page.gap();
    tables::write(&mut page, report);
    probed::write(&mut page, report);
    if let Some(period) = &report.period {
        changes::period(&mut page, period);
    }
    not_observed(&mut page, report);
    page.write(out)
}

/// Findings beyond those that are told in full, by code: a server may have thousands of peers.
fn further(page: &mut Page, report: &Report) {
    let mut codes: Vec<(&str, u64)> = Vec::new();
    for f in report.findings.iter().skip(IN_FULL) {
        match codes.iter_mut().find(|(code, _)| *code == f.code) {
            Some((_, n)) => *n += 1,
            None => codes.push((f.code, 1)),
        }
    }
    if codes.is_empty() {
        return;
    }
    let list: Vec<String> = codes
        .iter()
        .map(|(code, n)| format!("{} × {code}", human::count(*n)))
        .collect();
    page.gap();
    page.paragraph(
        piece(Role::Strong, "And"),
        4,
        &[
            piece(Role::Plain, list.join(", ")),
            piece(Role::Dim, "(--json tells each)"),
        ],
    );
}

/// Who was looked at, for how long, and what came of it.
fn verdict(page: &mut Page, report: &Report) {
    let mut parts = vec![whole(Role::Strong, "wgnat")];
    let mut part = |words: String| parts.push(whole(Role::Plain, format!("· {words}")));
    if let Some(host) = &report.host {
        let short = |text: &str, columns| clean::elide(&clean::line(text), columns).into_owned();
        part(format!(
            "host {}, kernel {}",
            short(&host.hostname, HOSTNAME_COLUMNS),
            short(&host.kernel, KERNEL_COLUMNS)
        ));
        if let Some(netns) = &host.netns_name {
            part(format!("netns {}", short(netns, HOSTNAME_COLUMNS)));
        }
        if let Some(fly) = &host.fly {
            part(format!("fly {} in {}", fly.app, fly.region));
        }
    }
    if let Some(fly_toml) = &report.fly_toml {
        part(format!(
            "read {}",
            clean::elide(&clean::line(&fly_toml.path), HOSTNAME_COLUMNS)
        ));
    }
    match (report.captures.len(), &report.period) {
        (_, Some(period)) => part(format!(
            "the last {} until {}",
            human::span(crate::time::Span::from_secs((period.to - period.from).as_secs())),
            human::moment(period.to, crate::time::Timestamp::EPOCH)
        )),
        (0, None) => part(format!("watched {:.1} s", report.duration.as_secs_f64())),
        (n, None) => part(format!(
            "{} of {}",
            human::counted(n as u64, "capture", "captures"),
            human::span(report.duration)
        )),
    }
    let mut words = verdict_words(report);
    if let Some(first) = words.first_mut() {
        *first = first.after("· ");
    }
    parts.extend(words);
    page.paragraph(piece(Role::Plain, ""), 0, &parts);
}

fn verdict_words(report: &Report) -> Vec<Piece> {
    use crate::finding::Severity;
    let count = |severity| report.findings.iter().filter(|f| f.severity == severity).count();
    let mut words: Vec<(Severity, String)> = Vec::new();
    for (severity, one, many) in [
        (Severity::Critical, "critical", "critical"),
        (Severity::Warning, "warning", "warnings"),
        (Severity::Info, "info", "infos"),
    ] {
        match count(severity) {
            0 => {}
            n => words.push((severity, human::counted(n as u64, one, many))),
        }
    }
    let mut out = Vec::new();
    match report.status {
        Status::Unknown => {
            return vec![whole(Role::Warning, super::changes::unknown(report))];
        }
        Status::Ok if report.not_checked.is_empty() => {
            out.push(whole(Role::Good, format!("✓ {}", super::changes::calm(report))));
        }
        Status::Ok => out.push(whole(
            Role::Good,
            format!("✓ no problem seen, {} not checked", report.not_checked.len()),
        )),
        Status::Warning | Status::Critical => {}
    }
    let last = words.len().saturating_sub(1);
    if let (Some(p), false) = (out.last_mut(), words.is_empty()) {
        *p = whole(Role::Good, "✓ no problem found,");
    }
    for (i, (severity, text)) in words.into_iter().enumerate() {
        let text = if i < last { format!("{text},") } else { text };
        out.push(whole(finding::role(severity), text));
    }
    out
}

/// What could not be seen, why, and which findings that leaves open.
fn not_observed(page: &mut Page, report: &Report) {
    let gaps = unseen::gaps(report);
    if gaps.is_empty() {
        return;
    }
    page.gap();
    page.row(vec![piece(Role::Strong, "Not observed")]);
    for gap in gaps {
        let partly = if gap.partly { " (in part)" } else { "" };
        let mut text = vec![piece(
            Role::Plain,
            format!("{}{partly}: {}", gap.sources.join(", "), gap.reason),
        )];
        if let Some(consequences) = gap.consequences() {
            text.push(piece(Role::Dim, format!("({consequences})")));
        }
        page.paragraph(piece(Role::Plain, " "), 2, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Confidence, Severity};
    use crate::report::sample;

    #[test]
    fn thousands_of_findings_fit_a_screen_or_two() {
        let mut report = sample::empty();
        let one = |code| sample::finding(code, Severity::Critical, Confidence::Certain, "a title");
        report.findings = (0..3000).map(|_| one("wg-handshake-timeout")).collect();
        report.findings.push(one("fd-limit"));
        let mut out = Vec::new();
        render(&report, &Options::default(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("2,980 × wg-handshake-timeout, 1 × fd-limit"),
            "{text}"
        );
        assert!(text.lines().count() < 300);
    }
}

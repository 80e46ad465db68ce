//! The report as a message for a chat: what Slack's incoming webhooks take, and those who do as Slack does (Mattermost,
//! Rocket.Chat, Discord's `/slack`).
//!
//! In: a [`Report`]. Out: JSON with a `text` in Slack's markup (mrkdwn), short enough to be read on a phone. Pure.

use std::fmt::Write as _;

use super::{changes as words, clean};
use crate::finding::Severity;
use crate::report::{Report, Status};

/// Characters of a message: Slack shows some four thousand before it cuts.
const LONGEST: usize = 3_500;
/// Changes of one kind, and findings, that are told.
const TOLD: usize = 8;
/// Characters of a title.
const TITLE: usize = 200;

/// The message.
pub fn message(report: &Report) -> String {
    let mut text = String::new();
    let host = report.host.as_ref().map_or("", |host| host.hostname.as_str());
    let verdict = match report.status {
        Status::Ok => words::calm(report).to_owned(),
        Status::Warning => "warning".to_owned(),
        Status::Critical => "critical".to_owned(),
        Status::Unknown => words::unknown(report),
    };
    let on = if host.is_empty() { "" } else { " on " };
    let _ = writeln!(text, "*wgnat{on}{}: {verdict}*", plain(host));
    if let Some(changes) = &report.changes {
        let since = words::since(changes, report.generated_at);
        let _ = writeln!(text, "{since}: {}", words::summary(changes));
        for (kind, list) in changes.kinds() {
            for change in list.iter().take(TOLD) {
                let known = &change.known;
                let _ = writeln!(
                    text,
                    "{} {} {}: {} (`{}`, {})",
                    mark(known.severity),
                    words::word(kind),
                    known.severity.name(),
                    plain(&known.title),
                    known.code,
                    words::times(kind, change, report.generated_at)
                );
            }
            more(&mut text, list.len(), words::word(kind));
        }
    }
    if !report.findings.is_empty() {
        text.push_str("*Now*\n");
        for finding in report.findings.iter().take(TOLD) {
            let _ = writeln!(
                text,
                "{} {} (`{}`, {})",
                mark(finding.severity),
                plain(&finding.title),
                finding.code,
                finding.confidence.name()
            );
            if let Some(fix) = finding.fixes.first() {
                let _ = writeln!(text, "      Fix: {}", plain(&fix.title));
            }
        }
        more(&mut text, report.findings.len(), "findings");
    }
    let mut text = text.trim_end().to_owned();
    if text.chars().count() > LONGEST {
        text = text.chars().take(LONGEST - 2).collect();
        // Not within a line: half an escape is none.
        text.truncate(text.rfind('\n').unwrap_or(text.len()));
        text.push_str("\n…");
    }
    serde_json::json!({ "text": text }).to_string()
}

fn more(text: &mut String, there: usize, what: &str) {
    if there > TOLD {
        let _ = writeln!(text, "… and {} more {what}", there - TOLD);
    }
}

const fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => ":red_circle:",
        Severity::Warning => ":large_orange_diamond:",
        Severity::Info => ":small_blue_diamond:",
    }
}

/// Text from outside, in one line, with nothing in it that links, mentions or marks up: Slack takes `&`, `<` and `>` as
/// entities, and what is between `*`, `_`, `~` and backquotes as markup.
fn plain(text: &str) -> String {
    let text = clean::shorten_keys(text).into_owned();
    let line = clean::line(&text);
    let mut out = String::new();
    for c in line.chars().take(TITLE) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '`' => out.push('\''),
            // A zero-width character on both sides would do as well, and would be copied along.
            '*' => out.push('∗'),
            '~' => out.push('∼'),
            '@' => out.push('＠'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::changes::compare;
    use crate::report::sample;

    fn text(report: &Report) -> String {
        let value: serde_json::Value = serde_json::from_str(&message(report)).unwrap();
        value["text"].as_str().unwrap().to_owned()
    }

    #[test]
    fn what_is_wrong_what_changed_and_what_to_do_are_said() {
        let mut report = sample::ports_exhausted();
        report.changes = Some(compare(&report, None, &[]));
        let text = text(&report);
        for part in [
            "critical*",
            "The first report: ",
            " new",
            "`ports-exhausted`",
            "Fix: ",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn names_from_outside_mention_nobody_and_the_message_is_bounded() {
        let mut report = sample::ports_exhausted();
        let evil = "<!channel> <http://evil|click> @here *b* `c` &".to_owned();
        for _ in 0..50 {
            let mut one = report.findings[0].clone();
            one.title = evil.clone().repeat(30);
            report.findings.push(one);
        }
        if let Some(host) = &mut report.host {
            host.hostname = evil;
        }
        report.changes = Some(compare(&report, None, &[]));
        let text = text(&report);
        assert!(
            !text.contains("<!") && !text.contains("<http") && !text.contains("@here"),
            "{text}"
        );
        assert!(text.chars().count() <= LONGEST, "{}", text.chars().count());
    }
}

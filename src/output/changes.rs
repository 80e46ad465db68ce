//! What changed, and the time that a report is about, in words that every format for people shares.
//!
//! In: [`Changes`], [`Period`]. Out: short English, 80 columns wide at most but for titles. Pure.

use super::{clean, human};
use crate::report::changes::{Basis, Change, Changes};
use crate::report::period::{Period, Trend, Unit};
use crate::report::{Report, Status};
use crate::time::{Span, Timestamp};
use crate::words;

/// Changes of one kind that formats for people tell; of the rest how many there are.
pub const TOLD: usize = 20;
/// Gaps that are told.
const GAPS: usize = 3;

/// What changed, for a reader in a hurry: `1 new, 2 gone`.
pub fn summary(changes: &Changes) -> String {
    let counts: Vec<String> = changes
        .kinds()
        .iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(kind, list)| format!("{} {}", human::count(list.len() as u64), word(kind)))
        .collect();
    match (counts.is_empty(), changes.compared) {
        (false, _) => counts.join(", "),
        (true, None) => "nothing to tell".to_owned(),
        (true, Some(_)) => "nothing changed".to_owned(),
    }
}

/// Since when it changed: `Since the last report, 24 h ago`.
pub fn since(changes: &Changes, now: Timestamp) -> String {
    match changes.compared {
        None => "The first report".to_owned(),
        Some((Basis::Report, at)) => format!("Since the last report, {}", human::ago(now, at)),
        Some((Basis::History, at)) => format!("Since {}", human::ago(now, at)),
    }
}

/// A kind of change in words.
pub fn word(kind: &str) -> &str {
    match kind {
        "passed" => "came and went",
        other => other,
    }
}

/// A mark that tells kinds apart without colour, in ASCII.
pub fn mark(kind: &str) -> char {
    match kind {
        "new" => '+',
        "worse" => '^',
        "better" => 'v',
        "gone" => '-',
        "passed" => '~',
        _ => '?',
    }
}

/// When, and how it was before: `since 01:12 UTC (48 min)`.
pub fn times(kind: &str, change: &Change, now: Timestamp) -> String {
    let since = change.known.since;
    let length = |from: Timestamp, to: Timestamp| human::span(Span::from_secs((to - from).as_secs().max(1)));
    let span = |to| length(since, to);
    match (kind, change.over_at) {
        ("unclear", _) => "could not be looked at: it may hold or not".to_owned(),
        ("gone", None) => format!("held since {}, and no longer", human::moment(since, now)),
        (_, Some(over)) => format!(
            "{} to {} ({})",
            human::moment(since, now),
            human::moment(over, now),
            span(over)
        ),
        _ => {
            let was = change.was.map(|was| format!("was {}, ", was.name()));
            format!(
                "{}since {} ({})",
                was.unwrap_or_default(),
                human::moment(since, now),
                span(now)
            )
        }
    }
}

/// What a verdict of "unknown" is for.
pub fn unknown(report: &Report) -> String {
    match report.period.as_ref().filter(|period| period.stale) {
        None => "nothing could be observed".to_owned(),
        Some(period) => match period.reaches {
            None => "history is empty: no agent has written to it".to_owned(),
            Some(at) => format!(
                "no agent has watched for {}",
                human::span(Span::from_secs((period.to - at).as_secs()))
            ),
        },
    }
}

/// The verdict of a report without findings.
pub fn calm(report: &Report) -> &'static str {
    match (&report.period, report.status) {
        (Some(_), Status::Ok | Status::Warning | Status::Critical) => "no problem now",
        _ => "no problem found",
    }
}

/// How much of the time was watched: `watched 23 h 30 min of 24 h`, and what was not.
pub fn watched(period: &Period) -> String {
    let whole = human::span(whole_seconds(period.to - period.from));
    let mut text = format!("{} of {whole}", human::span(whole_seconds(period.watched)));
    let gaps: Vec<String> = period
        .gaps
        .iter()
        .rev()
        .take(GAPS)
        .map(|(from, to)| {
            format!(
                "{} to {} ({})",
                human::moment(*from, period.to),
                human::moment(*to, period.to),
                human::span(whole_seconds(*to - *from))
            )
        })
        .collect();
    if !gaps.is_empty() {
        text.push_str(&format!("; not watched: {}", gaps.join(", ")));
        let more = period.gaps.len().saturating_sub(GAPS) as u64 + period.gaps_left_out;
        if more > 0 {
            text.push_str(&format!(", and {} more", human::count(more)));
        }
    }
    text
}

/// What is left out because another version wrote it.
pub fn unknown_findings(period: &Period) -> Option<String> {
    (period.unknown_codes > 0).then(|| {
        let n = human::counted(period.unknown_codes, "finding", "findings");
        format!("{n} that another version of wgnat wrote, and that this one does not know")
    })
}

fn whole_seconds(span: Span) -> Span {
    Span::from_secs(span.as_secs())
}

/// What a trend is called, with the most that it can be.
pub fn name(trend: &Trend) -> String {
    let of = match trend.limit.filter(|_| trend.unit != Unit::Ratio) {
        Some(limit) => format!(" of {}", value(trend.unit, Some(limit))),
        None => String::new(),
    };
    if trend.label.is_empty() {
        format!("{}{of}", trend.heading)
    } else {
        format!("{}: {}{of}", trend.heading, clean::line(&trend.label))
    }
}

/// A trend's value.
pub fn value(unit: Unit, value: Option<f64>) -> String {
    let Some(value) = value else {
        return "–".to_owned();
    };
    match unit {
        Unit::Count(_) => human::float(value),
        Unit::PerSecond(_) => format!("{}/s", human::float(value)),
        Unit::Ratio => words::percent(value),
        Unit::Seconds => human::seconds(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;
    use crate::report::changes::Known;

    fn change(was: Option<Severity>, over_at: Option<i64>) -> Change {
        Change {
            known: Known {
                code: "fd-limit".to_owned(),
                about: "host".to_owned(),
                severity: Severity::Warning,
                title: "t".to_owned(),
                since: Timestamp::from_secs(86_400 * 365 + 3_600),
                explained: false,
            },
            was,
            over_at: over_at.map(|s| Timestamp::from_secs(86_400 * 365 + s)),
        }
    }

    #[test]
    fn times_are_told_in_words() {
        let now = Timestamp::from_secs(86_400 * 365 + 7_200);
        for (kind, change, expected) in [
            ("new", change(None, None), "since 01:00 UTC (1 h)"),
            (
                "worse",
                change(Some(Severity::Info), None),
                "was info, since 01:00 UTC (1 h)",
            ),
            (
                "gone",
                change(None, Some(5_400)),
                "01:00 UTC to 01:30 UTC (30 min)",
            ),
            ("gone", change(None, None), "held since 01:00 UTC, and no longer"),
            (
                "unclear",
                change(None, None),
                "could not be looked at: it may hold or not",
            ),
        ] {
            assert_eq!(times(kind, &change, now), expected);
        }
    }

    #[test]
    fn kinds_are_counted() {
        let mut changes = Changes::default();
        assert_eq!(summary(&changes), "nothing to tell");
        changes.compared = Some((Basis::Report, Timestamp::EPOCH));
        assert_eq!(summary(&changes), "nothing changed");
        changes.new.push(change(None, None));
        changes.passed = vec![change(None, None); 2];
        assert_eq!(summary(&changes), "1 new, 2 came and went");
        let marks: std::collections::BTreeSet<char> =
            changes.kinds().iter().map(|(kind, _)| mark(kind)).collect();
        assert_eq!(marks.len(), 6);
    }

    #[test]
    fn what_was_not_watched_is_named() {
        let at = |h: i64| Timestamp::from_secs(h * 3600);
        let mut period = Period {
            from: at(0),
            to: at(24),
            watched: Span::from_secs(23 * 3600),
            gaps: vec![(at(3), at(4))],
            ..Period::default()
        };
        assert_eq!(
            watched(&period),
            "23 h of 24 h; not watched: 03:00 UTC to 04:00 UTC (1 h)"
        );
        period.gaps = (0..5).map(|h| (at(h), at(h + 1))).collect();
        assert!(watched(&period).ends_with(", and 2 more"), "{}", watched(&period));
    }
}

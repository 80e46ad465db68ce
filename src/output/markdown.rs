//! The report for a ticket.
//!
//! In: a [`Report`]. Out: GitHub-flavoured Markdown that also reads well as it is. Pure.

use std::io::{self, Write};

use super::text::changes::numbers;
use super::text::table::Table;
use super::text::tables;
use super::{changes as words, clean, evidence, human, told, unseen};
use crate::finding::{Finding, Fix, Severity};
use crate::report::changes::Changes;
use crate::report::{Report, Status};
use crate::time::Timestamp;

/// Writes `report`.
pub fn render(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    head(report, out)?;
    if let Some(changes) = &report.changes {
        changed(changes, report.generated_at, out)?;
    }
    for (index, f) in report.findings.iter().enumerate() {
        let explains: Vec<&str> = report.explained_by(index).map(|f| f.code).collect();
        finding(f, &explains, report.generated_at, out)?;
    }
    let tables = tables::tables(report, true);
    let lines = tables::lines(report);
    if !tables.is_empty() || !lines.is_empty() {
        writeln!(out, "\n## What was seen")?;
    }
    for t in tables {
        table(&t, out)?;
    }
    if !lines.is_empty() {
        writeln!(out)?;
    }
    for (name, text) in lines {
        writeln!(out, "- **{name}:** {}", plain(&text))?;
    }
    if let Some(period) = &report.period {
        writeln!(out, "\n## Over this time")?;
        if let Some(numbers) = numbers(period) {
            table(&numbers, out)?;
        }
        writeln!(out, "\n- **Watched:** {}", plain(&words::watched(period)))?;
        if let Some(text) = words::unknown_findings(period) {
            writeln!(out, "- **Unknown:** {}", plain(&text))?;
        }
    }
    not_observed(report, out)
}

/// What changed since the report before.
fn changed(changes: &Changes, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let (since, summary) = (words::since(changes, now), words::summary(changes));
    writeln!(out, "\n**{since}:** {summary}")?;
    if changes.kinds().iter().any(|(_, list)| !list.is_empty()) {
        writeln!(out)?;
    }
    for (kind, list) in changes.kinds() {
        for change in list.iter().take(words::TOLD) {
            let known = &change.known;
            writeln!(
                out,
                "- **{}** ({}) {} · `{}`, {}",
                words::word(kind),
                known.severity.name(),
                prose(&clean::shorten_keys(&known.title)),
                known.code,
                words::times(kind, change, now)
            )?;
        }
        let more = list.len().saturating_sub(words::TOLD);
        if more > 0 {
            writeln!(out, "- … and {more} more {}", words::word(kind))?;
        }
    }
    Ok(())
}

fn head(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let verdict = match report.status {
        Status::Ok => words::calm(report).to_owned(),
        Status::Warning => "warning".to_owned(),
        Status::Critical => "critical".to_owned(),
        Status::Unknown => words::unknown(report),
    };
    let host = report.host.as_ref();
    let name = host.map_or_else(String::new, |h| format!(" on {}", plain(&h.hostname)));
    writeln!(out, "# wgnat{name}: {verdict}\n")?;
    let mut facts = vec![format!("wgnat {}", plain(&report.version))];
    if let Some(h) = host {
        facts.push(format!("kernel {}", plain(&h.kernel)));
        if let Some(netns) = &h.netns_name {
            facts.push(format!("network namespace {}", plain(netns)));
        }
        if let Some(fly) = &h.fly {
            facts.push(format!("Fly {} in {}", plain(&fly.app), plain(&fly.region)));
        }
    }
    if let Some(fly_toml) = &report.fly_toml {
        facts.push(format!("read {}", plain(&fly_toml.path)));
    }
    facts.push(human::stretch(report));
    writeln!(out, "{}", facts.join(" · "))
}

fn finding(f: &Finding, explains: &[&str], now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let mark = match f.severity {
        Severity::Critical => "❌",
        Severity::Warning => "⚠️",
        Severity::Info => "ℹ️",
    };
    writeln!(out, "\n## {mark} {}\n", prose(&f.title))?;
    writeln!(
        out,
        "`{}` · {} · {}\n",
        f.code,
        f.severity.name(),
        f.confidence.name()
    )?;
    let text = told(f);
    if !text.trim().is_empty() {
        writeln!(out, "{}\n", paragraph(&text))?;
    }
    let pairs: Vec<String> = evidence::pairs(&f.evidence, now)
        .iter()
        .map(|(name, value)| plain(&format!("{name} {value}")))
        .collect();
    if !pairs.is_empty() {
        writeln!(out, "**Evidence:** {}", pairs.join(" · "))?;
    }
    if !f.candidates.is_empty() {
        writeln!(out, "\n**Could be:**\n")?;
        for c in &f.candidates {
            writeln!(out, "- {}. To settle it: {}", prose(&c.cause), prose(&c.settle))?;
        }
    }
    for (i, x) in f.fixes.iter().enumerate() {
        fix(if i == 0 { "Fix" } else { "Or" }, x, now, out)?;
    }
    if !explains.is_empty() {
        let codes: Vec<String> = explains.iter().map(|c| format!("`{c}`")).collect();
        writeln!(out, "\n**Explains:** {}", codes.join(", "))?;
    }
    writeln!(out, "\n**Why:** `wgnat explain {}`", f.code)
}

fn fix(label: &str, x: &Fix, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let title = prose(&x.title);
    let stop = if title.ends_with(['.', '!', '?', ':']) {
        ""
    } else {
        "."
    };
    let text = format!("{title}{stop} {}", prose(&x.why));
    writeln!(out, "\n**{label}:** {}", text.trim_end())?;
    for (language, code) in [("sh", &x.command), ("", &x.snippet)] {
        if let Some(code) = code {
            let lines = clean::block(code);
            let fence = fence(&lines);
            writeln!(out, "\n{fence}{language}\n{}\n{fence}", lines.join("\n"))?;
        }
    }
    let expect: Vec<String> = evidence::pairs(&x.expect, now)
        .iter()
        .map(|(name, value)| plain(&format!("{name} {value}")))
        .collect();
    if !expect.is_empty() {
        writeln!(out, "\nExpect afterwards: {}", expect.join(" · "))?;
    }
    Ok(())
}

/// A fence that no line of `lines` can end.
fn fence(lines: &[String]) -> String {
    let longest = lines
        .iter()
        .flat_map(|l| l.split(|c| c != '`'))
        .map(str::len)
        .max()
        .unwrap_or(0);
    "`".repeat(3.max(longest + 1))
}

fn table(t: &Table, out: &mut dyn Write) -> io::Result<()> {
    let row = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    writeln!(
        out,
        "\n{}",
        row(t.columns.iter().map(|c| plain(&c.heading)).collect())
    )?;
    let rule = |right: bool| if right { "---:" } else { "---" }.to_owned();
    writeln!(out, "{}", row(t.columns.iter().map(|c| rule(c.right)).collect()))?;
    for cells in &t.rows {
        writeln!(out, "{}", row(cells.iter().map(|c| plain(&c.text)).collect()))?;
    }
    match &t.note {
        Some(note) => writeln!(out, "\n{}", plain(note)),
        None => Ok(()),
    }
}

fn not_observed(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let gaps = unseen::gaps(report);
    if gaps.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n## Not observed\n")?;
    for gap in gaps {
        let partly = if gap.partly { " (in part)" } else { "" };
        let codes = |words: &str, codes: &[&str]| {
            let codes: Vec<String> = codes.iter().map(|c| format!("`{c}`")).collect();
            if codes.is_empty() {
                String::new()
            } else {
                format!(". {words}: {}", codes.join(", "))
            }
        };
        let unchecked = codes("Not checked", &gap.unchecked) + &codes("May hold elsewhere too", &gap.in_part);
        writeln!(
            out,
            "- **{}**{partly}: {}{unchecked}",
            gap.sources.join(", "),
            prose(&gap.reason)
        )?;
    }
    Ok(())
}

/// Text from outside, which has no markup: every character that could be some is escaped.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, &clean::line(text), true);
    out
}

/// Prose of a rule, in which names from outside may stand: code in backquotes stays code, all else is escaped.
fn prose(text: &str) -> String {
    let text = clean::line(text);
    // Longer runs pair among themselves; without them, one pairs with the next.
    let mut single = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('`') {
        let (before, run) = rest.split_at(at);
        let end = run.find(|c| c != '`').unwrap_or(run.len());
        single.push_str(before);
        single.push_str(&if end == 1 { "`".to_owned() } else { "'".repeat(end) });
        rest = run.get(end..).unwrap_or("");
    }
    single.push_str(rest);

    let parts: Vec<&str> = single.split('`').collect();
    let mut out = String::with_capacity(single.len() + 16);
    for (i, part) in parts.iter().enumerate() {
        let closes = i + 1 < parts.len();
        match (i % 2 == 1, closes) {
            (true, true) => {
                out.push('`');
                out.push_str(part);
                out.push('`');
            }
            (true, false) => {
                out.push_str("\\`");
                escape_into(&mut out, part, false);
            }
            (false, _) => escape_into(&mut out, part, false),
        }
    }
    out
}

/// [`prose`] at the beginning of a line, where more characters are markup.
fn paragraph(text: &str) -> String {
    let text = prose(text);
    let first = text.split(' ').next().unwrap_or("");
    let number = first.trim_end_matches(['.', ')']);
    let list = first != number && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    if list {
        text.replacen(number, &format!("{number}\\"), 1)
    } else if text.starts_with(['-', '+', '=']) || (text.starts_with('[')) {
        format!("\\{text}")
    } else {
        text
    }
}

/// Escapes what is markup within a line. An underscore between letters is none.
fn escape_into(out: &mut String, text: &str, all: bool) {
    let chars: Vec<char> = text.chars().collect();
    for (i, c) in chars.iter().enumerate() {
        let near = |at: Option<usize>| at.and_then(|at| chars.get(at)).copied();
        let (before, after) = (near(i.checked_sub(1)), near(Some(i + 1)));
        let inside_word = [before, after]
            .iter()
            .all(|c| c.is_some_and(char::is_alphanumeric));
        let escape = match c {
            '\\' | '`' | '|' | '*' | '<' | '>' | '~' => true,
            '_' => !inside_word,
            '#' => !before.is_some_and(char::is_alphanumeric),
            '(' | '[' => before == Some(']'),
            '!' => after == Some('['),
            '&' => all || after.is_some_and(|c| c.is_alphabetic() || c == '#'),
            _ => false,
        };
        if escape {
            out.push('\\');
        }
        out.push(*c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_are_no_markup() {
        for (text, expected) in [
            ("TIME_WAIT of _x_", "TIME_WAIT of \\_x\\_"),
            ("a|b`c*", "a\\|b\\`c\\*"),
            ("[x](http://evil) ![y](z)", "[x]\\(http://evil) \\![y]\\(z)"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("<img> &amp; a#b #c", "\\<img\\> \\&amp; a#b \\#c"),
            ("two\n\n# lines", "two \\# lines"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }

    #[test]
    fn code_in_prose_stays_code() {
        for (text, expected) in [
            ("run `wg show | grep x` now", "run `wg show | grep x` now"),
            ("one ` only *x*", "one \\` only \\*x\\*"),
            ("runs ``of`` them `a`", "runs ''of'' them `a`"),
        ] {
            assert_eq!(prose(text), expected);
        }
        for (text, expected) in [
            ("1. no list", "1\\. no list"),
            ("- no list", "\\- no list"),
            ("[a]: no reference", "\\[a]: no reference"),
            ("28,231 ports", "28,231 ports"),
        ] {
            assert_eq!(paragraph(text), expected);
        }
    }

    #[test]
    fn no_line_ends_its_fence() {
        assert_eq!(fence(&["a ```` b".to_owned()]), "`````");
        assert_eq!(fence(&["a".to_owned()]), "```");
    }
}

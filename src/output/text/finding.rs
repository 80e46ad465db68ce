//! One finding at a terminal: what, why, the evidence in one glance, what to do.
//!
//! In: a [`Finding`] and what it explains. Out: at most a dozen lines or so; what is left out is in the JSON. Pure.

use super::page::{Page, Piece, Role, piece};
use crate::finding::{Candidate, Finding, Fix, Severity};
use crate::output::{clean, evidence, told};
use crate::time::Timestamp;

/// Where text after a label begins.
const INDENT: usize = 12;
/// Lines of evidence.
const EVIDENCE_LINES: usize = 2;
/// Candidates shown.
const CANDIDATES: usize = 5;
/// Fixes shown after the first.
const OTHER_FIXES: usize = 2;
/// Characters of a fix's reasons: as many whole sentences as fit, and at least one. The rest is in the other formats.
const REASON: usize = 400;
/// A snippet of a further fix is shown up to this many lines.
const SHORT_SNIPPET: usize = 3;

/// The colour of a severity.
pub fn role(severity: Severity) -> Role {
    match severity {
        Severity::Critical => Role::Critical,
        Severity::Warning => Role::Warning,
        Severity::Info => Role::Info,
    }
}

fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "✗",
        Severity::Warning => "!",
        Severity::Info => "i",
    }
}

/// Writes `finding` onto `page`.
pub fn write<'a>(
    page: &mut Page,
    finding: &Finding,
    explains: impl Iterator<Item = &'a Finding>,
    now: Timestamp,
) {
    heading(page, finding);
    page.paragraph(
        piece(Role::Plain, ""),
        2,
        &[piece(Role::Plain, clean::shorten_keys(&told(finding)))],
    );
    glance(page, finding, now);
    candidates(page, &finding.candidates);
    fixes(page, &finding.fixes);
    folded(page, explains);
    labelled(
        page,
        "Why",
        &[piece(
            Role::Dim,
            format!("`wgnat explain {}`", finding.code).replace('`', ""),
        )],
    );
}

fn labelled(page: &mut Page, label: &str, text: &[Piece]) {
    // What to do is what the eye should find.
    let role = if label == "Fix" { Role::Good } else { Role::Dim };
    page.paragraph(piece(role, format!("  {label}")), INDENT, text);
}

/// Mark and title, and at the right edge code and confidence; those get a line of their own where the title is long.
fn heading(page: &mut Page, finding: &Finding) {
    let title = page.shown(&clean::shorten_keys(&finding.title));
    let tag = page.shown(&format!("{} · {}", finding.code, finding.confidence.name()));
    let marked = page.shown(mark(finding.severity));
    let used = clean::width(&marked) + 1 + clean::width(&title);
    let tag_columns = clean::width(&tag);
    if used + 2 + tag_columns <= page.width() {
        let room = page.width() - used - tag_columns;
        page.row(vec![
            piece(role(finding.severity), marked),
            piece(Role::Strong, format!(" {title}")),
            piece(Role::Plain, " ".repeat(room)),
            piece(Role::Dim, tag),
        ]);
    } else {
        page.paragraph(
            piece(role(finding.severity), marked),
            2,
            &[piece(Role::Strong, title)],
        );
        let room = page.width().saturating_sub(tag_columns);
        page.row(vec![piece(Role::Plain, " ".repeat(room)), piece(Role::Dim, tag)]);
    }
}

/// The evidence, as many pairs as fit; what is zero comes last, for it tells least.
fn glance(page: &mut Page, finding: &Finding, now: Timestamp) {
    let mut pairs = evidence::pairs(&finding.evidence, now);
    pairs.sort_by_key(|(_, value)| value == "0" || value.starts_with("0 "));
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| page.shown(&format!("{name} {}", clean::shorten_keys(value))))
        .collect();
    let room = page.width().saturating_sub(INDENT);
    let separator = page.shown("·");
    let mut lines = vec![String::new()];
    for (i, pair) in pairs.iter().enumerate() {
        let more = format!("+{} more", pairs.len() - i);
        let last_line = lines.len() == EVIDENCE_LINES;
        // Keep room to say that there is more, unless this is the last.
        let reserve = if last_line && i + 1 < pairs.len() {
            clean::width(&more) + 3
        } else {
            0
        };
        let Some(line) = lines.last_mut() else { break };
        let space = if line.is_empty() { 0 } else { 3 };
        if clean::width(line) + space + clean::width(pair) + reserve <= room {
            if space > 0 {
                line.push_str(&format!(" {separator} "));
            }
            line.push_str(pair);
        } else if !last_line {
            let room = if i + 1 < pairs.len() {
                room - clean::width(&more) - 3
            } else {
                room
            };
            lines.push(clean::elide(pair, room).into_owned());
        } else {
            if space > 0 {
                line.push_str(&format!(" {separator} "));
            }
            line.push_str(&more);
            break;
        }
    }
    for (i, line) in lines.iter().filter(|l| !l.is_empty()).enumerate() {
        labelled(
            page,
            if i == 0 { "Seen" } else { " " },
            &[piece(Role::Plain, line.as_str())],
        );
    }
}

fn candidates(page: &mut Page, candidates: &[Candidate]) {
    for (i, c) in candidates.iter().take(CANDIDATES).enumerate() {
        let bullet = page.shown("·");
        let label = format!(
            "  {:<width$}{bullet}",
            if i == 0 { "Could be" } else { "" },
            width = INDENT - 2
        );
        page.paragraph(
            piece(Role::Dim, label),
            INDENT + 2,
            &[
                piece(Role::Plain, clean::shorten_keys(&c.cause)),
                piece(Role::Dim, format!("→ {}", clean::shorten_keys(&c.settle))),
            ],
        );
    }
    if let Some(more) = candidates.len().checked_sub(CANDIDATES).filter(|n| *n > 0) {
        labelled(
            page,
            " ",
            &[piece(Role::Dim, format!("and {more} more (--json)"))],
        );
    }
}

fn fixes(page: &mut Page, fixes: &[Fix]) {
    for (i, fix) in fixes.iter().take(1 + OTHER_FIXES).enumerate() {
        let mut text = clean::shorten_keys(fix.title.trim()).into_owned();
        if i == 0 && !fix.why.trim().is_empty() {
            if !text.ends_with(['.', ':', '!', '?']) {
                text.push('.');
            }
            text.push(' ');
            text.push_str(&clean::shorten_keys(&sentences(&fix.why, REASON)));
        }
        labelled(
            page,
            if i == 0 { "Fix" } else { "Or" },
            &[piece(Role::Plain, text)],
        );
        let snippet = fix
            .snippet
            .as_deref()
            .filter(|s| i == 0 || (fix.command.is_none() && s.trim().lines().count() <= SHORT_SNIPPET));
        for code in [fix.command.as_deref(), snippet].into_iter().flatten() {
            paste(page, code);
        }
    }
    if let Some(more) = fixes.len().checked_sub(1 + OTHER_FIXES).filter(|n| *n > 0) {
        labelled(
            page,
            " ",
            &[piece(Role::Dim, format!("and {more} more (--json)"))],
        );
    }
}

/// The first sentences of `text` that together have at most `most` characters, and at least one.
fn sentences(text: &str, most: usize) -> String {
    let mut kept = String::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest
            .match_indices(". ")
            .map(|(at, _)| at + 1)
            .find(|end| {
                let next = rest.get(end + 1..).and_then(|r| r.chars().next());
                next.is_some_and(char::is_uppercase)
            })
            .unwrap_or(rest.len());
        let (sentence, after) = rest.split_at(end);
        if !kept.is_empty() && kept.chars().count() + 1 + sentence.chars().count() > most {
            kept.push_str(" […]");
            break;
        }
        if !kept.is_empty() {
            kept.push(' ');
        }
        kept.push_str(sentence);
        rest = after.trim_start();
    }
    kept
}

/// Something to paste: under the text where that fits, further left where it is long.
fn paste(page: &mut Page, code: &str) {
    let longest = clean::block(code).iter().map(|l| clean::width(l)).max();
    let fits = longest.is_some_and(|columns| INDENT + 2 + columns <= page.width());
    page.code(if fits { INDENT + 2 } else { 4 }, code);
}

/// The folded symptoms by code, each with how many there are.
fn folded<'a>(page: &mut Page, explains: impl Iterator<Item = &'a Finding>) {
    let mut codes: Vec<(&str, usize)> = Vec::new();
    for f in explains {
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
        .map(|(code, n)| {
            if *n == 1 {
                (*code).to_owned()
            } else {
                format!("{code} ({n} ×)")
            }
        })
        .collect();
    labelled(page, "Explains", &[piece(Role::Plain, list.join(", "))]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_between_sentences() {
        let text = "Version 1.2 of it. Then e.g. this one. And a third.";
        for (most, expected) in [
            (1, "Version 1.2 of it. […]"),
            (40, "Version 1.2 of it. Then e.g. this one. […]"),
            (400, text),
        ] {
            assert_eq!(sentences(text, most), expected);
        }
        assert_eq!(sentences("  ", 10), "");
    }
}

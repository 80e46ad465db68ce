//! One finding as a card.

use std::fmt::Write as _;

use super::{entities, escape};
use crate::finding::{Finding, Fix};
use crate::output::{clean, evidence, told};
use crate::time::Timestamp;

/// Writes `finding`, whose symptoms have the codes `explains`; ages are told as of `now`.
pub fn write(finding: &Finding, explains: &[&str], now: Timestamp, html: &mut String) {
    write_as("", "", finding, explains, now, html);
}

/// As [`write`], with the `id` of the card and what is known of it `since`, where they are not empty.
pub fn write_as(
    id: &str,
    since: &str,
    finding: &Finding,
    explains: &[&str],
    now: Timestamp,
    html: &mut String,
) {
    let id = match id {
        "" => String::new(),
        id => format!(" id=\"{}\"", escape(id).replace(' ', "-")),
    };
    let since = match since {
        "" => String::new(),
        since => format!(" · {}", escape(since)),
    };
    let _ = writeln!(
        html,
        "<article{id} class=\"{}\">\n<h3>{}</h3>\n<p class=\"meta\">{} · <code>{}</code> · {}{since}</p>",
        finding.severity.name(),
        prose(&finding.title),
        finding.severity.name(),
        finding.code,
        finding.confidence.name()
    );
    let text = told(finding);
    if !text.is_empty() {
        let _ = writeln!(html, "<p>{}</p>", prose(&text));
    }
    pairs(&evidence::pairs(&finding.evidence, now), html);
    if !finding.candidates.is_empty() {
        html.push_str("<p><b>Could be</b></p>\n<ul>\n");
        for candidate in &finding.candidates {
            let _ = writeln!(
                html,
                "<li>{}. <span class=\"note\">To settle it: {}</span></li>",
                prose(&candidate.cause),
                prose(&candidate.settle)
            );
        }
        html.push_str("</ul>\n");
    }
    for (i, one) in finding.fixes.iter().enumerate() {
        fix(if i == 0 { "Fix" } else { "Or" }, one, now, html);
    }
    if !explains.is_empty() {
        let codes: Vec<String> = explains.iter().map(|c| format!("<code>{c}</code>")).collect();
        let _ = writeln!(html, "<p><b>Explains</b> {}</p>", codes.join(", "));
    }
    let _ = writeln!(
        html,
        "<p class=\"note\">More: <code>wgnat explain {}</code></p>\n</article>",
        finding.code
    );
}

fn fix(label: &str, fix: &Fix, now: Timestamp, html: &mut String) {
    let title = prose(&fix.title);
    let stop = if title.ends_with(['.', '!', '?', ':']) {
        ""
    } else {
        "."
    };
    let _ = writeln!(html, "<p><b>{label}</b> {title}{stop} {}</p>", prose(&fix.why));
    for code in [&fix.command, &fix.snippet].into_iter().flatten() {
        let lines = clean::block(code).join("\n");
        let _ = writeln!(html, "<pre><code>{}</code></pre>", entities(&lines));
    }
    let expect = evidence::pairs(&fix.expect, now);
    if !expect.is_empty() {
        html.push_str("<p class=\"note\">Expect afterwards</p>\n");
        pairs(&expect, html);
    }
}

fn pairs(pairs: &[(String, String)], html: &mut String) {
    if pairs.is_empty() {
        return;
    }
    html.push_str("<dl>");
    for (name, value) in pairs {
        let _ = write!(
            html,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escape(name),
            escape(value)
        );
    }
    html.push_str("</dl>\n");
}

/// Prose, with keys shortened and what stands between backticks as code.
pub(super) fn prose(text: &str) -> String {
    let text = clean::shorten_keys(text);
    let escaped = escape(&text);
    let mut out = String::with_capacity(escaped.len());
    let parts: Vec<&str> = escaped.split('`').collect();
    // An odd number of backticks leaves the last one as it is.
    let paired = parts.len() % 2 == 1;
    for (i, part) in parts.iter().enumerate() {
        let code = i % 2 == 1 && (paired || i + 1 < parts.len());
        match (i, code) {
            (_, true) => {
                let _ = write!(out, "<code>{part}</code>");
            }
            (i, false) if i % 2 == 1 => {
                let _ = write!(out, "`{part}");
            }
            (_, false) => out.push_str(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backticks_mark_code_and_a_lone_one_stays() {
        for (text, expected) in [
            ("plain", "plain"),
            ("run `wg show` now", "run <code>wg show</code> now"),
            ("a ` alone", "a ` alone"),
            ("`a` and `b", "<code>a</code> and `b"),
            ("`<x>`", "<code>&lt;x&gt;</code>"),
        ] {
            assert_eq!(prose(text), expected);
        }
    }
}

//! The report as one page that needs nothing else: no script, no font, no picture from anywhere.
//!
//! In: a [`Report`]. Out: HTML 5 with its style inside, readable on a phone and in print, light and dark as the reader's
//! system is. Its policy forbids whatever is not in it. Pure.

mod changes;
pub mod chart;
mod finding;

use std::fmt::Write as _;
use std::io::{self, Write};

use super::text::table::Table;
use super::text::tables;
use super::{changes as words, clean, human, unseen};
use crate::finding::Finding;
use crate::report::{Report, Status};
use crate::time::Timestamp;

const STYLE: &str = include_str!("style.css");

/// The policy of a page that is a file: its own style, and nothing else.
const STILL: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The style that every page shares.
pub const fn style() -> &'static str {
    STYLE
}

/// One finding as a card with an `id`, and what else is known of it over time (`since`, any text).
pub fn finding(id: &str, since: &str, one: &Finding, explains: &[&str], now: Timestamp, html: &mut String) {
    finding::write_as(id, since, one, explains, now, html);
}

/// Tables of measured paths; empty where none was measured.
pub fn paths(report: &Report) -> String {
    let mut html = String::new();
    for one in &tables::paths(report) {
        table(one, &mut html);
    }
    html
}

/// Writes `report`.
pub fn render(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(page(report).as_bytes())
}

fn page(report: &Report) -> String {
    let mut body = String::new();
    head(report, &mut body);
    if let Some(changed) = &report.changes {
        changes::write(changed, report.generated_at, &mut body);
    }
    body.push_str(&findings(report));
    seen(report, &mut body);
    if let Some(period) = &report.period {
        changes::period(period, &mut body);
    }
    not_observed(report, &mut body);
    let host = report.host.as_ref().map(|host| host.hostname.as_str());
    let title = format!("wgnat: {} {}", host.unwrap_or("report"), verdict(report));
    document(&title, &body)
}

/// A whole document with `title` (any text) and `body` (HTML).
fn document(title: &str, body: &str) -> String {
    let charts = if body.contains("<svg class=\"chart\"") {
        chart::STYLE
    } else {
        ""
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{STILL}\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{}</title>\n<style>\n{STYLE}{charts}</style>\n</head>\n\
         <body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(title)
    )
}

/// Every finding of `report` as a section of cards; a calm sentence where there is none.
fn findings(report: &Report) -> String {
    let mut html =
        String::from("<section aria-labelledby=\"findings\">\n<h2 id=\"findings\">Findings</h2>\n");
    if report.findings.is_empty() {
        let words = match (report.status, report.not_checked.len()) {
            (Status::Unknown, _) if report.period.is_some() => {
                "Nobody watches, so nothing can be said of now.".to_owned()
            }
            (Status::Unknown, _) => "Nothing could be observed, so nothing could be judged.".to_owned(),
            (_, 0) if report.period.is_some() => "No problem now.".to_owned(),
            (_, 0) => "No problem found.".to_owned(),
            (_, n) => format!("No problem seen; {n} findings could not be checked (see below)."),
        };
        let _ = writeln!(html, "<p>{words}</p>");
    }
    for (index, one) in report.findings.iter().enumerate() {
        let explains: Vec<&str> = report.explained_by(index).map(|f| f.code).collect();
        finding::write(one, &explains, report.generated_at, &mut html);
    }
    html.push_str("</section>\n");
    html
}

/// The verdict in words.
fn verdict(report: &Report) -> String {
    match report.status {
        Status::Ok => words::calm(report).to_owned(),
        Status::Warning => "warning".to_owned(),
        Status::Critical => "critical".to_owned(),
        Status::Unknown => words::unknown(report),
    }
}

/// The heading: who was looked at, when, and what came of it.
fn head(report: &Report, html: &mut String) {
    let host = report.host.as_ref();
    let name = host.map_or_else(String::new, |h| format!(" on {}", escape(&h.hostname)));
    let _ = writeln!(
        html,
        "<header>\n<h1>wgnat{name}: <b class=\"{}\">{}</b></h1>",
        report.status.name(),
        verdict(report)
    );
    let mut facts = vec![format!("wgnat {}", escape(&report.version))];
    if let Some(h) = host {
        facts.push(format!("kernel {}", escape(&h.kernel)));
        if let Some(netns) = &h.netns_name {
            facts.push(format!("network namespace {}", escape(netns)));
        }
        if let Some(fly) = &h.fly {
            facts.push(format!("Fly {} in {}", escape(&fly.app), escape(&fly.region)));
        }
    }
    if let Some(fly_toml) = &report.fly_toml {
        facts.push(format!("read {}", escape(&fly_toml.path)));
    }
    facts.push(match &report.period {
        None => format!(
            "watched {:.1} s until <time>{}</time>",
            report.duration.as_secs_f64(),
            report.generated_at.millis()
        ),
        Some(_) => human::stretch(report),
    });
    let _ = writeln!(html, "<p class=\"facts\">{}</p>\n</header>", facts.join(" · "));
}

/// Tables of what was seen.
fn seen(report: &Report, html: &mut String) {
    let tables = tables::tables(report, true);
    let lines = tables::lines(report);
    if tables.is_empty() && lines.is_empty() {
        return;
    }
    html.push_str("<section aria-labelledby=\"seen\">\n<h2 id=\"seen\">What was seen</h2>\n");
    for one in &tables {
        table(one, html);
    }
    for (name, text) in lines {
        let _ = writeln!(html, "<p><b>{name}</b> {}</p>", escape(&text));
    }
    html.push_str("</section>\n");
}

/// One table. The first heading of the text's tables is their name.
fn table(table: &Table, html: &mut String) {
    let class = |right: bool| if right { " class=\"number\"" } else { "" };
    let name = table.columns.first().map_or("", |column| column.heading.as_ref());
    let _ = writeln!(
        html,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\">\n<table>\n<caption>{0}</caption>\n<thead><tr>",
        escape(name)
    );
    for (i, column) in table.columns.iter().enumerate() {
        let heading = if i == 0 { "who" } else { column.heading.as_ref() };
        let _ = write!(
            html,
            "<th scope=\"col\"{}>{}</th>",
            class(column.right),
            escape(heading)
        );
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        html.push_str("<tr>");
        for (cell, column) in row.iter().zip(&table.columns) {
            let _ = write!(html, "<td{}>{}</td>", class(column.right), escape(&cell.text));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    if let Some(note) = &table.note {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(note));
    }
}

/// What could not be seen, and what that leaves open.
pub fn not_observed(report: &Report, html: &mut String) {
    let gaps = unseen::gaps(report);
    if gaps.is_empty() {
        return;
    }
    html.push_str("<section aria-labelledby=\"unseen\">\n<h2 id=\"unseen\">Not observed</h2>\n<ul>\n");
    for gap in gaps {
        let partly = if gap.partly { " (in part)" } else { "" };
        let _ = write!(
            html,
            "<li>{}{partly}: {}",
            escape(&gap.sources.join(", ")),
            escape(&gap.reason)
        );
        if let Some(consequences) = gap.consequences() {
            let _ = write!(html, " <span class=\"note\">({})</span>", escape(&consequences));
        }
        html.push_str("</li>\n");
    }
    html.push_str("</ul>\n</section>\n");
}

/// Any text as the content of an element or of a quoted attribute, on one line, with nothing in it that acts on how its
/// neighbours are shown.
pub fn escape(text: &str) -> String {
    entities(&clean::line(text))
}

/// `&`, `<`, `>` and quotes as entities.
fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn page(report: &Report) -> String {
        let mut out = Vec::new();
        render(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_from_outside_stays_text() {
        let mut report = sample::hostile_names();
        let script = "<script>alert(1)</script>\" onmouseover='x' &amp; </title>";
        if let Some(host) = &mut report.host {
            host.hostname = script.to_owned();
        }
        for finding in &mut report.findings {
            finding.title = script.to_owned();
            finding.summary = script.to_owned();
            for fix in &mut finding.fixes {
                fix.snippet = Some(script.to_owned());
            }
        }
        let page = page(&report);
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains("onmouseover='"), "{page}");
        assert_eq!(page.matches("</title>").count(), 1);
        assert!(page.contains("&lt;script&gt;alert(1)"));
    }

    #[test]
    fn nothing_is_fetched() {
        for report in [
            sample::ports_exhausted(),
            sample::tunnel_silent(),
            sample::healthy(),
        ] {
            let page = page(&report);
            for word in ["src=", "href=", "url(", "@import"] {
                assert!(!page.contains(word), "{word}");
            }
        }
    }

    #[test]
    fn a_cause_carries_its_fix_and_what_it_explains() {
        let page = page(&sample::ports_exhausted());
        for part in [
            "ports-exhausted",
            "class=\"critical\"",
            "<pre>",
            "Explains",
            "wgnat explain ports-exhausted",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }
}

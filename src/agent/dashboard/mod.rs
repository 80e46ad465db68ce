//! The page at `/`: the verdict, what to change, and how it came to that, for a person with a browser.
//!
//! In: a [`Snapshot`] and what is known of the time before ([`Past`]). Out: one HTML document that needs nothing else and
//! shows without script. Its script renews it whenever the agent has judged again (`live.js`). The policy names its style and
//! its script by their hashes, so nothing else is run or loaded, whatever a host name or a process may be called.

mod events;
mod head;
pub mod past;
mod peers;
mod ports;
mod refused;
mod seen;
#[cfg(test)]
mod tests;
mod tiles;
pub mod view;
mod waiting;

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

pub use self::past::{Past, Recent};
pub use self::refused::refused;
pub use self::view::View;
pub use self::waiting::waiting;
use crate::agent::shared::Snapshot;
use crate::output::html::{chart, escape, style};

const SCRIPT: &str = include_str!("live.js");
const STYLE: &str = include_str!("page.css");

/// Peers, destinations and processes that are shown where not all are asked for.
const SHOWN: usize = 10;

/// All of the page's style.
fn own_style() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{}{}{STYLE}", style(), chart::STYLE))
}

/// `'sha256-…'` of what stands within an inline element (CSP 3, section 2.3.1).
fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

/// Content-Security-Policy of the page: its own inline style and script by hash, and this server to ask.
pub fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        format!(
            "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            hash(own_style()),
            hash(SCRIPT)
        )
    })
}

/// The page.
pub fn page(snapshot: &Snapshot, past: &Past, view: View) -> String {
    let mut body = String::with_capacity(64 * 1024);
    head::write(snapshot, past, view, &mut body);
    body.push_str("<main id=\"main\">\n");
    seen::findings(snapshot, &mut body);
    peers::write(snapshot, past, view, &mut body);
    ports::destinations(snapshot, past, view, &mut body);
    ports::conntrack(snapshot, past, view, &mut body);
    seen::processes(snapshot, view, &mut body);
    seen::paths(snapshot, &mut body);
    events::write(past, &mut body);
    seen::not_observed(snapshot, &mut body);
    body.push_str("</main>\n");
    head::foot(snapshot, past, &mut body);
    let report = &snapshot.report;
    let host = report
        .host
        .as_ref()
        .map_or("wgnat", |host| host.hostname.as_str());
    let title = format!("{} {} – wgnat", head::sign(report.status), host);
    document(&title, &body, true)
}

/// A whole document with `title` (any text) and `body` (HTML).
fn document(title: &str, body: &str, live: bool) -> String {
    let script = if live {
        format!("<script>{SCRIPT}</script>\n")
    } else {
        String::new()
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n{body}{script}</body>\n</html>\n",
        escape(title),
        own_style()
    )
}

/// A section with its heading; nothing where `inner` is empty.
fn section(id: &str, heading: &str, inner: &str, html: &mut String) {
    if inner.is_empty() {
        return;
    }
    html.push_str(&format!(
        "<section id=\"{id}\" aria-labelledby=\"{id}-h\">\n<h2 id=\"{id}-h\">{}</h2>\n{inner}</section>\n",
        escape(heading)
    ));
}

/// A table that scrolls by itself where it is wider than the page. `rows` are cells as HTML.
fn table(id: &str, caption: &str, columns: &[(&str, bool)], rows: &[Vec<String>]) -> String {
    let class = |right: bool| if right { " class=\"number\"" } else { "" };
    let mut html = format!(
        "<div class=\"scroll\" id=\"{id}\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\">\n<table>\n<caption>{0}</caption>\n\
         <thead><tr>",
        escape(caption)
    );
    for (name, right) in columns {
        html.push_str(&format!(
            "<th scope=\"col\"{}>{}</th>",
            class(*right),
            escape(name)
        ));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (index, (cell, (_, right))) in row.iter().zip(columns).enumerate() {
            if index == 0 {
                html.push_str(&format!("<th scope=\"row\">{cell}</th>"));
            } else {
                html.push_str(&format!("<td{}>{cell}</td>", class(*right)));
            }
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    html
}

/// What is not shown, and where to see it: rows of the report by a link, what it has no room for in words.
fn rest(view: View, all: usize, left_out: u64, what: &str, at: &str) -> String {
    let hidden = if view.all { 0 } else { all.saturating_sub(SHOWN) };
    let mut html = String::new();
    if hidden > 0 {
        html.push_str(&format!(
            "<p><a href=\"{}#{at}\">Show all {all} {what}</a> ({hidden} more)</p>\n",
            escape(&View { all: true, ..view }.address())
        ));
    } else if view.all && all > SHOWN {
        html.push_str(&format!(
            "<p><a href=\"{}#{at}\">Show the first {SHOWN} {what} only</a></p>\n",
            escape(&View { all: false, ..view }.address())
        ));
    }
    if left_out > 0 {
        html.push_str(&format!(
            "<p class=\"note\">{} more {what} had no room in the report.</p>\n",
            crate::words::count(left_out)
        ));
    }
    html
}

/// How many rows are shown.
const fn shown(view: View) -> usize {
    if view.all { usize::MAX } else { SHOWN }
}

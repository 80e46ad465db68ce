//! Above and below: the verdict, how far back, what the agent itself costs.

use std::fmt::Write as _;

use super::past::Past;
use super::tiles;
use super::view::{Back, View};
use crate::agent::shared::Snapshot;
use crate::output::html::escape;
use crate::output::{clean, human};
use crate::report::{Report, Status};
use crate::words;

/// A sign for `status` that needs no colour.
pub(super) const fn sign(status: Status) -> &'static str {
    match status {
        Status::Ok => "✓",
        Status::Warning => "!",
        Status::Critical => "✗",
        Status::Unknown => "?",
    }
}

/// The verdict as one sentence, as it is also read out when it changes.
pub(super) fn verdict(report: &Report) -> String {
    let word = match report.status {
        Status::Ok if report.findings.is_empty() => "No problem found".to_owned(),
        Status::Ok => format!(
            "No problem found; {} to know",
            words::counted(report.findings.len() as u64, "thing", "things")
        ),
        Status::Unknown => "Nothing could be observed, so nothing could be judged".to_owned(),
        Status::Warning => "Warning".to_owned(),
        Status::Critical => "Critical".to_owned(),
    };
    match (report.status, report.findings.first()) {
        (Status::Warning | Status::Critical, Some(first)) => {
            let title = clean::shorten_keys(&first.title).trim_end_matches('.').to_owned();
            match report.findings.len() {
                1 => format!("{word}: {title}"),
                n => format!("{word}: {title}, and {} more", n - 1),
            }
        }
        _ => word,
    }
}

/// The heading.
pub(super) fn write(snapshot: &Snapshot, past: &Past, view: View, html: &mut String) {
    let report = &snapshot.report;
    let host = report.host.as_ref();
    let name = host.map_or_else(String::new, |h| format!(" on {}", escape(&h.hostname)));
    let _ = writeln!(
        html,
        "<a class=\"skip\" href=\"#main\">Skip to the findings</a>\n<header>\n<h1>wgnat{name}</h1>\n\
         <p id=\"verdict\" class=\"{}\" role=\"status\" aria-live=\"polite\"><span aria-hidden=\"true\">{}</span> {}</p>",
        report.status.name(),
        sign(report.status),
        escape(&verdict(report))
    );
    let mut facts = vec![format!(
        "judged at <time datetime=\"{0}\">{1}</time>",
        report.generated_at,
        at(report)
    )];
    facts.push(format!(
        "{} s watched",
        human::float(report.duration.as_secs_f64().round())
    ));
    if let Some(h) = host {
        facts.push(format!("kernel {}", escape(&h.kernel)));
        if let Some(netns) = &h.netns_name {
            facts.push(format!("network namespace {}", escape(netns)));
        }
        if let Some(fly) = &h.fly {
            facts.push(format!("Fly {} in {}", escape(&fly.app), escape(&fly.region)));
        }
    }
    let _ = writeln!(html, "<p class=\"facts\">{}</p>", facts.join(" · "));
    tiles::write(report, html);
    html.push_str(
        "<p id=\"link\" class=\"note\" role=\"status\">This page is as of its loading: reload it to renew it.</p>\n</header>\n",
    );
    ranges(past, view, html);
}

/// `14:20:05 UTC`.
fn at(report: &Report) -> String {
    let text = report.generated_at.to_string();
    format!("{} UTC", text.get(11..19).unwrap_or(&text))
}

/// How far back the pictures look.
fn ranges(past: &Past, view: View, html: &mut String) {
    html.push_str("<nav aria-label=\"Time shown\">\n<ul>\n");
    for back in Back::ALL {
        if !past.kept && back != Back::Hour {
            continue;
        }
        let current = if back == view.back {
            " aria-current=\"page\""
        } else {
            ""
        };
        let address = View { back, ..view }.address();
        let _ = writeln!(
            html,
            "<li><a id=\"back-{}\" href=\"{}\"{current}>{}</a></li>",
            back.name(),
            escape(&address),
            back.words()
        );
    }
    html.push_str("</ul>\n");
    if !past.kept {
        html.push_str(
            "<p class=\"note\">No history is kept, so this is the last hour at most, from memory. <code>--store FILE</code> keeps \
             days.</p>\n",
        );
    }
    if let Some(error) = &past.error {
        let _ = writeln!(
            html,
            "<p class=\"problem\"><b>!</b> History could not be read: {}</p>",
            escape(error)
        );
    }
    html.push_str("</nav>\n");
}

/// What the agent is and costs.
pub(super) fn foot(snapshot: &Snapshot, past: &Past, html: &mut String) {
    let (report, stats) = (&snapshot.report, &snapshot.stats);
    let ran = report.generated_at - stats.started;
    let mut facts = vec![
        format!("wgnat {}", escape(&report.version)),
        format!("running for {}", human::span(ran)),
    ];
    if ran.as_secs() > 0 {
        let share = stats.cpu.as_secs_f64() / ran.as_secs_f64() * 100.0;
        facts.push(format!(
            "{} of CPU ({} % of a core)",
            human::span(stats.cpu),
            human::float(share)
        ));
    }
    if let Some(bytes) = stats.resident_bytes {
        facts.push(format!("{} of memory", human::bytes(bytes)));
    }
    if past.kept {
        facts.push(format!(
            "history {} ({})",
            human::bytes(stats.store.bytes),
            escape(stats.store.state)
        ));
    }
    let _ = writeln!(
        html,
        "<footer>\n<p class=\"facts\">{}</p>\n<p class=\"facts\">For programs: <a href=\"/metrics\">metrics</a>, \
         <a href=\"/api/v1/report\">report</a>, <a href=\"/api/v1/findings\">findings</a>, \
         <a href=\"/api/v1/openapi.json\">the API</a></p>\n</footer>",
        facts.join(" · ")
    );
}

//! What changed, and how numbers moved, as HTML: lists, and charts that need no script.

use std::fmt::Write as _;

use super::chart::{Limit, Line, Plot, Times, Unit as Axis};
use super::finding::prose;
use super::{escape, table};
use crate::output::changes as words;
use crate::output::text::changes::numbers;
use crate::report::changes::Changes;
use crate::report::past::Episode;
use crate::report::period::{Period, Trend, Unit};
use crate::time::{Span, Timestamp};

/// Rows of the table of what held when.
const EPISODES: usize = 30;

/// What changed since the report before.
pub fn write(changes: &Changes, now: Timestamp, html: &mut String) {
    let _ = writeln!(
        html,
        "<section aria-labelledby=\"changes\">\n<h2 id=\"changes\">What changed</h2>\n<p>{}: {}</p>",
        words::since(changes, now),
        words::summary(changes)
    );
    if changes.kinds().iter().any(|(_, list)| !list.is_empty()) {
        html.push_str("<ul class=\"changes\">\n");
    }
    let mut any = false;
    for (kind, list) in changes.kinds() {
        for change in list.iter().take(words::TOLD) {
            any = true;
            let known = &change.known;
            let severity = known.severity.name();
            let _ = writeln!(
                html,
                "<li class=\"{kind}\"><b>{}</b> <b class=\"{severity}\">{severity}</b> {}\n\
                 <span class=\"note\"><code>{}</code> · {}</span></li>",
                words::word(kind),
                prose(&known.title),
                escape(&known.code),
                words::times(kind, change, now)
            );
        }
        let more = list.len().saturating_sub(words::TOLD);
        if more > 0 {
            let _ = writeln!(
                html,
                "<li class=\"{kind}\">… and {more} more {}</li>",
                words::word(kind)
            );
        }
    }
    if any {
        html.push_str("</ul>\n");
    }
    html.push_str("</section>\n");
}

/// How much was watched, how numbers moved, what held when.
pub fn period(period: &Period, html: &mut String) {
    html.push_str("<section aria-labelledby=\"period\">\n<h2 id=\"period\">Over this time</h2>\n");
    let _ = writeln!(html, "<p><b>Watched</b> {}</p>", escape(&words::watched(period)));
    if let Some(text) = words::unknown_findings(period) {
        let _ = writeln!(html, "<p><b>Unknown</b> {}</p>", escape(&text));
    }
    held(period, html);
    html.push_str("<div class=\"plots\">\n");
    let told: Vec<&Trend> = period.trends.iter().filter(|trend| trend.tells()).collect();
    for (id, own) in told.chunk_by(|a, b| a.heading == b.heading).enumerate() {
        plot(&format!("trend-{id}"), own, period, html);
    }
    html.push_str("</div>\n");
    if let Some(numbers) = numbers(period) {
        table(&numbers, html);
    }
    html.push_str("</section>\n");
}

fn seconds(at: Timestamp) -> i64 {
    at.as_nanos().div_euclid(1_000_000_000)
}

/// Trends of one heading in one picture.
fn plot(id: &str, trends: &[&Trend], period: &Period, html: &mut String) {
    let Some(first) = trends.first() else { return };
    let from = period
        .trends
        .iter()
        .flat_map(|t| t.points.first())
        .map(|p| p.0)
        .min();
    let one = trends.len() == 1;
    let title = if one {
        words::name(first)
    } else {
        first.heading.to_owned()
    };
    let plot = Plot {
        id,
        title: &title,
        unit: axis(first.unit),
        times: Times::Utc,
        // A young history fills the picture: what lies before is told as not watched.
        from: seconds(period.from).max(from.unwrap_or(i64::MIN)),
        to: seconds(period.to),
        step: first.step,
        lines: trends
            .iter()
            .map(|trend| Line {
                name: if trend.label.is_empty() {
                    trend.heading
                } else {
                    &trend.label
                },
                points: &trend.points,
            })
            .collect(),
        limit: first.limit.map(|value| Limit { name: "limit", value }),
        forecast: None,
        marks: Vec::new(),
    };
    html.push_str(&plot.figure());
}

const fn axis(unit: Unit) -> Axis {
    match unit {
        Unit::Count(what) => Axis::Count(what),
        Unit::PerSecond(what) => Axis::PerSecond(what),
        Unit::Ratio => Axis::Ratio,
        Unit::Seconds => Axis::Seconds,
    }
}

/// What held when, the newest first.
fn held(period: &Period, html: &mut String) {
    let shown: Vec<&Episode> = period
        .episodes
        .iter()
        .rev()
        .filter(|e| !e.known.explained)
        .collect();
    if shown.is_empty() {
        html.push_str("<p>Nothing was found in this time.</p>\n");
        return;
    }
    html.push_str(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"What held when\">\n<table>\n\
         <caption>What held when</caption>\n<thead><tr><th scope=\"col\">finding</th><th scope=\"col\">from</th>\
         <th scope=\"col\">to</th><th scope=\"col\" class=\"number\">for</th></tr></thead>\n<tbody>\n",
    );
    for episode in shown.iter().take(EPISODES) {
        let severity = episode.worst().name();
        let until = episode.ended.unwrap_or(period.to);
        let length = Span::from_secs((until - episode.began).as_secs());
        let moment = |at| crate::output::human::moment(at, period.to);
        let _ = writeln!(
            html,
            "<tr><td class=\"wide\"><b class=\"{severity}\">{severity}</b> {}<br><code>{}</code></td><td>{}</td><td>{}</td>\
             <td class=\"number\">{}</td></tr>",
            prose(&episode.known.title),
            escape(&episode.known.code),
            moment(episode.began),
            episode.ended.map_or_else(|| "holds".to_owned(), moment),
            crate::output::human::span(length)
        );
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    let more = shown.len().saturating_sub(EPISODES);
    if more > 0 {
        let _ = writeln!(html, "<p class=\"note\">… and {more} before</p>");
    }
}

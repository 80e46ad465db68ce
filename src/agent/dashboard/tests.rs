//! The page of samples: what it says, that it is bounded, that text from outside stays text.

use serde_json::json;

use super::past::Recent;
use super::peers::{handshakes, rises, spans};
use super::ports::pace;
use super::view::Back;
use super::*;
use crate::finding::{Confidence, Evidence, Severity, Subject};
use crate::output::html::chart::{Point, Span, State};
use crate::report::agent::AgentStats;
use crate::report::{Report, sample};
use crate::time::Span as Length;

fn snapshot(report: Report) -> Snapshot {
    let stats = AgentStats {
        top_destinations: 10,
        top_peers: 10,
        ..AgentStats::default()
    };
    Snapshot::new(report, stats, Vec::new())
}

fn shown_page(report: Report, view: View) -> String {
    let snapshot = snapshot(report);
    let past = Past::remembered(&snapshot, view, &Recent::default());
    page(&snapshot, &past, view)
}

fn even(values: &[f64]) -> Vec<Point> {
    values
        .iter()
        .zip(0..)
        .map(|(v, n)| (n * 10, *v, *v, *v))
        .collect()
}

#[test]
fn the_verdict_leads_and_each_finding_has_its_fix() {
    for (report, sign, verdict, parts) in [
        (
            sample::ports_exhausted(),
            "✗",
            "Critical: ",
            vec![
                "ports-exhausted",
                "<b>Fix</b>",
                "class=\"chart\"",
                "Ports towards destinations",
            ],
        ),
        (
            sample::tunnel_silent(),
            "✗",
            "Critical: ",
            vec!["Could be", "WireGuard peers"],
        ),
        (
            sample::healthy(),
            "✓",
            "No problem found",
            vec!["No problem found."],
        ),
    ] {
        let page = shown_page(report, View::default());
        let said = page
            .split_once("aria-live=\"polite\">")
            .unwrap()
            .1
            .split_once("</p>")
            .unwrap()
            .0;
        assert!(said.contains(sign) && said.contains(verdict), "{said}");
        for part in parts {
            assert!(page.contains(part), "{part}");
        }
    }
}

#[test]
fn text_from_outside_stays_text_and_nothing_is_fetched() {
    let script = "</script><script>alert(1)</script>\" onmouseover='x'";
    let mut report = sample::hostile_names();
    if let Some(host) = &mut report.host {
        host.hostname = script.to_owned();
    }
    for row in &mut report.sockets.destinations {
        if let Some(process) = &mut row.process {
            process.comm = script.to_owned();
        }
    }
    for finding in &mut report.findings {
        finding.title = script.to_owned();
    }
    let page = shown_page(report, View::default());
    assert_eq!(page.matches("<script").count(), 1, "its own");
    assert!(!page.contains("onmouseover='"));
    for word in [
        "http://", "https://", "//cdn", "url(", "@import", " src=", "style=\"",
    ] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn the_policy_names_what_the_page_holds_and_nothing_else() {
    let page = shown_page(sample::healthy(), View::default());
    let between = |a: &str, b: &str| page.split_once(a).unwrap().1.split_once(b).unwrap().0;
    let policy = policy();
    assert!(!policy.contains("unsafe"), "{policy}");
    for text in [between("<style>", "</style>"), between("<script>", "</script>")] {
        assert!(policy.contains(&hash(text)));
    }
}

#[test]
fn the_ten_worst_are_shown_and_the_rest_is_a_link_away() {
    let mut report = sample::ports_exhausted();
    let make = |n: u16| {
        let mut rows = sample::ports_exhausted().sockets.destinations;
        let mut row = rows.swap_remove(0);
        row.destination.set_port(n);
        row.state = "steady";
        row.held = u32::from(n);
        row
    };
    report.sockets.destinations = (1000..1040).map(make).collect();
    report.sockets.destinations_left_out = 7;
    let rows = |page: &str| {
        let table = page
            .split_once("id=\"ports-t\"")
            .unwrap()
            .1
            .split_once("</table>")
            .unwrap()
            .0;
        table.matches("<tr>").count() - 1
    };
    let few = shown_page(report, View::default());
    assert_eq!(rows(&few), 10);
    assert!(few.contains("<a href=\"/?rows=all#ports\">Show all 40 destinations</a> (30 more)"));
    assert!(few.contains("7 more destinations had no room in the report."));
    assert!(
        few.contains(":1039</th>") && !few.contains(":1000</th>"),
        "the fullest first"
    );
    let mut report = sample::ports_exhausted();
    report.sockets.destinations = (1000..1040).map(make).collect();
    let view = View {
        all: true,
        back: Back::Day,
    };
    let all = shown_page(report, view);
    assert_eq!(rows(&all), 40);
    assert!(all.contains("<a href=\"/?since=24h#ports\">"));
    assert!(all.len() < 200_000, "{}", all.len());
}

#[test]
fn each_view_has_its_number_and_its_address() {
    let mut seen = std::collections::BTreeSet::new();
    for back in Back::ALL {
        for all in [false, true] {
            let view = View { back, all };
            assert!(seen.insert((view.index(), view.address())) && view.index() < View::COUNT);
        }
    }
    assert_eq!(seen.len(), View::COUNT);
    assert_eq!(View::default().address(), "/");
}

#[test]
fn handshakes_are_read_from_their_age() {
    // At 100 s one is 5 s old; it grows; at 130 s there is a new one.
    let ages = [(100, 5.0), (110, 15.0), (120, 25.0), (230, 5.0), (240, 14.0)];
    let points: Vec<Point> = ages.iter().map(|(at, v)| (*at, *v, *v, *v)).collect();
    assert_eq!(handshakes(&points, 10), [95, 225]);
    assert_eq!(
        handshakes(&[(0, f64::NAN, f64::NAN, 0.0), (5, -1.0, -1.0, 0.0)], 10),
        [] as [i64; 0]
    );
}

#[test]
fn rises_are_told_and_what_was_there_before_is_not() {
    for (values, expected) in [
        (vec![], vec![]),
        (vec![3.0, 3.0], vec![]),
        (vec![0.0, 1.0, 1.0, 3.0], vec![10, 30]),
        (vec![5.0, 0.0, 0.0], vec![]),
        (vec![5.0, 2.0], vec![10]),
    ] {
        assert_eq!(rises(&even(&values)), expected, "{values:?}");
    }
}

#[test]
fn a_state_that_goes_on_is_one_stretch_and_a_gap_ends_it() {
    let mut points = even(&[1.0, 1.0, 0.0, 1.0]);
    points.push((200, 1.0, 1.0, 1.0));
    let found: Vec<(i64, i64, State)> = spans(&points, 10)
        .iter()
        .map(|Span { from, to, state }| (*from, *to, *state))
        .collect();
    assert_eq!(
        found,
        [
            (0, 20, State::Good),
            (20, 30, State::Bad),
            (30, 40, State::Good),
            (200, 210, State::Good)
        ]
    );
}

#[test]
fn a_counters_pace_survives_its_reset_and_skips_gaps() {
    let mut points = even(&[100.0, 150.0, 20.0]);
    points.push((500, 900.0, 900.0, 900.0));
    let found: Vec<(i64, f64)> = pace(&points, 10).iter().map(|p| (p.0, p.1)).collect();
    assert_eq!(found, [(10, 5.0), (20, 2.0)]);
}

#[test]
fn memory_holds_an_hour_and_begins_anew_when_the_clock_is_set_back() {
    let mut recent = Recent::default();
    let start = sample::ports_exhausted().generated_at;
    let mut at = |seconds: u64, back: u64| {
        let mut report = sample::ports_exhausted();
        report.generated_at = (start + Length::from_secs(seconds)).before(Length::from_secs(back));
        let snapshot = snapshot(report);
        recent.add(&snapshot);
        let past = Past::remembered(&snapshot, View::default(), &recent);
        let keys = ports::series(&snapshot, 10);
        past.series(&keys[0]).len()
    };
    assert_eq!(at(0, 0), 1);
    assert_eq!(at(1, 0), 1, "one in ten seconds");
    for step in 1..1000 {
        at(step * 10, 0);
    }
    assert_eq!(at(10_000, 0), 360);
    assert_eq!(at(0, 86_400), 1);
}

#[test]
fn the_rules_own_forecast_is_drawn_and_told() {
    let mut report = sample::ports_exhausted();
    let row = &mut report.sockets.destinations[0];
    (row.held, row.available, row.state) = (150, Some(200), "low");
    let subject = Subject::Destination {
        proto: row.proto,
        source: Some(row.source),
        address: row.destination.ip(),
        port: row.destination.port(),
        process: None,
    };
    let mut finding = sample::finding("ports-low", Severity::Warning, Confidence::Likely, "75 % held");
    finding.subject = subject;
    finding.evidence = Evidence::new()
        .with("exhausted_in_seconds", 90.0)
        .with("exhausted_in_seconds_low", 60.0)
        .with("exhausted_in_seconds_high", 120.0);
    report.findings = vec![finding];
    let page = shown_page(report, View::default());
    let picture = page
        .split_once("id=\"ports-0\"")
        .unwrap()
        .1
        .split_once("</svg>")
        .unwrap()
        .0;
    assert!(
        picture.contains("class=\"cone\"") && picture.contains("class=\"future\""),
        "{picture}"
    );
    assert!(
        picture.contains("Forecast at the present pace: 200 ports in 90 s (60 s to 2 min)"),
        "{picture}"
    );
    let others = page.split_once("id=\"ports-1\"").map_or("", |(_, rest)| rest);
    assert!(!others.contains("class=\"cone\""), "of that destination alone");
    assert!(
        page.contains("<b class=\"warning\">! 75 %</b>"),
        "as bad as the finding"
    );
}

#[test]
fn what_happened_is_told_newest_first_and_sources_that_always_saw_are_not() {
    let at = |n: i64| crate::time::Timestamp::from_secs(1_700_000_000 + n);
    let collector =
        |source: &str, state: &str| json!({ "collector": source, "state": state, "reason": null });
    let mut past = Past::default();
    past.events = vec![
        (at(5), "collector".into(), collector("sockets", "ok")),
        (
            at(4),
            "finding".into(),
            json!({ "what": "began", "title": "It <broke>", "severity": "critical" }),
        ),
        (at(3), "collector".into(), collector("sockets", "degraded")),
        (at(2), "collector".into(), collector("routes", "ok")),
        (at(1), "report".into(), json!({})),
    ];
    let mut html = String::new();
    events::write(&past, &mut html);
    let lines: Vec<&str> = html
        .lines()
        .filter_map(|l| l.split_once("</time> "))
        .map(|(_, words)| words)
        .collect();
    assert_eq!(
        lines,
        [
            "Source sockets sees all</li>",
            "Began: It &lt;broke&gt; (critical)</li>",
            "Source sockets sees in part</li>"
        ]
    );
}

#[test]
fn an_agent_that_began_a_moment_ago_shows_five_minutes_and_not_an_empty_hour() {
    let snapshot = snapshot(sample::ports_exhausted());
    let mut recent = Recent::default();
    recent.add(&snapshot);
    let past = Past::remembered(&snapshot, View::default(), &recent);
    assert_eq!(past.to - past.from, 300);
}

//! Whatever a finding says and whatever names come from outside: lines fit, and nothing drives the terminal.
#![allow(clippy::expect_used)] // a panic is how a test fails

mod common;

use std::collections::BTreeSet;

use common::samples;
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;
use wgnat::finding::{Candidate, Confidence, Evidence, Finding, Fix, ProcessRef, Severity, Subject};
use wgnat::observation::{Source, SourceStatus};
use wgnat::output::{Format, Options, clean, render};
use wgnat::report::{Report, Status};
use wgnat::rules::NotChecked;

/// Text as rules write it, and as strangers do: words, very long words, wide characters, controls, escapes.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => "[a-z0-9.:,`'()-]{1,14}",
        1 => "[a-z]{60,120}",
        1 => "[漢字かな한글🦀👩🏽‍🚀]{1,30}",
        1 => "\\PC{1,12}",
        1 => prop::collection::vec(any::<char>(), 1..12).prop_map(String::from_iter),
        1 => Just("\u{1b}[2J\u{1b}]0;x\u{7}".to_owned()),
        1 => Just("HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=".to_owned()),
        1 => Just("1\u{fe0f}\u{20e3}\u{202e}".to_owned()),
    ];
    prop::collection::vec(word, 0..24).prop_map(|w| w.join(" "))
}

fn finding() -> impl Strategy<Value = Finding> {
    let severity = prop_oneof![
        Just(Severity::Info),
        Just(Severity::Warning),
        Just(Severity::Critical)
    ];
    let fix = (
        words(),
        words(),
        prop::option::of(words()),
        prop::option::of(words()),
    )
        .prop_map(|(title, why, command, snippet)| Fix {
            title,
            why,
            command,
            snippet,
            expect: Evidence::new(),
        });
    let candidate = (words(), words()).prop_map(|(cause, settle)| Candidate {
        cause,
        code: None,
        settle,
    });
    let evidence = prop::collection::vec((0..5_usize, words()), 0..12).prop_map(|pairs| {
        let names = [
            "in_use",
            "a_name_that_is_rather_long_for_a_name",
            "comm",
            "opens_per_second",
            "x",
        ];
        pairs
            .into_iter()
            .fold(Evidence::new(), |e, (n, value)| e.with(names[n], value))
    });
    (
        severity,
        words(),
        words(),
        words(),
        evidence,
        prop::collection::vec(candidate, 0..7),
        prop::collection::vec(fix, 0..5),
    )
        .prop_map(
            |(severity, title, summary, impact, evidence, candidates, fixes)| Finding {
                title,
                summary,
                impact,
                evidence,
                candidates,
                fixes,
                subject: Subject::Host,
                ..samples::finding("ports-exhausted", severity, Confidence::Likely, "")
            },
        )
}

fn report() -> impl Strategy<Value = Report> {
    (
        prop::collection::vec(finding(), 0..3),
        words(),
        words(),
        words(),
        0..=u32::MAX,
    )
        .prop_map(|(findings, hostname, comm, reason, held)| {
            let mut report = samples::hostile_names();
            let process = ProcessRef {
                pid: held,
                comm,
                exe: None,
                runtime: None,
            };
            report.status = Status::of(findings.iter(), true);
            report.findings = findings;
            if let Some(host) = &mut report.host {
                host.netns_name = Some(reason.clone());
                host.hostname = hostname;
            }
            for row in &mut report.sockets.destinations {
                row.process = Some(process.clone());
                row.held = held;
            }
            for peer in &mut report.wireguard.peers {
                peer.device = Some(reason.clone());
                peer.unanswered = Some(held);
            }
            report.conntrack = Some(samples::conntrack());
            report
                .collectors
                .push((Source::Conntrack, SourceStatus::unavailable(reason)));
            report.not_checked.push(NotChecked {
                code: "conntrack-full",
                missing: vec![Source::Conntrack],
            });
            report
        })
}

fn text(report: &Report, options: &Options) -> String {
    let mut out = Vec::new();
    render(report, Format::Text, options, &mut out).expect("written");
    String::from_utf8(out).expect("UTF-8")
}

/// Every line that is there to be pasted.
fn pasted(report: &Report) -> BTreeSet<String> {
    report
        .findings
        .iter()
        .flat_map(|f| &f.fixes)
        .flat_map(|x| [&x.command, &x.snippet])
        .flatten()
        .flat_map(|code| clean::block(code))
        .map(|line| line.trim().to_owned())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn lines_fit_and_nothing_drives_the_terminal(report in report(), width in 60_usize..=100, unicode: bool) {
        let options = Options { color: false, width, unicode };
        let pasted = pasted(&report);
        for line in text(&report, &options).lines() {
            prop_assert!(!line.chars().any(clean::is_unsafe), "{line:?}");
            let fits = line.width() <= width && clean::width(line) <= width;
            prop_assert!(fits || pasted.contains(line.trim()), "{} columns: {line:?}", line.width());
            if !unicode {
                prop_assert!(line.is_ascii() || pasted.contains(line.trim()), "{line:?}");
            }
        }
    }

    #[test]
    fn what_is_to_be_pasted_stands_whole_in_one_line(report in report()) {
        let shown = text(&report, &Options::default());
        let lines: BTreeSet<&str> = shown.lines().map(str::trim).collect();
        for fix in report.findings.iter().filter_map(|f| f.fixes.first()) {
            for line in fix.command.iter().chain(&fix.snippet).flat_map(|c| clean::block(c)) {
                prop_assert!(lines.contains(line.trim()), "{line:?}");
            }
        }
    }

    #[test]
    fn only_our_own_colours_are_escape_sequences(report in report()) {
        let options = Options { color: true, ..Options::default() };
        let mut plain = text(&report, &options);
        for ours in ["[0m", "[1m", "[2m", "[31m", "[32m", "[33m", "[34m", "[36m"] {
            plain = plain.replace(&format!("\u{1b}{ours}"), "");
        }
        let escapes = plain.contains('\u{1b}');
        prop_assert!(!escapes);
        prop_assert_eq!(plain, text(&report, &Options::default()));
    }

    #[test]
    fn markdown_keeps_its_structure(report in report()) {
        let mut out = Vec::new();
        render(&report, Format::Markdown, &Options::default(), &mut out).expect("written");
        let page = String::from_utf8(out).expect("UTF-8");
        let mut fence: Option<String> = None;
        let mut columns = None;
        let mut headings = 0;
        for line in page.lines() {
            let ticks: String = line.chars().take_while(|c| *c == '`').collect();
            match &fence {
                Some(open) if line == open => fence = None,
                Some(_) => {}
                None if ticks.len() >= 3 => fence = Some(ticks),
                None => {
                    headings += usize::from(line.starts_with('#'));
                    let bars = line.replace("\\|", "").matches('|').count();
                    columns = match (columns, line.starts_with('|')) {
                        (Some(before), true) => {
                            prop_assert_eq!(before, bars, "{}", line);
                            columns
                        }
                        (None, true) => Some(bars),
                        _ => None,
                    };
                }
            }
        }
        prop_assert_eq!(fence, None);
        // The report's, one for each finding, what was seen, what was not.
        prop_assert_eq!(headings, 3 + report.findings.len());
    }
}

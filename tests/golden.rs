//! What people read, as whole pages in tests/golden/. Each file's name says why it is there.
#![allow(clippy::expect_used)] // a panic is how a test fails

mod common;

use common::{check_file, samples};
use wgnat::output::{Format, Options, render};
use wgnat::report::Report;

fn page(report: &Report, format: Format, options: &Options) -> String {
    let mut out = Vec::new();
    render(report, format, options, &mut out).expect("written");
    String::from_utf8(out).expect("UTF-8")
}

fn text(report: &Report) -> String {
    page(report, Format::Text, &Options::default())
}

#[test]
fn a_cause_with_its_symptoms_folded_and_a_snippet_to_paste() {
    check_file(
        "tests/golden/cause-folds-symptoms.txt",
        &text(&samples::ports_exhausted()),
    );
}

#[test]
fn a_silence_names_every_cause_that_is_left() {
    check_file(
        "tests/golden/silence-lists-candidates.txt",
        &text(&samples::tunnel_silent()),
    );
}

#[test]
fn a_healthy_host_is_short_and_calm() {
    check_file("tests/golden/healthy-is-calm.txt", &text(&samples::healthy()));
}

#[test]
fn without_root_says_what_is_missing() {
    check_file(
        "tests/golden/without-root-says-what-is-missing.txt",
        &text(&samples::without_root()),
    );
}

#[test]
fn hostile_names_neither_drive_the_terminal_nor_break_the_layout() {
    check_file(
        "tests/golden/hostile-names-are-harmless.txt",
        &text(&samples::hostile_names()),
    );
}

#[test]
fn two_captures_say_which_way_is_lost() {
    check_file(
        "tests/golden/two-places-side-by-side.txt",
        &text(&samples::two_places()),
    );
}

#[test]
fn ascii_where_the_terminal_shows_nothing_else() {
    let options = Options {
        unicode: false,
        ..Options::default()
    };
    check_file(
        "tests/golden/ascii-terminal.txt",
        &page(&samples::ports_exhausted(), Format::Text, &options),
    );
}

#[test]
fn colour_marks_and_never_carries_the_meaning_alone() {
    let options = Options {
        color: true,
        ..Options::default()
    };
    let colored = page(&samples::ports_exhausted(), Format::Text, &options);
    assert!(colored.contains("\u{1b}[1m\u{1b}[31m✗"));
    let mut plain = String::new();
    let mut escape = false;
    for c in colored.chars() {
        match c {
            '\u{1b}' => escape = true,
            'm' if escape => escape = false,
            c if !escape => plain.push(c),
            _ => {}
        }
    }
    assert_eq!(plain, text(&samples::ports_exhausted()));
}

#[test]
fn markdown_reads_in_a_ticket() {
    check_file(
        "tests/golden/ticket.md",
        &page(&samples::ports_exhausted(), Format::Markdown, &Options::default()),
    );
}

#[test]
fn markdown_of_hostile_names_keeps_its_structure() {
    check_file(
        "tests/golden/hostile-names-are-harmless.md",
        &page(&samples::hostile_names(), Format::Markdown, &Options::default()),
    );
}

#[test]
fn a_monitoring_system_gets_one_line() {
    check_file(
        "tests/golden/nagios-is-one-line.txt",
        &page(&samples::ports_exhausted(), Format::Nagios, &Options::default()),
    );
}

#[test]
fn a_page_needs_nothing_else() {
    check_file(
        "tests/golden/page-is-self-contained.html",
        &page(&samples::ports_exhausted(), Format::Html, &Options::default()),
    );
}

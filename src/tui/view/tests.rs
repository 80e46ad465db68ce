//! What is drawn, at the sizes that terminals have.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::text::{hard, soft};
use super::*;
use crate::report::{Report, sample};
use crate::tui::testing::{destinations, finding, report, snapshot};
use crate::tui::{Key, Snapshot};

const COLOURFUL: Look = Look {
    color: true,
    unicode: true,
};

/// The screen after these keys, as lines.
fn screen(snapshot: Option<Snapshot>, size: (u16, u16), look: Look, typed: &str) -> Vec<String> {
    let mut model = Model::default();
    if let Some(snapshot) = snapshot {
        model.look(snapshot);
    }
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| draw(frame, &mut model, look)).unwrap();
    for c in typed.chars() {
        model.press(if c == '⏎' { Key::Enter } else { Key::Char(c) });
    }
    terminal.draw(|frame| draw(frame, &mut model, look)).unwrap();
    lines(terminal.backend())
}

fn lines(backend: &TestBackend) -> Vec<String> {
    let buffer = backend.buffer();
    let row = |y| -> String { (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..buffer.area.height)
        .map(|y| row(y).trim_end().to_owned())
        .collect()
}

fn samples() -> Vec<(&'static str, Report)> {
    vec![
        ("empty", sample::empty()),
        ("healthy", sample::healthy()),
        ("without root", sample::without_root()),
        ("hostile names", sample::hostile_names()),
        ("ports exhausted", sample::ports_exhausted()),
        ("tunnel silent", sample::tunnel_silent()),
    ]
}

#[test]
fn eighty_by_twentyfour_shows_it_all() {
    let lines = screen(Some(snapshot(sample::ports_exhausted())), (80, 24), COLOURFUL, "");
    let text = lines.join("\n");
    for part in [
        "wgnat top · ",
        "1 critical",
        "1 Destinations",
        "5 Findings (",
        "process",
        "towards",
        "held",
        "used",
        "opens/s",
        "state",
        "node 812",
        "203.0.113.9:443",
        "28,231",
        "exhausted",
        "✗ ",
        "q quit",
        "? help",
        "/ filter",
        "p pause",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    // Numbers stand beneath one another, at the right of their heading.
    let end = |line: &str, word: &str| line.find(word).map(|at| clean::width(&line[..at + word.len()]));
    let heading = lines.iter().find(|l| l.contains("process")).unwrap();
    let row = lines.iter().find(|l| l.contains("28,231")).unwrap();
    assert_eq!(end(heading, "held"), end(row, "28,231"), "{text}");
}

#[test]
fn every_size_and_tab_is_drawn_without_running_over() {
    for (name, report) in samples() {
        let mut model = Model::default();
        model.look(snapshot(report));
        for (width, height) in [
            (200, 60),
            (80, 24),
            (60, 15),
            (40, 12),
            (40, 24),
            (20, 5),
            (10, 3),
            (1, 1),
        ] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            for look in [
                COLOURFUL,
                Look {
                    color: false,
                    unicode: false,
                },
            ] {
                for c in "1⏎?23⏎?4⏎?5⏎?6⏎??/".chars() {
                    model.press(if c == '⏎' { Key::Enter } else { Key::Char(c) });
                    terminal.draw(|frame| draw(frame, &mut model, look)).unwrap();
                    for line in lines(terminal.backend()) {
                        assert!(!line.contains('\u{1b}'), "{name} {width}: {line}");
                        assert!(look.unicode || line.is_ascii(), "{name} {width}: {line}");
                    }
                }
                model.press(Key::Escape);
            }
        }
    }
}

#[test]
fn forty_columns_keep_what_matters() {
    let text = screen(Some(snapshot(sample::ports_exhausted())), (40, 12), COLOURFUL, "").join("\n");
    for part in [
        "wgnat top",
        "1 critical",
        "1 Dest",
        "6 Src",
        "node 812",
        "28,231",
        "held",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let mut short = destinations(&[7]);
    short.report.sockets.destinations[0].process = Some(sample::node());
    let text = screen(Some(short), (40, 12), COLOURFUL, "").join("\n");
    assert!(
        text.contains("node 812") && text.contains("203.0.113.9:1"),
        "{text}"
    );
}

#[test]
fn without_colour_nothing_is_coloured() {
    for color in [true, false] {
        let mut model = Model::default();
        model.look(snapshot(sample::ports_exhausted()));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let look = Look { color, unicode: true };
        terminal.draw(|frame| draw(frame, &mut model, look)).unwrap();
        let buffer = terminal.backend().buffer();
        let coloured = buffer
            .content
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(coloured, color);
    }
}

#[test]
fn what_is_missing_is_said() {
    let text = screen(Some(snapshot(sample::without_root())), (80, 24), COLOURFUL, "").join("\n");
    assert!(text.contains("Not observed (6 says why): "), "{text}");
    let text = screen(Some(snapshot(sample::without_root())), (80, 24), COLOURFUL, "6").join("\n");
    assert!(text.contains("unavailable") && text.contains("CAP_"), "{text}");
    let text = screen(None, (80, 24), COLOURFUL, "").join("\n");
    assert!(
        text.contains("looking for the first time") && text.contains("q quit"),
        "{text}"
    );
}

#[test]
fn a_filter_and_a_pause_are_seen() {
    let text = screen(Some(destinations(&[5, 4, 3])), (80, 24), COLOURFUL, "/9:2").join("\n");
    assert!(
        text.contains("Only rows with: 9:2") && text.contains("Enter keeps it"),
        "{text}"
    );
    let text = screen(Some(destinations(&[5, 4, 3])), (80, 24), COLOURFUL, "/9:2⏎p").join("\n");
    assert!(
        text.contains("only rows with “9:2” (1)") && text.contains("PAUSED"),
        "{text}"
    );
    assert!(
        !text.contains("203.0.113.9:1") && text.contains("203.0.113.9:2"),
        "{text}"
    );
    let text = screen(Some(destinations(&[5])), (80, 24), COLOURFUL, "/nothing⏎").join("\n");
    assert!(text.contains("No row has this"), "{text}");
}

#[test]
fn the_order_is_marked_at_its_heading() {
    let text = screen(Some(destinations(&[5, 4])), (80, 24), COLOURFUL, "ssss").join("\n");
    assert!(text.contains("held▾"), "{text}");
    let text = screen(Some(destinations(&[5, 4])), (80, 24), COLOURFUL, "ssssr").join("\n");
    assert!(text.contains("held▴"), "{text}");
}

#[test]
fn a_detail_is_wrapped_and_scrolled() {
    let text = screen(
        Some(snapshot(sample::ports_exhausted())),
        (80, 24),
        COLOURFUL,
        "⏎",
    )
    .join("\n");
    assert!(
        text.contains("local ports") && text.contains("Esc back"),
        "{text}"
    );
    let whole: Vec<String> = screen(
        Some(snapshot(sample::ports_exhausted())),
        (80, 90),
        COLOURFUL,
        "⏎",
    );
    assert!(whole.join("\n").contains("maxSockets"), "{whole:#?}");
    let scrolled = screen(
        Some(snapshot(sample::ports_exhausted())),
        (80, 16),
        COLOURFUL,
        "⏎jjj",
    );
    assert_eq!(scrolled[2..15], whole[5..18]);
}

#[test]
fn words_are_broken_where_a_line_is_full() {
    for (text, room, expected) in [
        ("one two three", 7, vec!["one two", "three"]),
        ("abcdefghij xy", 4, vec!["abcd", "efgh", "ij", "xy"]),
        ("", 4, vec![""]),
    ] {
        assert_eq!(soft(text, room), expected, "{text}");
    }
    assert_eq!(hard("漢字漢", 4), ["漢字", "漢"]);
}

#[test]
fn help_tells_every_key() {
    let text = screen(Some(snapshot(report(0, vec![]))), (80, 30), COLOURFUL, "?").join("\n");
    for key in [
        "Enter",
        "Tab",
        "s ",
        "r ",
        "/ ",
        "p, Space",
        "q, Ctrl-C",
        "opens/s",
    ] {
        assert!(text.contains(key), "{key}:\n{text}");
    }
}

#[test]
fn news_are_told_beneath_the_table() {
    let found = report(7, vec![finding("ports-low", Severity::Warning, "Ports run low")]);
    let text = screen(Some(snapshot(found)), (80, 24), COLOURFUL, "").join("\n");
    assert!(text.contains("! Ports run low"), "{text}");
    let quiet = screen(Some(snapshot(report(7, vec![]))), (80, 24), COLOURFUL, "").join("\n");
    assert!(quiet.contains("No finding so far."), "{quiet}");
}

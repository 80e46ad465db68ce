//! Keys and snapshots in, what is shown out.

use super::super::testing::{destinations, finding, report, snapshot};
use super::*;
use crate::finding::Severity;
use crate::report::sample;

fn keys(model: &mut Model, text: &str) {
    for c in text.chars() {
        model.press(match c {
            '↓' => Key::Down,
            '↑' => Key::Up,
            '⏎' => Key::Enter,
            '⎋' => Key::Escape,
            '⌫' => Key::Backspace,
            '⇥' => Key::Tab,
            '⇤' => Key::BackTab,
            '⇟' => Key::PageDown,
            '⇞' => Key::PageUp,
            '⌂' => Key::Home,
            '⇲' => Key::End,
            c => Key::Char(c),
        });
    }
}

/// A model of five rows on a screen of three.
fn model() -> Model {
    let mut model = Model::default();
    model.fit(3);
    model.look(destinations(&[50, 40, 30, 20, 10]));
    model
}

/// The ports of the destinations, in the order of the rows.
fn order(model: &Model) -> Vec<u16> {
    let rows = model.table().map(|t| t.rows).unwrap_or_default();
    rows.iter()
        .map(|row| match &row.id {
            RowId::Destination(key) => key.destination.port(),
            _ => 0,
        })
        .collect()
}

fn selected(model: &Model) -> u16 {
    order(model).get(model.window().1).copied().unwrap_or(0)
}

#[test]
fn the_cursor_moves_and_stays_on_the_screen() {
    for (typed, expected) in [
        ("", (0, 0)),
        ("↑", (0, 0)),
        ("↓", (0, 1)),
        ("↓↓↓", (1, 3)),
        ("↓↓↓↑", (1, 2)),
        ("↓↓↓↓↓↓↓", (2, 4)),
        ("⇲", (2, 4)),
        ("⇲⌂", (0, 0)),
        ("⇟", (0, 2)),
        ("⇟⇟", (2, 4)),
        ("⇟⇟⇞", (2, 2)),
        ("jjk", (0, 1)),
        ("G", (2, 4)),
        ("Gg", (0, 0)),
    ] {
        let mut model = model();
        keys(&mut model, typed);
        assert_eq!(model.window(), expected, "{typed}");
    }
}

#[test]
fn rows_are_sorted_and_back() {
    for (typed, expected) in [
        ("", vec![1, 2, 3, 4, 5]),
        // process, from, towards, held
        ("sss", vec![1, 2, 3, 4, 5]),
        ("sssr", vec![5, 4, 3, 2, 1]),
        ("ssss", vec![1, 2, 3, 4, 5]),
        ("ssssr", vec![5, 4, 3, 2, 1]),
        // After the last of nine columns the report's order is back.
        ("ssssrsssssss", vec![1, 2, 3, 4, 5]),
    ] {
        let mut model = model();
        keys(&mut model, typed);
        assert_eq!(order(&model), expected, "{typed}");
    }
    let mut model = model();
    keys(&mut model, "ssss");
    assert_eq!(model.sort(), Some((3, true)), "numbers begin with the greatest");
    keys(&mut model, "ssssss");
    assert_eq!(model.sort(), None);
}

#[test]
fn what_is_not_known_is_last_whichever_way() {
    let mut model = model();
    let mut some = destinations(&[50, 40, 30]);
    some.report.sockets.destinations[0].opens_per_second = None;
    model.look(some);
    keys(&mut model, "ssssssss");
    assert_eq!(model.sort(), Some((7, true)));
    assert_eq!(order(&model), [2, 3, 1]);
    keys(&mut model, "r");
    assert_eq!(order(&model), [3, 2, 1]);
}

#[test]
fn the_chosen_row_is_followed() {
    let mut model = model();
    keys(&mut model, "↓");
    assert_eq!(selected(&model), 2);
    // It becomes the fourth by what it holds, and the first in the end.
    keys(&mut model, "ssss");
    model.look(destinations(&[50, 15, 30, 20, 10]));
    assert_eq!((selected(&model), model.window().1), (2, 3));
    model.look(destinations(&[50, 99, 30, 20, 10]));
    assert_eq!((selected(&model), model.window().1), (2, 0));
    model.look(destinations(&[50, 15, 30, 20, 10]));
    assert_eq!((selected(&model), model.window().1), (2, 3));
    // Until one is chosen, whatever stands first is looked at.
    keys(&mut model, "⌂");
    model.look(destinations(&[5, 15, 30, 20, 10]));
    assert_eq!((selected(&model), model.window().1), (3, 0));
}

#[test]
fn a_row_that_is_gone_leaves_its_place() {
    let mut model = model();
    keys(&mut model, "↓↓");
    model.look(destinations(&[50, 40]));
    assert_eq!((selected(&model), model.window().1), (2, 1));
    model.look(destinations(&[]));
    assert_eq!(model.window(), (0, 0));
    keys(&mut model, "↓⏎");
    assert_eq!(model.over(), &Over::Nothing, "there is nothing to open");
}

#[test]
fn a_filter_keeps_rows_that_contain_it() {
    for (typed, expected, filter, over) in [
        ("/:4", vec![4], ":4", Over::Filter),
        ("/:4⏎", vec![4], ":4", Over::Nothing),
        ("/:4⏎⎋", vec![1, 2, 3, 4, 5], "", Over::Nothing),
        ("/:4⌫⏎", vec![1, 2, 3, 4, 5], ":", Over::Nothing),
        ("/:4⎋", vec![1, 2, 3, 4, 5], "", Over::Nothing),
        ("/STEADY⏎", vec![1, 2, 3, 4, 5], "STEADY", Over::Nothing),
        // A key that means something elsewhere is a letter here.
        ("/q", vec![], "q", Over::Filter),
    ] {
        let mut model = model();
        keys(&mut model, typed);
        assert_eq!(order(&model), expected, "{typed}");
        assert_eq!((model.filter(), model.over()), (filter, &over), "{typed}");
        assert!(!model.quit());
    }
    let mut model = model();
    keys(&mut model, "/");
    keys(&mut model, &"x".repeat(500));
    assert_eq!(model.filter().len(), MAX_FILTER);
}

#[test]
fn paused_it_stands_still_and_goes_on_with_the_newest() {
    let mut model = model();
    keys(&mut model, "p");
    model.look(destinations(&[1]));
    model.look(destinations(&[1, 2]));
    assert!(model.paused());
    assert_eq!(order(&model).len(), 5);
    keys(&mut model, "↓");
    assert_eq!(selected(&model), 2, "one can look around");
    keys(&mut model, " ");
    assert!(!model.paused());
    assert_eq!(order(&model).len(), 2);
}

#[test]
fn findings_are_told_while_paused() {
    let mut model = Model::default();
    model.look(snapshot(report(0, Vec::new())));
    keys(&mut model, "p");
    model.look(snapshot(report(
        1,
        vec![finding("ports-low", Severity::Warning, "low")],
    )));
    assert_eq!(model.news().items().count(), 1);
    assert_eq!(model.shown().unwrap().report.findings.len(), 0);
}

#[test]
fn tabs_turn_and_each_keeps_its_place() {
    for (typed, expected) in [
        ("", Tab::Destinations),
        ("⇥", Tab::Processes),
        ("⇥⇥⇤", Tab::Processes),
        ("⇤", Tab::Sources),
        ("4", Tab::Peers),
        ("6⇥", Tab::Destinations),
    ] {
        let mut model = model();
        keys(&mut model, typed);
        assert_eq!(model.tab(), expected, "{typed}");
    }
    let mut model = model();
    keys(&mut model, "↓↓25");
    keys(&mut model, "1");
    assert_eq!(model.window().1, 2);
}

#[test]
fn a_row_opens_and_closes() {
    let mut model = model();
    keys(&mut model, "↓⏎");
    let text = |model: &Model| -> String {
        let lines = model.detail().unwrap_or_default();
        lines
            .iter()
            .map(|l| format!("{} {}\n", l.label, l.text))
            .collect()
    };
    assert!(text(&model).contains("203.0.113.9:2"), "{}", text(&model));
    assert!(
        text(&model).contains("40 of 28,232 local ports (<1 %)"),
        "{}",
        text(&model)
    );
    // It follows the row, and says when that is gone.
    model.look(destinations(&[50, 41, 30]));
    assert!(text(&model).contains("41 of 28,232"));
    model.look(destinations(&[50]));
    assert!(text(&model).contains("no longer there"));
    // It cannot be scrolled beyond its end.
    keys(&mut model, "↓↓↓↓↓↓⇲");
    model.long(5);
    assert!(matches!(model.over(), Over::Detail(_, 2)), "{:?}", model.over());
    keys(&mut model, "⌂");
    assert!(matches!(model.over(), Over::Detail(_, 0)));
    keys(&mut model, "q");
    assert!(
        !model.quit() && *model.over() == Over::Nothing,
        "q goes back first"
    );
}

#[test]
fn the_detail_of_a_finding_has_its_fix() {
    let mut model = Model::default();
    model.fit(20);
    model.look(snapshot(sample::ports_exhausted()));
    for typed in ["5⏎", "1⏎"] {
        keys(&mut model, typed);
        let lines = model.detail().unwrap();
        let text: String = lines
            .iter()
            .map(|l| format!("{}|{}\n", l.label, l.text))
            .collect();
        assert!(text.contains("wgnat explain ports-exhausted"), "{typed}: {text}");
        assert!(text.contains("Fix|Reuse connections"), "{typed}: {text}");
        assert!(
            lines.iter().any(|l| l.code && l.text.contains("maxSockets")),
            "{typed}: {text}"
        );
        keys(&mut model, "⎋");
    }
}

#[test]
fn it_ends_when_asked_to() {
    for (typed, quits) in [
        ("q", true),
        ("?q", false),
        ("?qq", true),
        ("/q", false),
        ("⏎q", false),
    ] {
        let mut model = model();
        keys(&mut model, typed);
        assert_eq!(model.quit(), quits, "{typed}");
    }
    for typed in ["", "/abc", "⏎", "?"] {
        let mut model = model();
        keys(&mut model, typed);
        model.press(Key::Interrupt);
        assert!(model.quit(), "Ctrl-C always ends it: {typed}");
    }
}

#[test]
fn every_tab_of_every_sample_has_a_cell_for_each_column_and_a_detail_for_each_row() {
    for report in [
        sample::empty(),
        sample::healthy(),
        sample::without_root(),
        sample::hostile_names(),
        sample::ports_exhausted(),
        sample::tunnel_silent(),
    ] {
        let mut model = Model::default();
        model.fit(10);
        model.look(snapshot(report));
        for tab in "123456".chars() {
            keys(&mut model, &tab.to_string());
            let table = model.table().unwrap();
            for row in &table.rows {
                assert_eq!(row.cells.len(), table.columns.len(), "{tab}");
                let lines = detail::of(&row.id, model.shown().unwrap());
                assert!(
                    lines.len() > 1 && lines[0].text != "It is no longer there.",
                    "{row:?}"
                );
            }
        }
    }
}

#[test]
fn keys_before_the_first_look_do_no_harm() {
    let mut model = Model::default();
    keys(&mut model, "↓↑⏎⎋sr/x⏎p123456⇥⇤⇟⇞⌂⇲?⎋");
    assert!(model.table().is_none() && !model.quit());
    model.look(destinations(&[3]));
    assert!(
        model.shown().is_some(),
        "there is nothing to stand still on before"
    );
}

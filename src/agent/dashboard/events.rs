//! What happened, newest first.

use std::fmt::Write as _;

use serde_json::Value;

use super::past::Past;
use super::section;
use crate::output::clean;
use crate::output::html::escape;

pub(super) fn write(past: &Past, out: &mut String) {
    let mut inner = String::new();
    for (index, (at, kind, data)) in past.events.iter().enumerate() {
        // That a source sees all is news only where it did not before.
        let before = past.events.get(index + 1..).unwrap_or_default();
        if is_well(kind, data)
            && !before
                .iter()
                .any(|(_, kind, own)| !is_well(kind, own) && same(own, data))
        {
            continue;
        }
        let Some(words) = sentence(kind, data) else {
            continue;
        };
        let time = at.to_string();
        let _ = writeln!(
            inner,
            "<li><time datetime=\"{0}\">{1} {2}</time> {3}</li>",
            escape(&time),
            time.get(5..10).unwrap_or_default(),
            time.get(11..19).unwrap_or_default(),
            escape(&clean::shorten_keys(&words))
        );
    }
    if inner.is_empty() {
        return;
    }
    let inner =
        format!("<p class=\"note\">Newest first; times are UTC.</p>\n<ul class=\"log\">\n{inner}</ul>\n");
    section("events", "What happened", &inner, out);
}

fn is_well(kind: &str, data: &Value) -> bool {
    kind == "collector" && data.get("state").is_some_and(|state| state == "ok")
}

/// Whether two events are about one source.
fn same(a: &Value, b: &Value) -> bool {
    a.get("collector").is_some() && a.get("collector") == b.get("collector")
}

/// An event as a sentence; `None` for one that tells a person nothing.
fn sentence(kind: &str, data: &Value) -> Option<String> {
    let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
    Some(match kind {
        "finding" => {
            let what = match text("what") {
                "began" => "Began",
                "returned" => "Came back",
                "worsened" => "Grew worse",
                "cleared" => "Over",
                "unseen" => "Cannot be looked for any more",
                other => other,
            };
            format!("{what}: {} ({})", text("title"), text("severity"))
        }
        "collector" => {
            let reason = text("reason");
            let state = match text("state") {
                "ok" => "sees all",
                "degraded" => "sees in part",
                "unavailable" => "sees nothing",
                other => other,
            };
            let because = if reason.is_empty() {
                String::new()
            } else {
                format!(": {reason}")
            };
            format!("Source {} {state}{because}", text("collector"))
        }
        "clock" => format!("Clock: {}", text("text")),
        "config" if data.get("ok") == Some(&Value::Bool(true)) => {
            "The configuration was read anew".to_owned()
        }
        "config" => format!("The configuration was not taken over: {}", text("error")),
        "store" => {
            let because = match text("reason") {
                "" => String::new(),
                reason => format!(": {reason}"),
            };
            match text("state") {
                "file" => format!("History is kept in its file{because}"),
                "memory" => format!("History is kept in memory alone{because}"),
                other => format!("History is {other}{because}"),
            }
        }
        "agent" => format!("The agent is {}", text("what")),
        _ => return None,
    })
}

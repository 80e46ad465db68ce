//! Text in place of the table: the keys, and lines broken to the width.

use ratatui::text::{Line as TextLine, Span as TextSpan};

use super::Look;
use crate::output::clean;
use crate::tui::Tone;
use crate::tui::detail::Line;

/// Where text after a label begins in a detail.
const INDENT: usize = 12;

/// What the keys and the columns mean.
pub fn help() -> Vec<Line> {
    const KEYS: [(&str, &str); 14] = [
        (
            "1 to 6",
            "Destinations, Processes, Conntrack, Peers, Findings, Sources",
        ),
        ("Tab, ← →", "the next tab, the one before"),
        (
            "↑ ↓, j k",
            "move; PgUp, PgDn, Home, End too. The chosen row is followed wherever it goes",
        ),
        (
            "Enter",
            "the row in full, with what is found of it and what to change; Esc goes back",
        ),
        (
            "s",
            "sort by the next column; after the last, by what matters most",
        ),
        ("r", "the other way round"),
        ("/", "only rows that contain a text; Esc shows all again"),
        ("p, Space", "stand still; findings are told all the same"),
        ("q, Ctrl-C", "end"),
        (
            "held",
            "local ports held towards a destination, in any state, and the share of those that there are",
        ),
        (
            "t-wait",
            "of these in TIME_WAIT: closed by this side less than 60 s ago",
        ),
        (
            "opens/s",
            "new connections a second; counted where CAP_BPF and CAP_PERFMON are held, else estimated from looks",
        ),
        (
            "used",
            "files: open descriptors of a process as a share of its limit",
        ),
        (
            "state",
            "exhausted: no port is left; low: few are; rising: full within ten minutes at this pace",
        ),
    ];
    let mut lines = vec![Line {
        label: String::new(),
        text: "wgnat top looks only: it changes nothing and sends nothing.".to_owned(),
        tone: Tone::Strong,
        code: false,
    }];
    lines.extend(KEYS.iter().map(|(key, what)| Line {
        label: (*key).to_owned(),
        text: (*what).to_owned(),
        tone: Tone::Plain,
        code: false,
    }));
    lines
}

/// Breaks lines to the width, with labels at the left where there is room for them.
pub fn wrap(lines: &[Line], width: usize, look: Look) -> Vec<TextLine<'static>> {
    let indent = if width >= 56 { INDENT } else { 2 };
    let mut out = Vec::new();
    for line in lines {
        let (label, text) = (look.shown(&line.label), look.shown(&line.text));
        let style = look.style(line.tone);
        // A heading begins at the margin.
        let head = label.is_empty()
            && matches!(
                line.tone,
                Tone::Strong | Tone::Critical | Tone::Warning | Tone::Info
            );
        let indent = if head { 0 } else { indent };
        let mut first = format!("{label:<indent$}");
        if clean::width(&label) > 0 && clean::width(&label) >= indent {
            out.push(TextLine::styled(label.clone(), look.style(Tone::Dim)));
            first = " ".repeat(indent);
        }
        let extra = if line.code { 2 } else { 0 };
        let room = width.saturating_sub(indent + extra).max(8);
        let pieces = if line.code {
            hard(&text, room)
        } else {
            soft(&text, room)
        };
        for (at, piece) in pieces.into_iter().enumerate() {
            let lead = if at == 0 {
                first.clone()
            } else {
                " ".repeat(indent)
            };
            out.push(TextLine::from(vec![
                look.span(Tone::Dim, &format!("{lead}{}", " ".repeat(extra))),
                TextSpan::styled(piece, style),
            ]));
        }
    }
    out
}

/// Broken between words; a word that is longer than a line is broken itself.
pub fn soft(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        for (at, part) in hard(word, room).into_iter().enumerate() {
            let Some(line) = lines.last_mut() else { break };
            let space = usize::from(!line.is_empty());
            if at == 0 && clean::width(line) + space + clean::width(&part) <= room {
                if space > 0 {
                    line.push(' ');
                }
                line.push_str(&part);
            } else {
                lines.push(part);
            }
        }
    }
    lines
}

/// Broken wherever a line is full.
pub fn hard(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for c in text.chars() {
        let full = lines
            .last()
            .is_some_and(|line| clean::width(line) + clean::width(c.encode_utf8(&mut [0; 4])) > room);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push(c);
        }
    }
    lines
}

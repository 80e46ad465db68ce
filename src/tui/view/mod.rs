//! Draws a [`Model`]: fits what it shows to the screen, however small.
//!
//! 80 columns by 24 rows show everything; with less the columns that tell least are left out, and then the lines around the
//! table. All text has been made harmless where the model was filled. Pure: it draws into a frame's buffer.

mod columns;
mod text;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as TextLine, Span as TextSpan};
use ratatui::widgets::Paragraph;

use self::columns::{columns, heading, row_line};
use self::text::{help, wrap};
use super::model::{Model, Over};
use super::table::{Tab, Table, mark};
use super::{Snapshot, Tone};
use crate::finding::Severity;
use crate::output::{clean, human, unseen};

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Colours; without them bold, dim and reverse remain.
    pub color: bool,
    /// Anything but ASCII.
    pub unicode: bool,
}

impl Look {
    fn style(self, tone: Tone) -> Style {
        let plain = Style::new();
        let colored = |color| if self.color { plain.fg(color) } else { plain };
        match tone {
            Tone::Plain => plain,
            Tone::Strong => plain.add_modifier(Modifier::BOLD),
            Tone::Dim => plain.add_modifier(Modifier::DIM),
            Tone::Critical => colored(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Warning => colored(Color::Yellow).add_modifier(Modifier::BOLD),
            Tone::Info => colored(Color::Blue).add_modifier(Modifier::BOLD),
            Tone::Good => colored(Color::Green),
            Tone::Code => colored(Color::Cyan),
        }
    }

    fn shown(self, text: &str) -> String {
        if self.unicode {
            text.to_owned()
        } else {
            clean::ascii(text).into_owned()
        }
    }

    fn span(self, tone: Tone, text: &str) -> TextSpan<'static> {
        TextSpan::styled(self.shown(text), self.style(tone))
    }
}

/// How many rows each part has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rows {
    summary: u16,
    /// Of the table without its heading.
    table: u16,
    news: u16,
    keys: u16,
}

impl Rows {
    /// Title, tabs and heading are always there.
    fn of(height: u16) -> Self {
        let (summary, news, keys) = match height {
            20.. => (1, 4, 1),
            14.. => (1, 3, 1),
            10.. => (1, 2, 1),
            6.. => (0, 0, 1),
            _ => (0, 0, 0),
        };
        Self {
            summary,
            table: height.saturating_sub(3 + summary + news + keys),
            news,
            keys,
        }
    }
}

/// Draws `model` onto the whole of `frame`.
pub fn draw(frame: &mut Frame<'_>, model: &mut Model, look: Look) {
    let area = frame.area();
    if area.width < 20 || area.height < 4 {
        let text = look.shown("wgnat: too small (q quits)");
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let rows = Rows::of(area.height);
    let mut canvas = Canvas {
        frame,
        look,
        area,
        at: 0,
    };
    let width = usize::from(area.width);
    canvas.line(title(model, look, width));
    canvas.line(tabs(model, look, width));
    match model.over().clone() {
        Over::Detail(..) | Over::Help(_) => {
            let room = area.height.saturating_sub(2 + rows.keys);
            model.fit(usize::from(room));
            overlay(&mut canvas, model, look, room, width);
        }
        Over::Nothing | Over::Filter => {
            model.fit(usize::from(rows.table));
            main(&mut canvas, model, look, rows, width);
        }
    }
    if rows.keys > 0 {
        canvas.at = area.height - 1;
        canvas.line(keys(model, look, width));
    }
}

/// Lines from top to bottom.
struct Canvas<'a, 'b> {
    frame: &'a mut Frame<'b>,
    look: Look,
    area: Rect,
    at: u16,
}

impl Canvas<'_, '_> {
    fn line(&mut self, line: TextLine<'static>) {
        if self.at >= self.area.height {
            return;
        }
        let area = Rect {
            y: self.area.y + self.at,
            height: 1,
            ..self.area
        };
        self.frame.render_widget(Paragraph::new(line), area);
        self.at += 1;
    }

    fn text(&mut self, tone: Tone, text: &str) {
        let text = cut(
            &self.look.shown(text),
            usize::from(self.area.width),
            self.look.unicode,
        );
        let style = self.look.style(tone);
        self.line(TextLine::styled(text, style));
    }
}

/// The start of `text` that fits, with an ellipsis where something is gone.
fn cut(text: &str, columns: usize, unicode: bool) -> String {
    if clean::width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        let mut wider = out.clone();
        wider.push(c);
        if clean::width(&wider) + 1 > columns {
            break;
        }
        out = wider;
    }
    out.push(if unicode { '…' } else { '~' });
    out
}

/// Where we are at the left, how it stands at the right.
fn title(model: &Model, look: Look, width: usize) -> TextLine<'static> {
    let mut right: Vec<(Tone, String)> = Vec::new();
    let mut left = vec!["wgnat top".to_owned()];
    if let Some(snapshot) = model.shown() {
        let report = &snapshot.report;
        if let Some(host) = &report.host {
            left.push(clean::line(&host.hostname));
            left.extend(
                host.netns_name
                    .as_ref()
                    .map(|name| format!("netns {}", clean::line(name))),
            );
        }
        let watched = human::span(crate::time::Span::from_secs(report.duration.as_secs()));
        left.push(format!("watched {}", watched.replace(".0 s", " s")));
        if let Some(host) = &report.host {
            left.push(format!("kernel {}", clean::line(&host.kernel)));
        }
        for severity in [Severity::Critical, Severity::Warning, Severity::Info] {
            let n = report.findings.iter().filter(|f| f.severity == severity).count();
            if n > 0 {
                right.push((Tone::of(severity), format!("{n} {}", severity.name())));
            }
        }
        if right.is_empty() {
            right.push((
                Tone::Good,
                match (snapshot.looking, unseen::gaps(report).is_empty()) {
                    (true, _) => "looking",
                    (false, true) => "ok",
                    (false, false) => "ok as far as seen",
                }
                .to_owned(),
            ));
        }
    } else {
        left.push("looking for the first time".to_owned());
    }
    if model.paused() {
        right.insert(0, (Tone::Strong, "PAUSED".to_owned()));
    }
    let separator = look.shown(" · ");
    let taken: usize = right.iter().map(|(_, text)| clean::width(text) + 2).sum();
    let mut text = String::new();
    for part in left {
        let more = if text.is_empty() {
            part
        } else {
            format!("{separator}{}", look.shown(&part))
        };
        if clean::width(&text) + clean::width(&more) + taken <= width {
            text.push_str(&more);
        }
    }
    let mut spans = vec![look.span(Tone::Strong, &text)];
    let gap = width.saturating_sub(clean::width(&text) + taken);
    spans.push(TextSpan::raw(" ".repeat(gap)));
    for (tone, text) in right {
        spans.push(TextSpan::raw("  "));
        spans.push(look.span(tone, &text));
    }
    TextLine::from(spans)
}

fn tabs(model: &Model, look: Look, width: usize) -> TextLine<'static> {
    let count = |tab: Tab| -> Option<usize> {
        let report = &model.shown()?.report;
        match tab {
            Tab::Findings => Some(report.findings.len()).filter(|n| *n > 0),
            Tab::Sources => Some(unseen::gaps(report).len()).filter(|n| *n > 0),
            _ => None,
        }
    };
    let name = |tab: Tab, short: bool| {
        let at = Tab::ALL.iter().position(|t| *t == tab).unwrap_or(0) + 1;
        if short {
            return format!("{at} {}", tab.short());
        }
        match count(tab) {
            Some(n) => format!("{at} {} ({n})", tab.name()),
            None => format!("{at} {}", tab.name()),
        }
    };
    let long: usize = Tab::ALL.iter().map(|t| name(*t, false).len() + 2).sum();
    let short = long > width + 2;
    let gap = if short { " " } else { "  " };
    let mut spans = Vec::new();
    for tab in Tab::ALL {
        let style = if tab == model.tab() {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            look.style(match (tab, count(tab)) {
                (Tab::Sources, Some(_)) => Tone::Warning,
                _ => Tone::Plain,
            })
        };
        if !spans.is_empty() {
            spans.push(TextSpan::raw(gap));
        }
        spans.push(TextSpan::styled(name(tab, short), style));
    }
    TextLine::from(spans)
}

fn main(canvas: &mut Canvas<'_, '_>, model: &Model, look: Look, rows: Rows, width: usize) {
    let Some(table) = model.table() else {
        canvas.at += rows.summary;
        canvas.text(Tone::Dim, "Waiting for the first look.");
        return;
    };
    if rows.summary > 0 {
        let mut summary = table.summary.clone();
        if !model.filter().is_empty() {
            let filter = format!(
                "only rows with “{}” ({})",
                clean::line(model.filter()),
                table.rows.len()
            );
            summary = if summary.is_empty() {
                filter
            } else {
                format!("{filter} · {summary}")
            };
        }
        canvas.text(Tone::Dim, &summary);
    }
    body(canvas, model, &table, look, rows, width);
    canvas.at = 3 + rows.summary + rows.table;
    if rows.news > 0 {
        news(canvas, model, look, rows.news, width);
    }
}

fn body(canvas: &mut Canvas<'_, '_>, model: &Model, table: &Table, look: Look, rows: Rows, width: usize) {
    let shown = columns(table, model.sort(), width, look);
    let heading = shown.iter().map(|c| {
        let name = heading(&table.columns[c.at], c.at, model.sort());
        (look.shown(&name), Tone::Dim)
    });
    canvas.line(row_line(look, &shown, table, heading, "  ", Style::new()));
    if table.rows.is_empty() {
        canvas.text(
            Tone::Plain,
            &if model.filter().is_empty() {
                format!("  {}", table.empty)
            } else {
                "  No row has this; Esc shows all.".to_owned()
            },
        );
        return;
    }
    let (first, selected) = model.window();
    for (at, row) in table.rows.iter().enumerate().skip(first).take(rows.table.into()) {
        let cells = shown.iter().map(|c| {
            let cell = &row.cells[c.at];
            (look.shown(&cell.text), cell.tone)
        });
        let (gutter, style) = if at == selected {
            ("› ", Style::new().add_modifier(Modifier::REVERSED))
        } else {
            ("  ", Style::new())
        };
        let gutter = if look.unicode {
            gutter
        } else if at == selected {
            "> "
        } else {
            "  "
        };
        canvas.line(row_line(look, &shown, table, cells, gutter, style));
    }
}

/// What was new of findings, beneath a rule; and what is not observed.
fn news(canvas: &mut Canvas<'_, '_>, model: &Model, look: Look, rows: u16, width: usize) {
    let rule = if look.unicode { "─" } else { "-" };
    canvas.text(Tone::Dim, &rule.repeat(width));
    let mut left = usize::from(rows - 1);
    let gaps = model.shown().map(not_observed).unwrap_or_default();
    if !gaps.is_empty() && left > 1 {
        left -= 1;
    }
    let mut any = false;
    for item in model.news().items().take(left) {
        any = true;
        let at = clock(item.at);
        let (tone, word) = match item.severity {
            Some(severity) => (Tone::of(severity), mark(severity)),
            None => (Tone::Good, "✓"),
        };
        let title = match item.severity {
            Some(_) => item.title.clone(),
            None => format!("gone: {}", item.title),
        };
        let used = clean::width(&at) + 4;
        canvas.line(TextLine::from(vec![
            look.span(Tone::Dim, &format!("{at} ")),
            look.span(tone, word),
            TextSpan::raw(" "),
            TextSpan::raw(cut(&look.shown(&title), width.saturating_sub(used), look.unicode)),
        ]));
    }
    if !any {
        canvas.text(Tone::Dim, "No finding so far.");
    }
    if !gaps.is_empty() {
        canvas.at = 3 + Rows::of(canvas.area.height).summary + Rows::of(canvas.area.height).table + rows - 1;
        if any || rows > 2 {
            canvas.text(Tone::Warning, &gaps);
        }
    }
}

/// `10:00:05`, UTC.
fn clock(at: crate::time::Timestamp) -> String {
    at.to_string().get(11..19).unwrap_or_default().to_owned()
}

fn not_observed(snapshot: &Snapshot) -> String {
    let gaps = unseen::gaps(&snapshot.report);
    let mut names: Vec<&str> = Vec::new();
    for name in gaps.iter().filter(|g| !g.partly).flat_map(|g| &g.sources) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    match (names.as_slice(), gaps.first()) {
        ([], Some(gap)) => format!("Seen in part (6 says why): {}", gap.sources.join(", ")),
        ([], None) => String::new(),
        (names, _) => format!("Not observed (6 says why): {}", names.join(", ")),
    }
}

fn keys(model: &Model, look: Look, width: usize) -> TextLine<'static> {
    if *model.over() == Over::Filter {
        return TextLine::from(vec![
            look.span(Tone::Strong, "Only rows with: "),
            TextSpan::raw(clean::line(model.filter())),
            TextSpan::styled(" ", Style::new().add_modifier(Modifier::REVERSED)),
            look.span(Tone::Dim, "  Enter keeps it, Esc shows all"),
        ]);
    }
    let keys: &[(&str, &str)] = match model.over() {
        Over::Detail(..) | Over::Help(_) => &[
            ("↑↓", "scroll"),
            ("Esc", "back"),
            ("p", "pause"),
            ("Ctrl-C", "quit"),
        ],
        Over::Nothing | Over::Filter => &[
            ("q", "quit"),
            ("?", "help"),
            ("↑↓", "move"),
            ("Enter", "detail"),
            ("1-6", "tab"),
            ("s", "sort"),
            ("/", "filter"),
            ("p", "pause"),
        ],
    };
    let mut spans = Vec::new();
    let mut used = 0;
    for (key, what) in keys {
        let (key, what) = (if look.unicode { *key } else { key_in_ascii(key) }, *what);
        let columns = clean::width(key) + 1 + what.len() + 2;
        if used + columns > width + 2 {
            break;
        }
        used += columns;
        spans.push(look.span(Tone::Strong, key));
        spans.push(look.span(Tone::Dim, &format!(" {what}  ")));
    }
    TextLine::from(spans)
}

fn key_in_ascii(key: &'static str) -> &'static str {
    if key == "↑↓" { "Up/Down" } else { key }
}

/// A text in place of the table.
fn overlay(canvas: &mut Canvas<'_, '_>, model: &mut Model, look: Look, room: u16, width: usize) {
    let lines = match model.detail() {
        Some(lines) => lines,
        None => help(),
    };
    let wrapped = wrap(&lines, width, look);
    model.long(wrapped.len());
    let (Over::Detail(_, first) | Over::Help(first)) = model.over() else {
        return;
    };
    let first = *first;
    for line in wrapped.into_iter().skip(first).take(room.into()) {
        canvas.line(line);
    }
}

#[cfg(test)]
mod tests;

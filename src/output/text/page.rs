//! Lines of styled text that fit a width.
//!
//! In: words with a [`Role`]. Out: lines, coloured or not. All text passes through here, so this is where what came
//! from outside is made harmless, where ASCII stands in for Unicode, and where lines are broken. Pure.

use std::io::{self, Write};

use anstyle::{AnsiColor, Effects, Style};

use crate::output::Options;
use crate::output::clean;

/// What a piece of text is; it decides the colour. Whatever must be read keeps the terminal's own colour, so that
/// it is legible on dark and on light.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Prose.
    #[default]
    Plain,
    /// A heading.
    Strong,
    /// Labels and what is secondary.
    Dim,
    /// Something is critical.
    Critical,
    /// Something is a warning.
    Warning,
    /// Worth knowing.
    Info,
    /// All is well.
    Good,
    /// Something to paste.
    Code,
}

impl Role {
    fn style(self) -> Style {
        let colored = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
        match self {
            Self::Plain => Style::new(),
            Self::Strong => Style::new().effects(Effects::BOLD),
            Self::Dim => Style::new().effects(Effects::DIMMED),
            Self::Critical => colored(AnsiColor::Red).effects(Effects::BOLD),
            Self::Warning => colored(AnsiColor::Yellow).effects(Effects::BOLD),
            Self::Info => colored(AnsiColor::Blue).effects(Effects::BOLD),
            Self::Good => colored(AnsiColor::Green),
            Self::Code => colored(AnsiColor::Cyan),
        }
    }
}

/// Text of one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    role: Role,
    text: String,
    whole: bool,
}

impl Piece {
    /// The same after `prefix`.
    pub fn after(&self, prefix: &str) -> Self {
        Self {
            text: format!("{prefix}{}", self.text),
            ..self.clone()
        }
    }
}

/// A piece of `text`.
pub fn piece(role: Role, text: impl Into<String>) -> Piece {
    Piece {
        role,
        text: text.into(),
        whole: false,
    }
}

/// A piece of `text` that stays in one line where it fits one.
pub fn whole(role: Role, text: impl Into<String>) -> Piece {
    Piece {
        whole: true,
        ..piece(role, text)
    }
}

/// Lines in the making.
#[derive(Debug)]
pub struct Page {
    options: Options,
    lines: Vec<Vec<Piece>>,
}

impl Page {
    /// An empty page.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            lines: Vec::new(),
        }
    }

    /// Columns of a line.
    pub fn width(&self) -> usize {
        self.options.width
    }

    /// Whether anything but ASCII can be shown.
    pub fn unicode(&self) -> bool {
        self.options.unicode
    }

    /// `text` as it will be shown: one harmless line.
    pub fn shown(&self, text: &str) -> String {
        let text = clean::line(text);
        if self.options.unicode {
            text
        } else {
            clean::ascii(&text).into_owned()
        }
    }

    /// An empty line, unless the page is empty or ends in one.
    pub fn gap(&mut self) {
        if self.lines.last().is_some_and(|line| !line.is_empty()) {
            self.lines.push(Vec::new());
        }
    }

    /// One line as it is laid out; what does not fit is cut, with an ellipsis. Spaces are kept.
    pub fn row(&mut self, pieces: Vec<Piece>) {
        let mut left = self.width();
        let mut line = Vec::with_capacity(pieces.len());
        for p in pieces {
            let text = self.laid_out(&p.text);
            let columns = clean::width(&text);
            if columns <= left {
                left -= columns;
                line.push(piece(p.role, text));
                continue;
            }
            let cut = self.cut_end(&text, left);
            line.push(piece(p.role, cut));
            break;
        }
        self.lines.push(line);
    }

    /// `text` harmless, with its spaces.
    fn laid_out(&self, text: &str) -> String {
        let text: String = text
            .chars()
            .map(|c| {
                if clean::is_unsafe(c) {
                    clean::REPLACEMENT
                } else {
                    c
                }
            })
            .collect();
        if self.options.unicode {
            text
        } else {
            clean::ascii(&text).into_owned()
        }
    }

    fn cut_end(&self, text: &str, columns: usize) -> String {
        let ellipsis = if self.options.unicode { "…" } else { "..." };
        let Some(room) = columns.checked_sub(clean::width(ellipsis)) else {
            return String::new();
        };
        let (head, _) = split_at_columns(text, room);
        format!("{head}{ellipsis}")
    }

    /// A paragraph: `label` in the first line, every line's text from column `indent` on, broken between words. Text in
    /// backquotes holds together where it fits a line. Words longer than a line are broken.
    pub fn paragraph(&mut self, label: Piece, indent: usize, text: &[Piece]) {
        let room = self.width().saturating_sub(indent).max(1);
        let label_text = self.laid_out(&label.text);
        let label_columns = clean::width(&label_text);
        let pad = |n: usize| piece(Role::Plain, " ".repeat(n));
        let mut line = if label_columns < indent || label_columns == 0 {
            vec![piece(label.role, label_text), pad(indent - label_columns)]
        } else {
            self.row(vec![piece(label.role, label_text)]);
            vec![pad(indent)]
        };
        let mut used = 0;
        let words: Vec<Piece> = text.iter().flat_map(|p| self.words(p, room)).collect();
        for word in words {
            let mut rest = word.text.as_str();
            loop {
                let columns = clean::width(rest);
                let space = usize::from(used > 0);
                if used + space + columns <= room {
                    if space == 1 {
                        line.push(pad(1));
                    }
                    line.push(piece(word.role, rest));
                    used += space + columns;
                    break;
                }
                if used > 0 {
                    self.lines.push(std::mem::replace(&mut line, vec![pad(indent)]));
                    used = 0;
                    continue;
                }
                // Longer than a whole line.
                let (head, tail) = split_at_columns(rest, room);
                if head.is_empty() {
                    break;
                }
                line.push(piece(word.role, head));
                self.lines.push(std::mem::replace(&mut line, vec![pad(indent)]));
                rest = tail;
            }
        }
        if used > 0 {
            self.lines.push(line);
        }
    }

    /// The words of `p`, harmless; what stands in backquotes is one word where it fits `room`, and so is a whole piece.
    fn words(&self, p: &Piece, room: usize) -> Vec<Piece> {
        let text = self.shown(&p.text);
        if p.whole && clean::width(&text) <= room {
            return if text.is_empty() {
                Vec::new()
            } else {
                vec![piece(p.role, text)]
            };
        }
        let mut words: Vec<String> = Vec::new();
        let mut open = false;
        for word in text.split(' ').filter(|w| !w.is_empty()) {
            let quotes = word.matches('`').count();
            match words.last_mut() {
                Some(last) if open && clean::width(last) + 1 + clean::width(word) <= room => {
                    last.push(' ');
                    last.push_str(word);
                }
                _ => words.push(word.to_owned()),
            }
            open ^= quotes % 2 == 1;
        }
        words.into_iter().map(|text| piece(p.role, text)).collect()
    }

    /// Lines to paste, never broken or cut, each after `indent` spaces.
    pub fn code(&mut self, indent: usize, text: &str) {
        for line in clean::block(text) {
            self.lines.push(vec![
                piece(Role::Plain, " ".repeat(indent)),
                piece(Role::Code, line),
            ]);
        }
    }

    /// Writes all lines.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in &self.lines {
            let mut text = String::new();
            let last = line.iter().rposition(|p| !p.text.trim_end().is_empty());
            for (i, p) in line.iter().take(last.map_or(0, |l| l + 1)).enumerate() {
                let shown = if Some(i) == last {
                    p.text.trim_end()
                } else {
                    p.text.as_str()
                };
                let style = p.role.style();
                if self.options.color && p.role != Role::Plain && !shown.trim().is_empty() {
                    text.push_str(&format!("{style}{shown}{style:#}"));
                } else {
                    text.push_str(shown);
                }
            }
            writeln!(out, "{text}")?;
        }
        Ok(())
    }
}

/// `text` cut where its start fills `columns`.
pub fn split_at_columns(text: &str, columns: usize) -> (&str, &str) {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += clean::width(c.encode_utf8(&mut [0; 4]));
        if used > columns {
            return text.split_at(at);
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(width: usize) -> Page {
        Page::new(Options {
            width,
            ..Options::default()
        })
    }

    fn written(page: &Page) -> String {
        let mut out = Vec::new();
        page.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn words_are_kept_whole_and_quotes_together() {
        let mut p = page(20);
        p.paragraph(
            piece(Role::Dim, "  Fix"),
            6,
            &[piece(Role::Plain, "run `wg show wg0` on both sides now")],
        );
        assert_eq!(
            written(&p),
            "  Fix run\n      `wg show wg0`\n      on both sides\n      now\n"
        );
    }

    #[test]
    fn a_long_word_is_broken_and_a_long_row_cut() {
        let mut p = page(10);
        p.paragraph(
            piece(Role::Plain, ""),
            2,
            &[piece(Role::Plain, "a bcdefghijklmnop")],
        );
        p.row(vec![piece(Role::Plain, "0123456789abc")]);
        assert_eq!(written(&p), "  a\n  bcdefghi\n  jklmnop\n012345678…\n");
    }

    #[test]
    fn code_is_never_broken() {
        let mut p = page(10);
        p.code(4, "a very long command indeed\n\tand its second line");
        assert_eq!(
            written(&p),
            "    a very long command indeed\n        and its second line\n"
        );
    }

    #[test]
    fn colour_only_when_asked_and_escapes_never_pass() {
        let mut p = Page::new(Options {
            color: true,
            ..Options::default()
        });
        p.row(vec![
            piece(Role::Critical, "bad \u{1b}[0m"),
            piece(Role::Plain, " end"),
        ]);
        assert_eq!(written(&p), "\u{1b}[1m\u{1b}[31mbad \u{FFFD}[0m\u{1b}[0m end\n");
    }

    #[test]
    fn an_empty_label_and_text_write_nothing() {
        let mut p = page(20);
        p.paragraph(piece(Role::Plain, ""), 2, &[piece(Role::Plain, "  ")]);
        assert_eq!(written(&p), "");
    }
}

//! The little Markdown of the catalogue's texts at a terminal: paragraphs, lists, code.
//!
//! In: text as rules have it. Out: paragraphs on a [`Page`]. Pure.

use super::page::{Page, Role, piece};

/// Writes `text`, indented by `indent`.
pub fn write(page: &mut Page, indent: usize, text: &str) {
    let mut open = Open::default();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            open.close(page, indent);
            fenced = !fenced;
            continue;
        }
        if fenced || (open.is_empty() && line.starts_with("    ")) {
            let code = if fenced { line } else { line.trim_start() };
            page.code(indent + 2, code);
            open.gap = false;
            continue;
        }
        let line = line.trim();
        if line.is_empty() {
            let wrote = open.close(page, indent);
            open.gap = open.gap || wrote;
            continue;
        }
        if let Some((marker, rest)) = item(line) {
            // Items of one list stand close.
            let between = open.in_list;
            open.close(page, indent);
            if between {
                open.gap = false;
            }
            open.in_list = true;
            open.marker = marker.to_owned();
            open.text = rest.to_owned();
        } else {
            if open.is_empty() {
                open.in_list = false;
            }
            open.text.push(' ');
            open.text.push_str(line);
        }
    }
    open.close(page, indent);
}

/// A paragraph or list item in the making.
#[derive(Default)]
struct Open {
    marker: String,
    text: String,
    gap: bool,
    in_list: bool,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.text.trim().is_empty() && self.marker.is_empty()
    }

    /// Writes it, if there is something, after the gap that is due.
    fn close(&mut self, page: &mut Page, indent: usize) -> bool {
        if self.is_empty() {
            return false;
        }
        if std::mem::take(&mut self.gap) {
            page.gap();
        }
        let text = self.text.replace("**", "");
        if self.marker.is_empty() {
            page.paragraph(piece(Role::Plain, ""), indent, &[piece(Role::Plain, text)]);
        } else {
            let label = format!("{}{}", " ".repeat(indent), self.marker);
            page.paragraph(
                piece(Role::Dim, label),
                indent + self.marker.chars().count() + 1,
                &[piece(Role::Plain, text)],
            );
        }
        self.marker.clear();
        self.text.clear();
        true
    }
}

/// The marker of a list item, and its text.
fn item(line: &str) -> Option<(&str, &str)> {
    let (marker, rest) = line.split_once(' ')?;
    let numbered = marker
        .strip_suffix('.')
        .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    (numbered || matches!(marker, "-" | "*")).then_some((marker, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Options;

    #[test]
    fn paragraphs_lists_and_code() {
        let mut page = Page::new(Options {
            width: 24,
            ..Options::default()
        });
        write(
            &mut page,
            2,
            "One **paragraph** of a few words.\n\n- an item that is long\n- another\n\n1. first\n\nThen:\n\n\
             ```sh\nwg show   all\n```\nand    on.",
        );
        let mut out = Vec::new();
        page.write(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "  One paragraph of a few\n  words.\n\n  - an item that is long\n  - another\n  1. first\n\n  Then:\n    \
             wg show   all\n  and on.\n"
        );
    }
}

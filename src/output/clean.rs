//! Makes text from outside harmless: process names, host names and file names may hold escape sequences that
//! would drive a terminal, or direction marks that would make a line read as something else.
//!
//! In: any text. Out: text of visible characters. Pure.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar;

/// What stands where something was neutralised.
pub const REPLACEMENT: char = '\u{FFFD}';

/// Whether `c` would act on the terminal, or change how its neighbours are shown, instead of being shown: controls
/// (C0, DEL, C1), format characters (general category Cf: bidirectional marks, joiners, tags, soft hyphen), line
/// and paragraph separators, and variation selectors (which change the width of what they follow).
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{34F}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}' | '\u{890}'..='\u{891}'
            | '\u{8E2}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{110BD}' | '\u{110CD}' | '\u{13430}'..='\u{1343F}' | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// One line of prose: every run of white space is one space, everything unsafe is [`REPLACEMENT`].
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().map(|c| if is_unsafe(c) { REPLACEMENT } else { c }));
    }
    out
}

/// Lines to paste: kept as they are, but tabs are four spaces and everything unsafe is [`REPLACEMENT`].
/// No trailing white space, no empty lines at either end.
pub fn block(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let mut out = String::with_capacity(line.len());
            for c in line.trim_end().chars() {
                match c {
                    '\t' => out.push_str("    "),
                    c if is_unsafe(c) => out.push(REPLACEMENT),
                    c => out.push(c),
                }
            }
            out
        })
        .skip_while(String::is_empty)
        .collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Shortens base64 of 32 bytes (44 characters, as WireGuard writes keys) to six characters and an ellipsis: in
/// prose a whole key hides the sentence.
pub fn shorten_keys(text: &str) -> Cow<'_, str> {
    let key_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    if !text
        .split(|c| !key_char(c))
        .any(|token| token.parse::<crate::types::PublicKey>().is_ok())
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !key_char(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        match token.parse::<crate::types::PublicKey>() {
            Ok(key) => out.push_str(&key.short()),
            Err(_) => out.push_str(token),
        }
        let next = after.find(key_char).unwrap_or(after.len());
        let (between, after) = after.split_at(next);
        out.push_str(between);
        rest = after;
    }
    Cow::Owned(out)
}

/// ASCII for a terminal that shows nothing else.
pub fn ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_ascii() => out.push(c),
            '…' => out.push_str("..."),
            '→' => out.push_str("->"),
            '←' => out.push_str("<-"),
            '≥' => out.push_str(">="),
            '≤' => out.push_str("<="),
            '×' => out.push('x'),
            '·' | '–' | '—' | '−' | '‑' => out.push('-'),
            '‘' | '’' => out.push('\''),
            '“' | '”' => out.push('"'),
            '±' => out.push_str("+/-"),
            'µ' | 'μ' => out.push('u'),
            'λ' => out.push_str("lambda"),
            '\u{A0}' | '\u{202F}' => out.push(' '),
            '≈' => out.push('~'),
            '✓' => out.push_str("ok"),
            '✗' => out.push('x'),
            _ => out.push('?'),
        }
    }
    Cow::Owned(out)
}

/// Columns that `text` takes: the sum over its characters, which is what terminals count.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Cuts `text` to at most `columns`, taking from the middle, where names and addresses tell least; an ellipsis
/// stands for what is gone.
pub fn elide(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    if columns == 0 {
        return Cow::Borrowed("");
    }
    let tail_columns = (columns - 1) / 2;
    let head_columns = columns - 1 - tail_columns;
    let head = fitting(text.chars(), head_columns);
    let tail: String = fitting(text.chars().rev(), tail_columns).chars().rev().collect();
    Cow::Owned(format!("{head}…{tail}"))
}

/// The longest start of `chars` that fits `columns`.
fn fitting(chars: impl Iterator<Item = char>, columns: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_become_visible() {
        assert_eq!(
            line("a\u{1b}[31mb\u{9b}2Jc\u{7}"),
            "a\u{FFFD}[31mb\u{FFFD}2Jc\u{FFFD}"
        );
        assert_eq!(line("user\u{202e}gpj.exe\u{200b}"), "user\u{FFFD}gpj.exe\u{FFFD}");
        assert_eq!(line("  two\n words\t "), "two words");
        assert_eq!(
            block("\n\tfoo \u{1b}]0;x\u{7}\r\n  bar\n\n"),
            vec!["    foo \u{FFFD}]0;x\u{FFFD}", "  bar"]
        );
    }

    #[test]
    fn keys_in_prose_are_shortened() {
        let key = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
        assert_eq!(
            shorten_keys(&format!("peer {key}, allowed-ips a/b")),
            "peer HIgo9x…, allowed-ips a/b"
        );
        assert!(matches!(shorten_keys("10.0.0.0/8 of wg0"), Cow::Borrowed(_)));
        assert_eq!(shorten_keys(key), "HIgo9x…");
    }

    #[test]
    fn cut_in_the_middle() {
        for (text, columns, expected) in [
            ("short", 5, "short"),
            ("abcdefghij", 5, "ab…ij"),
            ("abcdefghij", 1, "…"),
            ("abcdefghij", 0, ""),
            ("漢字漢字漢字", 6, "漢…字"),
        ] {
            let cut = elide(text, columns);
            assert_eq!(cut, expected);
            assert!(width(&cut) <= columns.max(width(text).min(columns)));
        }
    }

    #[test]
    fn ascii_says_the_same() {
        assert_eq!(ascii("≥ 70 % · a → b…"), ">= 70 % - a -> b...");
        assert_eq!(ascii("漢"), "?");
    }
}

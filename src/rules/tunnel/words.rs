//! Words and commands that several rules of this area share. Pure text.

use crate::time::Span;

pub use crate::rules::shell::{here, quote};

/// A length of time as people say it: two units at most.
pub fn time(span: Span) -> String {
    let secs = span.as_secs();
    let two = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {unit}"),
        _ => format!("{big} {unit} {small} {small_unit}"),
    };
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7_199 => two(secs / 60, "min", secs % 60, "s"),
        7_200..=172_799 => two(secs / 3_600, "h", secs % 3_600 / 60, "min"),
        _ => two(secs / 86_400, "days", secs % 86_400 / 3_600, "h"),
    }
}

/// `1 attempt`, `3 attempts`.
pub fn count(n: u64, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (secs, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (185, "3 min 5 s"),
            (7_260, "2 h 1 min"),
            (200_000, "2 days 7 h"),
        ] {
            assert_eq!(time(Span::from_secs(secs)), text);
        }
    }
}

//! Times as fly.toml has them: Go's notation (`1m30s`, `250ms`), or a bare number of milliseconds.

use crate::time::Span;

/// No check of Fly's waits longer than a day; what is longer is a slip of the pen.
const LONGEST: f64 = 86_400.0;

/// Milliseconds.
pub fn milliseconds(number: i64) -> Option<Span> {
    let millis = u64::try_from(number).ok()?;
    Some(Span::from_millis(millis)).filter(|span| span.as_secs_f64() <= LONGEST)
}

/// Text.
pub fn text(text: &str) -> Option<Span> {
    let text = text.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return milliseconds(text.parse().ok()?);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|at| *at > 0)?;
        let (digits, unit) = rest.split_at_checked(number)?;
        let end = unit
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(unit.len());
        let (unit, after) = unit.split_at_checked(end)?;
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += digits.parse::<f64>().ok()? * scale;
        rest = after;
    }
    // A sum of decimal fractions is not exact, and times are compared.
    let seconds = (seconds * 1e9).round() / 1e9;
    (seconds.is_finite() && seconds <= LONGEST)
        .then(|| Span::try_from_secs_f64(seconds).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_go_writes_them() {
        for (written, millis) in [
            ("10s", 10_000),
            ("1m21s", 81_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("1s500ms", 1500),
            ("2000", 2000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(text(written), Some(Span::from_millis(millis)), "{written}");
        }
        for written in [
            "-5s", "5 s", "s", "5parsecs", "5s!", "1..5s", ".", "99999h", "1e3s", "5s3",
        ] {
            assert_eq!(text(written), None, "{written}");
        }
        assert_eq!(milliseconds(-1), None);
        assert_eq!(milliseconds(i64::MAX), None);
    }
}

//! Durations as people write them: `5s`, `250ms`, `2m`, `1h30m`, `7d`, `2w`, or a number of seconds.

use crate::time::Span;

/// The longest that any option takes: a month. Beyond it is a slip of the pen.
const LONGEST: Span = Span::from_secs(31 * 24 * 3600);

/// Parses a duration.
pub fn parse(text: &str) -> Result<Span, String> {
    let wrong =
        || format!("expected a duration such as 5s, 250ms, 2m, 7d or a number of seconds, got {text:?}");
    let span = match text.trim().parse::<f64>() {
        Ok(seconds) => Span::try_from_secs_f64(seconds).map_err(|_| wrong())?,
        Err(_) => {
            let (days, rest) = days(text.trim());
            let rest = match (days, rest) {
                (Some(_), "") => Span::ZERO,
                _ => {
                    let signed: jiff::SignedDuration = rest.parse().map_err(|_| wrong())?;
                    Span::try_from(signed).map_err(|_| wrong())?
                }
            };
            let days = Span::try_from_secs_f64(days.unwrap_or(0.0) * 86_400.0).map_err(|_| wrong())?;
            days.checked_add(rest).ok_or_else(wrong)?
        }
    };
    if span > LONGEST {
        Err(format!("{text:?} is longer than 31 days"))
    } else {
        Ok(span)
    }
}

/// The weeks and days that `text` begins with, as days, and what follows. Here each has 24 hours: a stretch of time, no date.
fn days(mut text: &str) -> (Option<f64>, &str) {
    let mut days = None;
    for (unit, each) in [('w', 7.0), ('d', 1.0)] {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(0);
        let (number, rest) = text.split_at(end);
        if let (Ok(number), Some(rest)) = (number.parse::<f64>(), rest.strip_prefix(unit)) {
            days = Some(days.unwrap_or(0.0) + number * each);
            text = rest;
        }
    }
    (days, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("5s", 5000),
            ("250ms", 250),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("0", 0),
            ("1.5", 1500),
            ("7d", 7 * 86_400_000),
            ("1.5d", 129_600_000),
            ("2w1d", 15 * 86_400_000),
            ("1d12h30m", 131_400_000),
            (" 1d ", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Span::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "-5s",
            "-1",
            "nan",
            "inf",
            "5 parsecs",
            "1e300",
            "99999h",
            "d",
            "-1d",
            "1d-1h",
            "99w",
            "1dd",
            "1d1w",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

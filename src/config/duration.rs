//! Durations as people write them: `5s`, `250ms`, `2m`, `1h30m`, or a number of seconds.

use crate::time::Span;

/// The longest that any option takes: a month. Beyond it is a slip of the pen.
const LONGEST: Span = Span::from_secs(31 * 24 * 3600);

/// Parses a duration.
pub fn parse(text: &str) -> Result<Span, String> {
    let wrong = || format!("expected a duration such as 5s, 250ms, 2m or a number of seconds, got {text:?}");
    let span = match text.trim().parse::<f64>() {
        Ok(seconds) => Span::try_from_secs_f64(seconds).map_err(|_| wrong())?,
        Err(_) => {
            let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
            Span::try_from(signed).map_err(|_| wrong())?
        }
    };
    if span > LONGEST {
        Err(format!("{text:?} is longer than 31 days"))
    } else {
        Ok(span)
    }
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
        ] {
            assert_eq!(parse(text), Ok(Span::from_millis(millis)), "{text}");
        }
        for text in ["", "-5s", "-1", "nan", "inf", "5 parsecs", "1e300", "99999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

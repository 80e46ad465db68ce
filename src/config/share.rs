//! A share of a processor core as people write it: `1%`, `0.5 %`, or a number of per cent.

/// Parses a share of a core: above 0 and up to 100 per cent.
pub fn parse(text: &str) -> Result<f64, String> {
    let wrong =
        || format!("expected a share of a core above 0 % and up to 100 %, such as 1% or 0.5, got {text:?}");
    let number = text.trim().trim_end_matches('%').trim_end();
    let percent: f64 = number.parse().map_err(|_| wrong())?;
    if percent > 0.0 && percent <= 100.0 {
        Ok(percent / 100.0)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        for (text, share) in [("1%", 0.01), ("1", 0.01), ("0.5 %", 0.005), ("100%", 1.0)] {
            assert_eq!(parse(text), Ok(share), "{text}");
        }
        for text in ["", "%", "0", "-1%", "101%", "nan", "inf", "one"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("share of a core"), "{error}");
        }
    }
}

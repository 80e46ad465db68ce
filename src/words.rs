//! Numbers in the sentences of findings.
//!
//! In: numbers. Out: short English. Pure.

use serde_json::Value;

/// `28231` → `28,231`.
pub fn count(n: impl Into<u64>) -> String {
    let digits = n.into().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 port`, `2 ports`.
pub fn counted(n: impl Into<u64>, one: &str, many: &str) -> String {
    let n = n.into();
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A share as a percentage, rounded down, so that only what is full reads 100 %.
pub fn percent(share: f64) -> String {
    if !share.is_finite() || share < 0.0 {
        return "? %".to_owned();
    }
    if share > 0.0 && share < 0.01 {
        return "under 1 %".to_owned();
    }
    // The tiny addition undoes what binary fractions lose: 0.29 × 100 is 28.999….
    format!("{} %", count(whole((share * 100.0 + 1e-9).floor())))
}

/// A rate or a mean: `610`, `4.2`.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    if value.abs() >= 9.95 {
        return count(whole(value.round()));
    }
    let text = format!("{value:.1}");
    text.strip_suffix(".0")
        .map_or_else(|| text.clone(), ToOwned::to_owned)
}

/// Seconds as people say them: `40 ms`, `12 s`, `4 min`, `3 h`, `5 days`.
pub fn seconds(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "an unknown time".to_owned();
    }
    if value < 0.001 {
        "under 1 ms".to_owned()
    } else if value < 0.9995 {
        format!("{} ms", whole((value * 1000.0).round()))
    } else if value < 119.5 {
        format!("{} s", number(value))
    } else if value < 7170.0 {
        format!("{} min", number((value / 60.0).round()))
    } else if value < 172_800.0 {
        format!("{} h", number((value / 3600.0).round()))
    } else {
        format!("{} days", number((value / 86400.0).round()))
    }
}

/// A number for evidence with at most three decimals, so that reports do not print noise.
pub fn rounded(value: f64) -> Value {
    Value::from((value * 1000.0).round() / 1000.0)
}

/// A non-negative float as an integer; saturates, and what is not a number is zero.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates, which is what is wanted
pub fn whole(value: f64) -> u64 {
    value as u64
}

/// As [`whole`], within 32 bits.
pub fn whole32(value: f64) -> u32 {
    u32::try_from(whole(value)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_sentences() {
        for (n, expected) in [(0_u64, "0"), (999, "999"), (1000, "1,000"), (28_231, "28,231")] {
            assert_eq!(count(n), expected);
        }
        assert_eq!(counted(1_u32, "port", "ports"), "1 port");
        for (share, expected) in [
            (0.0, "0 %"),
            (0.001, "under 1 %"),
            (0.29, "29 %"),
            (0.9999, "99 %"),
            (1.0, "100 %"),
            (f64::NAN, "? %"),
        ] {
            assert_eq!(percent(share), expected);
        }
        for (value, expected) in [
            (4.24, "4.2"),
            (5.0, "5"),
            (610.4, "610"),
            (9.97, "10"),
            (12_345.0, "12,345"),
        ] {
            assert_eq!(number(value), expected);
        }
        for (value, expected) in [
            (0.0001, "under 1 ms"),
            (0.02, "20 ms"),
            (1.0, "1 s"),
            (46.3, "46 s"),
            (240.0, "4 min"),
            (10_800.0, "3 h"),
            (432_000.0, "5 days"),
            (-1.0, "an unknown time"),
        ] {
            assert_eq!(seconds(value), expected);
        }
        assert_eq!(rounded(0.123_456), Value::from(0.123));
        assert_eq!(whole32(1e30), u32::MAX);
        assert_eq!(whole(f64::NAN), 0);
    }
}

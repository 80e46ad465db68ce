//! Numbers as people read them.
//!
//! In: numbers with their unit. Out: short text. Pure.

use crate::report::Report;
use crate::time::{Span, Timestamp};

pub use crate::words::{count, counted};

/// Bytes: `532 B`, `1.2 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    #[allow(clippy::cast_precision_loss)] // two digits are shown
    let mut value = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 99.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// Bytes where room is short: `532`, `1.2M`.
pub fn bytes_short(n: u64) -> String {
    let text = bytes(n);
    match text.split_once(' ') {
        Some((number, "B")) => number.to_owned(),
        Some((number, unit)) => format!("{number}{}", unit.get(..1).unwrap_or(unit)),
        None => text,
    }
}

/// A length of time in its telling unit: `23 ms`, `31 s`, `4 min 10 s`, `3 h 5 min`, `12 days`.
pub fn span(span: Span) -> String {
    let secs = span.as_secs();
    match secs {
        0 if span.is_zero() => "0 s".to_owned(),
        0 if span.as_micros() < 1000 => format!("{} µs", span.as_micros().max(1)),
        0 => format!("{} ms", span.as_millis()),
        1..10 => format!("{:.1} s", span.as_secs_f64()),
        10..60 => format!("{secs} s"),
        60..3600 => two(secs, 60, "min", 1, "s"),
        3600..172_800 => two(secs, 3600, "h", 60, "min"),
        _ => format!("{} days", count(secs / 86_400)),
    }
}

/// `secs` in a unit of `big` seconds, and the rest in one of `small`.
fn two(secs: u64, big: u64, big_name: &str, small: u64, small_name: &str) -> String {
    match secs % big / small {
        0 => format!("{} {big_name}", secs / big),
        rest => format!("{} {big_name} {rest} {small_name}", secs / big),
    }
}

/// Seconds with a fraction as [`span`] tells them; what is no length of time is told as a number.
pub fn seconds(value: f64) -> String {
    match Span::try_from_secs_f64(value) {
        Ok(s) => span(s),
        Err(_) => format!("{} s", float(value)),
    }
}

/// How long before `now` something was: `31 s ago`.
pub fn ago(now: Timestamp, at: Timestamp) -> String {
    let passed = now.since(at);
    if passed < Span::from_secs(1) {
        "now".to_owned()
    } else {
        format!("{} ago", span(Span::from_secs(passed.as_secs()))).replace(".0 s", " s")
    }
}

/// A moment to the minute, in UTC: `02:00 UTC` where it is less than a day before `now`, else with its date.
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    // RFC 3339 in UTC: `2026-11-27T02:00:05Z`.
    let text = at.millis().to_string();
    let (date, time) = text.split_once('T').unwrap_or(("", &text));
    let time = time.get(..5).unwrap_or(time);
    if now - at < Span::from_secs(86_400) && at <= now {
        format!("{time} UTC")
    } else {
        format!("{date} {time} UTC")
    }
}

/// The time that `report` is about, for a heading.
pub fn stretch(report: &Report) -> String {
    match &report.period {
        Some(period) => format!(
            "the last {} until {}",
            span(Span::from_secs((period.to - period.from).as_secs())),
            period.to.millis()
        ),
        None => format!(
            "watched {:.1} s until {}",
            report.duration.as_secs_f64(),
            report.generated_at.millis()
        ),
    }
}

/// As [`ago`] in its largest unit alone, for tables: `20 min ago`.
pub fn ago_short(now: Timestamp, at: Timestamp) -> String {
    let text = ago(now, at);
    match text.split(' ').collect::<Vec<_>>().as_slice() {
        [number, unit, _, _, "ago"] => format!("{number} {unit} ago"),
        _ => text,
    }
}

/// `part` of `whole` as a percentage, rounded down so that only what is full reads 100 %.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    let value = u128::from(part) * 100 / u128::from(whole);
    if value == 0 && part > 0 {
        "<1 %".to_owned()
    } else {
        format!("{value} %")
    }
}

/// A number with as many digits as tell something: `610`, `1,234`, `3.5`, `0.0042`.
pub fn float(value: f64) -> String {
    if !value.is_finite() {
        return "unknown".to_owned();
    }
    let size = value.abs();
    if size >= 9.95 || size == 0.0 {
        let rounded = size.round();
        // Beyond 2^53 a float is a whole number; u64 saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = count(rounded as u64);
        return if value < 0.0 { format!("-{whole}") } else { whole };
    }
    let text = if size >= 0.095 {
        format!("{value:.1}")
    } else if size >= 0.000_095 {
        format!("{value:.4}")
    } else {
        return format!("{value:e}");
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A bar of `cells` columns that shows `share` (0 to 1): eighths of a block, or `#` where there is only ASCII. What is
/// more than nothing shows at least its smallest mark, and only what is full fills it.
pub fn bar(share: f64, cells: usize, unicode: bool) -> String {
    const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let per_cell = if unicode { 8 } else { 1 };
    let all = cells * per_cell;
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )] // 0 ..= all
    let mut steps = ((share * all as f64) as usize).min(all);
    if steps == 0 && share > 0.0 {
        steps = 1;
    }
    let mut out: String = std::iter::repeat_n(if unicode { '█' } else { '#' }, steps / per_cell).collect();
    if let Some(part) = (steps % per_cell).checked_sub(1).and_then(|i| PARTS.get(i)) {
        out.push(*part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_bytes() {
        for (n, expected) in [
            (0_u64, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(n), expected);
        }
        for (n, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_258_291, "1.2 MiB"),
            (1_048_575, "1.0 MiB"),
            (200 * 1024 * 1024, "200 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), expected);
        }
    }

    #[test]
    fn bytes_where_room_is_short() {
        assert_eq!(bytes_short(532), "532");
        assert_eq!(bytes_short(1_258_291), "1.2M");
    }

    #[test]
    fn times() {
        for (ms, expected) in [
            (0, "0 s"),
            (23, "23 ms"),
            (1500, "1.5 s"),
            (31_400, "31 s"),
            (240_000, "4 min"),
            (250_000, "4 min 10 s"),
            (3_900_000, "1 h 5 min"),
            (1_036_800_000, "12 days"),
        ] {
            assert_eq!(span(Span::from_millis(ms)), expected);
        }
        assert_eq!(span(Span::from_micros(350)), "350 µs");
        let now = Timestamp::from_secs(1000);
        assert_eq!(ago(now, Timestamp::from_secs(969)), "31 s ago");
        assert_eq!(ago(now, Timestamp::from_secs(995)), "5 s ago");
        assert_eq!(ago(now, Timestamp::from_secs(1005)), "now");
        assert_eq!(ago_short(now, Timestamp::from_secs(870)), "2 min ago");
        assert_eq!(ago_short(now, Timestamp::from_secs(969)), "31 s ago");
        assert_eq!(seconds(-1.0), "-1 s");
    }

    #[test]
    fn moments_have_a_date_where_the_time_of_day_is_not_enough() {
        let at = Timestamp::from_secs(1_700_000_000);
        let later = |secs: i64| Timestamp::from_secs(1_700_000_000 + secs);
        assert_eq!(moment(at, later(3600)), "22:13 UTC");
        assert_eq!(moment(at, later(86_400)), "2023-11-14 22:13 UTC");
        assert_eq!(moment(at, later(-1)), "2023-11-14 22:13 UTC");
    }

    #[test]
    fn shares() {
        for (part, whole, expected) in [
            (28_231, 28_232, "99 %"),
            (28_232, 28_232, "100 %"),
            (1, 28_232, "<1 %"),
            (0, 10, "0 %"),
            (1, 0, "–"),
        ] {
            assert_eq!(percent(part, whole), expected);
        }
        for (value, expected) in [
            (610.0, "610"),
            (1234.4, "1,234"),
            (3.456, "3.5"),
            (2.0, "2"),
            (0.0042, "0.0042"),
            (0.0, "0"),
            (-12.0, "-12"),
            (f64::NAN, "unknown"),
        ] {
            assert_eq!(float(value), expected);
        }
    }

    #[test]
    fn bars_never_lie_at_the_ends() {
        assert_eq!(bar(0.0, 20, true), "");
        assert_eq!(bar(0.0001, 20, true), "▏");
        assert_eq!(bar(0.5, 3, true), "█▌");
        assert_eq!(bar(0.9999, 4, true), "███▉");
        assert_eq!(bar(1.0, 4, true), "████");
        assert_eq!(bar(7.0, 4, false), "####");
        assert_eq!(bar(f64::NAN, 4, false), "");
    }
}

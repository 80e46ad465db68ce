//! Evidence as short `name value` pairs for people.
//!
//! In: [`Evidence`], whose names end in their unit (`…_seconds`, `…_bytes`). Out: pairs of text. Pure.

use serde_json::Value;

use super::human;
use crate::finding::Evidence;
use crate::time::Timestamp;

/// How many members of a list are shown.
const SHOWN_MEMBERS: usize = 4;

/// Each piece of evidence as a name in words and a value in its unit; times as ages before `now`.
pub fn pairs(evidence: &Evidence, now: Timestamp) -> Vec<(String, String)> {
    evidence
        .0
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| pair(name, value, now))
        .collect()
}

fn pair(name: &str, value: &Value, now: Timestamp) -> (String, String) {
    type Unit = fn(f64) -> String;
    const UNITS: [(&str, Unit); 8] = [
        ("_age_seconds", |v| format!("{} ago", human::seconds(v))),
        ("_per_second", |v| format!("{}/s", human::float(v))),
        ("_seconds", human::seconds),
        ("_ms", |v| human::seconds(v / 1000.0)),
        ("_bytes", |v| human::bytes(whole(v))),
        ("_percent", |v| format!("{} %", human::float(v))),
        ("_share", crate::words::percent),
        ("_ratio", crate::words::percent),
    ];
    // A unit may be followed by when it was measured.
    let (measured, when) = match name.strip_suffix("_while_watched") {
        Some(measured) => (measured, " while watched"),
        None => (name, ""),
    };
    // "seconds_to_…", and a bare "share".
    if let (Some(rest), Some(number)) = (name.strip_prefix("seconds_"), value.as_f64()) {
        return (words(rest), human::seconds(number));
    }
    if let ("share", Some(number)) = (name, value.as_f64()) {
        return (words(name), crate::words::percent(number));
    }
    for (suffix, unit) in UNITS {
        if let (Some(stem), Some(number)) = (measured.strip_suffix(suffix), value.as_f64()) {
            return (format!("{}{when}", words(stem)), unit(number));
        }
    }
    (words(name), plain(value, now))
}

/// A float as bytes; what is negative is none.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
fn whole(value: f64) -> u64 {
    value as u64
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn plain(value: &Value, now: Timestamp) -> String {
    match value {
        Value::Null => "unknown".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(n) => match n.as_u64() {
            Some(n) => human::count(n),
            None => n.as_f64().map_or_else(|| n.to_string(), human::float),
        },
        Value::String(text) => match text.parse::<Timestamp>() {
            Ok(at) => human::ago(now, at),
            Err(_) => text.clone(),
        },
        Value::Array(members) => {
            let mut text = members
                .iter()
                .take(SHOWN_MEMBERS)
                .map(|m| plain(m, now))
                .collect::<Vec<_>>()
                .join(", ");
            if members.len() > SHOWN_MEMBERS {
                text.push_str(&format!(" and {} more", members.len() - SHOWN_MEMBERS));
            }
            text
        }
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let (name, value) = pair(name, value, now);
                format!("{name} {value}")
            })
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_tell_units() {
        let now = Timestamp::from_secs(1_700_000_000);
        for (name, value, expected) in [
            ("in_use", json!(28231), ("in use", "28,231")),
            ("opens_per_second", json!(610.0), ("opens", "610/s")),
            ("oldest_seconds", json!(31.0), ("oldest", "31 s")),
            ("tx_bytes", json!(9_836_672), ("tx", "9.4 MiB")),
            (
                "tx_bytes_while_watched",
                json!(148),
                ("tx while watched", "148 B"),
            ),
            (
                "last_handshake_age_seconds",
                json!(720.2),
                ("last handshake", "12 min ago"),
            ),
            (
                "last_handshake_age_seconds",
                json!("under 180"),
                ("last handshake age seconds", "under 180"),
            ),
            ("used_share", json!(0.72), ("used", "72 %")),
            ("share", json!(0.729), ("share", "72 %")),
            (
                "seconds_to_exhaustion",
                json!(95.0),
                ("to exhaustion", "1 min 35 s"),
            ),
            ("used_percent", json!(72), ("used", "72 %")),
            (
                "last_handshake",
                json!("2023-11-14T22:12:49Z"),
                ("last handshake", "31 s ago"),
            ),
            ("forced", json!(true), ("forced", "yes")),
            (
                "ports",
                json!([1, 2, 3, 4, 5, 6]),
                ("ports", "1, 2, 3, 4 and 2 more"),
            ),
            ("range", json!({"high": 2, "low": 1}), ("range", "high 2 low 1")),
        ] {
            assert_eq!(
                pair(name, &value, now),
                (expected.0.to_owned(), expected.1.to_owned())
            );
        }
        let unknown = Evidence::new().with("rtt_ms", Value::Null);
        assert_eq!(pairs(&unknown, now), vec![]);
    }
}

//! The two text formats. They differ in how counters and infos are named in `TYPE`, in `UNIT`, and in the end.

use std::fmt::Write as _;

use super::{Family, Kind};

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exposition {
    /// Prometheus's text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Exposition {
    /// Its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The one that an `Accept` header asks for: the listed one with the greatest `q`, OpenMetrics at a draw.
    pub fn accepted(accept: &str) -> Self {
        let mut best = (0.0, Self::Prometheus);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let exposition = match parts.next() {
                Some("application/openmetrics-text") => Self::OpenMetrics,
                Some("text/plain" | "text/*" | "*/*") => Self::Prometheus,
                _ => continue,
            };
            let q = parts.find_map(|p| p.strip_prefix("q=")?.parse::<f64>().ok());
            let candidate = (q.unwrap_or(1.0), exposition);
            if candidate.0 > best.0 || (candidate.0 == best.0 && candidate.1 > best.1) {
                best = candidate;
            }
        }
        best.1
    }
}

/// Writes `families` as text.
pub fn render(families: &[Family], exposition: Exposition) -> String {
    let open = exposition == Exposition::OpenMetrics;
    let mut out = String::with_capacity(families.len() * 256);
    for family in families {
        let ending = match family.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let name = family.name;
        let (declared, kind) = match (open, family.kind) {
            (true, Kind::Counter) => (name.to_owned(), "counter"),
            (true, Kind::Info) => (name.to_owned(), "info"),
            (false, Kind::Counter) => (format!("{name}{ending}"), "counter"),
            // Prometheus's own format has no infos.
            (false, Kind::Info) => (format!("{name}{ending}"), "gauge"),
            (_, Kind::Gauge) => (name.to_owned(), "gauge"),
            (_, Kind::Histogram) => (name.to_owned(), "histogram"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {declared} {}", escaped(family.help, open));
        let _ = writeln!(out, "# TYPE {declared} {kind}");
        if let Some(unit) = family.unit.filter(|_| open) {
            let _ = writeln!(out, "# UNIT {declared} {unit}");
        }
        for sample in &family.samples {
            let _ = write!(out, "{name}{ending}{}", sample.suffix);
            for (index, (label, value)) in sample.labels.iter().enumerate() {
                let open = if index == 0 { '{' } else { ',' };
                let _ = write!(out, "{open}{label}=\"{}\"", escaped(value, true));
            }
            if !sample.labels.is_empty() {
                out.push('}');
            }
            let _ = writeln!(out, " {}", number(sample.value));
        }
    }
    if open {
        out.push_str("# EOF\n");
    }
    out
}

/// A value as both formats read it.
fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

/// Escapes what ends a line, and where `quotes`, a value. Control characters have no place in a label.
fn escaped(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

//! Which numbers of history a report shows, and how they are read.

use rusqlite::Connection;
use serde_json::Value;

use crate::report::period::{Trend, Unit};
use crate::store::query::{self, SeriesQuery, SeriesRow};
use crate::time::{Span, Timestamp};
use crate::types::PublicKey;

/// Points of a trend: as many as a chart draws.
const POINTS: usize = 240;
/// Trends of one report.
const TRENDS: usize = 40;
/// The newest values are no older than this.
const NEWEST: Span = Span::from_secs(600);
/// A metric that is written each time.
const ALWAYS: &str = "wgnat_status";

/// A metric that is shown.
struct Wanted {
    metric: &'static str,
    heading: &'static str,
    unit: Unit,
    /// Only series with one of these values of this label.
    only: Option<(&'static str, &'static [&'static str])>,
    /// The labels that tell whose it is.
    named_by: &'static [&'static str],
    /// It only rises: what is shown is how fast. It is left out where it never does.
    counter: bool,
    /// The most that it can be: a number, or the newest value of another metric.
    limit: Limit,
    /// How many of its series, those that reached highest.
    most: usize,
}

enum Limit {
    None,
    Of(f64),
    Metric(&'static str),
}

const PLAIN: Wanted = Wanted {
    metric: "",
    heading: "",
    unit: Unit::Ratio,
    only: None,
    named_by: &[],
    counter: false,
    limit: Limit::None,
    most: 4,
};

const PEER: &[&str] = &["device", "public_key"];

const WANTED: &[Wanted] = &[
    Wanted {
        metric: "wgnat_wireguard_peers",
        heading: "WireGuard peers",
        unit: Unit::Count("peers"),
        only: Some(("state", &["up", "failing"])),
        named_by: &["state"],
        ..PLAIN
    },
    Wanted {
        metric: "wgnat_wireguard_peer_handshake_rtt_seconds",
        heading: "Handshake round trip",
        unit: Unit::Seconds,
        named_by: PEER,
        ..PLAIN
    },
    Wanted {
        metric: "wgnat_wireguard_peer_handshake_loss_ratio",
        heading: "Unanswered handshakes",
        unit: Unit::Ratio,
        named_by: PEER,
        ..PLAIN
    },
    Wanted {
        metric: "wgnat_wireguard_peer_endpoint_changes",
        heading: "Endpoint changes",
        unit: Unit::PerSecond("changes"),
        named_by: PEER,
        counter: true,
        ..PLAIN
    },
    Wanted {
        metric: "wgnat_destination_ports_used_ratio",
        heading: "Ports used",
        unit: Unit::Ratio,
        named_by: &["proto", "destination"],
        limit: Limit::Of(1.0),
        ..PLAIN
    },
    Wanted {
        metric: "wgnat_destination_opens_per_second",
        heading: "Connections opened",
        unit: Unit::PerSecond("connections"),
        named_by: &["proto", "destination"],
        ..PLAIN
    },
    Wanted {
        metric: "wgnat_tcp_time_wait_sockets",
        heading: "Sockets in TIME_WAIT",
        unit: Unit::Count("sockets"),
        ..PLAIN
    },
    Wanted {
        metric: "wgnat_connects",
        heading: "Connects that failed",
        unit: Unit::PerSecond("connects"),
        named_by: &["result"],
        counter: true,
        ..PLAIN
    },
    Wanted {
        metric: "wgnat_conntrack_entries",
        heading: "Conntrack entries",
        unit: Unit::Count("entries"),
        limit: Limit::Metric("wgnat_conntrack_entries_limit"),
        ..PLAIN
    },
    Wanted {
        metric: "wgnat_conntrack_events",
        heading: "Conntrack drops",
        unit: Unit::PerSecond("packets"),
        only: Some(("event", &["drop", "early_drop", "insert_failed"])),
        named_by: &["event"],
        counter: true,
        ..PLAIN
    },
    Wanted {
        metric: "wgnat_snat_ports_used_ratio",
        heading: "NAT ports used",
        unit: Unit::Ratio,
        named_by: &["proto", "destination"],
        limit: Limit::Of(1.0),
        ..PLAIN
    },
];

/// How numbers moved from `from` to `to`.
pub fn read(connection: &Connection, from: Timestamp, to: Timestamp) -> rusqlite::Result<Vec<Trend>> {
    let mut trends = Vec::new();
    // What was not written together with the newest numbers is not any more.
    let (_, rows) = ask(connection, ALWAYS, to.before(NEWEST), to, POINTS)?;
    let now = rows
        .iter()
        .flat_map(|row| row.points.last())
        .map(|point| point.0)
        .max();
    for wanted in WANTED {
        let (step, rows) = ask(connection, wanted.metric, from, to, POINTS)?;
        let (_, mut newest) = ask(connection, wanted.metric, to.before(NEWEST), to, POINTS)?;
        newest.retain(|row| row.points.last().is_some_and(|point| Some(point.0) >= now));
        let limit = match wanted.limit {
            Limit::None => None,
            Limit::Of(limit) => Some(limit),
            Limit::Metric(metric) => {
                let (_, rows) = ask(connection, metric, from, to, POINTS)?;
                rows.first()
                    .and_then(|row| row.points.last())
                    .map(|point| point.1)
            }
        };
        let mut own: Vec<Trend> = rows
            .into_iter()
            .filter(|row| is_wanted(wanted, row))
            .filter_map(|row| trend(wanted, row, &newest, step, limit))
            .collect();
        let reach = |trend: &Trend| trend.greatest().unwrap_or_default();
        own.sort_by(|a, b| reach(b).total_cmp(&reach(a)));
        own.truncate(wanted.most);
        trends.extend(own);
    }
    trends.truncate(TRENDS);
    Ok(trends)
}

fn ask(
    connection: &Connection,
    metric: &str,
    from: Timestamp,
    to: Timestamp,
    points: usize,
) -> rusqlite::Result<(i64, Vec<SeriesRow>)> {
    let query = SeriesQuery {
        name: Some(metric.to_owned()),
        labels: None,
        from,
        to,
        points,
    };
    query::series(connection, &query)
}

fn is_wanted(wanted: &Wanted, row: &SeriesRow) -> bool {
    let label = |name: &str| row.labels.get(name).and_then(Value::as_str);
    // Connects that are established are no failure.
    let failed = wanted.metric != "wgnat_connects" || label("result") != Some("established");
    failed
        && wanted
            .only
            .is_none_or(|(name, values)| label(name).is_some_and(|value| values.contains(&value)))
}

fn trend(
    wanted: &Wanted,
    row: SeriesRow,
    newest: &[SeriesRow],
    step: i64,
    limit: Option<f64>,
) -> Option<Trend> {
    let points = |row: &SeriesRow| {
        if wanted.counter {
            rates(&row.points)
        } else {
            row.points.clone()
        }
    };
    let last = newest
        .iter()
        .find(|new| new.labels == row.labels)
        .and_then(|new| points(new).last().map(|point| point.1));
    let trend = Trend {
        metric: wanted.metric,
        heading: wanted.heading,
        label: label(wanted, &row.labels),
        labels: labels(&row.labels),
        unit: wanted.unit,
        limit,
        step,
        points: points(&row),
        last,
    };
    // Nothing to see: a cause of failure that never was.
    let idle = wanted.counter && trend.greatest().is_none_or(|greatest| greatest <= 0.0);
    (!idle && !trend.points.is_empty()).then_some(trend)
}

/// How fast a counter rose between each two points; where it fell it began anew, and nobody knows.
fn rates(points: &[(i64, f64, f64, f64)]) -> Vec<(i64, f64, f64, f64)> {
    let pairs = points.windows(2).filter_map(|pair| match pair {
        [(t1, v1, ..), (t2, v2, ..)] if t2 > t1 && v2 >= v1 => {
            #[allow(clippy::cast_precision_loss)] // seconds of a month at most
            let rate = (v2 - v1) / (t2 - t1) as f64;
            Some((*t2, rate, rate, rate))
        }
        _ => None,
    });
    pairs.collect()
}

fn labels(labels: &Value) -> Vec<(String, String)> {
    let pairs = labels.as_object().into_iter().flatten();
    pairs
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn label(wanted: &Wanted, labels: &Value) -> String {
    let values = wanted.named_by.iter().filter_map(|name| {
        let value = labels.get(name)?.as_str()?;
        let short = value.parse::<PublicKey>().map(|key| key.short());
        Some(short.unwrap_or_else(|_| value.to_owned()))
    });
    values.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_begins_anew_has_no_rate_there() {
        let points =
            |values: &[(i64, f64)]| -> Vec<_> { values.iter().map(|(t, v)| (*t, *v, *v, *v)).collect() };
        let told: Vec<_> = rates(&points(&[(0, 5.0), (10, 25.0), (20, 3.0), (30, 3.0)]))
            .into_iter()
            .map(|(t, rate, ..)| (t, rate))
            .collect();
        assert_eq!(told, [(10, 2.0), (30, 0.0)]);
        assert!(rates(&points(&[(0, 1.0)])).is_empty());
    }

    /// Every metric that is shown is one that the agent keeps.
    #[test]
    fn what_is_wanted_is_written() {
        let source = [
            include_str!("../../output/prometheus/network.rs"),
            include_str!("../../output/prometheus/wireguard.rs"),
        ]
        .concat();
        for wanted in WANTED {
            let quoted = format!("\"{}\"", wanted.metric);
            assert!(source.contains(&quoted), "{}", wanted.metric);
            if let Limit::Metric(metric) = wanted.limit {
                assert!(source.contains(&format!("\"{metric}\"")), "{metric}");
            }
        }
    }
}

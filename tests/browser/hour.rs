//! An hour of history before the agent begins, written as an agent writes it.

use std::net::SocketAddr;
use std::path::Path;
use wgnat::store::{self, Limits, Point, Record, Store};
use wgnat::sys::clock;
use wgnat::time::Span;

/// Seconds from one sample to the next.
const STEP: u64 = 10;
/// Records that the store's writer writes at once.
const BATCH: usize = 512;
/// Samples: an hour, less what the writer's queue would not hold at once.
const SAMPLES: u64 = 350;

/// What of it the page draws: marks of the peers, points of the lines.
pub const DRAWN: &str = "(() => {
  const count = (selector) => document.querySelectorAll(selector).length;
  const points = (selector) => [...document.querySelectorAll(selector)].map((p) => p.getAttribute('d').split('L').length)
    .reduce((a, b) => a + b, 0);
  return { ticks: count('#handshakes .tick') - 1, crosses: count('#handshakes .cross') - 1, diamonds: count('#handshakes .diamond') - 1,
    stretches: count('#handshakes g ~ rect, #handshakes rect') - 2, ports: points('#ports-0 .l1'), drops: points('#conntrack-drops .l1') };
})()";

fn point(name: &'static str, labels: &[(&str, &str)], value: f64) -> Point {
    let labels: serde_json::Map<String, serde_json::Value> = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()))
        .collect();
    Point {
        name,
        labels: serde_json::Value::Object(labels).to_string(),
        value,
    }
}

/// The hour until now of a peer that shakes hands each two minutes, loses its session for a while and moves twice; of ports
/// towards `to` that come and go; of a conntrack table that was full for a moment.
pub fn hour(peer: &[(&str, &str)], source: &str, to: SocketAddr) -> Vec<Record> {
    (0..SAMPLES)
        .map(|n| sample(n, (SAMPLES - n) * STEP, peer, source, to))
        .collect()
}

/// A month of the same over and over: each ten minutes, in the last two days each minute, in the last six hours each ten seconds,
/// as history keeps it.
pub fn month(peer: &[(&str, &str)], source: &str, to: SocketAddr) -> Vec<Record> {
    let (day, hour) = (86_400, 3600);
    let stretches = [
        (30 * day, 2 * day, 600),
        (2 * day, 6 * hour, 60),
        (6 * hour, 0, STEP),
    ];
    stretches
        .into_iter()
        .flat_map(|(from, to, every)| (0..(from - to) / every).map(move |n| from - n * every))
        .zip(0..)
        .map(|(ago, n)| sample(n, ago, peer, source, to))
        .collect()
}

/// The `n`th sample, so many seconds ago.
fn sample(n: u64, ago: u64, peer: &[(&str, &str)], source: &str, to: SocketAddr) -> Record {
    let at = clock::now().before(Span::from_secs(ago));
    let to = to.to_string();
    let destination = [("proto", "tcp"), ("source", source), ("destination", to.as_str())];
    let failing = (120..150).contains(&(n % SAMPLES));
    let age = if failing {
        (n % SAMPLES - 110) * STEP
    } else {
        n * STEP % 120
    };
    let wave = (n % 60) as f64;
    let points = vec![
        point("wgnat_wireguard_peer_up", peer, f64::from(u8::from(!failing))),
        point("wgnat_wireguard_peer_handshake_age_seconds", peer, age as f64),
        point(
            "wgnat_wireguard_peer_unanswered_handshakes",
            peer,
            if failing {
                ((n % SAMPLES - 118) / 4) as f64
            } else {
                0.0
            },
        ),
        point("wgnat_wireguard_peer_endpoint_changes", peer, (n / 150) as f64),
        point("wgnat_destination_ports", &destination, 20.0 + wave * 0.6),
        point("wgnat_conntrack_entries", &[], 40_000.0 + wave * 900.0),
        point(
            "wgnat_conntrack_events",
            &[("event", "drop")],
            if n > 200 {
                (n.min(230) - 200) as f64 * 50.0
            } else {
                0.0
            },
        ),
        point(
            "wgnat_conntrack_events",
            &[("event", "early_drop")],
            (n / 3) as f64,
        ),
        point(
            "wgnat_conntrack_events",
            &[("event", "insert_failed")],
            (n / 50) as f64 * 7.0,
        ),
    ];
    Record::Samples { at, points }
}

/// Writes `records` to a new history.
pub fn write(path: &Path, records: &[Record]) {
    let store = Store::open(path).unwrap();
    let limits = Limits {
        bytes: 64 * 1024 * 1024,
        age: Span::from_secs(31 * 86_400),
    };
    let (writer, _reader) = store::start(store, limits, || ()).unwrap();
    let written = store::open_readonly(path).unwrap();
    let mut there = 0;
    // The writer's queue holds some more than it writes at once.
    for part in records.chunks(BATCH) {
        for record in part {
            writer.write(record.clone());
        }
        there += part.len();
        let sql = "SELECT count(*) FROM samples WHERE step = 10 AND series = (SELECT min(id) FROM series)";
        let count = |written: &rusqlite::Connection| {
            let rows: u32 = written.query_row(sql, [], |row| row.get(0)).unwrap();
            rows as usize
        };
        while part.len() == BATCH && count(&written) < there {
            std::thread::yield_now();
        }
    }
    let event = |ago, kind, data: &str| Record::Event {
        at: clock::now().before(Span::from_secs(ago)),
        kind,
        data: data.to_owned(),
    };
    writer.write(event(2300, "finding", r#"{"what":"began","code":"wg-handshake-timeout","severity":"critical","title":"wg0 gets no handshake answer"}"#));
    writer.write(event(1900, "finding", r#"{"what":"cleared","code":"wg-handshake-timeout","severity":"critical","title":"wg0 gets no handshake answer"}"#));
    writer.write(event(60, "clock", r#"{"text":"the clock was set back by 3 s"}"#));
    assert_eq!(writer.stats().dropped, 0);
    assert!(writer.stop(), "written in time");
}

//! Measured paths and name servers: as the newest measurement found them, and attempts and failures as counters.
//!
//! Targets are those that the configuration names (a name to ask for counts once for each of the system's name servers), so
//! there are few, and no label comes from the network.

use super::{Family, count, seconds};
use crate::observation::path::{Failure, Stage};
use crate::report::Report;
use crate::report::agent::{AgentStats, PathTotals};
use crate::report::paths::PathRow;
use crate::time::Span;

pub(super) fn families(report: &Report, stats: &AgentStats) -> Vec<Family> {
    let mut all = newest(&report.paths);
    all.push(stages(&report.paths));
    all.extend(counters(&stats.totals.paths));
    all
}

fn labels(target: &str, method: &str) -> Vec<(&'static str, String)> {
    vec![("target", target.to_owned()), ("method", method.to_owned())]
}

fn newest(rows: &[PathRow]) -> Vec<Family> {
    let measured = |name, help, of: fn(&PathRow) -> Option<f64>| {
        let mut family = Family::gauge(name, help);
        for row in rows {
            if let Some(value) = of(row) {
                family.add(labels(&row.target, row.method), value);
            }
        }
        family
    };
    vec![
        measured(
            "wgnat_path_loss_ratio",
            "Of the newest measurement's attempts towards a target, the share that nothing, or an ICMP error, came back for.",
            |row| row.loss.map(|(share, ..)| share),
        ),
        measured(
            "wgnat_path_rtt_median_seconds",
            "The median round trip of the newest measurement of a target; with method dns, what a name server's answer took.",
            |row| span(row.summary.median),
        ),
        measured(
            "wgnat_path_rtt_p95_seconds",
            "The round trip below which 95 % of the newest measurement lie.",
            |row| span(row.summary.p95),
        ),
        measured(
            "wgnat_path_jitter_seconds",
            "The mean step from one round trip to the next in the newest measurement.",
            |row| span(row.summary.jitter),
        ),
        measured(
            "wgnat_path_mtu_bytes",
            "The largest packet that a target answered when it was last searched for.",
            |row| row.mtu.map(|mtu| f64::from(mtu.passed)),
        ),
        measured(
            "wgnat_path_interface_mtu_bytes",
            "The MTU of the interface (and route) that packets to a target leave by.",
            |row| row.mtu.map(|mtu| f64::from(mtu.interface)),
        ),
    ]
}

fn span(of: Option<Span>) -> Option<f64> {
    of.map(|span| span.as_secs_f64())
}

/// The label's word, which has neither blanks nor capitals.
const fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::NameLookup => "name",
        Stage::Connect => "connect",
        Stage::TlsHandshake => "tls",
        Stage::FirstByte => "first_byte",
    }
}

fn stages(rows: &[PathRow]) -> Family {
    let mut family = Family::gauge(
        "wgnat_path_stage_median_seconds",
        "The median of a part of the round trip in the newest measurement: name, connect, tls, first_byte.",
    );
    for row in rows {
        for (stage, span) in &row.stages {
            let mut labels = labels(&row.target, row.method);
            labels.push(("stage", word(*stage).to_owned()));
            family.add(labels, span.as_secs_f64());
        }
    }
    family
}

fn counters(totals: &[PathTotals]) -> Vec<Family> {
    let mut attempts = Family::counter("wgnat_path_attempts", "Attempts made towards a target.");
    let mut failures = Family::counter(
        "wgnat_path_failures",
        "Attempts without a round trip by cause: timeout, silent (connected, and no answer), refused, unreachable, cut, dns (an answer of no use), local (not sent).",
    );
    let mut measured = Family::gauge(
        "wgnat_path_measured_time_seconds",
        "When a target was last measured, in seconds since 1970.",
    );
    for path in totals {
        let labels = || labels(&path.target, path.method);
        attempts.add(labels(), count(path.attempts));
        measured.add(labels(), seconds(path.at));
        // All of them from the beginning: the first failure must not look like the first measurement.
        for (cause, n) in Failure::CAUSES.into_iter().zip(path.failures) {
            let mut labels = labels();
            labels.push(("cause", cause.to_owned()));
            failures.add(labels, count(n));
        }
    }
    vec![attempts, failures, measured]
}

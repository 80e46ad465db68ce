//! The report as metrics: Prometheus's text format and OpenMetrics's.
//!
//! In: a [`Report`] and [`AgentStats`]. Out: [`Family`]s ([`families`]), and their text ([`render`]). Pure. Conventions:
//! base units, `_total` for counters, a HELP and a TYPE for each; what was not measured has no sample, never a zero.
//! Cardinality is bounded: the busiest destinations and peers by name, the rest as `other` or left out and counted; no
//! label comes from the network but addresses of those. Labels that Fly or Prometheus set themselves (`app`, `region`,
//! `host`, `instance`, `job`) are not used.

mod agent;
mod nat;
mod network;
mod paths;
mod text;
mod wireguard;

pub use text::{Exposition, render};

use crate::report::Report;
use crate::report::agent::AgentStats;
use crate::time::Timestamp;

/// What kind of metric a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// May rise and fall.
    Gauge,
    /// Only rises; its samples' names end in `_total`.
    Counter,
    /// Counts by upper bound, with a sum.
    Histogram,
    /// Always 1; its labels tell.
    Info,
}

/// Samples of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name, without the ending (`_total`, `_info`) that its kind asks for.
    pub name: &'static str,
    /// What it is, for a person.
    pub help: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The unit that its name ends in, where it has one.
    pub unit: Option<&'static str>,
    /// Its samples.
    pub samples: Vec<Sample>,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What is added to the family's name (`_bucket`, `_sum`, `_count`); empty for most.
    pub suffix: &'static str,
    /// Labels, in order.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Family {
    fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        let unit = ["seconds", "bytes", "ratio"]
            .into_iter()
            .find(|unit| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')));
        Self {
            name,
            help,
            kind,
            unit,
            samples: Vec::new(),
        }
    }

    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Gauge, help)
    }

    fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Counter, help)
    }

    fn info(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Info, help)
    }

    /// With one more sample.
    fn with(mut self, labels: Vec<(&'static str, String)>, value: f64) -> Self {
        self.add(labels, value);
        self
    }

    /// With one more sample where it is known.
    fn maybe(self, labels: Vec<(&'static str, String)>, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.with(labels, value),
            None => self,
        }
    }

    fn add(&mut self, labels: Vec<(&'static str, String)>, value: f64) {
        self.samples.push(Sample {
            suffix: "",
            labels,
            value,
        });
    }
}

/// A moment as a metric's value: seconds since 1970.
#[allow(clippy::cast_precision_loss)] // good to a microsecond
fn seconds(at: Timestamp) -> f64 {
    at.as_nanos() as f64 / 1e9
}

/// A yes or a no as a metric's value.
fn yes(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// A count as a metric's value; beyond 2^53 the last digits are of no interest.
#[allow(clippy::cast_precision_loss)]
fn count(n: u64) -> f64 {
    n as f64
}

/// Every family that has a sample.
pub fn families(report: &Report, stats: &AgentStats) -> Vec<Family> {
    let mut all = agent::families(report, stats);
    all.extend(wireguard::families(report, stats));
    all.extend(network::families(report, stats));
    all.extend(nat::families(report, stats));
    all.extend(paths::families(report, stats));
    all.retain(|family| !family.samples.is_empty());
    all
}

#[cfg(test)]
mod tests;

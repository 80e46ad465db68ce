//! The configuration file: TOML, every key optional, unknown keys refused with the nearest known name.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Thresholds;
use super::agent::AgentSection;
use super::report::ReportSection;
use crate::cli::{ColorWhen, LogFormat};
use crate::observation::nat::Budget;
use crate::output::Format;
use crate::report::exit::FailOn;
use crate::time::Span;

/// The file's content; `None` is "not said".
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// `format`.
    pub format: Option<Format>,
    /// `color`.
    pub color: Option<ColorWhen>,
    /// `log_format`.
    pub log_format: Option<LogFormat>,
    /// `cpu_budget`, as text such as `1%`.
    #[serde(deserialize_with = "optional_share")]
    pub cpu_budget: Option<f64>,
    /// `[doctor]`.
    pub doctor: DoctorSection,
    /// `[agent]`.
    pub agent: AgentSection,
    /// `[report]`.
    pub report: ReportSection,
    /// `[thresholds]`.
    pub thresholds: Thresholds,
}

/// `[doctor]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoctorSection {
    /// `duration`, as text such as `5s`.
    #[serde(deserialize_with = "optional_span")]
    pub duration: Option<Span>,
    /// `max_duration`.
    #[serde(deserialize_with = "optional_span")]
    pub max_duration: Option<Span>,
    /// `fail_on`.
    pub fail_on: Option<FailOn>,
    /// `wg_config`: wg-quick files.
    pub wg_config: Vec<PathBuf>,
    /// `stun`: servers to ask what the NAT in front does.
    #[serde(deserialize_with = "servers")]
    pub stun: Vec<String>,
    /// `nat_profile`: what the NAT in front allows; empty for not known.
    #[serde(deserialize_with = "budget")]
    pub nat_profile: Option<Budget>,
    /// `fly_toml`: Fly's description of the app.
    pub fly_toml: Option<PathBuf>,
    /// `fly_checks`: on a Fly machine, look at its private network.
    pub fly_checks: bool,
}

pub(super) fn servers<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(d)?;
    for name in &names {
        crate::observe::nat::resolve::check(name).map_err(serde::de::Error::custom)?;
    }
    Ok(names)
}

pub(super) fn budget<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Budget>, D::Error> {
    let text = String::deserialize(d)?;
    if text.is_empty() {
        return Ok(None);
    }
    crate::budgets::parse(&text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

fn optional_share<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    let text = String::deserialize(d)?;
    super::share::parse(&text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

pub(super) fn optional_span<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Span>, D::Error> {
    let text = String::deserialize(d)?;
    super::duration::parse(&text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It is not what is expected.
    #[error("configuration file {}: {message}{hint}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Line, column and what is wrong.
        message: String,
        /// The nearest known key, where one is near.
        hint: String,
    },
    /// A value that makes no sense.
    #[error("configuration file {}: [{section}] {message}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        section: &'static str,
        /// Which key, and what was expected.
        message: String,
    },
}

/// Parses `text`, which was read from `path`.
pub fn parse(path: &Path, text: &str) -> Result<File, FileError> {
    let file: File = toml::from_str(text).map_err(|error| FileError::Parse {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
        hint: hint(error.message()),
    })?;
    for (section, checked) in [
        ("thresholds", file.thresholds.check()),
        ("agent", file.agent.check()),
        ("report", file.report.check()),
    ] {
        checked.map_err(|message| FileError::Value {
            path: path.to_owned(),
            section,
            message,
        })?;
    }
    Ok(file)
}

/// serde says "unknown field `x`, expected one of `a`, `b`": picks the nearest of those named.
fn hint(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    if !message.contains("unknown field") {
        return String::new();
    }
    let Some(wrong) = names.next() else {
        return String::new();
    };
    super::nearest(wrong, names).map_or(String::new(), |near| format!("\ndid you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(Path::new("x.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn every_key_is_optional_and_unknown_ones_are_refused_with_the_nearest() {
        assert!(parse(Path::new("x.toml"), "").is_ok());
        let text = error("[thresholds]\nports_warnin = 0.5\n");
        assert!(text.contains("x.toml") && text.contains("line 2"), "{text}");
        assert!(text.ends_with("did you mean `ports_warning`?"), "{text}");
        assert!(error("cpu_budget = \"0%\"\n").contains("a share of a core"));
        assert!(error("[doctor]\nduration = \"5 parsecs\"\n").contains("expected a duration"));
    }

    #[test]
    fn impossible_thresholds_are_refused_by_name() {
        let text = error("[thresholds]\nports_warning = 1.5\n");
        assert!(
            text.contains("ports_warning") && text.contains("a share above 0 and up to 1"),
            "{text}"
        );
        let text = error("[thresholds]\nports_warning = 0.95\n");
        assert!(
            text.contains("ports_warning") && text.contains("ports_critical"),
            "{text}"
        );
    }

    #[test]
    fn the_sample_file_is_the_defaults() {
        let sample = include_str!("../../wgnat.sample.toml");
        let file = parse(Path::new("wgnat.sample.toml"), sample).unwrap();
        assert_eq!(file.thresholds, Thresholds::default());
        // Every threshold is named in the sample, with its default.
        let table: toml::Table = sample.parse().unwrap();
        let defaults = toml::Table::try_from(Thresholds::default()).unwrap();
        assert_eq!(table["thresholds"].as_table(), Some(&defaults));
        let settings = crate::config::Settings::build(&crate::config::Flags::default(), file);
        let defaults = crate::config::Settings::build(&crate::config::Flags::default(), File::default());
        assert_eq!(settings, defaults);
    }
}

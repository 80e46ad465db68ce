//! Settings. Reading comes first (command line, environment, file), then a pure build: first said wins.

pub mod active;
pub mod agent;
pub mod defaults;
pub mod duration;
pub mod file;
pub mod report;
pub mod share;

use std::path::PathBuf;

pub use agent::AgentSettings;
pub use defaults::Thresholds;
pub use report::{ReportFlags, ReportSettings};

use crate::cli::{ColorWhen, LogFormat};
use crate::observation::nat::Budget;
use crate::output::Format;
use crate::report::exit::FailOn;
use crate::time::Span;

/// What the command line and the environment said (clap merges the two, the command line first).
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--format`, `--json`.
    pub format: Option<Format>,
    /// `--color`.
    pub color: Option<ColorWhen>,
    /// `--log-format`.
    pub log_format: Option<LogFormat>,
    /// `--duration`.
    pub duration: Option<Span>,
    /// `--max-duration`.
    pub max_duration: Option<Span>,
    /// `--fail-on`.
    pub fail_on: Option<FailOn>,
    /// `--wg-config`.
    pub wg_config: Vec<PathBuf>,
    /// `wgnat agent`'s own.
    pub agent: agent::AgentFlags,
    /// `wgnat report`'s own.
    pub report: ReportFlags,
    /// `--cpu-budget`, as a share of a core.
    pub cpu_budget: Option<f64>,
    /// `--stun`.
    pub stun: Vec<String>,
    /// `--nat-profile`.
    pub nat_profile: Option<Budget>,
    /// `--fly-toml`.
    pub fly_toml: Option<PathBuf>,
    /// `--fly-checks`.
    pub fly_checks: bool,
}

/// What holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How results are written.
    pub format: Format,
    /// When to colour.
    pub color: ColorWhen,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// How long doctor watches at least.
    pub duration: Span,
    /// How long doctor watches at most; never less than `duration`.
    pub max_duration: Span,
    /// From which severity on the exit code is not 0.
    pub fail_on: FailOn,
    /// wg-quick files to look at.
    pub wg_config: Vec<PathBuf>,
    /// `wgnat agent`'s own.
    pub agent: AgentSettings,
    /// `wgnat report`'s own.
    pub report: ReportSettings,
    /// What reading the conntrack table may cost on average, as a share of a core.
    pub cpu_budget: f64,
    /// STUN servers to ask what the NAT in front does.
    pub stun: Vec<String>,
    /// What the NAT in front allows, as the user says.
    pub nat_profile: Option<Budget>,
    /// The fly.toml to look at.
    pub fly_toml: Option<PathBuf>,
    /// Look at a Fly machine's private network.
    pub fly_checks: bool,
    /// The numbers that rules compare with.
    pub thresholds: Thresholds,
}

impl Settings {
    /// First said wins: flags, then file, then default.
    pub fn build(flags: &Flags, file: file::File) -> Self {
        let duration = flags
            .duration
            .or(file.doctor.duration)
            .unwrap_or(defaults::DOCTOR_DURATION);
        let max_duration = flags
            .max_duration
            .or(file.doctor.max_duration)
            .unwrap_or(defaults::DOCTOR_MAX_DURATION);
        let wg_config = if flags.wg_config.is_empty() {
            file.doctor.wg_config
        } else {
            flags.wg_config.clone()
        };
        Self {
            format: flags.format.or(file.format).unwrap_or(Format::Text),
            color: flags.color.or(file.color).unwrap_or(ColorWhen::Auto),
            log_format: flags.log_format.or(file.log_format).unwrap_or(LogFormat::Text),
            duration,
            max_duration: max_duration.max(duration),
            fail_on: flags.fail_on.or(file.doctor.fail_on).unwrap_or(FailOn::Warning),
            wg_config,
            agent: AgentSettings::build(&flags.agent, file.agent),
            report: ReportSettings::build(&flags.report, file.report),
            cpu_budget: flags
                .cpu_budget
                .or(file.cpu_budget)
                .unwrap_or(defaults::CPU_BUDGET),
            stun: if flags.stun.is_empty() {
                file.doctor.stun
            } else {
                flags.stun.clone()
            },
            nat_profile: flags.nat_profile.clone().or(file.doctor.nat_profile),
            fly_checks: flags.fly_checks || file.doctor.fly_checks,
            fly_toml: flags.fly_toml.clone().or(file.doctor.fly_toml),
            thresholds: file.thresholds,
        }
    }
}

/// The nearest of `known` to `wrong`, where one is near enough to be what was meant.
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (distance(wrong, name), name))
        .min()
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(2))
        .map(|(_, name)| name)
}

/// Levenshtein's edit distance, by bytes.
pub fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let best = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_said_wins() {
        let file = || {
            file::parse(
                std::path::Path::new("f"),
                "format = \"json\"\n[doctor]\nduration = \"7s\"",
            )
            .unwrap()
        };
        let from_file = Settings::build(&Flags::default(), file());
        assert_eq!(
            (from_file.format, from_file.duration),
            (Format::Json, Span::from_secs(7))
        );
        let flags = Flags {
            format: Some(Format::Markdown),
            duration: Some(Span::from_secs(60)),
            ..Flags::default()
        };
        let from_flags = Settings::build(&flags, file());
        assert_eq!(
            (from_flags.format, from_flags.duration),
            (Format::Markdown, Span::from_secs(60))
        );
        // Watching longer than the default maximum is what was asked for.
        assert_eq!(from_flags.max_duration, Span::from_secs(60));
    }

    #[test]
    fn nearest_names() {
        let known = ["ports_warning", "ports_critical", "fd_warning"];
        assert_eq!(nearest("port_warning", known.into_iter()), Some("ports_warning"));
        assert_eq!(nearest("zebra", known.into_iter()), None);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}

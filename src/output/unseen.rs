//! What could not be observed, folded so that one refusal is told once.
//!
//! In: collectors and unchecked rules of a [`Report`]. Out: [`Gap`]s. Pure.

use super::human;
use crate::observation::SourceState;
use crate::report::Report;

/// Sources that miss something for the same reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Gap {
    /// Their names; a device's own, where that could not be read in full.
    pub sources: Vec<String>,
    /// They see a part (else nothing).
    pub partly: bool,
    /// Why.
    pub reason: String,
    /// Codes of findings that could not be checked for lack of them; each code stands in one gap only.
    pub unchecked: Vec<&'static str>,
    /// Codes of findings that were found, and may hold where they cannot be looked for for lack of them.
    pub in_part: Vec<&'static str>,
}

impl Gap {
    /// What follows for findings; nothing where nothing does.
    pub fn consequences(&self) -> Option<String> {
        let told = [
            ("so not checked", &self.unchecked),
            ("may hold elsewhere too", &self.in_part),
        ];
        let told: Vec<String> = told
            .into_iter()
            .filter(|(_, codes)| !codes.is_empty())
            .map(|(words, codes)| format!("{words}: {}", codes.join(", ")))
            .collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

/// The gaps of `report`, in the order of its collectors.
pub fn gaps(report: &Report) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for (source, status) in &report.collectors {
        let lost = (status.lost > 0).then(|| format!("{} events lost", human::count(status.lost)));
        let reason = match (status.reason.clone(), lost) {
            (Some(reason), Some(lost)) => format!("{reason}; {lost}"),
            (Some(reason), None) | (None, Some(reason)) => reason,
            (None, None) => "no reason given".to_owned(),
        };
        match status.state {
            SourceState::Ok if status.lost == 0 => {}
            SourceState::Ok | SourceState::Degraded => file(&mut gaps, source.name(), true, reason),
            SourceState::Unavailable => file(&mut gaps, source.name(), false, reason),
        }
    }
    for device in &report.wireguard.devices {
        for problem in &device.problems {
            file(&mut gaps, &device.name, true, problem.clone());
        }
    }
    let missed = report.not_checked.iter().map(|rule| (rule, false));
    for (rule, in_part) in missed.chain(report.in_part.iter().map(|rule| (rule, true))) {
        let known = |gaps: &[Gap]| {
            gaps.iter().position(|gap| {
                !gap.partly
                    && rule
                        .missing
                        .iter()
                        .any(|s| gap.sources.iter().any(|name| name == s.name()))
            })
        };
        if known(&gaps).is_none() {
            // None of the sources that would do ran at all, so no collector says why.
            for source in &rule.missing {
                file(
                    &mut gaps,
                    source.name(),
                    false,
                    report.reason_for(*source).to_owned(),
                );
            }
        }
        if let Some(gap) = known(&gaps).and_then(|at| gaps.get_mut(at)) {
            let codes = if in_part {
                &mut gap.in_part
            } else {
                &mut gap.unchecked
            };
            codes.push(rule.code);
        }
    }
    gaps
}

/// Adds `source` to the gap with the same reason, or begins one.
fn file(gaps: &mut Vec<Gap>, source: &str, partly: bool, reason: String) {
    match gaps.iter_mut().find(|g| g.partly == partly && g.reason == reason) {
        Some(gap) => gap.sources.push(source.to_owned()),
        None => gaps.push(Gap {
            sources: vec![source.to_owned()],
            partly,
            reason,
            unchecked: Vec::new(),
            in_part: Vec::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Source, SourceStatus};
    use crate::report::sample;
    use crate::rules::NotChecked;

    #[test]
    fn one_refusal_is_told_once_and_each_code_once() {
        let mut report = sample::empty();
        let needs = "needs CAP_NET_ADMIN";
        report.collectors = vec![
            (Source::WireguardNetlink, SourceStatus::unavailable(needs)),
            (Source::Routes, SourceStatus::ok()),
            (Source::Sockets, SourceStatus::degraded("UDP is missing")),
            (Source::Conntrack, SourceStatus::unavailable(needs)),
        ];
        report.not_checked = vec![
            NotChecked {
                code: "conntrack-full",
                missing: vec![Source::Conntrack],
            },
            NotChecked {
                code: "wg-no-route",
                missing: vec![Source::WireguardNetlink, Source::Config],
            },
            NotChecked {
                code: "fd-limit",
                missing: vec![Source::Processes],
            },
        ];
        report.in_part = vec![NotChecked {
            code: "wg-mtu",
            missing: vec![Source::WireguardNetlink],
        }];
        let gap = |sources: Vec<&str>, partly, reason: &str, unchecked| Gap {
            sources: sources.into_iter().map(str::to_owned).collect(),
            partly,
            reason: reason.to_owned(),
            unchecked,
            in_part: Vec::new(),
        };
        assert_eq!(
            gaps(&report),
            vec![
                Gap {
                    in_part: vec!["wg-mtu"],
                    ..gap(
                        vec!["wireguard-netlink", "conntrack"],
                        false,
                        needs,
                        vec!["conntrack-full", "wg-no-route"]
                    )
                },
                gap(vec!["sockets"], true, "UDP is missing", vec![]),
                gap(
                    vec!["processes"],
                    false,
                    "not looked at in this run",
                    vec!["fd-limit"]
                ),
            ]
        );
    }

    #[test]
    fn lost_events_are_a_gap_even_where_all_else_is_well() {
        let mut report = sample::empty();
        report.collectors = vec![(
            Source::Capture,
            SourceStatus {
                lost: 1200,
                ..SourceStatus::ok()
            },
        )];
        assert_eq!(gaps(&report)[0].reason, "1,200 events lost");
        assert!(gaps(&report)[0].partly);
    }

    #[test]
    fn a_device_that_could_not_be_read_in_full_is_a_gap() {
        let mut report = sample::healthy();
        for device in &mut report.wireguard.devices {
            device.problems = vec!["its peers were cut off".to_owned()];
        }
        assert_eq!(gaps(&report)[0].sources, ["wg0"]);
        assert_eq!(gaps(&report)[0].reason, "its peers were cut off");
    }
}

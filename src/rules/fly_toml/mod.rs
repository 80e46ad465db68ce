//! What a fly.toml says, against what is known of Fly and of this host. Nothing of it hurts by itself now, so nothing is
//! critical.

use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::fly_toml::{FlyToml, FlyTomlFacts, Section, Service};
use crate::rules::{Input, Rule};

mod agent_alone;
mod check_target;
mod check_timing;
mod limit_order;
mod limit_ports;
mod limit_type;
mod metrics_unreachable;
mod no_check;
mod no_metrics;
mod nobody_listens;
#[cfg(test)]
mod testing;
mod udp_port;
mod unknown_group;

/// The rules, causes before symptoms.
pub const RULES: &[Rule] = &[
    unknown_group::RULE,
    nobody_listens::RULE,
    udp_port::RULE,
    check_target::RULE,
    check_timing::RULE,
    no_check::RULE,
    limit_order::RULE,
    limit_ports::RULE,
    limit_type::RULE,
    agent_alone::RULE,
    metrics_unreachable::RULE,
    no_metrics::RULE,
];

const FLY_TOML: &[&[Source]] = &[&[Source::FlyToml]];

/// The file that was read.
fn read<'a>(input: &Input<'a>) -> Option<&'a FlyTomlFacts> {
    input.world.fly_toml.as_ref()
}

/// What findings about a line share.
fn finding(
    input: &Input<'_>,
    code: &'static str,
    facts: &FlyTomlFacts,
    line: u32,
    severity: Severity,
    confidence: Confidence,
) -> Finding {
    let now = input.now();
    Finding {
        code,
        severity,
        confidence,
        title: String::new(),
        subject: Subject::File {
            path: facts.path.clone(),
            line,
        },
        summary: String::new(),
        evidence: Evidence::new().with("line", line),
        impact: String::new(),
        candidates: Vec::new(),
        fixes: Vec::new(),
        first_seen: now,
        last_seen: now,
        count: 1,
    }
}

/// Lines to put into the file.
fn lines(title: impl Into<String>, why: impl Into<String>, snippet: impl Into<String>) -> Fix {
    Fix {
        title: title.into(),
        why: why.into(),
        snippet: Some(snippet.into()),
        ..Fix::default()
    }
}

/// What a section of `service` is called: `http_service` or `services`.
fn section(service: &Service) -> &'static str {
    match service.section {
        Section::HttpService => "http_service",
        Section::Services => "services",
    }
}

/// A service in a sentence.
fn named(service: &Service) -> String {
    let brackets = match service.section {
        Section::HttpService => "[http_service]",
        Section::Services => "[[services]]",
    };
    format!("{brackets} (line {}, port {})", service.line, service.port())
}

/// The groups whose machines serve `service`, by name.
fn serving<'a>(file: &'a FlyToml, service: &Service) -> Vec<&'a str> {
    let names = file.group_names().into_iter();
    names.filter(|name| service.served_by(name)).collect()
}

/// A TOML list of names.
fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("[{}]", quoted.join(", "))
}

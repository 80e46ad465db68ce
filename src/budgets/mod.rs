//! How many flows the NAT in front allows: known NATs from one data file, or numbers given.
//!
//! In: the text of `--nat-profile`. Out: a [`Budget`]. The figures, with their sources and dates, are in budgets.toml
//! beside this file; they change, so nothing else in the crate holds one.

use serde::Deserialize;

use crate::observation::nat::{Budget, Scope};
use crate::time::Span;

/// The data file.
const DATA: &str = include_str!("budgets.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    profile: Vec<Profile>,
}

/// One NAT whose limits are known.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What `--nat-profile` calls it.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// Concurrent flows that it allows in each scope.
    pub flows: u32,
    /// What it counts together.
    pub scope: Scope,
    /// How long it holds a flow's port after the connection has closed, in seconds.
    pub hold_seconds: u64,
    /// The figure is a common value, not the NAT's own documented one.
    #[serde(default)]
    pub assumed: bool,
    /// What gives more, in one sentence.
    pub more: String,
    /// Where the figures are from.
    pub source: String,
    /// When they were read there.
    pub date: String,
}

/// Every known NAT, in the file's order. The file is part of the program, and a test reads it.
pub fn profiles() -> Vec<Profile> {
    toml::from_str::<File>(DATA)
        .map(|f| f.profile)
        .unwrap_or_default()
}

/// Reads `--nat-profile`: a name of the data file, or `FLOWS[/SCOPE[/HOLD]]`.
pub fn parse(text: &str) -> Result<Budget, String> {
    let known = profiles();
    if let Some(p) = known.iter().find(|p| p.name == text) {
        return Ok(Budget {
            profile: p.name.clone(),
            title: p.title.clone(),
            flows: p.flows,
            scope: p.scope,
            hold: Span::from_secs(p.hold_seconds),
            assumed: p.assumed,
            more: p.more.clone(),
        });
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return numbers(text);
    }
    let names: Vec<&str> = known.iter().map(|p| p.name.as_str()).collect();
    let hint = crate::config::nearest(text, names.iter().copied())
        .map_or(String::new(), |near| format!("; did you mean {near}?"));
    Err(format!(
        "{text:?} is no NAT profile: expected one of {}, or numbers such as 1024/address/60s{hint}",
        names.join(", ")
    ))
}

fn numbers(text: &str) -> Result<Budget, String> {
    let wrong = |what: &str| {
        format!(
            "{text:?}: {what}; expected FLOWS[/destination|address|host[/HOLD]], such as 1024/address/60s"
        )
    };
    let mut parts = text.split('/');
    let flows = parts
        .next()
        .and_then(|n| n.parse::<u32>().ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| wrong("the flows are no number above 0"))?;
    let scope = match parts.next() {
        None | Some("host") => Scope::Host,
        Some("address") => Scope::Address,
        Some("destination") => Scope::Destination,
        Some(other) => return Err(wrong(&format!("{other:?} is no scope"))),
    };
    let hold = match parts.next() {
        None => Span::from_secs(60),
        Some(time) => crate::config::duration::parse(time).map_err(|e| wrong(&e))?,
    };
    if parts.next().is_some() {
        return Err(wrong("there is too much"));
    }
    Ok(Budget {
        profile: text.to_owned(),
        title: "the NAT in front".to_owned(),
        flows,
        scope,
        hold,
        assumed: false,
        more: "More external addresses or ports at that NAT give more.".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_file_is_whole() {
        let all = profiles();
        for name in [
            "fly-static-egress",
            "aws-nat-gateway",
            "gcp-cloud-nat",
            "gcp-cloud-nat-dynamic",
            "azure-lb",
            "azure-nat-gateway",
            "cgn",
        ] {
            let p = all
                .iter()
                .find(|p| p.name == name)
                .unwrap_or_else(|| panic!("{name} is missing"));
            assert!(p.flows > 0 && p.hold_seconds <= 600, "{p:?}");
            assert!(
                p.source.len() > 10 && p.date.len() == 7 && p.more.ends_with('.'),
                "{p:?}"
            );
            assert_eq!(parse(name).unwrap().flows, p.flows);
        }
        assert_eq!(parse("fly-static-egress").unwrap().flows, 1024);
    }

    #[test]
    fn numbers_are_read_and_nonsense_is_refused_by_name() {
        let b = parse("50/destination/2m").unwrap();
        assert_eq!(
            (b.flows, b.scope, b.hold),
            (50, Scope::Destination, Span::from_secs(120))
        );
        assert_eq!(parse("50").unwrap().scope, Scope::Host);
        for (text, word) in [
            ("0", "above 0"),
            ("50/moon", "no scope"),
            ("50/host/x", "duration"),
            ("50/host/1s/2", "too much"),
            ("99999999999", "above 0"),
            ("aws-nat-gatewy", "did you mean aws-nat-gateway?"),
            ("", "no NAT profile"),
        ] {
            assert!(
                parse(text).unwrap_err().contains(word),
                "{text}: {:?}",
                parse(text)
            );
        }
    }
}

//! A fly.toml: names of the app, its groups, checks and paths go; what the rules compare stays.

use super::addresses::Addresses;
use super::names::Names;
use crate::observation::fly_toml::{Check, FlyTomlFacts, Told};

/// Replaces what names somebody.
pub fn redact(addresses: &mut Addresses, names: &mut Names, facts: &mut FlyTomlFacts) {
    names.replace("file", &mut facts.path);
    addresses.socket(&mut facts.agent_listen);
    let file = &mut facts.file;
    if let Some(app) = &mut file.app {
        names.replace("app", app);
    }
    if let Some(told) = &mut file.agent_listen {
        addresses.socket(&mut told.value);
    }
    for group in &mut file.groups {
        names.replace("group", &mut group.name);
        group
            .listen
            .iter_mut()
            .for_each(|listen| addresses.socket(listen));
    }
    for service in &mut file.services {
        members(names, &mut service.groups);
        service.checks.iter_mut().for_each(|check| checked(names, check));
    }
    file.checks.iter_mut().for_each(|check| checked(names, check));
    for metrics in &mut file.metrics {
        members(names, &mut metrics.groups);
        path(metrics.path.as_mut());
    }
}

fn members(names: &mut Names, groups: &mut [Told<String>]) {
    for told in groups {
        names.replace("group", &mut told.value);
    }
}

fn checked(names: &mut Names, check: &mut Check) {
    members(names, &mut check.groups);
    path(check.path.as_mut());
    if let Some(name) = check
        .section
        .strip_prefix("[checks.")
        .and_then(|s| s.strip_suffix(']'))
    {
        let mut name = name.to_owned();
        names.replace("check", &mut name);
        check.section = format!("[checks.{name}]");
    }
}

/// Whether it begins with a slash is what is asked of it; `/metrics` everybody has.
fn path(path: Option<&mut Told<String>>) {
    if let Some(told) = path
        && told.value != "/metrics"
    {
        let kept = if told.value.starts_with('/') {
            "/path"
        } else {
            "path"
        };
        kept.clone_into(&mut told.value);
    }
}

//! fly.toml, Fly's description of an app: of it what concerns the network.
//!
//! In: the file's text. Out: [`FlyToml`], each value with its line. Both the old syntax (`[[services]]`, ports as text, times as
//! bare milliseconds, `concurrency = "20,25"`) and the new (`[http_service]`) are read, as flyctl does
//! (internal/appconfig/patches.go). Keys that are not read here may hold anything: Fly adds some every few months. Pure.

mod duration;
mod service;
mod value;

use std::net::SocketAddr;

use crate::observation::fly_toml::{Check, CheckKind, FlyToml, Group, Metrics, Runs, Told};
use toml::de::DeTable;
use value::{Table, Value};

/// Services, top-level checks, groups and metrics sections that are read, of each; apps have a handful.
pub const MAX_ITEMS: usize = 256;

/// A name, path or address longer than this is none that a finding could show.
const MAX_TEXT: usize = 256;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct FlyTomlError {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// What is wrong, and what was expected.
    pub what: String,
}

/// Reads `text`.
pub fn parse(text: &str) -> Result<FlyToml, FlyTomlError> {
    let lines = value::Lines::of(text);
    let parsed = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let what = error.message().trim().replace('\n', ", ");
        lines.error(at, what)
    })?;
    let root = Table::root(parsed.get_ref(), &lines);
    let mut left_out = 0;
    let mut file = FlyToml {
        app: root.text("app")?.map(|told| told.value),
        groups: groups(&root, &mut left_out)?,
        services: service::services(&root, &mut left_out)?,
        checks: top_level_checks(&root, &mut left_out)?,
        metrics: metrics(&root, &mut left_out)?,
        ..FlyToml::default()
    };
    environment(&root, &mut file)?;
    file.left_out = left_out;
    Ok(file)
}

/// `[processes]`. An old file may have an empty array there, or an array of empty tables.
fn groups(root: &Table<'_>, left_out: &mut u64) -> Result<Vec<Group>, FlyTomlError> {
    let Some(value) = root.get("processes") else {
        return Ok(Vec::new());
    };
    if value.is_array() {
        return Ok(Vec::new());
    }
    let table = value.table("a table of commands: [processes]")?;
    let mut groups = Vec::new();
    for (name, line, value) in table.entries() {
        if groups.len() == MAX_ITEMS {
            *left_out += 1;
            continue;
        }
        let (runs, listen) = runs(&value)?;
        groups.push(Group {
            name: shown(name),
            line,
            runs,
            listen,
        });
    }
    Ok(groups)
}

/// What a command starts, and where it lets the agent listen. It is not kept: people put secrets into commands.
fn runs(value: &Value<'_>) -> Result<(Runs, Option<SocketAddr>), FlyTomlError> {
    let words: Vec<String> = if value.is_array() {
        value
            .items()
            .map(|item| item.str("a word of the command, as text").map(str::to_owned))
            .collect::<Result<_, _>>()?
    } else {
        vec![value.str("a command, as text")?.to_owned()]
    };
    let command = words.join(" ");
    // A shell's separators begin a command of its own.
    let parts: Vec<&str> = command
        .split(['&', ';', '|', '\n'])
        .map(|part| part.trim().trim_matches(['"', '\'']).trim())
        .filter(|part| !part.is_empty())
        .collect();
    let is_agent = |part: &&str| {
        let mut words = part
            .split_whitespace()
            .map(|word| word.trim_matches(['"', '\'']))
            .skip_while(|word| {
                matches!(
                    *word,
                    "exec" | "sh" | "bash" | "/bin/sh" | "/bin/bash" | "-c" | "-lc" | "sudo" | "env"
                ) || word.contains('=')
            });
        let program = words.next().unwrap_or_default();
        program.rsplit('/').next() == Some("wgnat") && words.any(|word| word == "agent")
    };
    let agents = parts.iter().filter(|part| is_agent(part)).count();
    let listen = parts.iter().filter(|part| is_agent(part)).find_map(|part| {
        let mut words = part
            .split([' ', '\t', '='])
            .map(|word| word.trim_matches(['"', '\'']));
        words.find(|word| *word == "--listen")?;
        words.next()?.parse().ok()
    });
    let others = parts
        .iter()
        .filter(|part| !is_agent(part) && !matches!(**part, "wait"))
        .count();
    let runs = match (agents, others) {
        (0, _) => Runs::Other,
        (_, 0) => Runs::OnlyAgent,
        _ => Runs::WithAgent,
    };
    Ok((runs, listen))
}

/// `[checks.NAME]`, or an array of tables with a name each.
fn top_level_checks(root: &Table<'_>, left_out: &mut u64) -> Result<Vec<Check>, FlyTomlError> {
    let Some(value) = root.get("checks") else {
        return Ok(Vec::new());
    };
    let mut named: Vec<(String, Table<'_>)> = Vec::new();
    if value.is_array() {
        for item in value.items() {
            let table = item.table("a check: a table with a name")?;
            let name = table.text("name")?.map_or_else(String::new, |told| told.value);
            named.push((name, table));
        }
    } else {
        let table = value.table("a table of checks: [checks.NAME]")?;
        for (name, _, value) in table.entries() {
            named.push((shown(name), value.table("a check: [checks.NAME]")?));
        }
    }
    *left_out += named.len().saturating_sub(MAX_ITEMS) as u64;
    named
        .into_iter()
        .take(MAX_ITEMS)
        .map(|(name, table)| {
            let kind = match table.text("type")?.as_ref().map(|told| told.value.as_str()) {
                Some("http") => Some(CheckKind::Http),
                Some("tcp") => Some(CheckKind::Tcp),
                _ => None,
            };
            service::check(&table, &format!("[checks.{name}]"), kind)
        })
        .collect()
}

/// `[metrics]`, or several.
fn metrics(root: &Table<'_>, left_out: &mut u64) -> Result<Vec<Metrics>, FlyTomlError> {
    let Some(value) = root.get("metrics") else {
        return Ok(Vec::new());
    };
    let tables = value.tables("a table or tables: [metrics] or [[metrics]]")?;
    *left_out += tables.len().saturating_sub(MAX_ITEMS) as u64;
    tables
        .iter()
        .take(MAX_ITEMS)
        .map(|table| {
            Ok(Metrics {
                line: table.line,
                port: table.port("port")?,
                path: table.text("path")?,
                https: table.boolean("https")?,
                groups: table.texts("processes")?,
            })
        })
        .collect()
}

/// Of `[env]` only what is for wgnat: the rest is none of our business and may be secret.
fn environment(root: &Table<'_>, file: &mut FlyToml) -> Result<(), FlyTomlError> {
    let Some(value) = root.get("env") else {
        return Ok(());
    };
    // Old files may have an array of tables.
    for table in value.tables("a table of variables: [env]")? {
        file.env_for_agent |= table
            .entries()
            .iter()
            .any(|(name, _, _)| name.starts_with("WGNAT_"));
        let Some(value) = table.get("WGNAT_LISTEN") else {
            continue;
        };
        let expected = "an address and a port, such as \"[::]:9986\"";
        let listen = value.str(expected)?;
        file.agent_listen = Some(Told {
            value: listen.parse().map_err(|_| value.error(expected))?,
            line: value.line(),
        });
    }
    Ok(())
}

/// A text as findings may show it: bounded, and without what would break a line.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests;

//! `[http_service]` and `[[services]]`, with their ports, limits and checks.

use super::value::{Table, Value};
use super::{FlyTomlError, MAX_ITEMS};
use crate::observation::fly_toml::{Check, CheckKind, Concurrency, Ports, Section, Service, Told};

/// Outside ports and checks of one service that are read.
const MAX_PARTS: usize = 64;

/// Every service, in the file's order.
pub fn services(root: &Table<'_>, left_out: &mut u64) -> Result<Vec<Service>, FlyTomlError> {
    let mut services = Vec::new();
    if let Some(value) = root.get("http_service") {
        let table = value.table("a table: [http_service]")?;
        services.push(http_service(&table, left_out)?);
    }
    if let Some(value) = root.get("services") {
        for table in value.tables("tables: [[services]]")? {
            // flyctl passes over an empty section.
            if table.entries().is_empty() {
                continue;
            }
            if services.len() >= MAX_ITEMS {
                *left_out += 1;
                continue;
            }
            services.push(service(&table, left_out)?);
        }
    }
    services.sort_by_key(|service| service.line);
    Ok(services)
}

fn http_service(table: &Table<'_>, left_out: &mut u64) -> Result<Service, FlyTomlError> {
    let ports = [80, 443].map(|port| Ports {
        line: table.line,
        first: port,
        last: port,
        http: true,
    });
    Ok(Service {
        line: table.line,
        section: Section::HttpService,
        udp: false,
        internal_port: table.port("internal_port")?,
        ports: ports.to_vec(),
        concurrency: concurrency(table)?,
        checks: checks(
            table,
            "checks",
            "[[http_service.checks]]",
            CheckKind::Http,
            left_out,
        )?,
        groups: table.texts("processes")?,
    })
}

fn service(table: &Table<'_>, left_out: &mut u64) -> Result<Service, FlyTomlError> {
    let mut checks_of = |key, section, kind| checks(table, key, section, kind, left_out);
    let mut all = checks_of("tcp_checks", "[[services.tcp_checks]]", CheckKind::Tcp)?;
    all.extend(checks_of(
        "http_checks",
        "[[services.http_checks]]",
        CheckKind::Http,
    )?);
    all.sort_by_key(|check| check.line);
    let protocol = table.text("protocol")?;
    Ok(Service {
        line: table.line,
        section: Section::Services,
        udp: protocol.is_some_and(|told| told.value.eq_ignore_ascii_case("udp")),
        internal_port: table.port("internal_port")?,
        ports: ports(table, left_out)?,
        concurrency: concurrency(table)?,
        checks: all,
        groups: table.texts("processes")?,
    })
}

fn ports(service: &Table<'_>, left_out: &mut u64) -> Result<Vec<Ports>, FlyTomlError> {
    let Some(value) = service.get("ports") else {
        return Ok(Vec::new());
    };
    let tables = value.tables("tables: [[services.ports]]")?;
    *left_out += tables.len().saturating_sub(MAX_PARTS) as u64;
    let mut all = Vec::new();
    for table in tables.iter().take(MAX_PARTS) {
        let one = table.port("port")?;
        let (start, end) = (table.port("start_port")?, table.port("end_port")?);
        let (first, last) = match (one, start, end) {
            (Some(one), _, _) => (one.value, one.value),
            (None, Some(start), Some(end)) => (start.value, end.value),
            (None, Some(only), None) | (None, None, Some(only)) => (only.value, only.value),
            (None, None, None) => continue,
        };
        let handlers = table.texts("handlers")?;
        all.push(Ports {
            line: table.line,
            first,
            last,
            http: handlers.iter().any(|handler| handler.value == "http"),
        });
    }
    Ok(all)
}

fn concurrency(service: &Table<'_>) -> Result<Option<Concurrency>, FlyTomlError> {
    let Some(value) = service.get("concurrency") else {
        return Ok(None);
    };
    // Very old files: "SOFT,HARD", which flyctl takes for requests.
    if let Ok(text) = value.str("") {
        return old_concurrency(&value, text).map(Some);
    }
    let table = value.table("a table: [services.concurrency] or [http_service.concurrency]")?;
    let kind = table.text("type")?;
    Ok(Some(Concurrency {
        line: table.line,
        requests: kind.map(|told| Told {
            value: told.value.eq_ignore_ascii_case("requests"),
            line: told.line,
        }),
        soft: table.count("soft_limit")?,
        hard: table.count("hard_limit")?,
    }))
}

fn old_concurrency(value: &Value<'_>, text: &str) -> Result<Concurrency, FlyTomlError> {
    let wrong = || value.error("a table with soft_limit and hard_limit, or \"SOFT,HARD\"");
    let (soft, hard) = text.split_once(',').ok_or_else(wrong)?;
    let line = value.line();
    let limit = |text: &str| {
        let value = text.trim().parse().map_err(|_| wrong())?;
        Ok(Some(Told { value, line }))
    };
    Ok(Concurrency {
        line,
        requests: Some(Told { value: true, line }),
        soft: limit(soft)?,
        hard: limit(hard)?,
    })
}

fn checks(
    service: &Table<'_>,
    key: &'static str,
    section: &str,
    kind: CheckKind,
    left_out: &mut u64,
) -> Result<Vec<Check>, FlyTomlError> {
    let Some(value) = service.get(key) else {
        return Ok(Vec::new());
    };
    let tables = value.tables(&format!("tables: {section}"))?;
    *left_out += tables.len().saturating_sub(MAX_PARTS) as u64;
    tables
        .iter()
        .take(MAX_PARTS)
        .map(|table| check(table, section, Some(kind)))
        .collect()
}

/// One check.
pub fn check(table: &Table<'_>, section: &str, kind: Option<CheckKind>) -> Result<Check, FlyTomlError> {
    Ok(Check {
        line: table.line,
        section: section.to_owned(),
        kind,
        interval: table.wait("interval")?,
        timeout: table.wait("timeout")?,
        grace: table.wait("grace_period")?,
        path: table.text("path")?,
        port: table.port("port")?,
        groups: table.texts("processes")?,
    })
}

//! Documents that are made from history, anonymised: a report in `wgnat.report/1`'s form, and events.
//!
//! In: JSON. Out: JSON of the same form, in which stands only what is named here. Observations are anonymised before they are
//! judged, so that a report of them has whole sentences; what history keeps was judged with true names, and names in free
//! text cannot be found for certain. So titles, summaries and fixes are left out (the code says which they are), and of
//! evidence its numbers stay.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

use super::Anonymiser;
use crate::time::Timestamp;
use crate::types::PublicKey;

impl Anonymiser {
    /// A report that was made from history.
    pub fn report(&mut self, report: &Value) -> Value {
        let mut out = Map::new();
        // Of how wgnat saw, and when: nobody is named.
        for name in ["schema", "generated_at", "duration_seconds", "agent", "status"] {
            out.insert(name.to_owned(), report[name].clone());
        }
        out.insert("host".to_owned(), self.host_document(&report["host"]));
        for name in ["collectors", "not_checked", "checked_in_part"] {
            let rows = each(&report[name], |row| {
                let mut row = row.clone();
                if let Some(Value::String(reason)) = row.get_mut("reason") {
                    *reason = self.text(reason);
                }
                row
            });
            out.insert(name.to_owned(), rows);
        }
        for name in ["findings", "suppressed"] {
            let rows = each(&report[name], |finding| self.finding(finding));
            out.insert(name.to_owned(), rows);
        }
        out.insert("changes".to_owned(), self.changes(&report["changes"]));
        out.insert("period".to_owned(), self.period(&report["period"]));
        // The tables of a report from history are empty.
        for (name, empty) in [
            ("wireguard", json!({})),
            ("sockets", json!({})),
            ("conntrack", json!({})),
            ("nat", json!({})),
            ("paths", json!([])),
        ] {
            out.insert(name.to_owned(), empty);
        }
        Value::Object(out)
    }

    /// What happened: of each kind the fields that name nobody.
    pub fn event(&mut self, kind: &str, data: &Value) -> Value {
        let kept: &[&str] = match kind {
            "finding" => &["what", "code", "severity", "explained", "first_seen", "count"],
            "collector" => &["collector", "state"],
            "clock" => &["text"],
            "config" => &["ok", "needs_restart"],
            "store" => &["state"],
            "agent" => &["what", "version"],
            _ => &[],
        };
        let mut out = pick(data, kept);
        if let Some(about) = data.get("subject").and_then(Value::as_str) {
            out.insert("subject".to_owned(), self.about(about).into());
        }
        if let ("collector", Some(reason)) = (kind, data.get("reason").and_then(Value::as_str)) {
            out.insert("reason".to_owned(), self.text(reason).into());
        }
        Value::Object(out)
    }

    fn host_document(&mut self, host: &Value) -> Value {
        let mut out = pick(
            host,
            &["kernel", "boot_at", "cpus", "memory_bytes", "capabilities"],
        );
        for (name, kind) in [("hostname", "host"), ("netns", "netns")] {
            if let Some(text) = host.get(name).and_then(Value::as_str) {
                out.insert(name.to_owned(), self.named(kind, text).into());
            }
        }
        if let Some(fly) = host.get("fly").filter(|fly| fly.is_object()) {
            let mut machine = pick(fly, &["region"]);
            for (name, kind) in [("app", "app"), ("machine", "machine")] {
                if let Some(text) = fly.get(name).and_then(Value::as_str) {
                    machine.insert(name.to_owned(), self.named(kind, text).into());
                }
            }
            out.insert("fly".to_owned(), Value::Object(machine));
        }
        Value::Object(out)
    }

    fn finding(&mut self, finding: &Value) -> Value {
        const KEPT: [&str; 7] = [
            "code",
            "severity",
            "confidence",
            "first_seen",
            "last_seen",
            "count",
            "explained_by",
        ];
        let mut out = pick(finding, &KEPT);
        out.insert("title".to_owned(), finding["code"].clone());
        out.insert("subject".to_owned(), self.subject(&finding["subject"]));
        out.insert("evidence".to_owned(), self.value(&finding["evidence"]));
        Value::Object(out)
    }

    /// What a finding is about, field by field.
    fn subject(&mut self, subject: &Value) -> Value {
        let mut out = pick(subject, &["kind", "proto", "port", "line"]);
        let fields = subject.as_object().into_iter().flatten();
        for (name, value) in fields {
            let other = match (name.as_str(), value) {
                ("kind" | "proto" | "port" | "line", _) => continue,
                ("device" | "name", Value::String(device)) => {
                    let mut device = device.clone();
                    self.names.interface(&mut device);
                    Value::String(device)
                }
                ("process", Value::Object(_)) => self.process(value),
                (_, Value::String(text)) => self.one(text).into(),
                (_, Value::Null) => Value::Null,
                _ => continue,
            };
            out.insert(name.clone(), other);
        }
        Value::Object(out)
    }

    fn process(&mut self, process: &Value) -> Value {
        let mut out = pick(process, &["pid", "runtime"]);
        let text = |name: &str| process.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut comm = text("comm").unwrap_or_default();
        let mut exe = text("exe");
        self.names.process(&mut comm, exe.as_mut());
        out.insert("comm".to_owned(), comm.into());
        out.insert("exe".to_owned(), exe.map_or(Value::Null, Value::String));
        Value::Object(out)
    }

    fn changes(&mut self, changes: &Value) -> Value {
        let mut out = pick(changes, &["compared_with", "unchanged", "left_out"]);
        for kind in ["new", "worse", "better", "gone", "passed", "unclear"] {
            let rows = each(&changes[kind], |change| {
                self.change(change, &["severity", "severity_was", "since", "over_at"])
            });
            out.insert(kind.to_owned(), rows);
        }
        Value::Object(out)
    }

    fn change(&mut self, change: &Value, kept: &[&str]) -> Value {
        let mut out = pick(change, kept);
        out.insert("code".to_owned(), change["code"].clone());
        out.insert("title".to_owned(), change["code"].clone());
        if let Some(about) = change["about"].as_str() {
            out.insert("about".to_owned(), self.about(about).into());
        }
        Value::Object(out)
    }

    fn period(&mut self, period: &Value) -> Value {
        if !period.is_object() {
            return Value::Null;
        }
        let mut out = pick(
            period,
            &[
                "from",
                "to",
                "watched_seconds",
                "reaches",
                "stale",
                "gaps",
                "gaps_left_out",
                "unknown_findings",
            ],
        );
        let episodes = each(&period["episodes"], |episode| {
            self.change(episode, &["severity", "from", "to", "explained"])
        });
        out.insert("episodes".to_owned(), episodes);
        let trends = each(&period["trends"], |trend| {
            const KEPT: [&str; 9] = [
                "metric",
                "unit",
                "limit",
                "least",
                "mean",
                "greatest",
                "last",
                "step_seconds",
                "points",
            ];
            let mut out = pick(trend, &KEPT);
            let labels = trend["labels"].as_object().into_iter().flatten();
            let labels: BTreeMap<String, String> = labels
                .map(|(name, value)| (name.clone(), self.label(name, value.as_str().unwrap_or_default())))
                .collect();
            out.insert("labels".to_owned(), json!(labels));
            Value::Object(out)
        });
        out.insert("trends".to_owned(), trends);
        Value::Object(out)
    }

    fn label(&mut self, name: &str, value: &str) -> String {
        match (name, value) {
            // Words of our own, or the kernel's.
            ("state" | "proto" | "result" | "event" | "outcome" | "severity" | "code", _) | (_, "other") => {
                value.to_owned()
            }
            ("device", _) => {
                let mut device = value.to_owned();
                self.names.interface(&mut device);
                device
            }
            _ => self.one(value),
        }
    }

    /// What a finding is about as one text: the same text has the same replacement, and nothing else of it stays.
    fn about(&mut self, about: &str) -> String {
        match about {
            "host" | "conntrack" => about.to_owned(),
            _ => self.named("about", about),
        }
    }

    fn named(&mut self, kind: &'static str, text: &str) -> String {
        let mut name = text.to_owned();
        self.names.replace(kind, &mut name);
        name
    }

    /// Evidence: numbers stay, texts are replaced but for times, addresses become others.
    fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
            Value::String(text) => self.one(text).into(),
            Value::Array(members) => members.iter().map(|member| self.value(member)).collect(),
            Value::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| (name.clone(), self.value(value)));
                Value::Object(fields.collect())
            }
        }
    }

    /// One word: a time, an address, a key, or something that is somebody's.
    fn one(&mut self, text: &str) -> String {
        if text.parse::<Timestamp>().is_ok() {
            return text.to_owned();
        }
        if let Ok(mut key) = text.parse::<PublicKey>() {
            self.key(&mut key);
            return key.to_string();
        }
        if let Ok(mut ip) = text.parse::<IpAddr>() {
            self.addresses.ip(&mut ip);
            return ip.to_string();
        }
        if let Ok(mut address) = text.parse::<SocketAddr>() {
            self.addresses.socket(&mut address);
            return address.to_string();
        }
        // An errno is nobody's.
        let errno = text.starts_with('E') && text.len() <= 16 && text.bytes().all(|b| b.is_ascii_uppercase());
        if errno {
            text.to_owned()
        } else {
            self.named("text", text)
        }
    }
}

fn pick(from: &Value, names: &[&str]) -> Map<String, Value> {
    let present = names.iter().filter_map(|name| Some((*name, from.get(name)?)));
    present
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect()
}

fn each(rows: &Value, other: impl FnMut(&Value) -> Value) -> Value {
    rows.as_array().into_iter().flatten().map(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    #[test]
    fn nothing_that_names_somebody_stays() {
        let secret = [
            "acme",
            "203.0.113.9",
            "payments",
            KEY,
            "db7",
            "/opt",
            "zurich.example",
        ];
        let finding = json!({
            "code": "ports-low", "severity": "warning", "confidence": "likely",
            "title": "acme payments to 203.0.113.9", "summary": "acme", "impact": "acme", "fixes": [{"title": "acme"}],
            "candidates": [{"cause": "acme"}], "first_seen": "2026-01-01T00:00:00Z", "count": 3,
            "subject": {"kind": "destination", "proto": "tcp", "source": "203.0.113.9", "address": "203.0.113.9", "port": 443,
                        "process": {"pid": 7, "comm": "payments", "exe": "/opt/acme/payments", "runtime": "go"}},
            "evidence": {"in_use": 7, "name": "payments", "at": "2026-01-01T00:00:00Z", "errno": "EADDRNOTAVAIL",
                         "peers": [KEY, {"who": "zurich.example:80"}]},
            "added_later": "acme"
        });
        let change = json!({"code": "ports-low", "title": "acme", "about": "destination tcp - 203.0.113.9 443", "severity": "info"});
        let report = json!({
            "schema": "wgnat.report/1", "status": "warning", "agent": {"version": "1"},
            "host": {"hostname": "db7.acme", "kernel": "6.12", "fly": {"app": "payments", "region": "gru", "machine": "acme1"}},
            "collectors": [{"name": "capture", "reason": "cannot ask 203.0.113.9"}],
            "findings": [finding], "suppressed": [], "not_checked": [],
            "changes": {"new": [change.clone()], "gone": [], "unchanged": 1},
            "period": {"from": "2026-01-01T00:00:00Z", "episodes": [change], "trends": [
                {"metric": "m", "labels": {"public_key": KEY, "device": "acme", "destination": "203.0.113.9:443", "state": "up"},
                 "points": [[1, 2.0, 2.0, 2.0]]}]},
            "wireguard": {"devices": [{"name": "acme"}]}, "extra": "acme"
        });
        let mut anonymiser = Anonymiser::new([7; 32]);
        let out = anonymiser.report(&report);
        let event = anonymiser.event(
            "finding",
            &json!({"what": "began", "code": "ports-low", "subject": "destination tcp - 203.0.113.9 443", "title": "acme", "x": "acme"}),
        );
        let agent = anonymiser.event(
            "agent",
            &json!({"what": "watching", "host": {"hostname": "db7.acme"}}),
        );
        let text = format!("{out}{event}{agent}");
        for word in secret {
            assert!(!text.contains(word), "{word}: {out:#} {event:#} {agent:#}");
        }
        // What a diagnosis needs is still there.
        let finding = &out["findings"][0];
        assert_eq!(finding["evidence"]["in_use"], 7);
        assert_eq!(finding["evidence"]["errno"], "EADDRNOTAVAIL");
        assert_eq!(finding["subject"]["port"], 443);
        assert_eq!(finding["subject"]["address"], finding["subject"]["source"]);
        assert_eq!(out["period"]["trends"][0]["labels"]["state"], "up");
        assert_eq!(out["changes"]["new"][0]["about"], event["subject"]);
        assert_eq!(out["host"]["fly"]["region"], "gru");
        let address = finding["subject"]["address"].as_str().unwrap();
        let destination = out["period"]["trends"][0]["labels"]["destination"]
            .as_str()
            .unwrap();
        assert_eq!(
            destination,
            format!("{address}:443"),
            "the same address is the same everywhere"
        );
    }
}

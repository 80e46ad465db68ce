//! The last report, remembered: what held then, so that the next one can say what changed.
//!
//! In a small JSON file: beside the history where that directory can be written, else where systemd keeps state for its unit,
//! else in the user's own state directory (XDG), or where `--state` says. Written as a whole or not at all.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::deliver;
use crate::cli::ReportArgs;
use crate::cmd::input;
use crate::cmd::progress::Progress;
use crate::finding::Severity;
use crate::report::changes::{Basis, Before, Known, known};
use crate::report::{Report, Status, kept};
use crate::time::Timestamp;

/// What the file calls itself.
const SCHEMA: &str = "wgnat.report-state/1";
/// What every version of it calls itself: a file without it is somebody else's.
const OURS: &str = "wgnat.report-state/";
/// No state is larger: some two thousand findings of a few hundred bytes.
const LIMIT: usize = 4 * 1024 * 1024;
/// Findings that are remembered; what is beyond is new again each time.
const FINDINGS: usize = 5_000;

#[derive(Serialize, Deserialize)]
struct File {
    schema: String,
    /// When the report was made.
    at: Timestamp,
    /// Its verdict.
    status: String,
    findings: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    code: String,
    about: String,
    severity: String,
    title: String,
    since: Timestamp,
    #[serde(default)]
    explained: bool,
}

/// Where the last report is remembered.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// In this file.
    At(PathBuf),
    /// Nowhere, and why.
    Nowhere(String),
}

/// Where reports like this one are remembered.
pub fn place(named: Option<&Path>, store: Option<&Path>, args: &ReportArgs) -> Place {
    if let Some(path) = named {
        return Place::At(path.to_owned());
    }
    if let Some(store) = store {
        let mut beside = store.as_os_str().to_owned();
        beside.push(".report.json");
        let beside = PathBuf::from(beside);
        if access(deliver::directory(&beside), AccessFlags::W_OK).is_ok() {
            return Place::At(beside);
        }
    }
    let name = match store {
        Some(store) => {
            let whole = std::fs::canonicalize(store).unwrap_or_else(|_| store.to_owned());
            format!("report-{}.json", short(&whole.to_string_lossy()))
        }
        // Looks at different things are different reports.
        None => match (&args.netns, args.wg_config.as_slice()) {
            (None, []) => "report.json".to_owned(),
            (netns, files) => format!("report-{}.json", short(&format!("{netns:?} {files:?}"))),
        },
    };
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let systemd = set("STATE_DIRECTORY").and_then(|all| {
        let first = all.to_str()?.split(':').next()?.to_owned();
        Some(PathBuf::from(first))
    });
    let directory = systemd
        .or_else(|| Some(set("XDG_STATE_HOME").filter(|d| d.is_absolute())?.join("wgnat")))
        .or_else(|| Some(set("HOME")?.join(".local/state/wgnat")));
    match directory {
        Some(directory) => Place::At(directory.join(name)),
        None => Place::Nowhere("neither HOME nor XDG_STATE_HOME is set: name a file with --state".to_owned()),
    }
}

/// A name that is the same for the same text.
fn short(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// What the last report said; nothing where there was none. A file that is none of ours is refused, for it would be
/// overwritten; one of ours that is damaged is said to be, and counts as none.
pub fn load(path: &Path, progress: &mut Progress) -> anyhow::Result<Option<Before>> {
    let doing = || format!("state file {}", path.display());
    let text = match input::text(path, LIMIT) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(doing),
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    if !text.contains(OURS) {
        bail!(
            "state file {}: it is not one that wgnat report has written: name another with --state",
            path.display()
        );
    }
    let file: File = match serde_json::from_str(&text) {
        Ok(file) => file,
        Err(error) => {
            progress.note(&format!(
                "state file {}: damaged at line {}, column {}: this report is compared with none, and takes its place",
                path.display(),
                error.line(),
                error.column()
            ));
            return Ok(None);
        }
    };
    if file.schema != SCHEMA {
        bail!(
            "state file {}: its schema is {:?}, and this wgnat knows {SCHEMA}: use the newer wgnat, or another --state",
            path.display(),
            crate::output::clean::line(&file.schema)
        );
    }
    let statuses = [Status::Ok, Status::Warning, Status::Critical, Status::Unknown];
    Ok(Some(Before {
        basis: Basis::Report,
        at: file.at,
        status: statuses.into_iter().find(|s| s.name() == file.status),
        findings: file.findings.into_iter().take(FINDINGS).map(Row::known).collect(),
    }))
}

impl Row {
    fn known(self) -> Known {
        Known {
            severity: kept::severity(&self.severity).unwrap_or(Severity::Info),
            code: self.code,
            about: self.about,
            title: self.title,
            since: self.since,
            explained: self.explained,
        }
    }
}

/// Remembers `report` as the last one. What could not be looked at is remembered as it was before.
pub fn save(path: &Path, report: &Report) -> anyhow::Result<()> {
    let unclear = report.changes.iter().flat_map(|changes| &changes.unclear);
    let findings = known(report).into_iter().chain(unclear.map(|c| c.known.clone()));
    let file = File {
        schema: SCHEMA.to_owned(),
        at: report.generated_at.millis(),
        status: report.status.name().to_owned(),
        findings: findings
            .take(FINDINGS)
            .map(|known| Row {
                code: known.code,
                about: known.about,
                severity: known.severity.name().to_owned(),
                title: known.title,
                since: known.since.millis(),
                explained: known.explained,
            })
            .collect(),
    };
    let doing = || {
        format!(
            "this report cannot be remembered as the last one in {}",
            path.display()
        )
    };
    std::fs::create_dir_all(deliver::directory(path)).with_context(doing)?;
    let mut text = serde_json::to_vec_pretty(&file).with_context(doing)?;
    text.push(b'\n');
    deliver::replace(path, &text, 0o600).with_context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn progress() -> Progress {
        Progress::new(true)
    }

    #[test]
    fn what_is_saved_is_what_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/state.json");
        assert!(load(&path, &mut progress()).unwrap().is_none());
        let report = sample::ports_exhausted();
        save(&path, &report).unwrap();
        let before = load(&path, &mut progress()).unwrap().unwrap();
        assert_eq!(before.status, Some(report.status));
        let seen = |k: &Known| (k.code.clone(), k.about.clone(), k.severity, k.explained);
        assert_eq!(
            before.findings.iter().map(seen).collect::<Vec<_>>(),
            known(&report).iter().map(seen).collect::<Vec<_>>()
        );
        // The same report again has nothing new.
        assert!(!crate::report::changes::compare(&report, Some(&before), &[]).any());
    }

    #[test]
    fn somebody_elses_file_is_left_alone_and_a_damaged_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        std::fs::write(&path, "root:x:0:0:root:/root:/bin/bash\n").unwrap();
        let error = load(&path, &mut progress()).unwrap_err().to_string();
        assert!(error.contains("not one that wgnat report has written"), "{error}");
        assert!(!error.contains("root:x"), "{error}");
        std::fs::write(&path, "{\"schema\": \"wgnat.report-state/1\", \"at\"").unwrap();
        assert!(load(&path, &mut progress()).unwrap().is_none());
        std::fs::write(
            &path,
            "{\"schema\":\"wgnat.report-state/2\",\"at\":\"2026-01-01T00:00:00Z\",\"status\":\"ok\",\"findings\":[]}",
        )
        .unwrap();
        let error = load(&path, &mut progress()).unwrap_err().to_string();
        assert!(error.contains("report-state/2"), "{error}");
        std::fs::write(&path, "").unwrap();
        assert!(load(&path, &mut progress()).unwrap().is_none());
        let error = load(directory.path(), &mut progress()).unwrap_err();
        assert!(format!("{error:#}").contains("directory"), "{error:#}");
    }
}

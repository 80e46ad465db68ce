//! `--bundle FILE`: an archive to share, of the report, what happened, what was observed, and the versions.
//!
//! Anonymous unless that was not wanted; private keys are in none of it, for no observation and no report holds one. What is in
//! it is listed before it is written.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::look::Shared;
use super::{Made, deliver};
use crate::cmd::print;
use crate::observation::log;
use crate::output::{human, json as output};
use crate::report::Report;
use crate::store;
use crate::time::Timestamp;

/// Where a bundle goes.
pub struct Bundle {
    /// `None` is standard output.
    path: Option<PathBuf>,
}

/// A file of the archive.
struct Part {
    name: &'static str,
    what: &'static str,
    bytes: Vec<u8>,
}

impl Bundle {
    /// At `path`; `-` is standard output.
    pub fn at(path: &Path) -> anyhow::Result<Self> {
        if path.is_dir() {
            bail!(
                "--bundle {}: it is a directory: expected a file's name, such as bundle.tar.gz",
                path.display()
            );
        }
        Ok(Self {
            path: (path != Path::new("-")).then(|| path.to_owned()),
        })
    }

    /// Whether it takes standard output.
    pub const fn is_stdout(&self) -> bool {
        self.path.is_none()
    }

    /// Lists what is in it, then writes it.
    pub fn write(&self, made: &Made, shared: Shared, quiet: bool) -> anyhow::Result<()> {
        let anonymous = shared.anonymiser.is_some();
        let parts = parts(made, shared)?;
        if !quiet {
            let mut list = std::io::stderr().lock();
            let _ = writeln!(list, "{}", listing(self.path.as_deref(), &parts, anonymous));
        }
        let bytes = archive(&parts, made.report.generated_at).context("cannot make the bundle")?;
        match &self.path {
            Some(path) => deliver::replace(path, &bytes, 0o600),
            None => print(&bytes),
        }
    }
}

fn listing(path: Option<&Path>, parts: &[Part], anonymous: bool) -> String {
    let to = path.map_or_else(|| "standard output".to_owned(), |p| p.display().to_string());
    let how = if anonymous {
        "anonymised: addresses, names and keys are replaced"
    } else {
        "NOT anonymised: it holds addresses, host and process names and public keys"
    };
    let mut text = format!("wgnat: the bundle {to} ({how}) holds");
    for part in parts {
        let size = human::bytes(part.bytes.len() as u64);
        text.push_str(&format!("\n  {:<19} {size:>9}  {}", part.name, part.what));
    }
    text
}

fn parts(made: &Made, shared: Shared) -> anyhow::Result<Vec<Part>> {
    let Shared {
        report: looked,
        record,
        mut anonymiser,
        incomplete,
    } = shared;
    let from_history = made.report.period.is_some();
    let report = match (&mut anonymiser, from_history) {
        // It was judged with replaced names, so it is whole; what changed is told of true ones.
        (Some(anonymiser), false) => {
            let mut own = document(&looked)?;
            let changes = anonymiser.report(&document(&made.report)?)["changes"].take();
            own["changes"] = changes;
            own
        }
        (Some(anonymiser), true) => anonymiser.report(&document(&made.report)?),
        (None, _) => document(&made.report)?,
    };
    let mut parts = vec![Part {
        name: "report.json",
        what: "the report (wgnat.report/1)",
        bytes: pretty(&report)?,
    }];
    if from_history {
        let mut lines = Vec::new();
        for event in &made.events {
            let data = match &mut anonymiser {
                Some(anonymiser) => anonymiser.event(&event.kind, &event.data),
                None => event.data.clone(),
            };
            let line = json!({ "at": event.at.millis(), "kind": event.kind, "data": data });
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        parts.push(Part {
            name: "events.jsonl",
            what: "what happened in this time, from history",
            bytes: lines,
        });
        parts.push(Part {
            name: "look.json",
            what: "the report of a look just now",
            bytes: pretty(&document(&looked)?)?,
        });
    }
    parts.push(Part {
        name: "observations.jsonl",
        what: "what was observed (wgnat doctor --replay reads it)",
        bytes: record,
    });
    parts.push(Part {
        name: "versions.json",
        what: "versions of wgnat, its formats and the kernel",
        bytes: pretty(&versions(&looked, anonymiser.is_some(), incomplete.as_deref()))?,
    });
    let readme = readme(&parts, anonymiser.is_some());
    parts.insert(
        0,
        Part {
            name: "README.txt",
            what: "what is what",
            bytes: readme.into_bytes(),
        },
    );
    Ok(parts)
}

fn document(report: &Report) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(output::v1::Report::from(report))?)
}

fn pretty(value: &Value) -> anyhow::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn versions(looked: &Report, anonymised: bool, incomplete: Option<&str>) -> Value {
    json!({
        "wgnat": env!("CARGO_PKG_VERSION"),
        "report": "wgnat.report/1",
        "record": log::VERSION,
        "history": store::VERSION,
        "kernel": looked.host.as_ref().map(|host| host.kernel.clone()),
        "architecture": std::env::consts::ARCH,
        "anonymised": anonymised,
        "observations_incomplete": incomplete,
    })
}

fn readme(parts: &[Part], anonymous: bool) -> String {
    let mut text = String::from("A bundle of wgnat report --bundle.\n\n");
    for part in parts {
        text.push_str(&format!("{:<19} {}\n", part.name, part.what));
    }
    text.push_str(if anonymous {
        "\nAddresses, keys and names were replaced: the same one by the same other one, in all files. Prefixes stay\n\
         prefixes and private ranges stay private. What history kept in words (titles, fixes) was left out, for a name in a\n\
         sentence cannot be found for certain; the codes say what it was (wgnat explain CODE).\n"
    } else {
        "\nNothing was replaced: addresses, host and process names and public keys are as they are.\n"
    });
    text.push_str("There is no private and no preshared key in it.\n");
    text
}

fn archive(parts: &[Part], at: Timestamp) -> std::io::Result<Vec<u8>> {
    let seconds = u64::try_from(at.as_nanos() / 1_000_000_000).unwrap_or(0);
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for part in parts {
        let mut header = tar::Header::new_ustar();
        header.set_size(part.bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(seconds);
        archive.append_data(
            &mut header,
            format!("wgnat-bundle/{}", part.name),
            part.bytes.as_slice(),
        )?;
    }
    archive.into_inner()?.finish()
}

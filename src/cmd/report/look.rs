//! A fresh sample: the look that doctor takes, and for a bundle its record.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;

use crate::cli::{Doctor, ReportArgs};
use crate::cmd::doctor;
use crate::cmd::progress::Progress;
use crate::cmd::record::Recorder;
use crate::cmd::watch::Judged;
use crate::config::Settings;
use crate::redact::Anonymiser;
use crate::report::Report;
use crate::sys::random;
use crate::time::Timestamp;

/// No record is larger; what does not fit ends it, and that is said in it by its missing end.
const RECORD: usize = 32 * 1024 * 1024;

/// What came of the look.
pub struct Looked {
    /// The report, with true names.
    pub report: Report,
    /// What a bundle holds of it.
    pub shared: Shared,
}

/// What may be shared: anonymous, unless that was not wanted.
pub struct Shared {
    /// The same report.
    pub report: Report,
    /// The observations, as `--replay` reads them; empty where none were recorded.
    pub record: Vec<u8>,
    /// Knows what was replaced by what; `None` where nothing was.
    pub anonymiser: Option<Anonymiser>,
    /// Why the record is incomplete, where it is.
    pub incomplete: Option<String>,
}

/// Looks.
pub fn take(
    args: &ReportArgs,
    settings: &Settings,
    record: bool,
    anonymous: bool,
    progress: &mut Progress,
) -> anyhow::Result<Looked> {
    let wanted = Doctor {
        netns: args.netns.clone(),
        target: args.target.clone(),
        no_bpf: args.no_bpf,
        peers: args.peers.clone(),
        no_probe: args.no_probe,
        // What lies where cron happens to run is no part of this host's health.
        no_fly_toml: true,
        ..Doctor::default()
    };
    let anonymiser = if anonymous {
        Some(Anonymiser::new(random::key()?))
    } else {
        None
    };
    let kept = Kept::default();
    let sink = kept.clone();
    let recorder = |started: Timestamp| {
        if !record {
            return Ok(None);
        }
        let name = Path::new("observations.jsonl");
        Recorder::to(Box::new(sink), name, started, anonymous).map(Some)
    };
    let judged = doctor::live(&wanted, settings, anonymiser, recorder, progress)?;
    let Judged {
        world,
        original,
        anonymiser,
        record_error,
    } = judged;
    let shared = doctor::report_of(&world, settings);
    let report = doctor::report_of(original.as_ref().unwrap_or(&world), settings);
    Ok(Looked {
        report,
        shared: Shared {
            report: shared,
            record: kept.take(),
            anonymiser,
            incomplete: record_error.map(|error| format!("{error:#}")),
        },
    })
}

/// What is written, in memory, up to [`RECORD`].
#[derive(Clone, Default)]
struct Kept(Rc<RefCell<Vec<u8>>>);

impl Kept {
    fn take(&self) -> Vec<u8> {
        self.0.take()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.borrow_mut();
        if kept.len() + bytes.len() > RECORD {
            let text = format!("more than {} MiB were observed", RECORD / 1024 / 1024);
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

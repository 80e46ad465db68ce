//! `--record` and `--replay` on files.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::input::Input;
use super::watch::Judged;
use crate::observation::Observation;
use crate::observation::log::{self, Header};
use crate::redact::Anonymiser;
use crate::time::Timestamp;
use crate::track::World;

/// A record under way. A failure to write (a full disk) ends the record, not the diagnosis.
pub struct Recorder {
    path: PathBuf,
    state: Result<log::Writer<Box<dyn Write>>, io::Error>,
}

impl Recorder {
    /// Creates `path`, readable by its owner only, also where it was there before: a record names addresses and processes.
    pub fn create(path: &Path, started: Timestamp, anonymised: bool) -> anyhow::Result<Self> {
        let doing = || format!("cannot write the record {}", path.display());
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .with_context(doing)?;
        if file.metadata().with_context(doing)?.is_file() {
            file.set_permissions(Permissions::from_mode(0o600))
                .with_context(doing)?;
        }
        Self::to(Box::new(BufWriter::new(file)), path, started, anonymised)
    }

    /// Records to `out`, which is called `path` where it fails.
    pub fn to(
        out: Box<dyn Write>,
        path: &Path,
        started: Timestamp,
        anonymised: bool,
    ) -> anyhow::Result<Self> {
        let header = Header {
            wgnat_record: log::VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            anonymised,
        };
        let writer = log::Writer::begin(out, &header)
            .with_context(|| format!("cannot write the record {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            state: Ok(writer),
        })
    }

    /// Adds an observation.
    pub fn write(&mut self, observation: &Observation) {
        if let Ok(writer) = &mut self.state
            && let Err(error) = writer.write(observation)
        {
            self.state = Err(error);
        }
    }

    /// Ends the record; says where it failed.
    pub fn end(self, end: Timestamp) -> anyhow::Result<()> {
        let path = self.path;
        self.state
            .and_then(|writer| writer.end(end))
            .with_context(|| format!("the record {} is incomplete", path.display()))
    }
}

/// Diagnoses a record. The second value is a note where the record was cut short.
pub fn replay(path: &Path, mut anonymiser: Option<Anonymiser>) -> anyhow::Result<(Judged, Option<String>)> {
    let doing = || format!("cannot replay {}", path.display());
    let file = Input::open(path).with_context(doing)?;
    let world = std::cell::RefCell::new(None);
    let (header, end) = log::read(
        BufReader::new(file),
        |header| *world.borrow_mut() = Some(World::new(header.started)),
        |observation| {
            if let Some(world) = world.borrow_mut().as_mut() {
                let anonymous = anonymiser.as_mut().map(|a| a.observation(observation));
                let observation = anonymous.as_ref().unwrap_or(observation);
                world.apply(observation);
                // Answered by what the record holds next; asked as when it was made, for that decides what is forgotten.
                world.requests_after(observation);
            }
        },
    )
    .with_context(doing)?;
    let mut world = world.into_inner().unwrap_or_else(|| World::new(header.started));
    let note = end.is_none().then(|| {
        format!(
            "the record {} was cut short; its last observation is from {}",
            path.display(),
            world.now
        )
    });
    world.handle_timeout(end.unwrap_or(world.now));
    Ok((
        Judged {
            world,
            original: None,
            anonymiser: None,
            record_error: None,
        },
        note,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_over_an_older_file_is_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        std::fs::write(&path, "older").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let recorder = Recorder::create(&path, Timestamp::EPOCH, false).unwrap();
        recorder.end(Timestamp::EPOCH).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&path).unwrap().contains("older"));
    }
}

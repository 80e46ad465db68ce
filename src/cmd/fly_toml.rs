//! Which fly.toml a command looks at: the one that is named, else the one in the working directory, where there is one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::input;
use super::observers::opener;
use crate::observation::Source;
use crate::observation::fly_toml::FlyTomlFacts;
use crate::observe::fly_toml::FlyTomlObserver;
use crate::observe::supervisor::Opener;
use crate::wire::fly_toml;

/// No fly.toml is larger; files with hundreds of services have some tens of KiB.
const LIMIT: usize = 1024 * 1024;

/// What is looked for where none is named.
const HERE: &str = "fly.toml";

/// What came of it.
pub type Read = Result<FlyTomlFacts, String>;

/// The file that was named; an error says which line is wrong, and what was expected.
pub fn named(path: &Path, agent_listen: SocketAddr) -> anyhow::Result<Read> {
    facts(path, true, agent_listen).map(Ok)
}

/// The file in the working directory. Where it is no use, that is a remark and no error: nobody asked for it.
pub fn here(agent_listen: SocketAddr) -> Option<Read> {
    let path = Path::new(HERE);
    let is_file = std::fs::metadata(path).is_ok_and(|meta| meta.is_file());
    is_file.then(|| facts(path, false, agent_listen).map_err(|error| format!("{error:#}")))
}

fn facts(path: &Path, named: bool, agent_listen: SocketAddr) -> anyhow::Result<FlyTomlFacts> {
    let doing = || path.display().to_string();
    let text = input::text(path, LIMIT).with_context(doing)?;
    Ok(FlyTomlFacts {
        path: doing(),
        named,
        agent_listen,
        file: fly_toml::parse(&text).with_context(doing)?,
    })
}

/// The observer of it.
pub fn observer(read: Read) -> (Source, Opener) {
    (
        Source::FlyToml,
        opener(move || Ok(FlyTomlObserver::new(read.clone()))),
    )
}

/// For the agent: only what is named.
pub fn of_agent(path: Option<&PathBuf>, agent_listen: SocketAddr) -> anyhow::Result<Option<Read>> {
    path.map(|path| named(path, agent_listen)).transpose()
}

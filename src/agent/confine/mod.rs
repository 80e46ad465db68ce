//! Least privilege: what the agent gives up once it has what it needs, and what is in force.
//!
//! In: [`Wanted`]. Out: [`Confinement`], which each thread applies to itself as its [`Role`] asks. Why by thread: Linux keeps
//! capabilities, Landlock and seccomp by thread, and what each observer needs differs. It is a defence in depth against
//! a bug that lets a stranger make system calls; threads share memory, so it is no wall between them.
//!
//! What a role may be refused is refused with an error, never by a kill: an agent that is told EPERM goes on and says so.

mod calls;
mod files;
mod needs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, User, setgid, setgroups, setuid};

pub use needs::capabilities;

use crate::observation::Source;
use crate::observe::supervisor::Opener;
use crate::observe::{ObserveError, Observer};
use crate::sys::caps;

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Talks to strangers.
    Http,
    /// Writes history.
    Store,
    /// Looks at one source.
    Observer(Source),
}

/// What the confinement is to allow.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Sources that are observed.
    pub sources: Vec<Source>,
    /// Whether another user than root runs it.
    pub other_user: bool,
    /// Directories of files that are read again later: the configuration, wg-quick files, the token.
    pub read: Vec<PathBuf>,
    /// The history's directory.
    pub write: Option<PathBuf>,
    /// What observers are to reach beyond this host; whoever is not named reaches nothing.
    pub reach: BTreeMap<Source, Reach>,
}

/// What an observer is to reach by TCP. Landlock knows ports, not addresses; it has no say over UDP and ICMP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// To these ports.
    pub ports: Vec<u16>,
    /// Names, by the system's resolver.
    pub resolve: bool,
}

/// What is in force.
#[derive(Clone)]
pub struct Confinement {
    wanted: Wanted,
    files: Option<Arc<files::Files>>,
    calls: Option<Arc<calls::Calls>>,
    caps: bool,
    in_force: Vec<(&'static str, bool)>,
    missing: Vec<String>,
}

impl Confinement {
    /// None at all.
    pub fn off() -> Self {
        Self {
            wanted: Wanted::default(),
            files: None,
            calls: None,
            caps: false,
            in_force: ["capabilities", "no_new_privs", "landlock", "seccomp"]
                .map(|name| (name, false))
                .into(),
            missing: Vec::new(),
        }
    }

    /// Confines the calling thread, and with it all that it starts, to what the whole agent needs. Threads then confine
    /// themselves further by [`Confinement::apply`]. What cannot be had is in [`Confinement::missing`].
    pub fn begin(wanted: Wanted) -> Self {
        let mut confinement = Self {
            wanted,
            ..Self::off()
        };
        let caps = confinement.give_up_capabilities();
        confinement.caps = confinement.note("capabilities", caps).is_some();
        let no_new = prctl::set_no_new_privs().context("PR_SET_NO_NEW_PRIVS");
        confinement.note("no_new_privs", no_new);
        let secrets = no_memory_to_others();
        if let Err(error) = secrets {
            confinement
                .missing
                .push(format!("core dumps are not off: {error:#}"));
        }
        let files = files::Files::new(&confinement.wanted, &Reach::default());
        confinement.files = confinement.note("landlock", files).map(Arc::new);
        let calls = calls::Calls::new(&confinement.wanted).and_then(|calls| {
            calls.apply_to_all()?;
            Ok(calls)
        });
        confinement.calls = confinement.note("seccomp", calls).map(Arc::new);
        confinement
    }

    fn note<T>(&mut self, name: &'static str, done: anyhow::Result<T>) -> Option<T> {
        match done {
            Ok(value) => {
                for (known, holds) in &mut self.in_force {
                    *holds |= *known == name;
                }
                Some(value)
            }
            Err(error) => {
                self.missing.push(format!("{name}: {error:#}"));
                None
            }
        }
    }

    fn give_up_capabilities(&self) -> anyhow::Result<()> {
        let names = self.all_capabilities();
        // Without CAP_SETPCAP the bounding set stays; nothing is executed anyway.
        if let Err(error) = caps::bound_to(&names) {
            tracing::debug!("the capabilities' bounding set stays as it is: {error}");
        }
        caps::keep(&names).context("giving up capabilities")
    }

    fn capabilities(&self, source: Source) -> &'static [&'static str] {
        let bpf = self.wanted.sources.contains(&Source::Bpf);
        capabilities(source, self.wanted.other_user, bpf)
    }

    fn all_capabilities(&self) -> Vec<&'static str> {
        let sources = self.wanted.sources.iter();
        let mut names: Vec<_> = sources
            .flat_map(|source| self.capabilities(*source).iter().copied())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Confines the calling thread to what its role needs.
    pub fn apply(&self, role: Role) -> anyhow::Result<()> {
        if self.caps {
            let names: &[&str] = match role {
                Role::Observer(source) => self.capabilities(source),
                Role::Http | Role::Store => &[],
            };
            caps::keep(names).context("giving up capabilities")?;
        }
        if let Some(files) = &self.files
            && !needs::looks_into_processes(role)
        {
            let reach = match role {
                Role::Observer(source) => self.wanted.reach.get(&source),
                Role::Http | Role::Store => None,
            };
            match reach.filter(|reach| **reach != Reach::default()) {
                Some(reach) => files::Files::new(&self.wanted, reach)?.apply()?,
                None => files.apply()?,
            }
        }
        if let Some(calls) = &self.calls {
            calls.apply(role)?;
        }
        Ok(())
    }

    /// What the observer of `source` is to reach from its next start on.
    pub fn set_reach(&mut self, source: Source, reach: Reach) {
        self.wanted.reach.insert(source, reach);
    }

    /// Observers that confine themselves before they open anything, at each start.
    pub fn wrap(&self, observers: Vec<(Source, Opener)>) -> Vec<(Source, Opener)> {
        let wrap = |(source, opener)| (source, self.wrap_one(source, opener));
        observers.into_iter().map(wrap).collect()
    }

    /// See [`Confinement::wrap`].
    pub fn wrap_one(&self, source: Source, opener: Opener) -> Opener {
        let confinement = self.clone();
        Arc::new(move || -> Result<Box<dyn Observer>, ObserveError> {
            confinement
                .apply(Role::Observer(source))
                .map_err(|error| ObserveError::System {
                    doing: format!("confining the observer ({error:#})"),
                    source: std::io::Error::other("it does not run unconfined"),
                })?;
            opener()
        })
    }

    /// What is in force, by name.
    pub fn in_force(&self) -> &[(&'static str, bool)] {
        &self.in_force
    }

    /// What could not be had, and why.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// In a sentence, for the log.
    pub fn describe(&self) -> String {
        let in_force = self.in_force.iter().filter(|(_, holds)| *holds);
        let names: Vec<_> = in_force.map(|(name, _)| *name).collect();
        let kept = self.all_capabilities();
        let kept = if kept.is_empty() {
            "none".to_owned()
        } else {
            kept.join(", ")
        };
        if names.is_empty() {
            return "not confined".to_owned();
        }
        format!(
            "confined by {}; capabilities kept: {kept}, by each thread only its own; files: all threads but the loop and \
             the observers that look into other processes (processes, wireguard-uapi, bpf)",
            names.join(", ")
        )
    }
}

/// Becomes `name`, with all capabilities kept for now.
pub fn become_user(name: &str) -> anyhow::Result<()> {
    let user = User::from_name(name)
        .with_context(|| format!("looking up the user {name:?}"))?
        .with_context(|| format!("there is no user {name:?} on this host"))?;
    let doing = || format!("becoming the user {name:?} (needs CAP_SETUID and CAP_SETGID)");
    if user.uid == Uid::effective() && user.gid == Gid::effective() {
        return Ok(());
    }
    prctl::set_keepcaps(true).with_context(doing)?;
    setgroups(&[user.gid]).with_context(doing)?;
    setgid(user.gid).with_context(doing)?;
    setuid(user.uid).with_context(doing)?;
    Ok(())
}

/// No core dump, and no other process of this user may read our memory: it holds keys.
pub fn no_memory_to_others() -> anyhow::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("RLIMIT_CORE")?;
    prctl::set_dumpable(false).context("PR_SET_DUMPABLE")?;
    Ok(())
}

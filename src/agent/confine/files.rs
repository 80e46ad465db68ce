//! Which files may be opened: Landlock.
//!
//! `/proc` and `/sys` for reading, the directories of the configuration, the history's directory for writing, what a
//! resolver needs where names are resolved. Of `/run` the names alone, so that a WireGuard daemon that starts later is found.
//! Nothing may be executed; no TCP connection may be begun but by an observer that is to ask others, to the ports that its
//! configuration names, and no port be bound (ours is bound already).

use std::path::Path;

use anyhow::{Context as _, bail};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, make_bitflags,
};

use super::{Reach, Wanted};
use crate::observation::Source;

/// What a resolver reads.
const RESOLVER: [&str; 8] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/usr/lib",
    "/lib",
    "/lib64",
];

/// Answers that do not fit a datagram are asked for again by TCP (RFC 7766).
const DNS: u16 = 53;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const WRITE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | MakeReg | RemoveFile | Truncate});

/// The rules, ready to be applied.
pub struct Files(RulesetCreated);

impl Files {
    /// For whoever is to reach `reach` beyond this host. Errors where this kernel has no Landlock.
    pub fn new(wanted: &Wanted, reach: &Reach) -> anyhow::Result<Self> {
        let handled = AccessFs::from_all(ABI::V5);
        // The first version must be there; what later ones add is taken where it is.
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V1))
            .context("this kernel has no Landlock")?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(handled)?
            .handle_access(AccessNet::from_all(ABI::V4))?
            .create()
            .context("this kernel has no Landlock, or it is off")?;
        for place in [
            "/proc",
            "/sys/module",
            "/sys/class/net",
            "/dev/urandom",
            "/dev/null",
        ] {
            rules = allow(rules, place.as_ref(), READ)?;
        }
        if wanted.sources.contains(&Source::Bpf) {
            rules = allow(rules, "/sys/kernel".as_ref(), READ)?;
        }
        if wanted.sources.contains(&Source::KernelLog) {
            rules = allow(rules, "/dev/kmsg".as_ref(), READ)?;
        }
        for place in ["/run", "/var/run"] {
            rules = allow(rules, place.as_ref(), AccessFs::ReadDir.into())?;
        }
        for place in &wanted.read {
            rules = allow(rules, place, READ)?;
        }
        if let Some(place) = &wanted.write {
            rules = allow(rules, place, WRITE)?;
        }
        for port in &reach.ports {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        if reach.resolve {
            for place in RESOLVER {
                rules = allow(rules, place.as_ref(), READ)?;
            }
            rules = rules.add_rule(NetPort::new(DNS, AccessNet::ConnectTcp))?;
        }
        Ok(Self(rules))
    }

    /// Confines the calling thread.
    pub fn apply(&self) -> anyhow::Result<()> {
        // The clone is the same rules to the kernel: none may be added to it for one thread.
        let rules = self.0.try_clone().context("Landlock's rules")?;
        let status = rules.restrict_self().context("Landlock")?;
        if status.ruleset == RulesetStatus::NotEnforced {
            bail!("Landlock is not in force");
        }
        Ok(())
    }
}

/// What is not there cannot be opened, and needs no rule.
fn allow(rules: RulesetCreated, place: &Path, access: BitFlags<AccessFs>) -> anyhow::Result<RulesetCreated> {
    let Ok(file) = PathFd::new(place) else {
        return Ok(rules);
    };
    // Rights to a directory's entries make no sense for a file.
    let access = if place.is_dir() {
        access
    } else {
        access & AccessFs::from_file(ABI::V5)
    };
    Ok(rules.add_rule(PathBeneath::new(file, access))?)
}

//! The findings catalogue: one rule a file, one const table, one evaluation.
//!
//! In: a [`World`] and [`Thresholds`]. Out: findings, and for every rule that could not be checked what it missed.
//! Pure. To add a finding see docs/adding.md.

pub mod captured;
pub mod conntrack;
pub mod evaluate;
pub mod fly;
pub mod fly_toml;
pub mod forecast;
pub mod own_drops;
pub mod path;
pub mod ports;
pub mod probed;
pub mod registry;
mod shell;
pub mod tunnel;
pub mod upstream;

pub use evaluate::{Evaluation, NotChecked, Part, Suppressed, evaluate, evaluate_parts};

use crate::config::Thresholds;
use crate::finding::{Finding, ProcessRef};
use crate::observation::Source;
use crate::observation::socket::ProcessIdentity;
use crate::time::Timestamp;
use crate::track::World;

/// What a rule reads.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The state.
    pub world: &'a World,
    /// The numbers to compare with.
    pub thresholds: &'a Thresholds,
}

impl Input<'_> {
    /// The time of the verdict.
    pub fn now(&self) -> Timestamp {
        self.world.now
    }
}

/// A part of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// WireGuard.
    Wireguard,
    /// Sockets and ephemeral ports.
    Ports,
    /// Conntrack and NAT on this host.
    Conntrack,
    /// The NAT upstream.
    Upstream,
    /// Paths and names.
    Paths,
    /// Fly.
    Fly,
}

impl Area {
    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Wireguard => "WireGuard",
            Self::Ports => "Sockets and ephemeral ports",
            Self::Conntrack => "Conntrack and NAT on this host",
            Self::Upstream => "The NAT upstream",
            Self::Paths => "Paths and names",
            Self::Fly => "Fly",
        }
    }
}

/// One entry of the catalogue.
pub struct Rule {
    /// The code; it never changes its meaning.
    pub code: &'static str,
    /// Where it belongs.
    pub area: Area,
    /// `critical`, `warning`, `info`, or a phrase such as `warning ≥ 70 %, critical ≥ 90 %`.
    pub severity: &'static str,
    /// When it holds, in one sentence.
    pub holds_when: &'static str,
    /// What it means for somebody who has never heard of it. Markdown paragraphs.
    pub meaning: &'static str,
    /// How it is detected and how sure that is. Markdown paragraphs.
    pub detection: &'static str,
    /// How to fix it. Markdown paragraphs or list.
    pub fix: &'static str,
    /// Sources without which it cannot be checked: of each group at least one must see.
    pub needs: &'static [&'static [Source]],
    /// Codes of causes that explain it: it is folded beneath one that covers the same subject.
    pub explained_by: &'static [&'static str],
    /// Looks at the state. Returns nothing where the condition does not hold.
    pub check: fn(&Input<'_>) -> Vec<Finding>,
}

/// A process as findings and reports name it.
pub fn process_ref(process: &ProcessIdentity) -> ProcessRef {
    ProcessRef {
        pid: process.pid,
        comm: process.comm.clone(),
        exe: process.exe.clone(),
        runtime: process.runtime.clone(),
    }
}

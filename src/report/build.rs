//! From a [`World`] and an [`Evaluation`] to a [`Report`].

use super::{Report, Sockets, Status, Wireguard};
use crate::observation::SourceState;
use crate::rules::Evaluation;
use crate::track::World;

/// Builds the report of `world` as it is now.
pub fn build(world: &World, evaluation: Evaluation, version: &str) -> Report {
    let collectors: Vec<_> = world
        .sources
        .iter()
        .map(|(source, status)| (source, status.clone()))
        .collect();
    let seen = collectors
        .iter()
        .any(|(_, status)| status.state != SourceState::Unavailable);
    Report {
        generated_at: world.now,
        duration: world.watched(),
        version: version.to_owned(),
        host: world.host.clone(),
        status: Status::of(&evaluation.findings, seen),
        collectors,
        findings: evaluation.findings,
        suppressed: evaluation.suppressed,
        not_checked: evaluation.not_checked,
        wireguard: Wireguard::default(),
        sockets: Sockets::default(),
        conntrack: None,
        captures: Vec::new(),
    }
}

//! From a [`World`] and an [`Evaluation`] to a [`Report`].
//!
//! In: the state at the end of a look, and what the rules made of it. Out: plain data; each section has its own file.
//! Pure: the report's time is the world's.

use super::{Report, Status, conntrack, paths, sockets, wireguard};
use crate::finding::{Finding, Severity};
use crate::observation::{Source, SourceState};
use crate::rules::Evaluation;
use crate::track::World;

/// What the rules made of it, for sections whose rows say how something fares.
#[derive(Clone, Copy)]
pub(super) struct Verdict<'a>(&'a Evaluation);

impl<'a> Verdict<'a> {
    /// Every finding, folded or not.
    pub(super) fn findings(self) -> impl Iterator<Item = &'a Finding> {
        self.0
            .findings
            .iter()
            .chain(self.0.suppressed.iter().map(|s| &s.finding))
    }

    /// Every critical finding.
    pub(super) fn critical(self) -> impl Iterator<Item = &'a Finding> {
        self.findings().filter(|f| f.severity == Severity::Critical)
    }
}

/// Builds the report of `world` as it is now, by wgnat `version`.
pub fn build(world: &World, evaluation: Evaluation, version: &str) -> Report {
    let verdict = Verdict(&evaluation);
    let wireguard = wireguard::section(world, verdict);
    let sockets = sockets::section(world, verdict);
    let conntrack = conntrack::section(world);
    Report {
        generated_at: world.now,
        duration: world.watched(),
        version: version.to_owned(),
        host: world.host.clone(),
        status: Status::of(verdict.findings(), anything_seen(world)),
        collectors: world
            .sources
            .iter()
            .map(|(s, status)| (s, status.clone()))
            .collect(),
        findings: evaluation.findings,
        suppressed: evaluation.suppressed,
        not_checked: evaluation.not_checked,
        in_part: evaluation.in_part,
        wireguard,
        sockets,
        conntrack,
        nat: world.nat.newest().map(|(_, facts)| facts.clone()),
        captures: Vec::new(),
        confined: None,
        paths: paths::section(world),
        places: None,
        namespaces: Vec::new(),
        changes: None,
        period: None,
        fly_net: world.fly_net.as_ref().map(|(_, facts)| facts.clone()),
        fly_toml: world.fly_toml.clone(),
    }
}

/// As [`build`], of a world that has watched for a minute or two and one that has for longer: handshakes are seldom, so
/// their table is the latter's.
pub fn build_windows(near: &World, far: &World, evaluation: Evaluation, version: &str) -> Report {
    let longer = wireguard::section(far, Verdict(&evaluation));
    let mut report = build(near, evaluation, version);
    let wireguard = &mut report.wireguard;
    for peer in &mut wireguard.peers {
        let same = |row: &&super::PeerRow| row.public_key == peer.public_key && row.device == peer.device;
        if peer.rtt.is_none() {
            peer.rtt = longer.peers.iter().find(same).and_then(|row| row.rtt);
        }
    }
    wireguard.handshakes = longer.handshakes;
    wireguard.handshakes_left_out = longer.handshakes_left_out;
    wireguard.messages = longer.messages;
    report
}

/// Whether any source saw something of the network. The host's name and what a file says about peers is not that.
fn anything_seen(world: &World) -> bool {
    world.sources.iter().any(|(source, status)| {
        status.state != SourceState::Unavailable
            && !matches!(
                source,
                Source::Host
                    | Source::NatRules
                    | Source::Config
                    | Source::Keys
                    | Source::KernelLog
                    | Source::FlyToml
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Body, Observation, SourceStatus};
    use crate::time::{Span, Timestamp};

    fn world(states: &[(Source, SourceStatus)]) -> World {
        let mut world = World::new(Timestamp::from_secs(100));
        for (source, status) in states {
            world.apply(&Observation {
                at: Timestamp::from_secs(105),
                took: Span::ZERO,
                source: *source,
                body: Body::Status(status.clone()),
            });
        }
        world
    }

    #[test]
    fn nothing_seen_is_unknown_and_not_ok() {
        let blind = [
            (Source::Host, SourceStatus::ok()),
            (Source::Config, SourceStatus::ok()),
            (Source::Sockets, SourceStatus::unavailable("a test")),
        ];
        let report = build(&world(&blind), Evaluation::default(), "1.2.3");
        assert_eq!(report.status, Status::Unknown);
        assert_eq!(report.sockets.tcp_total, None);
        assert_eq!(report.sockets.ports_available, None);
        assert_eq!(report.wireguard.messages, None);
        assert!(report.conntrack.is_none());
    }

    #[test]
    fn one_source_that_sees_is_enough() {
        let part = [(Source::Sockets, SourceStatus::degraded("a test"))];
        let report = build(&world(&part), Evaluation::default(), "1.2.3");
        assert_eq!(report.status, Status::Ok);
        assert_eq!(report.generated_at, Timestamp::from_secs(105));
        assert_eq!(report.duration, Span::from_secs(5));
        assert_eq!(report.version, "1.2.3");
        assert_eq!(report.collectors.len(), 1);
    }
}

//! What the rules of this area share: a probed peer as a subject, and a finding without its texts.

use crate::finding::{Confidence, Evidence, Finding, Severity, Subject};
use crate::observation::probe::Outcome;
use crate::rules::Input;
use crate::time::Span;
use crate::track::probes::Probe;

pub use crate::rules::captured::view::{count, secs};

/// Every peer that was probed.
pub fn probes<'a>(input: &Input<'a>) -> impl Iterator<Item = &'a Probe> + use<'a> {
    input.world.probes.iter().filter(|p| p.skipped.is_none())
}

/// The peer, as findings name it.
pub fn subject(probe: &Probe) -> Subject {
    Subject::Peer {
        device: probe.target.device.clone(),
        public_key: Some(probe.target.public_key),
        endpoint: probe.target.address,
        local: probe.attempts.iter().rev().find_map(|a| a.local),
    }
}

/// Where it is, in words.
pub fn place(probe: &Probe) -> String {
    let target = &probe.target;
    match target.address {
        Some(address) if address.to_string() == target.endpoint => target.endpoint.clone(),
        Some(address) => format!("{} ({})", target.endpoint, address.ip()),
        None => target.endpoint.clone(),
    }
}

/// A finding without its texts.
pub fn finding(code: &'static str, levels: (Severity, Confidence), probe: &Probe) -> Finding {
    let seen = (probe.first_at, probe.last_at);
    let mut f = crate::rules::captured::view::finding(code, levels, subject(probe), seen);
    f.evidence = evidence(probe);
    f
}

/// What every finding of this area shows.
pub fn evidence(probe: &Probe) -> Evidence {
    let t = probe.tally();
    let mean = |all: Vec<Span>| {
        let n = u32::try_from(all.len()).ok().filter(|n| *n > 0)?;
        Some((all.iter().sum::<Span>() / n).as_secs_f64())
    };
    let some = |n: u64| (n > 0).then_some(n);
    Evidence::new()
        .with("transport", probe.target.transport.name())
        .with("initiations", t.sent)
        .with("answered_attempts", t.answered)
        .maybe("unanswered_attempts", some(t.silent))
        .maybe("cookie_replies", some(t.cookies))
        .maybe("responses_not_accepted", some(t.preshared_key_differs))
        .maybe("called_back", some(t.called_back))
        .maybe("cold_seconds", probe.cold().map(|s| s.as_secs_f64()))
        .maybe("rtt_seconds", mean(probe.warm().collect()))
}

/// How long each attempt was waited for.
pub fn waited(probe: &Probe) -> Option<Span> {
    probe.attempts.iter().find_map(|a| match a.outcome {
        Outcome::Silent { waited } => Some(waited),
        _ => None,
    })
}

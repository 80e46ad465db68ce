//! Attempts folded into a sample.

use tokio_rustls::rustls::pki_types::CertificateDer;

use super::Outcome;
use crate::observation::path::{Failure, PathSample, Rtts, Stage};
use crate::time::Span;

/// Kinds of failure that are kept apart; more can only come from a target that answers something new each time.
const KINDS: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Tally {
    sent: u32,
    rtts: Vec<Span>,
    stages: Vec<(Stage, Rtts)>,
    failures: Vec<(Failure, u32)>,
    status: Option<u16>,
    chain: Vec<CertificateDer<'static>>,
}

impl Tally {
    pub(super) fn add(&mut self, outcome: Outcome) {
        self.sent += 1;
        self.status = outcome.status.or(self.status);
        if self.chain.is_empty() {
            self.chain = outcome.chain;
        }
        for (stage, span) in outcome.stages {
            match self.stages.iter_mut().find(|(s, _)| *s == stage) {
                Some((_, rtts)) => rtts.0.push(span),
                None => self.stages.push((stage, Rtts(vec![span]))),
            }
        }
        match outcome.result {
            Ok(rtt) => self.rtts.push(rtt),
            Err(failure) => self.failed(failure),
        }
    }

    fn failed(&mut self, failure: Failure) {
        let known = self.failures.iter().position(|(f, _)| *f == failure);
        match known {
            None if self.failures.len() < KINDS => self.failures.push((failure, 1)),
            _ => {
                let at = known.unwrap_or(KINDS - 1);
                if let Some((_, n)) = self.failures.get_mut(at) {
                    *n += 1;
                }
            }
        }
    }

    /// Fills `sample`; the certificates that were shown first come back, to be judged.
    pub(super) fn write(&mut self, sample: &mut PathSample) -> Vec<CertificateDer<'static>> {
        sample.sent = self.sent;
        sample.rtts = Rtts(std::mem::take(&mut self.rtts));
        sample.stages.append(&mut self.stages);
        sample.failures = std::mem::take(&mut self.failures);
        sample.http_status = self.status;
        std::mem::take(&mut self.chain)
    }
}

//! What was probed, and what came of it.
//!
//! In: [`ProbeFact`]s. Out: one [`Probe`] a target. Bounded: [`MAX_TARGETS`] targets, [`MAX_ATTEMPTS`] attempts each.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::observation::probe::{
    Attempt, Fact, Inner, Lifetime, Mtu, Outcome, ProbeFact, Skipped, Stray, StrayKind, Target, Websocket,
};
use crate::time::{Span, Timestamp};

/// Targets remembered; those beyond are counted only.
pub const MAX_TARGETS: usize = 16_384;
/// Attempts remembered for each target: the newest.
pub const MAX_ATTEMPTS: usize = 1024;
/// Strays and inner questions remembered for each target: the first.
const MAX_OTHERS: usize = 64;

/// Everything that was probed.
#[derive(Debug, Default)]
pub struct Probes {
    by_target: BTreeMap<u32, Probe>,
    left_out: u64,
}

/// One target.
#[derive(Debug)]
pub struct Probe {
    /// Who, and how.
    pub target: Target,
    /// When the first fact about it came.
    pub first_at: Timestamp,
    /// When the last one came.
    pub last_at: Timestamp,
    /// Why it was not probed.
    pub skipped: Option<Skipped>,
    /// Its attempts, by number.
    pub attempts: Vec<Attempt>,
    /// Attempts that made room for newer ones.
    pub forgotten: u64,
    /// What arrived and answered nothing.
    pub strays: Vec<Stray>,
    /// How far the WebSocket came.
    pub websocket: Option<Websocket>,
    /// What was asked through the tunnel.
    pub inner: Vec<Inner>,
    /// The largest packet.
    pub mtu: Option<Mtu>,
    /// The NAT's patience.
    pub lifetime: Option<Lifetime>,
}

impl Probes {
    /// Takes a fact in.
    pub fn apply(&mut self, at: Timestamp, probed: &ProbeFact) {
        if let Fact::Target(target) = &probed.fact {
            if self.by_target.len() >= MAX_TARGETS && !self.by_target.contains_key(&probed.target) {
                self.left_out += 1;
                return;
            }
            let probe = Probe::new((**target).clone(), at);
            self.by_target.insert(probed.target, probe);
            return;
        }
        let Some(probe) = self.by_target.get_mut(&probed.target) else {
            return;
        };
        probe.last_at = at;
        match &probed.fact {
            Fact::Target(_) => {}
            Fact::Skipped(skipped) => probe.skipped = Some(skipped.clone()),
            Fact::Attempt(attempt) => probe.attempt(attempt),
            Fact::Stray(stray) if probe.strays.len() < MAX_OTHERS => probe.strays.push(stray.clone()),
            Fact::Inner(inner) if probe.inner.len() < MAX_OTHERS => probe.inner.push(inner.clone()),
            Fact::Stray(_) | Fact::Inner(_) => {}
            Fact::Websocket(websocket) => match &mut probe.websocket {
                // It was open, and this is its end: how it was opened stays.
                Some(known) => known.error.clone_from(&websocket.error),
                None => probe.websocket = Some(websocket.clone()),
            },
            Fact::Mtu(mtu) => probe.mtu = Some(mtu.clone()),
            Fact::Lifetime(lifetime) => probe.lifetime = Some(lifetime.clone()),
        }
    }

    /// Every target, in the order in which they were named.
    pub fn iter(&self) -> impl Iterator<Item = &Probe> {
        self.by_target.values()
    }

    /// Whether what goes from `from` to `to` is a probe's own: a port of ours towards a target.
    pub fn sent(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.iter().any(|probe| {
            let is_port = |local: SocketAddr| local.port() == from.port();
            probe.target.address == Some(to) && probe.attempts.iter().filter_map(|a| a.local).any(is_port)
        })
    }

    /// Whether anything was asked for.
    pub fn is_empty(&self) -> bool {
        self.by_target.is_empty()
    }

    /// Targets beyond the bound.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// What a target's attempts amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Initiations that left.
    pub sent: u64,
    /// Responses that authenticate.
    pub answered: u64,
    /// Times that the peer called back and took our answer.
    pub called_back: u64,
    /// Times that it called back and sent nothing under the session that our answer offered.
    pub unconfirmed: u64,
    /// Responses that prove another pre-shared key.
    pub preshared_key_differs: u64,
    /// Cookie replies.
    pub cookies: u64,
    /// ICMP errors.
    pub icmp: u64,
    /// Attempts that this host refused to send.
    pub not_sent: u64,
    /// Silences.
    pub silent: u64,
}

impl Tally {
    /// Attempts that proved that the peer's WireGuard got them, whatever it made of them.
    pub fn heard(&self) -> u64 {
        self.answered + self.called_back + self.unconfirmed + self.preshared_key_differs + self.cookies
    }

    /// The share of the initiations that got no answer at all, of those to which one was to be expected.
    pub fn loss(&self) -> Option<f64> {
        let all = self.heard() + self.silent;
        (all > 0).then(|| self.silent as f64 / all as f64)
    }
}

/// The persistent keepalive that a mapping of this lifetime needs, in seconds: a fifth below the longest silence that it
/// outlived, and not more than the usual 25. `None` where nothing failed, or nothing passed.
pub fn keepalive_for(lifetime: &Lifetime) -> Option<u16> {
    lifetime.dead_after_seconds?;
    let alive = lifetime.alive_after_seconds.unwrap_or(1.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and 25
    Some((alive * 0.8).clamp(1.0, 25.0) as u16)
}

impl Probe {
    fn new(target: Target, at: Timestamp) -> Self {
        Self {
            target,
            first_at: at,
            last_at: at,
            skipped: None,
            attempts: Vec::new(),
            forgotten: 0,
            strays: Vec::new(),
            websocket: None,
            inner: Vec::new(),
            mtu: None,
            lifetime: None,
        }
    }

    /// Attempts end in any order; they are kept in the order in which they began.
    fn attempt(&mut self, attempt: &Attempt) {
        let place = self.attempts.partition_point(|a| a.number <= attempt.number);
        self.attempts.insert(place, attempt.clone());
        if self.attempts.len() > MAX_ATTEMPTS {
            self.attempts.remove(0);
            self.forgotten += 1;
        }
    }

    /// The attempts, counted.
    pub fn tally(&self) -> Tally {
        let mut t = Tally::default();
        for attempt in &self.attempts {
            let place = match attempt.outcome {
                Outcome::Answered { .. } => &mut t.answered,
                Outcome::CalledBack {
                    confirmed: Some(_), ..
                } => &mut t.called_back,
                Outcome::CalledBack { confirmed: None, .. } => &mut t.unconfirmed,
                Outcome::PresharedKeyDiffers { .. } => &mut t.preshared_key_differs,
                Outcome::Cookie { .. } => &mut t.cookies,
                Outcome::Icmp { .. } => &mut t.icmp,
                Outcome::NotSent { .. } => &mut t.not_sent,
                Outcome::Silent { .. } => &mut t.silent,
            };
            *place += 1;
        }
        t.sent = self.attempts.len() as u64 - t.not_sent;
        t
    }

    /// How long the first contact took: the peer may have had to be installed, a name or a neighbour to be resolved.
    pub fn cold(&self) -> Option<Span> {
        match &self.attempts.first()?.outcome {
            Outcome::Answered { rtt } => Some(*rtt),
            Outcome::CalledBack { after, .. } => Some(*after),
            _ => None,
        }
    }

    /// The round trips after the first contact, in the order of their attempts.
    pub fn warm(&self) -> impl Iterator<Item = Span> {
        self.attempts.iter().skip(1).filter_map(|a| match a.outcome {
            Outcome::Answered { rtt } => Some(rtt),
            _ => None,
        })
    }

    /// Whether a session came up, or could have.
    pub fn works(&self) -> bool {
        let t = self.tally();
        t.answered + t.called_back > 0
    }

    /// The first of what arrived and is not WireGuard.
    pub fn not_wireguard(&self) -> Option<&Stray> {
        self.strays.iter().find(|s| s.kind == StrayKind::NotWireguard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::probe::Transport;
    use crate::types::PublicKey;

    pub fn target() -> Target {
        Target {
            origin: "a test".to_owned(),
            device: None,
            local_public_key: PublicKey([1; 32]),
            public_key: PublicKey([2; 32]),
            has_preshared_key: false,
            endpoint: "192.0.2.1:51820".to_owned(),
            address: "192.0.2.1:51820".parse().ok(),
            transport: Transport::Udp,
            keepalive: None,
            mtu: None,
            configured_transport: None,
        }
    }

    fn fact(probes: &mut Probes, fact: Fact) {
        probes.apply(Timestamp::from_secs(1), &ProbeFact { target: 0, fact });
    }

    fn attempt(number: u32, outcome: Outcome) -> Fact {
        Fact::Attempt(Attempt {
            number,
            sent_at: Timestamp::from_secs(1),
            local: None,
            with_cookie: false,
            outcome,
        })
    }

    #[test]
    fn cold_and_warm_are_told_apart_whatever_ends_first() {
        let mut probes = Probes::default();
        fact(&mut probes, Fact::Target(Box::new(target())));
        let answered = |ms| Outcome::Answered {
            rtt: Span::from_millis(ms),
        };
        fact(&mut probes, attempt(2, answered(20)));
        fact(&mut probes, attempt(3, answered(22)));
        let after = Span::from_millis(400);
        fact(
            &mut probes,
            attempt(
                1,
                Outcome::CalledBack {
                    after,
                    confirmed: Some(0.42),
                },
            ),
        );
        let waited = Span::from_secs(5);
        fact(&mut probes, attempt(4, Outcome::Silent { waited }));
        let probe = probes.iter().next().unwrap();
        assert_eq!(probe.cold(), Some(after));
        let warm: Vec<_> = probe.warm().collect();
        assert_eq!(warm, [20, 22].map(Span::from_millis));
        assert_eq!(probe.tally().loss(), Some(0.25));
    }

    #[test]
    fn a_fact_about_no_target_and_more_attempts_than_are_kept() {
        let mut probes = Probes::default();
        fact(&mut probes, attempt(1, Outcome::Silent { waited: Span::ZERO }));
        assert!(probes.is_empty());
        fact(&mut probes, Fact::Target(Box::new(target())));
        for n in 0..1030 {
            fact(&mut probes, attempt(n, Outcome::Silent { waited: Span::ZERO }));
        }
        let probe = probes.iter().next().unwrap();
        assert_eq!((probe.attempts.len(), probe.forgotten), (MAX_ATTEMPTS, 6));
        assert_eq!(probe.attempts[0].number, 6);
    }
}

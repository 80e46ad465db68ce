//! One (protocol, source, destination) with everything that the rules on ports ask of it, and the words that they share.

use crate::finding::{Evidence, Subject};
use crate::pooling::{Advice, Case, Remedy, advise};
use crate::rules::Input;
use crate::time::Span;
use crate::track::processes::Owner;
use crate::track::sockets::usable::{reuse_delay, younger_than};
use crate::track::sockets::{History, Key, OpenRate, Sample, Usable};
use crate::types::Proto;
use crate::words::{count, counted, number, rounded};

/// Looks older than this do not count towards a verdict about now: no TIME_WAIT outlives it.
const FRESH: Span = Span::from_secs(60);

/// A tuple as it is now.
#[derive(Clone)]
pub struct Tuple<'a> {
    /// What it is.
    pub key: &'a Key,
    /// What it was at each look.
    pub history: &'a History,
    /// The newest look.
    pub sample: Sample,
    /// The ports that it can have.
    pub usable: Usable,
    /// Whose it is, where known.
    pub owner: Option<Owner>,
    /// After how long the kernel reuses the ports of its TIME_WAITs; `None`: not before they end.
    pub reuse: Option<Span>,
    /// Opens per second, where they can be told.
    pub opens: Option<OpenRate>,
    /// The newest table is close, not exact.
    pub inexact: bool,
}

/// Every tuple that the newest table shows; none where the range of ports is not known.
pub fn tuples<'a>(input: &Input<'a>) -> Vec<Tuple<'a>> {
    let world = input.world;
    let (Some((at, tally)), Some(sysctls)) = (world.sockets.newest(), world.sysctls.as_ref()) else {
        return Vec::new();
    };
    let tuple = |(key, history): (&'a Key, &'a History)| {
        let sample = *history.newest().filter(|s| s.at == at)?;
        Some(Tuple {
            key,
            history,
            sample,
            usable: Usable::of(sysctls, tally, key.proto, sample.held)?,
            owner: world.processes.owner(history),
            reuse: reuse_delay(sysctls, key),
            opens: history.opens(),
            inexact: tally.inexact,
        })
    };
    let mut tuples: Vec<_> = world.sockets.destinations().filter_map(tuple).collect();
    // The fullest first; where two are alike the order of addresses decides, so that a report can be repeated.
    tuples.sort_by_key(|t| std::cmp::Reverse(t.sample.held));
    tuples
}

impl Tuple<'_> {
    /// The same tuple as it was at another look.
    pub fn at(&self, sample: &Sample) -> Self {
        Self {
            sample: *sample,
            ..self.clone()
        }
    }

    /// Ports that a new connection cannot have: all that are held, less the TIME_WAITs that the kernel would reuse.
    pub fn blocked(&self, sample: &Sample) -> u32 {
        match self.reuse {
            None => sample.held,
            Some(delay) => {
                let reusable = sample.time_wait.saturating_sub(younger_than(&sample.left, delay));
                sample.held.saturating_sub(reusable)
            }
        }
    }

    /// The looks that count, oldest first.
    pub fn fresh(&self) -> impl DoubleEndedIterator<Item = &Sample> + Clone {
        let newest = self.sample.at;
        self.history
            .samples()
            .filter(move |s| newest.since(s.at) <= FRESH)
    }

    /// Whether UDP ports are concerned and this destination is the one to name: a UDP port is taken for all destinations,
    /// so only who holds most of them can be blamed.
    pub fn concerned(&self) -> bool {
        self.key.proto == Proto::Tcp || u64::from(self.sample.held) * 2 > u64::from(self.usable.range.len())
    }

    /// The subject of a finding about it.
    pub fn subject(&self) -> Subject {
        Subject::Destination {
            proto: self.key.proto,
            source: Some(self.key.source),
            address: self.key.destination.ip(),
            port: self.key.destination.port(),
            process: self.owner.as_ref().map(|o| o.process.clone()),
        }
    }

    /// Who holds the sockets, at the head of a sentence.
    pub fn holder(&self) -> String {
        match &self.owner {
            None => "A program that could not be told".to_owned(),
            Some(o) if o.processes > 1 => format!("{} ({} processes)", o.process.comm, o.processes),
            Some(o) => format!("{} (pid {})", o.process.comm, o.process.pid),
        }
    }

    /// What to change.
    pub fn advice(&self) -> Advice {
        advise(&Case {
            proto: self.key.proto,
            to: self.key.destination,
            sample: &self.sample,
            opens: self.opens,
            mean_concurrency: self.history.mean_concurrency().unwrap_or(0.0),
            peak_concurrency: self.history.peak_concurrency(),
            owner: self.owner.as_ref(),
            usable: Some(self.usable),
            reused: self.reuse.is_some(),
        })
    }

    /// Why the ports are held, in a sentence.
    pub fn why_held(&self, remedy: Remedy) -> String {
        let s = &self.sample;
        match remedy {
            Remedy::Pool if s.time_wait > 0 => {
                let opens = self.opens.filter(|o| o.per_second >= 1.0);
                let rate = opens.map_or_else(
                    || "This side closed".to_owned(),
                    |o| {
                        format!(
                            "About {} connections a second are opened, and this side closes",
                            number(o.per_second)
                        )
                    },
                );
                format!(
                    "{rate} each one itself, so its port stays in TIME_WAIT for another 60 s: {} are there now.",
                    count(s.time_wait)
                )
            }
            Remedy::Pool => "They are short connections, opened one after another.".to_owned(),
            Remedy::Close => format!(
                "{} are in CLOSE_WAIT: the other side has closed them and the program has not.",
                count(s.close_wait)
            ),
            Remedy::Reach => format!(
                "{} are in SYN_SENT: the destination does not answer, and each attempt holds a port.",
                count(s.syn_sent)
            ),
            Remedy::Spread if self.key.proto == Proto::Udp => String::new(),
            Remedy::Spread => format!(
                "{} at once and live long.",
                counted(s.established, "is open", "are open")
            ),
        }
    }

    /// What happens to a program that wants one more port.
    pub fn errno(&self) -> &'static str {
        match self.key.proto {
            Proto::Tcp => "EADDRNOTAVAIL (“Cannot assign requested address”)",
            Proto::Udp => "EAGAIN (“Resource temporarily unavailable”)",
        }
    }

    /// The numbers that every finding about a tuple carries.
    pub fn evidence(&self) -> Evidence {
        let s = &self.sample;
        let u = &self.usable;
        let tcp = self.key.proto == Proto::Tcp;
        let positive = |n: u32| (n > 0).then_some(n);
        Evidence::new()
            .with("in_use", s.held)
            .with("available", u.at_least)
            .maybe("time_wait", tcp.then_some(s.time_wait))
            .maybe("established", tcp.then_some(s.established))
            .maybe("syn_sent", positive(s.syn_sent))
            .maybe("close_wait", positive(s.close_wait))
            .maybe("opens_per_second", self.opens.map(|o| rounded(o.per_second)))
            .maybe("opens_measured_by", self.opens.map(|o| o.basis.name()))
            .maybe("reserved_ports", positive(u.reserved))
            .maybe(
                if tcp {
                    "listening_ports_in_range"
                } else {
                    "other_udp_ports_in_range"
                },
                positive(u.taken),
            )
            .maybe(
                "reusable_time_wait",
                self.reuse.map(|_| s.held - self.blocked(s).min(s.held)),
            )
    }
}

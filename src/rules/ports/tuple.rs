//! One (protocol, source, destination) with everything that the rules on ports ask of it, and the words that they share.

use crate::finding::{Evidence, Subject};
use crate::observation::host::HostFacts;
use crate::observation::socket::ServedPorts;
use crate::pooling::{Advice, Case, Measured, Opens, Ports, Remedy, Served, Sockets, User, advise};
use crate::rules::shell::each_here;
use crate::rules::{Input, process_ref};
use crate::time::Span;
use crate::track::connects::{ConnectState, NoPort, Seen};
use crate::track::processes::Owner;
use crate::track::sockets::usable::{reuse_delay, younger_than};
use crate::track::sockets::{Basis, History, Key, OpenRate, Sample, Usable};
use crate::types::{PortRange, Proto};
use crate::words::{count, number, rounded};

/// Looks older than this do not count towards a verdict about now: no TIME_WAIT outlives it.
const FRESH: Span = Span::from_secs(60);

/// The most of a longer while may be of a start long ago, and nothing to build for.
const PEAK: Span = Span::from_secs(120);

/// A tuple as it is now.
#[derive(Clone)]
pub struct Tuple<'a> {
    /// What it is.
    pub key: Key,
    /// What it was at each look.
    pub history: &'a History,
    /// The newest look.
    pub sample: Sample,
    /// The ports that it can have.
    pub usable: Usable,
    /// What was counted of it in the kernel, where that can be.
    pub seen: Option<Seen>,
    /// Whose it is, where known.
    pub owner: Option<Owner>,
    /// After how long the kernel reuses the ports of its TIME_WAITs; `None`: not before they end.
    pub reuse: Option<Span>,
    /// Opens per second, where they can be told.
    pub opens: Option<OpenRate>,
    /// The newest table is close, not exact.
    pub inexact: bool,
    /// Ports of services, where they are known, and those that are reserved.
    served: Option<&'a ServedPorts>,
    reserved: &'a [PortRange],
    /// The host, for commands.
    host: Option<&'a HostFacts>,
    connects: &'a ConnectState,
}

/// What there is to say of a destination that is in no look.
static NO_LOOKS: History = History::NONE;

/// Every tuple that the newest table shows or that connects were counted of; none where the range of ports is not known.
pub fn tuples<'a>(input: &Input<'a>) -> Vec<Tuple<'a>> {
    let world = input.world;
    let (Some((at, tally)), Some(sysctls)) = (world.sockets.newest(), world.sysctls.as_ref()) else {
        return Vec::new();
    };
    let tuple = |key: Key, history: &'a History, sample: Sample| {
        Some(Tuple {
            key,
            history,
            sample,
            usable: Usable::of(sysctls, tally, key.proto, sample.held)?,
            seen: world.connects.seen(&key),
            owner: world.owner(&key, history),
            reuse: reuse_delay(sysctls, &key),
            opens: world.opens(&key, history),
            inexact: tally.inexact,
            served: tally.served_ports.as_ref(),
            reserved: &sysctls.reserved_ports,
            host: world.host.as_ref(),
            connects: &world.connects,
        })
    };
    let shown = |key: &Key| {
        world
            .sockets
            .get(key)
            .and_then(|h| Some((h, *h.newest().filter(|s| s.at == at)?)))
    };
    let in_table = world.sockets.destinations().filter_map(|(key, _)| {
        let (history, sample) = shown(key)?;
        tuple(*key, history, sample)
    });
    // Connections that live and die between two looks are in no table.
    let none = Sample {
        at,
        ..Sample::default()
    };
    let counted = world.connects.keys().filter(|key| shown(key).is_none());
    let counted = counted.filter_map(|key| tuple(key, &NO_LOOKS, none));
    let mut tuples: Vec<_> = in_table.chain(counted).collect();
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

    /// Connects that failed for want of a port within the last minute.
    pub fn no_port(&self) -> Option<&NoPort> {
        let seen = self.seen.as_ref()?.no_port.as_ref()?;
        (self.sample.at.since(seen.last) <= FRESH).then_some(seen)
    }

    /// Connections open at a time on average: measured where what was counted stands for all, else the mean of the looks.
    pub fn mean_concurrency(&self) -> Option<f64> {
        let measured = self.seen.as_ref().and_then(Seen::mean_concurrency);
        measured.or_else(|| self.history.mean_concurrency())
    }

    /// The most connections that were seen open at a time.
    pub fn peak_concurrency(&self) -> u32 {
        let counted = self.seen.as_ref().map_or(0, |s| s.peak);
        self.history.peak_concurrency().max(counted)
    }

    /// Whether connections have been closed at this rate for a while.
    pub fn turns_over(&self, per_second: f64) -> bool {
        self.connects.turns_over(&self.key, per_second) || self.history.turns_over(per_second)
    }

    /// Whether this side closes first; `None` where nothing tells.
    pub fn closes_here(&self) -> Option<bool> {
        match self.seen.as_ref().filter(|s| s.closed() > 0) {
            Some(seen) => Some(seen.closed_here * 2 > seen.closed()),
            None if self.sample.time_wait > 0 => Some(true),
            None => None,
        }
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
            process: self.owner.as_ref().map(|o| process_ref(&o.process)),
        }
    }

    /// Who holds the live sockets, where known.
    pub fn holder(&self) -> Option<String> {
        self.owner.as_ref().map(|o| match o.processes {
            0 | 1 => format!("{} (pid {})", o.process.comm, o.process.pid),
            n => format!("{} ({n} processes)", o.process.comm),
        })
    }

    /// How many ports are held and why, in a sentence or two.
    pub fn held_words(&self, remedy: Remedy) -> String {
        let s = &self.sample;
        let part = |n: u32, state: &str| match n {
            0 => String::new(),
            n if n >= s.held => format!(", all in {state}"),
            n => format!(", {} of them in {state}", count(n)),
        };
        let (in_state, why) = match remedy {
            Remedy::Pool | Remedy::PoolOutside if s.time_wait > 0 => {
                (part(s.time_wait, "TIME_WAIT"), self.churn_words())
            }
            Remedy::Pool | Remedy::PoolOutside => (
                String::new(),
                "They are short connections, opened one after another.".to_owned(),
            ),
            Remedy::Close => (
                part(s.close_wait, "CLOSE_WAIT"),
                format!(
                    "The other side has closed those, and {} has not: a leak.",
                    self.holder_or("the program")
                ),
            ),
            Remedy::Reach => (
                part(s.syn_sent, "SYN_SENT"),
                format!(
                    "The destination does not answer, and each attempt of {} holds a port.",
                    self.holder_or("the program")
                ),
            ),
            Remedy::Spread => (
                part(s.established, "use at once"),
                self.holder()
                    .map_or_else(String::new, |h| format!("{h} holds them.")),
            ),
        };
        let kind = match self.key.proto {
            Proto::Tcp => "local ports",
            Proto::Udp => "local UDP ports",
        };
        let held = format!(
            "{} of {} {kind} towards {} are held{in_state}.",
            count(s.held),
            count(self.usable.ports),
            self.key.destination
        );
        if why.is_empty() {
            held
        } else {
            format!("{held} {why}")
        }
    }

    fn holder_or(&self, unknown: &str) -> String {
        self.holder().unwrap_or_else(|| unknown.to_owned())
    }

    fn churn_words(&self) -> String {
        let [.., recent] = self.sample.left;
        let opens = self.opens.filter(|o| o.per_second >= 1.0);
        // A rate is told only of what keeps on; a burst, as of a program that stopped for want of ports, is counted.
        let what = match opens.filter(|_| self.turns_over(1.0)) {
            Some(o) => {
                let roughly = if o.lower_bound { "at least" } else { "about" };
                format!("{roughly} {} connections a second", number(o.per_second))
            }
            None if recent > 0 => {
                return format!(
                    "{} closed {} connections to it within the last 10 s, and each keeps its port for 60 s from then.",
                    self.holder()
                        .unwrap_or_else(|| "A program on this side".to_owned()),
                    count(recent)
                );
            }
            None => {
                return "This side closed those connections, and each keeps its port for 60 s from then; as hardly any is opened \
                        any more, they become free by themselves."
                    .to_owned();
            }
        };
        match self.holder() {
            Some(holder) => {
                format!(
                    "{holder} opens {what} and closes each one itself, which keeps its port for another 60 s."
                )
            }
            None => format!(
                "This side opens and closes {what}, which keeps each port for another 60 s; by which program is not known, because \
                 TIME_WAIT has no owner."
            ),
        }
    }

    /// What to change.
    pub fn advice(&self) -> Advice {
        let s = &self.sample;
        let process = self.owner.as_ref().map(|o| process_ref(&o.process));
        let mut advice = advise(&Case {
            proto: self.key.proto,
            to: self.key.destination,
            sockets: Sockets {
                held: s.held,
                time_wait: s.time_wait,
                live: s.live,
                syn_sent: s.syn_sent,
                close_wait: s.close_wait,
            },
            opens: self.opens.map(|o| Opens {
                per_second: o.per_second,
                lower_bound: o.lower_bound,
            }),
            mean_concurrency: self.mean_concurrency().unwrap_or(0.0),
            peak_concurrency: self.peak_concurrency(),
            measured: self.measured(),
            user: process.as_ref().map(|process| User {
                process,
                processes: self.owner.as_ref().map_or(1, |o| o.processes),
            }),
            ports: Some(Ports {
                range: self.usable.range.len(),
                usable: self.usable.ports,
            }),
            reused: self.reuse.is_some(),
            served: self.served.map(|served| Served {
                ports: &served.ports,
                left_out: served.left_out,
                reserved: self.reserved,
            }),
        });
        for command in advice.fixes.iter_mut().filter_map(|fix| fix.command.as_mut()) {
            *command = each_here(self.host, command);
        }
        advice
    }

    /// What was counted, where rate and life both were.
    fn measured(&self) -> Option<Measured> {
        let counted = self.opens.is_some_and(|o| o.basis == Basis::Counted);
        let seen = self
            .seen
            .as_ref()
            .filter(|seen| counted && seen.mean_concurrency().is_some())?;
        let per_second = |n: u64| {
            let watched = seen.watched.as_secs_f64().max(1.0);
            f64::from(u32::try_from(n).unwrap_or(u32::MAX)) / watched
        };
        self.closes_here().map(|closes_here| Measured {
            closes_here,
            peak_is_exact: seen.watched <= PEAK,
            opens_per_process: seen
                .owner
                .as_ref()
                .map_or(u32::MAX, |o| o.sockets.div_ceil(o.processes.max(1))),
            destinations: seen
                .owner
                .as_ref()
                .map_or(1, |o| self.connects.destinations_of(&o.process)),
            turned_away_per_second: self.no_port().map_or(0.0, |n| per_second(n.count)),
        })
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
            .with("available", u.ports)
            .maybe("time_wait", tcp.then_some(s.time_wait))
            .maybe("established", tcp.then_some(s.established))
            .maybe("syn_sent", positive(s.syn_sent))
            .maybe("close_wait", positive(s.close_wait))
            .maybe("opens_per_second", self.opens.map(|o| rounded(o.per_second)))
            .maybe("opens_measured_by", self.opens.map(|o| o.basis.name()))
            .maybe("errno_eaddrnotavail", self.no_port().map(|n| n.count))
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

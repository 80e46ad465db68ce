//! What to change about the connections to one destination: a pool of the right size, or what helps where a pool does not.
//!
//! In: a [`Case`]. Out: an [`Advice`]. Pure: [`sizing`] is the arithmetic, [`runtimes`] and [`snippets`] fill it into
//! something to paste, [`room`] is what buys time. Sysctls come last: they are room, not a cure. Where reuse is not the
//! cure (a leak, a dead destination, long lives, a fan-out, processes that end at once) the advice says what is.

mod others;
mod reuse;
pub mod room;
pub mod runtimes;
pub mod sizing;
pub mod snippets;

use std::net::SocketAddr;

use sizing::{Load, Sizing};

use crate::finding::{Evidence, Fix, ProcessRef};
use crate::types::{PortRange, Proto};

/// Sockets towards the destination, by what they are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Local ports held, in any state.
    pub held: u32,
    /// In TIME_WAIT.
    pub time_wait: u32,
    /// In any other state.
    pub live: u32,
    /// In SYN_SENT.
    pub syn_sent: u32,
    /// In CLOSE_WAIT.
    pub close_wait: u32,
}

/// Connections opened per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opens {
    /// The estimate.
    pub per_second: f64,
    /// It is known to miss some.
    pub lower_bound: bool,
}

/// Whose connections they are.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// The process, or one of several.
    pub process: &'a ProcessRef,
    /// How many processes of the program share the load.
    pub processes: u32,
}

/// Local ports that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The range's size.
    pub range: u32,
    /// Of these usable for the destination.
    pub usable: u32,
}

/// What is known because each connect and close was counted; without it rate and life are read off looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// This side closes first.
    pub closes_here: bool,
    /// The peak is of so short a while that it is the one to build for, and each open and close in it was counted.
    pub peak_is_exact: bool,
    /// Connections that each process of the program opened, on average.
    pub opens_per_process: u32,
    /// Destinations that the program opened connections to.
    pub destinations: u32,
    /// Opens per second that failed for want of a local port; they are in no other number.
    pub turned_away_per_second: f64,
}

/// What the advice is computed from.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The transport.
    pub proto: Proto,
    /// Where the connections go.
    pub to: SocketAddr,
    /// The sockets now.
    pub sockets: Sockets,
    /// Opens per second, where they could be told.
    pub opens: Option<Opens>,
    /// Connections open at a time, on average over the looks.
    pub mean_concurrency: f64,
    /// The most connections open at one look.
    pub peak_concurrency: u32,
    /// Rate and life were counted in the kernel.
    pub measured: Option<Measured>,
    /// Whose they are, where known.
    pub user: Option<User<'a>>,
    /// The ports that there are, where known.
    pub ports: Option<Ports>,
    /// TIME_WAIT sockets of this destination are given to new connections by themselves.
    pub reused: bool,
    /// Which ports services of this host hold, where known: a wider range must spare them.
    pub served: Option<Served<'a>>,
}

/// Local ports that are taken by services, or set aside for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served<'a> {
    /// The ports that services hold, ascending.
    pub ports: &'a [u16],
    /// How many more there are.
    pub left_out: u32,
    /// `ip_local_reserved_ports`.
    pub reserved: &'a [PortRange],
}

impl Case<'_> {
    /// Processes that share the load.
    fn processes(&self) -> u32 {
        self.user.map_or(1, |u| u.processes.max(1))
    }

    /// Processes that have a pool each: all of them, or the one that stands before short-lived ones.
    fn pools(&self) -> u32 {
        if self.short_lived_processes() {
            1
        } else {
            self.processes()
        }
    }

    /// Whether the connections are opened by many processes that end after a few: cron jobs, CGI, a script in a loop.
    fn short_lived_processes(&self) -> bool {
        self.processes() >= MANY_PROCESSES && self.measured.is_some_and(|m| m.opens_per_process <= FEW_EACH)
    }

    /// Whether this side closes first, so that each connection leaves a TIME_WAIT here.
    fn closes_here(&self) -> bool {
        self.measured
            .map_or(self.sockets.time_wait > 0, |m| m.closes_here)
    }

    /// Held ports as a share of the usable ones, where these are known.
    fn share(&self) -> Option<f64> {
        let ports = self.ports.filter(|p| p.usable > 0)?;
        Some(f64::from(self.sockets.held) / f64::from(ports.usable))
    }
}

/// What would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Short connections: keep a few and reuse them.
    Pool,
    /// Short connections of short-lived processes: a pool must be outside of them.
    PoolOutside,
    /// CLOSE_WAIT: the other side has closed and the program has not. A bug there.
    Close,
    /// SYN_SENT: the destination does not answer.
    Reach,
    /// Many connections that live long: fewer by carrying more on each, or more addresses.
    Spread,
}

impl Remedy {
    /// Short connections are what fills the ports.
    pub const fn pools(self) -> bool {
        matches!(self, Self::Pool | Self::PoolOutside)
    }
}

/// A connection that lives longer than this is not short: reuse would save little.
const SHORT_SECONDS: f64 = 10.0;

/// Opens per second below which a pool saves nothing worth having.
const FEW_OPENS: f64 = 1.0;

/// From so many processes on, each of which opens so few connections and ends, a pool in the process is none.
const MANY_PROCESSES: u32 = 8;
const FEW_EACH: u32 = 3;

/// The advice.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    /// What would help.
    pub remedy: Remedy,
    /// The pool, where one would help and could be sized.
    pub sizing: Option<Sizing>,
    /// What to change, best first.
    pub fixes: Vec<Fix>,
}

/// Which remedy fits what holds the ports.
pub fn remedy(case: &Case<'_>) -> Remedy {
    let s = case.sockets;
    let most = |part: u32, whole: u32| u64::from(part) * 2 > u64::from(whole);
    let lifetime = case.opens.map(|o| case.mean_concurrency / o.per_second);
    let short =
        case.opens.is_some_and(|o| o.per_second >= FEW_OPENS) && lifetime.is_some_and(|w| w <= SHORT_SECONDS);
    // By Little's law; where connections come and go within seconds, CLOSE_WAIT is a moment in each one's life and no leak.
    let passing = case.opens.is_some_and(|o| {
        o.per_second >= FEW_OPENS && f64::from(s.close_wait) / o.per_second <= SHORT_SECONDS
    });
    let pool = if case.short_lived_processes() {
        Remedy::PoolOutside
    } else {
        Remedy::Pool
    };
    if most(s.time_wait, s.time_wait.saturating_add(s.live)) {
        pool
    } else if most(s.close_wait, s.live) && !passing {
        Remedy::Close
    } else if most(s.syn_sent, s.live) {
        Remedy::Reach
    } else if short {
        pool
    } else {
        Remedy::Spread
    }
}

/// Works out what to change.
pub fn advise(case: &Case<'_>) -> Advice {
    let remedy = remedy(case);
    let sizing = match case.opens {
        Some(opens) if remedy.pools() => sizing::size(&Load {
            opens_per_second: opens.per_second,
            mean_concurrency: case.mean_concurrency,
            peak_concurrency: case.peak_concurrency,
            peak_is_exact: case.measured.is_some_and(|m| m.peak_is_exact),
            processes: case.pools(),
            closes_here: case.closes_here(),
        }),
        _ => None,
    };
    let mut fixes = match remedy {
        Remedy::Pool | Remedy::PoolOutside => reuse::fixes(case, remedy, sizing),
        Remedy::Close => vec![others::close(case)],
        Remedy::Reach => vec![others::reach(case)],
        Remedy::Spread => others::spread(case),
    };
    fixes.extend(room::fixes(case, remedy));
    Advice {
        remedy,
        sizing,
        fixes,
    }
}

#[cfg(test)]
mod tests;

//! What to change about the connections to one destination: a pool of the right size, or what helps where a pool does not.
//!
//! In: a [`Case`]. Out: an [`Advice`]. Pure: [`sizing`] is the arithmetic, [`runtimes`] and [`snippets`] fill it into
//! something to paste, [`room`] is what buys time. Sysctls come last: they are room, not a cure.

pub mod room;
pub mod runtimes;
pub mod sizing;
pub mod snippets;

use std::net::SocketAddr;

use runtimes::{Runtime, Service};
use sizing::{Load, Sizing};

use crate::finding::{Evidence, Fix, ProcessRef};
use crate::types::Proto;
use crate::words::{count, counted, number, seconds};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// This side closes first.
    pub closes_here: bool,
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
}

impl Case<'_> {
    /// Processes that share the load.
    fn processes(&self) -> u32 {
        self.user.map_or(1, |u| u.processes.max(1))
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
    /// CLOSE_WAIT: the other side has closed and the program has not. A bug there.
    Close,
    /// SYN_SENT: the destination does not answer.
    Reach,
    /// Many connections that live long: fewer by carrying more on each, or more addresses.
    Spread,
}

/// A connection that lives longer than this is not short: reuse would save little.
const SHORT_SECONDS: f64 = 10.0;

/// Opens per second below which a pool saves nothing worth having.
const FEW_OPENS: f64 = 1.0;

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
    if most(s.time_wait, s.time_wait.saturating_add(s.live)) {
        Remedy::Pool
    } else if most(s.close_wait, s.live) && !passing {
        Remedy::Close
    } else if most(s.syn_sent, s.live) {
        Remedy::Reach
    } else if short {
        Remedy::Pool
    } else {
        Remedy::Spread
    }
}

/// Works out what to change.
pub fn advise(case: &Case<'_>) -> Advice {
    let remedy = remedy(case);
    let sizing = match (remedy, case.opens) {
        (Remedy::Pool, Some(opens)) => sizing::size(&Load {
            opens_per_second: opens.per_second,
            mean_concurrency: case.mean_concurrency,
            peak_concurrency: case.peak_concurrency,
            processes: case.processes(),
            closes_here: case.closes_here(),
        }),
        _ => None,
    };
    let mut fixes = vec![match remedy {
        Remedy::Pool => pool(case, sizing),
        Remedy::Close => close(case),
        Remedy::Reach => reach(case),
        Remedy::Spread => spread(case),
    }];
    fixes.extend(room::fixes(case, remedy));
    Advice {
        remedy,
        sizing,
        fixes,
    }
}

fn pool(case: &Case<'_>, sizing: Option<Sizing>) -> Fix {
    let runtime = case.user.and_then(|u| Runtime::of(u.process));
    let service = Service::of(case.to.port());
    let Some(s) = sizing else {
        return Fix {
            title: format!("Reuse connections to {}", case.to),
            why: "Each closed connection holds its port for another 60 s; one that is kept open and reused holds one port for \
                  many requests. A pool cannot be sized now: no connection was seen to be opened while watched."
                .to_owned(),
            ..Fix::default()
        };
    };
    let snippet = snippets::snippet(runtime, service, case.to, s.per_process);
    let held = case.sockets.held;
    let frees = held.saturating_sub(s.ports_pooled);
    let each = match case.processes() {
        1 => String::new(),
        n => format!(", {} in each of {n} processes,", count(s.per_process)),
    };
    let mut why = format!(
        "A pool of {}{each} carries this load and frees {}. {}",
        counted(s.pool, "connection", "connections"),
        counted(frees, "port", "ports"),
        arithmetic(case, &s)
    );
    let (title, code) = match snippet {
        Some(snippet) => {
            if !snippet.note.is_empty() {
                why.push(' ');
                why.push_str(snippet.note);
            }
            (
                format!("Reuse connections: {}", lower_first(snippet.title)),
                Some(snippet.code),
            )
        }
        None => (
            format!(
                "Reuse connections: keep a pool of {} to {} open",
                count(s.per_process),
                case.to
            ),
            None,
        ),
    };
    Fix {
        title,
        why,
        // Without an owner the first step is to find one; TIME_WAIT has none, so live sockets must be caught.
        command: case.user.is_none().then(|| format!("ss -tnp dst {}", case.to)),
        snippet: code,
        expect: Evidence::new().with("ports_in_use", s.ports_pooled),
    }
}

/// The arithmetic in a sentence, with what was measured, what was derived and what was not known.
fn arithmetic(case: &Case<'_>, s: &Sizing) -> String {
    let Some(opens) = case.opens else {
        return String::new();
    };
    let rate = number(opens.per_second);
    let at_least = if opens.lower_bound { "at least " } else { "" };
    let lifetime = if case.mean_concurrency > 0.0 {
        format!("({} open + 60 s TIME_WAIT)", seconds(s.lifetime_seconds))
    } else {
        "60 s TIME_WAIT".to_owned()
    };
    let held = if case.closes_here() {
        format!(
            "{at_least}{rate} opens/s × {lifetime} hold {} in the long run",
            counted(s.ports_unpooled, "port", "ports")
        )
    } else {
        format!(
            "{at_least}{rate} opens/s, each open for {}",
            seconds(s.lifetime_seconds)
        )
    };
    let derived = if case.mean_concurrency > 0.0 {
        format!(
            "on average {} are open at a time, {} at most ({})",
            number(case.mean_concurrency),
            count(case.peak_concurrency),
            if case.measured.is_some() {
                "opens and the time open were measured at each connect and close; the average is Little's law"
            } else {
                "from looks, so a burst between two was not seen; the time open is derived by Little's law"
            }
        )
    } else {
        "none was open at any look, so each is very short and the pool is the least that makes sense"
            .to_owned()
    };
    let full = if case.share().is_some_and(|share| share >= 1.0) {
        " Opens that failed for want of a port are not counted, so begin with this size and watch."
    } else {
        ""
    };
    format!("The arithmetic: {held}; {derived}.{full}")
}

fn close(case: &Case<'_>) -> Fix {
    let s = case.sockets;
    Fix {
        title: format!("Close what {} has closed", case.to),
        why: format!(
            "{} of {} sockets are in CLOSE_WAIT: the other side has closed the connection and the program has not called \
             close(). That is a leak in the program; no setting of the system ends it.",
            count(s.close_wait),
            count(s.live)
        ),
        command: Some(format!("ss -tnpo state close-wait dst {}", case.to)),
        snippet: None,
        expect: Evidence::new().with("close_wait", 0),
    }
}

fn reach(case: &Case<'_>) -> Fix {
    let s = case.sockets;
    Fix {
        title: format!("Find out why {} does not answer", case.to),
        why: format!(
            "{} of {} sockets wait in SYN_SENT for an answer that does not come, and each holds a port until the program gives \
             up (about two minutes unless it sets a limit). Set a connect time-out of a few seconds and back off between \
             attempts.",
            count(s.syn_sent),
            count(s.live)
        ),
        command: Some(format!("ss -tnpo state syn-sent dst {}", case.to)),
        snippet: None,
        expect: Evidence::new().with("syn_sent", 0),
    }
}

fn spread(case: &Case<'_>) -> Fix {
    if case.proto == Proto::Udp {
        return Fix {
            title: "Send from fewer UDP sockets".to_owned(),
            why: "A UDP socket holds its port against every destination, not against one only. One socket can send to any number \
                  of peers (sendto) and carry any number of requests at a time."
                .to_owned(),
            command: case.user.is_none().then(|| format!("ss -unp dst {}", case.to)),
            ..Fix::default()
        };
    }
    Fix {
        title: "Carry more on each connection".to_owned(),
        why: format!(
            "{} are open at once and live long, so reusing them more frees nothing. HTTP/2 or another protocol that \
             multiplexes, batching, or a proxy near {} makes them fewer. Where there must be this many, more source addresses, \
             a second address or port of the destination, or IPv6 each bring a port range of their own.",
            counted(case.sockets.live, "connection", "connections"),
            case.to
        ),
        command: case
            .user
            .is_none()
            .then(|| format!("ss -tnpo state established dst {}", case.to)),
        ..Fix::default()
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    // A name such as PgBouncer stays as it is: only a leading English word is lowered.
    match (chars.next(), chars.next()) {
        (Some(a), Some(b)) if b.is_lowercase() => a.to_lowercase().chain(text.chars().skip(1)).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;

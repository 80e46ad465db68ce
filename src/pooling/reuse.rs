//! Short connections: the pool with its numbers, and what stands in its way.

use std::net::SocketAddr;

use super::runtimes::{Runtime, Service};
use super::sizing::{HTTP2_STREAMS, Sizing};
use super::snippets::{self, Snippet};
use super::{Case, Evidence, Fix, Remedy};
use crate::words::{count, counted, number, seconds, whole32};

/// A connection that the other side closes after so many seconds was idle, most likely: few answers take as long.
const IDLE_SECONDS: f64 = 2.0;

/// Destinations from which on a program's connections are a fan-out.
const FAN_OUT: u32 = 32;

/// What PostgreSQL and MySQL admit unless told otherwise (max_connections: 100 and 151).
const ADMITTED: u32 = 100;

/// The pool, and beside it what else the evidence asks for.
pub fn fixes(case: &Case<'_>, remedy: Remedy, sizing: Option<Sizing>) -> Vec<Fix> {
    let Some(sizing) = sizing else {
        return vec![unsized_pool(case)];
    };
    let mut fixes = vec![if remedy == Remedy::PoolOutside {
        outside(case, &sizing)
    } else {
        pool(case, &sizing)
    }];
    if !case.closes_here() {
        fixes.push(theirs(case, &sizing));
    }
    fixes.extend(fan_out(case));
    // Whoever ends each idle connection after seconds undoes any pool: that comes first.
    if !case.closes_here() && sizing.lifetime_seconds >= IDLE_SECONDS {
        fixes.swap(0, 1);
    }
    fixes
}

fn unsized_pool(case: &Case<'_>) -> Fix {
    Fix {
        title: format!("Reuse connections to {}", case.to),
        why: "Each closed connection holds its port for another 60 s; one that is kept open and reused holds one port for \
              many requests. A pool cannot be sized now: no connection was seen to be opened while watched."
            .to_owned(),
        ..Fix::default()
    }
}

fn pool(case: &Case<'_>, s: &Sizing) -> Fix {
    let runtime = case.user.and_then(|u| Runtime::of(u.process));
    let service = Service::of(case.to.port());
    let snippet = snippets::snippet(runtime, service, case.to, s.per_process);
    let title = match &snippet {
        Some(snippet) => format!("Reuse connections: {}", lower_first(snippet.title)),
        None => format!(
            "Reuse connections: keep a pool of {} to {} open",
            count(s.per_process),
            case.to
        ),
    };
    let each = match case.processes() {
        1 => String::new(),
        n => format!(", {} in each of {n} processes,", count(s.per_process)),
    };
    let mut fix = filled(case, s, title, &each, snippet);
    // Without an owner the first step is to find one; TIME_WAIT has none, so live sockets must be caught.
    fix.command = case.user.is_none().then(|| format!("ss -tnp dst {}", case.to));
    fix
}

/// Of short-lived processes.
fn outside(case: &Case<'_>, s: &Sizing) -> Fix {
    let service = Service::of(case.to.port());
    let snippet = snippets::proxy(service, case.to, s.pool);
    let title = "Keep the connections outside of the short-lived processes".to_owned();
    let mut fix = filled(case, s, title, "", snippet);
    fix.why.push_str(&format!(
        " Some {} processes opened them, {} at most each, and ended: a pool inside such a process ends with it. Keep the \
         connections in a proxy on this host, or do the work in one process that stays, many items in one call.",
        count(case.processes()),
        count(case.measured.map_or(1, |m| m.opens_per_process.max(1)))
    ));
    fix
}

fn filled(case: &Case<'_>, s: &Sizing, title: String, each: &str, snippet: Option<Snippet>) -> Fix {
    let frees = case.sockets.held.saturating_sub(s.ports_pooled);
    let mut why = format!(
        "A pool of {}{each} carries this load and frees {}. {}",
        counted(s.pool, "connection", "connections"),
        counted(frees, "port", "ports"),
        arithmetic(case, s)
    );
    why.push_str(&further(case, s));
    if let Some(note) = snippet.as_ref().map(|s| s.note).filter(|note| !note.is_empty()) {
        why.push(' ');
        why.push_str(note);
    }
    Fix {
        title,
        why,
        command: None,
        snippet: snippet.map(|s| s.code),
        expect: Evidence::new()
            .with("ports_in_use", s.ports_pooled)
            .with("ports_at_most", s.pool),
    }
}

/// What the service adds to the arithmetic.
fn further(case: &Case<'_>, s: &Sizing) -> String {
    match Service::of(case.to.port()) {
        Service::Https if s.pool > 2 => format!(
            " Over HTTP/2 one connection carries {HTTP2_STREAMS} requests or more at a time: {} would do.",
            counted(
                s.pool.div_ceil(HTTP2_STREAMS).max(case.pools()),
                "connection",
                "connections"
            )
        ),
        Service::Postgres | Service::Mysql if s.pool > ADMITTED => format!(
            " That is more than the database admits unless told otherwise (max_connections, {ADMITTED} or so), and more than \
             twice its processors and disks makes no database faster: let requests wait for a smaller pool, or put a pooler between."
        ),
        _ => String::new(),
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
    let mut held = if case.closes_here() {
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
    if !case.to.ip().is_loopback() {
        held.push_str(&format!(
            ", and {} in a NAT on the way, which keeps each for 120 s",
            count(s.nat_unpooled)
        ));
    }
    let exact = case.measured.is_some_and(|m| m.peak_is_exact);
    let derived = if case.mean_concurrency > 0.0 || exact {
        format!(
            "on average {} are open at a time, {} at most ({})",
            number(case.mean_concurrency),
            count(case.peak_concurrency),
            match (case.measured.is_some(), exact) {
                (_, true) =>
                    "opens and the time open were measured at each connect and close; the average is Little's law; the pool \
                     is that peak and a tenth",
                (true, false) =>
                    "opens and the time open were measured at each connect and close; the average is Little's law; the pool \
                     is the average and 3.5 times its square root",
                (false, false) =>
                    "from looks, so a burst between two was not seen; the time open is derived by Little's law; the pool is \
                     the average and 3.5 times its square root, at least that peak; with CAP_BPF and CAP_PERFMON wgnat measures all this",
            }
        )
    } else {
        "none was open at any look, so each is very short and the pool is the least that makes sense"
            .to_owned()
    };
    let turned_away = case.measured.map_or(0.0, |m| m.turned_away_per_second);
    let full = if turned_away > 0.0 {
        // Each would have been held as long as the others.
        let wanted = (opens.per_second + turned_away) * s.lifetime_seconds;
        let most = case
            .ports
            .map_or(u32::MAX, |p| p.usable)
            .min(whole32(wanted.ceil()));
        format!(
            " {} opens/s more found no port. If these are more than one request trying again and again, up to {} would be in \
             use: watch whether requests wait for the pool.",
            number(turned_away),
            count(most.max(s.pool))
        )
    } else if case.share().is_some_and(|share| share >= 1.0) {
        " Opens that failed for want of a port are not counted, so begin with this size and watch.".to_owned()
    } else {
        String::new()
    };
    format!("The arithmetic: {held}; {derived}.{full}")
}

/// The other side closes first, which a pool on this side does not change.
fn theirs(case: &Case<'_>, s: &Sizing) -> Fix {
    let to = case.to;
    let life = seconds(s.lifetime_seconds);
    if s.lifetime_seconds >= IDLE_SECONDS {
        return Fix {
            title: format!("Make the idle time-outs of this side and of {to} fit"),
            why: format!(
                "The other side closes first, after {life} on average: most likely its keep-alive (idle) time-out is over. Raise \
                 it there above the longest pause between two requests, and set this side's idle time-out a little lower than \
                 that, so that this side never sends into a connection that is just being closed."
            ),
            ..Fix::default()
        };
    }
    Fix {
        title: format!("Find out why {to} closes each connection"),
        why: format!(
            "The other side closes first, {life} after the connection was opened. Either this side asks for it (HTTP/1.0 or \
             `Connection: close`, as Node.js before 19 and nginx before 1.29.7 do unless told otherwise), which the pool ends; or keep-alive is off at the other side, and then it must be turned on there."
        ),
        command: match Service::of(to.port()) {
            Service::Https => Some(headers("https", to)),
            Service::Http => Some(headers("http", to)),
            Service::Postgres | Service::Mysql | Service::Redis | Service::Dns => None,
        },
        ..Fix::default()
    }
}

/// Shows who asks for the end: `> Connection: close` is this side, `< Connection: close` the other.
fn headers(scheme: &str, to: SocketAddr) -> String {
    format!("curl -skv -o /dev/null {scheme}://{to}/ 2>&1 | grep -i '^[<>] connection'")
}

/// Many destinations: a pool for each holds many connections that are hardly used.
fn fan_out(case: &Case<'_>) -> Option<Fix> {
    let destinations = case.measured?.destinations;
    (destinations >= FAN_OUT).then(|| Fix {
        title: "Send the fan-out through fewer connections".to_owned(),
        why: format!(
            "The program opened connections to {} destinations. A pool for each adds up, and where a destination is called only \
             now and then its connection ends before it is wanted again. Batch what goes to one place, or hand it to a proxy or \
             a queue that keeps the connections; where a NAT on the way runs short, give that more addresses, or use IPv6, which \
             needs none.",
            count(destinations)
        ),
        ..Fix::default()
    })
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    // A name such as PgBouncer stays as it is: only a leading English word is lowered.
    match (chars.next(), chars.next()) {
        (Some(a), Some(b)) if b.is_lowercase() => a.to_lowercase().chain(text.chars().skip(1)).collect(),
        _ => text.to_owned(),
    }
}

//! The search for how long a NAT keeps the mapping of an idle tunnel.
//!
//! Whether a mapping is alive shows only when something comes in through it after a silence, and whatever we send keeps it
//! alive. So somebody inside has to send at a time that is known, without being asked at that time: a TCP server whose data
//! is never acknowledged repeats it, and doubles the time between (RFC 6298, section 5.5). Within such a gap we keep the mapping
//! alive up to a moment of our choice and are silent from then on; whether the repetition arrives tells whether the mapping
//! outlived that silence. So any silence up to two minutes can be tried, to a peer that needs no change.
//!
//! Two of WireGuard's own timers must stay quiet meanwhile. A responder that has sent data and hears nothing for 15 s begins
//! a handshake: an empty message of ours right after each arrival stops that. One that has received data sends an empty
//! message after 10 s: so what we send is always empty.
//!
//! In: inner packets, the time. Out: inner packets (an empty one is a keepalive), and a [`Lifetime`] in the end.

mod segment;

use std::net::{IpAddr, SocketAddr};

use segment::{Arrived, Connection};

use super::Inside;
use crate::observation::probe::{Fact, Lifetime};
use crate::time::{Span, Timestamp};

/// Silences up to this are tried: a mapping that lives longer needs no keepalive below the usual 25 s by far.
pub const LONGEST: Span = Span::from_secs(120);
/// The search ends when the shortest that fails is no longer than this times the longest that passes.
const CLOSE: f64 = 1.25;
/// The first silence that is worth a try.
const SHORTEST: Span = Span::from_secs(2);
/// While it waits for a gap to be as short as wanted, the mapping is kept alive this often.
const REFRESH: Span = Span::from_secs(1);
/// A repetition may be late by this and a tenth of its gap.
const LATE: Span = Span::from_secs(1);
/// The handshake of TCP, and the server's first data, may take this long each.
const PATIENCE: Span = Span::from_secs(3);
/// Connections that are tried in all, and silences.
const CONNECTIONS: u32 = 12;
const SILENCES: usize = 24;
/// The whole search may take this long.
const LIMIT: Span = Span::from_secs(1200);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// A SYN is out.
    Connecting {
        since: Timestamp,
        tries: u32,
    },
    /// The connection stands; the server has not said anything yet.
    Listening {
        since: Timestamp,
        asked: bool,
    },
    /// The server's data came once; how long until it repeats it is not known.
    First {
        at: Timestamp,
    },
    /// A repetition is expected.
    Waiting {
        expected: Timestamp,
        gap: Span,
        /// When silence begins; until then the mapping is refreshed.
        quiet_from: Timestamp,
        next_refresh: Timestamp,
        last_sent: Timestamp,
        /// The mapping is believed to be gone; this gap only finds the connection again.
        recovering: bool,
    },
    Over,
}

/// The machine.
pub struct LifetimeSearch {
    connection: Connection,
    seed: u64,
    connections: u32,
    phase: Phase,
    began: Timestamp,
    /// The newest gap between two repetitions.
    last_gap: Span,
    alive: Span,
    dead: Option<Span>,
    tried: Vec<(f64, bool)>,
    out: Vec<Vec<u8>>,
    result: Option<Lifetime>,
}

impl LifetimeSearch {
    /// With data of the server at `to`, asked from `source`.
    pub fn new(source: IpAddr, to: SocketAddr, seed: u64, now: Timestamp) -> Self {
        let mut search = Self {
            connection: Connection::new(source, to, seed),
            seed,
            connections: 0,
            phase: Phase::Over,
            began: now,
            last_gap: Span::ZERO,
            alive: Span::ZERO,
            dead: None,
            tried: Vec::new(),
            out: Vec::new(),
            result: None,
        };
        search.connect(now);
        search
    }

    fn connect(&mut self, now: Timestamp) {
        if self.connections >= CONNECTIONS || self.tried.len() >= SILENCES || now - self.began > LIMIT {
            return self.end(None);
        }
        if self.connections > 0 {
            self.out.extend(self.connection.reset());
        }
        self.connections += 1;
        self.last_gap = Span::ZERO;
        self.connection
            .renew(self.seed.wrapping_add(u64::from(self.connections) * 7919));
        self.out.extend(self.connection.syn());
        self.phase = Phase::Connecting { since: now, tries: 1 };
    }

    fn end(&mut self, error: Option<&str>) {
        self.out.extend(self.connection.reset());
        self.phase = Phase::Over;
        let nothing = self.tried.is_empty();
        self.result = Some(Lifetime {
            alive_after_seconds: (!self.alive.is_zero()).then_some(self.alive.as_secs_f64()),
            dead_after_seconds: self.dead.map(|d| d.as_secs_f64()),
            tried: std::mem::take(&mut self.tried),
            error: error
                .or(nothing.then_some("no silence could be tried"))
                .map(str::to_owned),
        });
    }

    fn is_found(&self) -> bool {
        match self.dead {
            Some(dead) => dead.as_secs_f64() <= self.alive.as_secs_f64() * CLOSE || dead <= SHORTEST,
            None => self.alive >= LONGEST.mul_f64(0.9),
        }
    }

    /// The silence that would tell most: as long as can be while none failed, else between.
    fn wanted(&self, gap: Span) -> Span {
        match self.dead {
            None => gap.min(LONGEST),
            Some(dead) => {
                Span::from_secs_f64((self.alive.max(SHORTEST / 2).as_secs_f64() * dead.as_secs_f64()).sqrt())
            }
        }
    }

    /// The server's data came at `now`, and will come again after `gap`.
    fn await_next(&mut self, now: Timestamp, gap: Span, recovering: bool) {
        let wanted = self.wanted(gap);
        // It is faster to begin anew than to wait through a gap that is far too long.
        if self.dead.is_some() && gap > wanted.mul_f64(2.5).max(SHORTEST * 2) {
            return self.connect(now);
        }
        let silence = if recovering || wanted > gap {
            Span::ZERO
        } else {
            wanted
        };
        let expected = now + gap;
        // Short gaps on the way to the wanted one are silent as a whole: nothing is lost by that.
        let quiet_from = match silence.is_zero() {
            true => expected,
            false => now + gap.saturating_sub(silence),
        };
        self.out.push(Vec::new());
        self.phase = Phase::Waiting {
            expected,
            gap,
            quiet_from,
            next_refresh: now + REFRESH,
            last_sent: now,
            recovering,
        };
    }

    fn arrived(&mut self, now: Timestamp) {
        match self.phase {
            Phase::Connecting { .. } | Phase::Over => {}
            Phase::Listening { .. } => {
                self.out.push(Vec::new());
                self.phase = Phase::First { at: now };
            }
            // The first repetitions come by another timer (tail loss probe), so gaps count from the second on.
            Phase::First { at } => self.await_next(now, (now - at) * 2, true),
            Phase::Waiting {
                expected,
                gap,
                last_sent,
                recovering,
                ..
            } => {
                let real = gap.saturating_sub(expected - now) + (now - expected);
                let silence = now - last_sent;
                if !recovering && silence >= SHORTEST {
                    self.told(silence, true);
                }
                if self.is_found() || now - self.began > LIMIT {
                    return self.end(None);
                }
                // A server has a longest gap: from there on they are all the same.
                let grew = real > self.last_gap.mul_f64(1.5);
                self.last_gap = real;
                let next = if grew { (real * 2).min(LONGEST) } else { real };
                self.await_next(now, next, false);
            }
        }
    }

    fn told(&mut self, silence: Span, alive: bool) {
        self.tried.push((silence.as_secs_f64(), alive));
        if alive {
            self.alive = self.alive.max(silence);
            // It failed at a shorter one before: that was loss.
            self.dead = self.dead.filter(|dead| *dead > silence);
        } else {
            self.dead = Some(self.dead.map_or(silence, |dead| dead.min(silence)));
        }
    }
}

fn late(gap: Span) -> Span {
    LATE + gap / 10
}

impl Inside for LifetimeSearch {
    fn handle_input(&mut self, now: Timestamp, inner: Vec<u8>) {
        match self.connection.receive(&inner) {
            None => {}
            Some(Arrived::Accepted) => {
                if matches!(self.phase, Phase::Connecting { .. }) {
                    self.out.extend(self.connection.ack());
                    self.phase = Phase::Listening {
                        since: now,
                        asked: false,
                    };
                }
            }
            Some(Arrived::Data) => self.arrived(now),
            Some(Arrived::Reset) => match self.phase {
                Phase::Connecting { .. } => self.end(Some("the server refuses the connection")),
                Phase::Over => {}
                _ => self.connect(now),
            },
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        match self.phase {
            Phase::Connecting { since, tries } if now >= since + PATIENCE => {
                if tries >= 3 {
                    return self.end(Some("the server does not answer"));
                }
                self.out.extend(self.connection.syn());
                self.phase = Phase::Connecting {
                    since: now,
                    tries: tries + 1,
                };
            }
            Phase::Listening { since, asked } if now >= since + PATIENCE => {
                if asked {
                    return self.end(Some(
                        "the server says nothing, so there is nothing that it could repeat",
                    ));
                }
                self.out.extend(self.connection.ask());
                self.phase = Phase::Listening {
                    since: now,
                    asked: true,
                };
            }
            Phase::First { at } if now >= at + PATIENCE * 2 => self.connect(now),
            Phase::Waiting {
                expected,
                gap,
                last_sent,
                recovering,
                ..
            } if now >= expected + late(gap) => {
                if recovering {
                    return self.connect(now);
                }
                let silence = expected - last_sent;
                if silence < SHORTEST {
                    return self.connect(now);
                }
                self.told(silence, false);
                if self.is_found() {
                    return self.end(None);
                }
                // A new connection opens a new mapping, and its gaps are short again.
                self.connect(now);
            }
            Phase::Waiting {
                quiet_from,
                next_refresh,
                expected,
                gap,
                recovering,
                ..
            } if now >= next_refresh && next_refresh < quiet_from => {
                self.out.push(Vec::new());
                self.phase = Phase::Waiting {
                    expected,
                    gap,
                    quiet_from,
                    next_refresh: (now + REFRESH).min(quiet_from.max(now)),
                    last_sent: now,
                    recovering,
                };
            }
            _ => {}
        }
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.out.is_empty()).then(|| self.out.remove(0))
    }

    fn poll_timeout(&mut self, _now: Timestamp) -> Option<Timestamp> {
        match self.phase {
            Phase::Connecting { since, .. } | Phase::Listening { since, .. } => Some(since + PATIENCE),
            Phase::First { at } => Some(at + PATIENCE * 2),
            Phase::Waiting {
                expected,
                gap,
                quiet_from,
                next_refresh,
                ..
            } => Some(if next_refresh < quiet_from {
                next_refresh
            } else {
                expected + late(gap)
            }),
            Phase::Over => None,
        }
    }

    fn poll_event(&mut self) -> Option<Fact> {
        // What is to be sent goes first.
        if self.out.is_empty() {
            self.result.take().map(Fact::Lifetime)
        } else {
            None
        }
    }
}

#[cfg(test)]
#[path = "lifetime_tests.rs"]
mod tests;

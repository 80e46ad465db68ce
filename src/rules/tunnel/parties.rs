//! Whose a handshake on the wire is: of a device here that calls, of one that is called, or somebody else's that only
//! passes.
//!
//! In: [`Input`]. Out: for each initiator on the wire its [`Role`], and [`Passing`] handshakes with both sides of a
//! translation joined. Why: at a router no device is known, and the wire is all there is to judge by.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::view::View;
use crate::rules::Input;
use crate::rules::captured::view::{Initiator, initiators};
use crate::time::Timestamp;
use crate::track::handshake::{ANSWER_WITHIN, Attempt, Conversation};
use crate::track::tunnels::DeviceTrack;
use crate::types::SessionIndex;

/// What this host has to do with a handshake.
pub enum Role<'a> {
    /// A device here calls its peer.
    Caller(Box<View<'a>>),
    /// A device here is called.
    Called(&'a DeviceTrack),
    /// A device here called, from a port that it has left since; or wgnat's own probe.
    Former,
    /// Neither end is a device that is known here.
    Passing,
}

/// Every initiator on the wire with what this host has to do with it.
pub fn roles<'a>(input: &Input<'a>) -> impl Iterator<Item = (Initiator<'a>, Role<'a>)> + use<'a> {
    let input = *input;
    let world = input.world;
    initiators(&input).map(move |initiator| {
        let (from, to) = (initiator.end.address, initiator.responder);
        let owner = world.tunnels.owner_of(Some(from.port()), to);
        let role = match owner {
            _ if world.probes.sent(from, to) => Role::Former,
            Some((device, key)) => match device.peers.get(key) {
                Some(peer) => Role::Caller(Box::new(View::of(world, device, *key, peer))),
                None => Role::Passing,
            },
            None => match called(&input, &initiator).or_else(|| device_of(&input, &initiator, from)) {
                // A device that called an endpoint which its peer has left since is judged by its new one.
                Some(device) => Role::Called(device),
                None if began_here(&initiator) && world.tunnels.is_endpoint(to) => Role::Former,
                None => Role::Passing,
            },
        };
        (initiator, role)
    })
}

/// Whether none of it came in: it began on this host.
fn began_here(initiator: &Initiator<'_>) -> bool {
    !initiator.end.attempts().any(|a| a.taps.came_in())
}

/// The device of this host that a handshake is meant for.
pub fn called<'a>(input: &Input<'a>, initiator: &Initiator<'_>) -> Option<&'a DeviceTrack> {
    device_of(input, initiator, initiator.responder)
}

/// The device that listens at `address`, one end of the handshake, where that is this host's. A device whose port is not
/// told may be any.
fn device_of<'a>(
    input: &Input<'a>,
    initiator: &Initiator<'_>,
    address: SocketAddr,
) -> Option<&'a DeviceTrack> {
    let world = input.world;
    let mut devices = world.tunnels.devices().filter(|d| d.vanished_at.is_none());
    let listening = devices.find(|d| d.info.listen_port.is_none_or(|port| port == address.port()))?;
    // Without addresses to compare with, directions must do; they do not tell what is forwarded.
    let by_direction = || {
        let ends = initiator.conversation.local_remote();
        ends.is_none_or(|(local, _)| local.address == address)
    };
    let is_local = match world.routes.tables() {
        Some(_) => world.routes.is_local(address.ip()),
        None => by_direction(),
    };
    is_local.then_some(listening)
}

/// A handshake of two others that passes this host, on one or both sides of a translation.
pub struct Passing<'a> {
    /// The initiator, by the address under which it was seen first.
    pub initiator: Initiator<'a>,
    /// Under which address of the initiator it goes on, where this host translates that.
    pub translated: Option<SocketAddr>,
    /// The same handshakes as they go on, where this host translates either end: of the kernel's errors those about
    /// that side say who really turned a message back.
    pub beyond: Option<&'a Conversation>,
    /// Its attempts, oldest first.
    pub tries: Vec<Try>,
}

/// One attempt as it passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// When it was first seen.
    pub at: Timestamp,
    /// It came in; a handshake of this host's own never does.
    pub came_in: bool,
    /// It went out.
    pub went_out: bool,
    /// A response came in.
    pub answer_in: bool,
    /// A response went out to the initiator.
    pub answer_out: bool,
    /// A cookie reply or an ICMP error came for it.
    pub other_answer: bool,
}

impl Try {
    fn of(attempt: &Attempt) -> Self {
        let answer = attempt.answer.map(|a| a.taps);
        Self {
            at: attempt.at,
            came_in: attempt.taps.came_in(),
            went_out: attempt.taps.went_out(),
            answer_in: answer.is_some_and(|taps| taps.came_in()),
            answer_out: answer.is_some_and(|taps| taps.went_out()),
            other_answer: attempt.cookie_at.is_some() || attempt.icmp.is_some(),
        }
    }

    fn join(&mut self, other: &Self) {
        self.at = self.at.min(other.at);
        self.came_in |= other.came_in;
        self.went_out |= other.went_out;
        self.answer_in |= other.answer_in;
        self.answer_out |= other.answer_out;
        self.other_answer |= other.other_answer;
    }

    /// Whether the initiator may have got an answer.
    pub fn is_answered(&self) -> bool {
        self.other_answer || self.answer_out || (self.answer_in && !self.came_in)
    }
}

/// Every handshake that passes.
pub fn passing<'a>(input: &Input<'a>) -> Vec<Passing<'a>> {
    let all: Vec<Initiator<'a>> = roles(input)
        .filter(|(_, role)| matches!(role, Role::Passing))
        .map(|(initiator, _)| initiator)
        .collect();
    // Under which initiator a message came in: what leaves again under another address is the same.
    let mut came_in: HashMap<(SessionIndex, [u8; 16]), usize> = HashMap::new();
    for (place, initiator) in all.iter().enumerate() {
        let from_outside = initiator.end.attempts().filter(|a| a.taps.came_in());
        came_in.extend(from_outside.map(|a| ((a.sender, a.mac1), place)));
    }
    let mut tries: Vec<Vec<Try>> = all
        .iter()
        .map(|i| i.end.attempts().map(Try::of).collect())
        .collect();
    let mut beyond: Vec<Option<&Initiator<'_>>> = vec![None; all.len()];
    let mut is_twin = vec![false; all.len()];
    for (place, initiator) in all.iter().enumerate() {
        for attempt in initiator.end.attempts() {
            let Some(first) = came_in.get(&(attempt.sender, attempt.mac1)).copied() else {
                continue;
            };
            if first == place {
                continue;
            }
            is_twin[place] = true;
            beyond[first] = Some(initiator);
            let position = all[first]
                .end
                .attempts()
                .position(|a| (a.sender, a.mac1) == (attempt.sender, attempt.mac1));
            if let Some(known) = position.and_then(|at| tries[first].get_mut(at)) {
                known.join(&Try::of(attempt));
            }
        }
    }
    let beyond: Vec<_> = beyond
        .into_iter()
        .zip(&all)
        .map(|(beyond, initiator)| {
            let beyond = beyond?;
            let source = beyond.end.address;
            let translated = (source != initiator.end.address).then_some(source);
            Some((translated, beyond.conversation))
        })
        .collect();
    all.into_iter()
        .zip(tries)
        .zip(beyond)
        .zip(is_twin)
        .filter(|(_, is_twin)| !is_twin)
        .map(|(((initiator, tries), beyond), _)| Passing {
            initiator,
            translated: beyond.and_then(|(translated, _)| translated),
            beyond: beyond.map(|(_, conversation)| conversation),
            tries,
        })
        .collect()
}

impl Passing<'_> {
    /// Whether it is this host itself that is called, and none of it goes on: no device here has that port, and nothing
    /// forwards it.
    pub fn ends_here(&self) -> bool {
        let called = self.initiator.responder.ip();
        self.initiator.world.routes.is_local(called) && !self.tries.iter().any(|t| t.went_out)
    }

    /// Its newest attempts that one intention made, each a retry of the one before, up to the last answered one; what
    /// still has time at `now` is left out.
    pub fn failed_run(&self, now: Timestamp) -> &[Try] {
        let over = match self.tries.last() {
            Some(last) if now < last.at + ANSWER_WITHIN => self.tries.len() - 1,
            _ => self.tries.len(),
        };
        let mut from = over;
        while from > 0 {
            let this = &self.tries[from - 1];
            let next = self.tries.get(from);
            if this.is_answered() || next.is_some_and(|next| next.at - this.at > ANSWER_WITHIN * 2) {
                break;
            }
            from -= 1;
        }
        &self.tries[from..over]
    }
}

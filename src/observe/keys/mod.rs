//! Who calls, and when by that clock: handshake messages to this host's devices, opened with the devices' own keys.
//!
//! In: messages from the tap ([`inbox`]), keys from the observers of devices ([`vault`]). Out: `Body::Checked`, facts
//! with public keys only. Needs: devices whose private keys can be read (the kernel's and wireguard-go's, by root;
//! boringtun never tells its own). Costs: 0.15 ms a message, at most [`A_SECOND`] of them a second and
//! [`A_SECOND_EACH`] from one address, so that a flood costs no more than that; what is passed over is counted.
//!
//! A private key never leaves the vault: not in a record, a log, a report or an error.

pub mod inbox;
pub mod vault;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use self::inbox::{Inbox, Incoming};
use self::vault::Vault;
use super::{Emit, ObserveError, Observer};
use crate::observation::packet::{Bytes, CheckedKind, CheckedMessage};
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::time::{Span, Timestamp};
use crate::types::PublicKey;
use crate::wire::key_ring::KeyRing;
use crate::wire::wireguard::{RESPONSE_LEN, Response};

/// Messages that are checked each second.
pub const A_SECOND: u32 = 200;
/// Messages from one address that are checked each second: the protocol makes one in five.
pub const A_SECOND_EACH: u32 = 8;
/// Messages that wait for the devices to be read first.
const WAITING: usize = 1024;
/// How long a message waits for that. Devices are read twice a second.
const PATIENCE: Span = Span::from_secs(2);

/// The observer.
pub struct Keys {
    inbox: Inbox,
    vault: Arc<Vault>,
    waiting: VecDeque<Incoming>,
    budget: Budget,
    passed_over: u64,
}

impl Keys {
    /// Opens what comes out of `inbox` with what is in `vault`.
    pub fn new(inbox: Inbox, vault: Arc<Vault>) -> Self {
        Self {
            inbox,
            vault,
            waiting: VecDeque::new(),
            budget: Budget::default(),
            passed_over: 0,
        }
    }

    fn take_in(&mut self) -> u64 {
        let (incoming, dropped) = self.inbox.take();
        for message in incoming {
            if self.waiting.len() >= WAITING || !self.budget.grants(&message) {
                self.passed_over += 1;
            } else {
                self.waiting.push_back(message);
            }
        }
        dropped
    }

    fn status(&self, dropped: u64) -> SourceStatus {
        let holdings = self.vault.holdings();
        let mut reasons = Vec::new();
        if !holdings.unreadable.is_empty() {
            reasons.push(format!(
                "the private key of {} cannot be read (boringtun never tells it; others tell it to root): who calls \
                 there, and whether a clock went back, is not checked",
                holdings.unreadable.join(", ")
            ));
        }
        let passed_over = self.passed_over + dropped;
        if passed_over > 0 {
            reasons.push(format!(
                "{passed_over} handshake messages were not opened: more than {A_SECOND} a second came, or more than \
                 {A_SECOND_EACH} from one address"
            ));
        }
        match (reasons.is_empty(), holdings.readable.is_empty()) {
            (true, _) => SourceStatus::ok(),
            (false, true) if !holdings.unreadable.is_empty() => SourceStatus::unavailable(reasons.join("; ")),
            (false, _) => SourceStatus::degraded(reasons.join("; ")),
        }
    }
}

impl Observer for Keys {
    fn source(&self) -> Source {
        Source::Keys
    }

    fn interval(&self) -> Span {
        Span::from_secs(1)
    }

    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        Some(self.inbox.wakeup())
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let dropped = self.take_in();
        let now = clock::now();
        let mut later = VecDeque::new();
        for message in std::mem::take(&mut self.waiting) {
            // For nobody here: it is forwarded, or its device is not read yet.
            let Some(reached) = self.vault.listening_on(message.destination.port()) else {
                if now - message.at < PATIENCE {
                    later.push_back(message);
                }
                continue;
            };
            if let Some(checked) = self.vault.check(|ring| check(ring, &message, reached)) {
                emit.emit(message.at, Span::ZERO, Body::Checked(checked));
            }
        }
        self.waiting = later;
        Ok(self.status(dropped))
    }
}

/// What the keys say of one message that reached the device with the key `reached`.
pub fn check(ring: &KeyRing, message: &Incoming, reached: Option<PublicKey>) -> Option<CheckedMessage> {
    // A device whose key is not known cannot be told from another.
    let reached = Some(reached?);
    let (payload, source, destination) = (message.payload.as_slice(), message.source, message.destination);
    if payload.len() == RESPONSE_LEN {
        let response = Response::parse(payload.try_into().ok()?)?;
        return Some(CheckedMessage {
            message: CheckedKind::Response,
            source,
            destination,
            sender: response.sender,
            mac1: Bytes(response.mac1.to_vec()),
            reached,
            made_for: ring.made_for(payload, reached),
            opened: None,
            is_listed: None,
        });
    }
    let checked = ring.try_on(payload)?.about(payload, source, destination)?;
    Some(CheckedMessage { reached, ..checked })
}

/// How many messages may be checked, by the second in which they came.
#[derive(Default)]
struct Budget {
    second: i64,
    spent: u32,
    by_address: HashMap<IpAddr, u32>,
}

impl Budget {
    fn grants(&mut self, message: &Incoming) -> bool {
        let second = message.at.since(Timestamp::EPOCH).as_secs().cast_signed();
        if second != self.second {
            *self = Self {
                second,
                ..Self::default()
            };
        }
        if self.spent >= A_SECOND {
            return false;
        }
        // As large as what was granted, at most.
        let each = self.by_address.entry(message.source.ip()).or_default();
        if *each >= A_SECOND_EACH {
            return false;
        }
        *each += 1;
        self.spent += 1;
        true
    }
}

#[cfg(test)]
mod tests;

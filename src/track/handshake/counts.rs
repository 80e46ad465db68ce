//! How many messages of each kind.

use crate::wire::wireguard::Kind;

/// Messages, each counted once however many interfaces it passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// Type 1.
    pub initiations: u64,
    /// Type 2.
    pub responses: u64,
    /// Type 3.
    pub cookie_replies: u64,
    /// Type 4 with something in it.
    pub data: u64,
    /// Type 4 with nothing in it.
    pub keepalives: u64,
    /// Responses to no initiation that was seen.
    pub stray_responses: u64,
    /// Cookie replies to no handshake message that was seen.
    pub stray_cookie_replies: u64,
}

impl MessageCounts {
    pub(super) fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Initiation => self.initiations += 1,
            Kind::Response => self.responses += 1,
            Kind::CookieReply => self.cookie_replies += 1,
            Kind::Data => self.data += 1,
        }
    }

    /// Messages of all kinds.
    pub fn total(&self) -> u64 {
        self.initiations + self.responses + self.cookie_replies + self.data + self.keepalives
    }
}

impl std::ops::Add for MessageCounts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            initiations: self.initiations + other.initiations,
            responses: self.responses + other.responses,
            cookie_replies: self.cookie_replies + other.cookie_replies,
            data: self.data + other.data,
            keepalives: self.keepalives + other.keepalives,
            stray_responses: self.stray_responses + other.stray_responses,
            stray_cookie_replies: self.stray_cookie_replies + other.stray_cookie_replies,
        }
    }
}

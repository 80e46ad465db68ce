//! What an active probe saw, about somebody else.

use super::Anonymiser;
use crate::observation::probe::{Fact, Outcome};

impl Anonymiser {
    pub(super) fn probed(&mut self, fact: &mut Fact) {
        match fact {
            Fact::Target(target) => {
                self.names.replace("file", &mut target.origin);
                target.device.iter_mut().for_each(|d| self.names.interface(d));
                self.key(&mut target.local_public_key);
                self.key(&mut target.public_key);
                target.endpoint = self.word(&target.endpoint);
                target.address.iter_mut().for_each(|a| self.addresses.socket(a));
            }
            Fact::Skipped(skipped) => {
                skipped.reason = self.text(&skipped.reason);
                skipped.way_round = skipped.way_round.as_deref().map(|w| self.text(w));
            }
            Fact::Attempt(attempt) => {
                attempt.local.iter_mut().for_each(|a| self.addresses.socket(a));
                if let Outcome::Icmp { from, .. } = &mut attempt.outcome {
                    from.iter_mut().for_each(|a| self.addresses.ip(a));
                }
            }
            // What another protocol says may name anything.
            Fact::Stray(stray) => stray.begins.clear(),
            Fact::Websocket(websocket) => {
                websocket.error = websocket.error.as_deref().map(|e| self.text(e));
                websocket.not_tls = websocket.not_tls.as_ref().map(|_| String::new());
                for certificate in &mut websocket.certificates {
                    self.names.replace("subject", &mut certificate.subject);
                    self.names.replace("issuer", &mut certificate.issuer);
                    self.names.replace("certificate", &mut certificate.sha256);
                }
            }
            Fact::Inner(inner) => {
                inner.target = self.text(&inner.target);
                inner.answer = inner.answer.as_deref().map(|a| self.text(a));
                inner.error = inner.error.as_deref().map(|e| self.text(e));
            }
            Fact::Mtu(mtu) => {
                self.addresses.ip(&mut mtu.target);
                if let Some(from) = mtu.told.as_mut().and_then(|told| told.from.as_mut()) {
                    self.addresses.ip(from);
                }
            }
            Fact::Lifetime(lifetime) => {
                lifetime.error = lifetime.error.as_deref().map(|e| self.text(e));
            }
        }
    }
}

//! The NAT in front of this host over time.
//!
//! In: [`NatFacts`] of each discovery. Out: the newest, and each change of the external address. Bounded: the newest facts
//! and a fixed number of changes.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::observation::nat::{Budget, Family, NatFacts, Pooling};
use crate::time::Timestamp;

/// Changes remembered; the oldest makes room, and [`NatState::changes_left_out`] counts it.
const MAX_CHANGES: usize = 32;

/// A change of the external address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When it was noticed.
    pub at: Timestamp,
    /// The family.
    pub family: Family,
    /// The addresses before.
    pub from: Vec<IpAddr>,
    /// The addresses since.
    pub to: Vec<IpAddr>,
    /// This host's own address towards the servers changed too.
    pub local_changed: bool,
}

/// What is known of the NAT in front.
#[derive(Debug, Default)]
pub struct NatState {
    newest: Option<(Timestamp, NatFacts)>,
    changes: VecDeque<Change>,
    changes_left_out: u64,
    budget: Option<Budget>,
}

impl NatState {
    /// Takes a discovery in.
    pub fn apply(&mut self, at: Timestamp, facts: &NatFacts) {
        if let Some((_, before)) = &self.newest {
            for family in &facts.families {
                let Some(old) = before.families.iter().find(|f| f.family == family.family) else {
                    continue;
                };
                // A discovery without an answer says nothing of the address; one address in common is no change (a pool).
                let both = !old.external_addresses.is_empty() && !family.external_addresses.is_empty();
                let common = family
                    .external_addresses
                    .iter()
                    .any(|a| old.external_addresses.contains(a));
                // A pool shows each time the addresses that some sockets happened to get.
                let pool = [old, family]
                    .iter()
                    .any(|f| f.external_addresses.len() > 1 || f.pooling == Some(Pooling::Arbitrary));
                if both && !common && !pool {
                    if self.changes.len() == MAX_CHANGES {
                        self.changes.pop_front();
                        self.changes_left_out += 1;
                    }
                    self.changes.push_back(Change {
                        at,
                        family: family.family,
                        from: old.external_addresses.clone(),
                        to: family.external_addresses.clone(),
                        local_changed: old.local.map(|l| l.ip()) != family.local.map(|l| l.ip()),
                    });
                }
            }
        }
        self.newest = Some((at, facts.clone()));
    }

    /// Forgets every discovery.
    pub fn forget_discoveries(&mut self) {
        *self = Self {
            budget: self.budget.take(),
            ..Self::default()
        };
    }

    /// Forgets what the user said of it.
    pub fn forget_budget(&mut self) {
        self.budget = None;
    }

    /// Takes in what the user says of it.
    pub fn apply_budget(&mut self, budget: &Budget) {
        self.budget = Some(budget.clone());
    }

    /// How many flows it allows, as the user says.
    pub fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    /// The newest discovery and when it ended.
    pub fn newest(&self) -> Option<(Timestamp, &NatFacts)> {
        self.newest.as_ref().map(|(at, facts)| (*at, facts))
    }

    /// Changes of the external address, oldest first.
    pub fn changes(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.changes.iter()
    }

    /// All changes, those that were forgotten too.
    pub fn changes_total(&self) -> u64 {
        self.changes.len() as u64 + self.changes_left_out
    }

    /// Changes that were forgotten for want of room.
    pub fn changes_left_out(&self) -> u64 {
        self.changes_left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::nat::FamilyFacts;

    fn facts(local: &str, external: &[&str]) -> NatFacts {
        let mut family = FamilyFacts::new(Family::Ipv4);
        family.local = Some(local.parse().unwrap());
        family.external_addresses = external.iter().map(|a| a.parse().unwrap()).collect();
        NatFacts {
            families: vec![family],
            ..NatFacts::default()
        }
    }

    #[test]
    fn only_another_address_is_a_change() {
        let mut state = NatState::default();
        let mut at = 0;
        let mut apply = |state: &mut NatState, local: &str, external: &[&str]| {
            at += 1;
            state.apply(Timestamp::from_secs(at), &facts(local, external));
        };
        apply(&mut state, "10.0.0.2:1", &["192.0.2.1"]);
        apply(&mut state, "10.0.0.2:2", &["192.0.2.1", "192.0.2.2"]);
        apply(&mut state, "10.0.0.2:3", &[]);
        assert_eq!(state.changes().count(), 0);
        apply(&mut state, "10.0.0.2:3", &["192.0.2.1"]);
        apply(&mut state, "10.0.0.2:3", &["192.0.2.9"]);
        let change = state.changes().next_back().unwrap();
        assert_eq!(change.to, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert!(!change.local_changed);
        apply(&mut state, "10.9.0.2:3", &["192.0.2.1"]);
        assert!(state.changes().next_back().unwrap().local_changed);
        for n in 0..100 {
            apply(&mut state, "10.0.0.2:3", &[&format!("192.0.2.{}", 10 + n % 2)]);
        }
        assert_eq!(state.changes().count(), MAX_CHANGES);
        assert!(state.changes_left_out() > 50);
    }
}

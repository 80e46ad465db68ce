//! The newest discovery as the rules of this area read it.

use std::net::IpAddr;

use crate::finding::Subject;
use crate::observation::nat::{FamilyFacts, NatFacts};
use crate::rules::Input;
use crate::time::Timestamp;
use crate::types::Proto;

/// The newest discovery and when it ended.
pub fn newest<'a>(input: &Input<'a>) -> Option<(Timestamp, &'a NatFacts)> {
    input.world.nat.newest()
}

/// Each family that a NAT is in front of.
pub fn translated<'a>(input: &Input<'a>) -> impl Iterator<Item = (Timestamp, &'a FamilyFacts)> {
    newest(input).into_iter().flat_map(|(at, facts)| {
        facts
            .families
            .iter()
            .filter(|f| f.translated == Some(true))
            .map(move |f| (at, f))
    })
}

/// The NAT in front, by its external address.
pub fn subject(external: Option<IpAddr>) -> Subject {
    Subject::Nat {
        address: external,
        proto: None,
        destination: None,
    }
}

/// The NAT in front, for UDP.
pub fn udp_subject(family: &FamilyFacts) -> Subject {
    Subject::Nat {
        address: family.external.map(|e| e.ip()),
        proto: Some(Proto::Udp),
        destination: None,
    }
}

/// Addresses in a sentence.
pub fn list(addresses: &[IpAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    all.join(", ")
}

//! `wg-wrong-peer-key`: an initiation was made for another key than that of the responder which it reaches.

use std::net::SocketAddr;

use super::WITH_KEYS;
use super::view::{count, finding, peer};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, tunnel};
use crate::track::World;
use crate::track::opened::Call;
use crate::types::{PublicKey, SessionIndex};

/// The rule.
pub const RULE: Rule = Rule {
    needs: WITH_KEYS,
    explained_by: &[],
    check,
    ..tunnel::WRONG_PEER_KEY
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let calls = input.world.opened.calls();
    calls
        .iter()
        .filter_map(|call| {
            let (owner, confidence) = owner(input.world, &calls, call.responder)?;
            let answered = answered(input.world, call.initiator, call.responder, call.last_sender);
            (call.made_for != Some(owner) && !answered).then(|| report(call, owner, confidence))
        })
        .collect()
}

/// Whose address it is: the key under which it answered; else the one whose configuration has that port; else the one
/// that others call it by, of those given.
fn owner(world: &World, calls: &[&Call], address: SocketAddr) -> Option<(PublicKey, Confidence)> {
    let to = || {
        calls
            .iter()
            .filter(|c| c.responder == address && c.made_for.is_some())
    };
    let proven = to().find(|c| answered(world, c.initiator, c.responder, c.last_sender));
    let likely = to().max_by_key(|c| c.count);
    if let Some(call) = proven {
        return Some((call.made_for?, Confidence::Certain));
    }
    let mut configured = world
        .opened
        .listening
        .iter()
        .filter(|(_, port)| *port == address.port());
    match (configured.next(), configured.next(), likely) {
        (Some((key, _)), None, _) => Some((*key, Confidence::Likely)),
        (.., Some(call)) => Some((call.made_for?, Confidence::Likely)),
        _ => None,
    }
}

/// Whether an attempt was answered.
pub(super) fn answered(
    world: &World,
    initiator: SocketAddr,
    responder: SocketAddr,
    sender: SessionIndex,
) -> bool {
    let conversation = world.handshakes.conversation(Some(initiator), responder);
    let end = conversation.and_then(|c| c.end(initiator));
    end.is_some_and(|e| e.attempts().any(|a| a.sender == sender && a.answer.is_some()))
}

fn report(call: &Call, owner: PublicKey, confidence: Confidence) -> Finding {
    let subject = peer(call.responder, call.initiator);
    let mut f = finding(
        RULE.code,
        (Severity::Critical, confidence),
        subject,
        (call.first_at, call.last_at),
    );
    f.count = u32::try_from(call.count).unwrap_or(u32::MAX);
    f.title = format!(
        "{} has the wrong public key for {}",
        call.initiator, call.responder
    );
    let made_for = match call.made_for {
        Some(key) => format!("the key {key}"),
        None => "a key that is not among those given".to_owned(),
    };
    f.summary = format!(
        "{} from {}, made for {made_for}. {} has {owner} and drops such messages in silence.",
        count(call.count, "initiation"),
        call.initiator,
        call.responder
    );
    f.impact = "No session comes up between the two.".to_owned();
    f.evidence = Evidence::new()
        .with("initiations", call.count)
        .with("responder_key", owner.to_string())
        .maybe("made_for", call.made_for.map(|k| k.to_string()));
    f.fixes = vec![Fix {
        title: format!("On {}, set the peer's public key to {owner}", call.initiator.ip()),
        why: "Each message is made for one key.".to_owned(),
        snippet: Some(format!("[Peer]\nPublicKey = {owner}")),
        ..Fix::default()
    }];
    f
}

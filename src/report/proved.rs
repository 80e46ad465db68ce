//! What the answers to a probe prove, in words.

use crate::observation::probe::{Outcome, StrayKind};
use crate::track::probes::Probe;
use crate::wire::icmp;

/// A sentence for each thing proved.
pub fn proved(probe: &Probe) -> Vec<String> {
    let t = probe.tally();
    let mut said = Vec::new();
    if t.answered > 0 {
        said.push(
            "It holds its key, knows ours, has the same preshared key, and its answers get here.".to_owned(),
        );
    }
    if t.called_back > 0 {
        said.push(
            "It installed our key on demand and called back with a handshake of its own, as Fly's gateways do.".to_owned(),
        );
    }
    if t.unconfirmed > 0 {
        said.push("It called back with a handshake of its own and did not take our answer.".to_owned());
    }
    if t.preshared_key_differs > 0 {
        said.push("It holds its key and knows ours; the preshared keys differ.".to_owned());
    }
    if t.cookies > 0 {
        said.push(
            "It holds its key and is under load: it asked for proof of our address (cookie).".to_owned(),
        );
    }
    let icmp = probe.attempts.iter().find_map(|a| match &a.outcome {
        Outcome::Icmp {
            from,
            v6,
            icmp_type,
            code,
            ..
        } => Some((from, icmp::meaning(*v6, *icmp_type, *code).1)),
        _ => None,
    });
    if let Some((from, words)) = icmp {
        let who = from.map_or_else(|| "an unknown sender".to_owned(), |ip| ip.to_string());
        said.push(format!("ICMP from {who}: {words}."));
    }
    let refused = probe.attempts.iter().find_map(|a| match &a.outcome {
        Outcome::NotSent { error, .. } => Some(error),
        _ => None,
    });
    if let Some(error) = refused {
        said.push(format!("This host did not send it: {error}."));
    }
    for stray in &probe.strays {
        said.push(match stray.kind {
            StrayKind::NotWireguard => format!(
                "What answered with {} bytes ({}…) does not speak WireGuard.",
                stray.len, stray.begins
            ),
            StrayKind::OtherResponse => "A response came that answers none of our initiations.".to_owned(),
            StrayKind::OtherCookie => "A cookie reply came that does not open under its key.".to_owned(),
            StrayKind::OtherInitiation => {
                "An initiation came from there that is not made for our key by that peer.".to_owned()
            }
            StrayKind::OtherData => "Data came under no session of ours.".to_owned(),
        });
    }
    if t.silent > 0 && t.heard() == 0 && t.icmp == 0 {
        said.push(
            "Nothing: WireGuard is silent to keys that it does not know, and so is a firewall.".to_owned(),
        );
    }
    said
}

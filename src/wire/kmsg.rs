//! What the kernel's WireGuard says in the kernel's log, where its debug lines are switched on.
//!
//! In: one record of `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg). Out: a [`KernelLine`] for the lines that name a
//! reason (drivers/net/wireguard/receive.c, send.c, device.c, timers.c: `net_dbg`), `None` for all others. No line holds a
//! key.

use std::net::SocketAddr;

use crate::observation::device::{KernelLine, KernelReason};

/// The words of each reason, and whether the peer's address follows them at once.
const REASONS: [(&str, KernelReason); 10] = [
    (
        "Invalid MAC of handshake, dropping packet from ",
        KernelReason::InvalidMac,
    ),
    (
        "Invalid handshake initiation from ",
        KernelReason::InvalidInitiation,
    ),
    ("Invalid handshake response from ", KernelReason::InvalidResponse),
    (
        "Dropping handshake packet from ",
        KernelReason::HandshakeQueueFull,
    ),
    (
        "Sending cookie response for denied handshake message for ",
        KernelReason::SendingCookie,
    ),
    ("Packet has unallowed src IP ", KernelReason::UnallowedSource),
    ("No peer has allowed IPs matching ", KernelReason::NoPeerFor),
    (
        "No valid endpoint has been configured or discovered for peer ",
        KernelReason::NoEndpoint,
    ),
    ("No route to ", KernelReason::NoRoute),
    ("Handshake for peer ", KernelReason::GaveUp),
];

/// Reads one record: `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT`, with further lines that begin with a space.
pub fn parse(record: &str) -> Option<KernelLine> {
    let (_, text) = record.split_once(';')?;
    let text = text.lines().next()?;
    // pr_fmt is KBUILD_MODNAME ": ".
    let text = text.strip_prefix("wireguard: ")?;
    let (device, said) = text.split_once(": ")?;
    // IFNAMSIZ, with its zero.
    if device.is_empty() || device.len() > 15 {
        return None;
    }
    let (words, reason) = REASONS.iter().find(|(words, _)| said.starts_with(words))?;
    let rest = said.get(words.len()..)?;
    if *reason == KernelReason::GaveUp && !said.contains("giving up") {
        return None;
    }
    Some(KernelLine {
        device: device.to_owned(),
        reason: *reason,
        endpoint: endpoint(rest),
    })
}

/// The address of the peer: `%pISpfsc`, alone or in brackets after a peer's number.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let bracketed = text
        .rsplit_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(inside, _)| inside);
    let word = bracketed.unwrap_or_else(|| {
        let end = text.find([' ', ',']).unwrap_or(text.len());
        text.get(..end).unwrap_or_default()
    });
    // IPv6 may carry a scope and a flow label behind the address.
    let plain = word.split(['%', '/']).next().unwrap_or_default();
    word.parse().or_else(|_| plain.parse()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reasons_are_told_apart() {
        for (text, reason, endpoint) in [
            (
                "Invalid handshake response from 198.51.100.7:51820",
                KernelReason::InvalidResponse,
                Some("198.51.100.7:51820"),
            ),
            (
                "Invalid MAC of handshake, dropping packet from [2001:db8::7]:51820",
                KernelReason::InvalidMac,
                Some("[2001:db8::7]:51820"),
            ),
            (
                "Packet has unallowed src IP (10.9.0.1) from peer 3 (192.0.2.1:51820)",
                KernelReason::UnallowedSource,
                Some("192.0.2.1:51820"),
            ),
            (
                "Handshake for peer 7 (192.0.2.1:51820) did not complete after 20 attempts, giving up",
                KernelReason::GaveUp,
                Some("192.0.2.1:51820"),
            ),
            (
                "No peer has allowed IPs matching 10.9.0.9",
                KernelReason::NoPeerFor,
                None,
            ),
        ] {
            let line = parse(&format!("7,1,123,-;wireguard: wg0: {text}\n SUBSYSTEM=net")).unwrap();
            assert_eq!((line.device.as_str(), line.reason), ("wg0", reason));
            assert_eq!(
                line.endpoint.map(|e| e.to_string()).as_deref(),
                endpoint,
                "{text}"
            );
        }
    }

    #[test]
    fn everything_else_is_none() {
        for record in [
            "",
            "7,1,2,-;",
            "7,1,2,-;usb 1-1: new device",
            "7,1,2,-;wireguard: wg0: Receiving handshake response from peer 1 (192.0.2.1:1)",
            "7,1,2,-;wireguard: wg0: Handshake for peer 1 (192.0.2.1:1) did not complete after 5 seconds, retrying (try 2)",
            "7,1,2,-;wireguard: a-name-that-is-too-long: Invalid handshake response from 192.0.2.1:1",
            "wireguard: wg0: Invalid handshake response from 192.0.2.1:1",
        ] {
            assert_eq!(parse(record), None, "{record}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}", at in 0..REASONS.len()) {
            let _ = parse(&text);
            let _ = parse(&format!("7,1,2,-;wireguard: wg0: {}{text}", REASONS[at].0));
        }
    }
}

//! What a gateway says at NAT-PMP's and PCP's port to questions that change nothing: its external address (RFC 6886, section
//! 3.2), and whether it speaks PCP (RFC 6887, section 14.1).
//!
//! PCP has no question for the external address: it names that only to whoever has a port mapped, so a gateway that speaks
//! PCP alone shows itself and no more.

use std::net::Ipv4Addr;

/// The gateway's port, of both.
pub const PORT: u16 = 5351;
/// NAT-PMP's question: version 0, opcode 0.
pub const REQUEST: [u8; 2] = [0, 0];
/// NAT-PMP's result "Network Failure" (RFC 6886, section 3.5), which gateways give that have no address or will not name
/// the one they have.
pub const NETWORK_FAILURE: u16 = 3;

/// What the gateway says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// NAT-PMP's result, 0 for success, and its external address where it has one.
    NatPmp(u16, Option<Ipv4Addr>),
    /// It speaks PCP.
    Pcp,
}

/// PCP's question whether somebody is there: ANNOUNCE, by the client with this address (RFC 6887, sections 7.1 and 14.1).
pub fn announce(client: Ipv4Addr) -> [u8; 24] {
    let mut bytes = [0; 24];
    if let Some(version) = bytes.first_mut() {
        *version = 2;
    }
    if let Some(address) = bytes.get_mut(8..24) {
        address.copy_from_slice(&client.to_ipv6_mapped().octets());
    }
    bytes
}

/// Reads an answer; `None` where it is none to these questions.
pub fn parse(bytes: &[u8]) -> Option<Answer> {
    match bytes {
        [0, 128, high, low, rest @ ..] => {
            let result = u16::from_be_bytes([*high, *low]);
            let address = rest.get(4..8).and_then(|a| a.first_chunk::<4>());
            match (result, address) {
                (0, Some(address)) => Some(Answer::NatPmp(
                    0,
                    Some(Ipv4Addr::from(*address)).filter(|a| !a.is_unspecified()),
                )),
                (0, None) => None,
                // Refused, or it has no address: the gateway is a NAT-PMP one all the same.
                _ => Some(Answer::NatPmp(result, None)),
            }
        }
        // An answer to ANNOUNCE, or to NAT-PMP's question with "unsupported version" (RFC 6887, section 9).
        [2, opcode, ..] if *opcode & 0x80 != 0 => Some(Answer::Pcp),
        _ => None,
    }
}

/// A result in words (RFC 6886, section 3.5).
pub const fn result(code: u16) -> &'static str {
    match code {
        0 => "success",
        1 => "unsupported version",
        2 => "not authorized or refused",
        NETWORK_FAILURE => "network failure",
        4 => "out of resources",
        5 => "unsupported opcode",
        _ => "unknown result",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let address = Ipv4Addr::new(203, 0, 113, 7);
        for (bytes, expected) in [
            (
                &[0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7][..],
                Some(Answer::NatPmp(0, Some(address))),
            ),
            (
                &[0, 128, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0],
                Some(Answer::NatPmp(0, None)),
            ),
            (
                &[0, 128, 0, 3, 0, 0, 0, 9, 0, 0, 0, 0],
                Some(Answer::NatPmp(NETWORK_FAILURE, None)),
            ),
            (&[0, 128, 0, 0, 0, 0], None),
            (&[2, 0x80, 0, 1, 0, 0, 0, 0], Some(Answer::Pcp)),
            (&[2, 0], None),
            (&[0, 0], None),
            (&[], None),
        ] {
            assert_eq!(parse(bytes), expected, "{bytes:?}");
        }
        // A question is no answer.
        assert_eq!(parse(&REQUEST), None);
        let question = announce(Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(parse(&question), None);
        assert_eq!(question[..8], [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(question[18..], [0xFF, 0xFF, 10, 0, 0, 2]);
    }
}

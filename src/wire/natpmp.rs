//! NAT-PMP's question for the external address (RFC 6886, section 3.2), which changes nothing at the gateway.
//!
//! PCP (RFC 6887) answers at the same port and has no such question: it names the external address only to whoever has a
//! port mapped, so a PCP gateway shows itself by its version and no more.

use std::net::Ipv4Addr;

/// The gateway's port.
pub const PORT: u16 = 5351;
/// The question: version 0, opcode 0.
pub const REQUEST: [u8; 2] = [0, 0];

/// What the gateway says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its external address; `None` where it has none now.
    NatPmp(Option<Ipv4Addr>),
    /// It speaks PCP only.
    Pcp,
}

/// Reads an answer; `None` where it is none to that question.
pub fn parse(bytes: &[u8]) -> Option<Answer> {
    match bytes {
        [0, 128, high, low, rest @ ..] => {
            let result = u16::from_be_bytes([*high, *low]);
            let address = rest.get(4..8).and_then(|a| a.first_chunk::<4>());
            match (result, address) {
                (0, Some(address)) => Some(Answer::NatPmp(
                    Some(Ipv4Addr::from(*address)).filter(|a| !a.is_unspecified()),
                )),
                (0, None) => None,
                // Refused, or it has no address: the gateway is a NAT-PMP one all the same.
                _ => Some(Answer::NatPmp(None)),
            }
        }
        // RFC 6887, section 9: UNSUPP_VERSION with its own version.
        [2, opcode, ..] if *opcode & 0x80 != 0 => Some(Answer::Pcp),
        _ => None,
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
                Some(Answer::NatPmp(Some(address))),
            ),
            (
                &[0, 128, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0],
                Some(Answer::NatPmp(None)),
            ),
            (
                &[0, 128, 0, 3, 0, 0, 0, 9, 0, 0, 0, 0],
                Some(Answer::NatPmp(None)),
            ),
            (&[0, 128, 0, 0, 0, 0], None),
            (&[2, 0x80, 0, 1, 0, 0, 0, 0], Some(Answer::Pcp)),
            (&[2, 0], None),
            (&[0, 0], None),
            (&[], None),
        ] {
            assert_eq!(parse(bytes), expected, "{bytes:?}");
        }
    }
}

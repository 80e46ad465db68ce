//! For tests: two boringtun peers and the messages that they make.

use std::net::{IpAddr, Ipv4Addr};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

/// Where the peers seem to send from.
pub const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Two peers that know each other.
pub struct Pair {
    pub initiator: Tunn,
    pub responder: Tunn,
    pub initiator_private: [u8; 32],
    pub responder_private: [u8; 32],
}

/// Makes two peers with fixed keys.
pub fn pair() -> Pair {
    let (initiator_private, responder_private) = ([0x11; 32], [0x22; 32]);
    let secret = StaticSecret::from;
    let public = |key| PublicKey::from(&StaticSecret::from(key));
    Pair {
        initiator: Tunn::new(
            secret(initiator_private),
            public(responder_private),
            None,
            None,
            0x00a1b2c3,
            None,
        ),
        responder: Tunn::new(
            secret(responder_private),
            public(initiator_private),
            None,
            None,
            0x00d4e5f6,
            None,
        ),
        initiator_private,
        responder_private,
    }
}

/// What is to be sent, or a panic.
pub fn sent(result: TunnResult<'_>) -> Vec<u8> {
    match result {
        TunnResult::WriteToNetwork(bytes) => bytes.to_vec(),
        other => panic!("nothing to send: {other:?}"),
    }
}

/// A new initiation.
pub fn initiation(tunn: &mut Tunn) -> Vec<u8> {
    sent(tunn.format_handshake_initiation(&mut [0; 2048], true))
}

/// What `tunn` answers to `datagram`.
pub fn answer(tunn: &mut Tunn, datagram: &[u8]) -> Vec<u8> {
    sent(tunn.decapsulate(Some(FROM), datagram, &mut [0; 2048]))
}

/// A cookie reply from a responder that is over its limit of ten handshakes a second, and the initiation that it
/// answers.
pub fn cookie_reply(pair: &mut Pair) -> (Vec<u8>, Vec<u8>) {
    for _ in 0..64 {
        let initiation = initiation(&mut pair.initiator);
        let mut out = [0; 2048];
        if let TunnResult::WriteToNetwork(bytes) =
            pair.responder.decapsulate(Some(FROM), &initiation, &mut out)
            && bytes.len() == 64
        {
            return (initiation, bytes.to_vec());
        }
    }
    panic!("the responder never came under load");
}

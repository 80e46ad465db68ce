//! What a peer, or anybody, sends to a prober.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgnat::probe::handshake::{HandshakeProbe, Plan};
use wgnat::time::{Span, Timestamp};
use wgnat::types::PrivateKey;
use wgnat::wire::noise::initiator::Identity;

fuzz_target!(|data: &[u8]| {
    let peer = PrivateKey::from_bytes([2; 32]).public();
    let Ok(identity) = Identity::new(PrivateKey::from_bytes([1; 32]), peer, None) else {
        return;
    };
    let plan = Plan {
        count: 3,
        interval: Span::from_millis(100),
        timeout: Span::from_secs(1),
    };
    let mut now = Timestamp::from_secs(1_700_000_000);
    let mut probe = HandshakeProbe::new(identity, plan, [3; 32], now);
    // Each piece is a datagram; the first bytes of every initiation are known, so answers can name its index.
    let mut index = [0; 4];
    for piece in data.chunks(97) {
        if let Some(at) = probe.wants_turn() {
            probe.grant(at.max(now));
        }
        now = now + Span::from_millis(90);
        probe.handle_timeout(now);
        while let Some(sent) = probe.poll_transmit() {
            if let Some(bytes) = sent.get(4..8) {
                index.copy_from_slice(bytes);
            }
        }
        let mut datagram = piece.to_vec();
        match datagram.first() {
            Some(2) if datagram.len() >= 12 => datagram[8..12].copy_from_slice(&index),
            Some(3) if datagram.len() >= 8 => datagram[4..8].copy_from_slice(&index),
            _ => {}
        }
        for len in [92, 64, 148, datagram.len()] {
            datagram.resize(len, 0);
            probe.handle_input(now, &datagram);
        }
        let mut events = 0;
        while probe.poll_event().is_some() {
            events += 1;
            assert!(events < 64);
        }
    }
});

//! Capture files, pcap and pcapng, and what is in their packets: any bytes, read as the reader does; the decoder asks for what may
//! be asked for, and always goes on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgnat::wire::pcap::datagram::{Network, network};
use wgnat::wire::pcap::{Decoder, MAX_NEED, Step};

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new();
    let mut rest = data;
    loop {
        let before = decoder.offset();
        let passed = match decoder.step(rest) {
            Err(error) => {
                assert_eq!(error.offset, before, "an error names where it is");
                break;
            }
            Ok(Step::Need(need)) => {
                assert!(need > rest.len() && need <= MAX_NEED, "asked for {need} of {}", rest.len());
                break;
            }
            Ok(Step::Skip(length)) => length,
            Ok(Step::Packet { packet, used }) => {
                assert!(packet.bytes.len() <= used && used <= rest.len());
                if let Some((_, ip)) = packet.link.ip(packet.bytes)
                    && let Network::Udp(datagram) = network(ip)
                {
                    assert!(datagram.payload.len() <= ip.len());
                }
                used as u64
            }
        };
        assert!(passed > 0 && decoder.offset() > before, "it does not go on");
        match usize::try_from(passed).ok().and_then(|n| rest.get(n..)) {
            Some(next) => rest = next,
            None => break,
        }
    }
});

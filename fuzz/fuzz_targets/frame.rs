//! Packets from the wire: IP, UDP and ICMP with quotes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgnat::observation::packet::Direction;

fuzz_target!(|data: &[u8]| {
    let _ = wgnat::wire::frame::parse(data);
    let _ = wgnat::observe::capture::decode::decode(data, Direction::Unknown, None);
});

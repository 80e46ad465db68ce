//! Replies of WireGuard daemons.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgnat::time::Timestamp;

fuzz_target!(|data: &[u8]| {
    let _ = wgnat::wire::uapi::parse("wg0", data, Timestamp::from_secs(1_700_000_000));
});

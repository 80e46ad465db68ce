//! wg-quick files. An error never repeats what may be a secret.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Ok(config) = wgnat::wire::wg_quick::Config::parse(&text) {
        let _ = config.configured_peers("file", Some("wg0"));
    }
});

//! Records of the kernel's log.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(line) = wgnat::wire::kmsg::parse(text) {
        assert!(!line.device.is_empty() && line.device.len() <= 15);
    }
});

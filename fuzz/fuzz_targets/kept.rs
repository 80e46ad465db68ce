//! A finding as history keeps it: whatever the file holds, it is a finding or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    if let Some(kept) = wgnat::report::kept::read(data) {
        // What was read can be told apart and told.
        assert!(!kept.finding.subject.identity().is_empty());
    }
});

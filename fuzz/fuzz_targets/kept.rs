//! A finding as history keeps it: whatever the file holds, it is a finding or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    if let Some((finding, _)) = wgnat::report::kept::finding(data) {
        // What was read can be told apart and told.
        assert!(!finding.subject.identity().is_empty());
    }
});

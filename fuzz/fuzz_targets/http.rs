//! What a stranger puts into a request's Host, Authorization and Accept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgnat::agent::access::{Access, check_token};
use wgnat::output::prometheus::Exposition;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let _ = Exposition::accepted(&text);
    let _ = check_token(&text);
    let token = "0123456789abcdef".to_owned().into();
    let guarded = Access::new(([0, 0, 0, 0], 1).into(), Some(token), &[]);
    if data != b"Bearer 0123456789abcdef" && !data.eq_ignore_ascii_case(b"bearer 0123456789abcdef") {
        assert!(guarded.check(false, Some(data), Some("localhost")).is_err());
    }
    let open = Access::new(([127, 0, 0, 1], 1).into(), None, &[]);
    if open.check(false, None, Some(&text)).is_ok() {
        let name = text.trim_start_matches('[').to_ascii_lowercase();
        let is_address = name.starts_with(|c: char| c.is_ascii_hexdigit() || c == ':');
        assert!(is_address || name.starts_with("localhost"), "{text}");
    }
});

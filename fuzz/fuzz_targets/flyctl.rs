//! flyctl's state. A note or an error never repeats what may be a secret.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    match wgnat::wire::flyctl::FlyState::parse(&text) {
        Ok(state) => {
            for peer in &state.peers {
                let _ = (peer.resolver(), peer.endpoint.to_string());
            }
            assert!(state.notes.iter().all(|note| note.len() < 400));
        }
        Err(error) => assert!(error.to_string().len() < 400),
    }
});

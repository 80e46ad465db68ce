//! WireGuard messages: any bytes are classified or refused; what parses is emitted as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgnat::wire::wireguard::{Initiation, Message, Response, classify, first_index};

fuzz_target!(|data: &[u8]| {
    let len = u32::try_from(data.len()).unwrap();
    let _ = classify(data, len);
    let _ = first_index(data);
    let _ = Message::parse(data, len);
    if let Ok(bytes) = <&[u8; 148]>::try_from(data)
        && let Some(initiation) = Initiation::parse(bytes)
    {
        let mut out = [0; 148];
        initiation.emit(&mut out);
        assert_eq!(&out, bytes);
    }
    if let Ok(bytes) = <&[u8; 92]>::try_from(data)
        && let Some(response) = Response::parse(bytes)
    {
        let mut out = [0; 92];
        response.emit(&mut out);
        assert_eq!(&out, bytes);
    }
});

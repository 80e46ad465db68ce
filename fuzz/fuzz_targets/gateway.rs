//! What a gateway, or what stands in its place, sends: WebSocket frames, the stream of datagrams in them, a certificate.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgnat::wire::fly_stream::Datagrams;
use wgnat::wire::websocket::Frames;
use wgnat::wire::x509;

fuzz_target!(|data: &[u8]| {
    let _ = x509::names(data);
    let _ = x509::not_after(data);
    let cut = usize::from(data.first().copied().unwrap_or(1)).max(1);
    let (mut frames, mut datagrams) = (Frames::default(), Datagrams::default());
    'stream: for piece in data.chunks(cut) {
        frames.push(piece);
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => datagrams.push(&frame.payload),
                Ok(None) => break,
                Err(_) => break 'stream,
            }
        }
        while let Ok(Some(datagram)) = datagrams.next_datagram() {
            assert!(!datagram.is_empty() && datagram.len() <= 65_535);
        }
    }
});

//! What the kernel's programs left in their maps, and the kernel's description of its types.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgnat::wire::btf::{Btf, Kind};
use wgnat::wire::{bpf_records, bpf_tables};

/// The record's bytes from the front of `data`, zeros beyond its end.
fn record<const N: usize>(data: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(data) {
        *to = *from;
    }
    bytes
}

fuzz_target!(|data: &[u8]| {
    let _ = bpf_records::key(&record(data));
    let _ = bpf_records::tally(&record(data));
    let _ = bpf_records::losses(&record(data));
    let _ = bpf_records::want(&record(data));
    let _ = bpf_records::denied(&record(data));
    let _ = bpf_records::recursion_misses(&String::from_utf8_lossy(data));
    let _ = bpf_tables::place(&record(data));
    let used = bpf_tables::used(&record(data));
    assert!(used.inodes.len() <= 16 && used.uids.len() <= 8);
    let _ = bpf_tables::states(&record(data));
    let board = bpf_tables::board(&record(data));
    assert!(board.tcp_served.iter().is_sorted());
    let _ = bpf_tables::hertz(board.jiffies, board.monotonic);
    if let Ok(btf) = Btf::parse(data) {
        let _ = btf.id_of(Kind::Struct, "sock");
        let excerpt = btf.excerpt(&btf.names());
        let small = Btf::parse(&excerpt).expect("what was written can be read");
        let _ = small.excerpt(&small.names());
    }
});

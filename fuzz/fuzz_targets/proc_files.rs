//! Files of /proc.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use wgnat::wire::{nf_conntrack_stat, proc_net, procfs};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut counters = BTreeMap::new();
    proc_net::parse_pairs(&text, &mut counters);
    proc_net::parse_lines(&text, &mut counters);
    let _ = nf_conntrack_stat::parse(&text);
    let _ = procfs::boot_time(&text);
    let _ = procfs::memory_total(&text);
    let _ = procfs::port_range(&text);
    let _ = procfs::port_list(&text);
    let _ = procfs::open_files_limit(&text);
    let _ = procfs::process_stat(&text);
});

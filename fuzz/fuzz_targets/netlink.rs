//! The kernel's tables: messages of ctnetlink, nf_tables and sock_diag, and their folds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgnat::observe::tally::conntrack::CtFold;
use wgnat::observe::tally::sockets::SocketFold;
use wgnat::types::{PortRange, Proto};
use wgnat::wire::netlink::{conntrack, nf_tables, sock_alive, sock_diag};

fuzz_target!(|messages: Vec<Vec<u8>>| {
    let mut table = CtFold::new(Some(432_000));
    let mut sockets = SocketFold::new(PortRange::LINUX_DEFAULT, &[]);
    for message in &messages {
        let _ = conntrack::entry(message);
        let _ = conntrack::stats(message);
        let _ = conntrack::cpu_stats(message);
        let _ = nf_tables::generation(message);
        if let Ok(Some(rule)) = nf_tables::rule(message) {
            assert!(rule.conditions.len() <= 32);
        }
        let _ = sock_diag::socket(message);
        let _ = sock_alive::alive(message);
        table.add(message);
        sockets.add(Proto::Tcp, message);
        sockets.add(Proto::Udp, message);
    }
    let tally = table.finish(false);
    assert!(tally.entries <= messages.len() as u64);
    let tally = sockets.finish(false);
    assert!(tally.destinations.len() <= 256);
});

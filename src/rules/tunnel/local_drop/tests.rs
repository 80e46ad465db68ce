use super::super::testing::*;
use super::*;
use crate::observation::device::Implementation::{Kernel, WireguardGo};
use crate::observation::device::PeerSnapshot;
use crate::observation::{Body, SourceStatus};

fn kept_alive(rx: u64, tx: u64) -> PeerSnapshot {
    PeerSnapshot {
        keepalive: Some(25),
        ..peer_with(rx, tx, None)
    }
}

/// wireguard-go that wants to call, with so many discards, and so many bytes sent.
fn stuck(discards: u64, tx: u64) -> Host {
    let mut host = Host::new(WireguardGo);
    host.counters(0.0, "Ip.OutDiscards", 3);
    host.peer(0.0, kept_alive(0, 0)).routed(0.1);
    host.peer(7.0, kept_alive(0, tx));
    host.counters(7.0, "Ip.OutDiscards", 3 + discards).until(7.0);
    host
}

#[test]
fn refused_sends_are_certain_and_fold_their_symptom() {
    let host = stuck(2, 0);
    let found = host.find(RULE.code).unwrap();
    assert_eq!(found.confidence, Confidence::Certain);
    assert_eq!(host.codes(), (vec![RULE.code], vec!["wg-never-connected"]));
    for (discards, tx) in [(0, 0), (2, 148)] {
        assert!(stuck(discards, tx).find(RULE.code).is_none(), "{discards} {tx}");
    }
}

#[test]
fn what_the_kernel_counts_and_nobody_sees_is_likely() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
    host.peer(1.0, peer_with(0, 148, None))
        .peer(6.5, peer_with(0, 296, None))
        .until(7.0);
    let found = host.find(RULE.code).unwrap();
    assert_eq!(
        (found.confidence, found.candidates.len()),
        (Confidence::Likely, 2)
    );
    // On the wire: lost elsewhere.
    host.call(7.1, 9);
    assert!(host.find(RULE.code).is_none());
}

#[test]
fn what_left_before_the_tap_was_open_or_after_its_last_look_proves_nothing() {
    // (opened, last look, expected): attempts are counted between 0.0 and 1.0, and between 6.0 and 6.5.
    for (opened, last, expected) in [
        (0.0, 7.0, true),
        (0.5, 6.4, false),
        (0.5, 6.5, true),
        (0.0, 6.4, true),
        (6.1, 7.0, false),
    ] {
        let mut host = Host::blind(Kernel);
        host.see(0.0, Source::Counters, status());
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        host.see(opened, Source::Capture, status());
        host.peer(1.0, peer_with(0, 148, None))
            .peer(6.0, peer_with(0, 148, None))
            .peer(6.5, peer_with(0, 296, None));
        host.see(last, Source::Capture, status());
        host.world.handle_timeout(at(7.0));
        assert_eq!(host.find(RULE.code).is_some(), expected, "{opened} {last}");
    }
}

fn status() -> Body {
    Body::Status(SourceStatus::ok())
}

#[test]
fn without_a_way_out_it_is_no_firewall() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer_with(0, 0, None)).tables(0.0, tables());
    host.answer(0.1, |_, _| via(WG0));
    host.peer(1.0, peer_with(0, 148, None))
        .peer(6.5, peer_with(0, 296, None))
        .until(7.0);
    assert!(host.find(RULE.code).is_none());
}

/// Three responses come in; the counters move by that much.
fn answered(datagrams: u64, filtered: u64) -> Host {
    let mut host = Host::new(Kernel);
    let counters = |host: &mut Host, secs, datagrams: u64, filtered: u64| {
        let values = [
            ("Udp.InDatagrams".to_owned(), 10 + datagrams),
            ("TcpExt.IPReversePathFilter".to_owned(), filtered),
        ];
        let body = Body::Counters(crate::observation::host::Counters(values.into()));
        host.see(secs, Source::Counters, body);
    };
    counters(&mut host, 0.0, 0, 0);
    host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
    for (index, secs) in [(1, 0.5), (2, 5.7), (3, 10.9)] {
        host.call(secs, index).answered(secs + 0.03, index);
    }
    host.peer(12.0, peer_with(0, 3 * 148, None));
    counters(&mut host, 12.5, datagrams, filtered);
    host.until(13.0);
    host
}

#[test]
fn responses_that_reach_no_socket_are_dropped_here() {
    let host = answered(0, 0);
    let found = host.find(RULE.code).unwrap();
    assert_eq!(found.confidence, Confidence::Certain);
    assert!(found.summary.contains("firewall's input"), "{}", found.summary);
    let (codes, _) = host.codes();
    assert_eq!(codes, [RULE.code]);
    let found = answered(0, 3).find(RULE.code).unwrap();
    assert!(found.fixes[0].command.as_ref().unwrap().contains("rp_filter=2"));
    // Delivered, so it is the device that refuses them.
    let host = answered(3, 0);
    assert_eq!(host.codes().0, ["wg-response-rejected"]);
}

#[test]
fn initiations_that_reach_no_socket_are_about_the_device() {
    for (datagrams, expected) in [(0, Some(Confidence::Certain)), (3, None), (500, None)] {
        let mut host = Host::new(Kernel);
        host.counters(0.0, "Udp.InDatagrams", 7);
        let mut peer = peer_with(0, 0, None);
        peer.endpoint = None;
        host.peer(0.0, peer).routed(0.1);
        host.called(1.0, 1).called(6.1, 2).called(11.3, 3);
        host.counters(13.0, "Udp.InDatagrams", 7 + datagrams).until(13.0);
        let found = host.find(RULE.code);
        assert_eq!(found.as_ref().map(|f| f.confidence), expected);
        if let Some(found) = found {
            assert_eq!(found.subject.kind(), "device");
            assert_eq!(found.evidence.get("arrived"), Some(&3.into()));
        }
    }
}

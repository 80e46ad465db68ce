use super::super::testing::*;
use super::*;
use crate::observation::device::Implementation::{Boringtun, Kernel, WireguardGo};

/// Three attempts of a new peer on the wire and in the counters.
fn silent() -> Host {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
    host.call(0.5, 1).peer(1.0, peer_with(0, 148, None));
    host.call(5.7, 2).peer(6.0, peer_with(0, 296, None));
    host.call(10.9, 3).peer(11.0, peer_with(0, 444, None));
    host
}

#[test]
fn two_attempts_without_an_answer_are_a_time_out() {
    let mut host = silent();
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.confidence, Confidence::Certain);
    assert_eq!(finding.evidence.get("unanswered_attempts"), Some(&2.into()));
    assert_eq!(finding.evidence.get("attempts_on_wire"), Some(&3.into()));
    assert_eq!(host.codes(), (vec![CODE], vec![]));
    let codes: Vec<_> = finding.candidates.iter().map(|c| c.code).collect();
    assert_eq!(
        codes,
        [
            None,
            Some("wg-wrong-peer-key"),
            Some("wg-unknown-initiator"),
            Some("wg-clock-replay"),
            None
        ]
    );
    assert!(finding.candidates[2].settle.contains(&OURS.to_string()));
    // The third runs out as well.
    host.until(16.5);
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.evidence.get("unanswered_attempts"), Some(&3.into()));
}

#[test]
fn the_counters_alone_prove_it_from_the_first_snapshot() {
    for (implementation, tx, rx, found) in [
        (Kernel, 3 * 148, 0, true),
        (WireguardGo, 3 * 148, 0, true),
        // Only the first of two has surely run out.
        (Kernel, 2 * 148, 0, false),
        (Kernel, 148, 0, false),
        (Kernel, 0, 0, false),
        // Data or keepalives were sent: not a multiple.
        (Kernel, 3 * 148 + 32, 0, false),
        // A responder, whose answers get lost.
        (Kernel, 3 * 92, 3 * 148, false),
        // This one counts no handshakes, so 444 bytes are something else.
        (Boringtun, 3 * 148, 0, false),
    ] {
        let mut host = Host::blind(implementation);
        host.peer(0.0, peer_with(rx, tx, None)).routed(0.1);
        assert_eq!(host.find(CODE).is_some(), found, "{implementation:?} {tx} {rx}");
    }
}

#[test]
fn two_in_the_counters_and_five_quiet_seconds_will_do() {
    let mut host = Host::blind(Kernel);
    host.peer(0.0, peer_with(0, 2 * 148, None)).routed(0.1);
    host.peer(5.0, peer_with(0, 2 * 148, None));
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.evidence.get("attempts_by_counters"), Some(&2.into()));
    assert_eq!(
        finding.evidence.get("attempts_on_wire"),
        None,
        "not watched is not zero"
    );
}

#[test]
fn who_gave_up_is_not_trying() {
    let mut host = Host::blind(Kernel);
    host.peer(0.0, peer_with(0, 20 * 148, None)).routed(0.1);
    host.peer(6.5, peer_with(0, 20 * 148, None));
    assert_eq!(host.codes(), (vec!["wg-never-connected"], vec![]));
}

#[test]
fn an_answer_ends_it() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
    host.call(0.5, 1).call(5.7, 2).call(10.9, 3).answered(10.95, 3);
    host.peer(12.0, peer_with(92, 3 * 148 + 32, Some(10.95)));
    // What it took is another matter.
    assert_eq!(host.codes(), (vec!["wg-handshake-loss"], vec![]));
}

#[test]
fn one_lost_packet_is_no_time_out() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
    host.call(0.5, 1).call(5.7, 2).peer(6.0, peer_with(0, 296, None));
    assert_eq!(host.codes(), (vec![], vec![]));
}

#[test]
fn a_dead_session_with_attempts_counts_from_the_wire() {
    let mut host = Host::new(Boringtun);
    host.peer(0.0, peer_with(9_000, 9_000, Some(-300.0))).routed(0.1);
    host.call(0.5, 1)
        .call(5.6, 2)
        .peer(11.0, peer_with(9_000, 9_000, Some(-300.0)));
    let finding = host.find(CODE).unwrap();
    assert!(
        finding
            .summary
            .contains("The last good handshake was 5 min 11 s ago"),
        "{}",
        finding.summary
    );
    assert_eq!(host.codes(), (vec![CODE], vec!["wg-session-expired"]));
}

#[test]
fn the_same_by_counters() {
    let mut host = Host::blind(WireguardGo);
    for (secs, tx) in [
        (0.0, 9_000),
        (1.0, 9_148),
        (6.0, 9_296),
        (11.0, 9_444),
        (11.5, 9_444),
    ] {
        host.peer(secs, peer_with(9_000, tx, Some(-300.0)));
    }
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.evidence.get("unanswered_attempts"), Some(&2.into()));
}

#[test]
fn responses_that_the_device_does_not_accept() {
    let mut host = Host::new(WireguardGo);
    host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
    host.call(0.5, 1)
        .answered(0.52, 1)
        .peer(1.5, peer_with(0, 148, None));
    host.call(5.7, 2)
        .answered(5.72, 2)
        .peer(7.0, peer_with(0, 296, None));
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.evidence.get("responses_not_accepted"), Some(&2.into()));
    let codes: Vec<_> = finding.candidates.iter().filter_map(|c| c.code).collect();
    assert_eq!(codes, ["wg-response-rejected", "wg-local-drop"]);
    assert!(
        finding.title.contains("does not accept"),
        "the way is open: {}",
        finding.title
    );
}

#[test]
fn cookies_exclude_the_key_and_the_path() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
    host.call(0.5, 1).cookie(0.53, 1).call(5.7, 2).cookie(5.73, 2);
    host.peer(11.2, peer_with(0, 296, None));
    let finding = host.find(CODE).unwrap();
    let codes: Vec<_> = finding.candidates.iter().filter_map(|c| c.code).collect();
    assert_eq!(
        codes,
        ["wg-under-load", "wg-unknown-initiator", "wg-clock-replay"]
    );
}

#[test]
fn who_is_called_is_not_said_to_call() {
    // The responder's host: initiations come in, answers go out, nothing follows.
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
    for n in 0..4u32 {
        let t = f64::from(n) * 5.2;
        host.called(t + 0.5, n + 1).answer_call(t + 0.51, n + 1);
        let n = u64::from(n) + 1;
        host.peer(t + 1.0, peer_with(148 * n, 92 * n, None));
    }
    assert_eq!(host.codes(), (vec!["wg-response-lost"], vec![]));
}

#[test]
fn attempts_that_pass_no_interface_point_at_this_host() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
    for n in 1..=3u64 {
        #[allow(clippy::cast_precision_loss)]
        host.peer(n as f64 * 5.2, peer_with(0, 148 * n, None));
    }
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.candidates[0].code, Some("wg-local-drop"));
    assert_eq!(finding.evidence.get("attempts_on_wire"), Some(&0.into()));
}

#[test]
fn a_name_that_moved_comes_first() {
    let mut host = silent();
    host.configured(vec![crate::observation::device::ConfiguredPeer {
        origin: "wg0.conf:7".to_owned(),
        device: Some("wg0".to_owned()),
        local_public_key: None,
        public_key: KEY,
        has_preshared_key: false,
        endpoint: Some("vpn.example:51820".to_owned()),
        resolved: vec![sock("203.0.113.5:51820")],
        keepalive: None,
        allowed_ips: Vec::new(),
        mtu: None,
    }]);
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.candidates[0].code, Some("wg-endpoint-stale-dns"));
    assert_eq!(
        finding.fixes[0].command.as_deref(),
        Some(format!("wg set wg0 peer {KEY} endpoint 203.0.113.5:51820").as_str())
    );
}

#[test]
fn a_clock_that_went_back_comes_first() {
    let mut host = Host::new(Kernel);
    let future = || peer_with(5_000, 5_000, Some(3_600.0));
    host.peer(0.0, future()).routed(0.1);
    host.call(0.5, 1).call(5.7, 2).peer(11.2, future());
    let finding = host.find(CODE).unwrap();
    let clock = |c: &&crate::finding::Candidate| c.code == Some("wg-clock-replay");
    assert!(clock(&&finding.candidates[0]));
    assert_eq!(finding.candidates.iter().filter(clock).count(), 1, "said once");
    assert!(finding.summary.contains("clock went back"), "{}", finding.summary);
}

#[test]
fn without_devices_it_is_not_checked() {
    let host = Host::seeing(Kernel, &[crate::observation::Source::Capture]);
    let evaluation = host.evaluate();
    assert!(evaluation.not_checked.iter().any(|n| n.code == CODE));
}

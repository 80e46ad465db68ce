use super::super::testing::*;
use super::*;
use crate::observation::device::Implementation::{Boringtun, Kernel, WireguardGo};

/// Echo requests of 84 bytes each second, as they are counted: padded to 96, with 32 around.
const PING: u64 = 128;

/// One snapshot a second: `(second) → (rx, tx, handshake)`.
fn watch(implementation: Implementation, seconds: u32, peer: impl Fn(u64) -> (u64, u64, f64)) -> Host {
    let mut host = Host::new(implementation);
    host.routed(0.0);
    for secs in 0..=seconds {
        let (rx, tx, handshake) = peer(secs.into());
        host.peer(secs.into(), peer_with(rx, tx, Some(handshake)));
    }
    host
}

/// Pings out, nothing back but the response to the handshake that silence brings about at `renewed`.
fn deaf(renewed: f64) -> impl Fn(u64) -> (u64, u64, f64) {
    move |secs| {
        #[allow(clippy::cast_precision_loss)]
        let again = u64::from(secs as f64 >= renewed);
        let handshake = if again == 1 { renewed } else { -10.0 };
        (92 + 92 * again, 500 + PING * secs + 148 * again, handshake)
    }
}

#[test]
fn silence_beyond_the_protocols_own_limit_is_certain() {
    let host = watch(WireguardGo, 20, deaf(16.2));
    let finding = host.find(CODE).unwrap();
    assert_eq!(
        (finding.severity, finding.confidence),
        (Severity::Critical, Confidence::Certain)
    );
    assert_eq!(finding.evidence.get("silent_seconds"), Some(&19.0.into()));
    assert_eq!(host.codes(), (vec![CODE], vec![]));
}

#[test]
fn a_handshake_renewed_for_silence_is_likely_sooner() {
    let host = watch(Kernel, 9, deaf(5.3));
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.confidence, Confidence::Likely);
    assert!(
        finding.summary.contains("renewed the handshake after 15 s"),
        "{}",
        finding.summary
    );
    // A normal renewal tells nothing.
    let host = watch(Kernel, 9, |secs| {
        let (rx, tx, handshake) = deaf(5.3)(secs);
        (rx, tx, if handshake < 0.0 { -115.0 } else { handshake })
    });
    assert_eq!(host.codes(), (vec![], vec![]));
}

#[test]
fn it_waits_for_the_verdict() {
    let mut host = Host::new(WireguardGo);
    host.routed(0.0);
    let states = deaf(16.2);
    for secs in 0..=5u32 {
        let (rx, tx, handshake) = states(secs.into());
        host.peer(secs.into(), peer_with(rx, tx, Some(handshake)));
    }
    assert_eq!(host.codes(), (vec![], vec![]), "too early to say");
    let due = host.due().unwrap();
    assert_eq!(due.what, "198.51.100.7:51820 to send anything back over wg0");
    // 15 s after the first unanswered data the protocol renews the handshake.
    assert!(due.at > at(16.0) && due.at < at(17.0), "{:?}", due.at);
    for secs in 6..=17u32 {
        let (rx, tx, handshake) = states(secs.into());
        host.peer(secs.into(), peer_with(rx, tx, Some(handshake)));
    }
    assert_eq!(
        host.codes(),
        (vec![], vec![]),
        "data after the handshake needs its time"
    );
    let due = host.due().unwrap();
    assert!(due.at > at(19.0) && due.at < at(20.0), "{:?}", due.at);
}

#[test]
fn healthy_tunnels_are_silent() {
    type State = fn(u64) -> (u64, u64, f64);
    let states: [(&str, State); 6] = [
        ("answers", |s| (92 + PING * s, 500 + PING * s, -10.0)),
        ("only receives", |s| {
            (1_000 + 1_400 * s, 500 + 32 * (s / 10), -10.0)
        }),
        ("idle with a keepalive", |s| {
            (92 * 7, 148 * 7 + 32 * 40 + 32 * (s / 5), -30.0)
        }),
        ("idle", |_| (92, 148 + 32, -30.0)),
        // A one-sided talker that is heard, and had much to hear once.
        ("talks, once was answered", |s| {
            (50_000 + 32 * (s / 10), 500 + PING * s, -10.0)
        }),
        ("one packet", |s| (92, 180 + if s > 3 { PING } else { 0 }, -10.0)),
    ];
    for (name, state) in states {
        let host = watch(Kernel, 14, state);
        assert_eq!(host.codes(), (vec![], vec![]), "{name}");
    }
}

#[test]
fn a_peer_that_died_is_not_one_way() {
    // Nothing comes back, and the handshake after 15 s goes unanswered too.
    let mut host = watch(Kernel, 16, |s| (92, 500 + PING * s, -10.0));
    host.call(16.3, 1)
        .peer(17.0, peer_with(92, 500 + PING * 16 + 148, Some(-10.0)));
    assert_eq!(host.codes(), (vec![], vec![]), "it is still under way");
    host.call(21.5, 2)
        .peer(22.0, peer_with(92, 500 + PING * 20 + 296, Some(-10.0)));
    host.call(26.7, 3)
        .peer(27.0, peer_with(92, 500 + PING * 24 + 444, Some(-10.0)));
    assert_eq!(host.codes(), (vec!["wg-handshake-timeout"], vec![]));
}

#[test]
fn keepalives_back_and_never_data_is_a_hint() {
    let host = watch(WireguardGo, 18, |s| {
        (92 + 32 * ((s + 4) / 10), 4_000 + PING * s, -10.0)
    });
    let finding = host.find(CODE).unwrap();
    assert_eq!(
        (finding.severity, finding.confidence),
        (Severity::Warning, Confidence::Possible)
    );
    assert!(
        finding.candidates[0].settle.contains("10.0.0.2/32"),
        "our inner address"
    );
    assert!(finding.candidates[0].settle.contains(&OURS.to_string()));
    let snippet = finding.fixes[0].snippet.as_deref().unwrap();
    assert!(snippet.contains("AllowedIPs = 10.0.0.2/32"));
    assert_eq!(host.codes(), (vec![CODE], vec![]));
}

#[test]
fn boringtun_can_only_hint() {
    let host = watch(Boringtun, 18, |s| (0, 4_000 + 84 * s, -10.0));
    assert_eq!(host.find(CODE).unwrap().confidence, Confidence::Possible);
    // Sent data that is answered.
    let host = watch(Boringtun, 18, |s| (84 * s, 4_000 + 84 * s, -10.0));
    assert_eq!(host.codes(), (vec![], vec![]));
}

#[test]
fn packets_that_the_kernel_refused_point_at_our_own_allowed_ips() {
    let refused = |errors: u64| {
        let mut tables = tables();
        tables.links[1].stats.rx_frame_errors = errors;
        tables
    };
    let mut host = Host::new(Kernel);
    host.tables(0.0, refused(40));
    for secs in 0..=6u32 {
        host.peer(
            secs.into(),
            peer_with(92, 500 + PING * u64::from(secs), Some(-10.0)),
        );
    }
    assert_eq!(host.find(CODE), None);
    host.tables(6.0, refused(46));
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.evidence.get("rx_frame_errors"), Some(&6.into()));
    assert!(finding.title.contains("refuses"));
}

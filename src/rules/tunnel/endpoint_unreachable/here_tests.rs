use super::super::super::testing::*;
use super::*;
use crate::observation::device::Implementation::Kernel;
use crate::observation::nat_rules::{NatRules, RulePorts};
use crate::observation::packet::{Bytes, Direction, IcmpError};
use crate::observation::{Body, Source};
use crate::track::natrules::testing::masquerade;

const CALLER: &str = "203.0.113.5:4000";
/// This host, at a port that no device has.
const HERE: &str = "192.0.2.2:7777";

fn initiation(index: u32) -> Vec<u8> {
    let mut m = message(1, 148, &[index]);
    m[116..120].copy_from_slice(&index.to_le_bytes());
    m
}

fn data(index: u32, counter: u64) -> Vec<u8> {
    let mut m = message(4, 8, &[index]);
    m.extend(counter.to_le_bytes());
    m
}

/// A host that sees initiations come and answers each with an error; without devices.
fn host(translates: bool) -> Host {
    let mut host = Host::new(Kernel);
    host.peers(0.0, Vec::new()).routed(0.1);
    let mut rules = NatRules::default();
    if translates {
        rules.rules.push(masquerade(RulePorts::Any));
    }
    host.see(0.1, Source::NatRules, Body::NatRules(rules));
    host
}

fn turn_back(host: &mut Host, secs: f64, to: &str, quoted: &[u8]) {
    if quoted[0] == 1 {
        host.forwarded(secs, Some((CALLER, to)), None, quoted);
    }
    let error = IcmpError {
        direction: Direction::Out,
        from: sock(to).ip(),
        icmp_type: 3,
        code: 3,
        mtu: None,
        quoted_source: sock(CALLER),
        quoted_destination: sock(to),
        quoted_payload: Bytes(quoted[..16].to_vec()),
    };
    host.see(secs + 0.001, Source::Capture, Body::IcmpError(error));
}

fn called(translates: bool, to: &str) -> Host {
    let mut host = host(translates);
    for (index, secs) in [(1, 0.5), (2, 5.7), (3, 10.9)] {
        turn_back(&mut host, secs, to, &initiation(index));
    }
    host.until(12.0);
    host
}

#[test]
fn a_port_that_is_not_forwarded_is_told_at_the_router() {
    let host = called(true, HERE);
    assert_eq!(host.codes(), (vec![CODE], vec![]));
    let found = host.find(CODE).unwrap();
    assert_eq!(
        (found.severity, found.confidence),
        (Severity::Warning, Confidence::Certain)
    );
    assert_eq!(found.evidence.get("initiations_turned_back"), Some(&3.into()));
    assert!(found.candidates[0].cause.contains("not forwarded"));
    assert!(
        found.fixes[0]
            .command
            .as_deref()
            .is_some_and(|c| c.contains("7777 dnat to"))
    );
}

#[test]
fn where_nothing_is_translated_wireguard_does_not_run() {
    let found = called(false, HERE).find(CODE).unwrap();
    assert!(found.candidates[0].cause.contains("does not"));
    assert!(found.fixes[0].title.contains("Start WireGuard"));
}

#[test]
fn data_without_a_mapping_is_told_where_there_is_a_nat() {
    for (translates, found) in [(true, true), (false, false)] {
        let mut host = host(translates);
        for n in 0..4u32 {
            turn_back(&mut host, 1.0 + f64::from(n) / 3.0, HERE, &data(9, u64::from(n)));
        }
        host.until(3.0);
        let finding = host.find(CODE);
        assert_eq!(finding.is_some(), found, "{translates}");
        if let Some(finding) = finding {
            assert!(finding.candidates[0].cause.contains("forgotten"));
            assert!(
                finding.fixes[0]
                    .snippet
                    .as_deref()
                    .is_some_and(|s| s.contains("25"))
            );
        }
    }
}

#[test]
fn what_is_over_or_once_or_a_devices_is_none() {
    // Anybody may call once.
    let mut once = host(true);
    turn_back(&mut once, 0.5, HERE, &initiation(1));
    once.until(3.0);
    assert_eq!(once.codes(), (vec![], vec![]));
    // It gave up, or found another way.
    let mut over = called(true, HERE);
    over.until(40.0);
    assert!(over.find(CODE).is_none());
    // A device here has that port: its daemon was away for a moment.
    assert!(called(true, US).find(CODE).is_none());
    // It is forwarded, and the host behind says so in this host's name.
    let mut forwarded = host(true);
    for (index, secs) in [(1, 0.5), (2, 5.7)] {
        let inside = "10.1.0.9:51820";
        forwarded.forwarded(
            secs,
            Some((CALLER, HERE)),
            Some((CALLER, inside)),
            &initiation(index),
        );
        turn_back(&mut forwarded, secs, HERE, &initiation(index));
    }
    forwarded.until(6.0);
    let found = forwarded.find(CODE);
    assert!(found.is_none_or(|f| f.evidence.get("initiations_turned_back").is_none()));
}

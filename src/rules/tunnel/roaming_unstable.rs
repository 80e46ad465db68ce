//! `wg-roaming-unstable` at a live host: a peer's endpoint changes again and again.

use super::view::{View, views};
use super::words::time;
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::captured::ROAMING_UNSTABLE;
use crate::rules::{Input, Rule};
use crate::time::Timestamp;

const CODE: &str = "wg-roaming-unstable";

/// The rule.
pub const RULE: Rule = Rule {
    detection: "Readings of the device differ in the peer's endpoint three times or more within ten minutes; changes \
                between two readings are seen on the wire, where data is sampled, as a session that goes on from another \
                address. Where the wire shows which session each packet belongs to, two hosts with one key are told \
                apart from one host that moves (wg-duplicate-key); where it does not, that stays a candidate.\n\n\
                In a capture: the same session, by its index and rising counters, goes on from another address or port, \
                three times or more within ten minutes.",
    needs: &[super::DEVICES],
    explained_by: &["wg-duplicate-key"],
    check,
    ..ROAMING_UNSTABLE
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let (most, within) = (input.thresholds.roaming_changes, input.thresholds.roaming_window);
    views(input)
        .filter(|view| !super::duplicate_key::is_fought_over(view))
        .filter_map(|view| {
            let times = changes(&view);
            let many = times.windows(most.max(1)).any(|w| match (w.first(), w.last()) {
                (Some(first), Some(last)) => *last - *first <= within,
                _ => false,
            });
            many.then(|| report(&view, &times))
        })
        .collect()
}

/// When its endpoint changed: by the device, or by the wire where that saw more.
fn changes(view: &View<'_>) -> Vec<Timestamp> {
    let by_device: Vec<_> = view.peer.endpoint_changes.iter().map(|c| c.at).collect();
    let by_wire: Vec<_> = view
        .tunnel()
        .map(|(tunnel, ours)| tunnel.moves().filter(|m| m.side != ours).map(|m| m.at).collect())
        .unwrap_or_default();
    if by_wire.len() > by_device.len() {
        by_wire
    } else {
        by_device
    }
}

fn report(view: &View<'_>, times: &[Timestamp]) -> Finding {
    let (name, key) = (view.name(), view.key.short());
    let mut places: Vec<String> = view
        .peer
        .endpoint_changes
        .iter()
        .flat_map(|c| [c.old, c.new])
        .map(|a| a.to_string())
        .collect();
    places.sort_unstable();
    places.dedup();
    let (first, last) = match times {
        [first, .., last] => (*first, *last),
        [only] => (*only, *only),
        [] => (view.world.started, view.world.now),
    };
    let told_apart = view.data_watched() && view.tunnel().is_some();
    let mut f = view.finding(CODE, Severity::Warning, Confidence::Certain);
    f.title = format!("{name}'s peer {key} keeps changing its address");
    f.summary = format!(
        "Its endpoint changed {} times in {}: {}.{}",
        times.len(),
        time(last - first),
        places.join(", "),
        match told_apart {
            true => " One session went on all the while, so it is one host.",
            false => " Whether it is one host that moves or two with one key could not be seen.",
        }
    );
    f.impact = "What is under way to the address that it has just left is lost.".to_owned();
    f.evidence = Evidence::new()
        .with("changes", times.len())
        .with("within_seconds", (last - first).as_secs_f64())
        .with("addresses", places)
        .with("one_host", if told_apart { "yes" } else { "unknown" });
    if !told_apart {
        f.candidates = vec![Candidate {
            cause: "Two hosts have the same private key".to_owned(),
            code: Some("wg-duplicate-key"),
            settle: "watch the wire here for a minute (needs CAP_NET_RAW), or stop WireGuard on the host that is known: \
                     if the endpoint still changes there is another one"
                .to_owned(),
        }];
    }
    f.fixes = vec![Fix {
        title: "On the moving host, pin the route to the endpoint to one uplink".to_owned(),
        why: "Packets of one tunnel that leave by two uplinks in turn come from two addresses.".to_owned(),
        command: view.wire.local.map(|l| format!("ip route get {}", l.ip())),
        ..Fix::default()
    }];
    (f.first_seen, f.last_seen) = (first, last);
    f.count = u32::try_from(times.len()).unwrap_or(u32::MAX);
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::observation::device::Implementation::Kernel;
    use crate::observation::device::PeerSnapshot;

    fn moving(every: u32, times: u32) -> Host {
        let mut host = Host::new(Kernel);
        for n in 0..=times {
            let endpoint = Some(sock(if n % 2 == 0 { PEER } else { "203.0.113.9:51820" }));
            host.peer(
                f64::from(n * every),
                PeerSnapshot {
                    endpoint,
                    ..peer_with(5_000, 5_000, Some(-10.0))
                },
            );
        }
        host
    }

    #[test]
    fn three_changes_in_ten_minutes() {
        for (every, times, expected) in [
            (10, 3, vec![CODE]),
            (10, 2, vec!["wg-roamed"]),
            (400, 3, vec!["wg-roamed"]),
            (299, 3, vec![CODE]),
        ] {
            assert_eq!(moving(every, times).codes().0, expected, "{times} each {every} s");
        }
        let finding = moving(10, 3).find(CODE).unwrap();
        assert_eq!(finding.candidates[0].code, Some("wg-duplicate-key"));
        assert_eq!(finding.evidence.get("one_host"), Some(&"unknown".into()));
    }
}

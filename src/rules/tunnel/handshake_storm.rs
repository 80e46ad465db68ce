//! `wg-handshake-storm`: far more initiations come than the protocol's schedule has.

use super::words::count;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::host::HostFacts;
use crate::rules::captured::view::finding;
use crate::rules::shell::here;
use crate::rules::{Area, Input, Rule};
use crate::track::handshake::{Flow, Heavy};
use crate::track::tunnels::DeviceTrack;
use crate::wire::wireguard::REKEY_TIMEOUT;

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-handshake-storm",
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "far more handshake initiations come to a device than its peers make by the protocol's schedule",
    meaning: "A WireGuard peer begins a handshake every two minutes, and one that gets no answer tries again every five \
              seconds, never faster. Here many times that number come: a flood by a stranger, a replayed message, or a \
              peer whose implementation does not keep to the schedule. Each costs this host cryptography, and when too \
              many wait, real peers are put off with cookies.",
    detection: "Initiations that come in at an interface for the device's port are counted (repeats included; beyond 1,000 \
                a second they are counted and not looked at; beyond 2,000 a second a random sample of them is taken, and \
                the number is an estimate, told with its 95 % margin), and compared with what all of the device's peers together \
                would send if none were ever answered: one in five seconds each. Ten times as many are a storm, and at \
                least 50 (`storm_factor`, `storm_initiations`). The address that sent the most is named.\n\n\
                In a capture the responder's peers are not known: those count as peers whose handshakes were answered, or \
                who repeat theirs no faster than every four seconds.",
    fix: "Drop the traffic before WireGuard sees it: by source address where it comes from few, by rate where it comes \
          from many. Source addresses may be forged: a limit for each address only helps against honest ones.\n\n\
          If it is a peer of yours, look at its implementation and whether a script restarts its tunnel again and again.",
    needs: &[super::DEVICES, &[Source::Capture]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let world = input.world;
    let devices = world.tunnels.devices().filter(|d| d.vanished_at.is_none());
    devices
        .filter_map(|device| {
            let port = device.info.listen_port?;
            let flows = world.handshakes.inflow.to_port(port);
            let mut flows: Vec<&Flow> = flows
                .into_iter()
                .filter(|f| world.routes.is_local(f.destination.ip()))
                .collect();
            flows.sort_by_key(|f| std::cmp::Reverse(f.count));
            let busiest = *flows.first()?;
            let schedule = schedule(device, busiest);
            let limit =
                (schedule * input.thresholds.storm_factor).max(input.thresholds.storm_initiations as f64);
            // The least that it may be.
            let least = busiest.count.saturating_sub(busiest.margin().unwrap_or(0));
            (least as f64 >= limit).then(|| report(input, device, busiest, schedule))
        })
        .collect()
}

/// What all peers would send in that time if none were ever answered.
fn schedule(device: &DeviceTrack, flow: &Flow) -> f64 {
    let tries = 1.0 + flow.span().as_secs_f64() / REKEY_TIMEOUT.as_secs_f64();
    device.present_peers().count().max(1) as f64 * tries
}

fn report(input: &Input<'_>, device: &DeviceTrack, flow: &Flow, schedule: f64) -> Finding {
    let name = &device.info.name;
    let seconds = seconds(flow);
    let subject = Subject::Device { name: name.clone() };
    let levels = (Severity::Warning, Confidence::Certain);
    let mut f = finding(RULE.code, levels, subject, (flow.first_at, flow.last_at));
    f.count = u32::try_from(flow.count).unwrap_or(u32::MAX);
    f.title = format!("{name} is flooded with handshake initiations");
    f.summary = format!(
        "{} came for {name} in {seconds:.1} s; its {} would have made {schedule:.0} at most. {}",
        match flow.margin() {
            None => count(flow.count, "initiation"),
            Some(margin) => format!(
                "About {} (give or take {margin}; a sample was taken)",
                count(flow.count, "initiation")
            ),
        },
        count(device.present_peers().count() as u64, "peer"),
        origin(flow)
    );
    f.impact =
        "Each costs this host cryptography; when too many wait, real peers are put off by 5 s each time."
            .to_owned();
    f.evidence = evidence(flow, schedule);
    f.fixes = vec![fix(input.world.host.as_ref(), flow)];
    f
}

/// What is known of a flood.
pub(in crate::rules) fn evidence(flow: &Flow, schedule: f64) -> Evidence {
    let (busiest, from_one) = (flow.busiest(), mostly_from(flow));
    Evidence::new()
        .with("initiations", flow.count)
        .with("initiations_per_second", flow.count as f64 / seconds(flow))
        .with("peak_per_second", flow.peak)
        .maybe("initiations_margin", flow.margin())
        .maybe(
            "sampled_one_in",
            (flow.one_in > 1).then_some(u64::from(flow.one_in)),
        )
        .with("looked_at", flow.shown)
        .with("schedule_at_most", schedule.round())
        .maybe("busiest_source", busiest.map(|b| b.source.to_string()))
        .maybe("from_busiest_at_least", busiest.map(|b| b.count))
        .with("from_one_source", from_one.is_some())
        .with("listen_port", flow.destination.port())
}

/// Who sends it, in a sentence.
pub(in crate::rules) fn origin(flow: &Flow) -> String {
    match (mostly_from(flow), flow.busiest()) {
        (Some(one), _) => format!("Most come from {}.", one.source),
        (None, Some(one)) => format!("They come from many addresses; {} sent the most.", one.source),
        (None, None) => "They come from many addresses.".to_owned(),
    }
}

/// How long it was seen, in seconds; a shorter one counts as a second.
pub(in crate::rules) fn seconds(flow: &Flow) -> f64 {
    flow.span().as_secs_f64().max(1.0)
}

/// The source of most of it, where there is one.
fn mostly_from(flow: &Flow) -> Option<Heavy> {
    flow.busiest().filter(|b| b.count * 2 >= flow.shown)
}

/// What drops it, at its receiver.
pub(in crate::rules) fn fix(host: Option<&HostFacts>, flow: &Flow) -> Fix {
    let port = flow.destination.port();
    match mostly_from(flow) {
        Some(one) => Fix {
            title: format!("If {} is no peer of yours, drop what it sends", one.source.ip()),
            why: "It sends most of them. A forged source address would be yours to block instead.".to_owned(),
            command: Some(here(
                host,
                &format!(
                    "nft add rule inet filter input udp dport {port} {} saddr {} drop",
                    if one.source.is_ipv4() { "ip" } else { "ip6" },
                    one.source.ip()
                ),
            )),
            ..Fix::default()
        },
        None => Fix {
            title: "Limit initiations before WireGuard sees them".to_owned(),
            why: "A real peer makes one in five seconds at most. @th,64,8 is the message's first byte."
                .to_owned(),
            command: Some(here(
                host,
                &format!(
                    "nft add rule inet filter input udp dport {port} @th,64,8 1 limit rate over 100/second drop"
                ),
            )),
            ..Fix::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::observation::Body;
    use crate::observation::device::Implementation::Kernel;
    use crate::observation::packet::InitiationTally;

    #[test]
    fn a_flood_is_counted_repeats_included() {
        for (calls, found) in [(49, false), (50, true), (400, true)] {
            let mut host = Host::new(Kernel);
            host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
            for n in 0..calls {
                host.called(1.0 + f64::from(n) / 1000.0, n / 2);
            }
            host.until(2.0);
            let finding = host.find(RULE.code);
            assert_eq!(finding.is_some(), found, "{calls}");
            if let Some(finding) = finding {
                assert_eq!(finding.evidence.get("initiations"), Some(&calls.into()));
                assert_eq!(finding.evidence.get("busiest_source"), Some(&PEER.into()));
            }
        }
    }

    #[test]
    fn of_a_sample_the_number_is_about() {
        for (count, variance, found) in [
            // One in four of 400,000: ± 2,148.
            (400_000, 1_200_000, Some(2_148)),
            // Perhaps 49.
            (60, 40, None),
            (60, 20, Some(9)),
        ] {
            let mut host = Host::new(Kernel);
            host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
            for n in 0..6 {
                host.called(1.0 + f64::from(n) / 1000.0, n);
            }
            let tally = InitiationTally {
                if_index: Some(ETH0),
                destination: sock(US),
                count: count - 6,
                one_in: 4,
                variance,
            };
            host.see(1.9, Source::Capture, Body::Initiations(tally));
            host.until(2.0);
            let finding = host.find(RULE.code);
            assert_eq!(finding.is_some(), found.is_some(), "{count}");
            let (Some(finding), Some(margin)) = (finding, found) else {
                continue;
            };
            let about = format!("About {count} initiations (give or take {margin}; a sample was taken) came");
            assert!(finding.summary.starts_with(&about), "{}", finding.summary);
            assert!(finding.summary.contains("Most come from"), "{}", finding.summary);
            for (key, value) in [
                ("initiations", count),
                ("initiations_margin", margin),
                ("sampled_one_in", 4),
                ("looked_at", 6),
            ] {
                assert_eq!(finding.evidence.get(key), Some(&value.into()), "{key}");
            }
        }
    }

    #[test]
    fn a_peer_that_is_not_answered_keeps_to_the_schedule() {
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
        // Twenty tries of one peer, each seen twice.
        for n in 0..40u32 {
            host.called(f64::from(n) * 2.6, n / 2);
        }
        host.until(104.0);
        assert!(host.find(RULE.code).is_none());
    }
}

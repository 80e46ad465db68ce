//! What is said of new connections that die beyond this host.

use super::{Case, Likely, Probe, RULE};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::nat::Family;
use crate::rules::Input;
use crate::rules::ports::tuple::tuples;
use crate::rules::upstream::flows::Group;
use crate::rules::upstream::view::subject;
use crate::words::{count, counted};

/// The finding of a case.
pub fn finding(input: &Input<'_>, case: &Case<'_>) -> Finding {
    let waiting = case.sum(|p| p.waiting.max(p.stuck).into());
    let established = case.sum(|p| p.established.into());
    let heard = case.failing.iter().filter(|(_, p)| p.heard).count();
    let mixed = case.failing.iter().filter(|(_, p)| p.established > 0).count();
    let admitted = case.admitted();
    let repeated = input.world.counters.delta("TcpExt.TCPSynRetrans").unwrap_or(0);
    let now = input.now();
    let discovered = input.world.nat.newest().map(|(_, facts)| facts);
    let external = discovered
        .and_then(|f| f.families.iter().find(|f| f.family == case.family))
        .and_then(|f| f.external);
    let mut evidence = Evidence::new()
        .with("family", case.family.name())
        .with("syn_sent", waiting)
        .with("addresses", case.addresses.len())
        .with("networks", case.networks)
        .with("addresses_with_established", mixed)
        .with("destinations_heard", heard)
        .with("established", established)
        .with("new_established", admitted)
        .maybe(
            "new_established_kept",
            case.failing.iter().map(|(_, p)| p.kept).sum::<Option<u64>>(),
        )
        .with("syn_retransmits", repeated);
    if let (Some(Likely::Limit(_, flows)), Some(budget)) = (&case.likely, input.world.nat.budget()) {
        evidence = evidence
            .with("profile", budget.profile.clone())
            .with("in_use", flows.filled())
            .with("available", budget.flows);
    }
    let likely = case.likely.is_some();
    Finding {
        code: RULE.code,
        severity: if likely {
            Severity::Critical
        } else {
            Severity::Warning
        },
        confidence: if likely {
            Confidence::Likely
        } else {
            Confidence::Possible
        },
        title: title(case),
        subject: subject(external.map(|e| e.ip())),
        summary: summary(input, case, waiting, established, heard, admitted),
        evidence,
        impact:
            "New connections of this host, and of every host behind the same NAT, time out; open ones go on."
                .to_owned(),
        candidates: candidates(case),
        fixes: fixes(input, case),
        first_seen: case.since().unwrap_or(now),
        last_seen: now,
        count: 1,
    }
}

fn title(case: &Case<'_>) -> String {
    match &case.likely {
        Some(Likely::Exchanged) => {
            "The NAT in front takes new connections only as others end: it looks full".to_owned()
        }
        Some(Likely::Limit(Group::Host, _)) => {
            "The NAT in front takes no new connections: its limit is reached".to_owned()
        }
        Some(Likely::Limit(Group::Address(ip), _)) => {
            format!("The NAT in front takes no new connections to {ip}: its limit is reached")
        }
        Some(Likely::Limit(Group::Destination(_, to), _)) => {
            format!("The NAT in front takes no new connections to {to}: its limit is reached")
        }
        None => "New connections die beyond this host while open ones go on: the NAT in front may be full"
            .to_owned(),
    }
}

fn summary(
    input: &Input<'_>,
    case: &Case<'_>,
    waiting: u64,
    established: u64,
    heard: usize,
    admitted: u64,
) -> String {
    let mut summary = format!(
        "{} to {} {} in SYN_SENT, sent again and not answered, while {} there are established",
        counted(waiting, "new connection", "new connections"),
        counted(case.addresses.len() as u64, "address", "addresses"),
        if waiting == 1 { "waits" } else { "wait" },
        count(established),
    );
    if heard > 0 {
        summary.push_str(&format!(
            " and something comes on them ({} of {})",
            count(heard as u64),
            counted(case.failing.len() as u64, "destination", "destinations")
        ));
    }
    summary.push_str(". No limit of this host is near.");
    match (&case.likely, admitted) {
        (Some(Likely::Exchanged), n) => summary.push_str(&format!(
            " {} got through meanwhile and stayed, no more than others ended: ports that come free are given out again.",
            counted(n, "new connection", "new connections")
        )),
        (Some(Likely::Limit(_, flows)), _) => {
            if let Some(budget) = input.world.nat.budget() {
                summary.push_str(&format!(
                    " {} flows are held there, and {} allows {}.",
                    count(flows.filled()),
                    budget.title,
                    count(budget.flows)
                ));
            }
        }
        (None, 0) => summary.push_str(" No new connection got through there at all."),
        (None, n) => summary.push_str(&format!(
            " {} got through meanwhile.",
            counted(n, "new connection", "new connections")
        )),
    }
    match case.probe {
        Probe::Fails => summary.push_str(" A new connection to the STUN server died in the same way."),
        Probe::Passes => summary.push_str(
            " A new connection to the STUN server got through; a NAT that counts ports by destination may still have none for these.",
        ),
        Probe::None => {}
    }
    summary
}

fn candidate(cause: &str, settle: &str) -> Candidate {
    Candidate {
        cause: cause.to_owned(),
        code: None,
        settle: settle.to_owned(),
    }
}

/// What the evidence leaves, and what settles each.
fn candidates(case: &Case<'_>) -> Vec<Candidate> {
    let mut all = vec![
        candidate(
            "The NAT in front has no port left for this host",
            "wgnat nat --port-quota against a reflector of yours; the NAT's own counter of dropped allocations",
        ),
        candidate(
            "The table of connections of a firewall, a cloud's host or a node in front is full",
            "its own counters: on EC2 `ethtool -S DEVICE | grep conntrack_allowance`; on a container's node `conntrack -S`",
        ),
    ];
    let likely = case.likely.is_some();
    if !likely && case.admitted() == 0 {
        all.push(candidate(
            "A firewall or an egress policy in front lets no new connection out",
            "close some connections: a full NAT then takes as many new ones, a firewall none",
        ));
    }
    if !likely && case.admitted() > 0 {
        all.push(candidate(
            "A NAT or firewall in front limits the rate of new connections",
            "wgnat nat --port-quota: it opens a few slowly while many are there; a full NAT answers none of them",
        ));
        all.push(candidate(
            "One of several links or paths is dead, and which one a connection takes depends on its ports",
            "the same source port fails each time and another succeeds each time: nc -p PORT ADDRESS PORT",
        ));
    }
    if !likely && case.networks < 2 {
        all.push(candidate(
            "What stands before these servers takes no new connections: their addresses lie in one network",
            "new connections to another network; and to these servers from elsewhere",
        ));
    }
    if case.table_unseen {
        all.push(Candidate {
            code: Some("conntrack-full"),
            ..candidate(
                "This host's own table of connections is full",
                "run wgnat doctor as root: it could not be read",
            )
        });
    }
    all
}

fn fixes(input: &Input<'_>, case: &Case<'_>) -> Vec<Fix> {
    let busiest = tuples(input)
        .into_iter()
        .filter(|t| case.failing.iter().any(|(to, _)| **to == t.key.destination))
        .max_by_key(|t| t.sample.live + t.sample.time_wait);
    let mut fixes = busiest.map(|t| t.advice().fixes).unwrap_or_default();
    fixes.truncate(1);
    let more = input.world.nat.budget().map_or_else(
        || "Each port or address that it gets is room for more flows.".to_owned(),
        |b| b.more.clone(),
    );
    fixes.push(Fix {
        title: match case.family {
            Family::Ipv4 => "Give the NAT in front more ports or addresses",
            Family::Ipv6 => "Give the NAT in front more IPv6 ports or addresses",
        }
        .to_owned(),
        why: more,
        ..Fix::default()
    });
    fixes
}

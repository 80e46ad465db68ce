//! `upstream-budget-low`: the flows that the NAT in front allows are nearly used.

use super::flows::{Flows, Group, flows};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::nat::Budget;
use crate::rules::forecast::Forecast;
use crate::rules::ports::tuple::tuples;
use crate::rules::{Area, Input, Rule};
use crate::time::{Span, Timestamp};
use crate::track::trend::Trend;
use crate::words::{count, percent, rounded, seconds};

/// The rule.
pub const RULE: Rule = Rule {
    code: "upstream-budget-low",
    area: Area::Upstream,
    severity: "warning",
    holds_when: "concurrent flows come near the known limit of the NAT in front (`--nat-profile`)",
    meaning: "The NAT in front gives this host a limited number of ports: for each destination, for each destination address, or in all. \
When they are used up, new connections are dropped in silence, and nothing on this host says so.",
    detection: "Flows are counted from the socket table as that NAT counts them: live ones, and ended ones for as long as it holds their \
ports (TIME_WAIT shows them for a minute; what ended before that, or was closed by the other side, follows from a pace that is steady, and where \
the finding hangs on that it is a hint), and from this host's own conntrack table, which also \
has what it forwards. The limit is what the profile says: src/budgets/budgets.toml has each figure with its source and date. Without a \
profile nothing is compared.",
    fix: "- Reuse connections: the finding names the pool's size.\n- More external addresses or ports at the NAT; the finding says how for that \
NAT.\n- IPv6 where it is not translated.",
    needs: &[&[Source::Sockets, Source::Conntrack]],
    explained_by: &["upstream-nat-exhausted"],
    check,
};

/// A line is not trusted further ahead than this.
const HORIZON: Span = Span::from_secs(3600);

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(budget) = input.world.nat.budget() else {
        return Vec::new();
    };
    let limit = f64::from(budget.flows);
    let mut low: Vec<(Group, Flows)> = flows(input, budget)
        .into_iter()
        .filter(|(_, f)| f64::from(f.held()) / limit >= input.thresholds.budget_warning)
        .collect();
    low.sort_by_key(|(_, f)| std::cmp::Reverse(f.held()));
    low.iter()
        .map(|(group, f)| finding(input, budget, *group, f))
        .collect()
}

fn finding(input: &Input<'_>, budget: &Budget, group: Group, flows: &Flows) -> Finding {
    let held = flows.held();
    let share = f64::from(held) / f64::from(budget.flows);
    let trend = Trend::of(flows.over_time.iter().map(|(at, n)| (*at, *n)));
    let forecast =
        Forecast::of(trend, held.into(), budget.flows.into(), HORIZON).filter(|_| held < budget.flows);
    let to = match group {
        Group::Destination(proto, to) => format!("to {to} ({})", proto.name()),
        Group::Address(ip) => format!("to {ip}"),
        Group::Host => "of this host".to_owned(),
    };
    let counted = if flows.forwarded > flows.live.saturating_add(flows.ended) {
        format!("{} flows {to} are in this host's conntrack table", count(held))
    } else if flows.ended > 0 {
        format!(
            "{} flows {to} are held there: {} live, and {} that have ended within {}, as long as it holds their ports",
            count(held),
            count(flows.live),
            count(flows.ended),
            seconds(budget.hold.as_secs_f64())
        )
    } else {
        format!("{} flows {to} are open", count(held))
    };
    // Of what was seen alone it would not be low; or more is open than the limit lets through.
    let estimated = f64::from(flows.seen()) / f64::from(budget.flows) < input.thresholds.budget_warning;
    let beyond = flows.established > budget.flows;
    let mut summary = format!("{counted}; {} allows {}.", budget.title, count(budget.flows));
    if let Some(forecast) = forecast {
        summary.push_str(&format!(
            " At the present pace none is left {}.",
            forecast.words()
        ));
    }
    if budget.assumed {
        summary.push_str(
            " The limit is a common value and not that NAT's own: measure it with `wgnat nat --port-quota`.",
        );
    }
    if beyond {
        summary.push_str(&format!(
            " {} of them are established: as no NAT carries more than it allows, its limit may be another.",
            count(flows.established)
        ));
    }
    if estimated {
        summary.push_str(&format!(
            " {} of those that have ended were not seen: they follow from the pace at which others did.",
            count(flows.estimated)
        ));
    }
    let now = input.now();
    let at = |first: bool| {
        let enough = |n: &f64| n / f64::from(budget.flows) >= input.thresholds.budget_warning;
        let mut times = flows
            .over_time
            .iter()
            .filter(|(_, n)| enough(n))
            .map(|(at, _)| *at);
        let found: Option<Timestamp> = if first { times.next() } else { times.next_back() };
        found.unwrap_or(now)
    };
    let evidence = Evidence::new()
        .with("profile", budget.profile.clone())
        .with("in_use", held)
        .with("available", budget.flows)
        .with("share", rounded(share))
        .with("live", flows.live)
        .with("ended", flows.ended)
        .with("ended_estimated", flows.estimated)
        .with("hold_seconds", rounded(budget.hold.as_secs_f64()));
    Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: if budget.assumed || estimated || beyond {
            Confidence::Possible
        } else {
            Confidence::Likely
        },
        title: format!("{} of what {} allows is in use", percent(share), budget.title),
        subject: subject(group),
        summary,
        evidence: match forecast {
            Some(forecast) => forecast.evidence(evidence),
            None => evidence,
        },
        impact: "When none is left, new connections die in SYN_SENT without an error, and datagrams vanish."
            .to_owned(),
        candidates: if beyond { other_limits(budget) } else { Vec::new() },
        fixes: fixes(input, budget, flows),
        first_seen: at(true),
        last_seen: at(false),
        count: 1,
    }
}

/// Why more connections are open than the limit allows.
fn other_limits(budget: &Budget) -> Vec<Candidate> {
    vec![
        Candidate {
            cause: format!(
                "The NAT in front allows more than {}: it has more addresses, or is another one",
                count(budget.flows)
            ),
            code: None,
            settle: "its own settings; then --nat-profile with the number, or wgnat nat --port-quota"
                .to_owned(),
        },
        Candidate {
            cause: "It has forgotten some of them, which are idle and still open here".to_owned(),
            code: None,
            settle:
                "ss -tno state established: those without a keepalive timer that were last used minutes ago"
                    .to_owned(),
        },
    ]
}

/// The NAT is in front, but what it runs out of belongs to one destination where it counts by that.
fn subject(group: Group) -> Subject {
    let (proto, destination) = match group {
        Group::Destination(proto, to) => (Some(proto), Some(to)),
        Group::Address(_) | Group::Host => (None, None),
    };
    match group {
        Group::Address(ip) => Subject::Destination {
            proto: crate::types::Proto::Tcp,
            source: None,
            address: ip,
            port: 0,
            process: None,
        },
        _ => Subject::Nat {
            address: None,
            proto,
            destination,
        },
    }
}

/// Fewer flows first, from the tuple that has most of them; then more room.
fn fixes(input: &Input<'_>, budget: &Budget, flows: &Flows) -> Vec<Fix> {
    let largest = flows.largest.map(|(_, key)| key);
    let mut fixes = tuples(input)
        .iter()
        .find(|t| Some(t.key) == largest)
        .map(|t| t.advice().fixes)
        .unwrap_or_default();
    fixes.truncate(2);
    fixes.push(Fix {
        title: "Give the NAT in front more room".to_owned(),
        why: budget.more.clone(),
        ..Fix::default()
    });
    fixes
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;

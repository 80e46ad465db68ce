//! `fly-toml-limit-ports`: more at once than there are ports or flows for.

use super::{FLY_TOML, finding, lines, read, section, serving};
use crate::budgets;
use crate::finding::{Candidate, Confidence, Finding, Severity};
use crate::observation::fly_toml::{FlyTomlFacts, Service};
use crate::observation::nat::Scope;
use crate::rules::{Area, Input, Rule};
use crate::words::count;

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-limit-ports",
    area: Area::Fly,
    severity: "warning with --nat-profile, else info",
    holds_when: "the hard limits of one machine's services are above the flows that the NAT in front allows, or above the local ports",
    meaning: "Each request that the app passes on to a database or an API over a connection of its own takes a local port and a flow of the NAT. \
              A machine that takes more requests at once than that runs into the limit at full load, and new connections then die without an \
              error.",
    detection: "The hard limits of all TCP services of a process group, added up, against the limit that `--nat-profile` names; without one, \
                against 1,024, what Fly allows a machine towards each address where the app has a static egress address \
                (src/budgets/budgets.toml), and against this host's ephemeral ports. A possibility: how many connections a request opens is \
                not in the file. `upstream-budget-low` and `ports-low` count the real ones.",
    fix: "A pool of connections in the app makes their number independent of the requests' (`wgnat explain connection-churn`); else lower \
          `hard_limit`, and run more machines.",
    needs: FLY_TOML,
    explained_by: &[],
    check,
};

/// Linux's default range (32768 to 60999), for a file that is read elsewhere.
const DEFAULT_PORTS: u32 = 28_232;

/// What the limits are compared with.
struct Room {
    flows: u32,
    /// Whose limit, as a subject of "allows".
    whose: String,
    per: &'static str,
    severity: Severity,
    settle: &'static str,
}

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    let Some(room) = room(input) else {
        return Vec::new();
    };
    let file = &facts.file;
    let mut all = Vec::new();
    for group in file.group_names() {
        let services: Vec<&Service> = file
            .services
            .iter()
            .filter(|service| !service.udp && service.served_by(group))
            .collect();
        let limits: Vec<u32> = services
            .iter()
            .filter_map(|service| Some(service.concurrency?.hard?.value))
            .collect();
        let sum: u64 = limits.iter().map(|n| u64::from(*n)).sum();
        if sum <= u64::from(room.flows) {
            continue;
        }
        let Some(largest) = services
            .iter()
            .max_by_key(|service| service.concurrency.and_then(|c| c.hard).map(|told| told.value))
        else {
            continue;
        };
        // A service of several groups is told once, for the first of them.
        let told = serving(file, largest).first() == Some(&group);
        if told {
            all.push(judge(input, facts, largest, sum, limits.len(), &room));
        }
    }
    all
}

fn room(input: &Input<'_>) -> Option<Room> {
    if let Some(budget) = input.world.nat.budget() {
        return Some(Room {
            flows: budget.flows,
            whose: budget.title.clone(),
            per: match budget.scope {
                Scope::Destination => "to one destination",
                Scope::Address => "to one address",
                Scope::Host => "in all",
            },
            severity: Severity::Warning,
            settle: "`wgnat doctor --nat-profile` at full load counts the real ones (upstream-budget-low)",
        });
    }
    let fly = budgets::profiles()
        .into_iter()
        .find(|p| p.name == "fly-static-egress")?;
    let range = input.world.sysctls.as_ref().and_then(|s| s.local_port_range);
    // Elsewhere than on a Fly machine this host's range is not the app's.
    let on_fly = input.world.host.as_ref().is_some_and(|host| host.fly.is_some());
    let ports = range.filter(|_| on_fly).map_or(DEFAULT_PORTS, |range| {
        u32::from(range.high.saturating_sub(range.low)) + 1
    });
    Some(if ports < fly.flows {
        Room {
            flows: ports,
            whose: "this machine's range of local ports (net.ipv4.ip_local_port_range)".to_owned(),
            per: "to one destination",
            severity: Severity::Info,
            settle: "`wgnat doctor` in the machine at full load counts the ports in use (ports-low)",
        }
    } else {
        Room {
            flows: fly.flows,
            whose: fly.title,
            per: "to one address",
            severity: Severity::Info,
            settle: "`fly ips list` shows whether the app has an egress address; then doctor with --nat-profile fly-static-egress counts",
        }
    })
}

fn judge(
    input: &Input<'_>,
    facts: &FlyTomlFacts,
    service: &Service,
    sum: u64,
    services: usize,
    room: &Room,
) -> Finding {
    let line = service
        .concurrency
        .and_then(|limits| limits.hard)
        .map_or(service.line, |told| told.line);
    let mut f = finding(input, RULE.code, facts, line, room.severity, Confidence::Possible);
    f.title = format!(
        "A machine may take {} at once, and has {} flows {}",
        count(sum),
        count(room.flows),
        room.per
    );
    let whose = if services == 1 {
        format!("hard_limit in line {line} is {}", count(sum))
    } else {
        format!(
            "The hard limits of {services} services of one machine add up to {}",
            count(sum)
        )
    };
    f.summary = format!(
        "{whose}; {} allows {} {}. Where each request opens a connection of its own to the same place, full load is more than fits.",
        room.whose,
        count(room.flows),
        room.per
    );
    f.evidence = f.evidence.with("hard_limit", sum).with("available", room.flows);
    f.impact = "At full load new connections to that place would fail.".to_owned();
    f.candidates = vec![Candidate {
        cause: "Requests open connections of their own, and all to one place".to_owned(),
        code: Some("upstream-budget-low"),
        settle: room.settle.to_owned(),
    }];
    // As with other budgets: from seven tenths on it is time to act.
    let hard = (u64::from(room.flows) * 7 / 10).max(1);
    f.fixes = vec![lines(
        "Use a pool in the app, or send a machine fewer at once",
        format!(
            "With a pool the limit may stay. Without one, this keeps a machine at seven tenths of what there is; {} more machines take the \
             rest.",
            count(sum.div_ceil(hard).saturating_sub(1))
        ),
        format!(
            "  [{}.concurrency]\n    soft_limit = {}\n    hard_limit = {hard}",
            section(service),
            (hard * 4 / 5).max(1)
        ),
    )];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, found};
    use super::*;

    fn toml(hard: u32) -> String {
        format!("[http_service]\n[http_service.concurrency]\nsoft_limit = 1\nhard_limit = {hard}\n")
    }

    #[test]
    fn what_fits_is_silent_and_what_does_not_is_possible() {
        for (hard, expected) in [(1024, None), (1025, Some(Severity::Info))] {
            let found = found(&RULE, &toml(hard));
            assert_eq!(found.first().map(|f| f.severity), expected, "{hard}");
            assert!(found.iter().all(|f| f.confidence == Confidence::Possible));
        }
        assert!(found(&RULE, "[http_service]\ninternal_port = 1\n").is_empty());
    }

    #[test]
    fn the_named_profile_goes_before_the_guess() {
        let with = |profile: &str, hard| {
            Scene::new(&toml(hard))
                .budget(profile)
                .check(&RULE)
                .first()
                .map(|f| (f.severity, f.evidence.get("available").cloned()))
        };
        assert_eq!(with("50/host", 51), Some((Severity::Warning, Some(50.into()))));
        assert_eq!(with("50/host", 50), None);
        assert_eq!(with("aws-nat-gateway", 5000), None);
    }

    #[test]
    fn limits_of_one_machine_add_up_and_groups_do_not() {
        let service =
            |group: &str| format!("[[services]]\nprocesses = [\"{group}\"]\nconcurrency = \"1,600\"\n");
        let groups = "[processes]\na = \"x\"\nb = \"y\"\n";
        let same = format!("{groups}{}{}", service("a"), service("a"));
        let found_same = found(&RULE, &same);
        assert_eq!(found_same.len(), 1);
        assert!(
            found_same[0].summary.contains("2 services"),
            "{}",
            found_same[0].summary
        );
        assert!(found(&RULE, &format!("{groups}{}{}", service("a"), service("b"))).is_empty());
    }

    #[test]
    fn a_narrow_range_on_the_machine_itself() {
        let narrow = |fly: bool| {
            Scene::new(&toml(600))
                .ports(32768, 33267)
                .on_fly(fly, "web", "app")
        };
        assert_eq!(
            narrow(true).check(&RULE)[0].evidence.get("available"),
            Some(&500.into())
        );
        assert!(narrow(false).check(&RULE).is_empty());
    }
}

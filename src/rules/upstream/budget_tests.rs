use super::*;
use crate::config::Thresholds;
use crate::observation::{Body, Observation};
use crate::rules::ports::testing::{Scene, look, start};

/// What the rule says of one destination with these sockets at some looks, under a budget.
fn said(budget: &str, looks: &[(u32, u32, u32)]) -> Vec<Finding> {
    let mut scene = Scene::new();
    for (at, established, time_wait) in looks {
        scene = scene.look(*at, look().established(*established).time_wait(*time_wait));
    }
    let mut world = scene.world();
    if !budget.is_empty() {
        world.apply(&Observation {
            at: start(),
            took: Span::ZERO,
            source: Source::Config,
            body: Body::NatBudget(crate::budgets::parse(budget).unwrap()),
        });
    }
    (RULE.check)(&Input {
        world: &world,
        thresholds: &Thresholds::default(),
    })
}

#[test]
fn near_the_limit_fires_and_below_it_does_not() {
    let near = said("100/address", &[(1, 75, 0)]);
    assert_eq!(near.len(), 1);
    assert_eq!(near[0].evidence.get("in_use"), Some(&75.into()));
    assert_eq!(near[0].severity, Severity::Warning);
    for (budget, established) in [
        ("100/address", 69),
        ("1024/address", 75),
        ("", 75),
        ("aws-nat-gateway", 1000),
    ] {
        assert!(
            said(budget, &[(1, established, 0)]).is_empty(),
            "{budget} {established}"
        );
    }
    // A guess is no more than a hint.
    assert_eq!(said("cgn", &[(1, 900, 0)])[0].confidence, Confidence::Possible);
}

#[test]
fn ended_flows_count_for_as_long_as_the_nat_holds_them() {
    // 60 TIME_WAITs beside 20 live ones.
    assert_eq!(said("100/destination/60s", &[(1, 20, 60)]).len(), 1);
    let at_once = said("100/destination/0s", &[(1, 20, 60)]);
    assert!(at_once.is_empty(), "{at_once:?}");
    // Twice TIME_WAIT's length: twice as many at the same pace.
    let long = said("200/destination/120s", &[(1, 20, 66)]);
    assert!(long.len() <= 1);
}

#[test]
fn growth_is_told_with_a_time() {
    let looks: Vec<_> = (0..8).map(|s| (s, 60 + 4 * s, 0)).collect();
    let found = said("100/host", &looks);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].evidence.get("exhausted_in_seconds").is_some(),
        "{:?}",
        found[0].evidence
    );
    assert!(found[0].fixes.len() >= 2, "{:?}", found[0].fixes);
}

//! fly.toml: every error names a place in the text, and whatever is read can be judged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgnat::config::Thresholds;
use wgnat::observation::fly_toml::FlyTomlFacts;
use wgnat::observation::{Body, Observation, Source};
use wgnat::rules::{self, Input, registry};
use wgnat::time::{Span, Timestamp};
use wgnat::track::World;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let file = match wgnat::wire::fly_toml::parse(&text) {
        Ok(file) => file,
        Err(error) => {
            assert!(error.line >= 1 && error.column >= 1);
            assert!(error.line as usize <= text.matches('\n').count() + 1);
            return;
        }
    };
    let facts = FlyTomlFacts {
        path: "fly.toml".to_owned(),
        named: true,
        agent_listen: ([127, 0, 0, 1], 9986).into(),
        file,
    };
    let mut world = World::new(Timestamp::EPOCH);
    world.apply(&Observation {
        at: Timestamp::from_secs(1),
        took: Span::ZERO,
        source: Source::FlyToml,
        body: Body::FlyToml(Box::new(facts)),
    });
    let all: Vec<_> = registry::rules().collect();
    let input = Input {
        world: &world,
        thresholds: &Thresholds::default(),
    };
    let found = rules::evaluate(&all, &input);
    assert!(found.findings.iter().all(|f| !f.title.contains('\n')));
});

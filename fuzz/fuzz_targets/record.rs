//! Records, whole or damaged: whatever can be read is judged and printed without harm.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgnat::config::Thresholds;
use wgnat::observation::log;
use wgnat::output::{Format, Options, render};
use wgnat::redact::Anonymiser;
use wgnat::report::build::build;
use wgnat::rules::{Input, evaluate, registry};
use wgnat::time::Timestamp;
use wgnat::track::World;

fuzz_target!(|data: &[u8]| {
    let mut anonymiser = Anonymiser::new([1; 32]);
    let mut world = World::new(Timestamp::from_secs(1_700_000_000));
    let _ = log::read(
        data,
        |_| {},
        |observation| {
            world.apply(&anonymiser.observation(observation));
            let _ = world.requests();
        },
    );
    let _ = world.due();
    let thresholds = Thresholds::default();
    let rules: Vec<_> = registry::rules().collect();
    let evaluation = evaluate(
        &rules,
        &Input {
            world: &world,
            thresholds: &thresholds,
        },
    );
    let report = build(&world, evaluation, "0");
    for format in [Format::Text, Format::Json, Format::Markdown] {
        let mut out = Vec::new();
        render(&report, format, &Options::default(), &mut out).unwrap();
        if format == Format::Text {
            assert!(!out.contains(&0x1b), "an escape sequence came through");
        }
    }
});

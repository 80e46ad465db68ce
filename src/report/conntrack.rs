//! Conntrack and source NAT as tables.

use super::{Conntrack, SnatRow};
use crate::track::{World, natpool};

/// The section; `None` where conntrack was not read.
pub(super) fn section(world: &World) -> Option<Conntrack> {
    let state = &world.conntrack;
    let stats = state.newest();
    let tally = state.tally().map(|(_, tally)| tally);
    if stats.is_none() && tally.is_none() {
        return None;
    }
    let kernel = world.host.as_ref().map(|h| h.kernel.as_str());
    let mut snat: Vec<SnatRow> = tally
        .map(|tally| natpool::uses(tally, kernel, state.rules()))
        .unwrap_or_default()
        .into_iter()
        .map(|row| SnatRow {
            tally: row.tally.clone(),
            held: row.held(),
            range: Some(row.range.size),
            range_inferred: row.range.inferred(),
        })
        .collect();
    // By share of its own range: what is nearest to its end comes first, whatever the range's size.
    snat.sort_by(|a, b| share(b).total_cmp(&share(a)));
    Some(Conntrack {
        count: stats.map(|s| s.count),
        max: stats
            .and_then(|s| s.max)
            .or_else(|| world.sysctls.as_ref().and_then(|s| s.conntrack_max)),
        per_second: state.growth_per_second(),
        new: state.new_entries(),
        counters: state.moved().map(|moved| moved.by_name().to_vec()),
        tally: tally.cloned(),
        snat,
    })
}

fn share(row: &SnatRow) -> f64 {
    f64::from(row.held) / f64::from(row.range.unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::conntrack::{CtCpuStats, CtStats, CtTally};
    use crate::observation::{Body, Observation, Source};
    use crate::report::sample;
    use crate::time::{Span, Timestamp};

    fn observe(world: &mut World, secs: i64, body: Body) {
        world.apply(&Observation {
            at: Timestamp::from_secs(secs),
            took: Span::ZERO,
            source: Source::Conntrack,
            body,
        });
    }

    fn stats(count: u32, insert_failed: u32) -> Body {
        Body::ConntrackStats(CtStats {
            count,
            max: Some(1000),
            cpus: vec![CtCpuStats {
                insert_failed,
                ..CtCpuStats::default()
            }],
        })
    }

    #[test]
    fn one_look_tells_no_movement_and_two_do() {
        let mut world = World::new(Timestamp::from_secs(100));
        observe(&mut world, 100, stats(500, 7));
        let once = section(&world).unwrap();
        assert_eq!(
            (once.count, once.max, once.counters),
            (Some(500), Some(1000), None)
        );
        observe(&mut world, 105, stats(510, 9));
        let twice = section(&world).unwrap();
        let moved = twice.counters.unwrap();
        assert_eq!(
            moved.iter().find(|(name, _)| *name == "insert_failed"),
            Some(&("insert_failed", 2))
        );
    }

    #[test]
    fn a_table_without_statistics_is_still_shown() {
        let mut world = World::new(Timestamp::from_secs(100));
        let snat = sample::conntrack()
            .snat
            .into_iter()
            .map(|row| row.tally)
            .collect();
        observe(
            &mut world,
            100,
            Body::ConntrackTally(CtTally {
                snat,
                ..CtTally::default()
            }),
        );
        let section = section(&world).unwrap();
        assert_eq!(section.count, None);
        assert_eq!(section.snat.len(), 1);
        assert!(section.snat.iter().all(|row| row.range.is_some()));
    }
}

//! The engine, with observers that fail in every way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::observe::{Emit, ObserveError, Observer};

/// Panics at its first look, in its first life.
struct Frail {
    life: u32,
}

impl Observer for Frail {
    fn source(&self) -> Source {
        Source::Sockets
    }

    fn interval(&self) -> Span {
        Span::from_millis(5)
    }

    fn look(&mut self, _: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        assert!(self.life > 0, "a made-up bug");
        Ok(SourceStatus::ok())
    }
}

/// Always well.
struct Hale;

impl Observer for Hale {
    fn source(&self) -> Source {
        Source::Host
    }

    fn interval(&self) -> Span {
        Span::from_millis(5)
    }

    fn look(&mut self, _: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        Ok(SourceStatus::ok())
    }
}

fn statuses_until(engine: &mut Engine, mut enough: impl FnMut(Source, &SourceStatus) -> bool) {
    let end = clock::instant() + Span::from_secs(60);
    while clock::instant() < end {
        if let Step::Seen(seen) = engine.wait(Span::from_millis(100))
            && let Body::Status(status) = &seen.body
            && enough(seen.source, status)
        {
            return;
        }
    }
    panic!("not within a minute");
}

#[test]
fn one_that_panics_is_reported_and_started_anew_and_the_others_go_on() {
    let lives = Arc::new(AtomicU32::new(0));
    let born = Arc::clone(&lives);
    let frail: Opener = Arc::new(move || {
        let life = born.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Frail { life }))
    });
    let hale: Opener = Arc::new(|| Ok(Box::new(Hale)));
    let mut engine = Engine::start_for_good(vec![(Source::Sockets, frail), (Source::Host, hale)]);
    let mut reason = None;
    statuses_until(&mut engine, |source, status| {
        reason = status.reason.clone();
        source == Source::Sockets
    });
    assert!(reason.unwrap().contains("failed inside"));
    let mut hale_looks = 0;
    statuses_until(&mut engine, |source, status| {
        hale_looks += u32::from(source == Source::Host);
        source == Source::Sockets && status.reason.is_none()
    });
    assert!(hale_looks > 0, "the other looked meanwhile");
    assert_eq!(engine.restarted(), BTreeMap::from([(Source::Sockets, 1)]));
    assert_eq!(lives.load(Ordering::Relaxed), 2);
}

#[test]
fn one_that_cannot_be_opened_is_tried_again() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let opener: Opener = Arc::new(move || {
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(ObserveError::Absent {
                what: "not yet there".to_owned(),
            });
        }
        Ok(Box::new(Hale))
    });
    let mut engine = Engine::start_for_good(vec![(Source::Host, opener)]);
    statuses_until(&mut engine, |_, status| {
        status.reason.as_deref() == Some("not yet there")
    });
    statuses_until(&mut engine, |_, status| status.reason.is_none());
}

#[test]
fn one_can_take_the_place_of_another() {
    let hale: Opener = Arc::new(|| Ok(Box::new(Hale)));
    let mut engine = Engine::start_for_good(vec![(Source::Host, hale)]);
    statuses_until(&mut engine, |_, status| status.reason.is_none());
    let other: Opener = Arc::new(|| {
        Err(ObserveError::Absent {
            what: "the other".to_owned(),
        })
    });
    engine.replace(Source::Host, other);
    statuses_until(&mut engine, |_, status| {
        status.reason.as_deref() == Some("the other")
    });
}

#[test]
fn one_that_is_ended_stays_so_until_another_takes_its_place() {
    let looks = Arc::new(AtomicU32::new(0));
    let opener = |looks: &Arc<AtomicU32>| -> Opener {
        let born = Arc::clone(looks);
        Arc::new(move || {
            born.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Hale))
        })
    };
    let mut engine = Engine::start_for_good(vec![
        (Source::Host, opener(&looks)),
        (Source::Sockets, Arc::new(|| Ok(Box::new(Hale)))),
    ]);
    statuses_until(&mut engine, |source, _| source == Source::Host);
    engine.end(Source::Host);
    // Whatever it still says is not heard; longer than the first wait for a new start.
    let end = clock::instant() + restarts::FIRST * 2;
    while clock::instant() < end {
        if let Step::Seen(seen) = engine.wait(Span::from_millis(50)) {
            assert_eq!(seen.source, Source::Sockets);
        }
    }
    assert_eq!(engine.running().collect::<Vec<_>>(), [Source::Sockets]);
    assert_eq!(looks.load(Ordering::Relaxed), 1);
    engine.replace(Source::Host, opener(&looks));
    statuses_until(&mut engine, |source, _| source == Source::Host);
    assert_eq!(looks.load(Ordering::Relaxed), 2);
}

#[test]
fn one_that_waits_for_its_new_start_is_replaced_once() {
    let failing: Opener = Arc::new(|| {
        Err(ObserveError::Absent {
            what: "never there".to_owned(),
        })
    });
    let mut engine = Engine::start_for_good(vec![(Source::Host, failing)]);
    while engine.running().next().is_some() {
        engine.wait(Span::from_millis(50));
    }
    let born = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&born);
    engine.replace(
        Source::Host,
        Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Hale))
        }),
    );
    // Longer than the failed one would have waited.
    let end = clock::instant() + restarts::FIRST * 2;
    while clock::instant() < end {
        engine.wait(Span::from_millis(50));
    }
    assert_eq!(born.load(Ordering::Relaxed), 1);
}

/// What it opened in its first life breaks after its first look, or is not there by then.
struct Broken {
    life: u32,
    looks: u32,
    absent: bool,
}

impl Observer for Broken {
    fn source(&self) -> Source {
        Source::Sockets
    }

    fn interval(&self) -> Span {
        Span::from_millis(5)
    }

    fn look(&mut self, _: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        self.looks += 1;
        if self.life > 0 || self.looks == 1 {
            return Ok(SourceStatus::ok());
        }
        Err(if self.absent {
            ObserveError::Absent {
                what: "not there any more".to_owned(),
            }
        } else {
            ObserveError::System {
                doing: "asking the kernel".to_owned(),
                source: std::io::ErrorKind::ConnectionRefused.into(),
            }
        })
    }
}

fn broken(absent: bool) -> (Arc<AtomicU32>, Vec<(Source, Opener)>) {
    let lives = Arc::new(AtomicU32::new(0));
    let born = Arc::clone(&lives);
    let opener: Opener = Arc::new(move || {
        Ok(Box::new(Broken {
            life: born.fetch_add(1, Ordering::Relaxed),
            looks: 0,
            absent,
        }))
    });
    (lives, vec![(Source::Sockets, opener)])
}

/// Waits for so many looks that fail.
fn failing(engine: &mut Engine, mut times: u32) {
    statuses_until(engine, |_, status| {
        times -= u32::from(status.reason.is_some());
        times == 0
    });
}

#[test]
fn one_whose_looks_keep_failing_is_opened_anew() {
    let (lives, observers) = broken(false);
    let mut engine = Engine::start_for_good(observers);
    failing(&mut engine, 3);
    statuses_until(&mut engine, |_, status| status.reason.is_none());
    assert_eq!(engine.restarted(), BTreeMap::from([(Source::Sockets, 1)]));
    assert_eq!(lives.load(Ordering::Relaxed), 2);
}

#[test]
fn one_that_has_nothing_to_look_at_any_more_looks_on() {
    let (lives, observers) = broken(true);
    let mut engine = Engine::start_for_good(observers);
    failing(&mut engine, 20);
    assert_eq!(lives.load(Ordering::Relaxed), 1);
}

#[test]
fn a_look_that_begins_and_ends_gives_nobody_up() {
    let (lives, observers) = broken(false);
    let mut engine = Engine::start(observers);
    failing(&mut engine, 20);
    assert_eq!(lives.load(Ordering::Relaxed), 1);
    assert_eq!(engine.running().collect::<Vec<_>>(), [Source::Sockets]);
}

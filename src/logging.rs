//! Logs: to standard error, by level. Nothing is logged per packet above `trace`; keys are never logged.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::{Global, LogFormat};

/// What a command says by default that answers and ends.
pub const WARN: LevelFilter = LevelFilter::WARN;
/// What one says that runs for good.
pub const INFO: LevelFilter = LevelFilter::INFO;

/// Sets logging up for the whole process. `WGNAT_LOG` (as `RUST_LOG` elsewhere: levels, and `target=level`) goes before `-v` and
/// `-q`; one that cannot be read is told, and changes nothing.
pub fn init(global: &Global, default: LevelFilter, format: LogFormat, ansi: bool) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => default,
        (false, 1) => LevelFilter::INFO.max(default),
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let (filter, unread) = match std::env::var("WGNAT_LOG") {
        Ok(text) => directives(&text, level),
        Err(_) => (Targets::new().with_default(level), None),
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(ansi);
    let registry = tracing_subscriber::registry().with(filter);
    // A second call (in tests) finds it set already; that is fine.
    let _ = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
    if let Some(why) = unread {
        tracing::warn!("WGNAT_LOG: {why}; expected levels such as debug, or wgnat::observe=trace,info");
    }
}

/// What `text` asks for, with `level` where it says nothing of the rest; or why it cannot be read, and `level`.
fn directives(text: &str, level: LevelFilter) -> (Targets, Option<String>) {
    // A list of targets alone says nothing of the others.
    let says_the_rest = text
        .split(',')
        .any(|part| !part.trim().is_empty() && !part.contains('='));
    match text.trim().parse::<Targets>() {
        Ok(targets) if says_the_rest => (targets, None),
        Ok(targets) => (targets.with_default(level), None),
        Err(error) => (Targets::new().with_default(level), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn targets_have_levels_of_their_own_and_the_rest_has_its() {
        let ours = "wgnat::observe";
        for (text, seen, unseen) in [
            ("debug", (ours, Level::DEBUG), (ours, Level::TRACE)),
            (
                "wgnat::observe=trace",
                (ours, Level::TRACE),
                ("hyper", Level::INFO),
            ),
            (
                "wgnat::observe=trace,info",
                ("hyper", Level::INFO),
                ("hyper", Level::DEBUG),
            ),
            ("", ("hyper", Level::WARN), ("hyper", Level::INFO)),
        ] {
            let (targets, unread) = directives(text, LevelFilter::WARN);
            assert_eq!(unread, None, "{text}");
            assert!(targets.would_enable(seen.0, &seen.1), "{text}");
            assert!(!targets.would_enable(unseen.0, &unseen.1), "{text}");
        }
        let (targets, unread) = directives("wgnat=loud", LevelFilter::WARN);
        assert!(unread.is_some());
        assert!(targets.would_enable(ours, &Level::WARN) && !targets.would_enable(ours, &Level::INFO));
    }
}

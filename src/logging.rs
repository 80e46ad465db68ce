//! Logs: to standard error, by level. Nothing is logged per packet above `trace`; keys are never logged.

use tracing::level_filters::LevelFilter;

use crate::cli::{Global, LogFormat};

/// What a command says by default that answers and ends.
pub const WARN: LevelFilter = LevelFilter::WARN;
/// What one says that runs for good.
pub const INFO: LevelFilter = LevelFilter::INFO;

/// Sets logging up for the whole process. `WGNAT_LOG` (as `RUST_LOG` elsewhere) goes before `-v` and `-q`.
pub fn init(global: &Global, default: LevelFilter, format: LogFormat, ansi: bool) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => default,
        (false, 1) => LevelFilter::INFO.max(default),
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var("WGNAT_LOG")
        .from_env_lossy();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(ansi);
    // A second call (in tests) finds it set already; that is fine.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

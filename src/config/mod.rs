//! Settings: defaults with their reasons, and (later) the file and environment that override them.

pub mod defaults;

pub use defaults::Thresholds;

//! Truth tests' own tools: running `wgnat doctor` at the hosts of a lab, and reading its report as an expert would.
//!
//! In: a lab with a real fault. Out: assertions whose failure shows the whole report. Why beside the lab and not in it:
//! the lab knows nothing of findings.

// Every test binary compiles all of it and uses a part.
#![allow(dead_code, unused_imports)]
// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod cases;
pub mod everywhere;
pub mod found;
pub mod look;
pub mod repeat;
pub mod scenario;
pub mod verdict;

pub use everywhere::{Everywhere, Seen};
pub use found::Found;
pub use look::{Look, Running};
pub use repeat::Repeat;
pub use scenario::Scenario;
pub use verdict::Verdict;

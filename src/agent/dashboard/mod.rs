//! The page at `/`: the report as `--format html` writes it, which renews itself whenever the agent has judged again.
//!
//! In: a [`Report`]. Out: one document without external fetches. Its script listens to `/api/v1/events`, asks for the page
//! again and puts the new body in the old one's place; the server adds [`POLICY`] so that it cannot load anything else.

use crate::output::html;
use crate::report::Report;

/// Content-Security-Policy of the page as the server sends it: its own inline style and script, and this server.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The same in the page itself, where `frame-ancestors` has no effect (CSP 3, section 3.3).
const OWN: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

/// The page.
pub fn page(report: &Report) -> String {
    html::page(report, OWN, include_str!("live.js"))
}

//! The page at `/`.
//!
//! One document without external fetches. It reads `/api/v1/report`, `/api/v1/findings`, `/api/v1/series` and listens to
//! `/api/v1/events`; the server adds [`POLICY`] so that it cannot load anything else.

/// Content-Security-Policy of the page: its own inline style and script, and this server.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub const fn page() -> &'static str {
    include_str!("page.html")
}

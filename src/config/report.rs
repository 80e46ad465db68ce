//! `[report]`: what `wgnat report` is told.

use std::path::PathBuf;

use serde::Deserialize;
use ureq::http::Uri;

use super::file::optional_span;
use crate::time::Span;

/// A day: cron's usual step.
pub const SINCE: Span = Span::from_secs(86_400);
/// An agent writes every few seconds; one that is started anew is back within a minute or two. After ten minutes without it
/// nobody can say how things are.
pub const STALE_AFTER: Span = Span::from_secs(600);

/// `[report]` of the file; `None` is "not said".
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportSection {
    /// `since`.
    #[serde(deserialize_with = "optional_span")]
    pub since: Option<Span>,
    /// `stale_after`.
    #[serde(deserialize_with = "optional_span")]
    pub stale_after: Option<Span>,
    /// `state`.
    pub state: Option<PathBuf>,
    /// `webhook`.
    pub webhook: Option<String>,
    /// `webhook_secret_file`.
    pub webhook_secret_file: Option<PathBuf>,
    /// `webhook_ca_file`.
    pub webhook_ca_file: Option<PathBuf>,
}

impl ReportSection {
    /// Refuses values that make no sense, by their key.
    pub fn check(&self) -> Result<(), String> {
        if self.since.is_some_and(|since| since < Span::from_secs(1)) {
            return Err("since: expected 1s at least".to_owned());
        }
        if self.stale_after.is_some_and(|stale| stale < Span::from_secs(60)) {
            return Err("stale_after: expected 1m at least: an agent is not always quick".to_owned());
        }
        match &self.webhook {
            Some(url) => hook(url).map(|_| ()).map_err(|error| format!("webhook: {error}")),
            None => Ok(()),
        }
    }
}

/// What the command line and the environment said.
#[derive(Clone, Debug, Default)]
pub struct ReportFlags {
    /// `--since`.
    pub since: Option<Span>,
    /// `--state`.
    pub state: Option<PathBuf>,
    /// `--webhook`.
    pub webhook: Option<String>,
    /// `--webhook-secret-file`.
    pub webhook_secret_file: Option<PathBuf>,
    /// `--webhook-ca-file`.
    pub webhook_ca_file: Option<PathBuf>,
}

/// What holds.
#[derive(Clone, PartialEq)]
pub struct ReportSettings {
    /// How far back to look in history.
    pub since: Span,
    /// A history that ends longer ago than this says nothing of now.
    pub stale_after: Span,
    /// Where the last report is remembered.
    pub state: Option<PathBuf>,
    /// Where a summary is posted. A secret: whoever knows it may post.
    pub webhook: Option<String>,
    /// The secret to sign it with.
    pub webhook_secret_file: Option<PathBuf>,
    /// The certificates to trust instead of the system's.
    pub webhook_ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for ReportSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReportSettings")
            .field("since", &self.since)
            .field("stale_after", &self.stale_after)
            .field("state", &self.state)
            .field("webhook", &self.webhook.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

impl ReportSettings {
    /// First said wins: flags, then file, then default.
    pub fn build(flags: &ReportFlags, file: ReportSection) -> Self {
        Self {
            since: flags.since.or(file.since).unwrap_or(SINCE),
            stale_after: file.stale_after.unwrap_or(STALE_AFTER),
            state: flags.state.clone().or(file.state),
            webhook: flags.webhook.clone().or(file.webhook),
            webhook_secret_file: flags.webhook_secret_file.clone().or(file.webhook_secret_file),
            webhook_ca_file: flags.webhook_ca_file.clone().or(file.webhook_ca_file),
        }
    }
}

/// The URL of a hook. What is wrong with `text` is said without it: whoever knows the URL may post.
pub fn hook(text: &str) -> Result<Uri, String> {
    let wrong = |what: &str| format!("a webhook is expected as https://HOST/PATH (or http://): {what}");
    let url: Uri = text.parse().map_err(|_| wrong("this is no URL"))?;
    match url.scheme_str() {
        Some("http" | "https") => {}
        Some(_) => return Err(wrong("its scheme is another")),
        None => return Err(wrong("it has no scheme")),
    }
    if url.host().is_none_or(str::is_empty) {
        return Err(wrong("it names no host"));
    }
    if url
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(wrong("it has a user or a password in it, which is not supported"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_not_repeated() {
        for url in [
            "",
            "hooks.slack.com/services/T0/B0/sEcReT",
            "ftp://x/sEcReT",
            "https:///sEcReT",
            "https://user:sEcReT@host/",
            "not a url sEcReT",
        ] {
            let error = hook(url).unwrap_err();
            assert!(
                error.contains("https://HOST/PATH") && !error.contains("sEcReT"),
                "{error}"
            );
        }
        assert!(hook("http://127.0.0.1:9/x").is_ok());
    }

    #[test]
    fn a_hook_does_not_show_when_settings_are_printed() {
        let flags = ReportFlags {
            webhook: Some("https://host/sEcReT".to_owned()),
            ..ReportFlags::default()
        };
        let settings = ReportSettings::build(&flags, ReportSection::default());
        assert!(!format!("{settings:?}").contains("sEcReT"));
    }
}

//! The report to a chat's webhook: over https or http, in a bounded time, tried again where that may help, signed where the
//! receiver shares a secret.
//!
//! A hook's URL is a secret too (whoever knows it may post), so messages name its scheme and host alone. Redirects are not
//! followed: what was signed for one host is not for another.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, anyhow, bail};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio_rustls::rustls::Error as TlsError;
use tokio_rustls::rustls::crypto::ring;
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use zeroize::Zeroizing;

use crate::cmd::input;
use crate::config::ReportSettings;
use crate::config::report::hook;
use crate::observation::path::CertificateVerdict;
use crate::observe::path::certificate_verdict;
use crate::output::slack;
use crate::report::Report;
use crate::sys::{clock, random};
use crate::time::Span;

/// Times that it is tried.
const ATTEMPTS: u32 = 4;
/// How long one attempt may take, name resolution included.
const ATTEMPT: Span = Span::from_secs(10);
/// The pause before the second attempt; it doubles each time, and from a half to all of it is waited.
const PAUSE: Span = Span::from_secs(1);
/// The longest pause, also where the receiver asks for a longer one.
const LONGEST_PAUSE: Span = Span::from_secs(20);
/// The least length of a secret, in bytes: NIST SP 800-107 wants keys of at least 112 bits.
const SECRET_LEAST: usize = 14;
/// The longest.
const SECRET_MOST: usize = 4096;
/// No bundle of certificates is larger; Debian's has some 230 KiB.
const CERTIFICATES: usize = 8 * 1024 * 1024;
/// Where distributions keep the certificates that the system trusts.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A hook, ready to be called.
pub struct Webhook {
    url: Uri,
    secret: Option<Zeroizing<String>>,
    agent: ureq::Agent,
}

/// What came of an attempt.
enum Attempt {
    Taken,
    /// It may work later; how long the receiver asks to wait.
    Later(String, Option<Span>),
    Never(String),
}

impl Webhook {
    /// Reads what it needs; nothing where no hook is named.
    pub fn prepare(settings: &ReportSettings) -> anyhow::Result<Option<Self>> {
        let Some(url) = &settings.webhook else {
            if settings.webhook_secret_file.is_some() {
                bail!("--webhook-secret-file signs for a hook: name it with --webhook URL");
            }
            return Ok(None);
        };
        let url = hook(url).map_err(|error| anyhow!("--webhook: {error}"))?;
        let secret = settings.webhook_secret_file.as_deref().map(secret).transpose()?;
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(ATTEMPT))
            .max_redirects(0)
            .http_status_as_error(false)
            .max_response_header_size(16 * 1024)
            .user_agent(concat!("wgnat/", env!("CARGO_PKG_VERSION")));
        if url.scheme_str() == Some("https") {
            let roots = certificates(settings.webhook_ca_file.as_deref())?;
            let tls = TlsConfig::builder()
                .provider(TlsProvider::Rustls)
                .root_certs(RootCerts::new_with_certs(&roots))
                .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
                .build();
            config = config.tls_config(tls);
        }
        Ok(Some(Self {
            url,
            secret,
            agent: ureq::Agent::new_with_config(config.build()),
        }))
    }

    /// Posts `report`.
    pub fn send(&self, report: &Report) -> anyhow::Result<()> {
        let body = slack::message(report);
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let (why, asked) = match self.try_once(&body) {
                Attempt::Taken => return Ok(()),
                Attempt::Never(why) => return Err(self.failed(&why, attempt)),
                Attempt::Later(why, asked) => (why, asked),
            };
            if attempt == ATTEMPTS {
                return Err(self.failed(&why, attempt));
            }
            tracing::info!("webhook {}: {why}; trying again", self.shown());
            thread::sleep(jittered(asked.unwrap_or(pause).min(LONGEST_PAUSE)));
            pause = (pause * 2).min(LONGEST_PAUSE);
            attempt += 1;
        }
    }

    fn try_once(&self, body: &str) -> Attempt {
        let mut request = self
            .agent
            .post(self.url.clone())
            .header("Content-Type", "application/json");
        if let Some(secret) = &self.secret {
            // Each attempt has its own time: receivers refuse old ones, so that nobody can repeat them.
            let time = clock::now().as_nanos() / 1_000_000_000;
            request = request.header("X-Wgnat-Timestamp", time.to_string()).header(
                "X-Wgnat-Signature",
                signature(secret.as_bytes(), time, body.as_bytes()),
            );
        }
        match request.send(body) {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let header = |name| answer.headers().get(name)?.to_str().ok();
                match status {
                    200..300 => Attempt::Taken,
                    300..400 => Attempt::Never(format!(
                        "it answers {status}, a redirect, which is not followed: name the URL that it leads to"
                    )),
                    408 | 425 | 429 | 500..600 => {
                        let seconds = header("retry-after").and_then(|text| text.trim().parse().ok());
                        Attempt::Later(format!("it answers {status}"), seconds.map(Span::from_secs))
                    }
                    _ => Attempt::Never(format!("it answers {status}")),
                }
            }
            Err(error) => {
                if let Some(why) = untrusted(&error) {
                    return Attempt::Never(why);
                }
                let why = match tls(&error) {
                    Some(TlsError::InvalidMessage(_)) => "it does not speak TLS at this port".to_owned(),
                    _ => without(&error.to_string(), &self.url),
                };
                match error {
                    ureq::Error::Io(_)
                    | ureq::Error::Timeout(_)
                    | ureq::Error::HostNotFound
                    | ureq::Error::ConnectionFailed => Attempt::Later(why, None),
                    ureq::Error::Protocol(_) => Attempt::Later(format!("its answer is no HTTP: {why}"), None),
                    _ => Attempt::Never(why),
                }
            }
        }
    }

    /// Scheme and host: the rest is secret.
    fn shown(&self) -> String {
        shown(&self.url)
    }

    fn failed(&self, why: &str, attempts: u32) -> anyhow::Error {
        let times = if attempts == 1 { "once" } else { "times" };
        let tried = if attempts == 1 {
            times.to_owned()
        } else {
            format!("{attempts} {times}")
        };
        anyhow!("webhook {}: not delivered, tried {tried}: {why}", self.shown())
    }
}

/// What was wrong with TLS, where that is why.
fn tls(error: &ureq::Error) -> Option<&TlsError> {
    match error {
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        ureq::Error::Rustls(error) => Some(error),
        _ => None,
    }
}

/// What is wrong with the receiver's certificate, where that is why: it will be the same a moment later.
fn untrusted(error: &ureq::Error) -> Option<String> {
    let TlsError::InvalidCertificate(error) = tls(error)? else {
        return None;
    };
    Some(match certificate_verdict(error) {
        CertificateVerdict::UnknownIssuer => {
            "its certificate's issuer is not trusted here: if it should be, name a file with the issuer's certificate by \
             --webhook-ca-file"
                .to_owned()
        }
        CertificateVerdict::Expired => {
            "its certificate has expired, or this host's clock is ahead".to_owned()
        }
        CertificateVerdict::NotYetValid => {
            "its certificate is not valid yet, or this host's clock is behind".to_owned()
        }
        CertificateVerdict::OtherName => {
            "its certificate is for another name than the URL's host".to_owned()
        }
        CertificateVerdict::Refused(why) => format!("its certificate is refused: {why}"),
        CertificateVerdict::Trusted | CertificateVerdict::NotJudged(_) => return None,
    })
}

fn shown(url: &Uri) -> String {
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{host}{port}/…", url.scheme_str().unwrap_or_default())
}

/// `text` without what of `url` is secret.
fn without(text: &str, url: &Uri) -> String {
    match url.path_and_query().map(|p| p.as_str()).filter(|p| p.len() > 1) {
        Some(secret) => text.replace(secret, "/…"),
        None => text.to_owned(),
    }
}

/// From a half to all of `pause`, so that many hosts do not come at once.
fn jittered(pause: Span) -> Span {
    let random = random::bytes::<1>().map_or(255, |[byte]| byte);
    pause / 2 + (pause / 2).mul_f32(f32::from(random) / 255.0)
}

fn secret(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let doing = || format!("webhook secret {}", path.display());
    let text = input::text(path, SECRET_MOST + 2).with_context(doing)?;
    let secret = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if secret.len() < SECRET_LEAST {
        bail!(
            "webhook secret {}: it has {} bytes: expected {SECRET_LEAST} at least, for example of `head -c 32 /dev/urandom | base64`",
            path.display(),
            secret.len()
        );
    }
    Ok(secret)
}

/// `v1=` and in hexadecimal HMAC-SHA256 (RFC 2104) over `v1:TIME:BODY`, TIME in seconds since 1970.
fn signature(secret: &[u8], time: i64, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        return String::new();
    };
    mac.update(format!("v1:{time}:").as_bytes());
    mac.update(body);
    let bytes = mac.finalize().into_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

/// The certificates to trust: those of `file`, else of `SSL_CERT_FILE`, else the system's.
fn certificates(file: Option<&Path>) -> anyhow::Result<Vec<Certificate<'static>>> {
    let named = file.map(Path::to_owned).or_else(|| {
        let set = std::env::var_os("SSL_CERT_FILE").filter(|v| !v.is_empty())?;
        Some(set.into())
    });
    let path = match named {
        Some(path) => path,
        None => {
            let found = BUNDLES.iter().map(Path::new).find(|path| path.is_file());
            let found = found.context(
                "this system has no certificates to trust: install ca-certificates, or name a file with --webhook-ca-file",
            )?;
            found.to_owned()
        }
    };
    let doing = || format!("certificates {}", path.display());
    let text = input::text(&path, CERTIFICATES).with_context(doing)?;
    let found: Vec<Certificate<'static>> = parse_pem(text.as_bytes())
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        bail!(
            "certificates {}: there is none in it: expected PEM",
            path.display()
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231 has no such prefix, so this was computed with Python's hmac:
    /// `hmac.new(b"0123456789abcdef", b"v1:1700000000:{}", "sha256").hexdigest()`.
    #[test]
    fn a_signature_is_what_others_compute() {
        assert_eq!(
            signature(b"0123456789abcdef", 1_700_000_000, b"{}"),
            "v1=31ab1a5f612982cbb606c3c6f69fbba87fb23b3157b28a815b8e95ee6561e8c5"
        );
    }

    #[test]
    fn urls_are_never_shown_whole() {
        let url = hook("https://hooks.slack.com:8443/services/sEcReT?x=y").unwrap();
        assert_eq!(shown(&url), "https://hooks.slack.com:8443/…");
        assert_eq!(
            without("cannot reach /services/sEcReT?x=y at all", &url),
            "cannot reach /… at all"
        );
    }

    #[test]
    fn pauses_are_jittered_within_bounds() {
        for _ in 0..100 {
            let pause = jittered(Span::from_secs(8));
            assert!(
                pause >= Span::from_secs(4) && pause <= Span::from_secs(8),
                "{pause:?}"
            );
        }
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "hunter2\n").unwrap();
        let error = format!("{:#}", secret(&path).unwrap_err());
        assert!(error.contains("7 bytes") && !error.contains("hunter2"), "{error}");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        assert_eq!(*secret(&path).unwrap(), "0123456789abcdef");
    }
}

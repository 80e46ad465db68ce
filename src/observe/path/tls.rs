//! TLS for measuring: a handshake with whoever is there, and afterwards what a client would have made of its certificate.
//!
//! Measuring takes any certificate: nothing secret is sent and nothing that comes back is trusted, and a server whose
//! certificate has run out still has a path. What the certificate is worth is judged once a target, after the clock has
//! stopped, with the roots of this host (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded).

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use crate::observation::path::{Certificate, CertificateVerdict};
use crate::sys::clock;
use crate::wire::x509;

/// What the attempts of one batch share. Made when the first of them needs it: most batches have no TLS.
#[derive(Default)]
pub(super) struct Tls {
    connector: OnceCell<Result<TlsConnector, String>>,
    judge: OnceCell<Result<Arc<WebPkiServerVerifier>, String>>,
}

impl Tls {
    /// What makes a handshake, a full one each time.
    pub(super) fn connector(&self) -> Result<&TlsConnector, String> {
        let made = self.connector.get_or_init(|| {
            let provider = Arc::new(ring::default_provider());
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth();
            // A resumed session would measure another, shorter handshake, and show no certificate.
            config.resumption = Resumption::disabled();
            Ok(TlsConnector::from(Arc::new(config)))
        });
        made.as_ref().map_err(Clone::clone)
    }

    /// What a client with this host's roots makes of `chain`, which a server for `name` showed.
    pub(super) fn judge(&self, name: &ServerName<'_>, chain: &[CertificateDer<'_>]) -> Option<Certificate> {
        let (end_entity, intermediates) = chain.split_first()?;
        let (subject, issuer) =
            x509::names(end_entity).unwrap_or_else(|| ("(unreadable)".to_owned(), "(unreadable)".to_owned()));
        let verifier = self.judge.get_or_init(with_roots_of_this_host);
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            u64::try_from(clock::now().as_nanos() / 1_000_000_000).unwrap_or(0),
        ));
        let verdict = match verifier {
            Err(why) => CertificateVerdict::NotJudged(why.clone()),
            Ok(verifier) => verdict(verifier.verify_server_cert(end_entity, intermediates, name, &[], now)),
        };
        Some(Certificate {
            subject,
            issuer,
            not_after: x509::not_after(end_entity),
            verdict,
        })
    }
}

/// As TLS names `host`.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(ServerName::from(address)),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(|e| e.to_string()),
    }
}

/// Why a handshake failed, in words.
pub(super) fn failed(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<TlsError>());
    match inner {
        Some(TlsError::InvalidMessage(_)) => "TLS: what answers does not speak it".to_owned(),
        Some(other) => format!("TLS: {other}"),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "TLS: closed during the handshake".to_owned()
        }
        None => format!("TLS: {error}"),
    }
}

fn with_roots_of_this_host() -> Result<Arc<WebPkiServerVerifier>, String> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        return Err("this host has no root certificates (package ca-certificates)".to_owned());
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .map_err(|e| e.to_string())
}

fn verdict(result: Result<ServerCertVerified, TlsError>) -> CertificateVerdict {
    match result {
        Ok(_) => CertificateVerdict::Trusted,
        Err(TlsError::InvalidCertificate(error)) => certificate_verdict(&error),
        Err(other) => CertificateVerdict::Refused(other.to_string()),
    }
}

/// What is wrong with a certificate that rustls refuses.
pub fn certificate_verdict(error: &CertificateError) -> CertificateVerdict {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateVerdict::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateVerdict::NotYetValid
        }
        CertificateError::UnknownIssuer => CertificateVerdict::UnknownIssuer,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateVerdict::OtherName
        }
        other => CertificateVerdict::Refused(other.to_string()),
    }
}

/// Takes any certificate; see the module.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

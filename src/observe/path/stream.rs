//! TCP connects, TLS handshakes and the first byte of an HTTP answer, each stage timed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};

use super::{Outcome, errors};
use crate::observation::path::{Failure, Stage};
use crate::observation::target::{Method, Target};
use crate::sys::clock;
use crate::time::Span;

/// A status line is shorter.
const STATUS_LINE: usize = 256;

/// One attempt, from the SYN to what the target's method asks for.
pub(super) async fn attempt(target: &Target, address: SocketAddr) -> Outcome {
    let begun = clock::instant();
    let mut stages = Vec::new();
    let mut status = None;
    let result = stages_of(target, address, &mut stages, &mut status)
        .await
        .map(|()| begun.elapsed());
    Outcome {
        result,
        stages,
        status,
    }
}

async fn stages_of(
    target: &Target,
    address: SocketAddr,
    stages: &mut Vec<(Stage, Span)>,
    status: &mut Option<u16>,
) -> Result<(), Failure> {
    let mut stage = clock::instant();
    let mut lap = |name| {
        stages.push((name, stage.elapsed()));
        stage = clock::instant();
    };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| errors::of_errno(&e))?;
    let _ = stream.set_nodelay(true);
    lap(Stage::Connect);
    match &target.method {
        Method::Tls(_) => {
            secure(&target.host, stream).await?;
            lap(Stage::TlsHandshake);
        }
        Method::Http { tls: false, path, .. } => {
            *status = Some(first_byte(stream, &target.host, path).await?);
            lap(Stage::FirstByte);
        }
        Method::Http { tls: true, path, .. } => {
            let stream = secure(&target.host, stream).await?;
            lap(Stage::TlsHandshake);
            *status = Some(first_byte(stream, &target.host, path).await?);
            lap(Stage::FirstByte);
        }
        _ => {}
    }
    Ok(())
}

async fn secure(host: &str, stream: TcpStream) -> Result<impl AsyncRead + AsyncWrite + Unpin, Failure> {
    let name = match host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(|e| Failure::Local(e.to_string()))?,
    };
    let connector = TlsConnector::from(config().map_err(|e| Failure::Local(e.to_string()))?);
    connector
        .connect(name, stream)
        .await
        .map_err(|e| Failure::Cut(format!("TLS: {e}")))
}

/// Asks for the path's head and reads the status line.
async fn first_byte(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> Result<u16, Failure> {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let request = format!(
        "HEAD {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: wgnat/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let cut = |e: std::io::Error| Failure::Cut(e.to_string());
    stream.write_all(request.as_bytes()).await.map_err(cut)?;
    let mut line = Vec::with_capacity(STATUS_LINE);
    while line.len() < STATUS_LINE && !line.contains(&b'\n') {
        if stream.read_buf(&mut line).await.map_err(cut)? == 0 {
            break;
        }
    }
    status(&line).ok_or_else(|| match line.is_empty() {
        true => Failure::Cut("closed without an answer".to_owned()),
        false => Failure::Cut("the answer is not HTTP/1".to_owned()),
    })
}

/// The code of `HTTP/1.1 200 OK` (RFC 9112, section 4).
fn status(line: &[u8]) -> Option<u16> {
    let text = line.get(..12)?;
    let digits = text.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5))?;
    let code: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (100..600).contains(&code).then_some(code)
}

fn config() -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes any certificate. What is measured is time: nothing secret is sent and nothing that comes back is trusted, and a
/// host whose certificate has run out still has a path to be measured.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_and_nothing_else_is_one() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503 x"), Some(503));
        for other in [&b"HTTP/2 200"[..], b"SSH-2.0-OpenSSH", b"HTTP/1.1 9999 x", b""] {
            assert_eq!(status(other), None);
        }
    }
}

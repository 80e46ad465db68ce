//! TCP connects, TLS handshakes and the first byte of an HTTP answer, each stage timed.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::tls::{self, Tls};
use super::{Outcome, errors};
use crate::observation::path::{Failure, Stage};
use crate::observation::target::{Method, Target};
use crate::sys::clock;
use crate::time::Span;

/// A status line is shorter.
const STATUS_LINE: usize = 256;

/// What an attempt has come to so far; it outlives an attempt that runs out of time.
#[derive(Default)]
struct Progress {
    stages: Vec<(Stage, Span)>,
    status: Option<u16>,
    chain: Vec<CertificateDer<'static>>,
}

impl Progress {
    /// What an attempt was waiting for when its time was over.
    fn out_of_time(&self, method: &Method) -> Failure {
        let done = |stage: Stage| self.stages.iter().any(|(s, _)| *s == stage);
        match method {
            _ if !done(Stage::Connect) => Failure::Timeout,
            Method::Tls(_) | Method::Http { tls: true, .. } if !done(Stage::TlsHandshake) => {
                Failure::Silent(Stage::TlsHandshake)
            }
            _ => Failure::Silent(Stage::FirstByte),
        }
    }
}

/// One attempt, from the SYN to what the target's method asks for.
pub(super) async fn attempt(target: &Target, address: SocketAddr, timeout: Span, tls: &Tls) -> Outcome {
    let begun = clock::instant();
    let mut progress = Progress::default();
    let work = stages_of(target, address, tls, &mut progress);
    let result = match tokio::time::timeout(timeout, work).await {
        Ok(result) => result.map(|()| begun.elapsed()),
        Err(_) => Err(progress.out_of_time(&target.method)),
    };
    Outcome {
        result,
        stages: progress.stages,
        status: progress.status,
        chain: progress.chain,
    }
}

async fn stages_of(
    target: &Target,
    address: SocketAddr,
    tls: &Tls,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let mut begun = clock::instant();
    let mut lap = |progress: &mut Progress, stage| {
        progress.stages.push((stage, begun.elapsed()));
        begun = clock::instant();
    };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| errors::of_errno(&e))?;
    let _ = stream.set_nodelay(true);
    lap(progress, Stage::Connect);
    match &target.method {
        Method::Tls(_) => {
            let stream = secure(&target.host, stream, tls).await?;
            lap(progress, Stage::TlsHandshake);
            progress.chain = chain(&stream);
        }
        Method::Http { tls: false, path, .. } => {
            progress.status = Some(first_byte(stream, &target.host, path).await?);
            lap(progress, Stage::FirstByte);
        }
        Method::Http { tls: true, path, .. } => {
            let stream = secure(&target.host, stream, tls).await?;
            lap(progress, Stage::TlsHandshake);
            progress.chain = chain(&stream);
            progress.status = Some(first_byte(stream, &target.host, path).await?);
            lap(progress, Stage::FirstByte);
        }
        _ => {}
    }
    Ok(())
}

async fn secure(host: &str, stream: TcpStream, tls: &Tls) -> Result<TlsStream<TcpStream>, Failure> {
    let name = tls::server_name(host).map_err(Failure::Local)?;
    let connector = tls.connector().map_err(Failure::Local)?;
    let connected = connector.connect(name, stream).await;
    connected.map_err(|e| Failure::Cut(tls::failed(&e)))
}

/// The certificates that the server showed, its own first.
fn chain(stream: &TlsStream<TcpStream>) -> Vec<CertificateDer<'static>> {
    let (_, connection) = stream.get_ref();
    let shown = connection.peer_certificates().unwrap_or_default();
    shown.iter().map(|c| c.clone().into_owned()).collect()
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

    #[test]
    fn what_was_waited_for_is_told() {
        let after = |text: &str, stages: &[Stage]| {
            let progress = Progress {
                stages: stages.iter().map(|s| (*s, Span::ZERO)).collect(),
                ..Progress::default()
            };
            progress.out_of_time(&text.parse::<Target>().unwrap().method)
        };
        let (connect, tls) = (Stage::Connect, Stage::TlsHandshake);
        assert_eq!(after("https://a/", &[]), Failure::Timeout);
        assert_eq!(after("https://a/", &[connect]), Failure::Silent(tls));
        assert_eq!(after("tls:a:443", &[connect]), Failure::Silent(tls));
        assert_eq!(
            after("https://a/", &[connect, tls]),
            Failure::Silent(Stage::FirstByte)
        );
        assert_eq!(after("http://a/", &[connect]), Failure::Silent(Stage::FirstByte));
    }
}

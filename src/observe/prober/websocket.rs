//! A WebSocket in TLS to a Fly gateway, as flyctl opens it: `wss://HOST:443/`, the certificate not verified, WireGuard as a
//! stream in text messages.
//!
//! Each step that fails says how far it came; the certificates and the first bytes of what is not TLS are kept, for what
//! answers in a gateway's place is often a middlebox.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::pipe::{Received, SendError};
use crate::observation::probe::{Certificate, Websocket};
use crate::sys::{clock, random};
use crate::wire::fly_stream::{self, Datagrams};
use crate::wire::websocket::{self, Frames, Opcode};
use crate::wire::x509;

/// The port of `wss` (RFC 6455, section 3).
pub const PORT: u16 = 443;
/// Each step may take this long.
const PATIENCE: Duration = Duration::from_secs(10);
/// First bytes that are kept.
const FIRST: usize = 64;
/// The longest answer to the upgrade.
const HEAD: usize = 16_384;
/// Certificates that are told.
const CERTIFICATES: usize = 8;
/// TLS records that a server can begin with: alert and handshake (RFC 8446, section 5.1).
const TLS_RECORDS: [u8; 2] = [21, 22];

/// The way.
pub struct Ws {
    stream: TlsStream<First>,
    local: Option<SocketAddr>,
    frames: Frames,
    datagrams: Datagrams,
    ready: VecDeque<Vec<u8>>,
    /// To be written with the next datagram.
    owed: Vec<u8>,
    ended: Option<String>,
    told_end: bool,
}

impl Ws {
    /// Opens it to `address`, whose host is `host`. The second value says how far it came.
    pub async fn open(host: &str, address: SocketAddr) -> (Option<Self>, Websocket) {
        let began = clock::instant();
        let mut seen = Websocket::default();
        let opened = Self::steps(host, address, &mut seen).await;
        seen.took_seconds = Some((clock::instant() - began).as_secs_f64());
        match opened {
            Ok(ws) => (Some(ws), seen),
            Err(error) => {
                seen.error = Some(error);
                (None, seen)
            }
        }
    }

    async fn steps(host: &str, address: SocketAddr, seen: &mut Websocket) -> Result<Self, String> {
        let tcp = within("TCP connect", TcpStream::connect(address)).await?;
        seen.tcp = true;
        let local = tcp.local_addr().ok();
        let shown = Arc::new(Shown::default());
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is no host name"))?;
        let first = First {
            tcp,
            bytes: Arc::clone(&shown),
        };
        let connector = TlsConnector::from(Arc::new(config(&shown)?));
        let tls = within("TLS", connector.connect(name, first)).await;
        seen.certificates = shown.certificates();
        if tls.is_err() {
            seen.not_tls = shown.not_tls();
        }
        let mut stream = tls?;
        seen.tls = true;
        within("the WebSocket upgrade", upgrade(&mut stream, host)).await?;
        seen.upgraded = true;
        let mut ws = Self {
            stream,
            local,
            frames: Frames::default(),
            datagrams: Datagrams::default(),
            ready: VecDeque::new(),
            owed: Vec::new(),
            ended: None,
            told_end: false,
        };
        ws.write(&fly_stream::MAGIC).await.map_err(|e| e.to_string())?;
        Ok(ws)
    }

    /// This side's address.
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// The next datagram. Reading is given up without loss: what was read is kept here.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> Received {
        loop {
            if let Some(datagram) = self.ready.pop_front() {
                let len = datagram.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..len), datagram.get(..len)) {
                    to.copy_from_slice(from);
                }
                return Received::Datagram(len);
            }
            if let Some(ended) = &self.ended {
                if !self.told_end {
                    self.told_end = true;
                    return Received::Closed(ended.clone());
                }
                std::future::pending::<()>().await;
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).await {
                Ok(0) => self.ended = Some("the gateway closed the connection".to_owned()),
                Ok(n) => self.take(bytes.get(..n).unwrap_or_default()),
                Err(error) => self.ended = Some(error.to_string()),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
        loop {
            let frame = match self.frames.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return self.ended = Some(error.to_string()),
            };
            match frame.opcode {
                Opcode::Text | Opcode::Binary | Opcode::Continuation => self.datagrams.push(&frame.payload),
                Opcode::Ping => self
                    .owed
                    .extend(websocket::write(Opcode::Pong, &frame.payload, mask())),
                Opcode::Pong => {}
                Opcode::Close => return self.ended = Some("the gateway ended the WebSocket".to_owned()),
            }
        }
        loop {
            match self.datagrams.next_datagram() {
                Ok(Some(datagram)) => self.ready.push_back(datagram),
                Ok(None) => break,
                Err(error) => return self.ended = Some(error.to_string()),
            }
        }
    }

    /// Sends a datagram.
    pub async fn send(&mut self, datagram: &[u8]) -> Result<(), SendError> {
        let stream = fly_stream::write(datagram);
        self.write(&stream).await.map_err(|error| SendError {
            errno: error.raw_os_error().unwrap_or(0),
            error: error.to_string(),
        })
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.owed);
        out.extend(websocket::write(Opcode::Text, bytes, mask()));
        self.stream.write_all(&out).await?;
        self.stream.flush().await
    }
}

fn mask() -> [u8; 4] {
    let key = random::key().unwrap_or_default();
    key.first_chunk::<4>().copied().unwrap_or_default()
}

async fn within<T>(doing: &str, step: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(format!("{doing}: {error}")),
        Err(_) => Err(format!("{doing}: no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Asks for a WebSocket (RFC 6455, section 4.1).
async fn upgrade(stream: &mut TlsStream<First>, host: &str) -> io::Result<()> {
    let nonce = random::key()?;
    let key = BASE64.encode(nonce.first_chunk::<16>().copied().unwrap_or_default());
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}:{PORT}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
         Origin: https://{host}:{PORT}/\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    // A byte at a time from TLS's own buffer: what follows the head is the WebSocket's.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD {
            return Err(io::Error::other(format!("an answer of more than {HEAD} bytes")));
        }
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("101") {
        let shown: String = status.chars().filter(|c| !c.is_control()).take(FIRST).collect();
        return Err(io::Error::other(format!(
            "expected 101 Switching Protocols, got {shown:?}"
        )));
    }
    let accepted = head.lines().any(|line| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("sec-websocket-accept")
                && value.trim() == derive_accept_key(key.as_bytes())
        })
    });
    if !accepted {
        return Err(io::Error::other(
            "the answer does not belong to our request (Sec-WebSocket-Accept)",
        ));
    }
    Ok(())
}

fn config(shown: &Arc<Shown>) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Unverified {
        provider: Arc::clone(&provider),
        shown: Arc::clone(shown),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

/// What the server showed.
#[derive(Debug, Default)]
struct Shown {
    first: Mutex<Vec<u8>>,
    certificates: Mutex<Vec<Certificate>>,
}

impl Shown {
    fn certificates(&self) -> Vec<Certificate> {
        self.certificates.lock().map(|c| c.clone()).unwrap_or_default()
    }

    /// The first bytes, where they are no TLS record.
    fn not_tls(&self) -> Option<String> {
        let first = self.first.lock().ok()?;
        let tls = first.first().is_none_or(|byte| TLS_RECORDS.contains(byte));
        (!tls).then(|| first.escape_ascii().to_string())
    }
}

/// A stream whose first bytes are kept.
struct First {
    tcp: TcpStream,
    bytes: Arc<Shown>,
}

impl AsyncRead for First {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        if let Ok(mut first) = self.bytes.first.lock() {
            let room = FIRST.saturating_sub(first.len());
            let new = buffer.filled().get(before..).unwrap_or_default();
            first.extend(new.iter().take(room));
        }
        polled
    }
}

impl AsyncWrite for First {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Takes any certificate, as flyctl does, and keeps what it says. WireGuard inside authenticates the gateway.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
    shown: Arc<Shown>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let told = |der: &CertificateDer<'_>| {
            let unknown = || ("(not readable)".to_owned(), "(not readable)".to_owned());
            let (subject, issuer) = x509::names(der).unwrap_or_else(unknown);
            let sha256 = Sha256::digest(der).iter().map(|b| format!("{b:02x}")).collect();
            Certificate {
                subject,
                issuer,
                sha256,
            }
        };
        if let Ok(mut certificates) = self.shown.certificates.lock() {
            let chain = std::iter::once(end_entity).chain(intermediates);
            *certificates = chain.take(CERTIFICATES).map(told).collect();
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

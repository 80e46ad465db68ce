//! A gateway as Fly's are: TLS and a WebSocket on TCP port 443 that relays to the WireGuard on the same host.
//!
//! Its framing is its own, not the product's: a shared mistake would hide. The certificate is self-signed, for `gateway.lab`.

use super::Namespace;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// What listens on port 443.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serve443 {
    /// The gateway.
    Gateway,
    /// A proxy that speaks plain HTTP.
    PlainHttp,
    /// TLS, and a web server that refuses the upgrade.
    OtherSite,
}

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct Gateway {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn der(text: &str) -> Vec<u8> {
    let text: String = text.split_whitespace().collect();
    STANDARD.decode(text).expect("base64")
}

fn config() -> Arc<ServerConfig> {
    let certificate = CertificateDer::from(der(include_str!("gateway.crt.b64")));
    let key = PrivateKeyDer::Pkcs8(der(include_str!("gateway.key.b64")).into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS has versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    Arc::new(config)
}

impl Gateway {
    /// Listens on `at` in `ns`, and relays to `wireguard` there.
    #[track_caller]
    pub fn start(ns: &Namespace, at: SocketAddr, wireguard: SocketAddr, serve: Serve443) -> Self {
        let listener = ns.run(|| TcpListener::bind(at)).expect("the port is free");
        listener.set_nonblocking(true).expect("it can be set");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ns, config) = (ns.clone(), config());
        let thread = std::thread::spawn(move || {
            let mut clients = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let udp = ns.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a port is free");
                let (config, stopped) = (Arc::clone(&config), Arc::clone(&stopped));
                clients.push(std::thread::spawn(move || {
                    let _ = client(stream, config, &udp, wireguard, serve, &stopped);
                }));
            }
            for client in clients {
                let _ = client.join();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn client(
    mut tcp: TcpStream,
    config: Arc<ServerConfig>,
    udp: &UdpSocket,
    wireguard: SocketAddr,
    serve: Serve443,
    stopped: &AtomicBool,
) -> io::Result<()> {
    tcp.set_nonblocking(false)?;
    tcp.set_read_timeout(Some(Duration::from_secs(5)))?;
    if serve == Serve443::PlainHttp {
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\nServer: office-proxy\r\n\r\n")?;
        // What the client said must be read, or the reset overtakes the answer.
        let _ = tcp.read(&mut [0; 4096]);
        return Ok(());
    }
    let mut tls = StreamOwned::new(ServerConnection::new(config).map_err(io::Error::other)?, tcp);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tls.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if serve == Serve443::OtherSite {
        return tls.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    }
    let key = head
        .lines()
        .find_map(|l| l.strip_prefix("Sec-WebSocket-Key: "))
        .ok_or_else(|| io::Error::other("no key"))?;
    assert!(
        head.contains("\r\nOrigin: "),
        "flyctl's library always says whence it comes"
    );
    let accept = derive_accept_key(key.trim().as_bytes());
    tls.write_all(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .as_bytes(),
    )?;
    relay(tls, udp, wireguard, stopped)
}

/// Carries datagrams until the client goes. It polls: TLS has one end for both directions.
fn relay(mut tls: Tls, udp: &UdpSocket, wireguard: SocketAddr, stopped: &AtomicBool) -> io::Result<()> {
    tls.sock.set_read_timeout(Some(Duration::from_millis(3)))?;
    udp.set_nonblocking(true)?;
    let (mut frames, mut stream) = (Vec::new(), Vec::new());
    let mut greeted = false;
    while !stopped.load(Ordering::Relaxed) {
        let mut bytes = [0; 4096];
        match tls.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(n) => frames.extend_from_slice(&bytes[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
        while let Some((payload, used)) = unmasked(&frames) {
            frames.drain(..used);
            stream.extend(payload);
        }
        if !greeted && stream.len() >= 4 {
            assert_eq!(
                stream[..4],
                [0x2f, 0xac, 0xed, 0x77],
                "flyctl's magic comes first"
            );
            stream.drain(..4);
            greeted = true;
        }
        while greeted && stream.len() >= 4 {
            let len = u32::from_be_bytes([stream[0], stream[1], stream[2], stream[3]]) as usize;
            if stream.len() < 4 + len {
                break;
            }
            if len > 0 {
                udp.send_to(&stream[4..4 + len], wireguard)?;
            }
            stream.drain(..4 + len);
        }
        let mut datagram = [0; 2048];
        while let Ok((len, _)) = udp.recv_from(&mut datagram) {
            let prefix = u32::try_from(len).expect("short").to_be_bytes();
            // In two text frames, as a stream may be cut anywhere.
            for part in [&[&prefix[..], &datagram[..10]].concat()[..], &datagram[10..len]] {
                let mut frame = vec![0x81];
                if part.len() < 126 {
                    frame.push(u8::try_from(part.len()).expect("short"));
                } else {
                    frame.push(126);
                    frame.extend(u16::try_from(part.len()).expect("short").to_be_bytes());
                }
                frame.extend_from_slice(part);
                tls.write_all(&frame)?;
            }
        }
    }
    Ok(())
}

/// A client's frame: its payload without the mask, and its length in all.
fn unmasked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let short = usize::from(bytes.get(1)? & 0x7f);
    assert!(bytes[1] & 0x80 != 0, "a client masks");
    let (len, at) = match short {
        126 => (
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
            4,
        ),
        127 => return None,
        short => (short, 2),
    };
    let mask = bytes.get(at..at + 4)?;
    let payload = bytes.get(at + 4..at + 4 + len)?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m);
    Some((payload.collect(), at + 4 + len))
}

//! Round trips by datagram: to a UDP port, and DNS questions.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::errors;
use crate::observation::path::Failure;
use crate::sys::{clock, random};
use crate::time::Span;
use crate::wire::dns::{self, Kind};

/// A STUN Binding request (RFC 8489, section 5) before its transaction id: STUN servers answer it, echo services return it,
/// and a closed port refuses it like anything else.
const BINDING_REQUEST: [u8; 8] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];

/// What a DNS server may answer over UDP without EDNS, and more.
const ANSWER: usize = 4096;

async fn socket(address: SocketAddr) -> Result<UdpSocket, Failure> {
    let any: SocketAddr = if address.is_ipv6() {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    };
    let made = async {
        let socket = UdpSocket::bind(any).await?;
        errors::ask_for(&socket, address.is_ipv6())?;
        socket.connect(address).await?;
        Ok(socket)
    };
    made.await.map_err(|e: std::io::Error| errors::of_errno(&e))
}

/// One datagram to `address` and whatever it answers. A port unreachable of its own is a refusal: it, too, came back.
pub(super) async fn round_trip(address: SocketAddr) -> Result<Span, Failure> {
    let socket = socket(address).await?;
    let id: [u8; 12] = random::bytes().map_err(|e| Failure::Local(e.to_string()))?;
    let request = [&BINDING_REQUEST[..], &id[..]].concat();
    let begun = clock::instant();
    let mut answer = [0_u8; 64];
    let exchanged = async {
        socket.send(&request).await?;
        socket.recv(&mut answer).await
    };
    match exchanged.await {
        Ok(_) => Ok(begun.elapsed()),
        Err(e) => Err(errors::failure(&socket, &e, address.ip())),
    }
}

/// One question for `name` to the server at `address`. Names of Fly's private network have IPv6 addresses only.
pub(super) async fn question(address: SocketAddr, name: &str) -> Result<Span, Failure> {
    let kind = if name.ends_with(".internal") {
        Kind::Aaaa
    } else {
        Kind::A
    };
    let (answer, took) = ask(address, name, kind).await?;
    if answer.useful {
        Ok(took)
    } else {
        Err(Failure::Dns(answer.code))
    }
}

/// One question and its answer. Datagrams that do not answer it are passed over.
pub(super) async fn ask(address: SocketAddr, name: &str, kind: Kind) -> Result<(dns::Answer, Span), Failure> {
    let id: [u8; 2] = random::bytes().map_err(|e| Failure::Local(e.to_string()))?;
    let question =
        dns::question(u16::from_be_bytes(id), name, kind).map_err(|e| Failure::Local(e.to_string()))?;
    let socket = socket(address).await?;
    let begun = clock::instant();
    let mut buffer = vec![0_u8; ANSWER];
    let failure = |e: std::io::Error| errors::failure(&socket, &e, address.ip());
    socket.send(&question).await.map_err(failure)?;
    loop {
        let n = socket.recv(&mut buffer).await.map_err(failure)?;
        let Some(answer) = dns::answer(&question, buffer.get(..n).unwrap_or_default()) else {
            continue;
        };
        let took = begun.elapsed();
        if !answer.truncated {
            return Ok((answer, took));
        }
        // RFC 7766, section 5: what was cut is to be had over TCP. Without it the part that came is better than nothing.
        let whole = over_tcp(address, &question).await.ok().flatten();
        return Ok((whole.unwrap_or(answer), took));
    }
}

/// The same question over TCP, where each message has its length before it (RFC 1035, section 4.2.2).
async fn over_tcp(address: SocketAddr, question: &[u8]) -> std::io::Result<Option<dns::Answer>> {
    let mut stream = TcpStream::connect(address).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], question].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut message = vec![0_u8; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(dns::answer(question, &message))
}

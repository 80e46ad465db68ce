//! A DNS server that is right, slow, wrong or silent.

use super::Namespace;
use super::udp::readable_before;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What it answers to every question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsReply {
    /// This address for A, no record for other types; after this delay.
    Address(Ipv4Addr, Duration),
    /// SERVFAIL.
    ServFail,
    /// NXDOMAIN.
    NxDomain,
    /// Nothing.
    Silence,
}

/// The server, on UDP port 53; it ends with the handle.
#[derive(Debug)]
pub struct DnsServer {
    questions: Arc<AtomicU64>,
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl DnsServer {
    /// Starts it in `ns`. Its clients need [`Namespace::set_resolv_conf`].
    #[track_caller]
    pub fn start(ns: &Namespace, at: std::net::IpAddr, reply: DnsReply) -> Self {
        let at = SocketAddr::new(at, 53);
        let socket = ns
            .run(|| UdpSocket::bind(at))
            .unwrap_or_else(|e| panic!("cannot bind UDP {at}: {e}"));
        let (stopped, stop) = io::pipe().expect("a pipe can be made");
        let questions = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&questions);
        let thread = std::thread::spawn(move || serve(&Arc::new(socket), &stopped, reply, &theirs));
        Self {
            questions,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Questions so far.
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::Relaxed)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &Arc<UdpSocket>, stopped: &io::PipeReader, reply: DnsReply, questions: &AtomicU64) {
    let mut buffer = [0; 1500];
    while readable_before(socket, stopped) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        questions.fetch_add(1, Ordering::Relaxed);
        let Some(answer) = answer(&buffer[..length], reply) else {
            continue;
        };
        let DnsReply::Address(_, delay) = reply else {
            let _ = socket.send_to(&answer, from);
            continue;
        };
        // Each answer has its own delay: a slow server still takes many questions at once.
        let socket = Arc::clone(socket);
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            let _ = socket.send_to(&answer, from);
        });
    }
}

/// The answer to a query with one question (RFC 1035, section 4.1).
fn answer(query: &[u8], reply: DnsReply) -> Option<Vec<u8>> {
    let name_length = query.get(12..)?.iter().position(|b| *b == 0)? + 1;
    let end = 12 + name_length + 4;
    let kind = query.get(12 + name_length..12 + name_length + 2)?;
    let mut out = query.get(..end)?.to_vec();
    let (code, address) = match reply {
        DnsReply::Silence => return None,
        DnsReply::ServFail => (2, None),
        DnsReply::NxDomain => (3, None),
        DnsReply::Address(address, _) => (0, Some(address).filter(|_| kind == [0, 1])),
    };
    // QR, the query's opcode and RD; RA and the code; one question, no authority, nothing additional.
    out[2] |= 0x80;
    out[3] = 0x80 | code;
    out[4..12].copy_from_slice(&[0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    if let Some(address) = address {
        // A pointer to the question's name; A, IN, a minute, four bytes.
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        out.extend(address.octets());
    }
    Some(out)
}

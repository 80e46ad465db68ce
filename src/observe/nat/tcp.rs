//! STUN over TCP: shows that a server is there and that TCP gets through where UDP does not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::probe::natdisc::transaction::{Ask, request};
use crate::sys::{clock, random};
use crate::time::Span;
use crate::wire::stun::{self, Class, HEADER, LARGEST, Message, TransactionId};

/// From the first SYN to the answer, at most: a second SYN goes out after one second.
const PATIENCE: Span = Span::from_millis(3200);

/// The time from the first SYN to the answer.
pub fn ask(server: SocketAddr) -> Result<Span, String> {
    let started = clock::instant();
    let left = || {
        PATIENCE
            .checked_sub(clock::instant() - started)
            .filter(|l| !l.is_zero())
    };
    let late = || format!("no answer within {:.1} s", PATIENCE.as_secs_f64());
    let io = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => late(),
        _ => e.to_string(),
    };
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).map_err(io)?;
    let mut random = [0; 12];
    random.copy_from_slice(&random::key().map_err(io)?[..12]);
    let id = TransactionId::new(random);
    stream
        .set_write_timeout(Some(left().ok_or_else(late)?))
        .map_err(io)?;
    stream
        .write_all(&request(id, server, Ask::default()))
        .map_err(io)?;
    let mut bytes = [0; LARGEST];
    let (mut have, mut want) = (0, HEADER);
    while have < want {
        // The limit is for all of it: a server that sends a byte at a time must not hold us.
        stream
            .set_read_timeout(Some(left().ok_or_else(late)?))
            .map_err(io)?;
        let room = bytes.get_mut(have..want).unwrap_or_default();
        match stream.read(room).map_err(io)? {
            0 => return Err("the server closed the connection without an answer".to_owned()),
            n => have += n,
        }
        if have == HEADER && want == HEADER {
            want = bytes
                .first_chunk()
                .and_then(stun::length)
                .filter(|w| *w <= LARGEST)
                .ok_or("the answer is no STUN message")?;
        }
    }
    let message = Message::parse(bytes.get(..want).unwrap_or_default())
        .map_err(|e| format!("the answer is no STUN message: {e}"))?;
    if message.id != id || message.class != Class::Success || message.mapped().is_none() {
        return Err("the answer is not one to the question".to_owned());
    }
    Ok(clock::instant() - started)
}

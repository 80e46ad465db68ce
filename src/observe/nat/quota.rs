//! Opens many flows to a reflector of ours, at a bounded rate, and keeps them open.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::driver::open;
use crate::observation::nat::{QuotaFacts, ServerFacts};
use crate::probe::natdisc::transaction::{Ask, request};
use crate::probe::quota::{Seen, confirm, doubtful, judge, reached};
use crate::probe::reflector::SOFTWARE_PREFIX;
use crate::sys::{clock, random};
use crate::time::Span;
use crate::wire::stun::{Class, LARGEST, Message, TransactionId};

/// The most flows that may be asked for: each is a descriptor.
pub const MOST: u32 = 4096;
/// Flows opened at once, and the pause after them: 100 a second.
const BATCH: usize = 10;
const PAUSE: Span = Span::from_millis(100);
/// Flows to the server's other address.
const ELSEWHERE: usize = 8;
/// A flow is asked for again after this, once, and given up after twice that.
const REPEAT: Span = Span::from_millis(700);
/// Before the slow flows, so that a limit on new flows has room again…
const QUIET: Span = Span::from_millis(1000);
/// …how many they are…
const FEW: usize = 4;
/// …and the time between two: fewer than two a second, which any limit in use lets through.
const FEW_PACE: Span = Span::from_millis(600);
/// Between two tries while waiting for room.
const HOLD_STEP: Span = Span::from_secs(2);

struct Flow {
    socket: UdpSocket,
    id: TransactionId,
    sent: Instant,
    sends: u8,
    seen: Seen,
    done: bool,
}

/// Measures with up to `flows` flows to `server`, which has to be `wgnat reflect`; waits up to `hold` for room after a quota.
pub fn measure(server: &ServerFacts, flows: u32, hold: Option<Span>) -> io::Result<QuotaFacts> {
    let ours = server
        .software
        .as_deref()
        .is_some_and(|s| s.starts_with(SOFTWARE_PREFIX));
    if !ours {
        let says = server.software.as_deref().unwrap_or("nothing");
        return Err(io::Error::other(format!(
            "--port-quota opens many flows, so it asks `wgnat reflect` only; {} calls itself {says:?}",
            server.name
        )));
    }
    let mut all = Vec::new();
    let wanted = usize::try_from(flows.min(MOST)).unwrap_or(0);
    while all.len() < wanted && !reached(&ended(&all)) {
        let batch = BATCH.min(wanted - all.len());
        begin(&mut all, server.address, batch)?;
        receive(&mut all, PAUSE)?;
    }
    settle(&mut all)?;
    let mut there = Vec::new();
    if let Some(other) = server.other {
        begin(&mut there, other, ELSEWHERE)?;
        settle(&mut there)?;
    }
    let mut facts = judge(&seen(&all), &seen(&there));
    if doubtful(&facts) {
        facts = confirm(facts, &slowly(server.address)?);
    }
    if let (Some(_), Some(limit)) = (facts.quota, hold) {
        facts.hold_seconds = wait_for_room(server.address, limit)?;
    }
    Ok(facts)
}

/// A few new flows, at a pace that a limit on new flows bears, while the others are still there.
fn slowly(server: SocketAddr) -> io::Result<Vec<Seen>> {
    let mut few = Vec::new();
    // With none it waits the whole time.
    receive(&mut few, QUIET)?;
    for _ in 0..FEW {
        begin(&mut few, server, 1)?;
        receive(&mut few, FEW_PACE)?;
    }
    settle(&mut few)?;
    Ok(seen(&few))
}

/// Tries a new flow each two seconds until one is answered; the old ones are silent meanwhile.
fn wait_for_room(server: SocketAddr, limit: Span) -> io::Result<Option<f64>> {
    let started = clock::instant();
    while clock::instant() - started < limit {
        let mut one = Vec::new();
        begin(&mut one, server, 1)?;
        receive(&mut one, HOLD_STEP)?;
        if one.iter().any(|f| f.seen.is_some()) {
            return Ok(Some((clock::instant() - started).as_secs_f64()));
        }
    }
    Ok(None)
}

fn begin(flows: &mut Vec<Flow>, server: SocketAddr, count: usize) -> io::Result<()> {
    for _ in 0..count {
        let socket = open(server)?;
        let mut bytes = [0; 12];
        bytes.copy_from_slice(&random::key()?[..12]);
        let id = TransactionId::new(bytes);
        // Connected, so that only the server's answers arrive.
        socket.connect(server)?;
        let _ = socket.send(&request(id, server, Ask::default()));
        flows.push(Flow {
            socket,
            id,
            sent: clock::instant(),
            sends: 1,
            seen: None,
            done: false,
        });
    }
    Ok(())
}

/// What is known of those that have ended, in the order in which they were begun.
fn ended(flows: &[Flow]) -> Vec<Seen> {
    flows.iter().take_while(|f| f.done).map(|f| f.seen).collect()
}

fn seen(flows: &[Flow]) -> Vec<Seen> {
    flows.iter().map(|f| f.seen).collect()
}

/// Waits until every flow is answered or given up.
fn settle(flows: &mut [Flow]) -> io::Result<()> {
    while flows.iter().any(|f| !f.done) {
        receive(flows, PAUSE)?;
    }
    Ok(())
}

/// Takes answers for so long, and repeats and gives up what is due.
fn receive(flows: &mut [Flow], time: Span) -> io::Result<()> {
    let until = clock::instant() + time;
    loop {
        let left = until.saturating_duration_since(clock::instant());
        if left.is_zero() {
            break;
        }
        let mut open: Vec<&mut Flow> = flows.iter_mut().filter(|f| !f.done).collect();
        let mut fds: Vec<PollFd<'_>> = open
            .iter()
            .map(|f| PollFd::new(f.socket.as_fd(), PollFlags::POLLIN))
            .collect();
        let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(0) => break,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        drop(fds);
        for flow in &mut open {
            take(flow);
        }
    }
    let now = clock::instant();
    for flow in flows.iter_mut().filter(|f| !f.done) {
        if now - flow.sent >= REPEAT * 2 {
            flow.done = true;
        } else if now - flow.sent >= REPEAT && flow.sends == 1 {
            flow.sends = 2;
            if let Ok(server) = flow.socket.peer_addr() {
                let _ = flow.socket.send(&request(flow.id, server, Ask::default()));
            }
        }
    }
    Ok(())
}

fn take(flow: &mut Flow) {
    let mut bytes = [0; LARGEST];
    while let Ok(length) = flow.socket.recv(&mut bytes) {
        let message = Message::parse(bytes.get(..length).unwrap_or_default());
        if let Ok(m) = message
            && m.id == flow.id
            && m.class == Class::Success
        {
            flow.seen = m.mapped();
            flow.done = true;
        }
    }
}

//! One peer, from its first initiation to its last question.

use std::net::SocketAddr;

use super::pipe::{Pipe, Received};
use super::udp::Udp;
use super::websocket::{self, Ws};
use super::{Job, Shared, inside};
use crate::observation::probe::{Attempt, Fact, Outcome, Target, Transport, Websocket};
use crate::probe::handshake::{Event, HandshakeProbe};
use crate::probe::link::Link;
use crate::time::Timestamp;
use crate::wire::tai64n::Tai64n;

/// The longest datagram.
const DATAGRAM: usize = 65_536;

/// Probes one peer. `after` is the last timestamp that its key was used with; the result is the newest.
pub async fn run(number: u32, job: Job, shared: &Shared, after: Option<Tai64n>) -> Option<Tai64n> {
    shared
        .tell(number, Fact::Target(Box::new(job.target.clone())))
        .await;
    let identity = match job.identity {
        Ok(identity) => identity,
        Err(skipped) => {
            shared.tell(number, Fact::Skipped(skipped)).await;
            return after;
        }
    };
    // One without an address is skipped before.
    let address = job.target.address?;
    // Closed only with the run.
    let _permit = shared.sockets.acquire().await.ok()?;
    let Some(mut pipe) = open(number, &job.target, &job.host, address, shared).await else {
        return after;
    };
    let probe = HandshakeProbe::new(identity, job.plan, job.seed, shared.clock.now()).after(after);
    let (probe, began) = handshakes(number, probe, &mut pipe, address, shared).await;
    let (identity, entropy, session, last_stamp) = probe.into_session();
    let Some(session) = session.filter(|_| !job.inner.is_empty() && !*shared.stopped.borrow()) else {
        return last_stamp;
    };
    let mut link = Link::new(identity, entropy, session, last_stamp, began);
    inside::run(number, &job.target, &job.inner, &mut link, &mut pipe, shared).await;
    link.last_stamp()
}

async fn open(
    number: u32,
    target: &Target,
    host: &str,
    address: SocketAddr,
    shared: &Shared,
) -> Option<Pipe> {
    match target.transport {
        Transport::Udp => match Udp::connect(address) {
            Ok(udp) => Some(Pipe::Udp(udp)),
            Err(error) => {
                let attempt = Attempt {
                    number: 1,
                    sent_at: shared.clock.now(),
                    local: None,
                    with_cookie: false,
                    outcome: Outcome::NotSent {
                        errno: error.raw_os_error().unwrap_or(0),
                        error: error.to_string(),
                    },
                };
                shared.tell(number, Fact::Attempt(attempt)).await;
                None
            }
        },
        Transport::Websocket => {
            let (ws, seen) = Ws::open(host, SocketAddr::new(address.ip(), websocket::PORT)).await;
            shared.tell(number, Fact::Websocket(seen)).await;
            ws.map(|ws| Pipe::Websocket(Box::new(ws)))
        }
    }
}

/// What a WebSocket is that was open and then closed.
fn closed(error: String) -> Websocket {
    Websocket {
        tcp: true,
        tls: true,
        upgraded: true,
        error: Some(error),
        ..Websocket::default()
    }
}

/// Runs the handshakes; returns the machine when it is done, and when its newest session began.
async fn handshakes(
    number: u32,
    mut probe: HandshakeProbe,
    pipe: &mut Pipe,
    address: SocketAddr,
    shared: &Shared,
) -> (HandshakeProbe, Timestamp) {
    let mut buffer = vec![0; DATAGRAM];
    let local = pipe.local();
    let mut began = shared.clock.now();
    loop {
        if let Some(wish) = probe.wants_turn().filter(|wish| *wish <= shared.clock.now()) {
            let turn = shared
                .pacing
                .borrow_mut()
                .turn(address.ip(), wish.max(shared.clock.now()));
            probe.grant(turn);
        }
        tokio::select! {
            received = pipe.receive(&mut buffer) => match received {
                Received::Datagram(len) => {
                    probe.handle_input(shared.clock.now(), buffer.get(..len).unwrap_or_default());
                }
                Received::Icmp(seen) => probe.handle_icmp(shared.clock.now(), &seen),
                Received::TooBig { .. } => {}
                Received::Closed(error) => {
                    let seen = closed(error);
                    shared.tell(number, Fact::Websocket(seen)).await;
                }
            },
            () = shared.clock.sleep_until(probe.poll_timeout()) => probe.handle_timeout(shared.clock.now()),
        }
        while let Some(datagram) = probe.poll_transmit() {
            let sent = shared.clock.now();
            match pipe.send(&datagram).await {
                // A response to a peer that called back is shorter, and no attempt.
                Ok(()) if datagram.first() == Some(&1) => probe.handle_sent(sent),
                Ok(()) => {}
                Err(refused) => probe.handle_send_error(shared.clock.now(), refused.errno, refused.error),
            }
        }
        while let Some(event) = probe.poll_event() {
            match event {
                Event::Attempt(attempt) => {
                    if matches!(attempt.outcome, Outcome::Cookie { .. }) {
                        shared.pacing.borrow_mut().under_load(address.ip());
                    }
                    if matches!(
                        attempt.outcome,
                        Outcome::Answered { .. } | Outcome::CalledBack { .. }
                    ) {
                        began = shared.clock.now();
                    }
                    let attempt = Attempt { local, ..attempt };
                    shared.tell(number, Fact::Attempt(attempt)).await;
                }
                Event::Stray(stray) => shared.tell(number, Fact::Stray(stray)).await,
                Event::Done => return (probe, began),
            }
        }
        if *shared.stopped.borrow() {
            return (probe, began);
        }
    }
}

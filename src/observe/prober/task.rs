//! One peer, from its first initiation to its last question.

use std::net::SocketAddr;
use std::rc::Rc;

use super::pipe::{Pipe, Received};
use super::udp::Udp;
use super::{Job, Shared, inside};
use crate::observation::probe::{Attempt, Fact, Outcome, Skipped, Transport};
use crate::probe::handshake::{Event, HandshakeProbe};
use crate::probe::link::Link;
use crate::time::Timestamp;

/// The longest datagram.
const DATAGRAM: usize = 65_536;

/// Probes one peer.
pub async fn run(number: u32, job: Job, shared: Rc<Shared>) {
    shared
        .tell(number, Fact::Target(Box::new(job.target.clone())))
        .await;
    let skip = |reason: &str| {
        Fact::Skipped(Skipped {
            reason: reason.to_owned(),
            way_round: None,
            refused: false,
        })
    };
    let identity = match job.identity {
        Ok(identity) => identity,
        Err(skipped) => return shared.tell(number, Fact::Skipped(skipped)).await,
    };
    let Some(address) = job.target.address else {
        return shared.tell(number, skip("no address is known for it")).await;
    };
    // Closed only with the run.
    let Ok(_permit) = shared.sockets.acquire().await else {
        return;
    };
    let Some(mut pipe) = open(number, job.target.transport, address, &shared).await else {
        return;
    };
    let probe = HandshakeProbe::new(identity, job.plan, job.seed, shared.clock.now());
    let (probe, began) = handshakes(number, probe, &mut pipe, address, &shared).await;
    if job.inner.is_empty() || *shared.stopped.borrow() {
        return;
    }
    let (identity, entropy, session, last_stamp) = probe.into_session();
    if let Some(session) = session {
        let link = Link::new(identity, entropy, session, last_stamp, began);
        inside::run(number, &job.target, &job.inner, link, &mut pipe, &shared).await;
    }
}

async fn open(number: u32, transport: Transport, address: SocketAddr, shared: &Shared) -> Option<Pipe> {
    match transport {
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
        Transport::Websocket => None,
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

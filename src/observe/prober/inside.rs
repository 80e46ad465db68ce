//! Questions through the tunnel, one after the other.

use std::net::IpAddr;

use super::pipe::{Pipe, Received};
use super::{InnerPlan, Shared};
use crate::observation::probe::{Fact, Inner, InnerKind, Target, ToldMtu};
use crate::probe::Inside;
use crate::probe::ask::{Ask, Question};
use crate::probe::lifetime::LifetimeSearch;
use crate::probe::link::Link;
use crate::probe::mtu::MtuProbe;
use crate::sys::random;
use crate::time::Span;

/// The longest datagram.
const DATAGRAM: usize = 65_536;
/// WireGuard's own bytes around an inner packet, and UDP's (WireGuard paper, section 5.4.6; RFC 768).
const WIREGUARD: u32 = 32 + 8;
/// What WireGuard's devices have unless told otherwise: larger packets the tunnel does not send.
const DEFAULT_MTU: u32 = 1420;
/// Keys that are younger than this outlive the longest silence that is tried, and 180 s they live.
const RENEW_BEFORE_SILENCE: Span = Span::from_secs(55);
/// An echo of the MTU search is waited for so long: what is lost is lost, and there are several tries.
const ECHO_PATIENCE: Span = Span::from_millis(1000);

/// Asks all of `plan`.
pub async fn run(
    number: u32,
    target: &Target,
    plan: &InnerPlan,
    link: &mut Link,
    pipe: &mut Pipe,
    shared: &Shared,
) {
    for question in &plan.questions {
        let Some(source) = source_for(&plan.sources, question.to()) else {
            shared.tell(number, Fact::Inner(unasked(question))).await;
            continue;
        };
        let ask = Ask::new(question.clone(), source, seed(), plan.timeout, shared.clock.now());
        carry(number, ask, link, pipe, shared).await;
    }
    mtu(number, target, plan, link, pipe, shared).await;
    if let Some(to) = plan.lifetime.filter(|_| pipe.is_datagrams())
        && let Some(source) = source_for(&plan.sources, to.ip())
    {
        let search = LifetimeSearch::new(source, to, seed(), shared.clock.now());
        carry(number, search, link, pipe, shared).await;
    }
}

async fn mtu(
    number: u32,
    target: &Target,
    plan: &InnerPlan,
    link: &mut Link,
    pipe: &mut Pipe,
    shared: &Shared,
) {
    let Some(to) = plan.mtu.filter(|_| pipe.is_datagrams()) else {
        return;
    };
    let Some(source) = source_for(&plan.sources, to) else {
        return;
    };
    let ip = if target.address.is_some_and(|a| a.is_ipv6()) {
        40
    } else {
        20
    };
    let overhead = WIREGUARD + ip;
    let ceiling = target.mtu.unwrap_or(DEFAULT_MTU).clamp(576, 9000);
    pipe.never_fragment();
    let patience = plan.timeout.min(ECHO_PATIENCE);
    let probe = MtuProbe::new(
        source,
        to,
        (ceiling, overhead),
        seed(),
        patience,
        shared.clock.now(),
    );
    carry(number, probe, link, pipe, shared).await;
}

fn source_for(sources: &[IpAddr], to: IpAddr) -> Option<IpAddr> {
    sources.iter().copied().find(|s| s.is_ipv4() == to.is_ipv4())
}

fn seed() -> u64 {
    let bytes = random::key().unwrap_or_default();
    bytes.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b))
}

fn unasked(question: &Question) -> Inner {
    let (kind, target) = match question {
        Question::Ping { to, .. } => (InnerKind::Ping, to.to_string()),
        Question::Dns { name, server } => (InnerKind::Dns, format!("{name}@{server}")),
        Question::Tcp { to } => (InnerKind::Tcp, to.to_string()),
    };
    Inner {
        kind,
        target,
        sent: 0,
        answered: 0,
        rtts: Vec::new(),
        answer: None,
        error: Some("not asked: no address of this side in the tunnel is known of that family".to_owned()),
    }
}

/// Carries packets between a machine and the peer until the machine has said what came of it.
async fn carry(number: u32, mut machine: impl Inside, link: &mut Link, pipe: &mut Pipe, shared: &Shared) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let now = shared.clock.now();
        while let Some(inner) = machine.poll_transmit() {
            if inner.is_empty() {
                // Before a silence: the keys must outlive it (REJECT_AFTER_TIME).
                link.renew(now, RENEW_BEFORE_SILENCE);
            }
            link.send(now, &inner);
        }
        while let Some(datagram) = link.poll_transmit() {
            // What is too large for the interface is told by the error queue.
            let _ = pipe.send(&datagram).await;
        }
        if let Some(fact) = machine.poll_event() {
            return shared.tell(number, fact).await;
        }
        if *shared.stopped.borrow() {
            return;
        }
        tokio::select! {
            received = pipe.receive(&mut buffer) => match received {
                Received::Datagram(len) => {
                    link.handle_input(shared.clock.now(), buffer.get(..len).unwrap_or_default());
                    while let Some(inner) = link.poll_inner() {
                        machine.handle_input(shared.clock.now(), inner);
                    }
                }
                Received::TooBig { mtu, from } => machine.handle_too_big(shared.clock.now(), ToldMtu { mtu, from }),
                Received::Icmp(_) | Received::Closed(_) => {}
            },
            () = shared.clock.sleep_until(machine.poll_timeout(now)) => machine.handle_timeout(shared.clock.now()),
        }
    }
}

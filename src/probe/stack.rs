//! A small IP stack (smoltcp) inside the tunnel, so that no device is needed.
//!
//! In: inner packets, the time. Out: inner packets. Its sockets are the questions' ([`super::ask`]).

use std::collections::VecDeque;
use std::net::IpAddr;

use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::time::Timestamp;

/// Packets that wait in either direction; later ones are dropped.
const QUEUE: usize = 64;
/// What the stack may send in one packet: more than any tunnel's path carries.
pub const MTU: usize = 9200;

/// The stack.
pub struct Stack {
    pub(super) interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    queues: Queues,
}

/// Packets in and out.
#[derive(Default)]
struct Queues {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

/// smoltcp's clock counts microseconds from any moment.
pub fn instant(at: Timestamp) -> Instant {
    Instant::from_micros(at.as_nanos() / 1000)
}

impl Stack {
    /// One with the address `source`. `seed` makes its ports and sequence numbers unlike others.
    pub fn new(source: IpAddr, seed: u64, now: Timestamp) -> Self {
        let mut queues = Queues::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queues, instant(now));
        let prefix = if source.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|addresses| {
            // The list holds two; this is the first.
            let _ = addresses.push(IpCidr::new(source.into(), prefix));
        });
        // Everything goes into the tunnel; the gateway is never spoken to.
        match source {
            IpAddr::V4(v4) => drop(interface.routes_mut().add_default_ipv4_route(v4)),
            IpAddr::V6(v6) => drop(interface.routes_mut().add_default_ipv6_route(v6)),
        }
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            queues,
        }
    }

    /// Takes an inner packet in.
    pub fn handle_input(&mut self, now: Timestamp, inner: Vec<u8>) {
        if self.queues.received.len() < QUEUE {
            self.queues.received.push_back(inner);
        }
        self.handle_timeout(now);
    }

    /// Lets the sockets send what they want to.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        // Each round takes packets from bounded queues, so this ends.
        for _ in 0..QUEUE {
            let done = self
                .interface
                .poll(instant(now), &mut self.queues, &mut self.sockets);
            if done == PollResult::None && self.queues.received.is_empty() {
                break;
            }
        }
    }

    /// The next inner packet to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.queues.sent.pop_front()
    }

    /// When the stack wants to be called.
    pub fn poll_timeout(&mut self, now: Timestamp) -> Option<Timestamp> {
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        Some(Timestamp::from_nanos(at.total_micros().saturating_mul(1000)).max(now))
    }
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        (self.sent.len() < QUEUE).then_some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        if self.0.len() < QUEUE {
            self.0.push_back(packet);
        }
        result
    }
}

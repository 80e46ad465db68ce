//! The way of handshake messages from the tap to the observer of keys: bounded, and never in the tap's way.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::observation::Body;
use crate::observation::packet::{Direction, WirePacket};
use crate::time::Timestamp;
use crate::wire::wireguard::{INITIATION_LEN, RESPONSE_LEN};

/// Messages that wait; what finds no place is counted.
const QUEUE: usize = 1024;

/// A handshake message that came in.
pub struct Incoming {
    /// When.
    pub at: Timestamp,
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// An initiation or a response, whole.
    pub payload: Vec<u8>,
}

struct Shared {
    wake: EventFd,
    /// The observer has been woken and has not looked yet.
    woken: AtomicBool,
    dropped: AtomicU64,
}

/// The tap's end.
#[derive(Clone)]
pub struct Outbox {
    queue: SyncSender<Incoming>,
    shared: Arc<Shared>,
}

/// The observer's end. A clone takes from the same queue: an observer that is started anew goes on where its predecessor
/// ended.
#[derive(Clone)]
pub struct Inbox {
    queue: Arc<Mutex<Receiver<Incoming>>>,
    shared: Arc<Shared>,
}

/// Both ends.
pub fn channel() -> Result<(Outbox, Inbox), Errno> {
    let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let shared = Arc::new(Shared {
        wake,
        woken: AtomicBool::new(false),
        dropped: AtomicU64::new(0),
    });
    let (sender, receiver) = sync_channel(QUEUE);
    let outbox = Outbox {
        queue: sender,
        shared: Arc::clone(&shared),
    };
    let inbox = Inbox {
        queue: Arc::new(Mutex::new(receiver)),
        shared,
    };
    Ok((outbox, inbox))
}

impl Outbox {
    /// Passes on what keys may open: initiations and responses that came in.
    pub fn offer(&self, at: Timestamp, body: &Body) {
        let Body::Packet(packet) = body else { return };
        if packet.direction != Direction::In || !is_keyed(packet) {
            return;
        }
        let incoming = Incoming {
            at,
            source: packet.source,
            destination: packet.destination,
            payload: packet.payload.0.clone(),
        };
        if self.queue.try_send(incoming).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        } else if !self.shared.woken.swap(true, Ordering::AcqRel) {
            let _ = self.shared.wake.write(1);
        }
    }
}

/// Whether a message is one whose first MAC names a receiver, and whole.
fn is_keyed(packet: &WirePacket) -> bool {
    let payload = &packet.payload.0;
    match payload.first() {
        Some(1) => payload.len() == INITIATION_LEN,
        Some(2) => payload.len() == RESPONSE_LEN,
        _ => false,
    }
}

impl Inbox {
    /// The messages that wait, and how many found no place in all.
    pub fn take(&self) -> (Vec<Incoming>, u64) {
        let _ = self.shared.wake.read();
        self.shared.woken.store(false, Ordering::Release);
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = queue.try_iter().take(QUEUE).collect();
        (waiting, self.shared.dropped.load(Ordering::Relaxed))
    }

    /// Readable when messages wait.
    pub fn wakeup(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }
}

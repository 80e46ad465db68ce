//! A sample of data messages, with a bound on what it may cost.
//!
//! In: a second packet socket with `data_filter`. Out: their clear headers, and how coarse the sample is. Two bounds:
//! the receive buffer holds some hundred packets and is emptied at each look, so beyond a few thousand a second the
//! kernel throws away the rest before it copies anything; and the sample becomes coarser, by a quarter each time, when
//! more came than `WANTED`. A data flood costs nothing but the filter; handshakes have a socket of their own.

use std::os::fd::{AsFd, BorrowedFd};

use super::data_filter::{COARSEST, program};
use crate::sys::packet::{PacketError, PacketSocket, Received};
use crate::time::Span;

/// Kernel memory for samples that wait: some two hundred large frames (a frame of 1500 bytes takes about 2.3 KiB).
const RECEIVE_BUFFER: usize = 512 * 1024;
/// Samples a second that are enough for every rule. More make the sample coarser.
const WANTED: f64 = 400.0;
/// Fewer than this part of [`WANTED`] make it finer again: a step is four times as many.
const FINER_BELOW: f64 = 1.0 / 16.0;
/// A rate is judged over at least this long. The receive buffer bounds what comes meanwhile.
const JUDGED_OVER: Span = Span::from_millis(500);
/// A step: the sample becomes four times as coarse or as fine.
const STEP: u32 = 2;

/// The socket and how coarse its sample is.
pub struct Sampler {
    socket: PacketSocket,
    power: u32,
    /// The coarsest that it ever was.
    coarsest: u32,
    /// What came since the rate was last judged, and for how long.
    taken: u64,
    time: Span,
    listens: bool,
}

impl Sampler {
    /// Opens it in the calling thread's network namespace.
    pub fn open() -> Result<Self, PacketError> {
        let filter = program(0).unwrap_or_default();
        Ok(Self {
            socket: PacketSocket::open(&filter, RECEIVE_BUFFER)?,
            power: 0,
            coarsest: 0,
            taken: 0,
            time: Span::ZERO,
            listens: true,
        })
    }

    /// Listens for data, or leaves the host's packets alone.
    pub fn listen(&mut self, on: bool) -> std::io::Result<()> {
        if self.listens != on {
            self.socket.listen(on)?;
            self.listens = on;
        }
        Ok(())
    }

    /// The next sample that waits.
    pub fn receive(&mut self) -> std::io::Result<Option<Received<'_>>> {
        self.socket.receive()
    }

    /// Samples that found the buffer full, since the start.
    pub fn lost(&mut self) -> std::io::Result<u64> {
        Ok(self.socket.counts()?.dropped)
    }

    /// One message in so many was taken, at the coarsest.
    pub fn one_in(&self) -> u32 {
        1 << self.coarsest
    }

    /// Makes the sample coarser or finer, after `taken` came in `time`.
    pub fn adapt(&mut self, taken: u64, time: Span) {
        self.taken += taken;
        self.time += time;
        // A look that a handshake woke may be a moment after the one before: no rate comes of that.
        if self.time < JUDGED_OVER {
            return;
        }
        let next = adapted(self.power, self.taken, self.time);
        (self.taken, self.time) = (0, Span::ZERO);
        if next == self.power {
            return;
        }
        // A filter of the same shape as the one that was taken before; were it refused, that one stays.
        if let Ok(filter) = program(next)
            && self.socket.set_filter(&filter).is_ok()
        {
            self.power = next;
            self.coarsest = self.coarsest.max(next);
        }
    }
}

impl AsFd for Sampler {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// How coarse to sample next.
#[allow(clippy::cast_precision_loss)] // a rate
fn adapted(power: u32, taken: u64, time: Span) -> u32 {
    if time.is_zero() {
        return power;
    }
    let rate = taken as f64 / time.as_secs_f64();
    match rate {
        rate if rate > WANTED => (power + STEP).min(COARSEST),
        rate if rate < WANTED * FINER_BELOW => power.saturating_sub(STEP),
        _ => power,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_it_coarse_and_quiet_makes_it_fine() {
        let second = Span::from_secs(1);
        for (power, taken, expected) in [
            (0, 400, 0),
            (0, 401, 2),
            (2, 1_000_000, 4),
            (COARSEST, 1_000_000, COARSEST),
            (4, 25, 4),
            (4, 24, 2),
            (0, 0, 0),
        ] {
            assert_eq!(adapted(power, taken, second), expected, "{power} {taken}");
        }
        assert_eq!(adapted(2, 9, Span::ZERO), 2);
        // Neither step undoes the other: between them lies a rate that is left alone.
        assert!(WANTED / f64::from(1 << STEP) > WANTED * FINER_BELOW);
    }
}

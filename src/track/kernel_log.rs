//! The reasons that the kernel's WireGuard gave in its log, counted.
//!
//! In: [`KernelLine`]s. Out: how often a device gave a reason about an address. Bounded; what does not fit is counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::observation::device::{KernelLine, KernelReason};

/// Reasons that are kept, each of one device about one address.
const KEPT: usize = 1024;

/// State.
#[derive(Debug, Default)]
pub struct KernelLog {
    counts: BTreeMap<(String, KernelReason, Option<SocketAddr>), u64>,
    /// Lines that found no place.
    pub dropped: u64,
}

impl KernelLog {
    /// Takes a line in.
    pub fn apply(&mut self, line: &KernelLine) {
        let key = (line.device.clone(), line.reason, line.endpoint);
        if self.counts.len() >= KEPT && !self.counts.contains_key(&key) {
            self.dropped += 1;
            return;
        }
        *self.counts.entry(key).or_default() += 1;
    }

    /// How often `device` gave `reason` about `endpoint` while watched; `None` for never, since silence may as well be debug
    /// lines that are off.
    pub fn count(&self, device: &str, reason: KernelReason, endpoint: SocketAddr) -> Option<u64> {
        self.counts
            .get(&(device.to_owned(), reason, Some(endpoint)))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_by_reason_and_bounded() {
        let mut log = KernelLog::default();
        let line = |port| KernelLine {
            device: "wg0".to_owned(),
            reason: KernelReason::InvalidResponse,
            endpoint: Some(([192, 0, 2, 1], port).into()),
        };
        for _ in 0..3 {
            log.apply(&line(1));
        }
        let count = |device: &str, reason| log.count(device, reason, ([192, 0, 2, 1], 1).into());
        assert_eq!(count("wg0", KernelReason::InvalidResponse), Some(3));
        assert_eq!(count("wg0", KernelReason::InvalidMac), None);
        assert_eq!(count("wg1", KernelReason::InvalidResponse), None);
        (0..2000).for_each(|port| log.apply(&line(port)));
        assert!(log.counts.len() <= KEPT && log.dropped > 0);
    }
}

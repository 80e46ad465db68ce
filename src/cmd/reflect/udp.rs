//! The UDP side: read, answer, next.

use std::sync::atomic::Ordering;

use super::Shared;
use super::metrics::Counters;
use super::sites::Site;
use crate::probe::reflector::{self, Ignored, LONGEST, Reply, Slot, Transport};
use crate::sys::clock;

/// Serves one socket until told to stop.
pub(super) fn serve(site: &Site, slot: Slot, shared: &Shared) {
    let Some(socket) = site.udp(slot) else {
        return;
    };
    let by = if shared.short {
        Transport::UdpInFull
    } else {
        Transport::Udp
    };
    let mut request = [0; 2048];
    let mut out = [0; LONGEST];
    while !shared.stop.load(Ordering::Relaxed) {
        // The time-out is for looking at `stop`; errors of earlier answers (ICMP) are nobody's business.
        let Ok((length, from)) = socket.recv_from(&mut request) else {
            continue;
        };
        let counters = &shared.counters;
        Counters::add(&counters.udp_requests, 1);
        Counters::add(&counters.bytes_in, length as u64);
        let now = u64::try_from(clock::monotonic().as_nanos()).unwrap_or(u64::MAX);
        if !shared.limiter.allows(from.ip(), now) {
            Counters::add(&counters.limited, 1);
            continue;
        }
        let request = request.get(..length).unwrap_or_default();
        match reflector::answer(&site.grid, slot, from, by, request, &mut out) {
            Reply::Send {
                via,
                to,
                length,
                error,
            } => {
                let sent = site
                    .udp(via)
                    .zip(out.get(..length))
                    .and_then(|(socket, bytes)| socket.send_to(bytes, to).ok());
                match sent {
                    Some(n) => {
                        Counters::add(&counters.bytes_out, n as u64);
                        Counters::add(
                            if error {
                                &counters.refused
                            } else {
                                &counters.answered
                            },
                            1,
                        );
                    }
                    None => Counters::add(&counters.failed, 1),
                }
            }
            Reply::Ignore(Ignored::TooShort) => Counters::add(&counters.too_short, 1),
            Reply::Ignore(Ignored::NotARequest | Ignored::NoPort) => Counters::add(&counters.not_requests, 1),
        }
    }
}

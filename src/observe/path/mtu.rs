//! Drives the search for the largest packet with ICMP echoes that must not be fragmented.

use std::net::IpAddr;

use super::echo::EchoSocket;
use super::errors;
use crate::observation::path::{Failure, PathMtu};
use crate::probe::size_search::SizeSearch;
use crate::sys::pmtu;
use crate::time::Span;

/// What a problem of the search begins with.
pub(super) const PROBLEM: &str = "path MTU: ";

/// Without options.
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;

/// Every IPv6 path carries this (RFC 8200, section 5).
const IPV6_FLOOR: u32 = 1280;
/// Every IPv4 host takes this (RFC 791); paths that do not carry it are not in use.
const IPV4_FLOOR: u32 = 576;

/// A loss is held to be one after this many of the round trips that small packets took…
const PATIENCE: u32 = 4;
/// …and not before this.
const LEAST_WAIT: Span = Span::from_millis(150);

/// Searches the path to `target`.
pub(super) async fn search(target: IpAddr, timeout: Span) -> Result<PathMtu, String> {
    let socket = EchoSocket::open(target).map_err(|e| told(&e))?;
    let v6 = socket.is_v6();
    let interface = pmtu::known_mtu(socket.inner(), v6).map_err(|e| e.to_string())?;
    pmtu::probe_only(socket.inner(), v6).map_err(|e| e.to_string())?;
    let (header, floor) = if v6 {
        (IPV6_HEADER, IPV6_FLOOR)
    } else {
        (IPV4_HEADER, IPV4_FLOOR)
    };
    let mut search = SizeSearch::new(floor, interface);
    let mut wait = timeout;
    let mut sequence = 0_u16;
    while let Some(size) = search.next() {
        sequence = sequence.wrapping_add(1);
        let length = usize::try_from(size.saturating_sub(header)).unwrap_or_default();
        match tokio::time::timeout(wait, socket.exchange(sequence, length)).await {
            Ok(Ok(rtt)) => {
                wait = (rtt * PATIENCE).clamp(LEAST_WAIT.min(timeout), timeout);
                search.passed(size);
            }
            Ok(Err(error)) => match errors::next(socket.inner()) {
                Some(queued) if queued.errno == libc::EMSGSIZE => search.too_big(size, queued.mtu),
                None if error.raw_os_error() == Some(libc::EMSGSIZE) => search.too_big(size, 0),
                _ => search.lost(size),
            },
            Err(_) => search.lost(size),
        }
    }
    match search.largest() {
        Some(passed) => Ok(PathMtu {
            interface,
            passed,
            lost: search.smallest_lost(),
            told: search.told(),
        }),
        None if search.fell_silent() => Err("it answered echoes first, and then none of any size".to_owned()),
        None => Err("it answers no ICMP echo, by which sizes are tried".to_owned()),
    }
}

fn told(failure: &Failure) -> String {
    match failure {
        Failure::Local(why) => why.clone(),
        other => format!("{other:?}"),
    }
}

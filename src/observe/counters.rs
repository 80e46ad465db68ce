//! Protocol counters of the observed network namespace, from `/proc/thread-self/net`.
//!
//! Needs: nothing. Costs: three small files a look, about 0.1 ms. The thread's own directory is read, for `/proc/net`
//! is the main thread's and a thread may have entered another namespace.

use std::collections::BTreeMap;

use super::{Emit, ObserveError, Observer};
use crate::observation::host;
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::time::Span;
use crate::wire::proc_net;

/// Groups that say nothing about this tool's subject and would only make recordings larger.
const UNUSED: [&str; 4] = ["MPTcpExt.", "UdpLite.", "UdpLite6.", "IcmpMsg."];

/// Reads one kind of file into the counters; returns how many did not fit.
type Parse = fn(&str, &mut BTreeMap<String, u64>) -> u64;

const FILES: [(&str, Parse); 3] = [
    ("/proc/thread-self/net/snmp", proc_net::parse_pairs),
    ("/proc/thread-self/net/netstat", proc_net::parse_pairs),
    // Absent where IPv6 is off: then there is nothing to count.
    ("/proc/thread-self/net/snmp6", proc_net::parse_lines),
];

/// The observer.
pub struct Counters(());

impl Counters {
    /// For the calling thread's network namespace.
    pub fn open() -> Result<Self, ObserveError> {
        Ok(Self(()))
    }
}

impl Observer for Counters {
    fn source(&self) -> Source {
        Source::Counters
    }

    fn interval(&self) -> Span {
        Span::from_secs(1)
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let (at, began) = (clock::now(), clock::instant());
        let mut counters = BTreeMap::new();
        let mut left_out = 0;
        for (path, parse) in FILES {
            match std::fs::read_to_string(path) {
                Ok(text) => left_out += parse(&text, &mut counters),
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    let doing = format!("reading {path}");
                    return Err(ObserveError::System { doing, source });
                }
            }
        }
        if counters.is_empty() {
            let what =
                "no protocol counters: /proc/thread-self/net is not there (is /proc mounted?)".to_owned();
            return Err(ObserveError::Absent { what });
        }
        counters.retain(|name, _| !UNUSED.iter().any(|group| name.starts_with(group)));
        emit.emit(at, began.elapsed(), Body::Counters(host::Counters(counters)));
        Ok(match left_out {
            0 => SourceStatus::ok(),
            n => SourceStatus::degraded(format!("{n} counters beyond the first 2,048 were left out")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};

    use super::*;
    use crate::observe::testing::{in_own_netns, ip, look};

    fn counters() -> BTreeMap<String, u64> {
        let (bodies, status) = look(&mut Counters::open().unwrap());
        assert_eq!(status.unwrap(), SourceStatus::ok());
        match bodies.as_slice() {
            [Body::Counters(counters)] => counters.0.clone(),
            other => panic!("one set of counters, got {other:?}"),
        }
    }

    #[test]
    fn they_are_those_of_the_thread_s_own_namespace() {
        in_own_netns(|| {
            let before = counters();
            assert_eq!(before.get("Udp.NoPorts"), Some(&0));
            assert!(before.contains_key("TcpExt.TCPSynRetrans") && before.contains_key("Ip6.OutNoRoutes"));
            assert!(!before.keys().any(|name| name.starts_with("MPTcpExt")));
            ip("link set lo up");
            let socket = UdpSocket::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0)).unwrap();
            for _ in 0..3 {
                let _ = socket.send_to(b"x", "127.0.0.1:9");
            }
            assert_eq!(counters().get("Udp.NoPorts"), Some(&3));
        });
    }
}

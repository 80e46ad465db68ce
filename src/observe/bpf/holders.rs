//! Who holds a local port that a process was denied: looked up in the socket table right after, once for each denial.
//!
//! The kernel denies a `bind` to a port that any other socket has without SO_REUSEADDR on both: a listener's, as everybody
//! expects, or that of a connection which this host itself opened from there.

use std::collections::BTreeMap;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::observation::connect::{Denial, PortHolder};
use crate::observe::sockets::DUMPS;
use crate::sys::netlink::{DUMP, Netlink, NetlinkError};
use crate::time::{Span, Timestamp};
use crate::types::Proto;
use crate::wire::netlink::sock_diag::{BY_FAMILY, Socket, socket};

/// Limit of each wait for the kernel.
const ANSWER_WITHIN: Span = Span::from_secs(2);

/// What was looked up, by transport and port.
#[derive(Default)]
pub struct Holders {
    known: BTreeMap<(Proto, u16), (Timestamp, Option<PortHolder>)>,
}

impl Holders {
    /// Fills in the holders of the denied ports; where the table cannot be read they stay unknown.
    pub fn fill(&mut self, denials: &mut [Denial]) {
        let asked = |d: &Denial| d.port.map(|port| (d.proto, port));
        let current: Vec<(Proto, u16)> = denials.iter().filter_map(asked).collect();
        self.known.retain(|key, _| current.contains(key));
        let mut wanted: BTreeMap<(Proto, u16), Option<PortHolder>> = BTreeMap::new();
        for denial in denials.iter() {
            let Some(key) = asked(denial) else { continue };
            if self.known.get(&key).is_none_or(|(at, _)| *at < denial.last) {
                wanted.insert(key, None);
            }
        }
        if !wanted.is_empty() && look_up(&mut wanted).is_ok() {
            for (key, holder) in wanted {
                let at = denials
                    .iter()
                    .filter(|d| asked(d) == Some(key))
                    .map(|d| d.last)
                    .max();
                self.known.insert(key, (at.unwrap_or_default(), holder));
            }
        }
        for denial in denials {
            let key = asked(denial);
            let known = key.and_then(|key| self.known.get(&key));
            denial.holder = known.and_then(|(_, holder)| holder.clone());
        }
    }
}

fn look_up(wanted: &mut BTreeMap<(Proto, u16), Option<PortHolder>>) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open(NETLINK_SOCK_DIAG, "sock_diag", ANSWER_WITHIN)?;
    for dump in &DUMPS {
        if !wanted.keys().any(|(proto, _)| *proto == dump.proto) {
            continue;
        }
        let add = |_, payload: &[u8]| {
            let Some(found) = socket(payload) else { return };
            if let Some(holder) = wanted.get_mut(&(dump.proto, found.source_port)) {
                prefer(holder, &found);
            }
        };
        match netlink.request(BY_FAMILY, DUMP, &dump.payload(), add) {
            // No handler: no IPv6 in this kernel, say.
            Ok(_) | Err(NetlinkError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A listener explains the denial whatever else uses its port; connections that it accepted are its own.
fn prefer(holder: &mut Option<PortHolder>, found: &Socket) {
    let listens = found.destination_port == 0;
    if holder
        .as_ref()
        .is_some_and(|held| held.destination.is_none() || !listens)
    {
        return;
    }
    *holder = Some(PortHolder {
        source: found.source.ip(),
        destination: (!listens).then(|| (found.destination.ip(), found.destination_port).into()),
        inode: found.inode,
    });
}

//! The kernel's WireGuard devices, by generic netlink.
//!
//! Needs: CAP_NET_ADMIN over the observed namespace. Costs: one short dump of interfaces and one dump per device each
//! half second. Never makes the kernel load its WireGuard module: the family is looked for in the list of all. Private
//! keys that the kernel sends along go into the vault and nowhere else; the buffers are wiped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use libc::{ENODEV, EOPNOTSUPP};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};

use super::keys::vault::{BoxedKey, Vault};
use super::{Emit, ObserveError, Observer};
use crate::observation::device::DeviceSnapshot;
use crate::observation::host::Link;
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::sys::netlink::{DUMP, DumpEnd, Netlink, NetlinkError, REQUEST};
use crate::time::Span;
use crate::wire::netlink::{genl_wg, route};

/// A device whose peers change during each of this many dumps is taken as it is.
const TRIES: u32 = 3;
/// Devices looked at.
const MAX_DEVICES: usize = 1024;
/// How often an absent module is looked for again.
const FAMILY_INTERVAL: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(2);

/// The observer.
pub struct WgNetlink {
    generic: Netlink,
    links: Netlink,
    family: Option<u16>,
    family_sought: Option<Instant>,
    vault: Arc<Vault>,
}

impl WgNetlink {
    /// For the calling thread's network namespace.
    pub fn open(vault: Arc<Vault>) -> Result<Self, ObserveError> {
        Ok(Self {
            generic: Netlink::open(NETLINK_GENERIC, "generic", LIMIT)?,
            links: Netlink::open(NETLINK_ROUTE, "route", LIMIT)?,
            family: None,
            family_sought: None,
            vault,
        })
    }

    /// The family's number; looked for again from time to time while it is absent.
    fn family(&mut self, now: Instant, urgent: bool) -> Result<Option<u16>, NetlinkError> {
        let recent = self
            .family_sought
            .is_some_and(|then| now.saturating_duration_since(then) < FAMILY_INTERVAL);
        if self.family.is_some() || (recent && !urgent) {
            return Ok(self.family);
        }
        self.family_sought = Some(now);
        let (generic, request) = (&mut self.generic, genl_wg::families_request());
        let mut found = None;
        generic.request(genl_wg::CONTROL_FAMILY, REQUEST | DUMP, &request, |_, body| {
            found = found.or(genl_wg::parse_family(body, genl_wg::FAMILY));
        })?;
        self.family = found;
        Ok(found)
    }

    fn wireguard_links(&mut self) -> Result<(Vec<Link>, u64), NetlinkError> {
        let (mut links, mut left_out) = (Vec::new(), 0);
        let request = route::links_request(Some("wireguard"));
        self.links
            .request(route::GET_LINK, REQUEST | DUMP, &request, |kind, body| {
                let link = route::parse_link(body).filter(|l| l.kind.as_deref() == Some("wireguard"));
                match link {
                    Some(link) if kind == route::NEW_LINK && links.len() < MAX_DEVICES => links.push(link),
                    Some(_) => left_out += 1,
                    None => {}
                }
            })?;
        Ok((links, left_out))
    }
}

impl Observer for WgNetlink {
    fn source(&self) -> Source {
        Source::WireguardNetlink
    }

    fn interval(&self) -> Span {
        Span::from_millis(500)
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let (at, began) = (clock::now(), clock::instant());
        let (links, left_out) = self.wireguard_links()?;
        let Some(family) = self.family(began, !links.is_empty())? else {
            // Known for sure, so this is an answer: there are none.
            self.vault.deposit(Source::WireguardNetlink, &[], []);
            emit.emit(at, clock::instant() - began, Body::Devices(Vec::new()));
            return Ok(SourceStatus {
                reason: Some(
                    "this kernel's WireGuard is not loaded, so there are no kernel devices".to_owned(),
                ),
                ..SourceStatus::ok()
            });
        };
        let mut devices = Vec::new();
        let mut keys = Vec::new();
        let generic = &mut self.generic;
        for link in &links {
            let request = genl_wg::device_request(link.index);
            let device = read_device(link, &mut keys, |each| {
                generic.request(family, REQUEST | DUMP, &request, |_, body| each(body))
            });
            // Wiped whether or not it went well.
            generic.wipe();
            if device.is_err() {
                // The module may have been loaded anew, and then has another number.
                (self.family, self.family_sought) = (None, None);
            }
            devices.extend(device?);
        }
        self.vault.deposit(Source::WireguardNetlink, &devices, keys);
        emit.emit(at, began.elapsed(), Body::Devices(devices));
        Ok(match left_out {
            0 => SourceStatus::ok(),
            n => SourceStatus::degraded(format!("{n} devices beyond the first 1,024 were left out")),
        })
    }
}

/// Dumps one device, again where its peers changed meanwhile. `None` where it vanished.
fn read_device(
    link: &Link,
    keys: &mut Vec<BoxedKey>,
    mut dump: impl FnMut(&mut dyn FnMut(&[u8])) -> Result<DumpEnd, NetlinkError>,
) -> Result<Option<DeviceSnapshot>, ObserveError> {
    let mut tries = 1;
    loop {
        let mut reader = genl_wg::DeviceReader::new(&link.name, link.index);
        let inexact = match dump(&mut |body| reader.message(body)) {
            Ok(end) => end.interrupted,
            Err(NetlinkError::Overrun { .. }) => true,
            Err(error) if error.is_denied() => {
                return Err(ObserveError::Denied {
                    doing: "reading the kernel's WireGuard devices",
                    needs: "CAP_NET_ADMIN",
                });
            }
            // The device is gone, or another now has its index. (ENOENT would be the family's: genl_rcv_msg in
            // net/netlink/genetlink.c.)
            Err(error) if matches!(error.errno(), Some(ENODEV | EOPNOTSUPP)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        keys.extend(reader.take_private_key());
        let device = reader.finish();
        if !inexact {
            return Ok(device);
        }
        if tries == TRIES {
            let note = "its peers changed while they were read: some may be missing or doubled";
            return Ok(device.map(|mut device| {
                device.problems.push(note.to_owned());
                device
            }));
        }
        tracing::debug!(
            "the peers of {} changed while they were read: reading again",
            link.name
        );
        tries += 1;
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_generic::GenlMessage;
    use netlink_packet_wireguard::{WireguardAttribute, WireguardCmd, WireguardMessage};

    use super::*;
    use crate::observation::SourceState;
    use crate::observation::host::LinkStats;
    use crate::observe::testing::{in_own_netns, look};
    use crate::types::IfIndex;

    fn link() -> Link {
        Link {
            index: IfIndex(7),
            name: "wg0".to_owned(),
            kind: Some("wireguard".to_owned()),
            admin_up: true,
            carrier: true,
            loopback: false,
            mtu: 1420,
            stats: LinkStats::default(),
        }
    }

    fn message(port: u16) -> Vec<u8> {
        let message = GenlMessage::from_payload(WireguardMessage {
            cmd: WireguardCmd::GetDevice,
            attributes: vec![
                WireguardAttribute::IfIndex(7),
                WireguardAttribute::ListenPort(port),
            ],
        });
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn refused(errno: i32) -> NetlinkError {
        NetlinkError::Refused { what: "test", errno }
    }

    /// A dump that goes as `ends` say, one a try; each try tells its number as the port.
    fn read(ends: Vec<Result<bool, NetlinkError>>) -> (Result<Option<DeviceSnapshot>, ObserveError>, u16) {
        let (mut ends, mut tries) = (ends.into_iter(), 0);
        let device = read_device(&link(), &mut Vec::new(), |each| {
            tries += 1;
            let interrupted = ends.next().expect("no more tries than expected")?;
            each(&message(tries));
            Ok(DumpEnd {
                interrupted,
                ..DumpEnd::default()
            })
        });
        (device, tries)
    }

    #[test]
    fn an_interrupted_dump_is_repeated_and_then_taken_as_it_is() {
        let (device, tries) = read(vec![Ok(true), Ok(false)]);
        let device = device.unwrap().unwrap();
        assert_eq!((tries, device.listen_port), (2, Some(2)));
        assert!(device.problems.is_empty());
        let (device, tries) = read(vec![
            Ok(true),
            Err(NetlinkError::Overrun { what: "test" }),
            Ok(true),
        ]);
        assert_eq!(tries, 3);
        assert_eq!(device.unwrap().unwrap().problems.len(), 1);
    }

    #[test]
    fn a_device_that_vanishes_is_no_error_and_a_refusal_is_one() {
        for errno in [ENODEV, EOPNOTSUPP] {
            assert!(matches!(read(vec![Err(refused(errno))]).0, Ok(None)));
        }
        // No such family: the module was loaded anew. Taken for a device that vanished, every device would be gone for good.
        assert!(read(vec![Err(refused(libc::ENOENT))]).0.is_err());
        let denied = read(vec![Err(refused(libc::EPERM))]).0.unwrap_err();
        assert_eq!(
            denied.to_string(),
            "reading the kernel's WireGuard devices: not permitted; needs CAP_NET_ADMIN"
        );
        assert!(read(vec![Err(refused(libc::EINVAL))]).0.is_err());
    }

    #[test]
    fn an_empty_namespace() {
        in_own_netns(|| {
            let mut observer = WgNetlink::open(Arc::default()).unwrap();
            let (bodies, status) = look(&mut observer);
            let status = status.unwrap();
            assert_eq!(bodies, [Body::Devices(vec![])]);
            assert_eq!(status.state, SourceState::Ok);
            let says_so = status.reason.is_some_and(|r| r.contains("is not loaded"));
            assert_eq!(says_so, observer.family.is_none());
        });
    }

    #[test]
    fn families_of_this_kernel_are_found() {
        in_own_netns(|| {
            let mut observer = WgNetlink::open(Arc::default()).unwrap();
            let request = genl_wg::families_request();
            let mut control = None;
            let each = |_, body: &[u8]| control = control.or(genl_wg::parse_family(body, "nlctrl"));
            observer
                .generic
                .request(genl_wg::CONTROL_FAMILY, REQUEST | DUMP, &request, each)
                .unwrap();
            assert_eq!(control, Some(genl_wg::CONTROL_FAMILY));
        });
    }
}

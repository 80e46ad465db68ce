//! Which public keys are in use on this host: by devices of any network namespace, or by flyctl's agent.
//!
//! A probe with such a key would take the live tunnel's place at the peer.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::observation::Body;
use crate::observation::device::DeviceSnapshot;
use crate::observe::{Emit, ObserveError, Observer, wg_netlink, wg_uapi};
use crate::sys::netns::{self, Netns};
use crate::types::PublicKey;

/// Network namespaces that are looked into.
const NAMESPACES: usize = 512;

/// What is known of keys in use.
#[derive(Debug, Default)]
pub struct Held {
    /// Who holds a key.
    by_key: BTreeMap<PublicKey, String>,
    /// The devices of this namespace.
    pub devices: Vec<DeviceSnapshot>,
    /// Devices whose key could not be read, and why.
    unknown: Vec<String>,
    /// What could not be looked at.
    pub notes: Vec<String>,
}

impl Held {
    /// Looks at every namespace that it may enter.
    pub fn look() -> Self {
        let mut held = Self::default();
        for device in held.devices_here() {
            held.note(&device, "");
            held.devices.push(device);
        }
        let own = netns::current();
        let mut seen: BTreeSet<_> = own.into_iter().collect();
        let mut left_out = false;
        for path in candidates() {
            let Some(id) = netns::id_of(&path).filter(|id| !seen.contains(id)) else {
                continue;
            };
            if seen.len() >= NAMESPACES {
                left_out = true;
                break;
            }
            seen.insert(id);
            held.look_into(&path);
        }
        if left_out {
            held.notes.push(format!(
                "only the first {NAMESPACES} network namespaces were searched for keys in use"
            ));
        }
        held
    }

    /// Who holds `key`.
    pub fn holder(&self, key: &PublicKey) -> Option<&str> {
        self.by_key.get(key).map(String::as_str)
    }

    /// A device that may hold any key, for all that is known.
    pub fn unreadable(&self) -> Option<&str> {
        self.unknown.first().map(String::as_str)
    }

    fn note(&mut self, device: &DeviceSnapshot, place: &str) {
        let name = format!("{}{place}", device.name);
        match device.public_key {
            Some(key) => {
                self.by_key.entry(key).or_insert(name);
            }
            // One without a key has no problem to tell.
            None if device.problems.is_empty() => {}
            None => self
                .unknown
                .push(format!("{name} ({})", device.problems.join("; "))),
        }
    }

    fn devices_here(&mut self) -> Vec<DeviceSnapshot> {
        let mut devices = Vec::new();
        for (what, looked) in [
            (
                "kernel WireGuard",
                look(|| wg_netlink::WgNetlink::open(Arc::default())),
            ),
            (
                "userspace WireGuard",
                look(|| wg_uapi::WgUapi::open(Arc::default())),
            ),
        ] {
            match looked {
                Ok(more) => devices.extend(more),
                // Denied only where there is something to be denied.
                Err(error @ ObserveError::Denied { .. }) => self.unknown.push(format!("{what}: {error}")),
                Err(error) => self
                    .notes
                    .push(format!("cannot tell which keys {what} uses: {error}")),
            }
        }
        devices
    }

    /// On a thread of its own: entering a namespace is for good.
    fn look_into(&mut self, path: &Path) {
        let looked = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let netns = Netns::open(&path.display().to_string()).ok()?;
                netns.enter().ok()?;
                let kernel = look(|| wg_netlink::WgNetlink::open(Arc::default())).unwrap_or_default();
                let userspace = look(|| wg_uapi::WgUapi::open(Arc::default())).unwrap_or_default();
                Some([kernel, userspace].concat())
            });
            thread.join().ok().flatten()
        });
        for device in looked.unwrap_or_default() {
            match device.public_key {
                Some(_) => self.note(&device, &format!(" in {}", path.display())),
                // Devices come and go elsewhere; only here is one that cannot be read a reason to refuse.
                None => self.notes.extend(device.problems.first().map(|problem| {
                    format!(
                        "cannot tell which key {} in {} uses: {problem}",
                        device.name,
                        path.display()
                    )
                })),
            }
        }
    }
}

/// One look of a new observer.
fn look<O: Observer>(
    open: impl FnOnce() -> Result<O, ObserveError>,
) -> Result<Vec<DeviceSnapshot>, ObserveError> {
    let mut observer = open()?;
    let mut devices = Vec::new();
    let mut send = |_, _, _, body| {
        if let Body::Devices(seen) = body {
            devices.extend(seen);
        }
    };
    let source = observer.source();
    observer.look(&mut Emit::new(source, &mut send))?;
    Ok(devices)
}

/// Files of network namespaces: those with a name, and those of processes.
fn candidates() -> Vec<PathBuf> {
    let names = |dir: &str| {
        std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let processes = names("/proc")
        .into_iter()
        .filter(|path| {
            let name = path.file_name().and_then(|n| n.to_str());
            name.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
        })
        .map(|path| path.join("ns/net"));
    names("/run/netns").into_iter().chain(processes).collect()
}

/// Whether flyctl's agent runs beside its state in `config`: it holds a tunnel to each gateway that it was asked for.
pub fn fly_agent_runs(config: &Path) -> bool {
    let socket = config.with_file_name("fly-agent.sock");
    UnixStream::connect(socket).is_ok()
}

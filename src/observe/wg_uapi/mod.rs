//! Userspace WireGuard devices, by their UAPI sockets.
//!
//! Needs: root, in practice: the sockets' directory belongs to root. Costs: a directory listing and one exchange per
//! device each half second (0.1 ms for a device with a few peers); a daemon that hangs costs one second, once, and
//! is then asked ever less often. Never changes anything: dead sockets stay where they are.
//!
//! A socket's device counts only if an interface of that name is in the observed namespace, and only if its daemon
//! does not have that name for an interface of its own elsewhere.

mod ask;
mod find;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_nametoindex;

use self::ask::{Connection, Outcome};
use self::find::{Candidate, Finder};
use super::keys::vault::{BoxedKey, Vault};
use super::{Emit, ObserveError, Observer};
use crate::observation::device::{DeviceSnapshot, Implementation};
use crate::observation::host::Link;
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::netlink::{DUMP, Netlink, REQUEST};
use crate::sys::{clock, netns};
use crate::time::{Span, Timestamp};
use crate::types::{IfIndex, NetnsId, PublicKey};
use crate::wire::netlink::route;
use crate::wire::uapi;

/// How long daemons may take to answer, all together.
const LIMIT: Duration = Duration::from_secs(1);
/// How long a daemon that hung is left alone, at first and at most.
const REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How often TUN interfaces are counted, to see whether a socket is missing.
const TUN_INTERVAL: Duration = Duration::from_secs(5);

/// A handshake's time that moved by less than this is the same handshake: they are at least 5 s apart
/// (REKEY_TIMEOUT), and daemons that tell an age are read with the jitter of two clocks.
const SAME_HANDSHAKE: Span = Span::from_secs(1);

/// The observer.
pub struct WgUapi {
    finder: Finder,
    links: Option<Netlink>,
    tuns_seen: Option<Instant>,
    resting: HashMap<PathBuf, Rest>,
    /// Sockets without an interface here, and whether nobody serves them.
    left_over: HashMap<PathBuf, bool>,
    handshakes: HashMap<(String, PublicKey), Timestamp>,
    vault: Arc<Vault>,
}

#[derive(Clone, Copy)]
struct Rest {
    until: Instant,
    length: Duration,
}

/// What one look has gathered.
#[derive(Default)]
struct Gathered {
    devices: Vec<DeviceSnapshot>,
    reasons: Vec<String>,
    denied: bool,
}

impl WgUapi {
    /// For the calling thread's network namespace. Private keys that daemons tell go into `vault`, and nowhere else.
    pub fn open(vault: Arc<Vault>) -> Result<Self, ObserveError> {
        let directories = vec![
            PathBuf::from("/var/run/wireguard"),
            PathBuf::from("/run/wireguard"),
        ];
        Ok(Self {
            vault,
            ..Self::with_directories(directories)
        })
    }

    fn with_directories(directories: Vec<PathBuf>) -> Self {
        Self {
            finder: Finder::new(directories),
            // Without it only sockets in unusual places are missed.
            links: Netlink::open(NETLINK_ROUTE, "route", Duration::from_secs(1)).ok(),
            tuns_seen: None,
            resting: HashMap::new(),
            left_over: HashMap::new(),
            handshakes: HashMap::new(),
            vault: Arc::default(),
        }
    }
}

impl Observer for WgUapi {
    fn source(&self) -> Source {
        Source::WireguardUapi
    }

    fn interval(&self) -> Span {
        Span::from_millis(500)
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let began = clock::instant();
        let mut search = self.finder.search();
        if self.finder_should_widen(&search.candidates, began) {
            search = self.finder.search();
        }
        let mut gathered = Gathered::default();
        let connected = self.connect(search.candidates, began, &mut gathered);
        let keys = self.ask(connected, &mut gathered);
        if search.left_out > 0 {
            let left_out = search.left_out;
            gathered
                .reasons
                .push(format!("{left_out} sockets beyond the first 256 were left out"));
        }
        self.steady(&mut gathered.devices);
        let nothing_else = gathered.devices.is_empty() && gathered.reasons.is_empty();
        if (gathered.denied || !search.denied.is_empty()) && nothing_else {
            return Err(ObserveError::Denied {
                doing: "asking userspace WireGuard through /run/wireguard",
                needs: "root",
            });
        }
        if gathered.denied || !search.denied.is_empty() {
            let text = "some sockets may not be asked: needs root";
            gathered.reasons.push(text.to_owned());
        }
        // Two sockets may bear one name: the one that answered well counts.
        gathered
            .devices
            .sort_by(|a, b| (&a.name, !a.problems.is_empty()).cmp(&(&b.name, !b.problems.is_empty())));
        gathered.devices.dedup_by(|a, b| a.name == b.name);
        self.vault.deposit(Source::WireguardUapi, &gathered.devices, keys);
        emit.emit(clock::now(), began.elapsed(), Body::Devices(gathered.devices));
        Ok(if gathered.reasons.is_empty() {
            SourceStatus::ok()
        } else {
            SourceStatus::degraded(gathered.reasons.join("; "))
        })
    }
}

impl WgUapi {
    /// Every few seconds: is there a TUN interface whose socket is not among `known`? Then look in more places.
    fn finder_should_widen(&mut self, known: &[Candidate], now: Instant) -> bool {
        let recent = self
            .tuns_seen
            .is_some_and(|then| now.saturating_duration_since(then) < TUN_INTERVAL);
        if recent {
            return false;
        }
        self.tuns_seen = Some(now);
        let unexplained: BTreeSet<String> = self
            .links(&route::links_request(Some("tun")), DUMP)
            .into_iter()
            .filter(|link| link.kind.as_deref() == Some("tun"))
            .map(|link| link.name)
            .filter(|name| !known.iter().any(|c| c.device == *name))
            .collect();
        self.finder.widen(unexplained, now)
    }

    fn links(&mut self, payload: &[u8], flags: u16) -> Vec<Link> {
        let mut links = Vec::new();
        if let Some(netlink) = self.links.as_mut() {
            let each = |kind, body: &[u8]| {
                if kind == route::NEW_LINK && links.len() < 4096 {
                    links.extend(route::parse_link(body));
                }
            };
            if let Err(error) = netlink.request(route::GET_LINK, REQUEST | flags, payload, each) {
                tracing::debug!(%error, "listing interfaces");
            }
        }
        links
    }

    /// Connects to each socket whose device is here; notes those that are dead or must not be asked now.
    fn connect(&mut self, candidates: Vec<Candidate>, now: Instant, gathered: &mut Gathered) -> Vec<Target> {
        let here = netns::current();
        let observing_the_host = here.is_none() || netns::of_process(1).is_none_or(|host| Some(host) == here);
        self.resting
            .retain(|path, _| candidates.iter().any(|c| c.path == *path));
        self.left_over
            .retain(|path, _| candidates.iter().any(|c| c.path == *path));
        let mut targets: Vec<Target> = Vec::new();
        let mut dead = Vec::new();
        for candidate in candidates {
            let Some(index) = interface(&candidate.device) else {
                if observing_the_host && self.is_left_over(&candidate.path) {
                    gathered.reasons.push(format!(
                        "{}: left over: no daemon serves it and there is no interface {:?}",
                        candidate.path.display(),
                        candidate.device
                    ));
                }
                tracing::debug!(path = %candidate.path.display(), "no interface of that name here: skipped");
                continue;
            };
            self.left_over.remove(&candidate.path);
            if let Some(rest) = self.resting.get(&candidate.path).filter(|rest| now < rest.until) {
                gathered.silent(&candidate, index, &hung_text(None, rest.length));
                continue;
            }
            match ask::connect_to(&candidate.path) {
                Ok(connection) => match Home::of(connection.pid, &candidate.device, here) {
                    Home::Elsewhere => {
                        tracing::debug!(path = %candidate.path.display(), "a device of another namespace: skipped");
                    }
                    home => add_target(
                        &mut targets,
                        Target {
                            candidate,
                            index,
                            connection,
                            home,
                        },
                    ),
                },
                Err(Outcome::Dead) => dead.push((candidate, index)),
                Err(outcome) => self.failed(&candidate, index, None, outcome, now, gathered),
            }
        }
        for (candidate, index) in dead {
            // A kernel device, or one that another daemon serves, may bear the name of a socket that is left over.
            let served = targets.iter().any(|t| t.candidate.device == candidate.device);
            let kind = self
                .links(&route::link_request(index.0), 0)
                .pop()
                .and_then(|link| link.kind);
            if !served && kind.as_deref() == Some("tun") {
                self.failed(&candidate, index, None, Outcome::Dead, now, gathered);
            }
        }
        targets
    }

    /// Whether nobody serves a socket whose interface is not here. Tried once: another namespace's daemon should not
    /// be connected to for nothing again and again.
    fn is_left_over(&mut self, path: &Path) -> bool {
        if let Some(known) = self.left_over.get(path) {
            return *known;
        }
        let dead = matches!(ask::connect_to(path), Err(Outcome::Dead));
        self.left_over.insert(path.to_owned(), dead);
        dead
    }

    fn ask(&mut self, targets: Vec<Target>, gathered: &mut Gathered) -> Vec<BoxedKey> {
        let mut keys = Vec::new();
        let (mut asked, mut connections) = (Vec::new(), Vec::new());
        for target in targets {
            let pid = target.connection.pid;
            connections.push((target.connection, target.candidate.device.clone()));
            asked.push((target.candidate, target.index, pid));
        }
        let outcomes = ask::ask_all(connections, LIMIT, &mut |key| keys.push(key));
        let now = clock::instant();
        for ((candidate, index, pid), outcome) in asked.into_iter().zip(outcomes) {
            let Outcome::Answered(reply) = outcome else {
                self.failed(&candidate, index, pid, outcome, now, gathered);
                continue;
            };
            self.resting.remove(&candidate.path);
            let mut device = reply.device;
            device.if_index = Some(index);
            if device.implementation == Implementation::Unknown {
                device.implementation = comm(pid)
                    .and_then(|comm| uapi::implementation_of_daemon(&comm))
                    .unwrap_or(Implementation::Unknown);
            }
            if let Some(problem) = device.problems.last() {
                gathered
                    .reasons
                    .push(format!("{}: {problem}", candidate.path.display()));
            }
            gathered.devices.push(device);
        }
        keys
    }

    fn failed(
        &mut self,
        candidate: &Candidate,
        index: IfIndex,
        pid: Option<u32>,
        outcome: Outcome,
        now: Instant,
        gathered: &mut Gathered,
    ) {
        match outcome {
            Outcome::Answered(_) | Outcome::Gone => {}
            Outcome::Denied => gathered.denied = true,
            Outcome::Dead => {
                gathered.silent(
                    candidate,
                    index,
                    "its daemon is dead: nobody serves the socket any more",
                );
            }
            Outcome::Hung => {
                let length = self
                    .resting
                    .get(&candidate.path)
                    .map_or(REST, |rest| (rest.length * 2).min(LONGEST_REST));
                let until = now + length;
                self.resting
                    .insert(candidate.path.clone(), Rest { until, length });
                gathered.silent(candidate, index, &hung_text(pid, length));
            }
            Outcome::Failed(errno) => {
                gathered.silent(candidate, index, &format!("cannot be asked: {}", errno.desc()))
            }
        }
    }

    /// Keeps a handshake's time from trembling where a daemon works it out anew for each answer.
    fn steady(&mut self, devices: &mut [DeviceSnapshot]) {
        let mut kept = HashMap::new();
        for device in devices {
            if device.implementation == Implementation::WireguardGo {
                continue; // tells the time itself
            }
            for peer in &mut device.peers {
                let Some(told) = peer.last_handshake else { continue };
                let key = (device.name.clone(), peer.public_key);
                let before = self.handshakes.get(&key).copied();
                let steady = before
                    .filter(|t| told.since(*t).max(t.since(told)) < SAME_HANDSHAKE)
                    .unwrap_or(told);
                peer.last_handshake = Some(steady);
                kept.insert(key, steady);
            }
        }
        self.handshakes = kept;
    }
}

impl Gathered {
    /// A device of which nothing is known but that it is there and why the rest is missing.
    fn silent(&mut self, candidate: &Candidate, index: IfIndex, why: &str) {
        let text = format!("{}: {why}", candidate.path.display());
        self.reasons.push(text.clone());
        self.devices.push(DeviceSnapshot {
            name: candidate.device.clone(),
            if_index: Some(index),
            implementation: Implementation::Unknown,
            public_key: None,
            listen_port: None,
            fwmark: 0,
            peers: Vec::new(),
            problems: vec![text],
        });
    }
}

struct Target {
    candidate: Candidate,
    index: IfIndex,
    connection: Connection,
    home: Home,
}

/// Of several sockets for one name the one whose daemon surely lives here counts, else the first.
fn add_target(targets: &mut Vec<Target>, target: Target) {
    match targets
        .iter_mut()
        .find(|t| t.candidate.device == target.candidate.device)
    {
        Some(other) if target.home == Home::Here && other.home != Home::Here => *other = target,
        Some(_) => {}
        None => targets.push(target),
    }
}

/// Where the daemon behind a socket lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// In the observed namespace.
    Here,
    /// In another, where it has an interface of that name: the socket is not about ours.
    Elsewhere,
    /// In another without such an interface (it was moved here), or it cannot be told.
    Unclear,
}

impl Home {
    fn of(pid: Option<u32>, device: &str, here: Option<NetnsId>) -> Self {
        let Some(pid) = pid else { return Self::Unclear };
        match netns::of_process(pid) {
            Some(home) if Some(home) == here => Self::Here,
            Some(_) if has_interface(pid, device) => Self::Elsewhere,
            _ => Self::Unclear,
        }
    }
}

/// Whether the namespace of process `pid` has an interface `device`.
fn has_interface(pid: u32, device: &str) -> bool {
    let list = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    list.lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, _)| name.trim() == device)
}

fn interface(device: &str) -> Option<IfIndex> {
    if_nametoindex(device).ok().map(IfIndex)
}

fn comm(pid: Option<u32>) -> Option<String> {
    let comm = std::fs::read_to_string(Path::new("/proc").join(pid?.to_string()).join("comm")).ok()?;
    Some(comm.trim_end().to_owned())
}

fn hung_text(pid: Option<u32>, rest: Duration) -> String {
    let who = match (pid, comm(pid)) {
        (Some(pid), Some(comm)) => format!("its daemon ({comm}, process {pid})"),
        _ => "its daemon".to_owned(),
    };
    format!(
        "{who} hangs: no answer within 1 s; it is left alone for {} s",
        rest.as_secs()
    )
}

#[cfg(test)]
mod tests;

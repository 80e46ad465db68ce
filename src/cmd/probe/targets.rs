//! Whom to probe, with which key, and whether that would do harm.
//!
//! In: the command line. Out: one [`Job`] a peer and transport; those that may not be probed say why. Names are resolved
//! here, each once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::held::{Held, fly_agent_runs};
use super::keys;
use crate::cli::{Probe, ProbeTransport};
use crate::cmd::input;
use crate::observation::device::DeviceSnapshot;
use crate::observation::probe::{Skipped, Target, Transport};
use crate::observe::prober::{InnerPlan, Job};
use crate::probe::ask::Question;
use crate::probe::handshake::{LEAST_INTERVAL, Plan};
use crate::sys::random;
use crate::time::Span;
use crate::types::{PresharedKey, PrivateKey, PublicKey};
use crate::wire::flyctl::{self, FlyState};
use crate::wire::noise::initiator::Identity;
use crate::wire::wg_quick::{self, Endpoint};

/// No file of either kind is larger.
const FILE_LIMIT: usize = 1024 * 1024;

/// Peers that a diagnosis tries beside all else: at the pace that one address bears, they are done before it is.
const MOST_BESIDE: usize = 64;

/// Echoes of one `--ping`.
const PINGS: u32 = 4;
/// An answer from inside the tunnel that takes longer is none.
const INNER_PATIENCE: Span = Span::from_secs(3);

/// A peer as a source names it.
struct Candidate {
    origin: String,
    device: Option<String>,
    /// `Err` says why there is none.
    private: Result<PrivateKey, Skipped>,
    /// The public key of the private one.
    local: PublicKey,
    public_key: PublicKey,
    preshared: Option<PresharedKey>,
    endpoint: Option<String>,
    keepalive: Option<u16>,
    mtu: Option<u32>,
    transports: Vec<Transport>,
    configured_transport: Option<Transport>,
    /// Who else uses the key, beside devices.
    used_by: Option<String>,
    /// This side's addresses in the tunnel.
    sources: Vec<IpAddr>,
    /// The resolver in the tunnel.
    resolver: Option<IpAddr>,
}

/// Peers to probe, and what a person should know of how they were found.
pub fn collect(args: &Probe) -> anyhow::Result<(Vec<Job>, Vec<String>)> {
    if args.interval < LEAST_INTERVAL {
        bail!(
            "--interval: expected at least {} ms, got {} ms: a peer takes less for a flood",
            LEAST_INTERVAL.as_millis(),
            args.interval.as_millis()
        );
    }
    if args.timeout.is_zero() {
        bail!("--timeout: expected more than 0");
    }
    if args.transport != ProbeTransport::Udp && !args.fly && args.fly_config.is_none() {
        bail!("--transport: only flyctl's gateways (--fly, --fly-config) take WireGuard over a WebSocket");
    }
    let given = Given::read(args)?;
    let mut notes = Vec::new();
    let mut candidates = named(args, &given, &mut notes)?;
    let held = Held::look();
    notes.extend(held.notes.iter().cloned());
    if args.wg_config.is_empty() && !args.fly && args.fly_config.is_none() && args.endpoint.is_none() {
        candidates.extend(held.devices.iter().flat_map(|device| of_device(device, &given)));
        if held.devices.is_empty() {
            bail!(
                "whom to probe? There is no WireGuard device here. Give --wg-config FILE, --fly, or --peer-public-key KEY with \
                 --endpoint HOST:PORT and --private-key-file FILE"
            );
        }
    }
    if let Some(wanted) = given.peer {
        candidates.retain(|c| c.public_key == wanted);
        if candidates.is_empty() {
            bail!("--peer-public-key: none of the peers named has the key {wanted}");
        }
    }
    if candidates.is_empty() {
        let why = notes.iter().map(|note| format!("\n{note}")).collect::<String>();
        bail!("no peer to probe: the files name none that could be{why}");
    }
    let mut names = Names::default();
    let mut jobs = Vec::new();
    for candidate in candidates {
        jobs.extend(candidate.into_jobs(args, &held, &mut names)?);
    }
    Ok((jobs, notes))
}

/// Peers that a diagnosis tries beside all else that it does: those that the command line names. What cannot be tried is a note,
/// or says itself why; without any there is no job.
pub fn beside(args: &Probe) -> anyhow::Result<(Vec<Job>, Vec<String>)> {
    let given = Given::read(args)?;
    let mut notes = Vec::new();
    let mut candidates = named(args, &given, &mut notes)?;
    if let Some(wanted) = given.peer {
        candidates.retain(|c| c.public_key == wanted);
    }
    // Who has no endpoint here can only call, which needs no word.
    candidates.retain(|c| c.endpoint.is_some());
    if candidates.is_empty() {
        return Ok((Vec::new(), notes));
    }
    let held = Held::look();
    notes.extend(held.notes.iter().cloned());
    if candidates.len() > MOST_BESIDE {
        notes.push(format!(
            "only the first {MOST_BESIDE} of the {} peers that are named are tried; `wgnat probe` tries all",
            candidates.len()
        ));
        candidates.truncate(MOST_BESIDE);
    }
    let mut names = Names::default();
    let mut jobs = Vec::new();
    for candidate in candidates {
        jobs.extend(candidate.into_jobs(args, &held, &mut names)?);
    }
    Ok((jobs, notes))
}

/// Peers that the command line names, by file or by options.
fn named(args: &Probe, given: &Given, notes: &mut Vec<String>) -> anyhow::Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for path in &args.wg_config {
        candidates.extend(of_wg_config(path, args, given, notes)?);
    }
    if let Some(path) = fly_file(args)? {
        candidates.extend(of_flyctl(&path, args, given, notes)?);
    }
    if args.endpoint.is_some() {
        candidates.extend(of_options(args, given));
    }
    Ok(candidates)
}

/// What options say of every peer.
struct Given {
    private: Option<PrivateKey>,
    preshared: Option<PresharedKey>,
    peer: Option<PublicKey>,
}

impl Given {
    fn read(args: &Probe) -> anyhow::Result<Self> {
        let private = args.private_key_file.as_deref().map(keys::private).transpose()?;
        let preshared = args
            .preshared_key_file
            .as_deref()
            .map(keys::preshared)
            .transpose()?;
        let peer = args.peer_public_key.as_deref().map(str::parse).transpose();
        Ok(Self {
            private,
            preshared: preshared.flatten(),
            peer: peer.context("--peer-public-key")?,
        })
    }
}

fn skipped(reason: impl Into<String>, way_round: Option<&str>) -> Skipped {
    Skipped {
        reason: reason.into(),
        way_round: way_round.map(str::to_owned),
        refused: false,
    }
}

fn of_wg_config(
    path: &Path,
    args: &Probe,
    given: &Given,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Candidate>> {
    let doing = || format!("wg-quick file {}", path.display());
    let text = input::text(path, FILE_LIMIT).with_context(doing)?;
    let config = wg_quick::Config::parse(&text).with_context(doing)?;
    notes.extend(
        config
            .notes
            .iter()
            .map(|note| format!("{}: {note}", path.display())),
    );
    let own = given.private.clone().or(config.interface.private_key);
    let Some(own) = own else {
        if args.beside_a_diagnosis {
            // It tells of peers all the same, whose endpoints are looked at.
            notes.push(format!(
                "{}: its peers are not tried, for [Interface] has no PrivateKey and no --private-key-file is given",
                doing()
            ));
            return Ok(Vec::new());
        }
        bail!(
            "{}: [Interface] has no PrivateKey, and no --private-key-file is given",
            doing()
        );
    };
    let device = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    let local = own.public();
    let mtu = config.interface.mtu;
    let sources: Vec<IpAddr> = config.interface.addresses.iter().map(|(ip, _)| *ip).collect();
    let candidate = |peer: wg_quick::Peer| Candidate {
        origin: format!("{}:{}", path.display(), peer.line),
        device: device.clone(),
        private: Ok(own.clone()),
        local,
        public_key: peer.public_key,
        preshared: given.preshared.clone().or(peer.preshared_key),
        endpoint: peer.endpoint.as_ref().map(Endpoint::to_string),
        keepalive: peer.keepalive,
        mtu,
        transports: vec![Transport::Udp],
        configured_transport: None,
        used_by: None,
        sources: sources.clone(),
        resolver: None,
    };
    Ok(config.peers.into_iter().map(candidate).collect())
}

/// flyctl's file, where it was asked for.
fn fly_file(args: &Probe) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = &args.fly_config {
        return Ok(Some(path.clone()));
    }
    if !args.fly {
        return Ok(None);
    }
    let dir = match std::env::var_os("FLY_CONFIG_DIR").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => {
            let home = std::env::var_os("HOME").filter(|v| !v.is_empty());
            let home = home.context("--fly: HOME is not set; give --fly-config FILE")?;
            PathBuf::from(home).join(".fly")
        }
    };
    Ok(Some(dir.join("config.yml")))
}

fn of_flyctl(
    path: &Path,
    args: &Probe,
    given: &Given,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Candidate>> {
    let doing = || format!("flyctl's state {}", path.display());
    let text = input::text(path, FILE_LIMIT).with_context(doing)?;
    let state = FlyState::parse(&text).with_context(doing)?;
    notes.extend(
        state
            .notes
            .iter()
            .map(|note| format!("{}: {note}", path.display())),
    );
    let configured = match fly_websockets(state.websockets) {
        true => Transport::Websocket,
        false => Transport::Udp,
    };
    if args.transport != ProbeTransport::Udp {
        let proxy = ["HTTPS_PROXY", "https_proxy"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
        if proxy {
            notes.push(
                "HTTPS_PROXY is set: flyctl opens its WebSocket through it, this probe does not".to_owned(),
            );
        }
    }
    let agent = fly_agent_runs(path).then(|| "flyctl's agent (stop it with `fly agent stop`)".to_owned());
    let candidate = |peer: flyctl::FlyPeer| {
        let resolver = peer.resolver();
        let own = given.private.clone().unwrap_or(peer.private_key);
        Candidate {
            origin: format!("{}:{} ({})", path.display(), peer.line, peer.org),
            device: None,
            local: own.public(),
            private: Ok(own),
            public_key: peer.gateway_key,
            preshared: given.preshared.clone(),
            endpoint: Some(peer.endpoint.to_string()),
            keepalive: None,
            mtu: Some(flyctl::MTU),
            transports: match args.transport {
                ProbeTransport::Udp => vec![Transport::Udp],
                ProbeTransport::Websocket => vec![Transport::Websocket],
                ProbeTransport::Both => vec![Transport::Udp, Transport::Websocket],
            },
            configured_transport: Some(configured),
            used_by: agent.clone().filter(|_| given.private.is_none()),
            sources: peer.address.into_iter().collect(),
            resolver,
        }
    };
    Ok(state.peers.into_iter().map(candidate).collect())
}

/// Whether flyctl would use WebSockets: its environment goes before its file, and without either it does.
fn fly_websockets(file: Option<bool>) -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    if set("CI").is_some() || set("WSWG").is_some() {
        return true;
    }
    match set("FLY_WIRE_GUARD_WEBSOCKETS").as_deref() {
        Some("0" | "f" | "F" | "false" | "False" | "FALSE") => false,
        Some(_) => true,
        None => file.unwrap_or(true),
    }
}

fn of_options(args: &Probe, given: &Given) -> Option<Candidate> {
    let own = given.private.clone()?;
    Some(Candidate {
        origin: "--peer-public-key".to_owned(),
        device: None,
        local: own.public(),
        private: Ok(own),
        public_key: given.peer?,
        preshared: given.preshared.clone(),
        endpoint: args.endpoint.clone(),
        keepalive: None,
        mtu: None,
        transports: vec![Transport::Udp],
        configured_transport: None,
        used_by: None,
        sources: Vec::new(),
        resolver: None,
    })
}

fn of_device<'a>(device: &'a DeviceSnapshot, given: &'a Given) -> impl Iterator<Item = Candidate> + 'a {
    let own = given.private.clone();
    device.peers.iter().map(move |peer| Candidate {
        origin: format!("device {}", device.name),
        device: Some(device.name.clone()),
        local: own.as_ref().map(PrivateKey::public).or(device.public_key).unwrap_or(PublicKey([0; 32])),
        private: own.clone().ok_or_else(|| Skipped {
            reason: format!("its own key is in use by {}", device.name),
            way_round: Some(format!(
                "Give --private-key-file with a key of its own for probing, which the peer must know. To break the live tunnel \
                 instead: `wg show {} private-key | wgnat probe --private-key-file - --steal-session`",
                device.name
            )),
            refused: true,
        }),
        public_key: peer.public_key,
        preshared: given.preshared.clone(),
        endpoint: peer.endpoint.map(|e| e.to_string()),
        keepalive: peer.keepalive,
        mtu: None,
        transports: vec![Transport::Udp],
        configured_transport: None,
        used_by: None,
        sources: Vec::new(),
        resolver: None,
    })
}

impl Candidate {
    fn into_jobs(self, args: &Probe, held: &Held, names: &mut Names) -> anyhow::Result<Vec<Job>> {
        let refusal = self.refusal(args, held);
        let (address, unresolved) = match &self.endpoint {
            None => (
                None,
                Some(skipped("it has no endpoint: it can only wait to be called", None)),
            ),
            Some(endpoint) => match names.resolve(endpoint) {
                Ok(address) => (Some(address), None),
                Err(error) => (
                    None,
                    Some(skipped(format!("{endpoint} does not resolve: {error}"), None)),
                ),
            },
        };
        let plan = Plan {
            count: args.count,
            interval: args.interval,
            timeout: args.timeout.min(Span::from_secs(600)),
        };
        let mut jobs = Vec::new();
        for transport in &self.transports {
            let identity = match (&refusal, &unresolved, &self.private) {
                (Some(skip), _, _) | (None, Some(skip), _) => Err(skip.clone()),
                (None, None, Err(skip)) => Err(skip.clone()),
                (None, None, Ok(private)) => {
                    Identity::new(private.clone(), self.public_key, self.preshared.clone())
                        .map_err(|weak| skipped(weak.to_string(), None))
                }
            };
            jobs.push(Job {
                target: Target {
                    origin: self.origin.clone(),
                    device: self.device.clone(),
                    local_public_key: self.local,
                    public_key: self.public_key,
                    has_preshared_key: self.preshared.is_some(),
                    endpoint: self.endpoint.clone().unwrap_or_default(),
                    address,
                    transport: *transport,
                    keepalive: self.keepalive,
                    mtu: self.mtu,
                    configured_transport: self.configured_transport,
                },
                identity,
                host: self
                    .endpoint
                    .as_deref()
                    .and_then(|e| e.parse().ok())
                    .map(|e: Endpoint| e.host)
                    .unwrap_or_default(),
                seed: random::key().context("reading random bytes")?,
                plan,
                inner: self.inner(args)?,
            });
        }
        Ok(jobs)
    }

    /// What to ask through the tunnel.
    fn inner(&self, args: &Probe) -> anyhow::Result<InnerPlan> {
        let mut questions: Vec<Question> = args
            .ping
            .iter()
            .map(|to| Question::Ping {
                to: *to,
                count: PINGS,
            })
            .collect();
        for text in &args.dns {
            let (name, server) = match text.split_once('@') {
                Some((name, server)) => (name, Some(dns_server(server)?)),
                None => (text.as_str(), self.resolver.map(|ip| SocketAddr::new(ip, 53))),
            };
            let server = server.with_context(|| {
                format!(
                    "--dns {text}: expected NAME@SERVER, for no resolver inside the tunnel is known of {}",
                    self.origin
                )
            })?;
            questions.push(Question::Dns {
                name: name.to_owned(),
                server,
            });
        }
        questions.extend(args.tcp.iter().map(|to| Question::Tcp { to: *to }));
        let mtu = match args.mtu {
            false => None,
            true => {
                let to = args.ping.first().copied().or(self.resolver);
                Some(to.context(
                    "--mtu: expected --ping ADDRESS too, whom to send packets to inside the tunnel",
                )?)
            }
        };
        let sources = if args.source.is_empty() {
            self.sources.clone()
        } else {
            args.source.clone()
        };
        if sources.is_empty() && (!questions.is_empty() || mtu.is_some()) {
            bail!(
                "--source: expected this side's address inside the tunnel, which {} does not tell",
                self.origin
            );
        }
        Ok(InnerPlan {
            sources,
            questions,
            mtu,
            lifetime: args.tcp.first().copied().filter(|_| args.mapping_lifetime),
            timeout: args.timeout.min(INNER_PATIENCE),
        })
    }

    /// Why a probe with this key would do harm.
    fn refusal(&self, args: &Probe, held: &Held) -> Option<Skipped> {
        if args.steal_session || self.private.is_err() {
            return None;
        }
        let holder = held.holder(&self.local).or(self.used_by.as_deref());
        let refuse = |reason: String, way_round: &str| Skipped {
            reason,
            way_round: Some(way_round.to_owned()),
            refused: true,
        };
        if let Some(holder) = holder {
            return Some(refuse(
                format!(
                    "its key is in use by {holder}: the peer would send that tunnel's packets to the probe"
                ),
                "Give the peer a key of its own for probing and name it with --private-key-file, or break the live tunnel with \
                 --steal-session",
            ));
        }
        held.unreadable().map(|device| {
            refuse(
                format!("its key may be in use here, which cannot be told: {device}"),
                "Run it as root. Where the key is in use nowhere on this host, --steal-session does no harm",
            )
        })
    }
}

/// `ADDRESS` or `ADDRESS:PORT`.
fn dns_server(text: &str) -> anyhow::Result<SocketAddr> {
    let address = text
        .parse()
        .or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
    address.with_context(|| format!("--dns: expected an address after @, got {text:?}"))
}

/// Addresses of names, each asked for once.
#[derive(Default)]
struct Names(BTreeMap<String, Result<SocketAddr, String>>);

impl Names {
    fn resolve(&mut self, endpoint: &str) -> Result<SocketAddr, String> {
        if let Some(known) = self.0.get(endpoint) {
            return known.clone();
        }
        let written: Result<Endpoint, ()> = endpoint.parse();
        let found = match written {
            Err(()) => Err("expected HOST:PORT or [IPv6]:PORT".to_owned()),
            Ok(written) => match written.address() {
                Some(address) => Ok(address),
                None => endpoint
                    .to_socket_addrs()
                    .map_err(|error| error.to_string())
                    .and_then(|mut all| all.next().ok_or_else(|| "no address".to_owned())),
            },
        };
        self.0.insert(endpoint.to_owned(), found.clone());
        found
    }
}

//! What a candidate is tried with: one job a transport, or why it may not be probed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use anyhow::{Context as _, bail};

use super::{Candidate, skipped};
use crate::cli::Probe;
use crate::cmd::probe::held::Held;
use crate::observation::probe::{Skipped, Target};
use crate::observe::prober::{InnerPlan, Job};
use crate::probe::ask::Question;
use crate::probe::handshake::Plan;
use crate::sys::random;
use crate::time::Span;
use crate::wire::noise::initiator::Identity;
use crate::wire::wg_quick::Endpoint;

/// Echoes of one `--ping`.
const PINGS: u32 = 4;
/// An answer from inside the tunnel that takes longer is none.
const INNER_PATIENCE: Span = Span::from_secs(3);

impl Candidate {
    pub(super) fn into_jobs(self, args: &Probe, held: &Held, names: &mut Names) -> anyhow::Result<Vec<Job>> {
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
pub(super) struct Names(BTreeMap<String, Result<SocketAddr, String>>);

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

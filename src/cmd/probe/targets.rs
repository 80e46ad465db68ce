//! Whom to probe, with which key, and whether that would do harm.
//!
//! In: the command line. Out: one [`Job`] a peer and transport; those that may not be probed say why. Names are resolved
//! here, each once.

mod jobs;
mod sources;

use std::net::IpAddr;

use anyhow::{Context as _, bail};

use super::held::Held;
use super::keys;
use crate::cli::{Probe, ProbeTransport};
use crate::observation::probe::{Skipped, Transport};
use crate::observe::prober::Job;
use crate::probe::handshake::LEAST_INTERVAL;
use crate::types::{PresharedKey, PrivateKey, PublicKey};
use jobs::Names;
use sources::{fly_file, of_device, of_flyctl, of_options, of_wg_config};

/// Peers that a diagnosis tries beside all else: at the pace that one address bears, they are done before it is.
const MOST_BESIDE: usize = 64;

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
    if args.transport != ProbeTransport::Udp && !args.peers.fly && args.peers.fly_config.is_none() {
        bail!("--transport: only flyctl's gateways (--fly, --fly-config) take WireGuard over a WebSocket");
    }
    let given = Given::read(args)?;
    let mut notes = Vec::new();
    let mut candidates = named(args, &given, &mut notes)?;
    let held = Held::look();
    notes.extend(held.notes.iter().cloned());
    if args.wg_config.is_empty()
        && !args.peers.fly
        && args.peers.fly_config.is_none()
        && args.peers.endpoint.is_none()
    {
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
    if args.peers.endpoint.is_some() {
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
        let private = args
            .peers
            .private_key_file
            .as_deref()
            .map(keys::private)
            .transpose()?;
        let preshared = args
            .peers
            .preshared_key_file
            .as_deref()
            .map(keys::preshared)
            .transpose()?;
        let peer = args.peers.peer_public_key.as_deref().map(str::parse).transpose();
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

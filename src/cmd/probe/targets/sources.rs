//! Peers as each source names them: wg-quick files, flyctl's state, options, and this host's devices.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::{Candidate, Given};
use crate::cli::{Probe, ProbeTransport};
use crate::cmd::input;
use crate::cmd::probe::held::fly_agent_runs;
use crate::observation::device::DeviceSnapshot;
use crate::observation::probe::{Skipped, Transport};
use crate::types::{PrivateKey, PublicKey};
use crate::wire::flyctl::{self, FlyState};
use crate::wire::wg_quick::{self, Endpoint};

/// No file of either kind is larger.
const FILE_LIMIT: usize = 1024 * 1024;

pub(super) fn of_wg_config(
    path: &Path,
    args: &Probe,
    given: &Given,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Candidate>> {
    let doing = || format!("wg-quick file {}", path.display());
    let text = input::text(path, FILE_LIMIT).with_context(doing)?;
    let config = wg_quick::Config::parse(&text).with_context(doing)?;
    pass_on(notes, path, &config.notes);
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

/// What was noted while the file at `path` was read, with its name.
fn pass_on(notes: &mut Vec<String>, path: &Path, said: &[String]) {
    notes.extend(said.iter().map(|note| format!("{}: {note}", path.display())));
}

/// flyctl's file, where it was asked for.
pub(super) fn fly_file(args: &Probe) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = &args.peers.fly_config {
        return Ok(Some(path.clone()));
    }
    if !args.peers.fly {
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

pub(super) fn of_flyctl(
    path: &Path,
    args: &Probe,
    given: &Given,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Candidate>> {
    let doing = || format!("flyctl's state {}", path.display());
    let text = input::text(path, FILE_LIMIT).with_context(doing)?;
    let state = FlyState::parse(&text).with_context(doing)?;
    pass_on(notes, path, &state.notes);
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

pub(super) fn of_options(args: &Probe, given: &Given) -> Option<Candidate> {
    let own = given.private.clone()?;
    Some(Candidate {
        origin: "--peer-public-key".to_owned(),
        device: None,
        local: own.public(),
        private: Ok(own),
        public_key: given.peer?,
        preshared: given.preshared.clone(),
        endpoint: args.peers.endpoint.clone(),
        keepalive: None,
        mtu: None,
        transports: vec![Transport::Udp],
        configured_transport: None,
        used_by: None,
        sources: Vec::new(),
        resolver: None,
    })
}

pub(super) fn of_device<'a>(
    device: &'a DeviceSnapshot,
    given: &'a Given,
) -> impl Iterator<Item = Candidate> + 'a {
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

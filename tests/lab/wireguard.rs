//! WireGuard devices by wireguard-go, one daemon each, configured with `wg`.

use super::SOON;
use super::wait::wait_for;
use super::wg_dump::DeviceDump;
use super::{Keys, Namespace, PresharedKey, exec};
use std::fmt::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::Duration;

/// A peer as a device is told about it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Base64.
    pub public_key: String,
    /// Where it is, if this side is to begin.
    pub endpoint: Option<SocketAddr>,
    /// Comma-separated prefixes.
    pub allowed_ips: String,
    /// Seconds.
    pub keepalive: Option<u16>,
    /// The pre-shared key.
    pub psk: Option<PresharedKey>,
}

impl Peer {
    /// A peer with these allowed addresses and nothing else.
    pub fn new(public_key: &str, allowed_ips: &str) -> Self {
        let (public_key, allowed_ips) = (public_key.to_owned(), allowed_ips.to_owned());
        Self {
            public_key,
            endpoint: None,
            allowed_ips,
            keepalive: None,
            psk: None,
        }
    }

    /// With an endpoint.
    #[must_use]
    pub fn at(mut self, endpoint: SocketAddr) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// With a persistent keepalive.
    #[must_use]
    pub fn keepalive(mut self, seconds: u16) -> Self {
        self.keepalive = Some(seconds);
        self
    }

    /// With a pre-shared key.
    #[must_use]
    pub fn psk(mut self, key: PresharedKey) -> Self {
        self.psk = Some(key);
        self
    }

    fn section(&self) -> String {
        let mut text = format!(
            "[Peer]\nPublicKey = {}\nAllowedIPs = {}\n",
            self.public_key, self.allowed_ips
        );
        if let Some(endpoint) = self.endpoint {
            let _ = writeln!(text, "Endpoint = {endpoint}");
        }
        if let Some(seconds) = self.keepalive {
            let _ = writeln!(text, "PersistentKeepalive = {seconds}");
        }
        if let Some(key) = &self.psk {
            let _ = writeln!(text, "PresharedKey = {}", key.base64().as_str());
        }
        text
    }
}

/// A device and its daemon. Its fields are what the next [`WgDevice::apply`] or [`WgDevice::restart`] configures.
#[derive(Debug)]
pub struct WgDevice {
    ns: Namespace,
    name: String,
    daemon: Option<Child>,
    /// This side's key pair.
    pub keys: Keys,
    /// The UDP port, or any.
    pub port: Option<u16>,
    /// The device's MTU.
    pub mtu: u16,
    /// Addresses with prefix length; each brings a route.
    pub addresses: Vec<String>,
    /// All peers.
    pub peers: Vec<Peer>,
}

impl WgDevice {
    /// A device that does not run yet.
    pub fn new(ns: &Namespace, name: &str, keys: Keys) -> Self {
        let (ns, name) = (ns.clone(), name.to_owned());
        Self {
            ns,
            name,
            daemon: None,
            keys,
            port: None,
            mtu: 1420,
            addresses: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.ns
    }

    /// The daemon's pid. Panics when it does not run.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// Starts the daemon, waits until its control socket answers, configures the device and sets it up.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "{} runs already", self.name);
        let log_file = self.ns.dir().join(format!("{}.log", self.name));
        let log = std::fs::File::options().create(true).append(true).open(&log_file);
        let log = log.expect("the lab's directory is writable");
        let mut command = self.ns.command("wireguard-go");
        command
            .args(["-f", &self.name])
            .env("LOG_LEVEL", "verbose")
            .stdin(std::process::Stdio::null());
        command
            .stdout(log.try_clone().expect("a file can be cloned"))
            .stderr(log);
        let mut daemon = command.spawn().expect("wireguard-go starts");
        let socket = self.socket();
        wait_for(SOON, "wireguard-go's control socket", || {
            if let Ok(Some(status)) = daemon.try_wait() {
                let said = std::fs::read_to_string(&log_file).unwrap_or_default();
                panic!("wireguard-go ended at its start with {status}; it said:\n{said}");
            }
            UnixStream::connect(&socket).ok()
        });
        self.daemon = Some(daemon);
        self.apply();
        let up = format!("link set {} mtu {} up", self.name, self.mtu);
        let addresses = self
            .addresses
            .iter()
            .map(|a| format!("address replace {a} dev {} nodad", self.name));
        let lines: Vec<String> = std::iter::once(up).chain(addresses).collect();
        self.ns.ip(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Makes the running device's keys, port and peers what the fields say (`wg syncconf`: sessions of unchanged peers live on).
    #[track_caller]
    pub fn apply(&self) {
        let mut text = format!(
            "[Interface]\nPrivateKey = {}\n",
            self.keys.private_base64().as_str()
        );
        if let Some(port) = self.port {
            let _ = writeln!(text, "ListenPort = {port}");
        }
        for peer in &self.peers {
            text.push_str(&peer.section());
        }
        self.wg_with_input(&["syncconf", &self.name, "/dev/stdin"], &text);
    }

    /// Runs `wg` in the namespace.
    #[track_caller]
    pub fn wg(&self, args: &[&str]) -> String {
        let mut command = self.ns.command("wg");
        command.args(args);
        exec::run(command)
    }

    #[track_caller]
    fn wg_with_input(&self, args: &[&str], input: &str) {
        let mut command = self.ns.command("wg");
        command.args(args);
        exec::run_with_input(command, input);
    }

    /// The device's state now.
    #[track_caller]
    pub fn dump(&self) -> DeviceDump {
        let text = self.wg(&["show", &self.name, "dump"]);
        DeviceDump::parse(&text).expect("`wg show dump` has its usual fields")
    }

    /// Waits until the only peer has a handshake.
    #[track_caller]
    pub fn await_handshake(&self, limit: Duration) {
        let what = format!("a handshake of {} in {}", self.name, self.ns.name());
        wait_for(limit, &what, || self.dump().peer().latest_handshake);
    }

    /// Kills the daemon; its device and sessions go with it.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // SIGKILL leaves the socket's file behind, and the next daemon refuses to start on it.
        let _ = std::fs::remove_file(self.socket());
    }

    /// Kills the daemon and starts it anew with the configuration in the fields; all sessions are lost.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        self.start();
    }

    fn socket(&self) -> std::path::PathBuf {
        self.ns.wireguard_dir().join(format!("{}.sock", self.name))
    }
}

impl Drop for WgDevice {
    fn drop(&mut self) {
        self.kill();
    }
}

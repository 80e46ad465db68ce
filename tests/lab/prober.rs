//! Running `wgnat probe` in the lab: keys of its own, files for it, and peers that are no devices.

use super::wgnat::Doctor;
use super::{Keys, Lab, Namespace, Peer, PresharedKey, Tunnel, tunnel};
use boringtun::noise::{Tunn, TunnResult};
use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A key for probing that the server knows.
#[derive(Debug)]
pub struct ProbeKey {
    pub keys: Keys,
    pub file: PathBuf,
}

impl Lab {
    /// A file in the lab's directory.
    #[track_caller]
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::write(&path, text).expect("the lab's directory is writable");
        path
    }

    /// A key of its own for probing; the server of `tunnel` learns it.
    #[track_caller]
    pub fn probe_key(&self, tunnel: &mut Tunnel) -> ProbeKey {
        let keys = Keys::generate();
        tunnel.server.peers.push(Peer::new(keys.public(), "10.99.0.9/32"));
        tunnel.server.apply();
        let file = self.file("probe.key", &keys.private_base64());
        ProbeKey { keys, file }
    }

    /// Probes one peer by options.
    #[track_caller]
    pub fn probe(
        &self,
        ns: &Namespace,
        peer: &str,
        at: SocketAddr,
        key: &ProbeKey,
        extra: &[&str],
    ) -> Doctor {
        let mut command = self.wgnat(ns);
        command
            .args([
                "probe",
                "--json",
                "--peer-public-key",
                peer,
                "--endpoint",
                &at.to_string(),
            ])
            .arg("--private-key-file")
            .arg(&key.file)
            .args(extra);
        self.json(command)
    }

    /// `wgnat doctor` at the client, which tries one peer by options.
    #[track_caller]
    pub fn doctor_probing(&self, peer: &str, at: SocketAddr, key: &ProbeKey, extra: &[&str]) -> Doctor {
        let mut command = self.wgnat(self.client());
        command
            .args([
                "doctor",
                "--json",
                "--peer-public-key",
                peer,
                "--endpoint",
                &at.to_string(),
            ])
            .arg("--private-key-file")
            .arg(&key.file)
            .args(extra);
        self.json(command)
    }

    /// Probes the lab's server.
    #[track_caller]
    pub fn probe_server(&self, tunnel: &Tunnel, key: &ProbeKey, extra: &[&str]) -> Doctor {
        let at = SocketAddr::new(self.server_ip(), tunnel::PORT);
        self.probe(self.client(), tunnel.server.keys.public(), at, key, extra)
    }
}

impl Doctor {
    /// The only target.
    #[track_caller]
    pub fn probed(&self) -> &Value {
        let probes = self.report["wireguard"]["probes"].as_array().expect("a list");
        assert_eq!(probes.len(), 1, "{}", self.everything());
        &probes[0]
    }

    /// How many of the only target's attempts ended as `outcome`.
    #[track_caller]
    pub fn attempts(&self, outcome: &str) -> u64 {
        self.probed()["attempts"][outcome].as_u64().expect("a count")
    }
}

/// A peer by boringtun, in a namespace: no device, just the protocol.
#[derive(Debug)]
pub struct BoringPeer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub at: SocketAddr,
}

impl BoringPeer {
    /// Answers whoever has `their` key.
    #[track_caller]
    pub fn start(
        ns: &Namespace,
        at: SocketAddr,
        own: &Keys,
        their: &Keys,
        preshared: Option<[u8; 32]>,
    ) -> Self {
        let (own, their) = (*own.private_bytes(), *their.private_bytes());
        let public = boringtun::x25519::PublicKey::from(&boringtun::x25519::StaticSecret::from(their));
        let mut tunn = Tunn::new(own.into(), public, preshared, None, 77, None);
        let socket = ns.run(|| UdpSocket::bind(at).expect("the port is free"));
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a time-out can be set");
        let at = socket.local_addr().expect("it is bound");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut datagram, mut out) = ([0; 2048], [0; 2048]);
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut datagram) else {
                    continue;
                };
                if let TunnResult::WriteToNetwork(answer) =
                    tunn.decapsulate(Some(from.ip()), &datagram[..len], &mut out)
                {
                    let _ = socket.send_to(answer, from);
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
            at,
        }
    }
}

impl Drop for BoringPeer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Pre-shared keys as `--preshared-key-file` takes them.
#[track_caller]
pub fn preshared_file(lab: &Lab, key: &PresharedKey) -> PathBuf {
    lab.file("preshared.key", &key.base64())
}

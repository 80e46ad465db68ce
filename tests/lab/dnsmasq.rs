//! A real name server (dnsmasq) that knows `.internal`, as Fly's does, or says that there is no such name.

use super::Namespace;
use super::wait::wait_until;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::time::Duration;

/// The server; it ends with the handle.
#[derive(Debug)]
pub struct Dnsmasq {
    child: Child,
}

/// A machine that it lists.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its id.
    pub id: String,
    /// Its region.
    pub region: &'static str,
    /// Its 6PN address.
    pub address: Ipv6Addr,
}

impl Dnsmasq {
    /// Starts it in `ns` at `at`, where it answers for `.internal` with these machines of the app `web`, and with NXDOMAIN to
    /// every other name below it. With no machine there is no name at all.
    #[track_caller]
    pub fn start(ns: &Namespace, at: IpAddr, machines: &[Machine]) -> Self {
        let mut config = format!(
            "no-resolv\nno-hosts\nno-poll\nport=53\nlisten-address={at}\nbind-interfaces\nuser=root\npid-file=\nlocal=/internal/\n"
        );
        if !machines.is_empty() {
            // A line of its configuration has 1,024 bytes at most, and a string of a TXT record 255: several records, each of
            // several strings that are read as one text.
            for some in machines.chunks(8) {
                let list: Vec<String> = some
                    .iter()
                    .map(|m| format!("instance={},app=web,ip={},region={}", m.id, m.address, m.region))
                    .collect();
                let strings: Vec<String> = list
                    .join(";")
                    .as_bytes()
                    .chunks(200)
                    .map(|chunk| format!("\"{}\"", String::from_utf8_lossy(chunk)))
                    .collect();
                config.push_str(&format!("txt-record=_instances.internal,{}\n", strings.join(",")));
            }
            for machine in machines {
                config.push_str(&format!(
                    "host-record={}.vm.web.internal,{}\n",
                    machine.id, machine.address
                ));
            }
        }
        let file = ns.dir().join(format!("dnsmasq-{at}.conf").replace(':', "_"));
        std::fs::write(&file, config).expect("the lab's directory is writable");
        let mut command = ns.command("dnsmasq");
        command
            .arg("--keep-in-foreground")
            .arg(format!("--conf-file={}", file.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("dnsmasq runs (package dnsmasq-base)");
        let server = Self { child };
        let socket = ns
            .run(|| -> std::io::Result<UdpSocket> {
                let any: IpAddr = if at.is_ipv6() {
                    Ipv6Addr::UNSPECIFIED.into()
                } else {
                    std::net::Ipv4Addr::UNSPECIFIED.into()
                };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                socket.connect(SocketAddr::new(at, 53))?;
                socket.set_read_timeout(Some(Duration::from_millis(200)))?;
                Ok(socket)
            })
            .expect("a socket");
        // "x." A IN: whatever it answers, it is there.
        let question = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0, 1, 0, 1][..]].concat();
        wait_until(Duration::from_secs(30), "dnsmasq to answer", || {
            socket.send(&question).is_ok() && socket.recv(&mut [0; 512]).is_ok()
        });
        server
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

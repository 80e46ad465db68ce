//! The built lab: its hosts, its addresses, and its end.

use super::addresses::{Addresses, CLIENT, CLIENT_ROAMED, ROUTER_WAN};
use super::builder::{LabBuilder, Nat};
use super::{Namespace, sweep};
use std::net::IpAddr;
use std::path::PathBuf;

/// Where the two ends are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub client: Addresses,
    pub server: Addresses,
}

/// Some hosts, each a namespace, joined by veth. All is removed when it is dropped, panic or not.
#[derive(Debug)]
pub struct Lab {
    id: String,
    dir: PathBuf,
    hosts: Vec<(&'static str, Namespace)>,
    links: Links,
}

impl Lab {
    /// Begins a lab. `build()`, `build_pair()` or `build_lone()` makes it.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// client — router — server with plain routing.
    #[track_caller]
    pub fn routed() -> Option<Self> {
        Self::builder().build()
    }

    /// client — router with this NAT — server.
    #[track_caller]
    pub fn nat(nat: Nat) -> Option<Self> {
        Self::builder().nat(nat).build()
    }

    /// client — server on one link.
    #[track_caller]
    pub fn pair() -> Option<Self> {
        Self::builder().build_pair()
    }

    /// One host with loopback only; it is `client()` and `server()`.
    #[track_caller]
    pub fn lone() -> Option<Self> {
        Self::builder().build_lone()
    }

    pub(super) fn empty(id: String, links: Links) -> Self {
        let dir = std::env::temp_dir().join(&id);
        std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
        Self {
            id,
            dir,
            hosts: Vec::new(),
            links,
        }
    }

    /// Adds a host without links, named `<id>-<role>`.
    pub fn add(&mut self, role: &'static str) -> Namespace {
        let ns = Namespace::create(&format!("{}-{role}", self.id), self.dir.join(role));
        self.hosts.push((role, ns.clone()));
        ns
    }

    /// The host with this role. Panics if the lab has none.
    #[track_caller]
    pub fn host(&self, role: &str) -> &Namespace {
        let found = self.hosts.iter().find(|(r, _)| *r == role);
        &found.unwrap_or_else(|| panic!("this lab has no {role}")).1
    }

    /// The host that initiates; in most tests, the one that wgnat looks at.
    #[track_caller]
    pub fn client(&self) -> &Namespace {
        self.host("client")
    }

    /// The host between, which may translate addresses.
    #[track_caller]
    pub fn router(&self) -> &Namespace {
        self.host("router")
    }

    /// The host that answers; a lone host answers itself.
    #[track_caller]
    pub fn server(&self) -> &Namespace {
        self.host(if self.hosts.len() == 1 { "client" } else { "server" })
    }

    /// True when there is a host between client and server.
    pub fn has_router(&self) -> bool {
        self.hosts.iter().any(|(role, _)| *role == "router")
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &Namespace> {
        self.hosts.iter().map(|(_, ns)| ns)
    }

    /// What the names of this lab's namespaces begin with.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory of this lab's logs and sockets.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// The client's own addresses.
    pub fn client_at(&self) -> Addresses {
        self.links.client
    }

    /// The server's addresses.
    pub fn server_at(&self) -> Addresses {
        self.links.server
    }

    /// The server's IPv4 address.
    pub fn server_ip(&self) -> IpAddr {
        self.links.server.v4.into()
    }

    /// Replaces the router's NAT. Flows in its table keep their translation until they are forgotten.
    #[track_caller]
    pub fn set_nat(&self, nat: Nat) {
        self.router().nft(&nat.ruleset());
    }

    /// Makes the NAT forget its flows and give new ones other ports, as one that restarted or timed them out.
    #[track_caller]
    pub fn rebind(&self, nat: Nat) {
        self.set_nat(nat);
        self.router().conntrack_flush();
    }

    /// Moves the client's default route to its second uplink and takes the first address away, as a laptop that leaves
    /// one Wi-Fi network for another. Needs `second_uplink()`.
    #[track_caller]
    pub fn roam(&self) {
        self.client().ip(&[
            "route replace default via 10.79.0.1 dev eth2",
            "route replace default via fd79::1 dev eth2",
            &format!("address del {}/24 dev eth0", CLIENT.v4),
            &format!("address del {}/64 dev eth0", CLIENT.v6),
        ]);
    }

    /// Moves the client back to its first uplink; see [`Lab::roam`].
    #[track_caller]
    pub fn roam_back(&self) {
        self.client().ip(&[
            &format!("address add {}/24 dev eth0", CLIENT.v4),
            &format!("address add {}/64 dev eth0 nodad", CLIENT.v6),
            "route replace default via 10.77.0.1 dev eth0",
            "route replace default via fd77::1 dev eth0",
        ]);
    }

    /// Links `host` as eth<index> to the router's lan<index>; the router has address .1 of that LAN.
    pub(super) fn attach(&self, host: &Namespace, index: u8, at: Addresses, nat: Nat) {
        let router = self.router();
        let gate = at.gateway();
        let name = if index == 1 { 0 } else { index };
        router.ip(&[
            &format!(
                "link add lan{index} type veth peer name eth{name} netns {}",
                host.name()
            ),
            &format!("address add {}/24 dev lan{index}", gate.v4),
            &format!("address add {}/64 dev lan{index} nodad", gate.v6),
            &format!("link set lan{index} up"),
        ]);
        host.ip(&[
            &format!("address add {}/24 dev eth{name}", at.v4),
            &format!("address add {}/64 dev eth{name} nodad", at.v6),
            &format!("link set eth{name} up"),
        ]);
        let net = at.network();
        let server = self.server();
        server.ip(&[&format!("route add {}/64 via {}", net.v6, ROUTER_WAN.v6)]);
        if nat == Nat::None {
            // Behind a NAT the server must not know the way: a packet that was not translated is lost, as outside.
            server.ip(&[&format!("route add {}/24 via {}", net.v4, ROUTER_WAN.v4)]);
        }
    }

    pub(super) fn attach_second_uplink(&self, nat: Nat) {
        self.attach(self.client(), 2, CLIENT_ROAMED, nat);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let names: Vec<String> = self.hosts.iter().map(|(_, ns)| ns.name().to_owned()).collect();
        sweep::remove_namespaces(&names);
        if std::thread::panicking() {
            self.show_logs();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Lab {
    /// A failed test shows what its daemons said last; they log no keys.
    fn show_logs(&self) {
        for (role, ns) in &self.hosts {
            let Ok(entries) = std::fs::read_dir(ns.dir()) else {
                continue;
            };
            for entry in entries
                .flatten()
                .filter(|e| e.path().extension().is_some_and(|x| x == "log"))
            {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                // What wireguard-go says of its threads and of its configuration is no help.
                let telling = |l: &&str| {
                    !["Routine:", "UAPI:", "worker"]
                        .iter()
                        .any(|noise| l.contains(noise))
                };
                let lines: Vec<&str> = text.lines().filter(telling).collect();
                let last = lines[lines.len().saturating_sub(30)..].join("\n");
                eprintln!("--- {role}: {}\n{last}", entry.file_name().to_string_lossy());
            }
        }
    }
}

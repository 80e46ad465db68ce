//! The built lab: its hosts, its addresses, and its end.

use super::builder::{LabBuilder, Nat};
use super::{Namespace, sweep};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// An address of each family.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

const fn at(v4: [u8; 4], v6: [u16; 3], host: u16) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]),
        v6: Ipv6Addr::new(v6[0], v6[1], v6[2], 0, 0, 0, 0, host),
    }
}

/// The client behind the router.
pub const CLIENT: Addresses = at([10, 77, 0, 2], [0xfd77, 0, 0], 2);
/// The second client, on the router's lan1.
pub const CLIENT2: Addresses = at([10, 78, 0, 2], [0xfd78, 0, 0], 2);
/// The client's second uplink, on the router's lan2.
pub const CLIENT_ROAMED: Addresses = at([10, 79, 0, 2], [0xfd79, 0, 0], 2);
/// The router's address towards the server, which is the external address of its NAT.
pub const ROUTER_WAN: Addresses = at([203, 0, 113, 1], [0x2001, 0xdb8, 0x113], 1);
/// The server.
pub const SERVER: Addresses = at([203, 0, 113, 9], [0x2001, 0xdb8, 0x113], 9);
/// More addresses of the server, for fan-out.
pub const SERVER_MORE: [Ipv4Addr; 3] = [
    Ipv4Addr::new(203, 0, 113, 10),
    Ipv4Addr::new(203, 0, 113, 11),
    Ipv4Addr::new(203, 0, 113, 12),
];
/// The client of a pair.
pub const PAIR_CLIENT: Addresses = at([198, 51, 100, 2], [0x2001, 0xdb8, 0x51], 2);
/// The server of a pair.
pub const PAIR_SERVER: Addresses = at([198, 51, 100, 9], [0x2001, 0xdb8, 0x51], 9);
/// The only addresses of a lone host.
pub const LOOPBACK: Addresses = at([127, 0, 0, 1], [0, 0, 0], 1);

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
        let gate = gateway(at);
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
        let [a, b, c, _] = at.v4.octets();
        let net6 = Ipv6Addr::from_bits(at.v6.to_bits() >> 64 << 64);
        let server = self.server();
        server.ip(&[&format!("route add {net6}/64 via {}", ROUTER_WAN.v6)]);
        if nat == Nat::None {
            // Behind a NAT the server must not know the way: a packet that was not translated is lost, as outside.
            server.ip(&[&format!("route add {a}.{b}.{c}.0/24 via {}", ROUTER_WAN.v4)]);
        }
    }

    pub(super) fn attach_second_uplink(&self, nat: Nat) {
        self.attach(self.client(), 2, CLIENT_ROAMED, nat);
    }
}

fn gateway(at: Addresses) -> Addresses {
    let [a, b, c, _] = at.v4.octets();
    Addresses {
        v4: Ipv4Addr::new(a, b, c, 1),
        v6: Ipv6Addr::from_bits(at.v6.to_bits() >> 64 << 64 | 1),
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
                let lines: Vec<&str> = text.lines().collect();
                let last = lines[lines.len().saturating_sub(30)..].join("\n");
                eprintln!("--- {role}: {}\n{last}", entry.file_name().to_string_lossy());
            }
        }
    }
}

//! Building labs: which hosts, which NAT.

use super::addresses::{
    CLIENT, CLIENT2, LOOPBACK, PAIR_CLIENT, PAIR_SERVER, ROUTER_WAN, SERVER, SERVER_MORE,
};
use super::topology::{Lab, Links};
use super::{Namespace, needs, sweep};
use std::sync::atomic::{AtomicU32, Ordering};

/// What the router does to IPv4 packets from its LANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Plain routing, and no connection tracking.
    None,
    /// `masquerade`: ports are kept where they are free.
    Masquerade,
    /// `masquerade to :FIRST-LAST`, for TCP and UDP.
    Range(u16, u16),
    /// `masquerade random`: a random port for each flow.
    Random,
    /// `masquerade fully-random`.
    FullyRandom,
}

impl Nat {
    /// The ruleset that imposes this NAT on what leaves by wan0, in place of the one before. Flows that exist keep theirs.
    pub fn ruleset(self) -> String {
        let statement = match self {
            Self::None => return "table ip lab_nat\ndelete table ip lab_nat\n".to_owned(),
            Self::Masquerade => "masquerade".to_owned(),
            Self::Range(first, last) => format!("meta l4proto {{ tcp, udp }} masquerade to :{first}-{last}"),
            Self::Random => "masquerade random".to_owned(),
            Self::FullyRandom => "masquerade fully-random".to_owned(),
        };
        format!(
            "table ip lab_nat\ndelete table ip lab_nat\n\
             table ip lab_nat {{ chain post {{ type nat hook postrouting priority srcnat; \
             oifname \"wan0\" {statement}; }}; }}\n"
        )
    }
}

/// Describes a lab before it is built.
#[derive(Clone, Debug)]
pub struct LabBuilder {
    nat: Nat,
    second_client: bool,
    second_uplink: bool,
}

impl Default for LabBuilder {
    fn default() -> Self {
        Self {
            nat: Nat::None,
            second_client: false,
            second_uplink: false,
        }
    }
}

impl LabBuilder {
    /// What the router does to IPv4; plain routing unless told.
    #[must_use]
    pub fn nat(mut self, nat: Nat) -> Self {
        self.nat = nat;
        self
    }

    /// A second client on a LAN of its own behind the same router.
    #[must_use]
    pub fn second_client(mut self) -> Self {
        self.second_client = true;
        self
    }

    /// A second way from the client to the router, for roaming; see [`Lab::roam`].
    #[must_use]
    pub fn second_uplink(mut self) -> Self {
        self.second_uplink = true;
        self
    }

    /// client — router — server. None only where `WGNAT_LAB=skip`.
    #[must_use]
    #[track_caller]
    pub fn build(self) -> Option<Lab> {
        let id = start()?;
        let mut lab = Lab::empty(
            id,
            Links {
                client: CLIENT,
                server: SERVER,
            },
        );
        let router = lab.add("router");
        let server = lab.add("server");
        let client = lab.add("client");
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            router.sysctl(key, 1);
        }
        // Every packet that deserves an ICMP error gets one; the rate limit would make tests depend on their speed.
        router.sysctl("net.ipv4.icmp_ratelimit", 0);
        router.sysctl("net.ipv6.icmp.ratelimit", 0);

        router.ip(&[&format!(
            "link add wan0 type veth peer name eth0 netns {}",
            server.name()
        )]);
        router.ip(&[
            &format!("address add {}/24 dev wan0", ROUTER_WAN.v4),
            "link set wan0 up",
        ]);
        router.ip(&[&format!("address add {}/64 dev wan0 nodad", ROUTER_WAN.v6)]);
        server.ip(&[
            &format!("address add {}/24 dev eth0", SERVER.v4),
            &format!("address add {}/64 dev eth0 nodad", SERVER.v6),
            "link set eth0 up",
        ]);
        for extra in SERVER_MORE {
            server.ip(&[&format!("address add {extra}/24 dev eth0")]);
        }
        lab.attach(&client, 0, CLIENT, self.nat);
        client.ip(&["route add default via 10.77.0.1", "route add default via fd77::1"]);
        if self.second_client {
            let second = lab.add("client2");
            lab.attach(&second, 1, CLIENT2, self.nat);
            second.ip(&["route add default via 10.78.0.1", "route add default via fd78::1"]);
        }
        if self.second_uplink {
            lab.attach_second_uplink(self.nat);
        }
        if self.nat != Nat::None {
            router.nft(&self.nat.ruleset());
        }
        Some(lab)
    }

    /// client — server, on one link, without a router.
    #[must_use]
    #[track_caller]
    pub fn build_pair(self) -> Option<Lab> {
        let id = start()?;
        let mut lab = Lab::empty(
            id,
            Links {
                client: PAIR_CLIENT,
                server: PAIR_SERVER,
            },
        );
        let server = lab.add("server");
        let client = lab.add("client");
        client.ip(&[&format!(
            "link add eth0 type veth peer name eth0 netns {}",
            server.name()
        )]);
        for (host, at) in [(&client, PAIR_CLIENT), (&server, PAIR_SERVER)] {
            host.ip(&[
                &format!("address add {}/24 dev eth0", at.v4),
                &format!("address add {}/64 dev eth0 nodad", at.v6),
                "link set eth0 up",
            ]);
            host.sysctl("net.ipv4.icmp_ratelimit", 0);
        }
        Some(lab)
    }

    /// One namespace with loopback only, as `client`.
    #[must_use]
    #[track_caller]
    pub fn build_lone(self) -> Option<Lab> {
        let id = start()?;
        let mut lab = Lab::empty(
            id,
            Links {
                client: LOOPBACK,
                server: LOOPBACK,
            },
        );
        let _: Namespace = lab.add("client");
        Some(lab)
    }
}

/// Checks the machine, sweeps dead labs, and gives this one its identity.
#[track_caller]
fn start() -> Option<String> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    if !needs::satisfied() {
        return None;
    }
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    if number == 0 {
        sweep::sweep_dead();
        raise_open_files();
    }
    Some(format!("{}{}-{number}", sweep::PREFIX, std::process::id()))
}

/// Both ends of every connection of every test are files of this one process.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

//! Faults of the network, as nftables rules in tables of their own.

use super::{Lab, Namespace, exec};

/// The first byte of a WireGuard message's UDP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Handshake initiation.
    Initiation = 1,
    /// Handshake response.
    Response = 2,
    /// Cookie reply.
    Cookie = 3,
    /// Transport data, keepalives included.
    Data = 4,
}

/// With which ICMP error (ICMPv6 for IPv6) a packet is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// 3/3.
    Port,
    /// 3/1.
    Host,
    /// 3/13.
    Admin,
}

/// Which packets a fault hits, by where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// Those towards the server.
    Server,
    /// Those towards the client.
    Client,
    /// All.
    Both,
}

/// One thing that a network does wrong. It hits both directions unless [`Fault::toward`] says otherwise.
#[derive(Clone, Debug)]
pub struct Fault {
    matches: String,
    verdict: String,
    toward: Toward,
}

impl Fault {
    /// Any nftables match with any verdict.
    pub fn new(matches: &str, verdict: &str) -> Self {
        Self {
            matches: matches.to_owned(),
            verdict: verdict.to_owned(),
            toward: Toward::Both,
        }
    }

    /// All UDP is dropped.
    pub fn drop_udp() -> Self {
        Self::new("meta l4proto udp", "drop")
    }

    /// All TCP is dropped.
    pub fn drop_tcp() -> Self {
        Self::new("meta l4proto tcp", "drop")
    }

    /// One kind of WireGuard message is dropped.
    pub fn drop_message(kind: Message) -> Self {
        // Bit 64 of the transport header is the first one after UDP's eight bytes.
        Self::new(&format!("meta l4proto udp @th,64,8 {}", kind as u8), "drop")
    }

    /// No fault: one kind of WireGuard message is counted and passes.
    pub fn count_message(kind: Message) -> Self {
        Self {
            verdict: "accept".to_owned(),
            ..Self::drop_message(kind)
        }
    }

    /// All UDP towards the server is answered with an ICMP error.
    pub fn reject_udp(with: Reject) -> Self {
        let code = match with {
            Reject::Port => "port-unreachable",
            Reject::Host => "host-unreachable",
            Reject::Admin => "admin-prohibited",
        };
        Self::new("meta l4proto udp", &format!("reject with icmpx {code}")).toward(Toward::Server)
    }

    /// This share of UDP is dropped at random, each packet for itself.
    pub fn lose_udp(percent: u8) -> Self {
        Self::new(
            &format!("meta l4proto udp numgen random mod 100 < {percent}"),
            "drop",
        )
    }

    /// IP packets longer than this vanish, and no ICMP says so: a black hole for path MTU discovery.
    pub fn drop_longer_than(bytes: u16) -> Self {
        Self::new(&format!("meta length > {bytes}"), "drop")
    }

    /// ICMP is dropped, errors and echoes. ICMPv6 passes, for neighbour discovery needs it.
    pub fn drop_icmp() -> Self {
        Self::new("meta l4proto icmp", "drop")
    }

    /// Only packets that go that way.
    #[must_use]
    pub fn toward(mut self, toward: Toward) -> Self {
        self.toward = toward;
        self
    }

    fn rule(&self) -> String {
        format!("{} counter {}", self.matches, self.verdict)
    }
}

/// Where in a host a fault sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What arrives for this host.
    Input,
    /// What this host sends.
    Output,
}

/// A fault in force. It lasts until [`Inflicted::lift`] or the end of the lab; dropping the handle changes nothing.
#[derive(Debug)]
pub struct Inflicted {
    ns: Namespace,
    table: String,
}

impl Inflicted {
    /// How many packets it has hit.
    #[track_caller]
    pub fn hits(&self) -> u64 {
        let mut command = self.ns.command("nft");
        command.args(["list", "table", "inet", &self.table]);
        let text = exec::run(command);
        let words: Vec<&str> = text.split_whitespace().collect();
        words
            .windows(2)
            .filter(|w| w[0] == "packets")
            .filter_map(|w| w[1].parse::<u64>().ok())
            .sum()
    }

    /// Ends the fault.
    #[track_caller]
    pub fn lift(self) {
        self.ns.nft(&format!("delete table inet {}\n", self.table));
    }
}

impl Lab {
    /// Puts a fault between client and server, on the router. A pair has no place for one: a rule in either host would be
    /// that host's own firewall, whose drops the sender is told (EPERM) or the receiver captures.
    #[track_caller]
    pub fn inflict(&self, fault: &Fault) -> Inflicted {
        let way = match fault.toward {
            Toward::Server => "oifname \"wan0\" ",
            Toward::Client => "iifname \"wan0\" ",
            Toward::Both => "",
        };
        inflict(
            self.router(),
            &chain("forward", &format!("{way}{}", fault.rule())),
        )
    }

    /// Puts a fault into one host's own firewall; `toward` does not apply.
    #[track_caller]
    pub fn inflict_at(&self, ns: &Namespace, hook: Hook, fault: &Fault) -> Inflicted {
        let hook = if hook == Hook::Input { "input" } else { "output" };
        inflict(ns, &chain(hook, &fault.rule()))
    }
}

#[track_caller]
fn inflict(ns: &Namespace, chains: &str) -> Inflicted {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let table = format!("lab_fault_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
    ns.nft(&format!("table inet {table} {{\n{chains}}}\n"));
    Inflicted {
        ns: ns.clone(),
        table,
    }
}

/// A chain's name may be no keyword, hence the prefix.
fn chain(hook: &str, rule: &str) -> String {
    format!("chain at_{hook} {{ type filter hook {hook} priority filter; {rule}; }}\n")
}

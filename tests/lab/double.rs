//! A second NAT in the path: a home router behind the lab's router, and the carriers' range between the two.

use super::{Lab, Namespace};

impl Lab {
    /// A host behind a home router, 192.168.7.1, which is the lab's client, behind the lab's router.
    #[track_caller]
    pub fn behind_home_router(&mut self) -> Namespace {
        let inner = self.add("inner");
        let home = self.client().clone();
        home.ip(&[
            &format!("link add lan0 type veth peer name eth0 netns {}", inner.name()),
            "address add 192.168.7.1/24 dev lan0",
            "link set lan0 up",
        ]);
        inner.ip(&[
            "address add 192.168.7.2/24 dev eth0",
            "link set eth0 up",
            "route add default via 192.168.7.1",
        ]);
        home.sysctl("net.ipv4.ip_forward", 1);
        home.sysctl("net.ipv4.icmp_ratelimit", 0);
        home.nft(
            "table ip home { chain post { type nat hook postrouting priority srcnat; oifname \"eth0\" masquerade; }; }",
        );
        inner
    }

    /// Puts the carriers' shared range (RFC 6598) between client and router: 100.64.0.2 behind 100.64.0.1.
    #[track_caller]
    pub fn carrier_range(&self) {
        self.router().ip(&["address add 100.64.0.1/24 dev lan0"]);
        self.client().ip(&[
            "address add 100.64.0.2/24 dev eth0",
            "route replace default via 100.64.0.1 src 100.64.0.2",
        ]);
    }
}

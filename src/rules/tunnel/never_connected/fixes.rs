//! What to do about a peer that was never reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::view::View;
use super::super::words::quote;
use super::Why;
use crate::finding::{Evidence, Fix};
use crate::types::Cidr;

/// By why it is silent.
pub(super) fn fixes(view: &View<'_>, why: Why) -> Vec<Fix> {
    let name = quote(view.name());
    let expect = || Evidence::new().with("last_handshake_age_seconds", "under 180");
    match why {
        Why::Down => {
            return vec![Fix {
                title: format!("Bring {} up", view.name()),
                why: "A WireGuard interface that is down neither calls nor answers.".to_owned(),
                command: Some(view.here(&format!("ip link set up dev {name}"))),
                expect: Evidence::new().with("device_up", true),
                ..Fix::default()
            }];
        }
        Why::NoKey => {
            return vec![Fix {
                title: "Apply the configuration that holds the private key".to_owned(),
                why: "wg-quick sets key, peers, addresses and routes from one file.".to_owned(),
                command: Some(view.here(&format!("wg-quick down {name}; wg-quick up {name}"))),
                expect: expect(),
                ..Fix::default()
            }];
        }
        Why::Stuck => {
            return vec![Fix {
                title: "Look for an output rule that drops WireGuard's UDP".to_owned(),
                why: "The first packet that leaves shows as 148 bytes sent.".to_owned(),
                command: Some(view.here("nft list ruleset")),
                expect: expect(),
                ..Fix::default()
            }];
        }
        Why::GaveUp(_) | Why::Untried | Why::Unseen => {}
    }
    let target = target(view);
    let ping = Fix {
        title: "Send something through the tunnel".to_owned(),
        why: "The first packet makes WireGuard call the peer; then either a handshake follows or the next look says \
              what fails."
            .to_owned(),
        command: target.map(|address| view.here(&format!("ping -c 3 {address}"))),
        expect: expect(),
        ..Fix::default()
    };
    let keepalive = Fix {
        title: "Keep the tunnel up without traffic".to_owned(),
        why: "A keepalive each 25 s makes the handshake now and keeps the mapping of a NAT open; it costs a small \
              packet each time."
            .to_owned(),
        command: view.wg_set("persistent-keepalive 25"),
        snippet: Some("[Peer]\nPersistentKeepalive = 25".to_owned()),
        expect: expect(),
    };
    match view.peer.newest.keepalive {
        Some(_) => vec![ping],
        None => vec![ping, keepalive],
    }
}

/// An inner address of the peer's to send something to: whether it answers does not matter.
fn target(view: &View<'_>) -> Option<IpAddr> {
    let host = |prefix: &Cidr, n: u8| match prefix.addr() {
        IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from_bits(base.to_bits() | u32::from(n))),
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from_bits(base.to_bits() | u128::from(n))),
    };
    let allowed_ips = &view.peer.newest.allowed_ips;
    let addresses = allowed_ips
        .iter()
        .filter(|prefix| prefix.prefix() > 1)
        .flat_map(|prefix| [1, 2].map(|n| (prefix, host(prefix, n))))
        .filter(|(prefix, address)| prefix.contains(*address));
    let single = allowed_ips
        .iter()
        .filter(|prefix| prefix.prefix() == if prefix.addr().is_ipv4() { 32 } else { 128 })
        .map(Cidr::addr);
    single
        .chain(addresses.map(|(_, address)| address))
        .find(|address| !view.world.routes.is_local(*address))
}

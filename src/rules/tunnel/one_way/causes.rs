//! What makes a tunnel one-way, by how one-way it is, and what to change.

use super::super::view::View;
use super::super::words::quote;
use super::Kind;
use crate::finding::{Candidate, Evidence, Fix};

fn candidate(cause: impl Into<String>, settle: impl Into<String>, code: Option<&'static str>) -> Candidate {
    Candidate {
        cause: cause.into(),
        code,
        settle: settle.into(),
    }
}

/// This host's addresses on the tunnel, for the peer's AllowedIPs.
fn inner_addresses(view: &View<'_>) -> Vec<String> {
    let Some((link, tables)) = view.link().zip(view.world.routes.tables()) else {
        return Vec::new();
    };
    tables
        .addresses
        .iter()
        .filter(|a| a.index == link.index)
        .filter(|a| match a.address {
            std::net::IpAddr::V6(v6) => !v6.is_unicast_link_local(),
            std::net::IpAddr::V4(_) => true,
        })
        .map(|a| format!("{}/{}", a.address, if a.address.is_ipv4() { 32 } else { 128 }))
        .take(4)
        .collect()
}

/// What is still possible, most telling first.
pub(super) fn candidates(view: &View<'_>, kind: Kind) -> Vec<Candidate> {
    let port = view.endpoint().map_or(0, |e| e.port());
    let ours = view
        .info()
        .public_key
        .map_or_else(|| "this host's key".to_owned(), |k| k.to_string());
    let inner = inner_addresses(view).join(", ");
    let their_allowed_ips = candidate(
        "The peer's AllowedIPs for this host lack our inner address: it decrypts our packets and drops them",
        format!(
            "On the peer: `wg show all allowed-ips` must list {} for {ours}",
            if inner.is_empty() { "it" } else { &inner }
        ),
        None,
    );
    let far_side = candidate(
        "The peer's firewall drops what comes out of the tunnel, or it has no route for the answers",
        "On the peer: `tcpdump -ni any icmp` while this host pings it: requests without replies",
        None,
    );
    match kind {
        Kind::Refused(_) => Vec::new(),
        Kind::Deaf => vec![
            candidate(
                "Data is dropped on the way although handshakes pass: a firewall or provider that recognises WireGuard, \
                 or a limit on packet size",
                format!("On the peer: `tcpdump -ni any 'udp port {port} and udp[8] = 4'`; no data arrives"),
                None,
            ),
            candidate(
                "The peer's data is dropped on its way back (asymmetric route, firewall on the return path)",
                "The same command on the peer: data arrives, and data leaves towards this host",
                None,
            ),
        ],
        Kind::KeepalivesOnly => vec![
            their_allowed_ips,
            far_side,
            candidate(
                "Large packets are lost on the way while keepalives pass",
                "Ping through the tunnel with growing sizes: `ping -M do -s 1200 ADDRESS`",
                Some("wg-mtu-blackhole"),
            ),
            candidate(
                "Nothing is wrong: only this side ever sends",
                "Look what is sent through the tunnel: `tcpdump -ni ".to_owned() + &quote(view.name()) + "`",
                None,
            ),
        ],
    }
}

/// What to change.
pub(super) fn fixes(view: &View<'_>, kind: Kind) -> Vec<Fix> {
    let expect = || {
        Evidence::new().with(
            "rx_bytes_while_watched",
            "growing by more than 32 and 92 byte steps",
        )
    };
    if let Kind::Refused(_) = kind {
        return vec![Fix {
            title: format!("Add the inner addresses that {} uses to its AllowedIPs here", view.key.short()),
            why: "The first command shows from which addresses packets may come now; `wg set … allowed-ips` replaces the \
                  whole list, so name the old ones too."
                .to_owned(),
            command: Some(view.here(&format!("wg show {} allowed-ips", quote(view.name())))),
            expect: expect(),
            ..Fix::default()
        }];
    }
    if kind == Kind::Deaf {
        // AllowedIPs cannot be it: a peer that decrypts our data answers it with a keepalive before it looks at them (kernel
        // wg_packet_consume_data_done, wireguard-go RoutineSequentialReceiver).
        return vec![
            Fix {
                title: "On the peer's host, look whether the data arrives".to_owned(),
                why: "Nothing there: it is lost on the way out. Data arrives and data leaves: it is lost on the way back."
                    .to_owned(),
                command: view
                    .endpoint()
                    .map(|e| format!("tcpdump -ni any 'udp port {} and udp[8] = 4'", e.port())),
                expect: expect(),
                ..Fix::default()
            },
            Fix {
                title: "Try another UDP port on the peer".to_owned(),
                why: "Where handshakes pass and data does not, something on the way may single out WireGuard on this port."
                    .to_owned(),
                expect: expect(),
                ..Fix::default()
            },
        ];
    }
    let inner = inner_addresses(view);
    vec![Fix {
        title: "On the peer, list this host's inner addresses in AllowedIPs".to_owned(),
        why: "WireGuard drops a decrypted packet whose source is not listed for the peer that sent it."
            .to_owned(),
        command: Some("wg show all allowed-ips".to_owned()),
        snippet: view
            .info()
            .public_key
            .filter(|_| !inner.is_empty())
            .map(|key| format!("[Peer]\nPublicKey = {key}\nAllowedIPs = {}", inner.join(", "))),
        expect: expect(),
    }]
}

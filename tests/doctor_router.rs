//! doctor at a router whose own address is called: the port is not forwarded, or its NAT has forgotten the mapping. Here the
//! lab's server calls its client, which is behind the NAT.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::tunnel::{CLIENT_IN, PORT, knock};
use lab::{Fault, Hook, Lab, SOON, Tunnel};
use std::net::SocketAddr;
use std::time::Duration;
use truth::everywhere::masqueraded;
use truth::{Everywhere, Repeat};

const UNREACHABLE: &str = "wg-endpoint-unreachable";
const TIMEOUT: &str = "wg-handshake-timeout";
/// What a host outside calls: the router's own address.
fn outside() -> SocketAddr {
    (lab::addresses::ROUTER_WAN.v4, PORT).into()
}

/// WireGuard behind the NAT, which is called at the router's address.
fn called_from_outside(lab: &Lab) -> Tunnel {
    let mut tunnel = Tunnel::prepare(lab);
    tunnel.client.port = Some(PORT);
    tunnel.client.peers[0].endpoint = None;
    tunnel.server.peers[0].endpoint = Some(outside());
    tunnel.start_both();
    tunnel
}

/// Something on the outside host wants through the tunnel, again and again.
fn wants_in(tunnel: &Tunnel) -> Repeat {
    let ns = tunnel.server.namespace().clone();
    Repeat::every(Duration::from_secs(1), move || knock(&ns, CLIENT_IN))
}

#[test]
fn a_port_that_is_not_forwarded_is_named_by_the_router() {
    let Some(lab) = masqueraded() else { return };
    let tunnel = called_from_outside(&lab);
    let watch = Everywhere::start(&lab, "wire-not-forwarded");
    let _load = wants_in(&tunnel);
    let seen = watch.after_three_tries(&tunnel.server);
    seen.server
        .says_only(&[UNREACHABLE])
        .is("critical", "certain")
        .about_peer_of(&tunnel.server);
    seen.client.nothing_wrong();
    seen.router
        .says_only(&[UNREACHABLE])
        .is("warning", "certain")
        .field("/subject/endpoint", outside().to_string())
        .measures("initiations_turned_back", 2.0..)
        .evidence("icmp_from", outside().ip().to_string())
        .evidence("this_host_translates", true)
        .fix(&["dnat to", "51820"]);
    seen.hold_reversed(
        "not-forwarded",
        "The responder is behind a NAT that does not forward its port (the router refuses)",
    );
}

#[test]
fn a_port_that_the_routers_firewall_drops_is_addressed_to_it() {
    let Some(lab) = masqueraded() else { return };
    let fault = Fault::new(&format!("udp dport {PORT}"), "drop");
    let dropping = lab.inflict_at(lab.router(), Hook::Input, &fault);
    let tunnel = called_from_outside(&lab);
    let watch = Everywhere::start(&lab, "wire-not-forwarded-dropped");
    let _load = wants_in(&tunnel);
    let seen = watch.after_three_tries(&tunnel.server);
    assert!(dropping.hits() >= 2);
    seen.server
        .says_only(&[TIMEOUT])
        .is("critical", "certain")
        .about_peer_of(&tunnel.server);
    seen.client.nothing_wrong();
    seen.router
        .says_only(&[TIMEOUT])
        .is("warning", "certain")
        .evidence("silent_side", "this-host-forward")
        .evidence("addressed_to_this_host", true)
        .tells("/summary", &["nothing forwards it"])
        .fix(&["dnat to"]);
    seen.hold_reversed(
        "not-forwarded-dropped",
        "The responder is behind a NAT that does not forward its port (the router drops)",
    );
}

#[test]
fn a_port_that_is_forwarded_is_nothing_to_anybody() {
    let Some(lab) = masqueraded() else { return };
    lab.router().nft(&format!(
        "table ip forward_in {{ chain pre {{ type nat hook prerouting priority dstnat; iifname \"wan0\" udp dport {PORT} \
         dnat to {}; }}; }}",
        lab.client_at().v4
    ));
    let tunnel = called_from_outside(&lab);
    let watch = Everywhere::start(&lab, "wire-forwarded");
    let _load = wants_in(&tunnel);
    tunnel.server.await_handshake(SOON);
    let seen = watch.enough();
    for verdict in [&seen.client, &seen.server, &seen.router] {
        verdict.nothing_wrong();
    }
}

#[test]
fn a_forwarded_port_on_which_nothing_listens_is_the_host_behinds() {
    let Some(lab) = masqueraded() else { return };
    lab.router().nft(&format!(
        "table ip forward_in {{ chain pre {{ type nat hook prerouting priority dstnat; iifname \"wan0\" udp dport {PORT} \
         dnat to {}:50999; }}; }}",
        lab.client_at().v4
    ));
    let tunnel = called_from_outside(&lab);
    let watch = Everywhere::start(&lab, "wire-forwarded-wrong");
    let _load = wants_in(&tunnel);
    let seen = watch.after_three_tries(&tunnel.server);
    seen.server
        .says_only(&[UNREACHABLE])
        .is("critical", "certain")
        .about_peer_of(&tunnel.server);
    seen.router
        .says_only(&[UNREACHABLE])
        .is("warning", "certain")
        .evidence("icmp_from", lab.client_at().v4.to_string());
    seen.hold_reversed(
        "forwarded-wrong",
        "The responder is behind a NAT that forwards to a port on which nothing listens",
    );
}

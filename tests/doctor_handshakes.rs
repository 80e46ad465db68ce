//! Why a handshake fails, as doctor says it at the host that calls, at the one that is called and at a router in between:
//! each fault is made for real, and all three look at the same time.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::tunnel::PORT;
use lab::{Fault, Hook, Lab, Message, Namespace, Nat, Reject, SOON, Toward, Tunnel, wait_until, wg_faults};
use std::time::Duration;
use truth::everywhere::{await_initiations, masqueraded, wants};
use truth::{Everywhere, Look, Scenario, Seen, Verdict};

const TIMEOUT: &str = "wg-handshake-timeout";
const LOCAL_DROP: &str = "wg-local-drop";

/// The client's attempts ran out and nothing narrower can be said there.
#[track_caller]
fn timed_out(seen: &Seen, tunnel: &Tunnel) {
    seen.client
        .says_only(&[TIMEOUT])
        .is("critical", "certain")
        .about_peer_of(&tunnel.client);
}

/// The router says on which side the silence is.
#[track_caller]
fn silent_side(seen: &Seen, side: &str) {
    seen.router
        .says_only(&[TIMEOUT])
        .is("warning", "certain")
        .field("/subject/local", client_address(&seen.router))
        .evidence("silent_side", side);
}

/// The initiator as the router names it: by its address behind the NAT.
fn client_address(router: &Verdict) -> String {
    let found = router.finding(TIMEOUT).value["subject"]["local"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(found.starts_with("10.77.0.2:"), "{found}");
    found
}

// --- lost on the way ---

#[test]
fn udp_dropped_by_the_router_is_the_routers_doing() {
    let Some(lab) = masqueraded() else { return };
    let _fault = lab.inflict(&Fault::drop_udp());
    let tunnel = Tunnel::start(&lab);
    let watch = Everywhere::start(&lab, "wire-udp-dropped");
    let _load = wants(&tunnel);
    let seen = watch.after_three_tries(&tunnel.client);
    timed_out(&seen, &tunnel);
    seen.server.nothing_wrong();
    silent_side(&seen, "this-host-forward");
    seen.hold(
        "udp-dropped",
        "UDP is dropped both ways, by the router's firewall",
    );
}

#[test]
fn responses_dropped_by_the_router_are_lost_to_the_server() {
    let Some(lab) = masqueraded() else { return };
    let _fault = lab.inflict(&Fault::drop_message(Message::Response).toward(Toward::Client));
    let tunnel = Tunnel::start(&lab);
    let watch = Everywhere::start(&lab, "wire-responses-dropped");
    let _load = wants(&tunnel);
    let seen = watch.after_three_tries(&tunnel.client);
    timed_out(&seen, &tunnel);
    seen.server
        .says_only(&["wg-response-lost"])
        .is("critical", "likely")
        .about_peer_of(&tunnel.server)
        .candidates(&["wg-response-lost", "wg-response-rejected"])
        .measures("answered_without_effect", 2.0..);
    silent_side(&seen, "this-host-back");
    seen.hold(
        "responses-dropped",
        "Responses are dropped on the way back, by the router's firewall",
    );
}

#[test]
fn udp_dropped_beyond_the_router_is_silence_on_the_servers_side() {
    let Some(lab) = masqueraded() else { return };
    let fault = Fault::new(&format!("udp dport {PORT}"), "drop");
    let dropping = lab.inflict_at(lab.server(), Hook::Input, &fault);
    let tunnel = Tunnel::start(&lab);
    let watch = Everywhere::start(&lab, "wire-responder-input");
    let _load = wants(&tunnel);
    let seen = watch.after_three_tries(&tunnel.client);
    assert!(dropping.hits() >= 2);
    timed_out(&seen, &tunnel);
    seen.server
        .says_only(&[LOCAL_DROP])
        .is("critical", "certain")
        .field("/subject/kind", "device")
        .field("/subject/name", "wg0")
        .evidence("direction", "in")
        .evidence("udp_datagrams_accounted_for", 0)
        .measures("arrived", 2.0..)
        .tells("/summary", &["firewall"]);
    silent_side(&seen, "responder");
    seen.hold(
        "responder-input-drop",
        "The responder's own firewall drops what comes in",
    );
}

#[test]
fn a_closed_port_is_told_to_all_on_the_way() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.client.start();
    // The host itself says a word only when it is called again: anybody may call once.
    let watch = Everywhere::start(&lab, "wire-port-closed");
    let _load = wants(&tunnel);
    let seen = watch.after_three_tries(&tunnel.client);
    seen.client
        .says_only(&["wg-endpoint-unreachable"])
        .is("critical", "certain")
        .about_peer_of(&tunnel.client);
    seen.server
        .says_only(&["wg-endpoint-unreachable"])
        .is("warning", "certain")
        .measures("initiations_turned_back", 2.0..)
        .fix(&["Start WireGuard"]);
    seen.router
        .says_only(&["wg-endpoint-unreachable"])
        .is("warning", "certain");
    seen.hold("port-closed", "The responder's daemon does not run");
}

#[test]
fn a_firewall_that_rejects_is_told_to_all_on_the_way() {
    let Some(lab) = masqueraded() else { return };
    let fault = lab.inflict(&Fault::reject_udp(Reject::Admin));
    let tunnel = Tunnel::start(&lab);
    let watch = Everywhere::start(&lab, "wire-rejected");
    let _load = wants(&tunnel);
    wait_until(SOON, "a rejection", || fault.hits() >= 1);
    let seen = watch.enough();
    seen.client
        .says_only(&["wg-endpoint-unreachable"])
        .is("critical", "certain")
        .about_peer_of(&tunnel.client);
    seen.server.nothing_wrong();
    seen.router.says_at_most(&["wg-endpoint-unreachable"]);
    seen.hold("rejected", "The router's firewall rejects, with ICMP");
}

// --- dropped by the host itself ---

#[test]
fn what_this_hosts_own_firewall_keeps_in_is_a_local_drop() {
    let Some(lab) = masqueraded() else { return };
    let fault = Fault::new(&format!("udp dport {PORT}"), "drop");
    let dropping = lab.inflict_at(lab.client(), Hook::Output, &fault);
    let tunnel = Tunnel::start(&lab);
    let watch = Everywhere::start(&lab, "wire-egress-drop");
    let _load = wants(&tunnel);
    wait_until(SOON, "two tries", || dropping.hits() >= 2);
    let seen = watch.enough();
    assert!(dropping.hits() >= 1);
    assert_eq!(
        tunnel.client.dump().peer().tx,
        0,
        "wireguard-go is told of the refusal"
    );
    seen.client
        .says_only(&[LOCAL_DROP])
        .is("critical", "certain")
        .about_peer_of(&tunnel.client)
        .evidence("direction", "out")
        .measures("ip_out_discards", 1.0..);
    assert_eq!(
        seen.client.suppressed(),
        ["wg-never-connected"],
        "{}",
        seen.client.everything()
    );
    seen.server.nothing_wrong();
    seen.router.nothing_wrong();
    seen.hold("egress-drop", "The initiator's own firewall drops what leaves");
}

#[test]
fn answers_that_this_hosts_own_firewall_drops_are_a_local_drop() {
    let Some(lab) = masqueraded() else { return };
    let fault = Fault::new(&format!("udp sport {PORT}"), "drop");
    let dropping = lab.inflict_at(lab.client(), Hook::Input, &fault);
    let tunnel = Tunnel::start(&lab);
    let watch = Everywhere::start(&lab, "wire-input-drop");
    let _load = wants(&tunnel);
    let seen = watch.after_three_tries(&tunnel.client);
    assert!(dropping.hits() >= 2);
    seen.client
        .says_only(&[LOCAL_DROP])
        .is("critical", "certain")
        .about_peer_of(&tunnel.client)
        .evidence("direction", "in")
        .evidence("udp_datagrams_accounted_for", 0)
        .evidence("reverse_path_drops", 0)
        .tells("/summary", &["firewall"]);
    let folded = seen.client.suppressed();
    assert!(folded.contains(&TIMEOUT), "{}", seen.client.everything());
    seen.server
        .says_only(&["wg-response-lost"])
        .is("critical", "likely")
        .about_peer_of(&tunnel.server);
    seen.router
        .says_only(&["wg-response-rejected"])
        .is("warning", "possible")
        .evidence("responses_reached_host", false);
    seen.hold("input-drop", "The initiator's own firewall drops the answers");
}

#[test]
fn answers_that_reverse_path_filtering_drops_are_a_local_drop() {
    let Some(lab) = Lab::builder().nat(Nat::Masquerade).second_uplink().build() else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    // As with wg-quick's marks and no src_valid_mark: packets leave by the marked route, and answers come in by an
    // interface by which, without the mark, nothing would leave.
    tunnel.client.wg(&["set", "wg0", "fwmark", "51820"]);
    lab.client().ip(&[
        "rule add fwmark 51820 table 100",
        "route add default via 10.79.0.1 dev eth2 table 100",
    ]);
    for interface in ["all", "eth2"] {
        lab.client()
            .sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "1");
    }
    let watch = Everywhere::start(&lab, "wire-rp-filter");
    let _load = wants(&tunnel);
    let seen = watch.after_three_tries(&tunnel.client);
    seen.client
        .says_only(&[LOCAL_DROP])
        .is("critical", "certain")
        .about_peer_of(&tunnel.client)
        .evidence("direction", "in")
        .measures("reverse_path_drops", 2.0..)
        .fix(&["rp_filter"]);
    seen.hold(
        "rp-filter",
        "Reverse path filtering at the initiator drops the answers",
    );
}

// --- keys and clocks ---

#[test]
fn a_wrong_server_key_is_proven_at_the_server() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.give_client_wrong_server_key();
    tunnel.start_both();
    let watch = Everywhere::start(&lab, "wire-wrong-peer-key");
    let _load = wants(&tunnel);
    let seen = watch.after_three_tries(&tunnel.client);
    timed_out(&seen, &tunnel);
    seen.client.finding(TIMEOUT).candidates(&["wg-wrong-peer-key"]);
    seen.server
        .says_only(&["wg-wrong-peer-key"])
        .is("critical", "certain")
        .field("/subject/device", "wg0")
        .evidence("responder_key", tunnel.server.keys.public())
        .measures("initiations", 2.0..)
        .fix(&[tunnel.server.keys.public()]);
    silent_side(&seen, "responder");
    seen.hold(
        "wrong-peer-key",
        "The initiator has a wrong public key for the responder",
    );
}

#[test]
fn a_key_of_another_device_here_is_named() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    // The server has a second device, and the client calls the first by the second's key.
    let mut second = lab::WgDevice::new(lab.server(), "wg1", lab::Keys::generate());
    second
        .keys
        .public()
        .clone_into(&mut tunnel.client.peers[0].public_key);
    second.port = Some(51999);
    second.start();
    tunnel.start_both();
    let server = Look::at(&lab, lab.server()).until_told().start().await_watching();
    let _load = wants(&tunnel);
    await_initiations(&tunnel.client, 3);
    server
        .enough()
        .says_only(&["wg-wrong-peer-key"])
        .is("critical", "certain")
        .evidence("made_for", second.keys.public());
}

#[test]
fn an_unknown_initiator_is_named_at_the_server() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.make_client_unknown();
    tunnel.start_both();
    let watch = Everywhere::start(&lab, "wire-unknown-initiator");
    let _load = wants(&tunnel);
    let seen = watch.after_three_tries(&tunnel.client);
    timed_out(&seen, &tunnel);
    seen.client.finding(TIMEOUT).candidates(&["wg-unknown-initiator"]);
    seen.server
        .says_only(&["wg-unknown-initiator"])
        .is("warning", "certain")
        .evidence("initiator_key", tunnel.client.keys.public())
        .fix(&[tunnel.client.keys.public()]);
    // Opened with the server's private key, which nobody may ever see.
    let private = tunnel.server.keys.private_base64();
    assert!(!seen.server.text.contains(private.as_str()) && !seen.server.stderr.contains(private.as_str()));
    silent_side(&seen, "responder");
    seen.hold(
        "unknown-initiator",
        "The responder does not know the initiator's key",
    );
}

#[test]
fn a_clock_put_back_is_told_at_the_server() {
    let Some(lab) = masqueraded() else { return };
    let tunnel = Tunnel::start(&lab);
    // Before anybody looks, so the server's device alone knows the later time.
    tunnel.put_client_clock_back(&lab);
    let watch = Everywhere::start(&lab, "wire-clock-back");
    let _load = wants(&tunnel);
    let seen = watch.after_three_tries(&tunnel.client);
    timed_out(&seen, &tunnel);
    seen.client.finding(TIMEOUT).candidates(&["wg-clock-replay"]);
    seen.server
        .says_only(&["wg-clock-replay"])
        .is("critical", "likely")
        .about_peer_of(&tunnel.server)
        .candidates(&["wg-local-drop"])
        .measures("initiations", 2.0..);
    silent_side(&seen, "responder");
    seen.hold(
        "clock-back",
        "The initiator's clock went back before anybody looked",
    );
}

#[test]
fn a_clock_that_goes_back_while_watched_is_certain() {
    let Some(lab) = masqueraded() else { return };
    let tunnel = Tunnel::start(&lab);
    let watch = Everywhere::start(&lab, "wire-clock-goes-back");
    tunnel.put_client_clock_back(&lab);
    let _load = wants(&tunnel);
    let seen = watch.after_three_tries(&tunnel.client);
    seen.server
        .finding("wg-clock-replay")
        .is("critical", "certain")
        .about_peer_of(&tunnel.server)
        .measures("seconds_behind_greatest", 10.0..28.0);
    // Whoever showed the later time is gone, and its host may say so.
    seen.server
        .says_at_most(&["wg-clock-replay", "wg-endpoint-unreachable"]);
}

#[test]
fn a_differing_psk_is_a_response_rejected() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.make_psk_differ();
    tunnel.start_both();
    let watch = Everywhere::start(&lab, "wire-psk-differs");
    let _load = wants(&tunnel);
    let seen = watch.after_three_tries(&tunnel.client);
    seen.client
        .says_only(&["wg-response-rejected"])
        .is("critical", "likely")
        .about_peer_of(&tunnel.client)
        .candidates(&["preshared", LOCAL_DROP])
        .ruled_out(&["wg-unknown-initiator", "wg-wrong-peer-key", "wg-clock-replay"])
        .measures("responses_not_accepted", 2.0..)
        .measures("responses_made_for_us", 2.0..);
    assert_eq!(
        seen.client.suppressed(),
        [TIMEOUT],
        "{}",
        seen.client.everything()
    );
    // From there it may as well be loss.
    seen.server
        .says_only(&["wg-response-rejected"])
        .is("warning", "possible")
        .about_peer_of(&tunnel.server)
        .candidates(&["preshared", "wg-response-lost"]);
    seen.router
        .says_only(&["wg-response-rejected"])
        .is("warning", "possible");
    seen.hold("psk-differs", "The preshared keys differ");
}

// --- load and loss ---

#[test]
fn a_flood_is_a_storm_and_its_cookies_are_under_load() {
    let Some(lab) = Lab::builder().second_client().build() else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    let cookies = lab.inflict(&Fault::count_message(Message::Cookie).toward(Toward::Client));
    let watch = Everywhere::start(&lab, "wire-flood");
    // A second of load after each burst, and the client's attempt falls into it.
    let (flooder, server) = (lab.host("client2").clone(), &tunnel.server);
    wg_faults::flood_from(&flooder, &lab, server, 4000);
    wait_until(SOON, "a cookie reply", || {
        wg_faults::flood_from(&flooder, &lab, server, 1000);
        tunnel.knock();
        cookies.hits() > 0
    });
    let seen = watch.enough();
    seen.server
        .finding("wg-handshake-storm")
        .is("warning", "certain")
        .field("/subject/name", "wg0")
        .measures("initiations", 1000.0..)
        .tells("/evidence/busiest_source", &["10.78.0.2"]);
    assert!(
        seen.server.suppressed().contains(&"wg-under-load"),
        "{}",
        seen.server.everything()
    );
    // The flood's key is a stranger's.
    seen.server
        .says_at_most(&["wg-handshake-storm", "wg-unknown-initiator"]);
    seen.client.says_at_most(&["wg-under-load"]);
    // Of the flood, and of the client where its attempt fell into it.
    seen.router.says_at_most(&["wg-under-load"]);
    assert!(!seen.router.wrong().is_empty(), "{}", seen.router.everything());
    Scenario::of(
        "flood",
        "The responder is flooded with initiations by a third host",
    )
    .responder(&seen.server)
    .router(&seen.router)
    .holds();
}

#[test]
fn a_cookie_is_under_load_at_the_initiator() {
    let Some(lab) = Lab::builder().second_client().build() else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    let ours = Fault::new(
        &format!("ip daddr {} meta l4proto udp @th,64,8 3", lab.client_at().v4),
        "accept",
    );
    let cookies = lab.inflict(&ours.toward(Toward::Client));
    let client = Look::at(&lab, lab.client())
        .until_told()
        .case("wire-under-load-initiator")
        .start()
        .await_watching();
    let flooder = lab.host("client2").clone();
    let peer = tunnel.client.peers[0].clone();
    wait_until(SOON, "a cookie reply to the client", || {
        wg_faults::flood_from(&flooder, &lab, &tunnel.server, 3000);
        // A new peer begins a handshake at once, where the old one would wait five seconds.
        tunnel
            .client
            .wg(&["set", "wg0", "peer", &peer.public_key, "remove"]);
        tunnel.client.apply();
        tunnel.knock();
        wg_faults::flood_from(&flooder, &lab, &tunnel.server, 1000);
        cookies.hits() > 0
    });
    let client = client.enough();
    client
        .says_only(&["wg-under-load"])
        .is("warning", "certain")
        .about_peer_of(&tunnel.client)
        .measures("cookie_replies", 1.0..);
    Scenario::of(
        "under-load",
        "The responder is under load and answers with a cookie",
    )
    .initiator(&client)
    .holds();
}

#[test]
fn random_loss_of_thirty_percent_is_handshake_loss() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    // Each configuration anew would choose another.
    tunnel.client.port = Some(40_000);
    tunnel.start_both();
    let look = |ns: &Namespace, place: &str| {
        Look::at(&lab, ns)
            .until_told()
            .case(&format!("wire-loss-{place}"))
            .start()
            .await_watching()
    };
    let (client, router) = (look(lab.client(), "initiator"), look(lab.router(), "router"));
    let loss = lab.inflict(&Fault::lose_udp(30));
    // Each round is one handshake, begun by a peer that is new; one that took a retry shows that something was lost.
    let begin = || {
        let key = tunnel.client.peers[0].public_key.as_str();
        tunnel.client.wg(&["set", "wg0", "peer", key, "remove"]);
        tunnel.client.apply();
        tunnel.knock();
        lab::Watch::start()
    };
    let (mut round, mut retried) = (begin(), 0);
    let done = || tunnel.client.dump().peer().latest_handshake.is_some();
    wait_until(
        Duration::from_secs(100),
        "two handshakes that took a retry",
        || {
            let took = round.elapsed();
            if done() {
                retried += u32::from(took > Duration::from_secs(4));
                if retried < 2 {
                    // Whoever calls again within 20 ms is a flood to the responder.
                    lab::wait::holds_for(Duration::from_millis(100), "the handshake", done);
                    round = begin();
                }
            } else if took > Duration::from_secs(16) {
                round = begin();
            }
            retried >= 2
        },
    );
    assert!(loss.hits() > 0);
    // In which the devices are read once more.
    lab::wait::holds_for(Duration::from_millis(700), "the last handshake", done);
    client.interrupt();
    router.interrupt();
    let (client, router) = (client.finish(), router.finish());
    client
        .says_only(&["wg-handshake-loss"])
        .is("warning", "certain")
        .about_peer_of(&tunnel.client)
        .measures("lost_attempts", 2.0..)
        .measures("loss_share", 0.05..0.95);
    let found = client.finding("wg-handshake-loss");
    let (low, share, high) = (
        found.number("loss_share_low"),
        found.number("loss_share"),
        found.number("loss_share_high"),
    );
    assert!(low < share && share < high);
    // The server, too, calls when what it sent is lost, and may be in the middle of it.
    router.says_at_most(&["wg-handshake-loss", TIMEOUT]);
    Scenario::of("loss-30", "30 % of all UDP is lost at random")
        .initiator(&client)
        .holds();
}

// --- nothing ---

#[test]
fn handshakes_that_succeed_are_nothing_to_anybody() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.share_psk();
    tunnel.start_both();
    let watch = Everywhere::start(&lab, "wire-healthy");
    let _load = wants(&tunnel);
    tunnel.client.await_handshake(SOON);
    // A restart of the client makes another at once, from another port.
    tunnel.client.restart();
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    let seen = watch.enough();
    for verdict in [&seen.client, &seen.server, &seen.router] {
        verdict.nothing_wrong();
    }
    let keys = seen.server.collector("keys");
    assert_eq!(keys["state"], "ok", "{}", seen.server.everything());
    seen.hold("healthy", "None: a handshake, and another after a restart");
}

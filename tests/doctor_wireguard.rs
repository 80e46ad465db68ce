//! doctor says the truth of real WireGuard faults: at the host that suffers them, and at those that see a part or nothing.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::tunnel::{self, SERVER_IN, knock_of};
use lab::{
    Fault, Lab, Message, Nat, Peer, Reject, SOON, Toward, Tunnel, UdpReflector, WgDevice, ask, wait_until,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use truth::everywhere::await_initiations;
use truth::{Look, Repeat, Verdict, cases};
use wgnat::observation::{Body, Observation};

/// Codes of later issues that narrow a time-out down. They may replace it where they are true, and must not elsewhere.
const TIMEOUT: &str = "wg-handshake-timeout";

fn masqueraded() -> Option<Lab> {
    Lab::nat(Nat::Masquerade)
}

/// Lets the client begin a handshake and waits until its initiation has left the device.
#[track_caller]
fn begin(tunnel: &Tunnel) {
    tunnel.knock();
    wait_until(SOON, "the first initiation to leave", || {
        tunnel.client.dump().peer().tx >= 148
    });
}

/// Datagrams from one side into the tunnel, five a second.
fn send_always(from: &WgDevice, to: IpAddr, size: usize) -> Repeat {
    let ns = from.namespace().clone();
    Repeat::every(Duration::from_millis(200), move || knock_of(&ns, to, size))
}

/// A doctor at the client and one at the server, at the same time.
#[track_caller]
fn both(lab: &Lab, case: &str, duration: &str) -> (Verdict, Verdict) {
    let client = Look::at(lab, lab.client()).duration(duration).case(case).start();
    let server = Look::at(lab, lab.server())
        .duration(duration)
        .case(&format!("{case}-at-server"))
        .start();
    (client.finish(), server.finish())
}

// --- never connected ---

#[test]
fn a_peer_that_was_never_called_has_never_connected() {
    let Some(lab) = masqueraded() else { return };
    let tunnel = Tunnel::start(&lab);
    let (client, server) = both(&lab, "wg-never-connected", "2s");
    client
        .says_only(&["wg-never-connected"])
        .is("warning", "certain")
        .about_peer_of(&tunnel.client)
        .field("/subject/endpoint", "203.0.113.9:51820");
    assert_eq!(client.code, 1);
    assert_eq!(client.peer()["state"], "never");
    // It has no endpoint, and can only wait to be called.
    server.nothing_wrong();
    assert_eq!(server.peer()["state"], "no-endpoint");
}

// --- the same silence, many causes ---

/// What holds of every handshake that goes unanswered.
#[track_caller]
fn timed_out(verdict: &Verdict, tunnel: &Tunnel) {
    let found = verdict.says_only(&[TIMEOUT]);
    found.is("critical", "certain").about_peer_of(&tunnel.client);
    found.measures("unanswered_attempts", 2.0..);
    assert_eq!(verdict.code, 2);
    assert_eq!(verdict.peer()["state"], "failing");
}

#[test]
fn udp_dropped_both_ways_is_a_timeout() {
    let Some(lab) = masqueraded() else { return };
    let fault = lab.inflict(&Fault::drop_udp());
    let tunnel = Tunnel::start(&lab);
    begin(&tunnel);
    let (client, server) = both(&lab, "wg-handshake-timeout-udp-dropped", "1s");
    timed_out(&client, &tunnel);
    client.finding(TIMEOUT).candidates(&["drop", "key"]);
    // The second attempt is what the verdict hangs on, and it comes after the second that was asked for.
    assert!(client.stderr.contains("waiting"), "{}", client.everything());
    assert!(client.took > Duration::from_secs(2), "{}", client.everything());
    assert!(fault.hits() >= 2);
    server.nothing_wrong();
}

#[test]
fn an_impatient_look_judges_no_sooner() {
    let Some(lab) = masqueraded() else { return };
    let _fault = lab.inflict(&Fault::drop_udp());
    let tunnel = Tunnel::start(&lab);
    begin(&tunnel);
    let verdict = Look::at(&lab, lab.client())
        .args(&["--duration", "1s", "--max-duration", "1s"])
        .run();
    // One attempt without an answer yet is no time-out.
    verdict.nothing_wrong();
    assert!(!verdict.stderr.contains("waiting"), "{}", verdict.everything());
}

#[test]
fn lost_responses_are_a_timeout() {
    let Some(lab) = masqueraded() else { return };
    let fault = lab.inflict(&Fault::drop_message(Message::Response).toward(Toward::Client));
    let tunnel = Tunnel::start(&lab);
    begin(&tunnel);
    let (client, server) = both(&lab, "wg-handshake-timeout-responses-lost", "7s");
    timed_out(&client, &tunnel);
    client.finding(TIMEOUT).candidates(&["drop", "key"]);
    assert!(fault.hits() >= 2);
    // It answers, so nothing of its own fails; that its answers are lost is for wg-response-lost to say.
    server.says_at_most(&["wg-response-lost"]);
}

#[test]
fn a_wrong_server_key_is_a_timeout() {
    let Some(lab) = Lab::pair() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.give_client_wrong_server_key();
    tunnel.start_both();
    begin(&tunnel);
    let (client, server) = both(&lab, "wg-handshake-timeout-wrong-peer-key", "1s");
    timed_out(&client, &tunnel);
    client.finding(TIMEOUT).candidates(&["wg-wrong-peer-key"]);
    server.says_at_most(&["wg-wrong-peer-key"]);
}

#[test]
fn an_unknown_initiator_is_a_timeout() {
    let Some(lab) = Lab::pair() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.make_client_unknown();
    tunnel.start_both();
    begin(&tunnel);
    let (client, server) = both(&lab, "wg-handshake-timeout-unknown-initiator", "1s");
    timed_out(&client, &tunnel);
    client.finding(TIMEOUT).candidates(&["wg-unknown-initiator"]);
    server.says_at_most(&["wg-unknown-initiator"]);
}

#[test]
fn a_clock_put_back_is_a_timeout() {
    let Some(lab) = Lab::pair() else { return };
    let tunnel = Tunnel::start(&lab);
    tunnel.put_client_clock_back(&lab);
    begin(&tunnel);
    let (client, server) = both(&lab, "wg-handshake-timeout-clock-back", "1s");
    timed_out(&client, &tunnel);
    client.finding(TIMEOUT).candidates(&["wg-clock-replay"]);
    server.says_at_most(&["wg-clock-replay"]);
}

#[test]
fn a_differing_psk_is_a_response_rejected() {
    let Some(lab) = Lab::pair() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.make_psk_differ();
    tunnel.start_both();
    begin(&tunnel);
    // tests/doctor_handshakes.rs looks from the start, and at all hosts.
    let look = |ns, case: &str| {
        Look::at(&lab, ns)
            .until_told()
            .case(case)
            .start()
            .await_watching()
    };
    let case = "wg-handshake-timeout-psk-differs";
    let client = look(lab.client(), case);
    let server = look(lab.server(), &format!("{case}-at-server"));
    let so_far = tunnel.client.dump().peer().tx / 148;
    await_initiations(&tunnel.client, so_far + 3);
    let (client, server) = (client.enough(), server.enough());
    client
        .says_only(&["wg-response-rejected"])
        .is("critical", "likely")
        .about_peer_of(&tunnel.client)
        .measures("responses_not_accepted", 2.0..);
    assert_eq!(client.suppressed(), [TIMEOUT], "{}", client.everything());
    server.says_at_most(&["wg-response-rejected"]);
}

#[test]
fn a_session_that_dies_is_a_timeout_and_expires_in_the_end() {
    let Some(lab) = masqueraded() else { return };
    let tunnel = Tunnel::up(&lab);
    let _fault = lab.inflict(&Fault::drop_udp());
    // Fifteen seconds after the first datum without an answer the client begins a handshake; the second attempt has
    // failed ten seconds later.
    let record = lab.dir().join("record.jsonl");
    let path = record.to_str().expect("the lab's paths are text");
    let client = Look::at(&lab, lab.client())
        .args(&["--duration", "27s", "--max-duration", "60s", "--record", path])
        .start()
        .await_watching();
    let _load = send_always(&tunnel.client, SERVER_IN, 100);
    let client = client.finish();
    let found = client.says_only(&[TIMEOUT]);
    found.is("critical", "certain").about_peer_of(&tunnel.client);
    found.measures("last_handshake_age_seconds", 25.0..75.0);

    // Nobody waits three minutes for a test. In the record the last handshake is put back by them.
    let old = lab.dir().join("old.jsonl");
    cases::edit(&record, &old, |record| {
        put_handshakes_back(record, Duration::from_secs(200))
    });
    let verdict = replayed(&lab, &old, "wg-session-expired-folded");
    verdict
        .says_only(&[TIMEOUT])
        .measures("last_handshake_age_seconds", 225.0..275.0);
    assert_eq!(
        verdict.suppressed(),
        ["wg-session-expired"],
        "{}",
        verdict.everything()
    );

    // While one attempt has failed, and the second has not yet, no more can be said than that.
    let early = lab.dir().join("early.jsonl");
    cases::edit(&old, &early, |record| {
        cut_after_first_attempt(record, Duration::from_millis(5_600))
    });
    let verdict = replayed(&lab, &early, "wg-session-expired");
    verdict
        .says_only(&["wg-session-expired"])
        .is("critical", "certain")
        .about_peer_of(&tunnel.client);

    // A young session with one failed attempt is no finding.
    let young = lab.dir().join("young.jsonl");
    cases::edit(&record, &young, |record| {
        cut_after_first_attempt(record, Duration::from_millis(5_600))
    });
    replayed(&lab, &young, "one-attempt-of-a-live-session").nothing_wrong();
}

fn put_handshakes_back(record: &mut cases::Record, by: Duration) {
    for observation in &mut record.observations {
        let Body::Devices(devices) = &mut observation.body else {
            continue;
        };
        for peer in devices.iter_mut().flat_map(|d| &mut d.peers) {
            peer.last_handshake = peer.last_handshake.map(|at| at.before(by));
        }
    }
}

/// Ends the record some time after the first initiation on the wire.
fn cut_after_first_attempt(record: &mut cases::Record, after: Duration) {
    let is_initiation =
        |o: &&Observation| matches!(&o.body, Body::Packet(p) if p.payload.0.first() == Some(&1));
    let first = record
        .observations
        .iter()
        .find(is_initiation)
        .expect("an initiation was seen")
        .at;
    record.end = first + after;
    let end = record.end;
    record.observations.retain(|o| o.at <= end);
}

/// The verdict on a record; kept as a case where cases are recorded.
#[track_caller]
fn replayed(lab: &Lab, record: &std::path::Path, case: &str) -> Verdict {
    let path = record.to_str().expect("the lab's paths are text");
    let verdict = Look::at(lab, lab.client()).args(&["--replay", path]).run();
    cases::keep_copy(case, record, &verdict);
    verdict
}

// --- told by ICMP ---

#[track_caller]
fn unreachable(client: &Verdict, tunnel: &Tunnel, from: IpAddr, code: u8) {
    let found = client.says_only(&["wg-endpoint-unreachable"]);
    found
        .is("critical", "certain")
        .about_peer_of(&tunnel.client)
        .field("/subject/endpoint", "203.0.113.9:51820")
        .evidence("icmp_type", 3)
        .evidence("icmp_code", code)
        .evidence("icmp_from", from.to_string());
    assert_eq!(client.code, 2);
}

#[test]
fn a_closed_port_is_unreachable() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.client.start();
    begin(&tunnel);
    let (client, server) = both(&lab, "wg-endpoint-unreachable-port", "1s");
    unreachable(&client, &tunnel, lab.server_ip(), 3);
    client.finding("wg-endpoint-unreachable").fix(&["51820"]);
    server.nothing_wrong();
}

#[test]
fn a_daemon_that_dies_is_unreachable() {
    let Some(lab) = Lab::pair() else { return };
    let mut tunnel = Tunnel::up(&lab);
    tunnel.server.kill();
    let _load = send_always(&tunnel.client, SERVER_IN, 100);
    let client = Look::at(&lab, lab.client())
        .duration("3s")
        .case("wg-endpoint-unreachable-died")
        .run();
    // Data is what is answered with ICMP, so there is no need to wait for the handshake that follows it.
    assert!(!client.stderr.contains("waiting"), "{}", client.everything());
    client
        .says_only(&["wg-endpoint-unreachable"])
        .is("critical", "certain")
        .about_peer_of(&tunnel.client)
        .evidence("icmp_code", 3);
}

#[test]
fn an_endpoint_behind_a_firewall_that_rejects_is_unreachable() {
    let Some(lab) = masqueraded() else { return };
    let _fault = lab.inflict(&Fault::reject_udp(Reject::Admin));
    let tunnel = Tunnel::start(&lab);
    begin(&tunnel);
    let (client, server) = both(&lab, "wg-endpoint-unreachable-admin", "1s");
    unreachable(&client, &tunnel, lab.client_at().gateway().v4.into(), 13);
    client
        .finding("wg-endpoint-unreachable")
        .tells("/summary", &["10.77.0.1"]);
    server.nothing_wrong();
}

#[test]
fn an_endpoint_whose_host_is_gone_is_unreachable() {
    let Some(lab) = masqueraded() else { return };
    let _fault = lab.inflict(&Fault::reject_udp(Reject::Host));
    let tunnel = Tunnel::start(&lab);
    begin(&tunnel);
    let client = Look::at(&lab, lab.client())
        .duration("1s")
        .case("wg-endpoint-unreachable-host")
        .run();
    unreachable(&client, &tunnel, lab.client_at().gateway().v4.into(), 1);
}

#[test]
fn an_ipv6_endpoint_with_a_closed_port_is_unreachable() {
    let Some(lab) = Lab::routed() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.client.peers[0].endpoint = Some((lab.server_at().v6, tunnel::PORT).into());
    tunnel.client.start();
    begin(&tunnel);
    let client = Look::at(&lab, lab.client())
        .duration("1s")
        .case("wg-endpoint-unreachable-ipv6")
        .run();
    client
        .says_only(&["wg-endpoint-unreachable"])
        .is("critical", "certain")
        .about_peer_of(&tunnel.client)
        .evidence("icmp_type", 1)
        .evidence("icmp_code", 4)
        .evidence("icmp_from", lab.server_at().v6.to_string());
}

// --- routes ---

#[test]
fn a_missing_route_is_the_only_critical_thing() {
    let Some(lab) = masqueraded() else { return };
    let tunnel = Tunnel::start(&lab);
    tunnel.cut_route(&lab);
    let _load = send_always(&tunnel.client, SERVER_IN, 100);
    let client = Look::at(&lab, lab.client())
        .duration("2s")
        .case("wg-no-route")
        .run();
    client
        .says_only(&["wg-no-route"])
        .is("critical", "certain")
        .about_peer_of(&tunnel.client)
        .evidence("errno", libc::ENETUNREACH)
        .fix(&["ip route"]);
    let folded = client.suppressed();
    assert!(
        folded.contains(&"wg-never-connected") || folded.contains(&TIMEOUT),
        "{}",
        client.everything()
    );
}

#[test]
fn an_interface_that_is_down_is_no_route() {
    let Some(lab) = masqueraded() else { return };
    let tunnel = Tunnel::up(&lab);
    lab.client().ip(&["link set eth0 down"]);
    let _load = send_always(&tunnel.client, SERVER_IN, 100);
    let client = Look::at(&lab, lab.client())
        .duration("2s")
        .case("wg-no-route-link-down")
        .run();
    // A young session might also belong to a device whose socket lives elsewhere; refused packets make that unlikely.
    client
        .says_only(&["wg-no-route"])
        .is("critical", "likely")
        .about_peer_of(&tunnel.client);
}

#[test]
fn an_endpoint_routed_into_its_tunnel_is_a_loop() {
    let Some(lab) = masqueraded() else { return };
    let tunnel = Tunnel::start(&lab);
    tunnel.route_endpoint_into_tunnel(&lab);
    begin(&tunnel);
    let (client, server) = both(&lab, "wg-endpoint-loop", "2s");
    client
        .says_only(&["wg-endpoint-loop"])
        .is("critical", "certain")
        .about_peer_of(&tunnel.client)
        .tells("/summary", &["wg0", "203.0.113.9"])
        .fix(&["203.0.113.9"]);
    server.nothing_wrong();
}

#[test]
fn a_network_that_takes_a_peers_addresses_is_a_conflict() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.client.addresses[0] = "10.99.0.2/32".to_owned();
    tunnel.start_both();
    // As a home network that has the office's prefix.
    lab.client()
        .ip(&["route add 10.99.0.0/24 via 10.77.0.1 dev eth0"]);
    tunnel::knock(lab.client(), "fd99::1".parse().expect("valid"));
    tunnel.client.await_handshake(SOON);
    let (client, server) = both(&lab, "wg-allowed-ips-conflict-network", "2s");
    client
        .says_only(&["wg-allowed-ips-conflict"])
        .is("warning", "likely")
        .about_peer_of(&tunnel.client)
        .tells("/summary", &["10.99.0.0/24", "eth0"]);
    server.nothing_wrong();
}

#[test]
fn allowed_ips_without_a_route_are_a_conflict() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    // What `wg set` leaves that wg-quick would have added.
    tunnel.client.addresses[0] = "10.99.0.2/32".to_owned();
    tunnel.start_both();
    tunnel::knock(lab.client(), "fd99::1".parse().expect("valid"));
    tunnel.client.await_handshake(SOON);
    let (client, server) = both(&lab, "wg-allowed-ips-conflict-no-route", "2s");
    client
        .says_only(&["wg-allowed-ips-conflict"])
        .is("warning", "likely")
        .about_peer_of(&tunnel.client)
        .fix(&["ip route add 10.99.0.0/24 dev wg0"]);
    server.nothing_wrong();
}

#[test]
fn two_devices_with_one_prefix_are_a_conflict() {
    let Some(lab) = masqueraded() else { return };
    let tunnel = Tunnel::up(&lab);
    let mut second = WgDevice::new(lab.client(), "wg1", lab::Keys::generate());
    second.addresses = vec!["10.98.0.2/32".to_owned()];
    second.peers = vec![Peer::new(lab::Keys::generate().public(), "10.99.0.0/24")];
    second.start();
    let client = Look::at(&lab, lab.client())
        .duration("2s")
        .case("wg-allowed-ips-conflict-devices")
        .run();
    client
        .says_only(&["wg-allowed-ips-conflict"])
        .field("/severity", "warning")
        .tells("", &["wg0", "wg1", "10.99.0.0/24"]);
    drop(tunnel);
}

// --- sessions ---

#[test]
fn data_lost_one_way_is_one_way() {
    let Some(lab) = masqueraded() else { return };
    let tunnel = Tunnel::up(&lab);
    let inside = SocketAddr::new(SERVER_IN, 7000);
    let _reflector = UdpReflector::start(lab.server(), inside);
    let fault = lab.inflict(&Fault::drop_message(Message::Data).toward(Toward::Client));
    let client_ns = lab.client().clone();
    let _load = Repeat::every(Duration::from_millis(200), move || {
        let _ = ask(&client_ns, inside, 200, Duration::from_millis(50));
    });
    wait_until(SOON, "answers to be lost", || fault.hits() > 2);
    let (client, server) = both(&lab, "wg-one-way-lost", "5s");
    // Fifteen seconds of silence decide it, so it waits for them.
    assert!(client.stderr.contains("waiting"), "{}", client.everything());
    client
        .says_only(&["wg-one-way"])
        .field("/severity", "critical")
        .about_peer_of(&tunnel.client)
        // A peer that decrypts data answers with a keepalive at least, whatever its AllowedIPs.
        .ruled_out(&["allowedips"])
        .tells_not("/fixes", &["allowedips"]);
    // Data comes in and goes out here. That none arrives cannot be seen from this side.
    server.nothing_wrong();
}

#[test]
fn allowed_ips_that_do_not_match_are_one_way() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    "10.99.0.77/32".clone_into(&mut tunnel.server.peers[0].allowed_ips);
    tunnel.start_both();
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    let _load = send_always(&tunnel.client, SERVER_IN, 200);
    let (client, server) = both(&lab, "wg-one-way-allowed-ips", "5s");
    // Keepalives come back, so from here it may also be a peer that has nothing to say.
    client
        .says_only(&["wg-one-way"])
        .is("warning", "possible")
        .about_peer_of(&tunnel.client)
        .tells("/candidates", &["allowedips"]);
    server.says_at_most(&["wg-one-way"]);
}

#[test]
fn a_stream_without_answers_is_a_hint_at_most() {
    let Some(lab) = masqueraded() else { return };
    let _tunnel = Tunnel::up(&lab);
    // As a log shipper's. Somebody takes the datagrams, so not even ICMP comes back.
    let sink = SocketAddr::new(SERVER_IN, 9);
    let _sink = lab
        .server()
        .run(|| std::net::UdpSocket::bind(sink).expect("the port is free"));
    let ns = lab.client().clone();
    let _load = Repeat::every(Duration::from_millis(100), move || knock_of(&ns, SERVER_IN, 400));
    let (client, server) = both(&lab, "stream-without-answers", "18s");
    for found in client.findings().filter(|f| f.severity() != "info") {
        found.is("warning", "possible").tells("/summary", &["normal"]);
    }
    client.says_at_most(&["wg-one-way"]);
    server.nothing_wrong();
}

#[test]
fn a_tunnel_mtu_beyond_the_links_is_too_large() {
    let Some(lab) = masqueraded() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.client.mtu = 1500;
    tunnel.start_both();
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    let (client, server) = both(&lab, "wg-mtu-too-large", "2s");
    client
        .says_only(&["wg-mtu-too-large"])
        .is("warning", "certain")
        .evidence("tunnel_mtu", 1500)
        .evidence("overhead_bytes", 60)
        .fix(&["1440", "wg0"]);
    assert_eq!(client.code, 1);
    server.nothing_wrong();
}

#[test]
fn the_mtu_is_judged_by_the_endpoints_family() {
    let Some(lab) = Lab::routed() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    // 1430 + 60 fits into 1500, 1430 + 80 does not.
    tunnel.client.mtu = 1430;
    tunnel.start_both();
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    Look::at(&lab, lab.client()).duration("1s").run().nothing_wrong();
    tunnel.client.peers[0].endpoint = Some((lab.server_at().v6, tunnel::PORT).into());
    tunnel.client.apply();
    tunnel.knock();
    let verdict = Look::at(&lab, lab.client())
        .duration("1s")
        .case("wg-mtu-too-large-ipv6")
        .run();
    verdict
        .says_only(&["wg-mtu-too-large"])
        .is("warning", "certain")
        .evidence("overhead_bytes", 80)
        .fix(&["1420"]);
}

// --- roaming ---

#[test]
fn a_nat_that_rebinds_is_seen_as_roaming_at_the_server() {
    let Some(lab) = Lab::nat(Nat::Range(20000, 20099)) else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let old = tunnel.server.dump().peer().endpoint.expect("it has one");
    let server = Look::at(&lab, lab.server())
        .until_told()
        .case("wg-roamed-nat")
        .start()
        .await_watching();
    let client = Look::at(&lab, lab.client()).until_told().start().await_watching();
    lab.rebind(Nat::Range(30000, 30099));
    tunnel.knock();
    wait_until(SOON, "the endpoint to change", || {
        tunnel.server.dump().peer().endpoint != Some(old)
    });
    let new = tunnel.server.dump().peer().endpoint.expect("it has one");
    let server = server.enough();
    server.nothing_wrong();
    server
        .finding("wg-roamed")
        .field("/severity", "info")
        .about_peer_of(&tunnel.server)
        .tells("/evidence", &[&old.to_string(), &new.to_string()]);
    let client = client.enough();
    client.nothing_wrong();
    assert!(client.codes().is_empty(), "{}", client.everything());
}

#[test]
fn a_client_that_moves_is_seen_as_roaming_at_the_server() {
    let Some(lab) = Lab::builder().second_uplink().build() else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let server = Look::at(&lab, lab.server())
        .until_told()
        .case("wg-roamed-client")
        .start()
        .await_watching();
    lab.roam();
    tunnel.client.wg(&["set", "wg0", "listen-port", "40000"]);
    tunnel.knock();
    let moved: SocketAddr = (lab::addresses::CLIENT_ROAMED.v4, 40000).into();
    wait_until(SOON, "the endpoint to move", || {
        tunnel.server.dump().peer().endpoint == Some(moved)
    });
    let server = server.enough();
    server.nothing_wrong();
    server
        .finding("wg-roamed")
        .field("/severity", "info")
        .about_peer_of(&tunnel.server)
        .tells("/evidence", &["10.77.0.2", "10.79.0.2:40000"]);
}

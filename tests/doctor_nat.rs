//! doctor reads the NAT rules of this host, tells a full range from a crowded one, and what else fills its table.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::{CtFill, Lab, LoadProcess, Nat, SOON, Serve, TcpServer, UdpFlows, UdpReflector, Work};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use truth::{Look, Repeat, Verdict};

const NAT_AT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

fn at(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.server_ip(), 7000)
}

fn server(lab: &Lab) -> (Ipv4Addr, u16) {
    match at(lab) {
        SocketAddr::V4(v4) => (*v4.ip(), v4.port()),
        SocketAddr::V6(_) => unreachable!("the lab's server has an IPv4 address"),
    }
}

fn router(lab: &Lab, case: &str, duration: &str) -> Verdict {
    Look::at(lab, lab.router()).duration(duration).case(case).run()
}

#[test]
fn a_block_of_kept_ports_fails_although_ports_are_free() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    lab.router()
        .fill_conntrack(CtFill::translated(60_000, NAT_AT, server(&lab)));
    let flows = UdpFlows::open(lab.client(), at(&lab), 200);
    let load = Repeat::every(Duration::from_millis(200), move || flows.send());
    // The closer look is the second reading, and a starved machine takes seconds of waiting for each.
    let verdict = router(&lab, "snat-ports-exhausted-clustered", "12s");
    verdict
        .says_only(&["snat-ports-exhausted"])
        .is("critical", "likely")
        .tells("/title", &["although some are free"])
        .measures("in_use", 60_000.0..64_400.0)
        .evidence("available", 64_512)
        // Each of the five rows begins inside the block with 0.93: 0.93⁵.
        .measures("search_fails", 0.6..0.8)
        .field("/fixes/0/title", "Pick NAT ports at random");
    drop(load);
    // The fix, as given, when what was there has ended: as many ports are in use, and every new flow finds one.
    lab.set_nat(Nat::FullyRandom);
    lab.router().conntrack_flush();
    lab.router().fill_conntrack(CtFill {
        spread: true,
        ..CtFill::translated(60_000, NAT_AT, server(&lab))
    });
    let fresh = UdpFlows::open(lab.client(), at(&lab), 100);
    assert_eq!(fresh.answered(SOON), 100);
}

#[test]
fn every_port_of_the_default_range_in_use_is_exhaustion() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    lab.router()
        .fill_conntrack(CtFill::translated(64_512, NAT_AT, server(&lab)));
    let flows = UdpFlows::open(lab.client(), at(&lab), 20);
    let _load = Repeat::every(Duration::from_millis(200), move || flows.send());
    let verdict = router(&lab, "snat-ports-exhausted-default-range", "3s");
    verdict
        .says_only(&["snat-ports-exhausted"])
        .is("critical", "certain")
        .tells("/title", &["are used up"])
        .evidence("in_use", 64_512)
        .evidence("available", 64_512)
        .evidence("range_inferred", false);
}

#[test]
fn the_range_of_a_rule_is_read_not_guessed() {
    let Some(lab) = Lab::nat(Nat::Range(20_000, 29_999)) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    // So few of ten thousand that their places tell nothing of the range.
    let flows = UdpFlows::open(lab.client(), at(&lab), 6);
    assert_eq!(flows.answered(SOON), 6);
    let verdict = router(&lab, "healthy-nat-range", "1s");
    verdict.nothing_wrong();
    let row = &verdict.report["conntrack"]["snat"][0];
    assert_eq!(row["available"], 10_000, "{}", verdict.everything());
    assert_eq!(row["available_inferred"], false);
    assert_eq!(verdict.collector("nat-rules")["state"], "ok");
}

#[test]
fn rules_of_iptables_nft_are_read() {
    let Some(lab) = Lab::routed() else {
        return;
    };
    let rule = [
        "-t",
        "nat",
        "-A",
        "POSTROUTING",
        "-o",
        "wan0",
        "-p",
        "udp",
        "-j",
        "MASQUERADE",
        "--to-ports",
        "20000-20099",
    ];
    let mut iptables = lab.router().command("iptables-nft");
    iptables.args(rule);
    lab::exec::run(iptables);
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let flows = UdpFlows::open(lab.client(), at(&lab), 100);
    assert_eq!(flows.answered(SOON), 100);
    let verdict = router(&lab, "snat-ports-exhausted-quiet", "1s");
    verdict
        .says_only(&["snat-ports-exhausted"])
        // Nothing fails yet, but the range is the rule's own, and full.
        .is("critical", "certain")
        .evidence("in_use", 100)
        .evidence("available", 100)
        .evidence("range_inferred", false)
        .tells("/evidence/rule", &["ip nat POSTROUTING handle"]);
}

#[test]
fn connects_of_the_nats_own_host_time_out_by_its_range() {
    let Some(lab) = Lab::nat(Nat::Range(20_000, 20_099)) else {
        return;
    };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let held = lab::hold(lab.client(), at(&lab), 100);
    assert_eq!(held.streams.len(), 100, "{:?}", held.error);
    // The kernel says nothing to a TCP connect whose first packet its own NAT drops.
    let work = Work::Try {
        to: at(&lab),
        patience: Duration::from_millis(1200),
    };
    let _processes: Vec<_> = (0..4)
        .map(|_| LoadProcess::start(lab.router(), "node", None, work))
        .collect();
    let verdict = Look::at(&lab, lab.router()).duration("4s").run();
    verdict
        .says_only(&["snat-ports-exhausted"])
        .is("critical", "certain")
        .field("/subject/proto", "tcp")
        .field("/subject/destination", at(&lab).to_string())
        .evidence("in_use", 100)
        .measures("insert_failed", 4.0..)
        .fix(&["reuse connections"]);
    // Told beneath its cause, and nowhere else.
    let mut beneath = verdict.suppressed();
    beneath.sort_unstable();
    assert_eq!(beneath, ["connect-timeout", "conntrack-insert-failed"]);
}

#[test]
fn a_full_range_whose_connections_have_ended_still_serves() {
    let Some(lab) = Lab::nat(Nat::Range(20_000, 20_099)) else {
        return;
    };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    lab::fill_time_wait(lab.client(), at(&lab), 100);
    let verdict = router(&lab, "snat-ports-low-ended", "1s");
    verdict
        .says_only(&["snat-ports-low"])
        .is("warning", "certain")
        // Some of these may have taken the port of an earlier one already.
        .measures("in_use", 90.0..=100.0)
        .evidence("available", 100)
        .measures("closing", 90.0..=100.0)
        .tells("/summary", &["may give such a port to a new connection"]);
    // What it says is so (Linux 6.5): each of these has an exchange, although no port is free.
    lab::fill_time_wait(lab.client(), at(&lab), 20);
}

#[test]
fn zones_have_ports_of_their_own() {
    let Some(lab) = Lab::nat(Nat::Range(20_000, 20_099)) else {
        return;
    };
    // Every second flow is of another zone: 100 ports are too few for 120 flows of one.
    lab.router().nft(
        "table ip lab_zones { chain pre { type filter hook prerouting priority raw; \
         iifname != \"wan0\" udp sport & 1 == 1 ct zone set 7; udp dport & 1 == 1 ct zone set 7; }; }",
    );
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let flows = UdpFlows::open(lab.client(), at(&lab), 120);
    flows.send();
    let verdict = router(&lab, "healthy-nat-zones", "1s");
    verdict.nothing_wrong();
    let rows = verdict.report["conntrack"]["snat"].as_array().expect("a list");
    let of = |zone: u64| {
        let row = rows.iter().find(|row| row["zone"] == zone);
        row.and_then(|row| row["in_use"].as_u64()).unwrap_or(0)
    };
    assert!(
        of(0) > 20 && of(7) > 20 && of(0) + of(7) == 120,
        "{}",
        verdict.everything()
    );
}

#[test]
fn legacy_iptables_is_said_not_to_be_read() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut iptables = lab.router().command("iptables-legacy");
    iptables.args(["-t", "nat", "-L", "-n"]);
    lab::exec::run(iptables);
    let verdict = router(&lab, "healthy-legacy-iptables", "1s");
    verdict.nothing_wrong();
    let collector = verdict.collector("nat-rules");
    assert_eq!(collector["state"], "degraded", "{}", verdict.everything());
    let reason = collector["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("legacy iptables"), "{reason}");
}

#[test]
fn collisions_are_a_hint_without_privileges() {
    let Some(lab) = Lab::nat(Nat::Range(20_000, 20_999)) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let first = UdpFlows::open(lab.client(), at(&lab), 650);
    assert_eq!(first.answered(SOON), 650);
    let (client, to, opened) = (lab.client().clone(), at(&lab), AtomicU32::new(0));
    let _load = Repeat::every(Duration::from_millis(200), move || {
        // Up to 900: beyond it insertions may fail, which is another finding.
        if opened.fetch_add(1, Ordering::Relaxed) < 25 {
            UdpFlows::open(&client, to, 10).send();
        }
    });
    let mut doctor = lab.wgnat_as_nobody(lab.router());
    doctor.args(["doctor", "--json"]);
    let verdict = Look::with(doctor)
        .duration("5s")
        .case("snat-ports-low-by-collisions")
        .run();
    verdict
        .finding("snat-ports-low")
        .is("warning", "possible")
        .measures("occupancy_at_most", 0.7..0.97)
        .candidates(&["run low", "same source ports"]);
    assert_eq!(verdict.wrong(), ["snat-ports-low"], "{}", verdict.everything());
}

#[test]
fn idle_connections_hold_much_of_the_table() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let count = u32::try_from(lab.router().conntrack_max() * 28 / 100).expect("it is no larger");
    // 600 s are left of five days: idle for nearly all of them.
    lab.router().fill_conntrack(CtFill::assured(count));
    let verdict = router(&lab, "conntrack-stale", "1s");
    verdict
        .says_only(&["conntrack-stale"])
        .is("warning", "likely")
        .field("/subject/kind", "conntrack")
        .evidence("idle", count)
        .evidence("timeout_seconds", 432_000.0)
        .fix(&["nf_conntrack_tcp_timeout_established"]);
    // The fix: those that use the shorter time-out are not idle by it.
    lab.router()
        .sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", 600);
    router(&lab, "healthy-conntrack-short-timeout", "1s").nothing_wrong();
}

#[test]
fn dns_is_most_of_the_table() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let dns = SocketAddr::new(lab.server_ip(), 53);
    let _reflector = UdpReflector::start(lab.server(), dns);
    let questions = UdpFlows::open(lab.client(), dns, 1100);
    assert!(questions.answered(SOON) >= 1050);
    let verdict = router(&lab, "conntrack-dns", "1s");
    verdict.nothing_wrong();
    verdict
        .finding("conntrack-dns")
        .is("info", "certain")
        .measures("dns", 1050.0..)
        .measures("translated_at_least", 1050.0..)
        // What is translated must be tracked.
        .fix(&["caching resolver"]);
}

/// The machine's number of buckets, as it was before.
struct Buckets(String);

impl Buckets {
    const PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";

    fn set(count: u32) -> Self {
        let before = std::fs::read_to_string(Self::PATH).expect("conntrack is there");
        std::fs::write(Self::PATH, count.to_string()).expect("root may set the buckets");
        Self(before)
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::PATH, self.0.trim());
    }
}

#[test]
fn a_table_at_twice_its_buckets_walks_chains() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    // Machine-wide. With four times as many entries in another namespace, as other tests have, chains stay short enough.
    let _buckets = Buckets::set(65_536);
    lab.router()
        .sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", 600);
    lab.router().fill_conntrack(CtFill::assured(150_000));
    let verdict = router(&lab, "conntrack-buckets", "1s");
    verdict.nothing_wrong();
    verdict
        .finding("conntrack-buckets")
        .is("info", "certain")
        .evidence("buckets", 65_536)
        .measures("entries_per_bucket", 2.2..2.4)
        .fix(&["nf_conntrack_buckets=262144"]);
}

#[test]
fn a_range_that_fills_is_forecast() {
    let Some(lab) = Lab::nat(Nat::Range(20_000, 21_999)) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let first = UdpFlows::open(lab.client(), at(&lab), 1300);
    assert!(first.answered(SOON) >= 1290);
    let (client, to, opened) = (lab.client().clone(), at(&lab), AtomicU32::new(0));
    let _load = Repeat::every(Duration::from_millis(200), move || {
        if opened.fetch_add(1, Ordering::Relaxed) < 40 {
            UdpFlows::open(&client, to, 10).send();
        }
    });
    let verdict = router(&lab, "snat-ports-low-forecast", "6s");
    let found = verdict.says_only(&["snat-ports-low"]).is("warning", "certain");
    let (low, at, high) = (
        found.number("exhausted_in_seconds_low"),
        found.number("exhausted_in_seconds"),
        found.number("exhausted_in_seconds_high"),
    );
    // Some 400 ports are left at about 50 a second; a starved machine opens them more slowly.
    assert!(
        0.0 < low && low <= at && at <= high && high < 600.0,
        "{low} {at} {high}"
    );
}

#[test]
fn new_connections_are_counted_by_events_where_asked_for() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let count = |extra: &[&str]| {
        let running = Look::at(&lab, lab.router())
            .duration("3s")
            .args(extra)
            .args(&["-v"])
            .start()
            .await_watching();
        let flows = UdpFlows::open(lab.client(), at(&lab), 300);
        assert_eq!(flows.answered(SOON), 300);
        running.finish()
    };
    let verdict = count(&["--conntrack-events"]);
    verdict.nothing_wrong();
    let conntrack = &verdict.report["conntrack"];
    assert_eq!(
        conntrack["new_entries_at_least"],
        false,
        "{}",
        verdict.everything()
    );
    // All of them, and what else the router may have sent or seen.
    let new = conntrack["new_entries"].as_u64().expect("counted");
    assert!((300..400).contains(&new), "{}", verdict.everything());
    assert!(
        conntrack["new_per_second"]
            .as_f64()
            .is_some_and(|rate| rate > 5.0)
    );
    // Without being asked nobody listens, and nothing is claimed.
    let silent = count(&[]);
    assert!(silent.report["conntrack"]["new_entries"].is_null());
}

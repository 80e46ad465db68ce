//! `wgnat path` with ever fewer privileges, with many targets, and on a link that goes down meanwhile.
#![allow(clippy::expect_used)] // a panic is how a test fails

mod lab;
mod truth;

use std::net::SocketAddr;
use std::time::Duration;

use lab::tls::{self, Authority, Wish};
use lab::{DnsReply, DnsServer, Fault, Lab, SOON, Serve, TcpServer, UdpReflector, wait_until};
use serde_json::Value;
use truth::{Look, Verdict};

#[track_caller]
fn row<'a>(verdict: &'a Verdict, target: &str) -> &'a Value {
    let rows = verdict.report["paths"].as_array().expect("rows");
    rows.iter()
        .find(|row| row["target"] == target)
        .unwrap_or_else(|| panic!("no row for {target}.\n{}", verdict.everything()))
}

#[test]
fn each_privilege_that_is_missing_is_said_and_the_rest_is_measured() {
    let Some(lab) = Lab::routed() else { return };
    let ip = lab.server_ip();
    let (tcp, udp) = (SocketAddr::new(ip, 8080), SocketAddr::new(ip, 7000));
    let _tcp = TcpServer::start(lab.server(), tcp, Serve::Echo);
    let _udp = UdpReflector::start(lab.server(), udp);
    let address = "192.0.2.1".parse().expect("an address");
    let _dns = DnsServer::start(lab.server(), ip, DnsReply::Address(address, Duration::ZERO));
    let echo = ip.to_string();
    let works = [
        format!("tcp:{tcp}"),
        format!("udp:{udp}"),
        format!("dns:a.example@{ip}"),
    ];
    // Rungs: all privileges; none, with a group that may use ping sockets; none at all.
    for (nobody, group, echoes) in [
        (false, "1 0", true),
        (true, "0 65534", true),
        (true, "1 0", false),
    ] {
        lab.client().sysctl("net.ipv4.ping_group_range", group);
        let mut command = if nobody {
            lab.wgnat_as_nobody(lab.client())
        } else {
            lab.wgnat(lab.client())
        };
        command.args([
            "path",
            "--json",
            "--mtu",
            "--hops",
            "--timeout",
            "5s",
            "--count",
            "5",
        ]);
        command.arg(&echo).args(&works);
        let verdict = Look::with(command).run();
        verdict.nothing_wrong();
        let told = |target: &str| row(&verdict, target)["problems"].to_string();
        for target in &works {
            let row = row(&verdict, target);
            assert_eq!(
                (&row["lost"], &row["answered"]),
                (&0.into(), &5.into()),
                "{row:#}"
            );
            let name = row["target"].as_str().unwrap_or_default();
            assert_eq!(told(name).contains("hops: needs CAP_NET_RAW"), nobody, "{row:#}");
            assert_eq!(
                row["hops"].as_array().is_some_and(|h| !h.is_empty()),
                !nobody,
                "{row:#}"
            );
        }
        let row = row(&verdict, &echo);
        assert_eq!(row["answered"], if echoes { 5 } else { 0 }, "{row:#}");
        assert_eq!(
            row["mtu"]["bytes"],
            if echoes { 1500.into() } else { Value::Null },
            "{row:#}"
        );
        assert_eq!(told(&echo).contains("ping_group_range"), !echoes, "{row:#}");
        let collector = verdict.collector("paths");
        let state = if nobody { "degraded" } else { "ok" };
        assert_eq!(collector["state"], state, "{}", verdict.everything());
        if nobody {
            let reason = collector["reason"].as_str().unwrap_or_default();
            assert!(
                reason.contains("all targets: hops: needs CAP_NET_RAW"),
                "{reason}"
            );
        }
    }
}

#[test]
fn fifty_targets_at_once_are_measured_and_their_memory_is_told() {
    let Some(lab) = Lab::routed() else { return };
    let ip = lab.server_ip();
    let (http, https) = (SocketAddr::new(ip, 8080), SocketAddr::new(ip, 8443));
    let authority = Authority::new("Lab CA");
    let config = authority.config(&Wish::good_for(ip));
    tls::serve(lab.server(), https, &config, Duration::ZERO);
    let _http = TcpServer::start(lab.server(), http, Serve::Echo);
    let mut targets: Vec<String> = (0..20).map(|n| format!("https://{https}/{n}")).collect();
    targets.extend((0..30).map(|n| format!("tcp:{ip}:{}", 9000 + n)));
    let mut command = lab.wgnat(lab.client());
    command
        .args(["path", "--json", "--timeout", "10s", "--count", "10"])
        .args(&targets);
    let running = Look::with(command).start();
    let status = format!("/proc/{}/status", running.pid());
    let mut peak = 0_u64;
    // The peak only rises, so the last one seen before the end is it, but for the printing of the report.
    while let Some(now) = std::fs::read_to_string(&status)
        .ok()
        .and_then(|text| peak_kib(&text))
    {
        peak = peak.max(now);
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(5));
    }
    let verdict = running.finish();
    verdict.nothing_wrong();
    assert_eq!(verdict.report["paths"].as_array().map(Vec::len), Some(50));
    for target in &targets {
        assert_eq!(row(&verdict, target)["lost"], 0, "{}", verdict.everything());
    }
    assert!(peak > 1000, "no memory was read");
    println!(
        "path to 50 targets, peak memory (debug build): {:.1} MiB",
        peak as f64 / 1024.0
    );
}

fn peak_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_link_that_goes_down_meanwhile_is_this_host_s_and_said() {
    let Some(lab) = Lab::routed() else { return };
    let target = lab.server_ip().to_string();
    // Counts; nothing is dropped.
    let seen = lab.inflict(&Fault::new("icmp type echo-request", "accept"));
    let mut command = lab.wgnat(lab.client());
    command.args([
        "path",
        "--json",
        "--interval",
        "100ms",
        "--timeout",
        "3s",
        "--count",
        "60",
    ]);
    command.arg(&target);
    let running = Look::with(command).start();
    wait_until(SOON, "some echoes to leave", || seen.hits() >= 5);
    lab.client().ip(&["link set eth0 down"]);
    let verdict = running.finish();
    verdict.says_at_most(&["path-loss"]);
    let row = row(&verdict, &target);
    assert!(row["answered"].as_u64().is_some_and(|n| n >= 1), "{row:#}");
    assert!(row["failures"].to_string().contains("not sent"), "{row:#}");
    // What was not sent was not lost.
    let sum = |names: [&str; 2]| names.iter().filter_map(|n| row[*n].as_u64()).sum::<u64>();
    assert!(sum(["answered", "lost"]) < 60, "{row:#}");
    assert_eq!(
        verdict.collector("paths")["state"],
        "degraded",
        "{}",
        verdict.everything()
    );
}

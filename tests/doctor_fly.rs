//! doctor and the agent on a Fly machine: it says who it is, whether `.internal` resolves, whether the private network carries packets and
//! how large, what it leaves by, and that some ports are not let out.
#![allow(clippy::expect_used)] // a panic is how a test fails

mod agent;
mod lab;
mod truth;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use agent::Agent;
use lab::wgnat::Doctor;
use lab::{Dnsmasq, Fault, Lab, Machine, Nat, Serve, StunServer, TcpServer, exec};
use serde_json::Value;
use truth::Repeat;

/// Fly's resolver.
const RESOLVER: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 3));
/// The machine itself.
const OWN: Ipv6Addr = Ipv6Addr::new(0xfdaa, 0, 0x18, 0xa7b, 1, 0, 0, 2);

fn other(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfdaa, 0, 0x18, 0xa7b, 9, 0, 0, n)
}

fn machine(id: &str, region: &'static str, address: Ipv6Addr) -> Machine {
    Machine {
        id: id.to_owned(),
        region,
        address,
    }
}

/// Itself and two others.
fn machines() -> Vec<Machine> {
    vec![
        machine("148e21", "ams", OWN),
        machine("2a", "ams", other(2)),
        machine("3b", "gru", other(3)),
    ]
}

/// The client is the machine; the server is the private network's other end: resolver and other machines.
fn sixpn(lab: &Lab) {
    let add = |address: IpAddr| format!("address add {address}/128 dev eth0 nodad");
    lab.client().ip(&[&add(OWN.into())]);
    lab.server().ip(&[
        &add(RESOLVER),
        &add(other(2).into()),
        &add(other(3).into()),
        &format!("route add {OWN} via {}", lab.server_at().gateway().v6),
    ]);
    lab.router().ip(&[
        &format!("route add {RESOLVER} via {}", lab.server_at().v6),
        &format!("route add fdaa:0:18:a7b:9::/80 via {}", lab.server_at().v6),
        &format!("route add {OWN} via {}", lab.client_at().v6),
    ]);
    lab.client().set_resolv_conf(&format!("nameserver {RESOLVER}\n"));
}

/// The environment of the machine.
fn environment(command: &mut Command) {
    command
        .env("FLY_MACHINE_ID", "148e21")
        .env("FLY_PRIVATE_IP", OWN.to_string())
        .env("FLY_REGION", "ams")
        .env("FLY_APP_NAME", "web")
        .env("FLY_PROCESS_GROUP", "app")
        .env("FLY_PUBLIC_IP", "2001:db8::77");
}

fn doctor(lab: &Lab, args: &[&str]) -> Doctor {
    let mut command = lab.wgnat(lab.client());
    command.args(["doctor", "--json"]).args(args);
    environment(&mut command);
    lab.json(command)
}

fn checks(lab: &Lab) -> Doctor {
    doctor(lab, &["--fly-checks"])
}

#[track_caller]
fn row<'a>(report: &'a Doctor, target: &str) -> &'a Value {
    let rows = report.report["paths"].as_array().expect("rows");
    let found = rows.iter().find(|row| row["target"] == target);
    found.unwrap_or_else(|| panic!("no row for {target}.\n{}", report.everything()))
}

#[test]
fn a_healthy_machine_is_recognised_and_nothing_is_wrong() {
    let Some(lab) = Lab::routed() else { return };
    sixpn(&lab);
    let _dns = Dnsmasq::start(lab.server(), RESOLVER, &machines());
    let report = checks(&lab);
    assert_eq!(report.codes(), Vec::<&str>::new(), "{}", report.everything());
    let fly = &report.report["host"]["fly"];
    assert_eq!(fly["app"], "web");
    assert_eq!(fly["process_group"], "app");
    assert_eq!(fly["private_ip"], OWN.to_string().as_str());
    assert_eq!(fly["public_ip"], "2001:db8::77");
    assert_eq!(fly["name_servers"][0], "fdaa::3");
    let net = &report.report["fly_net"];
    assert_eq!((&net["machines"], &net["measured"]), (&2.into(), &2.into()));
    assert_eq!(net["resolvers"][0]["internal"], "listed");
    for n in [2, 3] {
        let row = row(&report, &other(n).to_string());
        assert_eq!(row["lost"], 0, "{row:#}");
        assert_eq!(row["mtu"]["bytes"], 1500, "{row:#}");
    }
    // What asks nobody sends nothing to anybody.
    let quiet = doctor(&lab, &["--duration", "1s"]);
    assert_eq!(quiet.codes(), Vec::<&str>::new(), "{}", quiet.everything());
    assert_eq!(quiet.report["fly_net"], Value::Null);
    assert_eq!(quiet.report["paths"], Value::Array(Vec::new()));
}

#[test]
fn a_list_that_fits_no_datagram_is_had_over_tcp() {
    let Some(lab) = Lab::routed() else { return };
    sixpn(&lab);
    let mut many = machines();
    many.extend((0..40).map(|n| machine(&format!("silent{n:02}"), "nrt", other(100 + n))));
    let _dns = Dnsmasq::start(lab.server(), RESOLVER, &many);
    let report = checks(&lab);
    let net = &report.report["fly_net"];
    assert_eq!(
        (&net["machines"], &net["measured"], &net["unread"]),
        (&42.into(), &16.into(), &0.into()),
        "{}",
        report.everything()
    );
}

#[test]
fn a_resolver_that_knows_no_internal_is_named() {
    let Some(lab) = Lab::routed() else { return };
    sixpn(&lab);
    let other = lab.server_ip();
    let _fly = Dnsmasq::start(lab.server(), RESOLVER, &machines());
    let _other = Dnsmasq::start(lab.server(), other, &[]);
    lab.client()
        .set_resolv_conf(&format!("nameserver {other}\nnameserver {RESOLVER}\n"));
    let report = checks(&lab);
    assert_eq!(report.codes(), ["fly-internal-dns"], "{}", report.everything());
    let finding = report.finding("fly-internal-dns");
    assert_eq!(
        (&finding["severity"], &finding["confidence"]),
        (&"warning".into(), &"certain".into())
    );
    assert_eq!(finding["subject"]["address"], other.to_string().as_str());
    assert_eq!(finding["evidence"]["answer"], "NXDOMAIN");
    // The right order is no finding: the second is asked only where the first is silent.
    lab.client()
        .set_resolv_conf(&format!("nameserver {RESOLVER}\nnameserver {other}\n"));
    let report = checks(&lab);
    assert_eq!(report.codes(), Vec::<&str>::new(), "{}", report.everything());
    // Without asking it is a hint at most.
    lab.client().set_resolv_conf(&format!("nameserver {other}\n"));
    let report = doctor(&lab, &["--duration", "1s"]);
    assert_eq!(report.codes(), ["fly-internal-dns"], "{}", report.everything());
    let finding = report.finding("fly-internal-dns");
    assert_eq!(
        (&finding["severity"], &finding["confidence"]),
        (&"info".into(), &"possible".into())
    );
    assert_eq!(report.code, 0);
}

#[test]
fn a_dead_or_silent_resolver_fails_and_is_not_said_to_know_nothing() {
    let Some(lab) = Lab::routed() else { return };
    sixpn(&lab);
    // Nobody listens.
    let dead = checks(&lab);
    assert_eq!(dead.codes(), ["dns-failing"], "{}", dead.everything());
    assert_eq!(dead.finding("dns-failing")["severity"], "critical");
    assert_eq!(dead.report["fly_net"]["resolvers"][0]["internal"], "failed");
    // Somebody does, and nothing arrives.
    let _dns = Dnsmasq::start(lab.server(), RESOLVER, &machines());
    let _fault = lab.inflict(&Fault::new("ip6 daddr fdaa::3", "drop"));
    let silent = checks(&lab);
    assert_eq!(silent.codes(), ["dns-failing"], "{}", silent.everything());
    let candidates = silent.finding("dns-failing")["candidates"]
        .as_array()
        .map(Vec::len);
    assert!(candidates >= Some(2), "{}", silent.everything());
}

#[test]
fn a_private_network_where_nobody_answers_is_one_finding() {
    let Some(lab) = Lab::routed() else { return };
    sixpn(&lab);
    let _dns = Dnsmasq::start(lab.server(), RESOLVER, &machines());
    let fault = lab.inflict(&Fault::new("ip6 daddr fdaa:0:18:a7b:9::/80", "drop"));
    let report = checks(&lab);
    assert_eq!(
        report.codes(),
        ["fly-mesh-unreachable"],
        "{}",
        report.everything()
    );
    assert!(fault.hits() > 0);
    let finding = report.finding("fly-mesh-unreachable");
    assert_eq!(finding["confidence"], "likely");
    assert_eq!(finding["evidence"]["machines"], 2);
    fault.lift();
    // One of two is that machine's own fault.
    let _one = lab.inflict(&Fault::new(&format!("ip6 daddr {}", other(3)), "drop"));
    let report = checks(&lab);
    assert_eq!(report.codes(), ["path-loss"], "{}", report.everything());
}

#[test]
fn large_packets_that_vanish_in_the_private_network_are_found() {
    let Some(lab) = Lab::routed() else { return };
    sixpn(&lab);
    let _dns = Dnsmasq::start(lab.server(), RESOLVER, &machines());
    let _fault = lab.inflict(&Fault::drop_longer_than(1380));
    let report = checks(&lab);
    assert_eq!(
        report.codes(),
        ["path-mtu", "path-mtu"],
        "{}",
        report.everything()
    );
    assert_eq!(
        report.finding("path-mtu")["evidence"]["largest_passed_bytes"],
        1380
    );
    assert_eq!(report.finding("path-mtu")["confidence"], "likely");
}

#[test]
fn ports_that_are_let_out_nowhere_are_a_hypothesis() {
    let Some(lab) = Lab::routed() else { return };
    sixpn(&lab);
    let at = |n: u8, port: u16| SocketAddr::from(([203, 0, 113, n], port));
    let _servers: Vec<TcpServer> = [at(9, 443), at(9, 587), at(10, 587)]
        .map(|at| TcpServer::start(lab.server(), at, Serve::Echo))
        .into();
    let targets = [
        "tcp:203.0.113.9:587",
        "tcp:203.0.113.10:587",
        "tcp:203.0.113.9:443",
    ];
    let mut args = Vec::new();
    for target in targets {
        args.extend(["--target", target]);
    }
    let open = doctor(&lab, &args);
    assert_eq!(open.codes(), Vec::<&str>::new(), "{}", open.everything());
    let fault = lab.inflict(&Fault::new("tcp dport 587", "drop"));
    let report = doctor(&lab, &args);
    let finding = report.finding("fly-egress-policy");
    assert!(fault.hits() > 0);
    assert_eq!(
        (&finding["severity"], &finding["confidence"]),
        (&"warning".into(), &"possible".into())
    );
    assert_eq!(
        (
            &finding["evidence"]["ports_failing"],
            &finding["evidence"]["ports_reached"]
        ),
        (&"587".into(), &"443".into())
    );
    assert!(finding["candidates"].as_array().expect("candidates").len() >= 3);
    for finding in report.findings() {
        assert_ne!(finding["severity"], "critical", "{}", report.everything());
        let code = finding["code"].as_str().expect("a code");
        let of_it = ["fly-egress-policy", "path-loss", "connect-timeout"];
        assert!(of_it.contains(&code), "{}", report.everything());
    }
    // One server that is down on that port is no policy.
    let args = ["--target", targets[0], "--target", targets[2]];
    doctor(&lab, &args).lacks("fly-egress-policy");
}

/// New connections, again and again, of which each that is made ends at once; several at a time.
fn wants(lab: &Lab, to: &[SocketAddr]) -> Vec<Repeat> {
    to.iter()
        .flat_map(|to| [*to; 3])
        .map(|to| {
            let ns = lab.client().clone();
            Repeat::every(Duration::from_millis(100), move || {
                drop(ns.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(3500))));
            })
        })
        .collect()
}

#[test]
fn the_app_s_own_connections_tell_of_ports_that_are_let_out_nowhere() {
    let Some(lab) = Lab::routed() else { return };
    sixpn(&lab);
    let at = |n: u8, port: u16| SocketAddr::from(([203, 0, 113, n], port));
    let all = [at(9, 443), at(9, 587), at(10, 587)];
    let _servers: Vec<TcpServer> = all
        .map(|at| TcpServer::start(lab.server(), at, Serve::Echo))
        .into();
    let app = wants(&lab, &all);
    let args = ["--duration", "7s"];
    let fault = lab.inflict(&Fault::new("tcp dport 587", "drop"));
    let report = doctor(&lab, &args);
    let finding = report.finding("fly-egress-policy");
    assert!(fault.hits() > 0);
    assert_eq!(
        (&finding["severity"], &finding["confidence"]),
        (&"warning".into(), &"possible".into())
    );
    let evidence = &finding["evidence"];
    assert_eq!(
        (&evidence["ports_failing"], &evidence["ports_reached"]),
        (&"587".into(), &"443".into())
    );
    assert_eq!(evidence["answers_on_another_port"], true);
    for finding in report.findings() {
        let code = finding["code"].as_str().expect("a code");
        assert!(
            ["fly-egress-policy", "connect-timeout", "connection-churn"].contains(&code),
            "{}",
            report.everything()
        );
    }
    fault.lift();
    drop(app);
    // The machine's own firewall is none of Fly's policies, and `connect-timeout` names it.
    lab.client().nft(
        "table ip own { chain c { type filter hook output priority filter; tcp dport 587 ct state new drop; }; }",
    );
    let _app = wants(&lab, &all);
    let report = doctor(&lab, &args);
    report.lacks("fly-egress-policy");
    let own = report.findings().iter().any(|f| {
        f["code"] == "connect-timeout" && f["candidates"][0]["cause"].to_string().contains("own firewall")
    });
    assert!(own, "{}", report.everything());
}

#[test]
fn what_the_machine_leaves_by_is_said_for_each_family() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    sixpn(&lab);
    let _stun = StunServer::reflect_all(&lab);
    let mut command = lab.wgnat(lab.client());
    command.args(["doctor", "--stun", &lab.server_ip().to_string()]);
    environment(&mut command);
    let text = exec::output(command).stdout.replace("\n", " ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    assert!(text.contains("fly web in ams"), "{text}");
    assert!(
        text.contains("leaves by 203.0.113.1 (IPv4, seen by STUN)"),
        "{text}"
    );
    assert!(
        text.contains("leaves by 2001:db8::77 (IPv6, FLY_PUBLIC_IP)"),
        "{text}"
    );
}

#[test]
fn elsewhere_the_checks_are_refused() {
    let Some(lab) = Lab::lone() else { return };
    let mut command = lab.wgnat(lab.client());
    command.args(["doctor", "--fly-checks"]);
    for name in ["FLY_MACHINE_ID", "FLY_PRIVATE_IP"] {
        command.env_remove(name);
    }
    let out = exec::output(command);
    assert_eq!(out.code, 3, "{}", out.stderr);
    assert!(out.stderr.contains("FLY_PRIVATE_IP"), "{}", out.stderr);
}

#[test]
fn the_confined_agent_checks_for_good_and_is_told_by_sighup() {
    let Some(lab) = Lab::routed() else { return };
    sixpn(&lab);
    let dir = tempfile::tempdir().expect("a directory");
    let write = |on: bool| {
        let text = format!("[agent]\nconfine = \"require\"\nfly_checks = {on}\npath_interval = \"10s\"\n");
        agent::file(dir.path(), "wgnat.toml", &text)
    };
    // A list that fits no datagram: the confined agent has it over TCP.
    let mut many = machines();
    many.extend((0..40).map(|n| machine(&format!("silent{n:02}"), "nrt", other(100 + n))));
    let dns = Dnsmasq::start(lab.server(), RESOLVER, &many);
    let config = write(false);
    let mut command = lab.wgnat(lab.client());
    command.arg("agent").arg("--config").arg(&config);
    environment(&mut command);
    let inside = lab.client().clone();
    let connect = move |at| inside.run(move || TcpStream::connect(at));
    let at = SocketAddr::from(([127, 0, 0, 1], 9986));
    let mut agent = Agent::begun(command, at, Box::new(connect));
    agent.until_ready();
    let report = |agent: &Agent| agent.get("/api/v1/report").json();
    assert_eq!(report(&agent)["fly_net"], Value::Null);
    write(true);
    agent.signal("HUP");
    agent.until("the machines are counted", |agent| {
        report(agent)["fly_net"]["machines"] == 42
    });
    let net = &report(&agent)["fly_net"];
    assert_eq!((&net["measured"], &net["unread"]), (&16.into(), &0.into()));
    assert_eq!(net["resolvers"][0]["internal"], "listed");
    agent.until(
        "a machine that answers is measured, with its largest packet",
        |agent| {
            let report = report(agent);
            let rows = report["paths"].as_array().expect("rows");
            rows.iter().any(|row| {
                row["target"] == other(2).to_string() && row["lost"] == 0 && row["mtu"]["bytes"] == 1500
            })
        },
    );
    // The resolver is replaced by one that knows no such names.
    drop(dns);
    let _other = Dnsmasq::start(lab.server(), RESOLVER, &[]);
    let finding = agent.finding("fly-internal-dns");
    assert_eq!(finding["confidence"], "certain", "{finding:#}");
    // No longer asked for, nothing of it stays.
    write(false);
    agent.signal("HUP");
    agent.until("it is forgotten", |agent| {
        let report = report(agent);
        report["fly_net"] == Value::Null && report["paths"] == Value::Array(Vec::new())
    });
}

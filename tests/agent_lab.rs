//! The agent finds real faults in the lab, says when they began, and that they are over.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod agent;
mod lab;

use agent::Agent;
use lab::{CtFill, Fault, Lab, LoadProcess, Message, Namespace, Nat, Serve, TcpServer, Toward, Tunnel, Work};
use std::net::{SocketAddr, TcpStream};

/// An agent in `ns`, asked from within it.
fn agent_in(lab: &Lab, ns: &Namespace, args: &[&str]) -> Agent {
    let at: SocketAddr = "127.0.0.1:9986".parse().unwrap();
    let mut command = lab.wgnat(ns);
    command.arg("agent").args(args);
    let inside = ns.clone();
    let connect = move |at| inside.run(move || TcpStream::connect(at));
    let mut agent = Agent::begun(command, at, Box::new(connect));
    agent.until_ready();
    agent
}

#[test]
fn a_table_that_fills_and_empties_is_a_finding_that_begins_and_is_gone() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let agent = agent_in(&lab, lab.router(), &[]);
    let report = agent.get("/api/v1/report").json();
    assert_eq!(report["schema"], "wgnat.report/1");
    assert_eq!(report["findings"].as_array().unwrap().len(), 0, "{report:#}");
    let max = lab.router().conntrack_max();
    let count = u32::try_from(max * 93 / 100).unwrap();
    lab.router().fill_conntrack(CtFill::assured(count));
    let name = "wgnat_findings{code=\"conntrack-low\",severity=\"critical\",explained=\"false\"}";
    // A look that falls into the filling sees a warning first.
    agent.until("the finding is critical", |agent| agent.metric(name) == Some(1.0));
    let finding = agent.finding("conntrack-low");
    assert_eq!(finding["severity"], "critical", "{finding:#}");
    assert_eq!(agent.metric("wgnat_status{status=\"critical\"}"), Some(1.0));
    // The finding may be older than the filling's end by a look.
    agent.until("the table is counted whole", |agent| {
        agent.metric("wgnat_conntrack_entries") >= Some(f64::from(count))
    });
    let first_seen = finding["first_seen"].clone();
    lab.router().conntrack_flush();
    agent.until("the finding is gone", |agent| agent.metric(name).is_none());
    let findings = agent.get("/api/v1/findings").json();
    let rows = findings["findings"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["finding"]["code"] == "conntrack-low")
        .unwrap();
    assert_eq!(row["state"], "absent", "{findings:#}");
    assert_eq!(row["finding"]["first_seen"], first_seen);
}

#[test]
fn a_tunnel_that_begins_later_is_seen_by_the_confined_agent_and_its_silence_is_named() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let agent = agent_in(&lab, lab.client(), &["--confine", "require"]);
    assert_eq!(agent.metric("wgnat_wireguard_peers{state=\"up\"}"), None);
    let mut tunnel = Tunnel::start(&lab);
    tunnel.knock();
    agent.until("the peer is up", |agent| {
        agent.metric("wgnat_wireguard_peers{state=\"up\"}") == Some(1.0)
    });
    agent.until("its handshake is counted", |agent| {
        agent.metric("wgnat_wireguard_handshakes_total{outcome=\"answered\"}") >= Some(1.0)
    });
    let fault = lab.inflict(&Fault::drop_message(Message::Response).toward(Toward::Client));
    tunnel.client.restart();
    tunnel.knock();
    agent.finding("wg-handshake-timeout");
    agent.until("the peer fails", |agent| {
        agent.metric("wgnat_wireguard_peers{state=\"failing\"}") == Some(1.0)
    });
    fault.lift();
    agent.until("the finding is gone", |agent| {
        let name = "wgnat_findings{code=\"wg-handshake-timeout\",severity=\"critical\",explained=\"false\"}";
        agent.metric(name).is_none() && agent.metric("wgnat_wireguard_peers{state=\"up\"}") == Some(1.0)
    });
}

/// Two agents' logs of the wire are two places: what neither of them can tell alone, they prove together.
#[test]
fn two_agents_logs_say_which_way_responses_are_lost() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let fault = lab.inflict(&Fault::drop_message(Message::Response).toward(Toward::Client));
    let agents = [lab.client(), lab.server()].map(|ns| agent_in(&lab, ns, &["--confine", "require"]));
    let tunnel = Tunnel::start(&lab);
    agents[0].until("three initiations were answered in vain", |_| {
        tunnel.knock();
        fault.hits() >= 3
    });
    let logs: Vec<_> = agents
        .iter()
        .zip(["here.jsonl", "there.jsonl"])
        .map(|(agent, name)| {
            let mut text = String::new();
            agent.until("it has seen them all", |agent| {
                agent.get("/api/v1/wire").body.matches("\"packet\"").count() >= 3
            });
            text.push_str(&agent.get("/api/v1/wire").body);
            lab.file(name, &text)
        })
        .collect();
    let mut command = lab.wgnat(lab.client());
    command.args(["analyze", "--json"]).args(&logs);
    let analyzed = lab.json(command);
    assert_eq!(
        analyzed.codes(),
        ["wg-response-lost"],
        "{}",
        analyzed.everything()
    );
    let found = analyzed.finding("wg-response-lost");
    assert_eq!(
        (&found["severity"], &found["confidence"]),
        (&"critical".into(), &"certain".into())
    );
}

#[test]
fn who_holds_the_ports_is_named_by_the_confined_agent() {
    let Some(lab) = Lab::pair() else {
        return;
    };
    let at = SocketAddr::new(lab.server_ip(), 7000);
    let _server = TcpServer::start(lab.server(), at, Serve::Echo);
    lab.client().set_port_range(40_000, 40_199);
    let agent = agent_in(&lab, lab.client(), &["--confine", "require"]);
    let work = Work::Hold { to: at, count: 150 };
    let process = LoadProcess::start(lab.client(), "node", None, work);
    agent.finding("ports-low");
    agent.until("it is known whose they are", |agent| {
        let finding = agent.finding("ports-low");
        finding["subject"]["process"]["pid"] == process.pid()
    });
}

#[test]
fn another_namespace_is_observed_and_http_stays_where_it_was_asked_for() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let agent = Agent::start(&["--netns", lab.router().name()]);
    let max = lab.router().conntrack_max();
    let count = u32::try_from(max * 80 / 100).unwrap();
    lab.router().fill_conntrack(CtFill::assured(count));
    let finding = agent.finding("conntrack-low");
    assert_eq!(finding["severity"], "warning", "{finding:#}");
    let report = agent.get("/api/v1/report").json();
    assert_eq!(report["host"]["netns"], lab.router().name());
}

/// An agent that holds a finding is killed, and the next one may not look: nothing says that the fault is gone.
#[test]
fn a_fault_is_not_told_as_gone_by_an_agent_that_may_not_look() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let dir = lab.dir().join("kept");
    std::fs::create_dir(&dir).unwrap();
    let store = dir.join("history");
    let args = ["--store", store.to_str().unwrap()];
    let mut agent = agent_in(&lab, lab.client(), &args);
    let _fault = lab.inflict(&Fault::drop_message(Message::Response).toward(Toward::Client));
    let tunnel = Tunnel::start(&lab);
    tunnel.knock();
    agent.finding("wg-handshake-timeout");
    agent.until("it is written down", |agent| {
        agent.get("/api/v1/history").json()["findings"]
            .as_array()
            .is_some_and(|f| !f.is_empty())
    });
    agent.signal("KILL");
    agent.wait();
    let owned = std::process::Command::new("chown")
        .arg("-R")
        .arg("65534:65534")
        .arg(&dir)
        .status();
    assert!(owned.unwrap().success());
    // Nor may it see devices, nor the wire.
    let mut command = lab.wgnat_as_nobody(lab.client());
    command.arg("agent").args(args);
    let inside = lab.client().clone();
    let connect = move |at| inside.run(move || TcpStream::connect(at));
    let mut agent = Agent::begun(command, "127.0.0.1:9986".parse().unwrap(), Box::new(connect));
    agent.until_ready();
    let row = |agent: &Agent| {
        let all = agent.get("/api/v1/findings").json();
        let rows = all["findings"].as_array().unwrap().clone();
        rows.into_iter()
            .find(|row| row["finding"]["code"] == "wg-handshake-timeout")
    };
    agent.until("it is unknown", |agent| {
        row(agent).is_some_and(|row| row["state"] == "unknown")
    });
    let row = row(&agent).unwrap();
    assert!(
        row["missing"].as_array().unwrap().contains(&"capture".into()),
        "{row:#}"
    );
    assert!(row["not_checked_since"].is_string(), "{row:#}");
    let labels = "{code=\"wg-handshake-timeout\",severity=\"critical\"";
    assert_eq!(
        agent.metric(&format!("wgnat_findings_unconfirmed{labels}}}")),
        Some(1.0)
    );
    assert_eq!(
        agent.metric(&format!("wgnat_findings{labels},explained=\"false\"}}")),
        Some(1.0)
    );
    assert_eq!(agent.metric("wgnat_status{status=\"critical\"}"), Some(1.0));
    let told = agent.finding("wg-handshake-timeout");
    assert!(told["evidence"]["not_checked_since"].is_string(), "{told:#}");
    agent.until("that is written down", |agent| {
        let history = agent.get("/api/v1/history").json();
        let unseen = |e: &serde_json::Value| e["data"]["what"] == "unseen";
        history["events"].as_array().unwrap().iter().any(unseen)
            && history["findings"][0]["finding"]["unseen"].is_object()
    });
    // Cron's report says the same.
    let mut command = lab.wgnat(lab.client());
    command.args(["report", "--json"]).args(args);
    let report = lab.json(command);
    let told = report.finding("wg-handshake-timeout");
    assert!(
        told["evidence"]["not_checked_for_want_of"].is_string(),
        "{told:#}"
    );
    let gone = &report.report["changes"]["gone"];
    assert!(gone.as_array().is_none_or(Vec::is_empty), "{gone:#}");
    agent.signal("TERM");
    agent.wait();
    // Whoever may look knows again.
    let agent = agent_in(&lab, lab.client(), &args);
    tunnel.knock();
    agent.until("it is found again", |agent| {
        let all = agent.get("/api/v1/findings").json();
        let mut rows = all["findings"].as_array().unwrap().iter();
        rows.any(|row| row["finding"]["code"] == "wg-handshake-timeout" && row["state"] == "active")
    });
}

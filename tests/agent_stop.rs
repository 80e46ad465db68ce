//! Told to end, an agent waits for nobody: not for an observer in the middle of a look, nor for whoever asks slowly, listens, reads
//! the history, or should be told that it ends.
//!
//! What it does wait for is bounded, and together below a second: `agent` asserts that when it is compiled, and logs where a bound was
//! reached. So what is looked at here is that none was.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod agent;
mod browser;
mod lab;

use agent::{Agent, KeptOpen, file};
use lab::sabotage::freeze;
use lab::{Lab, Nat, Tunnel};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use wgnat::store::{open_readonly, query};
use wgnat::time::Timestamp;

#[test]
fn it_waits_for_nobody_who_is_in_the_middle_of_something() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let dir = lab.dir().join("kept");
    std::fs::create_dir(&dir).unwrap();
    let store = dir.join("history");
    // A month to read and to bring in order.
    let to = SocketAddr::new(lab.server_ip(), 7000);
    let peer = [("device", "wg0"), ("public_key", "x")];
    browser::hour::write(&store, &browser::hour::month(&peer, "192.0.2.1", to));
    // A WireGuard daemon that hangs, and a STUN server that never answers.
    let tunnel = Tunnel::start(&lab);
    freeze(tunnel.client.pid(), true);
    let silent = SocketAddr::new(lab.server_ip(), 3478);
    let _silent = lab.server().run(|| UdpSocket::bind(silent)).unwrap();
    // A service manager that reads nothing, and is told each few milliseconds.
    lab.client().sysctl("net.unix.max_dgram_qlen", 2);
    let notify = lab.dir().join("notify");
    let _deaf = lab.client().run(|| UnixDatagram::bind(&notify)).unwrap();
    let config = file(lab.dir(), "wgnat.toml", "[agent]\nevaluate_every = \"1s\"\n");
    let mut command = lab.wgnat(lab.client());
    command
        .arg("agent")
        .arg("--store")
        .arg(&store)
        .arg("--config")
        .arg(config);
    command.args(["--stun", &silent.to_string()]);
    command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "3000");
    let inside = lab.client().clone();
    let connect = move |at| inside.run(move || TcpStream::connect(at));
    let mut agent = Agent::begun(command, "127.0.0.1:9986".parse().unwrap(), Box::new(connect));
    agent.until_ready();
    let request = |line: &str| {
        let mut stream = agent.connect();
        stream.write_all(line.as_bytes()).unwrap();
        stream
    };
    // Requests without an end, and listeners who read nothing.
    let slow: Vec<_> = (0..60)
        .map(|_| request("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-A: "))
        .collect();
    let listening: Vec<_> = (0..10)
        .map(|_| request("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        .collect();
    let (over, read) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let long = "/api/v1/series?name=wgnat_conntrack_events&since=30d&points=5000";
                while !over.load(Ordering::Relaxed) {
                    // It ends meanwhile: then there is no answer, which is what is waited for.
                    if agent.request("GET", long, &[]).is_ok_and(|a| a.status == 200) {
                        read.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        agent.until("history has been read", |_| read.load(Ordering::Relaxed) >= 8);
        // Its loop turns, whatever the service manager does.
        let mut events = KeptOpen::to(&agent);
        events.listen();
        for _ in 0..3 {
            events.until_event("report");
        }
        agent.signal("TERM");
        agent.logs("ended within ");
        over.store(true, Ordering::Relaxed);
    });
    let status = agent.wait();
    let log = agent.log();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("in time"), "{log}");
    // They dawdled to the end, and so did the daemon.
    drop((slow, listening));
    assert!(log.contains("hangs: no answer within"), "{log}");
    freeze(tunnel.client.pid(), false);
    let reader = open_readonly(&store).unwrap();
    let events = query::events(&reader, Timestamp::EPOCH).unwrap();
    assert_eq!(events.last().unwrap().data["what"], "stopping");
    let check: String = reader
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}

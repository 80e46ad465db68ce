//! `wgnat nat` against servers that lie, stay silent, are slow or hostile: a clear sentence, and no wrong verdict.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod lab;
mod truth;

use lab::{Lab, Nat};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;
use truth::{Look, Verdict};

const STUN: &str = "203.0.113.9:3478";

/// What a hostile server sends for one request: datagrams, each from its first or its second socket.
type Answers = Vec<(bool, Vec<u8>)>;

/// A server's way to answer.
type Answering = Box<dyn Fn(&[u8], SocketAddr) -> Answers + Send>;

/// A server on a thread that answers UDP by a function of the request and its source; its TCP port takes and says nothing.
struct Hostile {
    stop: Option<std::io::PipeWriter>,
    thread: Option<std::thread::JoinHandle<()>>,
    _tcp: TcpListener,
}

impl Hostile {
    fn start(lab: &Lab, answer: impl Fn(&[u8], SocketAddr) -> Answers + Send + 'static) -> Self {
        let bind = |at: &str| UdpSocket::bind(at).expect("the port is free");
        let (first, second, tcp) = lab.server().run(|| {
            (
                bind("203.0.113.9:3478"),
                bind("203.0.113.10:4444"),
                TcpListener::bind("203.0.113.9:3478").expect("the port is free"),
            )
        });
        let (stopped, stop) = std::io::pipe().expect("a pipe can be made");
        let thread = std::thread::spawn(move || {
            let mut request = [0; 2048];
            while lab::udp::readable_before(&first, &stopped) {
                let Ok((length, from)) = first.recv_from(&mut request) else {
                    continue;
                };
                for (elsewhere, bytes) in answer(&request[..length], from) {
                    let _ = if elsewhere { &second } else { &first }.send_to(&bytes, from);
                }
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
            _tcp: tcp,
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A Binding success for this request with these attributes.
fn success(request: &[u8], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.to_be_bytes());
        body.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut bytes = vec![1, 1];
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(&request[4..20]);
    bytes.extend(body);
    bytes
}

/// MAPPED-ADDRESS's form.
fn address(ip: [u8; 4], port: u16) -> Vec<u8> {
    let mut value = vec![0, 1];
    value.extend(port.to_be_bytes());
    value.extend(ip);
    value
}

fn mapped(from: SocketAddr) -> (u16, Vec<u8>) {
    (1, address([203, 0, 113, 1], from.port()))
}

#[track_caller]
fn nat(lab: &Lab) -> Verdict {
    let mut command = lab.wgnat(lab.client());
    command.args(["-v", "nat", "--json", "--stun", STUN]);
    Look::with(command).run()
}

/// Nothing is known, nothing is found, and the server's row says why.
#[track_caller]
fn knows_nothing(verdict: &Verdict, why: &str) {
    assert_eq!(
        (verdict.code, verdict.codes()),
        (3, vec![]),
        "{}",
        verdict.everything()
    );
    let nat = &verdict.report["nat"];
    assert_eq!(
        (&nat["mapping"], &nat["filtering"]),
        (&"unknown".into(), &"unknown".into()),
        "{}",
        verdict.everything()
    );
    assert!(
        nat["udp_blocked"].is_null() && nat["external"] == serde_json::json!([]),
        "{}",
        verdict.everything()
    );
    assert!(
        nat["servers"][0]["problems"].to_string().contains(why),
        "{}",
        verdict.everything()
    );
    assert!(verdict.took < Duration::from_secs(20), "{:?}", verdict.took);
}

#[test]
fn answers_that_are_none_are_not_believed() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let other_transaction = |request: &[u8], from: SocketAddr| {
        let mut bytes = success(request, &[mapped(from)]);
        bytes[10] ^= 1;
        vec![(false, bytes)]
    };
    let other_family = |request: &[u8], _: SocketAddr| {
        let mut value = vec![0, 2, 1, 1];
        value.extend([0x20; 16]);
        vec![(false, success(request, &[(1, value)]))]
    };
    let nowhere = |request: &[u8], _: SocketAddr| vec![(false, success(request, &[(1, address([0; 4], 7))]))];
    let no_address = |request: &[u8], _: SocketAddr| vec![(false, success(request, &[]))];
    let elsewhere = |request: &[u8], from: SocketAddr| vec![(true, success(request, &[mapped(from)]))];
    let giant = |request: &[u8], from: SocketAddr| {
        let filler = (0x8022, vec![b'x'; 1200]);
        vec![(false, success(request, &[mapped(from), filler]))]
    };
    let truncated = |request: &[u8], from: SocketAddr| {
        let mut bytes = success(request, &[mapped(from)]);
        bytes.truncate(26);
        vec![(false, bytes)]
    };
    let lying_length = |request: &[u8], from: SocketAddr| {
        let mut bytes = success(request, &[mapped(from)]);
        bytes[22..24].copy_from_slice(&[0xFF, 0xFF]);
        vec![(false, bytes)]
    };
    let noise = |_: &[u8], _: SocketAddr| {
        vec![
            (false, vec![0x55; 1400]),
            (false, Vec::new()),
            (false, vec![0; 20]),
        ]
    };
    let refuses = |request: &[u8], _: SocketAddr| {
        let mut bytes = success(request, &[(9, vec![0, 0, 5, 0])]);
        bytes[1] = 0x11;
        vec![(false, bytes)]
    };
    let cases: [(&str, Answering); 10] = [
        ("no answer that counts", Box::new(other_transaction)),
        ("cannot be", Box::new(other_family)),
        ("cannot be", Box::new(nowhere)),
        ("no mapped address", Box::new(no_address)),
        ("no answer that counts", Box::new(elsewhere)),
        ("no answer that counts", Box::new(giant)),
        ("no STUN message", Box::new(truncated)),
        ("no STUN message", Box::new(lying_length)),
        ("no STUN message", Box::new(noise)),
        ("STUN error 500", Box::new(refuses)),
    ];
    for (why, answer) in cases {
        let _server = Hostile::start(&lab, answer);
        knows_nothing(&nat(&lab), why);
        lab.router().conntrack_flush();
    }
}

#[test]
fn repeated_and_late_answers_change_nothing() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    // Each answer three times, and with it that to the request before.
    let last = std::sync::Mutex::new(Vec::new());
    let _server = Hostile::start(&lab, move |request, from| {
        let bytes = success(request, &[mapped(from)]);
        let before = std::mem::replace(&mut *last.lock().unwrap(), bytes.clone());
        let mut all = vec![(false, bytes); 3];
        if !before.is_empty() {
            all.push((false, before));
        }
        all
    });
    let verdict = nat(&lab);
    let nat = &verdict.report["nat"];
    assert_eq!(
        nat["external"],
        serde_json::json!(["203.0.113.1"]),
        "{}",
        verdict.everything()
    );
    assert_eq!(
        (&nat["mapping"], &nat["port_preservation"]),
        (&"unknown".into(), &true.into())
    );
    assert_eq!(verdict.code, 0);
}

#[test]
fn an_other_address_that_nobody_can_have_is_not_called() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    for other in [[127, 0, 0, 1], [255, 255, 255, 255], [224, 0, 0, 1]] {
        let server = Hostile::start(&lab, move |request, from| {
            let other = (0x802C, address(other, 3479));
            vec![(false, success(request, &[mapped(from), other]))]
        });
        let verdict = nat(&lab);
        let row = &verdict.report["nat"]["servers"][0];
        assert!(row["other"].is_null(), "{}", verdict.everything());
        assert!(
            row["problems"].to_string().contains("is not used"),
            "{}",
            verdict.everything()
        );
        assert_eq!(verdict.report["nat"]["filtering"], "unknown");
        verdict.nothing_wrong();
        drop(server);
    }
    // One that it might have and that is silent: nothing may be concluded from its silence.
    let _server = Hostile::start(&lab, |request, from| {
        let other = (0x802C, address([203, 0, 113, 11], 3479));
        vec![(false, success(request, &[mapped(from), other]))]
    });
    let verdict = nat(&lab);
    assert_eq!(
        verdict.report["nat"]["mapping"],
        "unknown",
        "{}",
        verdict.everything()
    );
    assert_eq!(
        verdict.report["nat"]["filtering"],
        "unknown",
        "{}",
        verdict.everything()
    );
    verdict.nothing_wrong();
}

#[test]
fn a_tcp_server_that_dribbles_holds_nobody() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let listener = lab
        .server()
        .run(|| TcpListener::bind("203.0.113.9:3478"))
        .expect("the port is free");
    // Ends with the test: nobody connects any more, and the listener is this thread's own.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(1) {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 512]);
            while stream.write_all(&[1]).is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let verdict = nat(&lab);
    knows_nothing(&verdict, "over TCP");
}

/// Of masquerade's behaviour what is true is said, or nothing.
#[track_caller]
fn true_or_unknown(what: &str, verdict: &Verdict) {
    for (field, truth) in [
        ("mapping", "endpoint-independent"),
        ("filtering", "address-and-port-dependent"),
    ] {
        let said = verdict.report["nat"][field].as_str().unwrap_or_default();
        assert!(
            [truth, "unknown"].contains(&said),
            "{what}: {field}: {}",
            verdict.everything()
        );
    }
}

#[test]
fn a_nat_that_limits_new_flows_is_not_misread() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = lab::StunServer::reflect_all(&lab);
    lab.router().nft(&lab::nats::rate_limited(2));
    let verdict = nat(&lab);
    true_or_unknown("a limit on new flows", &verdict);
    let blocked =
        verdict.codes().contains(&"udp-blocked") && verdict.finding("udp-blocked").severity() == "critical";
    assert!(!blocked, "{}", verdict.everything());
}

/// `wgnat nat` with what happens once its first questions have been answered, and before its tests are over.
#[track_caller]
fn nat_while(lab: &Lab, happens: &dyn Fn()) -> Verdict {
    lab.router().conntrack_flush();
    let mut command = lab.wgnat(lab.client());
    command.args(["-v", "nat", "--json", "--stun", STUN]);
    let running = Look::with(command).start();
    // The main socket's flow, those of the controls, and the one of the hops.
    lab::wait_until(lab::SOON, "the first flows to be answered", || {
        let flows = lab.router().conntrack(&["-L", "-p", "udp", "--dport", "3478"]);
        let answered = |line: &&str| line.contains("dport=3478") && !line.contains("UNREPLIED");
        flows.lines().filter(answered).count() >= 5
    });
    happens();
    running.finish()
}

#[test]
fn interfaces_and_nats_that_change_meanwhile_are_no_behaviour() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _server = lab::StunServer::reflect_all(&lab);
    let snat = |to: &str| {
        lab.router().nft(&lab::nats::snat(to));
        lab.router().conntrack_flush();
    };
    lab.router().ip(&["address add 203.0.113.2/24 dev wan0"]);
    snat("203.0.113.1");
    let client = lab.client();
    let cases: [(&str, &dyn Fn()); 4] = [
        ("the NAT's address", &|| snat("203.0.113.2")),
        ("the NAT's link", &|| lab.router().ip(&["link set lan0 down"])),
        ("this host's link", &|| client.ip(&["link set eth0 down"])),
        ("this host's address", &|| {
            // The first address of a network takes the others with it.
            client.ip(&[
                "address del 10.77.0.2/24 dev eth0",
                "address add 10.77.0.7/24 dev eth0",
                "route add default via 10.77.0.1",
            ]);
        }),
    ];
    for (what, happens) in cases {
        let verdict = nat_while(&lab, happens);
        let nat = &verdict.report["nat"];
        true_or_unknown(what, &verdict);
        let f = &nat["families"][0];
        assert!(
            f["pooling"].is_null() || f["pooling"] == "paired",
            "{what}: {f:#}"
        );
        assert_eq!(verdict.codes(), [""; 0], "{what}: {}", verdict.everything());
        let left_out = f["left_out"].to_string();
        assert!(
            left_out.contains("changed meanwhile") || left_out.contains("not reached any more"),
            "{what}: {f:#}"
        );
        // As it was.
        client.ip(&[
            "link set eth0 up",
            "address flush dev eth0",
            "address add 10.77.0.2/24 dev eth0",
            "route replace default via 10.77.0.1",
        ]);
        lab.router().ip(&["link set lan0 up"]);
        snat("203.0.113.1");
    }
    assert_eq!(
        nat_while(&lab, &|| {}).report["nat"]["mapping"],
        "endpoint-independent"
    );
}

#[test]
fn names_and_texts_that_are_no_servers_are_refused_in_words() {
    let Some(lab) = Lab::lone() else { return };
    for (server, words) in [
        ("nothing.invalid", "nothing.invalid"),
        ("a b", "expected HOST"),
        ("203.0.113.9:0", "expected HOST"),
    ] {
        let mut command = lab.wgnat(lab.client());
        command.args(["nat", "--stun", server]);
        let out = lab::exec::output(command);
        assert_eq!(out.code, 3, "{out:?}");
        assert!(out.stderr.contains(words), "{}", out.stderr);
    }
    // No way there at all.
    let mut command = lab.wgnat(lab.client());
    command.args(["nat", "--stun", "203.0.113.9"]);
    let out = lab::exec::output(command);
    assert_eq!(out.code, 3, "{out:?}");
    assert!(out.stdout.contains("nothing could be observed"), "{}", out.stdout);
    assert!(out.stdout.contains("unreachable"), "{}", out.stdout);
}

//! `wgnat reflect` on the wire: never more bytes out than in, limited, measured, ended gracefully.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod lab;

use lab::{Lab, StunServer};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

/// A Binding request of this many bytes.
fn request(length: usize) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    bytes.extend([7; 12]);
    if length > 24 {
        let filler = length - 24;
        bytes.extend([0x80, 0x22]);
        bytes.extend(u16::try_from(filler).unwrap().to_be_bytes());
        bytes.resize(length, b' ');
    }
    let body = u16::try_from(bytes.len() - 20).unwrap();
    bytes[2..4].copy_from_slice(&body.to_be_bytes());
    bytes
}

fn ask(socket: &UdpSocket, to: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    socket.send_to(bytes, to).ok()?;
    let mut answer = vec![0; 2048];
    let (length, _) = socket.recv_from(&mut answer).ok()?;
    answer.truncate(length);
    Some(answer)
}

/// A socket in the server's namespace.
fn socket(lab: &Lab, wait: u64) -> UdpSocket {
    let socket = lab.server().run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(wait)))
        .unwrap();
    socket
}

fn metrics(lab: &Lab, at: &'static str) -> String {
    lab.server().run(|| {
        let mut stream = TcpStream::connect(at).expect("metrics are served");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("it takes a request");
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    })
}

#[test]
fn no_answer_is_longer_than_its_request_on_the_wire() {
    let Some(lab) = Lab::pair() else { return };
    let mut server = StunServer::reflect(&lab, lab.server(), &["--metrics", "127.0.0.1:9990"]);
    let patient = socket(&lab, 3000);
    for length in [32, 44, 48, 60, 100, 148, 500] {
        let answer = ask(&patient, "127.0.0.1:3478", &request(length));
        let answer = answer.unwrap_or_else(|| panic!("{length} bytes are answered"));
        assert!(
            (32..=length).contains(&answer.len()),
            "{length}: {}",
            answer.len()
        );
    }
    // Too short for any answer, and no request at all.
    let brief = socket(&lab, 300);
    for bytes in [request(20), request(28), vec![0; 300], vec![1], success()] {
        assert_eq!(ask(&brief, "127.0.0.1:3478", &bytes), None, "{bytes:?}");
    }
    let text = metrics(&lab, "127.0.0.1:9990");
    for line in [
        "wgnat_reflect_requests_total{transport=\"udp\"} 12",
        "wgnat_reflect_responses_total{class=\"success\"} 7",
        "wgnat_reflect_ignored_total{reason=\"too_short\"} 2",
        "wgnat_reflect_ignored_total{reason=\"not_a_request\"} 3",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(server.terminate(), 0);
}

/// A response: a server that answered it would answer another server for ever.
fn success() -> Vec<u8> {
    let mut bytes = request(100);
    bytes[0] = 1;
    bytes
}

#[test]
fn a_prefix_that_floods_is_limited_and_others_are_not() {
    let Some(lab) = Lab::pair() else { return };
    let args = ["--address", "198.51.100.9", "--rate-limit", "1", "--burst", "10"];
    let _server = StunServer::reflect(&lab, lab.server(), &args);
    let flood = lab.client().run(|| UdpSocket::bind("198.51.100.2:0")).unwrap();
    for _ in 0..30 {
        flood.send_to(&request(100), "198.51.100.9:3478").unwrap();
    }
    lab.client().ip(&["address add 192.0.2.2/24 dev eth0"]);
    lab.server().ip(&["address add 192.0.2.9/24 dev eth0"]);
    let other = lab.client().run(|| UdpSocket::bind("192.0.2.2:0")).unwrap();
    other.set_read_timeout(Some(lab::SOON)).unwrap();
    assert!(ask(&other, "198.51.100.9:3478", &request(100)).is_some());
    // It answers in order, so what it answered of the flood is there.
    flood.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let answered = (0..30)
        .take_while(|_| flood.recv_from(&mut [0; 500]).is_ok())
        .count();
    assert!((5..=20).contains(&answered), "{answered}");
}

#[test]
fn it_listens_on_loopback_unless_told_and_refuses_what_it_cannot_serve() {
    let Some(lab) = Lab::pair() else { return };
    let _server = StunServer::reflect(&lab, lab.server(), &[]);
    assert!(
        lab::stun::answers(lab.server(), "127.0.0.1:3478".parse().unwrap()) || {
            // 20 bytes are too short for an answer; ask as `nat` does.
            ask(&socket(&lab, 40_000), "127.0.0.2:3479", &request(100)).is_some()
        }
    );
    let outside = lab.client().run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    outside
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert_eq!(ask(&outside, "198.51.100.9:3478", &request(100)), None);
    for (args, words) in [
        (vec!["--address", "0.0.0.0"], "name each address"),
        (
            vec!["--address", "203.0.113.77"],
            "cannot serve 203.0.113.77:3478",
        ),
        (vec!["--address", "127.0.0.1,127.0.0.2,127.0.0.3"], "at most two"),
        (vec!["--port", "3478,3478"], "different"),
        (
            vec!["--address", "127.0.0.9", "--public", "192.0.2.1,192.0.2.2"],
            "one for each",
        ),
        (vec!["--address", "nothing.invalid"], "nothing.invalid"),
    ] {
        let mut command = lab.wgnat(lab.server());
        command.arg("reflect").args(&args);
        let out = lab::exec::output(command);
        assert_eq!(out.code, 3, "{args:?}: {out:?}");
        assert!(out.stderr.contains(words), "{args:?}: {}", out.stderr);
    }
}

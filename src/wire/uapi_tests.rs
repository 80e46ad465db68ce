use proptest::prelude::*;

use super::*;

const AT: Timestamp = Timestamp::from_secs(1_790_000_000);

/// wireguard-go 0.0.20220316 with throw-away keys; the second peer was never reached.
const WIREGUARD_GO: &str = "\
private_key=f8aa2b16c85dfbc8b344f52939b117bb6ce7114b69a4f087ee97b0925b431b46
listen_port=7001
fwmark=32
public_key=00dbb17edd4051a5a97fa1dbd104f8f007a51e17a2de81f934222df01d72ba16
preshared_key=d870a1a483259059e0b5a0f35844a7a869f1c5e2557ec75fb264248c8b169909
protocol_version=1
endpoint=127.0.0.1:7002
last_handshake_time_sec=1789999990
last_handshake_time_nsec=123456789
tx_bytes=148
rx_bytes=92
persistent_keepalive_interval=25
allowed_ip=10.9.0.2/32
allowed_ip=fd00::2/128
public_key=b41b6cf3c4d0f634442139e62b12c46b583fa3ce973f8b18065f1f9a7ff6dd3b
preshared_key=0000000000000000000000000000000000000000000000000000000000000000
protocol_version=1
endpoint=[fe80::1]:51820
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=0
rx_bytes=0
persistent_keepalive_interval=0
allowed_ip=0.0.0.0/0
errno=0

";

/// boringtun 0.7.1: the public key instead of the private, ages instead of times, keys left out where unset.
const BORINGTUN: &str = "\
own_public_key=eb2dee383b9ae9a5a22c50a04a0260c383d21191d95482999915f71a49926100
listen_port=51820
public_key=00dbb17edd4051a5a97fa1dbd104f8f007a51e17a2de81f934222df01d72ba16
endpoint=192.0.2.7:51820
allowed_ip=10.0.0.2/32
last_handshake_time_sec=7
last_handshake_time_nsec=500000000
rx_bytes=1000
tx_bytes=2000
public_key=b41b6cf3c4d0f634442139e62b12c46b583fa3ce973f8b18065f1f9a7ff6dd3b
rx_bytes=0
tx_bytes=0
errno=0

";

/// gotatun 0.10: the specification's keys without protocol_version, with its own for padding.
const GOTATUN: &str = "\
private_key=7821e3b425b30844f3135ae33644e3961544a0aca754d7585996bbea7f6b426b
listen_port=0
public_key=00dbb17edd4051a5a97fa1dbd104f8f007a51e17a2de81f934222df01d72ba16
endpoint=[::ffff:192.0.2.9]:7
last_handshake_time_sec=1789999000
last_handshake_time_nsec=1
rx_bytes=5
tx_bytes=6
daita_enable=1
daita_max_padding_frac=0.5
allowed_ip=10.0.0.0/8
errno=0

";

fn read(reply: &str) -> Reply {
    parse("wg0", reply.as_bytes(), AT)
}

#[test]
fn wireguard_go() {
    let reply = read(WIREGUARD_GO);
    assert_eq!((reply.errno, reply.unknown_keys), (Some(0), 0));
    let device = reply.device;
    assert_eq!(device.implementation, Implementation::WireguardGo);
    assert_eq!(device.problems, Vec::<String>::new());
    assert_eq!((device.listen_port, device.fwmark), (Some(7001), 32));
    // The other end of the same pair was told this public key by `wg pubkey`.
    let expected =
        PublicKey::from_hex("eb2dee383b9ae9a5a22c50a04a0260c383d21191d95482999915f71a49926100").unwrap();
    assert_eq!(device.public_key, Some(expected));
    let [first, second] = device.peers.as_slice() else {
        panic!("two peers, got {:?}", device.peers)
    };
    assert!(first.has_preshared_key);
    assert_eq!(
        first.last_handshake,
        Some(Timestamp::from_parts(1_789_999_990, 123_456_789))
    );
    assert_eq!(
        (first.rx_bytes, first.tx_bytes, first.keepalive),
        (92, 148, Some(25))
    );
    assert_eq!(first.endpoint, "127.0.0.1:7002".parse().ok());
    let allowed: Vec<String> = first.allowed_ips.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["10.9.0.2/32", "fd00::2/128"]);
    assert!(!second.has_preshared_key);
    assert_eq!((second.last_handshake, second.keepalive), (None, None));
}

#[test]
fn boringtun_tells_ages() {
    let device = read(BORINGTUN).device;
    assert_eq!(device.implementation, Implementation::Boringtun);
    assert!(device.public_key.is_some());
    let handshakes: Vec<_> = device.peers.iter().map(|p| p.last_handshake).collect();
    assert_eq!(handshakes, [Some(AT.before(Span::from_millis(7_500))), None]);
    assert_eq!((device.peers[0].rx_bytes, device.peers[0].tx_bytes), (1000, 2000));
}

#[test]
fn a_handshake_of_this_instant_is_not_never() {
    let young = BORINGTUN.replace("sec=7\n", "sec=0\n");
    assert_eq!(
        read(&young).device.peers[0].last_handshake,
        Some(AT.before(Span::from_millis(500)))
    );
}

#[test]
fn without_a_clock_small_numbers_are_times() {
    let reply = WIREGUARD_GO.replace("1789999990", "40");
    let device = parse("wg0", reply.as_bytes(), Timestamp::from_secs(100)).device;
    assert_eq!(
        device.peers[0].last_handshake,
        Some(Timestamp::from_parts(40, 123_456_789))
    );
}

#[test]
fn gotatun() {
    let reply = read(GOTATUN);
    assert_eq!(reply.unknown_keys, 2);
    assert_eq!(reply.device.implementation, Implementation::Gotatun);
    assert_eq!(reply.device.listen_port, None);
    assert_eq!(reply.device.peers[0].endpoint, "192.0.2.9:7".parse().ok());
    let plain: String = GOTATUN
        .lines()
        .filter(|l| !l.starts_with("daita"))
        .map(|l| format!("{l}\n"))
        .collect();
    assert_eq!(read(&plain).device.implementation, Implementation::Gotatun);
}

#[test]
fn unknown_implementations_are_not_guessed() {
    for (reply, expected) in [
        ("listen_port=53009\nerrno=0\n\n", Implementation::Unknown),
        ("errno=0\n\n", Implementation::Unknown),
        ("jc=4\nh1=1\nerrno=0\n\n", Implementation::Unknown),
    ] {
        assert_eq!(read(reply).device.implementation, expected, "{reply}");
    }
    let amnezia = WIREGUARD_GO.replace("fwmark=32", "fwmark=32\njc=4\njmin=40");
    assert_eq!(read(&amnezia).device.implementation, Implementation::Unknown);
    assert_eq!(read(&amnezia).unknown_keys, 2);
    assert_eq!(
        implementation_of_daemon("wireguard-go"),
        Some(Implementation::WireguardGo)
    );
    assert_eq!(
        implementation_of_daemon("boringtun-cli"),
        Some(Implementation::Boringtun)
    );
    assert_eq!(
        implementation_of_daemon("gotatun-cli"),
        Some(Implementation::Gotatun)
    );
    assert_eq!(implementation_of_daemon("netbird"), None);
}

#[test]
fn a_cut_reply_keeps_what_came_and_says_so() {
    let cut = WIREGUARD_GO.split_at(WIREGUARD_GO.find("tx_bytes=0").unwrap()).0;
    let reply = read(cut);
    assert_eq!(reply.errno, None);
    assert_eq!(reply.device.peers.len(), 2);
    assert!(
        reply.device.problems[0].contains("cut"),
        "{:?}",
        reply.device.problems
    );
    assert_eq!(read("").device.problems.len(), 1);
}

#[test]
fn a_refusal_is_a_problem() {
    let reply = read("errno=71\n\n");
    assert_eq!(reply.errno, Some(71));
    assert!(reply.device.problems[0].contains("71"));
}

#[test]
fn wrong_values_are_named_without_their_text() {
    let secret = "deadbeefdeadbeef";
    for (line, key) in [
        (format!("private_key={secret}"), "private_key"),
        (format!("preshared{secret}"), "KEY=VALUE"),
        ("listen_port=70000".to_owned(), "listen_port"),
        ("fwmark=red".to_owned(), "fwmark"),
        ("public_key=12".to_owned(), "public_key"),
    ] {
        let reply = read(&format!("{line}\nerrno=0\n\n"));
        let [problem] = reply.device.problems.as_slice() else {
            panic!("one problem for {line}: {:?}", reply.device.problems)
        };
        assert!(
            problem.contains(key) && problem.starts_with("line 1:"),
            "{problem}"
        );
        assert!(!problem.contains(secret), "{problem}");
    }
    let peer = "public_key=00dbb17edd4051a5a97fa1dbd104f8f007a51e17a2de81f934222df01d72ba16\n";
    for line in [
        "endpoint=nowhere",
        "last_handshake_time_sec=-1",
        "last_handshake_time_nsec=1000000000",
        "rx_bytes=x",
        "tx_bytes=",
        "persistent_keepalive_interval=70000",
        "allowed_ip=10.0.0.0/99",
    ] {
        let reply = read(&format!("{peer}{line}\nerrno=0\n\n"));
        assert_eq!(reply.device.problems.len(), 1, "{line}");
        assert_eq!(reply.device.peers.len(), 1, "{line}");
    }
}

#[test]
fn endpoints() {
    for (text, expected) in [
        ("192.0.2.1:51820", Some("192.0.2.1:51820")),
        ("[2001:db8::1]:51820", Some("[2001:db8::1]:51820")),
        ("[fe80::1%eth0]:51820", Some("[fe80::1]:51820")),
        ("[fe80::1%3]:51820", Some("[fe80::1%3]:51820")),
        ("[::ffff:192.0.2.1]:1", Some("192.0.2.1:1")),
        ("fe80::1:51820", None),
        ("192.0.2.1", None),
        ("[fe80::1%]", None),
        ("name.example:51820", None),
    ] {
        assert_eq!(
            parse_endpoint(text),
            expected.and_then(|e| e.parse().ok()),
            "{text}"
        );
    }
}

#[test]
fn bounds_hold_and_are_counted() {
    let long = format!("daita_machine={}\n", "x".repeat(5000));
    let reply = read(&format!("{long}listen_port=5\nerrno=0\n\n"));
    assert_eq!((reply.unknown_keys, reply.device.listen_port), (1, Some(5)));
    let wrong = "listen_port=x\n".repeat(100);
    let reply = read(&format!("{wrong}errno=0\n\n"));
    assert_eq!(reply.device.problems.len(), MAX_PROBLEMS + 1);
    assert!(reply.device.problems.last().unwrap().starts_with("84 "));
}

proptest! {
    #[test]
    fn how_the_reply_is_cut_into_pieces_does_not_matter(sizes in prop::collection::vec(1usize..200, 1..40)) {
        let text = BORINGTUN.replace("errno", &format!("x={}\nerrno", "y".repeat(2000)));
        let mut parser = Parser::new("wg0");
        let mut rest = text.as_bytes();
        for size in sizes.iter().cycle() {
            let (head, tail) = rest.split_at((*size).min(rest.len()));
            parser.feed(head);
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(parser.finish(AT), parse("wg0", text.as_bytes(), AT));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        parse("wg0", &bytes, AT);
    }

    #[test]
    fn any_values_are_survived(
        lines in prop::collection::vec(("(private_key|own_public_key|public_key|preshared_key|endpoint|errno|fwmark|listen_port|allowed_ip|rx_bytes|last_handshake_time_sec|last_handshake_time_nsec|z)", "\\PC{0,80}"), 0..40)
    ) {
        let text: String = lines.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
        parse("wg0", text.as_bytes(), AT);
    }
}

#[test]
fn what_follows_an_unreadable_key_is_not_the_peer_s_before() {
    let reply = format!(
        "public_key={}\nrx_bytes=5\nallowed_ip=10.0.0.1/32\npublic_key=zz\nrx_bytes=7\nallowed_ip=10.0.0.2/32\nerrno=0\n\n",
        "01".repeat(32)
    );
    let device = parse("wg0", reply.as_bytes(), Timestamp::EPOCH).device;
    assert_eq!(device.peers.len(), 1);
    assert_eq!(device.peers[0].rx_bytes, 5);
    assert_eq!(device.peers[0].allowed_ips.len(), 1);
    assert_eq!(device.problems.len(), 1);
}

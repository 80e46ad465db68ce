use proptest::prelude::*;

use super::*;

const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PUBLIC: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

fn parse(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

fn error(text: &str) -> ConfigError {
    match Config::parse(text) {
        Ok(_) => panic!("must be refused: {text}"),
        Err(error) => error,
    }
}

#[test]
fn a_whole_file() {
    let config = parse(&format!(
        "# laptop\r\n[Interface]\r\nPrivateKey = {PRIVATE} # mine\r\nAddress = 10.0.0.2/24, fd00::2\r\naddress=10.1.0.2/16\r\n\
         MTU=1380\r\nListenPort = 51820\r\nFwMark=0xca6c\r\nTable = 51820\r\nDNS = 10.0.0.1\r\nPostUp = iptables -A x; echo a=b\r\n\
         Jc = 4\r\n\r\n[Peer]\r\nPublicKey = {PUBLIC}\r\nPresharedKey = {PRIVATE}\r\nEndpoint = vpn.example.com:51820\r\n\
         AllowedIPs = 10.0.0.0/24 , fd00::/64,\r\nAllowedIPs=192.0.2.1\r\nPersistentKeepalive = 25\r\n\
         [peer]\r\nPUBLICKEY={PRIVATE}\r\nEndpoint=[2001:db8::1]:1\r\npersistentkeepalive=off\r\nPresharedKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    ));
    let interface = &config.interface;
    assert_eq!(
        interface
            .private_key
            .as_ref()
            .map(|k| k.public().to_string())
            .as_deref(),
        Some(PUBLIC)
    );
    let addresses: Vec<String> = interface
        .addresses
        .iter()
        .map(|(a, p)| format!("{a}/{p}"))
        .collect();
    assert_eq!(addresses, ["10.0.0.2/24", "fd00::2/128", "10.1.0.2/16"]);
    assert_eq!(
        (interface.mtu, interface.listen_port, interface.fwmark),
        (Some(1380), Some(51820), Some(0xca6c))
    );
    assert_eq!(interface.table, Table::Number(51820));
    assert_eq!(config.notes, ["line 12: unknown key \"Jc\" passed over"]);

    let peers = config.configured_peers("/etc/wireguard/wg0.conf", Some("wg0"));
    let [first, second] = peers.as_slice() else {
        panic!("two peers, got {peers:?}")
    };
    assert_eq!(first.origin, "/etc/wireguard/wg0.conf:14");
    assert_eq!(first.device.as_deref(), Some("wg0"));
    assert_eq!(
        first.local_public_key.map(|k| k.to_string()).as_deref(),
        Some(PUBLIC)
    );
    assert_eq!(first.public_key.to_string(), PUBLIC);
    assert_eq!(first.endpoint.as_deref(), Some("vpn.example.com:51820"));
    assert!(first.resolved.is_empty() && first.has_preshared_key);
    assert_eq!((first.keepalive, first.mtu), (Some(25), Some(1380)));
    let allowed: Vec<String> = first.allowed_ips.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["10.0.0.0/24", "fd00::/64", "192.0.2.1/32"]);
    assert_eq!((second.keepalive, second.has_preshared_key), (None, false));
    assert_eq!(second.resolved, ["[2001:db8::1]:1".parse().unwrap()]);
}

#[test]
fn endpoints() {
    for (text, host, address) in [
        ("192.0.2.1:51820", "192.0.2.1", Some("192.0.2.1:51820")),
        ("[2001:db8::1]:9", "2001:db8::1", Some("[2001:db8::1]:9")),
        ("[fe80::1%eth0]:9", "fe80::1%eth0", Some("[fe80::1]:9")),
        ("[fe80::1%2]:9", "fe80::1%2", Some("[fe80::1%2]:9")),
        // As wg(8) reads it: the last colon.
        ("2001:db8::1:9", "2001:db8::1", Some("[2001:db8::1]:9")),
        ("vpn.example.com:65535", "vpn.example.com", None),
    ] {
        let endpoint: Endpoint = text.parse().unwrap_or_else(|()| panic!("{text}"));
        assert_eq!(endpoint.host, host);
        assert_eq!(endpoint.address(), address.map(|a| a.parse().unwrap()), "{text}");
    }
    for text in [
        "",
        ":1",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "[name]:1",
        "[::1:1",
        "[]:1",
        "a b:1",
        "http://x:1",
    ] {
        assert_eq!(text.parse::<Endpoint>(), Err(()), "{text}");
    }
}

#[test]
fn values_that_mean_off() {
    let config = parse(&format!(
        "[Interface]\nListenPort=0\nFwMark=off\nTable=off\n[Peer]\nPublicKey={PUBLIC}\nPersistentKeepalive=0\nAllowedIPs=\n"
    ));
    let interface = &config.interface;
    assert_eq!((interface.listen_port, interface.fwmark), (None, None));
    assert_eq!(interface.table, Table::Off);
    assert!(interface.private_key.is_none());
    assert_eq!(config.peers[0].keepalive, None);
    assert!(config.peers[0].allowed_ips.is_empty());
    assert_eq!(
        parse("[Interface]\nTable=vpn\nFwMark=0x0").interface.table,
        Table::Name("vpn".to_owned())
    );
}

#[test]
fn wrong_values_are_named() {
    let peer = format!("[Peer]\nPublicKey={PUBLIC}\n");
    for (text, expected) in [
        (
            "[Interface]\nListenPort = 70000",
            "line 2: ListenPort: expected a port from 0 to 65535, got \"70000\"",
        ),
        (
            "[Interface]\n\nMTU = big",
            "line 3: MTU: expected a number of bytes, got \"big\"",
        ),
        (
            "[Interface]\nFwMark = 0xzz",
            "line 2: FwMark: expected off, a number, or 0x and hexadecimal digits, got \"0xzz\"",
        ),
        (
            "[Interface]\nAddress = 10.0.0.1/33",
            "line 2: Address: expected addresses, with or without /PREFIX, got \"10.0.0.1/33\"",
        ),
        (
            "[Interface]\nPrivateKey = secret",
            "line 2: PrivateKey: expected 44 characters of base64 that hold 32 bytes",
        ),
        (
            "[Peer]\nAllowedIPs = ::/0\n[Peer]",
            "line 1: [Peer]: expected a PublicKey in it",
        ),
        (
            "PrivateKey = x",
            "line 1: expected [Interface] or [Peer] before the first key",
        ),
        (
            "[Interface]\nsecret",
            "line 2: expected KEY = VALUE, a [Section] or a # comment",
        ),
        ("", "line 1: expected [Interface] or [Peer]"),
        (
            "[Interface]\nTable =",
            "line 2: Table: expected auto, off, or a table's number or name, got \"\"",
        ),
    ] {
        assert_eq!(error(text).to_string(), expected);
    }
    for (line, key) in [
        ("Endpoint = vpn.example.com", "Endpoint"),
        ("AllowedIPs = 10.0.0.0/8, x", "AllowedIPs"),
        ("PersistentKeepalive = soon", "PersistentKeepalive"),
        ("PresharedKey = short", "PresharedKey"),
    ] {
        let error = error(&format!("{peer}{line}"));
        assert_eq!((error.line, error.key.as_deref()), (3, Some(key)));
    }
}

#[test]
fn no_message_shows_a_key() {
    let bare = PRIVATE.trim_end_matches('=');
    for text in [
        format!("[Interface]\nPrivateKey = {bare}"),
        format!("[Interface]\n{bare}"),
        format!("[Interface]\nMTU = {PRIVATE}"),
        format!("[Peer]\nPublicKey = {bare}"),
        format!("[Peer]\nPresharedKey = x{PRIVATE}"),
        format!("[Peer]\nEndpoint = {PRIVATE}"),
        format!("[Peer]\nAllowedIPs = {PRIVATE}"),
        format!("{PRIVATE}\n"),
    ] {
        let message = error(&text).to_string();
        assert!(!message.contains(&bare[..20]), "{message}");
    }
    // A key on a line of its own looks like a field with nothing after "=".
    let notes = parse(&format!("[Interface]\n{PRIVATE}\n[{PRIVATE}]")).notes;
    assert_eq!(notes.len(), 2);
    assert!(!notes.concat().contains(&bare[..20]), "{notes:?}");
}

#[test]
fn notes_are_bounded() {
    let config = parse(&format!("[Interface]\n{}", "X = 1\n".repeat(100)));
    assert_eq!(config.notes.len(), MAX_NOTES + 1);
    assert_eq!(
        config.notes.last().map(String::as_str),
        Some("68 further lines passed over")
    );
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(\\[Interface\\]|\\[Peer\\]|[A-Za-z]{1,12} ?=|\\PC{0,12}|\r|\n|,|/|:){0,60}") {
        let _ = Config::parse(&text);
    }

    #[test]
    fn endpoints_round_trip(ip: IpAddr, port in 1u16..) {
        let address = SocketAddr::new(ip, port);
        let endpoint: Endpoint = address.to_string().parse().unwrap_or_else(|()| panic!("{address}"));
        prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
    }
}

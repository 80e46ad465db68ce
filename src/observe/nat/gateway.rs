//! Asks the default gateway, and nobody else, what its outside is: NAT-PMP, PCP (which tells that it is there), and UPnP by
//! unicast. Questions that change nothing.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use crate::observation::nat::GatewayFacts;
use crate::sys::clock;
use crate::time::Span;
use crate::wire::{natpmp, upnp};

/// Time for one question.
const PATIENCE: Span = Span::from_millis(800);
/// No description of a gateway is longer.
const DESCRIPTION: usize = 128 * 1024;

/// The default gateway of IPv4, as this thread's network namespace has it.
pub fn default_gateway() -> Option<Ipv4Addr> {
    // Iface Destination Gateway Flags …, addresses as hexadecimal numbers in the machine's order (proc(5)).
    let table = std::fs::read_to_string("/proc/thread-self/net/route").ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let destination = number(fields.next()?)?;
        let gateway = number(fields.next()?)?;
        let found = Ipv4Addr::from(gateway.to_ne_bytes());
        (destination == 0 && gateway != 0).then_some(found)
    })
}

/// Whether packets to `server` leave from the same address as packets to the gateway: else they take another way, such as a
/// tunnel, and what the gateway says of its outside has nothing to do with what the server sees. Nothing is sent.
pub fn on_the_way(gateway: Ipv4Addr, server: SocketAddr) -> bool {
    let from = |to: SocketAddr| -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    let both = from(server).ok().zip(from((gateway, upnp::PORT).into()).ok());
    both.is_some_and(|(server, gateway)| server == gateway)
}

/// What the gateway says by each way in which it answers.
pub fn ask(gateway: Ipv4Addr) -> Vec<GatewayFacts> {
    let fact = |protocol: &str| GatewayFacts {
        gateway: gateway.into(),
        protocol: protocol.to_owned(),
        external: None,
        says_none: false,
        problem: None,
    };
    let mut facts = Vec::new();
    for answer in ask_natpmp_and_pcp(gateway) {
        facts.push(match answer {
            natpmp::Answer::NatPmp(result, external) => GatewayFacts {
                external: external.map(IpAddr::V4),
                says_none: external.is_none() && [0, natpmp::NETWORK_FAILURE].contains(&result),
                problem: external.is_none().then(|| match result {
                    0 => "it says that it has none".to_owned(),
                    code => format!("it answers \"{}\", result {code}", natpmp::result(code)),
                }),
                ..fact("nat-pmp")
            },
            natpmp::Answer::Pcp => GatewayFacts {
                problem: Some("PCP names it with a mapping only, and nothing is mapped here".to_owned()),
                ..fact("pcp")
            },
        });
    }
    if let Some(answer) = ask_upnp(gateway) {
        let (external, problem) = match answer {
            upnp::External::Address(address) => (Some(address), None),
            upnp::External::None => (None, Some("it says that it has none".to_owned())),
            upnp::External::Error(code) => (None, Some(format!("it answers with error {code}"))),
        };
        facts.push(GatewayFacts {
            external,
            says_none: answer == upnp::External::None,
            problem,
            ..fact("upnp")
        });
    }
    facts
}

/// Both are asked at once: a gateway that speaks one of them is silent to the other's question.
fn ask_natpmp_and_pcp(gateway: Ipv4Addr) -> Vec<natpmp::Answer> {
    let mut answers = Vec::new();
    let questions = |own: Ipv4Addr| vec![natpmp::REQUEST.to_vec(), natpmp::announce(own).to_vec()];
    let take = |bytes: &[u8]| {
        if let Some(answer) = natpmp::parse(bytes).filter(|a| !answers.contains(a)) {
            answers.push(answer);
        }
        answers.len() >= 2
    };
    // Whatever ended it, what was answered is known.
    let _ = exchange(gateway, natpmp::PORT, questions, take);
    answers
}

/// Sends the questions, twice, until `take` has all that it wants or the time is over.
fn exchange(
    gateway: Ipv4Addr,
    port: u16,
    questions: impl Fn(Ipv4Addr) -> Vec<Vec<u8>>,
    mut take: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Connected: nobody else's answer counts.
    socket.connect((gateway, port))?;
    let IpAddr::V4(own) = socket.local_addr()?.ip() else {
        return Ok(());
    };
    let mut answer = [0; 2048];
    for _ in 0..2 {
        for question in questions(own) {
            socket.send(&question)?;
        }
        let until = clock::instant() + PATIENCE / 2;
        while let Some(left) = until
            .checked_duration_since(clock::instant())
            .filter(|l| !l.is_zero())
        {
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut answer) {
                Ok(length) if take(answer.get(..length).unwrap_or_default()) => return Ok(()),
                Ok(_) => {}
                // Nobody listens there.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(error),
                Err(_) => break,
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn ask_upnp(gateway: Ipv4Addr) -> Option<upnp::External> {
    let question = |_| vec![upnp::search(gateway.into()).into_bytes()];
    let mut found = None;
    exchange(gateway, upnp::PORT, question, |bytes| {
        let location = std::str::from_utf8(bytes).ok().and_then(upnp::location);
        found = location.map(|(at, path)| (at, path.to_owned()));
        true
    })
    .ok()?;
    let (at, path) = found?;
    // It may name itself only.
    if at.ip() != IpAddr::V4(gateway) {
        return None;
    }
    let description = http(at, &format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n"))?;
    let (service, path) = upnp::control(&description)?;
    let body = upnp::question(service);
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {at}\r\nContent-Type: text/xml; charset=\"utf-8\"\r\n\
         SOAPAction: \"{service}#GetExternalIPAddress\"\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    upnp::external(&http(at, &request)?)
}

/// One exchange over HTTP/1.0, bounded in time and length.
fn http(at: SocketAddr, request: &str) -> Option<String> {
    let started = clock::instant();
    let left = || {
        (PATIENCE * 2)
            .checked_sub(clock::instant() - started)
            .filter(|l| !l.is_zero())
    };
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while bytes.len() < DESCRIPTION {
        stream.set_read_timeout(Some(left()?)).ok()?;
        match stream.read(&mut buffer).ok()? {
            0 => break,
            n => bytes.extend_from_slice(buffer.get(..n)?),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_gateway_is_not_asked_of_what_takes_another_way() {
        use crate::observe::testing::{in_own_netns, ip};
        in_own_netns(|| {
            for (name, peer, address) in [
                ("home0", "home1", "192.168.1.5/24"),
                ("vpn0", "vpn1", "10.8.0.2/24"),
            ] {
                ip(&format!("link add {name} type veth peer name {peer}"));
                ip(&format!("link set {name} up"));
                ip(&format!("link set {peer} up"));
                ip(&format!("address add {address} dev {name}"));
            }
            ip("route add default via 192.168.1.1");
            let server: SocketAddr = "203.0.113.9:3478".parse().unwrap();
            let gateway = default_gateway().unwrap();
            assert_eq!(gateway, Ipv4Addr::new(192, 168, 1, 1));
            assert!(on_the_way(gateway, server));
            ip("route add 203.0.113.0/24 dev vpn0");
            assert!(!on_the_way(gateway, server));
            assert!(!on_the_way(gateway, "[2001:db8::9]:3478".parse().unwrap()));
        });
    }

    /// A gateway on loopback that answers one search with this LOCATION, and serves one description and one SOAP call.
    fn gateway(
        at: Ipv4Addr,
        location: impl Fn(SocketAddr) -> String,
    ) -> std::thread::JoinHandle<Vec<String>> {
        let ssdp = UdpSocket::bind((at, upnp::PORT)).unwrap();
        ssdp.set_read_timeout(Some(Span::from_secs(10))).unwrap();
        let web = TcpListener::bind((at, 0)).unwrap();
        let location = location(web.local_addr().unwrap());
        let here = web.local_addr().unwrap().ip() == IpAddr::V4(at) && location.contains(&at.to_string());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            let (length, from) = ssdp.recv_from(&mut buffer).unwrap();
            let mut seen = vec![String::from_utf8_lossy(&buffer[..length]).into_owned()];
            let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: {location}\r\n\r\n");
            ssdp.send_to(answer.as_bytes(), from).unwrap();
            let description = "<root><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
                               <controlURL>/ctl</controlURL></service></root>";
            let soap = "<a><NewExternalIPAddress>100.64.9.9</NewExternalIPAddress></a>";
            for body in [description, soap].into_iter().take(if here { 2 } else { 0 }) {
                let (mut stream, _) = web.accept().unwrap();
                let length = stream.read(&mut buffer).unwrap();
                seen.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
                stream
                    .write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes())
                    .unwrap();
            }
            seen
        })
    }

    #[test]
    fn a_upnp_gateway_is_asked_and_believed_about_itself_only() {
        let at = Ipv4Addr::new(127, 0, 77, 1);
        let thread = gateway(at, |web| format!("http://{web}/desc.xml"));
        assert_eq!(
            ask_upnp(at),
            Some(upnp::External::Address([100, 64, 9, 9].into()))
        );
        let seen = thread.join().unwrap();
        assert!(seen[0].starts_with("M-SEARCH * HTTP/1.1"), "{seen:?}");
        assert!(seen[1].starts_with("GET /desc.xml "), "{seen:?}");
        assert!(
            seen[2].starts_with("POST /ctl ") && seen[2].contains("GetExternalIPAddress"),
            "{seen:?}"
        );
        // One that sends us elsewhere is not followed.
        let at = Ipv4Addr::new(127, 0, 77, 2);
        let thread = gateway(at, |_| "http://127.0.77.3:80/desc.xml".to_owned());
        assert_eq!(ask_upnp(at), None);
        thread.join().unwrap();
        // None at all: the port refuses, at once.
        assert_eq!(ask(Ipv4Addr::new(127, 0, 77, 4)), []);
    }
}

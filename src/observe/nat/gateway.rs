//! Asks the default gateway, and nobody else, what its outside is: NAT-PMP, and UPnP by unicast. Questions that change
//! nothing.

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
    let fact = |protocol: &str, external: Option<IpAddr>| GatewayFacts {
        gateway: gateway.into(),
        protocol: protocol.to_owned(),
        external,
    };
    let mut facts = Vec::new();
    match ask_natpmp(gateway) {
        Some(natpmp::Answer::NatPmp(external)) => facts.push(fact("nat-pmp", external.map(IpAddr::V4))),
        Some(natpmp::Answer::Pcp) => facts.push(fact("pcp", None)),
        None => {}
    }
    if let Some(external) = ask_upnp(gateway) {
        facts.push(fact("upnp", Some(external)));
    }
    facts
}

fn exchange(gateway: Ipv4Addr, port: u16, question: &[u8], answer: &mut [u8]) -> io::Result<usize> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE / 2))?;
    // Connected: nobody else's answer counts.
    socket.connect((gateway, port))?;
    for _ in 0..2 {
        socket.send(question)?;
        match socket.recv(answer) {
            Ok(length) => return Ok(length),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(error),
            Err(_) => {}
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn ask_natpmp(gateway: Ipv4Addr) -> Option<natpmp::Answer> {
    let mut answer = [0; 64];
    let length = exchange(gateway, natpmp::PORT, &natpmp::REQUEST, &mut answer).ok()?;
    natpmp::parse(answer.get(..length)?)
}

fn ask_upnp(gateway: Ipv4Addr) -> Option<IpAddr> {
    let mut answer = [0; 2048];
    let question = upnp::search(gateway.into());
    let length = exchange(gateway, upnp::PORT, question.as_bytes(), &mut answer).ok()?;
    let text = std::str::from_utf8(answer.get(..length)?).ok()?;
    let (at, path) = upnp::location(text)?;
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
        assert_eq!(ask_upnp(at), Some([100, 64, 9, 9].into()));
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

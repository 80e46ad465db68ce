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

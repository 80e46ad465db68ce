//! Which addresses and ports are served, and their sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::sync::Arc;

use anyhow::{Context as _, bail};

use crate::cli::Reflect;
use crate::probe::reflector::{Grid, Slot};
use crate::time::Span;

/// The sockets of one family: up to two addresses with up to two ports each.
pub(super) struct Site {
    /// As clients know it.
    pub grid: Grid,
    sockets: [Option<Sockets>; 4],
}

struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

fn place(slot: Slot) -> usize {
    usize::from(slot.ip) * 2 + usize::from(slot.port)
}

impl Site {
    /// The UDP socket of a slot.
    pub fn udp(&self, slot: Slot) -> Option<&UdpSocket> {
        self.sockets.get(place(slot))?.as_ref().map(|s| &s.udp)
    }

    /// The TCP listener of a slot.
    pub fn tcp(&self, slot: Slot) -> Option<&TcpListener> {
        self.sockets.get(place(slot))?.as_ref().map(|s| &s.tcp)
    }

    /// Where it serves.
    pub fn describe(&self) -> String {
        let all: Vec<String> = self
            .grid
            .slots()
            .filter_map(|slot| self.grid.at(slot))
            .map(|a| a.to_string())
            .collect();
        let less = if all.len() < 4 {
            " (no second address or port: tests that need them are left out)"
        } else {
            ""
        };
        format!("{}{less}", all.join(", "))
    }
}

/// How often a UDP thread looks whether it is to stop.
const STOP_INTERVAL: Span = Span::from_millis(200);
/// Bytes that the kernel keeps for a socket whose thread is busy.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Opens everything, or says what could not be.
pub(super) fn open(args: &Reflect) -> anyhow::Result<Vec<Arc<Site>>> {
    let bound: Vec<IpAddr> = if args.address.is_empty() {
        vec![Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 2).into()]
    } else {
        args.address
            .iter()
            .map(|host| address(host))
            .collect::<anyhow::Result<_>>()?
    };
    if !args.public.is_empty() && args.public.len() != bound.len() {
        bail!(
            "--public names {} addresses and --address {}: expected one for each",
            args.public.len(),
            bound.len()
        );
    }
    let ports = match args.port.as_slice() {
        [one] => (*one, None),
        [one, other] if one != other => (*one, Some(*other)),
        _ => bail!("--port: expected one port or two different ones"),
    };
    let mut sites = Vec::new();
    for v6 in [false, true] {
        let of: Vec<(IpAddr, IpAddr)> = bound
            .iter()
            .enumerate()
            .filter(|(_, ip)| ip.is_ipv6() == v6)
            .map(|(n, ip)| (*ip, args.public.get(n).copied().unwrap_or(*ip)))
            .collect();
        if let Some((_, public)) = of.iter().find(|(ip, public)| ip.is_ipv6() != public.is_ipv6()) {
            bail!("--public {public} is of another family than its --address");
        }
        let (first, second) = match of.as_slice() {
            [] => continue,
            [one] => (*one, None),
            [one, other] if one.0 != other.0 => (*one, Some(*other)),
            _ => bail!("--address: expected at most two different addresses of a family"),
        };
        sites.push(Arc::new(site(first, second, ports)?));
    }
    Ok(sites)
}

/// An address, or a name that this host resolves to one (`fly-global-services`).
fn address(host: &str) -> anyhow::Result<IpAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        if ip.is_unspecified() {
            bail!(
                "--address {host}: an answer must leave by the address that was asked, so name each address"
            );
        }
        return Ok(ip);
    }
    let found = (host, 0)
        .to_socket_addrs()
        .with_context(|| format!("--address {host}: cannot resolve it"))?
        .next();
    found
        .map(|a| a.ip())
        .with_context(|| format!("--address {host}: it resolves to no address"))
}

fn site(
    first: (IpAddr, IpAddr),
    second: Option<(IpAddr, IpAddr)>,
    ports: (u16, Option<u16>),
) -> anyhow::Result<Site> {
    let bound = Grid {
        ips: (first.0, second.map(|s| s.0)),
        ports,
    };
    let mut sockets = [const { None }; 4];
    for slot in bound.slots() {
        if let (Some(at), Some(room)) = (bound.at(slot), sockets.get_mut(place(slot))) {
            *room = Some(bind(at)?);
        }
    }
    let grid = Grid {
        ips: (first.1, second.map(|s| s.1)),
        ports,
    };
    Ok(Site { grid, sockets })
}

fn bind(at: SocketAddr) -> anyhow::Result<Sockets> {
    let udp = UdpSocket::bind(at).with_context(|| format!("cannot serve {at} over UDP"))?;
    udp.set_read_timeout(Some(STOP_INTERVAL))
        .with_context(|| format!("cannot set up {at}"))?;
    // Where this is refused the default will do.
    let _ = socket2::SockRef::from(&udp).set_recv_buffer_size(RECEIVE_BUFFER);
    let tcp = TcpListener::bind(at).with_context(|| format!("cannot serve {at} over TCP"))?;
    tcp.set_nonblocking(true)
        .with_context(|| format!("cannot set up {at}"))?;
    Ok(Sockets { udp, tcp })
}

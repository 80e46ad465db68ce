//! A private network namespace for one closure, and tables in it filled by netlink.
#![allow(dead_code)] // tests and benches each take what they need

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::sched::{CloneFlags, unshare};
use wgnat::observation::Body;
use wgnat::observe::{Emit, Observer};
use wgnat::sys::netlink::{ACK, Netlink, REQUEST};
use wgnat::wire::netlink::attr::push;

const LIMIT: Duration = Duration::from_secs(5);
const CREATE: u16 = 0x400;

/// Runs `inside` on a thread of its own, in a network namespace of its own that has `lo` up. Threads and processes
/// that it starts are there too. The namespace ends with the last of them.
pub fn in_namespace<T: Send + 'static>(inside: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests make network namespaces: run them as root");
        set_up_loopback();
        inside()
    });
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn route(kind: u16, flags: u16, payload: &[u8]) {
    let mut netlink = Netlink::open(NETLINK_ROUTE, "route", LIMIT).unwrap();
    netlink
        .request(kind, REQUEST | ACK | flags, payload, |_, _| {})
        .unwrap();
}

/// `ip link set lo up`: RTM_NEWLINK with `struct ifinfomsg`; `lo` is always 1.
fn set_up_loopback() {
    let words = [0u32, 1, 1, 1];
    route(16, 0, &words.map(u32::to_ne_bytes).concat());
}

/// `ip route add NET/24 dev lo`: what is sent there comes back in on `lo`, is for nobody and is dropped in silence.
pub fn add_black_hole(net: Ipv4Addr) {
    // struct rtmsg: AF_INET, /24, table main, protocol static, scope link, unicast.
    let mut payload = vec![2, 24, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0];
    push(&mut payload, 1, &net.octets());
    push(&mut payload, 4, &1u32.to_ne_bytes());
    route(24, CREATE, &payload);
}

/// What one look emits.
pub fn look(observer: &mut dyn Observer) -> (Vec<Body>, wgnat::observation::SourceStatus) {
    let mut seen = Vec::new();
    let mut send = |_, _, _, body| seen.push(body);
    let source = observer.source();
    let status = observer.look(&mut Emit::new(source, &mut send)).unwrap();
    (seen, status)
}

/// A program's standard output, or `None` where it is not installed.
pub fn output_of(program: &str, args: &[&str]) -> Option<String> {
    match Command::new(program).args(args).output() {
        Ok(out) => {
            assert!(
                out.status.success(),
                "{program}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
            Some(String::from_utf8_lossy(&out.stdout).into_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{program}: {error}"),
    }
}

/// An entry to be put into conntrack.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry {
    pub protocol: u8,
    /// Source and destination of the original direction.
    pub original: [(IpAddr, u16); 2],
    /// Source and destination of the reply direction.
    pub reply: [(IpAddr, u16); 2],
    pub status: u32,
    pub timeout: u32,
    /// `enum tcp_conntrack`; for TCP only.
    pub tcp_state: u8,
}

/// `IPS_SEEN_REPLY | IPS_ASSURED`.
pub const REPLIED: u32 = 6;

impl NewEntry {
    /// An established TCP connection that NAT has given `nat`.
    pub fn masqueraded(client: (IpAddr, u16), server: (IpAddr, u16), nat: (IpAddr, u16)) -> Self {
        Self {
            protocol: 6,
            original: [client, server],
            reply: [server, nat],
            status: 6,
            timeout: 432_000,
            tcp_state: 3,
        }
    }

    /// The message after its header, as the kernel takes it and, but for what it adds, gives it back.
    pub fn payload(&self) -> Vec<u8> {
        const NESTED: u16 = 0x8000;
        let nest = |kind: u16, parts: &[(u16, &[u8])]| {
            let mut inner = Vec::new();
            parts
                .iter()
                .for_each(|(kind, value)| push(&mut inner, *kind, value));
            let mut out = Vec::new();
            push(&mut out, NESTED | kind, &inner);
            out
        };
        let tuple = |kind: u16, [from, to]: [(IpAddr, u16); 2]| {
            let ip = match (from.0, to.0) {
                (IpAddr::V4(a), IpAddr::V4(b)) => nest(1, &[(1, &a.octets()), (2, &b.octets())]),
                (IpAddr::V6(a), IpAddr::V6(b)) => nest(1, &[(3, &a.octets()), (4, &b.octets())]),
                other => panic!("mixed families: {other:?}"),
            };
            let ports: [(u16, &[u8]); 3] = [
                (1, &[self.protocol]),
                (2, &from.1.to_be_bytes()),
                (3, &to.1.to_be_bytes()),
            ];
            let inner = [ip, nest(2, &ports)].concat();
            let mut out = Vec::new();
            push(&mut out, NESTED | kind, &inner);
            out
        };
        let family = if self.original[0].0.is_ipv4() { 2 } else { 10 };
        let mut payload = vec![family, 0, 0, 0];
        payload.extend(tuple(1, self.original));
        payload.extend(tuple(2, self.reply));
        push(&mut payload, 3, &(self.status | 8).to_be_bytes()); // IPS_CONFIRMED
        push(&mut payload, 7, &self.timeout.to_be_bytes());
        if self.protocol == 6 {
            let state = nest(1, &[(1, &[self.tcp_state])]);
            push(&mut payload, NESTED | 4, &state);
        }
        payload
    }
}

/// Puts entries into the namespace's conntrack table (IPCTNL_MSG_CT_NEW), many in one send.
pub fn insert(entries: impl IntoIterator<Item = NewEntry>) {
    let mut netlink = Netlink::open(NETLINK_NETFILTER, "conntrack", LIMIT).unwrap();
    let socket = netlink.socket();
    let mut batch = Vec::new();
    let flush = |batch: &mut Vec<u8>| {
        socket.send(batch, 0).unwrap();
        // Only what fails is answered.
        let mut answer = [0; 512];
        let refused = socket.recv(&mut &mut answer[..], libc::MSG_DONTWAIT);
        assert!(
            refused.is_err(),
            "the kernel refused an entry: {:?}",
            &answer[16..20]
        );
        batch.clear();
    };
    for entry in entries {
        let payload = entry.payload();
        batch.extend((u32::try_from(16 + payload.len()).unwrap()).to_ne_bytes());
        batch.extend((1u16 << 8).to_ne_bytes());
        batch.extend((REQUEST | CREATE).to_ne_bytes());
        batch.extend([0; 8]);
        batch.extend(payload);
        if batch.len() > 30_000 {
            flush(&mut batch);
        }
    }
    if !batch.is_empty() {
        flush(&mut batch);
    }
}

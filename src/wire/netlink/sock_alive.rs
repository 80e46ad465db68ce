//! `sock_diag` for TCP sockets towards some addresses, with what tells whether a connection is alive: how often its SYN or
//! its data has been sent again, and how long ago something came (include/uapi/linux/inet_diag.h, include/uapi/linux/tcp.h).
//!
//! In: addresses, for the request; the payload of one answer. Out: the request's payload, [`Alive`]. Why apart from
//! [`super::sock_diag`]: `struct tcp_info` makes an answer four times as long, so it is asked for where it is needed only, and
//! the kernel leaves out all other sockets by a filter that it runs itself (`inet_diag_bc_run` in net/ipv4/inet_diag.c).

use std::net::{IpAddr, SocketAddr};

use super::addr::Addr;
use super::attr::{Attrs, push};
use super::sock_diag::{INET, INET6, TCP, request, socket};

/// `INET_DIAG_REQ_BYTECODE`.
const BYTECODE: u16 = 1;
/// `INET_DIAG_INFO`: an answer's attribute, and as bit 1 of the request's extensions.
const INFO: u16 = 2;
const WANT_INFO: u8 = 1 << (INFO - 1);
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;

/// `INET_DIAG_BC_JMP` and `INET_DIAG_BC_D_COND`.
const JUMP: u8 = 1;
const REMOTE: u8 = 8;
/// `struct inet_diag_bc_op`: code, `yes`, and `no` of 16 bits.
const OP: u16 = 4;
/// `struct inet_diag_hostcond` before the address: family, prefix length, two bytes of padding, port.
const CONDITION: u16 = 8;

/// `idiag_timer` while something that was sent waits for its acknowledgement.
const RETRANSMIT: u8 = 1;

/// `tcpi_last_data_recv` and `tcpi_last_ack_recv` in `struct tcp_info`, in milliseconds.
const LAST_DATA: usize = 52;
const LAST_ACK: usize = 56;

/// The most addresses that a request names: some 2 kB of filter.
pub const MOST: usize = 64;

/// A dump request for TCP sockets of `family` (`AF_INET` or `AF_INET6`, which has the mapped addresses of dual-stack sockets too)
/// in `states`, towards these addresses: the first [`MOST`] of them. `None` where no socket of that family can be meant.
pub fn request_towards(family: u8, states: u32, addresses: &[IpAddr]) -> Option<Vec<u8>> {
    let fits = |ip: &&IpAddr| ip.is_ipv4() || family == INET6;
    let wanted: Vec<IpAddr> = addresses.iter().filter(fits).copied().take(MOST).collect();
    if wanted.is_empty() {
        return None;
    }
    let code = filter(&wanted);
    let mut out = request(family, TCP, states).to_vec();
    // idiag_ext.
    if let Some(extensions) = out.get_mut(2) {
        *extensions = WANT_INFO;
    }
    push(&mut out, BYTECODE, &code);
    Some(out)
}

/// One condition for each address; a socket for which one holds jumps to the end, which means "yes". The last that does
/// not hold jumps four bytes beyond it: "no".
fn filter(addresses: &[IpAddr]) -> Vec<u8> {
    let size = |ip: &IpAddr| OP + CONDITION + if ip.is_ipv4() { 4 } else { 16 };
    let mut left: u16 = addresses.iter().map(|ip| size(ip) + OP).sum();
    let mut code = Vec::with_capacity(left.into());
    for ip in addresses {
        let (own, bits) = (size(ip), if ip.is_ipv4() { 32 } else { 128 });
        let op = |code: u8, yes: u16, no: u16| {
            let [n0, n1] = no.to_ne_bytes();
            // No operation is longer than 28 bytes.
            [code, u8::try_from(yes).unwrap_or(u8::MAX), n0, n1]
        };
        let beyond = if left == own + OP { OP } else { 0 };
        code.extend(op(REMOTE, own, own + OP + beyond));
        let family = if ip.is_ipv4() { INET } else { INET6 };
        code.extend([family, bits, 0, 0]);
        // Any port.
        code.extend((-1_i32).to_ne_bytes());
        match ip {
            IpAddr::V4(v4) => code.extend(v4.octets()),
            IpAddr::V6(v6) => code.extend(v6.octets()),
        }
        left -= own;
        code.extend(op(JUMP, OP, left));
        left -= OP;
    }
    code
}

/// What an answer tells of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Its state (include/net/tcp_states.h).
    pub state: u8,
    /// Local address.
    pub source: IpAddr,
    /// Remote address and port.
    pub destination: SocketAddr,
    /// How often what waits for an acknowledgement has been sent again.
    pub sent_again: u8,
    /// Milliseconds since data or an acknowledgement came; `None` where the kernel did not tell.
    pub heard_ago: Option<u32>,
}

/// Reads an answer; `None` where it is too short or of another family.
pub fn alive(payload: &[u8]) -> Option<Alive> {
    let fixed = socket(payload)?;
    let sent_again = payload.get(3).copied().filter(|_| fixed.timer == RETRANSMIT);
    let info = Attrs::new(payload.get(MESSAGE..)?).find(|a| a.kind == INFO);
    let word = |at: usize| {
        let bytes = info?.value.get(at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    let ip = |address: Addr| address.ip();
    Some(Alive {
        state: fixed.state,
        source: ip(fixed.source),
        destination: SocketAddr::new(ip(fixed.destination), fixed.destination_port),
        sent_again: sent_again.unwrap_or(0),
        heard_ago: word(LAST_DATA)
            .zip(word(LAST_ACK))
            .map(|(data, ack)| data.min(ack)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The kernel's walk over a filter (`inet_diag_bc_run`), for sockets towards `to`.
    fn run(mut code: &[u8], to: IpAddr) -> bool {
        let mut left = i64::try_from(code.len()).unwrap();
        while left > 0 {
            let op: [u8; 4] = *code.first_chunk().unwrap();
            let no = i64::from(u16::from_ne_bytes([op[2], op[3]]));
            let yes = match op[0] {
                JUMP => false,
                _ => {
                    let address = &code[12..usize::from(op[1])];
                    match to {
                        IpAddr::V4(v4) => code[4] == INET && address == v4.octets(),
                        IpAddr::V6(v6) => code[4] == INET6 && address == v6.octets(),
                    }
                }
            };
            let step = if yes { i64::from(op[1]) } else { no };
            left -= step;
            code = code.get(usize::try_from(step).unwrap()..).unwrap_or(&[]);
        }
        left == 0
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_filter_takes_each_named_address_and_no_other() {
        let named = [ip("192.0.2.1"), ip("2001:db8::7"), ip("192.0.2.3")];
        let code = filter(&named);
        for address in named {
            assert!(run(&code, address), "{address}");
        }
        for other in ["192.0.2.2", "2001:db8::8", "0.0.0.0"] {
            assert!(!run(&code, ip(other)), "{other}");
        }
    }

    #[test]
    fn the_request_names_what_the_family_can_have() {
        let (four, six) = (ip("192.0.2.1"), ip("2001:db8::7"));
        assert_eq!(request_towards(INET, 2, &[six]), None);
        assert_eq!(request_towards(INET6, 2, &[]), None);
        let r = request_towards(INET, 6, &[four, six]).unwrap();
        assert_eq!((r[0], r[1], r[2]), (INET, TCP, WANT_INFO));
        // Request, attribute, one condition and its jump.
        assert_eq!(r.len(), 56 + 4 + 16 + 4);
        assert_eq!(
            request_towards(INET6, 6, &[four, six]).unwrap().len(),
            56 + 4 + 20 + 32
        );
        let many = vec![six; 500];
        let r = request_towards(INET6, 6, &many).unwrap();
        assert_eq!(r.len(), 60 + MOST * 32);
    }

    fn message(state: u8, timer: u8, again: u8, info: &[u8]) -> Vec<u8> {
        let mut m = vec![INET, state, timer, again, 0x9c, 0x40, 0x01, 0xbb];
        for address in [[10, 0, 0, 2], [192, 0, 2, 7]] {
            m.extend(address);
            m.extend([0; 12]);
        }
        m.resize(MESSAGE, 0);
        m.extend(u16::try_from(info.len() + 4).unwrap().to_ne_bytes());
        m.extend(INFO.to_ne_bytes());
        m.extend(info);
        m
    }

    #[test]
    fn what_is_alive() {
        let mut info = [0; 104];
        info[LAST_DATA..LAST_DATA + 4].copy_from_slice(&700_u32.to_ne_bytes());
        info[LAST_ACK..LAST_ACK + 4].copy_from_slice(&40_u32.to_ne_bytes());
        let a = alive(&message(1, 0, 5, &info)).unwrap();
        assert_eq!(a.destination, "192.0.2.7:443".parse().unwrap());
        // No retransmission timer runs: the count is of something else (keepalive or window probes).
        assert_eq!((a.state, a.sent_again, a.heard_ago), (1, 0, Some(40)));
        let syn = alive(&message(2, RETRANSMIT, 2, &info)).unwrap();
        assert_eq!((syn.state, syn.sent_again), (2, 2));
        // An old kernel's shorter structure.
        assert_eq!(alive(&message(1, 0, 0, &info[..40])).unwrap().heard_ago, None);
        assert_eq!(alive(&message(1, 0, 0, &info)[..71]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = alive(&bytes);
        }
    }
}

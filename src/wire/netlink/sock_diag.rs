//! `sock_diag` for TCP and UDP (include/uapi/linux/inet_diag.h): the request, and the fixed part of an answer.
//!
//! In: the payload of one answer. Out: the fields that diagnosis needs. The attributes behind the fixed part are
//! not asked for and not read.

use super::addr::Addr;

/// `SOCK_DIAG_BY_FAMILY` (include/uapi/linux/sock_diag.h).
pub const BY_FAMILY: u16 = 20;
/// `AF_INET`.
pub const INET: u8 = 2;
/// `AF_INET6`.
pub const INET6: u8 = 10;
/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;

/// `idiag_timer` of a TIME_WAIT socket: `idiag_expires` is its remaining life.
pub const TIMER_TIME_WAIT: u8 = 3;

/// `struct inet_diag_req_v2`: 4 bytes, the states, `struct inet_diag_sockid` of 48.
const REQUEST: usize = 56;
/// `struct inet_diag_msg`: 4 bytes, `struct inet_diag_sockid` of 48, five words.
const MESSAGE: usize = 72;

/// A dump request for the sockets of `family` and `protocol` whose state's bit is set in `states`. No extension is
/// asked for: each costs the kernel time and the dump length.
pub fn request(family: u8, protocol: u8, states: u32) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    let [s0, s1, s2, s3] = states.to_ne_bytes();
    request[..8].copy_from_slice(&[family, protocol, 0, 0, s0, s1, s2, s3]);
    request
}

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its state (include/net/tcp_states.h); UDP uses ESTABLISHED for connected, CLOSE for not.
    pub state: u8,
    /// Which timer runs; see [`TIMER_TIME_WAIT`].
    pub timer: u8,
    /// Local address.
    pub source: Addr,
    /// Remote address.
    pub destination: Addr,
    /// Local port.
    pub source_port: u16,
    /// Remote port, 0 where not connected.
    pub destination_port: u16,
    /// Milliseconds until the timer fires.
    pub expires: u32,
    /// The owner's user id; always 0 in TIME_WAIT.
    pub uid: u32,
    /// Its inode; always 0 in TIME_WAIT.
    pub inode: u32,
}

/// Reads an answer; `None` where it is too short or of another family.
#[inline]
pub fn socket(payload: &[u8]) -> Option<Socket> {
    let m: &[u8; MESSAGE] = payload.first_chunk()?;
    let (source, destination) = match m[0] {
        INET => (Addr::from_v4(part::<8, 4>(m)), Addr::from_v4(part::<24, 4>(m))),
        INET6 => (Addr::from_v6(part::<8, 16>(m)), Addr::from_v6(part::<24, 16>(m))),
        _ => return None,
    };
    Some(Socket {
        state: m[1],
        timer: m[2],
        source,
        destination,
        source_port: u16::from_be_bytes(part::<4, 2>(m)),
        destination_port: u16::from_be_bytes(part::<6, 2>(m)),
        expires: u32::from_ne_bytes(part::<52, 4>(m)),
        uid: u32::from_ne_bytes(part::<64, 4>(m)),
        inode: u32::from_ne_bytes(part::<68, 4>(m)),
    })
}

/// `N` bytes from `AT` on; that they lie inside is proven when compiling.
#[inline]
fn part<const AT: usize, const N: usize>(m: &[u8; MESSAGE]) -> [u8; N] {
    const { assert!(AT + N <= MESSAGE) };
    let mut out = [0; N];
    out.copy_from_slice(&m[AT..AT + N]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(family: u8) -> Vec<u8> {
        let mut m = vec![family, 6, TIMER_TIME_WAIT, 0, 0x9c, 0x40, 0x01, 0xbb];
        let (source, destination): ([u8; 16], [u8; 16]) = if family == INET {
            let mut pair = ([0; 16], [0; 16]);
            pair.0[..4].copy_from_slice(&[10, 0, 0, 2]);
            pair.1[..4].copy_from_slice(&[192, 0, 2, 7]);
            pair
        } else {
            let a = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
            (a("::ffff:10.0.0.2"), a("2001:db8::7"))
        };
        m.extend(source);
        m.extend(destination);
        m.extend([0; 12]);
        for word in [59_000u32, 1, 2, 1000, 4242] {
            m.extend(word.to_ne_bytes());
        }
        m
    }

    #[test]
    fn fields_of_both_families() {
        let s = socket(&message(INET)).unwrap();
        assert_eq!((s.state, s.timer, s.expires), (6, TIMER_TIME_WAIT, 59_000));
        assert_eq!((s.source_port, s.destination_port), (40_000, 443));
        assert_eq!((s.uid, s.inode), (1000, 4242));
        assert_eq!(s.source, Addr::from_v4([10, 0, 0, 2]));
        assert_eq!(s.destination, Addr::from_v4([192, 0, 2, 7]));
        let s = socket(&message(INET6)).unwrap();
        assert_eq!(s.source, Addr::from_v4([10, 0, 0, 2]));
        assert_eq!(s.destination.ip().to_string(), "2001:db8::7");
    }

    #[test]
    fn short_or_foreign_answers_are_refused() {
        for length in 0..MESSAGE {
            assert_eq!(socket(&message(INET)[..length]), None);
        }
        assert_eq!(socket(&message(1)), None);
    }

    #[test]
    fn the_request_has_the_kernels_layout() {
        let r = request(INET6, UDP, 1 << 7);
        assert_eq!(&r[..4], &[10, 17, 0, 0]);
        assert_eq!(r[4..8], (1u32 << 7).to_ne_bytes());
        assert!(r[8..].iter().all(|b| *b == 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = socket(&bytes);
        }
    }
}

use smoltcp::iface::SocketHandle;
use smoltcp::socket::{tcp, udp};

use super::*;

const US: &str = "10.99.0.9";
const THEM: &str = "10.99.0.1";

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000_000 + millis * 1_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The other end: a stack that answers echoes, refuses or takes connections, and answers queries with what came.
struct Other {
    stack: Stack,
    names: SocketHandle,
    listener: SocketHandle,
}

impl Other {
    fn new() -> Self {
        let mut stack = Stack::new(ip(THEM), 5, at(0));
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
        let mut names = udp::Socket::new(buffer(), buffer());
        names.bind(53).unwrap();
        let mut listener = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; 1024]),
            tcp::SocketBuffer::new(vec![0; 1024]),
        );
        listener.listen(80).unwrap();
        let (names, listener) = (stack.sockets.add(names), stack.sockets.add(listener));
        Self {
            stack,
            names,
            listener,
        }
    }

    /// Answers each query with one address (or an error for its type AAAA).
    fn serve_names(&mut self, now: Timestamp) {
        use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
        use hickory_proto::rr::{RData, Record, RecordType, rdata::A};
        let socket = self.stack.sockets.get_mut::<udp::Socket<'_>>(self.names);
        let mut answers = Vec::new();
        while let Ok((bytes, from)) = socket.recv() {
            let query = Message::from_vec(bytes).unwrap();
            let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
            answer.metadata.response_code = ResponseCode::NoError;
            let question = query.queries[0].clone();
            if question.query_type() == RecordType::A {
                let name = question.name().clone();
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 7))));
            }
            answer.add_query(question);
            answers.push((answer.to_vec().unwrap(), from.endpoint));
        }
        for (answer, to) in answers {
            let _ = socket.send_slice(&answer, to);
        }
        self.stack.handle_timeout(now);
    }
}

/// The reply to an echo request over IPv4: addresses swapped, type 0, and a checksum that is larger by as much.
fn echoed(packet: &[u8]) -> Option<Vec<u8>> {
    let (header, message) = packet.split_at_checked(20)?;
    if header[9] != 1 || message[0] != 8 {
        return None;
    }
    let mut reply = packet.to_vec();
    reply[12..16].copy_from_slice(&header[16..20]);
    reply[16..20].copy_from_slice(&header[12..16]);
    reply[20] = 0;
    let sum = u32::from(u16::from_be_bytes([message[2], message[3]])) + 0x0800;
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).ok()?;
    reply[22..24].copy_from_slice(&folded.to_be_bytes());
    Some(reply)
}

/// Carries packets with 10 ms each way until the answer is there; drops those that `lost` says.
fn answer(question: Question, mut lost: impl FnMut(usize) -> bool) -> Inner {
    let mut other = Other::new();
    let mut now = at(0);
    let mut ask = Ask::new(question, ip(US), 0x1234_5678_9abc_def0, Span::from_secs(1), now);
    let mut carried = 0;
    for _ in 0..1000 {
        let mut there = Vec::new();
        while let Some(packet) = ask.poll_transmit() {
            carried += 1;
            if !lost(carried) {
                there.push(packet);
            }
        }
        now = now + Span::from_millis(10);
        let mut back = Vec::new();
        for packet in there {
            match echoed(&packet) {
                Some(reply) => back.push(reply),
                None => other.stack.handle_input(now, packet),
            }
        }
        other.serve_names(now);
        now = now + Span::from_millis(10);
        back.extend(std::iter::from_fn(|| other.stack.poll_transmit()));
        for packet in back {
            ask.handle_input(now, packet);
        }
        ask.handle_timeout(now);
        if let Some(Fact::Inner(inner)) = ask.poll_event() {
            let _ = other.listener;
            return inner;
        }
        assert!(ask.poll_timeout(now).is_some(), "it would wait for ever");
    }
    panic!("no answer");
}

#[test]
fn echoes_are_answered_and_lost_ones_counted() {
    let ping = Question::Ping {
        to: ip(THEM),
        count: 4,
    };
    let inner = answer(ping.clone(), |n| n == 2);
    assert_eq!((inner.kind, inner.sent, inner.answered), (InnerKind::Ping, 4, 3));
    assert!(inner.rtts.iter().all(|s| (s - 0.02).abs() < 1e-6), "{inner:?}");
    let silent = answer(ping, |_| true);
    assert_eq!((silent.answered, silent.error.as_deref()), (0, Some("no reply")));
}

#[test]
fn names_are_asked_for_again_where_no_answer_comes() {
    let dns = Question::Dns {
        name: "app.internal".to_owned(),
        server: SocketAddr::new(ip(THEM), 53),
    };
    let inner = answer(dns.clone(), |n| n <= 2);
    assert_eq!(
        (inner.sent, inner.answered, inner.answer.as_deref()),
        (4, 2, Some("1 address"))
    );
    let silent = answer(dns, |_| true);
    assert_eq!((silent.sent, silent.error.as_deref()), (6, Some("no answer")));
    let wrong = Question::Dns {
        name: "a".repeat(300),
        server: SocketAddr::new(ip(THEM), 53),
    };
    assert_eq!(
        answer(wrong, |_| false).error.as_deref(),
        Some("not a domain name")
    );
}

#[test]
fn a_connection_stands_is_refused_or_gets_no_answer() {
    let tcp = |port| Question::Tcp {
        to: SocketAddr::new(ip(THEM), port),
    };
    assert_eq!(answer(tcp(80), |_| false).answer.as_deref(), Some("connected"));
    assert_eq!(answer(tcp(81), |_| false).answer.as_deref(), Some("refused"));
    assert_eq!(answer(tcp(80), |_| true).error.as_deref(), Some("no answer"));
}

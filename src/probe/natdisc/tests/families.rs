//! Two families at once, each with its own pace.

use super::*;

/// A port-restricted NAT of each family, before servers that answer; IPv4's loses what is sent in the first `late`.
fn run_both(late: Span, lifetime: Option<Span>) -> NatFacts {
    let start = Timestamp::from_secs(1000);
    let grid = |first: &str, second: &str| Grid {
        ips: (first.parse().unwrap(), Some(second.parse().unwrap())),
        ports: (3478, Some(3479)),
    };
    let grids = [grid("192.0.2.1", "192.0.2.2"), grid("2001:db8::1", "2001:db8::2")];
    let outside: [IpAddr; 2] = ["198.51.100.7".parse().unwrap(), "2001:db8:7::7".parse().unwrap()];
    let inside: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    let plan = Plan {
        servers: [(4, "192.0.2.1:3478"), (6, "[2001:db8::1]:3478")]
            .map(|(n, at)| (n.to_string(), addr(at)))
            .to_vec(),
        key: [3; 32],
        lifetime,
    };
    let mut discovery = Discovery::new(plan, start);
    for place in 0..2 {
        discovery.handle_tcp(place, Ok(ONE_WAY));
    }
    let (mut now, mut ports) = (start, BTreeMap::<SocketId, u16>::new());
    let mut inbound: Vec<(Timestamp, SocketId, SocketAddr, Vec<u8>)> = Vec::new();
    for _ in 0..100_000 {
        while let Some(effect) = discovery.poll_transmit() {
            match effect {
                Effect::Open(id, _) => {
                    let port = 40_000 + u16::try_from(ports.len()).unwrap();
                    ports.insert(id, port);
                    let local = SocketAddr::new(inside[usize::from(id.family == Family::Ipv6)], port);
                    discovery.handle_opened(now, id, Ok(local));
                }
                Effect::Send(id, to, bytes) => {
                    let family = usize::from(id.family == Family::Ipv6);
                    if family == 0 && now - start < late {
                        continue;
                    }
                    let Some(slot) = grids[family].slots().find(|s| grids[family].at(*s) == Some(to)) else {
                        continue;
                    };
                    let from = SocketAddr::new(outside[family], ports[&id]);
                    let mut out = [0; 400];
                    let answer =
                        reflector::answer(&grids[family], slot, from, Transport::Udp, &bytes, &mut out);
                    if let Reply::Send {
                        via,
                        to: back,
                        length,
                        ..
                    } = answer
                        && grids[family].at(via) == Some(to)
                        && back == from
                    {
                        inbound.push((now + ONE_WAY, id, to, out[..length].to_vec()));
                    }
                }
                Effect::Close(_) => {}
            }
        }
        if let Some(facts) = discovery.poll_event() {
            return facts;
        }
        inbound.sort_by_key(|(at, ..)| *at);
        let arrives = inbound.first().map(|(at, ..)| *at);
        match (arrives, discovery.poll_timeout()) {
            (Some(at), due) if due.is_none_or(|due| at <= due) => {
                let (at, id, from, bytes) = inbound.remove(0);
                now = now.max(at);
                discovery.handle_input(now, id, from, &bytes);
            }
            (_, Some(due)) => {
                now = now.max(due);
                discovery.handle_timeout(now);
            }
            (_, None) => panic!("it waits for nothing and has not ended"),
        }
    }
    panic!("it does not end");
}

#[test]
fn neither_waits_for_the_other_nor_is_forgotten() {
    for late in [0, 200, 600, 1400] {
        let facts = run_both(Span::from_millis(late), Some(Span::from_secs(2)));
        for f in &facts.families {
            let said = (f.mapping, f.filtering, f.hairpinning, f.pooling.is_some());
            assert_eq!(said, (Ei, Apd, Some(false), true), "late by {late} ms: {f:#?}");
            // The answer to another port is an answer from elsewhere to this simulation: none comes.
            let why = f.left_out.iter().find(|l| l.test == "lifetime");
            assert!(f.lifetime.is_some() || why.is_some(), "late by {late} ms: {f:#?}");
        }
    }
}

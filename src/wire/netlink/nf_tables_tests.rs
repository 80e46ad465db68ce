use proptest::prelude::*;

use super::*;
use crate::wire::netlink::attr::push;

/// An attribute that holds others.
fn nest(kind: u16, inside: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push(&mut out, kind | 0x8000, inside);
    out
}

fn attrs(list: &[(u16, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, value) in list {
        push(&mut out, *kind, value);
    }
    out
}

fn be(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

/// One expression: name and data.
fn expr(name: &str, data: &[u8]) -> Vec<u8> {
    let mut named = attrs(&[(1, format!("{name}\0").as_bytes())]);
    named.extend(nest(2, data));
    nest(1, &named)
}

fn immediate(register: u32, value: &[u8]) -> Vec<u8> {
    let mut data = attrs(&[(1, &be(register))]);
    data.extend(nest(2, &attrs(&[(1, value)])));
    expr("immediate", &data)
}

fn meta(key: u32) -> Vec<u8> {
    expr("meta", &attrs(&[(2, &be(key)), (1, &be(1))]))
}

fn payload(base: u32, offset: u32, length: u32) -> Vec<u8> {
    expr(
        "payload",
        &attrs(&[(1, &be(1)), (2, &be(base)), (3, &be(offset)), (4, &be(length))]),
    )
}

fn cmp(op: u32, value: &[u8]) -> Vec<u8> {
    let mut data = attrs(&[(1, &be(1)), (2, &be(op))]);
    data.extend(nest(3, &attrs(&[(1, value)])));
    expr("cmp", &data)
}

fn message(family: u8, expressions: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![family, 0, 0, 0];
    out.extend(attrs(&[(1, b"nat\0"), (2, b"post\0"), (3, &7u64.to_be_bytes())]));
    out.extend(nest(4, &expressions.concat()));
    out
}

fn read(family: u8, expressions: &[Vec<u8>]) -> Option<Rule> {
    rule(&message(family, expressions)).expect("well formed")
}

fn masq(list: &[(u16, u32)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (kind, value) in list {
        push(&mut data, *kind, &be(*value));
    }
    expr("masq", &data)
}

const OIFNAME: u32 = 7;
const L4PROTO: u32 = 16;

#[test]
fn masquerade_with_a_range() {
    let rule = read(
        family::IPV4,
        &[
            meta(OIFNAME),
            cmp(0, b"wan0\0"),
            expr("counter", &[]),
            immediate(1, &20_000u16.to_be_bytes()),
            immediate(2, &20_099u16.to_be_bytes()),
            masq(&[(2, 1), (3, 2), (1, 2 | 1 << 4)]),
        ],
    )
    .expect("it translates");
    assert!(rule.masquerade && rule.fully_random && !rule.random && !rule.persistent);
    assert_eq!(
        rule.ports,
        Ports::Range(PortRange {
            low: 20_000,
            high: 20_099
        })
    );
    assert_eq!(
        (rule.table.as_str(), rule.chain.as_str(), rule.handle),
        ("nat", "post", 7)
    );
    assert_eq!((rule.protocol, rule.conditions.len()), (None, 1));
}

#[test]
fn snat_to_addresses_and_ports_under_conditions() {
    let nat: &[(u16, &[u8])] = &[
        (1, &be(0)),
        (2, &be(2)),
        (3, &be(1)),
        (4, &be(2)),
        (5, &be(3)),
        (6, &be(4)),
        (7, &be(0x1b)),
    ];
    let rule = read(
        family::IPV4,
        &[
            payload(1, 16, 4),
            cmp(0, &[203, 0, 113, 9]),
            meta(L4PROTO),
            cmp(0, &[6]),
            payload(2, 2, 2),
            cmp(0, &443u16.to_be_bytes()),
            immediate(1, &[198, 51, 100, 1]),
            immediate(2, &[198, 51, 100, 4]),
            immediate(3, &1000u16.to_be_bytes()),
            immediate(4, &2000u16.to_be_bytes()),
            expr("nat", &attrs(nat)),
        ],
    )
    .expect("it translates");
    let at = |last| IpAddr::from([198, 51, 100, last]);
    assert_eq!(rule.addresses, Some((at(1), at(4))));
    assert_eq!(
        rule.ports,
        Ports::Range(PortRange {
            low: 1000,
            high: 2000
        })
    );
    assert_eq!(
        (rule.protocol, rule.destination, rule.destination_port),
        (Some(6), Some([203, 0, 113, 9].into()), Some(443))
    );
    assert!(rule.persistent && rule.fully_random && !rule.masquerade);
    assert_eq!(rule.conditions, Vec::<u64>::new());
}

#[test]
fn what_comes_from_a_map_is_unknown() {
    let lookup = expr("lookup", &attrs(&[(1, b"map\0"), (2, &be(1)), (3, &be(1))]));
    let rule = read(
        family::IPV4,
        &[
            immediate(1, &[198, 51, 100, 1]),
            payload(1, 12, 4),
            lookup,
            expr("nat", &attrs(&[(1, &be(0)), (3, &be(1)), (5, &be(1))])),
        ],
    )
    .expect("it translates");
    assert_eq!((rule.addresses, rule.ports), (None, Ports::Unknown));
    assert_eq!(rule.conditions.len(), 1);
}

#[test]
fn conditions_are_compared_not_read() {
    let with = |name: &[u8], op| {
        read(family::IPV4, &[meta(OIFNAME), cmp(op, name), masq(&[])])
            .unwrap()
            .conditions
    };
    assert_eq!(with(b"wan0\0", 0), with(b"wan0\0", 0));
    assert_ne!(with(b"wan0\0", 0), with(b"wan1\0", 0));
    assert_ne!(with(b"wan0\0", 0), with(b"wan0\0", 1));
    // "not TCP" is a condition that is not read.
    let rule = read(family::INET, &[meta(L4PROTO), cmp(1, &[6]), masq(&[])]).unwrap();
    assert_eq!((rule.protocol, rule.conditions.len()), (None, 1));
    // An address under a mask, too.
    let masked = expr("bitwise", &attrs(&[(1, &be(1)), (2, &be(1))]));
    let rule = read(
        family::IPV4,
        &[payload(1, 16, 4), masked, cmp(0, &[203, 0, 113, 0]), masq(&[])],
    )
    .unwrap();
    assert_eq!((rule.destination, rule.conditions.len()), (None, 1));
}

#[test]
fn targets_of_iptables() {
    let target = |family_of: u8, name: &str, revision: u32, info: &[u8]| {
        let data = [
            (1, format!("{name}\0").into_bytes()),
            (2, be(revision).to_vec()),
            (3, info.to_vec()),
        ]
        .iter()
        .flat_map(|(kind, value)| attrs(&[(*kind, value)]))
        .collect::<Vec<_>>();
        rule(&message(family_of, &[expr("target", &data)]))
    };
    // As iptables 1.8.9 makes it: rangesize 1, flags, two addresses, two ports.
    let mut short = [1u32.to_ne_bytes(), 6u32.to_ne_bytes()].concat();
    short.extend([0; 8]);
    short.extend([20_000u16.to_be_bytes(), 20_099u16.to_be_bytes()].concat());
    let masquerade = target(family::IPV4, "MASQUERADE", 0, &short).unwrap().unwrap();
    let ports = Ports::Range(PortRange {
        low: 20_000,
        high: 20_099,
    });
    assert_eq!((masquerade.ports, masquerade.random), (ports, true));
    assert!(masquerade.masquerade && masquerade.addresses.is_none());

    let mut snat = [1u32.to_ne_bytes(), 9u32.to_ne_bytes()].concat();
    snat.extend([198, 51, 100, 1, 198, 51, 100, 4, 0, 0, 0, 0]);
    let snat = target(family::IPV4, "SNAT", 0, &snat).unwrap().unwrap();
    let at = |last| IpAddr::from([198, 51, 100, last]);
    assert_eq!(
        (snat.addresses, snat.ports, snat.persistent),
        (Some((at(1), at(4))), Ports::Any, true)
    );

    let mut long = 3u32.to_ne_bytes().to_vec();
    for last in [1, 2] {
        let mut v6 = [0; 16];
        v6[0] = 0xfd;
        v6[15] = last;
        long.extend(v6);
    }
    long.extend([1024u16.to_be_bytes(), 2047u16.to_be_bytes()].concat());
    let v6 = target(family::IPV6, "SNAT", 1, &long).unwrap().unwrap();
    assert_eq!(
        v6.ports,
        Ports::Range(PortRange {
            low: 1024,
            high: 2047
        })
    );
    assert_eq!(v6.addresses.map(|(a, _)| a), Some("fd00::1".parse().unwrap()));

    assert_eq!(target(family::IPV4, "DNAT", 0, &short), Ok(None));
    assert_eq!(
        target(family::IPV4, "MASQUERADE", 0, &short[..10]),
        Err(Malformed)
    );
}

#[test]
fn other_rules_translate_no_source() {
    assert_eq!(read(family::IPV4, &[meta(OIFNAME), cmp(0, b"wan0\0")]), None);
    assert_eq!(read(family::IPV4, &[expr("nat", &attrs(&[(1, &be(1))]))]), None);
    assert_eq!(read(family::IPV4, &[]), None);
    assert_eq!(rule(&[2, 0, 0, 0]), Ok(None));
    assert_eq!(rule(&[]), Err(Malformed));
    assert_eq!(rule(&message(family::IPV4, &[expr("nat", &[])])), Err(Malformed));
}

#[test]
fn a_comment_of_iptables_is_no_condition() {
    let comment = expr("match", &attrs(&[(1, b"comment\0"), (3, b"by hand")]));
    let other = expr("match", &attrs(&[(1, b"statistic\0"), (3, b"x")]));
    let rule = read(family::IPV4, &[comment, other, masq(&[])]).unwrap();
    assert_eq!(rule.conditions.len(), 1);
}

#[test]
fn generations() {
    let mut payload = vec![0; 4];
    payload.extend(attrs(&[(1, &be(42))]));
    assert_eq!(generation(&payload), Some(42));
    assert_eq!(generation(&[0; 4]), None);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = (rule(&bytes), generation(&bytes));
    }

    #[test]
    fn any_damage_is_survived(at in 0usize..400, to: u8) {
        let mut bytes = message(family::IPV4, &[
            meta(OIFNAME), cmp(0, b"wan0\0"), immediate(1, &[1, 2]), masq(&[(2, 1), (1, 2)]),
        ]);
        if let Some(b) = bytes.get_mut(at) {
            *b = to;
        }
        let _ = rule(&bytes);
    }
}

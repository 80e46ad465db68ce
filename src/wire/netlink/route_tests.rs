use std::net::Ipv4Addr;

use netlink_packet_route::link::{InfoData, Stats64};
use netlink_packet_route::route::RouteNextHop;
use proptest::prelude::*;

use super::*;

#[test]
fn a_link() {
    let mut message = LinkMessage::default();
    message.header.index = 7;
    message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
    let mut stats = Stats64::default();
    stats.rx_errors = 3;
    stats.rx_frame_errors = 2;
    stats.tx_dropped = 1;
    message.attributes = vec![
        LinkAttribute::IfName("wg0".to_owned()),
        LinkAttribute::Mtu(1420),
        LinkAttribute::Stats64(stats),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Wireguard),
            LinkInfo::Data(InfoData::Other(vec![1, 2, 3])),
        ]),
    ];
    let link = parse_link(&emit(&message)).unwrap();
    assert_eq!(
        (link.index, link.name.as_str(), link.mtu),
        (IfIndex(7), "wg0", 1420)
    );
    assert_eq!(link.kind.as_deref(), Some("wireguard"));
    assert_eq!((link.admin_up, link.carrier, link.loopback), (true, true, false));
    assert_eq!(
        (
            link.stats.rx_errors,
            link.stats.rx_frame_errors,
            link.stats.tx_dropped
        ),
        (3, 2, 1)
    );
}

#[test]
fn an_attribute_that_the_decoder_refuses_does_not_cost_the_link() {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName("eth0".to_owned())];
    let mut payload = emit(&message);
    // IFLA_MTU with a single byte where the decoder wants four.
    payload.extend([5, 0, 4, 0, 1, 0, 0, 0]);
    assert_eq!(parse_link(&payload).unwrap().name, "eth0");
}

#[test]
fn an_address_is_the_local_end() {
    let mut payload = emit(&AddressHeader {
        family: AddressFamily::Inet,
        prefix_len: 24,
        index: 3,
        ..AddressHeader::default()
    });
    for attribute in [
        AddressAttribute::Address([10, 0, 0, 2].into()),
        AddressAttribute::Local([10, 0, 0, 1].into()),
    ] {
        payload.extend(emit(&attribute));
    }
    assert_eq!(
        parse_address(&payload),
        Some(Address {
            index: IfIndex(3),
            address: [10, 0, 0, 1].into(),
            prefix: 24
        })
    );
}

fn route(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 8;
    message.header.table = 254;
    message.header.kind = kind;
    message.attributes = attributes;
    message
}

fn inet(text: &str) -> RouteAddress {
    RouteAddress::Inet(text.parse::<Ipv4Addr>().unwrap())
}

#[test]
fn a_route() {
    let message = route(
        RouteType::Unicast,
        vec![
            RouteAttribute::Destination(inet("10.0.0.0")),
            RouteAttribute::Table(51820),
            RouteAttribute::Oif(4),
            RouteAttribute::Gateway(inet("192.0.2.1")),
            RouteAttribute::Priority(100),
            RouteAttribute::Metrics(vec![RouteMetric::Mtu(1380)]),
        ],
    );
    assert_eq!(
        parse_route(&emit(&message)),
        Some(Route {
            destination: "10.0.0.0/8".parse().unwrap(),
            table: 51820,
            kind: "unicast".to_owned(),
            out: Some(IfIndex(4)),
            gateway: Some([192, 0, 2, 1].into()),
            priority: 100,
            mtu: Some(1380),
        })
    );
}

#[test]
fn routes_that_do_not_count() {
    let mut local = route(RouteType::Local, vec![]);
    local.header.table = 255;
    assert_eq!(parse_route(&emit(&local)), None);
    let mut cached = route(RouteType::Unicast, vec![]);
    cached.header.flags = RouteFlags::Cloned;
    assert_eq!(parse_route(&emit(&cached)), None);
    let mut multicast = route(RouteType::Unicast, vec![]);
    multicast.header.address_family = AddressFamily::Mpls;
    assert_eq!(parse_route(&emit(&multicast)), None);
}

#[test]
fn the_first_next_hop_stands_for_all() {
    let mut hop = RouteNextHop::default();
    hop.interface_index = 9;
    hop.attributes = vec![RouteAttribute::Gateway(inet("192.0.2.9"))];
    let message = route(
        RouteType::Unicast,
        vec![RouteAttribute::MultiPath(vec![hop, RouteNextHop::default()])],
    );
    let parsed = parse_route(&emit(&message)).unwrap();
    assert_eq!(
        (parsed.out, parsed.gateway),
        (Some(IfIndex(9)), Some([192, 0, 2, 9].into()))
    );
}

#[test]
fn ways() {
    for (kind, errno) in [
        (RouteType::Unreachable, 113),
        (RouteType::Prohibit, 13),
        (RouteType::BlackHole, 22),
    ] {
        let way = parse_way(&emit(&route(kind, vec![RouteAttribute::Oif(1)])));
        assert_eq!(way, Some(RouteWay::None { errno }), "{kind:?}");
    }
    let message = route(
        RouteType::Local,
        vec![
            RouteAttribute::Oif(1),
            RouteAttribute::PrefSource(inet("127.0.0.1")),
        ],
    );
    assert_eq!(
        parse_way(&emit(&message)),
        Some(RouteWay::Via {
            out: IfIndex(1),
            gateway: None,
            source: Some([127, 0, 0, 1].into()),
            mtu: None,
            local: true
        })
    );
    assert_eq!(parse_way(&emit(&route(RouteType::Unicast, vec![]))), None);
}

#[test]
fn a_rule() {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.table = 252; // RT_TABLE_COMPAT: the true table is in the attribute
    message.header.flags = RuleFlags::Invert;
    message.attributes = vec![
        RuleAttribute::Priority(32765),
        RuleAttribute::FwMark(0xca6c),
        RuleAttribute::Table(51820),
        RuleAttribute::SuppressPrefixLen(u32::MAX),
    ];
    let expected = PolicyRule {
        v6: true,
        priority: 32765,
        table: 51820,
        fwmark: Some(0xca6c),
        invert: true,
        suppress_prefix_len: None,
    };
    assert_eq!(parse_rule(&emit(&message)), Some(expected));
    message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
    assert_eq!(
        parse_rule(&emit(&message)).and_then(|r| r.suppress_prefix_len),
        Some(0)
    );
}

#[test]
fn requests_are_what_the_kernel_expects() {
    // struct rtmsg, then RTA_DST and RTA_MARK; see rtnetlink(7).
    assert_eq!(
        lookup_request([192, 0, 2, 1].into(), 1),
        [
            2, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 192, 0, 2, 1, 8, 0, 16, 0, 1, 0, 0, 0
        ]
    );
    assert_eq!(lookup_request([192, 0, 2, 1].into(), 0).len(), 20);
    assert_eq!(lookup_request(IpAddr::from([0; 16]), 0)[..2], [10, 128]);
    assert_eq!(routes_request(true)[0], 10);
    assert_eq!(rules_request(false)[0], 2);
    assert_eq!(links_request(None).len(), LINK_HEADER);
    assert_eq!(addresses_request().len(), ADDRESS_HEADER);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..256)) {
        parse_link(&payload);
        parse_address(&payload);
        parse_route(&payload);
        parse_way(&payload);
        parse_rule(&payload);
    }

    #[test]
    fn any_attributes_are_survived(
        attributes in prop::collection::vec((0u16..70, prop::collection::vec(any::<u8>(), 0..40)), 0..8)
    ) {
        for (header, family) in [(LINK_HEADER, 0u8), (ADDRESS_HEADER, 2), (ROUTE_HEADER, 2), (ROUTE_HEADER, 10)] {
            let mut payload = vec![0; header];
            payload[0] = family;
            for (kind, value) in &attributes {
                payload.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
                payload.extend(kind.to_ne_bytes());
                payload.extend(value);
                payload.resize(payload.len().next_multiple_of(4), 0);
            }
            parse_link(&payload);
            parse_address(&payload);
            parse_route(&payload);
            parse_way(&payload);
            parse_rule(&payload);
        }
    }
}

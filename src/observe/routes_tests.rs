use super::*;
use crate::observation::RoutePurpose;
use crate::observation::SourceState;
use crate::observe::testing::{ask, in_own_netns, ip, look};

fn way_to(observer: &mut Routes, destination: &str, mark: u32) -> RouteWay {
    let query = RouteQuery {
        destination: destination.parse().unwrap(),
        mark,
        purpose: RoutePurpose::Endpoint {
            device: "wg0".to_owned(),
            peer: crate::types::PublicKey([0; 32]),
        },
    };
    let bodies = ask(observer, &Request::RouteLookup(query.clone())).unwrap();
    match bodies.as_slice() {
        [Body::RouteAnswer(answer)] => {
            assert_eq!(answer.query, query);
            answer.way.clone()
        }
        other => panic!("one answer, got {other:?}"),
    }
}

#[test]
fn a_small_network_is_seen_and_asked_about() {
    in_own_netns(|| {
        ip("link set lo up");
        ip("link add v0 type veth peer name v1");
        ip("link set v0 mtu 1400 up");
        ip("link set v1 up");
        ip("address add 192.0.2.1/24 dev v0");
        ip("address add 2001:db8::1/64 dev v0 nodad");
        ip("route add default via 192.0.2.254 mtu 1300");
        ip("route add unreachable 198.51.100.0/24");
        ip("route add prohibit 203.0.113.0/24");
        ip("route add blackhole 2001:db8:bad::/48");
        ip("route add default dev v0 table 51820");
        ip("rule add not fwmark 51820 table 51820 priority 32765");
        ip("rule add table main suppress_prefixlength 0 priority 32764");

        let mut observer = Routes::open().unwrap();
        let (bodies, status) = look(&mut observer);
        assert_eq!(status.unwrap(), SourceStatus::ok());
        let [Body::Routes(tables)] = bodies.as_slice() else {
            panic!("one set of tables, got {bodies:?}")
        };
        let v0 = tables.links.iter().find(|l| l.name == "v0").unwrap();
        assert_eq!(
            (v0.kind.as_deref(), v0.mtu, v0.admin_up, v0.carrier),
            (Some("veth"), 1400, true, true)
        );
        assert!(tables.links.iter().any(|l| l.name == "lo" && l.loopback));
        let ours = tables
            .addresses
            .iter()
            .find(|a| a.address.to_string() == "192.0.2.1");
        assert_eq!(ours.map(|a| (a.index, a.prefix)), Some((v0.index, 24)));
        let find = |destination: &str, table: u32| {
            let destination = destination.parse().unwrap();
            tables
                .routes
                .iter()
                .find(|r| r.destination == destination && r.table == table)
        };
        let default = find("0.0.0.0/0", 254).unwrap();
        assert_eq!(
            (default.out, default.mtu, default.kind.as_str()),
            (Some(v0.index), Some(1300), "unicast")
        );
        assert_eq!(default.gateway, "192.0.2.254".parse().ok());
        assert_eq!(find("198.51.100.0/24", 254).unwrap().kind, "unreachable");
        assert_eq!(find("2001:db8:bad::/48", 254).unwrap().kind, "blackhole");
        assert!(find("0.0.0.0/0", 51820).is_some());
        assert!(
            tables.routes.iter().all(|r| r.table != 255),
            "no route of the local table"
        );
        let rule = tables.rules.iter().find(|r| r.table == 51820).unwrap();
        assert_eq!((rule.fwmark, rule.invert, rule.v6), (Some(51820), true, false));
        let suppress = tables.rules.iter().find(|r| r.priority == 32764).unwrap();
        assert_eq!(suppress.suppress_prefix_len, Some(0));

        let (lo, none) = (1, |errno| RouteWay::None { errno });
        // The rule sends what bears no mark to its own table, whose only route has no gateway.
        match way_to(&mut observer, "8.8.8.8", 0) {
            RouteWay::Via { out, gateway, .. } => assert_eq!((out, gateway), (v0.index, None)),
            other => panic!("{other:?}"),
        }
        match way_to(&mut observer, "8.8.8.8", 51820) {
            RouteWay::Via {
                out,
                gateway,
                source,
                mtu,
                local,
            } => {
                assert_eq!(
                    (out, gateway, local),
                    (v0.index, "192.0.2.254".parse().ok(), false)
                );
                assert_eq!((source, mtu), ("192.0.2.1".parse().ok(), Some(1300)));
            }
            other => panic!("{other:?}"),
        }
        match way_to(&mut observer, "192.0.2.1", 0) {
            RouteWay::Via { out, local, .. } => assert_eq!((out.0, local), (lo, true)),
            other => panic!("{other:?}"),
        }
        assert_eq!(way_to(&mut observer, "198.51.100.1", 0), none(113));
        assert_eq!(way_to(&mut observer, "203.0.113.1", 0), none(13));
        assert_eq!(way_to(&mut observer, "2001:db8:bad::1", 0), none(22));
        assert_eq!(way_to(&mut observer, "2001:db8:ffff::1", 0), none(101));
    });
}

#[test]
fn an_empty_namespace_is_no_error() {
    in_own_netns(|| {
        let mut observer = Routes::open().unwrap();
        let (bodies, status) = look(&mut observer);
        assert_eq!(status.unwrap().state, SourceState::Ok);
        let [Body::Routes(tables)] = bodies.as_slice() else {
            panic!("one set of tables, got {bodies:?}")
        };
        assert_eq!(tables.links.len(), 1);
        assert_eq!(
            way_to(&mut observer, "192.0.2.1", 0),
            RouteWay::None { errno: 101 }
        );
    });
}

#[test]
fn more_routes_than_the_bound_are_counted_and_looked_at_less_often() {
    in_own_netns(|| {
        ip("link set lo up");
        let batch: String = (0..5000u32)
            .map(|i| format!("route add 10.{}.{}.0/24 dev lo\n", i / 250, i % 250))
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        ip(&format!("-batch {}", file.path().display()));
        let mut observer = Routes::open().unwrap();
        let (bodies, status) = look(&mut observer);
        let status = status.unwrap();
        assert_eq!(status.state, SourceState::Degraded);
        assert!(status.reason.unwrap().contains("904 routes"));
        assert!(matches!(&bodies[..], [Body::Routes(t)] if t.routes_left_out == 904));
        assert_eq!(observer.interval(), INTERVAL_MANY_ROUTES);
    });
}

//! What each kind of NAT, and each kind of server, lets be told.

use super::*;
use crate::observation::nat::Pooling;

#[test]
fn every_mapping_and_filtering_is_told() {
    for mapping in [Ei, Ad, Apd] {
        for filtering in [Ei, Ad, Apd] {
            let (facts, net) = run(
                Sim {
                    mapping,
                    filtering,
                    ..HOME
                },
                None,
            );
            let f = family(&facts);
            assert_eq!((f.mapping, f.filtering), (mapping, filtering), "{f:?}");
            assert_eq!(f.translated, Some(true));
            assert_eq!(f.port_preservation, Some(mapping == Ei), "{f:?}");
            assert_eq!(
                (f.hairpinning, f.udp_blocked, f.alg),
                (Some(false), Some(false), Some(false))
            );
            assert_eq!(f.left_out, []);
            assert!(net.now - Timestamp::from_secs(1000) < Span::from_secs(6));
        }
    }
}

#[test]
fn no_nat_is_none() {
    let (facts, _) = run(
        Sim {
            mapping: Behaviour::None,
            filtering: Ei,
            ..HOME
        },
        None,
    );
    let f = family(&facts);
    assert_eq!(
        (f.mapping, f.filtering, f.translated),
        (Behaviour::None, Behaviour::None, Some(false))
    );
    assert_eq!(
        (f.hairpinning, f.port_preservation, f.pooling),
        (None, None, None)
    );
    // A stateful firewall without NAT.
    let (facts, _) = run(
        Sim {
            mapping: Behaviour::None,
            filtering: Apd,
            ..HOME
        },
        None,
    );
    assert_eq!(family(&facts).filtering, Apd);
}

#[test]
fn hairpinning_pooling_and_rewriting_are_told() {
    let (facts, _) = run(
        Sim {
            hairpin: true,
            filtering: Ei,
            ..HOME
        },
        None,
    );
    assert_eq!(family(&facts).hairpinning, Some(true));
    let (facts, _) = run(Sim { pool: 3, ..HOME }, None);
    assert_eq!(family(&facts).pooling, Some(Pooling::Arbitrary));
    assert!(family(&facts).external_addresses.len() > 1);
    let (facts, _) = run(Sim { alg: true, ..HOME }, None);
    assert_eq!(family(&facts).alg, Some(true));
    assert_eq!(family(&facts).mapping, Ei);
}

#[test]
fn a_pool_is_told_only_where_sockets_began_with_different_addresses() {
    assert_eq!(family(&run(HOME, None).0).pooling, Some(Pooling::Paired));
    let one = Sim {
        second_ip: false,
        ..HOME
    };
    assert_eq!(family(&run(one, None).0).pooling, None);
}

#[test]
fn a_server_of_one_address_leaves_out_what_it_cannot_tell() {
    let one = Sim {
        second_ip: false,
        ..HOME
    };
    let (facts, _) = run(
        Sim {
            filtering: Apd,
            ..one
        },
        None,
    );
    assert_eq!((family(&facts).mapping, family(&facts).filtering), (Unknown, Apd));
    let (facts, _) = run(Sim { filtering: Ei, ..one }, None);
    assert_eq!(family(&facts).filtering, Unknown);
    assert_eq!(family(&facts).left_out.len(), 2, "{facts:?}");
    let (facts, _) = run(Sim { mapping: Apd, ..one }, None);
    assert_eq!(family(&facts).mapping, Apd);
    let (facts, _) = run(
        Sim {
            second_port: false,
            ..one
        },
        None,
    );
    let f = family(&facts);
    assert_eq!(
        (f.mapping, f.filtering, f.translated),
        (Unknown, Unknown, Some(true))
    );
    assert_eq!((f.hairpinning, f.port_preservation), (Some(false), Some(true)));
}

#[test]
fn why_nothing_is_told_is_told_rightly() {
    let why = |sim: Sim, test: &str| {
        let (facts, _) = run(sim, None);
        let f = family(&facts);
        assert_eq!(
            (f.mapping == Unknown || test != "mapping", f.filtering),
            (true, Unknown),
            "{f:#?}"
        );
        let why = f.left_out.iter().find(|l| l.test == test);
        why.map_or_else(String::new, |l| l.why.clone())
    };
    // It names a second address where nobody is.
    let dead = Sim {
        other_dead: true,
        ..HOME
    };
    for test in ["mapping", "filtering"] {
        assert!(
            why(dead, test).contains("192.0.2.2 does not answer"),
            "{}",
            why(dead, test)
        );
    }
    // It takes no notice of CHANGE-REQUEST.
    let deaf = Sim {
        honours_change: false,
        ..HOME
    };
    assert!(
        why(deaf, "filtering").contains("CHANGE-REQUEST"),
        "{}",
        why(deaf, "filtering")
    );
    // The NAT lets one flow through.
    let few = Sim {
        flows: Some(1),
        ..HOME
    };
    assert!(
        why(few, "filtering").contains("few new flows"),
        "{}",
        why(few, "filtering")
    );
}

#[test]
fn a_slow_server_is_not_a_filter_and_no_blocked_udp() {
    let slow = |seconds: f64| Sim {
        filtering: Ei,
        slow: Span::from_secs_f64(seconds),
        ..HOME
    };
    // What it answers from elsewhere comes when nobody waits for it any more.
    let (facts, _) = run(slow(1.5), None);
    let f = family(&facts);
    assert_eq!(
        (f.mapping, f.filtering, f.udp_blocked),
        (Ei, Unknown, Some(false)),
        "{f:#?}"
    );
    let why = f.left_out.iter().find(|l| l.test == "filtering");
    assert!(why.is_some_and(|l| l.why.contains("too slowly")), "{f:#?}");
    // In good time.
    assert_eq!(family(&run(slow(1.0), None).0).filtering, Ei);
}

#[test]
fn two_servers_of_one_address_tell_the_mapping() {
    let sim = Sim {
        second_port: false,
        ..HOME
    };
    let both = ["192.0.2.1:3478", "192.0.2.2:3478"];
    for (mapping, expected) in [(Ei, Ei), (Ad, Ad)] {
        let (facts, _) = run_with(Sim { mapping, ..sim }, None, &both);
        assert_eq!(family(&facts).mapping, expected);
    }
}

#[test]
fn a_server_that_answers_from_where_it_was_asked_tells_nothing_of_filters() {
    let (facts, _) = run(
        Sim {
            honours_change: false,
            ..HOME
        },
        None,
    );
    let f = family(&facts);
    assert_eq!((f.mapping, f.filtering), (Ei, Unknown));
    assert!(
        f.left_out
            .iter()
            .any(|l| l.test == "filtering" && l.why.contains("CHANGE-REQUEST")),
        "{f:?}"
    );
}

#[test]
fn udp_is_blocked_only_where_tcp_works() {
    let (facts, _) = run(Sim { udp: false, ..HOME }, None);
    assert_eq!(family(&facts).udp_blocked, Some(true));
    assert_eq!(family(&facts).mapping, Unknown);
    let (facts, _) = run(
        Sim {
            udp: false,
            tcp: false,
            ..HOME
        },
        None,
    );
    assert_eq!(family(&facts).udp_blocked, None);
    let (facts, _) = run(Sim { tcp: false, ..HOME }, None);
    assert_eq!(family(&facts).udp_blocked, Some(false));
}

#[test]
fn the_lifetime_is_bracketed() {
    let life = Some(Span::from_secs(30));
    let (facts, _) = run(
        Sim {
            lifetime: life,
            ..HOME
        },
        Some(Span::from_secs(120)),
    );
    let l = family(&facts).lifetime.unwrap();
    let gone = l.gone_after.unwrap();
    assert!(l.alive_after.as_secs_f64() <= 30.0 && gone >= 30.0, "{l:?}");
    assert!(gone - l.alive_after.as_secs_f64() < 3.0, "{l:?}");
    let (facts, net) = run(HOME, Some(Span::from_secs(20)));
    let l = family(&facts).lifetime.unwrap();
    assert_eq!((l.alive_after, l.gone_after), (Span::from_secs(20), None));
    // Polite: a few packets a mapping.
    assert!(net.sent < 80, "{}", net.sent);
}

#[test]
fn a_link_that_goes_down_ends_no_mapping() {
    let longest = Some(Span::from_secs(60));
    let dies = |at: u64| Sim {
        dies: Some(Span::from_secs(at)),
        ..HOME
    };
    let (facts, _) = run(dies(20), longest);
    let l = family(&facts).lifetime.unwrap();
    assert!(
        l.gone_after.is_none() && l.alive_after >= Span::from_secs(8),
        "{l:?}"
    );
    assert!(why_not_told(&facts).contains("not reached any more"), "{facts:?}");
    // Down before any mapping was old enough.
    let (facts, _) = run(dies(3), longest);
    assert_eq!(family(&facts).lifetime, None);
    let why = family(&facts).left_out.iter().find(|l| l.test == "lifetime");
    assert!(
        why.is_some_and(|l| l.why.contains("not reached any more")),
        "{facts:?}"
    );
}

#[test]
fn another_address_outside_ends_no_mapping() {
    let moved = Sim {
        moves: Some(Span::from_secs(20)),
        ..HOME
    };
    let (facts, _) = run(moved, Some(Span::from_secs(60)));
    let l = family(&facts).lifetime.unwrap();
    assert_eq!(l.gone_after, None, "{l:?}");
}

#[test]
fn what_changes_while_the_tests_run_is_no_behaviour() {
    let second = Some(Span::from_secs(1));
    // Another address outside: what is asked before and after would look address-dependent, and the pool arbitrary.
    let (facts, _) = run(
        Sim {
            moves: second,
            ..HOME
        },
        None,
    );
    let f = family(&facts);
    assert_eq!((f.mapping, f.filtering), (Unknown, Unknown), "{f:#?}");
    assert_eq!(
        (f.pooling, f.hairpinning, f.udp_blocked),
        (None, None, Some(false))
    );
    assert!(
        f.left_out
            .iter()
            .any(|l| l.test == "mapping" && l.why.contains("changed meanwhile"))
    );
    // The link goes down: silence is no filter's.
    let (facts, _) = run(Sim { dies: second, ..HOME }, None);
    let f = family(&facts);
    assert_eq!((f.mapping, f.filtering), (Unknown, Unknown), "{f:#?}");
    assert_eq!((f.hairpinning, f.udp_blocked), (None, Some(false)));
    for test in ["filtering", "hairpinning"] {
        let why = f.left_out.iter().find(|l| l.test == test);
        assert!(
            why.is_some_and(|l| l.why.contains("not reached any more")),
            "{test}: {f:#?}"
        );
    }
    // What came in has come in, whatever happened afterwards.
    let (facts, _) = run(
        Sim {
            filtering: Ei,
            dies: second,
            ..HOME
        },
        None,
    );
    assert_eq!(family(&facts).filtering, Ei);
    // A NAT that restarts and gives the same ports again has not changed.
    let (facts, _) = run(
        Sim {
            forgets: second,
            ..HOME
        },
        None,
    );
    assert_eq!(family(&facts).mapping, Ei);
}

#[test]
fn who_waits_no_longer_is_told_what_is_known() {
    let stopped = |after: f64| {
        let sim = Sim {
            lifetime: Some(Span::from_secs(30)),
            stop: Some(Span::from_secs_f64(after)),
            ..HOME
        };
        let (facts, net) = run(sim, Some(Span::from_secs(120)));
        (facts, (net.now - Timestamp::from_secs(1000)).as_secs_f64())
    };
    // While mappings age: the longest that has lived by then, and no end.
    let (facts, ended) = stopped(20.0);
    let l = family(&facts).lifetime.unwrap();
    assert!((12..=17).contains(&l.alive_after.as_secs()), "{l:?}");
    assert_eq!(l.gone_after, None);
    assert!(
        why_not_told(&facts).contains("ended before it was done"),
        "{facts:?}"
    );
    // The simulation sees the wish with its next event; without one it would go on for a minute more.
    assert!(ended < 30.0, "it went on until {ended} s");
    // The other tests are not cut short, whose silence tells something.
    let (facts, ended) = stopped(0.0);
    let f = family(&facts);
    assert_eq!((f.mapping, f.filtering, f.lifetime), (Ei, Apd, None));
    assert!(ended < 6.0, "it went on until {ended} s");
}

/// Why no more is told of the lifetime.
fn why_not_told(facts: &NatFacts) -> &str {
    let why = family(facts).left_out.iter().find(|l| l.test == "lifetime");
    why.map_or("", |l| l.why.as_str())
}

#[test]
fn what_ends_mappings_once_is_no_lifetime() {
    let longest = Some(Span::from_secs(60));
    // The tests before take some three seconds.
    for at in [5, 10, 20, 50] {
        let forgets = Some(Span::from_secs(at));
        let (facts, _) = run(Sim { forgets, ..HOME }, longest);
        let l = family(&facts).lifetime.unwrap();
        assert_eq!(l.gone_after, None, "{at}: {l:?}");
        // Where there were few left to try, the other rounds told it all.
        let all = l.alive_after == Span::from_secs(60);
        assert!(
            all || why_not_told(&facts).contains("interrupted"),
            "{at}: {facts:?}"
        );
        assert!(!all || at == 50, "{at}: {l:?}");
        // A short absence, during which questions are lost, and the server answers right after them.
        let away = Some((
            Span::from_secs(at) - Span::from_millis(500),
            Span::from_secs(at + 3),
        ));
        let (facts, _) = run(Sim { away, ..HOME }, longest);
        let l = family(&facts).lifetime.unwrap();
        assert_eq!((l.alive_after, l.gone_after), (Span::from_secs(60), None), "{at}");
    }
    // Where there is a lifetime it is found all the same, or no bound is told: never a wrong one.
    for at in [5, 10, 20, 33, 70, 90, 110, 140] {
        let sim = Sim {
            lifetime: Some(Span::from_secs(30)),
            forgets: Some(Span::from_secs(at)),
            ..HOME
        };
        let (facts, _) = run(sim, longest);
        let l = family(&facts).lifetime.unwrap();
        assert!(l.alive_after <= Span::from_secs(30), "{at}: {l:?}");
        assert!(l.gone_after.is_none_or(|gone| gone >= 30.0), "{at}: {l:?}");
        assert!(
            l.gone_after.is_some() || !why_not_told(&facts).is_empty(),
            "{at}: {l:?}"
        );
    }
}

use super::*;

fn sockets(established: u32, syn_sent: u32, close_wait: u32, time_wait: u32) -> Sockets {
    let live = established + syn_sent + close_wait;
    Sockets {
        held: live + time_wait,
        time_wait,
        live,
        syn_sent,
        close_wait,
    }
}

fn process(comm: &str) -> ProcessRef {
    ProcessRef {
        pid: 812,
        comm: comm.to_owned(),
        exe: None,
        runtime: None,
    }
}

fn case(sockets: Sockets, rate: f64, user: Option<(&ProcessRef, u32)>) -> Case<'_> {
    let open = sockets.live - sockets.close_wait;
    Case {
        proto: Proto::Tcp,
        to: ([203, 0, 113, 9], 443).into(),
        sockets,
        opens: (rate > 0.0).then_some(Opens {
            per_second: rate,
            lower_bound: false,
        }),
        mean_concurrency: f64::from(open),
        peak_concurrency: open,
        measured: None,
        user: user.map(|(process, processes)| User { process, processes }),
        ports: Some(Ports {
            range: 28_232,
            usable: 28_232,
        }),
        reused: false,
        served: None,
    }
}

#[test]
fn the_remedy_follows_what_holds_the_ports() {
    for (name, sockets, rate, expected) in [
        ("TIME_WAIT", sockets(8, 0, 0, 20_000), 400.0, Remedy::Pool),
        (
            "TIME_WAIT of a load that ended",
            sockets(0, 0, 0, 20_000),
            0.0,
            Remedy::Pool,
        ),
        ("a leak", sockets(10, 0, 20_000, 5), 0.0, Remedy::Close),
        (
            "a leak that grows",
            sockets(10, 0, 20_000, 5),
            20.0,
            Remedy::Close,
        ),
        (
            "a program that closes a moment after the server",
            sockets(0, 0, 10, 0),
            11.0,
            Remedy::Pool,
        ),
        (
            "a dead destination",
            sockets(10, 20_000, 0, 5),
            300.0,
            Remedy::Reach,
        ),
        (
            "the server closes short ones",
            sockets(40, 0, 0, 0),
            400.0,
            Remedy::Pool,
        ),
        ("long ones", sockets(20_000, 0, 0, 100), 3.0, Remedy::Spread),
        ("a still pool", sockets(20_000, 0, 0, 0), 0.0, Remedy::Spread),
        ("nothing", sockets(0, 0, 0, 0), 0.0, Remedy::Spread),
    ] {
        assert_eq!(remedy(&case(sockets, rate, None)), expected, "{name}");
    }
}

#[test]
fn a_known_runtime_gets_its_snippet_with_the_number() {
    let s = sockets(8, 0, 0, 27_904);
    let node = process("node");
    let advice = advise(&case(s, 400.0, Some((&node, 1))));
    let fix = &advice.fixes[0];
    assert_eq!(
        fix.title,
        "Reuse connections: give one keep-alive agent to every request"
    );
    assert!(
        fix.snippet.as_deref().unwrap().contains("maxSockets: 18 }"),
        "{fix:?}"
    );
    assert!(
        fix.why
            .starts_with("A pool of 18 connections carries this load and frees 27,894 ports."),
        "{}",
        fix.why
    );
    assert!(
        fix.why
            .contains("400 opens/s × (20 ms open + 60 s TIME_WAIT) hold 24,008 ports"),
        "{}",
        fix.why
    );
    assert_eq!(fix.expect.get("ports_in_use"), Some(&18.into()));
    assert_eq!(fix.command, None);
}

#[test]
fn workers_share_the_pool() {
    let s = sockets(8, 0, 0, 27_904);
    let workers = process("gunicorn");
    let fix = advise(&case(s, 400.0, Some((&workers, 4)))).fixes.remove(0);
    assert!(
        fix.why
            .starts_with("A pool of 28 connections, 7 in each of 4 processes,"),
        "{}",
        fix.why
    );
    assert!(fix.snippet.unwrap().contains("pool_maxsize=7"));
    assert_eq!(fix.expect.get("ports_in_use"), Some(&28.into()));
}

#[test]
fn an_unknown_owner_gets_the_number_and_the_way_to_find_it() {
    let s = sockets(8, 0, 0, 27_904);
    let fix = advise(&case(s, 400.0, None)).fixes.remove(0);
    assert_eq!(
        fix.title,
        "Reuse connections: keep a pool of 18 to 203.0.113.9:443 open"
    );
    assert_eq!(fix.command.as_deref(), Some("ss -tnp dst 203.0.113.9:443"));
    assert_eq!(fix.snippet, None);
}

#[test]
fn databases_are_told_by_port() {
    let s = sockets(8, 0, 0, 27_904);
    let php = process("php-fpm8.2");
    let to_postgres = Case {
        to: ([10, 0, 0, 5], 5432).into(),
        ..case(s, 400.0, Some((&php, 1)))
    };
    let fix = advise(&to_postgres).fixes.remove(0);
    assert_eq!(fix.title, "Reuse connections: put PgBouncer between");
    assert!(fix.snippet.unwrap().contains("default_pool_size = 18"));
}

#[test]
fn sysctls_come_last_and_only_where_they_help() {
    let commands = |case: &Case<'_>| -> Vec<String> {
        let fixes = advise(case).fixes;
        let titles = fixes.iter().skip(1).map(|f| f.title.clone());
        assert!(titles.clone().all(|t| t.starts_with("For room: ")));
        titles.collect()
    };
    let churn = sockets(8, 0, 0, 27_904);
    assert_eq!(commands(&case(churn, 400.0, None)).len(), 2);
    let reused = Case {
        reused: true,
        ..case(churn, 400.0, None)
    };
    assert_eq!(commands(&reused).len(), 1);
    let mut wide = case(churn, 400.0, None);
    wide.ports = Some(Ports {
        range: 64_512,
        usable: 28_232,
    });
    assert_eq!(commands(&wide).len(), 1);
    assert_eq!(commands(&case(sockets(1, 0, 20_000, 0), 400.0, None)).len(), 0);
    assert_eq!(commands(&case(sockets(8, 0, 0, 2400), 40.0, None)).len(), 0);
    let wider = advise(&case(churn, 400.0, None)).fixes.pop().unwrap();
    assert!(wider.why.contains("look for listeners") && wider.command.unwrap().contains("ss -Htuln"));
}

#[test]
fn what_is_unknown_is_said() {
    let nothing = sockets(0, 0, 0, 20_000);
    assert!(
        advise(&case(nothing, 0.0, None)).fixes[0]
            .why
            .contains("cannot be sized")
    );
    assert!(
        advise(&case(nothing, 50.0, None)).fixes[0]
            .why
            .contains("none was open at any look")
    );
    let full = sockets(0, 0, 0, 28_232);
    assert!(
        advise(&case(full, 470.0, None)).fixes[0]
            .why
            .contains("Opens that failed")
    );
}

fn counted(closes_here: bool) -> Measured {
    Measured {
        closes_here,
        peak_is_exact: true,
        opens_per_process: 900,
        destinations: 1,
        turned_away_per_second: 0.0,
    }
}

#[test]
fn a_counted_peak_is_what_is_built_for() {
    let node = process("node");
    let case = Case {
        mean_concurrency: 9.0,
        peak_concurrency: 12,
        measured: Some(counted(true)),
        ..case(sockets(8, 0, 0, 900), 120.0, Some((&node, 1)))
    };
    let advice = advise(&case);
    let fix = &advice.fixes[0];
    assert!(
        fix.snippet.as_deref().unwrap().contains("maxSockets: 14 }"),
        "{fix:?}"
    );
    assert_eq!(fix.expect.get("ports_in_use"), Some(&12.into()));
    assert_eq!(fix.expect.get("ports_at_most"), Some(&14.into()));
    for part in [
        "that peak and a tenth",
        "hold 7,209 ports in the long run, and 14,409 in a NAT on the way",
        "Over HTTP/2 one connection carries 100 requests or more at a time: 1 connection would do",
    ] {
        assert!(fix.why.contains(part), "{part}: {}", fix.why);
    }
    let at_home = Case {
        to: ([127, 0, 0, 1], 8080).into(),
        ..case
    };
    let why = &advise(&at_home).fixes[0].why;
    assert!(!why.contains("NAT") && !why.contains("HTTP/2"), "{why}");
}

#[test]
fn opens_that_found_no_port_are_told_and_not_guessed_at() {
    let case = Case {
        mean_concurrency: 0.5,
        peak_concurrency: 3,
        measured: Some(Measured {
            turned_away_per_second: 450.0,
            ..counted(true)
        }),
        ..case(sockets(1, 0, 0, 28_231), 50.0, None)
    };
    let why = &advise(&case).fixes[0].why;
    assert!(why.contains("450 opens/s more found no port"), "{why}");
    assert!(why.contains("up to 5 would be in use"), "{why}");
}

#[test]
fn whoever_closes_first_is_part_of_the_advice() {
    let python = process("python3");
    let titles = |mean: f64, closes_here| -> Vec<String> {
        let case = Case {
            mean_concurrency: mean,
            peak_concurrency: 900,
            measured: Some(counted(closes_here)),
            ..case(sockets(30, 0, 0, 0), 100.0, Some((&python, 1)))
        };
        advise(&case).fixes.into_iter().map(|f| f.title).collect()
    };
    let pool = "Reuse connections: share one session between all requests";
    assert_eq!(titles(5.0, true), [pool]);
    // 50 ms: keep-alive is off at one of the two.
    assert_eq!(
        titles(5.0, false),
        [pool, "Find out why 203.0.113.9:443 closes each connection"]
    );
    // 5 s: an idle time-out, which would undo any pool.
    assert_eq!(
        titles(500.0, false),
        [
            "Make the idle time-outs of this side and of 203.0.113.9:443 fit",
            pool
        ]
    );
}

#[test]
fn processes_that_end_at_once_cannot_hold_a_pool() {
    let curl = process("curl");
    for (to, processes, each, outside, part) in [
        (80, 40, 1, true, "keepalive 14;"),
        (5432, 40, 1, true, "default_pool_size = 14"),
        (80, 7, 1, false, ""),
        (80, 40, 50, false, ""),
    ] {
        let case = Case {
            to: ([203, 0, 113, 9], to).into(),
            mean_concurrency: 9.0,
            peak_concurrency: 12,
            measured: Some(Measured {
                opens_per_process: each,
                ..counted(true)
            }),
            ..case(sockets(8, 0, 0, 900), 120.0, Some((&curl, processes)))
        };
        let advice = advise(&case);
        assert_eq!(
            advice.remedy == Remedy::PoolOutside,
            outside,
            "{to} {processes} {each}"
        );
        if outside {
            let fix = &advice.fixes[0];
            assert!(fix.title.contains("outside of the short-lived"), "{fix:?}");
            assert!(fix.snippet.as_deref().unwrap().contains(part), "{fix:?}");
            assert!(
                fix.why.contains("Some 40 processes opened them, 1 at most each"),
                "{fix:?}"
            );
        }
    }
}

#[test]
fn a_fan_out_is_told_to_batch() {
    let crawler = process("python3");
    let case = Case {
        measured: Some(Measured {
            destinations: 200,
            ..counted(true)
        }),
        ..case(sockets(8, 0, 0, 900), 120.0, Some((&crawler, 1)))
    };
    let fixes = advise(&case).fixes;
    assert!(fixes[1].title.contains("fan-out") && fixes[1].why.contains("200 destinations"));
    for part in ["Batch", "proxy", "more addresses", "IPv6"] {
        assert!(fixes[1].why.contains(part), "{part}");
    }
}

#[test]
fn long_lives_are_told_to_multiplex_and_to_take_more_addresses() {
    let fixes = advise(&case(sockets(20_000, 0, 0, 100), 3.0, None)).fixes;
    let text: String = fixes.iter().map(|f| format!("{} {}\n", f.title, f.why)).collect();
    for part in [
        "batching",
        "a proxy",
        "second source address",
        "IPv6",
        "NAT on the way",
        "IP_BIND_ADDRESS_NO_PORT",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_database_is_not_asked_for_more_than_it_admits() {
    let python = process("python3");
    let case = Case {
        to: ([10, 0, 0, 5], 5432).into(),
        mean_concurrency: 300.0,
        peak_concurrency: 340,
        ..case(sockets(300, 0, 0, 900), 900.0, Some((&python, 1)))
    };
    let why = &advise(&case).fixes[0].why;
    assert!(why.contains("more than the database admits"), "{why}");
}

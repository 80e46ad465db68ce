use super::*;
use crate::finding::ProcessRef;
use crate::track::sockets::Basis;
use crate::types::PortRange;

fn sample(established: u32, syn_sent: u32, close_wait: u32, time_wait: u32) -> Sample {
    let live = established + syn_sent + close_wait;
    Sample {
        held: live + time_wait,
        time_wait,
        established,
        syn_sent,
        close_wait,
        live,
        ..Sample::default()
    }
}

fn owner(comm: &str, processes: u32) -> Owner {
    Owner {
        process: ProcessRef {
            pid: 812,
            comm: comm.to_owned(),
            exe: None,
            runtime: None,
        },
        processes,
        sockets: 3,
        known: 3,
    }
}

fn case<'a>(sample: &'a Sample, rate: f64, owner: Option<&'a Owner>) -> Case<'a> {
    Case {
        proto: Proto::Tcp,
        to: ([203, 0, 113, 9], 443).into(),
        sample,
        opens: (rate > 0.0).then_some(OpenRate {
            per_second: rate,
            basis: Basis::TimeWait,
            lower_bound: false,
        }),
        mean_concurrency: f64::from(sample.concurrent()),
        peak_concurrency: sample.concurrent(),
        owner,
        usable: Some(Usable {
            range: PortRange::LINUX_DEFAULT,
            reserved: 0,
            taken: 0,
            at_least: 28_232,
            at_most: 28_232,
        }),
        reused: false,
    }
}

#[test]
fn the_remedy_follows_what_holds_the_ports() {
    for (name, sample, rate, expected) in [
        ("TIME_WAIT", sample(8, 0, 0, 20_000), 400.0, Remedy::Pool),
        (
            "TIME_WAIT of a load that ended",
            sample(0, 0, 0, 20_000),
            0.0,
            Remedy::Pool,
        ),
        ("a leak", sample(10, 0, 20_000, 5), 0.0, Remedy::Close),
        (
            "a dead destination",
            sample(10, 20_000, 0, 5),
            300.0,
            Remedy::Reach,
        ),
        (
            "the server closes short ones",
            sample(40, 0, 0, 0),
            400.0,
            Remedy::Pool,
        ),
        ("long ones", sample(20_000, 0, 0, 100), 3.0, Remedy::Spread),
        ("a still pool", sample(20_000, 0, 0, 0), 0.0, Remedy::Spread),
        ("nothing", sample(0, 0, 0, 0), 0.0, Remedy::Spread),
    ] {
        assert_eq!(remedy(&case(&sample, rate, None)), expected, "{name}");
    }
}

#[test]
fn a_known_runtime_gets_its_snippet_with_the_number() {
    let s = sample(8, 0, 0, 27_904);
    let node = owner("node", 1);
    let advice = advise(&case(&s, 400.0, Some(&node)));
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
    let s = sample(8, 0, 0, 27_904);
    let workers = owner("gunicorn", 4);
    let fix = advise(&case(&s, 400.0, Some(&workers))).fixes.remove(0);
    assert!(
        fix.why
            .starts_with("A pool of 18 connections, 5 in each of 4 processes,"),
        "{}",
        fix.why
    );
    assert!(fix.snippet.unwrap().contains("pool_maxsize=5"));
    assert_eq!(fix.expect.get("ports_in_use"), Some(&20.into()));
}

#[test]
fn an_unknown_owner_gets_the_number_and_the_way_to_find_it() {
    let s = sample(8, 0, 0, 27_904);
    let fix = advise(&case(&s, 400.0, None)).fixes.remove(0);
    assert_eq!(
        fix.title,
        "Reuse connections: keep a pool of 18 to 203.0.113.9:443 open"
    );
    assert_eq!(fix.command.as_deref(), Some("ss -tnp dst 203.0.113.9:443"));
    assert_eq!(fix.snippet, None);
}

#[test]
fn databases_are_told_by_port() {
    let s = sample(8, 0, 0, 27_904);
    let php = owner("php-fpm8.2", 1);
    let to_postgres = Case {
        to: ([10, 0, 0, 5], 5432).into(),
        ..case(&s, 400.0, Some(&php))
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
    let churn = sample(8, 0, 0, 27_904);
    assert_eq!(commands(&case(&churn, 400.0, None)).len(), 2);
    let reused = Case {
        reused: true,
        ..case(&churn, 400.0, None)
    };
    assert_eq!(commands(&reused).len(), 1);
    let mut wide = case(&churn, 400.0, None);
    wide.usable = wide.usable.map(|u| Usable {
        range: PortRange {
            low: 1024,
            high: 65535,
        },
        ..u
    });
    assert_eq!(commands(&wide).len(), 1);
    assert_eq!(commands(&case(&sample(1, 0, 20_000, 0), 400.0, None)).len(), 0);
    let wider = advise(&case(&churn, 400.0, None)).fixes.pop().unwrap();
    assert!(wider.why.contains("look for listeners") && wider.command.unwrap().contains("ss -Htuln"));
}

#[test]
fn what_is_unknown_is_said() {
    let nothing = sample(0, 0, 0, 20_000);
    assert!(
        advise(&case(&nothing, 0.0, None)).fixes[0]
            .why
            .contains("could not be sized")
    );
    assert!(
        advise(&case(&nothing, 50.0, None)).fixes[0]
            .why
            .contains("none was open at any look")
    );
    let full = sample(0, 0, 0, 28_232);
    assert!(
        advise(&case(&full, 470.0, None)).fixes[0]
            .why
            .contains("Opens that failed")
    );
}

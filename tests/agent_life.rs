//! The agent's life: how it begins, is told otherwise, fails to write, is killed, and ends.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

mod agent;

use agent::{Agent, PATIENCE, file, refusal};
use serde_json::Value;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use wgnat::store::{open_readonly, query};
use wgnat::time::Timestamp;

#[test]
fn it_ends_at_once_and_history_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("history");
    for signal in ["TERM", "INT"] {
        let mut agent = Agent::start(&["--store", store.to_str().unwrap()]);
        agent.signal(signal);
        let status = agent.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {}", agent.log());
        // Each of its waits is bounded, together below a second, and it says where a bound is reached.
        assert!(!agent.log().contains("in time"), "{}", agent.log());
        assert!(agent.log().contains("ended within "), "{}", agent.log());
        let reader = open_readonly(&store).unwrap();
        let events = query::events(&reader, Timestamp::EPOCH).unwrap();
        let last = events.last().unwrap();
        assert_eq!(
            (last.kind.as_str(), &last.data["what"]),
            ("agent", &"stopping".into())
        );
        assert!(
            query::names(&reader)
                .unwrap()
                .contains(&"wgnat_status".to_owned())
        );
    }
}

#[test]
fn a_full_disk_is_said_and_history_goes_on_in_memory_until_there_is_room() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: needs root");
        return;
    }
    // Mounts of this thread's own.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let tiny = dir.path().join("tiny");
    std::fs::create_dir(&tiny).unwrap();
    let run = |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
    run(&["--make-rprivate", "/"]);
    run(&["-t", "tmpfs", "-o", "size=1m", "tmpfs", tiny.to_str().unwrap()]);
    let store = tiny.join("history");
    let agent = Agent::start(&["--store", store.to_str().unwrap()]);
    let state = |agent: &Agent, state: &str| agent.metric(&format!("wgnat_store_state{{state=\"{state}\"}}"));
    agent.until("it is written to the file", |agent| {
        state(agent, "file") == Some(1.0)
    });
    // Until nothing more fits.
    let filler = tiny.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write(&mut file, &[0; 4096]).is_ok() {}
    agent.until("it goes on in memory", |agent| {
        state(agent, "memory") == Some(1.0)
    });
    agent.logs("going on in memory");
    assert_eq!(agent.get("/readyz").status, 200);
    let names = agent.get("/api/v1/series").json();
    assert!(names["names"].is_array(), "{names}");
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    agent.until("it is written to the file again", |agent| {
        state(agent, "file") == Some(1.0)
    });
    let history = agent.get("/api/v1/history").json();
    let states: Vec<&Value> = history["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["kind"] == "store")
        .map(|e| &e["data"]["state"])
        .collect();
    assert!(states.contains(&&"memory".into()), "{history:#}");
}

#[test]
fn what_it_is_told_wrongly_is_said_before_anything_begins() {
    let dir = tempfile::tempdir().unwrap();
    let config = |text: &str| file(dir.path(), "wgnat.toml", text).to_str().unwrap().to_owned();
    let store = dir.path().to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (args, says) in [
        (
            vec![
                "--config".to_owned(),
                config("[agent]\nlissten = \"127.0.0.1:1\"\n"),
            ],
            &["wgnat.toml", "line 2", "did you mean `listen`?"][..],
        ),
        (
            vec!["--store".to_owned(), store.to_owned()],
            &[store, "it is a directory"],
        ),
        (
            vec!["--cpu-budget".to_owned(), "0".to_owned()],
            &["--cpu-budget", "percent of one core"],
        ),
        (
            vec!["--listen".to_owned(), taken.clone()],
            &[&taken, "cannot listen"],
        ),
        (
            vec!["--token-file".to_owned(), "/nonexistent/token".to_owned()],
            &["/nonexistent/token"],
        ),
        (vec!["--netns".to_owned(), "no-such".to_owned()], &["no-such"]),
    ] {
        // The file is written anew by each case.
        if args[0] == "--config" {
            config("[agent]\nlissten = \"127.0.0.1:1\"\n");
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let said = refusal(&args);
        for word in says {
            assert!(said.contains(word), "{args:?}: {said}");
        }
    }
    for (text, says) in [
        ("[thresholds]\nports_warning = 7.0\n", "ports_warning"),
        ("[agent]\ncpu_budget = -1.0\n", "cpu_budget"),
        ("[agent]\nevaluate_every = \"1ms\"\n", "evaluate_every"),
        ("[agent]\nlisten = \"0.0.0.0:9986\"\n", "--token-file"),
    ] {
        let said = refusal(&["--check-config", "--config", &config(text)]);
        assert!(said.contains(says), "{said}");
    }
    let good = config("[agent]\ncpu_budget = 2.0\n");
    let output = agent::command()
        .args(["--check-config", "--config", &good])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"the configuration is good\n");
}

#[test]
fn two_agents_on_one_history_are_one_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("history");
    let store = store.to_str().unwrap();
    let first = Agent::start(&["--store", store]);
    let said = refusal(&["--store", store, "--listen", "127.0.0.1:0"]);
    assert!(said.contains("another wgnat agent"), "{said}");
    assert_eq!(first.get("/healthz").status, 200);
}

#[test]
fn sighup_takes_a_good_file_over_and_leaves_all_as_it_is_for_a_bad_one() {
    let dir = tempfile::tempdir().unwrap();
    let token = file(dir.path(), "token", "0123456789abcdef\n");
    let text = format!("[agent]\ntoken_file = {:?}\n", token.to_str().unwrap());
    let config = file(dir.path(), "wgnat.toml", &text);
    let agent = Agent::start(&["--config", config.to_str().unwrap()]);
    let reloaded = "wgnat_config_last_reload_successful";
    let get = |token: &str| {
        let bearer = format!("Bearer {token}");
        agent
            .get_with("/api/v1/report", &[("Authorization", &bearer)])
            .status
    };
    assert_eq!(
        (get("0123456789abcdef"), agent.metric(reloaded)),
        (200, Some(1.0))
    );
    for (bad, says) in [
        ("[agent]\ntoken_fil = \"x\"\n", "did you mean `token_file`?"),
        ("[agent]\ntoken_file = \"/nonexistent\"\n", "/nonexistent"),
        ("nonsense", "TOML parse error"),
    ] {
        file(dir.path(), "wgnat.toml", bad);
        agent.signal("HUP");
        agent.logs(says);
        agent.until("it says so", |agent| agent.metric(reloaded) == Some(0.0));
        assert_eq!(get("0123456789abcdef"), 200, "nothing has changed");
    }
    // Editors replace a file and do not write into it.
    file(dir.path(), "token", "fedcba9876543210\n");
    let new = file(dir.path(), "new", &format!("{text}listen = \"127.0.0.1:1\"\n"));
    std::fs::rename(new, &config).unwrap();
    agent.signal("HUP");
    agent.until("it is taken over", |agent| agent.metric(reloaded) == Some(1.0));
    assert_eq!((get("0123456789abcdef"), get("fedcba9876543210")), (401, 200));
}

#[test]
fn sighup_reads_the_fly_toml_anew() {
    let dir = tempfile::tempdir().unwrap();
    let toml = |timeout: &str| {
        format!(
            "app = \"web\"\n[http_service]\n  internal_port = 8080\n  [[http_service.checks]]\n    interval = \"10s\"\n    \
             timeout = \"{timeout}\"\n    grace_period = \"5s\"\n    path = \"/\"\n"
        )
    };
    let path = file(dir.path(), "fly.toml", &toml("20s"));
    let agent = Agent::start(&["--fly-toml", path.to_str().unwrap()]);
    let timing = "wgnat_findings{code=\"fly-toml-check-timing\",severity=\"warning\",explained=\"false\"}";
    agent.finding("fly-toml-check-timing");
    file(dir.path(), "fly.toml", &toml("2s"));
    agent.signal("HUP");
    agent.until("it is put right", |agent| agent.metric(timing).is_none());
    // One that cannot be read changes nothing, and its line is named.
    file(dir.path(), "fly.toml", "app = \"web\"\nnonsense\n");
    agent.signal("HUP");
    agent.logs("nothing has changed");
    assert!(agent.log().contains("fly.toml"), "{}", agent.log());
    file(dir.path(), "fly.toml", &toml("30s"));
    agent.signal("HUP");
    agent.finding("fly-toml-check-timing");
}

#[test]
fn the_service_manager_is_told_and_the_log_is_json() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let notify = UnixDatagram::bind(&socket).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = |what: &str| {
        let mut buffer = [0; 512];
        for _ in 0..200 {
            let length = notify.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line.starts_with(what)) {
                return;
            }
        }
        panic!("never told {what}");
    };
    let mut command = agent::command();
    command
        .args(["--log-format", "json"])
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "300000");
    let mut agent = Agent::of(command, agent::free_port());
    told("READY=1");
    told("WATCHDOG=1");
    agent.signal("HUP");
    told("RELOADING=1");
    told("READY=1");
    agent.signal("TERM");
    told("STOPPING=1");
    agent.wait();
    for line in agent.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
    }
}

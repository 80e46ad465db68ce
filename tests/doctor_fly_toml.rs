//! doctor reads a fly.toml: each fault is found in a real file with its line and the lines to add; a good file is silent; and
//! what cannot be read is said to be so.
#![allow(clippy::expect_used)] // a panic is how a test fails

mod lab;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use lab::wgnat::Doctor;
use lab::{Lab, Serve, TcpServer, exec};
use serde_json::Value;

/// Nothing is wrong with this one, in the new syntax.
const GOOD: &str = r#"app = "web"

[processes]
  web = "sh -c 'wgnat agent --listen [::]:9986 & exec node server.js'"

[http_service]
  internal_port = 8080
  processes = ["web"]
  [http_service.concurrency]
    type = "requests"
    soft_limit = 200
    hard_limit = 250
  [[http_service.checks]]
    grace_period = "10s"
    interval = "15s"
    timeout = "2s"
    path = "/up"

[metrics]
  port = 9986
  path = "/metrics"
"#;

/// Nor with this, in the old one.
const GOOD_OLD: &str = r#"app = "web"
processes = []

[[services]]
  internal_port = "8080"
  protocol = "tcp"
  concurrency = "20,25"
  [[services.ports]]
    port = "80"
    handlers = ["http"]
  [[services.tcp_checks]]
    interval = 15000
    timeout = 2000
    grace_period = "1s"

[[services]]
  internal_port = 51820
  protocol = "udp"
  [[services.ports]]
    port = 51820
"#;

/// The file with one line changed, or gone.
fn with(line: &str, other: &str) -> String {
    assert!(GOOD.contains(line), "{line}");
    GOOD.replacen(line, other, 1)
}

fn write(lab: &Lab, name: &str, toml: &str) -> PathBuf {
    let file = lab.dir().join(name);
    std::fs::write(&file, toml).expect("written");
    file
}

fn doctor(lab: &Lab, toml: &str, more: &[&str]) -> Doctor {
    let file = write(lab, "app.toml", toml);
    let file = file.to_str().expect("a path");
    let mut args = vec!["--duration", "0", "--fly-toml", file];
    args.extend(more);
    lab.doctor_json(lab.client(), &args)
}

/// The one finding, with its line.
#[track_caller]
fn only<'a>(report: &'a Doctor, code: &str, severity: &str, line: u64) -> &'a Value {
    assert_eq!(report.codes(), [code], "{}", report.everything());
    let finding = report.finding(code);
    assert_eq!(finding["severity"], severity, "{finding:#}");
    assert_eq!(finding["subject"]["kind"], "file");
    assert_eq!(finding["subject"]["line"], line, "{finding:#}");
    let path = finding["subject"]["path"].as_str().expect("a path");
    assert!(path.ends_with("app.toml"), "{path}");
    assert!(finding["fixes"][0]["snippet"].is_string(), "{finding:#}");
    finding
}

#[test]
fn a_good_file_is_silent_and_said_to_be_read() {
    let Some(lab) = Lab::lone() else { return };
    for toml in [GOOD, GOOD_OLD] {
        let report = doctor(&lab, toml, &[]);
        assert_eq!(report.codes(), Vec::<&str>::new(), "{}", report.everything());
        assert_eq!(report.code, 0);
        let read = &report.report["fly_toml"];
        assert_eq!((&read["named"], &read["app"]), (&true.into(), &"web".into()));
        assert_eq!(read["services"][0]["internal_port"], 8080);
    }
    let file = write(&lab, "app.toml", GOOD);
    let mut command = lab.wgnat(lab.client());
    command
        .args(["doctor", "--duration", "0", "--fly-toml"])
        .arg(&file);
    let text = exec::output(command).stdout;
    assert!(text.contains("· read "), "{text}");
}

#[test]
fn each_fault_is_found_with_its_line() {
    let Some(lab) = Lab::lone() else { return };
    let check = "  [[http_service.checks]]\n    grace_period = \"10s\"\n    interval = \"15s\"\n    timeout = \"2s\"\n    path = \
                 \"/up\"\n";
    for (code, severity, line, toml, snippet) in [
        (
            "fly-toml-no-check",
            "info",
            6,
            with(check, ""),
            "[[http_service.checks]]",
        ),
        (
            "fly-toml-check-timing",
            "warning",
            16,
            with("timeout = \"2s\"", "timeout = \"20s\""),
            "timeout = \"5s\"",
        ),
        (
            "fly-toml-check-timing",
            "warning",
            15,
            with("interval = \"15s\"", "interval = 15"),
            "interval = \"15s\"",
        ),
        (
            "fly-toml-check-target",
            "warning",
            17,
            with("\"/up\"", "\"up\""),
            "path = \"/up\"",
        ),
        (
            "fly-toml-limit-order",
            "warning",
            12,
            with("soft_limit = 200", "soft_limit = 300"),
            "soft_limit = 240",
        ),
        (
            "fly-toml-limit-type",
            "info",
            10,
            with("\"requests\"", "\"connections\""),
            "type = \"requests\"",
        ),
        (
            "fly-toml-limit-ports",
            "info",
            12,
            with("hard_limit = 250", "hard_limit = 2500"),
            "hard_limit = 716",
        ),
        (
            "fly-toml-unknown-group",
            "warning",
            8,
            with("processes = [\"web\"]", "processes = [\"wbe\"]"),
            "processes = [\"web\"]",
        ),
        (
            "fly-toml-agent-alone",
            "warning",
            4,
            with(
                "  web = \"sh -c 'wgnat agent --listen [::]:9986 & exec node server.js'\"",
                "  watch = \"wgnat agent --listen [::]:9986\"\n  web = \"node server.js\"",
            ),
            "wgnat agent & exec",
        ),
        (
            "fly-toml-metrics-unreachable",
            "warning",
            20,
            with("[::]:9986 &", "127.0.0.1:9986 &"),
            "WGNAT_LISTEN = \"[::]:9986\"",
        ),
        (
            "fly-toml-no-metrics",
            "info",
            4,
            with("[metrics]\n  port = 9986\n  path = \"/metrics\"\n", ""),
            "[metrics]\n  port = 9986",
        ),
        (
            "fly-toml-udp-port",
            "warning",
            19,
            GOOD_OLD.replace("    port = 51820", "    port = 443"),
            "internal_port = 443",
        ),
    ] {
        let report = doctor(&lab, &toml, &[]);
        let finding = only(&report, code, severity, line);
        let told = finding["fixes"][0]["snippet"].as_str().expect("a snippet");
        assert!(told.contains(snippet), "{code}: {told}");
        assert_eq!(report.code, i32::from(severity == "warning"), "{code}");
    }
}

#[test]
fn a_limit_above_the_named_budget_is_a_warning() {
    let Some(lab) = Lab::lone() else { return };
    let toml = with("hard_limit = 250", "hard_limit = 1025");
    let report = doctor(&lab, &toml, &["--nat-profile", "fly-static-egress"]);
    let finding = only(&report, "fly-toml-limit-ports", "warning", 12);
    assert_eq!(finding["confidence"], "possible");
    assert_eq!(finding["evidence"]["available"], 1024);
    let fits = with("hard_limit = 250", "hard_limit = 1024");
    let report = doctor(&lab, &fits, &["--nat-profile", "fly-static-egress"]);
    assert_eq!(report.codes(), Vec::<&str>::new(), "{}", report.everything());
}

/// The environment of a Fly machine of that app and group.
fn on_fly(command: &mut Command, app: &str, group: &str) {
    command
        .env("FLY_MACHINE_ID", "148e21")
        .env("FLY_PRIVATE_IP", "fdaa:0:18:a7b:d6b:0:a:2")
        .env("FLY_REGION", "ams")
        .env("FLY_APP_NAME", app)
        .env("FLY_PROCESS_GROUP", group);
}

#[test]
fn on_the_machine_itself_a_port_that_nobody_listens_on_is_found() {
    let Some(lab) = Lab::lone() else { return };
    let file = write(&lab, "app.toml", GOOD);
    let run = |app: &str, group: &str| {
        let mut command = lab.wgnat(lab.client());
        command
            .args(["doctor", "--json", "--duration", "0", "--fly-toml"])
            .arg(&file);
        on_fly(&mut command, app, group);
        // Fly's own resolver, so that this is a machine as any other.
        lab.client().set_resolv_conf("nameserver fdaa::3\n");
        lab.json(command)
    };
    let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let wrong = TcpServer::start(lab.client(), any(3000), Serve::Echo);
    let report = run("web", "web");
    let finding = only(&report, "fly-toml-nobody-listens", "warning", 7);
    assert_eq!(finding["fixes"][0]["snippet"], "  internal_port = 3000");
    assert_eq!(run("web", "worker").codes(), Vec::<&str>::new());
    assert_eq!(run("other", "web").codes(), Vec::<&str>::new());
    drop(wrong);
    // The commonest mistake: it listens, and for the machine alone.
    for inside in ["127.0.0.1:8080", "[::1]:8080"] {
        let _inside = TcpServer::start(lab.client(), inside.parse().unwrap(), Serve::Echo);
        let report = run("web", "web");
        let finding = only(&report, "fly-toml-nobody-listens", "warning", 7);
        assert_eq!(finding["confidence"], "certain");
        assert_eq!(finding["evidence"]["listens_on"], "loopback");
    }
    let _right = TcpServer::start(lab.client(), any(8080), Serve::Echo);
    let report = run("web", "web");
    assert_eq!(report.codes(), Vec::<&str>::new(), "{}", report.everything());
}

/// doctor in a directory of its own.
fn in_directory(lab: &Lab, words: &str) -> Doctor {
    let mut command = lab.client().command("sh");
    lab.clean_environment(&mut command);
    let script = format!(
        "cd {} && exec {} doctor --json --duration 0 {words}",
        lab.dir().display(),
        env!("CARGO_BIN_EXE_wgnat")
    );
    command.args(["-c", &script]);
    lab.json(command)
}

#[test]
fn a_file_that_is_merely_found_is_read_and_never_an_error() {
    let Some(lab) = Lab::lone() else { return };
    assert_eq!(in_directory(&lab, "").report["fly_toml"], Value::Null);
    write(&lab, "fly.toml", &with("timeout = \"2s\"", "timeout = \"20s\""));
    let report = in_directory(&lab, "");
    assert_eq!(
        report.codes(),
        ["fly-toml-check-timing"],
        "{}",
        report.everything()
    );
    assert_eq!(report.report["fly_toml"]["named"], false);
    let report = in_directory(&lab, "--no-fly-toml");
    assert_eq!(
        (report.codes().len(), &report.report["fly_toml"]),
        (0, &Value::Null)
    );
    // One that is none is a remark; nothing else changes.
    write(&lab, "fly.toml", "app = \"web\"\n[http_service\n");
    let report = in_directory(&lab, "");
    assert_eq!(
        (report.code, report.codes().len()),
        (0, 0),
        "{}",
        report.everything()
    );
    assert!(
        report.stderr.contains("fly.toml: line 2, column"),
        "{}",
        report.stderr
    );
    let collectors = report.report["collectors"].as_array().expect("collectors");
    let fly = collectors.iter().find(|c| c["name"] == "fly-toml").expect("told");
    assert_eq!(fly["state"], "unavailable");
    // A record has it, and a replay judges it without the file.
    write(&lab, "fly.toml", &with("timeout = \"2s\"", "timeout = \"20s\""));
    in_directory(&lab, "--record r.jsonl --anonymise");
    std::fs::remove_file(lab.dir().join("fly.toml")).expect("removed");
    let record = std::fs::read_to_string(lab.dir().join("r.jsonl")).expect("a record");
    assert!(record.contains("fly-toml") && !record.contains("server.js") && !record.contains("/up"));
    let mut command = lab.wgnat(lab.client());
    command
        .args(["doctor", "--json", "--replay"])
        .arg(lab.dir().join("r.jsonl"));
    assert_eq!(lab.json(command).codes(), ["fly-toml-check-timing"]);
}

#[test]
fn a_named_file_that_is_wrong_is_an_error_with_its_place() {
    let Some(lab) = Lab::lone() else { return };
    for (toml, words) in [
        (
            "[http_service]\n  internal_port = \"web\"\n",
            ["line 2, column 19", "a port, 1 to 65535"],
        ),
        (
            "[[services]]\nports = 7\n",
            ["line 2, column 9", "[[services.ports]]"],
        ),
        ("app = \n", ["line 1, column", "expected"]),
    ] {
        let file = write(&lab, "app.toml", toml);
        for command_word in ["doctor", "agent"] {
            let mut command = lab.wgnat(lab.client());
            command.args([command_word, "--fly-toml"]).arg(&file);
            let out = exec::output(command);
            assert_eq!(out.code, 3, "{}", out.stderr);
            assert!(out.stderr.contains("app.toml"), "{}", out.stderr);
            for word in words {
                assert!(out.stderr.contains(word), "{word} in {}", out.stderr);
            }
        }
    }
    let mut command = lab.wgnat(lab.client());
    command.args(["doctor", "--fly-toml", "/nowhere/fly.toml"]);
    let out = exec::output(command);
    assert_eq!(out.code, 3);
    assert!(out.stderr.contains("/nowhere/fly.toml"), "{}", out.stderr);
}

//! `wgnat path` to TLS and HTTP servers: what a handshake takes, what the certificate is worth, and whose silence it is.
#![allow(clippy::expect_used)] // a panic is how a test fails

mod lab;
mod truth;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use lab::tls::{self, Authority, Wish};
use lab::{Fault, Lab, Toward};
use serde_json::Value;
use truth::{Look, Verdict};

fn at(lab: &Lab, port: u16) -> SocketAddr {
    SocketAddr::new(lab.server_ip(), port)
}

/// `wgnat path` at the client, with these roots and none of the machine's.
#[track_caller]
fn path(lab: &Lab, roots: &Path, args: &[&str]) -> Verdict {
    let mut command = lab.wgnat(lab.client());
    command.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
    command.args(["-v", "path", "--json"]).args(args);
    if !args.contains(&"--timeout") {
        command.args(["--timeout", "8s"]);
    }
    Look::with(command).run()
}

#[track_caller]
fn row<'a>(verdict: &'a Verdict, target: &str) -> &'a Value {
    let rows = verdict.report["paths"].as_array().expect("rows");
    rows.iter()
        .find(|row| row["target"] == target)
        .unwrap_or_else(|| panic!("no row for {target}.\n{}", verdict.everything()))
}

#[test]
fn each_stage_is_timed_and_each_certificate_judged() {
    let Some(lab) = Lab::routed() else { return };
    let (known, unknown) = (Authority::new("Lab CA"), Authority::new("Other CA"));
    let roots = known.file(&lab, "roots.pem");
    let good = Wish::good_for(lab.server_ip());
    let other = Wish::good_for([192, 0, 2, 7].into());
    let cases = [
        (8443, &known, good.clone(), "trusted", None),
        (
            8444,
            &known,
            good.clone().between(2019, 2021),
            "expired",
            Some("certificate expired"),
        ),
        (
            8445,
            &known,
            good.clone().between(2099, 2100),
            "not-yet-valid",
            Some("not valid yet"),
        ),
        (8446, &known, other, "other-name", Some("another name")),
        (
            8447,
            &unknown,
            good,
            "unknown-issuer",
            Some("issuer unknown here"),
        ),
    ];
    let mut targets = Vec::new();
    for (port, authority, wish, ..) in &cases {
        tls::serve(
            lab.server(),
            at(&lab, *port),
            &authority.config(wish),
            Duration::ZERO,
        );
        targets.push(format!("https://{}/", at(&lab, *port)));
    }
    targets.push(format!("tls:{}", at(&lab, 8443)));
    let args: Vec<&str> = targets.iter().map(String::as_str).collect();
    let verdict = path(&lab, &roots, &args);
    // A certificate says nothing of the path: it is told in the row, and is no finding.
    verdict.nothing_wrong();
    assert_eq!(verdict.code, 0);
    for (target, (_, _, _, judged, says)) in targets.iter().zip(&cases) {
        let row = row(&verdict, target);
        assert_eq!(
            (&row["http_status"], &row["lost"]),
            (&204.into(), &0.into()),
            "{row:#}"
        );
        for stage in ["connect", "TLS", "first byte"] {
            assert!(
                row["stages_seconds"][stage].as_f64().is_some_and(|s| s > 0.0),
                "{row:#}"
            );
        }
        let certificate = &row["certificate"];
        assert_eq!(certificate["verdict"], *judged, "{row:#}");
        assert_eq!(certificate["subject"], "CN=lab server");
        let told = certificate["says"].as_str();
        assert_eq!(told.is_some(), says.is_some(), "{certificate:#}");
        assert!(
            says.is_none_or(|says| told.is_some_and(|told| told.contains(says))),
            "{certificate:#}"
        );
    }
    assert_eq!(
        row(&verdict, &targets[1])["certificate"]["not_after"],
        "2021-01-01T00:00:00Z"
    );
    assert_eq!(row(&verdict, &targets[4])["certificate"]["issuer"], "CN=Other CA");
    let handshake = row(&verdict, &targets[5]);
    assert_eq!(handshake["certificate"]["verdict"], "trusted");
    assert!(
        handshake["stages_seconds"]["first byte"].is_null(),
        "{handshake:#}"
    );
    // A host without roots cannot judge, and says so.
    let none = lab.dir().join("no-roots.pem");
    std::fs::write(&none, "").expect("the lab's directory is writable");
    let verdict = path(&lab, &none, &[&targets[0], "--count", "2"]);
    assert_eq!(row(&verdict, &targets[0])["certificate"]["verdict"], "not-judged");
    verdict.nothing_wrong();
    // The table has it too.
    let mut command = lab.wgnat(lab.client());
    command.env("SSL_CERT_FILE", &roots).env_remove("SSL_CERT_DIR");
    command.args(["path", &targets[1], "--count", "2", "--timeout", "8s"]);
    let out = lab::exec::output(command);
    assert!(
        out.stdout.contains("certificate expired 2021-01-01"),
        "{}",
        out.stdout
    );
}

#[test]
fn a_slow_handshake_is_the_server_s_time() {
    let Some(lab) = Lab::routed() else { return };
    let authority = Authority::new("Lab CA");
    let roots = authority.file(&lab, "roots.pem");
    let config = authority.config(&Wish::good_for(lab.server_ip()));
    let (fast, slow) = (at(&lab, 8443), at(&lab, 8444));
    tls::serve(lab.server(), fast, &config, Duration::ZERO);
    tls::serve(lab.server(), slow, &config, Duration::from_millis(900));
    let target = format!("https://{fast}/");
    let before = path(&lab, &roots, &[&target]);
    before.nothing_wrong();
    let file = lab.dir().join("before.json");
    std::fs::write(&file, before.report.to_string()).expect("the lab's directory is writable");
    // The same target from now on leads to the slow server.
    lab.client().nft(&format!(
        "table ip slow {{ chain out {{ type nat hook output priority -100; tcp dport 8443 dnat to {slow}; }}; }}"
    ));
    let after = path(
        &lab,
        &roots,
        &[&target, "--baseline", file.to_str().expect("a path")],
    );
    let found = after.says_only(&["path-latency"]);
    found.is("warning", "likely").evidence("longest_stage", "TLS");
    let summary = found.value["summary"].as_str().expect("text");
    assert!(summary.contains("the server is slow, not the path"), "{summary}");
    assert!(
        row(&after, &target)["stages_seconds"]["TLS"]
            .as_f64()
            .is_some_and(|s| s >= 0.9)
    );
}

#[test]
fn a_server_that_takes_connections_and_says_nothing_is_no_dead_path() {
    let Some(lab) = Lab::routed() else { return };
    let authority = Authority::new("Lab CA");
    let roots = authority.file(&lab, "roots.pem");
    let (silent, greeting, closed) = (at(&lab, 8443), at(&lab, 8025), at(&lab, 9));
    tls::serve_nothing(lab.server(), silent);
    tls::serve_greeting(lab.server(), greeting);
    for (target, words) in [
        (format!("tls:{silent}"), "no TLS answer"),
        (format!("http://{silent}/"), "no answer"),
    ] {
        let verdict = path(&lab, &roots, &[&target, "--count", "4", "--timeout", "2s"]);
        let found = verdict.says_only(&["path-loss"]);
        found
            .is("warning", "certain")
            .evidence("connected_then_silent", 4);
        found.candidates(&["hangs", "large packets"]);
        let title = found.value["title"].as_str().expect("text");
        assert!(title.contains("takes connections and says nothing"), "{title}");
        let row = row(&verdict, &target);
        assert!(row["stages_seconds"]["connect"].is_f64(), "{row:#}");
        assert!(row["failures"].to_string().contains(words), "{row:#}");
    }
    // What is answered in other words, or refused, is answered.
    let targets = [format!("tls:{greeting}"), format!("tls:{closed}")];
    let verdict = path(&lab, &roots, &[&targets[0], &targets[1], "--count", "3"]);
    verdict.nothing_wrong();
    let failures = |target: &str| row(&verdict, target)["failures"].to_string();
    assert!(
        failures(&targets[0]).contains("does not speak it"),
        "{}",
        verdict.everything()
    );
    assert!(
        failures(&targets[1]).contains("refused"),
        "{}",
        verdict.everything()
    );
}

#[test]
fn a_black_hole_for_certificates_is_told_by_the_size_search() {
    let Some(lab) = Lab::routed() else { return };
    let authority = Authority::new("Lab CA");
    let roots = authority.file(&lab, "roots.pem");
    let large = authority.config(&Wish::good_for(lab.server_ip()).with_names(100));
    tls::serve(lab.server(), at(&lab, 8443), &large, Duration::ZERO);
    let target = format!("tls:{}", at(&lab, 8443));
    path(&lab, &roots, &[&target, "--count", "3"]).nothing_wrong();
    let fault = lab.inflict(&Fault::drop_longer_than(1200).toward(Toward::Client));
    let args = [&target, "--count", "4", "--timeout", "2s", "--mtu"];
    let verdict = path(&lab, &roots, &args);
    assert!(fault.hits() > 0);
    // One cause, one finding.
    verdict
        .says_only(&["path-mtu"])
        .is("warning", "certain")
        .evidence("largest_passed_bytes", 1200)
        .evidence("connected_then_silent", 4);
    fault.lift();
    // A firewall that drops large echoes and nothing else: the handshake's large packets pass, and nothing is certain.
    let firewall =
        lab.inflict(&Fault::new("icmp type echo-request meta length > 1200", "drop").toward(Toward::Server));
    let verdict = path(&lab, &roots, &args);
    assert!(firewall.hits() > 0);
    verdict
        .says_only(&["path-mtu"])
        .is("warning", "likely")
        .candidates(&["a link on the way", "drops large echoes alone"]);
    firewall.lift();
    // A server that hangs, on a path that carries all: its silence is told, and nothing of sizes.
    let silent = at(&lab, 8444);
    tls::serve_nothing(lab.server(), silent);
    let target = format!("tls:{silent}");
    let args = [&target, "--count", "4", "--timeout", "2s", "--mtu"];
    path(&lab, &roots, &args).says_only(&["path-loss"]);
    // A host that answers no size at all, or none any more after the first answers, says nothing of sizes either.
    let echo = Fault::new("icmp type echo-reply", "drop").toward(Toward::Client);
    let dead = lab.inflict(&echo);
    path(&lab, &roots, &args).says_only(&["path-loss"]);
    dead.lift();
    lab.inflict(
        &Fault::new(
            "icmp type echo-reply limit rate over 1/hour burst 1 packets",
            "drop",
        )
        .toward(Toward::Client),
    );
    let verdict = path(&lab, &roots, &args);
    verdict.says_only(&["path-loss"]);
    assert!(
        verdict.everything().contains("then none of any size"),
        "{}",
        verdict.everything()
    );
}

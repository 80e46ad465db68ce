use super::*;
use crate::observation::fly_toml::{Section, Wait};
use crate::time::Span;
use proptest::prelude::*;

const NEW: &str = r#"app = "web-1"
primary_region = "ams"

[http_service]
  internal_port = 8080
  force_https = true
  processes = ["web"]

  [http_service.concurrency]
    type = "requests"
    soft_limit = 200
    hard_limit = 250

  [[http_service.checks]]
    grace_period = "10s"
    interval = "30s"
    timeout = "5s"
    method = "GET"
    path = "/up"

[processes]
  web = "node server.js"
  worker = "node worker.js"

[[metrics]]
  port = 9091
  path = "/metrics"
  processes = ["web"]
"#;

const OLD: &str = r#"app = "web-1"
processes = []

[[services]]
  internal_port = "8080"
  protocol = "tcp"
  concurrency = "12,23"
  script_checks = []

  [[services.ports]]
    port = "80"
    handlers = ["http"]

  [[services.ports]]
    start_port = 8000
    end_port = 8010

  [[services.tcp_checks]]
    interval = 10000
    timeout = "2s"

  [[services.http_checks]]
    interval = 30000
    path = "/"

[[services]]
  internal_port = 51820
  protocol = "udp"
  [[services.ports]]
    port = 51820
"#;

fn millis(told: Option<Told<Wait>>) -> Option<(u128, u32)> {
    told.map(|t| (t.value.0.as_millis(), t.line))
}

#[test]
fn the_new_syntax_with_lines() {
    let file = parse(NEW).unwrap();
    assert_eq!(file.app.as_deref(), Some("web-1"));
    assert_eq!(file.group_names(), ["web", "worker"]);
    let [service] = file.services.as_slice() else {
        panic!("one service")
    };
    assert_eq!((service.section, service.line), (Section::HttpService, 4));
    assert_eq!(service.internal_port, Some(Told { value: 8080, line: 5 }));
    assert!(service.http() && service.served_by("web") && !service.served_by("worker"));
    let limits = service.concurrency.unwrap();
    assert_eq!(limits.line, 9);
    assert_eq!(
        limits.requests,
        Some(Told {
            value: true,
            line: 10
        })
    );
    assert_eq!(limits.hard, Some(Told { value: 250, line: 12 }));
    let check = &service.checks[0];
    assert_eq!((check.line, check.kind), (14, Some(CheckKind::Http)));
    assert_eq!(millis(check.interval), Some((30_000, 16)));
    assert_eq!(check.path.as_ref().map(|p| p.line), Some(19));
    assert_eq!(
        file.metrics[0].port,
        Some(Told {
            value: 9091,
            line: 26
        })
    );
    assert_eq!(file.metrics[0].line, 25);
}

#[test]
fn the_old_syntax_with_text_for_numbers() {
    let file = parse(OLD).unwrap();
    assert_eq!(file.group_names(), ["app"]);
    let [tcp, udp] = file.services.as_slice() else {
        panic!("two services")
    };
    assert_eq!((tcp.line, tcp.section, tcp.udp), (4, Section::Services, false));
    assert_eq!(tcp.port(), 8080);
    let limits = tcp.concurrency.unwrap();
    assert_eq!(
        (
            limits.soft.unwrap().value,
            limits.hard.unwrap().value,
            limits.line
        ),
        (12, 23, 7)
    );
    assert_eq!((tcp.ports[0].first, tcp.ports[1].last), (80, 8010));
    assert!(tcp.http());
    assert_eq!(millis(tcp.checks[0].interval), Some((10_000, 19)));
    assert_eq!(tcp.checks[1].kind, Some(CheckKind::Http));
    assert!(udp.udp && udp.line == 26 && udp.port() == 51820);
}

#[test]
fn top_level_checks_and_the_agent_s_environment() {
    let file = parse(
        "[env]\nWGNAT_LISTEN = \"[::]:9986\"\nTOKEN = \"s3cret\"\n[checks.alive]\ntype = \"http\"\nport = 5500\npath = \"/up\"\n\
         [[checks2]]\n",
    )
    .unwrap();
    assert_eq!(
        file.agent_listen.map(|l| (l.value.port(), l.line)),
        Some((9986, 2))
    );
    assert!(file.runs_agent());
    assert_eq!(file.checks[0].section, "[checks.alive]");
    assert_eq!(file.checks[0].port.map(|p| p.value), Some(5500));
    assert!(!format!("{file:?}").contains("s3cret"));
}

#[test]
fn whose_command_is_the_agent() {
    for (command, expected) in [
        ("\"node server.js\"", Runs::Other),
        ("\"wgnat agent\"", Runs::OnlyAgent),
        (
            "\"/usr/local/bin/wgnat agent --listen [::]:9986\"",
            Runs::OnlyAgent,
        ),
        ("[\"wgnat\", \"agent\"]", Runs::OnlyAgent),
        ("\"sh -c 'wgnat agent & exec node server.js'\"", Runs::WithAgent),
        ("\"wgnat reflect\"", Runs::Other),
        ("\"./wgnat-like agent\"", Runs::Other),
        (
            "\"sh -c 'wgnat agent --listen=[::]:9986 & ./app --listen 8080'\"",
            Runs::WithAgent,
        ),
        ("\"LOG=1 exec wgnat agent\"", Runs::OnlyAgent),
    ] {
        let file = parse(&format!("[processes]\nx = {command}\n")).unwrap();
        assert_eq!(file.groups[0].runs, expected, "{command}");
        let listens = command.contains("--listen").then(|| "[::]:9986".parse().unwrap());
        assert_eq!(file.groups[0].listen, listens, "{command}");
    }
}

#[test]
fn errors_name_line_column_and_what_was_expected() {
    for (text, line, column, word) in [
        ("app = \"x\"\n[http_service\n", 2, 14, "expected"),
        (
            "[http_service]\n  internal_port = \"web\"\n",
            2,
            19,
            "a port, 1 to 65535",
        ),
        (
            "[http_service]\n  internal_port = 70000\n",
            2,
            19,
            "a port, 1 to 65535",
        ),
        (
            "[[http_service.checks]]\ninterval = \"5 parsecs\"\n",
            2,
            12,
            "a time such as",
        ),
        ("services = 7\n", 1, 12, "[[services]]"),
        (
            "[http_service.concurrency]\nhard_limit = -1\n",
            2,
            14,
            "0 or more",
        ),
        ("[metrics]\nhttps = \"no\"\n", 2, 9, "true or false"),
        ("[env]\nWGNAT_LISTEN = \"9986\"\n", 2, 16, "an address and a port"),
        ("a = 1\na = 2\n", 2, 1, "duplicate"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!((error.line, error.column), (line, column), "{text:?}: {error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn bounds_hold_and_what_is_beyond_is_counted() {
    let many = "[[services]]\ninternal_port = 1\n".repeat(MAX_ITEMS + 5);
    let file = parse(&many).unwrap();
    assert_eq!((file.services.len(), file.left_out), (MAX_ITEMS, 5));
    let deep = format!("a = {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(parse(&deep).is_err());
    let empty = parse("").unwrap();
    assert_eq!(empty, FlyToml::default());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_at_a_place_in_it(text in "\\PC*|([a-z_\\[\\]=\"0-9., \n]{0,200})") {
        let lines = text.matches('\n').count() + 1;
        if let Err(error) = parse(&text) {
            prop_assert!(error.line >= 1 && error.line as usize <= lines);
            prop_assert!(error.column >= 1);
            prop_assert!(!error.what.contains('\n'));
        }
    }

    #[test]
    fn what_is_written_is_read_with_its_line(
        blank in 0_usize..20, port in 1_u16.., soft in 0_u32..100_000, hard in 0_u32..100_000, seconds in 0_u64..3600,
    ) {
        let text = format!(
            "{}[http_service]\ninternal_port = {port}\n[http_service.concurrency]\nsoft_limit = {soft}\nhard_limit = {hard}\n\
             [[http_service.checks]]\ninterval = \"{seconds}s\"\n",
            "\n".repeat(blank)
        );
        let file = parse(&text).unwrap();
        let service = &file.services[0];
        let line = |n: usize| u32::try_from(blank + n).unwrap();
        prop_assert_eq!(service.line, line(1));
        prop_assert_eq!(service.internal_port, Some(Told { value: port, line: line(2) }));
        let limits = service.concurrency.unwrap();
        prop_assert_eq!(limits.soft, Some(Told { value: soft, line: line(4) }));
        prop_assert_eq!(limits.hard, Some(Told { value: hard, line: line(5) }));
        let every = Wait(Span::from_secs(seconds));
        prop_assert_eq!(service.checks[0].interval, Some(Told { value: every, line: line(7) }));
    }
}

//! The agent's HTTP: what each route answers, and what strangers, slow ones and many ones get.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod agent;

use agent::{Agent, PATIENCE, file, read_answer, refusal};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn the_document_and_the_routes_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("history");
    let agent = Agent::start(&["--store", store.to_str().unwrap()]);
    let document = agent.get("/api/v1/openapi.json").json();
    let paths = document["paths"].as_object().unwrap();
    let documented: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(documented, wgnat::agent::http::routes::PATHS.into());
    for (path, item) in paths {
        let open = wgnat::agent::http::routes::OPEN.contains(&path.as_str());
        let security = item["get"]["security"].as_array().unwrap().len();
        assert_eq!(security == 1, open, "{path}");
        let answer = if path == "/api/v1/events" {
            // It has no end.
            let mut stream = agent.connect();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut head = String::new();
            let mut lines = BufReader::new(stream);
            while lines.read_line(&mut head).unwrap() > 2 {}
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            agent::Answer {
                status: 200,
                head,
                body: String::new(),
            }
        } else {
            agent.get(path)
        };
        let described = &item["get"]["responses"][answer.status.to_string()]["content"];
        let kind = answer.header("content-type").unwrap();
        let media = kind.split(';').next().unwrap();
        assert!(
            described.get(media).is_some(),
            "{path}: {kind} is not in {described}"
        );
        check(&document, &described[media]["schema"], &answer, path);
        for (header, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            (
                "cache-control",
                if path == "/api/v1/events" {
                    "no-cache"
                } else {
                    "no-store"
                },
            ),
        ] {
            assert_eq!(answer.header(header), Some(value), "{path} {header}");
        }
        assert!(answer.header("content-security-policy").is_some(), "{path}");
    }
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("POST", "/api/v1/report", 405),
        ("HEAD", "/metrics", 200),
        ("GET", "/api/v1/series?since=5parsecs", 400),
        ("GET", "/api/v1/series?nmae=x", 400),
    ] {
        let answer = agent.request(method, path, &[]).unwrap();
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
}

fn check(document: &Value, schema: &Value, answer: &agent::Answer, path: &str) {
    if !answer
        .header("content-type")
        .unwrap()
        .starts_with("application/json")
    {
        return;
    }
    let mut whole = document.clone();
    whole["$ref"] = schema.get("$ref").cloned().unwrap_or(Value::Null);
    if whole["$ref"].is_null() {
        return;
    }
    whole.as_object_mut().unwrap().remove("paths");
    let validator = jsonschema::validator_for(&whole).unwrap();
    let body = answer.json();
    let errors: Vec<String> = validator.iter_errors(&body).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{path}: {errors:?}\n{body:#}");
}

#[test]
fn both_formats_of_metrics_are_told_by_accept() {
    let agent = Agent::start(&[]);
    let prometheus = agent.get("/metrics");
    assert!(
        prometheus
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    assert!(
        prometheus
            .body
            .contains("\n# TYPE wgnat_evaluations_total counter\n")
    );
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    let open = agent.get_with("/metrics", &[("Accept", accept)]);
    assert!(
        open.header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(open.body.contains("\n# TYPE wgnat_evaluations counter\n"));
    assert!(open.body.ends_with("\n# EOF\n"));
}

#[test]
fn beyond_loopback_a_token_is_needed_and_any_other_is_refused() {
    let said = refusal(&["--listen", "0.0.0.0:0"]);
    assert!(said.contains("--token-file"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let short = file(dir.path(), "short", "abc\n");
    let said = refusal(&["--token-file", short.to_str().unwrap()]);
    assert!(said.contains("expected 16 to 1024"), "{said}");
    let token = file(dir.path(), "token", "0123456789abcdef0123\n");
    let port = agent::free_port().port();
    let mut command = agent::command();
    command.args(["--token-file", token.to_str().unwrap()]);
    let agent = Agent::of(command, ([0, 0, 0, 0], port).into());
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(agent.get(path).status, 200, "{path}");
    }
    for path in [
        "/",
        "/api/v1/report",
        "/api/v1/findings",
        "/api/v1/events",
        "/nothing",
    ] {
        for given in [
            None,
            Some("Bearer 0123456789abcdef012"),
            Some("Bearer 0123456789abcdef0124"),
            Some("Basic 0123456789abcdef0123"),
        ] {
            let headers: Vec<_> = given.map(|g| ("Authorization", g)).into_iter().collect();
            let answer = agent.get_with(path, &headers);
            assert_eq!(answer.status, 401, "{path} {given:?}");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
            assert!(!answer.body.contains("0123456789"));
        }
    }
    let right = [
        ("Authorization", "Bearer 0123456789abcdef0123"),
        ("Host", "any.example"),
    ];
    assert_eq!(agent.get_with("/api/v1/report", &right).status, 200);
    assert!(!agent.log().contains("0123456789abcdef"), "the token is logged");
}

#[test]
fn a_page_that_points_its_name_at_us_gets_nothing() {
    let agent = Agent::start(&[]);
    for path in ["/", "/metrics", "/api/v1/report"] {
        let answer = agent.get_with(path, &[("Host", "evil.example")]);
        assert_eq!(answer.status, 421, "{path}");
        assert_eq!(agent.get_with(path, &[("Host", "localhost:1")]).status, 200);
    }
}

#[test]
fn whoever_is_slow_or_says_too_much_is_cut_off_and_others_are_served() {
    let agent = Agent::start(&[]);
    // More than there are places for, none of which ever ends its request.
    let mut slow: Vec<TcpStream> = (0..300).map(|_| agent.connect()).collect();
    for stream in &mut slow {
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-A: ")
            .unwrap();
    }
    assert_eq!(
        agent.get("/healthz").status,
        200,
        "served when places are free again"
    );
    let mut first = slow.swap_remove(0);
    let mut rest = Vec::new();
    let _ = first.read_to_end(&mut rest);
    let said = String::from_utf8_lossy(&rest);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    drop(slow);
    for (head, expected) in [
        (
            format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(100_000)),
            &[414, 431][..],
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
                "a".repeat(100_000)
            ),
            &[431],
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
                "A: b\r\n".repeat(100)
            ),
            &[431],
        ),
        ("nonsense\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), &[400, 421]),
    ] {
        let mut stream = agent.connect();
        // It may close before all is written.
        let _ = stream.write_all(head.as_bytes());
        // A reset instead of an answer is as clear.
        if let Ok(answer) = read_answer(&mut stream) {
            assert!(expected.contains(&answer.status), "{:.60}: {answer:?}", head);
        }
    }
    let mut stream = agent.connect();
    let _ = stream
        .write_all(b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nxx");
    if let Ok(answer) = read_answer(&mut stream) {
        assert_eq!(answer.status, 405);
    }
    assert_eq!(agent.get("/healthz").status, 200);
}

#[test]
fn a_thousand_scrapes_at_once_are_all_answered() {
    let agent = Agent::start(&[]);
    std::thread::scope(|scope| {
        let scrapes: Vec<_> = (0..50)
            .map(|_| {
                scope.spawn(|| {
                    // Twenty connections are open before the first is read.
                    let mut open: Vec<TcpStream> = (0..20).map(|_| agent.connect()).collect();
                    for stream in &mut open {
                        let request =
                            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                        stream.write_all(request).unwrap();
                    }
                    for stream in &mut open {
                        let answer = read_answer(stream).unwrap();
                        assert_eq!(answer.status, 200, "{:?}", answer.head);
                        assert!(answer.body.contains("wgnat_status{status=\"ok\"}"));
                    }
                })
            })
            .collect();
        for scrape in scrapes {
            scrape.join().unwrap();
        }
    });
    let name = "wgnat_http_requests_total{route=\"/metrics\",status=\"2xx\"}";
    agent.until("a thousand are counted", |agent| {
        agent.metric(name) >= Some(1000.0)
    });
}

#[test]
fn events_come_as_they_happen() {
    let agent = Agent::start(&[]);
    let mut stream = agent.connect();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "event: hello"));
    agent.signal("HUP");
    assert!(lines.any(|line| line == "event: config"));
    let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned));
    let data: Value = serde_json::from_str(&data.unwrap()).unwrap();
    assert_eq!(data["data"]["ok"], true, "{data}");
    assert!(lines.any(|line| line == "event: report"));
    // The seventeenth listener has no place; those that go make room.
    let more: Vec<TcpStream> = (0..15)
        .map(|_| {
            let mut stream = agent.connect();
            let request = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request).unwrap();
            let mut first = [0; 12];
            stream.read_exact(&mut first).unwrap();
            assert_eq!(&first, b"HTTP/1.1 200");
            stream
        })
        .collect();
    assert_eq!(agent.get("/api/v1/events").status, 503);
    drop(more);
    agent.until("there is room again", |agent| {
        let mut stream = agent.connect();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let request = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut first = [0; 12];
        stream.write_all(request).is_ok()
            && stream.read_exact(&mut first).is_ok()
            && &first == b"HTTP/1.1 200"
    });
}

#[test]
fn the_page_tells_the_verdict_and_loads_nothing_from_elsewhere() {
    let agent = Agent::start(&[]);
    let page = agent.get("/");
    assert_eq!(page.status, 200);
    for part in ["<h1>wgnat", "id=\"verdict\"", "Findings", "/api/v1/events"] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    for part in ["src=", "url(", "http://", "https://"] {
        assert!(!page.body.contains(part), "{part}");
    }
    for (at, _) in page.body.match_indices("href=\"") {
        let to = &page.body[at + 6..];
        assert!(
            ["/", "#", "data:,\""].iter().any(|own| to.starts_with(own)),
            "{}",
            &to[..40]
        );
        assert!(!to.starts_with("//"), "{}", &to[..40]);
    }
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for (query, status) in [
        ("since=7d&rows=all", 200),
        ("since=5parsecs", 400),
        ("rows=none", 400),
        ("x=1", 400),
    ] {
        assert_eq!(agent.get(&format!("/?{query}")).status, status, "{query}");
    }
}

#[test]
fn without_a_token_a_browser_is_asked_and_told_what_to_do_and_a_program_gets_json() {
    let dir = tempfile::tempdir().unwrap();
    let token = file(dir.path(), "token", "0123456789abcdef0123\n");
    let agent = Agent::start(&["--token-file", token.to_str().unwrap()]);
    let browser = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    for (path, headers, kind, asked) in [
        ("/", &browser[..], "text/html; charset=utf-8", true),
        ("/", &[][..], "application/json", false),
        // A fetch of the page's own script must not raise a dialogue.
        ("/api/v1/report", &browser[..], "application/json", false),
    ] {
        let answer = agent.get_with(path, headers);
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        let basic = answer
            .head
            .to_ascii_lowercase()
            .contains("www-authenticate: basic");
        assert_eq!(basic, asked, "{path}: {}", answer.head);
        assert!(answer.head.contains("Bearer realm"), "{path}: {}", answer.head);
        assert_eq!(answer.body.contains("ssh -L"), asked, "{path}");
    }
    // "me:" and the token.
    let given = [("Authorization", "Basic bWU6MDEyMzQ1Njc4OWFiY2RlZjAxMjM=")];
    assert_eq!(agent.get_with("/", &given).status, 200);
    assert_eq!(agent.get_with("/api/v1/report", &given).status, 200);
}

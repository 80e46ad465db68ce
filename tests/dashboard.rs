//! The agent's page in a real browser: at two sizes, in both colours, live, by keyboard, for a screen reader, with a token.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod agent;
mod browser;
mod lab;

use agent::{Agent, file, free_port};
use browser::{Browser, checks};
use lab::{CtFill, Fault, Lab, LoadProcess, Message, Namespace, Nat, Serve, TcpServer, Toward, Tunnel, Work};
use serde_json::json;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use wgnat::agent::access::Access;
use wgnat::agent::confine::Confinement;
use wgnat::agent::http::Server;
use wgnat::agent::shared::{Shared, Snapshot};
use wgnat::agent::wire_log::WireLog;
use wgnat::report::agent::AgentStats;

const PHONE: (u32, u32) = (420, 900);
const DESK: (u32, u32) = (1280, 900);
const AT: &str = "127.0.0.1:9986";
const PAGE: &str = "http://127.0.0.1:9986/";

/// An agent in `ns`, asked from within it.
fn agent_in(lab: &Lab, ns: &Namespace, args: &[&str]) -> Agent {
    let at: SocketAddr = AT.parse().unwrap();
    let mut command = lab.wgnat(ns);
    command.arg("agent").args(args);
    let inside = ns.clone();
    let connect = move |at| inside.run(move || TcpStream::connect(at));
    let mut agent = Agent::begun(command, at, Box::new(connect));
    agent.until_ready();
    agent
}

/// A browser in `ns`.
fn browser_in(ns: &Namespace) -> Browser {
    Browser::of(ns.command("sh"))
}

/// All that must hold of the page as it is now, at both sizes and in both colours.
#[track_caller]
fn stands(browser: &Browser, name: &str) {
    for (size, at) in [(PHONE, "phone"), (DESK, "desk")] {
        for colours in ["light", "dark"] {
            browser.look(size, colours);
            let what = format!("{name}-{at}-{colours}");
            browser.picture(&what);
            checks::fits(browser, &what);
            checks::contrasts(browser, &what);
        }
    }
    checks::told_to_a_screen_reader(browser);
    for size in [PHONE, DESK] {
        browser.look(size, "light");
        checks::reached_by_keyboard(browser);
    }
}

#[test]
fn a_healthy_host_is_calm_at_both_sizes_and_in_both_colours() {
    let Some(lab) = Lab::nat(Nat::Masquerade).filter(|_| browser::there()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("history");
    let tunnel = Tunnel::start(&lab);
    tunnel.knock();
    let at = SocketAddr::new(lab.server_ip(), 7000);
    let _server = TcpServer::start(lab.server(), at, Serve::Echo);
    let source = lab.client_at().v4.to_string();
    let (device, key) = (tunnel.client.name(), tunnel.server.keys.public());
    browser::hour::write(
        &store,
        &browser::hour::hour(&[("device", device), ("public_key", key)], &source, at),
    );
    let work = Work::Hold { to: at, count: 20 };
    let _process = LoadProcess::start(lab.client(), "node", None, work);
    let agent = agent_in(&lab, lab.client(), &["--store", store.to_str().unwrap()]);
    agent.until("the peer is up", |agent| {
        agent.metric("wgnat_wireguard_peers{state=\"up\"}") == Some(1.0)
    });
    let browser = browser_in(lab.client());
    browser.look(DESK, "light");
    browser.open(PAGE);
    browser.until("document.querySelector('#link').textContent.startsWith('Live')");
    browser.until("document.querySelector('#ports figure') && document.querySelector('#peers svg')");
    let verdict = browser.eval("document.querySelector('#verdict').textContent");
    assert!(
        verdict.as_str().unwrap().contains("No problem found"),
        "{verdict}"
    );
    // The hour before, as history has it: two handshakes that failed, an endpoint that moved, ports, drops.
    let drawn = browser.eval(browser::hour::DRAWN);
    for (what, least) in [
        ("ticks", 8),
        ("crosses", 2),
        ("diamonds", 2),
        ("stretches", 3),
        ("ports", 100),
        ("drops", 100),
    ] {
        assert!(drawn[what].as_u64() >= Some(least), "{what}: {drawn}");
    }
    stands(&browser, "healthy");
    // The other times are links, and each is a page that stands.
    for since in ["6h", "24h", "7d"] {
        browser.open(&format!("{PAGE}?since={since}"));
        let current = browser.eval("document.querySelector('nav [aria-current]').id");
        assert_eq!(current, format!("back-{since}"));
    }
    checks::clean(&browser, PAGE);
}

/// How far a picture's line reaches over its width, and from when to when its axis says that it goes.
const REACHES: &str = "(() => {
  const svg = document.querySelector('#conntrack-entries');
  const lines = [...svg.querySelectorAll('.l1')].map((line) => line.getBBox());
  const left = Math.min(...lines.map((box) => box.x)), right = Math.max(...lines.map((box) => box.x + box.width));
  return { share: (right - left) / svg.viewBox.baseVal.width, nodes: document.querySelectorAll('*').length,
    bytes: document.documentElement.outerHTML.length,
    points: [...svg.querySelectorAll('.l1')].map((line) => line.getAttribute('d').split('L').length).reduce((a, b) => a + b, 0) };
})()";

#[test]
fn a_month_of_history_are_drawn_over_their_whole_time_and_what_is_told_stays_bounded() {
    let Some(lab) = Lab::nat(Nat::Masquerade).filter(|_| browser::there()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("history");
    let tunnel = Tunnel::start(&lab);
    tunnel.knock();
    let at = SocketAddr::new(lab.server_ip(), 7000);
    let _server = TcpServer::start(lab.server(), at, Serve::Echo);
    let source = lab.client_at().v4.to_string();
    let (device, key) = (tunnel.client.name(), tunnel.server.keys.public());
    let peer = [("device", device), ("public_key", key)];
    browser::hour::write(&store, &browser::hour::month(&peer, &source, at));
    let work = Work::Hold { to: at, count: 20 };
    let _process = LoadProcess::start(lab.client(), "node", None, work);
    let agent = agent_in(&lab, lab.client(), &["--store", store.to_str().unwrap()]);
    let series = |since: &str, points: usize| {
        let name = "wgnat_conntrack_entries";
        let path = format!("/api/v1/series?name={name}&since={since}&points={points}");
        agent.get(&path)
    };
    let day = 86_400_i64;
    let told = |answer: &agent::Answer| {
        let value = answer.json();
        let points = value["series"][0]["points"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let second = |point: Option<&serde_json::Value>| point.and_then(|p| p[0].as_i64()).unwrap_or(0);
        let span = second(points.last()) - second(points.first());
        (points.len(), span, value["step_seconds"].as_i64().unwrap())
    };
    // Once it has brought in order what it found.
    agent.until("a month is told", |_| told(&series("30d", 5000)).1 > 29 * day);
    for (since, span, asked) in [
        ("1h", 3600, 360),
        ("24h", day, 360),
        ("7d", 7 * day, 100),
        ("30d", 30 * day, 360),
        ("30d", 30 * day, 7),
        ("30d", 30 * day, 1_000_000),
    ] {
        let answer = series(since, asked);
        let (points, reach, step) = told(&answer);
        assert!(
            points <= asked.min(5000) && points >= 5,
            "{since} {asked}: {points}"
        );
        assert!(
            reach + 2 * step + 600 >= span,
            "{since} {asked}: {reach} of {span}, each {step}"
        );
        assert!(answer.body.len() < 1 << 20, "{} bytes", answer.body.len());
    }
    let browser = browser_in(lab.client());
    browser.look(DESK, "light");
    for since in ["1h", "6h", "24h", "7d"] {
        let page = format!("{PAGE}?since={since}");
        browser.open(&page);
        browser.until(
            "document.querySelector('#ports figure') && document.querySelector('#conntrack-entries .l1')",
        );
        let current = browser.eval("document.querySelector('nav [aria-current]').id");
        assert_eq!(current, format!("back-{since}"));
        let drawn = browser.eval(REACHES);
        assert!(drawn["share"].as_f64().unwrap() > 0.75, "{since}: {drawn}");
        assert!(drawn["points"].as_u64().unwrap() >= 100, "{since}: {drawn}");
        assert!(drawn["points"].as_u64().unwrap() <= 1200, "{since}: {drawn}");
        // A phone on a slow line has to fetch and to lay this out.
        assert!(drawn["bytes"].as_u64().unwrap() < 600_000, "{since}: {drawn}");
        assert!(drawn["nodes"].as_u64().unwrap() < 10_000, "{since}: {drawn}");
        browser.picture(&format!("month-{since}"));
        checks::fits(&browser, since);
        checks::clean(&browser, PAGE);
    }
}

#[test]
fn a_broken_host_says_what_and_how_to_mend_it_at_both_sizes_and_in_both_colours() {
    let Some(lab) = Lab::nat(Nat::Masquerade).filter(|_| browser::there()) else {
        return;
    };
    let mut tunnel = Tunnel::start(&lab);
    tunnel.knock();
    let at = SocketAddr::new(lab.server_ip(), 7000);
    let _server = TcpServer::start(lab.server(), at, Serve::Echo);
    lab.client().set_port_range(40_000, 40_199);
    // Without history: what memory holds is shown, and that it is said.
    let agent = agent_in(&lab, lab.client(), &[]);
    let work = Work::Hold { to: at, count: 190 };
    let _process = LoadProcess::start(lab.client(), "node", None, work);
    let _fault = lab.inflict(&Fault::drop_message(Message::Response).toward(Toward::Client));
    tunnel.client.restart();
    tunnel.knock();
    agent.finding("ports-low");
    agent.finding("wg-handshake-timeout");
    let browser = browser_in(lab.client());
    browser.look(DESK, "light");
    browser.open(PAGE);
    browser.until("document.querySelector('#link').textContent.startsWith('Live')");
    browser.until(
        "['ports-low', 'wg-handshake-timeout'].every((code) =>
            [...document.querySelectorAll('article')].some((a) => a.textContent.includes(code) && a.querySelector('pre')))",
    );
    browser.until(
        "document.querySelector('#ports figure svg .limit') && document.querySelector('#peers svg .cross')",
    );
    let verdict = browser.eval("document.querySelector('#verdict').className");
    assert_eq!(verdict, "critical");
    stands(&browser, "broken");
    checks::clean(&browser, PAGE);
}

#[test]
fn a_fault_made_while_the_page_is_open_appears_and_goes_without_reload() {
    let Some(lab) = Lab::nat(Nat::Masquerade).filter(|_| browser::there()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("history");
    let _agent = agent_in(&lab, lab.router(), &["--store", store.to_str().unwrap()]);
    let browser = browser_in(lab.router());
    browser.look(PHONE, "dark");
    browser.open(PAGE);
    browser.until("document.querySelector('#link').textContent.startsWith('Live')");
    // What a reader has: focus on a link, a mark on the page. Both must outlive every renewal.
    browser.eval(
        "(() => { window.mark = document.querySelector('#verdict'); document.querySelector('#back-6h').focus(); })()",
    );
    assert_eq!(browser.eval("document.querySelectorAll('article').length"), 0);
    let max = lab.router().conntrack_max();
    lab.router()
        .fill_conntrack(CtFill::assured(u32::try_from(max * 93 / 100).unwrap()));
    browser.until("document.querySelector('#verdict').className === 'critical'");
    browser.until(
        "[...document.querySelectorAll('article.critical')].some((a) => a.textContent.includes('conntrack-low'))",
    );
    let verdict = browser.eval("document.querySelector('#verdict').textContent");
    assert!(verdict.as_str().unwrap().contains("Critical: "), "{verdict}");
    assert_eq!(browser.eval("document.title.startsWith('✗')"), true);
    browser.until("document.querySelector('#conntrack-entries .limit')");
    assert_eq!(
        browser.eval("window.mark === document.querySelector('#verdict')"),
        true
    );
    assert_eq!(browser.eval("document.activeElement.id"), "back-6h");
    checks::fits(&browser, "live");
    browser.picture("live-phone-dark");
    lab.router().conntrack_flush();
    browser
        .until("document.querySelector('#verdict').className === 'ok' && !document.querySelector('article')");
    browser.until("document.querySelector('#findings').textContent.includes('not now')");
    assert_eq!(
        browser.eval("window.mark === document.querySelector('#verdict')"),
        true
    );
    let loads = browser.events("Page.loadEventFired").len();
    // The blank page that a browser begins with may be one of them.
    assert!(loads <= 2, "{loads} loads");
    checks::clean(&browser, PAGE);
}

#[test]
fn it_shows_without_script_and_prints_dark_on_light() {
    if !browser::there() {
        return;
    }
    let agent = Agent::start(&[]);
    let page = format!("http://{}/", agent.at);
    let browser = Browser::here();
    browser.look(PHONE, "dark");
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.open(&page);
    assert_ne!(browser.eval("document.querySelector('#verdict').textContent"), "");
    let link = browser.eval("document.querySelector('#link').textContent");
    assert!(link.as_str().unwrap().contains("reload it"), "{link}");
    checks::fits(&browser, "without script");
    browser.call(
        "Emulation.setEmulatedMedia",
        json!({ "media": "print", "features": [{ "name": "prefers-color-scheme", "value": "dark" }] }),
    );
    let colour = browser.eval("getComputedStyle(document.body).color");
    assert_eq!(colour, "rgb(27, 31, 36)");
    checks::clean(&browser, &page);
}

#[test]
fn with_a_token_a_browser_asks_for_it_and_then_the_page_is_live() {
    if !browser::there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let secret = "0123456789abcdef0123";
    let token = file(dir.path(), "token", secret);
    let agent = Agent::start(&["--token-file", token.to_str().unwrap()]);
    let page = format!("http://{}/", agent.at);
    let browser = Browser::here();
    browser.look(PHONE, "light");
    browser.call("Fetch.enable", json!({ "handleAuthRequests": true }));
    // Asked for, and the reader gives nothing: a page says what to do.
    let give = |answer: serde_json::Value| {
        let before = browser.told();
        browser.begin("Page.navigate", json!({ "url": page }));
        // The request is held until it is let go; the answer to it is the question.
        let paused = browser.event(before, "Fetch.requestPaused", |_| true);
        let go_on = json!({ "requestId": paused["requestId"] });
        browser.call("Fetch.continueRequest", go_on);
        let asked = browser.event(before, "Fetch.authRequired", |_| true);
        let reply = json!({ "requestId": asked["requestId"], "authChallengeResponse": answer });
        browser.call("Fetch.continueWithAuth", reply);
        browser.event(before, "Page.loadEventFired", |_| true);
    };
    give(json!({ "response": "CancelAuth" }));
    assert_eq!(
        browser.eval("document.querySelector('h1').textContent"),
        "This agent asks for its token"
    );
    checks::fits(&browser, "refused");
    checks::contrasts(&browser, "refused");
    browser.picture("refused-phone-light");
    give(json!({ "response": "ProvideCredentials", "username": "me", "password": secret }));
    browser.call("Fetch.disable", json!({}));
    browser.until("document.querySelector('#link').textContent.startsWith('Live')");
    assert_eq!(browser.eval("location.href.includes('0123')"), false);
    // Its script may ask on: what the browser knows goes with it.
    assert_eq!(
        browser.eval("fetch('/api/v1/report').then((answer) => answer.status)"),
        200
    );
    assert!(!agent.log().contains(secret), "the token is logged");
}

#[test]
fn an_agent_that_goes_away_and_comes_back_is_said_and_the_page_lives_on() {
    if !browser::there() {
        return;
    }
    let at = free_port();
    let start = || Agent::of(agent::command(), at);
    let first = start();
    let browser = Browser::here();
    browser.look(DESK, "dark");
    browser.open(&format!("http://{at}/"));
    browser.until("document.querySelector('#link').textContent.startsWith('Live')");
    browser.eval("window.mark = 1");
    drop(first);
    browser.until("document.querySelector('#link').textContent.startsWith('Not live')");
    let _second = start();
    browser.until("document.querySelector('#link').textContent.startsWith('Live')");
    assert_eq!(browser.eval("window.mark"), 1);
    // The policy is in force: script and style that are not the page's own do nothing.
    browser.eval(
        "(() => {
            const script = document.createElement('script');
            script.textContent = 'window.strange = 1';
            document.body.append(script);
            document.body.setAttribute('onclick', 'window.strange = 2');
            document.body.click();
            document.querySelector('h1').setAttribute('style', 'color: rgb(1, 2, 3)');
        })()",
    );
    assert_eq!(browser.eval("window.strange === undefined"), true);
    assert_ne!(
        browser.eval("getComputedStyle(document.querySelector('h1')).color"),
        "rgb(1, 2, 3)"
    );
}

/// The server without an agent, so that the first verdict comes when the test says so.
#[test]
fn before_the_first_verdict_a_page_says_so_and_becomes_the_whole_one_by_itself() {
    if !browser::there() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let now = wgnat::sys::clock::now();
    let access = Access::new(at, None, &[]);
    let shared = Arc::new(Shared::new(access, None, WireLog::new(now, 0)));
    let server = Server::start(listener, Arc::clone(&shared), Confinement::off()).unwrap();
    let page = format!("http://{at}/");
    let browser = Browser::here();
    browser.look(PHONE, "light");
    browser.open(&page);
    browser.until("document.querySelector('#link').textContent.startsWith('Live')");
    let verdict = browser.eval("document.querySelector('#verdict').textContent");
    assert_eq!(verdict, "The first look is under way");
    let wide = browser.eval("document.documentElement.scrollWidth > innerWidth");
    assert_eq!(wide, false, "it fits a phone");
    let world = wgnat::track::World::new(now);
    let report = wgnat::report::build::build(&world, wgnat::rules::Evaluation::default(), "test");
    shared.publish(Snapshot::new(report, AgentStats::default(), Vec::new()));
    shared.tell(now, "report", json!({ "status": "unknown" }));
    browser.until("document.querySelector('#findings') && document.querySelector('nav li')");
    let title = browser.eval("document.title");
    assert!(!title.as_str().unwrap().contains("first look"), "{title}");
    server.stop();
}

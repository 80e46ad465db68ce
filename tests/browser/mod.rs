//! A real headless Chromium for tests, driven over the DevTools protocol by a pipe: no port, so it works in a namespace.
//!
//! The protocol is JSON, one message after the other, each ended by a NUL byte, on the browser's descriptors 3 and 4
//! (`--remote-debugging-pipe`).

// Each test uses a part; a panic is how a test fails.
#![allow(dead_code, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

pub mod checks;
pub mod hour;

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

/// The machine is shared: what takes longer than this hangs.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What the browser is started with: nothing of its own on the network, no sandbox (it runs as root), no GPU.
const FLAGS: [&str; 16] = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-features=OptimizationHints,MediaRouter,Translate",
    "--metrics-recording-only",
    "--no-first-run",
    "--no-default-browser-check",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
];

/// False where the lab is to be skipped and there is no browser; panics where there is none and it is not to be skipped.
#[track_caller]
pub fn there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join("chromium").is_file()) {
        return true;
    }
    let skip = std::env::var("WGNAT_LAB").is_ok_and(|v| v == "skip");
    assert!(
        skip,
        "chromium is missing: install the package chromium, or set WGNAT_LAB=skip"
    );
    eprintln!("skipped: chromium is missing");
    false
}

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: RefCell<ChildStdin>,
    from: Receiver<Value>,
    next: Cell<u64>,
    session: String,
    /// What the page told since it was opened: method and parameters.
    events: RefCell<Vec<(String, Value)>>,
    _dir: tempfile::TempDir,
}

/// `chromium` with a shell around it, which moves its standard streams to the descriptors that the protocol wants.
/// `command` makes it run where it should: on this host or in a namespace.
fn start(mut command: Command, dir: &Path) -> Child {
    command
        .args([
            "-c",
            "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null",
            "chromium",
        ])
        .args(FLAGS)
        .arg(format!("--user-data-dir={}", dir.display()))
        .arg("about:blank")
        .env("HOME", dir)
        .env_remove("http_proxy")
        .env_remove("https_proxy")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh can be started")
}

impl Browser {
    /// On this host.
    pub fn here() -> Self {
        Self::of(Command::new("sh"))
    }

    /// By a command for `sh`, which may be one that runs in a namespace.
    #[track_caller]
    pub fn of(sh: Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = start(sh, dir.path());
        let to = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while output.read_until(0, &mut bytes).is_ok_and(|n| n > 0) {
                bytes.pop();
                let Ok(message) = serde_json::from_slice(&bytes) else {
                    return;
                };
                if sender.send(message).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        let mut browser = Self {
            child,
            to: RefCell::new(to),
            from,
            next: Cell::new(1),
            session: String::new(),
            events: RefCell::default(),
            _dir: dir,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let id = target["targetId"].as_str().unwrap().to_owned();
        let attached = browser.call(
            "Target.attachToTarget",
            json!({ "targetId": id, "flatten": true }),
        );
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility", "DOM"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol and returns its result.
    #[track_caller]
    pub fn call(&self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params);
        loop {
            let message = self.receive(method);
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    /// Calls without waiting for the answer, whose number comes back.
    pub fn begin(&self, method: &str, params: Value) -> u64 {
        let id = self.next.replace(self.next.get() + 1);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.borrow_mut().write_all(&bytes).expect("the browser reads");
        id
    }

    /// The next message; events are kept as well.
    #[track_caller]
    fn receive(&self, waiting_for: &str) -> Value {
        let Ok(message) = self.from.recv_timeout(PATIENCE) else {
            let told: Vec<_> = self
                .events
                .borrow()
                .iter()
                .map(|(method, _)| method.clone())
                .collect();
            panic!("the browser says nothing more; waiting for {waiting_for}, after {told:?}");
        };
        if let Some(method) = message["method"].as_str() {
            let event = (method.to_owned(), message["params"].clone());
            self.events.borrow_mut().push(event);
        }
        message
    }

    /// Waits for an event that `is` it, told from now on or since `from` events ago; its parameters come back.
    #[track_caller]
    pub fn event(&self, from: usize, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut looked = from;
        loop {
            while let Some((method, params)) = self.events.borrow().get(looked).cloned() {
                looked += 1;
                if method == what && is(&params) {
                    return params;
                }
            }
            self.receive(what);
        }
    }

    /// How many events were told so far.
    pub fn told(&self) -> usize {
        self.events.borrow().len()
    }

    /// All events named `method`.
    pub fn events(&self, method: &str) -> Vec<Value> {
        let events = self.events.borrow();
        events
            .iter()
            .filter(|(own, _)| own == method)
            .map(|(_, params)| params.clone())
            .collect()
    }

    /// The size of the window, and the colours that the reader prefers (`light` or `dark`).
    pub fn look(&self, (width, height): (u32, u32), colours: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let features = json!([{ "name": "prefers-color-scheme", "value": colours }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Opens `url` and waits until it is loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        let before = self.told();
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
        self.event(before, "Page.loadEventFired", |_| true);
    }

    /// The value of an expression; a promise is waited for.
    #[track_caller]
    pub fn eval(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", params);
        let failed = answer.get("exceptionDetails");
        assert!(failed.is_none(), "{expression}: {failed:?}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression holds; it is tried whenever the page changes.
    #[track_caller]
    pub fn until(&self, expression: &str) {
        let wait = format!(
            "new Promise((done) => {{
                const watcher = new MutationObserver(() => check());
                const check = () => {{ if ({expression}) {{ watcher.disconnect(); done(true); }} }};
                watcher.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
                check();
            }})"
        );
        self.eval(&wait);
    }

    /// Presses and releases a key.
    pub fn key(&self, key: &str, code: u32, modifiers: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let press = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers });
            self.call("Input.dispatchKeyEvent", press);
        }
    }

    /// Writes a picture of the whole page to a file below the target directory; its path comes back.
    pub fn picture(&self, name: &str) -> PathBuf {
        let shot = self.call(
            "Page.captureScreenshot",
            json!({ "format": "png", "captureBeyondViewport": true }),
        );
        let data = shot["data"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join(format!("{name}.png"));
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

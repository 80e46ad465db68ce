//! A running agent for tests: started on a free port, asked over real sockets, ended with the test.

// Each test uses a part.
#![allow(
    dead_code,
    unused_imports,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic
)]

mod kept_open;
mod said;

pub use kept_open::KeptOpen;
use said::Said;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use wgnat::sys::clock;

/// The machine is shared: what takes longer than this hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Where connections are made from: the lab's namespace, where it runs in one.
pub type Connect = Box<dyn Fn(SocketAddr) -> std::io::Result<TcpStream> + Send + Sync>;

/// What tells of nothing (a file that was written, a number in the metrics) is looked at this often.
const RECHECK: Duration = Duration::from_millis(250);

/// What an agent said last is waited for so long after its end; somebody else may hold its standard error.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A running agent.
pub struct Agent {
    pub at: SocketAddr,
    pub child: Child,
    said: Arc<Said>,
    connect: Connect,
}

/// A port that was free a moment ago, on loopback.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// `wgnat agent` without the machine's own settings.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgnat"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WGNAT_") {
            command.env_remove(name);
        }
    }
    command.arg("agent");
    command
}

impl Agent {
    /// With these arguments, on a free port.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        let mut command = command();
        command.args(args);
        Self::of(command, free_port())
    }

    /// Of a prepared command, at `at`.
    #[track_caller]
    pub fn of(command: Command, at: SocketAddr) -> Self {
        let mut agent = Self::begun(command, at, Box::new(TcpStream::connect));
        agent.until_ready();
        agent
    }

    /// Started, and not waited for.
    pub fn begun(mut command: Command, at: SocketAddr, connect: Connect) -> Self {
        command.args(["--listen", &at.to_string()]);
        Self::with(command, at, connect)
    }

    /// Of a command that listens at `at` by what it is told already; not waited for.
    pub fn plain(command: Command, at: SocketAddr) -> Self {
        Self::with(command, at, Box::new(TcpStream::connect))
    }

    fn with(mut command: Command, at: SocketAddr, connect: Connect) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Said::of(child.stderr.take().unwrap());
        Self {
            at,
            child,
            said,
            connect,
        }
    }

    #[track_caller]
    pub fn until_ready(&mut self) {
        let end = clock::instant() + PATIENCE;
        loop {
            let seen = self.said.seen();
            if self.try_get("/readyz").is_ok_and(|a| a.status == 200) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the agent ended ({status}):\n{}", self.log());
            }
            assert!(clock::instant() < end, "not ready:\n{}", self.log());
            // It logs when it listens and when it is ready; what is started by something else may log elsewhere.
            self.said.after(seen, Duration::from_millis(50));
        }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.said.text()
    }

    /// Waits until its log holds `text`.
    #[track_caller]
    pub fn logs(&self, text: &str) {
        let end = clock::instant() + PATIENCE;
        loop {
            let seen = self.said.seen();
            if self.log().contains(text) {
                return;
            }
            let left = end.saturating_duration_since(clock::instant());
            assert!(
                !left.is_zero() && !self.said.is_over(),
                "never logged: {text}\n{}",
                self.log()
            );
            self.said.after(seen, left);
        }
    }

    /// Waits until `holds`, named `what`: looked at whenever the agent tells of something, and from time to time.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = clock::instant() + PATIENCE;
        let listener = self.listen();
        loop {
            let seen = self.said.seen();
            if holds(self) {
                break;
            }
            assert!(
                clock::instant() < end,
                "not in time: {what}\n{}\n{}",
                self.log(),
                self.try_get("/metrics")
                    .map_or_else(|e| e.to_string(), |a| a.body)
            );
            self.said.after(seen, RECHECK);
        }
        if let Some(listener) = listener {
            let _ = listener.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Listens for the agent's events until the stream that comes back is shut; none where it does not let us.
    fn listen(&self) -> Option<TcpStream> {
        let mut stream = self.try_connect().ok()?;
        let head = format!("GET /api/v1/events HTTP/1.1\r\nHost: {}\r\n\r\n", self.at);
        stream.write_all(head.as_bytes()).ok()?;
        let (theirs, said) = (stream.try_clone().ok()?, Arc::clone(&self.said));
        std::thread::spawn(move || {
            let mut lines = BufReader::new(theirs).lines();
            let taken = lines
                .next()
                .is_some_and(|line| line.is_ok_and(|l| l.contains(" 200 ")));
            // An event ends with an empty line.
            while taken && let Some(Ok(line)) = lines.next() {
                if line.is_empty() {
                    said.stir();
                }
            }
        });
        Some(stream)
    }

    pub fn connect(&self) -> TcpStream {
        self.try_connect().expect("it listens")
    }

    fn try_connect(&self) -> std::io::Result<TcpStream> {
        let stream = (self.connect)(self.at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// GET, and nothing else.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    #[track_caller]
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", path, headers)
            .unwrap_or_else(|e| panic!("no answer to {path}: {e}\n{}", self.log()))
    }

    fn try_get(&self, path: &str) -> std::io::Result<Answer> {
        self.request("GET", path, &[])
    }

    /// A request on a connection of its own.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> std::io::Result<Answer> {
        let mut stream = self.try_connect()?;
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.at);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "Connection: close\r\n\r\n";
        stream.write_all(head.as_bytes())?;
        read_answer(&mut stream)
    }

    /// The report, once it has a finding with `code`.
    #[track_caller]
    pub fn finding(&self, code: &str) -> Value {
        let found = std::cell::Cell::new(None);
        self.until(&format!("a finding {code}"), |agent| {
            let report = agent.get("/api/v1/report").json();
            let all = report["findings"].as_array();
            let one = all.and_then(|all| all.iter().find(|f| f["code"] == code));
            found.set(one.cloned());
            one.is_some()
        });
        found.take().unwrap()
    }

    /// The value of a metric by its whole name with labels.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").body;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let end = clock::instant() + PATIENCE;
        loop {
            let seen = self.said.seen();
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it said last is on its way.
                let end = end.min(clock::instant() + LAST_WORDS);
                while !self.said.is_over() && clock::instant() < end {
                    self.said.after(self.said.seen(), RECHECK);
                }
                return status;
            }
            assert!(clock::instant() < end, "it does not end:\n{}", self.log());
            // Its log ends with it, a moment before it can be waited for.
            let pause = if self.said.is_over() { 1 } else { 50 };
            self.said.after(seen, Duration::from_millis(pause));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads an answer to the connection's end.
pub fn read_answer(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    if bytes.is_empty() {
        end?;
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body) } else { body.to_owned() };
    Ok(Answer {
        status,
        head: head.to_owned(),
        body,
    })
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        if size == 0 || after.len() < size {
            break;
        }
        body.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    body
}

/// A file with this text.
pub fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// What `wgnat agent` with these arguments says when it cannot begin; panics if it does.
#[track_caller]
pub fn refusal(args: &[&str]) -> String {
    let output = command()
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("it can be run");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

//! What a process takes, and what a scrape of it costs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::lab::Namespace;

/// No answer within this is a lost one.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process in a namespace, ended with this.
pub struct Measured {
    pub child: Child,
    pub ns: Namespace,
    pub at: SocketAddr,
}

impl Measured {
    pub fn start(ns: &Namespace, mut command: Command, at: SocketAddr) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("it starts");
        Self {
            child,
            ns: ns.clone(),
            at,
        }
    }

    /// Waits until `path` is answered with 200; how long that took from `began` on.
    pub fn until_answers(&mut self, path: &str, began: Instant) -> Duration {
        loop {
            if self.get(path).is_ok_and(|(status, _)| status == 200) {
                return began.elapsed();
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("it ended at its start: {status}");
            }
            assert!(began.elapsed() < 6 * PATIENCE, "it does not answer {path}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Resident memory in KiB: all of it, and what is not of files (code is).
    pub fn memory(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
            number.and_then(|n| n.trim().parse().ok()).unwrap_or(f64::NAN)
        };
        (field("VmRSS:"), field("RssAnon:"))
    }

    /// CPU seconds so far, the kernel's part too.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // Fields are counted from behind the name, which may hold anything.
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: f64 = rest
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|n| n.parse::<f64>().ok())
            .sum();
        // USER_HZ is 100 on all of Linux's architectures but Alpha.
        ticks / 100.0
    }

    /// GET; status and body.
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        get(&self.ns, self.at, path)
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the process is alive");
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// GET on a connection of its own, from within `ns`.
pub fn get(ns: &Namespace, at: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = ns.run(|| TcpStream::connect_timeout(&at, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

/// The prometheus-node-exporter in `ns`, for scale; `None` where it is not installed.
pub fn node_exporter(ns: &Namespace) -> Option<Measured> {
    let at: SocketAddr = "127.0.0.1:9100".parse().expect("valid");
    let mut command = ns.command("prometheus-node-exporter");
    command
        .arg(format!("--web.listen-address={at}"))
        .stderr(Stdio::null());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.spawn().ok()?;
    let mut exporter = Measured {
        child,
        ns: ns.clone(),
        at,
    };
    exporter.until_answers("/metrics", Instant::now());
    Some(exporter)
}

/// Least, median, most.
pub fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(f64::NAN);
    (at(0), at(values.len() / 2), at(values.len().saturating_sub(1)))
}

/// The slope of a line through (seconds, value), and the deviation of what is left.
pub fn slope(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let (x, y) = (x / n, y / n);
    let along: f64 = points.iter().map(|(px, py)| (px - x) * (py - y)).sum();
    let across: f64 = points.iter().map(|(px, _)| (px - x).powi(2)).sum();
    let slope = if across > 0.0 { along / across } else { 0.0 };
    let left: f64 = points
        .iter()
        .map(|(px, py)| (py - y - slope * (px - x)).powi(2))
        .sum();
    (slope, (left / n).sqrt())
}

//! STUN servers in a lab: the product's own, and coturn's, and coturn's clients as outside referees.

use super::wait::wait_for;
use super::{Lab, Namespace, exec};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Longer than any server takes to start on a busy machine.
const START: Duration = Duration::from_secs(20);

/// A STUN server that is killed with its handle.
#[derive(Debug)]
pub struct StunServer {
    child: Child,
    stderr: Option<std::thread::JoinHandle<String>>,
}

impl StunServer {
    /// `wgnat reflect` with these arguments, ready to answer.
    #[track_caller]
    pub fn reflect(lab: &Lab, ns: &Namespace, args: &[&str]) -> Self {
        let mut command = lab.wgnat(ns);
        command.args(["-v", "reflect"]).args(args);
        let mut server = Self::spawn(command);
        let stderr = server.child.stderr.take().expect("stderr is piped");
        let (to, ready) = mpsc::channel();
        server.stderr = Some(std::thread::spawn(move || {
            let mut text = String::new();
            let mut lines = BufReader::new(stderr);
            while lines.read_line(&mut text).is_ok_and(|n| n > 0) {
                if text.ends_with("ready\n") {
                    let _ = to.send(());
                }
            }
            text
        }));
        if ready.recv_timeout(START).is_err() {
            let said = server.end();
            panic!("`wgnat reflect {}` did not become ready: {said}", args.join(" "));
        }
        server
    }

    /// The product's server with both addresses and both ports of the lab's server.
    #[track_caller]
    pub fn reflect_all(lab: &Lab) -> Self {
        Self::reflect(lab, lab.server(), &["--address", "203.0.113.9,203.0.113.10"])
    }

    /// coturn's server, serving RFC 5780 at these addresses, ports 3478 and 3479.
    #[track_caller]
    pub fn coturn(ns: &Namespace, ips: &[&str]) -> Self {
        let mut command = ns.command("turnserver");
        command.args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--no-auth"]);
        command.args([
            "--listening-port=3478",
            "--alt-listening-port=3479",
            "--log-file=stdout",
            "--pidfile",
        ]);
        command.arg(ns.dir().join("turnserver.pid"));
        command.args(ips.iter().map(|ip| format!("--listening-ip={ip}")));
        let server = Self::spawn(command);
        let first: SocketAddr = format!("{}:3478", ips[0]).parse().expect("an address");
        wait_for(START, "turnserver to answer", || answers(ns, first).then_some(()));
        server
    }

    #[track_caller]
    fn spawn(mut command: Command) -> Self {
        let what = exec::describe(&command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start `{what}`: {e}"));
        Self { child, stderr: None }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end; its exit code.
    #[track_caller]
    pub fn terminate(&mut self) -> i32 {
        // SAFETY: kill takes numbers; the child has not been waited for, so its pid is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let status = wait_for(START, "the server to end", || {
            self.child.try_wait().expect("our child")
        });
        status.code().unwrap_or(-1)
    }

    fn end(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.stderr.take().and_then(|s| s.join().ok()).unwrap_or_default()
    }
}

impl Drop for StunServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether something at `server` answers a plain Binding request.
pub fn answers(from: &Namespace, server: SocketAddr) -> bool {
    from.run(|| {
        let socket = UdpSocket::bind((if server.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
        let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
        request.extend([7; 12]);
        socket.send_to(&request, server).ok()?;
        socket.recv_from(&mut [0; 1500]).ok()
    })
    .is_some()
}

/// What coturn's discovery client says of the NAT before `ns`, all of its standard output.
#[track_caller]
pub fn natdiscovery(ns: &Namespace, args: &[&str], server: &str) -> String {
    let mut command = ns.command("turnutils_natdiscovery");
    command.args(args).arg(server);
    let out = exec::output_within(command, None, Duration::from_secs(60));
    format!("{}{}", out.stdout, out.stderr)
}

/// What Debian's `stun` client (RFC 3489) says, all of it.
#[track_caller]
pub fn stun_client(ns: &Namespace, server: &str) -> String {
    let mut command = ns.command("stun");
    command.arg(server).arg("-v");
    let out = exec::output_within(command, None, Duration::from_secs(60));
    format!("{}{}", out.stdout, out.stderr)
}

/// A gateway that answers NAT-PMP's question for its external address (RFC 6886) on a thread of its own.
#[derive(Debug)]
pub struct NatPmp {
    stop: Option<std::io::PipeWriter>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl NatPmp {
    /// At this inside address, with that outside address.
    #[track_caller]
    pub fn start(ns: &Namespace, inside: &str, outside: [u8; 4]) -> Self {
        let socket = ns
            .run(|| UdpSocket::bind((inside, 5351)))
            .expect("the port is free");
        let (stopped, stop) = std::io::pipe().expect("a pipe can be made");
        let thread = std::thread::spawn(move || {
            let mut question = [0; 64];
            while super::udp::readable_before(&socket, &stopped) {
                if let Ok((2.., from)) = socket.recv_from(&mut question) {
                    let mut answer = vec![0, 128, 0, 0, 0, 0, 0, 9];
                    answer.extend(outside);
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for NatPmp {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

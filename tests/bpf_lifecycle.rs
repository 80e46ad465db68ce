//! What wgnat puts into the kernel leaves with it, however it ends; and what costs every system call is there only while it is needed.
//!
//! Programs, maps and links are told by their ids, which the kernel counts upwards and does not use again soon: those that a process
//! holds are in its `fdinfo`, and afterwards the kernel is asked for each of them. So other tests' programs do not count.

// A panic is how a test fails, in its helpers too. The system call that asks for an id has no other name here.
#![allow(clippy::expect_used, clippy::unwrap_used, unsafe_code)]

mod lab;

use lab::{Lab, LoadProcess, Serve, TcpServer, Work, wait_until};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::Duration;

/// A starved machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something in the kernel: what its id is called in `fdinfo`, and the number.
type Held = (&'static str, u32);

/// How each is asked for (include/uapi/linux/bpf.h: BPF_PROG_GET_FD_BY_ID, BPF_MAP_…, BPF_LINK_…).
const KINDS: [(&str, libc::c_long); 3] = [("prog_id:", 13), ("map_id:", 14), ("link_id:", 30)];

/// wgnat in a namespace of its own. Ended with this.
struct Wgnat(Child);

impl Drop for Wgnat {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Wgnat {
    fn start(lab: &Lab, args: &[&str]) -> Self {
        let mut command = lab.client().command(env!("CARGO_BIN_EXE_wgnat"));
        lab.clean_environment(&mut command);
        command.args(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().expect("it starts"))
    }

    /// The texts of `fdinfo`. Descriptors that are closed meanwhile are left out.
    fn descriptors(&self) -> Vec<String> {
        let files = std::fs::read_dir(format!("/proc/{}/fdinfo", self.0.id()));
        let paths = files.into_iter().flatten().flatten().map(|file| file.path());
        paths
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .collect()
    }

    fn holds(&self) -> BTreeSet<Held> {
        let of = |text: &String| {
            let id = |(name, _): (&'static str, _)| {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                Some((name, line.trim().parse().ok()?))
            };
            KINDS.into_iter().filter_map(id).collect::<Vec<_>>()
        };
        self.descriptors().iter().flat_map(of).collect()
    }

    /// Whether the tracepoint at the end of every system call is among its links.
    fn watches_system_calls(&self) -> bool {
        self.descriptors().iter().any(|text| {
            text.lines()
                .any(|line| line.contains("tp_name:") && line.trim_end().ends_with("sys_exit"))
        })
    }

    /// Waits until it counts connects: two programs are attached then.
    #[track_caller]
    fn until_it_counts(&self) -> BTreeSet<Held> {
        wait_until(PATIENCE, "the programs to be attached", || {
            self.holds()
                .iter()
                .filter(|(kind, _)| *kind == "link_id:")
                .count()
                >= 2
        });
        self.holds()
    }

    #[track_caller]
    fn end(&mut self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = std::process::Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "it is alive");
        self.0.wait().expect("it is our child");
    }
}

/// Whether the kernel still has it.
fn exists((kind, id): Held) -> bool {
    let command = KINDS
        .iter()
        .find(|(name, _)| *name == kind)
        .expect("a known kind")
        .1;
    // The id, the next one (not used), flags.
    let request = [id, 0, 0];
    // SAFETY: the kernel reads as many bytes as are said, from an array that lives until it returns.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, request.as_ptr(), size_of_val(&request)) };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{kind} {id}: {error}");
        return false;
    }
    // SAFETY: a descriptor that the kernel has just given to nobody else.
    drop(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor is an int")) });
    true
}

/// The kernel frees them after a while, not at once.
#[track_caller]
fn all_gone(held: &BTreeSet<Held>, how: &str) {
    wait_until(PATIENCE, &format!("{how}: {held:?} to be gone"), || {
        !held.iter().any(|one| exists(*one))
    });
}

#[test]
fn nothing_is_left_in_the_kernel_however_it_ends() {
    let Some(lab) = Lab::lone() else { return };
    let history = lab.dir().join("history.db");
    let agent = ["agent", "--store", history.to_str().unwrap()];
    let doctor = ["doctor", "--duration", "120s"];
    for args in [&agent[..], &doctor[..]] {
        for signal in ["TERM", "KILL", "INT", "KILL", "TERM", "KILL"] {
            let mut wgnat = Wgnat::start(&lab, args);
            let held = wgnat.until_it_counts();
            for (kind, _) in KINDS {
                assert!(held.iter().any(|(k, _)| *k == kind), "no {kind} in {held:?}");
            }
            assert!(held.iter().all(|one| exists(*one)), "{held:?}");
            wgnat.end(signal);
            all_gone(&held, &format!("{} after SIG{signal}", args[0]));
        }
    }
}

#[test]
fn nothing_is_left_of_what_is_killed_while_it_loads() {
    let Some(lab) = Lab::lone() else { return };
    for _ in 0..8 {
        let mut wgnat = Wgnat::start(&lab, &["doctor", "--duration", "120s"]);
        let mut held = BTreeSet::new();
        wait_until(PATIENCE, "the first map or program", || {
            held = wgnat.holds();
            !held.is_empty()
        });
        wgnat.end("KILL");
        all_gone(&held, "killed at its start");
    }
}

#[test]
fn system_calls_are_watched_only_while_ports_are_short() {
    let Some(lab) = Lab::pair() else { return };
    let (client, to) = (lab.client(), SocketAddr::new(lab.server_ip(), 8080));
    client.set_port_range(40_000, 40_099);
    // TIME_WAIT counts too, and would keep ports short for a minute.
    client.sysctl("net.ipv4.tcp_max_tw_buckets", 0);
    let _server = TcpServer::start(lab.server(), to, Serve::Echo);
    // Who looks for seconds only has it from the start.
    let doctor = Wgnat::start(&lab, &["doctor", "--duration", "120s"]);
    wait_until(PATIENCE, "doctor to watch system calls", || {
        doctor.watches_system_calls()
    });
    drop(doctor);

    let history = lab.dir().join("history.db");
    let agent = Wgnat::start(&lab, &["agent", "--store", history.to_str().unwrap()]);
    agent.until_it_counts();
    assert!(!agent.watches_system_calls(), "{:?}", agent.descriptors());
    for _ in 0..2 {
        let held = LoadProcess::start(client, "node", None, Work::Hold { to, count: 80 });
        wait_until(PATIENCE, "the agent to watch system calls", || {
            agent.watches_system_calls()
        });
        drop(held);
        wait_until(PATIENCE, "the agent to leave system calls alone", || {
            !agent.watches_system_calls()
        });
    }
}

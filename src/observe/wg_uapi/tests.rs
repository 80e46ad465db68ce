use std::io::{BufRead, Read, Write};
use std::os::unix::net::UnixListener;

use super::*;
use crate::observation::SourceState;
use crate::observe::testing::{in_own_netns, ip, look};

const PEER: &str = "public_key=00dbb17edd4051a5a97fa1dbd104f8f007a51e17a2de81f934222df01d72ba16";

/// A directory of sockets whose listeners live as long as it does.
struct Sockets {
    directory: tempfile::TempDir,
    listeners: Vec<UnixListener>,
}

impl Sockets {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            listeners: Vec::new(),
        }
    }

    fn path(&self, device: &str) -> PathBuf {
        self.directory.path().join(format!("{device}.sock"))
    }

    /// Accepts and never answers: the kernel accepts into the queue by itself.
    fn hung(&mut self, device: &str) {
        self.listeners
            .push(UnixListener::bind(self.path(device)).unwrap());
    }

    /// Answers each connection with `reply` and closes.
    fn answering(&self, device: &str, reply: &str) {
        let listener = UnixListener::bind(self.path(device)).unwrap();
        let reply = reply.to_owned();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut question = [0; 7];
                if connection.read_exact(&mut question).is_ok() {
                    assert_eq!(&question, b"get=1\n\n");
                    let _ = connection.write_all(reply.as_bytes());
                }
            }
        });
    }

    /// A socket file that nobody serves.
    fn dead(&self, device: &str) {
        drop(UnixListener::bind(self.path(device)).unwrap());
    }

    fn observer(&self) -> WgUapi {
        WgUapi::with_directories(vec![self.directory.path().to_owned()])
    }
}

fn devices(observer: &mut WgUapi) -> (Vec<DeviceSnapshot>, SourceStatus) {
    let (bodies, status) = look(observer);
    match bodies.as_slice() {
        [Body::Devices(devices)] => (devices.clone(), status.unwrap()),
        other => panic!("one list of devices, got {other:?}; {status:?}"),
    }
}

fn names(devices: &[DeviceSnapshot]) -> Vec<&str> {
    devices.iter().map(|d| d.name.as_str()).collect()
}

#[test]
fn no_sockets_is_nothing_seen() {
    in_own_netns(|| {
        let mut observer = WgUapi::with_directories(vec!["/nonexistent".into()]);
        assert_eq!(devices(&mut observer), (vec![], SourceStatus::ok()));
    });
}

#[test]
fn a_hung_daemon_costs_nothing_but_itself() {
    in_own_netns(|| {
        for name in ["well", "hung1", "hung2", "cut"] {
            ip(&format!("tuntap add {name} mode tun"));
        }
        let mut sockets = Sockets::new();
        sockets.answering(
            "well",
            &format!("own_public_key={}\n{PEER}\nerrno=0\n\n", "1".repeat(64)),
        );
        sockets.answering("cut", &format!("listen_port=5\n{PEER}\nrx_by"));
        sockets.answering("elsewhere", "errno=0\n\n");
        sockets.hung("hung1");
        sockets.hung("hung2");
        let mut observer = sockets.observer();
        let (seen, status) = devices(&mut observer);
        assert_eq!(names(&seen), ["cut", "hung1", "hung2", "well"]);
        assert_eq!(status.state, SourceState::Degraded);
        let reason = status.reason.unwrap();
        for name in ["hung1.sock", "hung2.sock", "cut.sock"] {
            assert!(reason.contains(name), "{reason}");
        }
        assert!(!reason.contains("well"), "{reason}");
        assert_eq!((seen[0].peers.len(), seen[0].listen_port), (1, Some(5)));
        assert!(
            seen[0].problems.iter().any(|p| p.contains("cut")),
            "{:?}",
            seen[0].problems
        );
        assert!(seen[1].problems[0].contains("hangs"), "{:?}", seen[1].problems);
        assert_eq!(
            (seen[3].implementation, seen[3].peers.len()),
            (Implementation::Boringtun, 1)
        );
        assert_eq!(seen[3].if_index, interface("well"));
        // It is not asked again at once: its queue still holds just the one connection.
        assert!(observer.resting.contains_key(&sockets.path("hung1")));
        let (again, _) = devices(&mut observer);
        assert_eq!(names(&again), names(&seen));
        let waiting = &sockets.listeners[0];
        waiting.set_nonblocking(true).unwrap();
        assert!(waiting.accept().is_ok());
        assert!(waiting.accept().is_err());
    });
}

#[test]
fn a_dead_socket_is_told_and_left_in_place() {
    in_own_netns(|| {
        ip("tuntap add orphan mode tun");
        ip("link add kernel type veth peer name other");
        let sockets = Sockets::new();
        // "kernel" stands for a device that needs no daemon; "gone" has no interface here.
        for device in ["orphan", "kernel", "gone"] {
            sockets.dead(device);
        }
        let (seen, status) = devices(&mut sockets.observer());
        assert_eq!(names(&seen), ["orphan"]);
        assert!(seen[0].problems[0].contains("dead"));
        assert_eq!(status.state, SourceState::Degraded);
        assert!(status.reason.unwrap().contains("orphan.sock"));
        assert!(sockets.path("orphan").exists() && sockets.path("gone").exists());
    });
}

#[test]
fn a_socket_without_an_interface_is_left_over_only_if_nobody_serves_it() {
    let mut sockets = Sockets::new();
    sockets.dead("gone");
    sockets.hung("elsewhere");
    let mut observer = sockets.observer();
    for _ in 0..2 {
        assert!(observer.is_left_over(&sockets.path("gone")));
        assert!(!observer.is_left_over(&sockets.path("elsewhere")));
    }
    // Connected to once, not twice.
    let waiting = &sockets.listeners[0];
    waiting.set_nonblocking(true).unwrap();
    assert!(waiting.accept().is_ok());
    assert!(waiting.accept().is_err());
}

#[test]
fn a_full_queue_is_a_hung_daemon() {
    let mut sockets = Sockets::new();
    sockets.hung("wg0");
    let listener = &sockets.listeners[0];
    nix::sys::socket::listen(listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let path = sockets.path("wg0");
    let held: Vec<_> = (0..4).map(|_| ask::connect_to(&path)).collect();
    assert!(
        held.iter().any(|c| matches!(c, Err(Outcome::Hung))),
        "{:?}",
        held.last()
    );
    assert_eq!(held[0].as_ref().unwrap().pid, Some(std::process::id()));
}

#[test]
fn a_daemon_elsewhere_with_its_own_interface_of_that_name_is_not_ours() {
    let me = Some(std::process::id());
    let main = netns::of_process(std::process::id());
    in_own_netns(|| {
        let here = netns::current();
        // This process's main thread lives elsewhere and has an interface "lo" there.
        assert_eq!(Home::of(me, "lo", here), Home::Elsewhere);
        assert_eq!(Home::of(me, "wg-not-there", here), Home::Unclear);
        assert_eq!(Home::of(me, "lo", main), Home::Here);
        assert_eq!(Home::of(None, "lo", here), Home::Unclear);
    });
}

#[test]
fn ages_do_not_tremble() {
    let mut observer = WgUapi::with_directories(vec![]);
    let at = |millis: u64| Some(Timestamp::from_secs(1_790_000_000) + Span::from_millis(millis));
    let mut last = None;
    for (told, expected) in [
        (at(0), at(0)),
        (at(40), at(0)),
        (at(6000), at(6000)),
        (None, None),
    ] {
        let text = format!("{PEER}\nerrno=0\n\n");
        let mut device = uapi::parse("wg0", text.as_bytes(), Timestamp::EPOCH).device;
        device.peers[0].last_handshake = told;
        observer.steady(std::slice::from_mut(&mut device));
        last = device.peers[0].last_handshake;
        assert_eq!(last, expected);
    }
    assert_eq!(last, None);
    assert!(observer.handshakes.is_empty());
}

#[test]
fn without_permission_it_says_who_is_needed() {
    in_own_netns(|| {
        ip("tuntap add wg0 mode tun");
        let mut sockets = Sockets::new();
        sockets.hung("wg0");
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        // The thread gives up its rights over files, as another user has none.
        let nobody = nix::unistd::Uid::from_raw(65534);
        for (directory, socket) in [(0o700, 0o777), (0o755, 0o600)] {
            mode(sockets.directory.path(), directory);
            mode(&sockets.path("wg0"), socket);
            let root = nix::unistd::setfsuid(nobody);
            let (bodies, status) = look(&mut sockets.observer());
            nix::unistd::setfsuid(root);
            assert_eq!(bodies, []);
            let error = status.unwrap_err().to_string();
            assert!(error.ends_with("not permitted; needs root"), "{error}");
        }
    });
}

#[test]
fn the_same_directory_by_two_ways_counts_once() {
    let sockets = Sockets::new();
    sockets.dead("wg0");
    let link = tempfile::tempdir().unwrap();
    let second = link.path().join("wireguard");
    std::os::unix::fs::symlink(sockets.directory.path(), &second).unwrap();
    let search = Finder::new(vec![sockets.directory.path().to_owned(), second]).search();
    assert_eq!(search.candidates.len(), 1);
    assert_eq!(search.candidates[0].device, "wg0");
}

/// Killed and reaped when dropped.
struct Daemon(std::process::Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_daemon_in_another_mount_namespace_is_found() {
    in_own_netns(|| {
        // It serves its socket in a /run that nobody else sees.
        let script = "mount -t tmpfs none /run && exec wireguard-go -f wgt";
        let child = std::process::Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .env("LOG_LEVEL", "verbose")
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn();
        let mut daemon = Daemon(child.unwrap());
        // Held open, or the daemon would die of its next line (SIGPIPE).
        let mut log = std::io::BufReader::new(daemon.0.stdout.take().unwrap()).lines();
        let ready = log
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("UAPI listener started"));
        assert!(ready, "wireguard-go must start");
        let mut observer = WgUapi::with_directories(vec!["/nonexistent".into()]);
        let (seen, status) = devices(&mut observer);
        assert_eq!(status, SourceStatus::ok());
        assert_eq!(names(&seen), ["wgt"]);
        assert_eq!(seen[0].if_index, interface("wgt"));
        // A device without peers tells nothing in its reply; its process does.
        assert_eq!(seen[0].implementation, Implementation::WireguardGo);
    });
}

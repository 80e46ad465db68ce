//! What an ordinary user sees: this test's own program, started again as `nobody` in the namespace.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use wgnat::observation::{Body, SourceState, SourceStatus};
use wgnat::observe::conntrack::ConntrackObserver;
use wgnat::observe::sockets::SocketObserver;

use crate::namespace::{NewEntry, in_namespace, insert, look};

const NOBODY: u32 = 65_534;
const MARK: &str = "seen by nobody: ";

/// Not a test by itself: what runs as `nobody`.
#[test]
fn child() {
    if std::env::var_os("WGNAT_TEST_AS_NOBODY").is_none() {
        return;
    }
    let all = [
        look(&mut SocketObserver::open().unwrap()),
        look(&mut ConntrackObserver::open().unwrap()),
    ];
    println!("\n{MARK}{}", serde_json::to_string(&all).unwrap());
}

#[test]
fn nobody_sees_sockets_and_conntracks_counters() {
    in_namespace(|| {
        let server = TcpListener::bind("127.0.0.1:8080").unwrap();
        let a = |last| std::net::IpAddr::from([10, 0, 0, last]);
        insert((1..=7).map(|n| NewEntry::masqueraded((a(1), n), (a(2), 80), (a(3), n))));
        // A copy where nobody may read it: the build directory may be private.
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("child");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let out = Command::new(program)
            .args(["--exact", "unprivileged::child", "--nocapture"])
            .env("WGNAT_TEST_AS_NOBODY", "1")
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let line = text.lines().find_map(|l| l.strip_prefix(MARK));
        let line = line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&out.stderr)));
        let all: Vec<(Vec<Body>, SourceStatus)> = serde_json::from_str(line).unwrap();

        let (sockets, status) = &all[0];
        assert!(
            matches!(&sockets[..], [Body::Sockets(t)] if t.tcp.total() == 1),
            "{sockets:?}"
        );
        assert_eq!(status.state, SourceState::Ok);
        let (conntrack, status) = &all[1];
        let [Body::ConntrackStats(stats)] = &conntrack[..] else {
            panic!("{conntrack:?}")
        };
        assert_eq!(
            (stats.count, stats.cpus.iter().map(|c| c.insert).sum::<u32>()),
            (7, 7)
        );
        assert!(stats.max.is_some());
        assert_eq!(status.state, SourceState::Degraded);
        assert!(
            status.reason.as_ref().unwrap().contains("CAP_NET_ADMIN"),
            "{:?}",
            status.reason
        );
        drop(server);
    });
}

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::observation::SourceState;
use crate::observe::testing::{ask, in_own_netns, look};

fn sockets(count: usize) -> Vec<UdpSocket> {
    (0..count)
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect()
}

fn socket_inode(socket: &UdpSocket) -> u32 {
    let file = std::fs::File::from(socket.as_fd().try_clone_to_owned().unwrap());
    u32::try_from(file.metadata().unwrap().ino()).unwrap()
}

fn table(bodies: &[Body]) -> &ProcessTable {
    match bodies {
        [Body::Processes(table)] => table,
        other => panic!("one table, got {other:?}"),
    }
}

#[test]
fn a_process_with_many_sockets_is_reported() {
    let me = std::process::id();
    let held = sockets(80);
    let (bodies, status) = look(&mut Processes::open().unwrap());
    assert_ne!(status.unwrap().state, SourceState::Unavailable);
    let found = table(&bodies).processes.iter().find(|p| p.pid == me).unwrap();
    assert!(found.sockets >= 80 && found.fds >= found.sockets, "{found:?}");
    let exe = std::env::current_exe().unwrap();
    assert_eq!(found.exe.as_deref(), exe.to_str());
    assert!(exe.to_str().unwrap().contains(&found.comm));
    assert!(found.fd_limit.unwrap() >= u64::from(found.fds));
    assert!(found.start_ticks > 0);
    drop(held);
}

#[test]
fn owners_are_found_and_remembered() {
    let me = std::process::id();
    let held = sockets(3);
    let inodes: Vec<u32> = held.iter().map(socket_inode).collect();
    let mut observer = Processes::open().unwrap();
    let nobody = u32::MAX;
    let asked = Request::OwnersOf([inodes.as_slice(), &[nobody]].concat());
    let bodies = ask(&mut observer, &asked).unwrap();
    let owned = |table: &ProcessTable| inodes.iter().all(|inode| table.owners.contains(&(*inode, me)));
    assert!(owned(table(&bodies)), "{bodies:?}");
    assert!(!table(&bodies).owners.iter().any(|(inode, _)| *inode == nobody));
    // Its facts come along although it may hold few sockets, and a later look still tells.
    assert!(table(&bodies).processes.iter().any(|p| p.pid == me));
    let (bodies, _) = look(&mut observer);
    assert!(owned(table(&bodies)));
    assert!(table(&bodies).processes.iter().any(|p| p.pid == me));
    let other = Request::RouteLookup(crate::observation::RouteQuery {
        destination: "192.0.2.1".parse().unwrap(),
        mark: 0,
        purpose: crate::observation::RoutePurpose::Endpoint {
            device: String::new(),
            peer: crate::types::PublicKey([0; 32]),
        },
    });
    assert_eq!(ask(&mut observer, &other).unwrap(), []);
}

#[test]
fn processes_of_other_namespaces_do_not_count() {
    let held = sockets(80);
    let inodes = held.iter().map(socket_inode).collect();
    in_own_netns(|| {
        let mut observer = Processes::open().unwrap();
        let (bodies, status) = look(&mut observer);
        assert_eq!(status.unwrap(), SourceStatus::ok());
        assert_eq!(table(&bodies), &ProcessTable::default());
        let bodies = ask(&mut observer, &Request::OwnersOf(inodes)).unwrap();
        assert_eq!(table(&bodies).owners, []);
    });
}

#[test]
fn what_is_of_interest() {
    let process = |fds, sockets, fd_limit| ProcessFacts {
        pid: 1,
        start_ticks: 1,
        comm: "x".to_owned(),
        exe: None,
        runtime: None,
        fds,
        sockets,
        fd_limit,
    };
    for (fds, sockets, limit, expected) in [
        (100, 63, Some(1024), false),
        (100, 64, Some(1024), true),
        (512, 0, Some(1024), true),
        (511, 0, Some(1024), false),
        (4_000_000, 0, None, false),
    ] {
        let process = process(fds, sockets, limit);
        assert_eq!(of_interest(&process), expected, "{process:?}");
    }
}

#[test]
fn poverty_is_said() {
    assert_eq!(status(0, false, 0, 0), SourceStatus::ok());
    let reason = status(3, false, 2, 1).reason.unwrap();
    for part in ["3 processes", "CAP_SYS_PTRACE", "2 further", "1 processes beyond"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(!status(3, true, 0, 0).reason.unwrap().contains("needs"));
}

#[test]
fn a_namespace_is_told_by_a_file_that_all_may_stat() {
    let main = Processes::open().unwrap();
    assert!(main.here_file.is_some());
    assert_eq!(
        main.here_file,
        inode(&format!("/proc/{}/net/dev", std::process::id()))
    );
    in_own_netns(|| {
        let own = Processes::open().unwrap();
        assert!(own.here_file.is_some());
        assert_ne!(own.here_file, main.here_file);
    });
}

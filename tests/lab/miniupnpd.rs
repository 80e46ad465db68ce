//! A real gateway (miniupnpd, which most home routers run): it speaks NAT-PMP, PCP and UPnP.

use super::wait::wait_until;
use super::{Namespace, SOON};
use std::process::{Child, Stdio};

/// NAT-PMP's and PCP's port (RFC 6886, RFC 6887).
const PORT: u16 = 5351;

/// The daemon; it ends with the handle.
#[derive(Debug)]
pub struct Miniupnpd {
    child: Child,
}

impl Miniupnpd {
    /// Starts it on a router, between these interfaces. What it says its outside is, is the address of `outside`, unless that
    /// is one that nobody can have on the internet: then it names none. It needs no table of its own until a port is mapped.
    #[track_caller]
    pub fn start(router: &Namespace, outside: &str, inside: &str) -> Self {
        let dir = router.dir();
        let config = format!(
            "ext_ifname={outside}\nlistening_ip={inside}\nhttp_port=0\nenable_natpmp=yes\nenable_upnp=yes\nsecure_mode=yes\n\
             uuid=00000000-0000-0000-0000-000000000001\nlease_file={}\nupnp_table_name=lab_upnp\nupnp_nat_table_name=lab_upnp\n\
             deny 0-65535 0.0.0.0/0 0-65535\n",
            dir.join("miniupnpd.leases").display()
        );
        let file = dir.join("miniupnpd.conf");
        std::fs::write(&file, config).expect("the lab's directory is writable");
        let mut command = router.command("miniupnpd");
        command
            .args(["-d", "-4", "-f"])
            .arg(&file)
            .arg("-P")
            .arg(dir.join("miniupnpd.pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .expect("miniupnpd runs (package miniupnpd-nftables)");
        let mut gateway = Self { child };
        wait_until(SOON, "miniupnpd to listen", || {
            let ended = gateway.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "miniupnpd ended at once, with {ended:?}");
            router.run(|| listens(PORT))
        });
        gateway
    }
}

/// Whether somebody has bound this UDP port in the calling thread's namespace.
fn listens(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .any(|local| local.ends_with(&format!(":{port:04X}")))
}

impl Drop for Miniupnpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The host's own facts, once, and the settings that matter, at each look.
//!
//! Needs: nothing. Costs: about 40 small files a look, well under a millisecond. `/proc/sys/net` shows the settings of
//! the network namespace of the thread that reads it (kernel net/sysctl_net.c), so those are the observed ones.

use std::collections::BTreeMap;

use nix::sys::utsname::uname;
use nix::unistd::{SysconfVar, sysconf};

use super::path::plan::name_servers;
use super::{Emit, ObserveError, Observer, sysctl};
use crate::observation::host::{FlyMachine, HostFacts, Sysctls};
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::{caps, clock, netns};
use crate::time::{Span, Timestamp};
use crate::wire::procfs;

/// Further settings, by their dotted names: what decides how long conntrack remembers, whether a socket in TIME_WAIT
/// can be used again, and whether a reply may come in where it does.
const OTHERS: [&str; 28] = [
    "fs.nr_open",
    "net.core.somaxconn",
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.all.src_valid_mark",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv4.fib_multipath_hash_policy",
    "net.ipv4.ip_no_pmtu_disc",
    "net.ipv4.tcp_fwmark_accept",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_timestamps",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.all.forwarding",
    "net.netfilter.nf_conntrack_generic_timeout",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_loose",
    "net.netfilter.nf_conntrack_tcp_timeout_close",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
    "net.netfilter.nf_conntrack_tcp_timeout_fin_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_last_ack",
    "net.netfilter.nf_conntrack_tcp_timeout_syn_recv",
    "net.netfilter.nf_conntrack_tcp_timeout_syn_sent",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_unacknowledged",
    "net.netfilter.nf_conntrack_udp_timeout",
    "net.netfilter.nf_conntrack_udp_timeout_stream",
];

/// The observer.
pub struct Host {
    netns_name: Option<String>,
    told: bool,
}

impl Host {
    /// For the calling thread's network namespace, which `--netns` named `netns_name`.
    pub fn open(netns_name: Option<String>) -> Result<Self, ObserveError> {
        Ok(Self {
            netns_name,
            told: false,
        })
    }
}

impl Observer for Host {
    fn source(&self) -> Source {
        Source::Host
    }

    fn interval(&self) -> Span {
        Span::from_secs(5)
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let (at, began) = (clock::now(), clock::instant());
        if !self.told {
            let facts = facts(self.netns_name.clone())?;
            emit.emit(at, began.elapsed(), Body::Host(facts));
            self.told = true;
        }
        let sysctls = sysctls();
        let status = match sysctls.local_port_range {
            Some(_) => SourceStatus::ok(),
            None => SourceStatus::degraded("the settings under /proc/sys/net cannot be read"),
        };
        emit.emit(at, began.elapsed(), Body::Sysctls(sysctls));
        Ok(status)
    }
}

/// The facts as they are now, without an observer.
pub fn facts(netns_name: Option<String>) -> Result<HostFacts, ObserveError> {
    let system = uname().map_err(|errno| ObserveError::System {
        doing: "asking for the host's name (uname)".to_owned(),
        source: errno.into(),
    })?;
    let boot_at = read("/proc/stat")
        .and_then(|stat| procfs::boot_time(&stat))
        .map(Timestamp::from_secs)
        .or_else(|| Some(clock::now().before(clock::since_boot()?)));
    let servers = name_servers(netns_name.as_deref());
    let cpus = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    Ok(HostFacts {
        hostname: system.nodename().to_string_lossy().into_owned(),
        kernel: system.release().to_string_lossy().into_owned(),
        boot_at,
        netns: netns::current(),
        netns_name,
        cpus: cpus.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
        memory_bytes: read("/proc/meminfo").and_then(|text| procfs::memory_total(&text)),
        fly: this_machine().map(|machine| FlyMachine {
            name_servers: servers.iter().map(std::net::SocketAddr::ip).collect(),
            ..machine
        }),
        capabilities: caps::effective().unwrap_or_default(),
    })
}

/// The Fly machine that this process runs on.
pub fn this_machine() -> Option<FlyMachine> {
    fly_machine(|name| std::env::var(name).ok())
}

/// A machine is Fly's when it has a machine id and an address in Fly's private network (fdaa::/16); the variables
/// alone may be set on any workstation.
fn fly_machine(variable: impl Fn(&str) -> Option<String>) -> Option<FlyMachine> {
    let private: std::net::Ipv6Addr = variable("FLY_PRIVATE_IP")?.parse().ok()?;
    let machine = variable("FLY_MACHINE_ID").filter(|id| !id.is_empty())?;
    (private.segments()[0] == 0xfdaa).then(|| FlyMachine {
        app: variable("FLY_APP_NAME").unwrap_or_default(),
        region: variable("FLY_REGION").unwrap_or_default(),
        machine,
        group: variable("FLY_PROCESS_GROUP").filter(|group| !group.is_empty()),
        private: Some(private),
        public: variable("FLY_PUBLIC_IP").and_then(|ip| ip.parse().ok()),
        name_servers: Vec::new(),
    })
}

fn sysctls() -> Sysctls {
    let mut others = BTreeMap::new();
    for name in OTHERS {
        if let Some(value) = sysctl::number(name) {
            others.insert(name.to_owned(), value);
        }
    }
    Sysctls {
        local_port_range: sysctl::local_port_range(),
        reserved_ports: sysctl::reserved_ports().unwrap_or_default(),
        tcp_tw_reuse: sysctl::number("net.ipv4.tcp_tw_reuse"),
        tcp_tw_reuse_delay: sysctl::number("net.ipv4.tcp_tw_reuse_delay"),
        tcp_fin_timeout: sysctl::number("net.ipv4.tcp_fin_timeout"),
        tcp_max_tw_buckets: sysctl::number("net.ipv4.tcp_max_tw_buckets"),
        ip_forward: sysctl::number::<u32>("net.ipv4.ip_forward").map(|n| n != 0),
        conntrack_max: sysctl::number("net.netfilter.nf_conntrack_max"),
        conntrack_buckets: sysctl::number("net.netfilter.nf_conntrack_buckets"),
        others,
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::testing::{in_own_netns, look};
    use crate::types::PortRange;

    #[test]
    fn facts_once_and_settings_each_time() {
        in_own_netns(|| {
            let mut observer = Host::open(Some("blue".to_owned())).unwrap();
            let (bodies, status) = look(&mut observer);
            assert_eq!(status.unwrap(), SourceStatus::ok());
            let [Body::Host(facts), Body::Sysctls(_)] = bodies.as_slice() else {
                panic!("facts and settings, got {bodies:?}")
            };
            assert!(!facts.hostname.is_empty() && !facts.kernel.is_empty() && facts.cpus > 0);
            assert!(facts.boot_at.unwrap() < clock::now());
            assert!(facts.memory_bytes.unwrap() > 1 << 20);
            assert_eq!(facts.netns, netns::current());
            assert_eq!(facts.netns_name.as_deref(), Some("blue"));
            let (bodies, _) = look(&mut observer);
            assert!(matches!(bodies.as_slice(), [Body::Sysctls(_)]));
        });
    }

    #[test]
    fn settings_are_those_of_the_thread_s_own_namespace() {
        let outside = sysctls();
        in_own_netns(|| {
            // Written by this thread, so into its own namespace only.
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20099").unwrap();
            std::fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", "20010-20012").unwrap();
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
            let inside = sysctls();
            let range = |low, high| PortRange { low, high };
            assert_eq!(inside.local_port_range, Some(range(20000, 20099)));
            assert_eq!(inside.reserved_ports, [range(20010, 20012)]);
            assert_eq!(inside.others.get("net.ipv4.conf.all.rp_filter"), Some(&1));
            assert!(inside.tcp_tw_reuse.is_some() && inside.ip_forward.is_some());
        });
        assert_eq!(sysctls().local_port_range, outside.local_port_range);
        assert_ne!(outside.local_port_range.map(|r| r.low), Some(20000));
    }

    #[test]
    fn what_this_kernel_lacks_is_none() {
        assert_eq!(sysctl::number::<i64>("net.ipv4.no_such_setting"), None);
        assert!(!sysctls().others.keys().any(|name| name.contains("no_such")));
    }

    #[test]
    fn a_fly_machine() {
        let with = |private: &'static str, id: &'static str| {
            fly_machine(move |name| {
                let value = match name {
                    "FLY_PRIVATE_IP" => private,
                    "FLY_MACHINE_ID" => id,
                    "FLY_APP_NAME" => "web",
                    "FLY_REGION" => "ams",
                    "FLY_PUBLIC_IP" => "2001:db8::9",
                    "FLY_PROCESS_GROUP" => "",
                    _ => return None,
                };
                Some(value.to_owned())
            })
        };
        let machine = with("fdaa:0:18:a7b:d6b:0:a:2", "3d8d").unwrap();
        assert_eq!(
            (
                machine.app.as_str(),
                machine.region.as_str(),
                machine.machine.as_str()
            ),
            ("web", "ams", "3d8d")
        );
        assert_eq!(machine.private, "fdaa:0:18:a7b:d6b:0:a:2".parse().ok());
        assert_eq!(machine.public, "2001:db8::9".parse().ok());
        assert_eq!(machine.group, None);
        assert_eq!(with("2001:db8::1", "3d8d"), None);
        assert_eq!(with("fdaa::1", ""), None);
        assert_eq!(fly_machine(|_| None), None);
    }
}

//! What each observer needs, by name.

use super::Role;
use crate::observation::Source;

/// The capabilities that `source` uses. Another user than root needs those too that go past files' owners.
pub const fn capabilities(source: Source, other_user: bool, bpf: bool) -> &'static [&'static str] {
    match source {
        // Its program, and who the processes are that it counts.
        Source::Bpf => &["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"],
        // Tables by a program, where dumps are dear.
        Source::Sockets if bpf => &["CAP_BPF", "CAP_PERFMON"],
        // Dumps of devices, of the conntrack table and of rules are for administrators of the network namespace.
        Source::WireguardNetlink | Source::Conntrack | Source::NatRules => &["CAP_NET_ADMIN"],
        // Where `kernel.dmesg_restrict` is set.
        Source::KernelLog => &["CAP_SYSLOG"],
        // A packet socket; ICMP echo, where ping sockets are not allowed.
        Source::Capture | Source::Paths => &["CAP_NET_RAW"],
        // Other users' descriptors and namespaces under /proc.
        Source::Processes => &["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"],
        // Sockets that belong to root, in directories that may be another container's.
        Source::WireguardUapi if other_user => &["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"],
        Source::WireguardUapi => &["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"],
        _ => &[],
    }
}

/// Whether a thread looks into other processes under `/proc`, which Landlock refuses to whoever it confines (it lets
/// nobody trace what is less confined, and these look-ups count as tracing).
pub const fn looks_into_processes(role: Role) -> bool {
    matches!(
        role,
        Role::Observer(Source::Processes | Source::WireguardUapi | Source::Bpf)
    )
}

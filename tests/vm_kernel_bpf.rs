//! The eBPF programs in the kernels of Debian's last releases: what they are compiled against is this machine's kernel only in
//! its types, and helpers, map flags and what a verifier admits are those of the kernel that loads them.
//!
//! One boot of a virtual machine (tests/vm) for each kernel. In it real programs fail to connect, and doctor must name them.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod lab;
mod truth;
mod vm;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use truth::Verdict;

/// A quiet machine takes a fifth of it.
const LIMIT: Duration = Duration::from_secs(280);

const MODULES: &[&str] = &["tcp_diag", "udp_diag", "dummy"];

/// Every check, by its name.
const CHECKS: &[vm::Check<Guest>] = &[
    ("connects that are refused", refused),
    ("no TCP port", no_tcp_port),
    ("the plain tracepoint", the_plain_tracepoint),
    ("no UDP port", no_udp_port),
    ("nobody answers", nobody_answers),
    ("iterators", iterators),
];

/// Bookworm's.
#[test]
fn counted_in_linux_6_1() {
    counted_in("6.1", "bookworm");
}

/// Trixie's.
#[test]
fn counted_in_linux_6_12() {
    counted_in("6.12", "trixie");
}

/// Bullseye's: no pointers that a program may follow to a task (Linux 5.11), and maps count as locked memory.
#[test]
fn counted_in_linux_5_10() {
    counted_in("5.10", "bullseye");
}

fn counted_in(name: &'static str, suite: &'static str) {
    if !vm::wanted() {
        return;
    }
    let guest = Guest::boot(vm::Kernel { name, suite });
    guest.results.assert_script_ended_well();
    let is = guest.results.text("kernel");
    assert!(
        is.starts_with(&format!("{name}.")),
        "the guest ran {is}, not {name}"
    );
    vm::all_pass(&guest, CHECKS);
}

/// A guest that has run.
struct Guest {
    results: vm::Results,
}

impl Guest {
    #[track_caller]
    fn boot(kernel: vm::Kernel) -> Self {
        let cache = vm::Cache::ready().with(kernel);
        let mut files = vm::Initramfs::new(&cache);
        files.content("test", 0o755, include_bytes!("vm/bpf-cases"));
        files.content("client", 0o644, include_bytes!("vm/bpf-client"));
        files.modules(&cache, MODULES);
        files.program("wgnat", Path::new(env!("CARGO_BIN_EXE_wgnat")));
        files.installed("ip", "iproute2");
        // Under a name that doctor must find.
        files.program("client", Path::new("/bin/bash"));
        Self {
            results: vm::run(&cache, &files.finish(), LIMIT),
        }
    }

    /// What doctor said of a case.
    #[track_caller]
    fn verdict(&self, case: &str) -> Verdict {
        Verdict::read(case, &self.results.output(case), Duration::ZERO)
    }

    /// The id of a client.
    #[track_caller]
    fn pid(&self, name: &str) -> u64 {
        let text = self.results.text(&format!("{name}.pid"));
        text.trim().parse().expect("the script writes a number")
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Nothing is missing: every program was admitted.
#[track_caller]
fn counts_everything(verdict: &Verdict) {
    let row = verdict.collector("bpf");
    assert_eq!(row["state"], "ok", "{}", verdict.everything());
    assert!(row["reason"].is_null(), "{row}");
}

fn refused(guest: &Guest) {
    let verdict = guest.verdict("refused");
    counts_everything(&verdict);
    verdict
        .says_only(&["connect-refused"])
        .is("warning", "certain")
        .about_destination("tcp", at("127.0.0.1:9"))
        .field("/subject/process/comm", "client")
        .field("/subject/process/pid", guest.pid("refused"))
        .field("/subject/process/exe", "/bin/client")
        .measures("errno_econnrefused", 3.0..);
}

fn no_tcp_port(guest: &Guest) {
    let verdict = guest.verdict("ports");
    counts_everything(&verdict);
    out_of_tcp_ports(guest, &verdict);
}

fn out_of_tcp_ports(guest: &Guest, verdict: &Verdict) {
    verdict
        .says_only(&["ports-exhausted"])
        .is("critical", "certain")
        .about_destination("tcp", at("127.0.0.1:8080"))
        .field("/subject/process/comm", "client")
        .field("/subject/process/pid", guest.pid("ports"))
        .evidence("in_use", 5)
        .measures("errno_eaddrnotavail", 2.0..);
}

fn the_plain_tracepoint(guest: &Guest) {
    let verdict = guest.verdict("plain");
    let row = verdict.collector("bpf");
    assert_eq!(row["state"], "degraded", "{}", verdict.everything());
    let reason = row["reason"].as_str().unwrap_or_default();
    for word in ["/sys/kernel/btf/vmlinux", "plain tracepoint"] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
    out_of_tcp_ports(guest, &verdict);
}

/// By the program where system calls return.
fn no_udp_port(guest: &Guest) {
    let verdict = guest.verdict("datagrams");
    counts_everything(&verdict);
    verdict
        .says_only(&["ports-exhausted"])
        .is("critical", "certain")
        .about_destination("udp", at("127.0.0.1:53"))
        .field("/subject/process/pid", guest.pid("datagrams"))
        .evidence("failed_call", "connect")
        .measures("errno_eagain", 2.0..);
}

/// By the program where segments are sent again.
fn nobody_answers(guest: &Guest) {
    let verdict = guest.verdict("silent");
    counts_everything(&verdict);
    let finding = verdict.says_only(&["connect-timeout"]);
    finding
        .is("warning", "likely")
        .about_destination("tcp", at("10.77.0.2:80"))
        .field("/subject/process/comm", "client")
        .evidence("waiting", 4)
        .measures("syn_retransmits", 4.0..);
    let pid = finding.value["subject"]["process"]["pid"].as_u64();
    let clients: Vec<_> = (1..=4).map(|n| Some(guest.pid(&format!("silent{n}")))).collect();
    assert!(clients.contains(&pid), "{pid:?} is none of {clients:?}");
}

/// A dump costs so much in an emulated processor that the iterators are loaded.
fn iterators(guest: &Guest) {
    let verdict = guest.verdict("many");
    verdict.nothing_wrong();
    counts_everything(&verdict);
    let reason = &verdict.collector("sockets")["reason"];
    assert_eq!(*reason, "by eBPF iterators", "{}", verdict.everything());
    let rows = verdict.report["sockets"]["destinations"].as_array();
    let row = rows.into_iter().flatten().find(|row| row["port"] == 53);
    let row = row.unwrap_or_else(|| panic!("no row of the destination.\n{}", verdict.everything()));
    assert_eq!(row["in_use"], 1200, "{row}");
}

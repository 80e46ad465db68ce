//! A namespace's connection tracking: its counters, its table, and forgetting.

use super::{Namespace, exec};

/// What `conntrack -S` counts, summed over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtStats {
    /// Tuples found taken while looking for a free one.
    pub found: u64,
    /// Entries that could not be inserted.
    pub insert_failed: u64,
    /// Packets dropped.
    pub drop: u64,
    /// Unassured entries thrown out for new ones.
    pub early_drop: u64,
}

impl Namespace {
    /// Makes this host track connections, which a host without NAT does only where a rule asks for it.
    #[track_caller]
    pub fn track_connections(&self) {
        let chain = |hook| {
            format!("chain at_{hook} {{ type filter hook {hook} priority filter; ct state new counter; }}\n")
        };
        self.nft(&format!(
            "table inet lab_track {{\n{}{}}}\n",
            chain("input"),
            chain("output")
        ));
    }

    /// How many entries the table has.
    #[track_caller]
    pub fn conntrack_count(&self) -> u64 {
        self.read_sysctl("net.netfilter.nf_conntrack_count")
            .parse()
            .expect("the kernel prints a number")
    }

    /// How many entries it may have: the machine's value, which a namespace cannot set.
    #[track_caller]
    pub fn conntrack_max(&self) -> u64 {
        self.read_sysctl("net.netfilter.nf_conntrack_max")
            .parse()
            .expect("the kernel prints a number")
    }

    /// The counters now.
    #[track_caller]
    pub fn conntrack_stats(&self) -> CtStats {
        let text = self.conntrack(&["-S"]);
        let sum = |name: &str| {
            let values = text.split_whitespace().filter_map(|word| word.split_once('='));
            values
                .filter(|(key, _)| *key == name)
                .filter_map(|(_, value)| value.parse::<u64>().ok())
                .sum()
        };
        CtStats {
            found: sum("found"),
            insert_failed: sum("insert_failed"),
            drop: sum("drop"),
            early_drop: sum("early_drop"),
        }
    }

    /// Forgets all entries, as a NAT does that restarts.
    #[track_caller]
    pub fn conntrack_flush(&self) {
        self.conntrack(&["-F"]);
    }

    /// Forgets the entries that match, for example `["-p", "udp"]`; returns how many there were.
    #[track_caller]
    pub fn conntrack_forget(&self, what: &[&str]) -> u64 {
        let mut command = self.command("conntrack");
        command.arg("-D").args(what);
        // It exits with 1 when nothing matched, and says the count on standard error.
        let out = exec::output(command);
        let count = out.stderr.split_whitespace().find_map(|word| word.parse().ok());
        count.unwrap_or_else(|| {
            panic!(
                "conntrack -D {what:?} failed with code {}: {}",
                out.code, out.stderr
            )
        })
    }

    /// Runs `conntrack` with these arguments.
    #[track_caller]
    pub fn conntrack(&self, args: &[&str]) -> String {
        let mut command = self.command("conntrack");
        command.args(args);
        exec::run(command)
    }
}

//! The kernel's own counters in a namespace.

use super::Namespace;

impl Namespace {
    /// A counter of /proc/net/snmp or /proc/net/netstat, for example `("Ip", "OutNoRoutes")`. Panics if there is none.
    #[track_caller]
    pub fn counter(&self, group: &str, name: &str) -> u64 {
        let text = self.proc_net("snmp") + &self.proc_net("netstat");
        lookup(&text, group, name).unwrap_or_else(|| panic!("the kernel has no counter {group} {name}"))
    }

    /// A value of /proc/net/sockstat, for example `("TCP", "tw")`.
    #[track_caller]
    pub fn sockstat(&self, group: &str, name: &str) -> u64 {
        let text = self.proc_net("sockstat");
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(group)?.strip_prefix(':'));
        let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
        let value = words
            .chunks(2)
            .find(|pair| pair[0] == name)
            .and_then(|pair| pair.get(1)?.parse().ok());
        value.unwrap_or_else(|| panic!("the kernel has no sockstat {group} {name}"))
    }
}

/// Lines come in pairs: names, then values, both after the group's name.
fn lookup(text: &str, group: &str, name: &str) -> Option<u64> {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .filter_map(|l| l.split_once(':').filter(|(g, _)| *g == group))
        .map(|(_, rest)| rest.split_whitespace().collect())
        .collect();
    lines.chunks(2).find_map(|pair| {
        let index = pair[0].iter().position(|n| *n == name)?;
        // Some counters are signed; none that a test asks for is negative.
        pair.get(1)?.get(index)?.parse().ok()
    })
}

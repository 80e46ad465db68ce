//! Effective capabilities, read from `/proc/thread-self/status`.

/// The capabilities that wgnat can use, with their numbers (include/uapi/linux/capability.h).
const KNOWN: &[(&str, u32)] = &[
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYSLOG", 34),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// The names of those known capabilities that the calling thread has; `None` where `/proc` is not readable.
pub fn effective() -> Option<Vec<String>> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    parse(&status)
}

fn parse(status: &str) -> Option<Vec<String>> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    let bits = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(
        KNOWN
            .iter()
            .filter(|(_, n)| bits >> n & 1 == 1)
            .map(|(name, _)| (*name).to_owned())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_the_effective_set() {
        let net = Some(vec!["CAP_NET_ADMIN".to_owned(), "CAP_NET_RAW".to_owned()]);
        assert_eq!(parse("Name:\tx\nCapEff:\t0000000000003000\nCapBnd:\t0\n"), net);
        assert_eq!(parse("CapEff:\t0000000000000000\n"), Some(vec![]));
        assert_eq!(parse("CapEff:\tzz\n"), None);
    }
}

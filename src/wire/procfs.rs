//! Small texts from `/proc` and `/proc/sys` (proc(5)): each parser takes the text and gives the one thing wanted.

use crate::types::PortRange;

/// As many as 65,536 ports can make, every other one reserved.
const MAX_RANGES: usize = 32_768;

/// `btime` of `/proc/stat`: seconds since the Unix epoch when the host booted.
pub fn boot_time(stat: &str) -> Option<i64> {
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))
        .and_then(|seconds| seconds.trim().parse().ok())
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
pub fn memory_total(meminfo: &str) -> Option<u64> {
    let value = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?
        .trim()
        .strip_suffix("kB")?;
    value.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Two ports with white space between (`ip_local_port_range`).
pub fn port_range(text: &str) -> Option<PortRange> {
    let mut ports = text.split_ascii_whitespace().map(str::parse);
    match (ports.next(), ports.next(), ports.next()) {
        (Some(Ok(low)), Some(Ok(high)), None) => Some(PortRange { low, high }),
        _ => None,
    }
}

/// Ports and ranges of ports with commas between (`ip_local_reserved_ports`). `None` where a part is no port.
pub fn port_list(text: &str) -> Option<Vec<PortRange>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some(PortRange {
            low: low.trim().parse().ok()?,
            high: high.trim().parse().ok()?,
        })
    };
    text.split(',').take(MAX_RANGES).map(range).collect()
}

/// `Max open files` of `/proc/PID/limits`: the soft limit; `None` where it is unlimited.
pub fn open_files_limit(limits: &str) -> Option<u64> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

/// `FDSize` of `/proc/PID/status`: how many descriptor numbers the process's table has room for.
pub fn descriptor_table_size(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("FDSize:"))?;
    line.trim().parse().ok()
}

/// What is wanted of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// Clock ticks since boot when it started (field 22).
    pub start_ticks: u64,
    /// It is the kernel's own (`PF_KTHREAD` in field 9, include/linux/sched.h).
    pub kernel_thread: bool,
}

/// Reads `/proc/PID/stat`. The name in it may hold anything, even parentheses, so it ends at the last one.
pub fn process_stat(stat: &str) -> Option<ProcessStat> {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let (_, rest) = stat.rsplit_once(')')?;
    // The first field after the name is field 3.
    let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3)?.parse::<u64>().ok();
    Some(ProcessStat {
        start_ticks: field(22)?,
        kernel_thread: field(9)? & PF_KTHREAD != 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host() {
        assert_eq!(
            boot_time("cpu  1 2\nbtime 1790000000\nprocesses 3\n"),
            Some(1_790_000_000)
        );
        assert_eq!(boot_time("cpu 1\n"), None);
        assert_eq!(
            memory_total("MemTotal:       24576 kB\nMemFree: 1 kB\n"),
            Some(24576 * 1024)
        );
        assert_eq!(memory_total("MemTotal: x kB\n"), None);
        assert_eq!(memory_total("MemTotal: 18446744073709551615 kB\n"), None);
    }

    #[test]
    fn ports() {
        assert_eq!(port_range("32768\t60999\n"), Some(PortRange::LINUX_DEFAULT));
        for wrong in ["", "1", "1 2 3", "1 70000", "a b"] {
            assert_eq!(port_range(wrong), None, "{wrong:?}");
        }
        let range = |low, high| PortRange { low, high };
        for (text, expected) in [
            ("\n", Some(vec![])),
            (
                "8080,9148-9150\n",
                Some(vec![range(8080, 8080), range(9148, 9150)]),
            ),
            ("8080,x\n", None),
        ] {
            assert_eq!(port_list(text), expected, "{text:?}");
        }
        assert_eq!(port_list(&"1,".repeat(40_000)).map(|l| l.len()), Some(MAX_RANGES));
    }

    #[test]
    fn processes() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             96000                96000                processes \n\
                      Max open files            1024                 20000                files     \n";
        assert_eq!(open_files_limit(limits), Some(1024));
        assert_eq!(
            open_files_limit("Max open files            unlimited unlimited files\n"),
            None
        );
        assert_eq!(
            descriptor_table_size("Name:\tx\nFDSize:\t256\nGroups:\n"),
            Some(256)
        );
        assert_eq!(descriptor_table_size("Name:\tx\n"), None);
        let stat = "1234 (a) b ((x)) S 1 1234 1234 0 -1 4194560 1 0 0 0 10 5 0 0 20 0 1 0 987654 1000 20 18446744073709551615";
        let expected = ProcessStat {
            start_ticks: 987_654,
            kernel_thread: false,
        };
        assert_eq!(process_stat(stat), Some(expected));
        let kernel = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0";
        assert_eq!(process_stat(kernel).map(|s| s.kernel_thread), Some(true));
        assert_eq!(process_stat("2 (short) S 1"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,200}") {
            boot_time(&text);
            memory_total(&text);
            port_range(&text);
            port_list(&text);
            open_files_limit(&text);
            process_stat(&text);
            descriptor_table_size(&text);
        }
    }
}

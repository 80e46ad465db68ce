//! `/proc/net/stat/nf_conntrack`: conntrack's counters for those who may not ask ctnetlink.
//!
//! In: the file's text: a line of column names, then one line of hexadecimal numbers per CPU. Out: the same counters
//! as `IPCTNL_MSG_CT_GET_STATS_CPU` gives. Columns are found by name: kernels have added some.

use super::netlink::conntrack::CpuStats;

/// More CPUs than any machine has; lines beyond are ignored.
const MAX_CPUS: usize = 8192;

/// Entries in the namespace (each line repeats it) and the counters of each CPU; `None` where the text is not that
/// file.
pub fn parse(text: &str) -> Option<(u32, Vec<CpuStats>)> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next()?.split_whitespace().collect();
    let mut entries = None;
    let mut cpus = Vec::new();
    for line in lines.take(MAX_CPUS) {
        let mut cpu = CpuStats::default();
        for (name, digits) in names.iter().zip(line.split_whitespace()) {
            let value = u32::from_str_radix(digits, 16).ok()?;
            let counter = match *name {
                "entries" => {
                    entries = Some(value);
                    continue;
                }
                "found" => &mut cpu.found,
                "invalid" => &mut cpu.invalid,
                "insert" => &mut cpu.insert,
                "insert_failed" => &mut cpu.insert_failed,
                "drop" => &mut cpu.drop,
                "early_drop" => &mut cpu.early_drop,
                "icmp_error" => &mut cpu.error,
                "search_restart" => &mut cpu.search_restart,
                // Two columns have other names than their attributes (nf_conntrack_standalone.c, ct_cpu_seq_show).
                "clashres" | "clash_resolve" => &mut cpu.clash_resolve,
                "chainlength" | "chaintoolong" => &mut cpu.chain_toolong,
                _ => continue,
            };
            *counter = value;
        }
        cpus.push(cpu);
    }
    Some((entries?, cpus))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop \
early_drop icmp_error  expect_new expect_create expect_delete search_restart
0000001f  00000001 000000f8 00000000 00000002 00000000 00000000 00000003 00000004 00000005 00000006 00000007 00000008  \
00000000 00000000 00000000 00000009
0000001f  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 ffffffff 00000000 00000000  \
00000000 00000000 00000000 00000000
";

    #[test]
    fn columns_by_name() {
        let (entries, cpus) = parse(TEXT).unwrap();
        assert_eq!((entries, cpus.len()), (31, 2));
        let first = CpuStats {
            found: 248,
            invalid: 2,
            insert: 4,
            insert_failed: 5,
            drop: 6,
            early_drop: 7,
            error: 8,
            search_restart: 9,
            clash_resolve: 1,
            chain_toolong: 3,
        };
        assert_eq!(cpus[0], first);
        assert_eq!(cpus[1].drop, u32::MAX);
    }

    #[test]
    fn what_is_not_that_file_is_refused() {
        for text in [
            "",
            "entries\n",
            "a b\n1 2\n",
            "entries\nxyz\n",
            "entries\n100000000\n",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}

//! Protocol counters: `/proc/net/snmp`, `netstat` and `snmp6`.
//!
//! In: the files' text. Out: counters by `Group.Name`, the kernel's own names (net/ipv4/proc.c, net/ipv6/proc.c).
//! Values that are settings or levels, not counts, are left out, as are negative ones and lines that do not fit.
//! Bound: 2,048 counters.

use std::collections::BTreeMap;

const MAX_COUNTERS: usize = 2048;

/// What looks like a counter and is a setting or a level (RFC 4293, RFC 4022).
const NOT_COUNTS: [&str; 7] = [
    "Ip.Forwarding",
    "Ip.DefaultTTL",
    "Tcp.RtoAlgorithm",
    "Tcp.RtoMin",
    "Tcp.RtoMax",
    "Tcp.MaxConn",
    "Tcp.CurrEstab",
];

/// Groups of `snmp6`, whose file joins group and name. The longer of two that begin alike comes first.
const GROUPS_6: [&str; 4] = ["UdpLite6", "Udp6", "Icmp6", "Ip6"];

/// Reads `snmp` or `netstat`: pairs of lines, names and values, both after `Group:`. Adds to `counters`; returns how
/// many did not fit.
pub fn parse_pairs(text: &str, counters: &mut BTreeMap<String, u64>) -> u64 {
    let mut left_out = 0;
    let mut header: Option<(&str, &str)> = None;
    for line in text.lines() {
        let Some((group, rest)) = line.split_once(':') else {
            continue;
        };
        match header.take() {
            Some((same, names)) if same == group => {
                let values = rest.split_ascii_whitespace();
                for (name, value) in names.split_ascii_whitespace().zip(values) {
                    left_out += add(counters, group, name, value);
                }
            }
            _ => header = Some((group, rest)),
        }
    }
    left_out
}

/// Reads `snmp6`: a name and a value a line. Adds to `counters`; returns how many did not fit.
pub fn parse_lines(text: &str, counters: &mut BTreeMap<String, u64>) -> u64 {
    let mut left_out = 0;
    for line in text.lines() {
        let Some((joined, value)) = line.split_once(|c: char| c.is_ascii_whitespace()) else {
            continue;
        };
        let split = GROUPS_6
            .iter()
            .find_map(|group| joined.strip_prefix(group).map(|name| (*group, name)));
        if let Some((group, name)) = split {
            left_out += add(counters, group, name, value.trim());
        }
    }
    left_out
}

fn add(counters: &mut BTreeMap<String, u64>, group: &str, name: &str, value: &str) -> u64 {
    let Ok(value) = value.parse::<u64>() else { return 0 };
    let name = format!("{group}.{name}");
    if NOT_COUNTS.contains(&name.as_str()) {
        return 0;
    }
    if counters.len() >= MAX_COUNTERS && !counters.contains_key(&name) {
        return 1;
    }
    counters.insert(name, value);
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SNMP: &str = "\
Ip: Forwarding DefaultTTL InReceives OutNoRoutes
Ip: 2 64 9614 7
Tcp: RtoAlgorithm MaxConn ActiveOpens CurrEstab RetransSegs
Tcp: 1 -1 96 3 5
";

    fn pairs(text: &str) -> BTreeMap<String, u64> {
        let mut counters = BTreeMap::new();
        parse_pairs(text, &mut counters);
        counters
    }

    #[test]
    fn pairs_of_lines() {
        let expected = [
            ("Ip.InReceives", 9614),
            ("Ip.OutNoRoutes", 7),
            ("Tcp.ActiveOpens", 96),
            ("Tcp.RetransSegs", 5),
        ];
        assert_eq!(
            pairs(SNMP),
            expected.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
        );
    }

    #[test]
    fn what_does_not_fit_is_passed_over() {
        for (text, expected) in [
            ("", 0),
            ("Ip: A B\n", 0),
            ("Ip: A B\nTcp: 1 2\n", 0),
            ("Ip: A B\nIp: 1\n", 1),
            ("Ip: A B\nIp: x 18446744073709551615\n", 1),
            ("Ip A\nIp 1\nUdp: A\nUdp: 1\n", 1),
            ("Odd: A\nUdp: A\nUdp: 1\n", 1),
            ("Ip: A\nIp: 18446744073709551616\n", 0),
        ] {
            assert_eq!(pairs(text).len(), expected, "{text:?}");
        }
    }

    #[test]
    fn joined_names() {
        let mut counters = BTreeMap::new();
        let text = "Ip6InReceives  \t1\nUdp6NoPorts 2\nUdpLite6NoPorts\t3\nIcmp6InType134 4\nOther 5\nIp6OutNoRoutes -1\nIp6\n";
        assert_eq!(parse_lines(text, &mut counters), 0);
        let names: Vec<&str> = counters.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "Icmp6.InType134",
                "Ip6.InReceives",
                "Udp6.NoPorts",
                "UdpLite6.NoPorts"
            ]
        );
    }

    #[test]
    fn the_bound_is_counted() {
        let names: Vec<String> = (0..MAX_COUNTERS + 3).map(|i| format!("N{i}")).collect();
        let text = format!("G: {}\nG: {}\n", names.join(" "), "1 ".repeat(names.len()));
        let mut counters = BTreeMap::new();
        assert_eq!(parse_pairs(&text, &mut counters), 3);
        assert_eq!(counters.len(), MAX_COUNTERS);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,40}(:? ?[A-Z0-9\n:]{0,20}){0,20}") {
            let mut counters = BTreeMap::new();
            parse_pairs(&text, &mut counters);
            parse_lines(&text, &mut counters);
        }
    }
}

//! Reads settings of the calling thread's network namespace from `/proc/sys/net`.
//!
//! The kernel resolves `/proc/sys/net` by the reading thread's namespace (net/sysctl_net.c), so nothing else is
//! needed for `--netns`.

use std::path::Path;

use crate::types::PortRange;

/// The number in `/proc/sys/net/NAME`; `None` where there is none or it is not readable.
pub fn number(name: &str) -> Option<u32> {
    text(name)?.trim().parse().ok()
}

/// `net.ipv4.ip_local_port_range`.
pub fn local_port_range() -> Option<PortRange> {
    parse_local_port_range(&text("ipv4/ip_local_port_range")?)
}

/// `net.ipv4.ip_local_reserved_ports`.
pub fn reserved_ports() -> Option<Vec<PortRange>> {
    parse_port_list(&text("ipv4/ip_local_reserved_ports")?)
}

fn text(name: &str) -> Option<String> {
    std::fs::read_to_string(Path::new("/proc/sys/net").join(name)).ok()
}

/// Two numbers, lowest and highest, with white space between.
fn parse_local_port_range(text: &str) -> Option<PortRange> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(low)), Some(Ok(high)), None) => Some(PortRange { low, high }),
        _ => None,
    }
}

/// Ports and ranges with commas between (`proc_do_large_bitmap`): `22,8080-8090`. Empty is none.
fn parse_port_list(text: &str) -> Option<Vec<PortRange>> {
    let parts = text.trim().split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            Some(PortRange {
                low: low.parse().ok()?,
                high: high.parse().ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_as_the_kernel_writes_them() {
        assert_eq!(
            parse_local_port_range("32768\t60999\n"),
            Some(PortRange::LINUX_DEFAULT)
        );
        for wrong in ["", "1", "1 2 3", "1 65536", "a b"] {
            assert_eq!(parse_local_port_range(wrong), None, "{wrong:?}");
        }
        let range = |low, high| PortRange { low, high };
        assert_eq!(parse_port_list("\n"), Some(vec![]));
        assert_eq!(
            parse_port_list("22,8080-8090\n"),
            Some(vec![range(22, 22), range(8080, 8090)])
        );
        assert_eq!(parse_port_list("22,x\n"), None);
    }
}

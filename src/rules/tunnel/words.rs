//! Words and commands that several rules of this area share. Pure text.

use crate::observation::host::HostFacts;
use crate::time::Span;

/// A length of time as people say it: two units at most.
pub fn time(span: Span) -> String {
    let secs = span.as_secs();
    let two = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {unit}"),
        _ => format!("{big} {unit} {small} {small_unit}"),
    };
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7_199 => two(secs / 60, "min", secs % 60, "s"),
        7_200..=172_799 => two(secs / 3_600, "h", secs % 3_600 / 60, "min"),
        _ => two(secs / 86_400, "days", secs % 86_400 / 3_600, "h"),
    }
}

/// `1 attempt`, `3 attempts`.
pub fn count(n: u64, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
    }
}

/// A command for the observed namespace: as it is, or through the namespace that `--netns` named.
pub fn here(host: Option<&HostFacts>, command: &str) -> String {
    match host.and_then(|h| h.netns_name.as_deref()) {
        None => command.to_owned(),
        Some(pid) if pid.bytes().all(|b| b.is_ascii_digit()) => format!("nsenter -t {pid} -n {command}"),
        Some(path) if path.contains('/') => format!("nsenter --net={} {command}", quote(path)),
        Some(name) => format!("ip netns exec {} {command}", quote(name)),
    }
}

/// `text` so that a shell takes it as one word. Interface names may hold anything but a slash and white space.
pub fn quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._:@%+=-".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (secs, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (185, "3 min 5 s"),
            (7_260, "2 h 1 min"),
            (200_000, "2 days 7 h"),
        ] {
            assert_eq!(time(Span::from_secs(secs)), text);
        }
    }

    #[test]
    fn commands_go_to_the_namespace() {
        let host = |name: &str| HostFacts {
            hostname: String::new(),
            kernel: String::new(),
            boot_at: None,
            netns: None,
            netns_name: Some(name.to_owned()),
            cpus: 1,
            memory_bytes: None,
            fly: None,
            capabilities: Vec::new(),
        };
        assert_eq!(here(None, "wg show"), "wg show");
        assert_eq!(here(Some(&host("blue")), "wg show"), "ip netns exec blue wg show");
        assert_eq!(here(Some(&host("812")), "wg show"), "nsenter -t 812 -n wg show");
        assert_eq!(
            here(Some(&host("/run/netns/x y")), "wg show"),
            "nsenter --net='/run/netns/x y' wg show"
        );
        assert_eq!(quote("wg0"), "wg0");
        assert_eq!(quote("a'b"), r"'a'\''b'");
        assert_eq!(quote("$(x)"), "'$(x)'");
    }
}

//! Shell commands to paste: quoted, and run where the observed namespace is.
//!
//! In: a command, the host's facts. Out: text. Pure.

use crate::observation::host::HostFacts;

/// A command for the observed namespace: as it is, or through the namespace that `--netns` named.
pub fn here(host: Option<&HostFacts>, command: &str) -> String {
    match host.and_then(|h| h.netns_name.as_deref()) {
        None => command.to_owned(),
        Some(pid) if pid.bytes().all(|b| b.is_ascii_digit()) => format!("nsenter -t {pid} -n {command}"),
        Some(path) if path.contains('/') => format!("nsenter --net={} {command}", quote(path)),
        Some(name) => format!("ip netns exec {} {command}", quote(name)),
    }
}

/// As [`here`], for a command on each line.
pub fn each_here(host: Option<&HostFacts>, commands: &str) -> String {
    let lines: Vec<String> = commands.lines().map(|command| here(host, command)).collect();
    lines.join("\n")
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
        assert_eq!(
            each_here(Some(&host("blue")), "ss -s\nsysctl x"),
            "ip netns exec blue ss -s\nip netns exec blue sysctl x"
        );
        assert_eq!(quote("wg0"), "wg0");
        assert_eq!(quote("a'b"), r"'a'\''b'");
        assert_eq!(quote("$(x)"), "'$(x)'");
    }
}

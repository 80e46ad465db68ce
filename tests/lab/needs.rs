//! What the lab needs of the machine, and what it says when that is missing.

use std::path::PathBuf;

/// The programs that the lab runs, and the Debian package that brings each.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("wg", "wireguard-tools"),
    ("wireguard-go", "wireguard-go"),
    ("conntrack", "conntrack"),
    ("iptables-nft", "iptables"),
    ("tcpdump", "tcpdump"),
    ("turnserver", "coturn"),
    ("turnutils_natdiscovery", "coturn"),
    ("stun", "stun-client"),
    ("dnsmasq", "dnsmasq-base"),
    ("miniupnpd", "miniupnpd-nftables"),
];

/// True when the lab can run. `WGNAT_LAB=skip` makes it print `skipped: …` and return false.
///
/// Without that variable a missing piece fails the test: a lab that skips in silence proves nothing.
#[track_caller]
pub fn satisfied() -> bool {
    let missing = missing();
    if std::env::var("WGNAT_LAB").is_ok_and(|v| v == "skip") {
        let why = if missing.is_empty() {
            "WGNAT_LAB=skip".to_owned()
        } else {
            missing.join("; ")
        };
        eprintln!("skipped: {why}");
        return false;
    }
    assert!(
        missing.is_empty(),
        "the lab cannot run: {} (WGNAT_LAB=skip skips its tests)",
        missing.join("; ")
    );
    true
}

fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("it needs root".to_owned());
    }
    for (program, package) in PROGRAMS {
        if find(program).is_none() {
            missing.push(format!("`{program}` is not installed (package {package})"));
        }
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        missing.push("/dev/net/tun is missing (kernel module tun)".to_owned());
    }
    missing
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

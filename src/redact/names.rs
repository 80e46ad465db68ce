//! Names: what everybody uses stays, all else becomes a kind and a number in the order of appearance.

use std::collections::HashMap;

/// Interface names that tell nothing about anybody, followed by digits only.
const COMMON_INTERFACES: &[&str] = &[
    "lo", "eth", "wg", "tun", "tap", "utun", "wlan", "docker", "ens", "eno", "bond", "br",
];

/// Programs that tell nothing about anybody.
const COMMON_PROGRAMS: &[&str] = &[
    "beam.smp",
    "bun",
    "curl",
    "deno",
    "dotnet",
    "envoy",
    "haproxy",
    "java",
    "memcached",
    "nginx",
    "node",
    "php",
    "php-fpm",
    "pgbouncer",
    "postgres",
    "puma",
    "python",
    "python3",
    "redis-server",
    "ruby",
    "sidekiq",
    "sshd",
    "systemd",
    "wg-quick",
    "wireguard-go",
    "boringtun-cli",
    "gotatun",
    "wgnat",
];

/// More names than this and the rest share one replacement; no host comes near it.
const LIMIT: usize = 65_536;

/// What stands for what.
#[derive(Debug, Default)]
pub struct Names {
    replaced: HashMap<String, String>,
    counts: HashMap<&'static str, usize>,
}

impl Names {
    /// Replaces `name` by `kind` and a number, always the same.
    pub fn replace(&mut self, kind: &'static str, name: &mut String) {
        if let Some(known) = self.replaced.get(name) {
            name.clone_from(known);
            return;
        }
        if self.replaced.len() >= LIMIT {
            *name = format!("{kind}-other");
            return;
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let other = format!("{kind}{count}");
        self.replaced
            .insert(std::mem::replace(name, other.clone()), other);
    }

    /// Replaces an interface's name unless it is a common one.
    pub fn interface(&mut self, name: &mut String) {
        let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
        if !COMMON_INTERFACES.contains(&bare) {
            self.replace("if", name);
        }
    }

    /// Replaces a process's name and executable unless they are common ones; paths go in any case.
    pub fn process(&mut self, comm: &mut String, exe: Option<&mut String>) {
        if !COMMON_PROGRAMS.contains(&comm.as_str()) {
            self.replace("process", comm);
        }
        if let Some(exe) = exe {
            let mut base = exe.rsplit('/').next().unwrap_or_default().to_owned();
            // python3.11 and the like
            let bare = base.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
            if !COMMON_PROGRAMS.contains(&base.as_str()) && !COMMON_PROGRAMS.contains(&bare) {
                self.replace("process", &mut base);
            }
            *exe = format!("/…/{base}");
        }
    }

    /// What stands for `word` if it is a name that was replaced before, else `word`.
    pub fn known(&self, word: &str) -> String {
        self.replaced
            .get(word)
            .cloned()
            .unwrap_or_else(|| word.to_owned())
    }
}

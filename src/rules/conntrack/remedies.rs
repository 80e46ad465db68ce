//! What to do about a table that fills: first what fills it, then room.

use crate::finding::{Evidence, Fix};
use crate::rules::Input;
use crate::rules::shell::here;
use crate::words::{count, percent, seconds};

/// Kernel memory of one entry, in bytes, generously (measured: 383 in slab with NAT).
const ENTRY_BYTES: u64 = 400;

/// The shortest idle time of an established connection that a NAT may forget: 2 h 4 min (RFC 5382, REQ-5).
const ESTABLISHED_SECONDS: i64 = 7440;

/// The setting.
const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";

/// The kernel's own idle time for established connections.
const DEFAULT_ESTABLISHED_SECONDS: i64 = 432_000;

/// A kind of entry that holds this share of the table is worth an advice of its own.
const MUCH: f64 = 0.3;

/// Fixes for a table with `limit` entries, those that end the cause first.
pub fn fixes(input: &Input<'_>, limit: u32) -> Vec<Fix> {
    let mut fixes = Vec::new();
    if let Some((_, tally)) = input.world.conntrack.tally() {
        #[allow(clippy::cast_precision_loss)] // shares
        let share = |n: u64| n as f64 / tally.entries.max(1) as f64;
        if let Some(idle) = tally.tcp_established_idle.map(share).filter(|s| *s >= MUCH) {
            fixes.push(idle_fix(input, idle));
        }
        if share(tally.unreplied) >= MUCH {
            fixes.push(unreplied_fix(input, share(tally.unreplied)));
        }
        if share(tally.dns) >= MUCH {
            fixes.push(dns_fix(share(tally.dns), false));
        }
        if share(tally.tcp_closing) >= MUCH {
            fixes.push(closing_fix(input, share(tally.tcp_closing)));
        }
    }
    fixes.push(room(input, limit));
    fixes
}

/// The idle time for which established connections are kept, in seconds.
pub fn established_timeout(input: &Input<'_>) -> f64 {
    let set = input
        .world
        .sysctls
        .as_ref()
        .and_then(|s| s.others.get(ESTABLISHED).copied());
    #[allow(clippy::cast_precision_loss)] // a time-out in seconds
    let seconds = set.unwrap_or(DEFAULT_ESTABLISHED_SECONDS) as f64;
    seconds
}

/// A shorter time-out; `idle` is the share of entries that are idle.
pub fn idle_fix(input: &Input<'_>, idle: f64) -> Fix {
    let now_words = seconds(established_timeout(input));
    Fix {
        title: "Forget idle connections sooner".to_owned(),
        why: format!(
            "{} of the entries are established connections that have been idle for over an hour, mostly dead ones; they are kept \
             for {now_words} of idleness. 2 h 4 min is the least that a NAT should keep (RFC 5382). Entries that are there \
             already keep their old time until their next packet.",
            percent(idle)
        ),
        command: Some(here(
            input.world.host.as_ref(),
            &format!("sysctl -w {ESTABLISHED}={ESTABLISHED_SECONDS}"),
        )),
        ..Fix::default()
    }
}

fn unreplied_fix(input: &Input<'_>, unreplied: f64) -> Fix {
    Fix {
        title: "See who sends what is never answered".to_owned(),
        why: format!(
            "{} of the entries have seen no reply: a scan, a flood, or a destination that is gone. Drop it before it is tracked \
             (a raw prerouting chain, or a limit on new connections).",
            percent(unreplied)
        ),
        command: Some(here(
            input.world.host.as_ref(),
            "conntrack -L 2>/dev/null | awk '/UNREPLIED/{for(i=1;i<NF;i++) if($i~/^src=/){print $i,$(i+1); break}}' | \
             sort | uniq -c | sort -rn | head",
        )),
        ..Fix::default()
    }
}

/// Fewer DNS entries; `translated`: they pass this host's NAT, so they must be tracked.
pub fn dns_fix(dns: f64, translated: bool) -> Fix {
    if translated {
        return Fix {
            title: "Answer DNS from a cache".to_owned(),
            why: format!(
                "{} of the entries are DNS exchanges, each kept for 30 s or more. A caching resolver near the clients, on this side \
                 of the NAT, ends most of them. They cannot go untracked, because they are translated.",
                percent(dns)
            ),
            ..Fix::default()
        };
    }
    Fix {
        title: "Do not track DNS, or answer it from a cache".to_owned(),
        why: format!(
            "{} of the entries are DNS exchanges, each kept for 30 s or more. A caching resolver near the clients ends most of \
             them. Where DNS is not translated (no NAT on the way), it need not be tracked; stateful rules must then accept it \
             explicitly.",
            percent(dns)
        ),
        snippet: Some(
            "table inet dns_notrack {\n    chain prerouting {\n        type filter hook prerouting priority raw;\n        \
             udp dport 53 notrack\n        udp sport 53 notrack\n    }\n    chain output {\n        type filter hook output \
             priority raw;\n        udp dport 53 notrack\n        udp sport 53 notrack\n    }\n}"
                .to_owned(),
        ),
        ..Fix::default()
    }
}

fn closing_fix(input: &Input<'_>, closing: f64) -> Fix {
    Fix {
        title: "Reuse connections: most entries are of closed ones".to_owned(),
        why: format!(
            "{} of the entries are TCP connections that have ended and are kept for another two minutes (TIME_WAIT). Programs that \
             keep connections open instead of opening one per request make few entries.",
            percent(closing)
        ),
        command: Some(here(
            input.world.host.as_ref(),
            "conntrack -L -p tcp --state TIME_WAIT 2>/dev/null | awk '{for(i=1;i<=NF;i++) if($i~/^dst=/){print $i,$(i+2); break}}' | \
             sort | uniq -c | sort -rn | head",
        )),
        ..Fix::default()
    }
}

/// More hash buckets.
pub fn buckets(input: &Input<'_>) -> Fix {
    let entries = input.world.conntrack.peak();
    let now = input.world.sysctls.as_ref().and_then(|s| s.conntrack_buckets);
    let wanted = entries
        .max(now.unwrap_or(0).saturating_mul(2))
        .checked_next_power_of_two()
        .unwrap_or(u32::MAX);
    Fix {
        title: format!("Give the hash table {} buckets", count(wanted)),
        why: "As many buckets as entries keep chains short; a bucket takes 8 bytes. It can be set in the initial network namespace \
              only."
            .to_owned(),
        command: Some(format!("sysctl -w net.netfilter.nf_conntrack_buckets={wanted}")),
        expect: Evidence::new().with("chain_toolong", 0),
        ..Fix::default()
    }
}

/// A larger table.
fn room(input: &Input<'_>, limit: u32) -> Fix {
    let wanted = limit
        .saturating_mul(2)
        .checked_next_power_of_two()
        .unwrap_or(limit);
    let megabytes = u64::from(wanted) * ENTRY_BYTES / 1_000_000;
    let memory = input
        .world
        .host
        .as_ref()
        .and_then(|h| h.memory_bytes)
        .filter(|m| *m > 0);
    let much = memory.is_some_and(|m| u64::from(wanted) * ENTRY_BYTES > m / 10);
    let warning = if much {
        ", which is more than a tenth of this machine's memory"
    } else {
        ""
    };
    Fix {
        title: format!("For room: raise the limit to {}", count(wanted)),
        why: format!(
            "A full table of that size takes about {} MB of kernel memory{warning}. The limit is one for the whole machine, though \
             each network namespace is counted by itself, and it can be set in the initial namespace only: on the host, not inside a \
             container. The hash table should grow along, or look-ups walk long chains.",
            count(megabytes)
        ),
        command: Some(format!(
            "sysctl -w net.netfilter.nf_conntrack_max={wanted}\n\
             sysctl -w net.netfilter.nf_conntrack_buckets={wanted}"
        )),
        snippet: Some(format!(
            "# /etc/sysctl.d/90-conntrack.conf\n\
             net.netfilter.nf_conntrack_max = {wanted}\n\
             net.netfilter.nf_conntrack_buckets = {wanted}"
        )),
        expect: Evidence::new().with("max", wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;
    use crate::observation::conntrack::CtTally;

    #[test]
    fn what_fills_the_table_comes_before_room() {
        let tally = |f: fn(&mut CtTally)| {
            let mut tally = CtTally {
                entries: 1000,
                ..CtTally::default()
            };
            f(&mut tally);
            tally
        };
        for (tally, first) in [
            (tally(|_| ()), "For room"),
            (tally(|t| t.tcp_established_idle = Some(600)), "Forget idle"),
            (tally(|t| t.unreplied = 600), "See who"),
            (tally(|t| t.dns = 600), "Do not track DNS"),
            (tally(|t| t.tcp_closing = 600), "Reuse connections"),
            (tally(|t| t.dns = 100), "For room"),
        ] {
            let fixes = Scene::new()
                .tally(tally)
                .with_input(|input| fixes(input, 262_144));
            assert!(fixes[0].title.starts_with(first), "{}", fixes[0].title);
            let room = fixes.last().unwrap();
            assert_eq!(room.title, "For room: raise the limit to 524,288");
            assert!(room.why.contains("209 MB"), "{}", room.why);
        }
    }
}

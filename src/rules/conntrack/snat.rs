//! Which NAT range is used up, if one is: the counters and the table together.
//!
//! Neither is enough alone. The counters say that NAT fails, not where; the table says how full each range is, but the
//! range may be inferred, and the allocator gives up before the last port is taken: it tries 248 ports at most, in
//! five rows from random starts.

use super::counters::{Failures, failures, found_per_exhausted, nat_table};
use crate::finding::{Confidence, Evidence, Fix, Subject};
use crate::observation::conntrack::SnatTally;
use crate::observation::nat_rules::SnatRule;
use crate::rules::Input;
use crate::track::natpool::{DEFAULT_RANGE, NatUse, takes_ended, uses};
use crate::types::Proto;
use crate::words::{count, number, rounded};

/// Failures with at least this many taken tuples each are NAT's, where the table could not be read: in 100 TCP ports it
/// is 68, in fewer still less.
pub const FOUND_LEAST: f64 = 60.0;

/// …and at most this many: one failure meets 248. Far more of them come from insertions that found a port after all, and
/// then the failures may have nothing to do with it.
const FOUND_MOST: f64 = 400.0;

/// …of so many failures at least: who finds no port tries again, and fails again, while two flows that are given one port at the
/// same moment are a single failure, beside whatever collisions a busy NAT meets.
const FAILURES_LEAST: u64 = 5;

/// From this share on a range counts as used up: what is free at the moment of the dump is taken at the next.
const FULL: f64 = 0.95;

/// A block of ports in use, side by side, of this share of all ports makes the allocator fail for a flow in a thousand: all
/// of its five rows begin inside the block with the fifth power of that.
const CLUSTER: f64 = 0.25;

/// A search that fails less often than once in a thousand flows is not what fails them…
const FAILS_LEAST: f64 = 0.001;

/// …and one that fails this many times as often as if the ports were spread is failed by how they lie.
const BY_PLACE: f64 = 10.0;

/// Shows the host's NAT rules, whichever program made them.
pub const RULES: &str =
    "nft -a list ruleset | grep -E 'masquerade|snat'; iptables-save -t nat | grep -E 'MASQ|SNAT'";

/// A rule that chooses ports at random from all.
pub const RANDOM: &str = "# nftables\noifname \"eth0\" masquerade fully-random\n# iptables\n-A POSTROUTING -o eth0 -j MASQUERADE --random-fully";

/// How a range fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// It is full, or so full that the allocator's search fails.
    UsedUp,
    /// Every port is in use, but nothing failed while watched.
    FullAndQuiet,
    /// Ports are free, but those in use lie side by side, where the search does not get out.
    Clustered,
    /// The counters say so; the table could not be read.
    Unseen,
}

/// A range that fails.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'a> {
    /// Its use, where the table could be read.
    pub nat: Option<NatUse<'a>>,
    /// How.
    pub how: Failing,
    /// How sure.
    pub confidence: Confidence,
}

/// The ranges towards each destination, where the table could be read.
pub fn ranges<'a>(input: &Input<'a>) -> Option<Vec<NatUse<'a>>> {
    let world = input.world;
    let (_, tally) = nat_table(input)?;
    let kernel = world.host.as_ref().map(|h| h.kernel.as_str());
    Some(uses(tally, kernel, world.conntrack.rules()))
}

/// Every range that fails now, with the failures of the watch.
pub fn verdicts<'a>(input: &Input<'a>) -> (Vec<Verdict<'a>>, Option<Failures>) {
    let failures = failures(input).filter(Failures::clash_shaped);
    let verdicts = match ranges(input) {
        Some(ranges) => by_table(input, &ranges, failures.as_ref()),
        None => failures
            .as_ref()
            .filter(|f| by_counters(f))
            .map(unseen)
            .into_iter()
            .collect(),
    };
    (verdicts, failures)
}

fn by_counters(f: &Failures) -> bool {
    f.failed >= FAILURES_LEAST
        && (FOUND_LEAST..=FOUND_MOST).contains(&f.found_per_failure())
        && f.moved.clash_resolve == 0
}

fn unseen<'a>(_: &Failures) -> Verdict<'a> {
    Verdict {
        nat: None,
        how: Failing::Unseen,
        confidence: Confidence::Likely,
    }
}

fn by_table<'a>(input: &Input<'_>, ranges: &[NatUse<'a>], failures: Option<&Failures>) -> Vec<Verdict<'a>> {
    let verdict = |nat: NatUse<'a>, how, confidence| Verdict {
        nat: Some(nat),
        how,
        confidence,
    };
    let Some(f) = failures else {
        let full = ranges
            .iter()
            .filter(|nat| nat.free() == 0 && !gives_ended(input, nat.tally));
        return full
            .map(|nat| {
                let sure = nat.exact() && !input.world.conntrack.tally().is_some_and(|(_, t)| t.inexact);
                let confidence = if sure {
                    Confidence::Certain
                } else {
                    Confidence::Likely
                };
                verdict(*nat, Failing::FullAndQuiet, confidence)
            })
            .collect();
    };
    // Half of what theory says, because the last tries may have found a free port.
    let collides = |nat: &&NatUse<'a>| {
        let expected = found_per_exhausted(Some(nat.tally.proto), nat.range.size);
        f.found_per_failure() >= f64::from(expected) / 2.0
    };
    let suspects: Vec<&NatUse<'a>> = ranges
        .iter()
        .filter(|nat| nat.share() >= input.thresholds.snat_onset)
        .filter(collides)
        .collect();
    if suspects.is_empty() {
        return ranges
            .iter()
            .filter(|nat| {
                clustered(nat)
                    .unwrap_or_else(|| !nat.range.inferred() && nat.preserving() && nat.share() >= CLUSTER)
            })
            .filter(|_| f.found_per_failure() >= FOUND_LEAST)
            .max_by(|a, b| a.share().total_cmp(&b.share()))
            .map(|nat| verdict(*nat, Failing::Clustered, Confidence::Likely))
            .into_iter()
            .collect();
    }
    // With several suspects it is not known which of them fails. Of a TCP range of 32 ports or fewer no collision is counted, so
    // the counters do not tell its failures from races; then only a range that is known to be full leaves no doubt.
    let sole = suspects.len() == 1;
    let told = |nat: &NatUse<'_>| found_per_exhausted(Some(nat.tally.proto), nat.range.size) > 0;
    let sure =
        |nat: &NatUse<'_>| sole && nat.share() >= FULL && (told(nat) || nat.exact() && nat.free() == 0);
    suspects
        .into_iter()
        .map(|nat| {
            let confidence = if sure(nat) {
                Confidence::Certain
            } else {
                Confidence::Likely
            };
            match clustered(nat) {
                Some(true) if nat.share() < FULL => verdict(*nat, Failing::Clustered, Confidence::Likely),
                _ => verdict(*nat, Failing::UsedUp, confidence),
            }
        })
        .collect()
}

/// Whether new connections may have the ports of some that have ended, so that all of them in use is not the end yet.
pub fn gives_ended(input: &Input<'_>, tally: &SnatTally) -> bool {
    let kernel = input.world.host.as_ref().map(|h| h.kernel.as_str());
    tally.proto == Proto::Tcp && tally.closing > 0 && takes_ended(kernel)
}

/// Whether the search fails by how the ports in use lie together rather than by their number; `None` where that was not
/// looked at.
fn clustered(nat: &NatUse<'_>) -> Option<bool> {
    let fails = nat.search_fails()?;
    Some(nat.free() > 0 && fails >= FAILS_LEAST && fails >= nat.search_fails_if_spread() * BY_PLACE)
}

/// How full the range is from which new flows take their ports, by the collisions that they met: with `c` for each, linear
/// probing from a random start gives `a = 1 - 1/√(2c + 1)` (Knuth, TAOCP 3, 6.4, for a table of load `a`). Measured against
/// the truth it is at most 0.03 off in a range of 1,024 ports and up to 0.16 too high in 64,512.
pub fn occupancy(collisions_per_flow: f64) -> f64 {
    1.0 - 1.0 / (2.0 * collisions_per_flow.max(0.0) + 1.0).sqrt()
}

/// The subject of a finding about a range.
pub fn subject(nat: Option<&NatUse<'_>>) -> Subject {
    Subject::Nat {
        address: nat.map(|n| n.tally.nat_address),
        proto: nat.map(|n| n.tally.proto),
        destination: nat.map(|n| n.tally.destination),
    }
}

/// The numbers of a range.
pub fn evidence(nat: &NatUse<'_>) -> Evidence {
    let t = nat.tally;
    Evidence::new()
        .maybe("zone", (t.zone != 0).then_some(t.zone))
        .with("in_use", nat.held())
        .with("available", nat.range.size)
        .with("share", rounded(nat.share()))
        .with("range_inferred", nat.range.inferred())
        .maybe("rule", nat.rule.map(rule_name))
        .maybe("search_fails", nat.search_fails().map(rounded))
        .with("lowest_port", t.min_port)
        .with("highest_port", t.max_port)
        .with("ports_preserved", t.preserved)
        .with("closing", t.closing)
        .with("unreplied", t.unreplied)
}

/// A rule as nft names it: `ip nat postrouting handle 4`.
fn rule_name(rule: &SnatRule) -> String {
    format!(
        "{} {} {} handle {}",
        rule.family.name(),
        rule.table,
        rule.chain,
        rule.handle
    )
}

/// The range in words: `ports 20000 to 20099, as a rule sets them`.
pub fn range_words(nat: &NatUse<'_>) -> String {
    match (nat.range.ruled, nat.range.seen) {
        (Some(range), _) => format!("ports {} to {}, as a rule sets them", range.low, range.high),
        (None, Some(seen)) => format!("ports {} to {}, as those in use show", seen.low, seen.high),
        (None, None) => format!(
            "the kernel's own range, {} to {}",
            DEFAULT_RANGE.low, DEFAULT_RANGE.high
        ),
    }
}

/// How long an entry of a closed TCP connection is kept, in seconds (`nf_conntrack_tcp_timeout_time_wait`).
fn closed_seconds(input: &Input<'_>) -> f64 {
    let name = "net.netfilter.nf_conntrack_tcp_timeout_time_wait";
    let set = input.world.sysctls.as_ref().and_then(|s| s.others.get(name));
    set.and_then(|s| u32::try_from(*s).ok())
        .filter(|s| *s > 0)
        .map_or(120.0, f64::from)
}

/// What to change, best first.
pub fn fixes(input: &Input<'_>, nat: Option<&NatUse<'_>>, how: Failing) -> Vec<Fix> {
    let clustered = how == Failing::Clustered;
    let random = randomise(clustered);
    let mut fixes = Vec::new();
    let random_already = nat.and_then(|n| n.rule).is_some_and(|r| r.fully_random);
    if clustered && !random_already {
        fixes.push(random.clone());
    }
    // Where most entries are of open connections, reuse is not what is missing.
    let open = nat.is_some_and(|n| u64::from(n.tally.closing) * 2 < u64::from(n.tally.ports));
    if !open {
        fixes.push(reuse(input, nat));
    }
    let narrow = nat.filter(|n| n.range.bounds().is_some());
    if let Some(nat) = narrow.filter(|n| n.range.size < DEFAULT_RANGE.len()) {
        fixes.push(widen(nat));
    }
    fixes.push(addresses(nat));
    if open {
        fixes.push(reuse(input, nat));
    }
    // Where every port of a narrow range is in use, another order of search finds none either.
    if !clustered && narrow.is_none() && !random_already {
        fixes.push(random);
    }
    if nat.is_none_or(|n| n.tally.proto == Proto::Tcp && n.tally.closing * 2 >= n.tally.ports) {
        fixes.push(Fix {
            title: "For room: forget closed connections sooner".to_owned(),
            why: format!(
                "Room, not a cure. An entry of a closed TCP connection keeps its NAT port for {} s; 30 s still outlasts stray packets \
                 on most paths.",
                number(closed_seconds(input))
            ),
            command: Some("sysctl -w net.netfilter.nf_conntrack_tcp_timeout_time_wait=30".to_owned()),
            ..Fix::default()
        });
    }
    fixes
}

fn reuse(input: &Input<'_>, nat: Option<&NatUse<'_>>) -> Fix {
    let ceiling = nat
        .filter(|n| n.tally.proto == Proto::Tcp)
        .map_or_else(String::new, |n| {
            let seconds = closed_seconds(input);
            format!(
                " With {} ports that is at most {} new connections a second towards one destination.",
                count(n.range.size),
                number(f64::from(n.range.size) / seconds)
            )
        });
    let open = nat
        .map(|n| n.tally)
        .filter(|t| u64::from(t.closing) * 2 < u64::from(t.ports))
        .map(|t| {
            format!(
                "{} of these connections are open now. ",
                count(t.ports.saturating_sub(t.closing))
            )
        });
    let udp = nat.is_some_and(|n| n.tally.proto == Proto::Udp);
    Fix {
        title: if udp {
            "Use fewer UDP sockets in the programs behind the NAT"
        } else {
            "Reuse connections in the programs behind the NAT"
        }
        .to_owned(),
        why: if udp {
            "Each socket towards this destination holds a NAT port, until it has been silent for 30 s (120 s where packets went \
             both ways; `nf_conntrack_udp_timeout` and `…_stream`). The command shows who has them."
                .to_owned()
        } else {
            format!(
            "{}A closed TCP connection keeps its NAT port for another {} s, twice as long as in the program's own host.{ceiling} A pool of \
             kept-open connections needs few. The command shows who opens them.",
            open.unwrap_or_default(),
            number(closed_seconds(input))
        )
        },
        command: nat.map(|n| {
            format!(
                "conntrack -L -p {} --orig-dst {} --orig-port-dst {} 2>/dev/null | awk '{{for(i=1;i<=NF;i++) if($i~/^src=/){{print $i; \
                 break}}}}' | sort | uniq -c | sort -rn | head",
                n.tally.proto.name(),
                n.tally.destination.ip(),
                n.tally.destination.port()
            )
        }),
        ..Fix::default()
    }
}

fn widen(nat: &NatUse<'_>) -> Fix {
    Fix {
        title: format!("Give the NAT rule more than {} ports", count(nat.range.size)),
        why: match nat.rule {
            Some(rule) => format!(
                "The rule {} sets the range ({}). Without one there are {} for each destination.",
                rule_name(rule),
                range_words(nat),
                count(DEFAULT_RANGE.len())
            ),
            None => format!(
                "The ports in use lie between {} and {} only, so a rule sets that range. Without one there are {} for each \
                 destination.",
                nat.range.bounds().map_or(nat.tally.min_port, |r| r.low),
                nat.range.bounds().map_or(nat.tally.max_port, |r| r.high),
                count(DEFAULT_RANGE.len())
            ),
        },
        command: Some(nat.rule.map_or_else(
            || RULES.to_owned(),
            |rule| {
                format!(
                    "nft -a list chain {} {} {}",
                    rule.family.name(),
                    rule.table,
                    rule.chain
                )
            },
        )),
        snippet: Some(RANDOM.to_owned()),
        expect: Evidence::new().with("available", DEFAULT_RANGE.len()),
    }
}

fn addresses(nat: Option<&NatUse<'_>>) -> Fix {
    let v6 = nat.is_some_and(|n| n.tally.nat_address.is_ipv6());
    let (family, first, last) = if v6 {
        ("ip6", "2001:db8::1", "2001:db8::4")
    } else {
        ("ip", "198.51.100.1", "198.51.100.4")
    };
    Fix {
        title: match nat.and_then(|n| n.rule).and_then(SnatRule::address_count) {
            Some(n) if n > 1 => format!("Translate to more than the rule's {} addresses", count(n)),
            _ => "Translate to more than one address".to_owned(),
        },
        why: "Each NAT address has a port range of its own towards each destination. The kernel picks the address by a hash of source and \
              destination, so the load spreads over clients rather than evenly."
            .to_owned(),
        snippet: Some(format!("# nftables, table {family} nat\noifname \"eth0\" snat to {first}-{last} fully-random")),
        ..Fix::default()
    }
}

fn randomise(needed: bool) -> Fix {
    Fix {
        title: "Pick NAT ports at random".to_owned(),
        why: format!(
            "By default NAT keeps each flow's own port, so the ports in use lie side by side, and the search for a free one, of 248 tries at \
             most, gives up inside such a block{}. With random ports it failed for 23 of 6,000 flows at 93 % use, without for \
             3,840 (measured). It helps as the entries that are there end: they keep their ports, and a random search among them fails as \
             often.",
            if needed { " although ports are free" } else { "" }
        ),
        snippet: Some(RANDOM.to_owned()),
        ..Fix::default()
    }
}

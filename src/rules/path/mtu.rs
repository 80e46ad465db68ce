//! `path-mtu`: large packets vanish on the way, and no ICMP says so.

use super::{PATHS, finding, loss, paths};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix};
use crate::observation::path::{PathMtu, Stage};
use crate::rules::{Area, Input, Rule};
use crate::track::paths::Path;
use crate::words::{count, counted};

/// The rule.
pub const RULE: Rule = Rule {
    code: "path-mtu",
    area: Area::Paths,
    severity: "warning",
    holds_when: "packets over a size do not pass the path, though the interface sends them, and no ICMP says so",
    meaning: "Somewhere on the way is a link that carries only smaller packets, and the router before it is silent about it (or its ICMP \
              is filtered). Path MTU discovery then fails: connections open, small answers come, and the first large one hangs.",
    detection: "ICMP echoes that must not be fragmented, of sizes found by bisection, each size tried three times before it is held not \
                to pass, and then once more the largest that passed. An ICMP “fragmentation needed” or “packet too big” that arrives makes it an ordinary path, and no finding. \
                A firewall that drops nothing but large echoes looks the same, so echoes alone make it likely. \
                Where all attempts to the same target connect and then hear nothing, that is told here with certainty, and is no `path-loss` of its own.",
    fix: "Make this host send no larger packets that way: a route's MTU, or clamp TCP's segment size on the router. Better: let the \
          router's ICMP through (type 3 code 4; ICMPv6 type 2). For a tunnel over this path, set the tunnel's MTU to what passes less its \
          overhead (60 bytes for WireGuard over IPv4, 80 over IPv6).",
    needs: PATHS,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    paths(input).filter_map(judge).collect()
}

/// What the search found where large packets vanish silently, with the smallest size that does.
fn black_hole(path: &Path) -> Option<(PathMtu, u32)> {
    let mtu = path.sample.mtu?;
    let lost = mtu.lost?;
    (mtu.told.is_none() && mtu.passed < mtu.interface).then_some((mtu, lost))
}

/// Attempts that connected and then heard nothing, where that is how all of them ended: where some are answered, large
/// packets pass, and silence has another reason.
fn confirmed(path: &Path) -> Option<(Stage, u32)> {
    let (stage, n) = loss::silent(path)?;
    (path.now.answered == 0 && n >= loss::LEAST && n >= path.now.lost).then_some((stage, n))
}

/// Whether large packets vanish on the way to `path`, and all connections fall silent by it.
pub(super) fn swallows(path: &Path) -> bool {
    black_hole(path).is_some() && confirmed(path).is_some()
}

fn judge(path: &Path) -> Option<Finding> {
    let (mtu, lost) = black_hole(path)?;
    let name = path.sample.target.to_string();
    let v6 = path.sample.address.is_some_and(|address| address.is_ipv6());
    let overhead = if v6 { 80 } else { 60 };
    let silent = confirmed(path);
    let confidence = if silent.is_some() {
        Confidence::Certain
    } else {
        Confidence::Likely
    };
    let mut f = finding(RULE.code, path, confidence);
    f.title = format!(
        "{} over {} bytes do not reach {name}, silently",
        if silent.is_some() { "Packets" } else { "Echoes" },
        count(mtu.passed)
    );
    f.summary = format!(
        "An echo of {} bytes to {name} is answered, one of {} is not, three times over; the interface carries {}. No router sends \
         the ICMP error that would say so.",
        count(mtu.passed),
        count(lost),
        count(mtu.interface)
    );
    f.evidence = Evidence::new()
        .with("largest_passed_bytes", mtu.passed)
        .with("smallest_lost_bytes", lost)
        .with("interface_mtu_bytes", mtu.interface)
        .with("wireguard_mtu_bytes", mtu.passed.saturating_sub(overhead));
    if let Some((stage, n)) = silent {
        f.summary = format!(
            "{} That explains {} to {name} that connected and then waited for {} in vain.",
            f.summary,
            counted(n, "attempt", "attempts"),
            loss::awaited(stage),
        );
        f.evidence = std::mem::take(&mut f.evidence).with("connected_then_silent", n);
    }
    f.impact = "Connections open and hang at the first large packet.".to_owned();
    if silent.is_none() {
        f.impact.insert_str(0, "If it holds for every packet: ");
        f.candidates = candidates(path);
    }
    let route = path
        .sample
        .address
        .map_or_else(|| name.clone(), |address| address.to_string());
    f.fixes = vec![
        Fix {
            title: format!("Send at most {} bytes that way", count(mtu.passed)),
            why: "The route's MTU holds for everything that this host sends to it. The gateway and the interface stay as `ip route get` \
                  shows them."
                .to_owned(),
            command: Some(format!(
                "ip route get {route}    # shows via GATEWAY dev INTERFACE\nip route add {route} via GATEWAY dev INTERFACE mtu {}",
                mtu.passed
            )),
            ..Fix::default()
        },
        Fix {
            title: format!("For a WireGuard tunnel over this path: an MTU of {}", mtu.passed.saturating_sub(overhead)),
            why: format!("What passes, less WireGuard's {overhead} bytes over {}.", if v6 { "IPv6" } else { "IPv4" }),
            ..Fix::default()
        },
    ];
    Some(f)
}

/// What may be behind it where nothing but echoes was lost.
fn candidates(path: &Path) -> Vec<Candidate> {
    let host = &path.sample.target.host;
    vec![
        Candidate {
            cause: "a link on the way carries less, and the router before it is silent".to_owned(),
            code: None,
            settle: format!(
                "attempts that connect and then hear nothing confirm it: `wgnat path --mtu https://{host}/`, or `tls:{host}:PORT` of \
                 what runs there"
            ),
        },
        Candidate {
            cause: "a firewall, or the target itself, drops large echoes alone".to_owned(),
            code: None,
            settle: format!(
                "a large transfer to {host} that runs, sent without clamped segments (`ss -ti dst {host}` shows `mss`), rules out the link"
            ),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::testing::Paths;
    use super::*;

    #[test]
    fn only_silence_about_a_smaller_link_is_a_finding() {
        let found = |mtu| Paths::new().mtu("192.0.2.1", mtu).check(&RULE);
        let silent = PathMtu {
            interface: 1500,
            passed: 1400,
            lost: Some(1401),
            told: None,
        };
        let black_hole = found(silent);
        assert_eq!(
            black_hole[0].evidence.get("wireguard_mtu_bytes"),
            Some(&1340.into())
        );
        // Echoes alone: a firewall may drop the large ones.
        assert_eq!(black_hole[0].confidence, Confidence::Likely);
        assert_eq!(black_hole[0].candidates.len(), 2);
        assert!(
            black_hole[0].title.starts_with("Echoes"),
            "{}",
            black_hole[0].title
        );
        let confirmed = Paths::new()
            .silent_and_sized("tls:192.0.2.1:443", 10, silent)
            .check(&RULE);
        assert_eq!(confirmed[0].confidence, Confidence::Certain);
        assert_eq!(confirmed[0].candidates, []);
        // Where others are answered, large packets pass: silence now and then confirms nothing, and is told by itself.
        let some = Paths::new().answered_and_sized("tls:192.0.2.1:443", 4, 6, silent);
        assert_eq!(some.check(&RULE)[0].confidence, Confidence::Likely);
        assert_eq!(some.check(&loss::RULE).len(), 1);
        assert!(
            confirmed[0].title.starts_with("Packets"),
            "{}",
            confirmed[0].title
        );
        assert!(
            found(PathMtu {
                told: Some(1400),
                ..silent
            })
            .is_empty()
        );
        assert!(
            found(PathMtu {
                passed: 1500,
                lost: None,
                ..silent
            })
            .is_empty()
        );
    }
}

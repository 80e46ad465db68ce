//! `path-mtu`: large packets vanish on the way, and no ICMP says so.

use super::{PATHS, finding, loss, paths};
use crate::finding::{Confidence, Evidence, Finding, Fix};
use crate::observation::path::PathMtu;
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
                Where attempts to the same target connect and then hear nothing, that is told here and is no `path-loss` of its own.",
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

/// Whether large packets vanish on the way to `path`, which makes connections fall silent.
pub(super) fn swallows(path: &Path) -> bool {
    black_hole(path).is_some()
}

fn judge(path: &Path) -> Option<Finding> {
    let (mtu, lost) = black_hole(path)?;
    let name = path.sample.target.to_string();
    let v6 = path.sample.address.is_some_and(|address| address.is_ipv6());
    let overhead = if v6 { 80 } else { 60 };
    let mut f = finding(RULE.code, path, Confidence::Certain);
    f.title = format!(
        "Packets over {} bytes do not reach {name}, silently",
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
    if let Some((stage, n)) = loss::silent(path) {
        f.summary = format!(
            "{} That explains {} to {name} that connected and then waited for {} in vain.",
            f.summary,
            counted(n, "attempt", "attempts"),
            loss::awaited(stage),
        );
        f.evidence = std::mem::take(&mut f.evidence).with("connected_then_silent", n);
    }
    f.impact = "Connections open and hang at the first large packet.".to_owned();
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

//! `wg-mtu-blackhole` and `wg-mtu-too-large` by a probe: packets of one size pass and larger ones do not.

use super::PROBE;
use super::view::{finding, place, probes};
use crate::finding::{Confidence, Finding, Fix, Severity};
use crate::observation::probe::Mtu;
use crate::rules::{Area, Input, Rule, tunnel};
use crate::track::probes::Probe;

/// What WireGuard's devices have unless told otherwise (kernel device.c, wireguard-go).
const DEFAULT_MTU: u32 = 1420;

/// Nobody says that they are too large.
pub const BLACKHOLE: Rule = Rule {
    code: "wg-mtu-blackhole",
    area: Area::Wireguard,
    severity: "critical",
    holds_when: "the handshake and small packets pass through the tunnel, packets over a size do not, and no ICMP error says so",
    meaning: "Every link has a largest packet (its MTU). WireGuard adds 60 bytes around each packet over IPv4, 80 over IPv6, so \
              a tunnel whose own MTU is too large sends packets that a link on the way cannot carry. A router there should \
              answer with an ICMP error that names its size; where it does not, or a firewall swallows that error, large \
              packets vanish. Connections come up, small requests work, and everything large hangs: pages load in part, \
              `scp` and TLS stall.",
    detection: "Echo requests of growing size through the tunnel, with fragmentation forbidden: the largest that is answered and \
                the smallest that is not, each tried three times and the last one six, so loss is not taken for a limit. No \
                ICMP error (\"fragmentation needed\", \"packet too big\") came for the ones that were lost.",
    fix: "Give the tunnel an MTU that passes, on both sides: `MTU =` in the `[Interface]` section, or `ip link set dev wg0 mtu \
          N`. Where only TCP matters, clamping its segment size on the router does too.",
    needs: PROBE,
    explained_by: &[],
    check: blackholes,
};

/// Somebody does.
pub const TOO_LARGE: Rule = Rule {
    needs: PROBE,
    explained_by: &[],
    check: too_large,
    ..tunnel::MTU_TOO_LARGE
};

fn blackholes(input: &Input<'_>) -> Vec<Finding> {
    probes(input)
        .filter_map(|probe| {
            let (mtu, passes, fails) = limited(probe)?;
            mtu.told.is_none().then(|| {
                let levels = (Severity::Critical, Confidence::Certain);
                let mut f = report(BLACKHOLE.code, levels, probe, mtu, passes);
                f.title = format!("Packets over {passes} bytes vanish on the way to {}", place(probe));
                f.summary = format!(
                    "Through the tunnel {passes} bytes get there and back, {fails} do not, and no router says why. {}",
                    tunnel_mtu(probe)
                );
                f.impact = "Connections come up and stall with the first large packet.".to_owned();
                f
            })
        })
        .collect()
}

fn too_large(input: &Input<'_>) -> Vec<Finding> {
    probes(input)
        .filter_map(|probe| {
            let (mtu, passes, _) = limited(probe)?;
            let told = mtu.told.as_ref()?;
            let who = told.from.map_or_else(
                || "This host's interface".to_owned(),
                |ip| format!("The router {ip}"),
            );
            let levels = (Severity::Warning, Confidence::Certain);
            let mut f = report(TOO_LARGE.code, levels, probe, mtu, passes);
            f.title = format!("The way to {} carries less than the tunnel sends", place(probe));
            f.summary = format!(
                "{who} carries {} bytes, of which {} are left inside the tunnel. {}",
                told.mtu,
                told.mtu.saturating_sub(mtu.overhead),
                tunnel_mtu(probe)
            );
            f.impact = "Large packets go in pieces, or are lost where those are not let through.".to_owned();
            f.evidence = f
                .evidence
                .with("path_mtu", told.mtu)
                .maybe("told_by", told.from.map(|ip| ip.to_string()));
            Some(f)
        })
        .collect()
}

/// Where the tunnel sends larger packets than pass.
fn limited(probe: &Probe) -> Option<(&Mtu, u32, u32)> {
    let mtu = probe.mtu.as_ref()?;
    // Larger ones than the tunnel sends were not tried. The peer pads its replies to 16 bytes, so what passes may be that
    // much below what would.
    let (passes, fails) = (mtu.passes?, mtu.fails?);
    Some((mtu, passes, fails))
}

fn tunnel_mtu(probe: &Probe) -> String {
    match probe.target.mtu {
        Some(mtu) => format!("The tunnel's MTU is {mtu}."),
        None => format!("The tunnel's MTU is not told here; WireGuard's default is {DEFAULT_MTU}."),
    }
}

fn report(
    code: &'static str,
    levels: (Severity, Confidence),
    probe: &Probe,
    mtu: &Mtu,
    passes: u32,
) -> Finding {
    let mut f = finding(code, levels, probe);
    f.evidence = f
        .evidence
        .with("largest_passing_bytes", passes)
        .maybe("smallest_failing_bytes", mtu.fails)
        .maybe("tunnel_mtu", probe.target.mtu)
        .with("mtu_to_set", passes)
        .with("overhead_bytes", mtu.overhead);
    let device = probe.target.device.as_deref().unwrap_or("DEVICE");
    f.fixes = vec![Fix {
        title: format!("Set the tunnel's MTU to {passes}, on both sides"),
        why: "Then no packet is larger than what passes.".to_owned(),
        command: Some(format!(
            "ip link set dev {} mtu {passes}",
            crate::rules::shell::quote(device)
        )),
        snippet: Some(format!("[Interface]\nMTU = {passes}")),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Probed, codes, target};
    use super::*;
    use crate::observation::probe::{Fact, Target, ToldMtu};

    fn probed(
        passes: u32,
        fails: Option<u32>,
        told: Option<u32>,
        tunnel: Option<u32>,
    ) -> (Vec<Finding>, Vec<Finding>) {
        let mut probed = Probed::new();
        probed.next(Target {
            mtu: tunnel,
            ..target()
        });
        probed.fact(Fact::Mtu(Mtu {
            target: "10.0.0.1".parse().unwrap(),
            passes: Some(passes),
            fails,
            ceiling: 1440,
            overhead: 60,
            told: told.map(|mtu| ToldMtu { mtu, from: None }),
            packets: 9,
        }));
        (probed.check(&BLACKHOLE), probed.check(&TOO_LARGE))
    }

    #[test]
    fn a_hole_is_one_where_nobody_says_so_and_the_tunnel_sends_more() {
        let (hole, large) = probed(1328, Some(1344), None, None);
        assert_eq!((codes(&hole), codes(&large)), (vec!["wg-mtu-blackhole"], vec![]));
        assert_eq!(
            hole[0].evidence.get("mtu_to_set").and_then(|v| v.as_u64()),
            Some(1328)
        );
        let (hole, large) = probed(1340, Some(1341), Some(1400), Some(1420));
        assert_eq!((codes(&hole), codes(&large)), (vec![], vec!["wg-mtu-too-large"]));
        let (hole, large) = probed(1420, None, Some(1500), None);
        assert!(hole.is_empty() && large.is_empty());
    }
}

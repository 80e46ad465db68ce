//! `wg-keepalive-missing` and `nat-mapping-short` by a probe: the NAT on the way forgets an idle tunnel, and how soon.

use super::PROBE;
use super::view::{finding, place, probes};
use crate::finding::{Confidence, Finding, Fix, Severity};
use crate::observation::probe::Lifetime;
use crate::rules::{Area, Input, Rule};
use crate::track::probes::{Probe, keepalive_for};

/// What is short: RFC 4787 (REQ-5) asks a NAT for two minutes at least, and the usual keepalive of 25 s is made for NATs that keep
/// 30 s.
const SHORT_SECONDS: f64 = 30.0;

/// The tunnel has no keepalive, or a longer one.
pub const MISSING: Rule = Rule {
    code: "wg-keepalive-missing",
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "this side is behind a NAT (or its mapping lifetime is known), the peer must be able to reach us, and persistent \
                 keepalive is off or longer than the mapping lifetime",
    meaning: "A NAT remembers a flow for a while after its last packet, then forgets it. From then on what the peer sends does not \
              get through until this side sends again. WireGuard is silent when it has nothing to send, so an idle tunnel behind a \
              NAT can be opened from one side only. A persistent keepalive sends an empty packet often enough that the NAT \
              remembers.",
    detection: "The NAT's patience was measured: after a known silence on our side a server inside the tunnel sent, and it did or \
                did not arrive (see `wgnat probe --mapping-lifetime`). The tunnel's configured keepalive is off or longer.",
    fix: "Set `PersistentKeepalive` on the side behind the NAT, below the lifetime: 25 is right for most NATs.",
    needs: PROBE,
    explained_by: &[],
    check: missing,
};

/// The mapping lives shorter than the usual keepalive is made for.
pub const SHORT: Rule = Rule {
    code: "nat-mapping-short",
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "UDP mapping lifetime under the keepalive in use, or under 30 s",
    meaning: "The NAT on the way forgets a UDP flow sooner than others do: RFC 4787 asks for at least two minutes. The usual \
              keepalive of 25 s is too slow for it, so what comes in after a short silence is lost although a keepalive is set.",
    detection: "By silences of known length, after which something had to come in through the mapping: the longest that it outlived \
                and the shortest that it did not.",
    fix: "Set a `PersistentKeepalive` below the lifetime. Where the NAT is yours raise its time-out: on Linux \
          `net.netfilter.nf_conntrack_udp_timeout_stream`.",
    needs: PROBE,
    explained_by: &[],
    check: short,
};

fn measured<'a>(input: &Input<'a>) -> impl Iterator<Item = (&'a Probe, &'a Lifetime, f64)> + use<'a> {
    probes(input).filter_map(|p| {
        let lifetime = p.lifetime.as_ref()?;
        Some((p, lifetime, lifetime.dead_after_seconds?))
    })
}

fn missing(input: &Input<'_>) -> Vec<Finding> {
    measured(input)
        // Where nothing is configured, nothing is missing from it: options name no keepalive.
        .filter(|(p, ..)| p.target.device.is_some() || p.target.configured_transport.is_some())
        .filter(|(p, _, dead)| p.target.keepalive.is_none_or(|k| f64::from(k) >= *dead))
        .map(|(p, lifetime, dead)| {
            let mut f = report(MISSING.code, p, lifetime);
            f.title = format!(
                "The tunnel to {} needs a keepalive to be reached from there",
                place(p)
            );
            f.summary = format!(
                "The NAT on the way forgets it within {dead:.0} s of silence, and {}.",
                match p.target.keepalive {
                    Some(seconds) => format!("the keepalive comes each {seconds} s only"),
                    None => "no keepalive is set".to_owned(),
                }
            );
            f.impact = "What the peer sends after a silence is lost until this side sends.".to_owned();
            f
        })
        .collect()
}

fn short(input: &Input<'_>) -> Vec<Finding> {
    measured(input)
        .filter(|(.., dead)| *dead < SHORT_SECONDS)
        .map(|(p, lifetime, dead)| {
            let mut f = report(SHORT.code, p, lifetime);
            f.title = format!(
                "A NAT on the way to {} forgets UDP flows within {dead:.0} s",
                place(p)
            );
            f.summary = format!(
                "After {dead:.1} s of silence nothing came in any more{}.",
                match lifetime.alive_after_seconds {
                    Some(alive) => format!("; after {alive:.1} s it still did"),
                    None => String::new(),
                }
            );
            f.impact = "The usual keepalive of 25 s is too slow.".to_owned();
            f
        })
        .collect()
}

fn report(code: &'static str, probe: &Probe, lifetime: &Lifetime) -> Finding {
    let mut f = finding(code, (Severity::Warning, Confidence::Likely), probe);
    let keepalive = keepalive_for(lifetime);
    f.evidence = f
        .evidence
        .maybe("alive_after_seconds", lifetime.alive_after_seconds)
        .maybe("dead_after_seconds", lifetime.dead_after_seconds)
        .with("silences_tried", lifetime.tried.len() as u64)
        .maybe("configured_keepalive_seconds", probe.target.keepalive)
        .maybe("keepalive_to_set", keepalive);
    f.fixes = keepalive
        .map(|seconds| Fix {
            title: format!("Set PersistentKeepalive = {seconds} on this side"),
            why: "An empty packet that often keeps the mapping.".to_owned(),
            command: None,
            snippet: Some(format!(
                "[Peer]\nPublicKey = {}\nPersistentKeepalive = {seconds}",
                probe.target.public_key
            )),
            ..Fix::default()
        })
        .into_iter()
        .collect();
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Probed, codes, target};
    use super::*;
    use crate::observation::probe::{Fact, Target};

    fn found(alive: f64, dead: Option<f64>, keepalive: Option<u16>) -> Vec<Finding> {
        let mut probed = Probed::new();
        probed.next(Target {
            device: Some("wg0".to_owned()),
            keepalive,
            ..target()
        });
        probed.fact(Fact::Lifetime(Lifetime {
            alive_after_seconds: Some(alive),
            dead_after_seconds: dead,
            tried: vec![(alive, true)],
            error: None,
        }));
        [probed.check(&MISSING), probed.check(&SHORT)].concat()
    }

    #[test]
    fn what_the_nat_forgets_and_what_is_configured() {
        assert_eq!(codes(&found(28.0, Some(33.0), None)), ["wg-keepalive-missing"]);
        assert_eq!(codes(&found(28.0, Some(33.0), Some(25))), Vec::<&str>::new());
        let short = found(10.0, Some(12.0), Some(25));
        assert_eq!(codes(&short), ["wg-keepalive-missing", "nat-mapping-short"]);
        assert_eq!(
            short[0].evidence.get("keepalive_to_set").and_then(|v| v.as_u64()),
            Some(8)
        );
        assert_eq!(codes(&found(10.0, Some(12.0), Some(8))), ["nat-mapping-short"]);
        assert!(found(110.0, None, None).is_empty());
    }
}

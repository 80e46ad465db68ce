//! `wg-mtu-blackhole` at a live host: what is large is never answered, and what is small is.

use super::view::{View, views};
use crate::finding::Finding;
use crate::rules::captured::{BlackHole, MTU_BLACKHOLE};
use crate::rules::{Input, Rule};
use crate::wire::icmp::IcmpClass;

/// The rule.
pub const RULE: Rule = Rule {
    needs: &[super::DEVICES, &[crate::observation::Source::Capture]],
    check,
    ..MTU_BLACKHOLE
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    views(input)
        // With a part of the messages missing, "never answered" cannot be told.
        .filter(View::data_watched)
        .filter(|view| !says_too_big(view))
        .filter_map(|view| {
            let (tunnel, ours) = view.tunnel()?;
            let mtu = view.link().map(|link| link.mtu);
            let hole = BlackHole::of(input, tunnel, ours, mtu)?;
            let name = view.name();
            let mut finding = hole.finding(view.subject(), Some(name));
            for fix in &mut finding.fixes {
                fix.command = fix.command.take().map(|command| view.here(&command));
            }
            Some(finding)
        })
        .collect()
}

/// Whether a router said that a message of ours is too big: then it is no black hole, and the sender knows.
fn says_too_big(view: &View<'_>) -> bool {
    let Some(remote) = view.endpoint() else {
        return false;
    };
    view.world.handshakes.by_remote(remote).any(|conversation| {
        conversation
            .errors()
            .iter()
            .any(|e| e.about != remote && e.first.class() == IcmpClass::TooBig)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::observation::device::Implementation::Kernel;
    use crate::observation::packet::Sampling;
    use crate::observation::{Body, Source};

    const CODE: &str = "wg-mtu-blackhole";

    struct Case {
        small_answered: bool,
        large: u32,
        other: Option<u32>,
        renewed: bool,
        whole: bool,
        /// The peer's first word under the new session, in bytes.
        word: Option<u32>,
    }

    fn host(case: &Case) -> Host {
        let mut host = Host::new(Kernel);
        let one_in = if case.whole { 1 } else { 4 };
        host.see(0.0, Source::Capture, Body::Sampling(Sampling { one_in, lost: 0 }));
        host.routed(0.0).peer(0.0, peer_with(5_000, 5_000, Some(0.2)));
        host.call(0.1, 1).answered(0.2, 1);
        host.data_of(0.3, (US, PEER), 1001, 0, 96);
        if case.small_answered {
            host.data_of(0.4, (PEER, US), 1, 0, 96);
        }
        let mut counter = 1;
        for n in 0..60 {
            let secs = 1.0 + f64::from(n) * 0.4;
            let (index, began) = match case.renewed && secs > 16.5 {
                true => (1002, 16.5),
                false => (1001, 1.0),
            };
            if (secs - began).abs() < 0.4 && index == 1002 {
                host.call(16.4, 2).answered(16.45, 2);
                counter = 0;
                if let Some(len) = case.word {
                    host.data_of(16.46, (PEER, US), 2, 0, len);
                }
            }
            let len = case.other.filter(|_| n % 5 == 4).unwrap_or(case.large);
            host.data_of(secs, (US, PEER), index, counter, len);
            counter += 1;
        }
        host.until(26.0);
        host
    }

    #[test]
    fn large_ones_are_never_answered() {
        let hole = Case {
            word: None,
            small_answered: true,
            large: 1452,
            other: None,
            renewed: true,
            whole: true,
        };
        for (name, case, expected) in [
            ("a black hole", Case { ..hole }, true),
            (
                "nothing small was answered either",
                Case {
                    small_answered: false,
                    ..hole
                },
                false,
            ),
            ("they are small", Case { large: 160, ..hole }, false),
            (
                "small ones are among them",
                Case {
                    other: Some(96),
                    ..hole
                },
                false,
            ),
            (
                "the path itself may be dead",
                Case {
                    renewed: false,
                    ..hole
                },
                false,
            ),
            (
                "the peer confirms the new session with a keepalive",
                Case {
                    word: Some(32),
                    ..hole
                },
                true,
            ),
            (
                "the peer has something to say",
                Case {
                    word: Some(96),
                    ..hole
                },
                false,
            ),
            ("a part was not seen", Case { whole: false, ..hole }, false),
        ] {
            assert_eq!(host(&case).find(CODE).is_some(), expected, "{name}");
        }
        let finding = host(&hole).find(CODE).unwrap();
        assert_eq!(
            finding.evidence.get("smallest_unanswered_bytes"),
            Some(&1420.into())
        );
        assert_eq!(finding.evidence.get("mtu_to_set"), Some(&1280.into()));
        assert_eq!(finding.evidence.get("tunnel_mtu"), Some(&1420.into()));
    }
}

//! `wg-mtu-blackhole`: packets over a size vanish, and no ICMP says so.

use super::CAPTURE;
use super::view::{finding, peer, secs};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::handshake::IcmpNote;
use crate::track::sessions::{Run, Side, Tunnel};
use crate::wire::icmp::IcmpClass;

const CODE: &str = "wg-mtu-blackhole";

/// An MTU that every path that carries IPv6 carries, and nearly every other: IPv6's least (RFC 8200, section 5).
const SAFE_MTU: u32 = 1280;

/// After a new handshake an answer takes a round trip; this is ample.
const AFTER_HANDSHAKE: Span = Span::from_secs(3);

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "critical",
    holds_when: "the handshake and small packets pass, packets over a size do not, and no ICMP says so",
    meaning: "Somewhere on the way a link carries only smaller packets, and what should tell the sender so (ICMP \
              \"fragmentation needed\", \"packet too big\") is dropped or never sent. Handshakes, pings and the start of \
              a connection are small and pass; the first full packet vanishes, and so does each repetition. Programs see \
              connections that open and then hang.",
    detection: "Whoever receives data sends something within 10 s, if only an empty keepalive. So when for 15 s and longer \
                all that a side sends is large and nothing comes back, while a handshake (148 and 92 bytes) completes in \
                between, the way is open and the large packets are what it does not carry: likely. With two captures, one \
                on either side, it is counted which sizes arrive: certain.\n\n\
                A live host judges so from the lengths of the tunnel's outer packets, and only while it sees all of them. \
                Small packets that are answered at the same time hide it: then a probe with sizes tells. Where a router \
                does say that a packet is too big this is no black hole.",
    fix: "Lower the tunnel's MTU on both sides, to the number given or to 1280: `ip link set dev wg0 mtu N` now, `MTU = N` \
          in the [Interface] section for good. For TCP alone, clamping the MSS on the tunnel helps too. At its root: let \
          ICMP \"fragmentation needed\" pass the firewalls on the way.",
    needs: CAPTURE,
    explained_by: &["wg-endpoint-unreachable", "wg-duplicate-key"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let tunnels = input.world.sessions.tunnels().iter();
    tunnels
        .flat_map(|tunnel| [(tunnel, Side::First), (tunnel, Side::Second)])
        .filter(|(tunnel, _)| tunnel.aliases().len() == 0 && !told(input, tunnel))
        .filter_map(|(tunnel, side)| {
            let mtu = input.world.sessions.lengths(tunnel, side).mtu();
            let hole = BlackHole::of(input, tunnel, side, mtu)?;
            let [first, second] = tunnel.ends;
            let (from, to) = if side == Side::First {
                (first, second)
            } else {
                (second, first)
            };
            Some(hole.finding(peer(to, from), None))
        })
        .collect()
}

/// Whether a router told either side that something is too big.
fn told(input: &Input<'_>, tunnel: &Tunnel) -> bool {
    let [a, b] = tunnel.ends;
    let too_big = |note: &IcmpNote| note.class() == IcmpClass::TooBig;
    input
        .world
        .handshakes
        .conversation(Some(a), b)
        .is_some_and(|c| c.errors().iter().any(|e| too_big(&e.first)))
}

/// A run of large packets without an answer, on a path that is open.
pub struct BlackHole {
    run: Run,
    /// What at least passes, by an inner packet's length.
    passes: u32,
    /// When a handshake completed meanwhile.
    renewed: crate::time::Timestamp,
    mtu: Option<u32>,
    now: crate::time::Timestamp,
}

impl BlackHole {
    /// What `side` of `tunnel` suffers, if it does; `mtu` is its tunnel's, where known.
    pub fn of(input: &Input<'_>, tunnel: &Tunnel, side: Side, mtu: Option<u32>) -> Option<Self> {
        let world = input.world;
        let t = input.thresholds;
        let answers = world.sessions.answers(tunnel, side);
        // A handshake that the other side makes for the silence ends with a keepalive of its: that answers nothing, and
        // goes on with what was stalled before it.
        let said = world.sessions.last_payload(tunnel, side.other());
        let run = match answers
            .stalled
            .filter(|run| said.is_none_or(|said| said < run.since))
        {
            Some(stalled) => answers.open().map_or(stalled, |open| stalled.with(open)),
            None => answers.open()?,
        };
        let renewed = tunnel.newest_began().filter(|at| *at > run.since)?;
        let silent = said.is_none_or(|said| said < run.since);
        let holds = silent
            && run.count >= t.blackhole_messages
            && world.now - run.since >= t.one_way_after
            && run.shortest >= t.blackhole_min_bytes
            && run.shortest > answers.passes
            // The session that the handshake gave was used, and its data had time to be answered.
            && run.last > renewed
            && world.now - renewed >= AFTER_HANDSHAKE;
        holds.then_some(Self {
            run,
            passes: answers.passes,
            renewed,
            mtu,
            now: world.now,
        })
    }

    /// The MTU to set: a safe one where that is smaller than what does not pass, else what is known to pass.
    fn to_set(&self) -> Option<u32> {
        match self.run.shortest {
            shortest if shortest > SAFE_MTU => Some(SAFE_MTU),
            _ => (self.passes > 0).then_some(self.passes),
        }
    }

    /// The finding about `subject`; `device` is the tunnel's device where this host has it.
    pub fn finding(&self, subject: Subject, device: Option<&str>) -> Finding {
        let Self { run, .. } = self;
        let levels = (Severity::Critical, Confidence::Likely);
        let whom = match &subject {
            Subject::Peer {
                endpoint: Some(e), ..
            } => e.to_string(),
            _ => "the peer".to_owned(),
        };
        let mut f = finding(CODE, levels, subject, (run.since, self.now));
        f.title = format!("Large packets to {whom} vanish, small ones pass");
        f.summary = format!(
            "{} packets of {} bytes and more went out in {} and nothing came back, while a handshake completed in between. \
             {}",
            run.count,
            run.shortest,
            secs(self.now - run.since),
            match self.passes {
                0 => "How large a packet passes was not seen; handshake messages of 148 bytes do.".to_owned(),
                passes => format!("Packets of {passes} bytes were answered."),
            }
        );
        f.impact = "Connections through the tunnel open and then hang.".to_owned();
        f.evidence = Evidence::new()
            .with("unanswered_messages", run.count)
            .with("smallest_unanswered_bytes", run.shortest)
            .with("largest_unanswered_bytes", run.longest)
            .maybe("largest_answered_bytes", (self.passes > 0).then_some(self.passes))
            .with("silent_seconds", (self.now - run.since).as_secs_f64())
            .with("handshake_completed_at", self.renewed.to_string())
            .maybe("tunnel_mtu", self.mtu)
            .maybe("mtu_to_set", self.to_set());
        f.count = u32::try_from(run.count).unwrap_or(u32::MAX);
        f.fixes = vec![set_mtu(self.to_set(), device)];
        f
    }
}

/// Set the MTU to `mtu`, or find out which.
pub fn set_mtu(mtu: Option<u32>, device: Option<&str>) -> Fix {
    let Some(mtu) = mtu else {
        return Fix {
            title: "Lower the tunnel's MTU on both sides until large packets pass".to_owned(),
            why: "What passes was not seen; halve the difference to 576 until a connection no longer hangs."
                .to_owned(),
            ..Fix::default()
        };
    };
    Fix {
        title: format!("Set the tunnel's MTU to {mtu}, on both sides"),
        why: "Packets then fit; the change takes effect at once and interrupts nothing.".to_owned(),
        command: device.map(|name| format!("ip link set dev {} mtu {mtu}", crate::rules::shell::quote(name))),
        snippet: Some(format!("[Interface]\nMTU = {mtu}")),
        expect: Evidence::new().with("tunnel_mtu", mtu),
    }
}

#[cfg(test)]
mod tests {
    use super::super::one_way;
    use super::super::testing::{Wire, codes};
    use super::*;

    /// A sends `len` bytes each 400 ms from 1 s on, a handshake is made at 16.5 s; nothing comes back.
    fn wire(len: u32, renewed: bool) -> Wire {
        let mut wire = Wire::new();
        wire.initiation(0, 1).response(20, 1, 9);
        wire.data_of(100, 9, 0, 96);
        wire.data_back(120, 1, 0);
        for n in 0..60u32 {
            let at = 1_000 + i64::from(n) * 400;
            if renewed && n == 39 {
                wire.initiation(at - 100, 2).response(at - 80, 2, 10);
            }
            let (index, counter) = match renewed && n >= 39 {
                true => (10, n - 39),
                false => (9, n + 1),
            };
            wire.data_of(at, index, u64::from(counter), len);
        }
        wire
    }

    #[test]
    fn large_ones_are_a_black_hole_and_small_ones_one_way() {
        for (len, renewed, hole, deaf) in [
            (1452, true, 1, 1),
            (160, true, 0, 1),
            (1452, false, 0, 0),
            (160, false, 0, 0),
        ] {
            let mut wire = wire(len, renewed);
            let found = wire.check(&RULE, 26_000);
            assert_eq!(found.len(), hole, "{len} {renewed}: {found:?}");
            assert_eq!(wire.check(&one_way::RULE, 26_000).len(), deaf, "{len} {renewed}");
        }
        let mut wire = wire(1452, true);
        let found = wire.check(&RULE, 26_000);
        assert_eq!(codes(&found), [CODE]);
        assert_eq!(found[0].evidence.get("largest_answered_bytes"), Some(&64.into()));
        assert_eq!(found[0].evidence.get("mtu_to_set"), Some(&1280.into()));
    }
}

//! What two captures prove together: which way messages are lost between their places, which sizes, and what a NAT there
//! does. Codes keep their meaning; these findings are certain where one capture's are hints.

use super::mtu_blackhole::set_mtu;
use super::view::{count, finding, peer, secs};
use super::{CAPTURE, MTU_BLACKHOLE, NAT_REBINDING};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::rules::{Input, Rule, tunnel};
use crate::time::Timestamp;
use crate::track::places::{Comparison, Direction, Link, Passage};

/// The rules, causes before symptoms.
pub const RULES: &[Rule] = &[
    Rule {
        needs: CAPTURE,
        check: response_lost,
        explained_by: &[],
        ..super::response_lost::RULE
    },
    Rule {
        needs: CAPTURE,
        check: handshake_timeout,
        explained_by: &[],
        ..tunnel::HANDSHAKE_TIMEOUT
    },
    Rule {
        needs: CAPTURE,
        check: mtu_blackhole,
        explained_by: &[],
        ..MTU_BLACKHOLE
    },
    Rule {
        needs: CAPTURE,
        check: one_way,
        explained_by: &["wg-handshake-timeout", "wg-response-lost", "wg-mtu-blackhole"],
        ..tunnel::ONE_WAY
    },
    Rule {
        needs: CAPTURE,
        check: nat_rebinding,
        explained_by: &[],
        ..NAT_REBINDING
    },
];

/// Every link with which way is which.
fn links<'a>(input: &Input<'a>) -> impl Iterator<Item = (&'a Comparison, &'a Link)> + use<'a> {
    let places = input.world.places.as_ref();
    places
        .into_iter()
        .flat_map(|c| c.links.iter().filter(|l| l.oriented).map(move |l| (c, l)))
}

const BOTH: [Direction; 2] = [Direction::Onward, Direction::Back];

/// Who sends in this direction, and who receives, as the first place sees them.
fn parties(link: &Link, direction: Direction) -> (std::net::SocketAddr, std::net::SocketAddr) {
    let [near, far] = link.ends;
    match direction {
        Direction::Onward => (near, far),
        Direction::Back => (far, near),
    }
}

/// A link's evidence that every finding here has.
fn common(link: &Link, direction: Direction) -> Evidence {
    let [near, far] = link.ends_at_second.unwrap_or(link.ends);
    Evidence::new()
        .with(
            "lost_way",
            match direction {
                Direction::Onward => "from the first capture to the second",
                Direction::Back => "from the second capture to the first",
            },
        )
        .with("first_sees", link.ends.map(|e| e.to_string()).to_vec())
        .with("second_sees", vec![near.to_string(), far.to_string()])
        .with("messages_in_common", link.common)
}

fn span_of(passage: &Passage, input: &Input<'_>) -> (Timestamp, Timestamp) {
    let from = passage.lost_from.unwrap_or(input.world.started);
    (from, passage.lost_until.unwrap_or(input.world.now))
}

/// How sure a loss is: beyond the other capture's last packet it may have ended.
fn confidence(passage: &Passage) -> Confidence {
    match passage.lost() {
        0 => Confidence::Likely,
        _ => Confidence::Certain,
    }
}

fn response_lost(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    let each = links(input).flat_map(|(_, link)| BOTH.map(|d| (link, d)));
    each.filter_map(|(link, way)| {
        let passage = link.passage(way);
        let asked = link.passage(opposite(way));
        // Some that arrive are loss, of which the report's table tells; none is a wall.
        let lost = passage.responses - passage.responses_arrived;
        let holds = lost >= needed && passage.responses_arrived == 0 && asked.initiations_arrived >= needed;
        holds.then(|| {
            let (responder, initiator) = parties(link, way);
            let levels = (Severity::Critical, Confidence::Certain);
            let mut f = finding(
                "wg-response-lost",
                levels,
                peer(responder, initiator),
                span_of(passage, input),
            );
            f.count = u32::try_from(lost).unwrap_or(u32::MAX);
            f.title = format!("{responder} answers, and its responses do not reach {initiator}");
            f.summary = format!(
                "{} of {initiator} arrived and were answered; {} between the two captures, on the way back.",
                count(asked.initiations_arrived, "initiation"),
                match lost {
                    1 => "the response was lost".to_owned(),
                    n => format!("all {n} responses were lost"),
                }
            );
            f.impact = "No session comes up between the two.".to_owned();
            f.evidence = common(link, way)
                .with("initiations_arrived", asked.initiations_arrived)
                .with("responses_sent", passage.responses)
                .with("responses_arrived", passage.responses_arrived);
            f.fixes = vec![between(
                "Let UDP from the responder's port pass on the way back",
                "Both hosts do their part: what lies between the captures drops the answers.",
            )];
            f
        })
    })
    .collect()
}

fn opposite(way: Direction) -> Direction {
    match way {
        Direction::Onward => Direction::Back,
        Direction::Back => Direction::Onward,
    }
}

fn between(title: &str, why: &str) -> Fix {
    Fix {
        title: title.to_owned(),
        why: why.to_owned(),
        ..Fix::default()
    }
}

/// Initiations that do not arrive, or that arrive and are not answered.
fn handshake_timeout(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    let each = links(input).flat_map(|(_, link)| BOTH.map(|d| (link, d)));
    each.filter_map(|(link, way)| {
        let passage = link.passage(way);
        let answers = link.passage(opposite(way));
        let lost = passage.initiations - passage.initiations_arrived;
        let (initiator, responder) = parties(link, way);
        let levels = (Severity::Critical, Confidence::Certain);
        let subject = peer(responder, initiator);
        let evidence = common(link, way)
            .with("initiations_sent", passage.initiations)
            .with("initiations_arrived", passage.initiations_arrived)
            .with("responses_sent", answers.responses);
        let mut f = finding("wg-handshake-timeout", levels, subject, span_of(passage, input));
        f.title = format!("{initiator} gets no handshake answer from {responder}");
        f.impact = "Nothing passes between the two when the session before is 180 s old.".to_owned();
        f.evidence = evidence;
        if lost >= needed && passage.initiations_arrived == 0 {
            f.count = u32::try_from(lost).unwrap_or(u32::MAX);
            f.summary = format!(
                "{} left and none arrived: all were lost between the two captures, on the way to the responder.",
                count(passage.initiations, "initiation")
            );
            f.fixes = vec![between(
                "Let UDP to the responder's port pass",
                "The responder never hears the initiator: what lies between the captures drops it.",
            )];
            return Some(f);
        }
        let silent = passage.initiations_arrived >= needed && answers.responses == 0 && lost == 0;
        // A responder that answered would be in its own capture: this is its keys' or its clock's doing.
        let heard = answers.data > 0 || passage.data > 0;
        if silent && !heard {
            f.count = u32::try_from(passage.initiations_arrived).unwrap_or(u32::MAX);
            (f.first_seen, f.last_seen) = (input.world.started, input.world.now);
            f.summary = format!(
                "{} arrived, and no response left: the way there is open, and the responder does not accept them.",
                count(passage.initiations_arrived, "initiation")
            );
            f.candidates = not_accepted();
            f.fixes = vec![Fix {
                title: "Give `--keys` the responder's configuration".to_owned(),
                why: "Its private key opens who calls and with which clock: that tells which of these it is.".to_owned(),
                ..Fix::default()
            }];
            return Some(f);
        }
        None
    })
    .collect()
}

fn not_accepted() -> Vec<Candidate> {
    [
        (
            "the initiator has another public key for the responder",
            "wg-wrong-peer-key",
        ),
        (
            "the responder does not know the initiator's key",
            "wg-unknown-initiator",
        ),
        (
            "the initiator's clock went back, so its messages look like replays",
            "wg-clock-replay",
        ),
    ]
    .map(|(cause, code)| Candidate {
        cause: cause.to_owned(),
        code: Some(code),
        settle: "`wgnat analyze --keys` with the responder's configuration".to_owned(),
    })
    .into()
}

fn mtu_blackhole(input: &Input<'_>) -> Vec<Finding> {
    let needed = input.thresholds.blackhole_messages;
    let least = input.thresholds.blackhole_min_bytes;
    let each = links(input).flat_map(|(_, link)| BOTH.map(|d| (link, d)));
    each.filter_map(|(link, way)| {
        let passage = link.passage(way);
        let size = passage.size?;
        // All that is lost is larger than all that arrives.
        let holds = size.lost_above >= needed
            && size.smallest_lost > size.largest_arrived
            && size.smallest_lost >= least
            && size.arrived >= needed;
        holds.then(|| {
            let (from, to) = parties(link, way);
            let levels = (Severity::Critical, Confidence::Certain);
            let mut f = finding("wg-mtu-blackhole", levels, peer(to, from), span_of(passage, input));
            f.count = u32::try_from(size.lost_above).unwrap_or(u32::MAX);
            f.title = format!("Packets over {} bytes from {from} to {to} vanish", size.largest_arrived);
            f.summary = format!(
                "Of {from}'s packets all up to {} bytes arrived at the other capture ({}), and all from {} bytes on were lost \
                 on the way ({}).",
                size.largest_arrived, size.arrived, size.smallest_lost, size.lost_above
            );
            f.impact = "Connections through the tunnel open and then hang.".to_owned();
            let mtu = match size.smallest_lost {
                lost if lost > 1280 && size.largest_arrived < 1280 => 1280,
                _ => size.largest_arrived,
            };
            f.evidence = common(link, way)
                .with("largest_arrived_bytes", size.largest_arrived)
                .with("smallest_lost_bytes", size.smallest_lost)
                .with("largest_lost_bytes", size.largest_lost)
                .with("lost", size.lost_above)
                .with("arrived", size.arrived)
                .with("mtu_to_set", mtu);
            f.fixes = vec![set_mtu(Some(mtu), None)];
            f
        })
    })
    .collect()
}

/// From some moment on nothing arrives one way, while the other way is open.
fn one_way(input: &Input<'_>) -> Vec<Finding> {
    let needed = input.thresholds.blackhole_messages;
    let each = links(input).flat_map(|(_, link)| BOTH.map(|d| (link, d)));
    each.filter_map(|(link, way)| {
        let passage = link.passage(way);
        let other = link.passage(opposite(way));
        let lost = passage.data - passage.data_arrived + passage.after_end;
        let from = passage.lost_from.or(passage.arrived_until)?;
        // Nothing arrived any more after the first was lost.
        let walled = passage.arrived_until.is_none_or(|last| last <= from);
        let open = other.arrived_until.is_some_and(|last| last > from);
        let holds = lost >= needed && walled && open && passage.initiations == passage.initiations_arrived;
        holds.then(|| {
            let (sender, receiver) = parties(link, way);
            let levels = (Severity::Critical, confidence(passage));
            let mut f = finding(
                "wg-one-way",
                levels,
                peer(receiver, sender),
                (from, input.world.now),
            );
            f.count = u32::try_from(lost).unwrap_or(u32::MAX);
            f.title = format!("Nothing from {sender} reaches {receiver} any more");
            f.summary = format!(
                "{} of {sender} passed its capture and not the other one; the way back is open.{}",
                count(lost, "data message"),
                match passage.after_end {
                    0 => String::new(),
                    n => format!(
                        " {n} of them after the other capture's last packet, which may have ended then."
                    ),
                }
            );
            f.impact = "Connections through the tunnel time out.".to_owned();
            f.evidence = common(link, way)
                .with("data_sent", passage.data)
                .with("data_arrived", passage.data_arrived)
                .with("not_seen_after_the_other_captures_end", passage.after_end);
            f.fixes = vec![between(
                "Find what lies between the two captures and drops one direction",
                "Both hosts send: a capture at each hop halves the way.",
            )];
            f
        })
    })
    .collect()
}

fn nat_rebinding(input: &Input<'_>) -> Vec<Finding> {
    let after = input.thresholds.rebinding_after;
    links(input)
        .filter_map(|(_, link)| {
            let changes: Vec<_> = link
                .remapped()
                .filter(|(b, a)| b.second.ip() == a.second.ip() && a.silence.is_some_and(|s| s >= after))
                .collect();
            let (_, first) = changes.first()?;
            let (before, last) = changes.last()?;
            let silence = last.silence?;
            let [near, far] = link.ends_at_second?;
            let subject = Subject::Peer {
                device: None,
                public_key: None,
                endpoint: Some(last.second),
                local: Some(if last.second == near { far } else { near }),
            };
            let levels = (Severity::Warning, Confidence::Certain);
            let mut f = finding("wg-nat-rebinding", levels, subject, (first.from, last.from));
            f.count = u32::try_from(changes.len()).unwrap_or(u32::MAX);
            f.title = format!("The NAT between gave {} another port after {}", last.first, secs(silence));
            f.summary = format!(
                "{} stayed where it is; at the other capture it was {} and, after {} in which it sent nothing, is {}.",
                last.first,
                before.second,
                secs(silence),
                last.second
            );
            f.impact = "Between the two nothing could reach it.".to_owned();
            f.evidence = Evidence::new()
                .with("inside", last.first.to_string())
                .with("old_mapping", before.second.to_string())
                .with("new_mapping", last.second.to_string())
                .with("silence_seconds", silence.as_secs_f64())
                .with("rebindings", changes.len());
            f.fixes = vec![Fix {
                title: format!("On {}'s host, send a keepalive every 25 s", last.first),
                why: format!("The mapping did not outlive {}.", secs(silence)),
                snippet: Some("[Peer]\nPersistentKeepalive = 25".to_owned()),
                ..Fix::default()
            }];
            Some(f)
        })
        .collect()
}

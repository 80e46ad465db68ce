//! `fly-6pn-unreachable`: no machine of the organisation answers over the private network.

use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::path::Failure;
use crate::rules::{Area, Input, Rule};
use crate::track::paths::Path;
use crate::words::counted;

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-6pn-unreachable",
    area: Area::Fly,
    severity: "warning",
    holds_when: "several other machines of the organisation are measured over the private network (6PN), and none answers",
    meaning: "Machines of an organisation reach each other over 6PN, a mesh of WireGuard tunnels between Fly's hosts. Where not one of several \
              machines answers, it is this machine's place in that mesh that fails, or a policy, and not the others.",
    detection: "ICMP echo to at least two machines that `_instances.internal` lists, three attempts or more each, all lost, and whatever was \
                asked over 6PN besides. A machine's kernel answers an echo by itself; a network policy may keep it from doing so, which is \
                the other cause that is listed. One machine that is silent is a `path-loss` of its own.",
    fix: "Ask over TCP whether only ICMP is kept out (`wgnat path tcp:APP.internal:PORT`); look at the organisation's network policies; move the \
          machine to another host (`fly machine clone`).",
    needs: &[&[Source::Paths]],
    explained_by: &[],
    check,
};

/// Attempts at each machine that make its silence mean something.
const LEAST: u32 = 3;

/// The machines, where there are several and all are silent.
pub fn silent<'a>(input: &Input<'a>) -> Vec<&'a Path> {
    let world = input.world;
    let siblings: Vec<&Path> = world
        .paths
        .iter()
        .filter(|p| p.sample.sibling.is_some())
        .collect();
    let is_silent = |path: &&Path| path.now.answered == 0 && path.now.lost >= LEAST;
    if siblings.len() >= 2 && siblings.iter().all(is_silent) {
        siblings
    } else {
        Vec::new()
    }
}

fn check(input: &Input<'_>) -> Vec<Finding> {
    let silent = silent(input);
    let (Some(newest), Some(first)) = (silent.iter().map(|p| p.at).max(), silent.first()) else {
        return Vec::new();
    };
    let lost: u32 = silent.iter().map(|p| p.now.lost).sum();
    let mut regions: Vec<&str> = silent
        .iter()
        .filter_map(|p| Some(p.sample.sibling.as_ref()?.region.as_str()))
        .collect();
    regions.sort_unstable();
    regions.dedup();
    let refuser = silent
        .iter()
        .flat_map(|p| &p.sample.failures)
        .find_map(|(f, _)| match f {
            Failure::Unreachable { from, says } => Some((*from, says.as_str())),
            _ => None,
        });
    let mut summary = format!(
        "{} in {} were asked over 6PN, and none of {} was answered.",
        counted(silent.len() as u64, "other machine", "other machines"),
        regions.join(", "),
        counted(lost, "attempt", "attempts")
    );
    if let Some((from, says)) = refuser {
        let who = from.map_or_else(|| "This machine's kernel".to_owned(), |from| from.to_string());
        summary.push_str(&format!(" {who} says “{says}”."));
    }
    let target = first
        .sample
        .address
        .map_or_else(|| first.sample.target.to_string(), |ip| ip.to_string());
    vec![Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        title: "No other machine answers over the private network (6PN)".to_owned(),
        subject: Subject::Path {
            target: "6pn".to_owned(),
            address: None,
        },
        summary,
        evidence: Evidence::new()
            .with("machines", silent.len())
            .with("answering", 0)
            .with("attempts", lost)
            .with("regions", regions.join(" "))
            .maybe("icmp_says", refuser.map(|(_, says)| says)),
        impact: "Connections to other apps and machines by .internal names fail.".to_owned(),
        candidates: vec![
            Candidate {
                cause: "This machine's host has lost its place in Fly's mesh, or its 6PN address is stale"
                    .to_owned(),
                code: None,
                settle:
                    "from another machine: ping this one's FLY_PRIVATE_IP; Fly's status page and infra log"
                        .to_owned(),
            },
            Candidate {
                cause: "A network policy lets ICMP neither out nor in".to_owned(),
                code: Some("fly-egress-policy"),
                settle: format!("wgnat path tcp:[{target}]:PORT of a port that it serves"),
            },
            Candidate {
                cause: "This machine's own firewall or routes".to_owned(),
                code: None,
                settle: format!("ip -6 route get {target}; nft list ruleset"),
            },
        ],
        fixes: vec![Fix {
            title: "See whether only ICMP is kept out, and which way packets leave".to_owned(),
            why: "A way that leads elsewhere than to eth0 is this machine's own doing.".to_owned(),
            command: Some(format!("ip -6 route get {target}\nwgnat path --fly-mesh --hops")),
            ..Fix::default()
        }],
        first_seen: newest,
        last_seen: newest,
        count: lost,
    }]
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;

    #[test]
    fn only_where_all_of_several_are_silent() {
        let scene = |siblings: &[(u32, u32)]| {
            let mut scene = Scene::fly(&["fdaa::3"]);
            for (n, (answered, lost)) in (1..).zip(siblings) {
                scene = scene.sibling(&format!("fdaa::{n}"), *answered, *lost);
            }
            scene
        };
        for (siblings, expected) in [
            (&[(0, 5), (0, 5)][..], true),
            (&[(0, 5)], false),
            (&[(0, 5), (1, 4)], false),
            (&[(0, 5), (0, 2)], false),
            (&[(5, 0), (5, 0)], false),
            (&[], false),
        ] {
            assert_eq!(
                scene(siblings).check(&RULE).len(),
                usize::from(expected),
                "{siblings:?}"
            );
            let loss = crate::rules::registry::find("path-loss").unwrap();
            if expected {
                assert!(scene(siblings).check(loss).is_empty(), "told once");
            }
        }
    }
}

//! `dns-slow`: a name server answers slowly, or not each time.

use super::{PATHS, finding, resolvers, seconds, told};
use crate::finding::{Confidence, Evidence, Finding, Fix};
use crate::observation::path::Failure;
use crate::rules::{Area, Input, Rule};
use crate::track::paths::Path;
use crate::words::{count, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "dns-slow",
    area: Area::Paths,
    severity: "warning",
    holds_when: "a name server takes long to answer, or leaves questions unanswered that it answers when asked again",
    meaning: "Each new connection to a name begins with a question to the name server. A slow answer is added to every one of them; a \
              lost one costs the resolver's time-out, five seconds by the C library's default.",
    detection: "Questions to each server by itself. The median of the answers against a threshold, and the share of lost questions with \
                its 95 % interval. The same name is asked for each time, so that the server's cache holds it after the first: what is slow \
                then is the server or the way, not the name.",
    fix: "A cache on the host (systemd-resolved, unbound, dnsmasq) answers from memory what was asked before. For lost questions look at \
          the path to the server (`wgnat path dns:NAME@SERVER SERVER`).",
    needs: PATHS,
    explained_by: &["dns-failing", "path-loss"],
    check,
};

/// Answers that make a median.
const LEAST: usize = 3;
/// Lost questions that are more than chance's.
const LOST: u32 = 2;

fn check(input: &Input<'_>) -> Vec<Finding> {
    resolvers(input)
        .filter_map(|(path, server)| judge(input, path, server))
        .collect()
}

fn judge(input: &Input<'_>, path: &Path, server: std::net::SocketAddr) -> Option<Finding> {
    let median = path.now.median.filter(|_| path.sample.rtts.0.len() >= LEAST)?;
    let lost: u32 = path
        .sample
        .failures
        .iter()
        .filter(|(failure, _)| *failure == Failure::Timeout)
        .map(|(_, n)| n)
        .sum();
    let loses = lost >= LOST
        && path
            .now
            .loss()
            .is_some_and(|(_, low, _)| low > input.thresholds.path_loss_share);
    let slow = median >= input.thresholds.dns_slow;
    if !slow && !loses {
        return None;
    }
    let mut f = finding(RULE.code, path, Confidence::Certain);
    f.title = match (slow, loses) {
        (true, _) => format!("The name server {} answers in {}", server.ip(), told(median)),
        _ => format!("The name server {} leaves questions unanswered", server.ip()),
    };
    f.summary = format!(
        "{} of {} questions for {} were answered, with a median of {}{}.",
        count(u32::try_from(path.sample.rtts.0.len()).unwrap_or(u32::MAX)),
        count(path.sample.sent),
        path.sample.target.host,
        told(median),
        if lost > 0 {
            format!(
                "; {} got no answer, which costs a program the resolver's time-out",
                count(lost)
            )
        } else {
            String::new()
        },
    );
    f.evidence = Evidence::new()
        .with("answer_median_seconds", seconds(median))
        .maybe("answer_max_seconds", path.now.max.map(seconds))
        .with("questions", path.sample.sent)
        .with("lost", lost)
        .maybe("loss_share", path.now.loss().map(|(share, _, _)| rounded(share)))
        .with("system_resolver", path.sample.system_resolver);
    f.impact = format!(
        "Every new connection to a name waits {} or more for its address.",
        told(median)
    );
    f.fixes = vec![Fix {
        title: "Cache answers on this host".to_owned(),
        why: "What was asked before is then answered from memory.".to_owned(),
        command: Some("systemctl enable --now systemd-resolved    # or unbound, dnsmasq".to_owned()),
        ..Fix::default()
    }];
    Some(f)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Paths, failures};
    use super::*;

    #[test]
    fn slow_or_forgetful_servers_are_named_and_quick_ones_are_not() {
        for (ms, lost, fires) in [(200, 0, true), (20, 0, false), (20, 1, false), (20, 4, true)] {
            let found = Paths::new()
                .system("10.0.0.1", 10 - lost, ms, &failures(Failure::Timeout, lost))
                .check(&RULE);
            assert_eq!(!found.is_empty(), fires, "{ms} ms, {lost} lost");
        }
    }
}

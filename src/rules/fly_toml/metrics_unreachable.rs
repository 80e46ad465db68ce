//! `fly-toml-metrics-unreachable`: Fly is told to scrape the agent, and cannot.

use std::net::SocketAddr;

use super::{FLY_TOML, finding, lines, read};
use crate::finding::{Candidate, Confidence, Finding, Fix, Severity};
use crate::observation::fly_toml::{FlyTomlFacts, Metrics, belongs};
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-metrics-unreachable",
    area: Area::Fly,
    severity: "warning",
    holds_when: "a metrics section names the agent's port, and the agent listens on loopback, serves another path, or no TLS",
    meaning: "Fly's Prometheus scrapes a machine from outside, over the private network (6PN). The agent listens on 127.0.0.1 unless told \
              otherwise, serves `/metrics`, and speaks plain HTTP. Where the section says something else, nothing is collected, and nobody \
              says so.",
    detection: "The section's port against where the agent listens: `--listen` in the group's command, `WGNAT_LISTEN` in `[env]`, else \
                wgnat's own settings. Where only the last is known the finding is possible: an image's entry point may say otherwise.",
    fix: "Let the agent listen on `[::]:9986`, with a token for all but /metrics and health; no service may have that port, so that only the \
          private network reaches it.",
    needs: FLY_TOML,
    explained_by: &[],
    check,
};

/// What the agent serves.
const PATH: &str = "/metrics";

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    facts
        .file
        .metrics
        .iter()
        .filter_map(|metrics| judge(input, facts, metrics))
        .collect()
}

/// Where the agent listens that `metrics` would scrape, and whether this file says so.
fn listens(facts: &FlyTomlFacts, metrics: &Metrics) -> (SocketAddr, bool) {
    let file = &facts.file;
    let told = file
        .group_names()
        .into_iter()
        .filter(|group| belongs(&metrics.groups, group))
        .find_map(|group| file.listen_of(group));
    told.map_or((facts.agent_listen, false), |listen| (listen, true))
}

fn judge(input: &Input<'_>, facts: &FlyTomlFacts, metrics: &Metrics) -> Option<Finding> {
    let (listen, told) = listens(facts, metrics);
    let port = metrics.port.filter(|port| port.value == listen.port())?;
    let path = metrics.path.as_ref().filter(|path| path.value != PATH);
    let https = metrics.https.filter(|https| https.value);
    let loopback = listen.ip().to_canonical().is_loopback();
    let mut wrong = Vec::new();
    let mut fixes = Vec::new();
    if loopback {
        wrong.push(format!(
            "the agent listens on {listen}, which only the machine itself reaches"
        ));
        fixes.push(fix_listen(listen.port()));
    }
    if let Some(path) = path {
        wrong.push(format!(
            "the path in line {} is {}, and the agent's {PATH}",
            path.line, path.value
        ));
        fixes.push(lines(
            format!("The agent's path, in line {}", path.line),
            "It serves metrics there only.",
            format!("  path = \"{PATH}\""),
        ));
    }
    if let Some(https) = https {
        wrong.push(format!(
            "line {} asks for TLS, which the agent does not speak",
            https.line
        ));
        fixes.push(lines(
            format!("Plain HTTP, in line {}", https.line),
            "The private network is encrypted by itself (WireGuard).",
            "  https = false",
        ));
    }
    if wrong.is_empty() {
        return None;
    }
    // What is wrong in the file itself is certain.
    let certain = told || path.is_some() || https.is_some();
    let confidence = if certain {
        Confidence::Certain
    } else {
        Confidence::Possible
    };
    let mut f = finding(input, RULE.code, facts, port.line, Severity::Warning, confidence);
    f.title = format!("Fly cannot scrape the agent on port {}", port.value);
    f.summary = format!(
        "[metrics] (line {}) names the agent's port {}, but {}.",
        metrics.line,
        port.value,
        wrong.join("; and ")
    );
    f.evidence = f
        .evidence
        .with("port", port.value)
        .with("listen", listen.to_string());
    f.impact = "No metrics of wgnat reach Fly's Prometheus.".to_owned();
    if !certain {
        f.candidates = vec![Candidate {
            cause: "Nothing tells the agent to listen elsewhere".to_owned(),
            code: None,
            settle: format!("in the machine: ss -Htln 'sport = :{}'", listen.port()),
        }];
    }
    f.fixes = fixes;
    Some(f)
}

/// Beyond loopback the agent asks for a token, and Fly's scraper has none: /metrics needs none.
pub(super) fn fix_listen(port: u16) -> Fix {
    Fix {
        command: Some(
            "fly secrets set WGNAT_TOKEN=\"$(head -c 24 /dev/urandom | base64 | base64)\"    # a file's secret is base64".to_owned(),
        ),
        ..lines(
            "Let the agent listen on the private network",
            "/metrics, /healthz and /readyz are open to the organisation's machines then; all else asks for the token. Give no service this \
             port.",
            format!(
                "[env]\n  WGNAT_LISTEN = \"[::]:{port}\"\n  WGNAT_TOKEN_FILE = \"/etc/wgnat/token\"\n\n[[files]]\n  guest_path = \
                 \"/etc/wgnat/token\"\n  secret_name = \"WGNAT_TOKEN\""
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, found};
    use super::*;

    #[test]
    fn what_keeps_fly_from_scraping() {
        for (toml, expected) in [
            (
                "[metrics]\nport = 9986\npath = \"/metrics\"\n",
                Some(Confidence::Possible),
            ),
            ("[metrics]\nport = 9986\n", Some(Confidence::Possible)),
            (
                "[env]\nWGNAT_LISTEN = \"127.0.0.1:9000\"\n[metrics]\nport = 9000\n",
                Some(Confidence::Certain),
            ),
            (
                "[env]\nWGNAT_LISTEN = \"[::]:9986\"\n[metrics]\nport = 9986\npath = \"/prom\"\n",
                Some(Confidence::Certain),
            ),
            (
                "[env]\nWGNAT_LISTEN = \"0.0.0.0:9986\"\n[[metrics]]\nport = 9986\nhttps = true\n",
                Some(Confidence::Certain),
            ),
            (
                "[env]\nWGNAT_LISTEN = \"[::]:9986\"\n[metrics]\nport = 9986\npath = \"/metrics\"\nhttps = false\n",
                None,
            ),
            (
                "[processes]\nweb = \"sh -c 'wgnat agent --listen [::]:9986 & exec node x'\"\n[metrics]\nport = 9986\n",
                None,
            ),
            ("[metrics]\nport = 9091\npath = \"/prom\"\n", None),
            ("app = \"x\"\n", None),
        ] {
            let found = found(&RULE, toml);
            assert_eq!(found.first().map(|f| f.confidence), expected, "{toml}");
        }
    }

    #[test]
    fn wgnat_s_own_settings_count_where_the_file_says_nothing() {
        let with = |listen: &str| {
            Scene::new("[metrics]\nport = 9986\n")
                .agent_listen(listen)
                .check(&RULE)
                .len()
        };
        assert_eq!(
            (with("127.0.0.1:9986"), with("[::]:9986"), with("127.0.0.1:9000")),
            (1, 0, 0)
        );
    }

    #[test]
    fn the_lines_to_add_make_it_reachable() {
        let toml = "[metrics]\nport = 9986\n";
        let snippet = found(&RULE, toml)[0].fixes[0].snippet.clone().unwrap();
        assert!(found(&RULE, &format!("{toml}{snippet}\n")).is_empty());
    }
}

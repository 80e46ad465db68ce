//! Findings, collectors, the host, and the agent's own cost.

use super::{Family, count, seconds, yes};
use crate::finding::{Finding, Severity};
use crate::observation::SourceState;
use crate::report::agent::AgentStats;
use crate::report::unseen::is_unseen;
use crate::report::{Report, Status};

pub(super) fn families(report: &Report, stats: &AgentStats) -> Vec<Family> {
    let mut all = vec![
        Family::info("wgnat_build", "The version of wgnat.")
            .with(vec![("version", report.version.clone())], 1.0),
        status(report),
        findings(report),
        unconfirmed(report),
        begun(stats),
        not_checked(report),
    ];
    all.extend(collectors(report, stats));
    all.extend(host(report));
    all.extend(own(report, stats));
    all
}

fn status(report: &Report) -> Family {
    let mut family = Family::gauge(
        "wgnat_status",
        "The verdict: 1 for the one that holds, 0 for the others.",
    );
    for status in [Status::Ok, Status::Warning, Status::Critical, Status::Unknown] {
        let holds = yes(report.status == status);
        family.add(vec![("status", status.name().to_owned())], holds);
    }
    family
}

/// Counts, not subjects: these are unbounded, and `/api/v1/findings` tells them.
fn findings(report: &Report) -> Family {
    let mut family = Family::gauge(
        "wgnat_findings",
        "Findings that hold now, by code and severity; explained: another finding is their cause. With those that cannot be looked for any more.",
    );
    let mut counts = std::collections::BTreeMap::<(&str, Severity, bool), u64>::new();
    let mut add = |finding: &Finding, explained| {
        *counts
            .entry((finding.code, finding.severity, explained))
            .or_default() += 1;
    };
    report.findings.iter().for_each(|f| add(f, false));
    report.suppressed.iter().for_each(|s| add(&s.finding, true));
    for ((code, severity, explained), n) in counts {
        let labels = vec![
            ("code", code.to_owned()),
            ("severity", severity.name().to_owned()),
            ("explained", explained.to_string()),
        ];
        family.add(labels, count(n));
    }
    family
}

/// They are among the others: an alert must not resolve because a source went blind.
fn unconfirmed(report: &Report) -> Family {
    let mut family = Family::gauge(
        "wgnat_findings_unconfirmed",
        "Findings that held when last looked for, and for which nobody can look now: what would tell them cannot be observed.",
    );
    let folded = report.suppressed.iter().map(|s| &s.finding);
    let mut counts = std::collections::BTreeMap::<(&str, Severity), u64>::new();
    for finding in report.findings.iter().chain(folded).filter(|f| is_unseen(f)) {
        *counts.entry((finding.code, finding.severity)).or_default() += 1;
    }
    for ((code, severity), n) in counts {
        let labels = vec![
            ("code", code.to_owned()),
            ("severity", severity.name().to_owned()),
        ];
        family.add(labels, count(n));
    }
    family
}

fn begun(stats: &AgentStats) -> Family {
    let mut family = Family::counter(
        "wgnat_findings_begun",
        "Findings that began or came back after they were over, by code and severity.",
    );
    for (code, severity, n) in &stats.totals.findings {
        let labels = vec![
            ("code", (*code).to_owned()),
            ("severity", severity.name().to_owned()),
        ];
        family.add(labels, count(*n));
    }
    family
}

fn not_checked(report: &Report) -> Family {
    let n = report.not_checked.len() as u64;
    Family::gauge(
        "wgnat_rules_not_checked",
        "Rules that could be neither found to hold nor ruled out, because a source sees nothing.",
    )
    .with(Vec::new(), count(n))
}

fn collectors(report: &Report, stats: &AgentStats) -> Vec<Family> {
    let mut state = Family::gauge(
        "wgnat_collector_state",
        "How well a source sees: 1 for the state that holds (ok, degraded or unavailable), 0 for the others.",
    );
    let mut lost = Family::counter(
        "wgnat_collector_lost_events",
        "Events that a source knows it lost.",
    );
    for (source, status) in &report.collectors {
        let label = || ("collector", source.name().to_owned());
        for (name, candidate) in [
            ("ok", SourceState::Ok),
            ("degraded", SourceState::Degraded),
            ("unavailable", SourceState::Unavailable),
        ] {
            let holds = yes(status.state == candidate);
            state.add(vec![label(), ("state", name.to_owned())], holds);
        }
        lost.add(vec![label()], count(status.lost));
    }
    let mut cost = Family::counter("wgnat_collector_cpu_seconds", "CPU time that a source has used.");
    for (source, span) in &stats.costs {
        cost.add(vec![("collector", source.name().to_owned())], span.as_secs_f64());
    }
    let mut restarts = Family::counter(
        "wgnat_collector_restarts",
        "Times that a source failed or could not begin, and was started anew.",
    );
    for (source, n) in &stats.restarts {
        restarts.add(vec![("collector", source.name().to_owned())], count(*n));
    }
    vec![state, lost, cost, restarts]
}

fn host(report: &Report) -> Vec<Family> {
    let Some(host) = &report.host else {
        return Vec::new();
    };
    let mut all = vec![
        Family::gauge(
            "wgnat_host_boot_time_seconds",
            "When the host booted, in seconds since 1970.",
        )
        .maybe(Vec::new(), host.boot_at.map(seconds)),
        Family::info("wgnat_host", "The observed host.").with(
            vec![
                ("hostname", host.hostname.clone()),
                ("kernel", host.kernel.clone()),
            ],
            1.0,
        ),
    ];
    if let Some(fly) = &host.fly {
        // Fly's own scrape adds app, region, host and instance.
        all.push(Family::info("wgnat_fly", "The Fly machine that this is.").with(
            vec![
                ("fly_app", fly.app.clone()),
                ("fly_region", fly.region.clone()),
                ("fly_machine", fly.machine.clone()),
            ],
            1.0,
        ));
    }
    all
}

fn own(report: &Report, stats: &AgentStats) -> Vec<Family> {
    let mut requests = Family::counter(
        "wgnat_http_requests",
        "HTTP answers by route and class of status.",
    );
    for (route, class, n) in &stats.requests {
        let labels = vec![("route", (*route).to_owned()), ("status", (*class).to_owned())];
        requests.add(labels, count(*n));
    }
    let mut confined = Family::gauge(
        "wgnat_confinement",
        "What the agent has confined itself to: 1 in force, 0 not.",
    );
    for (name, holds) in &stats.confined {
        confined.add(vec![("mechanism", (*name).to_owned())], yes(*holds));
    }
    let mut store = Family::gauge(
        "wgnat_store_state",
        "Where history is kept: 1 for file, memory (the file cannot be written) or off.",
    );
    for state in ["file", "memory", "off"] {
        let holds = yes(stats.store.state == state);
        store.add(vec![("state", state.to_owned())], holds);
    }
    vec![
        Family::gauge(
            "wgnat_start_time_seconds",
            "When the agent began, in seconds since 1970.",
        )
        .with(Vec::new(), seconds(stats.started)),
        Family::counter(
            "wgnat_cpu_seconds",
            "CPU time that the agent has used, all threads.",
        )
        .with(Vec::new(), stats.cpu.as_secs_f64()),
        Family::gauge("wgnat_resident_memory_bytes", "Memory that the agent holds.")
            .maybe(Vec::new(), stats.resident_bytes.map(count)),
        Family::gauge(
            "wgnat_pace_ratio",
            "How many times as seldom as they would like observers look, to keep to the CPU budget.",
        )
        .with(Vec::new(), f64::from(stats.pace)),
        Family::counter("wgnat_evaluations", "Evaluations of all rules.")
            .with(Vec::new(), count(stats.evaluations)),
        Family::gauge(
            "wgnat_evaluation_duration_seconds",
            "How long the newest evaluation of all rules took.",
        )
        .with(Vec::new(), stats.evaluation.as_secs_f64()),
        Family::gauge(
            "wgnat_report_time_seconds",
            "When the report that these metrics tell was made, in seconds since 1970.",
        )
        .with(Vec::new(), seconds(report.generated_at)),
        Family::gauge(
            "wgnat_config_last_reload_successful",
            "Whether the newest reading of the configuration was taken over.",
        )
        .with(Vec::new(), yes(stats.config_ok)),
        Family::gauge(
            "wgnat_config_last_reload_success_timestamp_seconds",
            "When the configuration was last taken over, in seconds since 1970.",
        )
        .with(Vec::new(), seconds(stats.config_at)),
        Family::counter(
            "wgnat_clock_steps",
            "Times that the clock was set, or that the host slept.",
        )
        .with(Vec::new(), count(stats.clock_steps)),
        requests,
        confined,
        store,
        Family::gauge("wgnat_store_size_bytes", "What history takes on disk.")
            .with(Vec::new(), count(stats.store.bytes)),
        Family::counter(
            "wgnat_store_dropped_writes",
            "Writes to history that were given up.",
        )
        .with(Vec::new(), count(stats.store.dropped)),
    ]
}

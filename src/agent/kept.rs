//! Which metrics history keeps: numbers of the host, and of the agent only what it costs.

use crate::output::prometheus::{Family, Kind};
use crate::store::Point;

/// The points that history keeps of `families`.
pub(super) fn points(families: &[Family]) -> Vec<Point> {
    const OWN: [&str; 2] = ["wgnat_cpu_seconds", "wgnat_resident_memory_bytes"];
    const LEFT_OUT: [&str; 11] = [
        "wgnat_collector_",
        "wgnat_config_",
        "wgnat_confinement",
        "wgnat_evaluation",
        "wgnat_http_",
        "wgnat_host_",
        "wgnat_nat_discovered_",
        "wgnat_path_measured_",
        "wgnat_report_",
        "wgnat_start_",
        "wgnat_store_",
    ];
    let wanted = |family: &&Family| {
        matches!(family.kind, Kind::Gauge | Kind::Counter)
            && (OWN.contains(&family.name) || !LEFT_OUT.iter().any(|left| family.name.starts_with(left)))
    };
    families
        .iter()
        .filter(wanted)
        .flat_map(|family| family.samples.iter().map(move |sample| (family, sample)))
        .map(|(family, sample)| {
            let labels: serde_json::Map<String, serde_json::Value> = sample
                .labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
                .collect();
            Point {
                name: family.name,
                labels: serde_json::Value::Object(labels).to_string(),
                value: sample.value,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::prometheus::Sample;

    #[test]
    fn numbers_of_the_host_are_kept_under_their_names_and_labels() {
        let family = |name, kind| Family {
            name,
            help: "",
            kind,
            unit: None,
            samples: vec![Sample {
                suffix: "",
                labels: vec![("target", "a".to_owned())],
                value: 1.0,
            }],
        };
        for (name, kind, kept) in [
            ("wgnat_conntrack_entries", Kind::Gauge, true),
            ("wgnat_path_loss_ratio", Kind::Gauge, true),
            ("wgnat_path_attempts", Kind::Counter, true),
            ("wgnat_path_measured_time_seconds", Kind::Gauge, false),
            ("wgnat_nat_mapping", Kind::Gauge, true),
            ("wgnat_nat_external", Kind::Info, false),
            ("wgnat_nat_discovered_time_seconds", Kind::Gauge, false),
            ("wgnat_nat_budget_used_ratio", Kind::Gauge, true),
            ("wgnat_stun_rtt_seconds", Kind::Gauge, true),
            ("wgnat_cpu_seconds", Kind::Counter, true),
            ("wgnat_http_requests", Kind::Counter, false),
            ("wgnat_wireguard_handshake_rtt_seconds", Kind::Histogram, false),
        ] {
            let points = points(&[family(name, kind)]);
            assert_eq!(points.len(), usize::from(kept), "{name}");
            for point in points {
                assert_eq!((point.name, point.labels.as_str()), (name, "{\"target\":\"a\"}"));
            }
        }
    }
}

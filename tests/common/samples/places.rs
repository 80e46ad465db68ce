//! Two captures, one on either side of a NAT that forgets and drops.

use super::{addr, empty, seconds_ago};
use std::time::Duration;
use wgnat::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use wgnat::observation::{Source, SourceStatus};
use wgnat::report::captured::CaptureRow;
use wgnat::report::places::{LinkRow, MappingRow, PlacesRow};
use wgnat::report::{Report, Status};
use wgnat::track::places::{Passage, Size};

pub fn two_places() -> Report {
    let capture = |file: &str| CaptureRow {
        file: file.to_owned(),
        bytes: 48_211,
        lost: None,
        problem: None,
    };
    let mapping = |second: &str, ago, silence| MappingRow {
        first: addr("10.77.0.2:51820"),
        second: addr(second),
        from: seconds_ago(ago),
        silence,
    };
    Report {
        status: Status::Critical,
        duration: Duration::from_secs(95),
        collectors: vec![(Source::Capture, SourceStatus::ok())],
        findings: vec![large_vanish()],
        captures: vec![capture("client.pcap"), capture("server.pcap")],
        places: Some(PlacesRow {
            files: ["client.pcap".to_owned(), "server.pcap".to_owned()],
            common: 1_204,
            clock_offset: Some(-7.312),
            clock_uncertainty: Some(0.0118),
            one_in: 4,
            links: vec![LinkRow {
                ends: [addr("10.77.0.2:51820"), addr("203.0.113.9:51820")],
                ends_at_second: Some([addr("203.0.113.1:20417"), addr("203.0.113.9:51820")]),
                oriented: true,
                onward: Passage {
                    initiations: 3,
                    initiations_arrived: 3,
                    data: 812,
                    data_arrived: 602,
                    lost_from: Some(seconds_ago(60)),
                    lost_until: Some(seconds_ago(2)),
                    arrived_until: Some(seconds_ago(1)),
                    size: Some(Size {
                        largest_arrived: 1_232,
                        smallest_lost: 1_328,
                        largest_lost: 1_420,
                        lost_above: 210,
                        arrived: 602,
                    }),
                    ..Passage::default()
                },
                back: Passage {
                    responses: 3,
                    responses_arrived: 3,
                    data: 596,
                    data_arrived: 596,
                    after_end: 7,
                    ..Passage::default()
                },
                mappings: vec![
                    mapping("203.0.113.1:20001", 95, None),
                    mapping("203.0.113.1:20417", 31, Some(Duration::from_secs(44))),
                ],
                mappings_left_out: 0,
            }],
            links_left_out: 2,
        }),
        ..empty()
    }
}

fn large_vanish() -> Finding {
    Finding {
        code: "wg-mtu-blackhole",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        title: "Packets over 1232 bytes from 10.77.0.2:51820 to 203.0.113.9:51820 vanish".to_owned(),
        subject: Subject::Peer {
            device: None,
            public_key: None,
            endpoint: Some(addr("203.0.113.9:51820")),
            local: Some(addr("10.77.0.2:51820")),
        },
        summary: "Of 10.77.0.2:51820's packets all up to 1232 bytes arrived at the other capture (602), and all from 1328 \
                  bytes on were lost on the way (210)."
            .to_owned(),
        evidence: Evidence::new().with("largest_arrived_bytes", 1_232),
        impact: "Connections through the tunnel open and then hang.".to_owned(),
        candidates: Vec::new(),
        fixes: vec![Fix {
            title: "Set the tunnel's MTU to 1232, on both sides".to_owned(),
            why: "Packets then fit; the change takes effect at once and interrupts nothing.".to_owned(),
            snippet: Some("[Interface]\nMTU = 1232".to_owned()),
            ..Fix::default()
        }],
        first_seen: seconds_ago(60),
        last_seen: seconds_ago(2),
        count: 210,
    }
}

//! docs/scenarios.md: what doctor said of each real fault, from where. Each `<scenario>.said` in this directory is held by
//! the lab test that makes the fault; the page is made of them, so that neither can go stale.

use std::fs;
use std::path::Path;

/// Where one can look from.
const PLACES: [&str; 3] = ["initiator", "responder", "router"];

const HEAD: &str = "\
# Scenarios

What `wgnat doctor` says of a fault, by the host that it runs on: severity, confidence and code of every finding above
`info`. Each row is held by a test that makes the real fault in the lab (wireguard-go in network namespaces), reads the
report at each host at the same time, and fails where anything else is said. `initiator` is the host whose device calls,
`responder` the one that is called, `router` one in between that has no WireGuard device and sees only the wire; `-` where no
doctor ran. The kernel's own WireGuard is tested in a virtual machine, see tests/vm_kernel_wireguard.rs.

This page is generated from tests/scenarios/ (`WGNAT_UPDATE=1 cargo test --test generated`).

";

/// The page.
pub fn page() -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut rows: Vec<(String, String)> = fs::read_dir(directory)
        .expect("the scenarios are there")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|x| x == "said"))
        .map(|path| {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let text = fs::read_to_string(&path).expect("it can be read");
            (name, text)
        })
        .collect();
    rows.sort();
    let mut page = HEAD.to_owned();
    page.push_str(
        "| fault | at the initiator | at the responder | at a router |\n| --- | --- | --- | --- |\n",
    );
    for (name, text) in &rows {
        let field = |wanted: &str| {
            let mut lines = text.lines().filter_map(|l| l.split_once(": "));
            lines.find(|(key, _)| *key == wanted).map(|(_, value)| value)
        };
        let what = field("fault").unwrap_or_else(|| panic!("{name}.said names no fault"));
        let cells = PLACES.map(|place| field(place).unwrap_or("-"));
        page.push_str(&format!("| {what} | {} |\n", cells.join(" | ")));
    }
    page
}

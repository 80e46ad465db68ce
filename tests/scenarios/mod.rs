//! docs/scenarios.md: what was said of each real fault, from where. Each `.said` in this directory is held by the lab test that
//! makes the fault; the page is made of them, so that neither can go stale. `<scenario>.said` names the fault;
//! `<scenario>.<part>.said` says what another test found of the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Where one can look from.
const PLACES: [&str; 5] = ["initiator", "responder", "router", "captures", "probe"];

const HEAD: &str = "\
# Scenarios

What wgnat says of a fault, by where it looks: severity, confidence and code of every finding above `info` (and of those,
where they are what the row is about). Each cell is held by a test that makes the real fault in the lab (wireguard-go in
network namespaces; boringtun where the row says so) and fails where anything else is said.

- **initiator**, **responder**, **router**: `wgnat doctor` on the host whose device calls, on the one that is called, and on one
  in between that has no WireGuard device and sees only the wire. All look at the same time.
- **captures**: `wgnat analyze` on two captures, one of each end.
- **probe**: `wgnat probe` at the initiator, with a key of its own.
- `-`: not looked at from there; `nothing`: looked at, and rightly silent.

A router's findings are warnings: it sees somebody else's tunnel. The kernel's own WireGuard is tested in a virtual machine, see
tests/vm_kernel_wireguard.rs.

This page is generated from tests/scenarios/ (`WGNAT_UPDATE=1 cargo test --test generated`).

";

/// The page.
pub fn page() -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut texts: Vec<(String, String)> = fs::read_dir(directory)
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
            (name, fs::read_to_string(&path).expect("it can be read"))
        })
        .collect();
    texts.sort();
    let mut rows: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (name, text) in &texts {
        let scenario = name.split('.').next().unwrap_or_default().to_owned();
        let row = rows.entry(scenario).or_default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(": ")) {
            let before = row.insert(key.to_owned(), value.to_owned());
            assert!(before.is_none(), "{name}.said says again what is said of {key}");
        }
    }
    let mut page = HEAD.to_owned();
    page.push_str(&format!("| fault | {} |\n", PLACES.join(" | ")));
    page.push_str(&format!("|{}\n", " --- |".repeat(PLACES.len() + 1)));
    for (name, row) in &rows {
        let what = row
            .get("fault")
            .unwrap_or_else(|| panic!("{name}.said names no fault"));
        let cells = PLACES.map(|place| row.get(place).map_or("-", String::as_str));
        page.push_str(&format!("| {what} | {} |\n", cells.join(" | ")));
    }
    page
}

//! The kernel's modules in an order in which they can be loaded one by one.
//!
//! Each module names those that it needs in its section .modinfo, as `depends=a,b`. Reading that needs no depmod and no
//! tool of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The modules below `dir` that `names` need, and they themselves: each with its content, what is needed first.
#[track_caller]
pub fn in_order(dir: &Path, names: &[&str]) -> Vec<(String, Vec<u8>)> {
    let known = files(dir);
    let mut loaded = Vec::new();
    for name in names {
        add(&known, name, &mut loaded);
    }
    loaded
}

#[track_caller]
fn add(known: &BTreeMap<String, PathBuf>, name: &str, loaded: &mut Vec<(String, Vec<u8>)>) {
    if loaded.iter().any(|(have, _)| have == name) {
        return;
    }
    let path = known
        .get(name)
        .unwrap_or_else(|| panic!("this kernel has no module {name}"));
    let module = read(path);
    for needed in depends(&module) {
        add(known, &needed, loaded);
    }
    loaded.push((name.to_owned(), module));
}

/// Every module by its name, which has underscores where the file's has dashes.
fn files(dir: &Path) -> BTreeMap<String, PathBuf> {
    let (mut found, mut open) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("cannot list {}: {e}", dir.display()));
        for path in entries.map(|entry| entry.expect("the directory can be read").path()) {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else if let Some((name, "" | ".xz" | ".zst")) = name.split_once(".ko") {
                found.insert(name.replace('-', "_"), path);
            }
        }
    }
    found
}

/// A module's content, unpacked where the distribution packs it.
fn read(path: &Path) -> Vec<u8> {
    let program = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display())),
    };
    let out = Command::new(program).arg("-dc").arg(path).output();
    let out = out.unwrap_or_else(|e| panic!("cannot run {program} to unpack {}: {e}", path.display()));
    assert!(out.status.success(), "{program} cannot unpack {}", path.display());
    out.stdout
}

fn depends(module: &[u8]) -> Vec<String> {
    let mark = b"\0depends=";
    let Some(at) = module.windows(mark.len()).position(|w| w == mark) else {
        return Vec::new();
    };
    let list = module[at + mark.len()..]
        .split(|b| *b == 0)
        .next()
        .unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

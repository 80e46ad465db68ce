//! Executables: whatever a process was started from.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reads = 0;
    let _ = wgnat::wire::elf::runtime_of(|at, length| {
        reads += 1;
        assert!(reads <= 8 && length <= 16 * 1024);
        let rest = data.get(usize::try_from(at).ok()?..)?;
        Some(rest[..length.min(rest.len())].to_vec())
    });
    let _ = wgnat::wire::runtime_name::runtime_by_libraries(&String::from_utf8_lossy(data));
});

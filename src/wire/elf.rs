//! What an executable was built with, where its file says so: Go's build information, the Rust compiler's mark.
//!
//! In: a reader of the file at offsets. Out: a runtime's short name. Every read is bounded (at most eight, 64 KiB in all), and
//! whatever is not the ELF that Linux runs on our machines (64 bits, little-endian; elf(5)) is nothing.

/// `sizeof(Elf64_Ehdr)`.
const HEADER: usize = 64;
/// `sizeof(Elf64_Shdr)`.
const SECTION: usize = 64;
/// `sizeof(Elf64_Phdr)`.
const SEGMENT: usize = 56;

/// Sections that are looked through; compilers write some forty.
const MAX_SECTIONS: usize = 256;
/// Program headers that are looked through; linkers write about ten.
const MAX_SEGMENTS: usize = 64;
/// Of the section names, of a note and of the compilers' comments this much is read.
const MAX_TEXT: usize = 16 * 1024;
/// Note segments that are read.
const MAX_NOTES: usize = 4;

/// `PT_NOTE` (elf.h).
const PT_NOTE: u32 = 4;

/// The runtime that an executable belongs to: `go` where it has Go's build information or build id, `rust` where rustc is
/// among the compilers that left their name.
///
/// `read` gives up to so many bytes from an offset on; fewer at the end of the file.
pub fn runtime_of(mut read: impl FnMut(u64, usize) -> Option<Vec<u8>>) -> Option<&'static str> {
    let header = read(0, HEADER)?;
    // e_ident: magic, ELFCLASS64, ELFDATA2LSB.
    if header.len() < HEADER || !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    by_sections(&header, &mut read).or_else(|| by_notes(&header, &mut read))
}

fn by_sections(header: &[u8], read: &mut impl FnMut(u64, usize) -> Option<Vec<u8>>) -> Option<&'static str> {
    let offset = u64_at(header, 40)?; // e_shoff
    let (size, count, names) = (u16_at(header, 58)?, u16_at(header, 60)?, u16_at(header, 62)?);
    if usize::from(size) != SECTION || offset == 0 || count == 0 {
        return None;
    }
    let table = read(offset, SECTION * usize::from(count).min(MAX_SECTIONS))?;
    let sections: Vec<&[u8]> = table.chunks_exact(SECTION).collect();
    let (at, length) = place(sections.get(usize::from(names))?, 24, 32)?;
    let names = read(at, length.min(MAX_TEXT))?;
    let named = |wanted: &[u8]| {
        sections.iter().find(|section| {
            let name = u32_at(section, 0)
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| names.get(at..));
            name.is_some_and(|name| {
                name.strip_prefix(wanted)
                    .is_some_and(|rest| rest.first() == Some(&0))
            })
        })
    };
    if named(b".go.buildinfo").is_some() || named(b".note.go.buildid").is_some() {
        return Some("go");
    }
    let (at, length) = place(named(b".comment")?, 24, 32)?;
    let comment = read(at, length.min(MAX_TEXT))?;
    const RUSTC: &[u8] = b"rustc version ";
    comment.windows(RUSTC.len()).any(|w| w == RUSTC).then_some("rust")
}

/// Where the sections were stripped off, Go's build id is still among the notes that are loaded (cmd/internal/buildid).
fn by_notes(header: &[u8], read: &mut impl FnMut(u64, usize) -> Option<Vec<u8>>) -> Option<&'static str> {
    let offset = u64_at(header, 32)?; // e_phoff
    let (size, count) = (u16_at(header, 54)?, u16_at(header, 56)?);
    if usize::from(size) != SEGMENT || offset == 0 {
        return None;
    }
    let table = read(offset, SEGMENT * usize::from(count).min(MAX_SEGMENTS))?;
    let notes = table
        .chunks_exact(SEGMENT)
        .filter(|segment| u32_at(segment, 0) == Some(PT_NOTE));
    for note in notes.take(MAX_NOTES) {
        let (at, length) = place(note, 8, 32)?;
        // namesz, descsz, type; "Go\0\0" with type 4 is the build id.
        let bytes = read(at, length.min(256))?;
        if u32_at(&bytes, 8) == Some(4) && bytes.get(12..16) == Some(b"Go\0\0") {
            return Some("go");
        }
    }
    None
}

/// An offset and a length out of a table's entry.
fn place(entry: &[u8], offset: usize, length: usize) -> Option<(u64, usize)> {
    let length = usize::try_from(u64_at(entry, length)?).unwrap_or(usize::MAX);
    Some((u64_at(entry, offset)?, length))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with these sections, the last being their names.
    fn with_sections(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut names = vec![0];
        let mut body = vec![0; HEADER];
        let mut table = Vec::new();
        let mut entry = |name: usize, at: usize, length: usize| {
            let mut section = [0; SECTION];
            section[0..4].copy_from_slice(&u32::try_from(name).unwrap().to_le_bytes());
            section[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            section[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            table.extend_from_slice(&section);
        };
        for (name, content) in sections {
            entry(names.len(), body.len(), content.len());
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            body.extend_from_slice(content);
        }
        entry(0, body.len(), names.len());
        body.extend_from_slice(&names);
        let (at, count) = (body.len() as u64, u16::try_from(sections.len() + 1).unwrap());
        body.extend_from_slice(&table);
        body[..6].copy_from_slice(b"\x7fELF\x02\x01");
        body[40..48].copy_from_slice(&at.to_le_bytes());
        body[58..60].copy_from_slice(&64_u16.to_le_bytes());
        body[60..62].copy_from_slice(&count.to_le_bytes());
        body[62..64].copy_from_slice(&(count - 1).to_le_bytes());
        body
    }

    /// A file without sections and with one note.
    fn with_note(note: &[u8]) -> Vec<u8> {
        let mut file = vec![0; HEADER + SEGMENT];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        file[64..68].copy_from_slice(&4_u32.to_le_bytes());
        file[72..80].copy_from_slice(&120_u64.to_le_bytes());
        file[96..104].copy_from_slice(&(note.len() as u64).to_le_bytes());
        file.extend_from_slice(note);
        file
    }

    fn recognise(file: &[u8]) -> Option<&'static str> {
        let mut reads = 0;
        runtime_of(|at, length| {
            reads += 1;
            assert!(reads <= 8 && length <= MAX_TEXT.max(SECTION * MAX_SECTIONS));
            let at = usize::try_from(at).ok()?;
            let rest = file.get(at..)?;
            Some(rest[..length.min(rest.len())].to_vec())
        })
    }

    #[test]
    fn by_what_the_compilers_leave() {
        let rustc = b"rustc version 1.95.0 (59807616e 2026-04-14)\0GCC: (Debian 12.2.0) 12.2.0\0";
        for (name, file, expected) in [
            (
                "Go",
                with_sections(&[(".text", b"x"), (".go.buildinfo", b"")]),
                Some("go"),
            ),
            (
                "an old Go",
                with_sections(&[(".note.go.buildid", b"")]),
                Some("go"),
            ),
            ("Rust", with_sections(&[(".comment", rustc)]), Some("rust")),
            (
                "C",
                with_sections(&[(".comment", b"GCC: (Debian 12.2.0) 12.2.0\0")]),
                None,
            ),
            ("a longer name", with_sections(&[(".go.buildinfo2", b"")]), None),
            (
                "stripped Go",
                with_note(b"\x04\0\0\0\x53\0\0\0\x04\0\0\0Go\0\0abc"),
                Some("go"),
            ),
            (
                "a stripped other",
                with_note(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0abc"),
                None,
            ),
            ("a script", b"#!/usr/bin/python3\n".to_vec(), None),
            ("nothing", Vec::new(), None),
        ] {
            assert_eq!(recognise(&file), expected, "{name}");
        }
    }

    #[test]
    fn our_own_test_program_is_rust() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(recognise(&file), Some("rust"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fail_or_read_more(
            file in proptest::collection::vec(any::<u8>(), 0..400),
            at in 6_usize..64, value in any::<u8>(),
        ) {
            let mut file = file;
            let _ = recognise(&file);
            if file.len() >= 6 {
                file[..6].copy_from_slice(b"\x7fELF\x02\x01");
            }
            let _ = recognise(&file);
            let mut whole = with_sections(&[(".go.buildinfo", b""), (".comment", b"rustc version 1\0")]);
            whole[at] = value;
            let _ = recognise(&whole);
        }
    }
}

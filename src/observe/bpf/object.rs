//! An object of `bpf/` brought into the kernel: its maps made, its programs fitted to the running kernel's types, and loaded
//! one by one, so that one that is refused costs no other.
//!
//! Of the kernel's types only an excerpt is handed to the relocation ([`crate::wire::btf`]): reading all of them into memory,
//! as loaders do, takes more than all the rest of wgnat.

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::words;
use crate::sys::bpf::{self, MapSpec, ProgramSpec};
use crate::wire::btf::{Btf, Kind};

/// Where the kernel describes its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Bytes that begin at an address which an ELF file's numbers may be read at.
#[repr(C, align(8))]
pub struct Aligned<T: ?Sized>(pub T);

/// The kernel's types are 5 MB: they are in memory once at a time, whichever observers need them.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What programs are fitted to, and attached by.
#[derive(Debug)]
pub struct Types<'a> {
    btf: Btf<'a>,
}

impl Types<'_> {
    /// The id of a type.
    fn id(&self, kind: Kind, name: &str) -> Result<u32, String> {
        self.btf
            .id_of(kind, name)
            .ok_or_else(|| format!("this kernel has no {name}"))
    }

    /// The id by which a `tp_btf` program is loaded.
    pub fn tracepoint(&self, name: &str) -> Result<u32, String> {
        self.id(Kind::Typedef, &format!("btf_trace_{name}"))
    }

    /// Whether the kernel has these helpers for programs.
    pub fn helpers(&self, names: &[&str]) -> bool {
        names
            .iter()
            .all(|name| self.btf.id_of(Kind::Func, name).is_some())
    }

    /// The id by which an iterator's program is loaded.
    pub fn iterator(&self, name: &str) -> Result<u32, String> {
        self.id(Kind::Func, &format!("bpf_iter_{name}"))
    }
}

/// Reads the kernel's types for as long as `work` takes. An error says why they are not there.
pub fn with_types<T>(work: impl FnOnce(&Types<'_>) -> Result<T, String>) -> Result<T, String> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = std::fs::read(VMLINUX).map_err(|error| {
        format!(
            "this kernel does not describe its types ({VMLINUX}: {error}; CONFIG_DEBUG_INFO_BTF is off, or /sys is not mounted)"
        )
    })?;
    let btf = Btf::parse(&bytes).map_err(|error| {
        format!("this kernel's description of its types ({VMLINUX}) cannot be read: {error}")
    })?;
    work(&Types { btf })
}

/// An object whose maps are in the kernel.
pub struct Object {
    parsed: aya_obj::Object,
    maps: BTreeMap<String, OwnedFd>,
}

impl Object {
    /// Makes the maps, sets `globals` and fits the programs to `types`, where they need any.
    pub fn open(bytes: &[u8], globals: &[(&str, u32)], types: Option<&Types<'_>>) -> Result<Self, String> {
        let mut parsed = aya_obj::Object::parse(bytes).map_err(|e| words::reason(&e))?;
        let values: Vec<(&str, [u8; 4])> = globals.iter().map(|(name, v)| (*name, v.to_ne_bytes())).collect();
        let values = values.iter().map(|(name, v)| (*name, (&v[..], true))).collect();
        parsed.patch_map_data(values).map_err(|e| words::reason(&e))?;
        if let Some(types) = types {
            relocate(&mut parsed, types)?;
        }
        let mut maps = BTreeMap::new();
        for (name, map) in &parsed.maps {
            let fd = make(map).map_err(|e| format!("making the eBPF map {name}: {}", words::reason(&e)))?;
            maps.insert(name.clone(), fd);
        }
        let sections: HashSet<usize> = parsed.functions.keys().map(|(section, _)| *section).collect();
        // Taken out and put back: the relocation borrows both.
        let definitions = std::mem::take(&mut parsed.maps);
        let fds = definitions
            .iter()
            .filter_map(|(name, map)| Some((name.as_str(), maps.get(name)?.as_raw_fd(), map)));
        parsed
            .relocate_maps(fds, &sections)
            .map_err(|e| words::reason(&e))?;
        parsed.relocate_calls(&sections).map_err(|e| words::reason(&e))?;
        Ok(Self { parsed, maps })
    }

    /// Loads one program. `target` is the id of what it is for, 0 where its kind needs none.
    pub fn program(&self, name: &str, kind: u32, attach: u32, target: u32) -> Result<OwnedFd, String> {
        let found = self.parsed.programs.get(name);
        let function = found.and_then(|p| self.parsed.functions.get(&p.function_key()));
        let function = function.ok_or_else(|| format!("the object lacks its program {name}"))?;
        bpf::program_load(&ProgramSpec {
            kind,
            attach,
            target,
            code: &function.instructions,
            name,
        })
        .map_err(|refused| words::refused(name, &refused))
    }

    /// Loads a program and attaches it to a tracepoint that the kernel describes.
    pub fn attach_typed(&self, name: &str, types: &Types<'_>, tracepoint: &str) -> Result<Attached, String> {
        let program = self.program(
            name,
            bpf::TRACING,
            bpf::TRACE_RAW_TP,
            types.tracepoint(tracepoint)?,
        )?;
        Attached::new(program, |fd| bpf::attach_raw(fd, None))
    }

    /// Loads a program and attaches it to a raw tracepoint.
    pub fn attach_raw(&self, name: &str, tracepoint: &CStr) -> Result<Attached, String> {
        let program = self.program(name, bpf::RAW_TRACEPOINT, 0, 0)?;
        Attached::new(program, |fd| bpf::attach_raw(fd, Some(tracepoint)))
    }

    /// A map.
    pub fn map(&self, name: &str) -> Result<BorrowedFd<'_>, String> {
        let map = self.maps.get(name).map(AsFd::as_fd);
        map.ok_or_else(|| format!("the object lacks its map {name}"))
    }
}

/// A program where it is attached, until this is dropped.
#[derive(Debug)]
pub struct Attached {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Attached {
    /// Attaches `program` by `attach`.
    pub fn new(
        program: OwnedFd,
        attach: impl FnOnce(BorrowedFd<'_>) -> std::io::Result<OwnedFd>,
    ) -> Result<Self, String> {
        let link = attach(program.as_fd()).map_err(|e| format!("attaching: {}", words::reason(&e)))?;
        Ok(Self { program, _link: link })
    }

    /// What the kernel tells of the program; empty where `/proc` is not there.
    pub fn info(&self) -> String {
        let path = format!("/proc/thread-self/fdinfo/{}", self.program.as_raw_fd());
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

fn relocate(parsed: &mut aya_obj::Object, types: &Types<'_>) -> Result<(), String> {
    let own = parsed.btf.as_ref().map(aya_obj::btf::Btf::to_bytes);
    let own = own.ok_or("the object lacks its types")?;
    let wanted = Btf::parse(&own)
        .map_err(|e| format!("the object's types: {e}"))?
        .names();
    let excerpt = types.btf.excerpt(&wanted);
    let target = aya_obj::btf::Btf::parse(&excerpt, parsed.endianness).map_err(|e| words::reason(&e))?;
    parsed.relocate_btf(&target).map_err(|e| {
        format!(
            "the eBPF program does not fit this kernel's types: {}",
            words::chained(&e as &(dyn Error + 'static))
        )
    })
}

fn make(map: &aya_obj::Map) -> std::io::Result<OwnedFd> {
    let fd = bpf::map_create(&MapSpec {
        kind: map.map_type(),
        key: map.key_size(),
        value: map.value_size(),
        entries: map.max_entries(),
        flags: map.map_flags(),
    })?;
    // A section of constants: `globals` are among them.
    if !map.data().is_empty() {
        bpf::map_update(fd.as_fd(), &0_u32.to_ne_bytes(), map.data())?;
        bpf::map_freeze(fd.as_fd())?;
    }
    Ok(fd)
}

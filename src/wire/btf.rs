//! BTF, the kernel's description of its own types (Documentation/bpf/btf.rst): which id a type has, and an excerpt with just
//! the types that a program needs.
//!
//! In: the bytes of `/sys/kernel/btf/vmlinux` (5 MB, 150,000 types) or of an object's `.BTF`. Out: ids, and a small BTF of the
//! same form. Why an excerpt: a loader that reads all of it into memory takes 36 MB for a few dozen fields.

use std::collections::{BTreeMap, BTreeSet};

/// `BTF_MAGIC` in this machine's byte order.
const MAGIC: u16 = 0xeb9f;
/// The fixed part of a type.
const HEAD: usize = 12;
/// No kernel nests types deeper; what does is cut.
const DEPTH: u8 = 32;

/// `BTF_KIND_…` (include/uapi/linux/btf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // the kernel's names
pub enum Kind {
    Int = 1,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    fn of(info: u32) -> Option<Self> {
        use Kind::{
            Array, Const, Datasec, DeclTag, Enum, Enum64, Float, Func, FuncProto, Fwd, Int, Ptr, Restrict,
            Struct, TypeTag, Typedef, Union, Var, Volatile,
        };
        let all = [
            Int, Ptr, Array, Struct, Union, Enum, Fwd, Typedef, Volatile, Const, Restrict, Func, FuncProto,
            Var, Datasec, Float, DeclTag, TypeTag, Enum64,
        ];
        let number = (info >> 24 & 0x1f) as usize;
        all.get(number.checked_sub(1)?).copied()
    }

    /// Bytes behind the fixed part, for a type with `members`.
    const fn tail(self, members: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => members * 12,
            Self::Enum | Self::FuncProto => members * 8,
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => 0,
        }
    }
}

/// Why bytes are no BTF that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The header is too short or of another kind.
    #[error("not BTF of this machine's byte order (no magic number eB9F in front)")]
    Header,
    /// A part lies outside.
    #[error("BTF is cut: {part} lie beyond its end")]
    Cut {
        /// Which.
        part: &'static str,
    },
    /// A kind of type that is newer than this program.
    #[error("type {id} is of a kind that is not known ({kind})")]
    Kind {
        /// The type.
        id: u32,
        /// `BTF_KIND_…`.
        kind: u32,
    },
}

/// A BTF, indexed.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where type `i + 1` begins in `types`.
    at: Vec<u32>,
}

/// One type.
#[derive(Clone, Copy, Debug)]
struct Type<'a> {
    kind: Kind,
    name: u32,
    info: u32,
    /// The size, or the type that is referred to.
    size_or_type: u32,
    tail: &'a [u8],
}

/// Struct and field names that somebody needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    structs: BTreeSet<Vec<u8>>,
    fields: BTreeSet<Vec<u8>>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*part))
}

impl<'a> Btf<'a> {
    /// Reads the header and finds where each type begins.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        let magic = data.first_chunk::<2>().map(|m| u16::from_ne_bytes(*m));
        let header: Option<Vec<usize>> = (1..6).map(|i| word(data, i * 4).map(|w| w as usize)).collect();
        let (Some(MAGIC), Some(header)) = (magic, header) else {
            return Err(BtfError::Header);
        };
        let [length, type_at, type_len, string_at, string_len] = header[..] else {
            return Err(BtfError::Header);
        };
        let part = |at: usize, len: usize, part| {
            let from = length.checked_add(at);
            from.and_then(|from| data.get(from..from.checked_add(len)?))
                .ok_or(BtfError::Cut { part })
        };
        let types = part(type_at, type_len, "types")?;
        let strings = part(string_at, string_len, "names")?;
        let mut btf = Self {
            types,
            strings,
            // Most types are 24 bytes long.
            at: Vec::with_capacity(types.len() / 24),
        };
        let mut offset = 0;
        while offset < types.len() {
            let info = word(types, offset + 4).ok_or(BtfError::Cut { part: "types" })?;
            let id = u32::try_from(btf.at.len() + 1).unwrap_or(u32::MAX);
            let kind = Kind::of(info).ok_or(BtfError::Kind {
                id,
                kind: info >> 24 & 0x1f,
            })?;
            btf.at
                .push(u32::try_from(offset).map_err(|_| BtfError::Cut { part: "types" })?);
            offset += HEAD + kind.tail((info & 0xffff) as usize);
        }
        if offset > types.len() {
            return Err(BtfError::Cut { part: "types" });
        }
        Ok(btf)
    }

    fn get(&self, id: u32) -> Option<Type<'a>> {
        let at = *self.at.get((id as usize).checked_sub(1)?)? as usize;
        let info = word(self.types, at + 4)?;
        let kind = Kind::of(info)?;
        let tail = self
            .types
            .get(at + HEAD..)?
            .get(..kind.tail((info & 0xffff) as usize))?;
        Some(Type {
            kind,
            name: word(self.types, at)?,
            info,
            size_or_type: word(self.types, at + 8)?,
            tail,
        })
    }

    fn types(&self) -> impl Iterator<Item = (u32, Type<'a>)> {
        (1..=u32::try_from(self.at.len()).unwrap_or(u32::MAX)).filter_map(|id| Some((id, self.get(id)?)))
    }

    fn string(&self, offset: u32) -> &'a [u8] {
        let from = self.strings.get(offset as usize..).unwrap_or_default();
        from.split(|b| *b == 0).next().unwrap_or_default()
    }

    /// The id of the first type of this kind and name.
    pub fn id_of(&self, kind: Kind, name: &str) -> Option<u32> {
        self.types()
            .find(|(_, t)| t.kind == kind && self.string(t.name) == name.as_bytes())
            .map(|(id, _)| id)
    }

    /// How many types there are.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Every struct and field that is named here: what an object's own BTF says that its programs use.
    pub fn names(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for (_, t) in self.types() {
            if !matches!(t.kind, Kind::Struct | Kind::Union) {
                continue;
            }
            let name = self.string(t.name);
            if !name.is_empty() {
                wanted.structs.insert(name.to_vec());
            }
            for member in t.tail.chunks_exact(12) {
                let name = self.string(word(member, 0).unwrap_or(0));
                wanted.fields.insert(name.to_vec());
            }
        }
        wanted
    }

    /// A BTF with those structs, of each only those fields, and what these are made of. Pointers lead nowhere: where they lead
    /// is a struct of its own.
    pub fn excerpt(&self, wanted: &Wanted) -> Vec<u8> {
        let mut excerpt = Excerpt {
            from: self,
            fields: &wanted.fields,
            ids: BTreeMap::new(),
            types: Vec::new(),
            count: 0,
            strings: vec![0],
            offsets: BTreeMap::new(),
        };
        for (id, t) in self.types() {
            if t.kind == Kind::Struct && wanted.structs.contains(self.string(t.name)) {
                excerpt.put(id, 0);
            }
        }
        excerpt.finish()
    }
}

/// An excerpt in the making.
struct Excerpt<'a> {
    from: &'a Btf<'a>,
    fields: &'a BTreeSet<Vec<u8>>,
    /// The new id by the old one.
    ids: BTreeMap<u32, u32>,
    types: Vec<u8>,
    count: u32,
    strings: Vec<u8>,
    offsets: BTreeMap<Vec<u8>, u32>,
}

impl Excerpt<'_> {
    /// Puts a type in, after those that it is made of; its new id. 0, which is void, where it cannot be told.
    fn put(&mut self, id: u32, depth: u8) -> u32 {
        if let Some(new) = self.ids.get(&id) {
            return *new;
        }
        let Some(t) = self.from.get(id).filter(|_| depth < DEPTH) else {
            return 0;
        };
        let new = match t.kind {
            Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                self.put(t.size_or_type, depth + 1)
            }
            Kind::Struct | Kind::Union => self.put_composite(&t, depth),
            Kind::Array => {
                let part = |i| word(t.tail, i).unwrap_or(0);
                let (element, index) = (self.put(part(0), depth + 1), self.put(part(4), depth + 1));
                self.push(0, t.info, 0, &[element, index, part(8)])
            }
            Kind::Ptr => self.push(0, t.info, 0, &[]),
            // What a value is called is of no interest.
            Kind::Enum | Kind::Enum64 => self.named(&t, t.info & !0xffff, &[]),
            Kind::Int => self.named(&t, t.info, &[word(t.tail, 0).unwrap_or(0)]),
            Kind::Fwd | Kind::Float => self.named(&t, t.info, &[]),
            Kind::Func | Kind::FuncProto | Kind::Var | Kind::Datasec | Kind::DeclTag => 0,
        };
        self.ids.insert(id, new);
        new
    }

    fn put_composite(&mut self, t: &Type<'_>, depth: u8) -> u32 {
        let (mut words, mut members) = (Vec::new(), 0);
        for member in t.tail.chunks_exact(12) {
            let part = |i| word(member, i).unwrap_or(0);
            let name = self.from.string(part(0));
            if name.is_empty() && !self.holds_wanted(part(4), depth + 1)
                || !name.is_empty() && !self.fields.contains(name)
            {
                continue;
            }
            let name = self.string(name);
            let of = self.put(part(4), depth + 1);
            words.extend([name, of, part(8)]);
            members += 1;
        }
        self.named(t, t.info & !0xffff | members, &words)
    }

    /// Whether an unnamed member's own members, or theirs, are wanted.
    fn holds_wanted(&self, id: u32, depth: u8) -> bool {
        let Some(t) = self.from.get(id).filter(|_| depth < DEPTH) else {
            return false;
        };
        match t.kind {
            Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                self.holds_wanted(t.size_or_type, depth + 1)
            }
            Kind::Struct | Kind::Union => t.tail.chunks_exact(12).any(|member| {
                let name = self.from.string(word(member, 0).unwrap_or(0));
                if name.is_empty() {
                    self.holds_wanted(word(member, 4).unwrap_or(0), depth + 1)
                } else {
                    self.fields.contains(name)
                }
            }),
            _ => false,
        }
    }

    fn named(&mut self, t: &Type<'_>, info: u32, tail: &[u32]) -> u32 {
        let name = self.string(self.from.string(t.name));
        self.push(name, info, t.size_or_type, tail)
    }

    fn push(&mut self, name: u32, info: u32, size_or_type: u32, tail: &[u32]) -> u32 {
        for word in [name, info, size_or_type].iter().chain(tail) {
            self.types.extend(word.to_ne_bytes());
        }
        self.count += 1;
        self.count
    }

    fn string(&mut self, name: &[u8]) -> u32 {
        if name.is_empty() {
            return 0;
        }
        if let Some(at) = self.offsets.get(name) {
            return *at;
        }
        let at = u32::try_from(self.strings.len()).unwrap_or(0);
        self.strings.extend(name);
        self.strings.push(0);
        self.offsets.insert(name.to_vec(), at);
        at
    }

    fn finish(self) -> Vec<u8> {
        let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(0);
        let (types, strings) = (length(&self.types), length(&self.strings));
        let mut out = Vec::new();
        out.extend(MAGIC.to_ne_bytes());
        // Version 1, no flags.
        out.extend([1, 0]);
        for word in [24, 0, types, types, strings] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(self.types);
        out.extend(self.strings);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A BTF of these types (name, kind and flags, size or type, tail), names by their offsets in `strings`.
    fn btf(types: &[(&str, u32, u32, &[u32])], names: &[&str]) -> Vec<u8> {
        let mut strings = vec![0];
        let mut at = BTreeMap::from([("", 0)]);
        for name in names {
            at.insert(name, u32::try_from(strings.len()).unwrap());
            strings.extend(name.bytes().chain([0]));
        }
        let mut bytes = Vec::new();
        for (name, info, size, tail) in types {
            for word in [at[name], *info, *size].iter().chain(*tail) {
                bytes.extend(word.to_ne_bytes());
            }
        }
        let mut out = MAGIC.to_ne_bytes().to_vec();
        out.extend([1, 0]);
        let len = |b: &[u8]| u32::try_from(b.len()).unwrap();
        for word in [24, 0, len(&bytes), len(&bytes), len(&strings)] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(bytes);
        out.extend(strings);
        out
    }

    const fn info(kind: Kind, members: u32) -> u32 {
        (kind as u32) << 24 | members
    }

    /// struct sock { struct { u32 port; u32 other; }; struct sock *next; u32 far; }, and a function.
    fn kernel() -> Vec<u8> {
        let names = ["u32", "sock", "port", "other", "next", "far", "connect"];
        let at: Vec<u32> = names
            .iter()
            .scan(1, |at, n| {
                let here = *at;
                *at += u32::try_from(n.len()).unwrap() + 1;
                Some(here)
            })
            .collect();
        let port = [at[2], 1, 0, at[3], 1, 32];
        let sock = [0, 2, 0, at[4], 4, 64, at[5], 6, 128];
        btf(
            &[
                ("u32", info(Kind::Int, 0), 4, &[32]),
                ("", info(Kind::Struct, 2), 8, &port),
                ("sock", info(Kind::Struct, 3), 24, &sock),
                ("", info(Kind::Ptr, 0), 3, &[]),
                ("connect", info(Kind::Func, 0), 0, &[]),
                ("", info(Kind::Const, 0), 1, &[]),
            ],
            &names,
        )
    }

    fn wanted(structs: &[&str], fields: &[&str]) -> Wanted {
        let set = |names: &[&str]| names.iter().map(|n| n.as_bytes().to_vec()).collect();
        Wanted {
            structs: set(structs),
            fields: set(fields),
        }
    }

    #[test]
    fn ids_are_told_by_kind_and_name() {
        let bytes = kernel();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!((btf.len(), btf.is_empty()), (6, false));
        assert_eq!(btf.id_of(Kind::Struct, "sock"), Some(3));
        assert_eq!(btf.id_of(Kind::Func, "connect"), Some(5));
        assert_eq!(btf.id_of(Kind::Func, "sock"), None);
    }

    #[test]
    fn an_excerpt_has_the_fields_where_they_were() {
        let bytes = kernel();
        let excerpt = Btf::parse(&bytes)
            .unwrap()
            .excerpt(&wanted(&["sock"], &["port", "far"]));
        let small = Btf::parse(&excerpt).unwrap();
        let id = small.id_of(Kind::Struct, "sock").unwrap();
        let sock = small.get(id).unwrap();
        let members: Vec<(&[u8], u32)> = sock
            .tail
            .chunks_exact(12)
            .map(|m| (small.string(word(m, 0).unwrap()), word(m, 8).unwrap()))
            .collect();
        assert_eq!(members, [(&b""[..], 0), (&b"far"[..], 128)]);
        assert_eq!(small.names(), wanted(&["sock"], &["", "port", "far"]));
        assert_eq!(small.len(), 3, "the integer, the unnamed struct and the struct");
    }

    #[test]
    fn this_kernels_own_types_make_a_small_excerpt() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("skipped: this kernel has no BTF");
            return;
        };
        let btf = Btf::parse(&bytes).unwrap();
        let excerpt = btf.excerpt(&wanted(
            &["sock", "sock_common"],
            &["__sk_common", "skc_num", "sk_err"],
        ));
        assert!(excerpt.len() < 2000, "{}", excerpt.len());
        let small = Btf::parse(&excerpt).unwrap();
        assert!(small.id_of(Kind::Struct, "sock_common").is_some());
        assert!(
            btf.id_of(Kind::Typedef, "btf_trace_inet_sock_set_state")
                .is_some()
        );
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        let bytes = kernel();
        assert_eq!(Btf::parse(&[]).unwrap_err(), BtfError::Header);
        assert_eq!(Btf::parse(&[0; 64]).unwrap_err(), BtfError::Header);
        for len in 2..bytes.len() {
            assert!(Btf::parse(&bytes[..len]).is_err(), "{len}");
        }
        let mut odd = bytes;
        odd[24 + 7] = 31;
        assert_eq!(Btf::parse(&odd).unwrap_err(), BtfError::Kind { id: 1, kind: 31 });
    }

    proptest! {
        #[test]
        fn nothing_panics_and_an_excerpt_can_be_read(at in 24usize..200, to in any::<u8>()) {
            let mut bytes = kernel();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            if let Ok(btf) = Btf::parse(&bytes) {
                let excerpt = btf.excerpt(&btf.names());
                prop_assert!(Btf::parse(&excerpt).is_ok());
            }
        }
    }
}

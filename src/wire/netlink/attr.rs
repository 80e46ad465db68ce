//! Netlink attributes, walked in place: type, length, value (include/uapi/linux/netlink.h, `struct nlattr`).
//!
//! In: the bytes after a message's fixed header. Out: each attribute's type and a slice of the input. Nothing is
//! copied or allocated, no length is believed before it is checked, and a walk never reads outside its input.

/// `NLA_TYPE_MASK`: the two upper bits say "nested" and "network order", and are not part of the type.
const TYPE_MASK: u16 = 0x3fff;
/// `NLA_HDRLEN`: length and type, two bytes each in host order.
const HEADER: usize = 4;

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// Its type, without the flag bits.
    pub kind: u16,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// The value's first byte.
    pub fn u8(self) -> Option<u8> {
        self.value.first().copied()
    }

    /// A 16-bit value in network order.
    pub fn be16(self) -> Option<u16> {
        self.value.first_chunk().map(|b| u16::from_be_bytes(*b))
    }

    /// A 32-bit value in network order.
    pub fn be32(self) -> Option<u32> {
        self.value.first_chunk().map(|b| u32::from_be_bytes(*b))
    }

    /// The attributes inside.
    pub fn nested(self) -> Attrs<'a> {
        Attrs::new(self.value)
    }
}

/// A walk over attributes. It ends where the bytes end or stop making sense; see [`Attrs::is_broken`].
#[derive(Clone, Debug)]
pub struct Attrs<'a> {
    rest: &'a [u8],
    broken: bool,
}

impl<'a> Attrs<'a> {
    /// Walks `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            broken: false,
        }
    }

    /// Whether the walk ended early: a length that is too small or reaches past the end.
    pub const fn is_broken(&self) -> bool {
        self.broken
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Attr<'a>;

    #[inline]
    fn next(&mut self) -> Option<Attr<'a>> {
        let rest = std::mem::take(&mut self.rest);
        let Some([l0, l1, k0, k1]) = rest.first_chunk().copied() else {
            self.broken |= !rest.is_empty();
            return None;
        };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = rest.get(HEADER..length) else {
            self.broken = true;
            return None;
        };
        // The last attribute's padding may be missing.
        self.rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Attr {
            kind: u16::from_ne_bytes([k0, k1]) & TYPE_MASK,
            value,
        })
    }
}

/// Appends an attribute, padded to 4 bytes. A value too long for a length of 16 bits is left out.
pub fn push(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let Ok(length) = u16::try_from(HEADER + value.len()) else {
        return;
    };
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_that_lie_end_the_walk() {
        // (bytes, attributes that can be read, broken)
        let table: &[(&[u8], usize, bool)] = &[
            (&[], 0, false),
            (&[4, 0, 1], 0, true),
            (&[3, 0, 1, 0], 0, true),
            (&[0, 0, 1, 0], 0, true),
            (&[4, 0, 1, 0], 1, false),
            (&[5, 0, 1, 0], 0, true),
            (&[5, 0, 1, 0, 7], 1, false),
            (&[5, 0, 1, 0, 7, 0, 0, 0, 4, 0, 2, 0], 2, false),
            (&[4, 0, 1, 0, 0xff, 0xff, 2, 0], 1, true),
        ];
        for (bytes, count, broken) in table {
            let mut walk = Attrs::new(bytes);
            assert_eq!(walk.by_ref().count(), *count, "{bytes:?}");
            assert_eq!(walk.is_broken(), *broken, "{bytes:?}");
        }
    }

    #[test]
    fn flag_bits_are_not_part_of_the_type() {
        let mut bytes = Vec::new();
        push(&mut bytes, 0x8000 | 0x4000 | 7, &[1, 2, 3, 4]);
        let attr = Attrs::new(&bytes).next().unwrap();
        assert_eq!((attr.kind, attr.be32()), (7, Some(0x0102_0304)));
        assert_eq!((attr.be16(), attr.u8()), (Some(0x0102), Some(1)));
    }

    proptest! {
        #[test]
        fn a_walk_stays_inside(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let mut end = 0;
            for attr in Attrs::new(&bytes) {
                let at = attr.value.as_ptr() as usize - bytes.as_ptr() as usize;
                prop_assert!(at >= end + HEADER && at + attr.value.len() <= bytes.len());
                end = at + attr.value.len();
            }
        }

        #[test]
        fn what_is_pushed_is_walked(
            attrs in prop::collection::vec((0u16..0x4000, prop::collection::vec(any::<u8>(), 0..40)), 0..12)
        ) {
            let mut bytes = Vec::new();
            for (kind, value) in &attrs {
                push(&mut bytes, *kind, value);
            }
            let mut walk = Attrs::new(&bytes);
            let seen: Vec<_> = walk.by_ref().map(|a| (a.kind, a.value.to_vec())).collect();
            prop_assert_eq!(seen, attrs);
            prop_assert!(!walk.is_broken());
        }
    }
}

//! A set of ports: one bit each, 8 KiB.

use crate::types::PortRange;

const WORDS: usize = 65_536 / 64;

/// A set of 16-bit port numbers.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; WORDS]>);

impl Default for PortSet {
    fn default() -> Self {
        Self::new()
    }
}

impl PortSet {
    /// The empty set.
    pub fn new() -> Self {
        Self(Box::new([0; WORDS]))
    }

    /// The ports of `range` that are not in `reserved`: those that the kernel hands out by itself.
    pub fn usable(range: PortRange, reserved: &[PortRange]) -> Self {
        let mut set = Self::new();
        (range.low..=range.high).for_each(|port| set.insert(port));
        for out in reserved {
            (out.low..=out.high).for_each(|port| set.remove(port));
        }
        set
    }

    /// Whether `port` is in.
    #[inline]
    pub fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port / 64)] >> (port % 64) & 1 == 1
    }

    /// Puts `port` in.
    #[inline]
    pub fn insert(&mut self, port: u16) {
        self.0[usize::from(port / 64)] |= 1 << (port % 64);
    }

    fn remove(&mut self, port: u16) {
        self.0[usize::from(port / 64)] &= !(1 << (port % 64));
    }

    /// How many ports are in both.
    pub fn count_common(&self, other: &Self) -> u32 {
        self.0
            .iter()
            .zip(other.0.iter())
            .map(|(a, b)| (a & b).count_ones())
            .sum()
    }

    /// The bits, port 0 the lowest of the first word.
    pub fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    /// The ports that are in this and not in `without`, or in `also`, ascending.
    pub fn listed<'a>(&'a self, without: &'a Self, also: &'a Self) -> impl Iterator<Item = u16> {
        let words = self.0.iter().zip(without.0.iter()).zip(also.0.iter());
        let words = words.map(|((a, b), c)| a & !b | c).zip(0_u16..);
        // Most words are empty.
        words.filter(|(word, _)| *word != 0).flat_map(|(word, at)| {
            let set = (0..64_u16).filter(move |bit| word >> bit & 1 == 1);
            set.map(move |bit| at * 64 + bit)
        })
    }

    /// Takes all ports out.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(low: u16, high: u16) -> PortRange {
        PortRange { low, high }
    }

    #[test]
    fn usable_is_the_range_less_what_is_reserved() {
        let all = PortSet::usable(range(0, 65_535), &[]);
        assert_eq!(all.count_common(&all), 65_536);
        let usable = PortSet::usable(
            range(32_768, 60_999),
            &[range(1, 1), range(40_000, 40_009), range(60_999, 65_535)],
        );
        assert_eq!(usable.count_common(&all), 28_232 - 10 - 1);
        for (port, is) in [
            (32_767, false),
            (32_768, true),
            (40_000, false),
            (40_010, true),
            (60_999, false),
        ] {
            assert_eq!(usable.contains(port), is, "{port}");
        }
        let none = PortSet::usable(range(2, 1), &[]);
        assert_eq!(none.count_common(&all), 0);
    }
}

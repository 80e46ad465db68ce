//! Short lists of numbers for many owners, in one bounded pool: inodes and user ids of a destination's sockets.

/// Numbers that the pool holds at most, 8 bytes each. When it is full, lists no longer grow.
const POOL: usize = 65_536;
const NONE: u32 = u32::MAX;

/// A list in a [`Pool`].
#[derive(Clone, Copy, Debug)]
pub struct List {
    head: u32,
    len: u8,
}

impl List {
    /// The empty list.
    pub const EMPTY: Self = Self { head: NONE, len: 0 };
}

/// Where the lists live.
#[derive(Debug, Default)]
pub struct Pool {
    /// Value, and the index of the next.
    nodes: Vec<(u32, u32)>,
}

impl Pool {
    /// Keeps `value` if the list has fewer than `bound`, or in place of the list's least if that is less.
    pub fn keep_greatest(&mut self, list: &mut List, bound: u8, value: u32) {
        if list.len < bound {
            self.push(list, value);
            return;
        }
        let mut at = list.head;
        let mut least = (value, None);
        while let Some(&(held, next)) = self.nodes.get(at as usize) {
            if held < least.0 {
                least = (held, Some(at));
            }
            at = next;
        }
        if let Some(node) = least.1.and_then(|at| self.nodes.get_mut(at as usize)) {
            node.0 = value;
        }
    }

    /// Keeps `value` if the list has fewer than `bound` and does not hold it yet.
    pub fn keep_distinct(&mut self, list: &mut List, bound: u8, value: u32) {
        if !self.iter(*list).any(|held| held == value) && list.len < bound {
            self.push(list, value);
        }
    }

    fn push(&mut self, list: &mut List, value: u32) {
        if self.nodes.len() < POOL
            && let Ok(at) = u32::try_from(self.nodes.len())
        {
            self.nodes.push((value, list.head));
            *list = List {
                head: at,
                len: list.len + 1,
            };
        }
    }

    /// The list's numbers, in no order.
    pub fn iter(&self, list: List) -> impl Iterator<Item = u32> {
        let mut at = list.head;
        std::iter::from_fn(move || {
            let (value, next) = *self.nodes.get(at as usize)?;
            at = next;
            Some(value)
        })
    }

    /// Empties the pool: every list made so far is void.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_share_a_pool_and_keep_their_bounds() {
        let mut pool = Pool::default();
        let (mut inodes, mut uids) = (List::EMPTY, List::EMPTY);
        for value in [5, 9, 1, 7, 3, 8] {
            pool.keep_greatest(&mut inodes, 3, value);
            pool.keep_distinct(&mut uids, 2, value % 2);
        }
        pool.keep_distinct(&mut uids, 2, 77);
        let mut kept: Vec<u32> = pool.iter(inodes).collect();
        kept.sort_unstable();
        assert_eq!(kept, [7, 8, 9]);
        let mut kept: Vec<u32> = pool.iter(uids).collect();
        kept.sort_unstable();
        assert_eq!(kept, [0, 1]);
    }

    #[test]
    fn a_full_pool_stops_growing() {
        let mut pool = Pool::default();
        let mut lists = vec![List::EMPTY; POOL + 10];
        for list in &mut lists {
            pool.keep_greatest(list, 16, 1);
        }
        assert_eq!(pool.nodes.len(), POOL);
        assert_eq!(pool.iter(lists[POOL]).count(), 0);
    }
}

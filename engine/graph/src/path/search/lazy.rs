//! Blocks of edges whose examination a search defers.
//!
//! Owns [`LazyBlocks`]: lists of blocks, each examined only once the search has reached the block's lower bound on
//! cost. Keeps its memory from query to query. Does not know the contents of a block.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Lists of blocks, each block with a lower bound on the cost of crossing any of its edges.
#[derive(Debug, Default)]
pub(super) struct LazyBlocks {
    lists: Vec<BinaryHeap<Reverse<(u64, u32)>>>,
    used: usize,
}

impl LazyBlocks {
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    /// Adds a list of (lower bound, block) and returns its number. Lists are numbered from 0 in the order of their
    /// addition since the last [`LazyBlocks::clear`].
    pub(super) fn push_list(&mut self, blocks: impl Iterator<Item = (u64, u32)>) -> u32 {
        let number = self.used;
        if number == self.lists.len() {
            self.lists.push(BinaryHeap::new());
        }
        let mut list = std::mem::take(&mut self.lists[number]).into_vec();
        list.clear();
        list.extend(blocks.map(Reverse));
        self.lists[number] = BinaryHeap::from(list);
        self.used += 1;
        number as u32
    }

    /// The lowest bound left in a list; `None` when the list is empty.
    pub(super) fn least_cost(&self, list: u32) -> Option<u64> {
        self.lists[list as usize].peek().map(|Reverse((least, _))| *least)
    }

    /// Pops the block with the lowest bound, unless that exceeds `most`.
    pub(super) fn pop_up_to(&mut self, list: u32, most: u64) -> Option<u32> {
        self.least_cost(list).filter(|least| *least <= most)?;
        self.lists[list as usize].pop().map(|Reverse((_, block))| block)
    }
}

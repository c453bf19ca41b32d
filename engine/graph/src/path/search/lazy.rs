//! What searches keep of nodes and of what they have put off.
//!
//! Owns: [`LazyBlocks`], blocks of edges that are not looked at before what they cost at least makes them worth it, and
//! [`NodeSet`]. Both keep their memory from query to query. Does not know what a block is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Lists of blocks, each with the least that crossing any of its edges costs.
#[derive(Debug, Default)]
pub(super) struct LazyBlocks {
    lists: Vec<BinaryHeap<Reverse<(u64, u32)>>>,
    used: usize,
}

impl LazyBlocks {
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    /// Puts blocks off, and gives the list's number. Lists are numbered in the order in which they come.
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

    /// What the cheapest block of a list costs at least; `None` when nothing is left.
    pub(super) fn least_cost(&self, list: u32) -> Option<u64> {
        self.lists[list as usize].peek().map(|Reverse((least, _))| *least)
    }

    /// Takes the cheapest block of a list, unless it costs more than `most`.
    pub(super) fn pop_up_to(&mut self, list: u32, most: u64) -> Option<u32> {
        self.least_cost(list).filter(|least| *least <= most)?;
        self.lists[list as usize].pop().map(|Reverse((_, block))| block)
    }
}

/// Some of the nodes.
#[derive(Debug, Default)]
pub(super) struct NodeSet {
    bits: Vec<u64>,
    members: Vec<u32>,
}

impl NodeSet {
    /// Empties the set and makes room for so many nodes.
    pub(super) fn clear(&mut self, node_count: usize) {
        for node in self.members.drain(..) {
            self.bits[node as usize / 64] = 0;
        }
        self.bits.resize(node_count.div_ceil(64), 0);
    }

    pub(super) fn insert(&mut self, node: u32) {
        if !self.contains(node) {
            self.bits[node as usize / 64] |= 1 << (node % 64);
            self.members.push(node);
        }
    }

    #[inline]
    pub(super) fn contains(&self, node: u32) -> bool {
        self.bits[node as usize / 64] >> (node % 64) & 1 == 1
    }
}

//! Lower bounds on the distance from the payer to each node, by a search forward from the payer.
//!
//! Owns [`Bounds`]. Every channel is taken to carry the same amount, usually the payment's. That underestimates the
//! true cost, since no cost falls as the amount grows. The search may stop at any time: the distance of the next node
//! to settle then bounds all nodes that are not settled. At a large node only blocks of channels whose heads show
//! that they may matter by then are examined. Does not know how partial routes are compared.
//!
//! Invariant: the bound of a settled node is its distance and is final; any other node is no nearer than the radius.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::bit_set::BitSet;
use crate::path::search::lazy::LazyBlocks;
use crate::path::search::prepared::{BlockSide, PreparedQuery};
use crate::snapshot::Edge;

/// Entries of the queue from this number on are lazy lists, below it nodes.
const LAZY: u32 = 1 << 31;

/// A bound for every node; its memory is reused from query to query.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// For each node the least distance found so far, if it belongs to this search.
    reached: Vec<Reached>,
    search: u32,
    settled: BitSet,
    /// The amount that every channel is taken to carry, in millisatoshi.
    amount: u64,
    /// A lower bound for every node that is not settled.
    radius: u64,
    /// The number of edges examined, roughly.
    pub(super) work: usize,
    /// Nodes to settle and, from [`LAZY`] on, lists of deferred blocks.
    open: BinaryHeap<Reverse<(u64, u32)>>,
    /// Nodes with deferred blocks, and their distance; numbered as the lists in `lazy`.
    lazy_lists: Vec<(u32, u64)>,
    lazy: LazyBlocks,
    /// Nodes to which the last step found a shorter path.
    updated_nodes: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    distance: u64,
    search: u32,
    /// The last edge of the shortest path; meaningless at the payer.
    over: u32,
}

/// The measure of a distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// The figure that the search minimises.
    Cost,
    /// Each `cltv_expiry_delta`.
    Blocks,
    /// One per channel.
    Hops,
}

impl Bounds {
    /// Continues until every reachable node is settled.
    pub(super) fn complete(&mut self, prepared: &PreparedQuery<'_>, measure: Measure) {
        while self.is_growing() {
            self.grow(prepared, measure);
        }
    }

    /// Forgets the last search and starts at the payer, every channel carrying `amount`.
    pub(super) fn start(&mut self, prepared: &PreparedQuery<'_>, amount: u64) {
        self.amount = amount;
        self.reached.resize(prepared.snapshot.node_count(), Reached::default());
        self.search = self.search.wrapping_add(1);
        if self.search == 0 {
            self.reached.fill(Reached::default());
            self.search = 1;
        }
        self.settled.clear(prepared.snapshot.node_count());
        self.lazy_lists.clear();
        self.lazy.clear();
        self.open.clear();
        self.reached[prepared.payer as usize] = Reached { distance: 0, search: self.search, over: u32::MAX };
        self.open.push(Reverse((0, prepared.payer)));
        self.radius = 0;
        self.work = 0;
    }

    /// The amount that every channel is taken to carry.
    pub(super) fn amount(&self) -> u64 {
        self.amount
    }

    /// Whether a node is left to settle.
    pub(super) fn is_growing(&self) -> bool {
        self.radius < u64::MAX
    }

    /// Takes one step from the nearest node, and returns the node that it settled, if any. Bounds only rise. A
    /// minimum above the payment's amount does not close a channel, as long as fees might lift the amount above it.
    pub(super) fn grow(&mut self, prepared: &PreparedQuery<'_>, measure: Measure) -> Option<u32> {
        let mut settled = None;
        self.updated_nodes.clear();
        if let Some(Reverse((distance, open))) = self.open.pop() {
            if open >= LAZY {
                self.resume(prepared, measure, open - LAZY, distance);
            } else if distance == self.reached[open as usize].distance && !self.settled.contains(open) {
                self.settle(prepared, measure, open, distance);
                settled = Some(open);
            }
        }
        self.radius = self.open.peek().map_or(u64::MAX, |Reverse((distance, _))| *distance);
        settled
    }

    /// A lower bound on the distance from the payer to a node; `u64::MAX` when the node cannot be reached.
    #[inline]
    pub(super) fn of(&self, node: u32) -> u64 {
        let reached = self.reached[node as usize];
        if reached.search == self.search { reached.distance.min(self.radius) } else { self.radius }
    }

    /// A lower bound on the distance to any node that is not settled.
    #[inline]
    pub(super) fn radius(&self) -> u64 {
        self.radius
    }

    /// The number of entries in the queue.
    #[inline]
    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    #[inline]
    pub(super) fn is_settled(&self, node: u32) -> bool {
        self.settled.contains(node)
    }

    /// The shortest distance found so far, if any path was found.
    #[inline]
    pub(super) fn found(&self, node: u32) -> Option<u64> {
        let reached = self.reached[node as usize];
        (reached.search == self.search).then_some(reached.distance)
    }

    /// The last edge of the shortest path found so far, if any path was found.
    #[inline]
    pub(super) fn over(&self, node: u32) -> Option<u32> {
        let reached = self.reached[node as usize];
        (reached.search == self.search).then_some(reached.over)
    }

    /// The nodes to which the last step found a shorter path.
    #[inline]
    pub(super) fn updated_nodes(&self) -> &[u32] {
        &self.updated_nodes
    }

    /// Examines the channels out of a node, or defers them.
    fn settle(&mut self, prepared: &PreparedQuery<'_>, measure: Measure, node: u32, distance: u64) {
        self.settled.insert(node);
        let edges = prepared.snapshot.incoming(node);
        self.work += edges.len() / 4;
        let blocks = prepared.snapshot.blocks(node);
        if blocks.is_empty() || node == prepared.payer {
            // Heads do not cover the costs of the payer's own channels.
            return self.scan(prepared, measure, node, distance, edges);
        }
        let heads = prepared.snapshot.outward_heads(blocks);
        let heads = heads.flat_map(|(first, run)| (first..).zip(run));
        let rest = self.lazy.push_list(heads.filter_map(|(block, head)| {
            let least = match measure {
                Measure::Cost => prepared.least(BlockSide::Outward, block, head, self.amount)?,
                Measure::Blocks => {
                    prepared.open(head, self.amount).then_some(head.cltv_expiry_delta.into())?
                }
                Measure::Hops => prepared.open(head, self.amount).then_some(1)?,
            };
            Some((least, block))
        }));
        self.lazy_lists.push((node, distance));
        self.defer(rest, distance);
    }

    /// Examines the blocks whose lower bound has been reached.
    fn resume(&mut self, prepared: &PreparedQuery<'_>, measure: Measure, rest: u32, radius: u64) {
        let (node, distance) = self.lazy_lists[rest as usize];
        while let Some(block) = self.lazy.pop_up_to(rest, radius - distance) {
            self.scan(prepared, measure, node, distance, prepared.snapshot.block(node, block));
        }
        self.defer(rest, distance);
    }

    /// Queues the rest of a lazy list at its next lower bound.
    fn defer(&mut self, rest: u32, distance: u64) {
        if let Some(least) = self.lazy.least_cost(rest) {
            self.open.push(Reverse((distance.saturating_add(least), LAZY + rest)));
        }
    }

    /// Examines some channels out of a node.
    fn scan(
        &mut self,
        prepared: &PreparedQuery<'_>,
        measure: Measure,
        node: u32,
        distance: u64,
        places: Range<u32>,
    ) {
        self.work += 2 * places.len();
        for inward in prepared.snapshot.outgoing(places) {
            let target = prepared.snapshot.source(*inward);
            let reached = self.reached[target as usize];
            if reached.search == self.search && reached.distance <= distance {
                continue;
            }
            let number = prepared.snapshot.reverse(*inward);
            let edge = prepared.snapshot.edge(number);
            if prepared.minimum(number, edge, node) > prepared.amount_max {
                continue;
            }
            let Some(length) = self.length(prepared, measure, number, edge, node) else { continue };
            let next = distance.saturating_add(length);
            if reached.search != self.search || next < reached.distance {
                self.reached[target as usize] = Reached { distance: next, search: self.search, over: number };
                self.open.push(Reverse((next, target)));
                self.updated_nodes.push(target);
            }
        }
    }

    /// The measure of one edge out of a node; `None` when it cannot be used.
    #[inline]
    fn length(
        &self,
        prepared: &PreparedQuery<'_>,
        measure: Measure,
        number: u32,
        edge: &Edge,
        node: u32,
    ) -> Option<u64> {
        if node == prepared.payer {
            let cost = prepared.first(number, edge, self.amount)?;
            return Some(match measure {
                Measure::Cost => cost,
                Measure::Blocks => 0,
                Measure::Hops => 1,
            });
        }
        let step = prepared.forward(number, edge, self.amount)?;
        Some(match measure {
            Measure::Cost => step.cost,
            Measure::Blocks => u64::from(step.blocks),
            Measure::Hops => 1,
        })
    }
}

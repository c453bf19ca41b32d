//! Lower bounds on what lies between the payer and a node, found by searching forward from the payer.
//!
//! Owns: [`Bounds`]. Every channel is taken at one amount, such as the payment's bare one, which underestimates what it takes
//! to carry more, since nothing gets cheaper as the amount grows. The search may stop at any time: what it has not settled is
//! at least as far away as what it would turn to next, which is a bound as well. Of a large node it looks only at the blocks
//! of channels whose heads say that they may matter by now. Does not know how partial routes are compared.
//!
//! Invariant: the bound of a settled node is its distance and does not change any more; any other node is no nearer than
//! the radius.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::bit_set::BitSet;
use crate::path::search::lazy::LazyBlocks;
use crate::path::search::prepared::{BlockSide, PreparedQuery};
use crate::snapshot::Edge;

/// From this number on, what is open is not a node but the rest of one.
const LAZY: u32 = 1 << 31;

/// A bound for every node, in memory used again from query to query.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// For each node the least found so far, if it is of this search.
    reached: Vec<Reached>,
    search: u32,
    settled: BitSet,
    /// What every channel is taken to carry.
    amount: u64,
    /// What holds for every node that is not settled.
    radius: u64,
    /// How much has been looked at.
    pub(super) work: usize,
    /// Nodes to settle and, from [`LAZY`] on, what was put off.
    open: BinaryHeap<Reverse<(u64, u32)>>,
    /// Nodes with blocks put off, and their distance; numbered as the lists in `lazy`.
    lazy_lists: Vec<(u32, u64)>,
    lazy: LazyBlocks,
    /// What the last step found ways to.
    updated_nodes: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    distance: u64,
    search: u32,
    /// The edge over which it is reached; of no meaning at the payer.
    over: u32,
}

/// What is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// What the search minimises.
    Cost,
    /// Each `cltv_expiry_delta`.
    Blocks,
    /// One for each channel.
    Hops,
}

impl Bounds {
    /// Goes on until nothing is left to settle.
    pub(super) fn complete(&mut self, prepared: &PreparedQuery<'_>, measure: Measure) {
        while self.is_growing() {
            self.grow(prepared, measure);
        }
    }

    /// Forgets the last search and starts at the payer, with nothing known beyond it but that every channel has to carry
    /// `amount`.
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

    /// What every channel is taken to carry.
    pub(super) fn amount(&self) -> u64 {
        self.amount
    }

    /// Whether something is left to settle.
    pub(super) fn is_growing(&self) -> bool {
        self.radius < u64::MAX
    }

    /// Goes on with what is nearest, and gives the node if that settles one. Bounds only rise by it. A minimum above the
    /// payment's amount keeps no channel out as long as fees might make up for it.
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

    /// The least that lies between the payer and a node; `u64::MAX` when no way leads there.
    #[inline]
    pub(super) fn of(&self, node: u32) -> u64 {
        let reached = self.reached[node as usize];
        if reached.search == self.search { reached.distance.min(self.radius) } else { self.radius }
    }

    /// The least that lies between the payer and any node that is not settled.
    #[inline]
    pub(super) fn radius(&self) -> u64 {
        self.radius
    }

    /// How much there is to go on with.
    #[inline]
    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    #[inline]
    pub(super) fn is_settled(&self, node: u32) -> bool {
        self.settled.contains(node)
    }

    /// The least that has been found to lie between the payer and a node so far, when a way there has been found.
    #[inline]
    pub(super) fn found(&self, node: u32) -> Option<u64> {
        let reached = self.reached[node as usize];
        (reached.search == self.search).then_some(reached.distance)
    }

    /// The edge that leads to a node on the nearest way from the payer found so far, when one has been found.
    #[inline]
    pub(super) fn over(&self, node: u32) -> Option<u32> {
        let reached = self.reached[node as usize];
        (reached.search == self.search).then_some(reached.over)
    }

    /// The nodes that the last step found a way to, or a nearer one.
    #[inline]
    pub(super) fn updated_nodes(&self) -> &[u32] {
        &self.updated_nodes
    }

    /// Looks at the channels out of a node, or puts them off.
    fn settle(&mut self, prepared: &PreparedQuery<'_>, measure: Measure, node: u32, distance: u64) {
        self.settled.insert(node);
        let edges = prepared.snapshot.incoming(node);
        self.work += edges.len() / 4;
        let blocks = prepared.snapshot.blocks(node);
        if blocks.is_empty() || node == prepared.payer {
            // What the payer pays for its own channels is not in their heads.
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

    /// Looks at the blocks whose turn it is by now.
    fn resume(&mut self, prepared: &PreparedQuery<'_>, measure: Measure, rest: u32, radius: u64) {
        let (node, distance) = self.lazy_lists[rest as usize];
        while let Some(block) = self.lazy.pop_up_to(rest, radius - distance) {
            self.scan(prepared, measure, node, distance, prepared.snapshot.block(node, block));
        }
        self.defer(rest, distance);
    }

    /// Notes when the rest of a node is due, if there is any.
    fn defer(&mut self, rest: u32, distance: u64) {
        if let Some(least) = self.lazy.least_cost(rest) {
            self.open.push(Reverse((distance.saturating_add(least), LAZY + rest)));
        }
    }

    /// Looks at some channels out of a node.
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

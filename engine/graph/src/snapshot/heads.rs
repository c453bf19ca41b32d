//! Lower bounds on the cost of blocks of edges, which a search reads at a large node instead of the edges.
//!
//! Owns [`Heads`]. The edges at a node form blocks of [`BLOCK_EDGES`] in the order in which they lie. A block's
//! *head* has the lowest minimum, fee and delta and the highest maximum and capacity of its enabled edges: for any
//! amount it costs no more than any of them. Nodes with a single block have no heads. Does not know prices or
//! payments.
//!
//! Invariant: a head covers every enabled edge of its block. Policy updates lower it where needed and never raise it;
//! the next layout makes it tight again.

use std::ops::Range;

use crate::snapshot::chunks::Chunks;
use crate::snapshot::{Edge, RoughCapacity};

/// The number of edges in a block. Small in tests, so that small graphs have heads.
pub(crate) const BLOCK_EDGES: u32 = if cfg!(test) { 2 } else { 8 };

/// The heads for one order of all edges.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    heads: Chunks,
}

impl Heads {
    /// Builds the heads of `edge`s, which are numbered node by node; `nodes` gives the first of each node, and the
    /// number of all at the end.
    pub(crate) fn new<'a>(nodes: &[u32], edge: impl Fn(u32) -> &'a Edge) -> Heads {
        let mut heads = Vec::new();
        for pair in nodes.windows(2) {
            let edges = pair[0]..pair[1];
            if block_count(&edges) == 0 {
                continue;
            }
            for start in edges.clone().step_by(BLOCK_EDGES as usize) {
                let block = start..edges.end.min(start + BLOCK_EDGES);
                heads.push(block.fold(CLOSED, |head, number| covering(head, edge(number))));
            }
        }
        Heads { heads: Chunks::new(&heads) }
    }

    /// The heads of some blocks, in runs.
    #[inline]
    pub(crate) fn runs(&self, blocks: Range<u32>) -> impl Iterator<Item = (u32, &[Edge])> {
        self.heads.runs(blocks)
    }

    /// Lowers a head so that it covers an edge.
    pub(crate) fn cover(&mut self, block: u32, edge: &Edge) {
        let head = *self.heads.at(block);
        let wider = covering(head, edge);
        if wider != head {
            self.heads.put(block, wider);
        }
    }

    /// The size in bytes, including chunks shared with other snapshots.
    pub(crate) fn bytes(&self) -> usize {
        self.heads.bytes()
    }
}

/// The number of blocks with heads that the edges of a node form.
pub(crate) fn block_count(edges: &Range<u32>) -> u32 {
    let count = edges.end - edges.start;
    if count <= BLOCK_EDGES { 0 } else { count.div_ceil(BLOCK_EDGES) }
}

/// The head of a block without an enabled edge.
const CLOSED: Edge = Edge {
    minimum: u64::MAX,
    maximum: 0,
    source: u32::MAX,
    fee_base: u32::MAX,
    fee_millionths: u32::MAX,
    cltv_expiry_delta: u16::MAX,
    capacity: RoughCapacity::NONE,
};

/// The highest head that covers the given one and an edge, if that is enabled.
fn covering(head: Edge, edge: &Edge) -> Edge {
    if !edge.enabled() {
        return head;
    }
    Edge {
        minimum: head.minimum.min(edge.minimum),
        maximum: head.maximum.max(edge.maximum),
        source: head.source,
        fee_base: head.fee_base.min(edge.fee_base),
        fee_millionths: head.fee_millionths.min(edge.fee_millionths),
        cltv_expiry_delta: head.cltv_expiry_delta.min(edge.cltv_expiry_delta),
        capacity: head.capacity.max(edge.capacity),
    }
}

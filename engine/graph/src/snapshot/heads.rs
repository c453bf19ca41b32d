//! What a search reads instead of the edges at a large node: for every few edges one that is as good as each of them.
//!
//! Owns: [`Heads`]. The edges at a node are taken in blocks of [`BLOCK_EDGES`], in the order in which they lie; a block's
//! *head* has the lowest minimum, fee and delta and the highest maximum and capacity of its open edges, and so costs no more
//! than any of them, whatever the amount. Nodes of a single block have none. Knows neither prices nor payments.
//!
//! Invariant: a head covers every open edge of its block. Policy updates only ever lower it, and mostly leave it alone; it is
//! tight again when the graph is next laid out.

use std::ops::Range;

use crate::snapshot::chunks::Chunks;
use crate::snapshot::{Edge, RoughCapacity};

/// How many edges a head stands for. In tests so few that small graphs have heads.
pub(crate) const BLOCK_EDGES: u32 = if cfg!(test) { 2 } else { 8 };

/// The heads of one order of all edges.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    heads: Chunks,
}

impl Heads {
    /// Sums up `edges`, which are given node by node. `nodes` says where each node's start, and one more.
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

    /// Takes care that a head covers an edge.
    pub(crate) fn cover(&mut self, block: u32, edge: &Edge) {
        let head = *self.heads.at(block);
        let wider = covering(head, edge);
        if wider != head {
            self.heads.put(block, wider);
        }
    }

    /// The bytes they take, shared ones included.
    pub(crate) fn bytes(&self) -> usize {
        self.heads.bytes()
    }
}

/// How many blocks with heads the edges of a node make.
pub(crate) fn block_count(edges: &Range<u32>) -> u32 {
    let count = edges.end - edges.start;
    if count <= BLOCK_EDGES { 0 } else { count.div_ceil(BLOCK_EDGES) }
}

/// The head of no open edge at all.
const CLOSED: Edge = Edge {
    minimum: u64::MAX,
    maximum: 0,
    source: u32::MAX,
    fee_base: u32::MAX,
    fee_millionths: u32::MAX,
    cltv_expiry_delta: u16::MAX,
    capacity: RoughCapacity::NONE,
};

/// The least head that covers what this one does and an edge, if that is open.
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

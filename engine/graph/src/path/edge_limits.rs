//! A payer's [`Knowledge`] by edge number, for searches of one snapshot.
//!
//! Owns the look-up: a bit for every edge says whether anything is to be minded of it, so that the many others cost a
//! search next to nothing. Does not know prices or probabilities ([`crate::scoring`]).

use crate::graph::DirectedChannel;
use crate::path::Query;
use crate::snapshot::{Edge, Snapshot};

/// What a payer knows, by edge number; used again from query to query.
#[derive(Debug, Default)]
pub(crate) struct EdgeLimits {
    marked: Vec<u64>,
    /// In ascending order of edges.
    entries: Vec<(u32, EdgeLimit)>,
}

/// What differs from the policy on one edge. Amounts are millisatoshis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EdgeLimit {
    /// Larger than any amount when the edge must not be used.
    pub(crate) minimum: u64,
    pub(crate) maximum: u64,
    /// What all parts of a payment may put on it.
    pub(crate) aggregate_max: u64,
    /// What other payments have put on it; `maximum` and `together` are less by it already.
    pub(crate) in_flight: u64,
    /// The payer knows what it can send here, so that there is no doubt.
    pub(crate) certain: bool,
}

impl EdgeLimit {
    const CLOSED: EdgeLimit =
        EdgeLimit { minimum: u64::MAX, maximum: 0, aggregate_max: 0, in_flight: 0, certain: false };
}

impl EdgeLimits {
    /// Looks up everything that `query`'s payer knows.
    pub(crate) fn prepare(&mut self, graph: &Snapshot, query: &Query<'_>) {
        let known = query.knowledge;
        for (edge, _) in self.entries.drain(..) {
            self.marked[edge as usize / 64] = 0;
        }
        self.marked.resize(graph.edge_count().div_ceil(64), 0);
        let outgoing = |node| {
            let node = graph.node_index(node);
            node.into_iter().flat_map(|node| graph.incoming(node)).map(|edge| graph.reverse(edge))
        };
        if let Some(first_hops) = &known.first_hops {
            for edge in outgoing(query.from) {
                let limit = first_hops.get(&graph.directed(edge).scid).map_or(EdgeLimit::CLOSED, |first| {
                    let spendable = first.spendable.min(graph.capacity_of(edge).to_msat()).0;
                    EdgeLimit {
                        minimum: first.htlc_minimum.0,
                        maximum: spendable,
                        aggregate_max: spendable,
                        in_flight: 0,
                        certain: true,
                    }
                });
                self.put(edge, limit);
            }
        }
        let channels = known.excluded_channels.iter().filter_map(|scid| graph.edges_of(*scid)).flatten();
        let directions = known.excluded_directions.iter().filter_map(|directed| graph.edge_index(*directed));
        let nodes = known.excluded_nodes.iter().flat_map(|node| outgoing(*node));
        for edge in channels.chain(directions).chain(nodes) {
            self.put(edge, EdgeLimit::CLOSED);
        }
        for (directed, failed) in &known.failed_amounts {
            self.change(graph, *directed, |limit, _| match failed.0.checked_sub(1) {
                Some(most) => {
                    limit.maximum = limit.maximum.min(most);
                    limit.aggregate_max = limit.aggregate_max.min(most);
                }
                None => *limit = EdgeLimit::CLOSED,
            });
        }
        for (directed, held) in &known.in_flight {
            self.change(graph, *directed, |limit, edge| {
                limit.in_flight = held.0;
                // What a payer knows to be spendable is so beside what is in flight already.
                if !limit.certain {
                    let free = graph.capacity_of(edge).to_msat().0.saturating_sub(held.0);
                    limit.aggregate_max = limit.aggregate_max.min(free);
                    limit.maximum = limit.maximum.min(free);
                }
            });
        }
        // Of several remarks on one edge the last one holds all: each began from the one before.
        self.entries.sort_by_key(|(edge, _)| *edge);
        self.entries.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                *earlier = *later;
            }
            same
        });
    }

    /// What is to be minded of an edge.
    #[inline]
    pub(crate) fn limit(&self, edge: u32) -> Option<&EdgeLimit> {
        if self.marked[edge as usize / 64] >> (edge % 64) & 1 == 0 {
            return None;
        }
        let at = self.entries.binary_search_by_key(&edge, |(edge, _)| *edge).ok()?;
        Some(&self.entries[at].1)
    }

    fn change(
        &mut self,
        graph: &Snapshot,
        directed: DirectedChannel,
        change: impl FnOnce(&mut EdgeLimit, u32),
    ) {
        let Some(edge) = graph.edge_index(directed) else { return };
        let mut limit = match self.entries.iter().rev().find(|(other, _)| *other == edge) {
            Some((_, limit)) if self.is_marked(edge) => *limit,
            _ => EdgeLimits::ordinary(graph, edge, graph.edge(edge)),
        };
        change(&mut limit, edge);
        self.put(edge, limit);
    }

    /// What an edge is without knowledge.
    pub(crate) fn ordinary(graph: &Snapshot, edge: u32, costs: &Edge) -> EdgeLimit {
        EdgeLimit {
            minimum: costs.minimum,
            maximum: costs.maximum,
            aggregate_max: graph.capacity_of(edge).to_msat().0,
            in_flight: 0,
            certain: false,
        }
    }

    fn is_marked(&self, edge: u32) -> bool {
        self.marked[edge as usize / 64] >> (edge % 64) & 1 == 1
    }

    fn put(&mut self, edge: u32, limit: EdgeLimit) {
        self.marked[edge as usize / 64] |= 1 << (edge % 64);
        self.entries.push((edge, limit));
    }
}

//! A payer's [`Knowledge`](crate::path::Knowledge) resolved to edge numbers, once for all searches of a query.
//!
//! Owns [`PreparedKnowledge`]: the edges on which the payer's knowledge differs from the public policies, the nodes
//! that must not forward, and the scorer's index when the scorer has none for the snapshot. A bit per edge tells
//! whether anything is known of it, so that all other edges cost a search one test. Does not know prices or
//! probabilities ([`crate::path::prices`]).
//!
//! Invariant: the limits of an edge here are those that [`crate::path::plain`] and [`crate::path::check`] derive from
//! the same knowledge for its direction.

use fulmen_wire::units::Msat;

use crate::bit_set::BitSet;
use crate::path::Query;
use crate::scoring::ScoreIndex;
use crate::snapshot::{Edge, Snapshot};

/// A payer's knowledge by edge number; its memory is reused from query to query.
#[derive(Debug, Default)]
pub(crate) struct PreparedKnowledge {
    /// Edges in `limits`.
    limited: BitSet,
    /// In ascending order of edges, each once.
    limits: Vec<(u32, EdgeLimit)>,
    /// Each reason why an edge is in `limits`; empty but while preparing.
    restrictions: Vec<(u32, Restriction)>,
    /// For the blocks of edges into nodes and out of nodes: which hold an edge with amounts in flight.
    in_flight_blocks: [BitSet; 2],
    /// Nodes that must not forward.
    excluded_nodes: BitSet,
    /// The payer, when it states the limits of its own channels: any other channel out of it is closed.
    known_payer: Option<u32>,
    /// Built for this query when the scorer is not bound to the snapshot.
    scores: ScoreIndex,
}

/// The amounts that an edge carries for one payer, in millisatoshi.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EdgeLimit {
    /// The least amount of one HTLC. Above every amount when the edge must not be used.
    pub(crate) minimum: u64,
    /// The largest amount of one HTLC.
    pub(crate) maximum: u64,
    /// The most that all parts of the payment together may put on it, beside the capacity.
    pub(crate) aggregate_max: u64,
    /// The sum that other payments have in flight; `maximum` and `aggregate_max` are reduced by it already.
    pub(crate) in_flight: u64,
    /// The payer knows that it can send up to `maximum`: the edge's success is certain.
    pub(crate) certain: bool,
}

/// One way in which knowledge restricts an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Restriction {
    /// One of the payer's own channels, as the payer states it.
    Own { minimum: u64, spendable: u64 },
    /// It must not be used.
    Excluded,
    /// Larger amounts are known to fail.
    AtMost(u64),
    /// Other payments have this much in flight.
    InFlight(u64),
}

impl EdgeLimit {
    /// An edge that must not be used.
    const CLOSED: EdgeLimit =
        EdgeLimit { minimum: u64::MAX, maximum: 0, aggregate_max: 0, in_flight: 0, certain: false };

    /// An edge known by its policy alone.
    #[inline]
    fn public(edge: &Edge) -> EdgeLimit {
        EdgeLimit {
            minimum: edge.minimum,
            maximum: edge.maximum,
            aggregate_max: u64::MAX,
            in_flight: 0,
            certain: false,
        }
    }

    fn restrict(&mut self, restriction: Restriction, capacity_msat: u64) {
        let most = match restriction {
            Restriction::Own { minimum, spendable } => {
                let maximum = spendable.min(capacity_msat);
                *self = EdgeLimit { minimum, maximum, aggregate_max: maximum, in_flight: 0, certain: true };
                return;
            }
            Restriction::Excluded => {
                *self = EdgeLimit::CLOSED;
                return;
            }
            Restriction::AtMost(most) => most,
            Restriction::InFlight(in_flight) => {
                self.in_flight = in_flight;
                // `spendable` already excludes amounts in flight; do not subtract them again.
                if self.certain {
                    return;
                }
                capacity_msat.saturating_sub(in_flight)
            }
        };
        self.maximum = self.maximum.min(most);
        self.aggregate_max = self.aggregate_max.min(most);
    }
}

impl PreparedKnowledge {
    /// Forgets the last query and resolves the knowledge of `query`'s payer, node number `payer`.
    pub(crate) fn prepare(&mut self, snapshot: &Snapshot, query: &Query<'_>, payer: u32) {
        let known = query.knowledge;
        self.known_payer = known.first_hops.is_some().then_some(payer);
        self.collect_restrictions(snapshot, query, payer);
        self.merge_restrictions(snapshot, payer);
        self.excluded_nodes.clear(snapshot.node_count());
        for node in known.excluded_nodes.iter().filter_map(|node| snapshot.node_index(*node)) {
            self.excluded_nodes.insert(node);
        }
        if let Some(scorer) = query.scorer.filter(|scorer| scorer.index_for(snapshot).is_none()) {
            self.scores = scorer.build_index(snapshot);
        }
    }

    fn collect_restrictions(&mut self, snapshot: &Snapshot, query: &Query<'_>, payer: u32) {
        let known = query.knowledge;
        self.restrictions.clear();
        for (scid, first) in known.first_hops.iter().flatten() {
            let edges = snapshot.edges_of(*scid).into_iter().flatten();
            let own = edges.filter(|edge| snapshot.edge(*edge).source == payer);
            let restriction =
                Restriction::Own { minimum: first.htlc_minimum.0, spendable: first.spendable.0 };
            self.restrictions.extend(own.map(|edge| (edge, restriction)));
        }
        let channels = known.excluded_channels.iter().filter_map(|scid| snapshot.edges_of(*scid)).flatten();
        let directions = known.excluded_directions.iter().filter_map(|way| snapshot.edge_index(*way));
        self.restrictions.extend(channels.chain(directions).map(|edge| (edge, Restriction::Excluded)));
        for (directed, failed) in &known.failed_amounts {
            let restriction = match failed.0.checked_sub(1) {
                Some(most) => Restriction::AtMost(most),
                None => Restriction::Excluded,
            };
            self.restrictions.extend(snapshot.edge_index(*directed).map(|edge| (edge, restriction)));
        }
        for (directed, held) in &known.in_flight {
            let edge = snapshot.edge_index(*directed);
            self.restrictions.extend(edge.map(|edge| (edge, Restriction::InFlight(held.0))));
        }
        self.restrictions.sort_unstable();
    }

    /// Turns the sorted restrictions into one limit for each edge.
    fn merge_restrictions(&mut self, snapshot: &Snapshot, payer: u32) {
        self.limits.clear();
        self.limited.clear(snapshot.edge_count());
        self.in_flight_blocks.iter_mut().for_each(|blocks| blocks.clear(0));
        for (number, restriction) in self.restrictions.drain(..) {
            let edge = snapshot.edge(number);
            let capacity = snapshot.capacity_of(number).to_msat().min(Msat::MAX_MONEY).0;
            if self.limits.last().is_none_or(|(last, _)| *last != number) {
                let is_unlisted = self.known_payer == Some(payer) && edge.source == payer;
                let limit = if is_unlisted { EdgeLimit::CLOSED } else { EdgeLimit::public(edge) };
                self.limits.push((number, limit));
                self.limited.insert(number);
            }
            if let Some((_, limit)) = self.limits.last_mut() {
                limit.restrict(restriction, capacity);
            }
            if matches!(restriction, Restriction::InFlight(_)) {
                snapshot.mark_blocks(number, &mut self.in_flight_blocks);
            }
        }
    }

    /// Whether nothing is known beyond the public policies.
    #[inline]
    fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.known_payer.is_none() && self.excluded_nodes.members().is_empty()
    }

    /// Whether anything is known of any edge.
    pub(crate) fn limits_edges(&self) -> bool {
        !self.limits.is_empty()
    }

    /// The limit of an edge when knowledge changes it. Does not cover excluded nodes, nor the payer's own channels
    /// that it did not list.
    #[inline]
    pub(crate) fn limit(&self, edge: u32) -> Option<&EdgeLimit> {
        if !self.limited.contains(edge) {
            return None;
        }
        let at = self.limits.binary_search_by_key(&edge, |(edge, _)| *edge).ok()?;
        Some(&self.limits[at].1)
    }

    /// The limit of an edge with all knowledge applied.
    #[inline]
    pub(crate) fn limit_or_public(&self, number: u32, edge: &Edge) -> EdgeLimit {
        if self.is_empty() {
            return EdgeLimit::public(edge);
        }
        if self.excluded_nodes.contains(edge.source) {
            return EdgeLimit::CLOSED;
        }
        match self.limit(number) {
            Some(limit) => *limit,
            None if self.known_payer == Some(edge.source) => EdgeLimit::CLOSED,
            None => EdgeLimit::public(edge),
        }
    }

    /// Whether an edge of a block has amounts of other payments in flight.
    #[inline]
    pub(crate) fn is_in_flight_block(&self, side: usize, block: u32) -> bool {
        self.in_flight_blocks[side].contains(block)
    }

    /// Nodes that must not forward.
    pub(crate) fn excluded_nodes(&self) -> &[u32] {
        self.excluded_nodes.members()
    }

    /// The minimums of the payer's own channels.
    pub(crate) fn own_minimums(&self) -> impl Iterator<Item = u64> {
        self.limits.iter().filter(|(_, limit)| limit.certain).map(|(_, limit)| limit.minimum)
    }

    /// The scorer's index: the one it keeps for the snapshot, else the one built for this query.
    pub(crate) fn scores<'a>(&'a self, snapshot: &Snapshot, query: &Query<'a>) -> Option<&'a ScoreIndex> {
        query.scorer.map(|scorer| scorer.index_for(snapshot).unwrap_or(&self.scores))
    }
}

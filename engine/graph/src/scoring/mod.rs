//! Scores of channels beyond their policies: learned liquidity, penalties and bans.
//!
//! Owns [`Weights`] (the prices of uncertainty and of hops) and [`Scorer`] (the results of our own payments, and the
//! operator's penalties for nodes and channels). The prices of hops are made of these in [`crate::path::prices`].
//! Does not search, and reads no clock: the caller passes the time.
//!
//! Observations move the bounds on a channel's liquidity and add to a history; both fade ([`Fading`]).
//!
//! Invariant: scores are whole numbers, and uncertainty never falls as the amount grows, on which the searches rely.

mod bytes;
mod liquidity;
mod logarithm;

use std::collections::BTreeMap;

use fulmen_wire::units::{Msat, NodeId, Sat, Scid};

pub use bytes::ScorerError;
pub use liquidity::Fading;
pub use logarithm::Probability;
pub(crate) use logarithm::Uncertainty;

use crate::bit_set::BitSet;
use crate::cost::Cost;
use crate::graph::{DirectedChannel, Direction};
use crate::scoring::liquidity::{Liquidity, Observation};
use crate::snapshot::{RoughCapacity, Snapshot};

/// The prices of uncertainty and of hops, in money that is compared but never paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// The cost of halving the probability of success, whatever the amount.
    pub halving: Msat,
    /// The cost of halving the probability of success, in millionths of the payment's amount.
    pub halving_millionths: u32,
    /// The cost of a forwarding hop, whatever the amount.
    pub hop: Msat,
    /// The cost of a forwarding hop, in millionths of the payment's amount.
    pub hop_millionths: u32,
}

impl Weights {
    /// Only fees and delay count.
    pub const FEES: Weights =
        Weights { halving: Msat(0), halving_millionths: 0, hop: Msat(0), hop_millionths: 0 };
}

impl Default for Weights {
    /// A balance for a sender who prefers a slightly higher fee to another attempt.
    fn default() -> Weights {
        Weights { halving: Msat(20_000), halving_millionths: 650, hop: Msat(100), hop_millionths: 10 }
    }
}

/// An operator's penalty for a node or a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Penalty {
    /// Each use costs this much more, for comparison only.
    Cost(Msat),
    /// It must not be used.
    Ban,
}

/// Everything known about channels beyond gossip: learned liquidity, penalties and bans.
///
/// Searches read it; results of payments update it. Call [`Scorer::bind`] for every snapshot with other channels than
/// the last: answers are the same without it, but every query then builds the index anew.
#[derive(Clone, Debug, Default)]
pub struct Scorer {
    fading: Fading,
    liquidity: Vec<Liquidity>,
    /// The positions of channels in `liquidity`.
    slots: BTreeMap<Scid, u32>,
    node_penalties: BTreeMap<NodeId, Penalty>,
    penalties: BTreeMap<DirectedChannel, Penalty>,
    indexed: Option<(Snapshot, ScoreIndex)>,
}

/// The scores of a snapshot's edges, by edge number.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScoreIndex {
    /// A slot in `scores`, or [`ScoreIndex::NONE`].
    pub(crate) slots: Vec<u32>,
    pub(crate) scores: Vec<EdgeScore>,
    /// The blocks of edges into nodes, and of edges out of nodes, that hold an edge with a score.
    pub(crate) blocks: [BitSet; 2],
}

/// The score of one edge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EdgeScore {
    /// The position of its channel in the scorer's liquidity.
    liquidity: Option<u32>,
    direction: Direction,
    /// The penalty as the payer's own channel; [`BANNED`] for a ban.
    pub(crate) own_penalty: u64,
    /// The penalty for forwarding over it: its own and that of the node it leaves; [`BANNED`] for a ban.
    pub(crate) penalty: u64,
}

/// The penalty that stands for a ban.
pub(crate) const BANNED: u64 = u64::MAX;

impl ScoreIndex {
    pub(crate) const NONE: u32 = u32::MAX;
}

impl Scorer {
    /// A scorer without observations.
    #[must_use]
    pub fn new(fading: Fading) -> Scorer {
        Scorer { fading, ..Scorer::default() }
    }

    /// The number of channels with observations.
    #[must_use]
    pub fn learned_channels(&self) -> usize {
        self.slots.len()
    }

    /// An HTLC of `amount` passed the direction but failed later on the route. `capacity` is that of the channel,
    /// `now_seconds` the time on any clock that all calls share.
    pub fn passed(&mut self, directed: DirectedChannel, capacity: Sat, amount: Msat, now_seconds: u64) {
        self.observe(directed, capacity, amount, Observation::Passed, now_seconds);
    }

    /// An HTLC of `amount` passed the direction and was fulfilled. Arguments as in [`Scorer::passed`].
    pub fn settled(&mut self, directed: DirectedChannel, capacity: Sat, amount: Msat, now_seconds: u64) {
        self.observe(directed, capacity, amount, Observation::Settled, now_seconds);
    }

    /// The direction could not forward an HTLC of `amount`, presumably for lack of liquidity. Arguments as in
    /// [`Scorer::passed`].
    pub fn failed(&mut self, directed: DirectedChannel, capacity: Sat, amount: Msat, now_seconds: u64) {
        self.observe(directed, capacity, amount, Observation::Failed, now_seconds);
    }

    /// Sets or, with `None`, removes the penalty for forwarding through a node.
    pub fn set_node_penalty(&mut self, node: NodeId, penalty: Option<Penalty>) {
        match penalty {
            Some(penalty) => self.node_penalties.insert(node, penalty),
            None => self.node_penalties.remove(&node),
        };
        self.indexed = None;
    }

    /// Sets or, with `None`, removes the penalty for using a direction.
    pub fn set_penalty(&mut self, directed: DirectedChannel, penalty: Option<Penalty>) {
        match penalty {
            Some(penalty) => self.penalties.insert(directed, penalty),
            None => self.penalties.remove(&directed),
        };
        self.indexed = None;
    }

    /// Removes all penalties and bans; observations stay.
    pub fn clear_penalties(&mut self) {
        self.node_penalties.clear();
        self.penalties.clear();
        self.indexed = None;
    }

    /// Builds the index for searches of this snapshot and of those that differ from it by policies only.
    pub fn bind(&mut self, snapshot: &Snapshot) {
        if !self.is_bound(snapshot) {
            self.indexed = Some((snapshot.clone(), self.build_index(snapshot)));
        }
    }

    /// Whether [`Scorer::bind`] was called for a snapshot with these channels, and no penalty has changed since.
    #[must_use]
    pub fn is_bound(&self, snapshot: &Snapshot) -> bool {
        self.indexed.as_ref().is_some_and(|(bound, _)| bound.same_shape(snapshot))
    }

    /// The index kept for the snapshot, if there is one.
    pub(crate) fn index_for(&self, snapshot: &Snapshot) -> Option<&ScoreIndex> {
        self.indexed.as_ref().filter(|(bound, _)| bound.same_shape(snapshot)).map(|(_, index)| index)
    }

    /// Builds an index of the snapshot's edges.
    pub(crate) fn build_index(&self, snapshot: &Snapshot) -> ScoreIndex {
        let slots = vec![ScoreIndex::NONE; snapshot.edge_count()];
        let mut index = ScoreIndex { slots, ..ScoreIndex::default() };
        let learned = self.slots.keys().copied();
        let penalised = self.penalties.keys().map(|directed| directed.scid);
        let of_nodes = self.node_penalties.keys().filter_map(|node| snapshot.node_index(*node));
        let edges_of_nodes = of_nodes.flat_map(|node| snapshot.incoming(node));
        let edges = learned.chain(penalised).filter_map(|scid| snapshot.edges_of(scid)).flatten();
        for edge in edges.chain(edges_of_nodes.map(|edge| snapshot.reverse(edge))) {
            self.score_edge(snapshot, &mut index, edge);
        }
        index
    }

    /// Sets the score of an edge.
    fn score_edge(&self, snapshot: &Snapshot, index: &mut ScoreIndex, edge: u32) {
        let directed = snapshot.directed(edge);
        let source = snapshot.node_id(snapshot.edge(edge).source);
        let score = EdgeScore {
            liquidity: self.slots.get(&directed.scid).copied(),
            direction: directed.direction,
            own_penalty: self.own_penalty(directed),
            penalty: self.penalty(directed, source),
        };
        let slot = &mut index.slots[edge as usize];
        match index.scores.get_mut(*slot as usize) {
            Some(known) => *known = score,
            None => {
                *slot = index.scores.len() as u32;
                index.scores.push(score);
                snapshot.mark_blocks(edge, &mut index.blocks);
            }
        }
    }

    /// The penalty for forwarding over a direction: its own and that of the node it leaves; [`BANNED`] for a ban.
    pub(crate) fn penalty(&self, directed: DirectedChannel, source: NodeId) -> u64 {
        penalty_cost(self.node_penalties.get(&source)).saturating_add(self.own_penalty(directed))
    }

    /// The penalty for using a direction as the payer's own channel; [`BANNED`] for a ban.
    pub(crate) fn own_penalty(&self, directed: DirectedChannel) -> u64 {
        penalty_cost(self.penalties.get(&directed))
    }

    /// The uncertainty of `amount` over a scored edge of this capacity, when something was learned of its channel.
    #[inline]
    pub(crate) fn learned(
        &self,
        score: &EdgeScore,
        amount: u64,
        capacity: RoughCapacity,
        now_seconds: u64,
    ) -> Option<Uncertainty> {
        let liquidity = self.liquidity.get(score.liquidity? as usize)?;
        let direction = score.direction;
        Some(liquidity.uncertainty(direction, amount, capacity.msat(), now_seconds, self.fading))
    }

    /// As [`Scorer::learned`], looked up by the channel.
    pub(crate) fn learned_of(
        &self,
        directed: DirectedChannel,
        amount: u64,
        capacity: RoughCapacity,
        now_seconds: u64,
    ) -> Option<Uncertainty> {
        let liquidity = &self.liquidity[*self.slots.get(&directed.scid)? as usize];
        Some(liquidity.uncertainty(directed.direction, amount, capacity.msat(), now_seconds, self.fading))
    }

    fn observe(
        &mut self,
        directed: DirectedChannel,
        capacity: Sat,
        amount: Msat,
        observation: Observation,
        now: u64,
    ) {
        let capacity = capacity.to_msat().min(Msat::MAX_MONEY).0;
        let next = self.liquidity.len() as u32;
        let slot = *self.slots.entry(directed.scid).or_insert(next);
        if slot == next {
            self.liquidity.push(Liquidity::unknown(capacity));
        }
        let known = &mut self.liquidity[slot as usize];
        if known.capacity != capacity {
            // Observations under another capacity, which may have been a guess, say little of this one.
            *known = Liquidity::unknown(capacity);
        }
        known.observe(directed.direction, amount.0, observation, now, self.fading);
        if slot != next {
            return;
        }
        if let Some((snapshot, mut index)) = self.indexed.take() {
            for edge in snapshot.edges_of(directed.scid).into_iter().flatten() {
                self.score_edge(&snapshot, &mut index, edge);
            }
            self.indexed = Some((snapshot, index));
        }
    }
}

/// The cost of a penalty.
fn penalty_cost(penalty: Option<&Penalty>) -> u64 {
    match penalty {
        None => 0,
        Some(Penalty::Cost(msat)) => msat.0.saturating_mul(Cost::PER_MSAT).min(BANNED - 1),
        Some(Penalty::Ban) => BANNED,
    }
}

//! One query over one snapshot with every id resolved to a number.
//!
//! Owns [`PreparedQuery`]: which edges the searches may cross and at which cost. Does not search.
//!
//! Invariant: the limits and costs of an edge here are those that [`crate::path::plain`] and [`crate::path::check`]
//! compute for its direction.

use fulmen_wire::units::{Msat, NodeId};

use crate::cost::Cost;
use crate::graph::DirectedChannel;
use crate::path::knowledge::{EdgeLimit, PreparedKnowledge};
use crate::path::onion_room::payee_bytes;
use crate::path::prices::{HopCost, HopRole, Prices};
use crate::path::{NoRoute, Query};
use crate::scoring::{BANNED, ScoreIndex, Uncertainty};
use crate::snapshot::{Edge, Snapshot};

/// One query, ready to be searched for. Amounts are millisatoshis.
#[derive(Clone, Copy)]
pub(in crate::path) struct PreparedQuery<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) query: &'a Query<'a>,
    pub(in crate::path) prices: Prices<'a>,
    pub(super) payer: u32,
    /// Where the search may begin.
    pub(super) starts: &'a [Start],
    /// The amount that the payee receives.
    pub(super) amount: u64,
    /// The largest amount of the first HTLC, by the limit on the fee.
    pub(super) amount_max: u64,
    pub(super) objective: Objective,
    /// An extra cost of each block, while the search looks for the price at which routes keep the limit on blocks.
    pub(super) block_price: u64,
    weighs_success: bool,
    scores: Option<&'a ScoreIndex>,
    knowledge: &'a PreparedKnowledge,
    /// Whether `knowledge` limits any edge.
    limits_edges: bool,
    /// Whether the payer states the limits of its own channels.
    knows_own: bool,
}

/// Where a search may begin: at a node from which the rest of the route to the payee is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::path) struct Start {
    pub(in crate::path) node: u32,
    /// The amount that must arrive there, in millisatoshi.
    pub(in crate::path) amount: u64,
    /// The cost of the rest.
    pub(in crate::path) cost: u64,
    /// Blocks from the current height to the expiry there.
    pub(in crate::path) blocks: u32,
    /// Bytes of the payloads from this node on.
    pub(in crate::path) onion: u32,
    /// Channels of the rest.
    pub(in crate::path) hops: u32,
}

impl Start {
    /// The payee itself.
    pub(in crate::path) fn payee(query: &Query<'_>, node: u32) -> Start {
        let blocks = u32::from(query.final_cltv_delta.0);
        let expiry = query.height.0.saturating_add(blocks);
        let onion = payee_bytes(query.amount, expiry, query.payee_extra_bytes);
        Start { node, amount: query.amount.0, cost: 0, blocks, onion, hops: 0 }
    }
}

/// The figure that a search minimises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objective {
    /// The cost under the query's prices.
    Cost,
    /// The fee alone, in millisatoshi: no fee up to all money saturates.
    Fee,
    /// The blocks of the first HTLC.
    Blocks,
    /// The number of channels.
    Hops,
}

/// Which of a node's edges lie in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockSide {
    /// Those that lead into it.
    Inward,
    /// Those that leave it.
    Outward,
}

/// The most a payer may send.
fn amount_max(amount: Msat, max_fee: Msat) -> u64 {
    amount.saturating_add(max_fee).min(Msat::MAX_MONEY).0
}

/// The numbers of payer and payee, or why there can be no payment between them.
pub(in crate::path) fn ends(snapshot: &Snapshot, query: &Query<'_>) -> Result<(u32, u32), NoRoute> {
    let end = |node: NodeId| {
        if query.knowledge.excluded_nodes.contains(&node) {
            return Err(NoRoute::ExcludedNode { node });
        }
        snapshot.node_index(node).ok_or(NoRoute::UnknownNode { node })
    };
    let (payer, payee) = (end(query.from)?, end(query.to)?);
    if payer == payee {
        return Err(NoRoute::SelfPayment { node: query.from });
    }
    if query.amount == Msat::ZERO {
        return Err(NoRoute::ZeroAmount);
    }
    Ok((payer, payee))
}

impl<'a> PreparedQuery<'a> {
    /// Combines a query with the payer's knowledge, which was prepared for it.
    pub(in crate::path) fn new(
        snapshot: &'a Snapshot,
        query: &'a Query<'a>,
        payer: u32,
        starts: &'a [Start],
        knowledge: &'a PreparedKnowledge,
    ) -> PreparedQuery<'a> {
        let prices = Prices::new(query);
        PreparedQuery {
            snapshot,
            query,
            prices,
            payer,
            starts,
            amount: query.amount.0,
            amount_max: amount_max(query.amount, query.limits.max_fee),
            objective: Objective::Cost,
            block_price: 0,
            weighs_success: prices.weighs_success(),
            scores: knowledge.scores(snapshot, query),
            knowledge,
            limits_edges: knowledge.limits_edges(),
            knows_own: query.knowledge.first_hops.is_some(),
        }
    }

    /// The same with another objective and limit on the fee.
    pub(super) fn minimising(self, objective: Objective, max_fee: Msat) -> PreparedQuery<'a> {
        PreparedQuery { objective, amount_max: amount_max(self.query.amount, max_fee), ..self }
    }

    /// The same with a price for each block.
    pub(super) fn pricing_blocks(self, block_price: u64) -> PreparedQuery<'a> {
        PreparedQuery { block_price, ..self }
    }

    /// The extra cost of blocks.
    #[inline]
    pub(super) fn price(&self, blocks: u32) -> u64 {
        self.block_price.saturating_mul(u64::from(blocks))
    }

    /// An exclusive bound on the cost of any route within the limit on the fee, where that limit implies one.
    pub(super) fn cost_max(&self) -> u64 {
        let fee_max = self.amount_max.saturating_sub(self.amount);
        let cost_max = match self.objective {
            Objective::Cost if self.prices.are_fees() => fee_max.saturating_mul(Cost::PER_MSAT),
            Objective::Fee => fee_max,
            Objective::Cost | Objective::Blocks | Objective::Hops => u64::MAX,
        };
        cost_max.saturating_add(1)
    }

    /// The cost of forwarding `amount` over an edge that does not leave the payer; `None` when the edge cannot carry
    /// it. The caller checks the edge's minimum.
    #[inline]
    pub(super) fn forward(&self, number: u32, edge: &Edge, amount: u64) -> Option<HopCost> {
        if amount > edge.maximum {
            return None;
        }
        let limit = self.limit(number);
        if limit.is_some_and(|limit| amount > limit.maximum) {
            return None;
        }
        let in_flight = limit.map_or(0, |limit| limit.in_flight);
        let fee = edge.fee(amount);
        let (mut uncertainty, mut penalty) = (Uncertainty(0), 0);
        let slot = self.scores.map_or(ScoreIndex::NONE, |scores| scores.slots[number as usize]);
        if slot != ScoreIndex::NONE {
            (uncertainty, penalty) = self.scored(slot, edge, amount, in_flight, HopRole::Forward)?;
        } else if self.weighs_success {
            uncertainty =
                Uncertainty::beside(in_flight, amount, |amount| Prices::prior(amount, edge.capacity));
        }
        let cost = match self.objective {
            Objective::Cost => {
                self.prices.forwarded_hop(amount, fee, edge.cltv_expiry_delta, uncertainty, penalty)
            }
            Objective::Fee => fee,
            Objective::Blocks => u64::from(edge.cltv_expiry_delta),
            Objective::Hops => 1,
        };
        let blocks = u32::from(edge.cltv_expiry_delta);
        Some(HopCost { cost: cost.saturating_add(self.price(blocks)), fee, blocks })
    }

    /// Whether any edge of a head's block may carry `amount`, or the amount that later fees make of it.
    #[inline]
    pub(super) fn open(&self, head: &Edge, amount: u64) -> bool {
        head.minimum <= self.amount_max && amount <= head.maximum
    }

    /// A lower bound on the cost of forwarding `amount` over any edge of a block that does not leave the payer;
    /// `None` when none can carry it.
    #[inline]
    pub(super) fn least(&self, side: BlockSide, block: u32, head: &Edge, amount: u64) -> Option<u64> {
        if !self.open(head, amount) {
            return None;
        }
        let cost = match self.objective {
            Objective::Cost => {
                let is_prior = self.weighs_success && !self.is_scored(side, block);
                let uncertainty =
                    if is_prior { Prices::prior_lower_bound(amount, head.capacity) } else { Uncertainty(0) };
                let fee = head.fee(amount);
                self.prices.forwarded_hop(amount, fee, head.cltv_expiry_delta, uncertainty, 0)
            }
            Objective::Fee => head.fee(amount),
            Objective::Blocks => u64::from(head.cltv_expiry_delta),
            Objective::Hops => 1,
        };
        Some(cost.saturating_add(self.price(head.cltv_expiry_delta.into())))
    }

    /// Whether something known of an edge of a block may make it less uncertain than its capacity does.
    #[inline]
    fn is_scored(&self, side: BlockSide, block: u32) -> bool {
        self.scores.is_some_and(|scores| scores.blocks[side as usize].contains(block))
            || self.knowledge.is_in_flight_block(side as usize, block)
    }

    /// The cost of offering `amount` over one of the payer's own channels; `None` when it cannot carry it.
    pub(super) fn first(&self, number: u32, edge: &Edge, amount: u64) -> Option<u64> {
        if amount > self.own_range(number, edge)?.1 {
            return None;
        }
        let role = self.first_role();
        let in_flight = self.limit(number).map_or(0, |limit| limit.in_flight);
        let mut cost = 0;
        let slot = self.scores.map_or(ScoreIndex::NONE, |scores| scores.slots[number as usize]);
        if slot != ScoreIndex::NONE {
            let (uncertainty, penalty) = self.scored(slot, edge, amount, in_flight, role)?;
            cost = if role == HopRole::OwnUnknown { self.prices.own_hop(uncertainty, penalty) } else { 0 };
        } else if self.weighs_success && role == HopRole::OwnUnknown {
            let uncertainty =
                Uncertainty::beside(in_flight, amount, |amount| Prices::prior(amount, edge.capacity));
            cost = self.prices.own_hop(uncertainty, 0);
        }
        Some(match self.objective {
            Objective::Cost => cost,
            Objective::Fee | Objective::Blocks => 0,
            Objective::Hops => 1,
        })
    }

    /// The least amount that an edge out of `node` takes; above all amounts when it is not usable.
    #[inline]
    pub(super) fn minimum(&self, number: u32, edge: &Edge, node: u32) -> u64 {
        if node == self.payer {
            self.own_range(number, edge).map_or(u64::MAX, |(least, _)| least)
        } else {
            edge.minimum
        }
    }

    /// A lower bound on the cost from an edge with this minimum, which is above the payment's amount, to the payee:
    /// fees must have made up the difference. `u64::MAX` when the limit on the fee forbids it.
    pub(super) fn lifting_cost(&self, minimum: u64) -> u64 {
        if minimum > self.amount_max {
            return u64::MAX;
        }
        match self.objective {
            Objective::Cost => (minimum - self.amount).saturating_mul(Cost::PER_MSAT),
            Objective::Fee => minimum - self.amount,
            Objective::Blocks | Objective::Hops => 0,
        }
    }

    /// Nodes that must not forward.
    pub(super) fn excluded_nodes(&self) -> &'a [u32] {
        self.knowledge.excluded_nodes()
    }

    /// The highest minimum of any direction that is above the payment's amount and no more than `amount_max`.
    pub(super) fn highest_minimum(&self, amount_max: u64) -> u64 {
        let all = 0..self.snapshot.edge_count() as u32;
        let edges = self.snapshot.runs(all).flat_map(|(_, run)| run.iter().map(|edge| edge.minimum));
        let minimums = edges.chain(self.knowledge.own_minimums());
        let above = minimums.filter(|minimum| *minimum > self.amount && *minimum <= amount_max);
        above.max().unwrap_or(self.amount)
    }

    /// The role of the payer's own channels.
    pub(super) fn first_role(&self) -> HopRole {
        if self.knows_own { HopRole::OwnKnown } else { HopRole::OwnUnknown }
    }

    /// The uncertainty of a hop.
    pub(super) fn uncertainty(
        &self,
        directed: DirectedChannel,
        edge: u32,
        amount: u64,
        role: HopRole,
    ) -> Uncertainty {
        self.prices.uncertainty(directed, self.snapshot.capacity_of(edge), Msat(amount), role)
    }

    /// The least and the largest amount of one of the payer's own channels; `None` when it must not be used.
    fn own_range(&self, number: u32, edge: &Edge) -> Option<(u64, u64)> {
        match self.limit(number) {
            Some(limit) if self.knows_own || edge.enabled() => Some((limit.minimum, limit.maximum)),
            None if !self.knows_own && edge.enabled() => Some((edge.minimum, edge.maximum)),
            _ => None,
        }
    }

    /// The limit of an edge when the payer's knowledge changes it.
    #[inline]
    fn limit(&self, number: u32) -> Option<&'a EdgeLimit> {
        if self.limits_edges { self.knowledge.limit(number) } else { None }
    }

    /// Uncertainty and penalty of an edge with a score; `None` when it is banned.
    fn scored(
        &self,
        slot: u32,
        edge: &Edge,
        amount: u64,
        in_flight: u64,
        role: HopRole,
    ) -> Option<(Uncertainty, u64)> {
        let score = &self.scores?.scores[slot as usize];
        let penalty = if role == HopRole::Forward { score.penalty } else { score.own_penalty };
        if penalty == BANNED {
            return None;
        }
        let uncertainty = if self.weighs_success && role != HopRole::OwnKnown {
            Uncertainty::beside(in_flight, amount, |amount| {
                self.prices.scored_uncertainty(score, amount, edge.capacity)
            })
        } else {
            Uncertainty(0)
        };
        Some((uncertainty, penalty))
    }
}

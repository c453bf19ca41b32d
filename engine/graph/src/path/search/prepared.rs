//! One query over one snapshot, with every name turned into a number.
//!
//! Owns what may be used and what it costs: [`PreparedQuery`] resolves ends, own channels, exclusions and learned liquidity once, so
//! that the searches meet only numbers. Does not search.
//!
//! Invariant: says of every edge what [`crate::path::plain`] and [`crate::path::check`] say of its direction.

use fulmen_wire::units::{Msat, NodeId};

use crate::graph::DirectedChannel;
use crate::path::onion_room::payee_bytes;
use crate::path::{Cost, NoRoute, Query};
use crate::scoring::{BANNED, HopRole, Prices, ScoreIndex, Uncertainty};
use crate::snapshot::{Edge, Snapshot};

/// One query, ready to be searched for.
#[derive(Clone, Copy)]
pub(super) struct PreparedQuery<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) query: &'a Query<'a>,
    pub(super) prices: Prices<'a>,
    pub(super) payer: u32,
    /// Where the search may begin.
    pub(super) starts: &'a [Start],
    /// What the payee is to receive.
    pub(super) amount: u64,
    /// The most the first HTLC may carry, by the limit on the fee.
    pub(super) amount_max: u64,
    pub(super) objective: Objective,
    /// What each block costs beyond the rest, while a limit on blocks is looked for by its price.
    pub(super) block_price: u64,
    weighs_success: bool,
    index: Option<&'a ScoreIndex>,
    knowledge: &'a PreparedKnowledge,
    /// Whether any edge is marked.
    marked: bool,
}

/// Where a search may begin: at a node from which the rest of the way to the payee is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::path) struct Start {
    pub(in crate::path) node: u32,
    /// What must arrive there in millisatoshi.
    pub(in crate::path) amount: u64,
    /// What the rest costs.
    pub(in crate::path) cost: u64,
    /// From the height to the expiry there.
    pub(in crate::path) blocks: u32,
    /// What the payloads of the nodes from here on take in the onion.
    pub(in crate::path) onion: u32,
    /// The channels of the rest.
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

/// What a search minimises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objective {
    /// What the query prices.
    Cost,
    /// The fee alone, in the unit of costs.
    Fee,
    /// The blocks of the first HTLC.
    Blocks,
    /// The channels.
    Hops,
}

/// Which of a node's edges a head stands for some of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockSide {
    /// Those that lead into it.
    Inward,
    /// Those that leave it.
    Outward,
}

/// What one query forbids, and what its payer knows of its own channels; memory used again from query to query.
#[derive(Debug, Default)]
pub(super) struct PreparedKnowledge {
    /// One bit an edge: whether `bounds` says something of it. It does of every edge in `held`.
    bits: Vec<u64>,
    /// The most each marked edge may carry, sorted by edge.
    bounds: Vec<(u32, u64)>,
    /// What other payments have in flight, sorted by edge.
    held: Vec<(u32, u64)>,
    /// For each [`BlockSide`] one bit a block: whether one of its edges is in `held`. Empty when none is.
    blocks: [Vec<u64>; 2],
    /// The payer's usable channels when it has said which: edge, least and most amount, sorted by edge.
    own: Vec<(u32, u64, u64)>,
    /// Nodes that may not forward.
    blocked: Vec<u32>,
    /// What the scorer knows, looked up for this query alone.
    index: ScoreIndex,
}

/// What crossing an edge takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct HopCost {
    pub(super) cost: u64,
    pub(super) fee: u64,
    pub(super) delta: u32,
}

impl PreparedKnowledge {
    /// Forgets the last query and notes what this one forbids.
    pub(super) fn set(&mut self, snapshot: &Snapshot, query: &Query<'_>, payer: u32) {
        for (edge, _) in self.bounds.drain(..) {
            self.bits[edge as usize / 64] = 0;
        }
        self.held.clear();
        self.own.clear();
        self.blocked.clear();
        let known = query.knowledge;
        let channels = known.excluded_channels.iter().filter_map(|scid| snapshot.edges_of(*scid)).flatten();
        let directions = known.excluded_directions.iter().filter_map(|way| snapshot.edge_index(*way));
        self.bounds.extend(channels.chain(directions).map(|edge| (edge, 0)));
        for (directed, failed) in &known.failed_amounts {
            // With the smallest amount failed, nothing is left: an edge that carries at most zero carries nothing.
            let edge = snapshot.edge_index(*directed);
            self.bounds.extend(edge.map(|edge| (edge, failed.0.saturating_sub(1))));
        }
        for (directed, held) in &known.in_flight {
            let Some(edge) = snapshot.edge_index(*directed) else { continue };
            // What a payer knows to be spendable is so beside what is in flight already.
            let certain = known.first_hops.is_some() && snapshot.edge(edge).source == payer;
            let free = snapshot.capacity_of(edge).to_msat().saturating_sub(*held).0;
            self.bounds.push((edge, if certain { u64::MAX } else { free }));
            self.held.push((edge, held.0));
        }
        self.held.sort_unstable();
        self.blocks.iter_mut().for_each(Vec::clear);
        for (edge, _) in &self.held {
            snapshot.mark_blocks(*edge, &mut self.blocks);
        }
        self.bounds.sort_unstable();
        self.bounds.dedup_by_key(|(edge, _)| *edge);
        self.bits.resize(snapshot.edge_count().div_ceil(64), 0);
        for (edge, _) in &self.bounds {
            self.bits[*edge as usize / 64] |= 1 << (edge % 64);
        }
        self.blocked.extend(known.excluded_nodes.iter().filter_map(|node| snapshot.node_index(*node)));
        for (scid, hop) in known.first_hops.iter().flatten() {
            let edges = snapshot.edges_of(*scid).into_iter().flatten();
            let own = edges.filter(|edge| snapshot.edge(*edge).source == payer);
            self.own.extend(own.map(|edge| {
                let most = hop.spendable.min(snapshot.capacity_of(edge).to_msat()).min(Msat::MAX_MONEY);
                (edge, hop.htlc_minimum.0, most.0)
            }));
        }
        self.own.sort_unstable();
        let unprepared = query.scorer.filter(|scorer| scorer.index_for(snapshot).is_none());
        if let Some(scorer) = unprepared {
            self.index = scorer.build_index(snapshot);
        }
    }

    /// The most a marked edge may carry.
    fn bound(&self, edge: u32) -> u64 {
        match self.bounds.binary_search_by_key(&edge, |(edge, _)| *edge) {
            Ok(at) => self.bounds[at].1,
            Err(_) => u64::MAX,
        }
    }
}

/// The most a payer may send.
fn amount_max(amount: Msat, max_fee: Msat) -> u64 {
    amount.saturating_add(max_fee).min(Msat::MAX_MONEY).0
}

/// The numbers of payer and payee, when a payment between them makes sense.
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
    pub(super) fn new(
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
            index: query.scorer.map(|scorer| scorer.index_for(snapshot).unwrap_or(&knowledge.index)),
            knowledge,
            marked: !knowledge.bounds.is_empty(),
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

    /// What blocks cost beyond the rest.
    #[inline]
    pub(super) fn price(&self, blocks: u32) -> u64 {
        self.block_price.saturating_mul(u64::from(blocks))
    }

    /// Above what any route within the limit on the fee costs, as far as that limit says anything of costs.
    pub(super) fn cost_max(&self) -> u64 {
        let counts_fees = match self.objective {
            Objective::Cost => self.prices.are_fees(),
            Objective::Fee => true,
            Objective::Blocks | Objective::Hops => false,
        };
        let fee_max = if counts_fees { self.amount_max.saturating_sub(self.amount) } else { u64::MAX };
        fee_max.saturating_mul(Cost::PER_MSAT).saturating_add(1)
    }

    /// What it takes to forward `amount` over an edge that does not leave the payer; `None` when it cannot carry it. The
    /// edge's minimum is the caller's to check.
    #[inline]
    pub(super) fn forward(&self, number: u32, edge: &Edge, amount: u64) -> Option<HopCost> {
        if amount > edge.maximum || (self.marked && self.forbids(number, amount)) {
            return None;
        }
        let fee = edge.fee(amount);
        let held = self.held(number);
        let (mut bits, mut penalty) = (Uncertainty(0), 0);
        let slot = self.index.map_or(ScoreIndex::NONE, |index| index.slots[number as usize]);
        if slot != ScoreIndex::NONE {
            (bits, penalty) = self.scored_uncertainty(slot, edge, amount, held, HopRole::Forward)?;
        } else if self.weighs_success {
            bits = beside(held, amount, |amount| Prices::prior(amount, edge.capacity));
        }
        let cost = match self.objective {
            Objective::Cost => self.prices.forwarded_hop(amount, fee, edge.cltv_expiry_delta, bits, penalty),
            Objective::Fee => fee.saturating_mul(Cost::PER_MSAT),
            Objective::Blocks => u64::from(edge.cltv_expiry_delta),
            Objective::Hops => 1,
        };
        let delta = u32::from(edge.cltv_expiry_delta);
        Some(HopCost { cost: cost.saturating_add(self.price(delta)), fee, delta })
    }

    /// Whether any edge that a head stands for may carry `amount`, or what fees make of it.
    #[inline]
    pub(super) fn open(&self, head: &Edge, amount: u64) -> bool {
        head.minimum <= self.amount_max && amount <= head.maximum
    }

    /// What it costs at least to forward `amount` over any edge of a block that does not leave the payer; `None` when none
    /// can carry it.
    #[inline]
    pub(super) fn least(&self, side: BlockSide, block: u32, head: &Edge, amount: u64) -> Option<u64> {
        if !self.open(head, amount) {
            return None;
        }
        let cost = match self.objective {
            Objective::Cost => {
                let doubted = self.weighs_success && !self.is_scored(side, block);
                let bits =
                    if doubted { Prices::prior_lower_bound(amount, head.capacity) } else { Uncertainty(0) };
                self.prices.forwarded_hop(amount, head.fee(amount), head.cltv_expiry_delta, bits, 0)
            }
            Objective::Fee => head.fee(amount).saturating_mul(Cost::PER_MSAT),
            Objective::Blocks => u64::from(head.cltv_expiry_delta),
            Objective::Hops => 1,
        };
        Some(cost.saturating_add(self.price(head.cltv_expiry_delta.into())))
    }

    /// Whether something is known of an edge of a block that may make it likelier than its capacity does.
    #[inline]
    fn is_scored(&self, side: BlockSide, block: u32) -> bool {
        let holds = |blocks: &[u64]| {
            blocks.get(block as usize / 64).is_some_and(|bits| bits >> (block % 64) & 1 == 1)
        };
        self.index.is_some_and(|index| holds(&index.blocks[side as usize]))
            || holds(&self.knowledge.blocks[side as usize])
    }

    /// What it costs to offer `amount` over one of the payer's own channels; `None` when it cannot carry it.
    pub(super) fn first(&self, number: u32, edge: &Edge, amount: u64) -> Option<u64> {
        if amount > self.own_range(number, edge)?.1 || (self.marked && self.forbids(number, amount)) {
            return None;
        }
        let role = self.first_role();
        let mut cost = 0;
        let slot = self.index.map_or(ScoreIndex::NONE, |index| index.slots[number as usize]);
        if slot != ScoreIndex::NONE {
            let (bits, penalty) = self.scored_uncertainty(slot, edge, amount, self.held(number), role)?;
            cost = if role == HopRole::OwnUnknown { self.prices.own_hop(bits, penalty) } else { 0 };
        } else if self.weighs_success && role == HopRole::OwnUnknown {
            let held = self.held(number);
            cost =
                self.prices.own_hop(beside(held, amount, |amount| Prices::prior(amount, edge.capacity)), 0);
        }
        Some(match self.objective {
            Objective::Cost => cost,
            Objective::Fee | Objective::Blocks => 0,
            Objective::Hops => 1,
        })
    }

    /// The least amount an edge out of `node` takes; above all amounts when it is not usable at all.
    #[inline]
    pub(super) fn minimum(&self, number: u32, edge: &Edge, node: u32) -> u64 {
        if node == self.payer {
            self.own_range(number, edge).map_or(u64::MAX, |(least, _)| least)
        } else {
            edge.minimum
        }
    }

    /// The least a route costs on the way from an edge with this minimum, which is above the payment's amount, to the
    /// payee: fees must have made up the difference. `u64::MAX` when the limit on the fee forbids it.
    pub(super) fn lifting_cost(&self, minimum: u64) -> u64 {
        if minimum > self.amount_max {
            return u64::MAX;
        }
        match self.objective {
            Objective::Cost | Objective::Fee => (minimum - self.amount).saturating_mul(Cost::PER_MSAT),
            Objective::Blocks | Objective::Hops => 0,
        }
    }

    /// Nodes that may not forward.
    pub(super) fn blocked(&self) -> &'a [u32] {
        &self.knowledge.blocked
    }

    /// The highest minimum of any direction that is above the payment's amount and no more than `amount_max`.
    pub(super) fn highest_minimum(&self, amount_max: u64) -> u64 {
        let all = 0..self.snapshot.edge_count() as u32;
        let edges = self.snapshot.runs(all).flat_map(|(_, run)| run.iter().map(|edge| edge.minimum));
        let own = self.knowledge.own.iter().map(|(_, minimum, _)| *minimum);
        let above = edges.chain(own).filter(|minimum| *minimum > self.amount && *minimum <= amount_max);
        above.max().unwrap_or(self.amount)
    }

    /// What the payer's own channels are to the price of a route.
    pub(super) fn first_role(&self) -> HopRole {
        if self.query.knowledge.first_hops.is_some() { HopRole::OwnKnown } else { HopRole::OwnUnknown }
    }

    /// How uncertainty a hop is to work.
    pub(super) fn uncertainty(
        &self,
        directed: DirectedChannel,
        edge: u32,
        amount: u64,
        role: HopRole,
    ) -> Uncertainty {
        self.prices.uncertainty(directed, self.snapshot.capacity_of(edge), Msat(amount), role)
    }

    /// Least and most amount of one of the payer's own channels.
    fn own_range(&self, number: u32, edge: &Edge) -> Option<(u64, u64)> {
        if self.query.knowledge.first_hops.is_none() {
            return edge.enabled().then_some((edge.minimum, edge.maximum));
        }
        let at = self.knowledge.own.binary_search_by_key(&number, |(edge, _, _)| *edge).ok()?;
        let (_, least, most) = self.knowledge.own[at];
        Some((least, most))
    }

    /// What other payments have in flight on an edge.
    #[inline]
    fn held(&self, number: u32) -> u64 {
        if self.knowledge.held.is_empty()
            || (self.knowledge.bits[number as usize / 64] >> (number % 64)) & 1 == 0
        {
            return 0;
        }
        let at = self.knowledge.held.binary_search_by_key(&number, |(edge, _)| *edge);
        at.map_or(0, |at| self.knowledge.held[at].1)
    }

    #[inline]
    fn forbids(&self, number: u32, amount: u64) -> bool {
        self.knowledge.bits[number as usize / 64] >> (number % 64) & 1 == 1
            && amount > self.knowledge.bound(number)
    }

    /// Unlikeliness and penalty of an edge that the scorer knows something of; `None` when it is banned.
    fn scored_uncertainty(
        &self,
        slot: u32,
        edge: &Edge,
        amount: u64,
        held: u64,
        role: HopRole,
    ) -> Option<(Uncertainty, u64)> {
        let score = &self.index?.scores[slot as usize];
        let penalty = if role == HopRole::Forward { score.penalty } else { score.own_penalty };
        if penalty == BANNED {
            return None;
        }
        let bits = if self.weighs_success && role != HopRole::OwnKnown {
            beside(held, amount, |amount| self.prices.learned_uncertainty(score, amount, edge.capacity))
        } else {
            Uncertainty(0)
        };
        Some((bits, penalty))
    }
}

/// How uncertainty `amount` is beside what is held already, which got through: only the rest is in doubt.
#[inline]
fn beside(held: u64, amount: u64, uncertainty: impl Fn(u64) -> Uncertainty) -> Uncertainty {
    if held == 0 {
        return uncertainty(amount);
    }
    Uncertainty(uncertainty(amount.saturating_add(held)).0.saturating_sub(uncertainty(held).0))
}

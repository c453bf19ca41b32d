//! The costs and limits of edges for one payer and one payment, as the flow solver and the evaluator of parts read
//! them.
//!
//! Owns [`FlowCosts`], which implements [`FlowGraph`] and [`ArcCosts`] over a snapshot, the prices of a query and the
//! payer's knowledge. A *granule* is an equal share of the payment. A granule bears its share of everything charged
//! once per part (base fees, the price of a hop) as if a single part carried the payment, so that no split costs less
//! than its flow. Success depends on the sum that all parts put on an edge, beside the amounts in flight there.
//!
//! Invariant: the cost of a further granule never falls, even where learned liquidity would make it fall.

use crate::cost::Cost;
use crate::path::flow::FlowGraph;
use crate::path::knowledge::{EdgeLimit, PreparedKnowledge};
use crate::path::parts::ArcCosts;
use crate::path::prices::{HopCost, Prices};
use crate::scoring::{BANNED, EdgeScore, ScoreIndex, Uncertainty};
use crate::snapshot::{Edge, Snapshot};

/// One payer's view of a snapshot for one payment. Amounts are millisatoshis.
pub(crate) struct FlowCosts<'a> {
    pub(crate) graph: &'a Snapshot,
    pub(crate) prices: Prices<'a>,
    pub(crate) scores: Option<&'a ScoreIndex>,
    pub(crate) knowledge: &'a PreparedKnowledge,
    pub(crate) payer: u32,
    /// The size of a granule.
    pub(crate) granule: u64,
    /// How many granules make up the payment.
    pub(crate) granules: u64,
    /// The most by which later fees may enlarge a granule.
    pub(crate) fee_margin: u64,
}

/// One edge with everything known of it.
#[derive(Clone, Copy)]
struct EdgeView<'a> {
    edge: &'a Edge,
    limit: EdgeLimit,
    score: Option<&'a EdgeScore>,
    /// Whether it is the payer's own channel, which charges nothing.
    own: bool,
}

impl<'a> FlowCosts<'a> {
    #[inline]
    fn view(&self, number: u32, edge: &'a Edge) -> EdgeView<'a> {
        let score = self.scores.and_then(|scores| scores.scores.get(scores.slots[number as usize] as usize));
        let limit = self.knowledge.limit_or_public(number, edge);
        EdgeView { edge, limit, score, own: edge.source == self.payer }
    }

    /// The uncertainty of `amount` beside the amounts in flight.
    #[inline]
    fn edge_uncertainty(&self, view: &EdgeView<'_>, amount: u64) -> Uncertainty {
        if view.limit.certain {
            return Uncertainty(0);
        }
        Uncertainty::beside(view.limit.in_flight, amount, |amount| match view.score {
            None => Prices::prior(amount, view.edge.capacity),
            Some(score) => self.prices.scored_uncertainty(score, amount, view.edge.capacity),
        })
    }

    fn penalty(view: &EdgeView<'_>) -> u64 {
        view.score.map_or(0, |score| if view.own { score.own_penalty } else { score.penalty })
    }

    /// The cost of a granule without its uncertainty, or `None` when the edge takes none.
    #[inline]
    fn granule_cost(&self, view: &EdgeView<'_>) -> Option<u64> {
        if self.granule < view.limit.minimum || self.granule + self.fee_margin > view.limit.maximum {
            return None;
        }
        let penalty = FlowCosts::penalty(view);
        if penalty == BANNED {
            return None;
        }
        if view.own {
            return Some(penalty / self.granules);
        }
        let edge = view.edge;
        let each =
            (u64::from(edge.fee_base) * Cost::PER_MSAT).saturating_add(penalty).saturating_add(self.hop());
        let share =
            self.granule.saturating_mul(u64::from(edge.fee_millionths)) / (1_000_000 / Cost::PER_MSAT);
        Some((each / self.granules).saturating_add(share).saturating_add(self.delay(edge)))
    }

    #[inline]
    fn hop(&self) -> u64 {
        self.prices.forwarded_hop(0, 0, 0, Uncertainty(0), 0)
    }

    #[inline]
    fn delay(&self, edge: &Edge) -> u64 {
        self.prices.forwarded_hop(self.granule, 0, edge.cltv_expiry_delta, Uncertainty(0), 0) - self.hop()
    }

    /// The cost of the uncertainty of some granules together.
    #[inline]
    fn granules_uncertainty(&self, view: &EdgeView<'_>, granules: u64) -> u64 {
        if !self.prices.weighs_success() {
            return 0;
        }
        self.prices.own_hop(self.edge_uncertainty(view, granules * self.granule), 0)
    }

    /// The most that all parts together may put on an edge.
    fn aggregate_max(&self, number: u32, view: &EdgeView<'_>) -> u64 {
        view.limit.aggregate_max.min(self.graph.capacity_of(number).to_msat().0)
    }
}

impl FlowGraph for FlowCosts<'_> {
    fn node_count(&self) -> usize {
        self.graph.node_count()
    }

    fn arcs_into(&self, node: u32, mut visit: impl FnMut(u32, u32, u64)) {
        for (first, run) in self.graph.runs(self.graph.incoming(node)) {
            for (number, edge) in (first..).zip(run) {
                let view = self.view(number, edge);
                if let Some(cost) = self.granule_cost(&view) {
                    visit(number, edge.source, cost.saturating_add(self.granules_uncertainty(&view, 1)));
                }
            }
        }
    }

    fn arcs_out_of(&self, node: u32, mut visit: impl FnMut(u32, u32)) {
        for (first, run) in self.graph.runs(self.graph.incoming(node)) {
            for (number, edge) in (first..).zip(run) {
                visit(self.graph.reverse(number), edge.source);
            }
        }
    }

    fn cost(&self, arc: u32, carried: u32) -> Option<u64> {
        let edge = self.graph.edge(arc);
        let view = self.view(arc, edge);
        let cost = self.granule_cost(&view)?;
        if carried == 0 {
            return Some(cost.saturating_add(self.granules_uncertainty(&view, 1)));
        }
        let granules = u64::from(carried) + 1;
        if granules * (self.granule + self.fee_margin) > self.aggregate_max(arc, &view) {
            return None;
        }
        // The steepest increase so far, so that a later granule never costs less than an earlier one.
        let (mut before, mut steepest) = (0, 0);
        for granules in 1..=granules {
            let uncertainty = self.granules_uncertainty(&view, granules);
            steepest = (uncertainty.saturating_sub(before)).max(steepest);
            before = uncertainty;
        }
        Some(cost.saturating_add(steepest))
    }
}

impl ArcCosts for FlowCosts<'_> {
    fn limit(&self, arc: u32) -> EdgeLimit {
        let view = self.view(arc, self.graph.edge(arc));
        EdgeLimit { aggregate_max: self.aggregate_max(arc, &view), ..view.limit }
    }

    fn hop_cost(&self, arc: u32, amount: u64) -> HopCost {
        let edge = self.graph.edge(arc);
        let view = self.view(arc, edge);
        let penalty = FlowCosts::penalty(&view);
        if view.own {
            return HopCost { cost: penalty, ..HopCost::default() };
        }
        let fee = edge.fee(amount);
        let delta = edge.cltv_expiry_delta;
        let cost = self.prices.forwarded_hop(amount, fee, delta, Uncertainty(0), penalty);
        HopCost { fee, blocks: delta.into(), cost }
    }

    fn uncertainty(&self, arc: u32, aggregate: u64) -> Uncertainty {
        self.edge_uncertainty(&self.view(arc, self.graph.edge(arc)), aggregate)
    }

    fn uncertainty_cost(&self, uncertainty: Uncertainty) -> u64 {
        self.prices.own_hop(uncertainty, 0)
    }
}

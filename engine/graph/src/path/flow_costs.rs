//! A snapshot as the flow solver and the evaluator of parts see it: what granules and parts cost on each edge, to one payer,
//! for one payment.
//!
//! Owns the translation of policies, prices and knowledge into [`FlowGraph`] and [`ArcCosts`]. A granule bears its share of
//! what is asked once for each part (base fees, the price of a hop), as if one part carried everything: so that no split
//! costs less than its flow. Success is judged by what all parts put on an edge aggregate_max, and by what is in flight there
//! already.
//!
//! Invariant: the cost of one more granule never falls, even where what was learned of a channel makes the true one fall.

use crate::path::Cost;
use crate::path::edge_limits::{EdgeLimit, EdgeLimits};
use crate::path::flow::FlowGraph;
use crate::path::parts::{ArcCosts, Bounds, HopCost};
use crate::scoring::{BANNED, EdgeScore, Prices, ScoreIndex, Uncertainty};
use crate::snapshot::{Edge, Snapshot};

/// One payer's view of a snapshot, for one payment.
pub(crate) struct FlowCosts<'a> {
    pub(crate) graph: &'a Snapshot,
    pub(crate) prices: Prices<'a>,
    pub(crate) index: Option<&'a ScoreIndex>,
    pub(crate) known: &'a EdgeLimits,
    pub(crate) payer: u32,
    /// A granule in millisatoshis, and how many make up the payment.
    pub(crate) granule: u64,
    pub(crate) granules: u64,
    /// What a granule may be larger by at most where fees have been added to it.
    pub(crate) fee_margin: u64,
}

/// What an edge carries and whether there is uncertainty, after all that is known.
#[derive(Clone, Copy)]
struct EdgeView<'a> {
    edge: &'a Edge,
    limits: Limits,
    score: Option<&'a EdgeScore>,
    /// The payer's own, for which nothing is asked.
    own: bool,
}

#[derive(Clone, Copy)]
struct Limits {
    minimum: u64,
    maximum: u64,
    in_flight: u64,
    certain: bool,
}

impl<'a> FlowCosts<'a> {
    #[inline]
    fn view(&self, number: u32, edge: &'a Edge) -> EdgeView<'a> {
        let limits = match self.known.limit(number) {
            None => Limits { minimum: edge.minimum, maximum: edge.maximum, in_flight: 0, certain: false },
            Some(EdgeLimit { minimum, maximum, in_flight, certain, .. }) => {
                Limits { minimum: *minimum, maximum: *maximum, in_flight: *in_flight, certain: *certain }
            }
        };
        let score = self.index.and_then(|index| index.scores.get(index.slots[number as usize] as usize));
        EdgeView { edge, limits, score, own: edge.source == self.payer }
    }

    /// How uncertainty it is that `amount` gets through beside what is in flight.
    #[inline]
    fn edge_uncertainty(&self, view: &EdgeView<'_>, amount: u64) -> Uncertainty {
        if view.limits.certain {
            return Uncertainty(0);
        }
        let all = |amount| match view.score {
            None => Prices::prior(amount, view.edge.capacity),
            Some(score) => self.prices.learned_uncertainty(score, amount, view.edge.capacity),
        };
        let in_flight = view.limits.in_flight;
        if in_flight == 0 {
            return all(amount);
        }
        Uncertainty(all(amount.saturating_add(in_flight)).0.saturating_sub(all(in_flight).0))
    }

    fn penalty(view: &EdgeView<'_>) -> u64 {
        view.score.map_or(0, |score| if view.own { score.own_penalty } else { score.penalty })
    }

    /// The cost of a granule apart from uncertainty, or `None` where none may go.
    #[inline]
    fn granule_cost(&self, view: &EdgeView<'_>) -> Option<u64> {
        if self.granule < view.limits.minimum || self.granule + self.fee_margin > view.limits.maximum {
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

    /// How uncertainty a number of granules is, as a cost.
    #[inline]
    fn granules_uncertainty(&self, view: &EdgeView<'_>, granules: u64) -> u64 {
        if !self.prices.weighs_success() {
            return 0;
        }
        self.prices.own_hop(self.edge_uncertainty(view, granules * self.granule), 0)
    }

    fn aggregate_max(&self, edge: u32) -> u64 {
        match self.known.limit(edge) {
            Some(limit) => limit.aggregate_max,
            None => self.graph.capacity_of(edge).to_msat().0,
        }
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
        if granules * (self.granule + self.fee_margin) > self.aggregate_max(arc) {
            return None;
        }
        // The steepest rise so far, so that a later granule never costs less than an earlier one.
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
    fn bounds(&self, arc: u32) -> Bounds {
        let limits = self.view(arc, self.graph.edge(arc)).limits;
        Bounds { minimum: limits.minimum, maximum: limits.maximum, aggregate_max: self.aggregate_max(arc) }
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
        HopCost {
            fee,
            blocks: delta.into(),
            cost: self.prices.forwarded_hop(amount, fee, delta, Uncertainty(0), penalty),
        }
    }

    fn uncertainty(&self, arc: u32, aggregate_max: u64) -> Uncertainty {
        self.edge_uncertainty(&self.view(arc, self.graph.edge(arc)), aggregate_max)
    }

    fn price(&self, uncertainty: Uncertainty) -> u64 {
        self.prices.own_hop(uncertainty, 0)
    }
}

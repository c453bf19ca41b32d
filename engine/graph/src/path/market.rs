//! A snapshot as the flow solver and the judge of parts see it: what granules and parts cost on each edge, to one payer,
//! for one payment.
//!
//! Owns the translation of policies, prices and knowledge into [`Network`] and [`Terms`]. A granule bears its share of
//! what is asked once for each part (base fees, the price of a hop), as if one part carried everything: so that no split
//! costs less than its flow. Success is judged by what all parts put on an edge together, and by what is in flight there
//! already.
//!
//! Invariant: the cost of one more granule never falls, even where what was learned of a channel makes the true one fall.

use crate::path::Cost;
use crate::path::flow::Network;
use crate::path::known::{Known, Special};
use crate::path::parts::{Bounds, Terms, Toll};
use crate::scoring::{BANNED, Bits, Overlay, Prices, Remark};
use crate::snapshot::{Edge, Snapshot};

/// One payer's view of a snapshot, for one payment.
pub(crate) struct Market<'a> {
    pub(crate) graph: &'a Snapshot,
    pub(crate) prices: Prices<'a>,
    pub(crate) overlay: Option<&'a Overlay>,
    pub(crate) known: &'a Known,
    pub(crate) payer: u32,
    /// A granule in millisatoshis, and how many make up the payment.
    pub(crate) granule: u64,
    pub(crate) granules: u64,
    /// What a granule may be larger by at most where fees have been added to it.
    pub(crate) swelling: u64,
}

/// What an edge carries and whether there is doubt, after all that is known.
#[derive(Clone, Copy)]
struct Lane<'a> {
    edge: &'a Edge,
    limits: Limits,
    remark: Option<&'a Remark>,
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

impl<'a> Market<'a> {
    #[inline]
    fn lane(&self, number: u32, edge: &'a Edge) -> Lane<'a> {
        let limits = match self.known.special(number) {
            None => Limits { minimum: edge.minimum, maximum: edge.maximum, in_flight: 0, certain: false },
            Some(Special { minimum, maximum, in_flight, certain, .. }) => {
                Limits { minimum: *minimum, maximum: *maximum, in_flight: *in_flight, certain: *certain }
            }
        };
        let remark =
            self.overlay.and_then(|overlay| overlay.remarks.get(overlay.places[number as usize] as usize));
        Lane { edge, limits, remark, own: edge.source == self.payer }
    }

    /// How unlikely it is that `amount` gets through beside what is in flight.
    #[inline]
    fn bits(&self, lane: &Lane<'_>, amount: u64) -> Bits {
        if lane.limits.certain {
            return Bits(0);
        }
        let all = |amount| match lane.remark {
            None => Prices::prior(amount, lane.edge.capacity),
            Some(remark) => self.prices.learned(remark, amount, lane.edge.capacity),
        };
        let in_flight = lane.limits.in_flight;
        if in_flight == 0 {
            return all(amount);
        }
        Bits(all(amount.saturating_add(in_flight)).0.saturating_sub(all(in_flight).0))
    }

    fn penalty(lane: &Lane<'_>) -> u64 {
        lane.remark.map_or(0, |remark| if lane.own { remark.own_penalty } else { remark.penalty })
    }

    /// The cost of a granule apart from doubt, or `None` where none may go.
    #[inline]
    fn granule_toll(&self, lane: &Lane<'_>) -> Option<u64> {
        if self.granule < lane.limits.minimum || self.granule + self.swelling > lane.limits.maximum {
            return None;
        }
        let penalty = Market::penalty(lane);
        if penalty == BANNED {
            return None;
        }
        if lane.own {
            return Some(penalty / self.granules);
        }
        let edge = lane.edge;
        let each =
            (u64::from(edge.fee_base) * Cost::PER_MSAT).saturating_add(penalty).saturating_add(self.hop());
        let share =
            self.granule.saturating_mul(u64::from(edge.fee_millionths)) / (1_000_000 / Cost::PER_MSAT);
        Some((each / self.granules).saturating_add(share).saturating_add(self.delay(edge)))
    }

    #[inline]
    fn hop(&self) -> u64 {
        self.prices.forward(0, 0, 0, Bits(0), 0)
    }

    #[inline]
    fn delay(&self, edge: &Edge) -> u64 {
        self.prices.forward(self.granule, 0, edge.cltv_expiry_delta, Bits(0), 0) - self.hop()
    }

    /// How unlikely a number of granules is, as a cost.
    #[inline]
    fn granules_doubt(&self, lane: &Lane<'_>, granules: u64) -> u64 {
        if !self.prices.minds_success() {
            return 0;
        }
        self.prices.first(self.bits(lane, granules * self.granule), 0)
    }

    fn together(&self, edge: u32) -> u64 {
        match self.known.special(edge) {
            Some(special) => special.together,
            None => self.graph.capacity_of(edge).to_msat().0,
        }
    }
}

impl Network for Market<'_> {
    fn node_count(&self) -> usize {
        self.graph.node_count()
    }

    fn arcs_into(&self, node: u32, mut visit: impl FnMut(u32, u32, u64)) {
        for (first, run) in self.graph.runs(self.graph.incoming(node)) {
            for (number, edge) in (first..).zip(run) {
                let lane = self.lane(number, edge);
                if let Some(toll) = self.granule_toll(&lane) {
                    visit(number, edge.source, toll.saturating_add(self.granules_doubt(&lane, 1)));
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
        let lane = self.lane(arc, edge);
        let toll = self.granule_toll(&lane)?;
        if carried == 0 {
            return Some(toll.saturating_add(self.granules_doubt(&lane, 1)));
        }
        let granules = u64::from(carried) + 1;
        if granules * (self.granule + self.swelling) > self.together(arc) {
            return None;
        }
        // The steepest rise so far, so that a later granule never costs less than an earlier one.
        let (mut before, mut steepest) = (0, 0);
        for granules in 1..=granules {
            let doubt = self.granules_doubt(&lane, granules);
            steepest = (doubt.saturating_sub(before)).max(steepest);
            before = doubt;
        }
        Some(toll.saturating_add(steepest))
    }
}

impl Terms for Market<'_> {
    fn bounds(&self, arc: u32) -> Bounds {
        let limits = self.lane(arc, self.graph.edge(arc)).limits;
        Bounds { minimum: limits.minimum, maximum: limits.maximum, together: self.together(arc) }
    }

    fn toll(&self, arc: u32, amount: u64) -> Toll {
        let edge = self.graph.edge(arc);
        let lane = self.lane(arc, edge);
        let penalty = Market::penalty(&lane);
        if lane.own {
            return Toll { cost: penalty, ..Toll::default() };
        }
        let fee = edge.fee(amount);
        let delta = edge.cltv_expiry_delta;
        Toll { fee, blocks: delta.into(), cost: self.prices.forward(amount, fee, delta, Bits(0), penalty) }
    }

    fn unlikely(&self, arc: u32, together: u64) -> Bits {
        self.bits(&self.lane(arc, self.graph.edge(arc)), together)
    }

    fn price(&self, unlikely: Bits) -> u64 {
        self.prices.first(unlikely, 0)
    }
}

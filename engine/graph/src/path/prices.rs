//! The cost and the success of a hop under one query: the formula that every search and both checkers share.
//!
//! The cost of a hop is its fee, plus the price of its delay ([`Query::risk_billionths`]), plus
//! [`Weights::hop`](crate::scoring::Weights::hop), plus [`Weights::halving`](crate::scoring::Weights::halving) for
//! each bit of uncertainty, plus penalties. Uncertainty is minus the binary logarithm of the probability that the
//! liquidity is there. Without observations, liquidity is taken to be anywhere between nothing and the capacity with
//! equal probability; the capacity is rounded up by at most a thousandth.
//!
//! Invariant: every term is a whole number and never falls as the amount grows. Dominance, lower bounds and the
//! handling of `htlc_minimum` in the searches rely on that.

use std::collections::BTreeMap;

use fulmen_wire::units::{CltvDelta, Msat, NodeId, Sat};

use crate::cost::Cost;
use crate::graph::DirectedChannel;
use crate::path::{Query, Route};
use crate::scoring::{BANNED, EdgeScore, Probability, Scorer, Uncertainty};
use crate::snapshot::{RoughCapacity, Snapshot};

/// The role of a hop's channel in a route; prices depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HopRole {
    /// The payer's own channel with a known spendable amount: it costs nothing and succeeds.
    OwnKnown,
    /// The payer's own channel when balances are not known.
    OwnUnknown,
    /// A channel that another node forwards over.
    Forward,
}

/// The prices of one query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prices<'a> {
    risk_billionths: u64,
    /// The cost of one bit of uncertainty.
    halving: u64,
    hop: u64,
    scorer: Option<&'a Scorer>,
    now: u64,
    /// The amounts that other payments have in flight.
    in_flight: &'a BTreeMap<DirectedChannel, Msat>,
}

/// The most that one bit of uncertainty may cost, so that no product overflows: 274,877,906 msat.
const HALVING_MAX: u64 = 1 << 38;

impl<'a> Prices<'a> {
    pub(crate) fn new(query: &Query<'a>) -> Prices<'a> {
        let share = |millionths: u32| {
            u128::from(query.amount.0) * u128::from(millionths) * u128::from(Cost::PER_MSAT) / 1_000_000
        };
        let price = |fixed: Msat, millionths| {
            let price = u128::from(fixed.0) * u128::from(Cost::PER_MSAT) + share(millionths);
            u64::try_from(price).unwrap_or(u64::MAX).min(HALVING_MAX)
        };
        let weights = query.weights;
        Prices {
            risk_billionths: u64::from(query.risk_billionths),
            halving: price(weights.halving, weights.halving_millionths),
            hop: price(weights.hop, weights.hop_millionths),
            scorer: query.scorer,
            now: query.now_seconds,
            in_flight: &query.knowledge.in_flight,
        }
    }

    /// Whether uncertainty has a price; otherwise it need not be computed.
    #[inline]
    pub(crate) fn weighs_success(&self) -> bool {
        self.halving != 0
    }

    /// Whether a route costs its fee and nothing else.
    pub(crate) fn are_fees(&self) -> bool {
        self.halving == 0 && self.hop == 0 && self.risk_billionths == 0 && self.scorer.is_none()
    }

    /// The cost of forwarding `amount` msat over a channel.
    #[inline]
    pub(crate) fn forwarded_hop(
        &self,
        amount: u64,
        fee: u64,
        delta: u16,
        uncertainty: Uncertainty,
        penalty: u64,
    ) -> u64 {
        let factor = u64::from(delta) * self.risk_billionths;
        let delay = match amount.checked_mul(factor) {
            Some(product) => product / (1_000_000_000 / Cost::PER_MSAT),
            None => {
                let wide =
                    u128::from(amount) * u128::from(factor) / u128::from(1_000_000_000 / Cost::PER_MSAT);
                u64::try_from(wide).unwrap_or(u64::MAX)
            }
        };
        fee.saturating_mul(Cost::PER_MSAT)
            .saturating_add(delay)
            .saturating_add(self.hop + self.uncertainty_cost(uncertainty))
            .saturating_add(penalty)
    }

    /// The cost of the payer's own channel when its balance is not known.
    #[inline]
    pub(crate) fn own_hop(&self, uncertainty: Uncertainty, penalty: u64) -> u64 {
        self.uncertainty_cost(uncertainty).saturating_add(penalty)
    }

    #[inline]
    fn uncertainty_cost(&self, uncertainty: Uncertainty) -> u64 {
        (self.halving * u64::from(uncertainty.0)) >> Uncertainty::SHIFT
    }

    /// The uncertainty of a channel without learned liquidity.
    #[inline]
    pub(crate) fn prior(amount: u64, capacity: RoughCapacity) -> Uncertainty {
        let whole = capacity.msat() + 1;
        Uncertainty::of_ratio(whole.saturating_sub(amount), whole)
    }

    /// At most [`Prices::prior`] of any smaller capacity.
    #[inline]
    pub(crate) fn prior_lower_bound(amount: u64, capacity: RoughCapacity) -> Uncertainty {
        Uncertainty(Prices::prior(amount, capacity).0.saturating_sub(Uncertainty::SLACK))
    }

    /// The uncertainty of an edge that the scorer's index has an entry for.
    #[inline]
    pub(crate) fn scored_uncertainty(
        &self,
        score: &EdgeScore,
        amount: u64,
        capacity: RoughCapacity,
    ) -> Uncertainty {
        let learned = self.scorer.and_then(|scorer| scorer.learned(score, amount, capacity, self.now));
        learned.unwrap_or_else(|| Prices::prior(amount, capacity))
    }

    /// The uncertainty of a hop, looked up by its channel.
    pub(crate) fn uncertainty(
        &self,
        directed: DirectedChannel,
        capacity: Sat,
        amount: Msat,
        role: HopRole,
    ) -> Uncertainty {
        if role == HopRole::OwnKnown {
            return Uncertainty(0);
        }
        let in_flight = self.in_flight.get(&directed).map_or(0, |amount| amount.0);
        let capacity = RoughCapacity::above(capacity);
        Uncertainty::beside(in_flight, amount.0, |amount| {
            let learned =
                self.scorer.and_then(|scorer| scorer.learned_of(directed, amount, capacity, self.now));
            learned.unwrap_or_else(|| Prices::prior(amount, capacity))
        })
    }

    /// The cost of a hop, looked up by its channel, or `None` when it is banned. The faster look-ups of the searches
    /// over snapshots must agree with it.
    pub(crate) fn cost(&self, hop: &PricedHop, role: HopRole) -> Option<Cost> {
        let uncertainty = if self.weighs_success() {
            self.uncertainty(hop.directed, hop.capacity, hop.amount, role)
        } else {
            Uncertainty(0)
        };
        let penalty = self.scorer.map_or(0, |scorer| match role {
            HopRole::OwnKnown | HopRole::OwnUnknown => scorer.own_penalty(hop.directed),
            HopRole::Forward => scorer.penalty(hop.directed, hop.from),
        });
        if penalty == BANNED {
            return None;
        }
        Some(Cost(match role {
            HopRole::OwnKnown => 0,
            HopRole::OwnUnknown => self.own_hop(uncertainty, penalty),
            HopRole::Forward => {
                self.forwarded_hop(hop.amount.0, hop.fee.0, hop.delta.0, uncertainty, penalty)
            }
        }))
    }
}

/// The inputs of a hop's price.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PricedHop {
    pub(crate) directed: DirectedChannel,
    pub(crate) from: NodeId,
    pub(crate) capacity: Sat,
    pub(crate) amount: Msat,
    pub(crate) fee: Msat,
    pub(crate) delta: CltvDelta,
}

/// For each hop of an answer to `query`, the probability that the liquidity is there.
#[must_use]
pub fn hop_successes(snapshot: &Snapshot, query: &Query<'_>, route: &Route) -> Vec<Probability> {
    hop_uncertainties(snapshot, query, route).map(Uncertainty::probability).collect()
}

/// The same as uncertainties.
pub(crate) fn hop_uncertainties(
    snapshot: &Snapshot,
    query: &Query<'_>,
    route: &Route,
) -> impl Iterator<Item = Uncertainty> {
    let prices = Prices::new(query);
    let own = if query.knowledge.first_hops.is_some() { HopRole::OwnKnown } else { HopRole::OwnUnknown };
    route.hops.iter().enumerate().map(move |(at, hop)| {
        let role = if at == 0 { own } else { HopRole::Forward };
        let capacity = snapshot.capacity(hop.scid).unwrap_or_default();
        prices.uncertainty(hop.directed(), capacity, hop.amount, role)
    })
}

/// The additions of one channel to a route, from the payee towards the payer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HopCost {
    /// To the amount, in millisatoshi.
    pub(crate) fee: u64,
    /// To the blocks until expiry.
    pub(crate) blocks: u32,
    /// To the cost.
    pub(crate) cost: u64,
}

//! The fast path-finder: exact over a [`Snapshot`], in a fraction of a millisecond.
//!
//! Owns [`Finder`], which decides how strict a search has to be (BOLT 7, "HTLC Fees"; BOLT 4 for the room in the
//! onion) and keeps the memory of searches. Does not change the snapshot, and carries no result over from one query
//! to the next.
//!
//! Each of these steps runs only when the one before leaves the answer open:
//!
//! 1. A search backward from the payee, with the exact amounts and expiries (`labels`), is guided by lower bounds
//!    from a search forward from the payer (`bounds`). Both advance in turns, and no further than needed. At large
//!    nodes both examine only the blocks of channels whose lower bound on cost has been reached (`lazy`). Only cost,
//!    amount and the limit on the fee are compared.
//! 2. When the answer exceeds another limit, the search is repeated with that limit enforced, until the answer keeps
//!    all. The result is the cheapest route within the limits, since each search chooses from a superset of those
//!    routes. For the limit on blocks a price per block is found first, which leaves little to search (`pricing`).
//! 3. The searches so far leave out directions whose `htlc_minimum` exceeds the payment's amount. The fees of later
//!    hops may lift the amount above such a minimum. Where one was met, a search without those minimums shows whether
//!    anything could be gained, and only then another finds the cheapest such route. That one is exponential at
//!    worst.
//! 4. When there is no route, a search for each limit alone finds the least value that would suffice.
//!
//! Every search ends after a limited number of comparisons; the answer then is [`NoRoute::SearchLimitReached`].
//!
//! Invariant: whether there is a route, and its cost, agrees with [`crate::path::plain`]. Which of several routes of
//! equal cost is found follows from the graph's content when it was laid out and from its policies since. Budget:
//! 0.07 ms at the median and 1 ms for 99 of 100 queries on the public network; benched as `route`.

mod bounds;
mod labels;
mod lazy;
mod prepared;
mod pricing;

use fulmen_wire::units::{BlockHeight, Msat};

use crate::path::knowledge::PreparedKnowledge;
use crate::path::onion_room::ONION_ROOM;
use crate::path::prices::HopRole;
use crate::path::search::labels::{Exhausted, Found, Labels, LowerBounds, Rules};
use crate::path::search::prepared::Objective;
pub(super) use crate::path::search::prepared::{PreparedQuery, Start, ends};
use crate::path::{Cost, HOPS_MAX, Limits, NoRoute, PathHop, Query, Route};
use crate::scoring::Uncertainty;
use crate::snapshot::Snapshot;

/// The default limit on comparisons of partial routes: a fraction of a second.
pub const COMPARISONS_MAX: usize = 1 << 22;

/// Finds routes. Reuses its memory from query to query and keeps nothing else: use one per thread.
///
/// ```
/// use fulmen_graph::path::search::Finder;
/// use fulmen_graph::path::{Knowledge, Query};
/// use fulmen_graph::snapshot::Snapshot;
/// use fulmen_graph::{ChannelGraph, Policy};
/// use fulmen_wire::units::{CltvDelta, Msat, NodeId, Sat, Scid};
///
/// let [alice, bob, carol] = [2, 3, 4].map(|tag| NodeId([tag; 33]));
/// let policy = Policy {
///     fee_base: Msat(1_000),
///     fee_proportional_millionths: 100,
///     cltv_expiry_delta: CltvDelta(40),
///     htlc_minimum: Msat(1),
///     htlc_maximum: Msat(1_000_000_000),
///     disabled: false,
/// };
/// let mut graph = ChannelGraph::new();
/// for (scid, from, to) in [(1, alice, bob), (2, bob, carol)] {
///     graph.add_channel(Scid(scid), [from, to], Sat(1_000_000))?;
///     graph.set_policy(Scid(scid), from, Some(policy))?;
/// }
/// let snapshot = Snapshot::new(&graph);
///
/// let knowledge = Knowledge::default();
/// let query = Query::new(alice, carol, Msat(10_000_000), &knowledge);
/// let route = Finder::new().find(&snapshot, &query)?;
/// // bob charges 1,000 msat and 100 millionths of the amount it forwards; alice pays nothing for its own channel.
/// assert_eq!((route.hops.len(), route.fee), (2, Msat(2_000)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Finder {
    bounds: LowerBounds,
    labels: Labels,
    knowledge: PreparedKnowledge,
    /// The start that the last route found leads to.
    start: usize,
    comparisons_max: usize,
    /// Whether a route within all limits suffices although a cheaper one may exist.
    is_rough: bool,
}

impl Default for Finder {
    fn default() -> Finder {
        Finder::new()
    }
}

/// Why a search ended without an answer.
pub(in crate::path) enum Stop {
    /// There is none.
    Nothing,
    /// The search reached its limit of comparisons.
    LimitReached {
        comparisons: usize,
        /// A route within all limits, though perhaps not the cheapest.
        best: Option<Box<Route>>,
    },
}

impl Stop {
    /// The best route found before the search reached its limit.
    pub(in crate::path) fn best(&self) -> Option<Route> {
        match self {
            Stop::Nothing => None,
            Stop::LimitReached { best, .. } => best.as_deref().cloned(),
        }
    }
}

impl Finder {
    /// A finder that ends a search after [`COMPARISONS_MAX`] comparisons.
    #[must_use]
    pub fn new() -> Finder {
        Finder::with_comparisons_max(COMPARISONS_MAX)
    }

    /// A finder that ends a search after this many comparisons of partial routes.
    #[must_use]
    pub fn with_comparisons_max(comparisons_max: usize) -> Finder {
        Finder {
            bounds: LowerBounds::default(),
            labels: Labels::default(),
            knowledge: PreparedKnowledge::default(),
            start: 0,
            comparisons_max,
            is_rough: false,
        }
    }

    /// Finds the cheapest route for `query`.
    ///
    /// # Errors
    /// The reason why there is none; see [`NoRoute`]. Any error but [`NoRoute::SearchLimitReached`] means that no
    /// simple path satisfies the query.
    pub fn find(&mut self, snapshot: &Snapshot, query: &Query<'_>) -> Result<Route, NoRoute> {
        let (payer, payee) = prepared::ends(snapshot, query)?;
        let mut knowledge = std::mem::take(&mut self.knowledge);
        knowledge.prepare(snapshot, query, payer);
        let starts = [Start::payee(query, payee)];
        let prepared = PreparedQuery::new(snapshot, query, payer, &starts, &knowledge);
        let answer = match self.solve_prepared(&prepared) {
            Ok(route) => Ok(route),
            Err(stop) => self.explain(prepared, stop),
        };
        self.knowledge = knowledge;
        answer
    }

    /// Finds the cheapest route for `query`, or the best found before the search reached its limit. Does not find out
    /// why there is none.
    pub(crate) fn attempt(&mut self, snapshot: &Snapshot, query: &Query<'_>) -> Option<Route> {
        let (payer, payee) = prepared::ends(snapshot, query).ok()?;
        let starts = [Start::payee(query, payee)];
        Some(self.attempt_from(snapshot, query, payer, &starts)?.0)
    }

    /// Finds a cheap route for `query`, not always the cheapest: the search ends after `comparisons_max` comparisons,
    /// and where the limit on blocks binds, the cheapest route found while looking for a price of blocks suffices.
    pub(crate) fn attempt_roughly(
        &mut self,
        snapshot: &Snapshot,
        query: &Query<'_>,
        comparisons_max: usize,
    ) -> Option<Route> {
        let before = std::mem::replace(&mut self.comparisons_max, comparisons_max);
        self.is_rough = true;
        let found = self.attempt(snapshot, query);
        self.is_rough = false;
        self.comparisons_max = before;
        found
    }

    /// Finds the cheapest route to one of several starts, and the position of that start. The route's figures include
    /// the rest of the route from the start; its hops do not.
    pub(in crate::path) fn attempt_from(
        &mut self,
        snapshot: &Snapshot,
        query: &Query<'_>,
        payer: u32,
        starts: &[Start],
    ) -> Option<(Route, usize)> {
        let mut knowledge = std::mem::take(&mut self.knowledge);
        knowledge.prepare(snapshot, query, payer);
        let prepared = PreparedQuery::new(snapshot, query, payer, starts, &knowledge);
        let answer = self.solve_prepared(&prepared);
        self.knowledge = knowledge;
        let route = answer.map_or_else(|stop| stop.best(), Some)?;
        Some((route, self.start))
    }

    /// Finds the cheapest route for a query that was prepared.
    pub(in crate::path) fn solve_prepared(&mut self, prepared: &PreparedQuery<'_>) -> Result<Route, Stop> {
        self.labels.comparisons = 0;
        self.solve(prepared, prepared.query.limits)
    }

    /// The error for a search that ended without an answer, or a route that it missed because its cost saturates.
    pub(in crate::path) fn explain(
        &mut self,
        prepared: PreparedQuery<'_>,
        stop: Stop,
    ) -> Result<Route, NoRoute> {
        match stop {
            Stop::LimitReached { comparisons, best } => {
                Err(NoRoute::SearchLimitReached { comparisons, best })
            }
            Stop::Nothing => self.nearest_misses(prepared),
        }
    }

    fn limit_reached(&self, best: Option<Box<Route>>) -> Stop {
        Stop::LimitReached { comparisons: self.labels.comparisons, best }
    }

    /// Finds the cheapest route within the limits.
    fn solve(&mut self, prepared: &PreparedQuery<'_>, limits: Limits) -> Result<Route, Stop> {
        self.bounds.start(prepared);
        let mut rules = Rules { cost_max: prepared.cost_max(), ..Rules::plain(limits) };
        let mut prepared = *prepared;
        let mut known = None;
        let best = loop {
            let found = match self.run(&prepared, &rules) {
                Ok(Some(found)) => found,
                Ok(None) => break None,
                Err(Exhausted) => return Err(self.limit_reached(known)),
            };
            let Some(stricter) = Self::stricter(rules, &found, limits) else {
                break Some((found.cost, self.route(&prepared, &found)));
            };
            if rules.blocks_max.is_none() && stricter.blocks_max.is_some() {
                let priced = self.price_blocks(prepared, &found, limits);
                prepared = prepared.pricing_blocks(priced.block_price);
                self.bounds.start(&prepared);
                rules = Rules { cost_max: priced.cost_max, ..stricter };
                known = priced.best.map(Box::new);
                if self.is_rough && known.is_some() {
                    return Err(self.limit_reached(known));
                }
            } else {
                rules = stricter;
            }
        };
        let lifted = self.lifted(&prepared, limits, best.as_ref().map(|(cost, _)| *cost));
        match (lifted, best) {
            (Ok(Some(route)), _) => Ok(route),
            (Ok(None), best) => best.map(|(_, route)| route).ok_or(Stop::Nothing),
            (Err(Exhausted), best) => Err(self.limit_reached(best.map(|(_, route)| Box::new(route)))),
        }
    }

    /// The rules that also enforce every limit that the route exceeds, or `None` when it exceeds none.
    fn stricter(rules: Rules, found: &Found, limits: Limits) -> Option<Rules> {
        let mut next = rules;
        let hops_max = u32::try_from(limits.max_hops).unwrap_or(u32::MAX);
        if found.blocks > limits.max_cltv_blocks {
            next.blocks_max = Some(limits.max_cltv_blocks);
        }
        if found.hops > hops_max {
            next.hops_max = Some(hops_max);
        }
        if found.onion > ONION_ROOM {
            next.checks_onion = true;
        }
        let breaks =
            found.blocks > limits.max_cltv_blocks || found.hops > hops_max || found.onion > ONION_ROOM;
        breaks.then_some(next)
    }

    /// Searches for a route below `cost_max` over directions whose minimum exceeds the payment's amount, where the
    /// last search met some that matter.
    fn lifted(
        &mut self,
        prepared: &PreparedQuery<'_>,
        limits: Limits,
        cost_max: Option<u64>,
    ) -> Result<Option<Route>, Exhausted> {
        let cost_max = cost_max.unwrap_or(prepared.cost_max());
        // A route within the limit on blocks pays at most the price of all its blocks.
        let blocks = prepared.price(limits.max_cltv_blocks);
        let lifted_cost = self.labels.lifted_cost;
        if lifted_cost == u64::MAX || lifted_cost.saturating_sub(blocks) >= cost_max {
            return Ok(None);
        }
        // Mostly, no such route exists even without the minimums.
        let blocks_max = (prepared.block_price > 0).then_some(limits.max_cltv_blocks);
        let waiving = Rules { blocks_max, waives_minimums: true, cost_max, ..Rules::plain(limits) };
        if self.run(prepared, &waiving)?.is_none() {
            return Ok(None);
        }
        // The fee of a cheaper route is at most its cost.
        let amount_max = match prepared.objective {
            Objective::Cost => {
                prepared.amount_max.min(prepared.amount.saturating_add(cost_max / Cost::PER_MSAT))
            }
            Objective::Fee => prepared.amount_max.min(prepared.amount.saturating_add(cost_max)),
            Objective::Blocks | Objective::Hops => prepared.amount_max,
        };
        let highest = prepared.highest_minimum(amount_max);
        let rules = Rules {
            blocks_max: Some(limits.max_cltv_blocks),
            hops_max: Some(u32::try_from(limits.max_hops).unwrap_or(u32::MAX)),
            checks_onion: true,
            lift: Some(highest),
            waives_minimums: false,
            cost_max,
            limits,
        };
        let found = self.run(prepared, &rules)?;
        Ok(found.map(|found| self.route(prepared, &found)))
    }

    fn run(&mut self, prepared: &PreparedQuery<'_>, rules: &Rules) -> Result<Option<Found>, Exhausted> {
        self.labels.run(prepared, rules, &mut self.bounds, self.comparisons_max)
    }

    /// Finds the least value of each limit alone that would suffice, when no route below [`Cost`]'s maximum does. The
    /// cheapest by its fee may keep all limits all the same: then its cost saturates, and it is the answer.
    fn nearest_misses(&mut self, prepared: PreparedQuery<'_>) -> Result<Route, NoRoute> {
        let amount = prepared.query.amount;
        let limits = prepared.query.limits;
        let wide = Limits { max_fee: Msat::MAX_MONEY, max_cltv_blocks: u32::MAX, max_hops: HOPS_MAX };
        let mut least = |objective, limits: Limits| {
            self.labels.comparisons = 0;
            self.solve(&prepared.minimising(objective, limits.max_fee), limits)
        };
        if matches!(least(Objective::Fee, wide), Err(Stop::Nothing)) {
            return Err(NoRoute::Unreachable { amount });
        }
        // When none of these suffices, two limits or more must be raised.
        let fee = least(Objective::Fee, Limits { max_fee: wide.max_fee, ..limits });
        if let Ok(route) = &fee
            && route.fee <= limits.max_fee
        {
            return Ok(Route { cost: Cost(u64::MAX), ..route.clone() });
        }
        let blocks = least(Objective::Blocks, Limits { max_cltv_blocks: wide.max_cltv_blocks, ..limits });
        let hops = least(Objective::Hops, Limits { max_hops: wide.max_hops, ..limits });
        Err(NoRoute::OverLimits {
            amount,
            max_fee: fee.ok().map(|route| route.fee),
            max_cltv_blocks: blocks.ok().map(|route| route.total_cltv_blocks),
            max_hops: hops.ok().map(|route| route.hops.len()),
        })
    }

    /// The route that was found, with all its figures.
    fn route(&mut self, prepared: &PreparedQuery<'_>, found: &Found) -> Route {
        let amounts = prepared.amount..=prepared.amount_max;
        assert!(amounts.contains(&found.amount), "a route sends {} msat, outside {amounts:?}", found.amount);
        self.start = self.labels.start_of(found);
        let mut uncertainty = Uncertainty(0);
        let hops = self.labels.hops(found).enumerate().map(|(at, hop)| {
            let directed = prepared.snapshot.directed(hop.edge);
            let role = if at == 0 { prepared.first_role() } else { HopRole::Forward };
            let bits = prepared.uncertainty(directed, hop.edge, hop.amount, role);
            uncertainty = Uncertainty::sum([uncertainty, bits].into_iter());
            PathHop {
                from: prepared.snapshot.node_id(hop.from),
                to: prepared.snapshot.node_id(hop.to),
                scid: directed.scid,
                direction: directed.direction,
                amount: Msat(hop.amount),
                cltv_expiry: BlockHeight(prepared.query.height.0.saturating_add(hop.blocks)),
                fee: Msat(hop.amount_in - hop.amount),
            }
        });
        let hops = hops.collect();
        Route {
            hops,
            total_amount: Msat(found.amount),
            fee: Msat(found.amount - prepared.amount),
            total_cltv_blocks: found.blocks,
            cost: Cost(found.cost),
            success: uncertainty.probability(),
        }
    }
}

#[cfg(test)]
mod tests;

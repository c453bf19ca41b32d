//! Payments in parts: the cheapest way to split an amount, success and fees weighed against each other (BOLT 4, "Basic
//! Multi-Part Payments").
//!
//! Owns [`PartFinder`]. A part is a [`Route`] like any other, which pays its amount of the whole: the parts' amounts add
//! up to the payment, and the limits of the query hold, each part by itself for expiry, hops and onion, all together for
//! the fee, and all together on each channel for what it carries. First one part is tried. Where that costs hardly more
//! than any split could, it is the answer; otherwise a min-cost flow ([`super::flow`]) is taken apart and its parts are
//! improved with exact figures ([`super::parts`]). Where no flow fits, parts are looked for one after the other, the
//! largest first.
//!
//! Not exact: how to split best into few parts is NP-hard. Whatever is answered keeps every limit; that nothing is found
//! though a split exists is possible, and measured in the tests.
//!
//! Budget: 2 ms on the mainnet graph, median over connected pairs; `route/multi` in `bench/peers`.

use fulmen_wire::units::{BlockHeight, Msat};

use crate::path::flow::Solver;
use crate::path::known::Known;
use crate::path::market::Market;
use crate::path::parts::{Frame, Judge, Terms, Verdict, Way, fill, take_apart};
use crate::path::{Cost, Hop, Knowledge, NoRoute, Query, Route};
use crate::scoring::{Bits, Overlay, Prices, Probability};
use crate::snapshot::Snapshot;

/// A payment in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// At least one, the largest first. Each is the answer to the query for its own amount.
    pub routes: Vec<Route>,
    /// What the payer sends in all.
    pub total_amount: Msat,
    /// What all forwarding nodes together take.
    pub fee: Msat,
    /// What the finder minimised: the costs of the parts, unlikeliness counted once for each channel.
    pub cost: Cost,
    /// How likely the liquidity is thought to be there for all parts at once.
    pub success: Probability,
}

/// Finds parts; keeps its memory from query to query.
#[derive(Debug, Default)]
pub struct PartFinder {
    solver: Solver,
    known: Known,
    judge: Judge,
}

/// Ways that break no limit.
struct Found {
    ways: Vec<Way>,
    verdict: Verdict,
}

impl PartFinder {
    /// A finder without memory yet: about a hundred bytes for each node once used.
    #[must_use]
    pub fn new() -> PartFinder {
        PartFinder::default()
    }

    /// Finds how to pay `query` in at most `parts_max` parts.
    ///
    /// # Errors
    /// See [`NoRoute`]; [`NoRoute::Unreachable`] means that no parts were found, not that none exist.
    pub fn find(&mut self, graph: &Snapshot, query: &Query<'_>, parts_max: usize) -> Result<Parts, NoRoute> {
        let ends = ends(graph, query)?;
        let overlay = query.scorer.map(|scorer| scorer.prepared(graph).ok_or_else(|| scorer.overlay(graph)));
        let overlay = overlay.as_ref().map(|prepared| match prepared {
            Ok(prepared) => *prepared,
            Err(made) => made,
        });
        self.known.prepare(graph, query);
        let mut search = Search { graph, query, overlay, ends, parts_max, finder: self };
        let one = search.in_one();
        if let Some(one) = &one
            && (parts_max <= 1 || one.verdict.unlikely <= UNLIKELY_ENOUGH)
        {
            return Ok(assemble(graph, query, overlay, search.finder, &one.ways));
        }
        let best = search.by_flow(one);
        let best = best.or_else(|| search.one_after_the_other());
        let best = best.ok_or(NoRoute::Unreachable { amount: query.amount })?;
        Ok(assemble(graph, query, overlay, self, &best.ways))
    }
}

/// The numbers of payer and payee.
fn ends(graph: &Snapshot, query: &Query<'_>) -> Result<(u32, u32), NoRoute> {
    let end = |node| {
        if query.knowledge.excluded_nodes.contains(&node) {
            return Err(NoRoute::ExcludedNode { node });
        }
        graph.node_index(node).ok_or(NoRoute::UnknownNode { node })
    };
    let ends = (end(query.from)?, end(query.to)?);
    if ends.0 == ends.1 {
        return Err(NoRoute::SelfPayment { node: query.from });
    }
    if query.amount == Msat::ZERO {
        return Err(NoRoute::ZeroAmount);
    }
    Ok(ends)
}

/// One query being answered.
struct Search<'s, 'a> {
    graph: &'s Snapshot,
    query: &'s Query<'a>,
    overlay: Option<&'s Overlay>,
    ends: (u32, u32),
    parts_max: usize,
    finder: &'s mut PartFinder,
}

/// The market for the query's amount in a number of granules.
fn market<'m>(
    graph: &'m Snapshot,
    query: &'m Query<'_>,
    overlay: Option<&'m Overlay>,
    known: &'m Known,
    payer: u32,
    granules: u64,
) -> Market<'m> {
    let granule = query.amount.0.div_ceil(granules);
    let swelling =
        if granules == 1 { 0 } else { (query.limits.max_fee.0 / granules).min(granule / SWELLING_DIVISOR) };
    Market { graph, prices: Prices::new(query), overlay, known, payer, granule, granules, swelling }
}

impl Search<'_, '_> {
    fn frame(&self) -> Frame {
        let limits = self.query.limits;
        Frame {
            parts_max: self.parts_max,
            fee_max: limits.max_fee.0,
            blocks_max: limits.max_cltv_blocks,
            hops_max: limits.max_hops,
            final_blocks: self.query.final_cltv_delta.0.into(),
            height: self.query.height.0,
            payee_extra_bytes: self.query.payee_extra_bytes,
        }
    }

    /// The whole amount over one way.
    fn in_one(&mut self) -> Option<Found> {
        let frame = self.frame();
        let (payer, payee) = self.ends;
        let PartFinder { solver, known, judge } = &mut *self.finder;
        let market = market(self.graph, self.query, self.overlay, known, payer, 1);
        solver.begin(&market, payer, payee)?;
        solver.push(&market)?;
        let ways = fill(take_apart(solver.flows(), payer, payee, |_| u32::MAX), self.query.amount.0);
        let verdict = judge.judge(&market, &frame, &ways);
        (verdict.over == 0).then_some(Found { ways, verdict })
    }

    /// The best of flows of ever finer granules, and of `one`.
    fn by_flow(&mut self, one: Option<Found>) -> Option<Found> {
        let frame = self.frame();
        let (payer, payee) = self.ends;
        let PartFinder { solver, known, judge } = &mut *self.finder;
        for granules in GRANULES {
            if u64::from(granules) > self.query.amount.0 {
                break;
            }
            let market = market(self.graph, self.query, self.overlay, known, payer, granules.into());
            let Some(least) = solver.begin(&market, payer, payee) else { continue };
            let least = least.saturating_mul(granules.into());
            if one.as_ref().is_some_and(|one| one.verdict.cost <= least.saturating_add(least / CLOSE_DIVISOR))
            {
                return one;
            }
            let pushed = (0..granules).take_while(|_| solver.push(&market).is_some()).count();
            if pushed < granules as usize {
                continue;
            }
            let fits = |arc| {
                let maximum = market.bounds(arc).maximum;
                u32::try_from(maximum / (market.granule + market.swelling)).unwrap_or(u32::MAX)
            };
            let mut ways = fill(take_apart(solver.flows(), payer, payee, fits), self.query.amount.0);
            if let Some(one) = &one {
                ways.extend(one.ways.iter().map(|way| Way { amount: 0, ..way.clone() }));
            }
            let verdict = judge.improve(&market, &frame, &mut ways);
            if verdict.over == 0 {
                let found = Found { ways, verdict };
                return Some(match one {
                    Some(one) if one.verdict.cost <= found.verdict.cost => one,
                    _ => found,
                });
            }
            if one.is_some() {
                return one;
            }
        }
        one
    }

    /// Parts looked for one by one, each as large as goes.
    fn one_after_the_other(&mut self) -> Option<Found> {
        let mut knowledge = self.query.knowledge.clone();
        let mut ways: Vec<Way> = Vec::new();
        let mut left = self.query.amount.0;
        let mut fee_left = self.query.limits.max_fee.0;
        while left > 0 && ways.len() < self.parts_max {
            let slots = (self.parts_max - ways.len()) as u64;
            let (mut goes, mut too_much) = (left.div_ceil(slots), left);
            let mut best = self.part(&knowledge, left, fee_left);
            if best.is_none() {
                best = Some(self.part(&knowledge, goes, fee_left)?);
                for _ in 0..BISECTIONS {
                    let middle = goes + (too_much - goes) / 2;
                    match self.part(&knowledge, middle, fee_left) {
                        Some(part) => (goes, best) = (middle, Some(part)),
                        None => too_much = middle,
                    }
                }
            }
            let (way, route) = best?;
            left -= way.amount;
            fee_left = fee_left.saturating_sub(route.fee.0);
            hold(&mut knowledge, &route);
            ways.push(way);
        }
        self.finder.known.prepare(self.graph, self.query);
        let market = market(self.graph, self.query, self.overlay, &self.finder.known, self.ends.0, 1);
        // What was left over may find room after all.
        ways.first_mut()?.amount += left;
        let frame = self.frame();
        let verdict = self.finder.judge.improve(&market, &frame, &mut ways);
        (verdict.over == 0).then_some(Found { ways, verdict })
    }

    /// One part of `amount`, beside what `knowledge` says is in flight.
    fn part(&mut self, knowledge: &Knowledge, amount: u64, fee_max: u64) -> Option<(Way, Route)> {
        let mut query = Query { amount: Msat(amount), knowledge, ..self.query.clone() };
        query.limits.max_fee = Msat(fee_max);
        self.finder.known.prepare(self.graph, &query);
        let mut search = Search { query: &query, parts_max: 1, finder: &mut *self.finder, ..*self };
        let found = search.in_one()?;
        let way = found.ways.into_iter().next()?;
        let known = &search.finder.known;
        let route = route(&market(self.graph, &query, self.overlay, known, self.ends.0, 1), &query, &way);
        Some((way, route))
    }
}

/// Takes what a route puts on its channels away from what is left.
fn hold(knowledge: &mut Knowledge, route: &Route) {
    for (at, hop) in route.hops.iter().enumerate() {
        if at == 0
            && let Some(first) = knowledge.first_hops.as_mut().and_then(|first| first.get_mut(&hop.scid))
        {
            first.spendable = first.spendable.saturating_sub(hop.amount);
        } else {
            let held = knowledge.in_flight.entry(hop.directed()).or_default();
            *held = held.saturating_add(hop.amount);
        }
    }
}

/// Makes routes of ways.
fn assemble(
    graph: &Snapshot,
    query: &Query<'_>,
    overlay: Option<&Overlay>,
    finder: &mut PartFinder,
    ways: &[Way],
) -> Parts {
    let payer = ends(graph, query).map_or(0, |ends| ends.0);
    let mut routes: Vec<Route> = Vec::with_capacity(ways.len());
    for way in ways {
        let own = Query { amount: Msat(way.amount), ..query.clone() };
        routes.push(route(&market(graph, &own, overlay, &finder.known, payer, 1), &own, way));
    }
    routes.sort_by(|one, other| {
        let key =
            |route: &Route| (std::cmp::Reverse(route.total_amount), route.hops.first().map(|hop| hop.scid));
        key(one).cmp(&key(other))
    });
    let market = market(graph, query, overlay, &finder.known, payer, 1);
    let unbound = Frame {
        parts_max: usize::MAX,
        fee_max: u64::MAX,
        blocks_max: u32::MAX,
        hops_max: usize::MAX,
        final_blocks: query.final_cltv_delta.0.into(),
        height: query.height.0,
        payee_extra_bytes: query.payee_extra_bytes,
    };
    let verdict = finder.judge.judge(&market, &unbound, ways);
    Parts {
        total_amount: routes.iter().map(|route| route.total_amount).sum(),
        fee: Msat(verdict.fee),
        cost: Cost(verdict.cost),
        success: verdict.unlikely.probability(),
        routes,
    }
}

/// The route of one way: amounts and expiries as they grow from the payee to the payer.
fn route(market: &Market<'_>, query: &Query<'_>, way: &Way) -> Route {
    let graph = market.graph;
    let (mut amount, mut blocks) = (way.amount, u32::from(query.final_cltv_delta.0));
    let (mut cost, mut unlikely) = (Cost::default(), Bits(0));
    let mut hops = Vec::with_capacity(way.arcs.len());
    for edge in way.arcs.iter().rev() {
        let directed = graph.directed(*edge);
        let toll = market.toll(*edge, amount);
        hops.push(Hop {
            from: graph.node_id(graph.edge(*edge).source),
            to: graph.node_id(graph.target(*edge)),
            scid: directed.scid,
            direction: directed.direction,
            amount: Msat(amount),
            cltv_expiry: BlockHeight(query.height.0.saturating_add(blocks)),
            fee: Msat(toll.fee),
        });
        let bits = market.unlikely(*edge, amount);
        unlikely.0 = unlikely.0.saturating_add(bits.0);
        cost = cost.saturating_add(Cost(toll.cost.saturating_add(market.price(bits))));
        amount = amount.saturating_add(toll.fee);
        blocks = blocks.saturating_add(toll.blocks);
    }
    hops.reverse();
    Route {
        hops,
        total_amount: Msat(amount),
        fee: Msat(amount - way.amount),
        total_cltv_blocks: blocks,
        cost,
        success: unlikely.probability(),
    }
}

/// Below this a single part is certain enough: one in 28 fails.
const UNLIKELY_ENOUGH: Bits = Bits(Bits::ONE.0 / 20);

/// A part that costs no more than this fraction above what any split must cost is not worth splitting.
const CLOSE_DIVISOR: u64 = 20;

/// Into how many granules the amount is cut, one after the other.
const GRANULES: [u32; 3] = [8, 16, 48];

/// How much of a granule fees may add before capacities are exceeded.
const SWELLING_DIVISOR: u64 = 64;

/// How closely the largest part that goes is found.
const BISECTIONS: usize = 5;

#[cfg(test)]
#[path = "multi_tests.rs"]
mod tests;

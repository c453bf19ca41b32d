//! Payments in parts: the cheapest way to split an amount, success and fees weighed against each other (BOLT 4, "Basic
//! Multi-Part Payments").
//!
//! Owns [`PartFinder`]. A part is a [`Route`] like any other, which pays its amount of the whole: the parts' amounts add
//! up to the payment, and the limits of the query hold, each part by itself for expiry, hops and onion, all together for
//! the fee, and all together on each channel for what it carries. First one part is tried. Where that costs hardly more
//! than any split could, it is the answer; otherwise a min-cost flow (`flow`) is taken apart and its parts are
//! improved with exact figures (`parts`). Where no flow fits, parts are looked for one after the other, the largest first.
//! For fees alone, the cheapest ways are filled one after the other: a flow would know neither base fees nor limits as a
//! part meets them, and takes longer.
//!
//! Not exact: how to split best into few parts is NP-hard. Whatever is answered keeps every limit; that nothing is found
//! though a split exists is possible, and measured in the tests.
//!
//! Budget: 2 ms on the mainnet graph, median over connected pairs; `route/multi` in `bench/peers`.

use std::cmp::Reverse;

use fulmen_wire::units::{BlockHeight, Msat};

use crate::path::flow::Solver;
use crate::path::known::Known;
use crate::path::market::Market;
use crate::path::parts::{Frame, Judge, Terms, Verdict, Way, fill, take_apart};
use crate::path::search::{self, Finder};
use crate::path::{Cost, Knowledge, NoRoute, PathHop, Query, Route};
use crate::scoring::{Bits, Overlay, Prices, Probability, Weights};
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
    single: Finder,
    solver: Solver,
    known: Known,
    judge: Judge,
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
    /// See [`NoRoute`]: why no single part can pay. No split was found either, which does not mean that none exists.
    pub fn find(&mut self, graph: &Snapshot, query: &Query<'_>, parts_max: usize) -> Result<Parts, NoRoute> {
        let ends = search::ends(graph, query)?;
        let one = self.single.attempt(graph, query);
        if let Some(route) = &one
            && (parts_max <= 1 || (route.success >= LIKELY_ENOUGH && Prices::new(query).minds_success()))
        {
            return Ok(Parts::from(route.clone()));
        }
        if parts_max > 1
            && let Some(parts) = self.split(graph, query, ends, parts_max, one)
        {
            return Ok(parts);
        }
        self.single.find(graph, query).map(Parts::from)
    }

    /// The better of one part and several.
    fn split(
        &mut self,
        graph: &Snapshot,
        query: &Query<'_>,
        ends: (u32, u32),
        parts_max: usize,
        one: Option<Route>,
    ) -> Option<Parts> {
        let overlay = query.scorer.map(|scorer| scorer.prepared(graph).ok_or_else(|| scorer.overlay(graph)));
        let overlay = overlay.as_ref().map(|prepared| match prepared {
            Ok(prepared) => *prepared,
            Err(made) => made,
        });
        self.known.prepare(graph, query);
        let mut search = Search { graph, query, overlay, ends, parts_max, finder: self };
        let found = if Prices::new(query).minds_success() {
            search.by_flow(one.as_ref())
        } else {
            let filled = search.by_filling(one.as_ref());
            filled.or_else(|| match &one {
                Some(one) => search.halved(one),
                None => search.by_flow(None),
            })
        };
        match (found, one) {
            (Some(found), _) => Some(search.assemble(&found)),
            (None, Some(one)) => Some(Parts::from(one)),
            (None, None) => {
                let found = search.one_after_the_other()?;
                Some(search.assemble(&found))
            }
        }
    }
}

impl From<Route> for Parts {
    /// A payment in one part.
    fn from(route: Route) -> Parts {
        let Route { total_amount, fee, cost, success, .. } = route;
        Parts { routes: vec![route], total_amount, fee, cost, success }
    }
}

/// What came of a flow.
enum Flowed {
    /// Ways that keep the limits.
    Split(Vec<Way>),
    /// The network does not take so much in such granules.
    Short,
    /// It does, but not within the limits, or not for less than a single part.
    Unfit,
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

    /// The best split that a flow leads to, when it is better than `one`. Where there is no single part, granules are made
    /// ever finer, and fees are minded alone when what is most likely costs more than it may.
    fn by_flow(&mut self, one: Option<&Route>) -> Option<Vec<Way>> {
        let fees = Query { weights: Weights::FEES, ..self.query.clone() };
        for granules in GRANULES {
            if u64::from(granules) > self.query.amount.0 {
                break;
            }
            match self.flow(self.query, granules, one) {
                Flowed::Split(ways) => return Some(ways),
                _ if one.is_some() => return None,
                // Where too little flows, other prices do not make it more.
                Flowed::Short => continue,
                Flowed::Unfit => {}
            }
            if self.query.weights != Weights::FEES
                && let Flowed::Split(ways) = self.flow(&fees, granules, None)
            {
                return Some(ways);
            }
        }
        None
    }

    /// The split that a flow of so many granules leads to under the prices of `query`, if it keeps the limits and costs
    /// less than `one`.
    fn flow(&mut self, query: &Query<'_>, granules: u32, one: Option<&Route>) -> Flowed {
        let frame = self.frame();
        let (payer, payee) = self.ends;
        let cost_max = one.map_or(u64::MAX, |one| one.cost.0);
        let PartFinder { solver, known, judge, .. } = &mut *self.finder;
        let granular = market(self.graph, query, self.overlay, known, payer, granules.into());
        // A split has to save a millisatoshi at least, and each granule its share of that.
        let cost_max = cost_max.saturating_sub(Cost::PER_MSAT - 1);
        let share = cost_max.div_ceil(granules.into());
        let Some(least) = solver.begin(&granular, (payer, payee), share) else { return Flowed::Short };
        let (mut pushed, mut last) = (0_u64, least);
        for left in (0..granules).rev() {
            // No later granule costs less than the last one.
            let bound = pushed.saturating_add(last.saturating_mul(u64::from(left) + 1));
            let close = if granular.prices.minds_success() { bound / CLOSE_DIVISOR } else { 0 };
            if cost_max <= bound.saturating_add(close) {
                return Flowed::Unfit;
            }
            let Some(added) = solver.push(&granular) else { return Flowed::Short };
            last = added;
            pushed = pushed.saturating_add(last);
        }
        let fits = |arc| {
            let maximum = granular.bounds(arc).maximum;
            u32::try_from(maximum / (granular.granule + granular.swelling)).unwrap_or(u32::MAX)
        };
        let mut ways = fill(take_apart(solver.flows(), payer, payee, fits), query.amount.0);
        ways.extend(one.and_then(|one| way(self.graph, one, Msat(0))));
        let verdict = judge.improve(&granular, &frame, &mut ways);
        if verdict.over == 0 && verdict.cost < cost_max { Flowed::Split(ways) } else { Flowed::Unfit }
    }

    /// The cheapest split that filling ways leads to, when it is better than `one`.
    fn by_filling(&mut self, one: Option<&Route>) -> Option<Vec<Way>> {
        let mut best = Verdict { cost: u64::MAX, ..Verdict::default() };
        if let Some(one) = one {
            // A split has to save a millisatoshi at least, and some granule its share of that.
            best.cost = one.cost.0.saturating_sub(Cost::PER_MSAT - 1);
            let PartFinder { solver, known, .. } = &mut *self.finder;
            let granular =
                market(self.graph, self.query, self.overlay, known, self.ends.0, FEE_GRANULES.into());
            solver.begin(&granular, self.ends, best.cost.div_ceil(FEE_GRANULES.into()))?;
        }
        let mut ways = Vec::new();
        for share in SHARES {
            self.fill(share, &mut ways, &mut best);
        }
        if ways.is_empty() {
            return None;
        }
        let frame = self.frame();
        let PartFinder { known, judge, .. } = &mut *self.finder;
        let terms = market(self.graph, self.query, self.overlay, known, self.ends.0, 1);
        let verdict = judge.improve(&terms, &frame, &mut ways);
        self.replace_dearest(&mut ways, verdict);
        Some(ways)
    }

    /// Fills the cheapest way for a share of what is left as far as there is room, and so on with the rest. After each,
    /// the whole rest may go over one way. Keeps what is cheaper than `least` and within the limits.
    fn fill(&mut self, share: u64, cheapest: &mut Vec<Way>, least: &mut Verdict) {
        let (graph, query, frame) = (self.graph, self.query, self.frame());
        let PartFinder { single, known, judge, .. } = &mut *self.finder;
        let terms = market(graph, query, self.overlay, known, self.ends.0, 1);
        let mut knowledge = query.knowledge.clone();
        let (mut ways, mut left, mut spent) = (Vec::new(), query.amount.0, Verdict::default());
        while left > 0 && spent.cost < least.cost && ways.len() < self.parts_max {
            let mut attempt = |amount: u64| {
                let mut own = Query { amount: Msat(amount), knowledge: &knowledge, ..query.clone() };
                // No fee is larger than its cost.
                let fee_max = (least.cost - spent.cost) / Cost::PER_MSAT;
                own.limits.max_fee.0 = frame.fee_max.saturating_sub(spent.fee).min(fee_max);
                let found = single.attempt_roughly(graph, &own, TRIAL_COMPARISONS_MAX)?;
                way(graph, &found, Msat(amount))
            };
            // That the whole payment does not go over one way, or what that costs, is known.
            let last = if ways.is_empty() { None } else { attempt(left) };
            let smallest = left.div_ceil((self.parts_max - ways.len()) as u64);
            let amount = smallest.max(left / share);
            let goes_on = amount < left && (ways.is_empty() || left >= query.amount.0 / DUST_DIVISOR);
            let next = if goes_on { attempt(amount) } else { None };
            let next = if goes_on && next.is_none() && smallest < amount { attempt(smallest) } else { next };
            if let Some(last) = last {
                let mut all = ways.clone();
                all.push(last);
                let verdict = judge.judge(&terms, &frame, &all);
                if verdict < *least {
                    (*least, *cheapest) = (verdict, all);
                }
            }
            let Some(next) = next else { break };
            // What is left is like a way without channels.
            let (at, rest) = (ways.len(), Way { arcs: Vec::new(), amount: left - next.amount });
            ways.extend([next, rest]);
            let room = judge.room(&terms, &frame, &ways, (at + 1, at));
            ways.pop();
            ways[at].amount += room;
            left -= ways[at].amount;
            hold(&mut knowledge, &route(&terms, query, &ways[at]));
            spent = judge.judge(&terms, &frame, &ways);
            if left == 0 && spent < *least {
                (*least, *cheapest) = (spent, ways.clone());
            }
        }
    }

    /// The way of `one` twice, where that costs less because each part's fees are rounded down.
    fn halved(&mut self, one: &Route) -> Option<Vec<Way>> {
        let (amount, frame) = (self.query.amount.0, self.frame());
        let whole = way(self.graph, one, self.query.amount)?;
        // A part may save next to a millisatoshi at each node, and pays all base fees once more.
        let nodes = whole.arcs.get(1..)?;
        let base: u64 = nodes.iter().map(|arc| u64::from(self.graph.edge(*arc).fee_base)).sum();
        if base >= nodes.len() as u64 {
            return None;
        }
        let PartFinder { known, judge, .. } = &mut *self.finder;
        let terms = market(self.graph, self.query, self.overlay, known, self.ends.0, 1);
        let mut best = Verdict { cost: one.cost.0, ..Verdict::default() };
        let (mut ways, mut larger) = (vec![whole.clone(), whole], None);
        // How far from a half it rounds down most depends on the rates, which are of all sizes.
        let mores = std::iter::successors(Some(1_u64), |more| more.checked_mul(3));
        for more in mores.take_while(|more| *more < amount / 2) {
            (ways[0].amount, ways[1].amount) = (amount.div_ceil(2) + more, amount / 2 - more);
            let verdict = judge.judge(&terms, &frame, &ways);
            if verdict < best {
                (best, larger) = (verdict, Some(ways[0].amount));
            }
        }
        let larger = larger?;
        (ways[0].amount, ways[1].amount) = (larger, amount - larger);
        Some(ways)
    }

    /// Sends the dearest part over a cheaper way beside the others, as long as there is one.
    fn replace_dearest(&mut self, ways: &mut Vec<Way>, mut best: Verdict) {
        let (query, frame) = (self.query, self.frame());
        let PartFinder { single, known, judge, .. } = &mut *self.finder;
        let terms = market(self.graph, query, self.overlay, known, self.ends.0, 1);
        for _ in 0..REPLACEMENTS_MAX {
            let mut routes: Vec<Route> = ways.iter().map(|way| route(&terms, query, way)).collect();
            let rate = |at: &usize| routes[*at].fee.0 as f64 / ways[*at].amount as f64;
            let dearest = (0..ways.len()).max_by(|one, other| rate(one).total_cmp(&rate(other)));
            let Some(at) = dearest else { break };
            routes.swap_remove(at);
            let mut knowledge = query.knowledge.clone();
            routes.iter().for_each(|route| hold(&mut knowledge, route));
            let amount = Msat(ways[at].amount);
            let own = Query { amount, knowledge: &knowledge, ..query.clone() };
            let found = single.attempt_roughly(self.graph, &own, TRIAL_COMPARISONS_MAX);
            let Some(new) = found.and_then(|found| way(self.graph, &found, amount)) else { break };
            let mut others = ways.clone();
            others[at] = new;
            let verdict = judge.improve(&terms, &frame, &mut others);
            if verdict >= best {
                break;
            }
            (*ways, best) = (others, verdict);
        }
    }

    /// Parts looked for one by one, each as large as goes.
    fn one_after_the_other(&mut self) -> Option<Vec<Way>> {
        let mut knowledge = self.query.knowledge.clone();
        let mut ways: Vec<Way> = Vec::new();
        let mut left = self.query.amount.0;
        let mut fee_left = self.query.limits.max_fee;
        while left > 0 && ways.len() < self.parts_max {
            let slots = (self.parts_max - ways.len()) as u64;
            let Some(route) = self.largest(&knowledge, (left.div_ceil(slots), left), fee_left) else { break };
            fee_left = fee_left.saturating_sub(route.fee);
            let amount = route.total_amount.saturating_sub(route.fee);
            left -= amount.0;
            hold(&mut knowledge, &route);
            ways.push(way(self.graph, &route, amount)?);
        }
        // What was left over may find room after all.
        ways.first_mut()?.amount += left;
        let frame = self.frame();
        let PartFinder { known, judge, .. } = &mut *self.finder;
        let market = market(self.graph, self.query, self.overlay, known, self.ends.0, 1);
        let verdict = judge.improve(&market, &frame, &mut ways);
        (verdict.over == 0).then_some(ways)
    }

    /// A part of at least and at most so much, as large as goes, beside what `knowledge` says is in flight.
    fn largest(&mut self, knowledge: &Knowledge, (least, most): (u64, u64), max_fee: Msat) -> Option<Route> {
        let mut query = Query { knowledge, ..self.query.clone() };
        query.limits.max_fee = max_fee;
        let (graph, single) = (self.graph, &mut self.finder.single);
        let mut attempt = |amount| single.attempt(graph, &Query { amount: Msat(amount), ..query.clone() });
        // That the whole payment does not go in one part is known.
        if most < self.query.amount.0
            && let Some(all) = attempt(most)
        {
            return Some(all);
        }
        let mut best = attempt(least)?;
        let (mut goes, mut too_much) = (least, most);
        for _ in 0..BISECTIONS {
            let middle = goes + (too_much - goes) / 2;
            match attempt(middle) {
                Some(route) => (goes, best) = (middle, route),
                None => too_much = middle,
            }
        }
        Some(best)
    }

    /// Makes routes of ways.
    fn assemble(&mut self, ways: &[Way]) -> Parts {
        let frame = self.frame();
        let mut routes: Vec<Route> = Vec::with_capacity(ways.len());
        let PartFinder { known, judge, .. } = &mut *self.finder;
        for way in ways {
            let own = Query { amount: Msat(way.amount), ..self.query.clone() };
            routes.push(route(&market(self.graph, &own, self.overlay, known, self.ends.0, 1), &own, way));
        }
        routes.sort_by(|one, other| {
            let key = |route: &Route| (Reverse(route.total_amount), route.hops.first().map(|hop| hop.scid));
            key(one).cmp(&key(other))
        });
        let market = market(self.graph, self.query, self.overlay, known, self.ends.0, 1);
        let verdict = judge.judge(&market, &frame, ways);
        Parts {
            total_amount: routes.iter().map(|route| route.total_amount).sum(),
            fee: Msat(verdict.fee),
            cost: Cost(verdict.cost),
            success: verdict.unlikely.probability(),
            routes,
        }
    }
}

/// A route's way.
fn way(graph: &Snapshot, route: &Route, amount: Msat) -> Option<Way> {
    let arcs: Option<Vec<u32>> = route.hops.iter().map(|hop| graph.edge_index(hop.directed())).collect();
    Some(Way { arcs: arcs?, amount: amount.0 })
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

/// The route of one way: amounts and expiries as they grow from the payee to the payer.
fn route(market: &Market<'_>, query: &Query<'_>, way: &Way) -> Route {
    let graph = market.graph;
    let (mut amount, mut blocks) = (way.amount, u32::from(query.final_cltv_delta.0));
    let (mut cost, mut unlikely) = (Cost::default(), Bits(0));
    let mut hops = Vec::with_capacity(way.arcs.len());
    for edge in way.arcs.iter().rev() {
        let directed = graph.directed(*edge);
        let toll = market.toll(*edge, amount);
        hops.push(PathHop {
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

/// From this on a single part is likely enough.
const LIKELY_ENOUGH: Probability = Probability(970_000_000);

/// A part that costs no more than this fraction above what any split must cost is not worth splitting.
const CLOSE_DIVISOR: u64 = 12;

/// Into how many granules the amount is cut, one after the other.
const GRANULES: [u32; 2] = [8, 40];

/// Into how many to see whether a split may save fees: a few more than a payment may usually have parts, or what is wide
/// enough for a part would not be for a granule.
const FEE_GRANULES: u32 = 12;

/// How much a search for one way of several may compare: another will often do.
const TRIAL_COMPARISONS_MAX: usize = 3000;

/// How often the dearest part is sent over another way.
const REPLACEMENTS_MAX: usize = 3;

/// Into how many parts what is left is cut to see which way is the cheapest for one of them: few for where much is asked
/// for each part, many for where what is cheap is narrow.
const SHARES: [u64; 2] = [2, 10];

/// What is left below this fraction of the payment is not worth more than one part.
const DUST_DIVISOR: u64 = 100;

/// How much of a granule fees may add before capacities are exceeded.
const SWELLING_DIVISOR: u64 = 64;

/// How closely the largest part that goes is found.
const BISECTIONS: usize = 5;

#[cfg(test)]
#[path = "multi_tests.rs"]
pub(crate) mod tests;

//! Payments in parts: the cheapest way to split an amount, weighing success against fees (BOLT 4, "Basic Multi-Part
//! Payments").
//!
//! Owns [`PartFinder`]. A part is an ordinary [`Route`] for its share of the payment. The parts' amounts add up to
//! the payment, and the query's limits hold: for each part alone its expiry, hops and onion; for all together the
//! fee, and the sum that they put on each channel.
//!
//! A single part is tried first. Where it costs hardly more than any split could, it is the answer. Otherwise a
//! min-cost flow (`flow`) is decomposed into paths whose amounts are improved with exact figures (`parts`). Where no
//! flow fits, parts are searched one after the other, the largest first. When success has no price, the cheapest
//! paths are filled one after the other instead: a flow knows neither base fees nor the limits of a part, and takes
//! longer.
//!
//! Not exact: the best split into few parts is an NP-hard problem. Every answer keeps all limits; that nothing is
//! found although a split exists is possible, and the tests measure how often.
//!
//! Budget: 2 ms on the mainnet graph, median over connected pairs; `route/multi` in `bench/peers`.

use std::cmp::Reverse;

use fulmen_wire::units::{BlockHeight, Msat};

use crate::path::flow::FlowSolver;
use crate::path::flow_costs::FlowCosts;
use crate::path::knowledge::PreparedKnowledge;
use crate::path::parts::{ArcCosts, Evaluation, Evaluator, PartPath, PaymentLimits, decompose, fill};
use crate::path::prices::Prices;
use crate::path::search::{self, Finder, PreparedQuery, Start};
use crate::path::{Cost, Knowledge, NoRoute, PathHop, Query, Route};
use crate::scoring::{Probability, Uncertainty, Weights};
use crate::snapshot::Snapshot;

/// A payment in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// At least one, the largest first. Each is a route for its share of the payment.
    pub routes: Vec<Route>,
    /// The sum that the payer sends.
    pub total_amount: Msat,
    /// The sum of all fees.
    pub fee: Msat,
    /// The figure that the finder minimised: the costs of the parts, with the uncertainty of a channel counted once
    /// for all parts that cross it.
    pub cost: Cost,
    /// The probability that the liquidity for all parts is there at once.
    pub success: Probability,
}

/// Finds payments in parts. Reuses its memory from query to query and keeps nothing else: use one per thread.
///
/// ```
/// use fulmen_graph::path::multi::PartFinder;
/// use fulmen_graph::path::{Knowledge, Query};
/// use fulmen_graph::snapshot::Snapshot;
/// use fulmen_graph::{ChannelGraph, Policy};
/// use fulmen_wire::units::{CltvDelta, Msat, NodeId, Sat, Scid};
///
/// let [alice, bob] = [2, 3].map(|tag| NodeId([tag; 33]));
/// let policy = Policy {
///     fee_base: Msat(1_000),
///     fee_proportional_millionths: 100,
///     cltv_expiry_delta: CltvDelta(40),
///     htlc_minimum: Msat(1),
///     htlc_maximum: Msat(100_000_000),
///     disabled: false,
/// };
/// let mut graph = ChannelGraph::new();
/// for scid in [Scid(1), Scid(2)] {
///     graph.add_channel(scid, [alice, bob], Sat(100_000))?;
///     graph.set_policy(scid, alice, Some(policy))?;
/// }
///
/// // Neither channel carries 150,000 sat alone.
/// let knowledge = Knowledge::default();
/// let query = Query::new(alice, bob, Msat(150_000_000), &knowledge);
/// let parts = PartFinder::new().find(&Snapshot::new(&graph), &query, 4)?;
/// assert_eq!((parts.routes.len(), parts.total_amount), (2, Msat(150_000_000)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct PartFinder {
    single: Finder,
    solver: FlowSolver,
    knowledge: PreparedKnowledge,
    evaluator: Evaluator,
}

impl PartFinder {
    /// A finder that has allocated nothing yet: about a hundred bytes per node once used.
    #[must_use]
    pub fn new() -> PartFinder {
        PartFinder::default()
    }

    /// Finds how to pay `query` in at most `parts_max` parts.
    ///
    /// # Errors
    /// The reason why no single part can pay, when no split was found either; that does not prove that none exists.
    /// See [`NoRoute`].
    pub fn find(&mut self, graph: &Snapshot, query: &Query<'_>, parts_max: usize) -> Result<Parts, NoRoute> {
        let ends = search::ends(graph, query)?;
        let mut knowledge = std::mem::take(&mut self.knowledge);
        knowledge.prepare(graph, query, ends.0);
        let answer = self.find_prepared(graph, query, ends, &knowledge, parts_max);
        self.knowledge = knowledge;
        answer
    }

    fn find_prepared(
        &mut self,
        graph: &Snapshot,
        query: &Query<'_>,
        (payer, payee): (u32, u32),
        knowledge: &PreparedKnowledge,
        parts_max: usize,
    ) -> Result<Parts, NoRoute> {
        let starts = [Start::payee(query, payee)];
        let prepared = PreparedQuery::new(graph, query, payer, &starts, knowledge);
        let (one, stop) = match self.single.solve_prepared(&prepared) {
            Ok(route) => (Some(route), None),
            Err(stop) => (stop.best(), Some(stop)),
        };
        if let Some(route) = &one
            && (parts_max <= 1 || (route.success >= LIKELY_ENOUGH && prepared.prices.weighs_success()))
        {
            return Ok(Parts::from(route.clone()));
        }
        if parts_max > 1 {
            let PartFinder { single, solver, evaluator, .. } = &mut *self;
            let ends = (payer, payee);
            let mut search = Search { graph, query, knowledge, ends, parts_max, single, solver, evaluator };
            if let Some(parts) = search.split(one.as_ref()) {
                return Ok(parts);
            }
        }
        match (one, stop) {
            (Some(route), _) => Ok(Parts::from(route)),
            (None, Some(stop)) => self.single.explain(prepared, stop).map(Parts::from),
            (None, None) => Err(NoRoute::Unreachable { amount: query.amount }),
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

/// The result of a flow.
enum FlowResult {
    /// Paths that keep the limits.
    Split(Vec<PartPath>),
    /// The graph takes too few granules of this size.
    Short,
    /// It takes them, but not within the limits, or not for less than a single part.
    Unfit,
}

/// The search for a split of one payment.
struct Search<'s, 'a> {
    graph: &'s Snapshot,
    query: &'s Query<'a>,
    knowledge: &'s PreparedKnowledge,
    /// Payer and payee.
    ends: (u32, u32),
    parts_max: usize,
    single: &'s mut Finder,
    solver: &'s mut FlowSolver,
    evaluator: &'s mut Evaluator,
}

impl<'s, 'a: 's> Search<'s, 'a> {
    /// The best split found, when it is better than the single part `one`, or when there is none.
    fn split(&mut self, one: Option<&Route>) -> Option<Parts> {
        let found = if Prices::new(self.query).weighs_success() {
            self.by_flow(one)
        } else {
            let filled = self.by_filling(one);
            filled.or_else(|| match one {
                Some(one) => self.halved(one),
                None => self.by_flow(None),
            })
        };
        let found = match one {
            Some(_) => found?,
            None => found.or_else(|| self.one_by_one())?,
        };
        Some(self.assemble(&found))
    }

    /// Parts searched one by one, for every limit on their number from `parts_max` down. A search for fewer parts
    /// looks for larger ones, which pass where smaller ones are below an `htlc_minimum`, so a larger limit has to
    /// find all that a smaller one does. Some more slots than parts leave room for parts that are merged in the end.
    fn one_by_one(&mut self) -> Option<Vec<PartPath>> {
        let parts_max = self.parts_max;
        let mut found = None;
        for limit in (2..=parts_max).rev() {
            self.parts_max = limit;
            found = (limit..=limit + SPARE_SLOTS).find_map(|slots| {
                self.one_by_one_in(slots, false).or_else(|| self.one_by_one_in(slots, true))
            });
            if found.is_some() {
                break;
            }
        }
        self.parts_max = parts_max;
        found
    }

    /// The costs for a query of this payer whose amount is cut into a number of granules.
    fn costs(&self, query: &Query<'a>, granules: u64) -> FlowCosts<'s> {
        let granule = query.amount.0.div_ceil(granules);
        let fee_margin = if granules == 1 {
            0
        } else {
            (query.limits.max_fee.0 / granules).min(granule / FEE_MARGIN_DIVISOR)
        };
        FlowCosts {
            graph: self.graph,
            prices: Prices::new(query),
            scores: self.knowledge.scores(self.graph, query),
            knowledge: self.knowledge,
            payer: self.ends.0,
            granule,
            granules,
            fee_margin,
        }
    }

    fn limits(&self) -> PaymentLimits {
        let limits = self.query.limits;
        PaymentLimits {
            parts_max: self.parts_max,
            fee_max: limits.max_fee.0,
            blocks_max: limits.max_cltv_blocks,
            hops_max: limits.max_hops,
            final_blocks: self.query.final_cltv_delta.0.into(),
            height: self.query.height.0,
            payee_extra_bytes: self.query.payee_extra_bytes,
        }
    }

    /// The best split that a flow leads to, when it is better than `one`. Without a single part, granules are made
    /// finer, and fees alone are minimised when the most likely split exceeds the limit on fees.
    fn by_flow(&mut self, one: Option<&Route>) -> Option<Vec<PartPath>> {
        let fees = Query { weights: Weights::FEES, ..self.query.clone() };
        for granules in GRANULES {
            if u64::from(granules) > self.query.amount.0 {
                break;
            }
            match self.flow(self.query, granules, one) {
                FlowResult::Split(paths) => return Some(paths),
                _ if one.is_some() => return None,
                // Other prices do not increase a flow that is too small.
                FlowResult::Short => continue,
                FlowResult::Unfit => {}
            }
            if self.query.weights != Weights::FEES
                && let FlowResult::Split(paths) = self.flow(&fees, granules, None)
            {
                return Some(paths);
            }
        }
        None
    }

    /// The split that a flow of this many granules leads to under the prices of `query`, if it keeps the limits and
    /// costs less than `one`.
    fn flow(&mut self, query: &Query<'a>, granules: u32, one: Option<&Route>) -> FlowResult {
        let limits = self.limits();
        let (payer, payee) = self.ends;
        let cost_max = one.map_or(u64::MAX, |one| one.cost.0);
        let granular = self.costs(query, granules.into());
        // A split must save at least a millisatoshi, and each granule its share of that.
        let cost_max = cost_max.saturating_sub(Cost::PER_MSAT - 1);
        let share = cost_max.div_ceil(granules.into());
        let Some(least) = self.solver.begin(&granular, (payer, payee), share) else {
            return FlowResult::Short;
        };
        let (mut pushed, mut last) = (0_u64, least);
        for left in (0..granules).rev() {
            // No later granule costs less than the last one.
            let bound = pushed.saturating_add(last.saturating_mul(u64::from(left) + 1));
            let close = if granular.prices.weighs_success() { bound / CLOSE_DIVISOR } else { 0 };
            if cost_max <= bound.saturating_add(close) {
                return FlowResult::Unfit;
            }
            let Some(added) = self.solver.push(&granular) else { return FlowResult::Short };
            last = added;
            pushed = pushed.saturating_add(last);
        }
        let fits = |arc| {
            let maximum = granular.limit(arc).maximum;
            u32::try_from(maximum / (granular.granule + granular.fee_margin)).unwrap_or(u32::MAX)
        };
        let mut paths = fill(decompose(self.solver.flows(), payer, payee, fits), query.amount.0);
        paths.extend(one.and_then(|one| part_path(self.graph, one, Msat(0))));
        let evaluation = self.evaluator.improve(&granular, &limits, &mut paths);
        if evaluation.over == 0 && evaluation.cost < cost_max {
            FlowResult::Split(paths)
        } else {
            FlowResult::Unfit
        }
    }

    /// The cheapest split found by filling paths, when it is better than `one`.
    fn by_filling(&mut self, one: Option<&Route>) -> Option<Vec<PartPath>> {
        let mut best = Evaluation { cost: u64::MAX, ..Evaluation::default() };
        if let Some(one) = one {
            // A split must save at least a millisatoshi, and some granule its share of that.
            best.cost = one.cost.0.saturating_sub(Cost::PER_MSAT - 1);
            let granular = self.costs(self.query, FEE_GRANULES.into());
            self.solver.begin(&granular, self.ends, best.cost.div_ceil(FEE_GRANULES.into()))?;
        }
        let mut paths = Vec::new();
        for share in SHARES {
            self.fill(share, &mut paths, &mut best);
        }
        if paths.is_empty() {
            return None;
        }
        let limits = self.limits();
        let costs = self.costs(self.query, 1);
        let evaluation = self.evaluator.improve(&costs, &limits, &mut paths);
        self.replace_dearest(&mut paths, evaluation);
        Some(paths)
    }

    /// Fills the cheapest path for a share of the rest as far as there is room, then continues with the new rest.
    /// After each path the whole rest may take a single path. Keeps the result if it is cheaper than `least` and
    /// within the limits.
    fn fill(&mut self, share: u64, cheapest: &mut Vec<PartPath>, least: &mut Evaluation) {
        let (graph, query, limits) = (self.graph, self.query, self.limits());
        let costs = self.costs(query, 1);
        let mut knowledge = query.knowledge.clone();
        let (mut paths, mut left, mut spent) = (Vec::new(), query.amount.0, Evaluation::default());
        while left > 0 && spent.cost < least.cost && paths.len() < self.parts_max {
            let mut attempt = |amount: u64| {
                let mut own = Query { amount: Msat(amount), knowledge: &knowledge, ..query.clone() };
                // No fee exceeds its cost.
                let fee_max = (least.cost - spent.cost) / Cost::PER_MSAT;
                own.limits.max_fee.0 = limits.fee_max.saturating_sub(spent.fee).min(fee_max);
                let found = self.single.attempt_roughly(graph, &own, TRIAL_COMPARISONS_MAX)?;
                part_path(graph, &found, Msat(amount))
            };
            // For the whole payment, the result of a single path is already known.
            let last = if paths.is_empty() { None } else { attempt(left) };
            let smallest = left.div_ceil((self.parts_max - paths.len()) as u64);
            let amount = smallest.max(left / share);
            let goes_on = amount < left && (paths.is_empty() || left >= query.amount.0 / DUST_DIVISOR);
            let next = if goes_on { attempt(amount) } else { None };
            let next = if goes_on && next.is_none() && smallest < amount { attempt(smallest) } else { next };
            if let Some(last) = last {
                let mut all = paths.clone();
                all.push(last);
                let evaluation = self.evaluator.evaluate(&costs, &limits, &all);
                if evaluation < *least {
                    (*least, *cheapest) = (evaluation, all);
                }
            }
            let Some(next) = next else { break };
            // The rest is treated as a path without channels.
            let (at, rest) = (paths.len(), PartPath { arcs: Vec::new(), amount: left - next.amount });
            paths.extend([next, rest]);
            let room = self.evaluator.room(&costs, &limits, &paths, (at + 1, at));
            paths.pop();
            paths[at].amount += room;
            left -= paths[at].amount;
            hold(&mut knowledge, &route(&costs, query, &paths[at]));
            spent = self.evaluator.evaluate(&costs, &limits, &paths);
            if left == 0 && spent < *least {
                (*least, *cheapest) = (spent, paths.clone());
            }
        }
    }

    /// The path of `one` used twice, where that costs less because the fees of each part are rounded down.
    fn halved(&mut self, one: &Route) -> Option<Vec<PartPath>> {
        let (amount, limits) = (self.query.amount.0, self.limits());
        let whole = part_path(self.graph, one, self.query.amount)?;
        // A part may save almost a millisatoshi at each node, and pays all base fees once more.
        let nodes = whole.arcs.get(1..)?;
        let base: u64 = nodes.iter().map(|arc| u64::from(self.graph.edge(*arc).fee_base)).sum();
        if base >= nodes.len() as u64 {
            return None;
        }
        let costs = self.costs(self.query, 1);
        let mut best = Evaluation { cost: one.cost.0, ..Evaluation::default() };
        let (mut paths, mut larger) = (vec![whole.clone(), whole], None);
        // The best offset from a half depends on the rates, which vary over orders of magnitude.
        let mores = std::iter::successors(Some(1_u64), |more| more.checked_mul(3));
        for more in mores.take_while(|more| *more < amount / 2) {
            (paths[0].amount, paths[1].amount) = (amount.div_ceil(2) + more, amount / 2 - more);
            let evaluation = self.evaluator.evaluate(&costs, &limits, &paths);
            if evaluation < best {
                (best, larger) = (evaluation, Some(paths[0].amount));
            }
        }
        let larger = larger?;
        (paths[0].amount, paths[1].amount) = (larger, amount - larger);
        Some(paths)
    }

    /// Moves the dearest part to a cheaper path beside the others, as long as there is one.
    fn replace_dearest(&mut self, paths: &mut Vec<PartPath>, mut best: Evaluation) {
        let (query, limits) = (self.query, self.limits());
        let costs = self.costs(query, 1);
        for _ in 0..REPLACEMENTS_MAX {
            let mut routes: Vec<Route> = paths.iter().map(|path| route(&costs, query, path)).collect();
            let rate = |at: &usize| routes[*at].fee.0 as f64 / paths[*at].amount as f64;
            let dearest = (0..paths.len()).max_by(|one, other| rate(one).total_cmp(&rate(other)));
            let Some(at) = dearest else { break };
            routes.swap_remove(at);
            let mut knowledge = query.knowledge.clone();
            routes.iter().for_each(|route| hold(&mut knowledge, route));
            let amount = Msat(paths[at].amount);
            let own = Query { amount, knowledge: &knowledge, ..query.clone() };
            let found = self.single.attempt_roughly(self.graph, &own, TRIAL_COMPARISONS_MAX);
            let Some(new) = found.and_then(|found| part_path(self.graph, &found, amount)) else { break };
            let mut others = paths.clone();
            others[at] = new;
            let evaluation = self.evaluator.improve(&costs, &limits, &mut others);
            if evaluation >= best {
                break;
            }
            (*paths, best) = (others, evaluation);
        }
    }

    /// Searches at most `slots_max` parts one by one: each as large as possible or, when `even`, of equal size. Large
    /// parts need the fewest channels, equal ones leave no rest below a minimum.
    fn one_by_one_in(&mut self, slots_max: usize, even: bool) -> Option<Vec<PartPath>> {
        let (query, limits) = (self.query, self.limits());
        let costs = self.costs(query, 1);
        let mut knowledge = query.knowledge.clone();
        let mut paths: Vec<PartPath> = Vec::new();
        let mut left = query.amount.0;
        let mut fee_left = query.limits.max_fee;
        while left > 0 && paths.len() < slots_max {
            let smallest = left.div_ceil((slots_max - paths.len()) as u64);
            let largest = if even { smallest } else { left };
            let Some(found) = self.largest(&knowledge, (smallest, largest), fee_left) else {
                // A rest below all minimums may still go over a path for more, which takes it from other parts.
                let share = query.amount.0.div_ceil(slots_max as u64);
                if let Some(path) = self.path_above(&knowledge, (left, share), fee_left) {
                    paths.push(path);
                    left = 0;
                }
                break;
            };
            let amount = found.total_amount.saturating_sub(found.fee);
            let at = paths.len();
            paths.push(part_path(self.graph, &found, amount)?);
            if !even {
                // The rest is treated as a path without channels.
                paths.push(PartPath { arcs: Vec::new(), amount: left - amount.0 });
                let room = self.evaluator.room(&costs, &limits, &paths, (at + 1, at));
                paths.pop();
                paths[at].amount += room;
            }
            let part = route(&costs, query, &paths[at]);
            fee_left = fee_left.saturating_sub(part.fee);
            left -= paths[at].amount;
            hold(&mut knowledge, &part);
        }
        // Improving may still find room for the rest.
        paths.first_mut()?.amount += left;
        let evaluation = self.evaluator.improve(&costs, &limits, &mut paths);
        (evaluation.over == 0).then_some(paths)
    }

    /// A path that has a route for some amount above `left`, up to `most`; its amount is `left`.
    fn path_above(
        &mut self,
        knowledge: &Knowledge,
        (left, most): (u64, u64),
        max_fee: Msat,
    ) -> Option<PartPath> {
        let mut query = Query { knowledge, ..self.query.clone() };
        query.limits.max_fee = max_fee;
        let step = most.saturating_sub(left) / AMOUNTS_ABOVE;
        (1..=AMOUNTS_ABOVE).take_while(|_| step > 0).find_map(|steps| {
            let amount = Msat(left + steps * step);
            let found = self.single.attempt(self.graph, &Query { amount, ..query.clone() })?;
            part_path(self.graph, &found, Msat(left))
        })
    }

    /// The largest part between two bounds that has a route beside the amounts that `knowledge` has in flight.
    fn largest(&mut self, knowledge: &Knowledge, (least, most): (u64, u64), max_fee: Msat) -> Option<Route> {
        let mut query = Query { knowledge, ..self.query.clone() };
        query.limits.max_fee = max_fee;
        let (graph, single) = (self.graph, &mut *self.single);
        let mut attempt = |amount| single.attempt(graph, &Query { amount: Msat(amount), ..query.clone() });
        // The whole payment is known not to fit into one part.
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

    /// Turns paths into routes.
    fn assemble(&mut self, paths: &[PartPath]) -> Parts {
        let limits = self.limits();
        let mut routes: Vec<Route> = Vec::with_capacity(paths.len());
        for path in paths {
            let own = Query { amount: Msat(path.amount), ..self.query.clone() };
            routes.push(route(&self.costs(&own, 1), &own, path));
        }
        routes.sort_by(|one, other| {
            let key = |route: &Route| (Reverse(route.total_amount), route.hops.first().map(|hop| hop.scid));
            key(one).cmp(&key(other))
        });
        let costs = self.costs(self.query, 1);
        let evaluation = self.evaluator.evaluate(&costs, &limits, paths);
        let amount: u64 = paths.iter().map(|path| path.amount).sum();
        assert_eq!(amount, self.query.amount.0, "the parts do not add up to the payment");
        assert_eq!(evaluation.over, 0, "the parts exceed a limit");
        Parts {
            total_amount: routes.iter().map(|route| route.total_amount).sum(),
            fee: Msat(evaluation.fee),
            cost: Cost(evaluation.cost),
            success: evaluation.uncertainty.probability(),
            routes,
        }
    }
}

/// The path of a route.
fn part_path(graph: &Snapshot, route: &Route, amount: Msat) -> Option<PartPath> {
    let arcs: Option<Vec<u32>> = route.hops.iter().map(|hop| graph.edge_index(hop.directed())).collect();
    Some(PartPath { arcs: arcs?, amount: amount.0 })
}

/// Subtracts the amounts of a route from the liquidity that `knowledge` leaves.
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

/// The route over one path: amounts and expiries as they grow from the payee to the payer.
fn route(costs: &FlowCosts<'_>, query: &Query<'_>, path: &PartPath) -> Route {
    let graph = costs.graph;
    let (mut amount, mut blocks) = (path.amount, u32::from(query.final_cltv_delta.0));
    let (mut cost, mut uncertainty) = (Cost::default(), Uncertainty(0));
    let mut hops = Vec::with_capacity(path.arcs.len());
    for edge in path.arcs.iter().rev() {
        let directed = graph.directed(*edge);
        let hop_cost = costs.hop_cost(*edge, amount);
        hops.push(PathHop {
            from: graph.node_id(graph.edge(*edge).source),
            to: graph.node_id(graph.target(*edge)),
            scid: directed.scid,
            direction: directed.direction,
            amount: Msat(amount),
            cltv_expiry: BlockHeight(query.height.0.saturating_add(blocks)),
            fee: Msat(hop_cost.fee),
        });
        let added = costs.uncertainty(*edge, amount);
        uncertainty.0 = uncertainty.0.saturating_add(added.0);
        cost = cost.saturating_add(Cost(hop_cost.cost.saturating_add(costs.uncertainty_cost(added))));
        amount = amount.saturating_add(hop_cost.fee);
        blocks = blocks.saturating_add(hop_cost.blocks);
    }
    hops.reverse();
    Route {
        hops,
        total_amount: Msat(amount),
        fee: Msat(amount - path.amount),
        total_cltv_blocks: blocks,
        cost,
        success: uncertainty.probability(),
    }
}

/// A single part with at least this probability is not split.
const LIKELY_ENOUGH: Probability = Probability(970_000_000);

/// A single part that costs at most this fraction more than any split must is not split.
const CLOSE_DIVISOR: u64 = 12;

/// The numbers of granules that are tried in turn.
const GRANULES: [u32; 2] = [8, 40];

/// The number of granules for the test whether a split may save fees: somewhat more than the usual limit on parts, so
/// that a channel wide enough for a part is wide enough for a granule.
const FEE_GRANULES: u32 = 12;

/// Limit on comparisons of a search for one of several paths; another path will often do.
const TRIAL_COMPARISONS_MAX: usize = 3000;

/// How often the dearest part is moved to another path.
const REPLACEMENTS_MAX: usize = 3;

/// The shares of the rest for which the cheapest path is searched: large ones where the cost per part is high, small
/// ones where cheap channels are narrow.
const SHARES: [u64; 2] = [2, 10];

/// A rest below this fraction of the payment goes into one part.
const DUST_DIVISOR: u64 = 100;

/// The fraction of a granule that fees may add before capacities are exceeded.
const FEE_MARGIN_DIVISOR: u64 = 64;

/// By how many parts a search one by one may exceed the limit, before parts are merged.
const SPARE_SLOTS: usize = 2;

/// Amounts tried for a rest that is below all minimums.
const AMOUNTS_ABOVE: u64 = 8;

/// Steps of the bisection for the largest part.
const BISECTIONS: usize = 5;

#[cfg(test)]
#[path = "multi_tests.rs"]
pub(crate) mod tests;

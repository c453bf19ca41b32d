//! The plain path-finder: exact, simple, and kept as the oracle that faster ones are judged by.
//!
//! It searches backward from the payee, since a node's fee depends on what it must forward (BOLT 7, "HTLC Fees"). A
//! partial route ("label") at a node says what must arrive there: amount, blocks until expiry, hops still to go, and
//! the cost so far. Labels are taken up in order of cost, so the first one to reach the payer is the cheapest.
//!
//! Exactness. A label may be dropped only for one that can do whatever it can. Ignoring limits, "no dearer and no
//! larger" suffices, because fees and cost grow with the amount; that makes the first, quick search. Two things break
//! it: limits on fee, expiry and hops, where a dearer label may be the one that fits; and `htlc_minimum`, where a
//! larger amount may pass a channel that a smaller one does not. So the quick search leaves out every direction whose
//! minimum lies above the amount, and when its answer is over a limit, or such a direction might have made a better one,
//! an exhaustive search follows, whose labels are dropped only when nothing they could do is lost, and which is kept
//! small by lower bounds on what is left of the way to the payer. That search is exponential at worst and is given up
//! after [`LABELS_MAX`] labels, with an error that says so.
//!
//! Equal costs are decided by amount, blocks, hops, then by the ascending scids of the channels looked at: by the
//! graph's content, never by the order it was built in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fulmen_wire::units::{BlockHeight, CltvDelta, Msat};

use crate::graph::{Channel, ChannelGraph, DirectedChannel, Direction, Policy};
use crate::path::{Cost, Hop, NoRoute, Query, Route};

/// How many partial routes one query may hold before it is given up.
pub const LABELS_MAX: usize = 1 << 20;

/// Finds the cheapest route for `query`, or says why there is none.
///
/// # Errors
/// See [`NoRoute`]; apart from [`NoRoute::GivenUp`], an error means that no simple path satisfies the query.
pub fn find(graph: &ChannelGraph, query: &Query<'_>) -> Result<Route, NoRoute> {
    let problem = Problem::new(graph, query)?;
    let quick = Search::new(&problem, query.amount, None).run()?;
    let fits = quick.as_ref().is_some_and(|route| problem.within_limits(route));
    let mut extra_fee = query.limits.max_fee;
    if let Some(route) = quick.as_ref().filter(|_| fits) {
        // A better route has a lower cost, and so at most this fee.
        extra_fee = extra_fee.min(Msat(u64::try_from(route.cost.0 / 1_000_000_000).unwrap_or(u64::MAX)));
    }
    let amount_max = query.amount.saturating_add(extra_fee);
    let highest_minimum = problem.highest_minimum(amount_max);
    if highest_minimum.is_none() {
        match quick {
            Some(route) if fits => return Ok(route),
            None => return Err(NoRoute::Unreachable { amount: query.amount }),
            Some(_) => {}
        }
    }
    let cost_max = quick.as_ref().filter(|_| fits).map(|route| route.cost);
    let exhaustive = Exhaustive { bounds: Bounds::new(&problem, amount_max), highest_minimum, cost_max };
    let better = Search::new(&problem, amount_max, Some(exhaustive)).run()?;
    match (better, quick) {
        (Some(route), _) => Ok(route),
        (None, Some(route)) if fits => Ok(route),
        (None, Some(route)) => Err(NoRoute::OverLimits {
            amount: query.amount,
            fee: route.fee,
            hops: route.hops.len(),
            cltv_blocks: route.total_cltv_blocks,
        }),
        (None, None) => Err(NoRoute::Unreachable { amount: query.amount }),
    }
}

/// A query whose ends are known to be in the graph.
struct Problem<'a> {
    graph: &'a ChannelGraph,
    query: &'a Query<'a>,
    payer: u32,
    payee: u32,
}

/// What one direction of a channel takes and asks, as far as the payer knows.
struct Terms<'a> {
    minimum: Msat,
    maximum: Msat,
    /// Absent on the payer's own channels, which cost it nothing.
    price: Option<&'a Policy>,
}

impl<'a> Problem<'a> {
    fn new(graph: &'a ChannelGraph, query: &'a Query<'a>) -> Result<Problem<'a>, NoRoute> {
        let end = |node| {
            if query.knowledge.excluded_nodes.contains(&node) {
                return Err(NoRoute::ExcludedNode { node });
            }
            graph.index_of(node).ok_or(NoRoute::UnknownNode { node })
        };
        let (payer, payee) = (end(query.from)?, end(query.to)?);
        if payer == payee {
            return Err(NoRoute::SelfPayment { node: query.from });
        }
        if query.amount == Msat::ZERO {
            return Err(NoRoute::ZeroAmount);
        }
        Ok(Problem { graph, query, payer, payee })
    }

    /// The terms of a direction, or `None` when it may not be used at all.
    fn terms(&self, channel: &'a Channel, direction: Direction) -> Option<Terms<'a>> {
        let known = self.query.knowledge;
        let directed = DirectedChannel { scid: channel.scid(), direction };
        if known.excluded_channels.contains(&channel.scid()) || known.excluded_directions.contains(&directed)
        {
            return None;
        }
        let mut maximum = channel.capacity().to_msat();
        if let Some(failed) = known.failed_amounts.get(&directed) {
            maximum = maximum.min(failed.checked_sub(Msat(1))?);
        }
        let own = channel.origin_index(direction) == self.payer;
        if let Some(first_hops) = known.first_hops.as_ref().filter(|_| own) {
            let first = first_hops.get(&channel.scid())?;
            let maximum = maximum.min(first.spendable);
            return Some(Terms { minimum: first.htlc_minimum, maximum, price: None });
        }
        if known.excluded_nodes.contains(&channel.origin(direction)) {
            return None;
        }
        let policy = channel.policy(direction).filter(|policy| !policy.disabled)?;
        let maximum = maximum.min(policy.htlc_maximum);
        Some(Terms { minimum: policy.htlc_minimum, maximum, price: (!own).then_some(policy) })
    }

    /// The highest minimum between the payment's amount and `amount_max` among directions that could be used, if any.
    fn highest_minimum(&self, amount_max: Msat) -> Option<Msat> {
        let minimums = self.graph.channels().flat_map(|channel| {
            Direction::BOTH.into_iter().filter_map(move |direction| {
                let policy = channel.policy(direction).map(|policy| policy.htlc_minimum);
                let own = self.query.knowledge.first_hops.as_ref().and_then(|hops| hops.get(&channel.scid()));
                let stated = [policy, own.map(|hop| hop.htlc_minimum)];
                // The terms are looked up only where a minimum is of interest: few are.
                let near = |minimum: Msat| minimum > self.query.amount && minimum <= amount_max;
                let interesting = stated.into_iter().flatten().any(near);
                let terms = if interesting { self.terms(channel, direction) } else { None };
                terms.map(|terms| terms.minimum).filter(|minimum| near(*minimum))
            })
        });
        minimums.max()
    }

    fn within_limits(&self, route: &Route) -> bool {
        let limits = self.query.limits;
        route.fee <= limits.max_fee
            && route.total_cltv_blocks <= limits.max_cltv_blocks
            && route.hops.len() <= limits.max_hops
    }
}

/// A partial route: what must arrive at `node` so that the payee gets its amount.
struct Label {
    node: u32,
    amount: Msat,
    cltv_blocks: u32,
    hops: usize,
    cost: Cost,
    /// The channel that leads on from here, and the label at its far end; absent at the payee.
    next: Option<(DirectedChannel, usize)>,
    /// Whether a better label at the same node has replaced this one.
    replaced: bool,
}

/// The order in which labels are taken up: by the fields from first to last.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// The cost so far and a lower bound on the rest.
    estimate: Cost,
    amount: Msat,
    cltv_blocks: u32,
    hops: usize,
    /// The label's position, which grows with its age and makes the order total.
    label: usize,
}

/// What the exhaustive search knows beforehand.
struct Exhaustive {
    bounds: Bounds,
    /// The highest `htlc_minimum` that may bind, if one may.
    highest_minimum: Option<Msat>,
    /// Only lower costs are of interest.
    cost_max: Option<Cost>,
}

/// One search from payee to payer.
struct Search<'a> {
    problem: &'a Problem<'a>,
    /// Directions with a higher minimum are left out.
    minimum_max: Msat,
    exhaustive: Option<Exhaustive>,
    labels: Vec<Label>,
    /// For each node, its labels that no other replaces.
    fronts: Vec<Vec<usize>>,
    open: BinaryHeap<Reverse<Rank>>,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem<'a>, minimum_max: Msat, exhaustive: Option<Exhaustive>) -> Search<'a> {
        let fronts = vec![Vec::new(); problem.graph.node_count()];
        Search { problem, minimum_max, exhaustive, labels: Vec::new(), fronts, open: BinaryHeap::new() }
    }

    fn run(mut self) -> Result<Option<Route>, NoRoute> {
        self.offer(Label {
            node: self.problem.payee,
            amount: self.problem.query.amount,
            cltv_blocks: u32::from(self.problem.query.final_cltv_delta.0),
            hops: 0,
            cost: Cost::default(),
            next: None,
            replaced: false,
        });
        while let Some(Reverse(Rank { label: at, .. })) = self.open.pop() {
            if self.labels[at].replaced {
                continue;
            }
            if self.labels[at].node == self.problem.payer {
                return Ok(Some(self.route(at)));
            }
            self.extend(at);
            if self.labels.len() > LABELS_MAX {
                return Err(NoRoute::GivenUp { labels: self.labels.len() });
            }
        }
        Ok(None)
    }

    /// Offers every label that is one channel longer than this one.
    fn extend(&mut self, at: usize) {
        let problem = self.problem;
        let node = self.labels[at].node;
        for channel in problem.graph.channels_at(node) {
            let origin = if channel.origin_index(Direction::OneToTwo) == node {
                Direction::TwoToOne
            } else {
                Direction::OneToTwo
            };
            if let Some(longer) = self.longer(at, channel, origin) {
                self.offer(longer);
            }
        }
    }

    /// The label at the origin of a direction that leads to label `at`, when the direction carries its amount.
    fn longer(&self, at: usize, channel: &'a Channel, direction: Direction) -> Option<Label> {
        let label = &self.labels[at];
        let terms = self.problem.terms(channel, direction)?;
        if terms.minimum > self.minimum_max || label.amount < terms.minimum || label.amount > terms.maximum {
            return None;
        }
        let (fee, delta) = match terms.price {
            Some(policy) => (policy.fee(label.amount)?, policy.cltv_expiry_delta),
            None => (Msat::ZERO, CltvDelta(0)),
        };
        let amount = label.amount.checked_add(fee).filter(|amount| *amount <= Msat::MAX_MONEY)?;
        let hop_cost = Cost::of_hop(fee, label.amount, delta, self.problem.query.risk_billionths);
        Some(Label {
            node: channel.origin_index(direction),
            amount,
            cltv_blocks: label.cltv_blocks.checked_add(u32::from(delta.0))?,
            hops: label.hops + 1,
            cost: label.cost.saturating_add(hop_cost),
            next: Some((DirectedChannel { scid: channel.scid(), direction }, at)),
            replaced: false,
        })
    }

    /// Takes a label in, unless it cannot lead to the payer or another does all it could; replaces those it outdoes.
    fn offer(&mut self, label: Label) {
        let mut estimate = label.cost;
        if let Some(exhaustive) = &self.exhaustive {
            let Some(remaining) = exhaustive.remaining_cost(self.problem, &label) else { return };
            estimate = estimate.saturating_add(remaining);
            if exhaustive.cost_max.is_some_and(|max| estimate >= max) || self.passes_twice(&label) {
                return;
            }
        }
        let front = &self.fronts[label.node as usize];
        if front.iter().any(|other| self.outdoes(&self.labels[*other], &label)) {
            return;
        }
        let (out, kept) = front.iter().partition(|other| self.outdoes(&label, &self.labels[**other]));
        let out: Vec<usize> = out;
        for other in out {
            self.labels[other].replaced = true;
        }
        let at = self.labels.len();
        let Label { amount, cltv_blocks, hops, .. } = label;
        self.open.push(Reverse(Rank { estimate, amount, cltv_blocks, hops, label: at }));
        self.fronts[label.node as usize] = kept;
        self.fronts[label.node as usize].push(at);
        self.labels.push(label);
    }

    /// Whether `one` can do everything that `other`, at the same node, can.
    fn outdoes(&self, one: &Label, other: &Label) -> bool {
        if one.cost > other.cost || one.amount > other.amount {
            return false;
        }
        let Some(exhaustive) = &self.exhaustive else {
            // Equal in all that matters here: then the sooner expiry and the shorter way win.
            return (one.cost, one.amount) != (other.cost, other.amount)
                || (one.cltv_blocks, one.hops) <= (other.cltv_blocks, other.hops);
        };
        if one.cltv_blocks > other.cltv_blocks || one.hops > other.hops {
            return false;
        }
        // Where a minimum may bind, the larger amount may pass what the smaller does not; and a way on that crosses the
        // smaller one's own path cannot be mended by leaving out the loop, since that makes amounts smaller still.
        exhaustive.highest_minimum.is_none_or(|highest| {
            (one.amount == other.amount || one.amount >= highest) && self.passes_no_more(one, other)
        })
    }

    /// Whether every node on the way of `one` is also on that of `other`.
    fn passes_no_more(&self, one: &Label, other: &Label) -> bool {
        self.way(one).all(|label| self.way(other).any(|passed| passed.node == label.node))
    }

    /// Whether the label's node is already on its own way to the payee.
    fn passes_twice(&self, label: &Label) -> bool {
        self.way(label).skip(1).any(|passed| passed.node == label.node)
    }

    /// A label and those after it up to the payee's.
    fn way<'s>(&'s self, label: &'s Label) -> impl Iterator<Item = &'s Label> {
        std::iter::successors(Some(label), |label| label.next.map(|(_, next)| &self.labels[next]))
    }

    /// The route a label at the payer stands for.
    fn route(&self, at: usize) -> Route {
        let query = self.problem.query;
        let first = &self.labels[at];
        let hops = self.way(first).filter_map(|label| {
            let (directed, next) = label.next?;
            let next = &self.labels[next];
            Some(Hop {
                from: self.problem.graph.id_at(label.node),
                to: self.problem.graph.id_at(next.node),
                scid: directed.scid,
                direction: directed.direction,
                amount: next.amount,
                cltv_expiry: BlockHeight(query.height.0.saturating_add(next.cltv_blocks)),
                fee: label.amount.saturating_sub(next.amount),
            })
        });
        Route {
            hops: hops.collect(),
            total_amount: first.amount,
            fee: first.amount.saturating_sub(query.amount),
            total_cltv_blocks: first.cltv_blocks,
            cost: first.cost,
        }
    }
}

impl Exhaustive {
    /// A lower bound on the cost from the payer to the label's node, or `None` when a limit cannot be kept any more.
    fn remaining_cost(&self, problem: &Problem<'_>, label: &Label) -> Option<Cost> {
        let limits = problem.query.limits;
        let left = self.bounds.0[label.node as usize]?;
        let amount_max = u128::from(problem.query.amount.0) + u128::from(limits.max_fee.0);
        let keeps = u128::from(label.amount.0) + left.fee <= amount_max
            && u128::from(label.cltv_blocks) + left.cltv_blocks <= u128::from(limits.max_cltv_blocks)
            && label.hops as u128 + left.hops <= limits.max_hops as u128;
        keeps.then_some(Cost(left.cost))
    }
}

/// For each node, the least that any way from the payer to it takes; absent where none leads.
struct Bounds(Vec<Option<Least>>);

/// Lower bounds, each reached by a way of its own.
#[derive(Clone, Copy)]
struct Least {
    cost: u128,
    fee: u128,
    cltv_blocks: u128,
    hops: u128,
}

impl Bounds {
    /// Computes the bounds as if every channel carried the payment's bare amount, which underestimates each.
    fn new(problem: &Problem<'_>, minimum_max: Msat) -> Bounds {
        let amount = problem.query.amount;
        let risk = problem.query.risk_billionths;
        let fee = |policy: &Policy| policy.fee(amount).unwrap_or(Msat(u64::MAX));
        let cost = distances(problem, minimum_max, |policy| {
            policy.map_or(0, |policy| Cost::of_hop(fee(policy), amount, policy.cltv_expiry_delta, risk).0)
        });
        let fees =
            distances(problem, minimum_max, |policy| policy.map_or(0, |policy| u128::from(fee(policy).0)));
        let blocks = distances(problem, minimum_max, |policy| {
            policy.map_or(0, |policy| u128::from(policy.cltv_expiry_delta.0))
        });
        let hops = distances(problem, minimum_max, |_| 1);
        let least = (0..problem.graph.node_count()).map(|node| {
            Some(Least { cost: cost[node]?, fee: fees[node]?, cltv_blocks: blocks[node]?, hops: hops[node]? })
        });
        Bounds(least.collect())
    }
}

/// The least sum of `weight` from the payer to each node, over directions that could carry the payment's amount.
fn distances(
    problem: &Problem<'_>,
    minimum_max: Msat,
    weight: impl Fn(Option<&Policy>) -> u128,
) -> Vec<Option<u128>> {
    let mut least: Vec<Option<u128>> = vec![None; problem.graph.node_count()];
    let mut open = BinaryHeap::from([Reverse((0_u128, problem.payer))]);
    while let Some(Reverse((distance, node))) = open.pop() {
        if least[node as usize].is_some() {
            continue;
        }
        least[node as usize] = Some(distance);
        for channel in problem.graph.channels_at(node) {
            let direction = if channel.origin_index(Direction::OneToTwo) == node {
                Direction::OneToTwo
            } else {
                Direction::TwoToOne
            };
            let terms = problem
                .terms(channel, direction)
                .filter(|terms| terms.minimum <= minimum_max && terms.maximum >= problem.query.amount);
            if let Some(terms) = terms {
                let far = channel.origin_index(direction.reversed());
                open.push(Reverse((distance + weight(terms.price), far)));
            }
        }
    }
    least
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;

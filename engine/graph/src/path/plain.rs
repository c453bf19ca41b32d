//! The reference path-finder: exact and simple, the oracle for faster ones.
//!
//! It searches backward from the payee, since a node's fee depends on the amount it forwards (BOLT 7, "HTLC Fees"). A
//! partial route (a label) at a node states the amount that must arrive there, the blocks until expiry, the hops
//! still to go, and the cost so far. Labels are expanded in order of cost, so that the first one to reach the payer
//! is the cheapest.
//!
//! Exactness. A label may be dropped only for one that can be extended wherever it can at no higher cost. The
//! conditions differ:
//!
//! 1. Without limits, no higher cost and no larger amount suffice, since fees and cost grow with the amount. This
//!    search is fast, and mostly the only one.
//! 2. When its answer exceeds a limit, a second search also compares blocks and hops, and drops labels that lower
//!    bounds on the rest of the route show to exceed a limit.
//! 3. Both leave out directions whose `htlc_minimum` exceeds the payment's amount. The fees of later hops may lift
//!    the HTLC above such a minimum, so that a larger amount passes where a smaller one does not. Where that could
//!    make a cheaper route, a third search looks for it, in which hardly any label dominates another. The cost of the
//!    best route so far keeps it small, but it is exponential at worst.
//!
//! A search ends with an error after [`COMPARISONS_MAX`] comparisons.
//!
//! Ties in cost are broken by amount, blocks, hops, then by the ascending scids of the channels: by the graph's
//! content, never by the order it was built in.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use fulmen_wire::units::{BlockHeight, CltvDelta, Msat};

use crate::graph::{ChannelGraph, DirectedChannel, Direction, GraphChannel, Policy};
use crate::path::onion_room::{ONION_ROOM, forward_bytes, payee_bytes};
use crate::path::prices::{HopRole, PricedHop, Prices};
use crate::path::{Cost, NoRoute, PathHop, Query, Route};
use crate::scoring::Uncertainty;

/// Limit on comparisons of partial routes: a fraction of a second.
pub const COMPARISONS_MAX: usize = 1 << 22;

/// Finds the cheapest route for `query`.
///
/// # Errors
/// The reason why there is none; see [`NoRoute`]. Any error but [`NoRoute::SearchLimitReached`] means that no simple
/// path satisfies the query.
pub fn find(graph: &ChannelGraph, query: &Query<'_>) -> Result<Route, NoRoute> {
    let problem = Problem::new(graph, query)?;
    let amount = query.amount;
    let unlimited = Search::new(&problem, amount, None).run()?;
    let within = |(route, onion): &(Route, u32)| problem.within_limits(route, *onion);
    let mut best = unlimited.clone().filter(within).map(|(route, _)| route);
    if unlimited.is_some() && best.is_none() {
        let limited =
            Limited { bounds: Bounds::new(&problem, amount), highest_minimum: None, cost_max: None };
        best = Search::new(&problem, amount, Some(limited)).run()?.map(|(route, _)| route);
    }
    let cost_max = best.as_ref().map(|route| route.cost);
    // A better route has a lower cost, and its fee is at most its cost.
    let fee_max = cost_max.map_or(u64::MAX, |cost| cost.0 / Cost::PER_MSAT);
    let amount_max = amount.saturating_add(query.limits.max_fee.min(Msat(fee_max)));
    if let Some(highest_minimum) = problem.highest_minimum(amount_max) {
        let bounds = Bounds::new(&problem, highest_minimum);
        let limited = Limited { bounds, highest_minimum: Some(highest_minimum), cost_max };
        best = match Search::new(&problem, highest_minimum, Some(limited)).run() {
            Err(NoRoute::SearchLimitReached { comparisons, .. }) => {
                return Err(NoRoute::SearchLimitReached { comparisons, best: best.map(Box::new) });
            }
            better => better?.map(|(route, _)| route).or(best),
        };
    }
    best.ok_or(match unlimited {
        Some(_) => NoRoute::OverLimits { amount, max_fee: None, max_cltv_blocks: None, max_hops: None },
        None => NoRoute::Unreachable { amount },
    })
}

/// A query whose ends are known to be in the graph.
struct Problem<'a> {
    graph: &'a ChannelGraph,
    query: &'a Query<'a>,
    prices: Prices<'a>,
    payer: u32,
    payee: u32,
}

/// The terms of one direction of a channel, with the payer's knowledge applied.
struct Terms<'a> {
    minimum: Msat,
    maximum: Msat,
    /// Absent on the payer's own channels, which charge nothing.
    price: Option<&'a Policy>,
    role: HopRole,
}

impl Terms<'_> {
    /// Whether some amount from `least` to `most` fits.
    fn can_carry(&self, least: Msat, most: Msat) -> bool {
        self.minimum <= most && self.maximum >= least && self.minimum <= self.maximum
    }
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
        Ok(Problem { graph, query, prices: Prices::new(query), payer, payee })
    }

    /// The terms of a direction, or `None` when it must not be used.
    fn terms(&self, channel: &'a GraphChannel, direction: Direction) -> Option<Terms<'a>> {
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
            return Some(Terms {
                minimum: first.htlc_minimum,
                maximum,
                price: None,
                role: HopRole::OwnKnown,
            });
        }
        if known.excluded_nodes.contains(&channel.origin(direction)) {
            return None;
        }
        if let Some(held) = known.in_flight.get(&directed) {
            maximum = maximum.min(channel.capacity().to_msat().saturating_sub(*held));
        }
        let policy = channel.policy(direction).filter(|policy| !policy.disabled)?;
        let maximum = maximum.min(policy.htlc_maximum);
        let role = if own { HopRole::OwnUnknown } else { HopRole::Forward };
        Some(Terms { minimum: policy.htlc_minimum, maximum, price: (!own).then_some(policy), role })
    }

    /// The highest minimum above the payment's amount up to which fees could lift an HTLC of at most `amount_max`, if
    /// any.
    fn highest_minimum(&self, amount_max: Msat) -> Option<Msat> {
        let above = |minimum: Msat| minimum > self.query.amount && minimum <= amount_max;
        let first_hops = self.query.knowledge.first_hops.iter().flat_map(|hops| hops.values());
        let policies =
            self.graph.channels().flat_map(|channel| Direction::BOTH.map(|end| channel.policy(end)));
        let minimums = policies.flatten().map(|policy| policy.htlc_minimum);
        if !minimums.chain(first_hops.map(|hop| hop.htlc_minimum)).any(above) {
            return None;
        }
        // The largest amount that may arrive at each node, over any walk of the allowed length.
        let mut largest: Vec<Option<Msat>> = vec![None; self.graph.node_count()];
        largest[self.payee as usize] = Some(self.query.amount);
        let mut highest = None;
        let mut changed = BTreeSet::from([self.payee]);
        for _ in 0..self.query.limits.max_hops.min(self.graph.node_count()) {
            let mut next = BTreeSet::new();
            for node in changed {
                let Some(arriving) = largest[node as usize].filter(|_| node != self.payer) else { continue };
                for (channel, direction) in self.into(node) {
                    let terms = self.terms(channel, direction);
                    let Some(terms) = terms.filter(|terms| terms.can_carry(self.query.amount, arriving))
                    else {
                        continue;
                    };
                    highest = highest.max(Some(terms.minimum).filter(|minimum| above(*minimum)));
                    let through = arriving.min(terms.maximum);
                    let fee = terms.price.map_or(Some(Msat::ZERO), |policy| policy.fee(through));
                    let amount = through.saturating_add(fee.unwrap_or(amount_max)).min(amount_max);
                    let origin = channel.origin_index(direction);
                    if largest[origin as usize] < Some(amount) {
                        largest[origin as usize] = Some(amount);
                        next.insert(origin);
                    }
                }
            }
            changed = next;
        }
        highest
    }

    /// The directions that lead into a node.
    fn into(&self, node: u32) -> impl Iterator<Item = (&'a GraphChannel, Direction)> {
        self.graph.channels_at(node).map(move |channel| {
            let first = channel.origin_index(Direction::OneToTwo) == node;
            (channel, if first { Direction::TwoToOne } else { Direction::OneToTwo })
        })
    }

    /// The cost of a hop, or `None` when it is banned.
    fn cost(
        &self,
        (channel, direction): (&GraphChannel, Direction),
        terms: &Terms<'_>,
        amount: Msat,
        fee: Msat,
    ) -> Option<Cost> {
        let hop = PricedHop {
            directed: DirectedChannel { scid: channel.scid(), direction },
            from: channel.origin(direction),
            capacity: channel.capacity(),
            amount,
            fee,
            delta: terms.price.map_or(CltvDelta(0), |policy| policy.cltv_expiry_delta),
        };
        self.prices.cost(&hop, terms.role)
    }

    fn within_limits(&self, route: &Route, onion: u32) -> bool {
        let limits = self.query.limits;
        onion <= ONION_ROOM
            && route.fee <= limits.max_fee
            && route.total_cltv_blocks <= limits.max_cltv_blocks
            && route.hops.len() <= limits.max_hops
    }
}

/// A partial route: the amount that must arrive at `node` for the payee to receive its amount.
struct Label {
    node: u32,
    amount: Msat,
    cltv_blocks: u32,
    hops: usize,
    /// Bytes of the payloads of the nodes after the payer.
    onion: u32,
    cost: Cost,
    /// The channel that leads on from here, and the label at its far end; absent at the payee.
    next: Option<(DirectedChannel, usize)>,
    /// Whether a label at the same node dominates it.
    replaced: bool,
}

/// The order in which labels are expanded: by the fields from first to last.
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

/// The precomputed data of a search that enforces limits.
struct Limited {
    bounds: Bounds,
    /// The highest `htlc_minimum` that may bind, if one may.
    highest_minimum: Option<Msat>,
    /// An exclusive bound on the cost.
    cost_max: Option<Cost>,
}

/// One search from payee to payer.
struct Search<'a> {
    problem: &'a Problem<'a>,
    /// Directions with a higher minimum are left out.
    minimum_max: Msat,
    limited: Option<Limited>,
    labels: Vec<Label>,
    /// For each node, its labels that no other dominates.
    fronts: Vec<Vec<usize>>,
    open: BinaryHeap<Reverse<Rank>>,
    comparisons: usize,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem<'a>, minimum_max: Msat, limited: Option<Limited>) -> Search<'a> {
        let fronts = vec![Vec::new(); problem.graph.node_count()];
        Search {
            problem,
            minimum_max,
            limited,
            labels: Vec::new(),
            fronts,
            open: BinaryHeap::new(),
            comparisons: 0,
        }
    }

    fn run(mut self) -> Result<Option<(Route, u32)>, NoRoute> {
        let query = self.problem.query;
        let blocks = u32::from(query.final_cltv_delta.0);
        self.offer(Label {
            node: self.problem.payee,
            amount: query.amount,
            cltv_blocks: blocks,
            hops: 0,
            onion: payee_bytes(query.amount, query.height.0.saturating_add(blocks), query.payee_extra_bytes),
            cost: Cost::default(),
            next: None,
            replaced: false,
        });
        while let Some(Reverse(Rank { label: at, .. })) = self.open.pop() {
            if self.labels[at].replaced {
                continue;
            }
            if self.labels[at].node == self.problem.payer {
                return Ok(Some((self.route(at), self.labels[at].onion)));
            }
            self.extend(at);
            if self.comparisons > COMPARISONS_MAX {
                return Err(NoRoute::SearchLimitReached { comparisons: self.comparisons, best: None });
            }
        }
        Ok(None)
    }

    /// Extends a label by every channel.
    fn extend(&mut self, at: usize) {
        let problem = self.problem;
        for (channel, direction) in problem.into(self.labels[at].node) {
            if let Some(longer) = self.longer(at, channel, direction) {
                self.offer(longer);
            }
        }
    }

    /// The label at the origin of a direction that leads to label `at`, when the direction carries its amount.
    fn longer(&self, at: usize, channel: &'a GraphChannel, direction: Direction) -> Option<Label> {
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
        let hop_cost = self.problem.cost((channel, direction), &terms, label.amount, fee)?;
        let expiry = self.problem.query.height.0.saturating_add(label.cltv_blocks);
        let payload = terms.price.map_or(0, |_| forward_bytes(label.amount, expiry));
        Some(Label {
            node: channel.origin_index(direction),
            amount,
            cltv_blocks: label.cltv_blocks.checked_add(u32::from(delta.0))?,
            hops: label.hops + 1,
            onion: label.onion.saturating_add(payload),
            cost: label.cost.saturating_add(hop_cost),
            next: Some((DirectedChannel { scid: channel.scid(), direction }, at)),
            replaced: false,
        })
    }

    /// Inserts a label, unless it cannot lead to a better route or is dominated; removes the labels that it
    /// dominates.
    fn offer(&mut self, label: Label) {
        let mut estimate = label.cost;
        if let Some(limited) = &self.limited {
            let Some(remaining) = limited.remaining_cost(self.problem, &label) else { return };
            estimate = estimate.saturating_add(remaining);
            if limited.cost_max.is_some_and(|max| estimate >= max) || self.passes_twice(&label) {
                return;
            }
        }
        let front = &self.fronts[label.node as usize];
        self.comparisons += 1 + front.len();
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

    /// Whether `one` dominates `other` at the same node.
    fn outdoes(&self, one: &Label, other: &Label) -> bool {
        if one.cost > other.cost || one.amount > other.amount {
            return false;
        }
        let Some(limited) = &self.limited else {
            // Equal in cost and amount: the earlier expiry and the shorter route win.
            return (one.cost, one.amount) != (other.cost, other.amount)
                || (one.cltv_blocks, one.hops) <= (other.cltv_blocks, other.hops);
        };
        if one.cltv_blocks > other.cltv_blocks || one.hops > other.hops || one.onion > other.onion {
            return false;
        }
        // Where a minimum may bind, a larger amount may pass where the smaller does not. An extension that crosses
        // the path of the smaller one cannot be repaired by cutting out the loop, since that makes amounts smaller
        // still.
        limited.highest_minimum.is_none_or(|highest| {
            (one.amount == other.amount || one.amount >= highest) && self.passes_no_more(one, other)
        })
    }

    /// Whether every node of `one`'s path is also on `other`'s.
    fn passes_no_more(&self, one: &Label, other: &Label) -> bool {
        self.way(one).all(|label| self.way(other).any(|passed| passed.node == label.node))
    }

    /// Whether the label's node occurs earlier on its own path to the payee.
    fn passes_twice(&self, label: &Label) -> bool {
        self.way(label).skip(1).any(|passed| passed.node == label.node)
    }

    /// A label and its successors up to the payee's.
    fn way<'s>(&'s self, label: &'s Label) -> impl Iterator<Item = &'s Label> {
        std::iter::successors(Some(label), |label| label.next.map(|(_, next)| &self.labels[next]))
    }

    /// The route of a label at the payer.
    fn route(&self, at: usize) -> Route {
        let query = self.problem.query;
        let first = &self.labels[at];
        let hops = self.way(first).filter_map(|label| {
            let (directed, next) = label.next?;
            let next = &self.labels[next];
            Some(PathHop {
                from: self.problem.graph.id_at(label.node),
                to: self.problem.graph.id_at(next.node),
                scid: directed.scid,
                direction: directed.direction,
                amount: next.amount,
                cltv_expiry: BlockHeight(query.height.0.saturating_add(next.cltv_blocks)),
                fee: label.amount.saturating_sub(next.amount),
            })
        });
        let uncertainty = self.way(first).filter_map(|label| {
            let (directed, next) = label.next?;
            let channel = self.problem.graph.channel(directed.scid)?;
            let role = self.problem.terms(channel, directed.direction)?.role;
            Some(self.problem.prices.uncertainty(
                directed,
                channel.capacity(),
                self.labels[next].amount,
                role,
            ))
        });
        Route {
            success: Uncertainty::sum(uncertainty).probability(),
            hops: hops.collect(),
            total_amount: first.amount,
            fee: first.amount.saturating_sub(query.amount),
            total_cltv_blocks: first.cltv_blocks,
            cost: first.cost,
        }
    }
}

impl Limited {
    /// A lower bound on the cost from the payer to the label's node, or `None` when a limit must be exceeded.
    fn remaining_cost(&self, problem: &Problem<'_>, label: &Label) -> Option<Cost> {
        let limits = problem.query.limits;
        let left = self.bounds.0[label.node as usize]?;
        let amount_max = u128::from(problem.query.amount.0) + u128::from(limits.max_fee.0);
        let keeps = u128::from(label.amount.0) + left.fee <= amount_max
            && u128::from(label.cltv_blocks) + left.cltv_blocks <= u128::from(limits.max_cltv_blocks)
            && label.hops as u128 + left.hops <= limits.max_hops as u128
            && label.onion <= ONION_ROOM;
        keeps.then_some(Cost(u64::try_from(left.cost).unwrap_or(u64::MAX)))
    }
}

/// For each node, lower bounds over all paths from the payer; absent where none leads.
struct Bounds(Vec<Option<Least>>);

/// Lower bounds, each reached by some path.
#[derive(Clone, Copy)]
struct Least {
    cost: u128,
    fee: u128,
    cltv_blocks: u128,
    hops: u128,
}

impl Bounds {
    /// Computes the bounds with the payment's amount on every channel, which underestimates each.
    fn new(problem: &Problem<'_>, minimum_max: Msat) -> Bounds {
        let amount = problem.query.amount;
        let fee = |policy: &Policy| policy.fee(amount).unwrap_or(Msat(u64::MAX));
        let cost = distances(problem, minimum_max, |way, terms| {
            let fee = terms.price.map_or(Msat::ZERO, fee);
            Some(u128::from(problem.cost(way, terms, amount, fee)?.0))
        });
        let fees = distances(problem, minimum_max, |_, terms| {
            Some(terms.price.map_or(0, |policy| u128::from(fee(policy).0)))
        });
        let blocks = distances(problem, minimum_max, |_, terms| {
            Some(terms.price.map_or(0, |policy| u128::from(policy.cltv_expiry_delta.0)))
        });
        let hops = distances(problem, minimum_max, |_, _| Some(1));
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
    weight: impl Fn((&GraphChannel, Direction), &Terms<'_>) -> Option<u128>,
) -> Vec<Option<u128>> {
    let mut least: Vec<Option<u128>> = vec![None; problem.graph.node_count()];
    let mut open = BinaryHeap::from([Reverse((0_u128, problem.payer))]);
    while let Some(Reverse((distance, node))) = open.pop() {
        if least[node as usize].is_some() {
            continue;
        }
        least[node as usize] = Some(distance);
        for (channel, inward) in problem.into(node) {
            let direction = inward.reversed();
            let terms = problem.terms(channel, direction);
            let terms = terms.filter(|terms| terms.can_carry(problem.query.amount, minimum_max));
            if let Some(weight) = terms.and_then(|terms| weight((channel, direction), &terms)) {
                let far = channel.origin_index(direction.reversed());
                open.push(Reverse((distance + weight, far)));
            }
        }
    }
    least
}

#[cfg(test)]
#[path = "plain_tests.rs"]
pub(super) mod tests;

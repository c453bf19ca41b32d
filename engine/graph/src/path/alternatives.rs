//! The cheapest routes in ascending order of cost, all loopless.
//!
//! Owns Yen's algorithm with Lawler's improvement. Since amounts grow from the payee to the payer, it proceeds from
//! the payee's side: each further route shares the last hops of a known one, leaves it by another channel, and is the
//! cheapest such route. [`super::search`] finds it, starting where the shared hops begin.
//!
//! Invariant: of all routes that answer the query, the first `count` by cost are returned, each once. When a search
//! reaches its limit of comparisons, the route that it would have found is missing.

use std::collections::BTreeSet;

use fulmen_wire::units::CltvDelta;

use crate::graph::DirectedChannel;
use crate::path::onion_room::forward_bytes;
use crate::path::prices::{HopRole, PricedHop, Prices, hop_uncertainties};
use crate::path::search::{Finder, Start};
use crate::path::{Cost, Knowledge, NoRoute, Query, Route};
use crate::scoring::Uncertainty;
use crate::snapshot::Snapshot;

/// A known route, and the index of the first hop that it shares with the route it was derived from.
struct Candidate {
    route: Route,
    kept_from: usize,
}

/// Finds up to `count` routes for `query`, the cheapest first.
///
/// # Errors
/// The reason why there is no route at all; see [`NoRoute`].
pub fn alternatives(
    finder: &mut Finder,
    snapshot: &Snapshot,
    query: &Query<'_>,
    count: usize,
) -> Result<Vec<Route>, NoRoute> {
    let best = finder.find(snapshot, query)?;
    let mut found: Vec<Route> = Vec::new();
    let mut open = vec![Candidate { kept_from: best.hops.len(), route: best }];
    while found.len() < count {
        let order = |candidate: &Candidate| (candidate.route.cost, key(&candidate.route));
        let Some(next) = (0..open.len()).min_by(|one, other| order(&open[*one]).cmp(&order(&open[*other])))
        else {
            break;
        };
        let Candidate { route, kept_from } = open.swap_remove(next);
        found.push(route);
        if found.len() < count {
            deviate(finder, snapshot, query, &found, kept_from, &mut open);
        }
    }
    Ok(found)
}

/// The order of routes of equal cost.
fn key(route: &Route) -> Vec<DirectedChannel> {
    route.hops.iter().map(|hop| hop.directed()).collect()
}

/// Finds the cheapest deviations from the last route found, one for each number of shared last hops.
fn deviate(
    finder: &mut Finder,
    snapshot: &Snapshot,
    query: &Query<'_>,
    found: &[Route],
    kept_from: usize,
    open: &mut Vec<Candidate>,
) {
    let Some((route, _)) = found.split_last() else { return };
    let Some(payer) = snapshot.node_index(query.from) else { return };
    // The hops from `kept` on are shared; the one before is replaced. Shorter endings than that at which the route
    // itself deviates were covered there, except for the channel that it left by, which is now taken too.
    for kept in 1..=kept_from.min(route.hops.len()) {
        let Some(start) = start(snapshot, query, route, kept) else { continue };
        let tail = &route.hops[kept..];
        let same_end = |other: &&Route| {
            other.hops.len() > tail.len()
                && other.hops[other.hops.len() - tail.len()..]
                    .iter()
                    .zip(tail)
                    .all(|(one, other)| one.directed() == other.directed())
        };
        let taken: BTreeSet<DirectedChannel> = found
            .iter()
            .filter(same_end)
            .map(|other| other.hops[other.hops.len() - tail.len() - 1].directed())
            .collect();
        let mut knowledge: Knowledge = query.knowledge.clone();
        knowledge.excluded_directions.extend(taken);
        knowledge.excluded_nodes.extend(tail.iter().map(|hop| hop.to));
        let query = Query { knowledge: &knowledge, ..query.clone() };
        let Some((mut deviation, _)) = finder.attempt_from(snapshot, &query, payer, &[start]) else {
            continue;
        };
        let kept_from = deviation.hops.len();
        deviation.hops.extend_from_slice(tail);
        deviation.success = Uncertainty::sum(hop_uncertainties(snapshot, &query, &deviation)).probability();
        if open.iter().all(|other| key(&other.route) != key(&deviation)) {
            open.push(Candidate { route: deviation, kept_from });
        }
    }
}

/// The start at which the hops of a route from `kept` on begin.
fn start(snapshot: &Snapshot, query: &Query<'_>, route: &Route, kept: usize) -> Option<Start> {
    let prices = Prices::new(query);
    let before = &route.hops[kept - 1];
    let node = snapshot.node_index(before.to)?;
    let mut start = Start::payee(query, node);
    for hop in &route.hops[kept..] {
        let priced = PricedHop {
            directed: hop.directed(),
            from: hop.from,
            capacity: snapshot.capacity(hop.scid)?,
            amount: hop.amount,
            fee: hop.fee,
            delta: snapshot.policy(hop.directed()).map_or(CltvDelta(0), |policy| policy.cltv_expiry_delta),
        };
        let Cost(cost) = prices.cost(&priced, HopRole::Forward)?;
        start.cost = start.cost.saturating_add(cost);
        start.onion = start.onion.saturating_add(forward_bytes(hop.amount, hop.cltv_expiry.0));
        start.hops += 1;
    }
    start.amount = before.amount.0;
    start.blocks = before.cltv_expiry.blocks_above(query.height);
    Some(start)
}

#[cfg(test)]
#[path = "alternatives_tests.rs"]
mod tests;

//! Routes to payees outside the public graph: over private channels from an invoice (BOLT 11, the `r` field) or
//! blinded paths (BOLT 4, "Route Blinding"), and back to the payer itself over one of its channels (rebalancing).
//!
//! Owns the amount that must arrive where such an ending begins, and the hops that the ending adds to a route.
//! [`super::search`] finds the route there: each ending is a further start. Does not decrypt or build anything
//! blinded: of a blinded path only its `blinded_payinfo` counts.
//!
//! Invariant: the figures of a route include its ending, with fees that grow over it as over other hops.

use fulmen_wire::units::{BlockHeight, CltvDelta, Msat, NodeId, Scid};

use crate::graph::{Direction, Policy};
use crate::path::onion_room::{forward_bytes, payee_bytes};
use crate::path::prices::Prices;
use crate::path::search::{Finder, Start};
use crate::path::{Knowledge, NoRoute, PathHop, Query, Route};
use crate::scoring::Uncertainty;
use crate::snapshot::Snapshot;

/// The last part of a route, from a node that the payer can reach to the payee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Private channels in order; the last one leads to the payee.
    Private(Vec<PrivateHop>),
    /// A blinded path: everything after its first node is hidden.
    Blinded(BlindedPath),
}

/// One private channel of an invoice's hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivateHop {
    /// The forwarding node.
    pub from: NodeId,
    /// The channel's id, or an alias that `from` knows.
    pub scid: Scid,
    /// The policy of `from`. A hint states no HTLC limits: set them to zero and all money.
    pub policy: Policy,
}

/// The terms of a blinded path as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlindedPath {
    /// Its first node, the only one that is not hidden.
    pub introduction: NodeId,
    /// The sum of its fees and deltas, and its HTLC limits, as the invoice's `blinded_payinfo` states them.
    pub policy: Policy,
    /// Bytes of the payloads of its nodes, lengths and HMACs included.
    pub onion_bytes: u32,
}

/// A route and the ending that it leads into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedRoute {
    /// All hops except blinded ones. With a blinded ending, the last hop leads to its introduction node, with the
    /// amount and expiry that must arrive there.
    pub route: Route,
    /// The index of the ending; `None` when the route leads to the payee over public channels.
    pub ending: Option<usize>,
}

/// The start of an ending, and its hops.
struct Prepared {
    start: Start,
    hops: Vec<PathHop>,
    ending: Option<usize>,
}

/// Finds the cheapest route to the payee over public channels or one of `endings`.
///
/// # Errors
/// The reason why there is none; see [`NoRoute`]. The limits that would suffice are not determined.
pub fn find_with_endings(
    finder: &mut Finder,
    snapshot: &Snapshot,
    query: &Query<'_>,
    endings: &[Ending],
) -> Result<EndedRoute, NoRoute> {
    let payer = payer(snapshot, query)?;
    if query.to == query.from {
        return Err(NoRoute::SelfPayment { node: query.from });
    }
    let mut prepared: Vec<Prepared> = endings
        .iter()
        .enumerate()
        .filter_map(|(at, ending)| prepare(snapshot, query, ending, at))
        .filter(|prepared| prepared.start.node != payer)
        .collect();
    if let Some(payee) = snapshot.node_index(query.to) {
        prepared.push(Prepared { start: Start::payee(query, payee), hops: Vec::new(), ending: None });
    }
    if prepared.is_empty() {
        return Err(NoRoute::UnknownNode { node: query.to });
    }
    finish(finder, snapshot, query, payer, &prepared)
}

/// Finds a route from the payer to itself: out over one of its channels and back over another.
///
/// # Errors
/// [`NoRoute::Unreachable`] also when one of the channels is not the payer's, or both are the same; else see
/// [`NoRoute`].
pub fn find_circular(
    finder: &mut Finder,
    snapshot: &Snapshot,
    query: &Query<'_>,
    (out, back): (Scid, Scid),
) -> Result<Route, NoRoute> {
    let payer = payer(snapshot, query)?;
    let nothing = NoRoute::Unreachable { amount: query.amount };
    let inward = |scid| {
        let edges = snapshot.edges_of(scid)?.into_iter();
        edges.into_iter().find(|edge| snapshot.target(*edge) == payer)
    };
    let (Some(returning), Some(_)) = (inward(back).filter(|_| out != back), inward(out)) else {
        return Err(nothing);
    };
    let directed = snapshot.directed(returning);
    let Some(policy) = snapshot.policy(directed).filter(|policy| !policy.disabled) else {
        return Err(nothing);
    };
    if query.knowledge.excluded_directions.contains(&directed)
        || query.knowledge.excluded_channels.contains(&back)
    {
        return Err(nothing);
    }
    let from = snapshot.node_id(snapshot.edge(returning).source);
    let hop = PrivateHop { from, scid: back, policy };
    let own = Query { to: query.from, ..query.clone() };
    let Some(mut prepared) = prepare(snapshot, &own, &Ending::Private(vec![hop]), 0) else {
        return Err(nothing);
    };
    let Some(carried) = prepared.hops.first_mut() else { return Err(nothing) };
    carried.direction = directed.direction;
    let prices = Prices::new(query);
    let bits = prices.uncertainty(
        directed,
        snapshot.capacity_of(returning),
        carried.amount,
        crate::path::prices::HopRole::Forward,
    );
    prepared.start.cost = prepared.start.cost.saturating_add(prices.own_hop(bits, 0));
    // All other channels out are closed.
    let mut knowledge: Knowledge = query.knowledge.clone();
    let others = snapshot.incoming(payer).map(|edge| snapshot.directed(snapshot.reverse(edge)));
    knowledge.excluded_directions.extend(others.filter(|other| other.scid != out));
    let own = Query { knowledge: &knowledge, ..own };
    let mut found = finish(finder, snapshot, &own, payer, &[prepared])?;
    let all = crate::path::prices::hop_uncertainties(snapshot, &own, &found.route);
    found.route.success = Uncertainty::sum(all).probability();
    Ok(found.route)
}

/// The payer's number, if the payer can pay at all.
fn payer(snapshot: &Snapshot, query: &Query<'_>) -> Result<u32, NoRoute> {
    for node in [query.from, query.to] {
        if query.knowledge.excluded_nodes.contains(&node) {
            return Err(NoRoute::ExcludedNode { node });
        }
    }
    if query.amount == Msat::ZERO {
        return Err(NoRoute::ZeroAmount);
    }
    snapshot.node_index(query.from).ok_or(NoRoute::UnknownNode { node: query.from })
}

/// Searches from all starts and appends the hops of the chosen ending.
fn finish(
    finder: &mut Finder,
    snapshot: &Snapshot,
    query: &Query<'_>,
    payer: u32,
    prepared: &[Prepared],
) -> Result<EndedRoute, NoRoute> {
    let starts: Vec<Start> = prepared.iter().map(|prepared| prepared.start).collect();
    let found = finder.attempt_from(snapshot, query, payer, &starts);
    let (mut route, start) = found.ok_or(NoRoute::Unreachable { amount: query.amount })?;
    let taken = &prepared[start];
    route.hops.extend_from_slice(&taken.hops);
    Ok(EndedRoute { route, ending: taken.ending })
}

/// The start of an ending; `None` when the ending does not carry the amount, is excluded, or begins at an unknown
/// node.
fn prepare(snapshot: &Snapshot, query: &Query<'_>, ending: &Ending, at: usize) -> Option<Prepared> {
    let prices = Prices::new(query);
    let known = query.knowledge;
    let (mut amount, mut blocks) = (query.amount, u32::from(query.final_cltv_delta.0));
    let expiry = |blocks: u32| query.height.0.saturating_add(blocks);
    let (mut cost, mut hops) = (0_u64, Vec::new());
    let mut cross = |policy: &Policy, amount: &mut Msat, blocks: &mut u32| -> Option<Msat> {
        let carries = policy.htlc_minimum <= *amount && *amount <= policy.htlc_maximum && !policy.disabled;
        let fee = policy.fee(*amount).filter(|_| carries)?;
        let CltvDelta(delta) = policy.cltv_expiry_delta;
        cost = cost.saturating_add(prices.forwarded_hop(amount.0, fee.0, delta, Uncertainty(0), 0));
        *amount = amount.checked_add(fee).filter(|amount| *amount <= Msat::MAX_MONEY)?;
        *blocks = blocks.checked_add(u32::from(delta))?;
        Some(fee)
    };
    let (node, onion, count) = match ending {
        Ending::Blinded(path) => {
            cross(&path.policy, &mut amount, &mut blocks)?;
            (path.introduction, path.onion_bytes, 0)
        }
        Ending::Private(private) => {
            let mut to = query.to;
            let mut onion = payee_bytes(amount, expiry(blocks), query.payee_extra_bytes);
            for hop in private.iter().rev() {
                if known.excluded_channels.contains(&hop.scid) || known.excluded_nodes.contains(&hop.from) {
                    return None;
                }
                let (carried, until) = (amount, expiry(blocks));
                let fee = cross(&hop.policy, &mut amount, &mut blocks)?;
                onion = onion.saturating_add(forward_bytes(carried, until));
                hops.push(PathHop {
                    from: hop.from,
                    to,
                    scid: hop.scid,
                    direction: Direction::between(hop.from, to),
                    amount: carried,
                    cltv_expiry: BlockHeight(until),
                    fee,
                });
                to = hop.from;
            }
            hops.reverse();
            (to, onion, u32::try_from(hops.len()).ok()?)
        }
    };
    let node = snapshot.node_index(node)?;
    let start = Start { node, amount: amount.0, cost, blocks, onion, hops: count };
    Some(Prepared { start, hops, ending: Some(at) })
}

#[cfg(test)]
#[path = "ending_tests.rs"]
mod tests;

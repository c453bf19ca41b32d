//! The checker of routes: whether one may be used for a query, and whether its figures are right (BOLT 7, "HTLC
//! Fees").
//!
//! Shares only the formulas for fees, prices and payload sizes with the searches: it walks a finished route and
//! recomputes each figure. It does not check whether a better route exists.

use std::collections::BTreeSet;

use fulmen_wire::units::{BlockHeight, CltvDelta, Msat, NodeId, Scid};
use thiserror::Error;

use crate::graph::{ChannelGraph, GraphChannel, Policy};
use crate::path::onion_room::{ONION_ROOM, forward_bytes, payee_bytes};
use crate::path::prices::{HopRole, PricedHop, Prices};
use crate::path::{Cost, PathHop, Query, Route};
use crate::scoring::Uncertainty;

/// The fault of a route.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The route has no hops.
    #[error("the route has no hops")]
    Empty,
    /// The route has more hops than allowed.
    #[error("the route has {hops} hops, {max} are allowed")]
    TooManyHops {
        /// The number of hops.
        hops: usize,
        /// The limit.
        max: usize,
    },
    /// A hop does not start at the end of the one before it, or at the payer.
    #[error("hop {hop} starts at {found}, not at {expected}")]
    Broken {
        /// The hop's index, from zero.
        hop: usize,
        /// The node where it should start.
        expected: NodeId,
        /// The node where it starts.
        found: NodeId,
    },
    /// The last hop does not end at the payee.
    #[error("the route ends at {found}, not at {expected}")]
    WrongEnd {
        /// The payee.
        expected: NodeId,
        /// The node where it ends.
        found: NodeId,
    },
    /// A node is passed twice.
    #[error("node {node} is passed twice")]
    Loop {
        /// The node.
        node: NodeId,
    },
    /// A hop's channel is not in the graph, or does not join the hop's nodes in this direction.
    #[error("hop {hop}: channel {scid} does not join its nodes")]
    NoSuchChannel {
        /// The hop's index.
        hop: usize,
        /// The channel it names.
        scid: Scid,
    },
    /// A hop's node, channel or direction is excluded, or the channel is not among the payer's usable ones.
    #[error("hop {hop}: channel {scid} or its node may not be used")]
    Excluded {
        /// The hop's index.
        hop: usize,
        /// The channel.
        scid: Scid,
    },
    /// The payloads do not fit into an onion.
    #[error("the payloads take {bytes} bytes, an onion has room for {ONION_ROOM}")]
    OnionTooLarge {
        /// The size of the payloads.
        bytes: u32,
    },
    /// A hop's direction has no policy, or a disabled one.
    #[error("hop {hop}: channel {scid} has no enabled policy that way")]
    Closed {
        /// The hop's index.
        hop: usize,
        /// The channel.
        scid: Scid,
    },
    /// A hop's amount is outside the limits of its channel.
    #[error("hop {hop}: {amount} is outside {minimum} to {maximum}")]
    AmountOutOfRange {
        /// The hop's index.
        hop: usize,
        /// The hop's amount.
        amount: Msat,
        /// The least amount of the channel.
        minimum: Msat,
        /// The largest amount of the channel, as far as is known.
        maximum: Msat,
    },
    /// A hop's amount, fee or expiry does not follow from the policies after it.
    #[error("hop {hop}: {found:?} should be {expected:?}")]
    WrongFigures {
        /// The hop's index.
        hop: usize,
        /// The figures that follow from the policies.
        expected: Figures,
        /// The figures that the hop states.
        found: Figures,
    },
    /// The route's totals are not those of its hops.
    #[error("the route's totals do not follow from its hops")]
    WrongTotals,
    /// The fee exceeds the limit.
    #[error("the fee is {fee}, {max} is allowed")]
    FeeOverLimit {
        /// The fee.
        fee: Msat,
        /// The limit.
        max: Msat,
    },
    /// The first HTLC is locked for longer than the limit.
    #[error("the first HTLC is locked for {blocks} blocks, {max} are allowed")]
    CltvOverLimit {
        /// The blocks.
        blocks: u32,
        /// The limit.
        max: u32,
    },
}

/// The figures of one hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The HTLC's amount.
    pub amount: Msat,
    /// The HTLC's absolute expiry.
    pub cltv_expiry: BlockHeight,
    /// The fee of the offering node.
    pub fee: Msat,
}

/// Checks `route` as an answer to `query` over `graph`.
///
/// # Errors
/// The first fault found: first of the shape, then of the hops from payee to payer, then of totals and limits.
pub fn check(graph: &ChannelGraph, route: &Route, query: &Query<'_>) -> Result<(), RouteError> {
    check_shape(route, query)?;
    let mut amount = query.amount;
    let mut blocks = u32::from(query.final_cltv_delta.0);
    let mut cost = Cost::default();
    let mut uncertainty = Vec::new();
    let prices = Prices::new(query);
    let expiry = |blocks: u32| query.height.0.saturating_add(blocks);
    let mut onion = payee_bytes(amount, expiry(blocks), query.payee_extra_bytes);
    for (index, hop) in route.hops.iter().enumerate().rev() {
        let channel =
            graph.channel(hop.scid).filter(|channel| channel.direction_from(hop.from) == Some(hop.direction));
        let channel = channel
            .filter(|channel| channel.origin(hop.direction.reversed()) == hop.to)
            .ok_or(RouteError::NoSuchChannel { hop: index, scid: hop.scid })?;
        let policy = check_channel(channel, index, hop, query)?;
        let (fee, delta) = match policy.filter(|_| index > 0) {
            Some(policy) => (policy.fee(amount).unwrap_or(Msat(u64::MAX)), policy.cltv_expiry_delta),
            None => (Msat::ZERO, CltvDelta(0)),
        };
        let cltv_expiry = BlockHeight(expiry(blocks));
        let expected = Figures { amount, cltv_expiry, fee };
        let found = Figures { amount: hop.amount, cltv_expiry: hop.cltv_expiry, fee: hop.fee };
        if found != expected {
            return Err(RouteError::WrongFigures { hop: index, expected, found });
        }
        let role = match (index, policy) {
            (0, None) => HopRole::OwnKnown,
            (0, Some(_)) => HopRole::OwnUnknown,
            _ => HopRole::Forward,
        };
        let capacity = channel.capacity();
        let priced = PricedHop { directed: hop.directed(), from: hop.from, capacity, amount, fee, delta };
        let price = prices.cost(&priced, role);
        cost = cost.saturating_add(price.ok_or(RouteError::Excluded { hop: index, scid: hop.scid })?);
        uncertainty.push(prices.uncertainty(hop.directed(), capacity, amount, role));
        if index > 0 {
            onion = onion.saturating_add(forward_bytes(amount, cltv_expiry.0));
        }
        amount = amount.saturating_add(fee);
        blocks = blocks.saturating_add(u32::from(delta.0));
    }
    let fee = amount.saturating_sub(query.amount);
    let success = Uncertainty::sum(uncertainty.into_iter()).probability();
    let found = (route.total_amount, route.fee, route.total_cltv_blocks, route.cost, route.success);
    if found != (amount, fee, blocks, cost, success) {
        return Err(RouteError::WrongTotals);
    }
    if fee > query.limits.max_fee {
        return Err(RouteError::FeeOverLimit { fee, max: query.limits.max_fee });
    }
    if onion > ONION_ROOM {
        return Err(RouteError::OnionTooLarge { bytes: onion });
    }
    if blocks > query.limits.max_cltv_blocks {
        return Err(RouteError::CltvOverLimit { blocks, max: query.limits.max_cltv_blocks });
    }
    Ok(())
}

/// The hops form a simple path from payer to payee, no longer than allowed.
fn check_shape(route: &Route, query: &Query<'_>) -> Result<(), RouteError> {
    if route.hops.is_empty() {
        return Err(RouteError::Empty);
    }
    if route.hops.len() > query.limits.max_hops {
        return Err(RouteError::TooManyHops { hops: route.hops.len(), max: query.limits.max_hops });
    }
    let mut at = query.from;
    let mut passed = BTreeSet::from([at]);
    for (index, hop) in route.hops.iter().enumerate() {
        if hop.from != at {
            return Err(RouteError::Broken { hop: index, expected: at, found: hop.from });
        }
        at = hop.to;
        if !passed.insert(at) {
            return Err(RouteError::Loop { node: at });
        }
    }
    if at != query.to {
        return Err(RouteError::WrongEnd { expected: query.to, found: at });
    }
    Ok(())
}

/// Checks that the channel may be used for the hop and carries its amount. Returns the policy that governs it: none
/// for the payer's own channels when the payer states their limits.
fn check_channel<'g>(
    channel: &'g GraphChannel,
    index: usize,
    hop: &PathHop,
    query: &Query<'_>,
) -> Result<Option<&'g Policy>, RouteError> {
    let known = query.knowledge;
    let excluded = RouteError::Excluded { hop: index, scid: hop.scid };
    if known.excluded_channels.contains(&hop.scid)
        || known.excluded_directions.contains(&hop.directed())
        || known.excluded_nodes.contains(&hop.from)
        || known.excluded_nodes.contains(&hop.to)
    {
        return Err(excluded);
    }
    let failed = known.failed_amounts.get(&hop.directed()).copied();
    let below_failed = failed.map_or(Msat(u64::MAX), |failed| failed.saturating_sub(Msat(1)));
    let (policy, minimum, maximum) = match known.first_hops.as_ref().filter(|_| index == 0) {
        Some(first_hops) => {
            let first = first_hops.get(&hop.scid).ok_or(excluded)?;
            (None, first.htlc_minimum, first.spendable)
        }
        None => {
            let policy = channel.policy(hop.direction).filter(|policy| !policy.disabled);
            let policy = policy.ok_or(RouteError::Closed { hop: index, scid: hop.scid })?;
            let held = known.in_flight.get(&hop.directed()).copied().unwrap_or_default();
            let free = channel.capacity().to_msat().saturating_sub(held);
            (Some(policy), policy.htlc_minimum, policy.htlc_maximum.min(free))
        }
    };
    let maximum = maximum.min(channel.capacity().to_msat()).min(below_failed);
    // A direction where the smallest amount failed carries nothing.
    if hop.amount < minimum || hop.amount > maximum || failed == Some(Msat::ZERO) {
        return Err(RouteError::AmountOutOfRange { hop: index, amount: hop.amount, minimum, maximum });
    }
    Ok(policy)
}

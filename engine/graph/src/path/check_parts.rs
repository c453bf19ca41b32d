//! The judge of payments in parts: whether they may be used for a query together.
//!
//! Each part goes before [`super::check`] as a payment of its own; what only all of them together can break is counted
//! here anew, from the routes alone. Does not judge whether a better split exists.

use std::collections::BTreeMap;

use fulmen_wire::units::Msat;
use thiserror::Error;

use crate::graph::{ChannelGraph, DirectedChannel};
use crate::path::check::{RouteError, check};
use crate::path::multi::Parts;
use crate::path::{Limits, Query};

/// What is wrong with parts.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PartsError {
    /// There are more than allowed, or none.
    #[error("there are {parts} parts, 1 to {max} are allowed")]
    Count {
        /// How many there are.
        parts: usize,
        /// The bound.
        max: usize,
    },
    /// A part could not be used by itself.
    #[error("part {part}: {error}")]
    Part {
        /// Its place.
        part: usize,
        /// What is wrong with it.
        error: RouteError,
    },
    /// The parts' amounts are not the payment's.
    #[error("the parts add up to {found}, not to {expected}")]
    WrongSum {
        /// The payment's amount.
        expected: Msat,
        /// The sum.
        found: Msat,
    },
    /// All parts together put more on a channel than it is thought to carry.
    #[error("the parts put {amount} on channel {} ({:?}), which carries {maximum}", channel.scid, channel.direction)]
    Overfull {
        /// The channel.
        channel: DirectedChannel,
        /// What they put on it.
        amount: Msat,
        /// What it carries.
        maximum: Msat,
    },
    /// All fees together are over the limit.
    #[error("the fees are {fee}, {max} is allowed")]
    FeeOverLimit {
        /// The fees.
        fee: Msat,
        /// The bound.
        max: Msat,
    },
    /// The stated totals are not those of the parts.
    #[error("the totals do not follow from the parts")]
    WrongTotals,
}

/// Judges `parts` as an answer to `query` over `graph`, in at most `parts_max` parts.
///
/// # Errors
/// The first thing found wrong.
pub fn check_parts(
    graph: &ChannelGraph,
    parts: &Parts,
    query: &Query<'_>,
    parts_max: usize,
) -> Result<(), PartsError> {
    let routes = &parts.routes;
    if routes.is_empty() || routes.len() > parts_max {
        return Err(PartsError::Count { parts: routes.len(), max: parts_max });
    }
    let mut loads: BTreeMap<DirectedChannel, Msat> = BTreeMap::new();
    let (mut found, mut total, mut fee) = (Msat::ZERO, Msat::ZERO, Msat::ZERO);
    for (part, route) in routes.iter().enumerate() {
        let amount = route.hops.last().map_or(Msat::ZERO, |hop| hop.amount);
        let limits = Limits { max_fee: Msat::MAX_MONEY, ..query.limits };
        let own = Query { amount, limits, ..query.clone() };
        check(graph, route, &own).map_err(|error| PartsError::Part { part, error })?;
        found = found.saturating_add(amount);
        total = total.saturating_add(route.total_amount);
        fee = fee.saturating_add(route.fee);
        for hop in &route.hops {
            let load = loads.entry(hop.directed()).or_default();
            *load = load.saturating_add(hop.amount);
        }
    }
    if found != query.amount {
        return Err(PartsError::WrongSum { expected: query.amount, found });
    }
    for (channel, amount) in loads {
        let maximum = carries(graph, channel, query);
        if amount > maximum {
            return Err(PartsError::Overfull { channel, amount, maximum });
        }
    }
    if fee > query.limits.max_fee {
        return Err(PartsError::FeeOverLimit { fee, max: query.limits.max_fee });
    }
    if (parts.total_amount, parts.fee) != (total, fee) {
        return Err(PartsError::WrongTotals);
    }
    Ok(())
}

/// What a direction carries for all parts together: no HTLC limit counts, since each part is an HTLC of its own.
fn carries(graph: &ChannelGraph, directed: DirectedChannel, query: &Query<'_>) -> Msat {
    let known = query.knowledge;
    let Some(channel) = graph.channel(directed.scid) else { return Msat::ZERO };
    let capacity = channel.capacity().to_msat();
    let failed =
        known.failed_amounts.get(&directed).map_or(capacity, |failed| failed.saturating_sub(Msat(1)));
    let first_hops = known.first_hops.as_ref().filter(|_| channel.origin(directed.direction) == query.from);
    let spendable =
        first_hops.and_then(|first_hops| first_hops.get(&directed.scid)).map(|first| first.spendable);
    let in_flight = known.in_flight.get(&directed).copied().unwrap_or_default();
    match spendable {
        // What is in flight is gone from it already.
        Some(spendable) => capacity.min(failed).min(spendable),
        None => failed.min(capacity.saturating_sub(in_flight)),
    }
}

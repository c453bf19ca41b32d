//! The checker of payments in parts: whether the parts may be used together for a query.
//!
//! Each part is checked by [`super::check`] as a payment of its share. The conditions on all parts together are
//! computed here from the routes alone. Does not check whether a better split exists.

use std::collections::BTreeMap;

use fulmen_wire::units::Msat;
use thiserror::Error;

use crate::graph::{ChannelGraph, DirectedChannel};
use crate::path::check::{RouteError, check};
use crate::path::multi::Parts;
use crate::path::{Limits, Query};

/// The fault of a payment in parts.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PartsError {
    /// There are more parts than allowed, or none.
    #[error("there are {parts} parts, 1 to {max} are allowed")]
    Count {
        /// The number of parts.
        parts: usize,
        /// The limit.
        max: usize,
    },
    /// A part could not be used alone.
    #[error("part {part}: {error}")]
    Part {
        /// The part's index.
        part: usize,
        /// The part's fault.
        error: RouteError,
    },
    /// The parts do not add up to the payment's amount.
    #[error("the parts add up to {found}, not to {expected}")]
    WrongSum {
        /// The payment's amount.
        expected: Msat,
        /// The sum.
        found: Msat,
    },
    /// All parts together put more on a channel than it carries.
    #[error("the parts put {amount} on channel {} ({:?}), which carries {maximum}", channel.scid, channel.direction)]
    Overfull {
        /// The channel.
        channel: DirectedChannel,
        /// The sum of the parts.
        amount: Msat,
        /// The most that the channel carries, as far as is known.
        maximum: Msat,
    },
    /// The sum of all fees exceeds the limit.
    #[error("the fees are {fee}, {max} is allowed")]
    FeeOverLimit {
        /// The fees.
        fee: Msat,
        /// The limit.
        max: Msat,
    },
    /// The stated totals are not those of the parts.
    #[error("the totals do not follow from the parts")]
    WrongTotals,
}

/// Checks `parts` as an answer to `query` over `graph`, in at most `parts_max` parts.
///
/// # Errors
/// The first fault found.
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

/// The most that all parts together may put on a direction. HTLC limits do not count, since each part is an HTLC.
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
        // `spendable` already excludes amounts in flight.
        Some(spendable) => capacity.min(failed).min(spendable),
        None => failed.min(capacity.saturating_sub(in_flight)),
    }
}

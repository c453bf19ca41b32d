//! Queries, limits, knowledge and routes: the types shared by all path-finders and checkers.
//!
//! Implements no search: [`search`] is the fast path-finder, [`plain`] the simple reference it is tested against, and
//! [`check`] validates routes without knowing how they were found. Amounts and expiries follow BOLT 7 ("HTLC Fees",
//! "Routing Example"): they grow from the payee towards the payer by the fee and the `cltv_expiry_delta` of each
//! forwarding node.

pub mod alternatives;
pub mod batch;
pub mod check;
pub mod check_parts;
pub mod ending;
mod flow;
mod flow_costs;
mod knowledge;
pub mod multi;
pub mod onion_room;
mod parts;
pub mod plain;
pub mod prices;
pub mod reservations;
pub mod search;
pub mod shadow;

use std::collections::{BTreeMap, BTreeSet};

use fulmen_wire::units::{BlockHeight, CltvDelta, Msat, NodeId, Scid};
use thiserror::Error;

pub use crate::cost::Cost;
use crate::graph::{DirectedChannel, Direction};
use crate::scoring::{Probability, Scorer, Weights};

/// The most hops that an onion of BOLT 4 has room for, however short their payloads. [`onion_room`] counts exactly.
pub const HOPS_MAX: usize = 26;

/// A request for a route.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The payer.
    pub from: NodeId,
    /// The payee.
    pub to: NodeId,
    /// The amount that the payee receives.
    pub amount: Msat,
    /// The height that expiries are counted from.
    pub height: BlockHeight,
    /// The payee's `min_final_cltv_expiry_delta`, plus any blocks that the payer adds to hide how near the payee is.
    pub final_cltv_delta: CltvDelta,
    /// The limits of the route.
    pub limits: Limits,
    /// The payer's knowledge beyond the public graph.
    pub knowledge: &'a Knowledge,
    /// The price of delay: billionths of the forwarded amount per block. It turns each `cltv_expiry_delta` into a
    /// cost when routes are compared. It is never paid.
    pub risk_billionths: u32,
    /// The prices of uncertainty and of hops when routes are compared.
    pub weights: Weights,
    /// Learned liquidity and the operator's penalties.
    pub scorer: Option<&'a Scorer>,
    /// The current time on the scorer's clock, in seconds; observations fade with their age.
    pub now_seconds: u64,
    /// Bytes of the TLVs in the payee's payload beyond amount and expiry: `payment_data`, `payment_metadata` and
    /// others.
    pub payee_extra_bytes: u32,
}

impl<'a> Query<'a> {
    /// The longest `payment_data`: type, length, secret, total.
    pub const PAYMENT_DATA_BYTES: u32 = 2 + 32 + 8;

    /// The default price of delay: a block costs 15 billionths of the amount it locks.
    pub const RISK_BILLIONTHS: u32 = 15;

    /// A query with the default limits and price of delay, a final delta of 18 blocks, and heights counted from zero.
    #[must_use]
    pub fn new(from: NodeId, to: NodeId, amount: Msat, knowledge: &'a Knowledge) -> Query<'a> {
        Query {
            from,
            to,
            amount,
            height: BlockHeight(0),
            final_cltv_delta: CltvDelta(18),
            limits: Limits::default(),
            knowledge,
            risk_billionths: Query::RISK_BILLIONTHS,
            weights: Weights::FEES,
            scorer: None,
            now_seconds: 0,
            payee_extra_bytes: Query::PAYMENT_DATA_BYTES,
        }
    }
}

/// Limits on a route; each is inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest sum of the fees of all forwarding nodes.
    pub max_fee: Msat,
    /// The most blocks from the current height to the `cltv_expiry` of the first HTLC. The final delta is part of it.
    pub max_cltv_blocks: u32,
    /// The most channels. That the payloads fit into an onion is checked in any case.
    pub max_hops: usize,
}

impl Default for Limits {
    /// No limit on the fee, two weeks of blocks, [`HOPS_MAX`] hops.
    fn default() -> Limits {
        Limits { max_fee: Msat::MAX_MONEY, max_cltv_blocks: 2016, max_hops: HOPS_MAX }
    }
}

/// A payer's knowledge beyond the public graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knowledge {
    /// The payer's own usable channels. When given, a route starts with one of these, within the limits stated here
    /// and not those of its public policy. When `None`, a route may start with any of the payer's channels that has
    /// an enabled policy, within that policy's HTLC limits and the capacity. Either way the payer pays itself no fee.
    pub first_hops: Option<BTreeMap<Scid, FirstHop>>,
    /// For each direction the least amount known to have failed; only smaller amounts are tried again.
    pub failed_amounts: BTreeMap<DirectedChannel, Msat>,
    /// Amounts that other payments have in flight on each direction. They are not available to this payment.
    pub in_flight: BTreeMap<DirectedChannel, Msat>,
    /// Channels that must not be used in either direction.
    pub excluded_channels: BTreeSet<Scid>,
    /// Directions that must not be used.
    pub excluded_directions: BTreeSet<DirectedChannel>,
    /// Nodes that must not be used, as forwarders or as an end.
    pub excluded_nodes: BTreeSet<NodeId>,
}

impl Knowledge {
    /// Records that `amount` failed over a direction. The least amount recorded counts.
    pub fn note_failure(&mut self, channel: DirectedChannel, amount: Msat) {
        let least = self.failed_amounts.entry(channel).or_insert(amount);
        *least = amount.min(*least);
    }
}

/// The payer's knowledge of one of its own channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstHop {
    /// The largest HTLC that the payer can offer here now.
    pub spendable: Msat,
    /// The smallest HTLC the peer accepts.
    pub htlc_minimum: Msat,
}

/// A route: the HTLC on each channel from payer to payee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The hops from payer to payee; at least one.
    pub hops: Vec<PathHop>,
    /// The amount that the payer sends: that of the first hop.
    pub total_amount: Msat,
    /// The sum of the fees of all forwarding nodes.
    pub fee: Msat,
    /// Blocks from the query's height to the expiry of the first HTLC.
    pub total_cltv_blocks: u32,
    /// The figure that the search minimised.
    pub cost: Cost,
    /// The probability that the liquidity is there on every hop.
    pub success: Probability,
}

/// One hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathHop {
    /// The node that offers the HTLC.
    pub from: NodeId,
    /// The node that receives it.
    pub to: NodeId,
    /// The channel.
    pub scid: Scid,
    /// The direction in which the channel is crossed.
    pub direction: Direction,
    /// The `amount_msat` of the HTLC on this channel.
    pub amount: Msat,
    /// The absolute `cltv_expiry` of the HTLC on this channel.
    pub cltv_expiry: BlockHeight,
    /// The fee that `from` takes for forwarding onto this channel; zero on the payer's own channel.
    pub fee: Msat,
}

impl PathHop {
    /// The direction as a key into [`Knowledge`].
    #[must_use]
    pub const fn directed(&self) -> DirectedChannel {
        DirectedChannel { scid: self.scid, direction: self.direction }
    }
}

/// The reason why there is no route.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoRoute {
    /// One of the ends has no channel in the graph.
    #[error("node {node} has no channel in the graph")]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// One of the ends is excluded.
    #[error("node {node} is excluded")]
    ExcludedNode {
        /// The node.
        node: NodeId,
    },
    /// Payer and payee are the same node.
    #[error("node {node} would pay itself")]
    SelfPayment {
        /// The node.
        node: NodeId,
    },
    /// BOLT 2 forbids an HTLC of zero.
    #[error("a payment of 0 msat has no route")]
    ZeroAmount,
    /// No sequence of channels carries the amount, at any fee, expiry and number of hops.
    #[error("no channels carry {amount} to the payee")]
    Unreachable {
        /// The amount that the payee was to receive.
        amount: Msat,
    },
    /// Channels lead to the payee, but every route exceeds a limit. Each figure is the least value of one limit with
    /// which a route exists while the other limits stay as they are. It is `None` when no value of that limit alone
    /// suffices, or when it was not determined: by [`plain`], or because the search for it reached its limit of
    /// comparisons.
    #[error("no route carries {amount} within the limits{}", would_suffice(*max_fee, *max_cltv_blocks, *max_hops))]
    OverLimits {
        /// The amount that the payee was to receive.
        amount: Msat,
        /// The least [`Limits::max_fee`] that suffices.
        max_fee: Option<Msat>,
        /// The least [`Limits::max_cltv_blocks`] that suffices.
        max_cltv_blocks: Option<u32>,
        /// The least [`Limits::max_hops`] that suffices.
        max_hops: Option<usize>,
    },
    /// The search reached its limit of comparisons. Whether there is a route, or a cheaper one than `best`, is not
    /// known.
    #[error("the search for a route ended after {comparisons} comparisons of partial routes")]
    SearchLimitReached {
        /// How many partial routes were compared.
        comparisons: usize,
        /// A route that satisfies the query, though perhaps not the cheapest.
        best: Option<Box<Route>>,
    },
}

/// The end of [`NoRoute::OverLimits`]'s text: the values that would suffice.
fn would_suffice(max_fee: Option<Msat>, max_cltv_blocks: Option<u32>, max_hops: Option<usize>) -> String {
    let fee = max_fee.map(|fee| format!("a fee of {fee}"));
    let blocks = max_cltv_blocks.map(|blocks| format!("{blocks} blocks"));
    let hops = max_hops.map(|hops| format!("{hops} hops"));
    let enough: Vec<String> = [fee, blocks, hops].into_iter().flatten().collect();
    if enough.is_empty() { String::new() } else { format!("; {} would suffice", enough.join(" or ")) }
}

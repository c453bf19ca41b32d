//! What a route is asked for and what it looks like: the words shared by every path-finder and by the checker.
//!
//! Implements no search itself: [`search`] is the fast one, [`plain`] the simple one it is held to, and [`check`] judges
//! routes without knowing how they were found. Amounts and expiries follow BOLT 7 ("HTLC Fees", "Routing Example"): they
//! grow from the payee towards the payer by each forwarding node's own fee and `cltv_expiry_delta`.

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
pub mod payment;
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

/// More hops than this fit into no onion of BOLT 4, however short their payloads ([`onion_room`] counts exactly).
pub const HOPS_MAX: usize = 26;

/// What a payer asks for.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The payer.
    pub from: NodeId,
    /// The payee.
    pub to: NodeId,
    /// What the payee is to receive.
    pub amount: Msat,
    /// The height expiries are counted from.
    pub height: BlockHeight,
    /// The payee's `min_final_cltv_expiry_delta`, plus whatever the payer adds to hide the payee's place.
    pub final_cltv_delta: CltvDelta,
    /// What the route must not exceed.
    pub limits: Limits,
    /// What the payer knows beyond the public graph.
    pub knowledge: &'a Knowledge,
    /// What a block of delay costs on each forwarded millisatoshi, in billionths: it turns `cltv_expiry_delta`s into
    /// money when routes are compared. It never changes what is paid.
    pub risk_billionths: u32,
    /// What success and few hops are worth when routes are compared.
    pub weights: Weights,
    /// What has been learned of channels, and what the operator thinks of them.
    pub scorer: Option<&'a Scorer>,
    /// The time by which what was learned has faded, in seconds on the scorer's clock.
    pub now_seconds: u64,
    /// The bytes of the TLVs in the payee's payload beyond amount and expiry: `payment_data`, `payment_metadata` and the
    /// like.
    pub payee_extra_bytes: u32,
}

impl<'a> Query<'a> {
    /// What `payment_data` takes at most: type, length, secret, total.
    pub const PAYMENT_DATA_BYTES: u32 = 2 + 32 + 8;

    /// The price of delay when nobody says otherwise: a block costs 15 billionths of the amount it locks.
    pub const RISK_BILLIONTHS: u32 = 15;

    /// A query with the default limits and price of delay, a final delta of 18 blocks, and heights counted from zero, to
    /// which only fees and delay matter.
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

/// Bounds on a route; each is inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most all forwarding nodes together may take.
    pub max_fee: Msat,
    /// The most blocks the first HTLC may be locked for: its `cltv_expiry` less the current height.
    pub max_cltv_blocks: u32,
    /// The most channels a route may have; that its payloads fit into an onion is checked in any case.
    pub max_hops: usize,
}

impl Default for Limits {
    /// No bound on the fee, two weeks of blocks, [`HOPS_MAX`] hops.
    fn default() -> Limits {
        Limits { max_fee: Msat::MAX_MONEY, max_cltv_blocks: 2016, max_hops: HOPS_MAX }
    }
}

/// What a payer knows beyond the public graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knowledge {
    /// The payer's own usable channels. When given, a route starts with one of these, bounded by what is known of it
    /// and not by its public policy. When `None`, a route may start with any of the payer's channels that has an
    /// enabled policy, within that policy's HTLC limits and the capacity. Either way the payer pays itself no fee.
    pub first_hops: Option<BTreeMap<Scid, FirstHop>>,
    /// The least amount each direction is known to have failed with: only smaller amounts try it again.
    pub failed_amounts: BTreeMap<DirectedChannel, Msat>,
    /// What other payments have put on each direction: it is not there for this one.
    pub in_flight: BTreeMap<DirectedChannel, Msat>,
    /// Channels not to be used in either direction.
    pub excluded_channels: BTreeSet<Scid>,
    /// Directions not to be used.
    pub excluded_directions: BTreeSet<DirectedChannel>,
    /// Nodes not to be used, be it as forwarders or as an end.
    pub excluded_nodes: BTreeSet<NodeId>,
}

impl Knowledge {
    /// Notes that `amount` failed over a direction; the least amount noted counts.
    pub fn note_failure(&mut self, channel: DirectedChannel, amount: Msat) {
        let least = self.failed_amounts.entry(channel).or_insert(amount);
        *least = amount.min(*least);
    }
}

/// What the payer knows of one of its own channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstHop {
    /// The largest HTLC the payer can offer here now.
    pub spendable: Msat,
    /// The smallest HTLC the peer accepts.
    pub htlc_minimum: Msat,
}

/// A way to pay: the HTLC on each channel from payer to payee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The channels in the order they are crossed; at least one.
    pub hops: Vec<PathHop>,
    /// What the payer sends: the first hop's amount.
    pub total_amount: Msat,
    /// What all forwarding nodes together take.
    pub fee: Msat,
    /// For how many blocks the first HTLC may be locked.
    pub total_cltv_blocks: u32,
    /// What the search minimised.
    pub cost: Cost,
    /// How likely the liquidity is thought to be there on every hop.
    pub success: Probability,
}

/// One channel of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathHop {
    /// The node that offers the HTLC.
    pub from: NodeId,
    /// The node that receives it.
    pub to: NodeId,
    /// The channel.
    pub scid: Scid,
    /// The way the channel is crossed.
    pub direction: Direction,
    /// The `amount_msat` of the HTLC on this channel.
    pub amount: Msat,
    /// The absolute `cltv_expiry` of the HTLC on this channel.
    pub cltv_expiry: BlockHeight,
    /// What `from` takes for forwarding onto this channel; nothing on the payer's own.
    pub fee: Msat,
}

impl PathHop {
    /// The direction crossed, as a key into [`Knowledge`].
    #[must_use]
    pub const fn directed(&self) -> DirectedChannel {
        DirectedChannel { scid: self.scid, direction: self.direction }
    }
}

/// Why there is no route.
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
    /// Payer and payee are one.
    #[error("node {node} would pay itself")]
    SelfPayment {
        /// The node.
        node: NodeId,
    },
    /// An HTLC of nothing is not allowed (BOLT 2).
    #[error("a payment of 0 msat has no route")]
    ZeroAmount,
    /// No sequence of channels carries the amount, whatever the fee, expiry and number of hops.
    #[error("no channels carry {amount} to the payee")]
    Unreachable {
        /// What the payee was to receive.
        amount: Msat,
    },
    /// Channels lead to the payee, but every route exceeds a limit. Each figure is the least value of one limit with which a
    /// route exists while the other limits stay as they are. It is `None` when no value of that limit alone suffices, or
    /// when it was not determined: by [`plain`], or because the search for it reached its limit of comparisons.
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
    /// The search reached its limit of comparisons. Whether there is a route, or a cheaper one than `best`, is not known.
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

//! Paying: the life of a payment from its request to its preimage or its failure.
//!
//! Owns the payments a node has under way ([`Payer`]): planning them with [`graph`](crate::graph), in one part or
//! several (BOLT 4, "Basic Multi-Part Payments"), building the onions with [`proto`](crate::proto), reading failures,
//! learning from them, trying again within limits, and the outcome. Does no I/O, reads no clock and draws no random
//! number: time, entropy, the graph and the node's channels are arguments, and HTLCs to send come out as values. It
//! does not touch channels: the engine sends the HTLCs and reports how each ended.
//!
//! **Restarts.** A payer keeps its payments in memory only. The HTLCs themselves survive with the engine, whose
//! events name them by attempt id, from which [`PaymentId::of_attempt`] gives the payment. An embedder that must know
//! the outcome of a payment after a restart writes its [`PaymentRequest`] down before it hands the first
//! [`PaymentUpdate::Send`] to the engine, and removes it with [`PaymentUpdate::Ended`]. A request found after a
//! restart may have HTLCs in flight: it must not be begun again before all of them have failed, or it could be paid
//! twice. To resume such a payment, the embedder would have to store the routes of its parts too; the session keys
//! derive from [`PaymentRequest::entropy`].
//!
//! **Bounds.** [`PayerConfig::payments_max`] payments; each has at most [`PaymentLimits::parts_max`] routes and onion
//! secrets in memory, and a [`FailedPart`] for each HTLC that failed, of which [`PaymentLimits::rounds_max`] times
//! [`PaymentLimits::parts_max`] are possible, and never more than 65,535.

mod failure;
mod knowledge;
mod outcome;
mod payment;
mod request;
mod router;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use fulmen_graph::path::reservations::Reservations;
use fulmen_graph::path::shadow::shadow_offset;
use fulmen_graph::path::{FirstHop, Query};
use fulmen_graph::scoring::{Scorer, Weights};
use fulmen_graph::snapshot::Snapshot;
use fulmen_proto::forward::FailureReason;
use fulmen_wire::units::{BlockHeight, CltvDelta, NodeId, PaymentHash, PaymentPreimage, Scid};

pub use failure::{FailedPart, FailureCause};
pub use outcome::{BeginError, PaymentFailure, PaymentOutcome, PaymentUpdate, SettledPart, UnknownAttempt};
pub use request::{PaymentId, PaymentLimits, PaymentRequest};
pub use router::{RouteRequest, Router};

use knowledge::Learned;
use payment::{Context, Payment};

/// The paying side of a node.
///
/// Each call that feeds it returns the resulting [`PaymentUpdate`]s, in order:
///
/// 1. [`Payer::begin`] takes a [`PaymentRequest`]. Every [`PaymentUpdate::Send`] goes to the engine as a command.
/// 2. Each of these HTLCs ends in one event of the engine. `HtlcSettled` goes to [`Payer::htlc_settled`], `HtlcFailed`
///    to [`Payer::htlc_failed`], which may return further HTLCs to send. If the engine does not take the command,
///    [`Payer::htlc_failed`] is called with a local failure instead.
/// 3. The payment ends with exactly one [`PaymentUpdate::Ended`], once its last HTLC has ended.
///
/// There are no timers: a payment that has not ended has an HTLC in flight.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use fulmen::graph::path::multi::PartFinder;
/// use fulmen::graph::path::{FirstHop, reservations::Reservations};
/// use fulmen::graph::snapshot::Snapshot;
/// use fulmen::graph::{ChannelGraph, Policy};
/// use fulmen::pay::{Payer, PayerConfig, PayerView, PaymentId, PaymentRequest, PaymentUpdate};
/// use fulmen::proto::keys::NodeSeed;
/// use fulmen::wire::units::{BlockHeight, CltvDelta, Msat, NodeId, PaymentPreimage, Sat, Scid};
///
/// // Alice has a channel with Bob, who keeps one with Carol.
/// let secp = bitcoin::secp256k1::Secp256k1::new();
/// let id = |seed| NodeId(NodeSeed::new([seed; 32]).node_secret().public_key(&secp).serialize());
/// let [alice, bob, carol] = [id(1), id(2), id(3)];
/// let mut graph = ChannelGraph::new();
/// graph.add_channel(Scid(1), [alice, bob], Sat(1_000_000))?;
/// graph.add_channel(Scid(2), [bob, carol], Sat(1_000_000))?;
/// let policy = Policy {
///     fee_base: Msat(1_000),
///     fee_proportional_millionths: 100,
///     cltv_expiry_delta: CltvDelta(40),
///     htlc_minimum: Msat(1),
///     htlc_maximum: Msat(900_000_000),
///     disabled: false,
/// };
/// graph.set_policy(Scid(2), bob, Some(policy))?;
///
/// let (snapshot, mut finder) = (Snapshot::new(&graph), PartFinder::new());
/// // The amount that Alice can spend now, from `proto::channel::Channel::available_out`.
/// let own_channels = BTreeMap::from([(Scid(1), FirstHop { spendable: Msat(500_000_000), htlc_minimum: Msat(1) })]);
/// let view = PayerView { snapshot: &snapshot, own_channels: &own_channels, height: BlockHeight(100), unix_ms: 0 };
///
/// let mut payer = Payer::new(alice, PayerConfig::default(), Reservations::new());
/// let (name, preimage, entropy) = (PaymentId::new(1).expect("a small number"), PaymentPreimage([7; 32]), [9; 32]);
/// let request = PaymentRequest::keysend(name, carol, Msat(50_000_000), preimage, CltvDelta(18), entropy);
/// let updates = payer.begin(request, &view, &mut finder)?;
/// let [PaymentUpdate::Send(htlc)] = &updates[..] else { panic!("one part is enough") };
/// assert_eq!(htlc.amount, Msat(50_006_000)); // Bob's fee is 1 sat and 100 millionths
///
/// // Here the engine sends it, and tells with `Event::HtlcSettled` that it was fulfilled.
/// let updates = payer.htlc_settled(htlc.attempt_id, preimage, &view)?;
/// let Some(PaymentUpdate::Ended(outcome)) = updates.last() else { panic!("no part is left") };
/// assert_eq!((outcome.result.clone(), outcome.fee()), (Ok(preimage), Msat(6_000)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Payer {
    node: NodeId,
    config: PayerConfig,
    reservations: Arc<Reservations>,
    learned: Learned,
    payments: BTreeMap<PaymentId, Payment>,
    /// The payments under way, by the hash that locks their HTLCs.
    by_hash: BTreeMap<PaymentHash, PaymentId>,
}

/// The settings of a payer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayerConfig {
    /// The most payments that may be under way at once.
    pub payments_max: usize,
    /// How routes are compared: fees against success and length.
    pub weights: Weights,
    /// The price of delay when routes are compared, in billionths of the locked amount per block.
    pub risk_billionths: u32,
    /// The most blocks that are added to the payee's delta, so that the nodes before it cannot tell that it is the
    /// payee (BOLT 7, "Recommendations for Routing").
    pub shadow_blocks_max: CltvDelta,
    /// Whether later payments use the results of earlier ones. If not, a payment learns from its own failures only.
    pub is_learning: bool,
    /// Whether HTLCs in flight count against the liquidity that later routes may use.
    pub is_reserving: bool,
}

impl Default for PayerConfig {
    fn default() -> PayerConfig {
        PayerConfig {
            payments_max: 10_000,
            weights: Weights::default(),
            risk_billionths: Query::RISK_BILLIONTHS,
            shadow_blocks_max: CltvDelta(144),
            is_learning: true,
            is_reserving: true,
        }
    }
}

/// The graph, channels, height and time at the moment of a call.
#[derive(Clone, Copy, Debug)]
pub struct PayerView<'a> {
    /// The public graph.
    pub snapshot: &'a Snapshot,
    /// The node's channels that can carry an HTLC now, and the amount that can be spent on each.
    pub own_channels: &'a BTreeMap<Scid, FirstHop>,
    /// The height of the chain, to which expiry deltas are added.
    pub height: BlockHeight,
    /// The time, in milliseconds since 1970. Learned results lose weight as it advances.
    pub unix_ms: u64,
}

impl PayerView<'_> {
    const fn now_seconds(&self) -> u64 {
        self.unix_ms / 1000
    }
}

impl Payer {
    /// Creates the paying side of `node`. Concurrent payers of one node share `reservations`, so that they do not plan
    /// with the same liquidity twice.
    #[must_use]
    pub fn new(node: NodeId, config: PayerConfig, reservations: Arc<Reservations>) -> Payer {
        let learned = Learned::new(config.is_learning);
        let (payments, by_hash) = (BTreeMap::new(), BTreeMap::new());
        Payer { node, config, reservations, learned, payments, by_hash }
    }

    /// Begins a payment.
    ///
    /// # Errors
    /// When a payment with this id or hash is under way, or [`PayerConfig::payments_max`] payments are. Nothing has
    /// changed then. A missing route is not an error: the payment ends with that outcome.
    pub fn begin(
        &mut self,
        request: PaymentRequest,
        view: &PayerView<'_>,
        router: &mut dyn Router,
    ) -> Result<Vec<PaymentUpdate>, BeginError> {
        let id = request.id;
        if self.payments.contains_key(&id) {
            return Err(BeginError::DuplicateId(id));
        }
        if let Some(other) = self.by_hash.get(&request.payment_hash) {
            return Err(BeginError::DuplicateHash(*other));
        }
        if self.payments.len() >= self.config.payments_max {
            return Err(BeginError::TooManyPayments { max: self.config.payments_max });
        }
        self.learned.payment_begins(view.snapshot);
        let blocks_max = self.config.shadow_blocks_max;
        let offset = shadow_offset(view.snapshot, request.payee, blocks_max, request.shadow_seed());
        self.by_hash.insert(request.payment_hash, id);
        self.payments.insert(id, Payment::new(request, offset));
        let mut updates = Vec::new();
        self.with(id, view, router, |payment, context| payment.send_rest(context, &mut updates));
        self.end_if_over(id, &mut updates);
        Ok(updates)
    }

    /// Handles the event `HtlcSettled`: an HTLC was fulfilled.
    ///
    /// # Errors
    /// When this payer has no such attempt in flight. Nothing has changed then.
    pub fn htlc_settled(
        &mut self,
        attempt_id: u64,
        preimage: PaymentPreimage,
        view: &PayerView<'_>,
    ) -> Result<Vec<PaymentUpdate>, UnknownAttempt> {
        let id = self.payment_of(attempt_id)?;
        let mut updates = Vec::new();
        if let Some(payment) = self.payments.get_mut(&id) {
            payment.settled(attempt_id, preimage, &mut self.learned, view, &mut updates);
        }
        self.end_if_over(id, &mut updates);
        Ok(updates)
    }

    /// Handles the event `HtlcFailed`: an HTLC failed. Also called for an HTLC that the engine did not take.
    ///
    /// # Errors
    /// When this payer has no such attempt in flight. Nothing has changed then.
    pub fn htlc_failed(
        &mut self,
        attempt_id: u64,
        reason: &FailureReason,
        view: &PayerView<'_>,
        router: &mut dyn Router,
    ) -> Result<Vec<PaymentUpdate>, UnknownAttempt> {
        let id = self.payment_of(attempt_id)?;
        let mut updates = Vec::new();
        self.with(id, view, router, |payment, context| {
            payment.failed(attempt_id, reason, context, &mut updates);
        });
        self.end_if_over(id, &mut updates);
        Ok(updates)
    }

    /// Sends no further parts of a payment. It may succeed all the same: HTLCs in flight cannot be called back. Does
    /// nothing for a payment that is not under way.
    pub fn abandon(&mut self, id: PaymentId) -> Vec<PaymentUpdate> {
        let mut updates = Vec::new();
        if let Some(payment) = self.payments.get_mut(&id) {
            payment.stop(PaymentFailure::Abandoned);
        }
        self.end_if_over(id, &mut updates);
        updates
    }

    /// How many payments are under way.
    #[must_use]
    pub fn payments_under_way(&self) -> usize {
        self.payments.len()
    }

    /// How many HTLCs are in flight.
    #[must_use]
    pub fn htlcs_in_flight(&self) -> usize {
        self.payments.values().map(Payment::parts_in_flight).sum()
    }

    /// The liquidity learned from results of payments, and the operator's penalties.
    #[must_use]
    pub const fn scorer(&self) -> &Scorer {
        &self.learned.scorer
    }

    /// As [`Payer::scorer`], to set penalties or to load the results of an earlier run.
    pub const fn scorer_mut(&mut self) -> &mut Scorer {
        &mut self.learned.scorer
    }

    /// The payment that has this attempt in flight.
    fn payment_of(&self, attempt_id: u64) -> Result<PaymentId, UnknownAttempt> {
        let id = PaymentId::of_attempt(attempt_id);
        let is_ours = self.payments.get(&id).is_some_and(|payment| payment.holds(attempt_id));
        if is_ours { Ok(id) } else { Err(UnknownAttempt(attempt_id)) }
    }

    fn with(
        &mut self,
        id: PaymentId,
        view: &PayerView<'_>,
        router: &mut dyn Router,
        change: impl FnOnce(&mut Payment, &mut Context<'_>),
    ) {
        let Payer { node, config, reservations, learned, payments, .. } = self;
        if let Some(payment) = payments.get_mut(&id) {
            change(payment, &mut Context { node: *node, config, reservations, learned, view, router });
        }
    }

    fn end_if_over(&mut self, id: PaymentId, updates: &mut Vec<PaymentUpdate>) {
        if self.payments.get(&id).is_some_and(Payment::is_over)
            && let Some(payment) = self.payments.remove(&id)
        {
            self.by_hash.remove(&payment.request.payment_hash);
            updates.push(PaymentUpdate::Ended(Box::new(payment.outcome())));
        }
    }
}

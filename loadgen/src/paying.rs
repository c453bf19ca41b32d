//! The paying side of a simulated node: [`fulmen::pay::Payer`], fed with the run's payments.
//!
//! Owns: the parameters of each payment, the routes of those that are made to fail ([`PaymentRouter`]), and the run's
//! verdict on an outcome. Retries, parts and learning are the payer's. A payer's knowledge is that of a real one: the
//! public graph, its own channels' balances, and the failures its onions come back with.
//!
//! Invariant: each payment that is begun ends in exactly one [`Outcome`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fulmen::pay::{
    FailedPart, Payer, PayerConfig, PayerView, PaymentFailure, PaymentId, PaymentLimits, PaymentOutcome,
    PaymentRequest, PaymentUpdate, RouteRequest, Router, UnknownAttempt,
};
use fulmen_graph::ChannelGraph;
use fulmen_graph::path::multi::PartFinder;
use fulmen_graph::path::reservations::Reservations;
use fulmen_graph::path::{FirstHop, Limits, NoRoute, Query, Route};
use fulmen_graph::scoring::Weights;
use fulmen_graph::snapshot::Snapshot;
use fulmen_proto::forward::{FailureReason, SendHtlc};
use fulmen_wire::units::{BlockHeight, CltvDelta, Msat, NodeId, PaymentPreimage, Scid};

use crate::fault::{self, Expected, FaultKind, FaultyRoute};
use crate::seed::{Purpose, Seed};

/// The `min_final_cltv_expiry_delta` of every invoice of the run.
pub(crate) const FINAL_CLTV_DELTA: CltvDelta = CltvDelta(40);
/// Draws of one payment are numbered below this.
pub(crate) const DRAWS_PER_PAYMENT: u64 = 1 << 7;
/// Faulty routes of one draw are numbered below this.
const ROUTES_PER_DRAW: u64 = 1 << 10;

/// One payment to make.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Its number in the run.
    pub(crate) payment: u64,
    /// How often it was drawn before, below [`DRAWS_PER_PAYMENT`]: each draw makes new onions, as a node
    /// refuses an onion that it has seen.
    pub(crate) redraw: u64,
    /// The payee.
    pub(crate) to: NodeId,
    /// The amount the payee is to receive.
    pub(crate) amount: Msat,
    /// The rule to break, if it is to fail.
    pub(crate) fault: Option<FaultKind>,
    /// When it was handed over.
    pub(crate) begun: Duration,
}

impl Order {
    /// The number of this draw among all draws of the run.
    const fn draw(&self) -> u64 {
        self.payment * DRAWS_PER_PAYMENT + self.redraw
    }
}

/// The result of a call: HTLCs to send, and payments that are over.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// HTLCs to send.
    pub(crate) send: Vec<SendHtlc>,
    /// Payments that are over.
    pub(crate) ended: Vec<Outcome>,
}

/// How a payment ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Its number.
    pub(crate) payment: u64,
    /// From handing it over until the payer had the preimage, or knew that it failed.
    pub(crate) latency: Duration,
    /// The verdict.
    pub(crate) end: End,
    /// All that its payer knows of it.
    pub(crate) payer: PaymentOutcome,
}

/// The verdict on a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The preimage came back.
    Succeeded,
    /// An ordinary payment failed.
    Failed,
    /// A faulty payment failed as it had to.
    FailedAsExpected,
    /// A faulty payment failed at another hop, or with another code, that no retry could mend.
    FailedOtherwise,
    /// The fault cannot be caused between these two nodes now: another payment must be drawn.
    NoFaultyRoute,
}

/// The amounts that a node can spend on its own channels at a moment.
pub(crate) type OwnChannels = BTreeMap<Scid, FirstHop>;

/// The graph and settings that all payers of a run share.
#[derive(Clone, Debug)]
pub(crate) struct Routing {
    /// The public graph, and the same laid out for searching.
    pub(crate) graph: Arc<ChannelGraph>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) seed: Seed,
    /// How often a payment may try.
    pub(crate) attempts_max: u32,
    /// In how many parts it may go.
    pub(crate) parts_max: usize,
    /// Whether the results of payments are remembered for later ones.
    pub(crate) learning: bool,
}

/// The moment of a call, as the node sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    /// The time since the run began.
    pub(crate) now: Duration,
    /// The height of the chain.
    pub(crate) height: BlockHeight,
    /// The amounts that can be spent on the node's channels.
    pub(crate) own: &'a OwnChannels,
}

/// The paying side of one node.
#[derive(Debug)]
pub(crate) struct PayingSide {
    payer: Payer,
    router: PaymentRouter,
    routing: Routing,
    live: BTreeMap<PaymentId, Live>,
}

/// A payment under way.
#[derive(Debug)]
struct Live {
    order: Order,
    /// When the preimage came back.
    proven: Option<Duration>,
}

impl PayingSide {
    /// The paying side of `node`, which knows the public graph.
    pub(crate) fn new(node: NodeId, routing: Routing) -> PayingSide {
        let config = PayerConfig {
            payments_max: usize::MAX,
            // Where and with which code a faulty payment fails is known beforehand: nothing is added to expiries.
            shadow_blocks_max: CltvDelta(0),
            is_learning: routing.learning,
            is_reserving: routing.parts_max > 1,
            ..PayerConfig::default()
        };
        let router = PaymentRouter {
            finder: PartFinder::new(),
            graph: Arc::clone(&routing.graph),
            seed: routing.seed,
            faulty: BTreeMap::new(),
        };
        PayingSide {
            payer: Payer::new(node, config, Reservations::new()),
            router,
            routing,
            live: BTreeMap::new(),
        }
    }

    /// Begins a payment.
    ///
    /// # Errors
    /// Why the payer refuses it.
    pub(crate) fn begin(&mut self, order: Order, moment: Moment<'_>) -> Result<Steps, String> {
        let draw = order.draw();
        let id = PaymentId::new(draw).ok_or("is given a payment of too large a number")?;
        let seed = self.routing.seed;
        let hash = (seed.payment_hash(order.payment), seed.payment_secret(order.payment));
        let entropy = seed.bytes(Purpose::SessionKey, draw);
        let request = PaymentRequest {
            limits: PaymentLimits {
                route: Limits::default(),
                parts_max: if order.fault.is_some() { 1 } else { self.routing.parts_max },
                rounds_max: self.routing.attempts_max,
                deadline_unix_ms: None,
            },
            ..PaymentRequest::new(id, order.to, order.amount, hash, FINAL_CLTV_DELTA, entropy)
        };
        if let Some(kind) = order.fault {
            self.router.faulty.insert(id, Faulty { kind, draw, expected: None });
        }
        self.live.insert(id, Live { order, proven: None });
        let view = view(&self.routing, moment);
        let updates = self.payer.begin(request, &view, &mut self.router);
        Ok(self.steps(updates.map_err(|error| error.to_string())?, moment.now))
    }

    /// An HTLC was fulfilled.
    ///
    /// # Errors
    /// When this node has no such attempt in flight.
    pub(crate) fn settled(
        &mut self,
        attempt_id: u64,
        preimage: PaymentPreimage,
        moment: Moment<'_>,
    ) -> Result<Steps, UnknownAttempt> {
        let updates = self.payer.htlc_settled(attempt_id, preimage, &view(&self.routing, moment))?;
        Ok(self.steps(updates, moment.now))
    }

    /// An HTLC failed.
    ///
    /// # Errors
    /// When this node has no such attempt in flight.
    pub(crate) fn failed(
        &mut self,
        attempt_id: u64,
        reason: &FailureReason,
        moment: Moment<'_>,
    ) -> Result<Steps, UnknownAttempt> {
        let view = view(&self.routing, moment);
        let updates = self.payer.htlc_failed(attempt_id, reason, &view, &mut self.router)?;
        Ok(self.steps(updates, moment.now))
    }

    /// Payments begun and not over.
    pub(crate) fn in_flight(&self) -> usize {
        self.payer.payments_under_way()
    }

    fn steps(&mut self, updates: Vec<PaymentUpdate>, now: Duration) -> Steps {
        let mut steps = Steps::default();
        for update in updates {
            match update {
                PaymentUpdate::Send(send) => steps.send.push(send),
                PaymentUpdate::Proven { id, .. } => {
                    if let Some(live) = self.live.get_mut(&id) {
                        live.proven = Some(now);
                    }
                }
                PaymentUpdate::Ended(outcome) => steps.ended.extend(self.ended(*outcome, now)),
                _ => {}
            }
        }
        steps
    }

    fn ended(&mut self, payer: PaymentOutcome, now: Duration) -> Option<Outcome> {
        let Live { order, proven } = self.live.remove(&payer.id)?;
        let faulty = self.router.faulty.remove(&payer.id);
        let end = match (&payer.result, faulty) {
            (Ok(_), _) => End::Succeeded,
            (Err(_), None) => End::Failed,
            (Err(_), Some(faulty)) if faulty.is_met(&payer.failures) => End::FailedAsExpected,
            (Err(PaymentFailure::NoRoute(_)), Some(_)) => End::NoFaultyRoute,
            (Err(_), Some(_)) => End::FailedOtherwise,
        };
        let latency = proven.unwrap_or(now).saturating_sub(order.begun);
        Some(Outcome { payment: order.payment, latency, end, payer })
    }
}

fn view<'a>(routing: &'a Routing, moment: Moment<'a>) -> PayerView<'a> {
    PayerView {
        snapshot: &routing.snapshot,
        own_channels: moment.own,
        height: moment.height,
        unix_ms: u64::try_from(moment.now.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Finds the routes of ordinary payments, and makes those of payments that are to fail.
#[derive(Debug)]
struct PaymentRouter {
    finder: PartFinder,
    graph: Arc<ChannelGraph>,
    seed: Seed,
    /// The payments under way that are to fail.
    faulty: BTreeMap<PaymentId, Faulty>,
}

/// A payment that is to fail.
#[derive(Debug)]
struct Faulty {
    kind: FaultKind,
    /// The number of its draw.
    draw: u64,
    /// Where its latest route must fail, and with which code.
    expected: Option<Expected>,
}

impl Faulty {
    /// Whether the latest failure is the one that the payment was made for.
    fn is_met(&self, failures: &[FailedPart]) -> bool {
        let seen = failures.last().and_then(|last| last.place.checked_sub(1).zip(last.cause.code()));
        self.expected.is_some() && seen == self.expected.map(|expected| (expected.hop, expected.code))
    }
}

impl Router for PaymentRouter {
    fn find_parts(&mut self, request: &RouteRequest<'_>) -> Result<Vec<Route>, NoRoute> {
        let none = NoRoute::Unreachable { amount: request.query.amount };
        let Some(faulty) = self.faulty.get_mut(&request.id) else { return self.finder.find_parts(request) };
        if faulty.is_met(request.failures) {
            return Err(none);
        }
        let query = Query { weights: Weights::FEES, scorer: None, ..request.query.clone() };
        let number = faulty.draw * ROUTES_PER_DRAW + u64::from(request.rounds);
        let mut rng = self.seed.rng(Purpose::Fault, number);
        let FaultyRoute { hops, expected } =
            fault::faulty_route(&self.graph, &query, faulty.kind, &mut rng)?.ok_or(none)?;
        faulty.expected = Some(expected);
        Ok(vec![fault::route(hops, request.query.height)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::secp256k1::SecretKey;
    use fulmen_graph::Policy;
    use fulmen_proto::forward::ChannelRef;
    use fulmen_proto::onion::{Failure, Peeled, create_failure, peel};
    use fulmen_wire::units::Sat;

    const HEIGHT: BlockHeight = BlockHeight(200);

    fn key(number: u8) -> SecretKey {
        SecretKey::from_slice(&[number; 32]).unwrap()
    }

    fn node(number: u8) -> NodeId {
        let secp = bitcoin::secp256k1::Secp256k1::signing_only();
        NodeId(key(number).public_key(&secp).serialize())
    }

    /// 1 - 2 - 4 over channels 12 and 24, and dearer, 1 - 3 - 4 over channels 13 and 34.
    fn paying_side() -> PayingSide {
        let mut graph = ChannelGraph::new();
        for (scid, ends, fee) in [(12, [1, 2], 1), (24, [2, 4], 1), (13, [1, 3], 1), (34, [3, 4], 500)] {
            let ends = ends.map(node);
            graph.add_channel(Scid(scid), ends, Sat(1_000_000)).unwrap();
            let policy = Policy {
                fee_base: Msat(fee),
                fee_proportional_millionths: 0,
                cltv_expiry_delta: CltvDelta(40),
                htlc_minimum: Msat(1),
                htlc_maximum: Msat(900_000_000),
                disabled: false,
            };
            ends.iter().for_each(|end| graph.set_policy(Scid(scid), *end, Some(policy)).unwrap());
        }
        let snapshot = Arc::new(Snapshot::new(&graph));
        let (graph, seed) = (Arc::new(graph), Seed::new(1, b""));
        let routing = Routing { graph, snapshot, seed, attempts_max: 5, parts_max: 1, learning: true };
        PayingSide::new(node(1), routing)
    }

    fn own() -> OwnChannels {
        let hop = FirstHop { spendable: Msat(400_000_000), htlc_minimum: Msat(1) };
        OwnChannels::from([(Scid(12), hop), (Scid(13), hop)])
    }

    fn at(seconds: u64, own: &OwnChannels) -> Moment<'_> {
        Moment { now: Duration::from_secs(seconds), height: HEIGHT, own }
    }

    fn order(payment: u64, fault: Option<FaultKind>) -> Order {
        Order { payment, redraw: 0, to: node(4), amount: Msat(5_000), fault, begun: Duration::ZERO }
    }

    /// The failure of the first forwarder of `htlc`.
    fn failure(htlc: &SendHtlc, failure: &Failure) -> FailureReason {
        let forwarder = if htlc.channel == ChannelRef::Scid(Scid(12)) { 2 } else { 3 };
        match peel(&key(forwarder), &htlc.onion, &htlc.payment_hash.0).unwrap() {
            Peeled::Forward { shared_secret, .. } => {
                FailureReason::Remote { packet: create_failure(&shared_secret, failure) }
            }
            Peeled::Final { .. } => panic!("not the payee"),
        }
    }

    #[test]
    fn a_fault_counts_only_at_its_hop_with_its_code() {
        let (mut side, own) = (paying_side(), own());
        let fault = Some(FaultKind::FeeShort);
        let first = side.begin(order(1, fault), at(0, &own)).unwrap().send.remove(0);
        let earlier = failure(&first, &Failure::TemporaryChannelFailure);
        let second = side.failed(first.attempt_id, &earlier, at(1, &own)).unwrap().send.remove(0);
        let short = failure(&second, &Failure::FeeInsufficient { htlc_msat: second.amount });
        let steps = side.failed(second.attempt_id, &short, at(3, &own)).unwrap();
        assert!(steps.send.is_empty());
        let outcome = &steps.ended[0];
        assert_eq!((outcome.end, outcome.latency), (End::FailedAsExpected, Duration::from_secs(3)));
        assert_eq!(outcome.payer.failures.len(), 2);
        let third = side.begin(order(2, fault), at(4, &own)).unwrap().send.remove(0);
        let preimage = PaymentPreimage([1; 32]);
        let settled = side.settled(third.attempt_id, preimage, at(5, &own)).unwrap();
        assert_eq!(settled.ended[0].end, End::Succeeded, "a fault nobody noticed is not as expected");
        assert_eq!(side.in_flight(), 0);
    }

    #[test]
    fn a_payment_drawn_again_makes_onions_of_its_own() {
        let (mut side, own) = (paying_side(), own());
        let mut begin = |redraw| {
            let steps = side.begin(Order { redraw, ..order(1, None) }, at(0, &own)).unwrap();
            let htlc = &steps.send[0];
            assert!(side.settled(htlc.attempt_id, PaymentPreimage([1; 32]), at(0, &own)).is_ok());
            htlc.onion.clone()
        };
        assert_ne!(begin(0), begin(1), "the first hop would refuse the second as replayed");
    }
}

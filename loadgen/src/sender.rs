//! The paying side of a node: routes, retries, and what failures teach.
//!
//! Owns: the payments a node has begun, the attempts they make, and what the node has learned of other nodes'
//! balances. It knows what a real payer knows: the public graph, its own channels' balances, and the failures its
//! onions come back with.
//!
//! Does not touch channels: it asks for an HTLC to be sent ([`Step::Send`]) and is told how it ended. Time is an
//! argument. Session keys come from the run's seed.
//!
//! Invariant: each payment ends in exactly one [`Outcome`], after at most `attempts_max` attempts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::SecretKey;
use fulmen_graph::path::search::Finder;
use fulmen_graph::path::{FirstHop, Knowledge, NoRoute, PathHop, Query};
use fulmen_graph::scoring::{Fading, Scorer, Weights};
use fulmen_graph::snapshot::Snapshot;
use fulmen_graph::{ChannelGraph, DirectedChannel};
use fulmen_proto::onion::{FailureCode, PaymentData, ReturnedFailure, SharedSecrets};
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::units::{BlockHeight, CltvDelta, Msat, NodeId, Sat, Scid};

use crate::fault::{self, Bent, Expected, FaultKind};
use crate::seed::{Purpose, Seed};

/// The `min_final_cltv_expiry_delta` of every invoice of the run.
pub(crate) const FINAL_CLTV_DELTA: CltvDelta = CltvDelta(40);
/// For how many of a node's further payments a failed amount is believed; balances move.
const BELIEVED_PAYMENTS: u64 = 8;
/// Attempts of one draw are numbered below this.
const ATTEMPTS_PER_DRAW: u64 = 1 << 10;
/// Draws of one payment are numbered below this.
pub(crate) const DRAWS_PER_PAYMENT: u64 = 1 << 7;
/// All attempts of one payment, whichever draw they are of.
const ATTEMPTS_PER_PAYMENT: u64 = DRAWS_PER_PAYMENT * ATTEMPTS_PER_DRAW;

/// One payment to make.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Its number in the run.
    pub(crate) payment: u64,
    /// How often it was drawn before, below [`DRAWS_PER_PAYMENT`]: each draw makes onions of its own, as whoever saw
    /// an onion once refuses it as replayed.
    pub(crate) redraw: u64,
    /// The payee.
    pub(crate) to: NodeId,
    /// What the payee is to receive.
    pub(crate) amount: Msat,
    /// The rule to break, if it is to fail.
    pub(crate) fault: Option<FaultKind>,
    /// When it was handed over.
    pub(crate) begun: Duration,
}

/// What the sender wants next.
#[derive(Debug)]
pub(crate) enum Step {
    /// This HTLC is to be offered.
    Send {
        /// Its name: what [`Sender::settled`] and [`Sender::failed`] are told.
        attempt_id: u64,
        /// The HTLC.
        htlc: Box<OutgoingPayment>,
    },
    /// The payment is over.
    Done(Box<Outcome>),
}

/// Why an attempt failed, as the node tells it.
#[derive(Debug)]
pub(crate) enum FailedHtlc<'a> {
    /// A node on the way sent this encrypted failure.
    Remote(&'a [u8]),
    /// The peer could not read the onion.
    Malformed(u16),
    /// The HTLC never left this node.
    Local,
}

/// How a payment ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Its number.
    pub(crate) payment: u64,
    /// Routes tried.
    pub(crate) attempts: u32,
    /// From handing it over to here.
    pub(crate) latency: Duration,
    /// How it ended.
    pub(crate) end: End,
    /// Every attempt that failed.
    pub(crate) failures: Vec<FailedAttempt>,
}

impl Outcome {
    /// What left the sender for good.
    pub(crate) fn sent(&self) -> Msat {
        match self.end {
            End::Succeeded { sent, .. } => sent,
            _ => Msat::ZERO,
        }
    }
}

/// The last word on a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The preimage came back.
    Succeeded {
        /// The channels crossed.
        hops: u32,
        /// What left the sender.
        sent: Msat,
    },
    /// It was given up: no route is left, or no attempt is.
    Failed,
    /// A faulty payment failed as it had to.
    FailedAsExpected,
    /// A faulty payment failed at another hop, or with another code, that no retry could mend.
    FailedOtherwise,
    /// The fault cannot be caused between these two nodes now: another payment must be drawn.
    NoFaultyRoute,
}

/// One attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailedAttempt {
    /// The erring node's place on the route: 0 is the sender itself, 1 its peer.
    pub(crate) node: u32,
    /// The BOLT 4 code, if there is one to read.
    pub(crate) code: Option<FailureCode>,
    /// The code's name, or what happened instead.
    pub(crate) name: String,
    /// The channel the erring node was to forward over; none for the payee.
    pub(crate) channel: Option<Scid>,
    /// The amount it was to forward.
    pub(crate) amount: Msat,
    /// For a failure on the sender's own channel: what it could really spend there.
    pub(crate) own_spendable: Option<Msat>,
    /// It is what a faulty payment was made for.
    pub(crate) intended: bool,
}

/// What a node knows of its own channels at this moment.
pub(crate) type OwnChannels = BTreeMap<Scid, FirstHop>;

/// What every sender of a run shares.
#[derive(Clone, Debug)]
pub(crate) struct Routing {
    /// The public graph, and the same laid out for searching.
    pub(crate) graph: Arc<ChannelGraph>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) seed: Seed,
    pub(crate) attempts_max: u32,
    /// Whether the results of payments are remembered for later ones.
    pub(crate) learning: bool,
}

/// The paying side of one node.
#[derive(Debug)]
pub(crate) struct Sender {
    node: NodeId,
    routing: Routing,
    finder: Finder,
    /// What its payments have shown of channels.
    scorer: Scorer,
    /// The least amount each direction failed with, and how many payments had begun then.
    learned: BTreeMap<DirectedChannel, (Msat, u64)>,
    begun: u64,
    live: BTreeMap<u64, Payment>,
}

#[derive(Debug)]
struct Payment {
    order: Order,
    attempts: u32,
    /// What this payment's own attempts failed with: believed as long as the payment lives.
    failed_amounts: BTreeMap<DirectedChannel, Msat>,
    excluded: BTreeSet<DirectedChannel>,
    failures: Vec<FailedAttempt>,
    current: Option<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    hops: Vec<PathHop>,
    secrets: SharedSecrets,
    expected: Option<Expected>,
}

impl Sender {
    /// The paying side of `node`, which knows the public graph.
    pub(crate) fn new(node: NodeId, routing: Routing) -> Sender {
        let mut scorer = Scorer::new(Fading::default());
        scorer.bind(&routing.snapshot);
        Sender {
            node,
            routing,
            finder: Finder::new(),
            scorer,
            learned: BTreeMap::new(),
            begun: 0,
            live: BTreeMap::new(),
        }
    }

    /// Begins a payment.
    pub(crate) fn begin(
        &mut self,
        order: Order,
        now: Duration,
        height: BlockHeight,
        own: OwnChannels,
    ) -> Step {
        self.begun += 1;
        let payment = Payment {
            order,
            attempts: 0,
            failed_amounts: BTreeMap::new(),
            excluded: BTreeSet::new(),
            failures: Vec::new(),
            current: None,
        };
        self.attempt(payment, now, height, own)
    }

    /// An attempt was fulfilled. `None` for an attempt that is not ours.
    pub(crate) fn settled(&mut self, attempt_id: u64, now: Duration) -> Option<Step> {
        let mut payment = self.live.remove(&(attempt_id / ATTEMPTS_PER_PAYMENT))?;
        let attempt = payment.current.take()?;
        if self.routing.learning {
            for (hop, capacity) in self.others(&attempt.hops, attempt.hops.len()) {
                self.scorer.settled(hop.directed(), capacity, hop.amount, now.as_secs());
            }
        }
        let end = End::Succeeded {
            hops: u32::try_from(attempt.hops.len()).unwrap_or(u32::MAX),
            sent: attempt.hops.first().map_or(Msat::ZERO, |hop| hop.amount),
        };
        Some(payment.done(end, now))
    }

    /// An attempt failed: learns from it and tries again, or gives up. `None` for an attempt that is not ours.
    pub(crate) fn failed(
        &mut self,
        attempt_id: u64,
        reason: &FailedHtlc<'_>,
        now: Duration,
        height: BlockHeight,
        own: OwnChannels,
    ) -> Option<Step> {
        let mut payment = self.live.remove(&(attempt_id / ATTEMPTS_PER_PAYMENT))?;
        let attempt = payment.current.take()?;
        let mut failure = attempt.read(reason, &own);
        let seen = (failure.node as usize).checked_sub(1).zip(failure.code);
        let foreseen = attempt.expected.map(|expected| (expected.hop, expected.code));
        if foreseen.is_some() && seen == foreseen {
            failure.intended = true;
            payment.failures.push(failure);
            return Some(payment.done(End::FailedAsExpected, now));
        }
        let at = failure.node as usize;
        let culprit = attempt.hops.get(at).map(PathHop::directed);
        let (amount, balance) = (failure.amount, failure.is_balance());
        payment.failures.push(failure);
        if self.routing.learning {
            for (hop, capacity) in self.others(&attempt.hops, at) {
                self.scorer.passed(hop.directed(), capacity, hop.amount, now.as_secs());
            }
        }
        match culprit {
            Some(directed) if balance && at > 0 => {
                payment.failed_amounts.insert(directed, amount);
                if self.routing.learning {
                    self.learned.insert(directed, (amount, self.begun));
                    if let Some(capacity) = self.routing.snapshot.capacity(directed.scid) {
                        self.scorer.failed(directed, capacity, amount, now.as_secs());
                    }
                }
            }
            Some(directed) => {
                payment.excluded.insert(directed);
            }
            // The payee refuses: no route would change its mind.
            None => return Some(payment.done(payment.last_word(), now)),
        }
        Some(self.attempt(payment, now, height, own))
    }

    /// Payments begun and not over.
    pub(crate) fn in_flight(&self) -> usize {
        self.live.len()
    }

    fn attempt(
        &mut self,
        mut payment: Payment,
        now: Duration,
        height: BlockHeight,
        own: OwnChannels,
    ) -> Step {
        if payment.attempts >= self.routing.attempts_max {
            let end = payment.last_word();
            return payment.done(end, now);
        }
        let draw = payment.order.payment * DRAWS_PER_PAYMENT + payment.order.redraw;
        let attempt_id = draw * ATTEMPTS_PER_DRAW + u64::from(payment.attempts);
        let (hops, expected) = match self.route(&payment, attempt_id, now, height, own) {
            Ok(found) => found,
            Err(end) => return payment.done(end, now),
        };
        let Some(htlc) = self.htlc(&payment.order, attempt_id, &hops) else {
            let end = payment.last_word();
            return payment.done(end, now);
        };
        payment.attempts += 1;
        payment.current = Some(Attempt { hops, secrets: htlc.secrets.clone(), expected });
        self.live.insert(payment.order.payment, payment);
        Step::Send { attempt_id, htlc: Box::new(htlc) }
    }

    /// The route of the next attempt, bent where the payment is to fail.
    fn route(
        &mut self,
        payment: &Payment,
        attempt_id: u64,
        now: Duration,
        height: BlockHeight,
        own: OwnChannels,
    ) -> Result<(Vec<PathHop>, Option<Expected>), End> {
        let knowledge = self.knowledge(payment, own);
        let query = Query {
            height,
            final_cltv_delta: FINAL_CLTV_DELTA,
            ..Query::new(self.node, payment.order.to, payment.order.amount, &knowledge)
        };
        let Some(kind) = payment.order.fault else {
            let query = Query {
                weights: Weights::default(),
                scorer: Some(&self.scorer),
                now_seconds: now.as_secs(),
                ..query
            };
            return match self.finder.find(&self.routing.snapshot, &query) {
                Ok(route) => Ok((route.hops, None)),
                Err(NoRoute::SearchLimitReached { best: Some(route), .. }) => Ok((route.hops, None)),
                Err(_) => Err(End::Failed),
            };
        };
        let mut rng = self.routing.seed.rng(Purpose::Fault, attempt_id);
        match fault::bend(&self.routing.graph, &query, kind, &mut rng) {
            Ok(Some(Bent { hops, expected })) => Ok((hops, Some(expected))),
            Ok(None) | Err(_) => Err(End::NoFaultyRoute),
        }
    }

    /// The first `count` hops of a route but for the payer's own, with the capacities of their channels.
    fn others(&self, hops: &[PathHop], count: usize) -> Vec<(PathHop, Sat)> {
        let others = hops.iter().take(count).skip(1);
        others.filter_map(|hop| Some((*hop, self.routing.snapshot.capacity(hop.scid)?))).collect()
    }

    fn knowledge(&self, payment: &Payment, own: OwnChannels) -> Knowledge {
        let mut knowledge = Knowledge { first_hops: Some(own), ..Knowledge::default() };
        let believed = self.learned.iter().filter(|(_, (_, begun))| self.begun - begun <= BELIEVED_PAYMENTS);
        for (directed, (amount, _)) in believed {
            knowledge.note_failure(*directed, *amount);
        }
        for (directed, amount) in &payment.failed_amounts {
            knowledge.note_failure(*directed, *amount);
        }
        knowledge.excluded_directions = payment.excluded.clone();
        knowledge
    }

    /// The first HTLC of a route, with the onion for the rest of it; `None` for a route too long for an onion.
    fn htlc(&self, order: &Order, attempt_id: u64, hops: &[PathHop]) -> Option<OutgoingPayment> {
        let hop = |hop: &PathHop| RouteHop {
            node_id: hop.to,
            short_channel_id: hop.scid,
            amount: hop.amount,
            cltv_expiry: hop.cltv_expiry,
        };
        let route: Vec<RouteHop> = hops.iter().map(hop).collect();
        let total_msat = route.last()?.amount;
        let payment_secret = self.routing.seed.payment_secret(order.payment);
        let recipient = Recipient {
            payment_data: Some(PaymentData { payment_secret, total_msat }),
            ..Recipient::default()
        };
        let session_key =
            SecretKey::from_slice(&self.routing.seed.bytes(Purpose::SessionKey, attempt_id)).ok()?;
        OutgoingPayment::new(&session_key, self.routing.seed.payment_hash(order.payment), &route, &recipient)
            .ok()
    }
}

impl Payment {
    fn done(&self, end: End, now: Duration) -> Step {
        Step::Done(Box::new(Outcome {
            payment: self.order.payment,
            attempts: self.attempts,
            latency: now.saturating_sub(self.order.begun),
            end,
            failures: self.failures.clone(),
        }))
    }

    /// How the payment ends when nothing more is tried.
    fn last_word(&self) -> End {
        if self.order.fault.is_some() { End::FailedOtherwise } else { End::Failed }
    }
}

impl Attempt {
    /// Who failed this attempt, with what, over which channel.
    fn read(&self, reason: &FailedHtlc<'_>, own: &OwnChannels) -> FailedAttempt {
        let (node, code) = match reason {
            FailedHtlc::Remote(packet) => match self.secrets.read_failure(packet) {
                ReturnedFailure::From { hop, failure } => (hop + 1, Some(failure.code())),
                ReturnedFailure::Unreadable => (1, None),
            },
            FailedHtlc::Malformed(code) => (1, Some(FailureCode::from_u16(*code))),
            FailedHtlc::Local => (0, None),
        };
        let hop = self.hops.get(node);
        let last = self.hops.last().map_or(Msat::ZERO, |hop| hop.amount);
        let own_spendable =
            hop.filter(|_| node == 0).and_then(|hop| own.get(&hop.scid)).map(|own| own.spendable);
        FailedAttempt {
            node: u32::try_from(node).unwrap_or(u32::MAX),
            code,
            name: match code {
                Some(code @ FailureCode::Other(_)) => format!("code_{:#06x}", code.to_u16()),
                Some(code) => code.to_string(),
                None if node == 0 => "own_channel".to_owned(),
                None => "unreadable_failure".to_owned(),
            },
            channel: hop.map(|hop| hop.scid),
            amount: hop.map_or(last, |hop| hop.amount),
            own_spendable,
            intended: false,
        }
    }
}

impl FailedAttempt {
    /// Whether this failure says that a channel had too little.
    pub(crate) fn is_balance(&self) -> bool {
        self.code == Some(FailureCode::TemporaryChannelFailure) || self.own_spendable.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmen_graph::Policy;
    use fulmen_proto::onion::{Failure, create_failure, wrap_failure};

    const HEIGHT: BlockHeight = BlockHeight(200);

    fn node(number: u8) -> NodeId {
        let secp = bitcoin::secp256k1::Secp256k1::signing_only();
        NodeId(SecretKey::from_slice(&[number; 32]).unwrap().public_key(&secp).serialize())
    }

    /// 1 - 2 - 4 over channels 12 and 24, and dearer, 1 - 3 - 4 over channels 13 and 34.
    fn sender(attempts_max: u32) -> Sender {
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
        let seed = Seed::new(1, b"");
        Sender::new(node(1), Routing { graph: Arc::new(graph), snapshot, seed, attempts_max, learning: true })
    }

    fn own() -> OwnChannels {
        let hop = FirstHop { spendable: Msat(400_000_000), htlc_minimum: Msat(1) };
        OwnChannels::from([(Scid(12), hop), (Scid(13), hop)])
    }

    fn order(payment: u64, fault: Option<FaultKind>) -> Order {
        Order { payment, redraw: 0, to: node(4), amount: Msat(5_000), fault, begun: Duration::ZERO }
    }

    fn sent(step: Step) -> (u64, Box<OutgoingPayment>) {
        match step {
            Step::Send { attempt_id, htlc } => (attempt_id, htlc),
            Step::Done(outcome) => panic!("over: {outcome:?}"),
        }
    }

    fn done(step: Option<Step>) -> Outcome {
        match step {
            Some(Step::Done(outcome)) => *outcome,
            other => panic!("not over: {other:?}"),
        }
    }

    /// The failure that hop `hop` of `htlc` sends back.
    fn packet(htlc: &OutgoingPayment, hop: usize, failure: &Failure) -> Vec<u8> {
        let secrets = htlc.secrets.as_slice();
        let mut packet = create_failure(&secrets[hop], failure);
        secrets[..hop].iter().rev().for_each(|secret| wrap_failure(secret, &mut packet));
        packet
    }

    fn fail(
        sender: &mut Sender,
        attempt_id: u64,
        htlc: &OutgoingPayment,
        hop: usize,
        failure: &Failure,
    ) -> Option<Step> {
        let packet = packet(htlc, hop, failure);
        sender.failed(attempt_id, &FailedHtlc::Remote(&packet), Duration::from_secs(1), HEIGHT, own())
    }

    #[test]
    fn a_channel_that_lacked_the_balance_is_gone_around_now_and_next_time() {
        let mut sender = sender(5);
        let (first, htlc) = sent(sender.begin(order(1, None), Duration::ZERO, HEIGHT, own()));
        assert_eq!((htlc.short_channel_id, htlc.amount), (Scid(12), Msat(5_001)));
        let step = fail(&mut sender, first, &htlc, 0, &Failure::TemporaryChannelFailure);
        let (second, htlc) = sent(step.unwrap());
        assert_ne!(first, second);
        assert_eq!((htlc.short_channel_id, htlc.amount), (Scid(13), Msat(5_500)));
        let outcome = done(sender.settled(second, Duration::from_secs(3)));
        assert_eq!(outcome.end, End::Succeeded { hops: 2, sent: Msat(5_500) });
        assert_eq!((outcome.attempts, outcome.latency), (2, Duration::from_secs(3)));
        assert_eq!(outcome.failures[0].channel, Some(Scid(24)));
        assert_eq!((outcome.failures[0].node, outcome.failures[0].amount), (1, Msat(5_000)));
        for payment in 2..2 + BELIEVED_PAYMENTS {
            let (_, htlc) = sent(sender.begin(order(payment, None), Duration::ZERO, HEIGHT, own()));
            assert_eq!(htlc.short_channel_id, Scid(13), "what failed once is believed for a while");
        }
        let later = Duration::from_secs(30 * 24 * 3600);
        let (_, htlc) = sent(sender.begin(order(99, None), later, HEIGHT, own()));
        assert_eq!(htlc.short_channel_id, Scid(12), "and tried again later");
    }

    #[test]
    fn attempts_end_with_the_routes_or_the_limit() {
        for (limit, attempts) in [(1, 1), (5, 2)] {
            let mut sender = sender(limit);
            let mut step = Some(sender.begin(order(1, None), Duration::ZERO, HEIGHT, own()));
            while let Some(Step::Send { attempt_id, htlc }) = step {
                step = fail(&mut sender, attempt_id, &htlc, 0, &Failure::TemporaryChannelFailure);
            }
            let outcome = done(step);
            assert_eq!((outcome.end, outcome.attempts), (End::Failed, attempts));
            assert_eq!(sender.in_flight(), 0);
        }
    }

    #[test]
    fn the_payees_refusal_is_final() {
        let mut sender = sender(5);
        let (attempt, htlc) = sent(sender.begin(order(1, None), Duration::ZERO, HEIGHT, own()));
        let refusal = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: Msat(5_000), height: HEIGHT };
        let outcome = done(fail(&mut sender, attempt, &htlc, 1, &refusal));
        assert_eq!((outcome.end, outcome.failures[0].node), (End::Failed, 2));
    }

    #[test]
    fn a_fault_counts_only_at_its_hop_with_its_code() {
        let mut sender = sender(5);
        let fault = Some(FaultKind::FeeShort);
        let (first, htlc) = sent(sender.begin(order(1, fault), Duration::ZERO, HEIGHT, own()));
        let earlier = fail(&mut sender, first, &htlc, 0, &Failure::TemporaryChannelFailure);
        let (second, htlc) = sent(earlier.unwrap());
        let short = Failure::FeeInsufficient { htlc_msat: htlc.amount };
        let outcome = done(fail(&mut sender, second, &htlc, 0, &short));
        assert_eq!(outcome.end, End::FailedAsExpected);
        assert_eq!(
            outcome.failures.iter().map(|failure| failure.intended).collect::<Vec<_>>(),
            [false, true]
        );
        let (third, _) = sent(sender.begin(order(2, fault), Duration::ZERO, HEIGHT, own()));
        let settled = done(sender.settled(third, Duration::ZERO));
        assert!(matches!(settled.end, End::Succeeded { .. }), "a fault nobody noticed is not as expected");
    }

    #[test]
    fn a_payment_drawn_again_makes_onions_of_its_own() {
        let mut sender = sender(5);
        let mut begin = |redraw| {
            let order = Order { redraw, ..order(1, None) };
            let (attempt, htlc) = sent(sender.begin(order, Duration::ZERO, HEIGHT, own()));
            assert!(sender.settled(attempt, Duration::ZERO).is_some());
            htlc.secrets.as_slice()[0].replay_tag()
        };
        assert_ne!(begin(0), begin(1), "the first hop would refuse the second as replayed");
    }

    #[test]
    fn what_nobody_can_read_or_sent_is_no_panic() {
        let mut sender = sender(3);
        let (first, _) = sent(sender.begin(order(1, None), Duration::ZERO, HEIGHT, own()));
        let garbage = FailedHtlc::Remote(&[7; 292]);
        let (second, _) = sent(sender.failed(first, &garbage, Duration::ZERO, HEIGHT, own()).unwrap());
        let local = sender.failed(second, &FailedHtlc::Local, Duration::ZERO, HEIGHT, own());
        let outcome = done(local);
        assert_eq!(outcome.failures[0].name, "unreadable_failure");
        assert_eq!(outcome.failures[1].own_spendable, Some(Msat(400_000_000)));
        assert!(sender.settled(second, Duration::ZERO).is_none());
        assert!(sender.failed(77, &FailedHtlc::Malformed(0x8005), Duration::ZERO, HEIGHT, own()).is_none());
    }
}

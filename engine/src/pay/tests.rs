//! Tests of a payer on a small graph: the HTLCs it sends, the failures it learns from, and how payments end.

mod model;

use std::collections::BTreeMap;

use bitcoin::secp256k1::SecretKey;
use fulmen_graph::path::multi::PartFinder;
use fulmen_graph::path::{NoRoute, Route};
use fulmen_graph::{ChannelGraph, DirectedChannel, Direction, Policy};
use fulmen_proto::channel::ChannelCommandError;
use fulmen_proto::forward::{LocalFailure, SendHtlc};
use fulmen_proto::onion::{Failure, FailureCode, Peeled, SharedSecret, create_failure, peel, wrap_failure};
use fulmen_wire::units::{ChannelId, Msat, PaymentSecret, Sat};

use super::*;

const HEIGHT: BlockHeight = BlockHeight(200);
const PREIMAGE: PaymentPreimage = PaymentPreimage([5; 32]);

fn key(number: u8) -> SecretKey {
    SecretKey::from_slice(&[number; 32]).unwrap()
}

fn node(number: u8) -> NodeId {
    NodeId(key(number).public_key(&bitcoin::secp256k1::Secp256k1::signing_only()).serialize())
}

/// 1 - 2 - 4 over channels 12 and 24, and dearer, 1 - 3 - 4 over channels 13 and 34.
fn snapshot() -> Snapshot {
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
    Snapshot::new(&graph)
}

/// A payer at node 1, and all that its calls need.
struct Bench {
    payer: Payer,
    reservations: Arc<Reservations>,
    finder: PartFinder,
    snapshot: Snapshot,
    own_channels: BTreeMap<Scid, FirstHop>,
    unix_ms: u64,
}

impl Bench {
    fn new() -> Bench {
        let reservations = Reservations::new();
        let own = FirstHop { spendable: Msat(800_000_000), htlc_minimum: Msat(1) };
        Bench {
            payer: Payer::new(node(1), PayerConfig::default(), Arc::clone(&reservations)),
            reservations,
            finder: PartFinder::new(),
            snapshot: snapshot(),
            own_channels: BTreeMap::from([(Scid(12), own), (Scid(13), own)]),
            unix_ms: 0,
        }
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Payer, &PayerView<'_>, &mut dyn Router) -> T) -> T {
        let Bench { payer, finder, snapshot, own_channels, unix_ms, .. } = self;
        let view = PayerView { snapshot, own_channels, height: HEIGHT, unix_ms: *unix_ms };
        call(payer, &view, finder)
    }

    fn begin(&mut self, request: PaymentRequest) -> Vec<PaymentUpdate> {
        self.call(|payer, view, router| payer.begin(request, view, router)).unwrap()
    }

    /// Fails an HTLC at the node of this place on its route.
    fn fail(&mut self, htlc: &SendHtlc, place: usize, failure: &Failure) -> Vec<PaymentUpdate> {
        let secrets = secrets(htlc);
        let mut packet = create_failure(&secrets[place - 1], failure);
        secrets[..place - 1].iter().rev().for_each(|secret| wrap_failure(secret, &mut packet));
        self.fail_with(htlc, &FailureReason::Remote { packet })
    }

    fn fail_with(&mut self, htlc: &SendHtlc, reason: &FailureReason) -> Vec<PaymentUpdate> {
        self.call(|payer, view, router| payer.htlc_failed(htlc.attempt_id, reason, view, router)).unwrap()
    }

    fn settle(&mut self, htlc: &SendHtlc) -> Vec<PaymentUpdate> {
        self.call(|payer, view, _| payer.htlc_settled(htlc.attempt_id, PREIMAGE, view)).unwrap()
    }

    fn held(&self, scid: u64) -> Msat {
        let held = |direction| self.reservations.held(DirectedChannel { scid: Scid(scid), direction });
        Direction::BOTH.map(held).into_iter().sum()
    }
}

/// The secrets that the nodes of a route share with the payer, by peeling the onion with the nodes' keys.
fn secrets(htlc: &SendHtlc) -> Vec<SharedSecret> {
    let mut packet = htlc.onion.clone();
    let mut secrets = Vec::new();
    let mut keys = [2, 3].into_iter();
    while secrets.is_empty() {
        if let Ok(Peeled::Forward { next_packet, shared_secret, .. }) =
            peel(&key(keys.next().expect("a forwarder")), &packet, &htlc.payment_hash.0)
        {
            secrets.push(shared_secret);
            packet = next_packet;
        }
    }
    match peel(&key(4), &packet, &htlc.payment_hash.0).unwrap() {
        Peeled::Final { shared_secret, .. } => secrets.push(shared_secret),
        Peeled::Forward { .. } => panic!("node 4 is the payee"),
    }
    secrets
}

fn request(number: u64, amount: u64) -> PaymentRequest {
    let hash = (PaymentHash([number as u8; 32]), PaymentSecret([6; 32]));
    let id = PaymentId::new(number).unwrap();
    PaymentRequest::new(id, node(4), Msat(amount), hash, CltvDelta(18), [number as u8; 32])
}

fn sent(updates: Vec<PaymentUpdate>) -> Vec<SendHtlc> {
    let send = |update| match update {
        PaymentUpdate::Send(send) => send,
        other => panic!("not sent: {other:?}"),
    };
    updates.into_iter().map(send).collect()
}

fn one(updates: Vec<PaymentUpdate>) -> SendHtlc {
    let mut sent = sent(updates);
    assert_eq!(sent.len(), 1);
    sent.remove(0)
}

fn ended(mut updates: Vec<PaymentUpdate>) -> PaymentOutcome {
    match updates.pop() {
        Some(PaymentUpdate::Ended(outcome)) => *outcome,
        other => panic!("not over: {other:?}"),
    }
}

fn channel_of(htlc: &SendHtlc) -> fulmen_proto::forward::ChannelRef {
    htlc.channel
}

const OVER_12: fulmen_proto::forward::ChannelRef = fulmen_proto::forward::ChannelRef::Scid(Scid(12));
const OVER_13: fulmen_proto::forward::ChannelRef = fulmen_proto::forward::ChannelRef::Scid(Scid(13));

#[test]
fn a_channel_that_lacked_the_balance_is_avoided_now_and_next_time() {
    let mut bench = Bench::new();
    let first = one(bench.begin(request(1, 5_000)));
    assert_eq!((channel_of(&first), first.amount), (OVER_12, Msat(5_001)));
    let second = one(bench.fail(&first, 1, &Failure::TemporaryChannelFailure));
    assert_ne!(first.attempt_id, second.attempt_id);
    assert_eq!((channel_of(&second), second.amount), (OVER_13, Msat(5_500)));
    let outcome = ended(bench.settle(&second));
    assert_eq!(
        (outcome.result.clone(), outcome.sent(), outcome.fee()),
        (Ok(PREIMAGE), Msat(5_500), Msat(500))
    );
    assert_eq!((outcome.rounds, outcome.htlcs, outcome.parts_at_once), (2, 2, 1));
    let failure = &outcome.failures[0];
    assert_eq!((failure.place, failure.channel, failure.amount), (1, Some(Scid(24)), Msat(5_000)));
    for number in 2..2 + knowledge::BELIEVED_PAYMENTS {
        let htlc = one(bench.begin(request(number, 5_000)));
        assert_eq!(channel_of(&htlc), OVER_13, "what failed once is believed for a while");
        let _ = bench.settle(&htlc);
    }
    bench.unix_ms = 30 * 24 * 3600 * 1000;
    assert_eq!(channel_of(&one(bench.begin(request(99, 5_000)))), OVER_12, "and tried again later");
}

#[test]
fn rounds_end_with_the_routes_or_the_limit() {
    for (limit, rounds) in [(1, 1), (5, 2)] {
        let mut bench = Bench::new();
        let mut request = request(1, 5_000);
        request.limits.rounds_max = limit;
        request.limits.parts_max = 1;
        let mut updates = bench.begin(request);
        let outcome = loop {
            let htlc = match updates.pop().expect("an update") {
                PaymentUpdate::Send(htlc) => htlc,
                PaymentUpdate::Ended(outcome) => break outcome,
                PaymentUpdate::Proven { .. } => panic!("nobody has paid"),
            };
            updates = bench.fail(&htlc, 1, &Failure::TemporaryChannelFailure);
        };
        assert_eq!(outcome.rounds, rounds);
        match outcome.result {
            Err(PaymentFailure::RoundsExhausted { rounds: 1 }) => assert_eq!(limit, 1),
            Err(PaymentFailure::NoRoute(_)) => assert_eq!(limit, 5),
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.payer.payments_under_way(), 0);
    }
}

#[test]
fn the_deadline_ends_rounds_but_no_htlc() {
    let mut bench = Bench::new();
    let mut late = request(1, 5_000);
    late.limits.deadline_unix_ms = Some(1_000);
    let first = one(bench.begin(late.clone()));
    bench.unix_ms = 1_000;
    let outcome = ended(bench.fail(&first, 1, &Failure::TemporaryChannelFailure));
    assert_eq!(outcome.result, Err(PaymentFailure::DeadlinePassed));
    assert_eq!(ended(bench.begin(late)).result, Err(PaymentFailure::DeadlinePassed));
    let in_time = one(bench.begin(request(2, 5_000)));
    assert!(bench.payer.abandon(PaymentId::new(2).unwrap()).is_empty(), "an HTLC is in flight");
    assert_eq!(ended(bench.settle(&in_time)).result, Ok(PREIMAGE), "it cannot be called back");
    let abandoned = one(bench.begin(request(3, 5_000)));
    assert!(bench.payer.abandon(PaymentId::new(3).unwrap()).is_empty());
    let outcome = ended(bench.fail(&abandoned, 1, &Failure::TemporaryChannelFailure));
    assert_eq!(outcome.result, Err(PaymentFailure::Abandoned));
}

#[test]
fn the_payees_refusal_ends_a_payment_once_all_parts_are_back() {
    let mut bench = Bench::new();
    let parts = sent(bench.begin(request(1, 1_200_000_000)));
    assert_eq!(parts.len(), 2);
    let refusal = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: Msat(5_000), height: HEIGHT };
    assert!(bench.fail(&parts[0], 2, &refusal).is_empty(), "nothing is sent any more");
    let outcome = ended(bench.fail(&parts[1], 2, &refusal));
    let code = FailureCode::IncorrectOrUnknownPaymentDetails;
    assert_eq!(outcome.result, Err(PaymentFailure::Refused(Some(code))));
    assert_eq!(outcome.failures.iter().map(|failure| failure.place).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_part_that_failed_is_sent_again_beside_the_other() {
    let mut bench = Bench::new();
    let parts = sent(bench.begin(request(1, 1_200_000_000)));
    let [large, small] = [&parts[0], &parts[1]];
    let whole: Msat = parts.iter().map(|part| part.amount).sum();
    assert_eq!(whole, Msat(1_200_000_000 + 1 + 500));
    assert_eq!(bench.held(12).0 + bench.held(13).0, whole.0);
    // A local refusal for want of balance: a smaller amount may still go over that channel.
    let error = ChannelCommandError::InsufficientBalance { amount: small.amount, available: Msat(0) };
    let Some(own) = bench.own_channels.values_mut().next_back() else { panic!() };
    own.spendable = Msat(small.amount.0 / 2);
    let refused = FailureReason::Local(LocalFailure::Refused { channel_id: ChannelId([1; 32]), error });
    let before = bench.held(12);
    let again = bench.fail_with(small, &refused);
    assert_eq!(bench.held(12).0 >= before.0, channel_of(large) == OVER_12);
    for htlc in sent(again) {
        assert!(htlc.amount < small.amount);
    }
    assert!(bench.payer.htlcs_in_flight() >= 1);
}

/// A router that answers from a list, whose last answer stands for all later ones, and notes the questions.
struct Listed {
    answers: Vec<Result<Vec<Route>, NoRoute>>,
    asked: Vec<(Msat, usize)>,
}

impl Router for Listed {
    fn find_parts(&mut self, request: &RouteRequest<'_>) -> Result<Vec<Route>, NoRoute> {
        self.asked.push((request.query.amount, request.parts_max));
        if self.answers.len() > 1 { self.answers.remove(0) } else { self.answers[0].clone() }
    }
}

/// The two parts that [`PartFinder`] finds for 1.2 million sat.
fn two_routes(bench: &mut Bench) -> Vec<Route> {
    let knowledge = fulmen_graph::path::Knowledge {
        first_hops: Some(bench.own_channels.clone()),
        ..fulmen_graph::path::Knowledge::default()
    };
    let query = Query { height: HEIGHT, ..Query::new(node(1), node(4), Msat(1_200_000_000), &knowledge) };
    bench.finder.find(&bench.snapshot, &query, 2).unwrap().routes
}

#[test]
fn without_a_route_beside_its_parts_a_payment_waits_for_them_and_plans_all_anew() {
    let mut bench = Bench::new();
    let routes = two_routes(&mut bench);
    let none = || Err(NoRoute::Unreachable { amount: Msat(1) });
    let answers = vec![Ok(routes.clone()), none(), Ok(routes), none()];
    let mut router = Listed { answers, asked: Vec::new() };
    let Bench { payer, snapshot, own_channels, .. } = &mut bench;
    let view = PayerView { snapshot, own_channels, height: HEIGHT, unix_ms: 0 };
    let fail = |payer: &mut Payer, router: &mut Listed, htlc: &SendHtlc, place: usize, failure: &Failure| {
        let secrets = secrets(htlc);
        let mut packet = create_failure(&secrets[place - 1], failure);
        secrets[..place - 1].iter().rev().for_each(|secret| wrap_failure(secret, &mut packet));
        payer.htlc_failed(htlc.attempt_id, &FailureReason::Remote { packet }, &view, router).unwrap()
    };
    let first = sent(payer.begin(request(1, 1_200_000_000), &view, &mut router).unwrap());
    assert!(fail(payer, &mut router, &first[0], 1, &Failure::TemporaryChannelFailure).is_empty());
    let second = sent(fail(payer, &mut router, &first[1], 2, &Failure::MppTimeout));
    assert_eq!((second.len(), router.asked.len()), (2, 3), "all of it at once");
    assert_eq!((router.asked[0].0, router.asked[2].0), (Msat(1_200_000_000), Msat(1_200_000_000)));
    assert!(router.asked[1].0 < Msat(1_200_000_000), "beside a part in flight, the rest");
    assert_eq!(router.asked.iter().map(|(_, parts)| *parts).collect::<Vec<_>>(), [8, 7, 8]);

    let proven = payer.htlc_settled(second[0].attempt_id, PREIMAGE, &view).unwrap();
    assert!(matches!(proven[..], [PaymentUpdate::Proven { .. }]));
    // A payee that was content with one part lets the other fail: it is not sent again.
    let outcome = ended(fail(payer, &mut router, &second[1], 2, &Failure::MppTimeout));
    assert_eq!((outcome.result, outcome.settled.len(), router.asked.len()), (Ok(PREIMAGE), 1, 3));
    assert_eq!((outcome.rounds, outcome.htlcs, outcome.failures.len()), (2, 4, 3));
    assert_eq!(bench.held(24), Msat::ZERO);
}

#[test]
fn what_a_router_answers_is_held_to_the_limits() {
    let mut bench = Bench::new();
    let routes = two_routes(&mut bench);
    let total = routes.iter().map(|route| route.total_amount).sum();
    let mut cases = [request(1, 1_200_000_000), request(2, 1_200_000_000), request(3, 1_000_000)];
    cases[1].limits.parts_max = 1;
    for (request, refused) in cases.into_iter().zip([false, true, true]) {
        let mut router = Listed { answers: vec![Ok(routes.clone())], asked: Vec::new() };
        let updates = bench.call(|payer, view, _| payer.begin(request, view, &mut router)).unwrap();
        if refused {
            let over = PaymentFailure::OverLimits { parts: 2, total };
            assert_eq!(ended(updates).result, Err(over));
        } else {
            assert_eq!(sent(updates).len(), 2);
        }
    }
}

#[test]
fn a_payment_of_nothing_ends_at_once() {
    let outcome = ended(Bench::new().begin(request(1, 0)));
    assert_eq!(outcome.result, Err(PaymentFailure::NoRoute(NoRoute::ZeroAmount)));
}

#[test]
fn payments_of_one_name_or_hash_are_not_made_side_by_side() {
    let mut bench = Bench::new();
    let htlc = one(bench.begin(request(1, 5_000)));
    let mut begin =
        |request| bench.call(|payer, view, router| payer.begin(request, view, router)).map(|_| ());
    assert_eq!(begin(request(1, 9)), Err(BeginError::DuplicateId(PaymentId::new(1).unwrap())));
    let mut twin = request(2, 5_000);
    twin.payment_hash = request(1, 1).payment_hash;
    assert_eq!(begin(twin.clone()), Err(BeginError::DuplicateHash(PaymentId::new(1).unwrap())));
    bench.payer.config.payments_max = 1;
    let mut begin =
        |request| bench.call(|payer, view, router| payer.begin(request, view, router)).map(|_| ());
    assert_eq!(begin(request(3, 9)), Err(BeginError::TooManyPayments { max: 1 }));
    let _ = bench.settle(&htlc);
    assert_eq!(bench.begin(twin).len(), 1, "once the first is over, its hash is free");
    let unknown =
        bench.call(|payer, view, _| payer.htlc_settled(htlc.attempt_id, PREIMAGE, view)).map(|_| ());
    assert_eq!(unknown, Err(UnknownAttempt(htlc.attempt_id)));
}

#[test]
fn payments_at_once_do_not_count_on_the_same_liquidity() {
    let mut bench = Bench::new();
    let whole = |number| {
        let mut request = request(number, 600_000_000);
        request.limits.parts_max = 1;
        request
    };
    let (first, second) = (one(bench.begin(whole(1))), one(bench.begin(whole(2))));
    assert_ne!(channel_of(&first), channel_of(&second));
    let _ = (bench.settle(&first), bench.settle(&second));
    assert_eq!((bench.held(24), bench.held(34)), (Msat::ZERO, Msat::ZERO));
    // Its own channels' balances are as before, in this test.
    assert_eq!(channel_of(&one(bench.begin(whole(3)))), channel_of(&first));
}

#[test]
fn failures_that_nobody_can_read_lead_around_their_route() {
    let mut bench = Bench::new();
    let first = one(bench.begin(request(1, 5_000)));
    let second = one(bench.fail_with(&first, &FailureReason::Remote { packet: vec![7; 292] }));
    assert_eq!(channel_of(&second), OVER_13);
    let malformed = FailureReason::Malformed { failure_code: FailureCode::InvalidOnionKey.to_u16() };
    let outcome = ended(bench.fail_with(&second, &malformed));
    assert!(matches!(outcome.result, Err(PaymentFailure::NoRoute(_))));
    let causes: Vec<_> = outcome.failures.iter().map(|failure| failure.cause.clone()).collect();
    assert_eq!(causes, [FailureCause::Unreadable, FailureCause::Malformed(FailureCode::InvalidOnionKey)]);
}

#[test]
fn a_payer_that_does_not_learn_knows_each_payments_own_failures_alone() {
    let mut bench = Bench::new();
    bench.payer = Payer::new(
        node(1),
        PayerConfig { is_learning: false, ..PayerConfig::default() },
        Arc::clone(&bench.reservations),
    );
    for number in 1..4 {
        let first = one(bench.begin(request(number, 5_000)));
        assert_eq!(channel_of(&first), OVER_12);
        let second = one(bench.fail(&first, 1, &Failure::TemporaryChannelFailure));
        assert_eq!(channel_of(&second), OVER_13);
        assert_eq!(ended(bench.settle(&second)).result, Ok(PREIMAGE));
    }
    assert_eq!(bench.payer.scorer().learned_channels(), 0);
}

#[test]
fn the_shadow_offset_is_the_same_for_all_rounds_of_a_payment() {
    let mut bench = Bench::new();
    let mut offsets = std::collections::BTreeSet::new();
    for number in 1..20 {
        let first = one(bench.begin(request(number, 5_000)));
        let second = one(bench.fail(&first, 1, &Failure::TemporaryChannelFailure));
        assert_eq!(first.cltv_expiry, second.cltv_expiry);
        offsets.insert(first.cltv_expiry.0 - HEIGHT.0 - 18 - 40);
        bench.unix_ms += 30 * 24 * 3600 * 1000;
        let _ = bench.settle(&second);
        bench.payer = Payer::new(node(1), PayerConfig::default(), Arc::clone(&bench.reservations));
    }
    assert!(offsets.len() > 1 && offsets.iter().all(|offset| *offset <= 144), "{offsets:?}");
}

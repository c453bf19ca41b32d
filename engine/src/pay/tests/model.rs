//! Payments over a model of the network: real onions, balances that the payer does not know, payees of every kind, and
//! results in any order.
//!
//! Checked at every step, whatever happens: a payment never has more in flight or spent than its amount and largest
//! fee, in no more parts than allowed; nothing is sent once it is proven or over; it ends once, when its last HTLC
//! has; the outcome accounts for every HTLC; an honest payee is paid exactly the amount, once.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::{Hash, sha256};
use fulmen_proto::forward::ChannelRef;
use fulmen_proto::onion::Payload;
use fulmen_wire::units::ChannelId;

use super::*;

const NODES: u8 = 6;
const UNIT: u64 = 1_000_000;
const PAYER: u8 = 1;

/// Numbers that look random and are the same on every machine (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn range(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        range.start + (self.0 >> 33) % (range.end - range.start)
    }

    fn in_hundred(&mut self, often: u64) -> bool {
        self.range(0..100) < often
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.range(0..of.len() as u64) as usize].clone()
    }
}

/// How a payee treats the parts that reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payee {
    /// Takes all parts together, and fails them when the rest is overdue.
    Honest,
    /// Takes each part at once: it loses by that.
    Hasty,
    /// Knows nothing of the payment.
    Refusing,
}

/// A forwarding HTLC's way so far.
#[derive(Debug)]
struct Htlc {
    attempt_id: u64,
    hash: PaymentHash,
    locked: Vec<(DirectedChannel, u64)>,
    secrets: Vec<SharedSecret>,
}

#[derive(Debug)]
enum Happening {
    Arrives(SendHtlc),
    Settled(u64, PaymentPreimage),
    Failed(u64, FailureReason),
}

/// The test's own account of one payment.
#[derive(Debug)]
struct Expected {
    payee: Payee,
    amount: u64,
    most: u64,
    parts_max: usize,
    preimage: PaymentPreimage,
    in_flight: BTreeMap<u64, u64>,
    delivered: BTreeMap<u64, u64>,
    failed: usize,
    spent: u64,
    received: u64,
    proven: bool,
    outcome: Option<PaymentOutcome>,
}

struct World {
    rng: Numbers,
    graph: ChannelGraph,
    snapshot: Snapshot,
    reservations: Arc<Reservations>,
    balances: BTreeMap<DirectedChannel, u64>,
    payer: Payer,
    finder: PartFinder,
    happenings: Vec<Happening>,
    held: Vec<(Htlc, u64)>,
    expected: BTreeMap<PaymentId, Expected>,
    attempts: BTreeSet<u64>,
}

fn number_of(id: NodeId) -> u8 {
    (1..=NODES).find(|number| node(*number) == id).expect("a node of the model")
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Numbers(seed);
        let mut graph = ChannelGraph::new();
        let mut balances = BTreeMap::new();
        let mut scid = 0;
        for _ in 0..rng.range(7..14) {
            let one = rng.range(1..u64::from(NODES) + 1) as u8;
            let other = (one + rng.range(0..u64::from(NODES) - 1) as u8) % NODES + 1;
            scid += 1;
            let units = rng.range(1..9);
            graph.add_channel(Scid(scid), [node(one), node(other)], Sat(units * UNIT / 1000)).unwrap();
            let share = rng.range(0..units * UNIT + 1);
            for (direction, balance) in Direction::BOTH.into_iter().zip([share, units * UNIT - share]) {
                balances.insert(DirectedChannel { scid: Scid(scid), direction }, balance);
                let policy = Policy {
                    fee_base: Msat(rng.range(0..2000)),
                    fee_proportional_millionths: rng.range(0..5000) as u32,
                    cltv_expiry_delta: CltvDelta(rng.range(1..40) as u16),
                    htlc_minimum: Msat(1),
                    htlc_maximum: Msat(units * UNIT),
                    disabled: rng.in_hundred(5),
                };
                let from = graph.channel(Scid(scid)).unwrap().origin(direction);
                graph.set_policy(Scid(scid), from, Some(policy)).unwrap();
            }
        }
        let snapshot = Snapshot::new(&graph);
        let reservations = Reservations::new();
        let payer = Payer::new(node(PAYER), PayerConfig::default(), Arc::clone(&reservations));
        World {
            rng,
            graph,
            snapshot,
            reservations,
            balances,
            payer,
            finder: PartFinder::new(),
            happenings: Vec::new(),
            held: Vec::new(),
            expected: BTreeMap::new(),
            attempts: BTreeSet::new(),
        }
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Payer, &PayerView<'_>, &mut dyn Router) -> T) -> T {
        let World { graph, snapshot, payer, finder, balances, .. } = self;
        let own = graph.channels_of(node(PAYER)).map(|channel| {
            let direction = Direction::BOTH.into_iter().find(|way| channel.origin(*way) == node(PAYER));
            let directed = DirectedChannel { scid: channel.scid(), direction: direction.unwrap() };
            (channel.scid(), FirstHop { spendable: Msat(balances[&directed]), htlc_minimum: Msat(1) })
        });
        let own_channels = own.collect();
        let view = PayerView { snapshot, own_channels: &own_channels, height: HEIGHT, unix_ms: 0 };
        call(payer, &view, finder)
    }

    fn begin(&mut self, number: u64) {
        let preimage = PaymentPreimage([number as u8 + 1; 32]);
        let hash = PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array());
        let amount = self.rng.range(1..6 * UNIT);
        let id = PaymentId::new(number).unwrap();
        let to = node(self.rng.range(2..u64::from(NODES) + 1) as u8);
        let secret = PaymentSecret([3; 32]);
        let mut request =
            PaymentRequest::new(id, to, Msat(amount), (hash, secret), CltvDelta(18), [number as u8; 32]);
        request.limits.parts_max = self.rng.range(1..6) as usize;
        request.limits.rounds_max = self.rng.range(1..12) as u32;
        request.limits.route.max_fee = Msat(self.rng.range(0..amount / 10 + 1));
        let payee = self.rng.pick(&[Payee::Honest, Payee::Honest, Payee::Hasty, Payee::Refusing]);
        let expected = Expected {
            payee,
            amount,
            most: amount + request.limits.route.max_fee.0,
            parts_max: request.limits.parts_max,
            preimage,
            in_flight: BTreeMap::new(),
            delivered: BTreeMap::new(),
            failed: 0,
            spent: 0,
            received: 0,
            proven: false,
            outcome: None,
        };
        self.expected.insert(id, expected);
        let updates = self.call(|payer, view, router| payer.begin(request, view, router)).unwrap();
        self.handle(updates);
    }

    fn handle(&mut self, updates: Vec<PaymentUpdate>) {
        for update in updates {
            match update {
                PaymentUpdate::Send(send) => {
                    let expected = self.expected.get_mut(&PaymentId::of_attempt(send.attempt_id)).unwrap();
                    assert!(self.attempts.insert(send.attempt_id), "an attempt id is used twice");
                    assert!(!expected.proven && expected.outcome.is_none(), "sent after the proof");
                    expected.in_flight.insert(send.attempt_id, send.amount.0);
                    self.happenings.push(Happening::Arrives(send));
                }
                PaymentUpdate::Proven { id, preimage } => {
                    let expected = self.expected.get_mut(&id).unwrap();
                    assert!(!std::mem::replace(&mut expected.proven, true), "proven once");
                    assert_eq!(preimage, expected.preimage);
                }
                PaymentUpdate::Ended(outcome) => {
                    let expected = self.expected.get_mut(&outcome.id).unwrap();
                    assert!(expected.outcome.is_none(), "ended once");
                    assert!(expected.in_flight.is_empty(), "ended with its last HTLC");
                    assert_eq!(outcome.result.is_ok(), expected.proven);
                    assert_eq!(outcome.sent().0, expected.spent);
                    assert_eq!(outcome.failures.len(), expected.failed);
                    assert_eq!(outcome.htlcs as usize, outcome.settled.len() + outcome.failures.len());
                    if expected.payee == Payee::Honest {
                        let due = if expected.proven { expected.amount } else { 0 };
                        assert_eq!(expected.received, due, "all or nothing");
                    }
                    expected.outcome = Some(*outcome);
                }
            }
        }
        for expected in self.expected.values() {
            assert!(expected.in_flight.len() <= expected.parts_max);
            assert!(expected.in_flight.values().sum::<u64>() + expected.spent <= expected.most);
        }
    }

    /// Carries an HTLC as far as it goes.
    fn arrive(&mut self, send: &SendHtlc) {
        let mut htlc =
            Htlc { attempt_id: send.attempt_id, hash: send.payment_hash, locked: vec![], secrets: vec![] };
        let ChannelRef::Scid(scid) = send.channel else { panic!("channels have a place") };
        let (mut scid, mut amount, mut at) = (scid, send.amount.0, PAYER);
        let (mut packet, mut expiry) = (send.onion.clone(), send.cltv_expiry);
        loop {
            let channel = self.graph.channel(scid).unwrap();
            let direction = Direction::BOTH.into_iter().find(|way| channel.origin(*way) == node(at)).unwrap();
            let directed = DirectedChannel { scid, direction };
            let next = number_of(channel.origin(direction.reversed()));
            let balance = self.balances.get_mut(&directed).unwrap();
            if *balance < amount {
                let (amount, available) = (Msat(amount), Msat(*balance));
                return self.fail_here(htlc, &Failure::TemporaryChannelFailure, Some((amount, available)));
            }
            *balance -= amount;
            htlc.locked.push((directed, amount));
            at = next;
            if self.rng.in_hundred(2) {
                let failure = self.rng.pick(&["garbage", "malformed"]);
                return self.fail_oddly(htlc, failure);
            }
            match peel(&key(at), &packet, &htlc.hash.0).unwrap() {
                Peeled::Forward { payload, next_packet, shared_secret } => {
                    htlc.secrets.push(shared_secret);
                    let payload = Payload::decode(&payload).unwrap().into_forward().unwrap();
                    let origin = node(at);
                    let policy = self.graph.channel(payload.short_channel_id).and_then(|channel| {
                        let way = Direction::BOTH.into_iter().find(|way| channel.origin(*way) == origin)?;
                        channel.policy(way).copied()
                    });
                    let policy = policy.expect("routes follow the graph");
                    let fee = policy.fee(payload.amt_to_forward).unwrap();
                    assert!(amount >= payload.amt_to_forward.0 + fee.0, "every fee is paid");
                    assert!(expiry >= payload.outgoing_cltv_value.saturating_add(policy.cltv_expiry_delta));
                    if self.rng.in_hundred(5) {
                        let failures = [
                            Failure::TemporaryNodeFailure,
                            Failure::UnknownNextPeer,
                            Failure::ExpiryTooSoon,
                            Failure::MppTimeout,
                        ];
                        let failure = self.rng.pick(&failures);
                        return self.fail_here(htlc, &failure, None);
                    }
                    amount = payload.amt_to_forward.0;
                    (scid, expiry) = (payload.short_channel_id, payload.outgoing_cltv_value);
                    packet = next_packet;
                }
                Peeled::Final { payload, shared_secret } => {
                    htlc.secrets.push(shared_secret);
                    let payload = Payload::decode(&payload).unwrap().into_final(&[]).unwrap();
                    assert_eq!(payload.amt_to_forward.0, amount);
                    return self.receive(htlc, amount, payload.payment_data.unwrap().total_msat.0);
                }
            }
        }
    }

    fn receive(&mut self, htlc: Htlc, amount: u64, total: u64) {
        let id = PaymentId::of_attempt(htlc.attempt_id);
        let expected = self.expected.get_mut(&id).unwrap();
        assert_eq!(total, expected.amount);
        expected.delivered.insert(htlc.attempt_id, amount);
        assert!(expected.delivered.values().sum::<u64>() <= total, "delivered at once: the amount at most");
        match expected.payee {
            Payee::Refusing => {
                let failure =
                    Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: Msat(amount), height: HEIGHT };
                self.fail_here(htlc, &failure, None);
            }
            Payee::Hasty => self.settle(htlc, amount),
            Payee::Honest => {
                self.held.push((htlc, amount));
                let of = |(htlc, _): &(Htlc, u64)| PaymentId::of_attempt(htlc.attempt_id) == id;
                let sum: u64 = self.held.iter().filter(|held| of(held)).map(|(_, amount)| amount).sum();
                if sum >= total {
                    let (set, rest) = std::mem::take(&mut self.held).into_iter().partition(of);
                    self.held = rest;
                    let set: Vec<_> = set;
                    set.into_iter().for_each(|(htlc, amount)| self.settle(htlc, amount));
                }
            }
        }
    }

    fn settle(&mut self, htlc: Htlc, amount: u64) {
        for (directed, amount) in &htlc.locked {
            let back = DirectedChannel { direction: directed.direction.reversed(), ..*directed };
            *self.balances.get_mut(&back).unwrap() += amount;
        }
        let expected = self.expected.get_mut(&PaymentId::of_attempt(htlc.attempt_id)).unwrap();
        expected.received += amount;
        let preimage = expected.preimage;
        self.happenings.push(Happening::Settled(htlc.attempt_id, preimage));
    }

    /// Fails an HTLC at the node it has reached: on its own channel, if it has not left the payer.
    fn fail_here(&mut self, htlc: Htlc, failure: &Failure, short: Option<(Msat, Msat)>) {
        let reason = match htlc.secrets.split_last() {
            Some((secret, before)) => {
                let mut packet = create_failure(secret, failure);
                before.iter().rev().for_each(|secret| wrap_failure(secret, &mut packet));
                FailureReason::Remote { packet }
            }
            None => {
                let (amount, available) = short.expect("the payer's own channel fails for want of balance");
                let error = ChannelCommandError::InsufficientBalance { amount, available };
                FailureReason::Local(LocalFailure::Refused { channel_id: ChannelId([1; 32]), error })
            }
        };
        self.unlock(htlc, reason);
    }

    fn fail_oddly(&mut self, htlc: Htlc, how: &str) {
        let reason = match (how, htlc.locked.len()) {
            ("malformed", 1) => {
                FailureReason::Malformed { failure_code: FailureCode::InvalidOnionHmac.to_u16() }
            }
            _ => FailureReason::Remote { packet: vec![9; 292] },
        };
        self.unlock(htlc, reason);
    }

    fn unlock(&mut self, htlc: Htlc, reason: FailureReason) {
        for (directed, amount) in &htlc.locked {
            *self.balances.get_mut(directed).unwrap() += amount;
        }
        self.happenings.push(Happening::Failed(htlc.attempt_id, reason));
    }

    /// One thing happens; `false` when nothing is left to happen.
    fn step(&mut self) -> bool {
        if self.happenings.is_empty() {
            // The rest does not come: the payees have waited long enough.
            let held = std::mem::take(&mut self.held);
            held.into_iter().for_each(|(htlc, _)| self.fail_here(htlc, &Failure::MppTimeout, None));
            if self.happenings.is_empty() {
                return false;
            }
        }
        let at = self.rng.range(0..self.happenings.len() as u64) as usize;
        match self.happenings.swap_remove(at) {
            Happening::Arrives(send) => self.arrive(&send),
            Happening::Settled(attempt_id, preimage) => {
                let expected = self.expected.get_mut(&PaymentId::of_attempt(attempt_id)).unwrap();
                expected.spent += expected.in_flight.remove(&attempt_id).unwrap();
                let updates =
                    self.call(|payer, view, _| payer.htlc_settled(attempt_id, preimage, view)).unwrap();
                self.handle(updates);
            }
            Happening::Failed(attempt_id, reason) => {
                let expected = self.expected.get_mut(&PaymentId::of_attempt(attempt_id)).unwrap();
                expected.in_flight.remove(&attempt_id).unwrap();
                expected.delivered.remove(&attempt_id);
                expected.failed += 1;
                let updates = self
                    .call(|payer, view, router| payer.htlc_failed(attempt_id, &reason, view, router))
                    .unwrap();
                self.handle(updates);
            }
        }
        true
    }
}

#[test]
fn payments_in_parts_pay_once_within_their_limits_whatever_happens() {
    let (mut paid, mut failed, mut split, mut retried) = (0, 0, 0, 0);
    for seed in 0..150 {
        let mut world = World::new(seed);
        let whole: u64 = world.balances.values().sum();
        let mut begun = 0;
        loop {
            if begun < 4 && (begun == 0 || world.rng.in_hundred(20)) {
                world.begin(begun);
                begun += 1;
            }
            if !world.step() && begun == 4 {
                break;
            }
        }
        assert_eq!(world.payer.payments_under_way(), 0, "seed {seed}: every payment has ended");
        assert_eq!(world.balances.values().sum::<u64>(), whole, "seed {seed}: no millisatoshi is lost");
        for directed in world.balances.keys() {
            assert_eq!(world.reservations.held(*directed), Msat::ZERO, "seed {seed}");
        }
        for expected in world.expected.values() {
            let outcome = expected.outcome.as_ref().expect("ended");
            paid += usize::from(outcome.result.is_ok());
            failed += usize::from(outcome.result.is_err());
            split += usize::from(outcome.settled.len() > 1);
            retried += usize::from(outcome.result.is_ok() && !outcome.failures.is_empty());
        }
    }
    assert!(paid > 60 && failed > 60 && split > 10 && retried > 10, "{paid} {failed} {split} {retried}");
}

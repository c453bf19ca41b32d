//! A second opinion: our channels and forwarding against LDK's, in one process, over serialized messages.
//!
//! The network is LDK - Fulmen - LDK. LDK checks every signature we make, and we every one it makes; a disagreement
//! shows as an error from either side, which fails the test.

mod fulmen;
mod gossip;
mod net;
mod node;

use bitcoin::constants::genesis_block;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Network, Transaction};
use fulmen_proto::commitment::ChannelType;
use fulmen_proto::forward::{Command, Event, ExpectedPayment, FailureReason, SendHtlc};
use fulmen_proto::onion::{FailureCode, PaymentData};
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::units::{
    BlockHeight, CltvDelta, FeeratePerKw, Msat, PaymentHash, PaymentPreimage, PaymentSecret, Sat,
};
use lightning::events::{Event as LdkEvent, PathFailure};
use secp256k1::SecretKey;

use fulmen::{FulmenNode, POLICY};
use net::{Member, Net};
use node::{Anchors, LdkNode};

/// Where the chain of these tests stands: LDK wants it to be past its own first aliases of channels.
const HEIGHT: u32 = 800_000;
const CAPACITY: Sat = Sat(2_000_000);
/// Half the capacity: both sides can pay from the start.
const PUSH: Msat = Msat(1_000_000_000);
/// Above every dust limit, and below it.
const AMOUNTS: [Msat; 2] = [Msat(50_000_000), Msat(100_000)];

/// Who opens the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opener {
    Ldk,
    Fulmen,
}

/// LDK `a` - our node - LDK `c`, both channels ready.
struct Line {
    net: Net,
    a: LdkNode,
    b: FulmenNode,
    c: LdkNode,
}

/// Which end of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    A,
    C,
}

impl Line {
    fn new(opener: Opener, channel_type: ChannelType) -> Line {
        let mut line = Line::begin(opener, FulmenNode::new(channel_type), channel_type);
        line.mine();
        line.check_usable(channel_type);
        line
    }

    /// The line around this node of ours, its channels' fundings not in the chain yet.
    fn begin(opener: Opener, mut b: FulmenNode, channel_type: ChannelType) -> Line {
        let tip = genesis_block(Network::Regtest).block_hash();
        let anchors = if channel_type == ChannelType::Anchors { Anchors::Yes } else { Anchors::No };
        let (mut a, mut c) = (LdkNode::new(1, anchors, tip, HEIGHT), LdkNode::new(3, anchors, tip, HEIGHT));
        let net = Net::new(tip, HEIGHT, &mut [&mut a, &mut b, &mut c]);
        match opener {
            Opener::Ldk => {
                a.open(b.id(), CAPACITY.0, PUSH.0);
                c.open(b.id(), CAPACITY.0, PUSH.0);
            }
            Opener::Fulmen => {
                b.open(a.id(), CAPACITY, PUSH);
                b.open(c.id(), CAPACITY, PUSH);
            }
        }
        Line { net, a, b, c }
    }

    fn check_usable(&self, channel_type: ChannelType) {
        for end in [&self.a, &self.c] {
            let channel = end.channel();
            assert!(channel.is_usable, "LDK's channel is not usable: {channel:?}");
            let features = channel.channel_type.expect("negotiated");
            assert_eq!(features.supports_anchors_zero_fee_htlc_tx(), channel_type == ChannelType::Anchors);
            assert_eq!(channel.short_channel_id, Some(self.b.scid_with(end.id()).0));
        }
    }

    fn settle(&mut self) {
        self.net.settle(&mut [&mut self.a, &mut self.b, &mut self.c]);
    }

    fn mine(&mut self) {
        self.net.mine(&mut [&mut self.a, &mut self.b, &mut self.c], 6);
    }

    fn step(&mut self) -> bool {
        self.net.step(&mut [&mut self.a, &mut self.b, &mut self.c])
    }

    /// The link between our node and one end breaks, and comes back.
    fn interrupt(&mut self, end: End) {
        let (x, y) = if end == End::A { (0, 1) } else { (1, 2) };
        let members: &mut [&mut dyn Member] = &mut [&mut self.a, &mut self.b, &mut self.c];
        self.net.disconnect(members, x, y);
        self.net.connect(members, x, y);
    }

    fn ends(&mut self, from: End) -> (&mut LdkNode, &mut LdkNode) {
        match from {
            End::A => (&mut self.a, &mut self.c),
            End::C => (&mut self.c, &mut self.a),
        }
    }

    /// Sends `amount` from one end to the other, offering our node `fee` and `cltv_delta` blocks.
    fn pay(&mut self, from: End, amount: Msat, fee: Msat, cltv_delta: u32) {
        let middle = self.b.id();
        let (payer, payee) = self.ends(from);
        let (hash, secret) = payee.invoice(amount.0);
        let first = payer.channel().short_channel_id.expect("ready");
        let second = payee.channel().short_channel_id.expect("ready");
        let hops = [(middle, first, fee.0, cltv_delta), (payee.id(), second, amount.0, 40)];
        payer.pay(&hops, hash, secret);
    }

    /// As `pay`, at the price our node asks.
    fn pay_well(&mut self, from: End, amount: Msat) {
        self.pay(from, amount, POLICY.fee(amount), u32::from(POLICY.cltv_expiry_delta.0));
    }

    /// LDK's balance in each channel, according to LDK and according to us.
    fn assert_balances_agree(&self) {
        for end in [&self.a, &self.c] {
            let theirs = end.channel();
            let ours = self.b.channel_with(end.id());
            assert!(theirs.pending_inbound_htlcs.is_empty() && theirs.pending_outbound_htlcs.is_empty());
            assert!(!ours.is_settling() && ours.htlcs().count() == 0);
            let (_, balance) = ours.balances().expect("an open channel has balances");
            // LDK reports the amount it could still send: its balance without the reserve and the anchors it pays for.
            let reserve = theirs.unspendable_punishment_reserve.expect("set once open") * 1000;
            let anchors = ours.channel_type() == Some(ChannelType::Anchors) && theirs.is_outbound;
            let kept = reserve + if anchors { 2 * 330_000 } else { 0 };
            assert_eq!(balance.0.saturating_sub(kept), theirs.outbound_capacity_msat, "{theirs:?}");
        }
    }
}

fn succeeded(node: &LdkNode) -> usize {
    node.events.iter().filter(|event| matches!(event, LdkEvent::PaymentSent { .. })).count()
}

fn failed(node: &LdkNode) -> usize {
    node.events.iter().filter(|event| matches!(event, LdkEvent::PaymentFailed { .. })).count()
}

#[test]
fn payments_cross_us_both_ways_whoever_opened() {
    for opener in [Opener::Ldk, Opener::Fulmen] {
        for channel_type in [ChannelType::Anchors, ChannelType::StaticRemotekey] {
            let mut line = Line::new(opener, channel_type);
            for from in [End::A, End::C, End::C, End::A] {
                for amount in AMOUNTS {
                    line.pay_well(from, amount);
                }
                line.settle();
            }
            assert_eq!((succeeded(&line.a), succeeded(&line.c)), (4, 4));
            assert_eq!(line.b.fees().len(), 8);
            line.assert_balances_agree();
        }
    }
}

#[test]
fn our_refusals_are_read_by_the_payer() {
    for from in [End::A, End::C] {
        let mut line = Line::new(Opener::Ldk, ChannelType::Anchors);
        let amount = AMOUNTS[0];
        let (fee, delta) = (POLICY.fee(amount), u32::from(POLICY.cltv_expiry_delta.0));
        let too_large = Msat(POLICY.htlc_maximum.0 + 1);
        let too_small = Msat(POLICY.htlc_minimum.0 - 1);
        let refused = [
            (amount, Msat(fee.0 - 1), delta, FailureCode::FeeInsufficient),
            (amount, fee, delta - 1, FailureCode::IncorrectCltvExpiry),
            (too_small, POLICY.fee(amount), delta, FailureCode::AmountBelowMinimum),
            (too_large, POLICY.fee(too_large), delta, FailureCode::TemporaryChannelFailure),
        ];
        for (index, (amount, fee, delta, code)) in refused.into_iter().enumerate() {
            line.pay(from, amount, fee, delta);
            line.settle();
            let code = code.to_u16();
            let last = line.b.events.iter().rev().find(|event| matches!(event, Event::HtlcRefused { .. }));
            assert!(
                matches!(last, Some(Event::HtlcRefused { code: given, .. }) if *given == code),
                "{last:?}"
            );
            let (payer, payee) = line.ends(from);
            assert_eq!((succeeded(payer), failed(payer)), (0, index + 1));
            let blamed = payer.events.iter().rev().find_map(|event| match event {
                LdkEvent::PaymentPathFailed { short_channel_id, failure, .. } => {
                    Some((short_channel_id, failure))
                }
                _ => None,
            });
            let outgoing = payee.channel().short_channel_id;
            assert!(
                matches!(blamed, Some((scid, PathFailure::OnPath { network_update: Some(_) })) if *scid == outgoing),
                "LDK blames {blamed:?}, not {outgoing:?}"
            );
        }
        line.assert_balances_agree();
    }
}

#[test]
fn a_payee_that_refuses_is_heard_through_us() {
    let mut line = Line::new(Opener::Fulmen, ChannelType::Anchors);
    let (hash, secret) = line.a.invoice(1_000);
    let (middle, first) = (line.b.id(), line.a.channel().short_channel_id.expect("ready"));
    let second = line.c.channel().short_channel_id.expect("ready");
    for amount in AMOUNTS {
        // The hash is of an invoice that `a` itself made: `c` knows nothing of it.
        let hops = [(middle, first, POLICY.fee(amount).0, 40), (line.c.id(), second, amount.0, 40)];
        line.a.pay(&hops, hash, secret);
        line.settle();
    }
    assert_eq!((succeeded(&line.a), failed(&line.a)), (0, 2));
    assert_eq!(line.b.fees(), []);
    line.assert_balances_agree();
}

#[test]
fn fee_rates_change_from_either_side() {
    for channel_type in [ChannelType::Anchors, ChannelType::StaticRemotekey] {
        for opener in [Opener::Ldk, Opener::Fulmen] {
            let mut line = Line::new(opener, channel_type);
            line.pay_well(End::A, AMOUNTS[0]);
            match opener {
                Opener::Ldk => line.a.set_feerate(2_500),
                Opener::Fulmen => {
                    let channel_id = line.b.channel_id_with(line.a.id());
                    line.b.node.command(Command::UpdateFee { channel_id, feerate: FeeratePerKw(2_500) });
                }
            }
            line.settle();
            line.pay_well(End::C, AMOUNTS[0]);
            line.settle();
            assert_eq!(line.b.channel_with(line.a.id()).feerate(), Some(FeeratePerKw(2_500)));
            assert_eq!(line.a.channel().feerate_sat_per_1000_weight, Some(2_500));
            assert_eq!((succeeded(&line.a), succeeded(&line.c)), (1, 1));
            line.assert_balances_agree();
        }
    }
}

/// The links break after every single message of a dance of crossing payments.
#[test]
fn interruptions_lose_nothing() {
    for opener in [Opener::Ldk, Opener::Fulmen] {
        for end in [End::A, End::C] {
            let mut interrupted_after = 0;
            loop {
                let mut line = Line::new(opener, ChannelType::Anchors);
                line.pay_well(End::A, AMOUNTS[0]);
                line.pay_well(End::C, AMOUNTS[1]);
                let under_way = (0..interrupted_after).all(|_| line.step());
                if !under_way {
                    break;
                }
                line.interrupt(end);
                line.settle();
                let outcomes = [&line.a, &line.c].map(|end| (succeeded(end), failed(end)));
                assert!(
                    outcomes.iter().all(|(succeeded, failed)| succeeded + failed == 1),
                    "{opener:?}, {end:?} interrupted after {interrupted_after} messages: {outcomes:?}"
                );
                line.assert_balances_agree();
                line.pay_well(End::A, AMOUNTS[0]);
                line.settle();
                assert_eq!(succeeded(&line.a) + failed(&line.a), 2);
                assert!(
                    line.a.events.iter().rev().any(|event| matches!(event, LdkEvent::PaymentSent { .. }))
                );
                line.assert_balances_agree();
                interrupted_after += 1;
            }
            assert!(interrupted_after > 20, "the dance had {interrupted_after} messages only");
        }
    }
}

#[test]
fn channels_close_by_agreement_from_either_side() {
    for opener in [Opener::Ldk, Opener::Fulmen] {
        for closer in [Opener::Ldk, Opener::Fulmen] {
            for channel_type in [ChannelType::Anchors, ChannelType::StaticRemotekey] {
                let mut line = Line::new(opener, channel_type);
                line.pay_well(End::A, AMOUNTS[0]);
                line.settle();
                let channel_id = line.b.channel_id_with(line.a.id());
                let funding = line.b.channel_with(line.a.id()).funding_outpoint().expect("funded");
                match closer {
                    Opener::Ldk => line.a.close(),
                    Opener::Fulmen => line.b.node.command(Command::CloseChannel { channel_id, script: None }),
                }
                line.settle();
                // LDK and we broadcast the same transaction, byte for byte, so that the net keeps one.
                let [closing] = line.net.mempool() else { panic!("{:?}", line.net.mempool()) };
                assert_eq!(closing.input[0].previous_output, funding);
                assert!(closed_by_us(&line.b).contains(&closing));
                assert!(line.a.manager.list_channels().is_empty());
                assert_eq!(line.c.manager.list_usable_channels().len(), 1);
            }
        }
    }
}

fn closed_by_us(node: &FulmenNode) -> Vec<&Transaction> {
    let closed = node.events.iter().filter_map(|event| match event {
        Event::ChannelClosed { transaction, .. } => Some(transaction),
        _ => None,
    });
    closed.collect()
}

#[test]
fn we_are_paid_and_pay() {
    let mut line = Line::new(Opener::Ldk, ChannelType::Anchors);
    let preimage = PaymentPreimage([9; 32]);
    let payment_hash = PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array());
    line.b.node.command(Command::ExpectPayment(ExpectedPayment {
        payment_hash,
        preimage,
        payment_secret: PaymentSecret([8; 32]),
        amount: Some(AMOUNTS[0]),
        min_final_cltv_expiry_delta: CltvDelta(18),
        expires_at_unix_ms: u64::MAX,
    }));
    line.settle();
    let first = line.a.channel().short_channel_id.expect("ready");
    let (hash, secret) = (lightning::types::payment::PaymentHash(payment_hash.0), [8; 32]);
    let middle = line.b.id();
    line.a.pay(&[(middle, first, AMOUNTS[0].0, 40)], hash, lightning::types::payment::PaymentSecret(secret));
    line.settle();
    assert_eq!(succeeded(&line.a), 1);
    let paid = Event::PaymentReceived { payment_hash, amount: AMOUNTS[0], parts: 1 };
    assert!(line.b.events.contains(&paid), "{:?}", line.b.events);

    // All that we say can be sent, LDK takes; the message that would overdraw is never made.
    let amount = line.b.channel_with(line.c.id()).available_out();
    let (hash, secret) = line.c.invoice(amount.0);
    let height = line.net.height();
    let hop = |amount| RouteHop {
        node_id: fulmen::node_id(line.c.id()),
        short_channel_id: line.b.scid_with(line.c.id()),
        amount,
        cltv_expiry: BlockHeight(height + 60),
    };
    let data = PaymentData { payment_secret: PaymentSecret(secret.0), total_msat: amount };
    let recipient = Recipient { payment_data: Some(data), payment_metadata: None, keysend_preimage: None };
    let session_key = SecretKey::from_slice(&[5; 32]).expect("a secret key");
    let payment = OutgoingPayment::new(&session_key, PaymentHash(hash.0), &[hop(amount)], &recipient);
    let payment = payment.expect("one hop fits an onion");
    let send =
        |attempt_id, amount| Command::SendHtlc(SendHtlc { amount, ..SendHtlc::new(attempt_id, &payment) });
    let (too_much, just_so) = (send(1, Msat(amount.0 + 1)), send(2, amount));
    line.b.node.command(too_much);
    line.settle();
    let refused =
        |event: &Event| matches!(event, Event::HtlcFailed { attempt_id: 1, reason: FailureReason::Local(_) });
    assert!(line.b.events.iter().any(refused), "{:?}", line.b.events);
    line.b.node.command(just_so);
    line.settle();
    let settled = |event: &Event| {
        matches!(event, Event::HtlcSettled { attempt_id: 2, preimage }
        if sha256::Hash::hash(&preimage.0).to_byte_array() == hash.0)
    };
    assert!(line.b.events.iter().any(settled), "{:?}", line.b.events);
    line.assert_balances_agree();
}

/// We accept the largest amount that LDK says it can send, and LDK the largest that we say we can forward.
#[test]
fn what_either_side_can_send_the_other_takes() {
    for opener in [Opener::Ldk, Opener::Fulmen] {
        for channel_type in [ChannelType::Anchors, ChannelType::StaticRemotekey] {
            let mut line = Line::new(opener, channel_type);
            for round in 1..=6 {
                let limit = line.a.channel().next_outbound_htlc_limit_msat.min(POLICY.htlc_maximum.0);
                let amount = Msat((limit - 1_000) * 999 / 1_000);
                line.pay_well(End::A, amount.min(line.b.channel_with(line.c.id()).available_out()));
                line.settle();
                let outcome = (succeeded(&line.a), failed(&line.a));
                assert_eq!(outcome, (round, 0), "{opener:?} {channel_type:?} {:?}", line.b.events.last());
                line.pay_well(End::C, Msat(amount.0 / 2));
                line.settle();
                line.assert_balances_agree();
            }
        }
    }
}

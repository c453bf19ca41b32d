//! LDK - Fulmen - LDK over TCP: connecting, opening, paying, forwarding, interruptions, restarts and mutual close.
//!
//! Each LDK node checks every signature that ours makes, and ours every one of theirs, on a chain with Bitcoin Core's
//! validation.

use std::path::Path;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, SecretKey};
use fulmen_net::{CloseReason, ConnectionEvent};
use fulmen_proto::channel::Channel;
use fulmen_proto::commitment::ChannelType;
use fulmen_proto::forward::{Command, Event, ExpectedPayment, SendHtlc};
use fulmen_proto::onion::PaymentData;
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::units::{
    BlockHeight, CltvDelta, Msat, NodeId, PaymentHash, PaymentPreimage, PaymentSecret, Sat,
};
use lightning::types::payment::{PaymentHash as LdkHash, PaymentSecret as LdkSecret};

use crate::chain::SharedChain;
use crate::fulmen_node::{FulmenNode, POLICY, Settings};
use crate::node::LdkNode;
use crate::wait::wait;

const CAPACITY: Sat = Sat(2_000_000);
/// Half the capacity: both sides can pay from the start.
const PUSH: Msat = Msat(1_000_000_000);
/// Above every dust limit, and below it.
const AMOUNTS: [Msat; 2] = [Msat(20_000_000), Msat(100_000)];

/// Who opens and dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Ldk,
    Fulmen,
}

/// LDK `a` - our node - LDK `c`, both channels usable.
struct Line {
    chain: SharedChain,
    a: LdkNode,
    b: FulmenNode,
    c: LdkNode,
}

fn node_id(key: PublicKey) -> NodeId {
    NodeId(key.serialize())
}

fn key(node: NodeId) -> PublicKey {
    PublicKey::from_slice(&node.0).unwrap()
}

impl Line {
    fn new(opener: Side, dialler: Side, directory: Option<&Path>, loops: usize) -> Line {
        let chain = SharedChain::new();
        let mut settings = Settings::new(42);
        settings.directory = directory.map(Into::into);
        settings.net.loops = loops;
        let b = FulmenNode::start(settings, &chain);
        let (a, c) = (LdkNode::start(1, &chain), LdkNode::start(3, &chain));
        let mut line = Line { chain, a, b, c };
        line.connect(dialler);
        let (a, b, c) = (line.a.id(), line.b.id(), line.c.id());
        match opener {
            Side::Ldk => [&line.a, &line.c].iter().for_each(|end| end.open(key(b), CAPACITY.0, PUSH.0)),
            Side::Fulmen => [a, c].into_iter().for_each(|end| line.b.open(node_id(end), CAPACITY, PUSH)),
        }
        line.mine_funding(2);
        line
    }

    fn connect(&mut self, dialler: Side) {
        let ours = self.b.id();
        for end in [&self.a, &self.c] {
            match dialler {
                Side::Ldk => end.dial(key(ours), self.b.address()),
                Side::Fulmen => self.b.keep_connected(node_id(end.id()), end.address()),
            }
        }
        for end in [&self.a, &self.c] {
            wait("both ends connect", || {
                self.b.is_connected(node_id(end.id())) && end.is_connected(key(ours))
            });
        }
    }

    fn mine_funding(&self, channels: usize) {
        wait("the funding transactions are broadcast", || {
            self.publish();
            self.chain.mempool_len() == channels
        });
        self.mine(6);
        wait("the channels are usable", || self.is_usable());
    }

    fn is_usable(&self) -> bool {
        let ours = |end: &LdkNode| {
            let peer = node_id(end.id());
            self.b.channel_with(peer).is_some() && self.b.channel(peer, Channel::is_usable)
        };
        [&self.a, &self.c].iter().all(|end| end.is_usable() && ours(end))
    }

    fn publish(&self) {
        self.b.publish();
        [&self.a, &self.c].iter().for_each(|end| end.publish());
    }

    fn mine(&self, blocks: u32) {
        for event in self.chain.mine(blocks) {
            self.b.block(&event);
            [&self.a, &self.c].iter().for_each(|end| end.block(&event));
        }
    }

    /// Sends `amount` from one end to the other, at the price of our node.
    fn pay(&self, from: &LdkNode, to: &LdkNode, amount: Msat) {
        let (hash, secret) = to.invoice(amount.0);
        let scid = |end: &LdkNode| end.channel().short_channel_id.expect("a usable channel has one");
        let (first, second) = (scid(from), scid(to));
        let (fee, delta) = (POLICY.fee(amount).0, u32::from(POLICY.cltv_expiry_delta.0));
        let hops = [(key(self.b.id()), first, fee, delta), (to.id(), second, amount.0, 40)];
        from.pay(&hops, hash, secret);
    }

    /// Pays both ways until each end has sent `count` payments more; all must succeed.
    fn pay_both_ways(&self, count: usize) {
        let before = [&self.a, &self.c].map(|end| end.outcomes().0);
        for number in 0..count {
            self.pay(&self.a, &self.c, AMOUNTS[number % 2]);
            self.pay(&self.c, &self.a, AMOUNTS[number % 2]);
        }
        for (end, before) in [&self.a, &self.c].into_iter().zip(before) {
            wait("payments arrive", || end.outcomes() == (before + count, 0));
        }
        self.assert_balances_agree();
    }

    /// LDK's balance in each channel, according to LDK and according to us, once nothing is in flight.
    fn assert_balances_agree(&self) {
        for end in [&self.a, &self.c] {
            let peer = node_id(end.id());
            wait("the channels come to rest", || {
                let theirs = end.channel();
                let is_quiet = |ours: &Channel| !ours.is_settling() && ours.htlcs().count() == 0;
                theirs.pending_inbound_htlcs.is_empty()
                    && theirs.pending_outbound_htlcs.is_empty()
                    && self.b.channel(peer, is_quiet)
            });
            let theirs = end.channel();
            let (balance, channel_type) = self
                .b
                .channel(peer, |ours| (ours.balances().expect("an open channel").1, ours.channel_type()));
            assert_eq!(channel_type, Some(ChannelType::Anchors));
            // LDK reports the amount it could still send: its balance without the reserve and the anchors it pays for.
            let reserve = theirs.unspendable_punishment_reserve.expect("set once open") * 1_000;
            let kept = reserve + if theirs.is_outbound { 2 * 330_000 } else { 0 };
            assert_eq!(balance.0.saturating_sub(kept), theirs.outbound_capacity_msat, "{theirs:?}");
        }
    }

    /// Nobody gave anybody a reason to fail a channel.
    fn assert_peace(&self) {
        let is_bad = |event: &Event| {
            matches!(
                event,
                Event::ChannelFailed { .. } | Event::PeerWarning { .. } | Event::CommandRefused { .. }
            )
        };
        let bad: Vec<_> = self.b.events().iter().filter(|event| is_bad(event)).cloned().collect();
        assert!(bad.is_empty(), "{bad:?}");
    }
}

#[test]
fn ldk_and_we_connect_open_and_forward_whoever_dials_and_opens() {
    for (opener, dialler, loops) in [(Side::Ldk, Side::Fulmen, 1), (Side::Fulmen, Side::Ldk, 2)] {
        let line = Line::new(opener, dialler, None, loops);
        line.pay_both_ways(10);
        assert_eq!(line.b.fees().len(), 20);
        line.assert_peace();
        line.b.shutdown();
    }
}

#[test]
fn we_pay_ldk_and_ldk_pays_us() {
    let line = Line::new(Side::Ldk, Side::Ldk, None, 1);
    let (amount, preimage) = (AMOUNTS[0], PaymentPreimage([9; 32]));
    let payment_hash = PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array());
    let expected = ExpectedPayment {
        payment_hash,
        preimage,
        payment_secret: PaymentSecret([8; 32]),
        amount: Some(amount),
        min_final_cltv_expiry_delta: CltvDelta(18),
        expires_at_unix_ms: u64::MAX,
    };
    line.b.engine.command(Command::ExpectPayment(expected)).unwrap();
    let first = line.a.channel().short_channel_id.unwrap();
    line.a.pay(&[(key(line.b.id()), first, amount.0, 40)], LdkHash(payment_hash.0), LdkSecret([8; 32]));
    wait("we are paid", || line.a.outcomes() == (1, 0));

    let (hash, secret) = line.c.invoice(amount.0);
    let peer = node_id(line.c.id());
    let (_, scid) = line.b.channel_with(peer).unwrap();
    let cltv_expiry = BlockHeight(line.chain.tip().0.0 + 60);
    let hop = RouteHop { node_id: peer, short_channel_id: scid, amount, cltv_expiry };
    let data = PaymentData { payment_secret: PaymentSecret(secret.0), total_msat: amount };
    let recipient = Recipient { payment_data: Some(data), payment_metadata: None, keysend_preimage: None };
    let session_key = SecretKey::from_slice(&[5; 32]).unwrap();
    let payment = OutgoingPayment::new(&session_key, PaymentHash(hash.0), &[hop], &recipient).unwrap();
    line.b.engine.command(Command::SendHtlc(SendHtlc::new(1, &payment))).unwrap();
    let is_settled = |event: &Event| matches!(event, Event::HtlcSettled { attempt_id: 1, .. });
    wait("we pay", || line.b.events().iter().any(is_settled));
    line.assert_balances_agree();
    line.assert_peace();
}

/// Either side hangs up while payments cross, again and again; the other dials.
#[test]
fn interruptions_in_mid_dance_lose_nothing() {
    let line = Line::new(Side::Fulmen, Side::Fulmen, None, 2);
    let ours = line.b.id();
    let mut sent = 0;
    for round in 0..12 {
        let usable = line.is_usable();
        wait("the channels are usable again", || line.is_usable());
        assert!(usable || round > 0);
        for _ in 0..3 {
            line.pay(&line.a, &line.c, AMOUNTS[round % 2]);
            line.pay(&line.c, &line.a, AMOUNTS[round % 2]);
            sent += 1;
        }
        // Into the dance by a time that differs from round to round.
        std::thread::sleep(std::time::Duration::from_millis(3 * round as u64));
        match round % 3 {
            0 => line.b.network.disconnect(node_id(line.a.id())),
            1 => line.a.disconnect(key(ours)),
            _ => {
                line.b.network.disconnect(node_id(line.c.id()));
                line.a.disconnect(key(ours));
            }
        }
    }
    for end in [&line.a, &line.c] {
        wait("every payment ends", || {
            let (succeeded, failed) = end.outcomes();
            succeeded + failed == sent
        });
    }
    assert!(line.b.connections_with(node_id(line.a.id())) > 8, "the connections were interrupted");
    line.assert_balances_agree();
    wait("the channels are usable at the end", || line.is_usable());
    let before = [&line.a, &line.c].map(|end| end.outcomes());
    line.pay(&line.a, &line.c, AMOUNTS[0]);
    wait("a payment arrives after all", || line.a.outcomes().0 == before[0].0 + 1);
    line.assert_balances_agree();
    line.assert_peace();
}

#[test]
fn either_side_restarts_with_payments_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let mut line = Line::new(Side::Ldk, Side::Fulmen, Some(directory.path()), 1);
    line.pay_both_ways(2);
    for round in 0..4 {
        for _ in 0..4 {
            line.pay(&line.a, &line.c, AMOUNTS[0]);
            line.pay(&line.c, &line.a, AMOUNTS[0]);
        }
        std::thread::sleep(std::time::Duration::from_millis(10 * round));
        let Line { chain, a, b, c } = line;
        let (a, b) = if round % 2 == 0 {
            drop(b); // as a crash would
            let mut settings = Settings::new(42);
            settings.directory = Some(directory.path().into());
            (a, FulmenNode::start(settings, &chain))
        } else {
            (LdkNode::restart(a.stop(), &chain), b)
        };
        line = Line { chain, a, b, c };
        line.connect(Side::Fulmen);
        let sent = 2 + 4 * (round as usize + 1);
        for end in [&line.a, &line.c] {
            wait("every payment ends", || {
                let (succeeded, failed) = end.outcomes();
                succeeded + failed == sent
            });
        }
        wait("the channels are usable again", || line.is_usable());
        line.assert_balances_agree();
    }
    line.assert_peace();
}

#[test]
fn channels_close_by_agreement_from_either_side() {
    let line = Line::new(Side::Fulmen, Side::Fulmen, None, 1);
    line.pay_both_ways(1);
    let peers = [node_id(line.a.id()), node_id(line.c.id())];
    line.a.close();
    let (channel_id, _) = line.b.channel_with(peers[1]).unwrap();
    line.b.engine.command(Command::CloseChannel { channel_id, script: None }).unwrap();
    wait("both closings are broadcast", || {
        line.publish();
        line.chain.mempool_len() == 2
    });
    let closed = |event: &&Event| matches!(event, Event::ChannelClosed { .. });
    wait("we know that both are closed", || line.b.events().iter().filter(closed).count() == 2);
    for end in [&line.a, &line.c] {
        wait("LDK knows too", || !end.has_channels());
    }
    line.mine(1);
    assert_eq!(line.chain.mempool_len(), 0, "the chain has accepted both");
    line.assert_peace();
}

/// A second connection of LDK takes the place of the first, which the engine then knows to be over.
#[test]
fn the_second_connection_of_a_node_replaces_the_first() {
    let chain = SharedChain::new();
    let b = FulmenNode::start(Settings::new(42), &chain);
    let first = LdkNode::start(1, &chain);
    first.dial(key(b.id()), b.address());
    let peer = node_id(first.id());
    wait("the first connects", || b.is_connected(peer));
    // The same keys: LDK has restarted, and we have not noticed.
    let second = LdkNode::start(1, &chain);
    second.dial(key(b.id()), b.address());
    wait("the second connects", || b.connections_with(peer) == 2);
    wait("the first learns of it", || !first.is_connected(key(b.id())));
    wait("the second stays", || second.is_connected(key(b.id())));
    let replaced = |event: &ConnectionEvent| {
        matches!(event, ConnectionEvent::Disconnected { reason: CloseReason::Replaced, .. })
    };
    assert_eq!(b.peer_events().iter().filter(|event| replaced(event)).count(), 1);
}

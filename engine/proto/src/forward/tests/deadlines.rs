//! HTLCs whose deadline passes because a peer does not answer (BOLT 2, "`cltv_expiry_delta` Selection").

use super::*;
use crate::channel::{ChannelError, State};

fn state(net: &Net, node: usize, other: usize) -> State {
    let channel_id = net.channel(node, other).channel_id;
    net.shards[node].channel(ChannelRef::Id(channel_id)).expect("the channel lives").state()
}

fn failures(net: &Net, node: usize) -> Vec<ChannelError> {
    let error = |event: &Event| match event {
        Event::ChannelFailed { error, .. } => Some((**error).clone()),
        _ => None,
    };
    net.events[node].iter().filter_map(error).collect()
}

#[test]
fn an_offered_htlc_past_its_expiry_fails_the_channel() {
    let mut net = Net::line(3);
    let (hash, recipient) = net.invoice(2, 1, Msat(2_000_000));
    // Held by its receiver, since half of the payment is missing.
    let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
    let expiry = BlockHeight(net.height.0 + 18);
    net.cut(1, 2);
    net.mine(BlockHeight(expiry.0 + 1), &[]);
    assert_eq!(state(&net, 1, 2), State::Normal, "within the grace period");
    let height = BlockHeight(expiry.0 + 2);
    net.mine(height, &[]);
    let expected = ChannelError::OfferedHtlcExpired { id: 0, cltv_expiry: expiry, height };
    assert_eq!((state(&net, 1, 2), failures(&net, 1)), (State::Failed, vec![expected]));
    assert_eq!(state(&net, 0, 1), State::Normal);
    assert_eq!(net.outcome(0, attempt), None, "only the chain tells how it ends");
    net.check_restored(1, &net.shards[1]);
}

#[test]
fn a_fulfilled_htlc_near_its_expiry_fails_the_channel() {
    let mut net = Net::line(2);
    let (hash, recipient) = net.invoice(1, 1, Msat(1_000_000));
    net.queue(0, hash, &net.route(&[0, 1], Msat(1_000_000), 18), &recipient);
    let received = |net: &Net| net.count(1, |event| matches!(event, Event::PaymentReceived { .. })) == 1;
    while !received(&net) {
        assert!(net.step(), "the payment arrives");
    }
    let expiry = BlockHeight(net.height.0 + 18);
    // The peer never hears of the preimage.
    net.cut(0, 1);
    net.mine(BlockHeight(expiry.0 - 11), &[]);
    assert_eq!(state(&net, 1, 0), State::Normal);
    let height = BlockHeight(expiry.0 - 10);
    net.mine(height, &[]);
    let expected = ChannelError::FulfilledHtlcNearExpiry { id: 0, cltv_expiry: expiry, height };
    assert_eq!((state(&net, 1, 0), failures(&net, 1)), (State::Failed, vec![expected]));
    net.mine(BlockHeight(expiry.0 + 2), &[]);
    assert_eq!(state(&net, 0, 1), State::Failed, "which its payer finds out later");
    net.check_restored(1, &net.shards[1]);
}

#[test]
fn nothing_is_decided_before_the_chain_is_in_step() {
    for days_behind in [false, true] {
        let mut net = Net::line_with(3, |node, config| config.awaits_chain = node == 1);
        let (hash, recipient) = net.invoice(2, 1, Msat(1_000_000));
        let route = net.route(&[0, 1, 2], Msat(1_000_000), 30);
        let attempt = net.send(0, hash, &route, &recipient);
        let own = net.send(1, hash, &net.route(&[1, 2], Msat(1_000_000), 30), &recipient);
        assert_eq!((net.outcome(0, attempt), net.shards[1].occupancy().circuits), (None, 0));
        assert_eq!(net.outcome(1, own), Some(Outcome::Local));
        net.restart(1);
        assert_eq!((net.outcome(0, attempt), net.shards[1].occupancy().circuits), (None, 0));
        if days_behind {
            // All that node 1 missed: the HTLC it would have offered has expired.
            net.mine(BlockHeight(net.height.0 + 31), &[]);
        }
        net.inputs[1].push(Input::ChainInStep);
        net.pump();
        match net.outcome(0, attempt) {
            Some(Outcome::Settled(_)) if !days_behind => {}
            Some(Outcome::Failed(0, Failure::ExpiryTooSoon)) if days_behind => {}
            other => panic!("{other:?}"),
        }
        net.check_at_rest();
    }
}

#[test]
fn an_offer_of_another_shard_waits_for_the_chain_too() {
    let mut net = Net::line_with(2, |_, config| config.awaits_chain = true);
    let channel = net.channel(0, 1);
    let offer = crate::forward::Offer {
        scid: channel.scid,
        incoming_amount: Msat(2_000_000),
        inbound_fee: crate::forward::InboundFee::default(),
        incoming_cltv_expiry: BlockHeight(net.height.0 + 100),
        amount: Msat(1_000_000),
        cltv_expiry: BlockHeight(net.height.0 + 40),
        received_at: net.now,
        payment_hash: PaymentHash([1; 32]),
    };
    let onion = fulmen_wire::onion::OnionPacket::from_bytes(Box::new([0; 1366]));
    let incoming = crate::forward::IncomingHtlc { channel_id: ChannelId([9; 32]), htlc_id: 0 };
    let step = crate::forward::HandoffStep::Offer { offer, onion };
    let handoff = crate::forward::Handoff { incoming, step };
    let turn = net.shards[0].turn([Input::Handoff(handoff)], net.now);
    assert!(turn.send.is_empty() && turn.handoffs.is_empty() && turn.record.is_empty(), "{turn:?}");
    let turn = net.shards[0].turn([Input::ChainInStep], net.now);
    assert!(turn.send.iter().any(|(_, message)| matches!(message, Message::UpdateAddHtlc(_))), "{turn:?}");
}

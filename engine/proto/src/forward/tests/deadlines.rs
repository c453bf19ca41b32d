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

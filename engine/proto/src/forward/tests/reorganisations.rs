//! Reorganisations that move the funding output of a channel, or take it out of the chain.

use super::*;
use crate::channel::State;

/// The confirmation of the second channel of a line at a place, or of its leaving that place.
fn confirmation(net: &Net, scid: Scid, depth: u32) -> Confirmation {
    let NetChannel { channel_id, .. } = net.channels[1];
    let channel = net.shards[1].channel(ChannelRef::Id(channel_id)).expect("it lives");
    let (ours, theirs) = channel.funding_pubkeys().expect("funded");
    let script_pubkey = crate::commitment::funding_output_script(&ours, &theirs);
    let output = TxOut { value: Amount::from_sat(CAPACITY.0), script_pubkey };
    let outpoint = channel.funding_outpoint().expect("funded");
    Confirmation { txid: Txid(outpoint.txid.to_byte_array()), scid, depth, output }
}

/// Moves the funding to another place, at once or by way of none; returns that place.
fn moved(net: &mut Net, at_once: bool) -> Scid {
    let before = net.channels[1].scid;
    let height = BlockHeight(net.height.0 + 1);
    if !at_once {
        let gone = confirmation(net, before, 0);
        net.mine(height, &[gone]);
    }
    let now = Scid::new(height.0, 7, before.output()).expect("in range");
    let back = confirmation(net, now, 6);
    net.mine(BlockHeight(height.0 + 6), &[back]);
    now
}

#[test]
fn a_moved_channel_is_known_by_its_new_place_alone() {
    for at_once in [false, true] {
        let mut net = Net::line(3);
        let before = net.channels[1].scid;
        let now = moved(&mut net, at_once);
        for node in [1, 2] {
            let ready = |event: &Event| matches!(event, Event::ChannelReady { scid, .. } if *scid == now);
            assert_eq!(net.count(node, ready), 1, "node {node}");
            let shard = &net.shards[node];
            assert!(shard.channel(ChannelRef::Scid(before)).is_none(), "node {node}");
            assert_eq!(
                shard.channel(ChannelRef::Scid(now)).map(|channel| channel.state()),
                Some(State::Normal)
            );
        }
        let (hash, recipient) = net.invoice(2, 1, Msat(1_000_000));
        let stale = net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
        assert_eq!(net.outcome(0, stale), Some(Outcome::Failed(0, Failure::UnknownNextPeer)));
        net.restart(1);
        net.channels[1].scid = now;
        let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
        assert!(
            matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))),
            "{:?}",
            net.outcome(0, attempt)
        );
        net.check_at_rest();
    }
}

#[test]
fn nothing_is_offered_while_the_funding_is_out_of_the_chain() {
    let mut net = Net::line(3);
    let gone = confirmation(&net, net.channels[1].scid, 0);
    net.mine(BlockHeight(net.height.0 + 1), &[gone]);
    let (hash, recipient) = net.invoice(2, 1, Msat(1_000_000));
    let route = net.route(&[0, 1, 2], Msat(1_000_000), 18);
    let attempt = net.send(0, hash, &route, &recipient);
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Failed(0, Failure::UnknownNextPeer)));
    net.restart(1);
    net.check_at_rest();
}

//! Starts from a copy of the store, whose state may be old.

use super::*;
use crate::channel::{ChannelError, State};
use crate::forward::CommandError;

/// Node 1 offers an HTLC to node 2, which holds it; then node 1 is started from a copy of its store.
fn started_from_a_copy() -> (Net, u64) {
    let mut net = Net::line(3);
    let (hash, recipient) = net.invoice(2, 1, Msat(2_000_000));
    // Held by its receiver, since half of the payment is missing.
    let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
    net.kill(1);
    net.shards[1].doubt_state();
    net.inputs[1].push(Input::Tick);
    net.pump();
    (net, attempt)
}

/// The failure of the channel between nodes 1 and 2 at node 1, and whether a broadcast is allowed.
fn failures(net: &Net) -> Vec<(ChannelError, bool)> {
    let failed = |event: &Event| match event {
        Event::ChannelFailed { error, broadcast_allowed, .. } => {
            Some(((**error).clone(), *broadcast_allowed))
        }
        _ => None,
    };
    net.events[1].iter().filter_map(failed).collect()
}

fn channel_id(net: &Net) -> ChannelId {
    net.channel(1, 2).channel_id
}

fn state(net: &Net) -> State {
    net.shards[1].channel(ChannelRef::Id(channel_id(net))).expect("it lives").state()
}

/// A height past the deadline of the HTLC.
fn too_late(net: &Net) -> BlockHeight {
    BlockHeight(net.height.0 + 20)
}

#[test]
fn deadlines_wait_until_the_peer_has_confirmed_the_state() {
    let (mut net, _) = started_from_a_copy();
    let height = too_late(&net);
    net.mine(height, &[]);
    assert_eq!((state(&net), failures(&net)), (State::Normal, Vec::new()));
    // The doubt is durable.
    net.kill(1);
    net.mine(BlockHeight(height.0 + 1), &[]);
    assert_eq!((state(&net), failures(&net)), (State::Normal, Vec::new()));
    // Its peer, which has failed the HTLC by now, is told nothing before it reestablishes the channel.
    net.connect(1, 2);
    net.mine(BlockHeight(height.0 + 2), &[]);
    assert!(!net.shards[1].is_in_doubt(channel_id(&net)));
}

#[test]
fn deadlines_hold_after_a_plain_restart() {
    let mut net = Net::line(3);
    let (hash, recipient) = net.invoice(2, 1, Msat(2_000_000));
    net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
    net.kill(1);
    let height = too_late(&net);
    net.mine(height, &[]);
    assert!(matches!(failures(&net)[..], [(ChannelError::OfferedHtlcExpired { .. }, true)]));
}

#[test]
fn the_operator_may_insist_on_a_state_in_doubt() {
    let (mut net, _) = started_from_a_copy();
    let height = too_late(&net);
    net.mine(height, &[]);
    let channel_id = channel_id(&net);
    net.command(1, Command::FailChannel { channel_id, reason: "now".to_owned() });
    let refused = |error: &CommandError| {
        net.count(1, |event| matches!(event, Event::CommandRefused { error: told } if told == error))
    };
    assert_eq!((refused(&CommandError::StateInDoubt(channel_id)), state(&net)), (1, State::Normal));
    net.command(1, Command::InsistOnState { channel_id });
    assert!(matches!(failures(&net)[..], [(ChannelError::OfferedHtlcExpired { .. }, true)]));
    net.command(1, Command::InsistOnState { channel_id });
    let error = CommandError::StateNotInDoubt(channel_id);
    assert_eq!(
        net.count(1, |event| matches!(event, Event::CommandRefused { error: told } if *told == error)),
        1
    );
    net.check_restored(1, &net.shards[1]);
}

#[test]
fn a_peer_that_fails_a_channel_in_doubt_gets_no_broadcast() {
    let (mut net, _) = started_from_a_copy();
    let channel_id = channel_id(&net);
    net.command(2, Command::FailChannel { channel_id, reason: "enough".to_owned() });
    net.connect(1, 2);
    let text = "the peer failed the channel: we failed the channel: enough".to_owned();
    assert_eq!(failures(&net), [(ChannelError::StateInDoubt(text), false)]);
    let channel = net.shards[1].channel(ChannelRef::Id(channel_id)).expect("it lives");
    assert!(channel.signed_local_commitment().is_none());
    net.kill(1);
    net.command(1, Command::InsistOnState { channel_id });
    assert!(matches!(failures(&net)[1..], [(ChannelError::Recorded { .. }, true)]));
    let channel = net.shards[1].channel(ChannelRef::Id(channel_id)).expect("it lives");
    assert!(channel.signed_local_commitment().is_some());
}

/// An HTLC that the copy holds unsigned may have been signed since, and claimed.
#[test]
fn what_a_copy_holds_unsigned_is_not_failed_upstream() {
    let mut net = Net::line(3);
    let (hash, recipient) = net.invoice(2, 1, Msat(1_000_000));
    let blocking = net.queue(1, hash, &net.route(&[1, 2], Msat(1_000_000), 18), &recipient);
    while net.shards[1].occupancy().offered == 0 {
        net.step();
    }
    let (hash, recipient) = net.invoice(2, 2, Msat(1_000_000));
    let attempt = net.queue(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
    for _ in 0..12 {
        net.step();
        net.wires.remove(&(2, 1));
    }
    let channel = net.shards[1].channel(ChannelRef::Id(channel_id(&net))).expect("it lives");
    assert!(channel.has_unsigned_additions());
    for in_doubt in [true, false] {
        net.kill(1);
        if in_doubt {
            net.shards[1].doubt_state();
        }
        net.inputs[1].push(Input::Tick);
        net.pump();
        net.connect(0, 1);
        assert_eq!(net.outcome(0, attempt), None, "{in_doubt}: a plain restart later ends no doubt");
    }
    net.connect(1, 2);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))), "{:?}", net.outcome(0, attempt));
    assert!(matches!(net.outcome(1, blocking), Some(Outcome::Settled(_))));
    net.check_at_rest();
}

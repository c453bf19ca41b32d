//! Peers that misbehave: their messages fail at most their own channel, and never the turn.

use fulmen_wire::message::{ErrorMessage, Ping, UpdateFailMalformedHtlc, UpdateFulfillHtlc, Warning};
use fulmen_wire::units::Signature;

use super::*;
use crate::channel::State;
use crate::forward::turn::blocks::FUNDING_TIMEOUT_BLOCKS;

/// Gives a node a message as if its peer had sent it, in a turn of its own; returns the turn.
fn tell(net: &mut Net, node: usize, peer: usize, message: impl Into<Message>) -> Turn {
    let input = Input::message(net.ids[peer], message.into());
    net.shards[node].turn([input], net.now)
}

fn state(net: &Net, node: usize, other: usize) -> State {
    let channel_id = net.channel(node, other).channel_id;
    net.shards[node].channel(ChannelRef::Id(channel_id)).expect("the channel lives").state()
}

#[test]
fn a_bad_signature_breaks_one_connection_and_no_channel() {
    let mut net = Net::line(3);
    net.dropped = Some(Vec::new());
    let (hash, recipient) = net.invoice(1, 1, Msat(10_000_000));
    let damaged_one = net.queue(0, hash, &net.route(&[0, 1], Msat(10_000_000), 18), &recipient);
    let (hash, recipient) = net.invoice(1, 2, Msat(10_000_000));
    let good = net.queue(2, hash, &net.route(&[2, 1], Msat(10_000_000), 18), &recipient);
    net.step();
    // Both neighbours' additions and signatures reach node 1 in one turn; one of the signatures is damaged.
    let wire = net.wires.get_mut(&(0, 1)).expect("messages are under way");
    let mut damaged = Message::decode(wire.back().expect("a commitment_signed")).expect("readable");
    let Message::CommitmentSigned(commitment) = &mut damaged else { panic!("{damaged:?}") };
    commitment.signature = Signature([0x11; 64]);
    *wire.back_mut().expect("there") = damaged.encode();
    net.pump();
    assert_eq!(net.dropped, Some(vec![(1, net.ids[0])]));
    assert!(matches!(net.outcome(2, good), Some(Outcome::Settled(_))));
    // On a new connection the same commitment is signed again.
    net.cut(0, 1);
    net.connect(0, 1);
    assert!(matches!(net.outcome(0, damaged_one), Some(Outcome::Settled(_))));
    net.check_at_rest();
}

#[test]
fn nonsense_about_unknown_channels_is_answered_with_an_error() {
    let mut net = Net::line(2);
    let channel_id = ChannelId([0xee; 32]);
    let fulfill = UpdateFulfillHtlc {
        channel_id,
        id: 0,
        payment_preimage: PaymentPreimage([0; 32]),
        attribution_data: None,
        unknown: Default::default(),
    };
    let turn = tell(&mut net, 0, 1, fulfill);
    assert!(
        matches!(turn.send.as_slice(), [(_, Message::ErrorMessage(error))] if error.channel_id == channel_id)
    );
    assert!(turn.record.is_empty());
    net.check_at_rest();
}

#[test]
fn a_stranger_cannot_touch_a_channel_of_another() {
    let mut net = Net::line(3);
    let channel_id = net.channel(1, 2).channel_id;
    let turn = tell(&mut net, 1, 0, ErrorMessage::new(channel_id, "closed"));
    assert!(matches!(turn.events.as_slice(), [Event::PeerWarning { .. }]));
    assert_eq!(state(&net, 1, 2), State::Normal);
}

#[test]
fn an_error_about_all_channels_fails_those_of_its_sender() {
    let mut net = Net::line(3);
    net.open(0, 1, CAPACITY, Msat(0));
    let turn = tell(&mut net, 1, 0, ErrorMessage::new(ChannelId([0; 32]), "all of them"));
    let failed = |event: &Event| matches!(event, Event::ChannelFailed { broadcast_allowed: true, .. });
    assert_eq!(turn.events.iter().filter(|event| failed(event)).count(), 2);
    assert_eq!(state(&net, 1, 2), State::Normal);
}

#[test]
fn an_error_waits_for_what_came_before_it() {
    for about in 0..3 {
        let mut net = Net::line(2);
        let opened = net.shards[0].turn([], net.now);
        assert!(opened.record.is_empty() && opened.send.is_empty(), "nothing to do, nothing done");
        let (hash, recipient) = net.invoice(1, 1, Msat(10_000_000));
        net.queue(0, hash, &net.route(&[0, 1], Msat(10_000_000), 18), &recipient);
        net.step();
        let temporary =
            net.records[0].iter().flat_map(|record| &record.changes).find_map(|change| match change {
                crate::forward::Change::ChannelNamed { temporary_channel_id, .. } => {
                    Some(*temporary_channel_id)
                }
                _ => None,
            });
        let ids = [net.channels[0].channel_id, temporary.expect("it was named"), ChannelId([0; 32])];
        let error = Message::from(ErrorMessage::new(ids[about], "over"));
        // Behind an addition and a commitment_signed whose signatures are verified in the same turn.
        net.wires.get_mut(&(0, 1)).expect("messages are under way").push_back(error.encode());
        net.pump();
        let expected = if about == 1 { State::Normal } else { State::Failed };
        assert_eq!(state(&net, 1, 0), expected);
    }
}

#[test]
fn an_impossible_removal_breaks_the_connection_and_an_error_fails_the_channel() {
    let mut net = Net::line(2);
    let malformed = UpdateFailMalformedHtlc {
        channel_id: net.channels[0].channel_id,
        id: 17,
        sha256_of_onion: [0; 32],
        failure_code: 0xc005,
        unknown: Default::default(),
    };
    let turn = tell(&mut net, 0, 1, malformed);
    assert!(matches!(turn.send.as_slice(), [(_, Message::Warning(_))]), "{turn:?}");
    assert_eq!(turn.disconnect, [net.ids[1]]);
    net.cut(0, 1);
    net.connect(0, 1);
    let error = ErrorMessage::new(net.channels[0].channel_id, "over");
    let turn = tell(&mut net, 0, 1, error);
    assert!(turn.events.iter().any(|event| matches!(event, Event::ChannelFailed { .. })), "{turn:?}");
    assert!(!turn.record.is_empty());
    // A failed channel is no place to send to, and its peer gets nothing but the error.
    let warning = Warning::new(net.channels[0].channel_id, "hm");
    let turn = tell(&mut net, 0, 1, warning);
    assert!(turn.send.is_empty());
    let attempt =
        net.send(0, PaymentHash([1; 32]), &net.route(&[0, 1], Msat(1_000), 18), &Recipient::default());
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Local));
}

#[test]
fn pings_are_answered_and_strangers_are_not_heard() {
    let mut net = Net::line(2);
    let ping = |num_pong_bytes| Ping { num_pong_bytes, ignored: Vec::new(), unknown: Default::default() };
    let turn = tell(&mut net, 0, 1, ping(7));
    assert!(matches!(turn.send.as_slice(), [(_, Message::Pong(pong))] if pong.ignored.len() == 7));
    assert!(tell(&mut net, 0, 1, ping(65_532)).send.is_empty());
    let stranger = Input::message(NodeId([3; 33]), ping(7).into());
    assert!(net.shards[0].turn([stranger], net.now).send.is_empty());
}

#[test]
fn a_peer_cannot_take_the_id_of_a_channel_or_open_too_many() {
    let mut net = Net::unconnected(2, |_, config| config.channels_per_peer_max = 2);
    net.connect(0, 1);
    net.open(0, 1, CAPACITY, Msat(0));
    // Opened behind the network's back, to get hold of the message.
    let open =
        OpenChannelRequest { peer: net.ids[1], user_id: 9, capacity: CAPACITY, push: Msat(0), policy: None };
    let turn = net.shards[0].turn([Input::Command(Command::OpenChannel(open))], net.now);
    let [(_, message @ Message::OpenChannel(_))] = turn.send.as_slice() else { panic!("{turn:?}") };
    let answer = tell(&mut net, 1, 0, message.clone());
    assert!(matches!(answer.send.as_slice(), [(_, Message::AcceptChannel(_))]));
    let answer = tell(&mut net, 1, 0, message.clone());
    assert!(matches!(answer.send.as_slice(), [(_, Message::ErrorMessage(_))]), "the id is taken");
    let mut third = message.clone();
    if let Message::OpenChannel(open) = &mut third {
        open.temporary_channel_id = ChannelId([5; 32]);
    }
    let answer = tell(&mut net, 1, 0, third);
    assert!(matches!(answer.send.as_slice(), [(_, Message::ErrorMessage(_))]), "there are enough");
    assert_eq!(net.shards[1].occupancy().channels, 2);
}

#[test]
fn a_message_out_of_place_breaks_the_connection_but_not_the_channel() {
    let mut net = Net::line(2);
    net.dropped = Some(Vec::new());
    let accept = Message::FundingSigned(fulmen_wire::message::FundingSigned {
        channel_id: net.channels[0].channel_id,
        signature: Signature([1; 64]),
        unknown: Default::default(),
    });
    net.inputs[0].push(Input::message(net.ids[1], accept));
    net.pump();
    assert_eq!(net.dropped, Some(vec![(0, net.ids[1])]));
    net.cut(0, 1);
    net.connect(0, 1);
    let (hash, recipient) = net.invoice(1, 1, Msat(1_000_000));
    let attempt = net.send(0, hash, &net.route(&[0, 1], Msat(1_000_000), 18), &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    net.check_at_rest();
}

#[test]
fn the_funding_of_a_channel_is_nobody_elses() {
    let mut net = Net::unconnected(3, |_, _| {});
    net.connect(0, 1);
    net.connect(2, 1);
    net.open(0, 1, CAPACITY, Msat(CAPACITY.to_msat().0 / 2));
    let script = net.events[0].iter().find_map(|event| match event {
        Event::FundingNeeded { script, .. } => Some(script.clone()),
        _ => None,
    });
    let theirs = funding_transaction(1, CAPACITY, script.expect("the channel was funded"));
    // Two channels at once: the second must not take the place of the first either.
    let mut forged = Vec::new();
    for user_id in [7, 8] {
        let open =
            OpenChannelRequest { peer: net.ids[1], user_id, capacity: CAPACITY, push: Msat(0), policy: None };
        net.command(2, Command::OpenChannel(open));
    }
    let other = Transaction { version: bitcoin::transaction::Version::ONE, ..theirs.clone() };
    let opening: Vec<ChannelId> = net.shards[2].channels().map(crate::channel::Channel::id).collect();
    for (transaction, channel_id) in [(&theirs, opening[0]), (&other, opening[0]), (&other, opening[1])] {
        let channel = net.shards[2].channel(ChannelRef::Id(channel_id)).expect("it is being opened");
        forged.push(channel.forged_funding_created(transaction, 0).expect("funding is awaited"));
    }
    let victim = net.channels[0].channel_id;
    let turn = tell(&mut net, 1, 2, forged.remove(0));
    assert!(matches!(turn.send.as_slice(), [(_, Message::ErrorMessage(_))]), "{:?}", turn.send);
    let (peer, _) = net.shards[1].policy(ChannelRef::Id(victim)).expect("the channel lives");
    assert_eq!((peer, state(&net, 1, 0)), (net.ids[0], State::Normal));
    // Again for a channel that is gone, and for the one left.
    let inputs = forged.into_iter().map(|message| Input::message(net.ids[2], message));
    let inputs: Vec<Input> = inputs.collect();
    let turn = net.shards[1].turn(inputs, net.now);
    assert!(
        matches!(turn.send.as_slice(), [(_, Message::ErrorMessage(_)), (_, Message::FundingSigned(_))]),
        "{:?}",
        turn.send
    );
    assert_eq!(net.shards[1].occupancy().channels, 2);
}

#[test]
fn a_dropped_peer_does_not_disturb_what_is_being_verified() {
    let mut net = Net::unconnected(2, |_, _| {});
    net.connect(0, 1);
    net.open(0, 1, CAPACITY, Msat(0));
    net.open(0, 1, CAPACITY, Msat(0));
    net.dropped = Some(Vec::new());
    let (hash, recipient) = net.invoice(1, 1, Msat(10_000_000));
    let attempt = net.queue(0, hash, &net.route(&[0, 1], Msat(10_000_000), 18), &recipient);
    net.step();
    let out_of_place = Message::FundingSigned(fulmen_wire::message::FundingSigned {
        channel_id: net.channels[1].channel_id,
        signature: Signature([1; 64]),
        unknown: Default::default(),
    });
    // It comes behind an addition and its commitment_signed on the other channel, in the same turn.
    net.wires.get_mut(&(0, 1)).expect("messages are under way").push_back(out_of_place.encode());
    net.step();
    assert_eq!(net.dropped, Some(vec![(1, net.ids[0])]));
    net.cut(0, 1);
    net.connect(0, 1);
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Settled(PaymentPreimage([1; 32]))));
    net.check_at_rest();
}

#[test]
fn an_error_about_the_temporary_id_ends_the_opening() {
    let mut net = Net::unconnected(2, |_, _| {});
    net.connect(0, 1);
    let open =
        OpenChannelRequest { peer: net.ids[1], user_id: 1, capacity: CAPACITY, push: Msat(0), policy: None };
    net.command(0, Command::OpenChannel(open));
    let needed = net.events[0].iter().find_map(|event| match event {
        Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
            Some((*temporary_channel_id, funding_transaction(1, *amount, script.clone())))
        }
        _ => None,
    });
    let (temporary_channel_id, transaction) = needed.expect("the peer accepts");
    let fund = Input::Command(Command::FundingTransaction { temporary_channel_id, transaction });
    let _ = net.shards[0].turn([fund], net.now);
    let turn = tell(&mut net, 0, 1, ErrorMessage::new(temporary_channel_id, "not like this"));
    assert!(matches!(turn.events.as_slice(), [Event::ChannelFailed { .. }]), "{:?}", turn.events);
    assert_eq!(net.shards[0].occupancy().channels, 0);
}

#[test]
fn no_answer_fails_all_channels_of_a_peer() {
    let mut net = Net::line(2);
    let fulfill = UpdateFulfillHtlc {
        channel_id: ChannelId([0; 32]),
        id: 0,
        payment_preimage: PaymentPreimage([0; 32]),
        attribution_data: None,
        unknown: Default::default(),
    };
    let turn = tell(&mut net, 0, 1, fulfill);
    assert!(matches!(turn.send.as_slice(), [(_, Message::Warning(_))]), "{:?}", turn.send);
}

#[test]
fn a_channel_is_not_waited_for_for_ever() {
    let mut net = Net::unconnected(2, |_, config| config.unconfirmed_channels_per_peer_max = 2);
    net.connect(0, 1);
    let open =
        OpenChannelRequest { peer: net.ids[1], user_id: 1, capacity: CAPACITY, push: Msat(0), policy: None };
    net.open(0, 1, CAPACITY, Msat(0));
    net.events[0].clear();
    for number in 1..=3u64 {
        net.command(0, Command::OpenChannel(open.clone()));
        let needed = net.events[0].drain(..).find_map(|event| match event {
            Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
                Some((temporary_channel_id, funding_transaction(100 + number, amount, script)))
            }
            _ => None,
        });
        // The channel that has confirmed counts no more.
        assert_eq!(needed.is_some(), number < 3, "channel {number}");
        let Some((temporary_channel_id, transaction)) = needed else { continue };
        net.command(0, Command::FundingTransaction { temporary_channel_id, transaction });
        if number == 1 {
            // A failed one is remembered, and counted, all the same.
            let last = |channel: &&crate::channel::Channel| channel.scid().is_none();
            let channel_id = net.shards[1].channels().find(last).expect("it was accepted").id();
            let _ = tell(&mut net, 1, 0, ErrorMessage::new(channel_id, "over"));
        }
    }
    assert_eq!(net.shards[1].occupancy().channels, 3);
    net.mine(BlockHeight(net.height.0 + FUNDING_TIMEOUT_BLOCKS), &[]);
    assert_eq!(net.shards[1].occupancy().channels, 3);
    net.mine(BlockHeight(net.height.0 + 1), &[]);
    assert_eq!(net.shards[1].occupancy().channels, 1);
    assert_eq!(state(&net, 1, 0), State::Normal);
    net.check_restored(1, &net.shards[1]);
}

#[test]
fn a_confirmed_channel_that_failed_or_closes_is_not_forgotten_as_unfunded() {
    for closes in [false, true] {
        let mut net = Net::unconnected(2, |_, config| config.channel.minimum_depth = 3);
        net.connect(0, 1);
        let push = Msat(CAPACITY.to_msat().0 / 2);
        let open =
            OpenChannelRequest { peer: net.ids[1], user_id: 1, capacity: CAPACITY, push, policy: None };
        net.command(0, Command::OpenChannel(open));
        let needed = net.events[0].drain(..).find_map(|event| match event {
            Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
                Some((temporary_channel_id, funding_transaction(1, amount, script)))
            }
            _ => None,
        });
        let (temporary_channel_id, transaction) = needed.expect("the peer accepts");
        let (txid, output) =
            (Txid(transaction.compute_txid().to_byte_array()), transaction.output[0].clone());
        net.command(0, Command::FundingTransaction { temporary_channel_id, transaction });
        let channel_id = ChannelId::from_funding(txid, 0);
        // Before it is deep enough the peer closes the channel, or fails it; then it confirms.
        if closes {
            net.command(1, Command::CloseChannel { channel_id, script: None });
        } else {
            let _ = tell(&mut net, 1, 0, ErrorMessage::new(channel_id, "over"));
        }
        let scid = Scid::new(START.0 + 1, 1, 0).expect("in range");
        let height = net.height.0 + 1;
        net.mine(BlockHeight(height), &[Confirmation { txid, scid, depth: 1, output }]);
        net.mine(BlockHeight(height + FUNDING_TIMEOUT_BLOCKS + 1), &[]);
        assert_eq!(net.shards[1].occupancy().channels, 1, "our half of it is in the chain");
        net.mine(BlockHeight(height + 2 * FUNDING_TIMEOUT_BLOCKS), &[]);
        assert_eq!(net.shards[1].occupancy().channels, 1);
    }
}

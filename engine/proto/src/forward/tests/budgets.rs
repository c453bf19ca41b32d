//! Peers that make a turn expensive: the bytes that their messages cost in a record, a checkpoint or an answer.

use fulmen_wire::message::{ErrorMessage, Ping, TEXT_MAX_BYTES};

use super::*;
use crate::channel::FAILURE_REASON_BYTES_MAX;
use crate::forward::turn::blocks::FUNDING_TIMEOUT_BLOCKS;
use crate::forward::turn::pongs::PONG_BYTES_MAX;

/// Gives a node messages as if its peer had sent them, in one turn, and keeps the record.
fn hear(net: &mut Net, node: usize, peer: usize, messages: impl IntoIterator<Item = Message>) -> Turn {
    let peer = net.ids[peer];
    let inputs = messages.into_iter().map(|message| Input::message(peer, message));
    net.shards[node].turn(inputs, net.now)
}

/// An `open_channel` that node 0 sends to node 1.
fn open_channel(net: &mut Net) -> fulmen_wire::message::OpenChannel {
    let open =
        OpenChannelRequest { peer: net.ids[1], user_id: 9, capacity: CAPACITY, push: Msat(0), policy: None };
    let mut turn = net.shards[0].turn([Input::Command(Command::OpenChannel(open))], net.now);
    match turn.send.pop() {
        Some((_, Message::OpenChannel(open))) => open,
        other => panic!("{other:?}"),
    }
}

/// `count` channels with ids of their own.
fn openings(open: &fulmen_wire::message::OpenChannel, count: u32) -> Vec<Message> {
    let opening = |number: u32| {
        let mut open = open.clone();
        open.temporary_channel_id.0[..4].copy_from_slice(&number.to_be_bytes());
        Message::from(open)
    };
    (0..count).map(opening).collect()
}

#[test]
fn a_long_error_about_many_channels_is_stored_short() {
    const CHANNELS: u32 = 300;
    let mut net = Net::unconnected(2, |_, config| config.unfunded_channels_per_peer_max = CHANNELS as usize);
    net.connect(0, 1);
    let open = open_channel(&mut net);
    let turn = hear(&mut net, 1, 0, openings(&open, CHANNELS));
    assert_eq!(turn.send.len(), CHANNELS as usize, "each is accepted");
    let error = ErrorMessage {
        channel_id: ChannelId([0; 32]),
        data: vec![b'x'; 65_499],
        unknown: Default::default(),
    };
    let turn = hear(&mut net, 1, 0, [Message::from(error)]);
    let failed = turn.events.iter().filter(|event| matches!(event, Event::ChannelFailed { .. }));
    assert_eq!(failed.count(), CHANNELS as usize);
    let bytes = records::bytes(&turn.record).len();
    assert!(bytes <= CHANNELS as usize * (TEXT_MAX_BYTES + 100), "{bytes} bytes");
}

/// Runs the network while every failure that `from` sends to `to` has a reason of this length.
fn pump_with_reasons(net: &mut Net, from: usize, to: usize, length: usize) {
    let mut quiet = 0;
    while quiet < 10 {
        quiet = if net.step() { 0 } else { quiet + 1 };
        net.now.unix_ms += 50;
        net.wake();
        for bytes in net.wires.get_mut(&(from, to)).into_iter().flatten() {
            if let Ok(Message::UpdateFailHtlc(mut failed)) = Message::decode(bytes) {
                failed.reason = vec![0x5a; length];
                *bytes = Message::from(failed).encode();
            }
        }
    }
}

#[test]
fn long_failure_reasons_are_replaced_and_do_not_swell_the_record() {
    const HTLCS: u8 = 40;
    for length in [FAILURE_REASON_BYTES_MAX, FAILURE_REASON_BYTES_MAX + 1, 65_491] {
        let mut net = Net::line(3);
        let route = net.route(&[0, 1, 2], Msat(1_000_000), 18);
        let attempts: Vec<u64> = (0..HTLCS)
            .map(|number| net.queue(0, PaymentHash([number + 1; 32]), &route, &Recipient::default()))
            .collect();
        let before = net.records[1].len();
        pump_with_reasons(&mut net, 2, 1, length);
        for attempt in attempts {
            let relayed = length <= FAILURE_REASON_BYTES_MAX;
            match net.events[0].iter().find_map(|event| match event {
                Event::HtlcFailed { attempt_id, reason } if *attempt_id == attempt => Some(reason),
                _ => None,
            }) {
                Some(FailureReason::Remote { packet }) if relayed => assert_eq!(packet.len(), length),
                Some(FailureReason::Remote { .. }) => {
                    let failed = Outcome::Failed(0, Failure::TemporaryChannelFailure);
                    assert_eq!(net.outcome(0, attempt), Some(failed));
                }
                other => panic!("{other:?}"),
            }
        }
        let largest = net.records[1][before..].iter().map(|record| records::bytes(record).len()).max();
        assert!(largest.is_some_and(|bytes| bytes <= usize::from(HTLCS) * 2 * 5_000), "{largest:?}");
        net.check_at_rest();
    }
}

#[test]
fn many_pings_are_answered_with_one_pong_of_the_longest() {
    let mut net = Net::line(2);
    let pings = |count: usize, num_pong_bytes| {
        let ping = Ping { num_pong_bytes, ignored: Vec::new(), unknown: Default::default() };
        vec![Message::from(ping); count]
    };
    let pong_bytes =
        |turn: &Turn| -> usize { turn.send.iter().map(|(_, message)| message.encode().len()).sum() };
    let turn = hear(&mut net, 0, 1, pings(2_048, 65_531));
    assert_eq!((turn.send.len(), pong_bytes(&turn)), (1, 4 + 65_531));
    assert!(hear(&mut net, 0, 1, pings(1, 65_531)).send.is_empty(), "within the same second");
    net.now.unix_ms += 1_000;
    let turn = hear(&mut net, 0, 1, pings(4_096, 0));
    assert!(turn.send.len() == 2_048 && pong_bytes(&turn) <= PONG_BYTES_MAX, "{}", turn.send.len());
}

#[test]
fn onions_of_refused_htlcs_are_not_remembered() {
    let mut net = Net::line(3);
    for number in 0..20 {
        let mut route = net.route(&[0, 1, 2], Msat(1), 18);
        route[1].short_channel_id = Scid(u64::MAX - number);
        let attempt = net.send(0, PaymentHash([number as u8 + 1; 32]), &route, &Recipient::default());
        assert_eq!(net.outcome(0, attempt), Some(Outcome::Failed(0, Failure::UnknownNextPeer)));
    }
    assert_eq!(net.shards[1].occupancy().replay_tags, 0);
    net.check_at_rest();
}

#[test]
fn a_full_replay_memory_accepts_no_htlc_until_another_expires() {
    let mut net = Net::line_with(3, |_, config| config.replay_tags_max = 2);
    let pay = |net: &mut Net, number| {
        let (hash, recipient) = net.invoice(2, number, Msat(1_000_000));
        let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
        net.outcome(0, attempt)
    };
    for number in 1..=2 {
        assert!(matches!(pay(&mut net, number), Some(Outcome::Settled(_))));
    }
    assert_eq!(pay(&mut net, 3), Some(Outcome::Failed(0, Failure::TemporaryNodeFailure)));
    net.mine(BlockHeight(net.height.0 + 18 + 34 + 1), &[]);
    assert!(matches!(pay(&mut net, 4), Some(Outcome::Settled(_))));
    net.check_at_rest();
}

#[test]
fn a_peer_opens_no_more_unfunded_channels_than_allowed() {
    let mut net = Net::unconnected(2, |_, config| config.unfunded_channels_per_peer_max = 4);
    net.connect(0, 1);
    let open = open_channel(&mut net);
    let turn = hear(&mut net, 1, 0, openings(&open, 10));
    let accepted = turn.send.iter().filter(|(_, message)| matches!(message, Message::AcceptChannel(_)));
    assert_eq!((accepted.count(), turn.send.len()), (4, 10), "the others are told of an error");
    assert_eq!(net.shards[1].occupancy().channels, 4);
}

/// Has one node open a channel to another and name a funding transaction that is not mined; whether it was accepted.
fn open_unconfirmed(net: &mut Net, from: usize, to: usize, number: u64) -> bool {
    let open = OpenChannelRequest {
        peer: net.ids[to],
        user_id: number,
        capacity: CAPACITY,
        push: Msat(0),
        policy: None,
    };
    net.events[from].clear();
    net.command(from, Command::OpenChannel(open));
    let needed = net.events[from].drain(..).find_map(|event| match event {
        Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
            Some((temporary_channel_id, funding_transaction(100 + number, amount, script)))
        }
        _ => None,
    });
    let Some((temporary_channel_id, transaction)) = needed else { return false };
    net.command(from, Command::FundingTransaction { temporary_channel_id, transaction });
    true
}

#[test]
fn strangers_cannot_keep_a_peer_with_a_channel_from_opening_another() {
    let mut net = Net::unconnected(3, |_, config| config.unconfirmed_channels_max = 1);
    net.connect(0, 1);
    net.connect(2, 1);
    net.open(0, 1, CAPACITY, Msat(0));
    assert!(open_unconfirmed(&mut net, 2, 1, 1));
    assert!(!open_unconfirmed(&mut net, 2, 1, 2), "the strangers' room is taken");
    assert!(open_unconfirmed(&mut net, 0, 1, 3));
    net.check_restored(1, &net.shards[1]);
}

#[test]
fn a_channel_begun_before_the_first_block_is_forgotten_in_time() {
    let mut net = Net::unconnected(2, |_, _| {});
    // A node that has not been told any block.
    net.shards[1] = Shard::new(net.seeds[1].clone(), net.shards[1].config().clone());
    net.records[1].clear();
    net.checkpoints[1].clear();
    net.connect(0, 1);
    assert!(open_unconfirmed(&mut net, 0, 1, 1));
    net.mine(BlockHeight(START.0 + 1), &[]);
    net.mine(BlockHeight(START.0 + 1 + FUNDING_TIMEOUT_BLOCKS), &[]);
    assert_eq!(net.shards[1].occupancy().channels, 1);
    net.check_restored(1, &net.shards[1]);
    net.mine(BlockHeight(START.0 + 2 + FUNDING_TIMEOUT_BLOCKS), &[]);
    assert_eq!(net.shards[1].occupancy().channels, 0);
}

//! Reconnection at every point of the dance.

use super::*;
use fulmen_wire::message::ChannelReestablish;

/// An exchange of all kinds of updates in both directions, cut after `cut` deliveries; it is finished after
/// the reconnection. Gives the number of deliveries when it was not cut.
fn dance(channel_type: ChannelType, cut: usize, a_first: bool) -> usize {
    let mut pair = Pair::with_type(channel_type);
    pair.locked_in(Msat(40_000_000), 1);
    pair.locked_in(Msat(41_000_000), 2);
    pair.b.add(Msat(42_000_000), 3);
    pair.settle();
    pair.a.take_events();
    pair.b.fulfill(0, 1);
    pair.b.command(&ChannelCommand::FailHtlc { id: 1, reason: vec![9] }).unwrap();
    pair.a.fulfill(0, 3);
    pair.a.add(Msat(43_000_000), 4);
    pair.b.add(Msat(44_000_000), 5);
    pair.a.command(&ChannelCommand::UpdateFee { feerate: FeeratePerKw(1500) }).unwrap();

    let mut delivered = 0;
    let mut quiet = 0;
    while delivered < cut && quiet < 2 {
        let a_turn = (delivered % 2 == 0) == a_first;
        if a_turn {
            pair.a.commit()
        } else {
            pair.b.commit()
        }
        let any = pair.deliver_one(a_turn);
        delivered += usize::from(any);
        if any {
            quiet = 0;
        } else {
            pair.a.commit();
            pair.b.commit();
            quiet += 1;
        }
    }
    pair.reconnect();
    // A second loss, right after the reestablishment was sent, must not hurt either.
    pair.disconnect();
    pair.connect();
    pair.a_to_b();
    pair.reconnect();

    let settled = |events: &[ChannelEvent]| {
        let locked = |event: &&ChannelEvent| matches!(event, ChannelEvent::AddLockedIn { .. });
        events.iter().filter(locked).count()
    };
    assert_eq!(settled(&pair.a.events), 1, "cut at {cut}");
    pair.b.fulfill(2, 4);
    pair.a.fulfill(1, 5);
    pair.settle();
    let a = 600_000_000 - 40_000_000 + 42_000_000 - 43_000_000 + 44_000_000;
    assert_eq!(pair.a.balances(), (Msat(a), Msat(1_000_000_000 - a)), "cut at {cut}");
    assert_eq!(pair.b.balances(), (Msat(1_000_000_000 - a), Msat(a)), "cut at {cut}");
    assert_eq!(pair.a.channel.feerate(), Some(FeeratePerKw(1500)));
    assert_eq!(pair.a.channel.htlcs().count() + pair.b.channel.htlcs().count(), 0);
    delivered
}

#[test]
fn a_message_lost_anywhere_is_made_up_for() {
    for channel_type in [ChannelType::Anchors, ChannelType::StaticRemotekey] {
        for a_first in [true, false] {
            let all = dance(channel_type, usize::MAX, a_first);
            assert!(all > 12, "{all}");
            for cut in 0..all {
                dance(channel_type, cut, a_first);
            }
        }
    }
}

#[test]
fn removals_are_taken_while_disconnected_and_additions_are_not() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    let id = pair.locked_in(Msat(40_000_000), 1);
    pair.disconnect();
    assert_eq!(pair.a.command(&add(Msat(1_000_000), 2)), Err(ChannelCommandError::NotConnected));
    let fee = ChannelCommand::UpdateFee { feerate: FeeratePerKw(2000) };
    assert_eq!(pair.a.command(&fee), Err(ChannelCommandError::NotConnected));
    assert!(!pair.a.channel.is_usable());
    assert_eq!(pair.a.channel.available_out(), Msat::ZERO);
    pair.b.fulfill(id, 1);
    assert!(pair.b.sent.is_empty());
    pair.connect();
    pair.settle();
    assert_eq!(pair.b.balances().0, Msat(440_000_000));
}

#[test]
fn a_preimage_seen_once_is_reported_even_if_the_update_is_lost() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    let id = pair.locked_in(Msat(40_000_000), 1);
    pair.b.fulfill(id, 1);
    assert!(pair.b_to_a());
    pair.disconnect();
    assert!(matches!(pair.a.take_events()[..], [ChannelEvent::Fulfilled { id: 0, .. }]));
    assert!(pair.a.channel.htlc(Side::Local, id).unwrap().removal.is_none());
    pair.connect();
    pair.settle();
    assert!(matches!(
        pair.a.take_events()[..],
        [ChannelEvent::Fulfilled { id: 0, .. }, ChannelEvent::FulfillLockedIn { id: 0 }]
    ));
}

/// A pair that has exchanged several commitments, and `b`'s reestablishment as `a` is about to see it.
fn before_reestablishment() -> (Pair, ChannelReestablish) {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    for number in 0..3 {
        pair.locked_in(Msat(1_000_000), number);
    }
    pair.disconnect();
    pair.connect();
    let message = Message::decode(&pair.b.sent.pop_front().unwrap()).unwrap();
    let Message::ChannelReestablish(message) = message else { panic!("{message:?}") };
    (pair, message)
}

#[test]
fn numbers_that_cannot_be_fail_the_channel() {
    type Change = fn(&mut ChannelReestablish);
    let cases: [(Change, &str); 6] = [
        (|message| message.next_commitment_number = 0, "commitment"),
        (|message| message.next_commitment_number += 1, "commitment"),
        (|message| message.next_revocation_number -= 2, "revocation"),
        (|message| message.your_last_per_commitment_secret[0] ^= 1, "secret"),
        (|message| message.next_revocation_number += 1, "revocation"),
        (|message| message.next_revocation_number = u64::MAX, "revocation"),
    ];
    for (change, kind) in cases {
        let (mut pair, mut message) = before_reestablishment();
        change(&mut message);
        let error = pair.a.receive(&Message::from(message).encode()).unwrap_err();
        let found = match error {
            ChannelError::ReestablishCommitmentNumber { .. } => "commitment",
            ChannelError::ReestablishRevocationNumber { .. } => "revocation",
            ChannelError::ReestablishSecret(_) => "secret",
            ref other => panic!("{other:?}"),
        };
        assert_eq!(found, kind);
        pair.a.react(&error);
        assert_eq!(pair.a.channel.state(), State::Failed);
        assert!(pair.a.channel.signed_local_commitment().is_some());
    }
    let (mut pair, mut message) = before_reestablishment();
    message.next_revocation_number = 0;
    assert!(pair.a.receive(&Message::from(message).encode()).is_err());
}

#[test]
fn before_the_first_revocation_the_secret_is_zero() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    pair.disconnect();
    pair.connect();
    let message = Message::decode(&pair.b.sent.pop_front().unwrap()).unwrap();
    let Message::ChannelReestablish(mut message) = message else { panic!("{message:?}") };
    assert_eq!(message.your_last_per_commitment_secret, [0; 32]);
    message.your_last_per_commitment_secret[3] = 1;
    let error = pair.a.receive(&Message::from(message).encode()).unwrap_err();
    assert_eq!(error, ChannelError::ReestablishSecret(0));
}

#[test]
fn outdated_state_is_not_broadcast() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    pair.locked_in(Msat(1_000_000), 1);
    let backup = pair.a.record.clone();
    for number in 2..5 {
        pair.locked_in(Msat(1_000_000), number);
    }
    pair.disconnect();
    pair.a.channel = Channel::replay(secrets(1), backup.clone()).unwrap();
    pair.a.record = backup;
    pair.connect();
    let message = pair.b.sent.pop_front().unwrap();
    let error = pair.a.receive(&message).unwrap_err();
    assert!(matches!(error, ChannelError::WeFellBehind { .. }), "{error}");
    pair.a.react(&error);
    assert!(matches!(
        pair.a.take_events().last(),
        Some(ChannelEvent::Failed { broadcast_allowed: false, .. })
    ));
    assert!(pair.a.channel.signed_local_commitment().is_none());
    // The peer sees that we are behind; it fails the channel and may broadcast.
    let message = pair.a.sent.pop_front().unwrap();
    let error = pair.b.receive(&message).unwrap_err();
    pair.b.react(&error);
    assert!(pair.b.channel.signed_local_commitment().is_some());
}

#[test]
fn nothing_but_reestablishment_may_come_first() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    pair.b.add(Msat(1_000_000), 1);
    let early = pair.b.sent.pop_front().unwrap();
    pair.disconnect();
    pair.connect();
    let error = pair.a.receive(&early).unwrap_err();
    assert!(matches!(error, ChannelError::UnexpectedMessage { message: "update_add_htlc", .. }));
    let reestablish = pair.b.sent.front().unwrap().clone();
    pair.settle();
    let error = pair.a.receive(&reestablish).unwrap_err();
    assert!(matches!(error, ChannelError::UnexpectedMessage { message: "channel_reestablish", .. }));
}

#[test]
fn a_failed_channel_answers_with_its_error() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    pair.a.command(&ChannelCommand::Fail { reason: "enough".to_owned() }).unwrap();
    pair.a.sent.clear();
    pair.a.command(&ChannelCommand::Disconnected).unwrap();
    pair.a.command(&connected()).unwrap();
    let error = pair.a.sent.pop_front().unwrap();
    assert!(matches!(Message::decode(&error), Ok(Message::ErrorMessage(_))));
    let refused = pair.b.receive(&error).unwrap_err();
    pair.b.react(&refused);
    assert_eq!(pair.b.channel.state(), State::Failed);
    assert!(pair.b.sent.is_empty(), "an error is not answered with another");
}

#[test]
fn what_crossed_a_lost_update_is_not_held_against_it() {
    let mut setup = Setup::new(ChannelType::Anchors);
    setup.push = Msat(980_000_000);
    let mut pair = Pair::ready(&setup);
    // The opener's fee is sent and lost; meanwhile it acknowledges additions that make this fee dear.
    pair.a.command(&ChannelCommand::UpdateFee { feerate: FeeratePerKw(6000) }).unwrap();
    for number in 0..6 {
        pair.b.add(Msat(20_000_000), number);
    }
    pair.b.commit();
    while pair.b_to_a() {}
    pair.disconnect();
    pair.connect();
    pair.settle();
    assert_eq!(pair.b.channel.feerate(), Some(FeeratePerKw(6000)));
    assert_eq!(pair.a.channel.in_flight(Side::Remote).0, 6);
}

#[test]
fn transactions_to_broadcast_survive_a_restart() {
    let mut pair = Pair::funded(&Setup::new(ChannelType::Anchors));
    pair.a.channel = Channel::replay(secrets(1), pair.a.record.clone()).unwrap();
    let funding = pair.a.channel.funding_transaction().expect("still to confirm").compute_txid();
    assert_eq!(Some(funding), pair.a.channel.funding_outpoint().map(|outpoint| outpoint.txid));
    assert!(pair.b.channel.funding_transaction().is_none());
    pair.disconnect();
    pair.confirm();
    assert!(pair.a.channel.funding_transaction().is_none());
    pair.connect();
    pair.a.command(&ChannelCommand::Shutdown { scriptpubkey: None }).unwrap();
    pair.settle();
    let replayed = Channel::replay(secrets(1), pair.a.record.clone()).unwrap();
    assert_eq!(replayed.state(), State::Closed);
    assert_eq!(replayed.closing_transaction(), pair.a.broadcast.first());
}

#[test]
fn a_channel_ready_before_the_reestablishment_is_no_reason_to_reconnect() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    pair.locked_in(Msat(1_000_000), 1);
    let channel_id = pair.b.channel.id();
    let ready = Message::from(fulmen_wire::message::ChannelReady {
        channel_id,
        second_per_commitment_point: crate::keys::to_point(
            &secrets(2).per_commitment_point(crate::keys::CommitmentNumber(1)),
        ),
        alias: None,
        unknown: Default::default(),
    });
    let announcement = Message::from(fulmen_wire::message::AnnouncementSignatures {
        channel_id,
        short_channel_id: scid(),
        node_signature: fulmen_wire::units::Signature([1; 64]),
        bitcoin_signature: fulmen_wire::units::Signature([1; 64]),
        unknown: Default::default(),
    });
    for early in [ready, announcement] {
        pair.disconnect();
        pair.connect();
        let sent = pair.a.sent.len();
        pair.a.receive(&early.encode()).unwrap();
        assert_eq!(pair.a.sent.len(), sent, "no warning");
        pair.settle();
        pair.b.add(Msat(1_000_000), 7);
        pair.settle();
    }
}

#[test]
fn a_first_channel_ready_before_the_reestablishment_counts() {
    let mut pair = Pair::funded(&Setup::new(ChannelType::Anchors));
    pair.confirm();
    let ready = pair.b.sent.pop_front().expect("channel_ready");
    pair.disconnect();
    pair.connect();
    pair.a.receive(&ready).unwrap();
    pair.settle();
    pair.locked_in(Msat(1_000_000), 1);
}

/// A pair whose `b` came back with a backup some HTLCs old, and its `channel_reestablish`.
fn with_old_backup() -> (Pair, Vec<Delta>, Vec<u8>) {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    pair.locked_in(Msat(1_000_000), 1);
    pair.locked_in(Msat(1_000_000), 2);
    let backup = pair.b.record.clone();
    for number in 3..6 {
        pair.locked_in(Msat(1_000_000), number);
    }
    pair.disconnect();
    let latest = std::mem::replace(&mut pair.b.record, backup.clone());
    pair.b.channel = Channel::replay(secrets(2), backup).unwrap();
    pair.connect();
    let reestablish = pair.b.sent.pop_front().unwrap();
    (pair, latest, reestablish)
}

#[test]
fn a_peer_with_an_old_backup_may_find_a_better_one() {
    let (mut pair, latest, reestablish) = with_old_backup();
    let error = pair.a.receive(&reestablish).unwrap_err();
    assert!(matches!(error, ChannelError::PeerFellBehind { .. }), "{error}");
    assert_eq!(pair.a.channel.reaction(&error), crate::channel::Reaction::Wait);
    pair.a.react(&error);
    assert!(matches!(Message::decode(pair.a.sent.back().unwrap()), Ok(Message::Warning(_))));
    assert_eq!(pair.a.channel.state(), State::Normal);
    // It restarts with the right state.
    pair.b.channel = Channel::replay(secrets(2), latest.clone()).unwrap();
    pair.b.record = latest;
    pair.reconnect();
    pair.locked_in(Msat(1_000_000), 9);
}

#[test]
fn a_peer_with_an_old_backup_may_ask_us_to_close() {
    let (mut pair, _, reestablish) = with_old_backup();
    let error = pair.a.receive(&reestablish).unwrap_err();
    pair.a.react(&error);
    let lost = fulmen_wire::message::ErrorMessage::new(pair.a.channel.id(), "lost state");
    let error = pair.a.receive(&Message::from(lost).encode()).unwrap_err();
    pair.a.react(&error);
    assert_eq!(pair.a.channel.state(), State::Failed);
    assert!(pair.a.channel.signed_local_commitment().is_some());
}

#[test]
fn an_old_backup_that_proves_nothing_fails_the_channel() {
    let (mut pair, _, reestablish) = with_old_backup();
    let Ok(Message::ChannelReestablish(true_one)) = Message::decode(&reestablish) else { panic!() };
    let wrong = ChannelReestablish { your_last_per_commitment_secret: [7; 32], ..true_one.clone() };
    let zero = ChannelReestablish {
        next_commitment_number: 0,
        next_revocation_number: 0,
        your_last_per_commitment_secret: [0; 32],
        ..true_one
    };
    for message in [wrong, zero] {
        let error = pair.a.receive(&Message::from(message).encode()).unwrap_err();
        assert_eq!(pair.a.channel.reaction(&error), crate::channel::Reaction::Fail, "{error}");
    }
}

/// An addition that the backup holds unsigned may have been signed since: it is left to the chain.
#[test]
fn an_old_backup_does_not_withdraw_additions_that_were_signed_since() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    pair.a.add(Msat(1_000_000), 1);
    let backup = pair.a.record.clone();
    pair.settle();
    pair.locked_in(Msat(1_000_000), 2);
    pair.disconnect();
    pair.a.channel = Channel::replay(secrets(1), backup.clone()).unwrap();
    pair.a.record = backup;
    pair.connect();
    let message = pair.b.sent.pop_front().unwrap();
    let error = pair.a.receive(&message).unwrap_err();
    assert!(matches!(error, ChannelError::WeFellBehind { .. }), "{error}");
    pair.a.react(&error);
    let dropped = |event: &ChannelEvent| matches!(event, ChannelEvent::AddDropped { .. });
    assert!(!pair.a.take_events().iter().any(dropped));
    assert_eq!(pair.a.channel.htlcs().count(), 1);
}

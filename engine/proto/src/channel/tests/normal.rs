//! HTLCs and fees in normal operation.

use super::*;
use crate::channel::{Removal, Stage};
use crate::keys::CommitmentNumber;

const AMOUNT: Msat = Msat(50_000_123);
/// Below the dust limit of either side.
const DUST: Msat = Msat(353_999);

fn types() -> [ChannelType; 2] {
    [ChannelType::Anchors, ChannelType::StaticRemotekey]
}

#[test]
fn an_htlc_is_fulfilled() {
    for channel_type in types() {
        for amount in [AMOUNT, DUST] {
            let mut pair = Pair::with_type(channel_type);
            let id = pair.locked_in(amount, 1);
            assert_eq!(pair.a.channel.in_flight(Side::Local), (1, amount));
            assert_eq!(pair.b.channel.in_flight(Side::Remote), (1, amount));
            pair.b.fulfill(id, 1);
            assert!(pair.b_to_a());
            // The preimage counts before anything is signed.
            let events = pair.a.take_events();
            assert!(
                matches!(events[..], [ChannelEvent::Fulfilled { id: 0, preimage: found }] if found == preimage(1))
            );
            pair.settle();
            assert!(matches!(pair.a.take_events()[..], [ChannelEvent::FulfillLockedIn { id: 0 }]));
            assert!(matches!(
                pair.b.take_events()[..],
                [ChannelEvent::RemovalLockedIn { id: 0, fulfilled: true }]
            ));
            assert_eq!(pair.a.balances(), (Msat(600_000_000 - amount.0), Msat(400_000_000 + amount.0)));
            assert_eq!(pair.b.balances(), (Msat(400_000_000 + amount.0), Msat(600_000_000 - amount.0)));
            assert_eq!(pair.a.channel.htlcs().count(), 0);
        }
    }
}

#[test]
fn an_htlc_is_failed_only_when_that_is_irrevocable() {
    for channel_type in types() {
        let failures = [
            (ChannelCommand::FailHtlc { id: 0, reason: vec![1, 2, 3] }, Removal::Fail(vec![1, 2, 3])),
            (
                ChannelCommand::FailMalformedHtlc { id: 0, sha256_of_onion: [5; 32], failure_code: 0xc005 },
                Removal::FailMalformed { sha256_of_onion: [5; 32], failure_code: 0xc005 },
            ),
        ];
        for (command, expected) in failures {
            let mut pair = Pair::with_type(channel_type);
            pair.locked_in(AMOUNT, 1);
            pair.b.command(&command).unwrap();
            pair.b.commit();
            while pair.b_to_a() {}
            pair.a.commit();
            assert!(pair.a.take_events().is_empty(), "the peer may still go back");
            pair.settle();
            let events = pair.a.take_events();
            assert!(
                matches!(&events[..], [ChannelEvent::FailLockedIn { id: 0, removal }] if *removal == expected)
            );
            assert!(matches!(
                pair.b.take_events()[..],
                [ChannelEvent::RemovalLockedIn { id: 0, fulfilled: false }]
            ));
            assert_eq!(pair.a.balances(), (Msat(600_000_000), Msat(400_000_000)));
        }
    }
}

#[test]
fn commitments_of_both_sides_cross() {
    for channel_type in types() {
        let mut pair = Pair::with_type(channel_type);
        pair.a.add(AMOUNT, 1);
        pair.b.add(Msat(60_000_000), 2);
        pair.a.commit();
        pair.b.commit();
        // Both have signed; each now sees the other's addition and signature, and answers.
        while pair.a_to_b() {}
        pair.b.add(Msat(1_000_000), 3);
        while pair.b_to_a() {}
        pair.settle();
        let locked_in = |events: Vec<ChannelEvent>| {
            events.iter().filter(|event| matches!(event, ChannelEvent::AddLockedIn { .. })).count()
        };
        assert_eq!(locked_in(pair.a.take_events()), 2);
        assert_eq!(locked_in(pair.b.take_events()), 1);
        pair.a.fulfill(0, 2);
        pair.b.fulfill(0, 1);
        pair.a.command(&ChannelCommand::FailHtlc { id: 1, reason: vec![] }).unwrap();
        pair.settle();
        let a = Msat(600_000_000 - AMOUNT.0 + 60_000_000);
        assert_eq!(pair.a.balances().0, a);
        assert_eq!(pair.b.balances().1, a);
    }
}

#[test]
fn updates_are_batched_while_a_revocation_is_due() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    pair.a.add(AMOUNT, 0);
    pair.a.commit();
    let sent = pair.a.sent.len();
    for number in 1..=5 {
        pair.a.add(Msat(1_000_000), number);
        pair.a.commit();
    }
    assert_eq!(pair.a.sent.len(), sent + 5, "no second signature before the first is answered");
    pair.settle();
    let (local, remote) = pair.a.channel.commitment_numbers().unwrap();
    assert_eq!((local, remote), (CommitmentNumber(2), CommitmentNumber(2)));
    assert!(pair.a.channel.plan_turn_end(&CONTEXT).is_none());
    assert!(!pair.a.channel.is_settling());
}

#[test]
fn the_fee_is_updated_on_both_sides() {
    for channel_type in types() {
        let mut pair = Pair::with_type(channel_type);
        pair.locked_in(AMOUNT, 1);
        pair.a.command(&ChannelCommand::UpdateFee { feerate: FeeratePerKw(2000) }).unwrap();
        pair.b.add(Msat(30_000_000), 2);
        pair.settle();
        for node in [&pair.a, &pair.b] {
            assert_eq!(node.channel.feerate(), Some(FeeratePerKw(2000)));
            let (commitment, _) = node.channel.signed_local_commitment().unwrap();
            assert_eq!(commitment.feerate, FeeratePerKw(2000));
            assert_eq!(commitment.htlcs.len(), 2);
        }
        assert_eq!(
            pair.b.command(&ChannelCommand::UpdateFee { feerate: FeeratePerKw(3000) }),
            Err(ChannelCommandError::NotOpener)
        );
    }
}

#[test]
fn what_is_available_can_be_sent_and_no_more() {
    for channel_type in types() {
        for funding in [Sat(1_000_000), Sat(20_000)] {
            let mut setup = Setup::new(channel_type);
            setup.funding = funding;
            setup.push = Msat(funding.0 * 400);
            setup.a.max_dust_htlc_exposure = Msat::MAX_MONEY;
            setup.b.max_dust_htlc_exposure = Msat::MAX_MONEY;
            let mut pair = Pair::ready(&setup);
            for number in 0..4 {
                let (a, b) = (pair.a.channel.available_out(), pair.b.channel.available_out());
                assert!(a > Msat::ZERO || number > 0 || funding == Sat(20_000));
                for (node, available) in [(&mut pair.a, a), (&mut pair.b, b)] {
                    let over = node.channel.plan_command(&add(Msat(available.0 + 1), number));
                    assert!(over.is_err(), "{available} is all there is");
                    if available > Msat::ZERO {
                        node.add(available, number);
                    }
                }
                pair.settle();
            }
            assert!(pair.a.channel.receivable() <= pair.a.channel.balances().unwrap().1);
        }
    }
}

#[test]
fn what_both_can_send_at_once_is_affordable() {
    // The same as above with every message crossing, which a non-opener's addition makes hard for the opener.
    for channel_type in types() {
        let mut pair = Pair::with_type(channel_type);
        for number in 0..6 {
            let (a, b) = (pair.a.channel.available_out(), pair.b.channel.available_out());
            for (node, available) in [(&mut pair.a, a), (&mut pair.b, b)] {
                if available.0 > 2 {
                    node.add(Msat(available.0 / 2), number);
                }
                node.commit();
            }
            while pair.a_to_b() {}
            while pair.b_to_a() {}
        }
        pair.settle();
    }
}

#[test]
fn an_htlc_over_the_dust_exposure_is_marked() {
    let mut setup = Setup::new(ChannelType::Anchors);
    setup.b.max_dust_htlc_exposure = Msat(500_000);
    let mut pair = Pair::ready(&setup);
    pair.a.add(Msat(300_000), 1);
    pair.a.add(Msat(300_000), 2);
    pair.a.add(AMOUNT, 3);
    pair.settle();
    let marks: Vec<bool> = pair
        .b
        .take_events()
        .iter()
        .filter_map(|event| match event {
            ChannelEvent::AddLockedIn { over_dust_exposure, .. } => Some(*over_dust_exposure),
            _ => None,
        })
        .collect();
    assert_eq!(marks, [false, true, false]);
    assert_eq!(pair.b.channel.dust_exposure(Side::Local), Msat(600_000));
    assert_eq!(pair.b.channel.htlc(Side::Remote, 1).unwrap().added, Stage::Irrevocable);
}

#[test]
fn signed_commitments_carry_valid_signatures_for_every_htlc() {
    for channel_type in types() {
        let mut pair = Pair::with_type(channel_type);
        for number in 0..3 {
            pair.a.add(Msat(20_000_000), number);
            pair.b.add(Msat(20_000_000), number + 10);
        }
        pair.settle();
        for node in [&pair.a, &pair.b] {
            let (commitment, transaction) = node.channel.signed_local_commitment().unwrap();
            assert_eq!(transaction.compute_txid(), commitment.txid);
            assert_eq!(commitment.htlcs.len(), 6);
            let signatures = node.channel.local_htlc_signatures();
            let valid = commitment.htlcs.iter().zip(signatures).all(|(output, signature)| {
                crate::keys::verify(&output.digest, signature, &commitment.keys.remote_htlc_pubkey)
            });
            assert!(valid && signatures.len() == 6);
        }
    }
}

#[test]
fn a_peer_may_spend_what_it_claims_at_once() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    let id = pair.locked_in(Msat(500_000_000), 1);
    pair.b.fulfill(id, 1);
    pair.b_to_a();
    // The peer holds 400,000 satoshi and has just claimed another 500,000.
    let message = fulmen_wire::message::UpdateAddHtlc {
        channel_id: pair.a.channel.id(),
        id: 0,
        amount_msat: Msat(800_000_000),
        payment_hash: hash_of(&preimage(2)),
        cltv_expiry: BlockHeight(500),
        onion_routing_packet: OnionPacket::from_bytes(Box::new([0; 1366])),
        path_key: None,
        unknown: Default::default(),
    };
    let plan = pair.a.channel.plan(&message.into(), &CONTEXT).unwrap();
    let _ = pair.a.channel.apply(plan, &[]);
    assert!(pair.a.channel.available_out() < Msat(100_000_000));
    assert_eq!(pair.a.channel.receivable(), Msat::ZERO);
}

#[test]
fn many_fee_changes_leave_one_behind() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    // The acceptor has signed once, and the opener goes on as if it had heard nothing but its answers.
    pair.b.add(AMOUNT, 1);
    pair.b.commit();
    for round in 0..10 {
        pair.a.command(&ChannelCommand::UpdateFee { feerate: FeeratePerKw(1001 + round) }).unwrap();
        pair.a.commit();
        while pair.a_to_b() {}
        let answer = pair.b.sent.pop_back().unwrap();
        pair.a.receive(&answer).unwrap();
    }
    assert!(pair.b.channel.funded().unwrap().updates.feerates().count() <= 3);
    assert_eq!(pair.b.channel.feerate(), Some(FeeratePerKw(1010)));
}

#[test]
fn a_commitment_without_updates_is_answered() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    for _ in 0..2 {
        let funded = pair.b.channel.funded().unwrap();
        let commitment = funded.next_remote_commitment().unwrap().unwrap();
        let mut empty = Plan::of(Delta::CommitmentSent);
        funded.sign_remote_commitment(&commitment, &mut empty);
        pair.b.run(empty).unwrap();
        pair.reconnect();
        pair.settle();
    }
    let number = pair.b.channel.commitment_numbers().unwrap().1;
    assert_eq!((number.0, pair.a.channel.commitment_numbers().unwrap().0), (2, number));
    pair.locked_in(Msat(5_000_000), 1);
}

#[test]
fn a_fee_rate_of_one_satoshi_a_vbyte_is_taken_however_it_is_rounded() {
    for (channel_type, feerate, taken) in [
        (ChannelType::Anchors, 252, true),
        (ChannelType::Anchors, 250, true),
        (ChannelType::Anchors, 249, false),
        (ChannelType::Anchors, 100, false),
        (ChannelType::Anchors, 0, false),
        (ChannelType::Anchors, u32::MAX, false),
        (ChannelType::StaticRemotekey, 252, false),
        (ChannelType::StaticRemotekey, 0, false),
        (ChannelType::StaticRemotekey, u32::MAX, false),
    ] {
        let mut pair = Pair::with_type(channel_type);
        let message = fulmen_wire::message::UpdateFee {
            channel_id: pair.b.channel.id(),
            feerate_per_kw: FeeratePerKw(feerate),
            unknown: Default::default(),
        };
        match pair.b.receive(&Message::from(message).encode()) {
            Ok(()) => assert!(taken, "{feerate}"),
            Err(error) => {
                assert!(!taken, "{feerate}: {error}");
                assert_eq!(pair.b.channel.reaction(&error), crate::channel::Reaction::Warn);
                pair.b.react(&error);
                assert_eq!(pair.b.channel.state(), State::Normal);
            }
        }
    }
}

#[test]
fn an_update_fee_that_changes_nothing_is_not_sent() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    let same = ChannelCommand::UpdateFee { feerate: FEERATE };
    for _ in 0..3 {
        assert_eq!(pair.a.command(&same), Err(ChannelCommandError::FeerateUnchanged(FEERATE)));
        pair.a.commit();
    }
    assert!(pair.a.sent.is_empty());
    // A rate proposed and taken back is a change.
    pair.a.command(&ChannelCommand::UpdateFee { feerate: FeeratePerKw(1100) }).unwrap();
    let again = ChannelCommand::UpdateFee { feerate: FeeratePerKw(1100) };
    assert_eq!(pair.a.command(&again), Err(ChannelCommandError::FeerateUnchanged(FeeratePerKw(1100))));
    pair.a.command(&same).unwrap();
    pair.settle();
    assert_eq!(pair.b.channel.feerate(), Some(FEERATE));
}

#[test]
fn a_commitment_signed_names_the_funding_transaction() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    pair.a.add(AMOUNT, 1);
    pair.a.commit();
    let Ok(Message::CommitmentSigned(message)) = Message::decode(pair.a.sent.back().unwrap()) else {
        panic!()
    };
    let outpoint = pair.a.channel.funding_outpoint().unwrap();
    assert_eq!(message.funding_txid.map(|txid| txid.0), Some(outpoint.txid.to_byte_array()));
}

#[test]
fn the_answer_that_is_awaited_is_known_and_can_be_overdue() {
    use crate::channel::AwaitedAnswer;
    let setup = Setup::new(ChannelType::Anchors);
    let pair = Pair::begin(&setup);
    assert_eq!(pair.a.channel.awaited_answer(), Some(AwaitedAnswer::AcceptChannel));
    assert_eq!(pair.b.channel.awaited_answer(), Some(AwaitedAnswer::FundingCreated));
    let mut pair = Pair::ready(&setup);
    let overdue = |answer| ChannelCommand::AnswerOverdue { answer };
    assert_eq!(pair.a.channel.awaited_answer(), None);
    assert!(pair.a.command(&overdue(AwaitedAnswer::RevokeAndAck)).is_err());
    pair.a.add(AMOUNT, 1);
    pair.a.commit();
    assert_eq!(pair.a.channel.awaited_answer(), Some(AwaitedAnswer::RevokeAndAck));
    pair.a.command(&overdue(AwaitedAnswer::RevokeAndAck)).unwrap();
    assert!(matches!(Message::decode(pair.a.sent.back().unwrap()), Ok(Message::Warning(_))));
    pair.disconnect();
    pair.connect();
    assert_eq!(pair.a.channel.awaited_answer(), Some(AwaitedAnswer::ChannelReestablish));
    pair.settle();
    pair.b.fulfill(0, 1);
    pair.settle();
    pair.a.command(&ChannelCommand::Shutdown { scriptpubkey: None }).unwrap();
    pair.a.commit();
    assert_eq!(pair.a.channel.awaited_answer(), Some(AwaitedAnswer::Shutdown));
    pair.a_to_b();
    pair.b.commit();
    pair.b_to_a();
    pair.a.commit();
    assert_eq!(pair.a.channel.awaited_answer(), Some(AwaitedAnswer::ClosingSigned));
    // BOLT 2: "if it doesn't receive a closing_signed response after a reasonable amount of time: MUST fail".
    pair.a.command(&overdue(AwaitedAnswer::ClosingSigned)).unwrap();
    assert_eq!(pair.a.channel.state(), State::Failed);
}

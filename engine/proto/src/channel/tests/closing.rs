//! Shutdown and the negotiation of the closing fee.

use super::*;
use fulmen_wire::message::{ClosingSigned, FeeRange, Shutdown};

use crate::channel::Reaction;
use crate::commitment::{ClosingParams, ClosingTx, ClosingVariant};

const LOW: Context = Context { height: BlockHeight(100), feerate: FeeratePerKw(300) };

fn shut_down(node: &mut Node) {
    node.command(&ChannelCommand::Shutdown { scriptpubkey: None }).expect("can shut down");
}

/// Both sides' closing transactions, the same, with its fee.
fn closed(pair: &mut Pair) -> (Transaction, Sat) {
    assert_eq!(pair.a.channel.state(), State::Closed);
    assert_eq!(pair.b.channel.state(), State::Closed);
    let [transaction] = &pair.a.broadcast[..] else { panic!("{:?}", pair.a.broadcast) };
    assert_eq!(pair.b.broadcast, std::slice::from_ref(transaction));
    let paid: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
    (transaction.clone(), Sat(pair.a.channel.capacity().unwrap().0 - paid))
}

#[test]
fn either_side_closes_an_idle_channel() {
    for channel_type in [ChannelType::Anchors, ChannelType::StaticRemotekey] {
        for starter in [0, 1] {
            let mut pair = Pair::with_type(channel_type);
            shut_down(if starter == 0 { &mut pair.a } else { &mut pair.b });
            pair.settle();
            let (transaction, fee) = closed(&mut pair);
            assert_eq!(transaction.output.len(), 2);
            assert!(fee > Sat(600) && fee < Sat(800), "{fee}");
            // The acceptor's output pays nothing.
            assert!(transaction.output.iter().any(|output| output.value.to_sat() == 400_000));
            let events = pair.a.take_events();
            assert!(matches!(events[..], [ChannelEvent::ShutdownStarted, ChannelEvent::Closed { .. }]));
        }
    }
}

#[test]
fn both_sides_may_start_at_once() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    shut_down(&mut pair.a);
    shut_down(&mut pair.b);
    pair.a.commit();
    pair.b.commit();
    pair.settle();
    closed(&mut pair);
}

#[test]
fn htlcs_are_settled_before_closing() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    let id = pair.locked_in(Msat(30_000_000), 1);
    pair.a.add(Msat(10_000_000), 2);
    pair.b.add(Msat(20_000_000), 3);
    shut_down(&mut pair.a);
    // Earlier additions are signed first.
    pair.settle();
    assert_eq!(pair.a.channel.state(), State::ShuttingDown);
    assert_eq!(pair.a.command(&add(Msat(1_000_000), 4)), Err(ChannelCommandError::ShuttingDown));
    assert_eq!(pair.b.command(&add(Msat(1_000_000), 4)), Err(ChannelCommandError::ShuttingDown));
    let again = pair.a.command(&ChannelCommand::Shutdown { scriptpubkey: None });
    assert_eq!(again, Err(ChannelCommandError::AlreadyShuttingDown));
    // Nor may the fee change: the peer may be done with its HTLCs before it hears of that.
    let fee = ChannelCommand::UpdateFee { feerate: FeeratePerKw(1200) };
    assert_eq!(pair.a.command(&fee), Err(ChannelCommandError::ShuttingDown));
    pair.b.fulfill(id, 1);
    pair.b.command(&ChannelCommand::FailHtlc { id: 1, reason: vec![] }).unwrap();
    pair.settle();
    assert_eq!(pair.a.channel.state(), State::ShuttingDown);
    pair.reconnect();
    pair.a.fulfill(0, 3);
    pair.settle();
    let (transaction, _) = closed(&mut pair);
    assert!(transaction.output.iter().any(|output| output.value.to_sat() == 410_000));
}

#[test]
fn a_channel_can_be_closed_before_it_is_ready() {
    let mut pair = Pair::funded(&Setup::new(ChannelType::Anchors));
    shut_down(&mut pair.b);
    pair.settle();
    closed(&mut pair);
}

#[test]
fn closing_survives_a_loss_of_any_message() {
    for cut in 0..8 {
        let mut pair = Pair::with_type(ChannelType::Anchors);
        shut_down(&mut pair.a);
        for _ in 0..cut {
            pair.a.commit();
            pair.b.commit();
            let _ = pair.a_to_b() || pair.b_to_a();
        }
        pair.reconnect();
        let last = |node: &Node| node.broadcast.last().cloned().expect("closed");
        assert_eq!(last(&pair.a), last(&pair.b), "cut at {cut}");
        assert!(pair.a.broadcast.iter().all(|transaction| *transaction == pair.a.broadcast[0]));
    }
}

#[test]
fn a_forgetful_peer_does_not_undo_an_agreement() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    shut_down(&mut pair.a);
    pair.settle();
    pair.reconnect();
    let unknown = fulmen_wire::message::ErrorMessage::new(pair.a.channel.id(), "no such channel");
    pair.a.receive(&Message::from(unknown).encode()).unwrap();
    assert_eq!(pair.a.channel.state(), State::Closed);
    pair.disconnect();
    pair.connect();
    let Ok(Message::ChannelReestablish(mut none)) = Message::decode(&pair.b.sent[0]) else { panic!() };
    none.next_commitment_number = 0;
    pair.a.receive(&Message::from(none).encode()).unwrap();
    assert_eq!(pair.a.channel.state(), State::Closed);
}

#[test]
fn an_output_that_is_dust_is_left_out() {
    let mut setup = Setup::new(ChannelType::Anchors);
    setup.push = Msat(100_000);
    let mut pair = Pair::ready(&setup);
    shut_down(&mut pair.b);
    pair.settle();
    let (transaction, _) = closed(&mut pair);
    assert_eq!(transaction.output.len(), 1);
}

#[test]
fn committed_scripts_are_held_to() {
    let mut setup = Setup::new(ChannelType::Anchors);
    setup.a.commit_shutdown_script = true;
    let mut pair = Pair::ready(&setup);
    let mut other = vec![0x00, 32];
    other.extend([1; 32]);
    let refused = pair.a.command(&ChannelCommand::Shutdown { scriptpubkey: Some(other.clone()) });
    assert_eq!(refused, Err(ChannelCommandError::ShutdownScriptMismatch));
    let error = receive_shutdown(&mut pair.b, other).unwrap_err();
    assert!(matches!(error, ChannelError::ShutdownScriptMismatch { .. }));
    shut_down(&mut pair.a);
    pair.settle();
    closed(&mut pair);
}

#[test]
fn scripts_have_the_forms_of_the_bolt() {
    let program = |version: u8, length: usize| {
        let mut script = vec![version, length as u8];
        script.extend(vec![4; length]);
        script
    };
    let anysegwit = NegotiatedFeatures::default();
    let without = NegotiatedFeatures { shutdown_anysegwit: false, ..anysegwit };
    let cases = [
        (program(0x00, 20), true, true),
        (program(0x00, 32), true, true),
        (program(0x00, 31), false, false),
        (program(0x51, 32), true, false),
        (program(0x60, 2), true, false),
        (program(0x60, 40), true, false),
        (program(0x60, 41), false, false),
        (program(0x51, 1), false, false),
        (program(0x61, 20), false, false),
        (vec![], false, false),
        (vec![0x00], false, false),
        (vec![0x51, 32, 1], false, false),
        ([program(0x00, 20), vec![0]].concat(), false, false),
    ];
    for (script, with, sans) in cases {
        assert_eq!(crate::channel::shutdown::is_allowed(&script, &anysegwit), with, "{script:02x?}");
        assert_eq!(crate::channel::shutdown::is_allowed(&script, &without), sans, "{script:02x?}");
    }
}

#[test]
fn a_fee_between_both_ranges_is_found() {
    // The acceptor takes any fee that relays, whatever its own estimate.
    let mut pair = Pair::with_type(ChannelType::Anchors);
    shut_down(&mut pair.a);
    pair.a.commit();
    pair.a_to_b();
    pair.b.commit();
    pair.b_to_a();
    let plan = pair.a.channel.plan_turn_end(&LOW).expect("the first closing_signed");
    pair.a.run(plan).unwrap();
    pair.settle();
    let (_, fee) = closed(&mut pair);
    assert!(fee < Sat(250), "{fee}");
}

fn receive_shutdown(node: &mut Node, scriptpubkey: Vec<u8>) -> Result<(), ChannelError> {
    let channel_id = node.channel.id();
    let message = Shutdown { channel_id, scriptpubkey, unknown: Default::default() };
    node.receive(&Message::from(message).encode())
}

/// A pair ready to negotiate; the opener has made its first proposal, which is not delivered.
fn negotiating() -> (Pair, ClosingSigned) {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    shut_down(&mut pair.a);
    pair.a.commit();
    pair.a_to_b();
    pair.b.commit();
    pair.b_to_a();
    pair.a.commit();
    let Ok(Message::ClosingSigned(offer)) = Message::decode(&pair.a.sent.pop_front().unwrap()) else {
        panic!()
    };
    (pair, offer)
}

/// A proposal of one side with this fee, properly signed.
fn proposal(node: &Node, fee: Sat, fee_range: Option<(Sat, Sat)>, variant: ClosingVariant) -> ClosingSigned {
    let Phase::Negotiating(negotiating) = &node.channel.phase else { panic!("not negotiating") };
    let params = &negotiating.funded.params;
    let (local, remote) = node.balances();
    let script = |script: &Option<Vec<u8>>| ScriptBuf::from(script.clone().unwrap());
    let closing = ClosingTx::build(
        &ClosingParams {
            funding_outpoint: params.agreed.outpoint,
            funding_amount: params.agreed.funding,
            local_funding_pubkey: params.local_commitment.local_funding_pubkey,
            remote_funding_pubkey: params.local_commitment.remote_funding_pubkey,
            local_is_opener: params.agreed.opener == Side::Local,
            to_local: local,
            to_remote: remote,
            local_script: script(&negotiating.funded.shutdown.sent),
            remote_script: script(&negotiating.funded.shutdown.received),
            dust_limit: params.agreed.local_terms.dust_limit,
            fee,
        },
        variant,
    );
    ClosingSigned {
        channel_id: node.channel.id(),
        fee_satoshis: fee,
        signature: node.secrets.sign_funding(&closing.expect("can be built").digest),
        fee_range: fee_range.map(|(min, max)| FeeRange { min_fee_satoshis: min, max_fee_satoshis: max }),
        unknown: Default::default(),
    }
}

fn deliver(node: &mut Node, message: ClosingSigned) -> Result<(), ChannelError> {
    node.receive(&Message::from(message).encode())
}

#[test]
fn the_acceptor_answers_within_the_overlap() {
    let (mut pair, _) = negotiating();
    // Ours begins at the least that relays, about 180 satoshi.
    let low = proposal(&pair.a, Sat(50), Some((Sat(40), Sat(300))), ClosingVariant::Both);
    deliver(&mut pair.b, low).unwrap();
    let Ok(Message::ClosingSigned(answer)) = Message::decode(&pair.b.sent.pop_front().unwrap()) else {
        panic!()
    };
    assert!(answer.fee_satoshis > Sat(150) && answer.fee_satoshis < Sat(300), "{}", answer.fee_satoshis);
    // Having answered, it takes no other fee but that.
    let other = proposal(&pair.a, Sat(250), Some((Sat(40), Sat(300))), ClosingVariant::Both);
    assert!(matches!(deliver(&mut pair.b, other), Err(ChannelError::ClosingFeeOutsideOverlap { .. })));
    let same = proposal(&pair.a, answer.fee_satoshis, Some((Sat(40), Sat(300))), ClosingVariant::Both);
    deliver(&mut pair.b, same).unwrap();
    assert_eq!(pair.b.channel.state(), State::Closed);
    assert!(pair.b.sent.is_empty(), "nothing is left to say");
}

#[test]
fn the_opener_takes_what_lies_in_the_overlap_only() {
    let (mut pair, offer) = negotiating();
    let max = offer.fee_range.unwrap().max_fee_satoshis;
    let over = proposal(&pair.b, Sat(max.0 + 1), Some((Sat(1), Sat(9_999))), ClosingVariant::Both);
    assert!(matches!(deliver(&mut pair.a, over), Err(ChannelError::ClosingFeeOutsideOverlap { .. })));
    let disjoint = Some((Sat(max.0 + 1), Sat(9_999)));
    let disjoint = proposal(&pair.b, Sat(max.0 + 1), disjoint, ClosingVariant::Both);
    assert!(matches!(deliver(&mut pair.a, disjoint), Err(ChannelError::ClosingFeeRangesDisjoint { .. })));
    let within = proposal(&pair.b, max, Some((Sat(1), Sat(9_999))), ClosingVariant::Both);
    deliver(&mut pair.a, within).unwrap();
    assert_eq!(pair.a.channel.state(), State::Closed);
    assert_eq!(pair.a.sent.len(), 1, "the same fee back");
}

#[test]
fn a_peer_without_ranges_meets_us_in_between() {
    let (mut pair, offer) = negotiating();
    let max = offer.fee_range.unwrap().max_fee_satoshis;
    let high = Sat(2 * max.0);
    let message = proposal(&pair.b, high, None, ClosingVariant::Both);
    deliver(&mut pair.a, message).unwrap();
    let Ok(Message::ClosingSigned(answer)) = Message::decode(&pair.a.sent.pop_front().unwrap()) else {
        panic!()
    };
    assert!(answer.fee_satoshis > offer.fee_satoshis && answer.fee_satoshis < high);
    // Not strictly between the last two proposals: no progress.
    let stuck = proposal(&pair.b, high, None, ClosingVariant::Both);
    assert!(matches!(deliver(&mut pair.a, stuck), Err(ChannelError::ClosingFeeOutOfRange { .. })));
    let near = Sat(answer.fee_satoshis.0 - 1);
    let near = proposal(&pair.b, near, None, ClosingVariant::Both);
    deliver(&mut pair.a, near).unwrap();
    assert_eq!(pair.a.channel.state(), State::Closed);
}

#[test]
fn a_peer_may_leave_out_its_own_output() {
    let (mut pair, offer) = negotiating();
    let fee = offer.fee_satoshis;
    let without = proposal(&pair.b, fee, None, ClosingVariant::WithoutLocal);
    deliver(&mut pair.a, without).unwrap();
    assert_eq!(pair.a.broadcast[0].output.len(), 1);
    let (mut pair, _) = negotiating();
    let ours = proposal(&pair.b, fee, None, ClosingVariant::WithoutRemote);
    assert_eq!(deliver(&mut pair.a, ours), Err(ChannelError::BadClosingSignature { fee }));
}

#[test]
fn impossible_fees_are_refused() {
    let (mut pair, _) = negotiating();
    let mut message = proposal(&pair.b, Sat(500), None, ClosingVariant::Both);
    message.fee_satoshis = Sat(600_001);
    let error = deliver(&mut pair.a, message).unwrap_err();
    assert!(matches!(error, ChannelError::ClosingFeeTooLarge { fee: Sat(600_001), .. }));

    let mut setup = Setup::new(ChannelType::Anchors);
    setup.push = Msat::ZERO;
    let mut pair = Pair::ready(&setup);
    shut_down(&mut pair.a);
    pair.a.commit();
    pair.a_to_b();
    pair.b.commit();
    pair.b_to_a();
    // Nothing would be left for an output.
    let mut message = proposal(&pair.b, Sat(500), None, ClosingVariant::Both);
    message.fee_satoshis = Sat(999_900);
    let error = deliver(&mut pair.a, message).unwrap_err();
    assert!(matches!(error, ChannelError::Closing(_)), "{error}");
}

/// Plays a peer that sends no `fee_range`: `next` gives its fee of a round from the one before.
fn haggle(
    node: &mut Node,
    peer: &Node,
    first: Sat,
    next: impl Fn(Sat) -> Sat,
    rounds: usize,
) -> (usize, Result<Sat, ChannelError>) {
    let mut fee = first;
    for round in 1..=rounds {
        if let Err(error) = deliver(node, proposal(peer, fee, None, ClosingVariant::Both)) {
            return (round, Err(error));
        }
        if node.channel.state() == State::Closed {
            return (round, Ok(fee));
        }
        fee = next(fee);
    }
    panic!("neither agreed nor refused after {rounds} rounds");
}

#[test]
fn a_peer_that_comes_down_to_our_highest_fee_is_waited_for() {
    let (mut pair, _) = negotiating();
    let (round, outcome) = haggle(&mut pair.a, &pair.b, Sat(6_066), |fee| Sat(fee.0 * 9 / 10), 20);
    let fee = outcome.unwrap();
    assert!(round <= 12 && fee > Sat(1_800) && fee <= Sat(2_022), "{fee} in round {round}");
}

#[test]
fn an_opener_that_comes_up_to_our_lowest_fee_is_waited_for() {
    let (mut pair, _) = negotiating();
    let (round, outcome) = haggle(&mut pair.b, &pair.a, Sat(100), |fee| Sat(fee.0 * 11 / 10), 20);
    let fee = outcome.unwrap();
    assert!(round <= 8 && fee >= Sat(170) && fee < Sat(190), "{fee} in round {round}");
}

#[test]
fn a_peer_that_insists_on_its_fee_is_warned() {
    let (mut pair, _) = negotiating();
    let (round, outcome) = haggle(&mut pair.a, &pair.b, Sat(5_000), |fee| fee, 20);
    let error = outcome.unwrap_err();
    assert_eq!(round, 2);
    assert_eq!(pair.a.channel.reaction(&error), Reaction::Warn, "{error}");
    pair.a.react(&error);
    assert_eq!(pair.a.channel.state(), State::Negotiating);
    // On the next connection the negotiation begins again.
    pair.reconnect();
    assert_eq!(pair.a.channel.state(), State::Closed);
}

#[test]
fn a_peer_that_moves_by_a_satoshi_is_not_answered_for_ever() {
    let (mut pair, _) = negotiating();
    let (round, outcome) = haggle(&mut pair.a, &pair.b, Sat(50_000), |fee| Sat(fee.0 - 1), 1_000);
    assert!(matches!(outcome, Err(ChannelError::ClosingRoundsExceeded(64))), "{outcome:?}");
    assert_eq!(round, 65);
}

#[test]
fn a_repeated_closing_signed_costs_nothing() {
    let (mut pair, offer) = negotiating();
    let fee = offer.fee_satoshis;
    let same = proposal(&pair.b, fee, None, ClosingVariant::Both);
    deliver(&mut pair.a, same.clone()).unwrap();
    let (records, sent) = (pair.a.record.len(), pair.a.sent.len());
    let other = proposal(&pair.b, Sat(fee.0 + 1), None, ClosingVariant::Both);
    for _ in 0..100 {
        deliver(&mut pair.a, same.clone()).unwrap();
        deliver(&mut pair.a, other.clone()).unwrap();
    }
    assert_eq!((pair.a.record.len(), pair.a.sent.len(), pair.a.broadcast.len()), (records, sent, 1));
    assert_eq!(pair.a.events.iter().filter(|event| matches!(event, ChannelEvent::Closed { .. })).count(), 1);
}

#[test]
fn a_wrong_closing_signed_does_not_undo_an_agreement() {
    for reconnects in [false, true] {
        let mut pair = Pair::with_type(ChannelType::Anchors);
        shut_down(&mut pair.a);
        pair.settle();
        let agreed = pair.a.channel.closing_transaction().cloned();
        assert!(agreed.is_some());
        let wrong = ClosingSigned {
            channel_id: pair.a.channel.id(),
            fee_satoshis: Sat(700),
            signature: fulmen_wire::units::Signature([1; 64]),
            fee_range: None,
            unknown: Default::default(),
        };
        if reconnects {
            pair.disconnect();
            pair.connect();
            let reestablish = pair.b.sent.pop_front().unwrap();
            pair.a.receive(&reestablish).unwrap();
        }
        if let Err(error) = deliver(&mut pair.a, wrong) {
            pair.a.react(&error);
        }
        assert_eq!(pair.a.channel.state(), State::Closed);
        assert_eq!(pair.a.channel.closing_transaction().cloned(), agreed);
        let replayed = Channel::replay(secrets(1), pair.a.record.clone()).unwrap();
        assert_eq!(replayed.closing_transaction().cloned(), agreed);
    }
}

#[test]
fn a_closing_script_that_the_peer_would_refuse_is_not_configured() {
    let mut taproot = vec![0x51, 32];
    taproot.extend([7; 32]);
    let mut setup = Setup::new(ChannelType::Anchors);
    setup.features.shutdown_anysegwit = false;
    (setup.a.shutdown_scriptpubkey, setup.b.shutdown_scriptpubkey) = (taproot.clone(), taproot);
    let refused = Channel::open(setup.open_request()).unwrap_err();
    assert_eq!(refused, ChannelCommandError::Terms(ChannelError::OwnShutdownScriptForm));
    let mut opener = setup.clone();
    opener.a.shutdown_scriptpubkey = Setup::new(ChannelType::Anchors).a.shutdown_scriptpubkey;
    let mut created = Channel::open(opener.open_request()).unwrap();
    let Some(Message::OpenChannel(open)) = created.effects.send.pop() else { panic!("no open_channel") };
    let refused = Channel::accept(&open, setup.accept_request()).unwrap_err();
    assert_eq!(refused, ChannelError::OwnShutdownScriptForm);
    // A peer that stops offering the feature hears why its shutdown is not answered, and can offer it again.
    setup.features.shutdown_anysegwit = true;
    let mut pair = Pair::ready(&setup);
    pair.disconnect();
    let features = NegotiatedFeatures { shutdown_anysegwit: false, ..setup.features };
    for node in [&mut pair.a, &mut pair.b] {
        node.command(&ChannelCommand::Connected { features }).unwrap();
    }
    pair.settle();
    let script = [&[0x00, 20][..], &[5; 20]].concat();
    let error = receive_shutdown(&mut pair.b, script).unwrap_err();
    assert_eq!(error, ChannelError::OwnShutdownScriptForm);
    assert_eq!(pair.b.channel.reaction(&error), Reaction::Warn);
    pair.reconnect();
    shut_down(&mut pair.a);
    pair.settle();
    closed(&mut pair);
}

#[test]
fn a_feature_learnt_at_a_later_connection_is_used() {
    let mut taproot = vec![0x51, 32];
    taproot.extend([7; 32]);
    let mut setup = Setup::new(ChannelType::Anchors);
    setup.features.shutdown_anysegwit = false;
    let mut pair = Pair::ready(&setup);
    let close = ChannelCommand::Shutdown { scriptpubkey: Some(taproot.clone()) };
    assert_eq!(pair.a.command(&close), Err(ChannelCommandError::ShutdownScriptForm(taproot)));
    pair.reconnect();
    pair.a.command(&close).unwrap();
    pair.settle();
    closed(&mut pair);
}

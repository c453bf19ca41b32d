//! Establishing a channel between two of ours.

use super::*;

#[test]
fn both_sides_agree_on_a_new_channel() {
    for channel_type in [ChannelType::Anchors, ChannelType::StaticRemotekey] {
        let mut pair = Pair::funded(&Setup::new(channel_type));
        assert_eq!(pair.a.channel.state(), State::Confirming);
        assert!(pair.a.events.iter().any(|event| matches!(event, ChannelEvent::FundingBroadcast { .. })));
        assert_eq!(pair.a.channel.id(), pair.b.channel.id());
        assert_eq!(pair.a.channel.funding_outpoint(), pair.b.channel.funding_outpoint());
        assert_eq!(pair.a.balances(), (Msat(600_000_000), Msat(400_000_000)));
        assert_eq!(pair.b.balances(), (Msat(400_000_000), Msat(600_000_000)));
        for node in [&pair.a, &pair.b] {
            assert!(node.channel.signed_local_commitment().is_some());
            assert!(!node.channel.is_usable());
        }

        let confirmed = pair.confirmed(2);
        pair.a.command(&confirmed).unwrap();
        assert!(pair.a.sent.is_empty(), "two confirmations of three");
        pair.confirm();
        pair.settle();
        let ChannelCommand::FundingConfirmed { output, .. } = confirmed else { unreachable!() };
        for node in [&mut pair.a, &mut pair.b] {
            assert!(node.channel.is_usable());
            let events = node.take_events();
            assert!(
                events.iter().any(|event| matches!(event, ChannelEvent::Ready { scid: at } if *at == scid()))
            );
            let moved = ChannelCommand::FundingConfirmed { scid: Scid(1), depth: 6, output: output.clone() };
            node.command(&moved).unwrap();
            let events = node.take_events();
            assert!(matches!(events[..], [ChannelEvent::FundingMoved { scid: Scid(1), .. }]), "{events:?}");
            assert_eq!(node.channel.scid(), Some(Scid(1)));
        }
        assert_eq!(pair.a.channel.opener(), Side::Local);
        assert_eq!(pair.b.channel.opener(), Side::Remote);
    }
}

#[test]
fn channel_ready_survives_a_lost_connection() {
    let mut pair = Pair::funded(&Setup::new(ChannelType::Anchors));
    pair.disconnect();
    pair.confirm();
    assert!(pair.a.sent.is_empty() && pair.b.sent.is_empty());
    pair.connect();
    pair.settle();
    assert!(pair.a.channel.is_usable() && pair.b.channel.is_usable());
    // Before the first commitment it is sent with every connection, and ignored.
    pair.reconnect();
    pair.locked_in(Msat(5_000_000), 1);
}

#[test]
fn losing_the_connection_while_opening_forgets_the_channel() {
    let mut pair = Pair::begin(&Setup::new(ChannelType::Anchors));
    pair.disconnect();
    for node in [&mut pair.a, &mut pair.b] {
        assert_eq!(node.channel.failure(), Some(&ChannelError::DisconnectedWhileOpening));
        let events = node.take_events();
        assert!(matches!(events[..], [ChannelEvent::Failed { broadcast_allowed: false, .. }]));
    }
}

#[test]
fn the_funding_transaction_must_pay_the_funding_output() {
    let mut pair = Pair::begin(&Setup::new(ChannelType::Anchors));
    pair.settle();
    let [ChannelEvent::FundingNeeded { script_pubkey, amount }] = &pair.a.take_events()[..] else { panic!() };
    let short = funding(script_pubkey, Sat(amount.0 - 1));
    let refused = pair.a.command(&ChannelCommand::Fund { transaction: short });
    assert_eq!(refused, Err(ChannelCommandError::NoFundingOutput { amount: *amount }));
}

#[test]
fn large_channels_need_the_feature() {
    let mut setup = Setup::new(ChannelType::Anchors);
    setup.funding = Sat(1 << 24);
    Pair::ready(&setup);
    setup.features.large_channel = false;
    let refused = Channel::open(setup.open_request()).unwrap_err();
    assert_eq!(refused, ChannelCommandError::Terms(ChannelError::FundingTooLarge { funding: setup.funding }));
}

#[test]
fn a_record_without_a_beginning_is_refused() {
    assert!(Channel::replay(secrets(1), [Delta::CommitmentSent]).is_err());
    assert!(Channel::replay(secrets(1), []).is_err());
}

#[test]
fn a_funding_output_that_is_not_ours_fails_the_channel() {
    let wrongs: [fn(&mut bitcoin::TxOut); 3] = [
        |output| output.value -= bitcoin::Amount::ONE_SAT,
        |output| output.value += bitcoin::Amount::ONE_SAT,
        |output| output.script_pubkey = bitcoin::ScriptBuf::from(vec![0x51]),
    ];
    for wrong in wrongs {
        let mut pair = Pair::funded(&Setup::new(ChannelType::Anchors));
        let ChannelCommand::FundingConfirmed { scid, depth, mut output } = pair.confirmed(6) else {
            unreachable!()
        };
        wrong(&mut output);
        pair.b.command(&ChannelCommand::FundingConfirmed { scid, depth, output }).unwrap();
        let failure = pair.b.channel.failure();
        assert!(matches!(failure, Some(ChannelError::FundingOutputWrong { .. })), "{failure:?}");
        let events = pair.b.take_events();
        let last = events.last();
        assert!(matches!(last, Some(ChannelEvent::Failed { broadcast_allowed: false, .. })), "{last:?}");
        let told = Message::decode(pair.b.sent.back().expect("the peer is told")).unwrap();
        assert!(matches!(told, Message::ErrorMessage(_)), "{told:?}");
    }
}

#[test]
fn a_funding_that_leaves_the_chain_stops_offers_until_it_confirms_again() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    let output = bitcoin::TxOut {
        value: Amount::from_sat(FUNDING.0),
        script_pubkey: crate::commitment::funding_output_script(
            &secrets(1).basepoints().funding,
            &secrets(2).basepoints().funding,
        ),
    };
    pair.a.command(&ChannelCommand::FundingUnconfirmed).unwrap();
    assert!(matches!(pair.a.take_events()[..], [ChannelEvent::FundingUnconfirmed { .. }]));
    assert!(!pair.a.channel.is_usable());
    assert!(pair.a.command(&add(Msat(1_000_000), 1)).is_err());
    let shallow = ChannelCommand::FundingConfirmed { scid: Scid(7), depth: 1, output: output.clone() };
    pair.a.command(&shallow).unwrap();
    assert_eq!(pair.a.channel.scid(), None);
    pair.a.command(&ChannelCommand::FundingConfirmed { scid: Scid(7), depth: 6, output }).unwrap();
    assert_eq!(pair.a.channel.scid(), Some(Scid(7)));
    pair.settle();
    pair.locked_in(Msat(1_000_000), 1);
}

#[test]
fn a_confirmation_while_closing_or_failed_is_noted() {
    let mut pair = Pair::funded(&Setup::new(ChannelType::Anchors));
    let confirmed = pair.confirmed(6);
    pair.a.command(&ChannelCommand::Shutdown { scriptpubkey: None }).unwrap();
    pair.settle();
    assert_eq!(pair.a.channel.state(), State::Closed);
    pair.a.command(&confirmed).unwrap();
    assert_eq!(pair.a.channel.scid(), Some(scid()));

    let mut pair = Pair::funded(&Setup::new(ChannelType::Anchors));
    let confirmed = pair.confirmed(6);
    pair.b.command(&ChannelCommand::Fail { reason: "enough".to_owned() }).unwrap();
    pair.b.command(&confirmed).unwrap();
    assert_eq!(pair.b.channel.scid(), Some(scid()));
    pair.b.check_record();
}

#[test]
fn a_padded_channel_type_is_refused_and_unknown_fields_are_not_stored() {
    let setup = Setup::new(ChannelType::Anchors);
    let mut created = Channel::open(setup.open_request()).unwrap();
    let Some(Message::OpenChannel(open)) = created.effects.send.pop() else { panic!("no open_channel") };
    let mut padded = open.clone();
    let mut bits = vec![0; 60_000];
    bits.extend(open.channel_type.as_ref().unwrap().as_bytes());
    padded.channel_type = Some(fulmen_wire::features::Features::from_bytes(&bits));
    let refused = Channel::accept(&padded, setup.accept_request()).unwrap_err();
    assert!(matches!(refused, ChannelError::ChannelTypeUnsuitable(_)));

    let mut large = open;
    large.unknown.push(1_000_001, &[7; 60_000]).unwrap();
    let created = Channel::accept(&large, setup.accept_request()).unwrap();
    let [Delta::Accepted { open, .. }] = &created.deltas[..] else { panic!("{:?}", created.deltas) };
    assert!(Message::from((**open).clone()).encode().len() < 500);
}

#[test]
fn the_text_of_an_error_is_kept_up_to_a_bound() {
    let mut pair = Pair::with_type(ChannelType::Anchors);
    let long = fulmen_wire::message::ErrorMessage {
        channel_id: pair.a.channel.id(),
        data: vec![b'x'; 65_000],
        unknown: Default::default(),
    };
    let error = pair.a.receive(&Message::from(long).encode()).unwrap_err();
    let ChannelError::PeerError(text) = &error else { panic!("{error:?}") };
    assert_eq!(text.len(), fulmen_wire::message::TEXT_MAX_BYTES);
}

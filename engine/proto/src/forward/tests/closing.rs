//! Fees change and channels close while payments are under way; restarts while channels open and close.

use fulmen_wire::units::FeeratePerKw;

use super::*;

#[test]
fn a_fee_change_meets_payments_both_ways() {
    let mut net = Net::line(3);
    let mut attempts = Vec::new();
    for number in 0..10u8 {
        let nodes = if number % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
        let (hash, recipient) = net.invoice(nodes[2], number + 1, Msat(4_000_000));
        let route = net.route(&nodes, Msat(4_000_000), 18);
        attempts.push((nodes[0], net.queue(nodes[0], hash, &route, &recipient)));
        let channel_id = net.channels[usize::from(number) % 2].channel_id;
        let opener = net.channels[usize::from(number) % 2].ends.0;
        let feerate = FeeratePerKw(300 + u32::from(number) * 100);
        net.inputs[opener].push(Input::Command(Command::UpdateFee { channel_id, feerate }));
        net.step();
    }
    net.pump();
    for (from, attempt) in attempts {
        assert!(matches!(net.outcome(from, attempt), Some(Outcome::Settled(_))));
    }
    assert_eq!(net.count(0, |event| matches!(event, Event::CommandRefused { .. })), 0);
    let feerate = |index: usize| {
        let channel = net.shards[1].channel(ChannelRef::Id(net.channels[index].channel_id));
        channel.and_then(crate::channel::Channel::feerate)
    };
    assert_eq!((feerate(0), feerate(1)), (Some(FeeratePerKw(1_100)), Some(FeeratePerKw(1_200))));
    net.check_at_rest();
}

#[test]
fn a_channel_closes_once_its_payments_are_done() {
    for steps in 0..16 {
        for closer in [1, 2] {
            let mut net = Net::line(4);
            let (hash, recipient) = net.invoice(3, 1, Msat(20_000_000));
            let route = net.route(&[0, 1, 2, 3], Msat(20_000_000), 18);
            let attempt = net.queue(0, hash, &route, &recipient);
            for _ in 0..steps {
                net.step();
            }
            let channel_id = net.channel(1, 2).channel_id;
            net.command(closer, Command::CloseChannel { channel_id, script: None });
            match net.outcome(0, attempt) {
                Some(Outcome::Settled(_)) => {}
                Some(Outcome::Failed(0, Failure::PermanentChannelFailure)) => {}
                // It came in on the channel after the node had said that it closes.
                Some(Outcome::Failed(1, Failure::TemporaryChannelFailure)) => {}
                other => panic!("closed after {steps} steps: {other:?}"),
            }
            let closed = |node: usize| {
                let mut closed = net.events[node].iter().filter_map(|event| match event {
                    Event::ChannelClosed { transaction, .. } => Some(transaction.clone()),
                    _ => None,
                });
                (closed.next().expect("the channel closes"), closed.count())
            };
            assert_eq!(closed(1), closed(2), "both ends sign the same transaction, once");
            let paid: u64 = closed(1).0.output.iter().map(|output| output.value.to_sat()).sum();
            assert!(paid < CAPACITY.0 && paid > CAPACITY.0 - 2_000, "all but the fee is paid out");
        }
    }
}

#[test]
fn a_peer_that_forgot_a_closed_channel_does_not_fail_it() {
    let mut net = Net::line(2);
    let channel_id = net.channels[0].channel_id;
    net.command(0, Command::CloseChannel { channel_id, script: None });
    for about in [channel_id, ChannelId([0; 32])] {
        let error = fulmen_wire::message::ErrorMessage::new(about, "unknown channel");
        net.inputs[0].push(Input::message(net.ids[1], error.into()));
        net.pump();
    }
    assert_eq!(net.count(0, |event| matches!(event, Event::ChannelClosed { .. })), 1);
    assert_eq!(net.count(0, |event| matches!(event, Event::ChannelFailed { .. })), 0);
}

/// Opens a channel and stops after `steps` rounds. The funding transaction is given as soon as it is asked for.
fn half_open(steps: usize) -> Net {
    let mut net = Net::unconnected(2, |_, _| {});
    net.connect(0, 1);
    let open =
        OpenChannelRequest { peer: net.ids[1], user_id: 1, capacity: CAPACITY, push: Msat(0), policy: None };
    net.inputs[0].push(Input::Command(Command::OpenChannel(open)));
    for _ in 0..steps {
        net.step();
        if let Some(Event::FundingNeeded { temporary_channel_id, amount, script, .. }) = net.events[0].pop() {
            let transaction = funding_transaction(1, amount, script);
            let command = Command::FundingTransaction { temporary_channel_id, transaction };
            net.inputs[0].push(Input::Command(command));
        }
    }
    net
}

#[test]
fn a_channel_that_a_restart_caught_half_open_is_forgotten_or_goes_on() {
    let (mut forgotten, mut kept) = (0, 0);
    for steps in 1..12 {
        let mut net = half_open(steps);
        let seed = net.seeds[0].clone();
        let restored = Shard::restore(seed, net.shards[0].config().clone(), net.records[0].iter().cloned());
        let owed = restored.expect("its own records").broadcast;
        net.restart(0);
        net.pump();
        let channels = [net.shards[0].occupancy().channels, net.shards[1].occupancy().channels];
        match owed.as_slice() {
            // Not signed by the peer: no money can have moved, and the payer of the fee forgets the channel.
            [] => {
                assert_eq!(channels[0], 0, "after {steps} steps");
                forgotten += 1;
            }
            [funding] => {
                assert_eq!(channels, [1, 1], "after {steps} steps");
                let txid = Txid(funding.compute_txid().to_byte_array());
                let scid = Scid::new(START.0, 1, 0).expect("in range");
                let output = funding.output[0].clone();
                net.mine(BlockHeight(START.0 + 1), &[Confirmation { txid, scid, depth: 1, output }]);
                assert_eq!(net.count(0, |event| matches!(event, Event::ChannelReady { .. })), 1);
                assert_eq!(net.count(1, |event| matches!(event, Event::ChannelReady { .. })), 1);
                kept += 1;
            }
            more => panic!("{more:?}"),
        }
    }
    assert!(forgotten > 2 && kept > 2, "{forgotten} forgotten, {kept} kept");
}

#[test]
fn an_opening_that_a_restart_interrupts_ends_in_the_first_turn() {
    let mut net = half_open(3);
    assert_eq!(net.shards[1].occupancy().channels, 1);
    let channel = net.shards[1].channels().next().expect("it is being opened");
    assert_eq!(channel.state(), crate::channel::State::Opening);
    net.kill(1);
    // The peer does not come back.
    net.inputs[1].push(Input::Tick);
    net.step();
    assert_eq!(net.shards[1].occupancy().channels, 0);
    net.check_restored(1, &net.shards[1]);
}

#[test]
fn a_restart_broadcasts_the_closing_transaction_again() {
    let mut net = Net::line(2);
    net.command(0, Command::CloseChannel { channel_id: net.channels[0].channel_id, script: None });
    let records = net.records[0].iter().cloned();
    let restored = Shard::restore(net.seeds[0].clone(), net.shards[0].config().clone(), records);
    let closed = net.events[0].iter().find_map(|event| match event {
        Event::ChannelClosed { transaction, .. } => Some(transaction.clone()),
        _ => None,
    });
    assert_eq!(restored.expect("its own records").broadcast, [closed.expect("the channel closes")]);
}

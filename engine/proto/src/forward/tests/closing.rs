//! Fees change and channels close while payments are under way.

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
        net.inputs[0].push(Input::Message { peer: net.ids[1], message: error.into() });
        net.pump();
    }
    assert_eq!(net.count(0, |event| matches!(event, Event::ChannelClosed { .. })), 1);
    assert_eq!(net.count(0, |event| matches!(event, Event::ChannelFailed { .. })), 0);
}

//! Payments that succeed, over several hops and in both directions; fees; determinism; refused commands.

use super::*;

#[test]
fn a_payment_crosses_four_hops_each_way_and_every_node_earns_its_fee() {
    let mut net = Net::line(5);
    let before = net.all_funds();
    for (number, nodes) in [(1, [0, 1, 2, 3, 4]), (2, [4, 3, 2, 1, 0])] {
        let amount = Msat(50_000_000);
        let (hash, recipient) = net.invoice(nodes[4], number, amount);
        let attempt = net.send(nodes[0], hash, &net.route(&nodes, amount, 18), &recipient);
        let preimage = PaymentPreimage([number; 32]);
        assert_eq!(net.outcome(nodes[0], attempt), Some(Outcome::Settled(preimage)));
        assert_eq!(
            net.count(nodes[4], |event| *event
                == Event::PaymentReceived { payment_hash: hash, amount, parts: 1 }),
            1
        );
    }
    net.check_at_rest();
    let after = net.all_funds();
    for node in 1..4 {
        let earned: Msat = net.events[node]
            .iter()
            .filter_map(|event| match event {
                Event::Forwarded { fee, incoming_amount, outgoing_amount, .. } => {
                    assert_eq!(incoming_amount.checked_sub(*outgoing_amount), Some(*fee));
                    Some(*fee)
                }
                _ => None,
            })
            .sum();
        assert!(earned >= Msat(12_000), "two forwards at 1,000 msat and 100 ppm");
        assert_eq!(after[node], before[node].checked_add(earned).expect("no overflow"), "node {node}");
    }
}

#[test]
fn many_payments_at_once_share_commitments() {
    let mut net = Net::line(4);
    let before: Msat = net.all_funds().into_iter().sum();
    let mut attempts = Vec::new();
    for number in 0..60 {
        let nodes = if number % 2 == 0 { [0, 1, 2, 3] } else { [3, 2, 1, 0] };
        let amount = Msat(10_000_000 + u64::from(number) * 777);
        let (hash, recipient) = net.invoice(nodes[3], number + 1, amount);
        let route = net.route(&nodes, amount, 18);
        attempts.push((nodes[0], net.queue(nodes[0], hash, &route, &recipient)));
    }
    let counted = |net: &Net| net.shards[1].counters();
    let start = counted(&net);
    net.pump();
    for (from, attempt) in attempts {
        assert!(matches!(net.outcome(from, attempt), Some(Outcome::Settled(_))));
    }
    net.check_at_rest();
    assert_eq!(before, net.all_funds().into_iter().sum());
    assert_eq!(net.count(1, |event| matches!(event, Event::Forwarded { .. })), 60);
    let end = counted(&net);
    assert_eq!(end.onions_peeled - start.onions_peeled, 60);
    let signed = end.ecdsa_signed - start.ecdsa_signed;
    assert!(signed < 60 * 5, "{signed} signatures for 60 forwards: commitments are not shared");
}

#[test]
fn the_same_inputs_give_the_same_turns() {
    let run = || {
        let mut net = Net::line(4);
        for number in 0..10 {
            let nodes = if number % 2 == 0 { [0, 1, 2, 3] } else { [3, 2, 1, 0] };
            let (hash, recipient) = net.invoice(nodes[3], number + 1, Msat(7_000_000));
            let route = net.route(&nodes, Msat(7_000_000), 18);
            net.queue(nodes[0], hash, &route, &recipient);
        }
        net.pump();
        format!("{:?}{:?}", net.records, net.events)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_payment_to_a_neighbour_needs_no_forward() {
    let mut net = Net::line(2);
    let amount = Msat(1_000);
    let (hash, recipient) = net.invoice(1, 1, amount);
    let attempt = net.send(0, hash, &net.route(&[0, 1], amount, 18), &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    net.check_at_rest();
}

#[test]
fn an_attempt_in_flight_is_not_offered_again() {
    let mut net = Net::line(3);
    let (hash, recipient) = net.invoice(2, 1, Msat(1_000_000));
    let route = net.route(&[0, 1, 2], Msat(1_000_000), 18);
    let attempt = net.queue(0, hash, &route, &recipient);
    let again = net.inputs[0].last().cloned().expect("just queued");
    net.inputs[0].push(again);
    net.pump();
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    let refused = Event::CommandRefused { error: crate::forward::CommandError::DuplicateAttempt(attempt) };
    assert_eq!(net.count(0, |event| *event == refused), 1);
    net.check_at_rest();
}

#[test]
fn what_cannot_leave_fails_at_once_and_nothing_panics() {
    let mut net = Net::line(2);
    let mut send = |channel, amount, cltv_expiry| {
        let attempt_id = 1_000 + net.events[0].len() as u64;
        net.command(
            0,
            Command::SendHtlc(SendHtlc {
                attempt_id,
                channel,
                amount,
                cltv_expiry: BlockHeight(cltv_expiry),
                payment_hash: PaymentHash([1; 32]),
                onion: fulmen_wire::onion::OnionPacket::from_bytes(Box::new([0; 1366])),
            }),
        );
        let ended = net.events[0].last().cloned();
        assert!(
            matches!(ended, Some(Event::HtlcFailed { attempt_id: ended, reason: FailureReason::Local(_) })
            if ended == attempt_id)
        );
    };
    let scid = Scid::new(100, 1, 0).expect("in range");
    send(ChannelRef::Scid(Scid(77)), Msat(1), 200);
    send(ChannelRef::Id(ChannelId([9; 32])), Msat(1), 200);
    send(ChannelRef::Scid(scid), Msat(0), 200);
    send(ChannelRef::Scid(scid), Msat(u64::MAX), 200);
    send(ChannelRef::Scid(scid), Msat(1_000), 101);
    send(ChannelRef::Scid(scid), Msat(1_000), u32::MAX);
    net.check_at_rest();
}

#[test]
fn bad_commands_are_refused_with_a_reason() {
    let mut net = Net::line(2);
    let nowhere = ChannelId([9; 32]);
    let policy = ForwardingPolicy::default();
    let stranger = NodeId([2; 33]);
    let open = |peer, capacity, push| {
        Command::OpenChannel(OpenChannelRequest { peer, user_id: 9, capacity, push, policy: None })
    };
    let commands = [
        Command::SetPolicy { channel_id: nowhere, policy },
        Command::CloseChannel { channel_id: nowhere, script: None },
        Command::UpdateFee { channel_id: nowhere, feerate: fulmen_wire::units::FeeratePerKw(500) },
        Command::UpdateFee {
            channel_id: net.channels[0].channel_id,
            feerate: fulmen_wire::units::FeeratePerKw(u32::MAX),
        },
        Command::FundingTransaction {
            temporary_channel_id: nowhere,
            transaction: funding_transaction(1, Sat(1), ScriptBuf::new()),
        },
        open(stranger, CAPACITY, Msat(0)),
        open(net.ids[1], Sat(u64::MAX), Msat(0)),
        open(net.ids[1], CAPACITY, Msat(u64::MAX)),
        Command::ExpectPayment(ExpectedPayment {
            payment_hash: PaymentHash([0; 32]),
            preimage: PaymentPreimage([0; 32]),
            payment_secret: PaymentSecret([0; 32]),
            amount: None,
            min_final_cltv_expiry_delta: CltvDelta(18),
            expires_at_unix_ms: u64::MAX,
        }),
    ];
    for command in commands {
        let shown = format!("{command:?}");
        let records = net.records[0].len();
        net.command(0, command);
        assert!(matches!(net.events[0].pop(), Some(Event::CommandRefused { .. })), "{shown}");
        assert_eq!(net.records[0].len(), records, "a refused command changed something: {shown}");
    }
    net.check_at_rest();
}

//! Every failure code, at every hop that can give it, decrypted by the sender to the right hop.

use super::*;
use crate::onion::{self, OnionHop, Payload};

const AMOUNT: Msat = Msat(20_000_000);
const NODES: [usize; 5] = [0, 1, 2, 3, 4];

/// Sends the payment along the whole line, its route changed by the caller.
fn send(net: &mut Net, change: impl FnOnce(&mut Vec<RouteHop>)) -> (Vec<RouteHop>, Outcome) {
    let number = net.attempts.len() as u8 + 1;
    let (hash, recipient) = net.invoice(4, number, AMOUNT);
    let mut route = net.route(&NODES, AMOUNT, 18);
    change(&mut route);
    let attempt = net.send(0, hash, &route, &recipient);
    let outcome = net.outcome(0, attempt).expect("the payment ends");
    (route, outcome)
}

fn failed_at(node: usize, failure: Failure) -> Outcome {
    Outcome::Failed(node - 1, failure)
}

fn set_policy(net: &mut Net, node: usize, change: impl FnOnce(&mut ForwardingPolicy)) {
    let mut policy = ForwardingPolicy::default();
    change(&mut policy);
    let channel_id = net.channel(node, node + 1).channel_id;
    net.command(node, Command::SetPolicy { channel_id, policy });
    // For so long the policy before is good too.
    net.wait(net.shards[node].config().policy_grace_ms);
}

#[test]
fn what_the_route_gets_wrong_is_told_by_the_hop_that_sees_it() {
    for node in 1..=3 {
        let mut net = Net::line(5);
        let (route, outcome) = send(&mut net, |route| route[node - 1].amount.0 -= 1);
        let htlc_msat = route[node - 1].amount;
        assert_eq!(outcome, failed_at(node, Failure::FeeInsufficient { htlc_msat }));

        let (route, outcome) = send(&mut net, |route| route[node - 1].cltv_expiry.0 -= 1);
        let cltv_expiry = route[node].cltv_expiry;
        assert_eq!(outcome, failed_at(node, Failure::IncorrectCltvExpiry { cltv_expiry }));

        let (_, outcome) = send(&mut net, |route| route[node].short_channel_id = Scid(1));
        assert_eq!(outcome, failed_at(node, Failure::UnknownNextPeer));
        let refused = |event: &Event| matches!(event, Event::HtlcRefused { code: 0x400a, .. });
        assert_eq!(net.count(node, refused), 1);
        net.check_at_rest();
    }
}

#[test]
fn what_the_policy_forbids_is_told_by_its_owner() {
    for node in 1..=3 {
        let mut net = Net::line(5);
        let outgoing = net.route(&NODES, AMOUNT, 18)[node].amount;
        set_policy(&mut net, node, |policy| policy.htlc_minimum = Msat(outgoing.0 + 1));
        let (_, outcome) = send(&mut net, |_| {});
        assert_eq!(outcome, failed_at(node, Failure::AmountBelowMinimum { htlc_msat: outgoing }));

        set_policy(&mut net, node, |policy| policy.htlc_maximum = Msat(outgoing.0 - 1));
        let (_, outcome) = send(&mut net, |_| {});
        assert_eq!(outcome, failed_at(node, Failure::TemporaryChannelFailure));

        set_policy(&mut net, node, |policy| policy.disabled = true);
        let (_, outcome) = send(&mut net, |_| {});
        assert_eq!(outcome, failed_at(node, Failure::ChannelDisabled));

        set_policy(&mut net, node, |policy| {
            policy.htlc_minimum = outgoing;
            policy.htlc_maximum = outgoing;
        });
        let (_, outcome) = send(&mut net, |_| {});
        assert!(matches!(outcome, Outcome::Settled(_)));
        net.check_at_rest();
    }
}

#[test]
fn expiries_too_near_and_too_far_are_told() {
    for node in 1..=3 {
        let mut net = Net::line_with(5, |index, config| {
            if index == node {
                config.expiry.outgoing_min = CltvDelta(500);
            }
        });
        let (_, outcome) = send(&mut net, |_| {});
        assert_eq!(outcome, failed_at(node, Failure::ExpiryTooSoon));
        let mut net = Net::line_with(5, |index, config| {
            if index == node {
                config.expiry.max = CltvDelta(18);
            }
        });
        let (_, outcome) = send(&mut net, |_| {});
        assert_eq!(outcome, failed_at(node, Failure::ExpiryTooFar));
        net.check_at_rest();
    }
}

#[test]
fn a_channel_that_cannot_carry_it_is_told() {
    for node in 1..=3 {
        let mut net = Net::line(5);
        let half = Msat(CAPACITY.to_msat().0 / 2);
        let drained = net.shards[node]
            .channel(ChannelRef::Id(net.channel(node, node + 1).channel_id))
            .map(|channel| channel.available_out())
            .expect("the channel lives");
        assert!(drained > AMOUNT && drained < half);
        let (hash, recipient) = net.invoice(node + 1, 99, drained);
        let route = net.route(&[node, node + 1], drained, 18);
        let attempt = net.send(node, hash, &route, &recipient);
        assert!(matches!(net.outcome(node, attempt), Some(Outcome::Settled(_))));
        let (_, outcome) = send(&mut net, |_| {});
        assert_eq!(outcome, failed_at(node, Failure::TemporaryChannelFailure));
        net.check_at_rest();

        let mut net = Net::line(5);
        net.cut(node, node + 1);
        let (_, outcome) = send(&mut net, |_| {});
        assert_eq!(outcome, failed_at(node, Failure::TemporaryChannelFailure));
    }
}

#[test]
fn a_closed_channel_is_told() {
    for node in 1..=3 {
        let mut net = Net::line(5);
        let channel_id = net.channel(node, node + 1).channel_id;
        net.command(node, Command::CloseChannel { channel_id, script: None });
        assert_eq!(net.count(node, |event| matches!(event, Event::ChannelClosed { .. })), 1);
        assert_eq!(net.count(node + 1, |event| matches!(event, Event::ChannelClosed { .. })), 1);
        let (_, outcome) = send(&mut net, |_| {});
        assert_eq!(outcome, failed_at(node, Failure::PermanentChannelFailure));
    }
}

#[test]
fn the_payee_tells_what_it_does_not_accept() {
    let mut net = Net::line(5);
    let route = net.route(&NODES, AMOUNT, 18);
    let (hash, recipient) = net.invoice(4, 1, AMOUNT);
    let height = net.height;
    let unknown =
        |amount| Some(failed_at(4, Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: amount, height }));
    let attempt = net.send(0, PaymentHash([77; 32]), &route, &recipient);
    assert_eq!(net.outcome(0, attempt), unknown(AMOUNT), "unknown hash");
    let attempt = net.send(0, hash, &route, &Recipient::default());
    assert_eq!(net.outcome(0, attempt), unknown(AMOUNT), "no secret");
    let wrong = PaymentData { payment_secret: PaymentSecret([0; 32]), total_msat: AMOUNT };
    let wrong = Recipient { payment_data: Some(wrong), ..Recipient::default() };
    let attempt = net.send(0, hash, &route, &wrong);
    assert_eq!(net.outcome(0, attempt), unknown(AMOUNT), "wrong secret");
    let short = net.route(&NODES, AMOUNT, 17);
    let attempt = net.send(0, hash, &short, &recipient);
    assert_eq!(net.outcome(0, attempt), unknown(AMOUNT), "expires too soon");
    let attempt = net.send(0, hash, &route, &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    net.check_at_rest();
}

#[test]
fn an_onion_that_cannot_be_read_is_told_by_the_hop_before() {
    for node in 1..=4 {
        let mut net = Net::line(5);
        let stranger = net.ids[(node + 2) % 5];
        let (_, outcome) = send(&mut net, |route| route[node - 1].node_id = stranger);
        match (node, outcome) {
            (1, outcome) => assert_eq!(outcome, Outcome::Malformed(0xc005)),
            (_, Outcome::Failed(hop, Failure::InvalidOnionHmac { .. })) => assert_eq!(hop, node - 2),
            (_, other) => panic!("{other:?}"),
        }
        net.check_at_rest();
    }
}

#[test]
fn a_replayed_onion_is_refused() {
    let mut net = Net::line(3);
    let (hash, recipient) = net.invoice(2, 1, AMOUNT);
    let route = net.route(&[0, 1, 2], AMOUNT, 18);
    let first = net.queue(0, hash, &route, &recipient);
    let Some(Input::Command(Command::SendHtlc(mut again))) = net.inputs[0].last().cloned() else {
        panic!("just queued")
    };
    net.pump();
    assert!(matches!(net.outcome(0, first), Some(Outcome::Settled(_))));
    again.attempt_id = 1;
    net.attempts.insert(1, net.attempts[&0].clone());
    net.command(0, Command::SendHtlc(again.clone()));
    assert_eq!(net.outcome(0, 1), Some(Outcome::Malformed(0xc005)));
    assert_eq!(net.shards[1].occupancy().replay_tags, 1);
    net.mine(BlockHeight(route[0].cltv_expiry.0 + 1), &[]);
    assert_eq!(net.shards[1].occupancy().replay_tags, 0, "an expired HTLC cannot be replayed");
    net.check_at_rest();
}

/// Sends a payment whose payload for one hop the caller writes.
fn send_payload(net: &mut Net, node: usize, write: impl FnOnce(&mut Payload)) -> Outcome {
    let (hash, recipient) = net.invoice(4, 1, AMOUNT);
    let route = net.route(&NODES, AMOUNT, 18);
    let mut payloads: Vec<Payload> = (0..4)
        .map(|hop| {
            let told = route.get(hop + 1).unwrap_or(&route[hop]);
            Payload {
                amt_to_forward: Some(told.amount),
                outgoing_cltv_value: Some(told.cltv_expiry),
                short_channel_id: route.get(hop + 1).map(|next| next.short_channel_id),
                payment_data: recipient.payment_data.filter(|_| hop == 3),
                ..Payload::default()
            }
        })
        .collect();
    write(&mut payloads[node - 1]);
    let hops: Vec<OnionHop> = payloads
        .iter()
        .zip(&route)
        .map(|(payload, hop)| OnionHop { node_id: hop.node_id, payload: payload.encode() })
        .collect();
    let attempt = net.queue(0, hash, &route, &recipient);
    let session_key = SecretKey::from_slice(&[0x22; 32]).expect("a valid key");
    let (packet, secrets) = onion::build(&session_key, &hops, &hash.0).expect("fits");
    let Some(Input::Command(Command::SendHtlc(send))) = net.inputs[0].last_mut() else {
        panic!("just queued")
    };
    send.onion = packet.clone();
    let payment = net.attempts.get_mut(&attempt).expect("just queued");
    payment.packet = packet;
    payment.secrets = secrets;
    net.pump();
    net.check_at_rest();
    net.outcome(0, attempt).expect("the payment ends")
}

#[test]
fn a_payload_without_what_the_hop_needs_is_told() {
    for node in 1..=4 {
        let outcome = send_payload(&mut Net::line(5), node, |payload| payload.amt_to_forward = None);
        assert!(
            matches!(&outcome, Outcome::Failed(hop, Failure::InvalidOnionPayload { tlv_type: 2, .. })
            if *hop == node - 1),
            "{outcome:?}"
        );
    }
    let outcome = send_payload(&mut Net::line(5), 2, |payload| {
        payload.encrypted_recipient_data = Some(vec![1, 2, 3]);
    });
    assert!(matches!(outcome, Outcome::Failed(1, Failure::InvalidOnionPayload { tlv_type: 10, .. })));
}

#[test]
fn the_last_htlc_must_keep_what_the_onion_promises() {
    let outcome = send_payload(&mut Net::line(5), 4, |payload| {
        payload.amt_to_forward = Some(Msat(AMOUNT.0 + 1));
    });
    assert_eq!(outcome, failed_at(4, Failure::FinalIncorrectHtlcAmount { incoming_htlc_amt: AMOUNT }));
    let mut net = Net::line(5);
    let cltv_expiry = net.height.saturating_add(CltvDelta(18));
    let outcome = send_payload(&mut net, 4, |payload| {
        payload.outgoing_cltv_value = Some(cltv_expiry.saturating_add(CltvDelta(1)));
    });
    assert_eq!(outcome, failed_at(4, Failure::FinalIncorrectCltvExpiry { cltv_expiry }));
}

/// A line whose node 3 has tight limits, so that node 2 runs into them when it offers there.
fn limited_by_the_next_peer(limit: impl Fn(&mut NodeConfig)) -> Net {
    Net::line_with(5, |node, config| {
        if node == 3 {
            limit(config);
        }
    })
}

#[test]
fn a_next_peer_that_has_no_room_is_told() {
    let slots = limited_by_the_next_peer(|config| config.channel.max_accepted_htlcs = 1);
    let value = limited_by_the_next_peer(|config| config.channel.max_htlc_value_in_flight = Msat(25_000_000));
    for mut net in [slots, value] {
        let (hash, recipient) = net.invoice(4, 1, Msat(2 * AMOUNT.0));
        let route = net.route(&NODES, AMOUNT, 18);
        // The first part is held by the payee and takes the place of the second.
        let held = net.send(0, hash, &route, &recipient);
        assert_eq!(net.outcome(0, held), None);
        let second = net.send(0, hash, &route, &recipient);
        assert_eq!(net.outcome(0, second), Some(failed_at(2, Failure::TemporaryChannelFailure)));
        net.wait(60_000);
        net.check_at_rest();
    }
}

#[test]
fn less_than_the_next_peer_takes_is_told() {
    let minimum = Msat(10_000_000);
    let mut net = Net::line_with(5, |node, config| {
        if node == 4 {
            config.channel.htlc_minimum = minimum;
        }
    });
    let less = Msat(minimum.0 - 1);
    let told = failed_at(3, Failure::AmountBelowMinimum { htlc_msat: less });
    let settled = Outcome::Settled(PaymentPreimage([1; 32]));
    for (number, amount, expected) in [(1, minimum, settled), (2, less, told)] {
        let (hash, recipient) = net.invoice(4, number, amount);
        let attempt = net.send(0, hash, &net.route(&NODES, amount, 18), &recipient);
        assert_eq!(net.outcome(0, attempt), Some(expected));
    }
    net.check_at_rest();
}

#[test]
fn dust_beyond_the_exposure_limit_is_not_carried() {
    let mut net = Net::line_with(5, |node, config| {
        if node == 2 {
            config.channel.max_dust_htlc_exposure = Msat(300_000);
        }
    });
    let (hash, recipient) = net.invoice(4, 1, Msat(600_000));
    let route = net.route(&NODES, Msat(200_000), 18);
    let held = net.send(0, hash, &route, &recipient);
    assert_eq!(net.outcome(0, held), None);
    let second = net.send(0, hash, &route, &recipient);
    assert_eq!(net.outcome(0, second), Some(failed_at(2, Failure::TemporaryChannelFailure)));
    net.wait(60_000);
    assert_eq!(net.outcome(0, held), Some(failed_at(4, Failure::MppTimeout)));
    net.check_at_rest();
}

#[test]
fn an_onion_is_remembered_no_longer_than_it_can_be_used() {
    let mut net = Net::line(5);
    let (_, outcome) = send(&mut net, |route| route[0].cltv_expiry = BlockHeight(499_999_999));
    assert_eq!(outcome, failed_at(1, Failure::ExpiryTooFar));
    assert_eq!(net.shards[1].occupancy().replay_tags, 0, "it was refused");
    let (_, outcome) = send(&mut net, |_| {});
    assert!(matches!(outcome, Outcome::Settled(_)), "{outcome:?}");
    assert_eq!(net.shards[1].occupancy().replay_tags, 1);
    let over = net.height.0 + u32::from(net.shards[1].config().expiry.max.0) + 1;
    net.mine(BlockHeight(over), &[]);
    assert_eq!(net.shards[1].occupancy().replay_tags, 0);
    net.check_at_rest();
}

//! When channels sign: fulfillments wait to be committed, additions beside very many young HTLCs do, and nothing else.

use super::*;

/// A payment over the line that its receiver holds, because half of it is missing; returns the missing half.
fn held(net: &mut Net, number: u8) -> (u64, PaymentHash, Recipient) {
    let amount = Msat(1_000_000);
    let (hash, recipient) = net.invoice(2, number, Msat(2 * amount.0));
    let route = net.route(&[0, 1, 2], amount, 18);
    (net.send(0, hash, &route, &recipient), hash, recipient)
}

fn pending(net: &Net, one: usize, other: usize) -> usize {
    let name = ChannelRef::Id(net.channel(one, other).channel_id);
    net.shards[one].channel(name).expect("it lives").htlcs().count()
}

/// Two ticks: the side that fulfills lets its `commitment_signed` wait, and then the other side its answering one.
fn ticks(net: &mut Net) {
    net.wait(1_000);
    net.wait(1_000);
}

/// Restarts node 1, or breaks its link to node 0 and mends it.
fn disturb(net: &mut Net, restarts: bool) {
    if restarts {
        net.restart(1);
    } else {
        net.cut(0, 1);
        net.connect(0, 1);
    }
}

/// Completes payments that are [`held`].
fn complete(net: &mut Net, payments: Vec<(u64, PaymentHash, Recipient)>) {
    for (attempt, hash, recipient) in payments {
        net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
        if net.still {
            ticks(net);
        }
        assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    }
    ticks(net);
    net.check_at_rest();
}

#[test]
fn a_fulfillment_beside_many_htlcs_goes_back_at_once_and_is_committed_at_the_next_tick() {
    let mut net = Net::line(3);
    let others: Vec<_> = (1..=9).map(|number| held(&mut net, number)).collect();
    let signed = net.shards[1].counters().ecdsa_signed;
    let (hash, recipient) = net.invoice(2, 100, Msat(3_000_000));
    let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(3_000_000), 18), &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))), "the preimage does not wait");
    assert_eq!((pending(&net, 0, 1), pending(&net, 1, 2)), (10, 10), "the removals wait");
    let added = 2 * (1 + 10);
    assert_eq!(net.shards[1].counters().ecdsa_signed - signed, added, "nothing is signed but the addition");
    ticks(&mut net);
    assert_eq!((pending(&net, 0, 1), pending(&net, 1, 2)), (9, 9), "nothing waits for longer than a tick");

    complete(&mut net, others);
}

#[test]
fn a_lone_fulfillment_rides_along_with_the_next_payment_or_leaves_soon() {
    let mut net = Net::line(3);
    net.still = true;
    let mut signed = Vec::new();
    for number in 1..=3 {
        let before = net.shards[1].counters().ecdsa_signed;
        let (hash, recipient) = net.invoice(2, number, Msat(1_000_000));
        let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
        assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))), "the preimage does not wait");
        // Its removal does: for the next payment, and at the side that was told of it for the one after.
        let waiting = usize::from(number).min(2);
        assert_eq!((pending(&net, 0, 1), pending(&net, 1, 2)), (waiting, waiting));
        signed.push(net.shards[1].counters().ecdsa_signed - before);
    }
    // A commitment and its HTLC for each channel, then that HTLC of before that node 2 has not signed away yet: six and
    // a round trip more on each channel, if nothing waited.
    assert_eq!(signed, [4, 5, 5]);
    net.wake_after(199);
    assert_eq!((pending(&net, 0, 1), pending(&net, 1, 2)), (2, 2));
    net.still = false;
    net.pump();
    net.check_at_rest();
}

#[test]
fn many_fulfillments_do_not_wait() {
    let mut net = Net::line(2);
    net.still = true;
    let hashes: Vec<_> = (1..=8).map(|number| net.invoice(1, number, Msat(1_000_000))).collect();
    for (hash, recipient) in hashes {
        net.queue(0, hash, &net.route(&[0, 1], Msat(1_000_000), 18), &recipient);
    }
    net.pump();
    assert_eq!(pending(&net, 0, 1), 0);
    net.check_at_rest();
}

#[test]
fn a_failure_beside_many_htlcs_does_not_wait() {
    let mut net = Net::line(3);
    let others: Vec<_> = (1..=9).map(|number| held(&mut net, number)).collect();
    let unknown = Recipient { payment_data: others[0].2.payment_data, ..Recipient::default() };
    let attempt = net.send(0, PaymentHash([9; 32]), &net.route(&[0, 1, 2], Msat(1_000_000), 18), &unknown);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Failed(1, _))), "{:?}", net.outcome(0, attempt));
    assert_eq!((pending(&net, 0, 1), pending(&net, 1, 2)), (9, 9));
}

#[test]
fn a_removal_put_off_survives_a_broken_link_and_a_restart() {
    for restarts in [false, true] {
        let mut net = Net::line(3);
        let others: Vec<_> = (1..=9).map(|number| held(&mut net, number)).collect();
        let (hash, recipient) = net.invoice(2, 100, Msat(3_000_000));
        let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(3_000_000), 18), &recipient);
        assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
        disturb(&mut net, restarts);
        ticks(&mut net);
        assert_eq!((pending(&net, 0, 1), pending(&net, 1, 2)), (9, 9));
        complete(&mut net, others);
    }
}

/// Twenty payments held, all young, and one more that is sent now.
fn one_beside_many_young(net: &mut Net) -> (Vec<(u64, PaymentHash, Recipient)>, u64) {
    // A first payment sets the pace from which young ones are told.
    let (hash, recipient) = net.invoice(2, 101, Msat(1_000_000));
    net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
    net.still = true;
    let others: Vec<_> = (1..=20).map(|number| held(net, number)).collect();
    // All were sent while the clock stood; deferred commitments leave now, and the HTLCs are young still.
    net.wake_after(150);
    assert_eq!((pending(net, 0, 1), pending(net, 1, 2)), (20, 20));
    let (hash, recipient) = net.invoice(2, 100, Msat(3_000_000));
    let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(3_000_000), 18), &recipient);
    assert_eq!(net.outcome(0, attempt), None, "it waits for their end");
    (others, attempt)
}

#[test]
fn an_addition_beside_very_many_young_htlcs_waits_briefly() {
    let mut net = Net::line(3);
    let (_, attempt) = one_beside_many_young(&mut net);
    // Both its sender and the node between let it wait once each way at most.
    for _ in 0..4 {
        net.wake_after(100);
    }
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    assert_eq!(net.shards.iter().filter_map(Shard::wake_at).count(), 0, "nobody waits briefly any more");
}

/// The messages from one node to another that are still under way.
fn said(net: &Net, from: usize, to: usize) -> Vec<&'static str> {
    let under_way = net.wires.get(&(from, to)).into_iter().flatten();
    under_way.map(|bytes| Message::decode(bytes).expect("what a shard sends can be read").name()).collect()
}

/// Steps on, time passing where nothing else does, until a node says this to another.
fn until_said(net: &mut Net, from: usize, to: usize, what: &str) {
    for _ in 0..100 {
        if said(net, from, to).contains(&what) {
            return;
        }
        if !net.step() {
            net.now.unix_ms += 10;
            net.wake();
        }
    }
    panic!("node {from} does not say {what} to {to}");
}

#[test]
fn an_addition_that_waits_has_its_commitment_answered_with_ours() {
    let mut net = Net::line(3);
    one_beside_many_young(&mut net);
    until_said(&mut net, 0, 1, "commitment_signed");
    net.step();
    assert_eq!(said(&net, 1, 0), [""; 0], "answered, the peer would sign all again for its next addition");
    until_said(&mut net, 1, 0, "revoke_and_ack");
    assert_eq!(said(&net, 1, 0), ["revoke_and_ack", "commitment_signed"]);
}

#[test]
fn whoever_may_know_a_preimage_is_answered_at_once() {
    let mut net = Net::line(3);
    let (others, _) = one_beside_many_young(&mut net);
    let unknown = Recipient { payment_data: others[0].2.payment_data, ..Recipient::default() };
    net.queue(0, PaymentHash([9; 32]), &net.route(&[0, 1, 2], Msat(1_000_000), 18), &unknown);
    until_said(&mut net, 2, 1, "update_fail_htlc");
    until_said(&mut net, 2, 1, "commitment_signed");
    net.step();
    assert_eq!(said(&net, 1, 2), ["revoke_and_ack"], "there are twenty more that it may resolve");
    assert!(net.shards[1].wake_at().is_some(), "though our own waits");
}

#[test]
fn an_answer_that_waits_is_given_after_a_broken_link_and_a_restart() {
    for restarts in [false, true] {
        let mut net = Net::line(3);
        let (others, attempt) = one_beside_many_young(&mut net);
        until_said(&mut net, 0, 1, "commitment_signed");
        net.step();
        assert_eq!(said(&net, 1, 0), [""; 0]);
        disturb(&mut net, restarts);
        ticks(&mut net);
        // After the restart it is decided on while the next node is not connected yet.
        match net.outcome(0, attempt) {
            Some(Outcome::Settled(_)) if !restarts => {}
            Some(Outcome::Failed(0, Failure::TemporaryChannelFailure)) if restarts => {}
            other => panic!("{other:?}"),
        }
        complete(&mut net, others);
    }
}

#[test]
fn an_addition_does_not_wait_for_htlcs_that_are_old() {
    let mut net = Net::line(3);
    for number in 1..=20 {
        held(&mut net, number);
        net.wait(300);
    }
    let (hash, recipient) = net.invoice(2, 100, Msat(3_000_000));
    let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(3_000_000), 18), &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
}

#[test]
fn an_addition_that_waits_leaves_as_the_others_end() {
    let mut net = Net::line(3);
    let (others, attempt) = one_beside_many_young(&mut net);
    for (_, hash, recipient) in others {
        net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
    }
    net.wait(1_000);
    net.wait(1_000);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    ticks(&mut net);
    net.check_at_rest();
}

#[test]
fn an_addition_that_waits_is_withdrawn_when_its_peer_restarts() {
    let mut net = Net::line(3);
    let (_, attempt) = one_beside_many_young(&mut net);
    net.restart(1);
    ticks(&mut net);
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Local));
}

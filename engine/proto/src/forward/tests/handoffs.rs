//! A node of two shards: HTLCs that come in on one and go out on the other, every handoff told twice.

use std::sync::{Arc, Mutex};

use super::*;
use crate::forward::{IncomingHtlc, ReplayClaims};
use crate::onion::ReplayTag;

const AMOUNT: Msat = Msat(30_000_000);

/// A payer, a node of two shards (1 and 2), and a payee.
fn net() -> Net {
    net_that(false)
}

/// The same; the shards may wait for the chain after a start.
fn net_that(awaits_chain: bool) -> Net {
    let seeds = [1, 2, 2, 3].map(|byte| NodeSeed::new([byte; 32])).to_vec();
    let mut net = Net::of_seeds(seeds, |node, config| {
        (config.shard, config.shards) = (u16::from(node == 2), if node == 1 || node == 2 { 2 } else { 1 });
        config.awaits_chain = awaits_chain && (node == 1 || node == 2);
    });
    assert_eq!(net.ids[1], net.ids[2]);
    net.siblings = Some((1, 2));
    for node in [1, 2] {
        net.inputs[node].push(Input::ChainInStep);
    }
    for (left, right) in [(0, 1), (2, 3)] {
        net.connect(left, right);
        net.open(left, right, CAPACITY, Msat(CAPACITY.to_msat().0 / 2));
    }
    for (node, other) in [(1, 1), (2, 0)] {
        let scid = net.channels[other].scid;
        net.inputs[node].push(Input::SiblingChannels(vec![scid]));
    }
    net.pump();
    net
}

/// The route over both shards; the caller may change the payer's HTLC.
fn route(net: &Net, change: impl FnOnce(&mut RouteHop)) -> Vec<RouteHop> {
    let last = net.route(&[2, 3], AMOUNT, 18)[0];
    let policy = ForwardingPolicy::default();
    let mut first = RouteHop {
        node_id: net.ids[1],
        short_channel_id: net.channels[0].scid,
        amount: Msat(last.amount.0 + policy.fee(last.amount).0),
        cltv_expiry: last.cltv_expiry.saturating_add(policy.cltv_expiry_delta),
    };
    change(&mut first);
    vec![first, last]
}

#[test]
fn a_payment_crosses_two_shards() {
    let mut net = net();
    let before = [net.funds(1), net.funds(2)];
    let (hash, recipient) = net.invoice(3, 1, AMOUNT);
    let attempt = net.send(0, hash, &route(&net, |_| {}), &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    net.check_at_rest();
    let fee = ForwardingPolicy::default().fee(AMOUNT);
    assert_eq!(net.funds(1).0 + net.funds(2).0, before[0].0 + before[1].0 + fee.0);
    assert_eq!(net.count(2, |event| matches!(event, Event::Forwarded { fee: told, .. } if *told == fee)), 1);
}

#[test]
fn a_refusal_and_a_failure_cross_back() {
    let mut net = net();
    let (hash, recipient) = net.invoice(3, 1, AMOUNT);
    let cheap = route(&net, |first| first.amount.0 -= 1);
    let attempt = net.send(0, hash, &cheap, &recipient);
    let htlc_msat = cheap[0].amount;
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Failed(0, Failure::FeeInsufficient { htlc_msat })));
    assert_eq!(net.count(1, |event| matches!(event, Event::HtlcRefused { code: 0x100c, .. })), 1);
    let attempt = net.send(0, PaymentHash([9; 32]), &route(&net, |_| {}), &recipient);
    let height = net.height;
    let failure = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: AMOUNT, height };
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Failed(1, failure)));
    net.check_at_rest();
}

#[test]
fn handoffs_survive_a_restart_of_both_shards_at_any_moment() {
    for steps in 0.. {
        let mut net = net();
        let (hash, recipient) = net.invoice(3, 1, AMOUNT);
        let attempt = net.queue(0, hash, &route(&net, |_| {}), &recipient);
        let busy = restart_after(&mut net, steps);
        match net.outcome(0, attempt) {
            Some(Outcome::Settled(_)) => {}
            Some(Outcome::Failed(0, Failure::TemporaryChannelFailure)) => {}
            other => panic!("after {steps} steps: {other:?}"),
        }
        net.check_at_rest();
        if !busy {
            break;
        }
    }
}

/// The second shard withdraws an HTLC that was not signed before the restart, and hands the failure back. The first
/// shard's repeated offer of it comes before the chain is in step, and must not be made once the failure is settled.
#[test]
fn an_offer_repeated_before_the_chain_is_in_step_is_not_made_again() {
    let mut net = net_that(true);
    let (hash, recipient) = net.invoice(3, 1, AMOUNT);
    let blocking = net.queue(2, hash, &net.route(&[2, 3], AMOUNT, 18), &recipient);
    let (hash, recipient) = net.invoice(3, 2, AMOUNT);
    let mut attempt = None;
    for step in 0..24 {
        if step == 12 {
            attempt = Some(net.queue(0, hash, &route(&net, |_| {}), &recipient));
        }
        net.step();
        net.wires.remove(&(3, 2));
    }
    let attempt = attempt.expect("it was sent");
    let channel = net.shards[2].channel(ChannelRef::Id(net.channels[1].channel_id)).expect("it lives");
    assert!(channel.has_unsigned_additions());
    restart(&mut net);
    net.pump();
    net.connect(0, 1);
    net.connect(2, 3);
    for node in [1, 2] {
        net.inputs[node].push(Input::ChainInStep);
    }
    net.pump();
    assert_eq!(net.outcome(0, attempt), Some(Outcome::Failed(0, Failure::TemporaryChannelFailure)));
    assert!(matches!(net.outcome(2, blocking), Some(Outcome::Settled(_))));
    assert_eq!(net.count(3, |event| matches!(event, Event::PaymentReceived { .. })), 1);
    net.check_at_rest();
}

/// Restarts both shards after `steps` steps; returns whether there was still something to do then.
fn restart_after(net: &mut Net, steps: usize) -> bool {
    let mut busy = true;
    for _ in 0..=steps {
        busy = net.step();
    }
    for (node, peers) in restart(net) {
        peers.into_iter().for_each(|peer| net.connect(node, peer));
    }
    net.pump();
    busy
}

/// Restarts both shards; returns the peers that each was connected to.
fn restart(net: &mut Net) -> [(usize, Vec<usize>); 2] {
    for node in [1, 2] {
        // Inputs that another shard did not process are lost with the process.
        net.inputs[node].clear();
    }
    let scids: Vec<Scid> = net.channels.iter().map(|channel| channel.scid).collect();
    let peers = [1, 2].map(|node| net.kill(node));
    for (node, sibling) in [(1, scids[1]), (2, scids[0])] {
        net.inputs[node].push(Input::SiblingChannels(vec![sibling]));
    }
    for (node, sibling) in [(1, 2), (2, 1)] {
        let owed: Vec<Input> = net.shards[node].unanswered_handoffs().map(Input::Handoff).collect();
        net.inputs[sibling].extend(owed);
    }
    let [of_one, of_two] = peers;
    [(1, of_one), (2, of_two)]
}

/// An invoice of the node of two shards, at the shard that receives it, and the attempts of two payers to pay a half
/// each, over a channel of either shard.
fn paid_on_both_shards(net: &mut Net, receiver: u16, shares: [u64; 2]) -> (PaymentHash, [(usize, u64); 2]) {
    let mut numbers = (1..=u8::MAX).map(|number| (number, hash_of(PaymentPreimage([number; 32]))));
    let (number, _) = numbers
        .find(|(_, hash)| net.shards[1].config().receiver(*hash) == receiver)
        .expect("half of all hashes are received by each");
    let node = 1 + usize::from(receiver);
    let (hash, recipient) = net.invoice(node, number, AMOUNT);
    let attempts = [(0, 1), (3, 2)].map(|(payer, shard)| {
        let route = net.route(&[payer, shard], Msat(shares[shard - 1]), 18);
        (payer, net.queue(payer, hash, &route, &recipient))
    });
    (hash, attempts)
}

#[test]
fn parts_that_come_in_on_two_shards_pay_together() {
    for receiver in [0, 1] {
        let mut net = net();
        let before = net.funds(1).0 + net.funds(2).0;
        let (hash, attempts) = paid_on_both_shards(&mut net, receiver, [10_000_000, 20_000_000]);
        net.pump();
        for (payer, attempt) in attempts {
            assert!(matches!(net.outcome(payer, attempt), Some(Outcome::Settled(_))), "receiver {receiver}");
        }
        let node = 1 + usize::from(receiver);
        let received = Event::PaymentReceived { payment_hash: hash, amount: AMOUNT, parts: 2 };
        assert_eq!(net.count(node, |event| *event == received), 1);
        assert_eq!(net.funds(1).0 + net.funds(2).0, before + AMOUNT.0);
        net.check_at_rest();
        for node in [1, 2] {
            let held = net.shards[node].occupancy();
            assert_eq!((held.circuits, held.incomplete_sets), (0, 0), "shard {node}");
        }
    }
}

#[test]
fn an_invoice_is_paid_once_whichever_shard_is_paid() {
    let mut net = net();
    let (hash, attempts) = paid_on_both_shards(&mut net, 0, [30_000_000, 30_000_000]);
    net.pump();
    let outcomes = attempts.map(|(payer, attempt)| net.outcome(payer, attempt));
    let height = net.height;
    let refused = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: AMOUNT, height };
    assert!(matches!(outcomes[0], Some(Outcome::Settled(_))), "{outcomes:?}");
    assert_eq!(outcomes[1], Some(Outcome::Failed(0, refused)));
    let failed =
        |event: &Event| matches!(event, Event::HtlcRefused { payment_hash, .. } if *payment_hash == hash);
    assert_eq!([1, 2].map(|node| net.count(node, failed)), [0, 1]);
    net.check_at_rest();
}

#[test]
fn parts_on_two_shards_that_are_too_few_fail_after_the_timeout() {
    for receiver in [0, 1] {
        let mut net = net();
        let (hash, attempts) = paid_on_both_shards(&mut net, receiver, [10_000_000, 10_000_000]);
        net.pump();
        assert!(attempts.iter().all(|(payer, attempt)| net.outcome(*payer, *attempt).is_none()));
        net.wait(60_000);
        for (payer, attempt) in attempts {
            assert_eq!(net.outcome(payer, attempt), Some(Outcome::Failed(0, Failure::MppTimeout)));
        }
        let failed =
            |event: &Event| matches!(event, Event::HtlcRefused { payment_hash, .. } if *payment_hash == hash);
        assert_eq!([1, 2].map(|node| net.count(node, failed)), [1, 1]);
        net.check_at_rest();
    }
}

#[test]
fn parts_on_two_shards_survive_a_restart_of_both_at_any_moment() {
    for receiver in [0, 1] {
        for steps in 0.. {
            let mut net = net();
            let (hash, attempts) = paid_on_both_shards(&mut net, receiver, [10_000_000, 20_000_000]);
            let busy = restart_after(&mut net, steps);
            // A part whose payer had not committed to it is given up by it; the other then waits in vain.
            net.wait(60_000);
            let settled = attempts.map(|(payer, attempt)| match net.outcome(payer, attempt) {
                Some(Outcome::Settled(_)) => true,
                Some(Outcome::Failed(0, Failure::MppTimeout) | Outcome::Local) => false,
                other => panic!("after {steps} steps: {other:?}"),
            });
            assert_eq!(settled[0], settled[1], "after {steps} steps: all parts or none");
            let received = |event: &Event| matches!(event, Event::PaymentReceived { payment_hash, .. } if *payment_hash == hash);
            assert!(net.count(1 + usize::from(receiver), received) <= 1);
            net.check_at_rest();
            if !busy {
                assert!(settled[0]);
                break;
            }
        }
    }
}

#[test]
fn a_peer_waits_for_the_onions_that_another_shard_repeats() {
    for steps in 0..40 {
        let mut net = net();
        let (hash, recipient) = net.invoice(3, 1, AMOUNT);
        net.queue(0, hash, &route(&net, |_| {}), &recipient);
        for _ in 0..=steps {
            net.step();
        }
        net.inputs[2].clear();
        let peers = net.kill(2);
        assert_eq!(peers, [3]);
        if net.shards[2].onions_awaited.is_empty() {
            continue;
        }
        net.dropped = Some(Vec::new());
        net.connect(2, 3);
        assert_eq!(net.dropped, Some(vec![(2, net.ids[3])]));
        return;
    }
    panic!("no restart left an onion out");
}

#[test]
fn two_shards_store_an_onion_once() {
    let mut net = net();
    net.records.iter_mut().for_each(Vec::clear);
    let (payments, amount) = (20, Msat(20_000_000));
    for _ in 0..payments {
        let (hash, recipient) = net.invoice(3, net.attempts.len() as u8, amount);
        let mut hops = net.route(&[2, 3], amount, 18);
        let policy = ForwardingPolicy::default();
        hops.insert(
            0,
            RouteHop {
                node_id: net.ids[1],
                short_channel_id: net.channels[0].scid,
                amount: Msat(amount.0 + policy.fee(amount).0),
                cltv_expiry: hops[0].cltv_expiry.saturating_add(policy.cltv_expiry_delta),
            },
        );
        net.queue(0, hash, &hops, &recipient);
    }
    net.pump();
    let settled = |attempt: &u64| matches!(net.outcome(0, *attempt), Some(Outcome::Settled(_)));
    assert_eq!((0..payments).filter(settled).count() as u64, payments);
    let written = net.records[1..=2].iter().flatten().map(|record| records::bytes(record).len());
    let each = written.sum::<usize>() / payments as usize;
    println!("{each} bytes a forward over two shards, {payments} in flight");
    assert!(each < 2 * 1366, "{each}");
}

/// The onions that both shards have accepted.
#[derive(Debug, Default)]
struct Claims(Mutex<BTreeMap<ReplayTag, IncomingHtlc>>);

impl ReplayClaims for Claims {
    fn claim(&self, tag: ReplayTag, htlc: IncomingHtlc) -> bool {
        *self.0.lock().expect("no test panics here").entry(tag).or_insert(htlc) == htlc
    }

    fn release(&self, tag: ReplayTag, htlc: IncomingHtlc) {
        self.0.lock().expect("no test panics here").retain(|known, owner| *known != tag || *owner != htlc);
    }
}

fn share_claims(net: &mut Net) -> Arc<Claims> {
    let claims = Arc::new(Claims::default());
    [1, 2].into_iter().for_each(|node| net.shards[node].share_replay_claims(claims.clone()));
    claims
}

/// Sends the onion of an attempt of node 0 to the other shard, from node 3.
fn replayed_by_the_payee(net: &mut Net, attempt: u64) -> u64 {
    let payment = net.attempts[&attempt].clone();
    let again = net.attempts.len() as u64;
    let channel = ChannelRef::Scid(net.channels[1].scid);
    let amount = route(net, |_| {})[0].amount;
    let send = SendHtlc { channel, amount, ..SendHtlc::new(again, &payment) };
    net.attempts.insert(again, payment);
    net.command(3, Command::SendHtlc(send));
    again
}

#[test]
fn an_onion_that_one_shard_has_accepted_is_refused_by_the_other() {
    for restarted in [false, true] {
        let mut net = net();
        let mut claims = share_claims(&mut net);
        let (hash, recipient) = net.invoice(3, 1, AMOUNT);
        let first = net.send(0, hash, &route(&net, |_| {}), &recipient);
        assert!(matches!(net.outcome(0, first), Some(Outcome::Settled(_))));
        if restarted {
            restart_after(&mut net, 0);
            claims = share_claims(&mut net);
        }
        let again = replayed_by_the_payee(&mut net, first);
        assert_eq!(net.outcome(3, again), Some(Outcome::Malformed(0xc005)), "restarted: {restarted}");
        net.check_at_rest();
        assert_eq!(claims.0.lock().expect("no test panics here").len(), 1);
        net.mine(BlockHeight(net.height.0 + 100), &[]);
        assert!(claims.0.lock().expect("no test panics here").is_empty(), "claims end with the expiry");
    }
}

#[test]
fn an_onion_that_one_shard_has_refused_is_judged_anew_by_the_other() {
    let mut net = net();
    let claims = share_claims(&mut net);
    let (hash, recipient) = net.invoice(3, 1, AMOUNT);
    let mut hops = route(&net, |_| {});
    hops[1].short_channel_id = Scid(1);
    let first = net.send(0, hash, &hops, &recipient);
    let unknown = Some(Outcome::Failed(0, Failure::UnknownNextPeer));
    assert_eq!(net.outcome(0, first), unknown);
    assert!(claims.0.lock().expect("no test panics here").is_empty());
    let again = replayed_by_the_payee(&mut net, first);
    assert_eq!(net.outcome(3, again), unknown, "not a replay");
    net.check_at_rest();
}

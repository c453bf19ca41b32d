//! Links that break: whatever the moment, an HTLC ends once and no money is lost.

use rand::{Rng, SeedableRng};

use super::*;
use crate::channel::Stage;

/// Sends a payment over four hops and breaks one link after `steps` rounds of delivery.
fn interrupted(link: (usize, usize), steps: usize) -> (Net, u64, bool) {
    let mut net = Net::line(5);
    let amount = Msat(50_000_000);
    let (hash, recipient) = net.invoice(4, 1, amount);
    let route = net.route(&[0, 1, 2, 3, 4], amount, 18);
    let attempt = net.queue(0, hash, &route, &recipient);
    let mut busy = true;
    for _ in 0..steps {
        busy = net.step();
    }
    net.cut(link.0, link.1);
    (net, attempt, busy)
}

#[test]
fn a_link_may_break_at_any_moment_of_a_payment() {
    for link in [(0, 1), (1, 2), (3, 4)] {
        let (mut settled, mut failed) = (0, 0);
        for steps in 0.. {
            let (mut net, attempt, busy) = interrupted(link, steps);
            net.connect(link.0, link.1);
            net.pump();
            match net.outcome(0, attempt) {
                Some(Outcome::Settled(_)) => settled += 1,
                Some(Outcome::Failed(_, Failure::TemporaryChannelFailure) | Outcome::Local) => failed += 1,
                other => panic!("link {link:?} broken after {steps} steps: {other:?}"),
            }
            net.check_at_rest();
            if !busy {
                break;
            }
        }
        assert!(settled > 10, "{settled} settled, {failed} failed");
    }
}

/// A node may learn in one turn of messages, of the end of the connection they came on, and of the next connection.
#[test]
fn nothing_meant_for_a_broken_connection_is_said_on_the_next() {
    for steps in 0.. {
        let mut net = Net::line(3);
        let (hash, recipient) = net.invoice(2, 1, Msat(1_000_000));
        let route = net.route(&[0, 1, 2], Msat(1_000_000), 18);
        let attempt = net.queue(0, hash, &route, &recipient);
        let mut busy = true;
        for _ in 0..steps {
            busy = net.step();
        }
        for (from, to) in [(0, 1), (1, 0)] {
            for bytes in net.wires.remove(&(from, to)).unwrap_or_default() {
                let message = Message::decode(&bytes).expect("what a shard sends can be read");
                net.inputs[to].push(Input::message(net.ids[from], message));
            }
            let peer = net.ids[from];
            net.inputs[to].push(Input::disconnected(peer));
            net.inputs[to].push(Input::connected(peer, local_features()));
        }
        net.pump();
        let outcome = net.outcome(0, attempt);
        assert!(
            matches!(outcome, Some(Outcome::Settled(_) | Outcome::Failed(..) | Outcome::Local)),
            "after {steps} steps: {outcome:?}"
        );
        net.check_at_rest();
        if !busy {
            return;
        }
    }
}

#[test]
fn payments_both_ways_survive_a_link_that_keeps_breaking() {
    let mut net = Net::line(4);
    let before: Msat = net.all_funds().into_iter().sum();
    let mut attempts = Vec::new();
    for number in 0..40u8 {
        let nodes = if number % 2 == 0 { [0, 1, 2, 3] } else { [3, 2, 1, 0] };
        let amount = Msat(3_000_000 + u64::from(number));
        let (hash, recipient) = net.invoice(nodes[3], number + 1, amount);
        let route = net.route(&nodes, amount, 18);
        attempts.push((nodes[0], net.queue(nodes[0], hash, &route, &recipient)));
        for _ in 0..number % 5 {
            net.step();
        }
        if number % 3 == 0 {
            net.cut(1, 2);
            for _ in 0..number % 7 {
                net.step();
            }
            net.connect(1, 2);
        }
    }
    net.pump();
    let settled = attempts
        .into_iter()
        .filter(|(from, attempt)| match net.outcome(*from, *attempt) {
            Some(Outcome::Settled(_)) => true,
            Some(Outcome::Failed(_, Failure::TemporaryChannelFailure)) => false,
            other => panic!("{other:?}"),
        })
        .count();
    assert!(settled > 20, "{settled}");
    net.check_at_rest();
    assert_eq!(before, net.all_funds().into_iter().sum());
}

#[test]
fn a_fulfillment_crosses_while_the_incoming_link_is_down() {
    let mut net = Net::line(3);
    let (hash, recipient) = net.invoice(2, 1, Msat(1_000_000));
    let route = net.route(&[0, 1, 2], Msat(1_000_000), 18);
    let attempt = net.queue(0, hash, &route, &recipient);
    while net.shards[1].occupancy().offered == 0 {
        assert!(net.step());
    }
    net.cut(0, 1);
    net.pump();
    assert_eq!(net.outcome(0, attempt), None);
    assert_eq!(net.count(1, |event| matches!(event, Event::Forwarded { .. })), 1);
    net.connect(0, 1);
    net.pump();
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    net.check_at_rest();
}

#[test]
fn a_node_may_restart_at_any_moment_of_a_payment() {
    for node in 0..=2 {
        for steps in 0.. {
            let mut net = Net::line(3);
            let (hash, recipient) = net.invoice(2, 1, Msat(50_000_000));
            let route = net.route(&[0, 1, 2], Msat(50_000_000), 18);
            let attempt = net.queue(0, hash, &route, &recipient);
            let mut busy = true;
            for _ in 0..=steps {
                busy = net.step();
            }
            net.restart(node);
            net.pump();
            match net.outcome(0, attempt) {
                Some(Outcome::Settled(_)) => {}
                Some(Outcome::Failed(_, Failure::TemporaryChannelFailure)) if node > 0 => {}
                other => panic!("node {node} restarted after {steps} steps: {other:?}"),
            }
            net.check_at_rest();
            if !busy {
                break;
            }
        }
    }
}

/// Random payments in parts and whole, broken links, restarts, blocks and time; then peace, and the books must balance.
fn soak(seed: u64) {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut net = Net::line(4);
    let before: Msat = net.all_funds().into_iter().sum();
    let mut attempts = Vec::new();
    let mut number = 0u8;
    for _ in 0..120 {
        match random.next_u32() % 12 {
            0..6 if number < 200 => {
                number += 1;
                let nodes = if random.next_u32() % 2 == 0 { [0, 1, 2, 3] } else { [3, 2, 1, 0] };
                let amount = Msat(1_000 + random.next_u64() % 400_000_000);
                let (hash, recipient) = net.invoice(nodes[3], number, amount);
                let parts = 1 + random.next_u64() % 3;
                for part in 0..parts {
                    // The last part is at times missing, so that the set has to time out.
                    let share = Msat(amount.0 / parts + u64::from(part == 0) * (amount.0 % parts));
                    let route = net.route(&nodes, share, 18);
                    if part == 0 || random.next_u32() % 6 != 0 {
                        attempts.push((nodes[0], net.queue(nodes[0], hash, &route, &recipient)));
                    }
                }
            }
            6 => {
                let left = random.next_u32() as usize % 3;
                net.cut(left, left + 1);
                for _ in 0..random.next_u32() % 4 {
                    net.step();
                }
                net.connect(left, left + 1);
            }
            7 => net.restart(random.next_u32() as usize % 4),
            8 => net.now.unix_ms += u64::from(random.next_u32() % 40_000),
            _ => {
                for _ in 0..random.next_u32() % 8 {
                    net.step();
                }
            }
        }
    }
    net.pump();
    net.wait(60_000);
    let (mut settled, mut failed) = (0, 0);
    for (from, attempt) in attempts {
        match net.outcome(from, attempt) {
            Some(Outcome::Settled(_)) => settled += 1,
            Some(_) => failed += 1,
            None => panic!("seed {seed}: attempt {attempt} never ended"),
        }
    }
    assert!(settled > 20, "seed {seed}: {settled} settled, {failed} failed");
    net.check_at_rest();
    assert_eq!(before, net.all_funds().into_iter().sum(), "seed {seed}");
}

#[test]
fn books_balance_after_anything() {
    for seed in 0..3 {
        soak(seed);
    }
}

/// Node 1 has signed one forward to node 2 and offered a second, and node 2 does not answer. Gives the second's sender
/// its attempt, and a payment of node 1's own that waits likewise.
fn unanswered() -> (Net, [u64; 3]) {
    let mut net = Net::line(3);
    let mut attempts = Vec::new();
    for (number, nodes) in [(1, &[0, 1, 2][..]), (2, &[0, 1, 2]), (3, &[1, 2])] {
        let (hash, recipient) = net.invoice(2, number, Msat(1_000_000));
        let route = net.route(nodes, Msat(1_000_000), 18);
        attempts.push(net.queue(nodes[0], hash, &route, &recipient));
        for _ in 0..12 {
            net.step();
            net.wires.remove(&(2, 1));
        }
    }
    let channel_id = net.channel(1, 2).channel_id;
    let channel = net.shards[1].channel(ChannelRef::Id(channel_id)).expect("it lives");
    let stages: Vec<Stage> = channel.htlcs().map(|entry| entry.added).collect();
    assert_eq!(stages, [Stage::InReceiver, Stage::Proposed, Stage::Proposed]);
    net.dropped = Some(Vec::new());
    (net, [attempts[0], attempts[1], attempts[2]])
}

#[test]
fn what_could_not_be_signed_in_time_is_given_up() {
    let (mut net, [signed, forward, own]) = unanswered();
    let last = BlockHeight(net.height.0 + 14);
    net.mine(last, &[]);
    assert_eq!((net.outcome(0, forward), net.outcome(1, own)), (None, None));
    net.mine(BlockHeight(last.0 + 1), &[]);
    assert_eq!(net.dropped, Some(vec![(1, net.ids[2])]));
    assert_eq!(net.outcome(0, forward), Some(Outcome::Failed(0, Failure::TemporaryChannelFailure)));
    assert_eq!(net.outcome(1, own), Some(Outcome::Local));
    assert_eq!(net.outcome(0, signed), None);
    net.cut(1, 2);
    net.restart(1);
    net.connect(1, 2);
    assert!(matches!(net.outcome(0, signed), Some(Outcome::Failed(1, _))), "it comes too late by now");
    let (hash, recipient) = net.invoice(2, 4, Msat(1_000_000));
    let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    net.check_at_rest();
}

/// The peer has forgotten what was not signed, so that whoever waits for it need not wait for the peer.
#[test]
fn what_was_not_signed_fails_when_its_peer_goes_away() {
    let (mut net, [signed, forward, own]) = unanswered();
    net.cut(1, 2);
    net.pump();
    assert_eq!(net.outcome(0, forward), Some(Outcome::Failed(0, Failure::TemporaryChannelFailure)));
    assert_eq!(net.outcome(1, own), Some(Outcome::Local));
    assert_eq!(net.outcome(0, signed), None, "the peer may have it in its commitment");
    let refused = |event: &Event| matches!(event, Event::HtlcRefused { code: 0x1007, .. });
    assert_eq!(net.count(1, refused), 1);
    net.connect(1, 2);
    assert!(matches!(net.outcome(0, signed), Some(Outcome::Settled(_))), "it is sent again");
    let (hash, recipient) = net.invoice(2, 4, Msat(1_000_000));
    let attempt = net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
    assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))), "the id is used again");
    net.check_at_rest();
}

/// A restart ends all connections.
#[test]
fn what_was_not_signed_fails_after_a_restart() {
    let (mut net, [signed, forward, own]) = unanswered();
    net.cut(0, 1);
    net.inputs[1].clear();
    net.kill(1);
    net.inputs[1].push(Input::Tick);
    net.pump();
    assert_eq!(net.outcome(1, own), Some(Outcome::Local));
    net.connect(0, 1);
    assert_eq!(net.outcome(0, forward), Some(Outcome::Failed(0, Failure::TemporaryChannelFailure)));
    assert_eq!(net.outcome(0, signed), None);
    net.connect(1, 2);
    assert!(matches!(net.outcome(0, signed), Some(Outcome::Settled(_))));
    net.check_at_rest();
}

#[test]
fn what_was_not_signed_fails_with_its_channel() {
    let (mut net, [signed, forward, own]) = unanswered();
    let about = net.channel(1, 2).channel_id;
    let error = fulmen_wire::message::ErrorMessage::new(about, "enough");
    net.inputs[1].push(Input::message(net.ids[2], error.into()));
    net.pump();
    assert_eq!(net.outcome(0, forward), Some(Outcome::Failed(0, Failure::TemporaryChannelFailure)));
    assert_eq!(net.outcome(1, own), Some(Outcome::Local));
    assert_eq!(net.outcome(0, signed), None, "only the chain can settle what was signed");
}

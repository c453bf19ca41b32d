//! The bound on the bytes of a turn's messages.

use super::*;
use crate::forward::SendLimits;

/// Two channels between nodes 0 and 1, each with HTLCs of node 0 that it has signed, and whose delivery failed.
fn unacknowledged(limits: SendLimits) -> (Net, Vec<u64>) {
    let mut net = Net::line_with(2, |_, config| config.send_bytes = limits);
    net.open(0, 1, CAPACITY, Msat(0));
    net.dropped = Some(Vec::new());
    let mut attempts = Vec::new();
    for channel in [0, 1] {
        for number in 0..4 {
            let (hash, recipient) = net.invoice(1, 1 + channel * 4 + number, Msat(1_000_000));
            let mut route = net.route(&[0, 1], Msat(1_000_000), 18);
            route[0].short_channel_id = net.channels[usize::from(channel)].scid;
            attempts.push(net.queue(0, hash, &route, &recipient));
        }
    }
    net.step();
    net.cut(0, 1);
    (net, attempts)
}

fn settled(net: &Net, attempts: &[u64]) -> usize {
    attempts.iter().filter(|attempt| matches!(net.outcome(0, **attempt), Some(Outcome::Settled(_)))).count()
}

/// Connects and reconnects until the peer is not dropped any more; returns how often it was.
fn reconnections(net: &mut Net) -> usize {
    for count in 0..10 {
        net.connect(0, 1);
        match &mut net.dropped {
            Some(dropped) if !dropped.is_empty() => dropped.clear(),
            _ => return count,
        }
        net.cut(0, 1);
    }
    panic!("the peer is dropped for ever");
}

#[test]
fn what_is_too_much_for_one_connection_is_sent_again_on_the_next() {
    for (limits, expected) in [
        (SendLimits::default(), 0),
        (SendLimits { peer: 5_000, ..SendLimits::default() }, 1),
        (SendLimits { turn: 5_000, ..SendLimits::default() }, 1),
    ] {
        let (mut net, attempts) = unacknowledged(limits);
        assert_eq!(reconnections(&mut net), expected, "{limits:?}");
        assert_eq!(settled(&net, &attempts), 8, "{limits:?}");
        net.check_at_rest();
    }
}

#[test]
fn no_more_is_offered_to_a_peer_than_a_turn_may_hold() {
    let mut net = Net::line_with(3, |node, config| {
        if node == 1 {
            config.send_bytes.peer = 5_000;
        }
    });
    let attempts: Vec<u64> = (1..=10)
        .map(|number| {
            let (hash, recipient) = net.invoice(2, number, Msat(1_000_000));
            let route = net.route(&[0, 1, 2], Msat(1_000_000), 18);
            net.queue(0, hash, &route, &recipient)
        })
        .collect();
    net.pump();
    let failed = |attempt: &&u64| {
        net.outcome(0, **attempt) == Some(Outcome::Failed(0, Failure::TemporaryChannelFailure))
    };
    let (settled, failed) = (settled(&net, &attempts), attempts.iter().filter(failed).count());
    assert_eq!((settled, failed), (4, 6), "each takes 1,622 bytes");
    net.check_at_rest();
}

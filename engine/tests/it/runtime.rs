//! The runtime under its public interface: forwards that cross shards, with and without threads.
//!
//! Owns the networks of engines and their scenarios; `runtime/net.rs` carries messages and blocks between
//! them. Money is counted on the channels, before and after, on all nodes.

mod announcing;
mod net;

use fulmen::proto::forward::Event;
use fulmen::wire::units::Msat;

use net::{Drive, Line, Settled};

const AMOUNT: Msat = Msat(2_000_000);

/// Pays `payments` back and forth over a line whose middle has `shards` shards, and counts the money.
fn pays_both_ways(drive: Drive, shards: u16, payments: u64, in_flight: u64) {
    let mut line = Line::new(drive, shards);
    let before = line.balances();
    for ends in [(0, 2), (2, 0)] {
        let Settled { settled, failed } = line.pay(payments, in_flight, AMOUNT, ends);
        assert_eq!((settled, failed), (payments, 0));
    }
    let after = line.balances();
    assert_eq!(
        before.into_iter().sum::<Msat>(),
        after.into_iter().sum::<Msat>(),
        "no millisatoshi comes or goes"
    );
    let fees = 2 * payments * net::FEE.0;
    assert_eq!(after[1], Msat(before[1].0 + fees), "the middle earned its fees and nothing else");
    let forwards = line.events(1).filter(|event| matches!(event, Event::Forwarded { .. })).count();
    assert_eq!(forwards as u64, 2 * payments);
    let handoffs: u64 = line.engine(1).stats().shards.iter().map(|shard| shard.handoffs).sum();
    if shards == 1 {
        assert_eq!(handoffs, 0);
    } else {
        assert_eq!(handoffs, 3 * 2 * payments, "an offer, its end and the thanks for it, each forward");
    }
    for unfinished in line.shutdown() {
        assert_eq!(unfinished, Default::default(), "everything is resolved");
    }
}

#[test]
fn forwards_cross_shards_without_threads() {
    pays_both_ways(Drive::Inline, 2, 20, 5);
    pays_both_ways(Drive::Inline, 1, 3, 1);
}

#[test]
fn forwards_cross_shards_on_threads() {
    pays_both_ways(Drive::Threads(2), 2, 60, 20);
    pays_both_ways(Drive::Threads(1), 1, 20, 10);
}

/// One shard receives a payment to the node, whichever shard its HTLC arrives on, and reports back to that shard.
#[test]
fn what_is_paid_to_the_middle_is_received_once() {
    for (drive, crashes) in [(Drive::Inline, 3), (Drive::Threads(2), 3), (Drive::Inline, 0)] {
        let mut line = Line::durable(drive, 2);
        let before = line.balances();
        for ends in [(0, 1), (2, 1)] {
            let Settled { settled, failed } = line.pay_through(30, 30, AMOUNT, ends, crashes);
            assert_eq!((settled, failed), (30, 0));
        }
        assert_eq!(line.balances()[1], Msat(before[1].0 + 60 * AMOUNT.0));
        if crashes == 0 {
            let received = line.events(1).filter(|event| matches!(event, Event::PaymentReceived { .. }));
            assert_eq!(received.count(), 60);
            let handoffs: u64 = line.engine(1).stats().shards.iter().map(|shard| shard.handoffs).sum();
            assert!((30..=150).contains(&handoffs), "about half of 60 take three each: {handoffs}");
        }
        for unfinished in line.shutdown() {
            assert_eq!(unfinished, Default::default(), "everything is resolved");
        }
    }
}

#[test]
fn nothing_is_lost_when_the_middle_dies() {
    for drive in [Drive::Inline, Drive::Threads(2)] {
        let mut line = Line::durable(drive, 2);
        let before = line.balances();
        for ends in [(0, 2), (2, 0)] {
            let Settled { settled, failed } = line.pay_through(40, 40, AMOUNT, ends, 5);
            assert_eq!((settled, failed), (40, 0), "a payment that was under way arrives all the same");
        }
        let after = line.balances();
        let earned = 80 * net::FEE.0;
        assert_eq!(after[1], Msat(before[1].0 + earned), "each payment was carried once");
        for end in [0, 2] {
            assert_eq!(
                after[end],
                Msat(before[end].0 - earned / 2),
                "each end paid as much as it got, and the fees"
            );
        }
        for unfinished in line.shutdown() {
            assert_eq!(unfinished, Default::default(), "everything is resolved");
        }
    }
}

#[test]
fn no_event_is_missing_when_the_middle_dies_and_none_comes_again_once_acknowledged() {
    for drive in [Drive::Inline, Drive::Threads(2)] {
        let mut line = Line::durable(drive, 2);
        let mut forwards = 0;
        for ends in [(0, 2), (2, 0)] {
            let Settled { settled, failed } = line.pay_through(40, 40, AMOUNT, ends, 8);
            assert_eq!((settled, failed), (40, 0));
            forwards += settled;
        }
        let counted = |wanted: fn(&Event) -> bool| line.handled().filter(|event| wanted(event)).count();
        assert_eq!(counted(|event| matches!(event, Event::Forwarded { .. })) as u64, forwards);
        assert_eq!(counted(|event| matches!(event, Event::ChannelFunded { .. })), 2);
        assert_eq!(counted(|event| matches!(event, Event::ChannelReady { .. })), 2);
        assert_eq!(line.repeated_after_acknowledging(), 0, "acknowledged events do not come again");
    }
}

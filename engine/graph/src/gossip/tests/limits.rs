//! Bounds on peers: flooding, forging and filling memory.

use super::*;
use crate::gossip::{ByteLimit, Rate};

fn config() -> GossipConfig {
    GossipConfig {
        messages: Rate { burst: 10, per_hour: 3_600 },
        faults: Rate { burst: 2, per_hour: 1 },
        // Six updates, four of one peer: each has 138 bytes and 256 of overhead.
        held_bytes: ByteLimit { total: 6 * 394, per_source: 4 * 394 },
        // Two announcements of 432 bytes and 512 of overhead.
        pending_bytes: ByteLimit { total: 2 * 944, per_source: 2 * 944 },
        peers_max: 2,
        ..plain_config()
    }
}

fn count(outcome: &GossipOutcome, wanted: &Refusal) -> usize {
    outcome.refused.iter().filter(|refused| refused.why == *wanted).count()
}

#[test]
fn floods_are_cut_off_but_not_for_others_or_ourselves() {
    let mut keeper = Keeper::new(config());
    let messages = vec![announcement(scid(1), ends(1, 2)); 15];
    let outcome = keeper.ingest_from(peer(1), &messages, NOW);
    assert_eq!((outcome.accepted, count(&outcome, &Refusal::RateLimited)), (1, 5));
    let later = GossipTime { unix_seconds: NOW.unix_seconds + 3, ..NOW };
    assert_eq!(count(&keeper.ingest_from(peer(1), &messages, later), &Refusal::RateLimited), 12);
    assert_eq!(count(&keeper.ingest_from(peer(2), &messages[..10], NOW), &Refusal::RateLimited), 0);
    assert_eq!(count(&keeper.ingest_from(peer(3), &messages, NOW), &Refusal::RateLimited), 15, "no room");
    assert_eq!(count(&keeper.ingest_from(Source::Own, &messages, NOW), &Refusal::RateLimited), 0);
    // A disconnected peer makes room once its rate limits have recovered.
    keeper.gossip.peer_disconnected(NodeId([1; 33]));
    let _ = keeper.gossip.prune(later);
    assert_eq!(keeper.ingest_from(peer(3), &messages, later).refused[0].why, Refusal::RateLimited);
    let much_later = GossipTime { unix_seconds: NOW.unix_seconds + 60, ..NOW };
    let _ = keeper.gossip.prune(much_later);
    assert_eq!(keeper.ingest_from(peer(3), &messages, much_later).refused[0].why, Refusal::Known);
}

#[test]
fn forgers_are_to_be_disconnected_and_their_neighbours_in_the_batch_are_not() {
    let (id, two) = (scid(1), ends(1, 2));
    let mut keeper = Keeper::new(config());
    let _ = keeper.ingest(&[announcement(id, two)]);
    let forged = |timestamp: u32| signed_update(unsigned_update(id, Direction::OneToTwo, timestamp), 9);
    let honest = update(id, two, Direction::OneToTwo, TIMESTAMP + 50);
    let batch = [forged(TIMESTAMP + 1), forged(TIMESTAMP + 2), forged(TIMESTAMP + 3)];
    let mut incoming: Vec<IncomingGossip<'_>> =
        batch.iter().map(|message| IncomingGossip { from: peer(1), message }).collect();
    incoming.insert(1, IncomingGossip { from: peer(2), message: &honest });
    let outcome = keeper.gossip.ingest(&incoming, NOW);
    assert_eq!(outcome.disconnect, [NodeId([1; 33])], "the third was one too many");
    assert_eq!((outcome.accepted, count(&outcome, &Refusal::InvalidSignature)), (1, 3));
    let _ = keeper.apply(outcome);
    // Disconnecting and connecting again does not reset the faults.
    keeper.gossip.peer_disconnected(NodeId([1; 33]));
    let _ = keeper.gossip.prune(NOW);
    let outcome = keeper.ingest(&[forged(TIMESTAMP + 60)]);
    assert_eq!(outcome.disconnect, [NodeId([1; 33])]);
    // A held message counts against its sender, whoever's batch reveals it.
    let mut keeper = Keeper::new(GossipConfig { faults: Rate { burst: 0, per_hour: 0 }, ..config() });
    assert_eq!(keeper.ingest_from(peer(2), &[forged(TIMESTAMP)], NOW).held, 1);
    let outcome = keeper.ingest_from(peer(1), &[announcement(id, two)], NOW);
    assert_eq!((outcome.accepted, outcome.disconnect.as_slice()), (1, &[NodeId([2; 33])][..]));
}

#[test]
fn held_messages_are_bounded_and_one_peer_cannot_displace_anothers() {
    let mut keeper = Keeper::new(config());
    let honest = update(scid(1), ends(1, 2), Direction::OneToTwo, TIMESTAMP);
    let _ = keeper.ingest_from(peer(2), &[honest], NOW);
    let forged = signed_update(unsigned_update(scid(1), Direction::OneToTwo, TIMESTAMP + 9), 9);
    let mut flood = vec![forged];
    flood.extend((2..9).map(|number| update(scid(number), ends(1, 2), Direction::OneToTwo, TIMESTAMP)));
    let _ = keeper.ingest_from(peer(1), &flood, NOW);
    assert_eq!(keeper.gossip.held_count(), 5);
    let outcome = keeper.ingest_from(Source::Own, &[announcement(scid(1), ends(1, 2))], NOW);
    assert_eq!(outcome.accepted, 2, "the honest one is still there");
    let later = GossipTime { unix_seconds: NOW.unix_seconds + 3_601, ..NOW };
    let _ = keeper.gossip.prune(later);
    assert_eq!(keeper.gossip.held_count(), 0);
}

#[test]
fn padded_gossip_about_unknown_channels_is_bounded_in_bytes() {
    let limit = ByteLimit { total: 400_000, per_source: 150_000 };
    let rate = Rate { burst: 1_000, per_hour: 0 };
    let config = GossipConfig {
        held_bytes: limit,
        pending_bytes: limit,
        messages: rate,
        peers_max: 10,
        funding_check: FundingCheck::First,
        ..config()
    };
    let mut keeper = Keeper::new(config);
    let padding = vec![0x80; 60_000];
    let mut refused = 0;
    for number in 1..20 {
        let mut update = unsigned_update(scid(number), Direction::OneToTwo, TIMESTAMP);
        update.extension.clone_from(&padding);
        let mut channel = unsigned_announcement(scid(100 + number), ends(1, 2));
        channel.extension.clone_from(&padding);
        let messages = [signed_update(update, 9), signed_announcement(channel, ends(1, 2))];
        for tag in 1..7 {
            let outcome = keeper.ingest_from(peer(tag), &messages, NOW);
            refused += outcome.refused.len();
            assert!(keeper.gossip.held_bytes() <= limit.total, "{} bytes held", keeper.gossip.held_bytes());
            assert!(keeper.gossip.pending_bytes() <= limit.total);
        }
    }
    assert_eq!(keeper.gossip.held_count(), 6, "each of 60 kB");
    assert!(keeper.gossip.pending_bytes() > 300_000 && refused > 50);
}

#[test]
fn lookups_and_unwritten_bytes_are_bounded() {
    let mut keeper = Keeper::new(GossipConfig { funding_check: FundingCheck::First, ..config() });
    let messages: Vec<Vec<u8>> = (1..5).map(|number| announcement(scid(number), ends(1, 2))).collect();
    let outcome = keeper.ingest(&messages);
    assert_eq!((outcome.lookups.len(), count(&outcome, &Refusal::TooManyLookups { bytes: 2 * 944 })), (2, 2));
    let later = GossipTime { unix_seconds: NOW.unix_seconds + 3_601, ..NOW };
    let _ = keeper.gossip.prune(later);
    assert_eq!(
        keeper.ingest_from(peer(1), &messages[2..], later).lookups.len(),
        2,
        "unanswered ones make room"
    );

    let mut keeper = Keeper::new(GossipConfig { unwritten_bytes_max: 500, ..config() });
    let outcome = keeper.ingest(&messages);
    assert_eq!(outcome.accepted, 4, "one batch may pass the limit");
    let bytes = keeper.gossip.store.unwritten_bytes();
    assert_eq!(keeper.refusal(&announcement(scid(9), ends(1, 2))), Refusal::StoreBehind { bytes });
    keeper.gossip.flush().unwrap();
    assert_eq!(keeper.ingest(&[announcement(scid(9), ends(1, 2))]).accepted, 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_refused_without_a_change(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600), kind in 256..259_u16,
    ) {
        let mut message = kind.to_be_bytes().to_vec();
        message.extend_from_slice(&bytes);
        let mut keeper = Keeper::plain();
        let outcome = keeper.ingest(&[message]);
        assert!(outcome.changes.is_empty() && outcome.accepted == 0 && outcome.refused.len() + outcome.held == 1);
    }
}

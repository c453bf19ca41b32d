//! Queries and filters: the messages that peers receive, their division, and rate limits.

use std::collections::BTreeSet;

use fulmen_wire::message::{
    GossipTimestampFilter, QueryChannelRange, QueryFlags, QueryOption, QueryShortChannelIds,
    ReplyChannelRange,
};
use fulmen_wire::tlv::UnknownTlvs;
use proptest::prelude::*;

use super::*;
use crate::gossip::{QueryRefusal, Rate};

const ASKER: NodeId = NodeId([5; 33]);

fn range(first: u32, number: u32, options: Option<u64>) -> Message {
    Message::from(QueryChannelRange {
        chain_hash: ChainHash::BITCOIN,
        first_blocknum: BlockHeight(first),
        number_of_blocks: number,
        query_option: options.map(QueryOption),
        unknown: UnknownTlvs::default(),
    })
}

fn by_scid(scids: &[Scid], flags: Option<Vec<QueryFlags>>) -> Message {
    Message::from(QueryShortChannelIds {
        chain_hash: ChainHash::BITCOIN,
        short_channel_ids: scids.to_vec(),
        query_flags: flags,
        unknown: UnknownTlvs::default(),
    })
}

fn filter(first_timestamp: u32, timestamp_range: u32) -> Message {
    let (chain_hash, unknown) = (ChainHash::BITCOIN, UnknownTlvs::default());
    Message::from(GossipTimestampFilter { chain_hash, first_timestamp, timestamp_range, unknown })
}

/// Takes answers a few bytes at a time until none is left.
fn answers(keeper: &mut Keeper) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| Some(keeper.gossip.answer(ASKER, 1).unwrap()).filter(|drawn| !drawn.is_empty()))
        .flatten()
        .collect()
}

fn relayed(keeper: &mut Keeper, bytes_max: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while keeper.gossip.has_backlog(ASKER) {
        all.extend(keeper.gossip.relay(ASKER, bytes_max).unwrap());
    }
    all
}

fn decoded(messages: &[Vec<u8>]) -> Vec<Message> {
    messages.iter().map(|message| Message::decode(message).unwrap()).collect()
}

fn replies(messages: &[Vec<u8>]) -> Vec<ReplyChannelRange> {
    let replies = decoded(messages).into_iter().map(|message| match message {
        Message::ReplyChannelRange(reply) => reply,
        other => panic!("{}", other.name()),
    });
    replies.collect()
}

/// Channels 1 to 4 in a row of nodes 1 to 5; the last has no update. Nodes 2 and 3 have announced themselves.
fn row() -> Keeper {
    let mut keeper = Keeper::plain();
    let mut messages = Vec::new();
    for number in 1..=4 {
        let (id, ends) = (scid(u32::from(number)), ends(number, number + 1));
        messages.push(announcement(id, ends));
        if number < 4 {
            messages.push(update(id, ends, Direction::OneToTwo, TIMESTAMP + u32::from(number)));
        }
    }
    messages.push(update(scid(2), ends(2, 3), Direction::TwoToOne, TIMESTAMP + 9));
    messages.extend([node_announcement(2, TIMESTAMP), node_announcement(3, TIMESTAMP + 9)]);
    assert_eq!(keeper.ingest(&messages).accepted, messages.len());
    keeper
}

#[test]
fn channels_are_told_by_id_each_node_once() {
    let mut keeper = row();
    let query = by_scid(&[scid(1), scid(2), scid(4), scid(77)], None);
    keeper.gossip.query(ASKER, &query, NOW).unwrap();
    let name = "query_short_channel_ids";
    assert_eq!(keeper.gossip.query(ASKER, &query, NOW), Err(QueryRefusal::StillAnswering { name }));
    let told = answers(&mut keeper);
    let (one, two) = (ends(1, 2), ends(2, 3));
    let expected = BTreeSet::from([
        announcement(scid(1), one),
        update(scid(1), one, Direction::OneToTwo, TIMESTAMP + 1),
        announcement(scid(2), two),
        update(scid(2), two, Direction::OneToTwo, TIMESTAMP + 2),
        update(scid(2), two, Direction::TwoToOne, TIMESTAMP + 9),
        node_announcement(2, TIMESTAMP),
        node_announcement(3, TIMESTAMP + 9),
    ]);
    let (last, rest) = told.split_last().unwrap();
    assert_eq!((rest.len(), rest.iter().cloned().collect::<BTreeSet<_>>()), (7, expected));
    let Message::ReplyShortChannelIdsEnd(end) = Message::decode(last).unwrap() else { panic!("no end") };
    assert!(end.full_information);
    let only = QueryFlags::CHANNEL_UPDATE_2 | QueryFlags::NODE_ANNOUNCEMENT_1;
    keeper.gossip.query(ASKER, &by_scid(&[scid(2), scid(1)], Some(vec![only, QueryFlags(0)])), NOW).unwrap();
    let told = answers(&mut keeper);
    let node = node_announcement(two.nodes[0], if two.nodes[0] == 2 { TIMESTAMP } else { TIMESTAMP + 9 });
    assert_eq!(told[..2], [update(scid(2), two, Direction::TwoToOne, TIMESTAMP + 9), node]);
    assert_eq!(told.len(), 3);
    let Message::QueryShortChannelIds(mut foreign) = by_scid(&[scid(1)], None) else { unreachable!() };
    foreign.chain_hash = ChainHash::REGTEST;
    keeper.gossip.query(ASKER, &Message::from(foreign), NOW).unwrap();
    let [Message::ReplyShortChannelIdsEnd(end)] = &decoded(&answers(&mut keeper))[..] else {
        panic!("no end")
    };
    assert!(!end.full_information && end.chain_hash == ChainHash::REGTEST);
}

#[test]
fn ranges_are_told_with_timestamps_and_checksums_if_asked() {
    let mut keeper = row();
    let told = |keeper: &mut Keeper, query: &Message| {
        keeper.gossip.query(ASKER, query, NOW).unwrap();
        let mut replies = replies(&answers(keeper));
        assert_eq!(replies.len(), 1);
        let reply = replies.remove(0);
        assert!(reply.sync_complete);
        reply
    };
    let reply = told(&mut keeper, &range(800_001, 2, None));
    assert_eq!((reply.first_blocknum.0, reply.number_of_blocks), (800_001, 2));
    assert_eq!(reply.short_channel_ids, [scid(1), scid(2)]);
    assert_eq!((reply.timestamps, reply.checksums), (None, None));
    let reply = told(&mut keeper, &range(0, u32::MAX, Some(3)));
    assert_eq!(reply.short_channel_ids, [scid(1), scid(2), scid(3)], "the fourth has no update");
    let timestamps = reply.timestamps.unwrap();
    assert_eq!(
        (timestamps[1].timestamp_node_id_1, timestamps[1].timestamp_node_id_2),
        (TIMESTAMP + 2, TIMESTAMP + 9)
    );
    let checksums = reply.checksums.unwrap();
    assert_eq!(checksums[0].checksum_node_id_2, 0, "no update, no checksum");
    // CRC32C without signature and timestamp, so that it is the same for the same terms at any time.
    let bytes = update(scid(1), ends(1, 2), Direction::OneToTwo, TIMESTAMP + 1);
    let plain = [&bytes[66..106], &bytes[110..]].concat();
    assert_eq!(checksums[0].checksum_node_id_1, crc32c::crc32c(&plain));
    assert!(told(&mut keeper, &range(u32::MAX, u32::MAX, None)).short_channel_ids.is_empty());
    let reply = told(&mut keeper, &range(7, 0, None));
    assert_eq!((reply.first_blocknum.0, reply.number_of_blocks, reply.short_channel_ids.len()), (7, 0, 0));
    let Message::QueryChannelRange(mut foreign) = range(0, u32::MAX, None) else { unreachable!() };
    foreign.chain_hash = ChainHash::REGTEST;
    assert!(told(&mut keeper, &Message::from(foreign)).short_channel_ids.is_empty());
}

#[test]
fn filters_let_through_what_they_say_and_announcements_come_first() {
    let mut keeper = row();
    assert!(relayed(&mut keeper, 1).is_empty(), "nothing without a filter");
    keeper.gossip.query(ASKER, &filter(TIMESTAMP + 2, 2), NOW).unwrap();
    let (two, three) = (ends(2, 3), ends(3, 4));
    let expected = [
        announcement(scid(2), two),
        update(scid(2), two, Direction::OneToTwo, TIMESTAMP + 2),
        announcement(scid(3), three),
        update(scid(3), three, Direction::OneToTwo, TIMESTAMP + 3),
    ];
    assert_eq!(relayed(&mut keeper, 1), expected);
    assert!(relayed(&mut keeper, 1).is_empty(), "once");
    let newer = update(scid(1), ends(1, 2), Direction::OneToTwo, TIMESTAMP + 50);
    keeper.gossip.query(ASKER, &filter(TIMESTAMP + 40, u32::MAX), NOW).unwrap();
    let _ = keeper.ingest(std::slice::from_ref(&newer));
    assert_eq!(relayed(&mut keeper, 1), [announcement(scid(1), ends(1, 2)), newer]);
    keeper.gossip.query(ASKER, &filter(u32::MAX, 0), NOW).unwrap();
    assert!(!keeper.gossip.has_backlog(ASKER));
    keeper.gossip.query(ASKER, &filter(0, u32::MAX), NOW).unwrap();
    keeper.gossip.funding_spent(scid(2), BlockHeight(900_000));
    let told = relayed(&mut keeper, usize::MAX);
    assert!(told.iter().all(|message| !told_of(message, scid(2))), "a spent channel is not told");
    assert_eq!(told.len(), 6);
}

fn told_of(message: &[u8], id: Scid) -> bool {
    match Message::decode(message).unwrap() {
        Message::ChannelAnnouncement(message) => message.short_channel_id == id,
        Message::ChannelUpdate(message) => message.short_channel_id == id,
        _ => false,
    }
}

#[test]
fn asking_too_often_or_for_something_else_is_refused() {
    let mut keeper = Keeper::new(GossipConfig { queries: Rate { burst: 2, per_hour: 60 }, ..plain_config() });
    let filter = filter(0, u32::MAX);
    assert_eq!(keeper.gossip.query(ASKER, &filter, NOW), Ok(()));
    assert_eq!(keeper.gossip.query(ASKER, &filter, NOW), Ok(()));
    assert_eq!(keeper.gossip.query(ASKER, &filter, NOW), Err(QueryRefusal::RateLimited));
    let update = Message::from(unsigned_update(scid(1), Direction::OneToTwo, 1));
    assert_eq!(
        keeper.gossip.query(ASKER, &update, NOW),
        Err(QueryRefusal::NotAQuery { name: "channel_update" })
    );
    assert!(keeper.gossip.answer(ASKER, 1_000).unwrap().is_empty());
    assert_eq!(keeper.gossip.unknown_channels(&[scid(3)]), [scid(3)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// A peer that receives everything, in any division and with the store rewritten in between, arrives at the same
    /// graph.
    #[test]
    fn a_listener_comes_to_the_same_graph(
        steps in prop::collection::vec((1..5_u16, 1..5_u16, any::<bool>(), 0..9_u32, 1..900_usize, any::<bool>()), 1..24),
    ) {
        let (mut teller, mut listener) = (Keeper::plain(), Keeper::plain());
        teller.gossip.query(ASKER, &filter(0, u32::MAX), NOW).unwrap();
        for (one, step, second, timestamp, bytes_max, rewrite) in steps {
            let ends = ends(one, one + step);
            let id = scid(u32::from(one * 10 + step));
            let direction = Direction::BOTH[usize::from(second)];
            let _ = teller.ingest(&[
                announcement(id, ends),
                update(id, ends, direction, TIMESTAMP + timestamp),
                node_announcement(one, TIMESTAMP + timestamp),
            ]);
            let drawn = teller.gossip.relay(ASKER, bytes_max).unwrap();
            let outcome = listener.ingest(&drawn);
            prop_assert_eq!(outcome.held, 0, "nothing comes before what it depends on");
            if rewrite {
                teller.gossip.rewrite().unwrap();
            }
        }
        let rest = relayed(&mut teller, 100);
        prop_assert_eq!(listener.ingest(&rest).held, 0);
        prop_assert_eq!(described(&listener.graph), described(&teller.graph));
        for number in 1..9 {
            let announced = |keeper: &Keeper| keeper.gossip.node_announcement(node_id(number)).unwrap();
            prop_assert_eq!(announced(&listener), announced(&teller));
        }
    }

    /// Replies of a range query cover it without a gap, in order, and hold each channel once.
    #[test]
    fn replies_cover_the_range(
        numbers in prop::collection::btree_set(0..40_u32, 0..30), first in 799_990..800_050_u32, blocks in 0..60_u32,
        max in 1..9_usize,
    ) {
        let mut keeper = Keeper::plain();
        let two = ends(1, 2);
        for number in &numbers {
            // Four channels per block.
            let id = Scid::new(800_000 + number / 4, number % 4, 0).unwrap();
            let _ = keeper.ingest_from(Source::Own, &[announcement(id, two), update(id, two, Direction::OneToTwo, TIMESTAMP)], NOW);
        }
        keeper.gossip.query(ASKER, &range(first, blocks, None), NOW).unwrap();
        keeper.gossip.config.reply_scids_max = max;
        let replies = replies(&answers(&mut keeper));
        let end = first + blocks;
        let (opening, closing) = (&replies[0], replies.last().unwrap());
        prop_assert!(opening.first_blocknum.0 <= first);
        prop_assert!(closing.first_blocknum.0 + closing.number_of_blocks >= end && closing.sync_complete);
        let mut scids = Vec::new();
        for pair in replies.windows(2) {
            prop_assert!(!pair[0].sync_complete && pair[0].first_blocknum <= pair[1].first_blocknum);
            prop_assert!(pair[1].first_blocknum.0 <= pair[0].first_blocknum.0 + pair[0].number_of_blocks);
        }
        for reply in &replies {
            let covered = reply.first_blocknum.0..reply.first_blocknum.0 + reply.number_of_blocks;
            prop_assert!(reply.short_channel_ids.iter().all(|scid| covered.contains(&scid.block())));
            prop_assert!(reply.short_channel_ids.len() <= max);
            scids.extend(reply.short_channel_ids.iter().copied());
        }
        let expected: Vec<Scid> = numbers
            .iter()
            .map(|number| Scid::new(800_000 + number / 4, number % 4, 0).unwrap())
            .filter(|scid| (first..end).contains(&scid.block()))
            .collect();
        prop_assert_eq!(scids, expected);
    }
}

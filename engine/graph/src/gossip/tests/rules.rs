//! The receiving node's requirements of BOLT 7, one by one.

use fulmen_wire::units::Sat;

use super::*;
use crate::gossip::{FundingAnswer, FundingLookup};

fn both_updates(scid: Scid, ends: Ends, timestamp: u32) -> Vec<Vec<u8>> {
    Direction::BOTH.map(|direction| update(scid, ends, direction, timestamp)).to_vec()
}

#[test]
fn an_update_may_come_before_its_announcement_and_a_node_before_both() {
    let (id, ends) = (scid(1), ends(1, 2));
    let mut keeper = Keeper::plain();
    let outcome = keeper.ingest(&[node_announcement(1, TIMESTAMP)]);
    assert_eq!((outcome.held, outcome.accepted), (1, 0));
    let outcome = keeper.ingest(&both_updates(id, ends, TIMESTAMP));
    assert_eq!((outcome.held, outcome.accepted, keeper.gossip.held_count()), (2, 0, 3));
    let outcome = keeper.ingest(&[announcement(id, ends)]);
    assert_eq!((outcome.held, outcome.accepted, outcome.refused.len()), (0, 4, 0));
    assert_eq!(keeper.gossip.held_count(), 0);
    let channel = keeper.graph.channel(id).unwrap();
    assert!(Direction::BOTH.iter().all(|direction| channel.policy(*direction).is_some()));
    let announced = |change: &GraphChange| matches!(change, GraphChange::NodeAnnounced { node, .. } if *node == node_id(1));
    assert!(keeper.changes.iter().any(announced));
    assert_eq!(
        keeper.gossip.node_announcement(node_id(1)).unwrap().unwrap(),
        node_announcement(1, TIMESTAMP)
    );
    assert_eq!(keeper.gossip.channel_announcement(id).unwrap().unwrap(), announcement(id, ends));
}

#[test]
fn what_is_refused_and_why() {
    let (id, two) = (scid(1), ends(1, 2));
    let mut keeper = Keeper::plain();
    let _ = keeper.ingest(&[announcement(id, two), update(id, two, Direction::OneToTwo, TIMESTAMP)]);
    assert_eq!(keeper.refusal(&announcement(id, two)), Refusal::Known);
    assert_eq!(
        keeper.refusal(&update(id, two, Direction::OneToTwo, TIMESTAMP)),
        Refusal::NotNewer { timestamp: TIMESTAMP, known: TIMESTAMP }
    );
    let ahead = TIMESTAMP + 24 * 60 * 60 + 1;
    let now_seconds = NOW.unix_seconds;
    assert_eq!(
        keeper.refusal(&update(id, two, Direction::OneToTwo, ahead)),
        Refusal::TooFarAhead { timestamp: ahead, now_seconds }
    );
    let old = TIMESTAMP - 14 * 24 * 60 * 60 - 1;
    assert_eq!(
        keeper.refusal(&update(id, two, Direction::TwoToOne, old)),
        Refusal::Stale { timestamp: old, now_seconds }
    );
    let mut private = unsigned_update(id, Direction::TwoToOne, TIMESTAMP);
    private.message_flags |= ChannelUpdate::DONT_FORWARD;
    assert_eq!(keeper.refusal(&signed_update(private, two.nodes[1])), Refusal::DontForward { scid: id });
    let mut foreign = unsigned_update(id, Direction::TwoToOne, TIMESTAMP);
    foreign.chain_hash = ChainHash::REGTEST;
    assert_eq!(
        keeper.refusal(&signed_update(foreign, two.nodes[1])),
        Refusal::OtherChain { found: ChainHash::REGTEST }
    );
    let mut foreign = unsigned_announcement(scid(2), two);
    foreign.chain_hash = ChainHash::REGTEST;
    assert_eq!(
        keeper.refusal(&signed_announcement(foreign, two)),
        Refusal::OtherChain { found: ChainHash::REGTEST }
    );
    let backwards = Ends { nodes: [two.nodes[1], two.nodes[0]], ..two };
    assert!(matches!(keeper.refusal(&announcement(scid(2), backwards)), Refusal::NodesNotInOrder { .. }));
    let alone = Ends { nodes: [1, 1], ..two };
    assert!(matches!(keeper.refusal(&announcement(scid(2), alone)), Refusal::NodesNotInOrder { .. }));
    let other_signer = signed_update(unsigned_update(id, Direction::TwoToOne, TIMESTAMP), two.nodes[0]);
    assert_eq!(keeper.refusal(&other_signer), Refusal::InvalidSignature);
    assert_eq!(
        keeper.refusal(&Message::Unknown { message_type: 0x4001, bytes: vec![] }.encode()),
        Refusal::NotGossip { message_type: 0x4001 }
    );
    assert!(matches!(keeper.refusal(&[1, 0, 7]), Refusal::Malformed(_)));
    assert!(matches!(keeper.refusal(&[]), Refusal::Malformed(_)));
    let mut no_point = unsigned_announcement(scid(2), two);
    no_point.bitcoin_key_1.0[1..].fill(0xff);
    assert!(matches!(keeper.refusal(&signed_announcement(no_point, two)), Refusal::Key(_)));
    let deep_enough = Scid::new(900_000 - 4, 1, 0).unwrap();
    let too_new = Scid::new(900_000 - 3, 1, 0).unwrap();
    assert!(matches!(keeper.refusal(&announcement(too_new, two)), Refusal::Unconfirmed { .. }));
    assert_eq!(keeper.ingest(&[announcement(deep_enough, two)]).accepted, 1);
}

#[test]
fn each_of_the_four_signatures_counts() {
    let two = ends(1, 2);
    for flipped in 0..4 {
        let mut bytes = announcement(scid(1), two);
        bytes[2 + 64 * flipped + 40] ^= 1;
        let mut keeper = Keeper::plain();
        assert_eq!(keeper.refusal(&bytes), Refusal::InvalidSignature);
        assert_eq!(keeper.gossip.channel_count(), 0);
        assert_eq!(keeper.ingest(&[announcement(scid(1), two)]).accepted, 1, "the true one is still welcome");
    }
}

#[test]
fn contradictions_of_unknown_worth_are_ignored_and_real_ones_ban_all_four() {
    let (first, second) = (ends(1, 2), ends(3, 4));
    let mut keeper = Keeper::plain();
    let _ = keeper.ingest(&[announcement(scid(1), first), announcement(scid(2), ends(2, 5))]);
    assert_eq!(keeper.refusal(&announcement(scid(1), second)), Refusal::Contradiction { scid: scid(1) });
    let same_output = Ends { funding: [first.funding[1], first.funding[0]], ..second };
    let mut forged = announcement(scid(1), same_output);
    forged[100] ^= 1;
    assert_eq!(keeper.refusal(&forged), Refusal::InvalidSignature);
    assert_eq!(keeper.gossip.channel_count(), 2);
    assert_eq!(
        keeper.refusal(&announcement(scid(1), same_output)),
        Refusal::ConflictingAnnouncements { scid: scid(1) }
    );
    assert_eq!((keeper.gossip.channel_count(), keeper.graph.channel_count()), (0, 0));
    let mut keeper = keeper.reopened();
    for number in 1..=4 {
        let refusal = keeper.refusal(&announcement(scid(9), ends(number, 6)));
        assert_eq!(refusal, Refusal::Banned { node: node_id(number) });
    }
    assert_eq!(keeper.ingest(&[announcement(scid(9), ends(5, 6))]).accepted, 1);
    // In one batch it is the same.
    let mut keeper = Keeper::plain();
    let outcome = keeper.ingest(&[announcement(scid(1), first), announcement(scid(1), same_output)]);
    assert_eq!((outcome.accepted, outcome.refused.len(), keeper.graph.channel_count()), (1, 1, 0));
}

#[test]
fn features_nobody_knows_keep_channels_and_nodes_out_of_routes() {
    let two = ends(1, 2);
    let unknown = Features::from_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut strange = unsigned_announcement(scid(1), two);
    strange.features = unknown.clone();
    let mut keeper = Keeper::plain();
    let mut messages = vec![signed_announcement(strange, two), announcement(scid(2), two)];
    messages.extend(both_updates(scid(1), two, TIMESTAMP));
    messages.extend(both_updates(scid(2), two, TIMESTAMP));
    assert_eq!(keeper.ingest(&messages).accepted, 6);
    assert_eq!((keeper.gossip.channel_count(), keeper.graph.channel_count()), (2, 1));
    let policies = |keeper: &Keeper| {
        let channel = keeper.graph.channel(scid(2)).unwrap();
        Direction::BOTH.map(|direction| channel.policy(direction).is_some())
    };
    assert_eq!(policies(&keeper), [true, true]);
    let mut required = unsigned_node(two.nodes[0], TIMESTAMP);
    required.features = unknown;
    let _ = keeper.ingest(&[signed_node(required, two.nodes[0])]);
    assert_eq!(policies(&keeper), [false, true], "nothing leaves the node, so nothing leads through it");
    let mut keeper = keeper.reopened();
    assert_eq!(policies(&keeper), [false, true]);
    let _ = keeper.ingest(&both_updates(scid(2), two, TIMESTAMP + 1));
    assert_eq!(policies(&keeper), [false, true]);
    let _ = keeper.ingest(&[node_announcement(two.nodes[0], TIMESTAMP + 1)]);
    assert_eq!(policies(&keeper), [true, true]);
}

#[test]
fn limits_that_contradict_themselves_or_the_capacity_take_a_policy_away() {
    let (id, two) = (scid(1), ends(1, 2));
    let mut keeper = Keeper::new(GossipConfig { funding_check: FundingCheck::Later, ..plain_config() });
    let outcome = keeper.ingest(&[announcement(id, two), update(id, two, Direction::OneToTwo, TIMESTAMP)]);
    let [lookup] = outcome.lookups[..] else { panic!("one lookup") };
    assert_eq!(keeper.graph.channel(id).unwrap().capacity(), Sat(900_001), "what the update speaks for");
    let policy = |keeper: &Keeper| keeper.graph.channel(id).unwrap().policy(Direction::OneToTwo).copied();
    assert!(policy(&keeper).is_some());
    let answer = FundingAnswer::Unspent { value: Sat(900_000) };
    let outcome = keeper.gossip.funding_answered(lookup, answer, NOW);
    let _ = keeper.apply(outcome);
    assert_eq!(keeper.graph.channel(id).unwrap().capacity(), Sat(900_000));
    assert_eq!(policy(&keeper), None, "it promises more than there is");
    let outcome = keeper.gossip.funding_answered(lookup, FundingAnswer::Missing, NOW);
    assert!(keeper.apply(outcome).changes.is_empty(), "each lookup is answered once");
    let mut message = unsigned_update(id, Direction::OneToTwo, TIMESTAMP + 1);
    message.htlc_maximum_msat = Msat(900_000_000);
    let _ = keeper.ingest(&[signed_update(message.clone(), two.nodes[0])]);
    assert_eq!(policy(&keeper).unwrap().htlc_maximum, Msat(900_000_000));
    message.timestamp += 1;
    message.htlc_minimum_msat = Msat(900_000_001);
    let _ = keeper.ingest(&[signed_update(message, two.nodes[0])]);
    assert_eq!(policy(&keeper), None);
    let keeper = keeper.reopened();
    assert_eq!((keeper.graph.channel(id).unwrap().capacity(), policy(&keeper)), (Sat(900_000), None));
}

#[test]
fn nothing_is_used_before_its_funding_output_was_found() {
    let (id, two) = (scid(1), ends(1, 2));
    let mut keeper = Keeper::new(GossipConfig::new(ChainHash::BITCOIN));
    let invented = Ends { funding: [500, 501], ..two };
    let mut messages = vec![announcement(id, invented), announcement(id, two)];
    messages.extend(both_updates(id, two, TIMESTAMP));
    let outcome = keeper.ingest(&messages);
    assert_eq!((outcome.accepted, outcome.held, outcome.lookups.len()), (0, 2, 2));
    assert_eq!(keeper.refusal(&announcement(id, two)), Refusal::Known);
    let lookup = |ends: Ends| {
        let mut bitcoin_keys = ends.funding.map(|number| Point(key(number)));
        bitcoin_keys.sort();
        FundingLookup { scid: id, bitcoin_keys }
    };
    let outcome = keeper.gossip.funding_answered(lookup(invented), FundingAnswer::Missing, NOW);
    assert!(keeper.apply(outcome).changes.is_empty());
    let answer = FundingAnswer::Unspent { value: Sat(1_000_000) };
    let outcome = keeper.gossip.funding_answered(lookup(two), answer, NOW);
    assert_eq!(keeper.apply(outcome).accepted, 3, "with the updates that were held");
    let keeper = keeper.reopened();
    let channel = keeper.graph.channel(id).unwrap();
    assert_eq!((channel.capacity(), channel.policy(Direction::OneToTwo).is_some()), (Sat(1_000_000), true));
}

#[test]
fn the_funding_script_is_the_one_of_bolt_3() {
    // BOLT 3, Appendix B: the funding transaction's output.
    let point = |hex: &str| {
        let bytes: Vec<u8> =
            (0..66).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        Point(bytes.try_into().unwrap())
    };
    let lookup = FundingLookup {
        scid: scid(1),
        bitcoin_keys: [
            point("023da092f6980e58d2c037173180e9a465476026ee50f96695963e8efe436f54eb"),
            point("030e9f7b623d2ccc7c9bd44d66d5ce21ce504c0acf6385a132cec6d3c39fa711c1"),
        ],
    };
    let script: String = lookup.script_pubkey().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(script, "0020c015c4a6be010e21657068fc2e6a9d02b27ebe4d490a25846f7237f104d1a3cd");
}

#[test]
fn spent_channels_stay_for_72_blocks() {
    let (id, two) = (scid(1), ends(1, 2));
    let at = |height: u32| GossipTime { tip: Some(BlockHeight(height)), ..NOW };
    let mut keeper = Keeper::plain();
    let _ = keeper.ingest(&[announcement(id, two), update(id, two, Direction::OneToTwo, TIMESTAMP)]);
    keeper.gossip.funding_spent(id, BlockHeight(900_000));
    let mut keeper = keeper.reopened();
    let enabled = update(id, two, Direction::OneToTwo, TIMESTAMP + 1);
    assert_eq!(keeper.refusal(&enabled), Refusal::Spent { scid: id, at: BlockHeight(900_000) });
    let mut disabled = unsigned_update(id, Direction::OneToTwo, TIMESTAMP + 2);
    disabled.channel_flags |= ChannelUpdate::DISABLE;
    assert_eq!(keeper.ingest(&[signed_update(disabled, two.nodes[0])]).accepted, 1);
    let outcome = keeper.gossip.prune(at(900_071));
    assert!(keeper.apply(outcome).changes.is_empty());
    keeper.gossip.spend_reverted(id);
    let mut keeper = keeper.reopened();
    let outcome = keeper.gossip.prune(at(900_072));
    assert!(keeper.apply(outcome).changes.is_empty(), "its spending was undone");
    keeper.gossip.funding_spent(id, BlockHeight(900_000));
    let outcome = keeper.gossip.prune(at(900_072));
    assert_eq!(keeper.apply(outcome).changes, [GraphChange::ChannelRemoved { scid: id }]);
    assert_eq!((keeper.gossip.channel_count(), keeper.gossip.node_count()), (0, 0));
    assert_eq!(keeper.reopened().graph.channel_count(), 0);
}

#[test]
fn channels_without_news_for_two_weeks_go_and_their_nodes_with_them() {
    let two = ends(1, 2);
    let mut keeper = Keeper::plain();
    let mut messages = vec![
        announcement(scid(1), two),
        announcement(scid(2), two),
        announcement(scid(3), ends(2, 3)),
        node_announcement(1, TIMESTAMP),
        node_announcement(3, TIMESTAMP),
        update(scid(2), two, Direction::OneToTwo, TIMESTAMP),
        update(scid(3), ends(2, 3), Direction::OneToTwo, TIMESTAMP),
    ];
    messages.extend(both_updates(scid(1), two, TIMESTAMP));
    assert_eq!(keeper.ingest(&messages).accepted, messages.len());
    let weeks = 14 * 24 * 60 * 60;
    let later = |seconds: u64| GossipTime { unix_seconds: NOW.unix_seconds + seconds, ..NOW };
    let day = 24 * 60 * 60;
    let fresh = both_updates(scid(1), two, TIMESTAMP + day);
    let _ = keeper.ingest_from(peer(1), &fresh, later(u64::from(day)));
    let outcome = keeper.gossip.prune(later(weeks));
    assert!(keeper.apply(outcome).changes.is_empty(), "just not too old");
    let outcome = keeper.gossip.prune(later(weeks + 1));
    let expected = [
        GraphChange::ChannelRemoved { scid: scid(2) },
        GraphChange::ChannelRemoved { scid: scid(3) },
        GraphChange::NodeRemoved { node: node_id(3) },
    ];
    assert_eq!(keeper.apply(outcome).changes, expected);
    assert_eq!((keeper.gossip.channel_count(), keeper.gossip.node_count()), (1, 2));
    let keeper = keeper.reopened();
    assert_eq!((keeper.gossip.channel_count(), keeper.gossip.node_count()), (1, 2));
}

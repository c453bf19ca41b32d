//! Our `channel_update`s and `node_announcement`s, and those of peers (BOLT 7), between two shards.

use std::net::Ipv4Addr;

use bitcoin::hashes::sha256d;
use fulmen_wire::addresses::NodeAddress;
use fulmen_wire::message::{ChannelReady, ChannelUpdate, NodeAnnouncement};
use fulmen_wire::tlv::UnknownTlvs;
use fulmen_wire::units::{FeeBaseMsat, FeeProportionalMillionths, Point};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use secp256k1::PublicKey;

use super::announcing::{DEEP, confirmation, deepen, gossip, updates};
use super::*;
use crate::forward::NodeDescription;
use crate::keys::{sign, verify};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A line of two whose channel is announced.
fn announced() -> Net {
    let mut net = Net::line(2);
    net.now.unix_ms = 1_700_000_000_000;
    deepen(&mut net);
    assert_eq!(updates(&net, 0).len(), 1);
    net
}

fn latest(net: &Net, node: usize) -> ChannelUpdate {
    net.shards[node].channel_update(ChannelRef::Scid(net.channels[0].scid)).expect("made").clone()
}

fn set_policy(net: &mut Net, policy: ForwardingPolicy) {
    let channel_id = net.channels[0].channel_id;
    net.command(0, Command::SetPolicy { channel_id, policy });
}

#[test]
fn an_update_says_what_the_policy_and_the_channel_allow() {
    let mut net = Net::line_with(2, |node, config| {
        if node == 1 {
            config.channel.htlc_minimum = Msat(7_000);
            config.channel.max_htlc_value_in_flight = Msat(3_000_000_000);
        }
    });
    let policy = ForwardingPolicy {
        fee_base: Msat(2_500),
        fee_proportional_millionths: 321,
        cltv_expiry_delta: CltvDelta(77),
        htlc_minimum: Msat(9_000),
        htlc_maximum: Msat(2_000_000_000),
        ..ForwardingPolicy::default()
    };
    set_policy(&mut net, policy);
    let update = latest(&net, 0);
    assert_eq!(update.fee_base_msat, FeeBaseMsat(2_500));
    assert_eq!(update.fee_proportional_millionths, FeeProportionalMillionths(321));
    assert_eq!(update.cltv_expiry_delta, CltvDelta(77));
    assert_eq!((update.htlc_minimum_msat, update.htlc_maximum_msat), (Msat(9_000), Msat(2_000_000_000)));
    assert_eq!(update.message_flags, ChannelUpdate::MUST_BE_ONE | ChannelUpdate::DONT_FORWARD);
    let heard = net.shards[1].peer_policy(ChannelRef::Scid(net.channels[0].scid)).expect("sent");
    assert_eq!((heard.fee_base, heard.fee_proportional_millionths), (Msat(2_500), 321));
    assert_eq!((heard.htlc_minimum, heard.htlc_maximum), (Msat(9_000), Msat(2_000_000_000)));
    assert_eq!((heard.cltv_expiry_delta, heard.disabled), (CltvDelta(77), false));

    // The peer's own limits bind.
    set_policy(&mut net, ForwardingPolicy { htlc_minimum: Msat(1), htlc_maximum: Msat::MAX_MONEY, ..policy });
    let update = latest(&net, 0);
    assert_eq!((update.htlc_minimum_msat, update.htlc_maximum_msat), (Msat(7_000), Msat(3_000_000_000)));
    // So does the capacity, of which the other side's update is an example.
    assert_eq!(latest(&net, 1).htlc_maximum_msat, CAPACITY.to_msat());
    // No amount fits: nothing is forwarded.
    set_policy(
        &mut net,
        ForwardingPolicy { htlc_minimum: Msat(4_000_000_000), htlc_maximum: Msat(5_000_000_000), ..policy },
    );
    let update = latest(&net, 0);
    assert!(update.is_disabled() && update.htlc_minimum_msat <= update.htlc_maximum_msat);
}

#[test]
fn a_new_policy_is_announced_with_a_later_timestamp() {
    let mut net = announced();
    for round in 1..=3u32 {
        let policy = ForwardingPolicy { fee_proportional_millionths: round, ..ForwardingPolicy::default() };
        set_policy(&mut net, policy);
        // The same policy again changes nothing.
        set_policy(&mut net, policy);
    }
    set_policy(&mut net, ForwardingPolicy { disabled: true, ..ForwardingPolicy::default() });
    let all = updates(&net, 0);
    let rates: Vec<u32> = all.iter().map(|update| update.fee_proportional_millionths.0).collect();
    assert_eq!(rates, [100, 1, 2, 3, 100]);
    let timestamps: Vec<u32> = all.iter().map(|update| update.timestamp).collect();
    assert!(timestamps.is_sorted_by(|one, other| one < other), "{timestamps:?}");
    assert!(all[4].is_disabled() && all.iter().all(|update| !update.dont_forward()));
    net.check_at_rest();
}

/// After a restart with the clock set back, timestamps rise all the same.
#[test]
fn timestamps_never_go_back() {
    let mut net = announced();
    let before = latest(&net, 0).timestamp;
    net.now.unix_ms -= 30 * DAY_MS;
    net.restart(0);
    assert_eq!(latest(&net, 0).timestamp, before, "nothing has changed, so nothing is signed");
    let reported = updates(&net, 0);
    assert_eq!((reported.len(), &reported[1]), (2, &reported[0]), "the same update is reported once more");
    set_policy(&mut net, ForwardingPolicy { fee_base: Msat(5), ..ForwardingPolicy::default() });
    assert_eq!(latest(&net, 0).timestamp, before + 1);
}

#[test]
fn an_announced_update_is_refreshed_before_it_is_pruned() {
    let mut net = announced();
    let first = latest(&net, 0);
    net.wait(10 * DAY_MS - 60_000);
    assert_eq!(latest(&net, 0), first);
    net.wait(120_000);
    let second = latest(&net, 0);
    assert_eq!(second.timestamp, first.timestamp + 10 * 24 * 60 * 60 + 60);
    assert_eq!(updates(&net, 0).last(), Some(&second));

    // One that only the peer knows is never pruned.
    let mut net = Net::line_with(2, |_, config| config.channel.announce_channel = false);
    let first = latest(&net, 0);
    net.wait(20 * DAY_MS);
    assert_eq!(latest(&net, 0), first);
}

#[test]
fn a_channel_is_disabled_when_its_peer_was_away_and_enabled_when_it_is_back() {
    let mut net = announced();
    net.cut(0, 1);
    net.wait(19 * 60_000);
    assert_eq!(updates(&net, 0).len(), 1);
    net.wait(120_000);
    assert!(updates(&net, 0).last().is_some_and(ChannelUpdate::is_disabled));
    net.wait(60 * 60_000);
    net.connect(0, 1);
    let disabled: Vec<bool> = updates(&net, 0).iter().map(ChannelUpdate::is_disabled).collect();
    assert_eq!(disabled, [false, true, false]);
    let heard = net.shards[1].peer_policy(ChannelRef::Scid(net.channels[0].scid)).expect("sent");
    assert!(!heard.disabled && heard.timestamp == latest(&net, 0).timestamp);
    net.check_at_rest();
}

#[test]
fn the_peer_of_a_private_channel_is_told_by_its_alias_at_every_connection() {
    let mut net = Net::line_with(2, |_, config| config.channel.announce_channel = false);
    let NetChannel { channel_id, scid, .. } = net.channels[0];
    let alias = Scid::new(16_000_000, 5, 9).expect("in range");
    let ready = ChannelReady {
        channel_id,
        second_per_commitment_point: Point(net.ids[1].0),
        alias: Some(alias),
        unknown: UnknownTlvs::default(),
    };
    net.inputs[0].push(Input::message(net.ids[1], ready.clone().into()));
    net.step();
    assert_eq!(net.shards[0].peer_alias(ChannelRef::Scid(scid)), Some(alias));
    let update = latest(&net, 0);
    assert_eq!(update.short_channel_id, alias);
    assert!(update.dont_forward());
    let records = net.records[0].len();
    net.inputs[0].push(Input::message(net.ids[1], ready.clone().into()));
    net.step();
    assert_eq!(net.records[0].len(), records, "the same alias again is not recorded");
    net.cut(0, 1);
    let connected = Input::connected(net.ids[0], local_features());
    net.up.extend([(0, 1), (1, 0)]);
    net.inputs[1].push(connected);
    net.inputs[0].push(Input::connected(net.ids[1], local_features()));
    net.step();
    net.step();
    let sent = net.wires[&(0, 1)].iter().map(|bytes| Message::decode(bytes).expect("it decodes"));
    let sent: Vec<Message> = sent.filter(|message| matches!(message, Message::ChannelUpdate(_))).collect();
    assert_eq!(sent, [Message::from(update)]);
}

#[test]
fn a_peers_update_is_kept_if_it_is_newer_and_signed() {
    let mut net = announced();
    net.dropped = Some(Vec::new());
    let name = ChannelRef::Scid(net.channels[0].scid);
    let heard = |net: &Net| net.shards[0].peer_policy(name).expect("kept");
    let first = heard(&net);
    let mut update = latest(&net, 1);
    let signed = |update: &mut ChannelUpdate| {
        let digest = sha256d::Hash::hash(&update.signed_bytes()).to_byte_array();
        update.signature = sign(&digest, &NodeSeed::new([2; 32]).node_secret());
        Message::from(update.clone())
    };
    let give = |net: &mut Net, message: Message| {
        net.inputs[0].push(Input::message(net.ids[1], message));
        net.step();
    };
    // A day ahead is taken, more is not; nor one that is as old as the last.
    update.fee_base_msat = FeeBaseMsat(9);
    for timestamp in [first.timestamp, first.timestamp + 24 * 60 * 60 + 1] {
        update.timestamp = timestamp;
        let message = signed(&mut update);
        give(&mut net, message);
        assert_eq!(heard(&net), first);
    }
    update.timestamp = first.timestamp + 1;
    // However long its unknown fields are, what is kept is not longer.
    update.extension = vec![7; 60_000];
    let message = signed(&mut update);
    let records = net.records[0].len();
    give(&mut net, message.clone());
    assert_eq!((heard(&net).fee_base, heard(&net).timestamp), (Msat(9), first.timestamp + 1));
    let mut bytes = Vec::new();
    net.records[0][records..].iter().for_each(|record| record.encode(&mut bytes));
    assert!(bytes.len() < 100, "{} bytes", bytes.len());
    // It is gossip too, since others may see it.
    let passed_on = |event: &Event| matches!(event, Event::Gossip { message: on, .. } if **on == message);
    assert_eq!(net.count(0, passed_on), 1);
    assert_eq!(net.dropped, Some(Vec::new()));

    let Message::ChannelUpdate(mut forged) = message else { unreachable!("an update") };
    forged.timestamp += 1;
    give(&mut net, forged.into());
    assert_eq!(net.dropped, Some(vec![(0, net.ids[1])]));
    assert_eq!(heard(&net).timestamp, first.timestamp + 1);
}

fn description(alias: &str) -> NodeDescription {
    let address = NodeAddress::Ipv4 { address: Ipv4Addr::new(203, 0, 113, 1), port: 9735 };
    NodeDescription::new(alias, [1, 2, 3], &[address]).expect("allowed")
}

fn node_announcements(net: &Net, node: usize) -> Vec<NodeAnnouncement> {
    let all = gossip(net, node).into_iter().filter_map(|message| match message {
        Message::NodeAnnouncement(announcement) => Some(announcement),
        _ => None,
    });
    all.collect()
}

#[test]
fn a_node_is_announced_once_a_channel_is_and_again_when_its_description_changes() {
    let mut net = Net::line_with(2, |node, config| {
        config.description = (node == 0).then(|| description("first"));
    });
    net.now.unix_ms = 1_700_000_000_000;
    net.wait(61_000);
    assert!(gossip(&net, 0).is_empty());
    deepen(&mut net);
    let own = gossip(&net, 0);
    let kinds: Vec<&str> = own.iter().map(Message::name).collect();
    assert_eq!(kinds, ["channel_announcement", "channel_update", "node_announcement"]);
    assert!(node_announcements(&net, 1).is_empty(), "a node without a description is not announced");
    let first = node_announcements(&net, 0).remove(0);
    let digest = sha256d::Hash::hash(&Message::from(first.clone()).encode()[66..]).to_byte_array();
    let key = PublicKey::from_slice(&net.ids[0].0).expect("a point");
    assert!(verify(&digest, &first.signature, &key));
    assert_eq!((&first.alias[..6], first.rgb_color, first.node_id), (&b"first\0"[..], [1, 2, 3], net.ids[0]));
    assert_eq!(first.features, local_features());

    net.command(0, Command::DescribeNode(description("first")));
    assert_eq!(node_announcements(&net, 0).len(), 1);
    net.command(0, Command::DescribeNode(description("second")));
    let second = node_announcements(&net, 0).remove(1);
    assert_eq!(&second.alias[..7], b"second\0");
    assert!(second.timestamp > first.timestamp);

    // A restart with the clock set back.
    net.now.unix_ms -= DAY_MS;
    net.restart(0);
    assert_eq!(node_announcements(&net, 0).last(), Some(&second));
    net.command(0, Command::DescribeNode(description("third")));
    assert_eq!(node_announcements(&net, 0).pop().map(|third| third.timestamp), Some(second.timestamp + 1));
    // Refreshed like an update.
    let count = node_announcements(&net, 0).len();
    net.wait(12 * DAY_MS);
    assert_eq!(node_announcements(&net, 0).len(), count + 1);
    net.check_at_rest();
}

#[test]
fn the_first_shard_announces_the_node_for_the_channels_of_all() {
    let mut shard = Shard::new(NodeSeed::new([1; 32]), NodeConfig::new(ChainHash::REGTEST, vec![0; 22]));
    let now = Now { unix_ms: 1_000_000 };
    let describe = Input::Command(Command::DescribeNode(description("one")));
    assert_eq!(shard.turn([describe], now).events, []);
    let turn = shard.turn([Input::SiblingAnnounced], now);
    assert!(
        matches!(&turn.events[..], [Event::OwnGossip { message }] if message.name() == "node_announcement")
    );
    assert!(!turn.record.is_empty());
    let mut config = shard.config().clone();
    (config.shard, config.shards) = (1, 2);
    let mut second = Shard::new(NodeSeed::new([1; 32]), config);
    assert_eq!(second.turn([Input::SiblingAnnounced], now).events, []);
}

/// A start with many channels spreads their announcements over turns.
#[test]
fn a_start_announces_a_bounded_number_of_channels_in_a_turn() {
    let mut net = Net::unconnected(2, |_, _| {});
    net.connect(0, 1);
    for _ in 0..40 {
        net.open(0, 1, CAPACITY, Msat(CAPACITY.to_msat().0 / 2));
    }
    let confirmations: Vec<Confirmation> =
        (0..40).map(|channel| confirmation(&net, channel, net.channels[channel].scid, 6)).collect();
    net.mine(BlockHeight(DEEP.0 + 100), &confirmations);
    for _ in 0..4 {
        net.wait(1_000);
    }
    assert_eq!(updates(&net, 0).len(), 40);
    net.kill(0);
    net.events[0].clear();
    let mut turns = 0;
    while updates(&net, 0).len() < 40 {
        let turn = net.shards[0].turn([Input::Tick], net.now);
        let own = turn.events.iter().filter(|event| matches!(event, Event::OwnGossip { .. })).count();
        assert!((1..=2 * 16).contains(&own), "{own} announcements and updates in one turn");
        net.take_turn(0, turn);
        turns += 1;
    }
    assert_eq!(turns, 3);
}

/// Links break, nodes restart, blocks come late, policies change and clocks are set back; in the end the channel is
/// announced as it is, and no timestamp ever went back.
#[test]
fn whatever_happens_timestamps_rise_and_the_channel_is_announced() {
    for seed in 0..12 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut net = Net::line(2);
        net.now.unix_ms = 1_700_000_000_000;
        let mut heights = [START.0 + 1; 2];
        for _ in 0..60 {
            let node = rng.random_range(0..2);
            match rng.random_range(0..8) {
                0 if net.up.is_empty() => net.connect(0, 1),
                0 => net.cut(0, 1),
                1 => net.restart(node),
                2 | 3 => {
                    heights[node] = (heights[node] + 1).min(DEEP.0 + 20);
                    mine_for(&mut net, node, BlockHeight(heights[node]));
                    net.pump();
                }
                4 => {
                    let fee_base = Msat(rng.random_range(0..3));
                    let channel_id = net.channels[0].channel_id;
                    let policy = ForwardingPolicy { fee_base, ..ForwardingPolicy::default() };
                    net.command(node, Command::SetPolicy { channel_id, policy });
                }
                5 => net.wait(rng.random_range(0..DAY_MS)),
                6 => net.now.unix_ms -= rng.random_range(0..DAY_MS / 2),
                _ => {
                    net.step();
                }
            }
        }
        net.wait(2 * DAY_MS);
        (0..2).for_each(|node| mine_for(&mut net, node, BlockHeight(DEEP.0 + 21)));
        if !net.up.is_empty() {
            net.cut(0, 1);
        }
        net.connect(0, 1);
        net.wait(61_000);
        for node in 0..2 {
            let all = updates(&net, node);
            let rises =
                |one: &ChannelUpdate, other: &ChannelUpdate| one.timestamp < other.timestamp || one == other;
            assert!(all.is_sorted_by(rises), "seed {seed}, node {node}: {all:?}");
            let last = all.last().expect("announced");
            assert!(!last.dont_forward() && !last.is_disabled());
            assert_eq!(last, &latest(&net, node));
            let name = ChannelRef::Scid(net.channels[0].scid);
            let heard = net.shards[1 - node].peer_policy(name).expect("sent");
            assert_eq!((heard.timestamp, heard.fee_base), (last.timestamp, last.fee_base_msat.msat()));
            let (_, policy) = net.shards[node].policy(name).expect("known");
            assert_eq!(policy.fee_base, last.fee_base_msat.msat());
        }
        net.check_at_rest();
    }
}

/// Gives a node a block above the first channel's funding.
fn mine_for(net: &mut Net, node: usize, height: BlockHeight) {
    let scid = net.channels[0].scid;
    let confirmations = vec![confirmation(net, 0, scid, height.0 + 1 - scid.block())];
    net.inputs[node].push(Input::Block { height, confirmations });
}

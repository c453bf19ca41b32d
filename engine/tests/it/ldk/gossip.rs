//! Announcing with LDK at the other end: LDK's graph takes our announcements, and our gossip store takes LDK's.

use bitcoin::Network;
use fulmen_graph::ChannelGraph;
use fulmen_graph::gossip::{FundingCheck, Gossip, GossipConfig, GossipTime, IncomingGossip, Source};
use fulmen_proto::commitment::ChannelType;
use fulmen_proto::forward::{ChannelRef, Command, Event, ForwardingPolicy, NodeDescription};
use fulmen_secp::Verifier;
use fulmen_wire::message::{ChannelUpdate, Message};
use fulmen_wire::units::{BlockHeight, ChainHash, Scid};
use lightning::ln::msgs;
use lightning::routing::gossip::{NetworkGraph, NodeId as LdkNodeId};

use super::fulmen::{FulmenNode, POLICY, node_id};
use super::net::{Member, START_SECONDS};
use super::node::{LdkNode, Log, read};
use super::{HEIGHT, Line, Opener};

/// Our node's own gossip, in order.
fn ours(node: &FulmenNode) -> Vec<Message> {
    let own = node.events.iter().filter_map(|event| match event {
        Event::OwnGossip { message } => Some((**message).clone()),
        _ => None,
    });
    own.collect()
}

/// An empty graph of LDK's.
fn ldk_graph() -> NetworkGraph<&'static Log> {
    NetworkGraph::new(Network::Regtest, &Log(9))
}

/// Has LDK check and take a message.
fn give_ldk(graph: &NetworkGraph<&'static Log>, message: &[u8]) {
    let (number, body) = message.split_at(2);
    let taken = match u16::from_be_bytes([number[0], number[1]]) {
        256 => graph.update_channel_from_announcement_no_lookup(&read::<msgs::ChannelAnnouncement>(body)),
        257 => graph.update_node_from_announcement(&read::<msgs::NodeAnnouncement>(body)),
        258 => graph.update_channel(&read::<msgs::ChannelUpdate>(body)),
        other => panic!("{other} is no gossip"),
    };
    taken.unwrap_or_else(|error| panic!("LDK refuses {}: {error:?}", hex::encode(message)));
}

/// Checks that LDK's graph has the channel with both policies, and returns ours as LDK understands it.
fn check_ldk(line: &Line, end: &LdkNode, graph: &NetworkGraph<&'static Log>) -> (u32, u32, u16, u64, bool) {
    let scid = line.b.scid_with(end.id());
    let graph = graph.read_only();
    let channel = graph.channel(scid.0).expect("LDK's graph has the channel");
    let us = LdkNodeId::from_pubkey(&line.b.id());
    assert!(channel.one_to_two.is_some() && channel.two_to_one.is_some(), "{channel:?}");
    let update = if channel.node_one == us { &channel.one_to_two } else { &channel.two_to_one };
    let update = update.as_ref().expect("just checked");
    let fees = update.fees;
    (
        fees.base_msat,
        fees.proportional_millionths,
        update.cltv_expiry_delta,
        update.htlc_maximum_msat,
        update.enabled,
    )
}

/// Checks that both sides take the announcement of each channel with both policies.
fn check_announced(line: &Line) {
    let our_gossip: Vec<Vec<u8>> = ours(&line.b).iter().map(Message::encode).collect();
    let mut store = store();
    let mut from_us: Vec<&[u8]> = our_gossip.iter().map(Vec::as_slice).collect();
    from_us.retain(|message| message[1] != 1);
    for end in [&line.a, &line.c] {
        let scid = line.b.scid_with(end.id());
        let of_channel = |message: &Vec<u8>| match Message::decode(message) {
            Ok(Message::ChannelAnnouncement(announcement)) => announcement.short_channel_id == scid,
            Ok(Message::ChannelUpdate(update)) => update.short_channel_id == scid,
            other => panic!("{other:?}"),
        };
        let announcements = |all: &[Vec<u8>]| -> Vec<Vec<u8>> {
            let all = all.iter().filter(|message| message[..2] == [1, 0] && of_channel(message));
            all.cloned().collect()
        };
        assert_eq!(announcements(&end.gossip).len(), 1, "LDK announces the channel");
        assert_eq!(announcements(&end.gossip), announcements(&our_gossip), "the same bytes on both sides");

        let graph = ldk_graph();
        our_gossip.iter().filter(|message| message[1] != 1 && of_channel(message)).for_each(|message| {
            give_ldk(&graph, message);
        });
        let updates = end.gossip.iter().filter(|message| message[1] == 2 && of_channel(message));
        updates.for_each(|message| give_ldk(&graph, message));
        let nodes = our_gossip.iter().filter(|message| message[1] == 1);
        nodes.for_each(|message| give_ldk(&graph, message));
        let expected = (1_000, 500, 40, POLICY.htlc_maximum.0, true);
        assert_eq!(check_ldk(line, end, &graph), expected);
        let info = graph.read_only();
        let node = info.node(&LdkNodeId::from_pubkey(&line.b.id())).expect("known by its channels");
        let alias = node.announcement_info.as_ref().map(|info| info.alias().to_string());
        assert_eq!(alias.as_deref(), Some("middle"));

        let forwarding = end.channel().counterparty.forwarding_info.expect("LDK has our update");
        assert_eq!((forwarding.fee_base_msat, forwarding.fee_proportional_millionths), (1_000, 500));

        let peer = Source::Peer(node_id(end.id()));
        let theirs: Vec<IncomingGossip<'_>> =
            end.gossip.iter().map(|message| IncomingGossip { from: peer, message }).collect();
        let own = from_us.iter().map(|message| IncomingGossip { from: Source::Own, message });
        let all: Vec<IncomingGossip<'_>> = own.chain(theirs).collect();
        let outcome = store.ingest(&all, now());
        let refused = outcome.refused.iter().filter(|refused| {
            !matches!(
                refused.why,
                fulmen_graph::gossip::Refusal::Known | fulmen_graph::gossip::Refusal::NotNewer { .. }
            )
        });
        assert_eq!(refused.count(), 0, "{:?}", outcome.refused);
        let info = store.channel(scid).expect("our store has the channel");
        assert!(info.timestamps.iter().all(Option::is_some), "{info:?}");
    }
    assert_eq!((store.channel_count(), store.node_count()), (2, 3));
}

fn store() -> Gossip<Vec<u8>> {
    let mut config = GossipConfig::new(ChainHash::REGTEST);
    config.funding_check = FundingCheck::Off;
    let mut graph = ChannelGraph::new();
    let apply = |change| graph.apply(&change).expect("an opened store's changes fit an empty graph");
    Gossip::open(config, Verifier::new(), Vec::new(), apply).expect("an empty log")
}

fn now() -> GossipTime {
    GossipTime { unix_seconds: u64::from(*START_SECONDS), tip: Some(BlockHeight(HEIGHT + 100)) }
}

fn described(announce: bool) -> FulmenNode {
    FulmenNode::with(ChannelType::Anchors, move |config| {
        config.channel.announce_channel = announce;
        config.description = NodeDescription::new("middle", [1, 2, 3], &[]).ok();
    })
}

#[test]
fn ldk_takes_our_announcements_and_we_take_its() {
    for opener in [Opener::Ldk, Opener::Fulmen] {
        let mut line = Line::begin(opener, described(true), ChannelType::Anchors);
        line.mine();
        line.check_usable(ChannelType::Anchors);
        check_announced(&line);

        // A new policy is a new update, which LDK takes in its graph and for its channel.
        let (a, scid) = (line.a.id(), line.b.scid_with(line.a.id()));
        let policy = ForwardingPolicy { fee_proportional_millionths: 777, ..POLICY };
        let channel_id = line.b.channel_id_with(a);
        line.b.node.command(Command::SetPolicy { channel_id, policy });
        line.settle();
        let update = line.b.node.shard().channel_update(ChannelRef::Scid(scid)).expect("made").clone();
        let last =
            ours(&line.b).into_iter().rev().find(|message| matches!(message, Message::ChannelUpdate(_)));
        assert_eq!(last, Some(Message::from(update)));
        let graph = ldk_graph();
        for message in ours(&line.b).iter().map(Message::encode).chain(line.a.gossip.iter().cloned()) {
            let is_about = |update: &ChannelUpdate| update.short_channel_id == scid;
            let wanted = match Message::decode(&message) {
                Ok(Message::ChannelAnnouncement(all)) => {
                    all.short_channel_id == scid && graph.read_only().channel(scid.0).is_none()
                }
                Ok(Message::ChannelUpdate(update)) => is_about(&update),
                _ => false,
            };
            if wanted {
                give_ldk(&graph, &message);
            }
        }
        assert_eq!(check_ldk(&line, &line.a, &graph).1, 777);
        let forwarding = line.a.channel().counterparty.forwarding_info.expect("LDK has our update");
        assert_eq!(forwarding.fee_proportional_millionths, 777);
    }
}

/// The link is down while the funding becomes deep enough: both sides send their half with the next connection.
#[test]
fn signatures_are_exchanged_with_the_next_connection() {
    for opener in [Opener::Ldk, Opener::Fulmen] {
        let mut line = Line::begin(opener, described(true), ChannelType::Anchors);
        line.net.mine(&mut [&mut line.a, &mut line.b, &mut line.c], 3);
        assert_eq!(ours(&line.b), []);
        for (x, y) in [(0, 1), (1, 2)] {
            line.net.disconnect(&mut [&mut line.a, &mut line.b, &mut line.c], x, y);
        }
        line.net.mine_empty(&mut [&mut line.a, &mut line.b, &mut line.c], 5);
        assert_eq!(ours(&line.b), []);
        for (x, y) in [(0, 1), (1, 2)] {
            line.net.connect(&mut [&mut line.a, &mut line.b, &mut line.c], x, y);
        }
        line.settle();
        check_announced(&line);
    }
}

/// LDK knows a private channel by its alias, and takes our update under that name.
#[test]
fn ldk_takes_our_update_for_a_private_channel() {
    let mut line = Line::begin(Opener::Fulmen, described(false), ChannelType::Anchors);
    line.mine();
    line.check_usable(ChannelType::Anchors);
    assert_eq!((ours(&line.b), line.a.gossip.len()), (Vec::new(), 0));
    for end in [&line.a, &line.c] {
        let channel = end.channel();
        let name = ChannelRef::Scid(line.b.scid_with(end.id()));
        let alias = line.b.node.shard().peer_alias(name).expect("LDK gives one");
        assert_eq!(channel.outbound_scid_alias.map(Scid), Some(alias), "{channel:?}");
        let update = line.b.node.shard().channel_update(name).expect("made");
        assert_eq!((update.short_channel_id, update.dont_forward()), (alias, true));
        let forwarding = channel.counterparty.forwarding_info.expect("LDK has our update");
        assert_eq!(forwarding.cltv_expiry_delta, 40);
        let heard = line.b.node.shard().peer_policy(name).expect("LDK sends its update");
        assert_eq!(heard.cltv_expiry_delta.0, channel.config.expect("set").cltv_expiry_delta);
    }
}

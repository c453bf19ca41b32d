//! The exchange of `announcement_signatures` and the announcement that comes of it (BOLT 7), between two shards.

use bitcoin::hashes::sha256d;
use fulmen_wire::message::{AnnouncementSignatures, ChannelAnnouncement, ChannelUpdate};
use fulmen_wire::units::Signature;
use secp256k1::PublicKey;

use super::*;
use crate::channel::State;
use crate::commitment::funding_output_script;
use crate::keys::verify;

/// The height at which the funding of a line's first channel has six confirmations.
pub(super) const DEEP: BlockHeight = BlockHeight(START.0 + 5);

/// A funding output in the chain, at this place and depth.
pub(super) fn confirmation(net: &Net, channel: usize, scid: Scid, depth: u32) -> Confirmation {
    let NetChannel { ends, channel_id, .. } = net.channels[channel];
    let channel = net.shards[ends.0].channel(ChannelRef::Id(channel_id)).expect("the channel lives");
    let outpoint = channel.funding_outpoint().expect("funded");
    let (one, two) = channel.funding_pubkeys().expect("funded");
    let value = Amount::from_sat(channel.capacity().expect("funded").0);
    let output = TxOut { value, script_pubkey: funding_output_script(&one, &two) };
    Confirmation { txid: Txid(outpoint.txid.to_byte_array()), scid, depth, output }
}

/// Gives one node a block with a channel's funding at this place.
fn mine_at(net: &mut Net, node: usize, height: BlockHeight, scid: Scid) {
    let depth = height.0 + 1 - scid.block();
    let confirmations = vec![confirmation(net, 0, scid, depth)];
    net.inputs[node].push(Input::Block { height, confirmations });
}

/// Takes the first channel's funding six blocks deep, for both ends.
pub(super) fn deepen(net: &mut Net) {
    let scid = net.channels[0].scid;
    let confirmation = confirmation(net, 0, scid, 6);
    net.mine(DEEP, &[confirmation]);
}

/// This node's own gossip, in order.
pub(super) fn gossip(net: &Net, node: usize) -> Vec<Message> {
    let own = net.events[node].iter().filter_map(|event| match event {
        Event::OwnGossip { message } => Some((**message).clone()),
        _ => None,
    });
    own.collect()
}

fn announcements(net: &Net, node: usize) -> Vec<ChannelAnnouncement> {
    let all = gossip(net, node).into_iter();
    let announcements = all.filter_map(|message| match message {
        Message::ChannelAnnouncement(announcement) => Some(announcement),
        _ => None,
    });
    announcements.collect()
}

pub(super) fn updates(net: &Net, node: usize) -> Vec<ChannelUpdate> {
    let updates = gossip(net, node).into_iter().filter_map(|message| match message {
        Message::ChannelUpdate(update) => Some(update),
        _ => None,
    });
    updates.collect()
}

fn key(bytes: &[u8; 33]) -> PublicKey {
    PublicKey::from_slice(bytes).expect("a point")
}

/// Checks the four signatures as BOLT 7 has a receiver check them.
fn check_announcement(announcement: &ChannelAnnouncement) {
    let bytes = Message::from(announcement.clone()).encode();
    // Type and four signatures: 2 + 256 bytes.
    let digest = sha256d::Hash::hash(&bytes[258..]).to_byte_array();
    let signed = |signature: &Signature, by: &[u8; 33]| verify(&digest, signature, &key(by));
    assert!(signed(&announcement.node_signature_1, &announcement.node_id_1.0));
    assert!(signed(&announcement.node_signature_2, &announcement.node_id_2.0));
    assert!(signed(&announcement.bitcoin_signature_1, &announcement.bitcoin_key_1.0));
    assert!(signed(&announcement.bitcoin_signature_2, &announcement.bitcoin_key_2.0));
    assert!(announcement.node_id_1 < announcement.node_id_2);
}

/// Checks that both ends reported the channel at this place, each with its own update.
fn check_announced(net: &Net, scid: Scid, times: usize) {
    for node in 0..2 {
        let all = announcements(net, node);
        assert_eq!(all.len(), times, "node {node}");
        let announcement = all.last().expect("announced");
        check_announcement(announcement);
        assert_eq!(announcement.short_channel_id, scid);
        assert_eq!(announcements(net, 1 - node).last(), Some(announcement));
        let update = updates(net, node).pop().expect("updated");
        assert_eq!(update.short_channel_id, scid);
        assert!(!update.dont_forward() && !update.is_disabled());
        let origin = [announcement.node_id_1, announcement.node_id_2][update.direction().origin()];
        assert_eq!(origin, net.ids[node]);
        let bytes = Message::from(update.clone()).encode();
        let digest = sha256d::Hash::hash(&bytes[66..]).to_byte_array();
        assert!(verify(&digest, &update.signature, &key(&net.ids[node].0)));
        let peer = net.shards[1 - node].peer_policy(ChannelRef::Scid(scid)).expect("sent to the peer");
        assert_eq!(peer.timestamp, update.timestamp);
    }
}

/// The messages under way from one node to another.
fn under_way(net: &Net, from: usize, to: usize) -> Vec<Message> {
    let bytes = net.wires.get(&(from, to)).into_iter().flatten();
    bytes.map(|bytes| Message::decode(bytes).expect("it decodes")).collect()
}

fn signatures_under_way(net: &Net, from: usize, to: usize) -> Vec<AnnouncementSignatures> {
    let all = under_way(net, from, to).into_iter();
    let signatures = all.filter_map(|message| match message {
        Message::AnnouncementSignatures(signatures) => Some(signatures),
        _ => None,
    });
    signatures.collect()
}

#[test]
fn a_public_channel_is_announced_once_six_blocks_deep() {
    let mut net = Net::line(2);
    let scid = net.channels[0].scid;
    let five = confirmation(&net, 0, scid, 5);
    net.mine(BlockHeight(DEEP.0 - 1), &[five]);
    assert!(gossip(&net, 0).is_empty() && gossip(&net, 1).is_empty());
    deepen(&mut net);
    check_announced(&net, scid, 1);
    net.check_at_rest();
    // Nothing is announced twice.
    let (before, later) = (gossip(&net, 0).len(), confirmation(&net, 0, scid, 7));
    net.mine(BlockHeight(DEEP.0 + 1), &[later]);
    net.cut(0, 1);
    net.connect(0, 1);
    assert_eq!(gossip(&net, 0).len(), before);
}

#[test]
fn a_private_channel_is_never_announced() {
    let mut net = Net::line_with(2, |_, config| config.channel.announce_channel = false);
    deepen(&mut net);
    net.wait(61_000);
    assert!(gossip(&net, 0).is_empty() && gossip(&net, 1).is_empty());
    let scid = ChannelRef::Scid(net.channels[0].scid);
    for shard in &net.shards {
        let update = shard.channel_update(scid).expect("the peer is told our terms");
        assert!(update.dont_forward());
        assert_eq!(shard.peer_policy(scid).map(|policy| policy.disabled), Some(false));
    }
    net.check_at_rest();
}

/// The link breaks after any message of the exchange, or a node restarts.
#[test]
fn signatures_are_exchanged_whatever_interrupts() {
    for restarts in [None, Some(0), Some(1)] {
        for steps in 0.. {
            let mut net = Net::line(2);
            let scid = net.channels[0].scid;
            for node in 0..2 {
                mine_at(&mut net, node, DEEP, scid);
            }
            let busy = (0..steps).all(|_| net.step());
            match restarts {
                Some(node) => net.restart(node),
                None => {
                    net.cut(0, 1);
                    net.connect(0, 1);
                }
            }
            net.pump();
            for node in 0..2 {
                // A restarted node reports its announcement once more.
                let all = announcements(&net, node);
                let most = if restarts == Some(node) { 2 } else { 1 };
                assert!((1..=most).contains(&all.len()), "{restarts:?} {steps} {all:?}");
                assert!(all.iter().all(|announcement| *announcement == all[0]));
                check_announcement(&all[0]);
            }
            net.check_at_rest();
            if !busy {
                break;
            }
        }
    }
}

#[test]
fn a_peer_that_sends_its_signatures_again_is_answered_once_a_connection() {
    let mut net = Net::line(2);
    deepen(&mut net);
    let (scid, channel_id) = (net.channels[0].scid, net.channels[0].channel_id);
    // As if node 1 had lost what it was sent.
    let entry = net.shards[1].state.channels.get_mut(&channel_id).expect("lives");
    let (signatures, update) =
        (entry.announcements.peer_signatures.take(), entry.announcements.update.take());
    assert!(signatures.is_some() && update.is_some());
    net.cut(0, 1);
    net.connect(0, 1);
    net.pump();
    let again = net.shards[1].state.channels[&channel_id].announcements.peer_signatures;
    assert_eq!(again.map(|signatures| signatures.short_channel_id), Some(scid));
    let nodes = |net: &Net| {
        let secret = net.seeds[1].node_secret();
        let nodes =
            crate::channel::AnnouncingNodes { secret: &secret, local: net.ids[1], remote: net.ids[0] };
        let channel = net.shards[1].channel(ChannelRef::Id(channel_id)).expect("lives");
        channel.announcement_signatures(nodes).expect("its place is known")
    };
    for _ in 0..3 {
        let message = nodes(&net).into();
        net.inputs[0].push(Input::message(net.ids[1], message));
        net.step();
        assert!(signatures_under_way(&net, 0, 1).is_empty());
    }
}

#[test]
fn wrong_signatures_are_refused_and_right_ones_taken_on_the_next_connection() {
    for (damaged, field) in [(0, "node_signature"), (1, "bitcoin_signature")] {
        let mut net = Net::line(2);
        net.dropped = Some(Vec::new());
        let scid = net.channels[0].scid;
        mine_at(&mut net, 1, DEEP, scid);
        net.step();
        let mut signatures = signatures_under_way(&net, 1, 0).pop().expect("the peer sends its half");
        let wrong = [&mut signatures.node_signature, &mut signatures.bitcoin_signature];
        wrong.into_iter().nth(damaged).expect("one of two").0[40] ^= 1;
        net.wires.clear();
        net.inputs[0].push(Input::message(net.ids[1], signatures.into()));
        net.step();
        let warning = under_way(&net, 0, 1).into_iter().find_map(|message| match message {
            Message::Warning(warning) => Some(warning.text()),
            _ => None,
        });
        assert!(warning.is_some_and(|text| text.contains(field)));
        assert_eq!(net.dropped, Some(vec![(0, net.ids[1])]));
        mine_at(&mut net, 0, DEEP, scid);
        net.cut(0, 1);
        net.connect(0, 1);
        check_announced(&net, scid, 1);
    }
}

/// The peer has seen a block that we have not.
#[test]
fn early_signatures_wait_until_the_chain_is_as_far_here() {
    let mut net = Net::line(2);
    let scid = net.channels[0].scid;
    mine_at(&mut net, 1, DEEP, scid);
    net.pump();
    assert!(gossip(&net, 0).is_empty() && gossip(&net, 1).is_empty());
    mine_at(&mut net, 0, DEEP, scid);
    net.pump();
    check_announced(&net, scid, 1);

    // A reorganisation moves the funding, and the peer hears of it first.
    let mut net = Net::line(2);
    let moved = Scid::new(START.0 + 2, 7, 0).expect("in range");
    let height = BlockHeight(START.0 + 7);
    mine_at(&mut net, 1, height, moved);
    net.step();
    assert_eq!(signatures_under_way(&net, 1, 0).pop().map(|message| message.short_channel_id), Some(moved));
    net.pump();
    let warned = net.events[1].iter().any(|event| {
        matches!(event, Event::PeerWarning { text, .. } if text.contains("announcement_signatures are for"))
    });
    assert!(warned && gossip(&net, 0).is_empty(), "nothing is signed for a place we do not know");
    mine_at(&mut net, 0, height, moved);
    net.pump();
    check_announced(&net, moved, 1);
    net.check_at_rest();
}

#[test]
fn a_funding_that_moves_is_announced_again() {
    let mut net = Net::line(2);
    deepen(&mut net);
    let (scid, moved) = (net.channels[0].scid, Scid::new(START.0 + 1, 3, 0).expect("in range"));
    check_announced(&net, scid, 1);
    let gone = confirmation(&net, 0, scid, 0);
    net.mine(BlockHeight(START.0 - 1), &[gone]);
    let back = confirmation(&net, 0, moved, 5);
    net.mine(DEEP, &[back]);
    assert_eq!(announcements(&net, 0).len(), 1, "five confirmations are too few");
    let deep = confirmation(&net, 0, moved, 6);
    net.mine(BlockHeight(DEEP.0 + 1), &[deep]);
    check_announced(&net, moved, 2);
    let timestamps: Vec<u32> = updates(&net, 0).iter().map(|update| update.timestamp).collect();
    assert!(timestamps.is_sorted_by(|one, other| one < other), "{timestamps:?}");
    net.check_at_rest();
}

#[test]
fn nothing_is_signed_before_the_chain_is_in_step() {
    let mut net = Net::line_with(2, |node, config| config.awaits_chain = node == 0);
    deepen(&mut net);
    net.wait(61_000);
    let scid = net.channels[0].scid;
    assert_eq!(net.shards[0].channel_update(ChannelRef::Scid(scid)), None);
    assert!(gossip(&net, 0).is_empty() && gossip(&net, 1).is_empty());
    net.inputs[0].push(Input::ChainInStep);
    net.pump();
    check_announced(&net, scid, 1);
}

#[test]
fn a_channel_that_shuts_down_is_announced_as_disabled_and_signs_nothing() {
    let mut net = Net::line(2);
    deepen(&mut net);
    let channel_id = net.channels[0].channel_id;
    net.command(0, Command::CloseChannel { channel_id, script: None });
    for node in 0..2 {
        let updates = updates(&net, node);
        let disabled: Vec<bool> = updates.iter().map(ChannelUpdate::is_disabled).collect();
        assert_eq!(disabled, [false, true], "node {node}");
        assert!(updates[0].timestamp < updates[1].timestamp);
    }

    // Nor does one that fails stay open in the graph.
    let mut net = Net::line(2);
    deepen(&mut net);
    let channel_id = net.channels[0].channel_id;
    net.command(0, Command::FailChannel { channel_id, reason: "test".to_owned() });
    for node in 0..2 {
        let disabled: Vec<bool> = updates(&net, node).iter().map(ChannelUpdate::is_disabled).collect();
        assert_eq!(disabled, [false, true], "node {node}");
    }

    let mut net = Net::line(2);
    let (channel_id, scid) = (net.channels[0].channel_id, net.channels[0].scid);
    net.command(0, Command::CloseChannel { channel_id, script: None });
    deepen(&mut net);
    assert!(gossip(&net, 0).is_empty() && gossip(&net, 1).is_empty());
    let state = net.shards[0].channel(ChannelRef::Scid(scid)).map(|channel| channel.state());
    assert_eq!(state, Some(State::Closed));
}

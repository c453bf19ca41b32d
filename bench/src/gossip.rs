//! Signed gossip of an invented network (BOLT 7), as it comes over the wire.
//!
//! Owns: which nodes have channels, and the signatures. A hundredth of the nodes has about a third of all channel
//! ends; on the main network it was 0.37 of them in February 2026. The same numbers and seed give the same gossip.

use std::thread;

use fulmen_graph::gossip::StoreWriter;
use fulmen_graph::{ChannelGraph, Direction};
use fulmen_wire::features::Features;
use fulmen_wire::message::{ChannelAnnouncement, ChannelUpdate, Message};
use fulmen_wire::units::{
    ChainHash, CltvDelta, FeeBaseMsat, FeeProportionalMillionths, Msat, NodeId, Point, Scid, Signature,
};
use secp256k1::{Secp256k1, SecretKey, SignOnly};
use sha2::{Digest, Sha256};

/// The size of a network and the time of its messages.
#[derive(Clone, Debug)]
pub struct Gossip {
    /// One `channel_announcement` per channel.
    pub announcements: Vec<Vec<u8>>,
    /// Two `channel_update`s per channel, in the order of the announcements.
    pub updates: Vec<Vec<u8>>,
}

/// How the network is.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many channels it has.
    pub channels: usize,
    /// How many nodes, at most.
    pub nodes: usize,
    /// Which network of this kind.
    pub seed: u64,
    /// When its updates were made, in seconds since 1970.
    pub timestamp: u32,
}

/// A node's keys.
#[derive(Clone, Copy)]
struct Node {
    secret: SecretKey,
    id: NodeId,
}

impl Gossip {
    /// Makes and signs the gossip, on all processors.
    #[must_use]
    pub fn new(shape: Shape) -> Gossip {
        let secp = Secp256k1::signing_only();
        let nodes: Vec<Node> = (0..shape.nodes).map(|number| node(&secp, shape.seed, number)).collect();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = shape.channels.div_ceil(threads).max(1);
        let channels: Vec<usize> = (0..shape.channels).collect();
        let (secp, nodes) = (&secp, &nodes);
        let parts = thread::scope(|scope| {
            let workers: Vec<_> = channels
                .chunks(share)
                .map(|channels| {
                    scope.spawn(|| {
                        channels.iter().map(|channel| sign(secp, nodes, shape, *channel)).collect::<Vec<_>>()
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("signing does not fail")).collect()
        });
        let parts: Vec<(Vec<u8>, [Vec<u8>; 2])> = parts;
        let (announcements, updates): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Gossip { announcements, updates: updates.into_iter().flatten().collect() }
    }
}

/// A gossip store with a graph's channels and policies, all signatures and funding keys empty: as large as a real
/// one, and opened as one.
#[must_use]
pub fn unsigned_store(graph: &ChannelGraph) -> Vec<u8> {
    let mut store = StoreWriter::new(ChainHash::BITCOIN);
    let unsigned = Signature([0; 64]);
    for channel in graph.channels() {
        let [node_id_1, node_id_2] = channel.nodes();
        store.message(&Message::from(ChannelAnnouncement {
            node_signature_1: unsigned,
            node_signature_2: unsigned,
            bitcoin_signature_1: unsigned,
            bitcoin_signature_2: unsigned,
            features: Features::default(),
            chain_hash: ChainHash::BITCOIN,
            short_channel_id: channel.scid(),
            node_id_1,
            node_id_2,
            bitcoin_key_1: Point([2; 33]),
            bitcoin_key_2: Point([2; 33]),
            extension: Vec::new(),
        }));
        store.funded(channel.scid(), channel.capacity());
    }
    let directions =
        graph.channels().flat_map(|channel| Direction::BOTH.map(|direction| (channel, direction)));
    for (channel, direction) in directions {
        let Some(policy) = channel.policy(direction) else { continue };
        store.message(&Message::from(ChannelUpdate {
            signature: unsigned,
            chain_hash: ChainHash::BITCOIN,
            short_channel_id: channel.scid(),
            timestamp: 1,
            message_flags: ChannelUpdate::MUST_BE_ONE,
            channel_flags: direction.origin() as u8 | u8::from(policy.disabled) << 1,
            cltv_expiry_delta: policy.cltv_expiry_delta,
            htlc_minimum_msat: policy.htlc_minimum,
            fee_base_msat: FeeBaseMsat(u32::try_from(policy.fee_base.0).unwrap_or(u32::MAX)),
            fee_proportional_millionths: FeeProportionalMillionths(policy.fee_proportional_millionths),
            htlc_maximum_msat: policy.htlc_maximum,
            extension: Vec::new(),
        }));
    }
    store.into_bytes()
}

/// A number that depends on all of these and looks like any other.
fn draw(seed: u64, topic: u8, number: usize) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(seed.to_be_bytes());
    hash.update([topic]);
    hash.update((number as u64).to_be_bytes());
    hash.finalize().into()
}

fn node(secp: &Secp256k1<SignOnly>, seed: u64, number: usize) -> Node {
    keys(secp, draw(seed, 0, number))
}

fn keys(secp: &Secp256k1<SignOnly>, drawn: [u8; 32]) -> Node {
    let secret = SecretKey::from_slice(&drawn).expect("below the order, but for one in 2^128");
    Node { secret, id: NodeId(secret.public_key(secp).serialize()) }
}

/// The announcement of a channel and its two updates.
fn sign(secp: &Secp256k1<SignOnly>, nodes: &[Node], shape: Shape, channel: usize) -> (Vec<u8>, [Vec<u8>; 2]) {
    let ends = ends(nodes, shape.seed, channel);
    let funding = [1, 2].map(|topic| keys(secp, draw(shape.seed, topic, channel)));
    let (block, transaction) = (500_000 + channel / 1_000, channel % 1_000);
    let short_channel_id = Scid::new(block as u32, transaction as u32, 0).expect("small enough");
    let unsigned = Signature([0; 64]);
    let mut announcement = ChannelAnnouncement {
        node_signature_1: unsigned,
        node_signature_2: unsigned,
        bitcoin_signature_1: unsigned,
        bitcoin_signature_2: unsigned,
        features: Features::default(),
        chain_hash: ChainHash::BITCOIN,
        short_channel_id,
        node_id_1: ends[0].id,
        node_id_2: ends[1].id,
        bitcoin_key_1: Point(funding[0].id.0),
        bitcoin_key_2: Point(funding[1].id.0),
        extension: Vec::new(),
    };
    let signed = announcement.signed_bytes();
    announcement.node_signature_1 = signature(secp, &signed, &ends[0]);
    announcement.node_signature_2 = signature(secp, &signed, &ends[1]);
    announcement.bitcoin_signature_1 = signature(secp, &signed, &funding[0]);
    announcement.bitcoin_signature_2 = signature(secp, &signed, &funding[1]);
    let updates = [0, 1].map(|direction| {
        let mut update = ChannelUpdate {
            signature: unsigned,
            chain_hash: ChainHash::BITCOIN,
            short_channel_id,
            timestamp: shape.timestamp,
            message_flags: ChannelUpdate::MUST_BE_ONE,
            channel_flags: direction as u8,
            cltv_expiry_delta: CltvDelta(80),
            htlc_minimum_msat: Msat(1_000),
            fee_base_msat: FeeBaseMsat(1_000),
            fee_proportional_millionths: FeeProportionalMillionths(channel as u32 % 1_000),
            htlc_maximum_msat: Msat(990_000_000),
            extension: Vec::new(),
        };
        update.signature = signature(secp, &update.signed_bytes(), &ends[direction]);
        Message::from(update).encode()
    });
    (Message::from(announcement).encode(), updates)
}

/// Two nodes of a channel, in the order of their ids.
fn ends(nodes: &[Node], seed: u64, channel: usize) -> [Node; 2] {
    let drawn = draw(seed, 3, channel);
    let place = |bytes: &[u8]| {
        let uniform = bytes.iter().take(6).fold(0.0, |sum, byte| (sum + f64::from(*byte)) / 256.0);
        // A share f of the nodes gets f^(1/4) of the ends.
        (uniform.powi(4) * nodes.len() as f64) as usize
    };
    let (one, two) = (place(&drawn[..16]), place(&drawn[16..]));
    let two = if one == two { (two + 1) % nodes.len() } else { two };
    let mut ends = [nodes[one], nodes[two]];
    ends.sort_by_key(|node| node.id);
    ends
}

fn signature(secp: &Secp256k1<SignOnly>, signed: &[u8], by: &Node) -> Signature {
    let digest = Sha256::digest(Sha256::digest(signed)).into();
    let message = secp256k1::Message::from_digest(digest);
    Signature(secp.sign_ecdsa(&message, &by.secret).serialize_compact())
}

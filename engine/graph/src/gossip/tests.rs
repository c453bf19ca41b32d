//! Tests of the gossip store as a whole: a small universe of keys and messages, a model of the accepted ones, and
//! recordings.

mod limits;
mod model;
mod recorded;
mod rules;
mod serving;
mod stores;

use fulmen_secp::Verifier;
use fulmen_wire::features::Features;
use fulmen_wire::message::{ChannelAnnouncement, ChannelUpdate, Message, NodeAnnouncement};
use fulmen_wire::units::{
    BlockHeight, ChainHash, CltvDelta, FeeBaseMsat, FeeProportionalMillionths, Msat, NodeId, Point, Scid,
    Signature,
};
use secp256k1::{All, Secp256k1, SecretKey};
use sha2::{Digest, Sha256};

use super::{
    FundingCheck, Gossip, GossipConfig, GossipOutcome, GossipTime, GraphChange, IncomingGossip, Refusal,
    Source,
};
use crate::{ChannelGraph, Direction};

/// The time in most tests.
const NOW: GossipTime = GossipTime { unix_seconds: 1_700_000_000, tip: Some(BlockHeight(900_000)) };
/// The same as a timestamp.
const TIMESTAMP: u32 = 1_700_000_000;

/// A gossip store, with the graph that its changes have made.
struct Keeper {
    gossip: Gossip<Vec<u8>>,
    graph: ChannelGraph,
    changes: Vec<GraphChange>,
}

impl Keeper {
    fn new(config: GossipConfig) -> Keeper {
        Keeper::open(config, Vec::new())
    }

    /// Without lookups.
    fn plain() -> Keeper {
        Keeper::new(plain_config())
    }

    fn open(config: GossipConfig, log: Vec<u8>) -> Keeper {
        let (mut graph, mut changes) = (ChannelGraph::new(), Vec::new());
        let gossip = Gossip::open(config, Verifier::new(), log, |change| {
            graph.apply(&change).unwrap();
            changes.push(change);
        });
        Keeper { gossip: gossip.unwrap(), graph, changes }
    }

    /// Closes the store and opens it again.
    fn reopened(mut self) -> Keeper {
        self.gossip.flush().unwrap();
        let config = self.gossip.config.clone();
        Keeper::open(config, self.gossip.into_log())
    }

    fn apply(&mut self, outcome: GossipOutcome) -> GossipOutcome {
        outcome.changes.iter().for_each(|change| self.graph.apply(change).unwrap());
        self.changes.extend(outcome.changes.iter().cloned());
        outcome
    }

    fn ingest(&mut self, messages: &[Vec<u8>]) -> GossipOutcome {
        self.ingest_from(peer(1), messages, NOW)
    }

    fn ingest_from(&mut self, from: Source, messages: &[Vec<u8>], now: GossipTime) -> GossipOutcome {
        let incoming: Vec<IncomingGossip<'_>> =
            messages.iter().map(|message| IncomingGossip { from, message }).collect();
        self.ingest_all(&incoming, now)
    }

    fn ingest_all(&mut self, incoming: &[IncomingGossip<'_>], now: GossipTime) -> GossipOutcome {
        let outcome = self.gossip.ingest(incoming, now);
        self.apply(outcome)
    }

    /// Takes in one message that must be refused.
    fn refusal(&mut self, message: &[u8]) -> Refusal {
        let mut outcome = self.ingest(&[message.to_vec()]);
        assert_eq!((outcome.refused.len(), outcome.accepted, outcome.held), (1, 0, 0));
        outcome.refused.remove(0).why
    }
}

fn plain_config() -> GossipConfig {
    GossipConfig { funding_check: FundingCheck::Off, ..GossipConfig::new(ChainHash::BITCOIN) }
}

fn peer(tag: u8) -> Source {
    Source::Peer(NodeId([tag; 33]))
}

thread_local! {
    static SECP: Secp256k1<All> = Secp256k1::new();
}

fn secret(number: u16) -> SecretKey {
    let mut bytes = [9; 32];
    bytes[30..].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_slice(&bytes).unwrap()
}

fn key(number: u16) -> [u8; 33] {
    SECP.with(|secp| secret(number).public_key(secp).serialize())
}

fn node_id(number: u16) -> NodeId {
    NodeId(key(number))
}

fn sign(signed: &[u8], number: u16) -> Signature {
    let digest: [u8; 32] = Sha256::digest(Sha256::digest(signed)).into();
    let message = secp256k1::Message::from_digest(digest);
    Signature(SECP.with(|secp| secp.sign_ecdsa(&message, &secret(number)).serialize_compact()))
}

/// The keys of a channel's announcement: two nodes and two funding keys, by number.
#[derive(Clone, Copy, Debug)]
struct Ends {
    nodes: [u16; 2],
    funding: [u16; 2],
}

/// Nodes in ascending order of their ids.
fn ends(one: u16, two: u16) -> Ends {
    let nodes = if node_id(one) < node_id(two) { [one, two] } else { [two, one] };
    Ends { nodes, funding: [1_000 + one, 1_000 + two] }
}

fn scid(number: u32) -> Scid {
    Scid::new(800_000 + number, 1, 0).unwrap()
}

fn unsigned_announcement(scid: Scid, ends: Ends) -> ChannelAnnouncement {
    let unsigned = Signature([0; 64]);
    ChannelAnnouncement {
        node_signature_1: unsigned,
        node_signature_2: unsigned,
        bitcoin_signature_1: unsigned,
        bitcoin_signature_2: unsigned,
        features: Features::default(),
        chain_hash: ChainHash::BITCOIN,
        short_channel_id: scid,
        node_id_1: node_id(ends.nodes[0]),
        node_id_2: node_id(ends.nodes[1]),
        bitcoin_key_1: Point(key(ends.funding[0])),
        bitcoin_key_2: Point(key(ends.funding[1])),
        extension: Vec::new(),
    }
}

fn signed_announcement(mut message: ChannelAnnouncement, ends: Ends) -> Vec<u8> {
    let signed = message.signed_bytes();
    message.node_signature_1 = sign(&signed, ends.nodes[0]);
    message.node_signature_2 = sign(&signed, ends.nodes[1]);
    message.bitcoin_signature_1 = sign(&signed, ends.funding[0]);
    message.bitcoin_signature_2 = sign(&signed, ends.funding[1]);
    Message::from(message).encode()
}

fn announcement(scid: Scid, ends: Ends) -> Vec<u8> {
    signed_announcement(unsigned_announcement(scid, ends), ends)
}

fn unsigned_update(scid: Scid, direction: Direction, timestamp: u32) -> ChannelUpdate {
    ChannelUpdate {
        signature: Signature([0; 64]),
        chain_hash: ChainHash::BITCOIN,
        short_channel_id: scid,
        timestamp,
        message_flags: 1,
        channel_flags: direction.origin() as u8,
        cltv_expiry_delta: CltvDelta(40),
        htlc_minimum_msat: Msat(1_000),
        fee_base_msat: FeeBaseMsat(timestamp & 0xffff),
        fee_proportional_millionths: FeeProportionalMillionths(100),
        htlc_maximum_msat: Msat(900_000_500),
        extension: Vec::new(),
    }
}

fn signed_update(mut message: ChannelUpdate, signer: u16) -> Vec<u8> {
    message.signature = sign(&message.signed_bytes(), signer);
    Message::from(message).encode()
}

fn update(scid: Scid, ends: Ends, direction: Direction, timestamp: u32) -> Vec<u8> {
    signed_update(unsigned_update(scid, direction, timestamp), ends.nodes[direction.origin()])
}

fn unsigned_node(number: u16, timestamp: u32) -> NodeAnnouncement {
    NodeAnnouncement {
        signature: Signature([0; 64]),
        features: Features::default(),
        timestamp,
        node_id: node_id(number),
        rgb_color: [1, 2, 3],
        alias: [b'a'; 32],
        addresses: Default::default(),
        extension: Vec::new(),
    }
}

fn signed_node(mut message: NodeAnnouncement, number: u16) -> Vec<u8> {
    message.signature = sign(&message.signed_bytes(), number);
    Message::from(message).encode()
}

fn node_announcement(number: u16, timestamp: u32) -> Vec<u8> {
    signed_node(unsigned_node(number, timestamp), number)
}

/// Everything that two graphs show.
fn assert_same_graph(left: &ChannelGraph, right: &ChannelGraph) {
    assert_eq!(described(left), described(right));
}

fn described(graph: &ChannelGraph) -> Vec<String> {
    graph
        .channels()
        .map(|channel| {
            let policies = Direction::BOTH.map(|direction| channel.policy(direction));
            format!("{} {:?} {} {policies:?}", channel.scid(), channel.nodes(), channel.capacity())
        })
        .collect()
}

//! Two services exchange gossip without threads: one accepts the messages of the other, and a forger is disconnected.

use std::sync::Mutex;

use bitcoin::hashes::{Hash, sha256d};
use fulmen_graph::ChannelGraph;
use fulmen_graph::gossip::{FundingCheck, GossipConfig, Rate};
use fulmen_secp::Verifier;
use fulmen_wire::features::Features;
use fulmen_wire::message::{ChannelAnnouncement, ChannelUpdate, QueryShortChannelIds};
use fulmen_wire::units::{CltvDelta, FeeBaseMsat, FeeProportionalMillionths, Msat, Point, Sat, Signature};
use secp256k1::{Secp256k1, SecretKey};

use super::*;
use crate::runtime::SystemClock;

const NOW_MS: u64 = 1_700_000_000_000;
const SCID: Scid = Scid(800_000 << 40);
const ALICE: NodeId = NodeId([2; 33]);
const BOB: NodeId = NodeId([3; 33]);

/// Records the calls.
#[derive(Clone, Debug, Default)]
struct RecordingPeers(Arc<Mutex<Collected>>);

#[derive(Debug, Default)]
struct Collected {
    sent: Vec<Vec<u8>>,
    disconnected: Vec<NodeId>,
    lookups: Vec<FundingLookup>,
}

impl RecordingPeers {
    fn take(&self) -> Collected {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Peers for RecordingPeers {
    fn room(&self, _: NodeId) -> usize {
        100_000
    }

    fn send(&self, _: NodeId, message: Vec<u8>) {
        self.0.lock().unwrap().sent.push(message);
    }

    fn disconnect(&self, peer: NodeId) {
        self.0.lock().unwrap().disconnected.push(peer);
    }

    fn look_up(&self, lookup: FundingLookup) {
        self.0.lock().unwrap().lookups.push(lookup);
    }
}

fn config() -> GossipConfig {
    let mut config = GossipConfig::new(ChainHash::REGTEST);
    config.faults = Rate { burst: 0, per_hour: 0 };
    config
}

fn gossip(config: GossipConfig) -> Gossip<Vec<u8>> {
    Gossip::open(config, Verifier::new(), Vec::new(), |_| {}).unwrap()
}

fn state(
    funding_check: FundingCheck,
) -> (ServiceState<Vec<u8>, RecordingPeers>, RecordingPeers, Arc<LiveGraph>) {
    let (recorder, graph) = (RecordingPeers::default(), Arc::new(LiveGraph::new(ChannelGraph::new())));
    let mut config = config();
    config.funding_check = funding_check;
    (
        ServiceState::new(gossip(config), ChainHash::REGTEST, Arc::clone(&graph), recorder.clone()),
        recorder,
        graph,
    )
}

fn secret(number: u8) -> SecretKey {
    SecretKey::from_slice(&[number; 32]).unwrap()
}

fn sign(signed: &[u8], secret: &SecretKey) -> Signature {
    let digest = sha256d::Hash::hash(signed).to_byte_array();
    let message = secp256k1::Message::from_digest(digest);
    Signature(Secp256k1::new().sign_ecdsa(&message, secret).serialize_compact())
}

/// A channel's announcement and its two updates.
fn messages() -> Vec<Message> {
    let secp = Secp256k1::new();
    let mut nodes = [secret(1), secret(2)];
    nodes.sort_by_key(|secret| secret.public_key(&secp).serialize());
    let funding = [secret(3), secret(4)];
    let [one, two] = nodes.map(|secret| NodeId(secret.public_key(&secp).serialize()));
    let [funding_one, funding_two] = funding.map(|secret| Point(secret.public_key(&secp).serialize()));
    let unsigned = Signature([0; 64]);
    let mut announcement = ChannelAnnouncement {
        node_signature_1: unsigned,
        node_signature_2: unsigned,
        bitcoin_signature_1: unsigned,
        bitcoin_signature_2: unsigned,
        features: Features::default(),
        chain_hash: ChainHash::REGTEST,
        short_channel_id: SCID,
        node_id_1: one,
        node_id_2: two,
        bitcoin_key_1: funding_one,
        bitcoin_key_2: funding_two,
        extension: Vec::new(),
    };
    let signed = announcement.signed_bytes();
    announcement.node_signature_1 = sign(&signed, &nodes[0]);
    announcement.node_signature_2 = sign(&signed, &nodes[1]);
    announcement.bitcoin_signature_1 = sign(&signed, &funding[0]);
    announcement.bitcoin_signature_2 = sign(&signed, &funding[1]);
    let updates = [0, 1].map(|direction: u8| {
        let mut update = ChannelUpdate {
            signature: unsigned,
            chain_hash: ChainHash::REGTEST,
            short_channel_id: SCID,
            timestamp: 1_700_000_000,
            message_flags: 1,
            channel_flags: direction,
            cltv_expiry_delta: CltvDelta(40),
            htlc_minimum_msat: Msat(1),
            fee_base_msat: FeeBaseMsat(direction.into()),
            fee_proportional_millionths: FeeProportionalMillionths(1),
            htlc_maximum_msat: Msat(1_000_000),
            extension: Vec::new(),
        };
        update.signature = sign(&update.signed_bytes(), &nodes[usize::from(direction)]);
        Message::from(update)
    });
    let [first, second] = updates;
    vec![Message::from(announcement), first, second]
}

fn from(peer: NodeId, message: &[u8]) -> Queued {
    Queued::from(GossipInput::Message { peer, message: Box::new(Message::decode(message).unwrap()) })
}

fn control(input: GossipInput) -> Queued {
    Queued::from(input)
}

#[test]
fn what_one_believes_the_other_hears_and_believes() {
    let (mut alice, alice_peers, graph) = state(FundingCheck::Off);
    let (mut bob, bob_peers, theirs) = state(FundingCheck::First);
    alice.work(
        messages().into_iter().map(|message| control(GossipInput::Own(Box::new(message)))).collect(),
        NOW_MS,
    );
    assert_eq!(
        graph.snapshot().channel_count(),
        1,
        "what is new is shown at once when there was rest before"
    );
    alice.work(vec![control(GossipInput::Connected(BOB))], NOW_MS);
    bob.work(vec![control(GossipInput::Connected(ALICE))], NOW_MS);
    let greetings = bob_peers.take().sent;
    assert_eq!(greetings.len(), 1, "a filter");
    alice_peers.take();
    alice.work(greetings.iter().map(|message| from(BOB, message)).collect(), NOW_MS + RELAY_MS);
    let relayed = alice_peers.take().sent;
    assert_eq!(relayed.len(), 3);
    bob.work(relayed.iter().map(|message| from(ALICE, message)).collect(), NOW_MS + RELAY_MS);
    let [lookup] = bob_peers.take().lookups[..] else { panic!("one lookup") };
    assert_eq!(theirs.snapshot().channel_count(), 0);
    let answer = FundingAnswer::Unspent { value: Sat(5_000) };
    bob.work(vec![control(GossipInput::Funding(lookup, answer))], NOW_MS + RELAY_MS + REBUILD_MS);
    let snapshot = theirs.snapshot();
    assert_eq!((snapshot.channel_count(), snapshot.capacity(SCID)), (1, Some(Sat(5_000))));
    // A query by id is answered at once.
    let query = QueryShortChannelIds {
        chain_hash: ChainHash::REGTEST,
        short_channel_ids: vec![SCID],
        query_flags: None,
        unknown: UnknownTlvs::default(),
    };
    bob.work(vec![from(ALICE, &Message::from(query).encode())], NOW_MS + RELAY_MS + REBUILD_MS);
    assert_eq!(bob_peers.take().sent.len(), 4);
}

#[test]
fn a_forger_is_warned_and_disconnected() {
    let (mut alice, alice_peers, graph) = state(FundingCheck::Off);
    let mut forged = messages()[0].encode();
    forged[100] ^= 1;
    alice.work(vec![control(GossipInput::Connected(BOB)), from(BOB, &forged)], NOW_MS);
    let done = alice_peers.take();
    assert_eq!(done.disconnected, [BOB]);
    assert!(matches!(Message::decode(done.sent.last().unwrap()), Ok(Message::Warning(_))));
    assert_eq!(graph.snapshot().channel_count(), 0);
}

#[test]
fn the_service_keeps_what_it_believed_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gossip");
    let mut config = config();
    config.funding_check = FundingCheck::Off;
    config.stale_after_seconds = u32::MAX;
    let open =
        || Gossip::open(config.clone(), Verifier::new(), FileLog::open(&path).unwrap(), |_| {}).unwrap();
    let graph = Arc::new(LiveGraph::new(ChannelGraph::new()));
    let (recorder, clock) = (RecordingPeers::default(), SystemClock::default());
    let service =
        GossipService::start(open(), ChainHash::REGTEST, Arc::clone(&graph), recorder, clock).unwrap();
    for message in messages() {
        assert!(service.offer(GossipInput::Own(Box::new(message))));
    }
    drop(service);
    let again = open();
    assert_eq!((again.channel_count(), again.node_count()), (1, 2));
}

//! Opens a gossip store of a valid header and arbitrary bytes. The opened store, and a rewritten copy of it, open again
//! to the same graph.
#![no_main]

use fulmen_graph::ChannelGraph;
use fulmen_graph::gossip::{Gossip, GossipConfig, StoreWriter};
use fulmen_secp::Verifier;
use fulmen_wire::message::Message;
use fulmen_wire::units::ChainHash;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // As they are, and, cut at each zero length, as messages of sound records: else checksums would stop the fuzzer.
    let mut raw = StoreWriter::new(ChainHash::BITCOIN).into_bytes();
    raw.extend_from_slice(bytes);
    let mut records = StoreWriter::new(ChainHash::BITCOIN);
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (message, after) = after.split_at(length);
        if let Ok(message) = Message::decode(message) {
            records.message(&message);
        }
        rest = after;
    }
    for log in [raw, records.into_bytes()] {
        let (gossip, graph) = open(log);
        let (channels, nodes) = (gossip.channel_count(), gossip.node_count());
        let (again, same) = open(gossip.into_log());
        assert_eq!((again.channel_count(), again.node_count()), (channels, nodes));
        assert!(graph.channels().eq(same.channels()));
    }
});

fn open(log: Vec<u8>) -> (Gossip<Vec<u8>>, ChannelGraph) {
    let mut graph = ChannelGraph::new();
    let config = GossipConfig::new(ChainHash::BITCOIN);
    let gossip =
        Gossip::open(config, Verifier::new(), log, |change| graph.apply(&change).expect("a sound stream"));
    (gossip.expect("the header is ours"), graph)
}

//! Feeds arbitrary messages to `Gossip`, as gossip and as a peer's queries. Nothing panics, the answers to a query are
//! finite, and each decodes.
#![no_main]

use fulmen_graph::gossip::{FundingCheck, Gossip, GossipConfig, GossipTime, IncomingGossip, Source};
use fulmen_secp::Verifier;
use fulmen_wire::message::Message;
use fulmen_wire::units::{ChainHash, NodeId};
use libfuzzer_sys::fuzz_target;

const PEER: NodeId = NodeId([2; 33]);
const NOW: GossipTime = GossipTime { unix_seconds: 1_700_000_000, tip: None };

fuzz_target!(|bytes: &[u8]| {
    let mut config = GossipConfig::new(ChainHash::BITCOIN);
    config.funding_check = FundingCheck::Off;
    let mut gossip =
        Gossip::open(config, Verifier::new(), Vec::new(), |_| {}).expect("an empty log becomes a store");
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (message, after) = after.split_at(length);
        rest = after;
        let outcome = gossip.ingest(&[IncomingGossip { from: Source::Peer(PEER), message }], NOW);
        assert_eq!(outcome.accepted + outcome.held + outcome.refused.len(), 1);
        let Ok(message) = Message::decode(message) else { continue };
        if gossip.query(PEER, &message, NOW).is_err() {
            continue;
        }
        let mut answers = 0;
        loop {
            let drawn = gossip.answer(PEER, 1_000).expect("a log in memory");
            if drawn.is_empty() {
                break;
            }
            answers += drawn.len();
            assert!(answers < 100_000, "answers end");
            assert!(drawn.iter().all(|message| Message::decode(message).is_ok()));
        }
        while gossip.has_backlog(PEER) {
            drop(gossip.relay(PEER, 1_000).expect("a log in memory"));
        }
    }
    gossip.flush().expect("a log in memory");
});

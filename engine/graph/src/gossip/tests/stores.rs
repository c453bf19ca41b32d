//! Torn, damaged and foreign stores, and logs that fail.

use std::io;

use super::*;
use crate::gossip::{Log, OpenError};

fn filled() -> Keeper {
    let mut keeper = Keeper::plain();
    for number in 1..=3 {
        let (id, ends) = (scid(u32::from(number)), ends(number, number + 1));
        let updates = Direction::BOTH.map(|direction| update(id, ends, direction, TIMESTAMP));
        let _ = keeper.ingest(&[announcement(id, ends), updates[0].clone(), updates[1].clone()]);
    }
    keeper.gossip.flush().unwrap();
    keeper
}

#[test]
fn a_torn_store_opens_with_what_is_whole_and_goes_on() {
    let whole = filled();
    let graph = whole.graph.clone();
    let bytes = whole.gossip.into_log();
    let mut counts = std::collections::BTreeSet::new();
    for length in (0..bytes.len()).step_by(7).chain(bytes.len() - 3..=bytes.len()) {
        let mut keeper = Keeper::open(plain_config(), bytes[..length].to_vec());
        counts.insert(keeper.graph.channel_count());
        for number in 1..=3 {
            let (id, ends) = (scid(u32::from(number)), ends(number, number + 1));
            let updates = Direction::BOTH.map(|direction| update(id, ends, direction, TIMESTAMP));
            let _ = keeper.ingest(&[announcement(id, ends), updates[0].clone(), updates[1].clone()]);
        }
        assert_same_graph(&keeper.graph, &graph);
        assert_same_graph(&keeper.reopened().graph, &graph);
    }
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn a_flipped_bit_ends_the_store_there() {
    let bytes = filled().gossip.into_log();
    for at in (44..bytes.len()).step_by(5) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let keeper = Keeper::open(plain_config(), damaged);
        let log = keeper.gossip.into_log();
        assert!(log.len() <= at && bytes.starts_with(&log), "damage at {at} was believed");
    }
}

#[test]
fn what_is_no_store_of_ours_is_left_alone() {
    let bytes = filled().gossip.into_log();
    let open = |bytes: Vec<u8>, config: GossipConfig| {
        Gossip::open(config, Verifier::new(), bytes, |_| {}).err().unwrap()
    };
    let mut other = bytes.clone();
    other[0] ^= 1;
    assert!(matches!(open(other, plain_config()), OpenError::NotAStore(_)));
    let mut newer = bytes.clone();
    newer[7] += 1;
    assert!(matches!(open(newer, plain_config()), OpenError::Version { found: 2 }));
    let regtest = GossipConfig::new(ChainHash::REGTEST);
    assert!(matches!(open(bytes, regtest), OpenError::OtherChain { found: ChainHash::BITCOIN, .. }));
    assert!(matches!(open(b"hello, this is not a store".to_vec(), plain_config()), OpenError::NotAStore(_)));
}

/// The bytes of version 1, which must stay readable: the header, a ban and a removal.
#[test]
fn version_one_is_read_for_ever() {
    let mut keeper = Keeper::plain();
    keeper.gossip.flush().unwrap();
    let header = keeper.gossip.into_log();
    let hex: String = header.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected =
        concat!("46554c4d47535001", "6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000",);
    assert!(hex.starts_with(expected), "{hex}");
    assert_eq!(hex.len(), 88);
    let mut record = Vec::new();
    let removed = crate::gossip::store::Record {
        kind: crate::gossip::store::RecordKind::Removed,
        at: 0x0102_0304,
        payload: &[1, 2, 3, 4, 5, 6, 7, 8],
    };
    crate::gossip::store::write_record(&mut record, removed);
    assert_eq!(record[4..], [5, 0, 8, 0, 4, 3, 2, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
}

/// A log that fails on demand, after writing half.
#[derive(Debug, Default)]
struct Faulty {
    bytes: Vec<u8>,
    fails: bool,
}

impl Log for Faulty {
    fn len(&self) -> io::Result<u64> {
        Log::len(&self.bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.fails { Err(io::ErrorKind::Other.into()) } else { self.bytes.read_at(offset, buffer) }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.fails {
            self.bytes.write_at(offset, &bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.write_at(offset, bytes)
    }

    fn replace(&mut self, contents: &[u8]) -> io::Result<()> {
        if self.fails { Err(io::ErrorKind::StorageFull.into()) } else { self.bytes.replace(contents) }
    }
}

#[test]
fn a_failing_log_loses_nothing_but_the_write() {
    let (id, two) = (scid(1), ends(1, 2));
    let mut gossip = Gossip::open(plain_config(), Verifier::new(), Faulty::default(), |_| {}).unwrap();
    let ingest = |gossip: &mut Gossip<Faulty>, message: Vec<u8>| {
        gossip.ingest(&[IncomingGossip { from: peer(1), message: &message }], NOW).accepted
    };
    assert_eq!(ingest(&mut gossip, announcement(id, two)), 1);
    gossip.store.log_mut().fails = true;
    assert!(gossip.flush().is_err());
    assert_eq!(ingest(&mut gossip, update(id, two, Direction::OneToTwo, TIMESTAMP)), 1);
    assert_eq!(gossip.channel_announcement(id).unwrap().unwrap(), announcement(id, two), "from memory");
    assert!(gossip.rewrite().is_err());
    gossip.store.log_mut().fails = false;
    gossip.flush().unwrap();
    let keeper = Keeper::open(plain_config(), gossip.into_log().bytes);
    assert!(keeper.graph.channel(id).unwrap().policy(Direction::OneToTwo).is_some());
}

#[test]
fn a_store_that_is_mostly_dead_is_rewritten() {
    let (id, two) = (scid(1), ends(1, 2));
    let mut keeper = Keeper::plain();
    let _ = keeper.ingest(&[announcement(id, two)]);
    let mut long = unsigned_update(id, Direction::OneToTwo, TIMESTAMP);
    long.extension = vec![7; 60_000];
    for timestamp in 0..100 {
        assert!(!keeper.gossip.compact().unwrap() || timestamp > 70);
        long.timestamp = TIMESTAMP + timestamp;
        let _ = keeper.ingest(&[signed_update(long.clone(), two.nodes[0])]);
    }
    let before = keeper.graph.clone();
    assert!(keeper.gossip.store.end() < 5 << 20, "rewritten on the way");
    assert_same_graph(&keeper.reopened().graph, &before);
}

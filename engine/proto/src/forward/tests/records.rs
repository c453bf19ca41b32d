//! Records as bytes: every variant, damaged ones, and how many bytes a forward costs. That records of real runs survive
//! the way through bytes is checked by the harness, turn by turn and at every restart.

use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::channel::{ChannelError, Delta, Htlc, Side};
use crate::durable::sample::Sampler;
use crate::durable::{Durable, RecordError};
use crate::forward::{Change, Origin, OutgoingHtlc, RestoreError};

/// A record of any changes.
fn record(seed: u64, most: usize) -> Record {
    let mut sampler = Sampler::new(seed);
    let changes = (0..sampler.below(most + 1)).map(|_| Change::sample(&mut sampler)).collect();
    Record { changes }
}

pub(crate) fn bytes(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

/// The record after its way through bytes, which must change nothing but the form of errors.
pub(crate) fn through_bytes(record: &Record) -> Record {
    let written = bytes(record);
    let read = Record::decode(&written).expect("what was written can be read");
    let is_forward = |outgoing: OutgoingHtlc| {
        record.changes.iter().any(|change| {
            matches!(change, Change::Offered { outgoing: offered, origin: Origin::Forward(_) | Origin::Handoff(_) } if *offered == outgoing)
        })
    };
    let kept = |change: &Change| match change {
        Change::Channel { channel_id, delta: Delta::Added { by: Side::Local, htlc, over_dust_exposure } }
            if is_forward(OutgoingHtlc { channel_id: *channel_id, htlc_id: htlc.id }) =>
        {
            let htlc = Htlc { onion_routing_packet: None, ..htlc.clone() };
            let delta = Delta::Added { by: Side::Local, htlc, over_dust_exposure: *over_dust_exposure };
            Change::Channel { channel_id: *channel_id, delta }
        }
        Change::Channel { channel_id, delta: Delta::Failed { error } } => {
            let error = match error {
                ChannelError::PeerError(_) => error.clone(),
                error => ChannelError::Recorded {
                    text: error.to_string(),
                    broadcast_allowed: error.broadcast_allowed(),
                },
            };
            Change::Channel { channel_id: *channel_id, delta: Delta::Failed { error } }
        }
        change => change.clone(),
    };
    assert_eq!(read.changes, record.changes.iter().map(kept).collect::<Vec<_>>());
    assert_eq!(bytes(&read), written);
    read
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_record_survives_the_way_through_bytes(seed: u64) {
        through_bytes(&record(seed, 40));
    }

    #[test]
    fn a_cut_record_is_refused_or_ends_between_two_changes(seed: u64) {
        let whole = record(seed, 4);
        let bytes = bytes(&whole);
        for length in 0..bytes.len() {
            if let Ok(read) = Record::decode(&bytes[..length]) {
                prop_assert!(whole.changes.starts_with(&read.changes));
                prop_assert!(read.changes.len() < whole.changes.len());
            }
        }
    }

    #[test]
    fn flipped_bits_make_another_record_or_none(seed: u64, at in any::<proptest::sample::Index>(), bit in 0u8..8) {
        let mut damaged = bytes(&record(seed, 4));
        let at = at.index(damaged.len());
        damaged[at] ^= 1u8 << bit;
        if let Ok(read) = Record::decode(&damaged) {
            prop_assert_eq!(Record::decode(&bytes(&read)), Ok(read));
        }
    }

    #[test]
    fn bytes_of_nobody_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Record::decode(&bytes);
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        let _ = Record::decode(&bytes);
    }
}

#[test]
fn errors_say_what_and_where() {
    let known = 1;
    assert_eq!(Record::decode(&[9]), Err(RecordError::Version { what: "record", found: 9, known }));
    assert_eq!(
        Record::decode(&[1, 200]),
        Err(RecordError::UnknownTag { offset: 1, what: "change", tag: 200 })
    );
    let unheard = RecordError::UnknownReference { offset: 2, reference: 1, known: 0 };
    assert_eq!(Record::decode(&[1, 5, 1]), Err(unheard));
    let too_high = RecordError::OutOfRange { offset: 2, value: 1 << 32, max: u64::from(u32::MAX) };
    assert_eq!(Record::decode(&[1, 0, 0xff, 0, 0, 0, 1, 0, 0, 0, 0]), Err(too_high));
    assert!(matches!(Record::decode(&[]), Err(RecordError::Field(_))));
}

/// The bytes a node in the middle writes for each of `count` payments that pass through it together.
fn bytes_a_forward(count: usize) -> usize {
    let mut net = Net::line(3);
    let amount = Msat(30_000_000);
    net.records.iter_mut().for_each(Vec::clear);
    for _ in 0..count {
        let (hash, recipient) = net.invoice(2, net.attempts.len() as u8, amount);
        net.queue(0, hash, &net.route(&[0, 1, 2], amount, 18), &recipient);
    }
    net.pump();
    for attempt in 0..count as u64 {
        assert!(matches!(net.outcome(0, attempt), Some(Outcome::Settled(_))));
    }
    net.records[1].iter().map(|record| bytes(record).len()).sum::<usize>() / count
}

#[test]
fn bytes_of_a_forward() {
    let counts = [1, 10, 100].map(|count| (count, bytes_a_forward(count)));
    println!("in flight, bytes a forward: {counts:?}");
    assert!(counts[2].1 <= 2_000, "{counts:?}");
}

/// The chunks of a checkpoint, and the records after it.
#[derive(Clone)]
struct Stored {
    chunks: Vec<Vec<u8>>,
    records: Vec<Vec<u8>>,
}

/// The stored bytes of a node in the middle of payments, with a checkpoint after each of its records, and without any.
fn stored() -> (NodeSeed, NodeConfig, Vec<Stored>) {
    let mut net = Net::line(3);
    let amount = Msat(30_000_000);
    for _ in 0..3 {
        let (hash, recipient) = net.invoice(2, net.attempts.len() as u8, amount);
        net.queue(0, hash, &net.route(&[0, 1, 2], amount, 18), &recipient);
    }
    net.pump();
    let all: Vec<Vec<u8>> = net.records[1].iter().map(bytes).collect();
    let mut stored = vec![Stored { chunks: Vec::new(), records: all.clone() }];
    stored.extend(net.checkpoints[1].iter().map(|(count, chunks)| {
        let (chunks, records) = (chunks.clone(), all[*count..].to_vec());
        Stored { chunks, records }
    }));
    (net.seeds[1].clone(), net.shards[1].config().clone(), stored)
}

/// The shard that such bytes restore, if they do.
fn restore(seed: &NodeSeed, config: &NodeConfig, chunks: &[Vec<u8>], records: &[Vec<u8>]) -> Option<Shard> {
    let mut restoring = Restoring::new(seed.clone(), config.clone());
    chunks.iter().try_for_each(|chunk| restoring.chunk(chunk)).ok()?;
    for record in records {
        restoring.record(Record::decode(record).ok()?).ok()?;
    }
    restoring.finish().ok().map(|restored| restored.shard)
}

#[test]
fn damaged_checkpoints_and_records_make_a_shard_or_none() {
    let (seed, config, stored) = stored();
    let mut sampler = Sampler::new(7);
    let (mut whole, mut refused) = (0, 0);
    for _ in 0..2_000 {
        let Stored { mut chunks, mut records } = stored[sampler.below(stored.len())].clone();
        assert!(chunks.iter().all(|chunk| chunk.len() <= 700));
        if let [some @ .., _] = chunks.as_slice()
            && !some.is_empty()
        {
            assert!(restore(&seed, &config, some, &records).is_none(), "a checkpoint without its end");
        }
        let damaged = match sampler.below(chunks.len() + records.len()) {
            chunk if chunk < chunks.len() => &mut chunks[chunk],
            record => &mut records[record - chunks.len()],
        };
        let at = sampler.below(damaged.len());
        match sampler.below(4) {
            0 => damaged.truncate(at),
            1 => damaged[at] = sampler.below(256) as u8,
            _ => damaged[at] ^= 1u8 << sampler.below(8),
        }
        match restore(&seed, &config, &chunks, &records) {
            Some(shard) => {
                whole += 1;
                // Whatever it has become, it can be stored again.
                let chunks: Vec<Vec<u8>> = shard.checkpoint().collect();
                assert!(restore(&seed, &config, &chunks, &[]).is_some());
            }
            None => refused += 1,
        }
    }
    println!("{whole} shards, {refused} refusals");
    assert!(whole > 0 && refused > 0);
}

#[test]
fn a_checkpoint_of_another_shard_is_refused() {
    let (seed, config, stored) = stored();
    let chunks = &stored[1].chunks;
    let refused = |seed: &NodeSeed, config: &NodeConfig, chunks: &[Vec<u8>]| {
        let mut restoring = Restoring::new(seed.clone(), config.clone());
        let chunks = chunks.iter().try_for_each(|chunk| restoring.chunk(chunk));
        chunks.and_then(|()| restoring.finish().map(|_| ())).unwrap_err()
    };
    let other = NodeSeed::new([0x77; 32]);
    assert!(matches!(refused(&other, &config, chunks), RestoreError::OtherShard { .. }));
    let sibling = NodeConfig { shard: 9, ..config.clone() };
    assert!(matches!(refused(&seed, &sibling, chunks), RestoreError::OtherShard { found_shard: 0, .. }));
    let twice = [chunks.clone(), chunks.clone()].concat();
    assert_eq!(refused(&seed, &config, &twice), RestoreError::NotWhole);
    let mut restoring = Restoring::new(seed, config);
    restoring.record(Record::default()).expect("nothing to fold");
    assert_eq!(restoring.chunk(&chunks[0]), Err(RestoreError::NotWhole));
}

#[test]
fn items_longer_than_a_chunk_are_split_over_several() {
    let mut net = Net::line(3);
    for number in 1..=20 {
        // Half of each payment is missing, so that it is held by its receiver.
        let (hash, recipient) = net.invoice(2, number, Msat(2_000_000));
        net.send(0, hash, &net.route(&[0, 1, 2], Msat(1_000_000), 18), &recipient);
    }
    let shard = &net.shards[1];
    let whole: Vec<usize> =
        shard.chunks(ChunkSize { aim: 100, max: usize::MAX }).map(|chunk| chunk.len()).collect();
    let longest = whole.into_iter().max().expect("there are items");
    let size = ChunkSize { aim: 100, max: longest / 5 };
    let chunks: Vec<Vec<u8>> = shard.chunks(size).collect();
    assert!(longest > 2_000 && chunks.iter().all(|chunk| chunk.len() <= size.max));
    let restored = restore(&net.seeds[1], shard.config(), &chunks, &[]).expect("its own checkpoint");
    assert!(restored.chunks(size).eq(chunks), "the same bytes again");
}

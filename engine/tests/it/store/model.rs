//! A store driven beside a model of its required content.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use fulmen::store::{Disk, Entry, LogOptions, LogStore, Replayed, Store, StoreError};
use fulmen::wire::units::NodeId;

pub(crate) const NODE: NodeId = NodeId([2; 33]);

/// Small enough that a short script fills segments and asks for checkpoints.
pub(crate) const OPTIONS: LogOptions =
    LogOptions { segment_bytes: 600, log_bytes_max: 1_500, frame_bytes_max: 16 << 20, salt: 0x5A17 };

/// Frames so small that most batches take several, and a good part of the records too.
pub(crate) const SMALL_FRAMES: LogOptions = LogOptions { frame_bytes_max: 100, ..OPTIONS };

/// Each shard's records, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model(pub(crate) BTreeMap<u16, Vec<Vec<u8>>>);

impl Model {
    pub(crate) fn append(&mut self, shard: u16, record: &[u8]) {
        self.0.entry(shard).or_default().push(record.to_vec());
    }

    /// The shard's snapshot, in chunks of a few records.
    fn snapshot(&self, shard: u16) -> Vec<Vec<u8>> {
        let records = self.0.get(&shard).map_or(&[][..], Vec::as_slice);
        let prefixed = |record: &Vec<u8>| length_prefixed(record);
        records.chunks(3).map(|few| few.iter().flat_map(prefixed).collect()).collect()
    }

    /// The result of a replay.
    pub(crate) fn replay(store: &mut dyn Store) -> Result<Model, StoreError> {
        let mut model = Model::default();
        store.replay(&mut |replayed| {
            match replayed {
                Replayed::Record { shard, record } => model.append(shard, record),
                Replayed::Chunk { shard, chunk: mut rest } => {
                    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
                        let (record, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
                        model.append(shard, record);
                        rest = tail;
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(model)
    }
}

/// A script's progress: records that are durable for certain, and those that may be.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) durable: Model,
    /// The batch under way when the store failed.
    pub(crate) in_flight: Vec<(u16, Vec<u8>)>,
}

impl Progress {
    /// Whether a replay may give this: all that is durable, and a prefix of the batch that was under way.
    pub(crate) fn allows(&self, found: &Model) -> bool {
        let mut expected = self.durable.clone();
        let rest = self.in_flight.iter().any(|(shard, record)| {
            let same = expected == *found;
            expected.append(*shard, record);
            same
        });
        rest || expected == *found
    }
}

pub(crate) fn open(disk: impl Disk + 'static) -> Result<LogStore, StoreError> {
    open_with(disk, OPTIONS)
}

pub(crate) fn open_with(disk: impl Disk + 'static, options: LogOptions) -> Result<LogStore, StoreError> {
    LogStore::open_on(Arc::new(disk), NODE, options)
}

/// Appends batches of three shards from a step on, and makes checkpoints when they are due: some at once, some while
/// batches go on, some given up. `progress` follows.
pub(crate) fn script(
    store: &mut dyn Store,
    steps: std::ops::Range<u32>,
    progress: &mut Progress,
) -> Result<(), StoreError> {
    let mut pending = None;
    for step in steps {
        let batch = batch(step);
        let entries: Vec<Entry<'_>> =
            batch.iter().map(|(shard, record)| Entry { shard: *shard, record }).collect();
        progress.in_flight.clone_from(&batch);
        store.append(&entries)?;
        for (shard, record) in std::mem::take(&mut progress.in_flight) {
            progress.durable.append(shard, &record);
        }
        if step.is_multiple_of(3)
            && let Some(writer) = pending.take()
        {
            finish(store, writer, step)?;
        }
        if pending.is_none()
            && let Some(shard) = store.checkpoint_due()
        {
            let mut writer = store.begin_checkpoint(shard)?;
            for chunk in progress.durable.snapshot(shard) {
                writer.chunk(&chunk)?;
            }
            pending = Some(writer);
        }
    }
    Ok(())
}

fn finish(
    store: &mut dyn Store,
    writer: Box<dyn fulmen::store::CheckpointWriter>,
    step: u32,
) -> Result<(), StoreError> {
    if step.is_multiple_of(15) {
        return Ok(()); // Given up: dropped.
    }
    store.finish_checkpoint(writer.finish()?)
}

/// The records of one step: from one to five, of one or several shards, from empty to a few hundred bytes.
fn batch(step: u32) -> Vec<(u16, Vec<u8>)> {
    let records = 1 + step % 5;
    (0..records)
        .map(|index| {
            let mixed = step.wrapping_mul(2_654_435_761).wrapping_add(index * 97);
            let length = if step.is_multiple_of(11) { 0 } else { mixed % 130 } as usize;
            let mut record = vec![mixed as u8; length];
            record.extend(step.to_be_bytes());
            (((step + index * (step % 2)) % 3) as u16, record)
        })
        .collect()
}

/// A record as the model's chunks hold it.
pub(crate) fn length_prefixed(record: &[u8]) -> Vec<u8> {
    [&(record.len() as u32).to_be_bytes()[..], record].concat()
}

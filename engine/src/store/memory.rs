//! A store in memory, lost with its process: for tests, and to measure the cost of the disk.
//!
//! Owns the same promises as the log on disk, crashes aside: order, and the records that a checkpoint supersedes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{CheckpointWriter, Entry, Replayed, Store, StoreError, StoreStats, WrittenCheckpoint};

/// How many bytes of records may wait for a checkpoint.
const DEFAULT_RECORD_BYTES_MAX: u64 = 64 << 20;

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    records: Vec<Kept>,
    checkpoints: BTreeMap<u16, Vec<Vec<u8>>>,
    /// The checkpoint of each shard that is being written: which attempt, and how many records it stands for.
    begun: BTreeMap<u16, (u64, u64)>,
    /// How many records of each shard were appended.
    appended: BTreeMap<u16, u64>,
    /// The bytes of each shard's records that no checkpoint stands for.
    waiting_bytes: BTreeMap<u16, u64>,
    attempts: u64,
    record_bytes_max: u64,
    stats: StoreStats,
}

/// A record with its number among its shard's.
#[derive(Debug)]
struct Kept {
    shard: u16,
    number: u64,
    record: Vec<u8>,
}

/// A checkpoint being written.
#[derive(Debug)]
struct Writer {
    shard: u16,
    attempt: u64,
    chunks: Vec<Vec<u8>>,
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore {
            records: Vec::new(),
            checkpoints: BTreeMap::new(),
            begun: BTreeMap::new(),
            appended: BTreeMap::new(),
            waiting_bytes: BTreeMap::new(),
            attempts: 0,
            record_bytes_max: DEFAULT_RECORD_BYTES_MAX,
            stats: StoreStats::default(),
        }
    }
}

impl MemoryStore {
    /// An empty store that asks for checkpoints once it holds this much.
    #[must_use]
    pub fn with_record_bytes_max(record_bytes_max: u64) -> MemoryStore {
        MemoryStore { record_bytes_max, ..MemoryStore::default() }
    }
}

impl Store for MemoryStore {
    fn append(&mut self, batch: &[Entry<'_>]) -> Result<(), StoreError> {
        for Entry { shard, record } in batch {
            let number = self.appended.entry(*shard).or_default();
            *number += 1;
            self.records.push(Kept { shard: *shard, number: *number, record: record.to_vec() });
            self.stats.records += 1;
            self.stats.record_bytes += record.len() as u64;
            self.stats.file_bytes += record.len() as u64;
            *self.waiting_bytes.entry(*shard).or_default() += record.len() as u64;
        }
        self.stats.batches += u64::from(!batch.is_empty());
        Ok(())
    }

    fn replay(&mut self, visit: &mut dyn FnMut(Replayed<'_>) -> ControlFlow<()>) -> Result<(), StoreError> {
        let chunks = self.checkpoints.iter().flat_map(|(shard, chunks)| {
            chunks.iter().map(|chunk| Replayed::Chunk { shard: *shard, chunk: chunk.as_slice() })
        });
        let records =
            self.records.iter().map(|kept| Replayed::Record { shard: kept.shard, record: &kept.record });
        // Whoever breaks knows why.
        let _ = chunks.chain(records).try_for_each(visit);
        Ok(())
    }

    fn begin_checkpoint(&mut self, shard: u16) -> Result<Box<dyn CheckpointWriter>, StoreError> {
        self.attempts += 1;
        let covers = self.appended.get(&shard).copied().unwrap_or_default();
        self.begun.insert(shard, (self.attempts, covers));
        Ok(Box::new(Writer { shard, attempt: self.attempts, chunks: Vec::new() }))
    }

    fn finish_checkpoint(&mut self, written: WrittenCheckpoint) -> Result<(), StoreError> {
        let shard = written.shard();
        let Writer { attempt, chunks, .. } = written.into_payload()?;
        let Some(&(begun, covers)) = self.begun.get(&shard) else { return Ok(()) };
        if begun != attempt {
            return Ok(());
        }
        self.begun.remove(&shard);
        self.stats.checkpoint_bytes += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        self.checkpoints.insert(shard, chunks);
        self.records.retain(|kept| kept.shard != shard || kept.number > covers);
        self.stats.checkpoints += 1;
        let left = self.records.iter().filter(|kept| kept.shard == shard);
        self.waiting_bytes.insert(shard, left.map(|kept| kept.record.len() as u64).sum());
        let chunks = self.checkpoints.values().flatten().map(|chunk| chunk.len() as u64);
        self.stats.file_bytes = self.waiting_bytes.values().sum::<u64>() + chunks.sum::<u64>();
        Ok(())
    }

    fn checkpoint_due(&self) -> Option<u16> {
        if self.waiting_bytes.values().sum::<u64>() <= self.record_bytes_max {
            return None;
        }
        let idle = self.waiting_bytes.iter().filter(|(shard, _)| !self.begun.contains_key(shard));
        idle.max_by_key(|(_, bytes)| **bytes).map(|(shard, _)| *shard)
    }

    fn stats(&self) -> StoreStats {
        self.stats
    }
}

impl CheckpointWriter for Writer {
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.chunks.push(chunk.to_vec());
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<WrittenCheckpoint, StoreError> {
        Ok(WrittenCheckpoint::new(self.shard, *self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(store: &mut MemoryStore) -> Vec<(u16, &'static str, Vec<u8>)> {
        let mut seen = Vec::new();
        let all = store.replay(&mut |replayed| {
            seen.push(match replayed {
                Replayed::Chunk { shard, chunk } => (shard, "chunk", chunk.to_vec()),
                Replayed::Record { shard, record } => (shard, "record", record.to_vec()),
            });
            ControlFlow::Continue(())
        });
        all.expect("memory does not fail");
        seen
    }

    #[test]
    fn a_checkpoint_stands_for_what_was_appended_before_it_began() -> Result<(), StoreError> {
        let mut store = MemoryStore::default();
        store.append(&[Entry { shard: 1, record: b"a" }, Entry { shard: 2, record: b"b" }])?;
        let given_up = store.begin_checkpoint(1)?;
        let mut writer = store.begin_checkpoint(1)?;
        store.append(&[Entry { shard: 1, record: b"c" }])?;
        writer.chunk(b"A")?;
        store.finish_checkpoint(given_up.finish()?)?;
        assert_eq!(replay(&mut store).len(), 3, "a checkpoint that was given up has no effect");
        store.finish_checkpoint(writer.finish()?)?;
        let left = [(1, "chunk", b"A".to_vec()), (2, "record", b"b".to_vec()), (1, "record", b"c".to_vec())];
        assert_eq!(replay(&mut store), left);
        Ok(())
    }

    #[test]
    fn the_fullest_shard_is_due_once() -> Result<(), StoreError> {
        let mut store = MemoryStore::with_record_bytes_max(10);
        store.append(&[Entry { shard: 1, record: &[0; 4] }, Entry { shard: 2, record: &[0; 6] }])?;
        assert_eq!(store.checkpoint_due(), None);
        store.append(&[Entry { shard: 1, record: &[0; 1] }])?;
        assert_eq!(store.checkpoint_due(), Some(2));
        let writer = store.begin_checkpoint(2)?;
        assert_eq!(store.checkpoint_due(), Some(1));
        store.finish_checkpoint(writer.finish()?)?;
        assert_eq!(store.checkpoint_due(), None);
        Ok(())
    }
}

//! The records of a run's nodes, from which a restart is possible at any time.
//!
//! Owns a store that never fails; `disk` has one that does. Nothing of a turn leaves its node before
//! [`MemoryStore::persist`] returned. Records and checkpoints are kept as bytes, so that every restart reads them.

use fulmen_proto::forward::{NodeConfig, Record, Restored, Restoring, Shard};
use fulmen_proto::keys::NodeSeed;

use crate::violation::{Violation, ensure};

/// The records and the latest checkpoint of one node.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    records: Vec<Vec<u8>>,
    /// The latest checkpoint.
    chunks: Vec<Vec<u8>>,
    /// The number of records it includes.
    covered: usize,
}

impl MemoryStore {
    /// Makes a record durable.
    pub(crate) fn persist(&mut self, record: &Record) {
        if !record.is_empty() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            self.records.push(bytes);
        }
    }

    /// Takes a checkpoint.
    pub(crate) fn checkpoint(&mut self, shard: &Shard) {
        self.chunks = shard.checkpoint().collect();
        self.covered = self.records.len();
    }

    /// The state at a restart: from the latest checkpoint, which must give the same as all records do.
    pub(crate) fn restore(&self, seed: [u8; 32], config: &NodeConfig) -> Result<Restored, Violation> {
        let all = fold(seed, config, &[], &self.records)?;
        let recent = fold(seed, config, &self.chunks, &self.records[self.covered..])?;
        ensure!(
            all.shard.checkpoint().eq(recent.shard.checkpoint()) && all.broadcast == recent.broadcast,
            Restart,
            "the checkpoint of {} records makes another shard than they do",
            self.covered
        );
        Ok(recent)
    }
}

fn fold(
    seed: [u8; 32],
    config: &NodeConfig,
    chunks: &[Vec<u8>],
    records: &[Vec<u8>],
) -> Result<Restored, Violation> {
    let mut restoring = Restoring::new(NodeSeed::new(seed), config.clone());
    let chunks = chunks.iter().try_for_each(|chunk| restoring.chunk(chunk));
    ensure!(chunks.is_ok(), Restart, "a checkpoint does not come back: {chunks:?}");
    for bytes in records {
        let record = Record::decode(bytes);
        ensure!(record.is_ok(), Restart, "a record does not decode: {record:?}");
        let folded = record.map(|record| restoring.record(record));
        ensure!(matches!(folded, Ok(Ok(()))), Restart, "a record does not come back: {folded:?}");
    }
    restoring
        .finish()
        .map_err(|error| Violation::new(crate::Checker::Restart, format!("no shard comes back: {error}")))
}

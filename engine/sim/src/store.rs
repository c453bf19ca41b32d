//! Where a run keeps its nodes' records: what a restart would find, at any time.
//!
//! Owns the trait and a store that never fails; a disk that does is `disk`. Nothing of a turn leaves its node before [`Store::persist`] returned.

use fulmen_proto::forward::Record;

/// A store of one node's records.
pub(crate) trait Store {
    /// Makes a record durable.
    fn persist(&mut self, record: &Record);

    /// Everything that is durable, oldest first: what a restart would find.
    fn records(&self) -> Vec<Record>;
}

/// A store that keeps everything.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore(Vec<Record>);

impl Store for MemoryStore {
    fn persist(&mut self, record: &Record) {
        if !record.is_empty() {
            self.0.push(record.clone());
        }
    }

    fn records(&self) -> Vec<Record> {
        self.0.clone()
    }
}

//! Bytes of memory that gossip occupies before it is accepted, by source.
//!
//! Owns the sums. Enforces no limit: `held` and `pending` do, and decide which entry is dropped.
//!
//! Invariant: the total is the sum over the sources, and no source is listed with zero bytes.

use std::collections::BTreeMap;

use super::outcome::Source;

/// A limit on bytes kept of gossip that is not accepted yet. An entry counts with its message and a fixed overhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteLimit {
    /// For all sources together.
    pub total: usize,
    /// For one source. This node's own messages are a source of held ones, and exempt as pending announcements.
    pub per_source: usize,
}

/// The bytes in use.
#[derive(Debug, Default)]
pub(super) struct ByteUsage {
    total: usize,
    by_source: BTreeMap<Source, usize>,
}

impl ByteUsage {
    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn of(&self, source: Source) -> usize {
        self.by_source.get(&source).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, source: Source, bytes: usize) {
        self.total += bytes;
        *self.by_source.entry(source).or_default() += bytes;
    }

    pub(super) fn remove(&mut self, source: Source, bytes: usize) {
        let used = self.by_source.get_mut(&source).expect("bytes are removed only after they were added");
        assert!(*used >= bytes && self.total >= bytes, "more bytes are removed than were added");
        *used -= bytes;
        self.total -= bytes;
        if *used == 0 {
            self.by_source.remove(&source);
        }
    }

    /// The source with the most bytes; of several, the one with the highest id.
    pub(super) fn largest(&self) -> Option<Source> {
        self.by_source.iter().max_by_key(|(_, bytes)| **bytes).map(|(source, _)| *source)
    }
}

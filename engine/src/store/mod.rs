//! The store: where the records of a node's turns become durable, and what a restart reads.
//!
//! Owns: the [`Store`] trait, a store in memory, and the embedded default, a checksummed log on disk. Does not know what a
//! record or a snapshot says: both are opaque bytes here.
//!
//! Invariant: what [`Store::append`] has returned for survives any crash, whole and in order; what it has not returned
//! for survives as a prefix of its batch, or not at all. After an error nothing is durable that was not before, and the
//! store takes nothing more: the engine has to stop and be started again.

mod checkpoint;
mod disk;
mod error;
mod format;
mod index;
mod log;
mod memory;
mod recover;

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;

pub use disk::{Directory, Disk, DiskFile};
pub use error::{Operation, StoreError};
pub use log::{LogOptions, LogStore};
pub use memory::MemoryStore;

/// One record of one shard: what one of its turns changed, encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The shard; the caller numbers them as it likes.
    pub shard: u16,
    /// The record.
    pub record: &'a [u8],
}

/// What [`Store::replay`] visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed<'a> {
    /// The next chunk of a shard's last checkpoint, as it was given to [`CheckpointWriter::chunk`]. All chunks of a shard
    /// come before its first record, in order and without other shards' between them.
    Chunk {
        /// The shard.
        shard: u16,
        /// The chunk.
        chunk: &'a [u8],
    },
    /// The next record of a shard, appended after its last checkpoint began. Records come in the order they were
    /// appended in, those of all shards in one sequence.
    Record {
        /// The shard.
        shard: u16,
        /// The record.
        record: &'a [u8],
    },
}

/// What a store has done since it was opened, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Times a file was made durable; directories count too.
    pub syncs: u64,
    /// Batches appended.
    pub batches: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes written for appended records, framing included.
    pub record_bytes: u64,
    /// Checkpoints finished.
    pub checkpoints: u64,
    /// Bytes written for checkpoints, framing included.
    pub checkpoint_bytes: u64,
    /// Bytes of all files as they stand, room for the log included: 16 MiB at most, of which the disk need not know yet.
    pub file_bytes: u64,
}

/// Where records become durable.
///
/// Driven by one thread, the persister: [`replay`](Store::replay) first, once, then [`append`](Store::append) with
/// whatever records wait, again and again. When [`checkpoint_due`](Store::checkpoint_due) names a shard, the caller takes
/// a snapshot of it, calls [`begin_checkpoint`](Store::begin_checkpoint) after it has appended the last record that the
/// snapshot includes and before it appends the first that it does not, hands the writer and the snapshot to a thread that
/// may wait for the disk, and gives what that thread finished to [`finish_checkpoint`](Store::finish_checkpoint).
/// Records of all shards may be appended in between.
pub trait Store: Send + Debug {
    /// Makes the records of a batch durable, in their order, with one sync for all of them. They are durable once this
    /// returns, and not before. An empty batch does nothing.
    ///
    /// # Errors
    /// When they may not be durable. The store takes nothing more then; a second attempt is refused, since a system that
    /// has failed to write pages once may take them for written.
    fn append(&mut self, batch: &[Entry<'_>]) -> Result<(), StoreError>;

    /// Reads everything that is durable: of each shard the chunks of its last finished checkpoint, then all records
    /// appended after that began. `visit` stops it by breaking; what it gave up for, it keeps itself.
    ///
    /// # Errors
    /// When something that was durable cannot be read or is damaged.
    fn replay(&mut self, visit: &mut dyn FnMut(Replayed<'_>) -> ControlFlow<()>) -> Result<(), StoreError>;

    /// Begins a checkpoint of a shard, which stands for all records of this shard appended so far. An unfinished earlier
    /// one of the same shard is given up.
    ///
    /// # Errors
    /// When it cannot be begun.
    fn begin_checkpoint(&mut self, shard: u16) -> Result<Box<dyn CheckpointWriter>, StoreError>;

    /// Takes up a checkpoint whose chunks are durable: a later [`replay`](Store::replay) begins with it, and the space
    /// of what it stands for is reclaimed. A checkpoint that was given up is dropped without effect.
    ///
    /// # Errors
    /// When that fails.
    fn finish_checkpoint(&mut self, written: WrittenCheckpoint) -> Result<(), StoreError>;

    /// The shard whose checkpoint would reclaim the most space, once there is enough of it that restarting would take
    /// long. One that has begun and is not finished is not named again.
    fn checkpoint_due(&self) -> Option<u16>;

    /// What was done since the store was opened, and what it holds.
    fn stats(&self) -> StoreStats;
}

/// A checkpoint being written, apart from the store's own thread.
pub trait CheckpointWriter: Send + Debug {
    /// Writes the next chunk of the snapshot. A chunk is as large as the caller likes, up to 16 MiB.
    ///
    /// # Errors
    /// When it cannot be written. The checkpoint has failed then; the store has not.
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), StoreError>;

    /// Makes the chunks durable.
    ///
    /// # Errors
    /// When they may not be durable. The checkpoint has failed then; the store has not.
    fn finish(self: Box<Self>) -> Result<WrittenCheckpoint, StoreError>;
}

/// A checkpoint whose chunks are durable, to be given to [`Store::finish_checkpoint`].
#[derive(Debug)]
#[must_use]
pub struct WrittenCheckpoint {
    shard: u16,
    /// Which of the shard's checkpoints it is, counted since the store was opened.
    attempt: u64,
    bytes: u64,
    /// Tells the store, as long as there is one, that the checkpoint may still be finished.
    _alive: Option<Arc<()>>,
    /// The chunks, where the store keeps them in memory.
    chunks: Vec<Vec<u8>>,
}

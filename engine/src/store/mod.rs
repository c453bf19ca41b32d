//! The store: where the records of a node's turns become durable, and the source of a restart.
//!
//! Owns: the [`Store`] trait, the suite that holds every store to it ([`conformance`]), a store in memory, and the
//! embedded default, a checksummed log on disk. Does not know the contents of records and checkpoint chunks: both are
//! opaque bytes here. `examples/store.rs` is a store written against the public interface alone.
//!
//! Invariant: a batch for which [`Store::append`] has returned survives any crash, whole and in order; a batch for
//! which it has not survives as a prefix, or not at all, and no record of it in part. After an error nothing is durable
//! that was not before, and the store accepts nothing more: the engine has to stop and be started again.

mod assembly;
mod checkpoint;
pub mod conformance;
mod disk;
mod error;
mod format;
mod index;
mod log;
mod memory;
mod recover;

use std::any::Any;
use std::fmt::Debug;
use std::ops::ControlFlow;

pub use disk::{Directory, Disk, DiskFile};
pub use error::{Operation, StoreError};
pub use log::{LogOptions, LogStore};
pub use memory::MemoryStore;

/// One record of one shard: the changes of one of its turns, encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The shard; the caller numbers them as it likes.
    pub shard: u16,
    /// The record.
    pub record: &'a [u8],
}

/// A visit of [`Store::replay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed<'a> {
    /// The next chunk of a shard's last checkpoint, as it was given to [`CheckpointWriter::chunk`]. All chunks of a
    /// shard come before its first record, in order and without other shards' between them.
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

/// Counters of a store since it was opened, and its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Files and directories synced.
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
    /// Bytes of all files, including the room reserved at the end of the log: 16 MiB at most, which the file system may
    /// not have allocated yet.
    pub file_bytes: u64,
}

/// Where records become durable.
///
/// Driven by one caller at a time, on any thread: [`append`](Store::append) with the records that wait, again and
/// again, and [`replay`](Store::replay) at any time, as a rule once after opening. When
/// [`checkpoint_due`](Store::checkpoint_due) names a shard, the caller
///
/// 1. appends the last record that the shard's present state includes,
/// 2. takes that state as chunks and calls [`begin_checkpoint`](Store::begin_checkpoint), before it appends a record
///    that the state does not include,
/// 3. gives the [`CheckpointWriter`] and the chunks to a thread that may wait for the disk, and
/// 4. gives the result of that thread to [`finish_checkpoint`](Store::finish_checkpoint).
///
/// Records of all shards may be appended between these steps.
///
/// # Examples
///
/// ```
/// use std::ops::ControlFlow;
///
/// use fulmen::store::{Entry, MemoryStore, Replayed, Store};
///
/// let mut store = MemoryStore::default();
/// store.append(&[Entry { shard: 0, record: b"opened" }, Entry { shard: 0, record: b"ready" }])?;
/// let mut checkpoint = store.begin_checkpoint(0)?;
/// store.append(&[Entry { shard: 0, record: b"closed" }])?;
/// checkpoint.chunk(b"a ready channel")?;
/// store.finish_checkpoint(checkpoint.finish()?)?;
///
/// let mut found = Vec::new();
/// store.replay(&mut |replayed| {
///     found.push(match replayed {
///         Replayed::Chunk { chunk, .. } => chunk.to_vec(),
///         Replayed::Record { record, .. } => record.to_vec(),
///     });
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(found, [&b"a ready channel"[..], b"closed"]);
/// # Ok::<(), fulmen::store::StoreError>(())
/// ```
pub trait Store: Send + Debug {
    /// Makes the records of a batch durable, in their order, with one sync for all of them. They are durable once this
    /// returns, and not before. An empty batch does nothing.
    ///
    /// # Errors
    /// When they may not be durable. The store takes nothing more then; a second attempt is refused, since a system
    /// that has failed to write pages once may take them for written.
    fn append(&mut self, batch: &[Entry<'_>]) -> Result<(), StoreError>;

    /// Reads everything that is durable: of each shard the chunks of its last finished checkpoint, then all records
    /// appended after that began, in their order. Those of two shards may come in any order. `visit` may return
    /// [`ControlFlow::Break`] to stop; recording why is up to the caller.
    ///
    /// # Errors
    /// When something that was durable cannot be read or is damaged.
    fn replay(&mut self, visit: &mut dyn FnMut(Replayed<'_>) -> ControlFlow<()>) -> Result<(), StoreError>;

    /// Begins a checkpoint of a shard, which stands for all records of this shard appended so far. An unfinished
    /// earlier one of the same shard is abandoned.
    ///
    /// # Errors
    /// When it cannot be begun.
    fn begin_checkpoint(&mut self, shard: u16) -> Result<Box<dyn CheckpointWriter>, StoreError>;

    /// Puts a checkpoint whose chunks are durable into effect: a later [`replay`](Store::replay) begins with it, and
    /// the records it stands for are no longer visited. An abandoned checkpoint is dropped without effect.
    ///
    /// # Errors
    /// When it may not be in effect, or belongs to another kind of store. The store takes nothing more then.
    fn finish_checkpoint(&mut self, written: WrittenCheckpoint) -> Result<(), StoreError>;

    /// The shard whose checkpoint would reclaim the most space, once there is enough of it that restarting would take
    /// long. One that has begun and is not finished is not named again.
    fn checkpoint_due(&self) -> Option<u16>;

    /// Counters since the store was opened, and its size.
    fn stats(&self) -> StoreStats;
}

/// A checkpoint being written, apart from the store's own thread.
pub trait CheckpointWriter: Send + Debug {
    /// Writes the next chunk of the shard's state, of any length. An empty chunk may be dropped.
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

/// A checkpoint whose chunks are durable, to be given to [`Store::finish_checkpoint`] of the store that began it.
#[derive(Debug)]
#[must_use = "without `Store::finish_checkpoint` the checkpoint has no effect"]
pub struct WrittenCheckpoint {
    shard: u16,
    payload: Box<dyn Any + Send>,
}

impl WrittenCheckpoint {
    /// A written checkpoint of `shard`. `payload` is whatever the store's writer hands to the store: a file name, an
    /// attempt number, the chunks themselves.
    pub fn new(shard: u16, payload: impl Any + Send) -> WrittenCheckpoint {
        WrittenCheckpoint { shard, payload: Box::new(payload) }
    }

    /// The shard.
    #[must_use]
    pub const fn shard(&self) -> u16 {
        self.shard
    }

    /// The payload given to [`new`](WrittenCheckpoint::new).
    ///
    /// # Errors
    /// [`StoreError::ForeignCheckpoint`] when it is no `T`: the writer that made it belongs to another kind of store.
    pub fn into_payload<T: Any>(self) -> Result<T, StoreError> {
        let shard = self.shard;
        match self.payload.downcast() {
            Ok(payload) => Ok(*payload),
            Err(_) => Err(StoreError::ForeignCheckpoint { shard }),
        }
    }
}

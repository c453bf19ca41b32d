//! The embedded store: one append-only log for all shards of a node, in segments, with a checkpoint file a shard.
//!
//! Owns appending, when a segment is full, which shard is due for a checkpoint, and the reclaiming of space. Does not
//! encode (`format`), open a directory after a crash (`recover`) or write checkpoints (`checkpoint`). `FORMAT.md` gives
//! the bytes.
//!
//! Invariants: no frame is written before the one before it is durable, so that a crash can tear the last frame only; a
//! batch is one frame, unless it holds more than a frame may: then a record that does not fit is written in parts; a
//! segment is deleted only after checkpoints that stand for all its records are durable, their names included; after an
//! error nothing more is written.
//!
//! A segment has its length from the start, its end being a hole that reads as zeros: with the length known, a sync has
//! the batch alone to write, and takes a quarter less of the processor.
//!
//! Budget: one write and one sync a batch, 35 bytes of framing for a batch of one record.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use fulmen_wire::units::NodeId;

use super::checkpoint::{self, LogWritten};
use super::disk::{Directory, Disk, DiskFile};
use super::error::{Operation, StoreError};
use super::format::{
    BODY_BYTES_MAX, ENTRY_HEADER_BYTES, FileHeader, FileKind, VERSION, check_record, encode_entry,
    encode_frame, encode_part, encode_positions, encode_records, part_bytes_max, partial_name, segment_name,
};
use super::index::{Begun, LogCheckpoint, Segment, ShardLog, pinning};
use super::recover;
use super::{CheckpointWriter, Entry, Replayed, Store, StoreStats, WrittenCheckpoint};

/// How a log uses its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The length at which a segment is full and the next is begun: the unit in which space is reclaimed.
    pub segment_bytes: u64,
    /// The length of the log at which checkpoints become due, and so the bytes that a restart reads besides
    /// checkpoints. No checkpoint is due while the log is shorter than all checkpoints together.
    pub log_bytes_max: u64,
    /// The longest body of a frame; clamped to 64 bytes to 16 MiB. A longer record or chunk is written in parts.
    pub frame_bytes_max: usize,
    /// Makes the checksums of this store's frames unlike any that a peer could have us write inside a record. Any value
    /// that peers cannot guess.
    pub salt: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        use std::hash::{BuildHasher, RandomState};
        // The standard library keys its hash maps from the system's source of randomness.
        let salt = RandomState::new().hash_one(0);
        LogOptions { segment_bytes: 16 << 20, log_bytes_max: 64 << 20, frame_bytes_max: BODY_BYTES_MAX, salt }
    }
}

/// The embedded store.
#[derive(Debug)]
pub struct LogStore {
    disk: Arc<dyn Disk>,
    node_id: NodeId,
    options: LogOptions,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// The last segment, once this process has begun it.
    file: Option<Box<dyn DiskFile>>,
    /// How long that file is, the room in it included.
    file_bytes: u64,
    /// The sequence number of the next frame.
    next_sequence: u64,
    shards: BTreeMap<u16, ShardLog>,
    /// Checkpoints begun since the store was opened.
    attempts: u64,
    /// The first failure.
    stopped: Option<String>,
    buffer: Vec<u8>,
    stats: StoreStats,
}

impl LogStore {
    /// Opens the store of a node in a directory of its own, made if there is none.
    ///
    /// # Errors
    /// When another process has it open, it belongs to another node, or it is damaged.
    pub fn open(directory: impl Into<PathBuf>, node_id: NodeId) -> Result<LogStore, StoreError> {
        LogStore::open_on(Arc::new(Directory::open(directory)?), node_id, LogOptions::default())
    }

    /// Opens the store of a node on any disk. A frame that a crash has torn is cut off; nothing of it was ever durable.
    ///
    /// # Errors
    /// When it belongs to another node or is damaged.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        node_id: NodeId,
        options: LogOptions,
    ) -> Result<LogStore, StoreError> {
        let found = recover::recover(&*disk, node_id)?;
        let frame_bytes_max = options.frame_bytes_max.clamp(FRAME_BYTES_MAX_LEAST, BODY_BYTES_MAX);
        let options = LogOptions { frame_bytes_max, ..options };
        let mut store = LogStore {
            disk,
            node_id,
            options,
            segments: found.segments,
            file: None,
            file_bytes: 0,
            next_sequence: found.next_sequence,
            shards: found.shards,
            attempts: 0,
            stopped: None,
            buffer: Vec::new(),
            stats: StoreStats { syncs: found.syncs, ..StoreStats::default() },
        };
        store.reclaim()?;
        Ok(store)
    }

    /// Does something that leaves the log unusable if it fails.
    fn or_stop<T>(
        &mut self,
        work: impl FnOnce(&mut LogStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(cause) = &self.stopped {
            return Err(StoreError::Stopped { cause: cause.clone() });
        }
        let done = work(self);
        if let Err(error) = &done {
            tracing::error!(%error, "the store stops");
            self.stopped = Some(error.to_string());
        }
        done
    }

    /// Appends records that fit into one frame, durably.
    fn append_whole(&mut self, entries: &[Entry<'_>]) -> Result<(), StoreError> {
        self.ready_segment()?;
        self.buffer.clear();
        let (salt, sequence) = (self.options.salt, self.next_sequence);
        let (shards, segment) = (&mut self.shards, self.segments.back_mut());
        let last = &mut segment.expect("a segment is open").last;
        encode_frame(&mut self.buffer, salt, sequence, |body| {
            encode_records(body);
            for Entry { shard, record } in entries {
                let log = shards.entry(*shard).or_default();
                log.appended += 1;
                encode_entry(body, *shard, log.appended, record);
                last.insert(*shard, log.appended);
            }
        });
        self.write_frame()?;
        self.stats.records += entries.len() as u64;
        Ok(())
    }

    /// Appends a record that is too long for a frame: each part is durable before the next is written, so that a crash
    /// leaves a prefix of them, which the next start cuts off. All stand in one segment.
    fn append_in_parts(&mut self, entry: &Entry<'_>) -> Result<(), StoreError> {
        self.ready_segment()?;
        let Entry { shard, record } = *entry;
        let number = self.shards.entry(shard).or_default().appended + 1;
        let step = part_bytes_max(self.options.frame_bytes_max);
        for offset in (0..record.len()).step_by(step) {
            let end = record.len().min(offset + step);
            self.buffer.clear();
            encode_frame(&mut self.buffer, self.options.salt, self.next_sequence, |body| {
                encode_part(body, shard, number, record, offset, end);
            });
            self.write_frame()?;
        }
        self.shards.entry(shard).or_default().appended = number;
        self.segments.back_mut().expect("a segment is open").last.insert(shard, number);
        self.stats.records += 1;
        Ok(())
    }

    /// Writes the frame in the buffer to the open segment, durably.
    fn write_frame(&mut self) -> Result<(), StoreError> {
        let file = self.file.as_mut().expect("a segment is open");
        let segment = self.segments.back_mut().expect("a segment is open");
        let name = || segment_name(segment.first);
        file.append(&self.buffer).map_err(|error| StoreError::io(Operation::Write, name(), error))?;
        file.sync().map_err(|error| StoreError::io(Operation::Sync, name(), error))?;
        self.next_sequence += 1;
        segment.bytes += self.buffer.len() as u64;
        self.file_bytes = self.file_bytes.max(segment.bytes);
        self.stats.syncs += 1;
        self.stats.record_bytes += self.buffer.len() as u64;
        Ok(())
    }

    /// Sees to it that a segment with room is open.
    fn ready_segment(&mut self) -> Result<(), StoreError> {
        if self.file.is_none() || self.segment_is_full() { self.begin_segment() } else { Ok(()) }
    }

    fn segment_is_full(&self) -> bool {
        self.segments.back().is_some_and(|segment| segment.bytes >= self.options.segment_bytes)
    }

    /// Begins the next segment: it says how many records of each shard came before it, so that a segment that is
    /// missing is missed. All the room it is to have is made at once.
    fn begin_segment(&mut self) -> Result<(), StoreError> {
        self.end_segment()?;
        let LogOptions { salt, segment_bytes, .. } = self.options;
        let first = self.next_sequence;
        let name = segment_name(first);
        let header = FileHeader {
            version: VERSION,
            kind: FileKind::Segment,
            node_id: self.node_id,
            shard: 0,
            number: first,
            salt,
        };
        let mut bytes = header.encode();
        let begun = self.shards.iter().filter(|(_, log)| log.appended > 0);
        let positions = begun.map(|(shard, log)| (*shard, log.appended));
        encode_frame(&mut bytes, salt, first, |body| encode_positions(body, positions));
        let at = |operation: Operation| move |error| StoreError::io(operation, segment_name(first), error);
        let mut file = self.disk.create(&name).map_err(at(Operation::Create))?;
        file.append(&bytes).map_err(at(Operation::Write))?;
        let room = segment_bytes.saturating_sub(bytes.len() as u64);
        file.reserve(room).map_err(at(Operation::Write))?;
        file.sync().map_err(at(Operation::Sync))?;
        self.disk.sync_names().map_err(at(Operation::Sync))?;
        self.file_bytes = bytes.len() as u64 + room;
        self.stats.syncs += 2;
        self.stats.record_bytes += bytes.len() as u64;
        self.next_sequence += 1;
        self.segments.push_back(Segment { first, bytes: bytes.len() as u64, last: BTreeMap::new() });
        self.file = Some(file);
        // The one before may have been all that checkpoints did not free yet.
        self.reclaim()
    }

    /// Cuts off the room that is left in the segment written to. Nothing but frames may stand in a segment that another
    /// one follows, and so the cut is durable before there is another.
    fn end_segment(&mut self) -> Result<(), StoreError> {
        let (Some(mut file), Some(segment)) = (self.file.take(), self.segments.back()) else { return Ok(()) };
        if self.file_bytes > segment.bytes {
            let failed = |error| StoreError::io(Operation::Truncate, segment_name(segment.first), error);
            file.trim().map_err(failed)?;
            self.file_bytes = segment.bytes;
            self.stats.syncs += 1;
        }
        Ok(())
    }

    fn take_up(&mut self, written: WrittenCheckpoint) -> Result<(), StoreError> {
        let shard = written.shard();
        let LogWritten { attempt, bytes, .. } = written.into_payload()?;
        let partial = partial_name(shard, attempt);
        let log = self.shards.entry(shard).or_default();
        let Some(begun) = log.begun.take_if(|begun| begun.attempt == attempt) else {
            return self.remove(&partial);
        };
        let checkpoint = LogCheckpoint { covers: begun.covers, bytes };
        let name = checkpoint.name(shard);
        let before = log.checkpoint.replace(checkpoint).map(|before| before.name(shard));
        let at = |operation: Operation| move |error| StoreError::io(operation, &partial, error);
        self.disk.rename(&partial_name(shard, attempt), &name).map_err(at.clone()(Operation::Rename))?;
        self.disk.sync_names().map_err(at(Operation::Sync))?;
        self.stats.syncs += 2;
        self.stats.checkpoints += 1;
        self.stats.checkpoint_bytes += bytes;
        if let Some(before) = before.filter(|before| *before != name) {
            self.remove(&before)?;
        }
        self.reclaim()
    }

    /// Deletes the segments that checkpoints stand for, oldest first, up to the one that is written to.
    fn reclaim(&mut self) -> Result<(), StoreError> {
        while self.segments.len() > 1
            && let Some(oldest) = self.segments.front()
            && pinning(oldest, &self.shards).next().is_none()
        {
            let name = segment_name(oldest.first);
            self.segments.pop_front();
            self.remove(&name)?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.disk.remove(name).map_err(|error| StoreError::io(Operation::Remove, name, error))
    }

    fn log_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn checkpoint_bytes(&self) -> u64 {
        let checkpoints = self.shards.values().filter_map(|log| log.checkpoint.as_ref());
        checkpoints.map(|checkpoint| checkpoint.bytes).sum()
    }
}

impl Store for LogStore {
    fn append(&mut self, batch: &[Entry<'_>]) -> Result<(), StoreError> {
        batch.iter().try_for_each(|entry| check_record(entry.record.len()))?;
        let most = self.options.frame_bytes_max;
        let stored = |entry: &Entry<'_>| ENTRY_HEADER_BYTES + entry.record.len();
        self.or_stop(|store| {
            let mut rest = batch;
            while let [first, later @ ..] = rest {
                if 1 + stored(first) > most {
                    store.append_in_parts(first)?;
                    rest = later;
                    continue;
                }
                let mut bytes = 1;
                let fit = rest.iter().take_while(|entry| {
                    bytes += stored(entry);
                    bytes <= most
                });
                let (frame, left) = rest.split_at(fit.count());
                store.append_whole(frame)?;
                rest = left;
            }
            store.stats.batches += u64::from(!batch.is_empty());
            Ok(())
        })
    }

    fn replay(&mut self, visit: &mut dyn FnMut(Replayed<'_>) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.or_stop(|store| recover::replay(&*store.disk, &store.segments, &store.shards, visit))
    }

    fn begin_checkpoint(&mut self, shard: u16) -> Result<Box<dyn CheckpointWriter>, StoreError> {
        if let Some(cause) = &self.stopped {
            return Err(StoreError::Stopped { cause: cause.clone() });
        }
        self.attempts += 1;
        let (attempt, log_bytes) = (self.attempts, self.log_bytes());
        let log = self.shards.entry(shard).or_default();
        let alive = Arc::new(());
        let covers = log.appended;
        log.begun = Some(Begun { attempt, covers, alive: Arc::downgrade(&alive), log_bytes });
        let header = FileHeader {
            version: VERSION,
            kind: FileKind::Checkpoint,
            node_id: self.node_id,
            shard,
            number: covers,
            salt: self.options.salt,
        };
        Ok(Box::new(checkpoint::Writer::begin(
            Arc::clone(&self.disk),
            &header,
            attempt,
            self.options.frame_bytes_max,
            alive,
        )?))
    }

    fn finish_checkpoint(&mut self, written: WrittenCheckpoint) -> Result<(), StoreError> {
        self.or_stop(|store| store.take_up(written))
    }

    fn checkpoint_due(&self) -> Option<u16> {
        let (log_bytes, most) = (self.log_bytes(), self.options.log_bytes_max.max(self.checkpoint_bytes()));
        let oldest = self.segments.front()?;
        if log_bytes <= most || self.segments.len() < 2 || self.stopped.is_some() {
            return None;
        }
        // One that failed is tried again when the log has grown by another part: its disk may be full.
        let is_free = |log: &ShardLog| {
            log.begun.as_ref().is_none_or(|begun| {
                begun.alive.strong_count() == 0 && log_bytes >= begun.log_bytes + self.options.segment_bytes
            })
        };
        pinning(oldest, &self.shards).find(|(_, log)| is_free(log)).map(|(shard, _)| shard)
    }

    fn stats(&self) -> StoreStats {
        let last = self.segments.back().filter(|_| self.file.is_some());
        let room = last.map_or(0, |segment| self.file_bytes - segment.bytes);
        StoreStats { file_bytes: self.log_bytes() + room + self.checkpoint_bytes(), ..self.stats }
    }
}

/// The least a frame may be limited to: room for the fields before a part.
const FRAME_BYTES_MAX_LEAST: usize = 64;

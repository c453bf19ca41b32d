//! Group commit: turns are made durable in order, then their effects are released.
//!
//! Owns the queue of finished turns that are not yet durable, and the order in which effects are released. Does not run
//! turns.
//!
//! Any number of workers queue turns. Whichever of them finds the writer free makes all queued turns durable with one
//! append, releases their effects in order, and looks again. So at light load one thread runs a turn, makes it durable
//! and releases it, without a hop; and while one thread waits for the disk, the others run turns that the next append
//! covers together. A worker that has other shards to run leaves the disk to the journal thread.
//!
//! A turn without effects (a received `revoke_and_ack`, say) is not urgent: it becomes durable with the next urgent
//! turn, or at the next tick. If a crash loses it, the peer has no answer yet and sends its message again (BOLT 2,
//! message retransmission).
//!
//! Handoffs do not wait for the disk. The turn that a handoff causes in another shard is queued here after the turn
//! that sent it, and a store keeps a prefix of its records: if the later turn survives a crash, so does the earlier
//! one.
//!
//! **Checkpoints.** When the store asks for one, the writer holds the shard between two turns, appends all its records,
//! and takes its state as chunks; another thread writes the chunks to the disk.
//!
//! Invariants: effects are released only after every record queued before them is durable; those of one shard in the
//! order of its turns. After a failure nothing is released any more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock::Clock;
use super::effects::{Effects, Handler};
use super::error::Fatal;
use super::shard_cell::{ShardCell, lock};
use super::storage::engine_record;
use crate::store::{Entry, Store, StoreError, StoreStats, WrittenCheckpoint};
use crossbeam::queue::SegQueue;

/// Turns queued for the disk at most; above that, workers wait before they run another.
const UNWRITTEN_TURNS_MAX: usize = 256;

/// Bytes of records and messages of queued turns at most; above that, workers wait before they run another. A turn may
/// exceed it by its own bytes: those of its messages, which
/// [`NodeConfig::send_bytes`](fulmen_proto::forward::NodeConfig::send_bytes) bounds, and of its record.
const UNWRITTEN_BYTES_MAX: usize = 64 << 20;

/// The most bytes of one append, unless it is a single record.
const APPEND_BYTES_MAX: usize = 12 << 20;
/// Framing that a store may add to a record.
const ENTRY_BYTES: usize = 64;

/// A turn that was run, and is not durable yet.
#[derive(Debug)]
pub(super) struct FinishedTurn {
    /// Its record, encoded; empty if it changed nothing.
    pub(super) record: Vec<u8>,
    pub(super) effects: Effects,
    /// The arrival of its oldest input.
    pub(super) since: Duration,
    /// Whether a command of the operator was among its inputs, which makes the turn urgent.
    pub(super) commanded: bool,
}

impl FinishedTurn {
    /// The bytes that the turn holds until it is released.
    fn bytes(&self) -> usize {
        self.record.len() + self.effects.send.iter().map(|(_, message)| message.len()).sum::<usize>()
    }

    fn is_urgent(&self) -> bool {
        self.commanded || !self.effects.is_empty()
    }
}

/// Makes turns durable, and releases their effects.
pub(super) struct Journal {
    queue: SegQueue<FinishedTurn>,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    urgent: AtomicUsize,
    /// Locked from the moment turns leave the queue until they are durable.
    writer: Mutex<JournalWriter>,
    /// Locked before the writer is unlocked, so that effects are released in the order of the records.
    release: Mutex<()>,
    handler: Box<dyn Handler>,
    failed: AtomicBool,
    fatal: OnceLock<Arc<Fatal>>,
}

/// The store, and the checkpoint that is being written.
#[derive(Debug)]
struct JournalWriter {
    store: Option<Box<dyn Store>>,
    checkpoint: Option<JoinHandle<Result<WrittenCheckpoint, StoreError>>>,
    /// Whether a checkpoint may have a thread.
    has_threads: bool,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("waiting", &self.waiting)
            .field("fatal", &self.fatal)
            .finish_non_exhaustive()
    }
}

impl Journal {
    pub(super) fn new(
        handler: Box<dyn Handler>,
        store: Option<Box<dyn Store>>,
        has_threads: bool,
    ) -> Journal {
        Journal {
            queue: SegQueue::new(),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            urgent: AtomicUsize::new(0),
            writer: Mutex::new(JournalWriter { store, checkpoint: None, has_threads }),
            release: Mutex::new(()),
            handler,
            failed: AtomicBool::new(false),
            fatal: OnceLock::new(),
        }
    }

    /// Queues a turn. The turns of one shard are queued in their order, and before the turns that their handoffs cause.
    pub(super) fn queue(&self, turn: FinishedTurn) {
        if turn.record.is_empty() && !turn.is_urgent() {
            return;
        }
        // Counted first: the thread that takes it from the queue subtracts it.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.waiting_bytes.fetch_add(turn.bytes(), Ordering::SeqCst);
        if turn.is_urgent() {
            self.urgent.fetch_add(1, Ordering::SeqCst);
        }
        self.queue.push(turn);
    }

    /// Whether an urgent turn is queued.
    pub(super) fn is_due(&self) -> bool {
        self.urgent.load(Ordering::SeqCst) > 0
    }

    /// The number of turns that are not durable yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Writes and releases queued turns until none is urgent, or `leave` says so. Returns at once if another thread is
    /// writing.
    pub(super) fn write_urgent(&self, cells: &[ShardCell], clock: &dyn Clock, leave: impl Fn() -> bool) {
        // Pairs with the fence below: of a thread that queues and then tries the lock, and one that unlocks and then
        // looks for urgent turns, one sees the other's write.
        fence(Ordering::SeqCst);
        while self.is_due() && !self.has_failed() {
            let Some(writer) = self.enter() else { return };
            self.write_and_release(writer, cells, clock);
            fence(Ordering::SeqCst);
            if leave() {
                return;
            }
        }
    }

    /// Writes and releases all queued turns, urgent or not.
    pub(super) fn write_all(&self, cells: &[ShardCell], clock: &dyn Clock) {
        while self.waiting() > 0 && !self.has_failed() {
            let writer = lock(&self.writer);
            self.write_and_release(writer, cells, clock);
        }
    }

    /// The writer, if no thread has it. Blocks for it when the queue is over its bound.
    fn enter(&self) -> Option<MutexGuard<'_, JournalWriter>> {
        let is_over = self.waiting() > UNWRITTEN_TURNS_MAX
            || self.waiting_bytes.load(Ordering::SeqCst) > UNWRITTEN_BYTES_MAX;
        if is_over {
            return Some(lock(&self.writer));
        }
        match self.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(writer)) => Some(PoisonError::into_inner(writer)),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn write_and_release(
        &self,
        mut writer: MutexGuard<'_, JournalWriter>,
        cells: &[ShardCell],
        clock: &dyn Clock,
    ) {
        let mut batch = Vec::new();
        if let Err(error) = self.write(&mut writer, cells, &mut batch) {
            drop(writer);
            return self.fail(error.into());
        }
        let release = lock(&self.release);
        drop(writer);
        let now = clock.elapsed();
        for turn in batch {
            let bytes = turn.bytes();
            if turn.is_urgent() {
                if let Some(cell) = cells.get(usize::from(turn.effects.shard)) {
                    cell.counters.released(now.saturating_sub(turn.since));
                }
                if !turn.effects.is_empty() && !self.has_failed() {
                    self.handler.effects(turn.effects);
                }
                // Only now: a caller that finds nothing urgent may rely on its effects having been released.
                self.urgent.fetch_sub(1, Ordering::SeqCst);
            }
            self.waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        drop(release);
    }

    /// Appends all queued turns, and attends to checkpoints. `batch` gets the turns that were written.
    fn write(
        &self,
        writer: &mut JournalWriter,
        cells: &[ShardCell],
        batch: &mut Vec<FinishedTurn>,
    ) -> Result<(), StoreError> {
        self.append(writer, batch)?;
        let Some(store) = &mut writer.store else { return Ok(()) };
        if let Some(thread) = writer.checkpoint.take_if(|thread| thread.is_finished()) {
            match thread.join() {
                Ok(Ok(written)) => store.finish_checkpoint(written)?,
                Ok(Err(error)) => tracing::warn!(%error, "a checkpoint could not be written"),
                Err(_) => tracing::warn!("the thread that wrote a checkpoint panicked"),
            }
        }
        match store.checkpoint_due() {
            Some(shard) if writer.checkpoint.is_none() => self.checkpoint(writer, cells, shard, batch),
            _ => Ok(()),
        }
    }

    /// Appends all turns in the queue, and adds them to the batch.
    fn append(&self, writer: &mut JournalWriter, batch: &mut Vec<FinishedTurn>) -> Result<(), StoreError> {
        let begun = batch.len();
        while let Some(turn) = self.queue.pop() {
            batch.push(turn);
        }
        let Some(store) = &mut writer.store else { return Ok(()) };
        let entries: Vec<Entry<'_>> = batch[begun..]
            .iter()
            .filter(|turn| !turn.record.is_empty())
            .map(|turn| Entry { shard: turn.effects.shard, record: &turn.record })
            .collect();
        // One append, unless there is more than one should hold.
        let mut entries = entries.as_slice();
        while !entries.is_empty() {
            let mut bytes = 0;
            let fit = entries.iter().take_while(|entry| {
                bytes += entry.record.len() + ENTRY_BYTES;
                bytes <= APPEND_BYTES_MAX
            });
            let (now, later) = entries.split_at(fit.count().max(1));
            store.append(now)?;
            entries = later;
        }
        Ok(())
    }

    /// Takes a checkpoint of a shard.
    fn checkpoint(
        &self,
        writer: &mut JournalWriter,
        cells: &[ShardCell],
        shard: u16,
        batch: &mut Vec<FinishedTurn>,
    ) -> Result<(), StoreError> {
        let chunks = match cells.get(usize::from(shard)) {
            None => vec![engine_record(u16::try_from(cells.len()).unwrap_or(u16::MAX))],
            Some(cell) => {
                let running = lock(&cell.running);
                // A turn is queued before its shard is unlocked: this append has every turn of the state below.
                self.append(writer, batch)?;
                running.events.chunk().into_iter().chain(running.shard.checkpoint()).collect()
            }
        };
        let Some(store) = &mut writer.store else { return Ok(()) };
        let mut checkpoint = store.begin_checkpoint(shard)?;
        let write = move || {
            chunks.iter().try_for_each(|chunk| checkpoint.chunk(chunk))?;
            checkpoint.finish()
        };
        if !writer.has_threads {
            let written = write()?;
            return store.finish_checkpoint(written);
        }
        match std::thread::Builder::new().name("fulmen-checkpoint".to_owned()).spawn(write) {
            Ok(thread) => writer.checkpoint = Some(thread),
            Err(error) => tracing::warn!(%error, "no thread for a checkpoint"),
        }
        Ok(())
    }

    /// Stops the engine: nothing is released from here on.
    pub(super) fn fail(&self, fatal: Fatal) {
        if self.failed.swap(true, Ordering::SeqCst) {
            return;
        }
        let fatal = Arc::new(fatal);
        let _ = self.fatal.set(Arc::clone(&fatal));
        let _release = lock(&self.release);
        self.handler.stopped(&fatal);
    }

    /// Stops the engine without calling the handler: it is being dropped.
    pub(super) fn abandon(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Why the engine has stopped, if it has.
    pub(super) fn fatal(&self) -> Option<Arc<Fatal>> {
        self.fatal.get().cloned()
    }

    /// The store's counters. Waits for an append in progress.
    pub(super) fn store_stats(&self) -> StoreStats {
        lock(&self.writer).store.as_ref().map(|store| store.stats()).unwrap_or_default()
    }
}

//! Group commit: from turns to what is durable, and from there to what leaves.
//!
//! Owns the queue of turns that were run and not yet made durable, and the order in which effects are released. Does not
//! run turns.
//!
//! Any number of workers put turns in; whoever finds nobody at it makes everything that waits durable with one append,
//! releases the effects in order, and looks again. So at light load a turn is run, made durable and released by one thread,
//! without a hop; and while one thread waits for the disk, the others run turns that the next append covers together. A
//! worker that has other shards to run leaves the disk to a thread of its own.
//!
//! A turn that says nothing to anybody (a `revoke_and_ack` received, say) is in no hurry: it becomes durable with the next
//! that does, or at the next tick. Should it be lost in between, the peer finds itself unanswered and says it again.
//!
//! Handoffs do not wait for the disk. What a shard does on one is queued here after the turn that gave it, and a store
//! keeps a prefix of what was appended: whatever of the second turn survives a crash, the first does too.
//!
//! Invariants: effects are released only after every record queued before them is durable; those of one shard in the
//! order of its turns. After a failure nothing is released any more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use super::clock::Clock;
use super::effects::{Effects, Handler};
use super::error::Fatal;
use super::slot::{Slot, lock};
use crate::store::{Entry, Store, StoreError, StoreStats};
use crossbeam::queue::SegQueue;

/// Turns that may wait for the disk; past that, those who run them wait too.
const UNCOMMITTED_TURNS_MAX: usize = 256;

/// A turn that was run.
#[derive(Debug)]
pub(super) struct Done {
    /// What it changed, encoded; empty if nothing.
    pub(super) record: Vec<u8>,
    pub(super) effects: Effects,
    /// When the oldest of its inputs came.
    pub(super) since: Duration,
}

impl Done {
    fn is_urgent(&self) -> bool {
        !self.effects.is_empty()
    }
}

/// Makes turns durable, and releases what they say.
pub(super) struct Committer {
    queue: SegQueue<Done>,
    waiting: AtomicUsize,
    urgent: AtomicUsize,
    /// Held from the moment turns are taken from the queue until they are durable.
    journal: Mutex<Journal>,
    /// Taken before the journal is given up, so that effects are released in its order.
    release: Mutex<()>,
    handler: Box<dyn Handler>,
    failed: AtomicBool,
    fatal: OnceLock<Arc<Fatal>>,
}

/// The store.
#[derive(Debug)]
struct Journal {
    store: Option<Box<dyn Store>>,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer")
            .field("waiting", &self.waiting)
            .field("fatal", &self.fatal)
            .finish_non_exhaustive()
    }
}

impl Committer {
    pub(super) fn new(handler: Box<dyn Handler>, store: Option<Box<dyn Store>>) -> Committer {
        Committer {
            queue: SegQueue::new(),
            waiting: AtomicUsize::new(0),
            urgent: AtomicUsize::new(0),
            journal: Mutex::new(Journal { store }),
            release: Mutex::new(()),
            handler,
            failed: AtomicBool::new(false),
            fatal: OnceLock::new(),
        }
    }

    /// Queues a turn. The turns of one shard are queued in their order, and before anything that follows from them.
    pub(super) fn queue(&self, done: Done) {
        if done.record.is_empty() && done.effects.is_empty() {
            return;
        }
        let urgent = done.is_urgent();
        self.queue.push(done);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if urgent {
            self.urgent.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Whether something waits to be released.
    pub(super) fn is_due(&self) -> bool {
        self.urgent.load(Ordering::SeqCst) > 0
    }

    /// Turns that are not durable yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Makes durable and releases what waits, unless somebody else is at it, until nothing is urgent or `leave` says so.
    pub(super) fn commit(&self, slots: &[Slot], clock: &dyn Clock, leave: impl Fn() -> bool) {
        // Between an unlocked journal and the look at what is urgent there is a fence, as there is between queueing and
        // trying the lock: of two threads, one sees what the other did.
        fence(Ordering::SeqCst);
        while self.is_due() && !self.has_failed() {
            let Some(journal) = self.enter() else { return };
            self.write_and_release(journal, slots, clock);
            fence(Ordering::SeqCst);
            if leave() {
                return;
            }
        }
    }

    /// Makes everything that waits durable, urgent or not.
    pub(super) fn flush(&self, slots: &[Slot], clock: &dyn Clock) {
        while self.waiting() > 0 && !self.has_failed() {
            let journal = lock(&self.journal);
            self.write_and_release(journal, slots, clock);
        }
    }

    /// The journal, if nobody has it; waited for when so much is in it that nobody may add more.
    fn enter(&self) -> Option<MutexGuard<'_, Journal>> {
        if self.waiting() > UNCOMMITTED_TURNS_MAX {
            return Some(lock(&self.journal));
        }
        match self.journal.try_lock() {
            Ok(journal) => Some(journal),
            Err(TryLockError::Poisoned(journal)) => Some(PoisonError::into_inner(journal)),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn write_and_release(&self, mut journal: MutexGuard<'_, Journal>, slots: &[Slot], clock: &dyn Clock) {
        let mut batch = Vec::new();
        if let Err(error) = self.append(&mut journal, &mut batch) {
            drop(journal);
            return self.fail(error.into());
        }
        let release = lock(&self.release);
        drop(journal);
        let now = clock.elapsed();
        for done in batch {
            if done.is_urgent() {
                if let Some(slot) = slots.get(usize::from(done.effects.shard)) {
                    slot.counters.released(now.saturating_sub(done.since));
                }
                if !self.has_failed() {
                    self.handler.effects(done.effects);
                }
                // Only now: whoever finds nothing left to do may rely on its having been handed out.
                self.urgent.fetch_sub(1, Ordering::SeqCst);
            }
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        drop(release);
    }

    /// Appends all turns in the queue, and adds them to the batch.
    fn append(&self, journal: &mut Journal, batch: &mut Vec<Done>) -> Result<(), StoreError> {
        let begun = batch.len();
        while let Some(done) = self.queue.pop() {
            batch.push(done);
        }
        let Some(store) = &mut journal.store else { return Ok(()) };
        let entries: Vec<Entry<'_>> = batch[begun..]
            .iter()
            .filter(|done| !done.record.is_empty())
            .map(|done| Entry { shard: done.effects.shard, record: &done.record })
            .collect();
        if entries.is_empty() { Ok(()) } else { store.append(&entries) }
    }

    /// Stops everything: nothing is released from here on.
    pub(super) fn fail(&self, fatal: Fatal) {
        if self.failed.swap(true, Ordering::SeqCst) {
            return;
        }
        let fatal = Arc::new(fatal);
        let _ = self.fatal.set(Arc::clone(&fatal));
        let _release = lock(&self.release);
        self.handler.stopped(&fatal);
    }

    /// Stops everything without a word: the engine is dropped.
    pub(super) fn abandon(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Why everything has stopped, if it has.
    pub(super) fn fatal(&self) -> Option<Arc<Fatal>> {
        self.fatal.get().cloned()
    }

    /// What the store has done; waits for what it is doing.
    pub(super) fn store_stats(&self) -> StoreStats {
        lock(&self.journal).store.as_ref().map(|store| store.stats()).unwrap_or_default()
    }
}

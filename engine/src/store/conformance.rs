//! A suite that any [`Store`] can run: the promises that the engine relies on, checked through the trait alone.
//!
//! Owns the cases and the model they compare a store with. Does not crash anything: a store on a disk needs a test
//! beside this one that ends the process, or loses unsynced writes, at every write.
//!
//! A case panics where a store breaks a promise; the text says which. Call [`run`] from a test:
//!
//! ```
//! use fulmen::store::conformance::{Subject, run};
//! use fulmen::store::{MemoryStore, Store};
//!
//! struct Memory;
//!
//! impl Subject for Memory {
//!     fn fresh(&mut self) -> Box<dyn Store> {
//!         Box::new(MemoryStore::with_record_bytes_max(4_096))
//!     }
//!
//!     fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
//!         store // memory cannot be closed and found again
//!     }
//! }
//!
//! run(&mut Memory);
//! ```

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{CheckpointWriter, Entry, Replayed, Store};

/// Creates and reopens the store under test.
pub trait Subject {
    /// Creates an empty store at a fresh location. The previous case's store has been dropped.
    fn fresh(&mut self) -> Box<dyn Store>;

    /// Closes the store and opens it again.
    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store>;
}

/// Runs every case on a fresh store.
///
/// # Panics
/// When the store breaks a promise of [`Store`]; the message names it.
pub fn run(subject: &mut dyn Subject) {
    records_come_back_in_the_order_of_all_shards(subject);
    an_empty_batch_does_nothing(subject);
    a_replay_can_be_stopped_and_repeated(subject);
    a_checkpoint_replaces_the_records_before_it_began(subject);
    a_checkpoint_concerns_its_shard_alone(subject);
    an_abandoned_checkpoint_has_no_effect(subject);
    a_due_checkpoint_is_named_once(subject);
    a_long_script_holds_to_its_model(subject);
}

fn records_come_back_in_the_order_of_all_shards(subject: &mut dyn Subject) {
    let mut store = subject.fresh();
    let batches: [&[(u16, &[u8])]; 3] =
        [&[(3, b"a"), (0, b""), (3, b"b")], &[(u16::MAX, b"c")], &[(0, b"d"), (3, b"e")]];
    let mut expected = Vec::new();
    for batch in batches {
        append(&mut *store, batch);
        expected.extend(batch.iter().map(|(shard, record)| record_of(*shard, record)));
    }
    assert_eq!(replay(&mut *store), expected, "records are replayed in the order they were appended in");
    let stats = store.stats();
    assert_eq!((stats.batches, stats.records), (3, 6), "batches and records are counted");
    let mut store = subject.reopen(store);
    assert_eq!(replay(&mut *store), expected, "records survive a restart");
    append(&mut *store, &[(0, b"f")]);
    expected.push(record_of(0, b"f"));
    let mut store = subject.reopen(store);
    assert_eq!(replay(&mut *store), expected, "a store that was reopened goes on");
}

fn an_empty_batch_does_nothing(subject: &mut dyn Subject) {
    let mut store = subject.fresh();
    assert_eq!(replay(&mut *store), [], "a fresh store holds nothing");
    append(&mut *store, &[]);
    append(&mut *store, &[(1, b"one")]);
    append(&mut *store, &[]);
    assert_eq!(replay(&mut *store), [record_of(1, b"one")], "an empty batch leaves no trace");
}

fn a_replay_can_be_stopped_and_repeated(subject: &mut dyn Subject) {
    let mut store = subject.fresh();
    append(&mut *store, &[(1, b"one"), (2, b"two"), (1, b"three")]);
    let mut seen = 0;
    let stopped = store.replay(&mut |_| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(stopped.is_ok(), "a replay that `visit` stops is no error: {stopped:?}");
    assert_eq!(seen, 2, "`visit` is not called again after it has stopped the replay");
    assert_eq!(replay(&mut *store).len(), 3, "a replay can be repeated");
}

fn a_checkpoint_replaces_the_records_before_it_began(subject: &mut dyn Subject) {
    let mut store = subject.fresh();
    append(&mut *store, &[(1, b"one"), (1, b"two")]);
    let mut writer = begin(&mut *store, 1);
    append(&mut *store, &[(1, b"three")]);
    write(&mut *writer, &[b"chunk a", b"chunk b"]);
    append(&mut *store, &[(1, b"four")]);
    let before = replay(&mut *store);
    assert_eq!(before.len(), 4, "until it is finished, a checkpoint has no effect");
    finish(&mut *store, writer);
    let expected =
        [chunk_of(1, b"chunk a"), chunk_of(1, b"chunk b"), record_of(1, b"three"), record_of(1, b"four")];
    assert_eq!(replay(&mut *store), expected, "a checkpoint stands for what was appended before it began");
    assert_eq!(store.stats().checkpoints, 1, "checkpoints are counted");
    let mut store = subject.reopen(store);
    assert_eq!(replay(&mut *store), expected, "a finished checkpoint survives a restart");
    let mut writer = begin(&mut *store, 1);
    write(&mut *writer, &[b"later"]);
    finish(&mut *store, writer);
    let mut store = subject.reopen(store);
    assert_eq!(replay(&mut *store), [chunk_of(1, b"later")], "a later checkpoint replaces the earlier one");
}

fn a_checkpoint_concerns_its_shard_alone(subject: &mut dyn Subject) {
    let mut store = subject.fresh();
    append(&mut *store, &[(1, b"one"), (2, b"two"), (1, b"three")]);
    let (mut of_two, mut of_one) = (begin(&mut *store, 2), begin(&mut *store, 1));
    write(&mut *of_one, &[b"one and three"]);
    finish(&mut *store, of_one);
    let found = replay(&mut *store);
    let expected = [chunk_of(1, b"one and three"), record_of(2, b"two")];
    assert!(is_either_order(&found, &expected), "the other shard keeps its records: {found:?}");
    write(&mut *of_two, &[b"two"]);
    finish(&mut *store, of_two);
    let mut store = subject.reopen(store);
    let found = replay(&mut *store);
    let expected = [chunk_of(1, b"one and three"), chunk_of(2, b"two")];
    assert!(is_either_order(&found, &expected), "checkpoints of two shards do not mix: {found:?}");
}

fn an_abandoned_checkpoint_has_no_effect(subject: &mut dyn Subject) {
    let mut store = subject.fresh();
    append(&mut *store, &[(1, b"one")]);
    let mut dropped = begin(&mut *store, 1);
    write(&mut *dropped, &[b"dropped"]);
    drop(dropped);
    assert_eq!(replay(&mut *store), [record_of(1, b"one")], "a dropped writer leaves no trace");
    let mut superseded = begin(&mut *store, 1);
    write(&mut *superseded, &[b"superseded"]);
    append(&mut *store, &[(1, b"two")]);
    let mut current = begin(&mut *store, 1);
    finish(&mut *store, superseded);
    let expected = [record_of(1, b"one"), record_of(1, b"two")];
    assert_eq!(replay(&mut *store), expected, "a checkpoint begun before the latest one has no effect");
    write(&mut *current, &[b"one and two"]);
    finish(&mut *store, current);
    assert_eq!(replay(&mut *store), [chunk_of(1, b"one and two")]);
    let mut unfinished = begin(&mut *store, 1);
    write(&mut *unfinished, &[b"unfinished"]);
    drop(unfinished);
    let mut store = subject.reopen(store);
    assert_eq!(
        replay(&mut *store),
        [chunk_of(1, b"one and two")],
        "an unfinished one is gone after a restart"
    );
}

fn a_due_checkpoint_is_named_once(subject: &mut dyn Subject) {
    let mut store = subject.fresh();
    assert_eq!(store.checkpoint_due(), None, "an empty store needs no checkpoint");
    let record = [7; 1_000];
    let mut due = None;
    for _ in 0..DUE_RECORDS_MAX {
        append(&mut *store, &[(5, &record)]);
        due = store.checkpoint_due();
        if due.is_some() {
            break;
        }
    }
    // A store may ask for none at all, or only for more than a test should write.
    let Some(shard) = due else { return };
    assert_eq!(shard, 5, "the only shard with records is the one that is due");
    let mut writer = begin(&mut *store, shard);
    assert_eq!(store.checkpoint_due(), None, "a checkpoint that has begun is not named again");
    write(&mut *writer, &[b"all of them"]);
    finish(&mut *store, writer);
    assert_eq!(store.checkpoint_due(), None, "a finished checkpoint is not due");
    assert_eq!(replay(&mut *store), [chunk_of(5, b"all of them")]);
}

/// Batches, checkpoints and restarts in a fixed pseudo-random order, compared with a model of the contents.
fn a_long_script_holds_to_its_model(subject: &mut dyn Subject) {
    let mut store = subject.fresh();
    let mut model: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
    let mut pending: Option<Box<dyn CheckpointWriter>> = None;
    let mut number = 0x5eed_u64;
    let mut draw = |below: u64| {
        // Knuth's MMIX generator; its low bits have short periods.
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % below
    };
    for _ in 0..SCRIPT_STEPS {
        let batch: Vec<(u16, Vec<u8>)> =
            (0..draw(4)).map(|_| (draw(3) as u16, vec![draw(256) as u8; draw(300) as usize])).collect();
        let entries: Vec<(u16, &[u8])> =
            batch.iter().map(|(shard, record)| (*shard, record.as_slice())).collect();
        append(&mut *store, &entries);
        for (shard, record) in &batch {
            model.entry(*shard).or_default().push(record.clone());
        }
        match draw(8) {
            0 => {
                let shard = draw(3) as u16;
                let mut writer = begin(&mut *store, shard);
                for record in model.get(&shard).into_iter().flatten() {
                    // One byte before each, since an empty chunk says nothing.
                    write(&mut *writer, &[&[&[1][..], record].concat()]);
                }
                pending = Some(writer);
            }
            1 => pending = None,
            2 | 3 => {
                if let Some(writer) = pending.take() {
                    finish(&mut *store, writer);
                }
            }
            4 => {
                pending = None;
                store = subject.reopen(store);
            }
            _ => {}
        }
        let mut found: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
        for Visited { shard, is_chunk, bytes } in replay(&mut *store) {
            found.entry(shard).or_default().push(if is_chunk { bytes[1..].to_vec() } else { bytes });
        }
        assert_eq!(found, model, "chunks and the records behind them make up all records of each shard");
    }
}

/// A call of `visit`, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Visited {
    shard: u16,
    is_chunk: bool,
    bytes: Vec<u8>,
}

fn record_of(shard: u16, bytes: &[u8]) -> Visited {
    Visited { shard, is_chunk: false, bytes: bytes.to_vec() }
}

fn chunk_of(shard: u16, bytes: &[u8]) -> Visited {
    Visited { shard, is_chunk: true, bytes: bytes.to_vec() }
}

fn append(store: &mut dyn Store, batch: &[(u16, &[u8])]) {
    let entries: Vec<Entry<'_>> =
        batch.iter().map(|(shard, record)| Entry { shard: *shard, record }).collect();
    store.append(&entries).expect("a healthy store appends");
}

/// Everything the store holds. Chunks of a shard come together, and before its records.
fn replay(store: &mut dyn Store) -> Vec<Visited> {
    let mut found: Vec<Visited> = Vec::new();
    let replayed = store.replay(&mut |replayed| {
        let visited = match replayed {
            Replayed::Chunk { shard, chunk } => chunk_of(shard, chunk),
            Replayed::Record { shard, record } => record_of(shard, record),
        };
        if visited.is_chunk {
            let same = |seen: &Visited| seen.shard == visited.shard;
            let is_in_one_run = found.last().is_none_or(same) || !found.iter().any(same);
            assert!(is_in_one_run, "the chunks of shard {} come together, before its records", visited.shard);
            assert!(
                !found.iter().any(|seen| same(seen) && !seen.is_chunk),
                "the chunks of shard {} come before its records",
                visited.shard
            );
        }
        found.push(visited);
        ControlFlow::Continue(())
    });
    replayed.expect("a healthy store can be read");
    found
}

fn begin(store: &mut dyn Store, shard: u16) -> Box<dyn CheckpointWriter> {
    store.begin_checkpoint(shard).expect("a healthy store begins a checkpoint")
}

fn write(writer: &mut dyn CheckpointWriter, chunks: &[&[u8]]) {
    for chunk in chunks {
        writer.chunk(chunk).expect("a healthy store writes chunks");
    }
}

fn finish(store: &mut dyn Store, writer: Box<dyn CheckpointWriter>) {
    let written = writer.finish().expect("a healthy store makes chunks durable");
    store.finish_checkpoint(written).expect("a healthy store takes a checkpoint");
}

/// Whether two shards' entries were replayed, in either order.
fn is_either_order<T: Clone + PartialEq>(found: &[T], expected: &[T; 2]) -> bool {
    found == expected || found == [expected[1].clone(), expected[0].clone()]
}

/// Records of 1 kB appended at most while no checkpoint is due.
const DUE_RECORDS_MAX: u32 = 64;

/// Steps of the long script: enough for some ten checkpoints, finished and abandoned, and as many restarts.
const SCRIPT_STEPS: u32 = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, StoreError, StoreStats, WrittenCheckpoint};

    /// A store in memory with one promise broken.
    #[derive(Debug)]
    struct Broken {
        store: MemoryStore,
        promise: Promise,
        appends: u32,
    }

    #[derive(Clone, Copy, Debug)]
    enum Promise {
        /// Each record survives.
        Records,
        /// A batch keeps its order.
        Order,
        /// A checkpoint stands only for the records appended before it began.
        Checkpoints,
        /// A replay stops when `visit` says so.
        Stopping,
    }

    impl Store for Broken {
        fn append(&mut self, batch: &[Entry<'_>]) -> Result<(), StoreError> {
            self.appends += 1;
            match self.promise {
                Promise::Records if self.appends.is_multiple_of(30) => Ok(()),
                Promise::Order => {
                    let mut batch = batch.to_vec();
                    batch.reverse();
                    self.store.append(&batch)
                }
                _ => self.store.append(batch),
            }
        }

        fn replay(
            &mut self,
            visit: &mut dyn FnMut(Replayed<'_>) -> ControlFlow<()>,
        ) -> Result<(), StoreError> {
            match self.promise {
                Promise::Stopping => self.store.replay(&mut |replayed| {
                    let _ = visit(replayed);
                    ControlFlow::Continue(())
                }),
                _ => self.store.replay(visit),
            }
        }

        fn begin_checkpoint(&mut self, shard: u16) -> Result<Box<dyn CheckpointWriter>, StoreError> {
            self.store.begin_checkpoint(shard)
        }

        fn finish_checkpoint(&mut self, written: WrittenCheckpoint) -> Result<(), StoreError> {
            if matches!(self.promise, Promise::Checkpoints) {
                // As if it had begun only now: the records since then are lost.
                let shard = written.shard();
                let mut late = self.store.begin_checkpoint(shard)?;
                late.chunk(b"late")?;
                return self.store.finish_checkpoint(late.finish()?);
            }
            self.store.finish_checkpoint(written)
        }

        fn checkpoint_due(&self) -> Option<u16> {
            self.store.checkpoint_due()
        }

        fn stats(&self) -> StoreStats {
            self.store.stats()
        }
    }

    struct MemorySubject(Option<Promise>);

    impl Subject for MemorySubject {
        fn fresh(&mut self) -> Box<dyn Store> {
            let store = MemoryStore::with_record_bytes_max(4_096);
            match self.0 {
                Some(promise) => Box::new(Broken { store, promise, appends: 0 }),
                None => Box::new(store),
            }
        }

        fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
            store
        }
    }

    #[test]
    fn the_store_in_memory_conforms() {
        run(&mut MemorySubject(None));
    }

    #[test]
    fn a_broken_promise_is_found() {
        for promise in [Promise::Records, Promise::Order, Promise::Checkpoints, Promise::Stopping] {
            let outcome = std::panic::catch_unwind(|| run(&mut MemorySubject(Some(promise))));
            assert!(outcome.is_err(), "nobody saw that this promise is broken: {promise:?}");
        }
    }
}

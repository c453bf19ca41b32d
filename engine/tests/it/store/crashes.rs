//! Crashes and errors at every operation of the script: nothing that was durable is lost, nothing is made up.

use std::io;

use fulmen::store::{LogOptions, LogStore, MemoryStore, Store, StoreError};
use fulmen_sim::{SimDisk, Survival};

use super::model::{Model, NODE, OPTIONS, Progress, SMALL_FRAMES, open, open_with, script};

const STEPS: u32 = 70;

/// Runs the script on a disk until it ends or the store fails.
fn run(
    disk: &SimDisk,
    options: LogOptions,
    steps: std::ops::Range<u32>,
    progress: &mut Progress,
) -> Result<(), StoreError> {
    let mut store = open_with(disk.clone(), options)?;
    script(&mut store, steps, progress)
}

/// Opens the disk after a crash, again and again, each time dying one operation later, until it opens; checks it.
fn reopen(disk: SimDisk, survival: Survival, progress: &Progress, seed: u64) -> (SimDisk, Model) {
    let (mut disk, mut operation) = (disk, 0);
    loop {
        disk.die_at(operation);
        let opened = open(disk.clone());
        if disk.is_dead() {
            disk = disk.after_crash(survival, seed + operation);
            operation += 1;
            assert!(operation < 100, "recovery takes no end");
            continue;
        }
        let mut store = opened.unwrap_or_else(|error| panic!("{survival:?}, seed {seed}: {error}"));
        let found = Model::replay(&mut store).expect("an open store can be replayed");
        assert!(progress.allows(&found), "{survival:?}, seed {seed}: found {found:?}, expected {progress:?}");
        return (disk, found);
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_durable() {
    crash_everywhere(OPTIONS, STEPS, 250);
}

#[test]
fn a_crash_between_the_parts_of_a_record_loses_it_whole() {
    crash_everywhere(SMALL_FRAMES, STEPS / 2, 250);
}

/// Crashes at every operation of the first `steps` of the script, which are `operations_min` at least.
fn crash_everywhere(options: LogOptions, steps: u32, operations_min: u64) {
    let disk = SimDisk::new();
    let mut whole = Progress::default();
    run(&disk, options, 0..steps, &mut whole).expect("a healthy disk");
    let operations = disk.operations();
    assert!(operations > operations_min, "the script does too little: {operations} operations");
    for operation in 0..operations {
        for survival in Survival::EACH {
            let disk = SimDisk::new();
            disk.die_at(operation);
            let mut progress = Progress::default();
            run(&disk, options, 0..steps, &mut progress).expect_err("the disk dies");
            let seed = operation * 1_000;
            let (disk, found) = reopen(disk.after_crash(survival, seed), survival, &progress, seed);
            // It goes on from there, and a second crash finds the state that the first one left.
            disk.die_at(disk.operations() + operation % 13);
            let mut progress = Progress { durable: found, in_flight: Vec::new() };
            run(&disk, options, steps..steps + 6, &mut progress).ok();
            reopen(disk.after_crash(survival, seed + 500), survival, &progress, seed + 500);
        }
    }
    println!("{operations} operations, {} ways to survive each", Survival::EACH.len());
}

#[test]
fn an_error_at_any_operation_is_typed_and_the_last_word() {
    let disk = SimDisk::new();
    run(&disk, OPTIONS, 0..STEPS, &mut Progress::default()).expect("a healthy disk");
    for operation in 0..disk.operations() {
        for (kind, is_full) in [(io::ErrorKind::StorageFull, true), (io::ErrorKind::Other, false)] {
            let disk = SimDisk::new();
            disk.fail_at(operation, kind);
            let mut progress = Progress::default();
            let mut store = open(disk.clone()).expect("opening an empty directory changes nothing");
            let outcome = script(&mut store, 0..STEPS, &mut progress);
            if let Err(error) = &outcome {
                let as_expected = match error {
                    StoreError::DiskFull { .. } => is_full,
                    StoreError::Io { .. } => !is_full,
                    _ => false,
                };
                assert!(as_expected, "operation {operation}: {error:?}");
            }
            // A failed checkpoint may have left the log usable; a failed append may not.
            if !progress.in_flight.is_empty() {
                let again = script(&mut store, 0..1, &mut Progress::default());
                assert!(matches!(again, Err(StoreError::Stopped { .. })), "operation {operation}: {again:?}");
                assert_eq!(store.checkpoint_due(), None);
            }
            for survival in Survival::EACH {
                reopen(disk.after_crash(survival, operation), survival, &progress, operation);
            }
        }
    }
}

#[test]
fn the_log_and_the_memory_hold_the_same() {
    let disk = SimDisk::new();
    let mut memory = MemoryStore::with_record_bytes_max(1_000);
    let mut log = open(disk.clone()).unwrap();
    let (mut of_memory, mut of_log) = (Progress::default(), Progress::default());
    script(&mut memory, 0..STEPS, &mut of_memory).unwrap();
    script(&mut log, 0..STEPS, &mut of_log).unwrap();
    assert_eq!(Model::replay(&mut memory).unwrap(), of_memory.durable);
    assert_eq!(Model::replay(&mut log).unwrap(), of_memory.durable);
    assert!(memory.stats().checkpoints > 5 && log.stats().checkpoints > 5);
    assert_eq!(log.stats().records, memory.stats().records);
}

#[test]
fn space_is_reclaimed_and_a_batch_costs_one_sync() {
    let disk = SimDisk::new();
    // Checkpoints here are everything ever appended, and so are kept small by replacing the model's.
    let options = LogOptions { segment_bytes: 1_000, log_bytes_max: 4_000, ..OPTIONS };
    let mut store = LogStore::open_on(std::sync::Arc::new(disk.clone()), NODE, options).unwrap();
    let mut most = 0;
    for step in 0..2_000_u32 {
        let record = [step as u8; 50];
        let entry = |shard| fulmen::store::Entry { shard, record: &record };
        // One of the shards stays idle after a single record, and must not hold the log.
        let batch = if step == 0 { vec![entry(0), entry(1), entry(2)] } else { vec![entry(0), entry(1)] };
        let before = (disk.syncs(), store.stats());
        store.append(&batch).unwrap();
        let after = store.stats();
        assert_eq!(after.syncs - before.1.syncs, disk.syncs() - before.0);
        // A segment is begun with two syncs, before which the room of the last one is cut if any is left.
        assert!([1, 3, 4].contains(&(disk.syncs() - before.0)));
        while let Some(shard) = store.checkpoint_due() {
            let mut writer = store.begin_checkpoint(shard).unwrap();
            writer.chunk(&[1; 100]).unwrap();
            store.finish_checkpoint(writer.finish().unwrap()).unwrap();
        }
        most = most.max(store.stats().file_bytes);
    }
    assert!(most < 6_500, "{most} bytes");
    let listed: u64 = fulmen::store::Disk::list(&disk).unwrap().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(store.stats().file_bytes, listed);
}

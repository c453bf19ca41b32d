//! The log in a real directory: locked, found again, and byte for byte as documented.

use std::sync::Arc;

use fulmen::store::{Directory, Entry, LogOptions, LogStore, Store, StoreError};

use super::model::{Model, NODE, Progress, length_prefixed, script};

#[test]
fn a_store_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut progress = Progress::default();
    for round in 0..3 {
        let mut store = LogStore::open(&path, NODE).unwrap();
        assert_eq!(Model::replay(&mut store).unwrap(), progress.durable);
        script(&mut store, round * 10..(round + 1) * 10, &mut progress).unwrap();
        // An abandoned checkpoint leaves no trace.
        let mut writer = store.begin_checkpoint(1).unwrap();
        writer.chunk(b"left").unwrap();
        drop(writer);
        // One for each append.
        assert!(store.stats().syncs >= 10);
    }
    let mut store = LogStore::open(&path, NODE).unwrap();
    assert_eq!(Model::replay(&mut store).unwrap(), progress.durable);
}

#[test]
fn a_second_open_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let first = LogStore::open(directory.path(), NODE).unwrap();
    let second = LogStore::open(directory.path(), NODE).unwrap_err();
    assert!(matches!(second, StoreError::Locked { .. }), "{second}");
    drop(first);
    LogStore::open(directory.path(), NODE).unwrap();
}

#[test]
fn a_record_and_a_chunk_longer_than_a_frame_survive() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = LogStore::open(directory.path(), NODE).unwrap();
    let large: Vec<u8> = (0..40 << 20).map(|at: u32| (at >> 12) as u8).collect();
    let batch = [
        Entry { shard: 0, record: b"before" },
        Entry { shard: 0, record: &large },
        Entry { shard: 1, record: b"after" },
    ];
    store.append(&batch).unwrap();
    let mut writer = store.begin_checkpoint(0).unwrap();
    writer.chunk(&length_prefixed(b"before")).unwrap();
    let chunk = length_prefixed(&large);
    writer.chunk(&chunk).unwrap();
    drop((writer, store));
    let mut store = LogStore::open(directory.path(), NODE).unwrap();
    let found = Model::replay(&mut store).unwrap();
    assert!(found.0[&0] == [&b"before"[..], &large] && found.0[&1] == [b"after"]);
    let mut writer = store.begin_checkpoint(0).unwrap();
    writer.chunk(&length_prefixed(b"before")).unwrap();
    writer.chunk(&chunk).unwrap();
    store.finish_checkpoint(writer.finish().unwrap()).unwrap();
    drop(store);
    let found = Model::replay(&mut LogStore::open(directory.path(), NODE).unwrap()).unwrap();
    assert!(found.0[&0] == [&b"before"[..], &large] && found.0[&1] == [b"after"]);
}

/// The bytes that `FORMAT.md` gives as its example. They may never change: a new version gets its own.
#[test]
fn the_bytes_are_those_of_version_2() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Directory::open(directory.path()).unwrap();
    let options = LogOptions { salt: 0x0123_4567_89AB_CDEF, ..LogOptions::default() };
    let mut store = LogStore::open_on(Arc::new(disk), NODE, options).unwrap();
    store.append(&[Entry { shard: 7, record: b"one" }, Entry { shard: 1, record: b"" }]).unwrap();
    let mut writer = store.begin_checkpoint(7).unwrap();
    writer.chunk(b"state").unwrap();
    store.finish_checkpoint(writer.finish().unwrap()).unwrap();
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    let documented = include_str!("../../../src/store/FORMAT.md");
    let example = |name: &str| {
        let (_, after) = documented.split_once(&format!("\n`{name}`")).expect("the example stands there");
        let (_, after) = after.split_once(":\n\n").expect("its bytes follow");
        let lines = after.lines().take_while(|line| line.starts_with("    "));
        lines
            .map(|line| line.split('#').next().unwrap().split_whitespace().collect::<String>())
            .collect::<String>()
    };
    let checkpoint = "0007-0000000000000001.checkpoint";
    assert_eq!(hex::encode(read(checkpoint)), example(checkpoint));
    let segment = read("0000000000000001.log");
    let (frames, preallocated) = segment.split_at(example("0000000000000001.log").len() / 2);
    assert_eq!(hex::encode(frames), example("0000000000000001.log"));
    assert_eq!(segment.len(), 16 << 20);
    assert!(preallocated.iter().all(|byte| *byte == 0), "the rest is preallocated zeros");
}

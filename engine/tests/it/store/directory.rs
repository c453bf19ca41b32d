//! The log in a real directory: locked, found again, and byte for byte as documented.

use fulmen::store::{Entry, LogOptions, LogStore, Store, StoreError};

use super::model::{Model, NODE, Progress, script};

#[test]
fn a_store_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut progress = Progress::default();
    for round in 0..3 {
        let mut store = LogStore::open(&path, NODE).unwrap();
        assert_eq!(Model::replay(&mut store).unwrap(), progress.durable);
        script(&mut store, round * 10..(round + 1) * 10, &mut progress).unwrap();
        let mut writer = store.begin_checkpoint(1).unwrap();
        writer.chunk(b"").unwrap();
        drop(writer);
        assert!(store.stats().syncs >= 10);
    }
    let mut store = LogStore::open(&path, NODE).unwrap();
    assert_eq!(Model::replay(&mut store).unwrap(), progress.durable);
}

#[test]
fn a_second_process_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let first = LogStore::open(directory.path(), NODE).unwrap();
    let second = LogStore::open(directory.path(), NODE).unwrap_err();
    assert!(matches!(second, StoreError::Locked { .. }), "{second}");
    drop(first);
    LogStore::open(directory.path(), NODE).unwrap();
}

#[test]
fn too_large_a_record_is_refused_and_harms_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = LogStore::open(directory.path(), NODE).unwrap();
    let most = (16 << 20) - 15;
    let large = vec![1; most + 1];
    let refused = store.append(&[Entry { shard: 0, record: &large }]).unwrap_err();
    assert!(matches!(refused, StoreError::TooLarge { .. }), "{refused}");
    // A batch larger than a frame becomes several.
    let batch = [Entry { shard: 0, record: &large[..most] }, Entry { shard: 0, record: b"more" }];
    store.append(&batch).unwrap();
    drop(store);
    let found = Model::replay(&mut LogStore::open(directory.path(), NODE).unwrap()).unwrap();
    assert_eq!(found.0[&0], [&large[..most], b"more"]);
}

/// The bytes that `FORMAT.md` gives as its example. They may never change: a new version gets its own.
#[test]
fn the_bytes_are_those_of_version_1() {
    use fulmen::store::Directory;
    let directory = tempfile::tempdir().unwrap();
    let disk = Directory::open(directory.path()).unwrap();
    let options = LogOptions { salt: 0x0123_4567_89AB_CDEF, ..LogOptions::default() };
    let mut store = LogStore::open_on(std::sync::Arc::new(disk), NODE, options).unwrap();
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
    let (frames, room) = segment.split_at(example("0000000000000001.log").len() / 2);
    assert_eq!(hex::encode(frames), example("0000000000000001.log"));
    assert_eq!((segment.len(), room.iter().max()), (16 << 20, Some(&0)), "the rest is room");
}

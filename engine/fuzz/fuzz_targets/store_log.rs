//! The log's reader on files that were tampered with: it refuses them, or returns a prefix of the written records.
//!
//! The input is a program: records to append and checkpoints to take, then bytes of files to change, cut or insert.
#![no_main]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use fulmen::store::{Disk, Entry, LogOptions, LogStore, Replayed, Store};
use fulmen::wire::units::NodeId;
use fulmen_sim::{SimDisk, Survival};
use libfuzzer_sys::fuzz_target;

const NODE: NodeId = NodeId([2; 33]);
const OPTIONS: LogOptions =
    LogOptions { segment_bytes: 300, log_bytes_max: 900, frame_bytes_max: 64, salt: 7 };

fuzz_target!(|program: &[u8]| {
    let mut program = program.iter().copied();
    let disk = SimDisk::new();
    let mut written = BTreeMap::new();
    write(&disk, &mut program, &mut written);
    // Half of the programs tamper with a store that had time to settle, half with one whose names may come back.
    let survival =
        if program.next().is_some_and(|byte| byte % 2 == 0) { Survival::All } else { Survival::None };
    let disk = disk.after_crash(survival, 0);
    tamper(&disk, &mut program);
    let Ok(mut store) = LogStore::open_on(Arc::new(disk.clone()), NODE, OPTIONS) else { return };
    let found = replay(&mut store);
    for (shard, records) in &found {
        let all = written.get(shard).map_or(&[][..], Vec::as_slice);
        assert!(all.starts_with(records), "shard {shard} gives back what was never written: {records:?}");
    }
    // A log that opens can be appended to, and opens again.
    store.append(&[Entry { shard: 1, record: b"more" }]).expect("a disk without faults");
    drop(store);
    let mut store = LogStore::open_on(Arc::new(disk), NODE, OPTIONS).expect("what was repaired stays so");
    let mut expected = found;
    expected.entry(1).or_default().push(b"more".to_vec());
    assert_eq!(replay(&mut store), expected);
});

fn write(disk: &SimDisk, program: &mut impl Iterator<Item = u8>, written: &mut BTreeMap<u16, Vec<Vec<u8>>>) {
    let mut store = LogStore::open_on(Arc::new(disk.clone()), NODE, OPTIONS).expect("an empty disk");
    for _ in 0..program.next().unwrap_or_default() % 40 {
        let (Some(shard), Some(length)) = (program.next(), program.next()) else { return };
        let (shard, record) = (u16::from(shard % 3), vec![shard; usize::from(length)]);
        if length == 0 {
            let mut writer = store.begin_checkpoint(shard).expect("a disk without faults");
            for record in written.get(&shard).into_iter().flatten() {
                writer.chunk(record).expect("a disk without faults");
            }
            let done = writer.finish().expect("a disk without faults");
            store.finish_checkpoint(done).expect("a disk without faults");
            continue;
        }
        store.append(&[Entry { shard, record: &record }]).expect("a disk without faults");
        written.entry(shard).or_default().push(record);
    }
}

fn tamper(disk: &SimDisk, program: &mut impl Iterator<Item = u8>) {
    while let (Some(what), Some(high), Some(low)) = (program.next(), program.next(), program.next()) {
        let files = disk.list().expect("it lives");
        let Some((name, bytes)) = files.get(usize::from(what / 4) % files.len().max(1)) else { return };
        let at = u64::from(u16::from_be_bytes([high, low]));
        match what % 4 {
            0 => disk.flip(name, at % (bytes * 8).max(1)),
            1 => disk.truncate(name, at % (bytes + 1)).expect("it lives"),
            2 => disk.remove(name).expect("it lives"),
            _ => {
                let mut whole = disk.read(name).expect("it lives");
                let rest: Vec<u8> = program.by_ref().take(usize::from(low % 64)).collect();
                whole.splice((at as usize % (whole.len() + 1)).., rest);
                let mut file = disk.create(name).expect("it lives");
                file.append(&whole).and_then(|()| file.sync()).expect("it lives");
            }
        }
    }
}

fn replay(store: &mut LogStore) -> BTreeMap<u16, Vec<Vec<u8>>> {
    let mut found: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
    let all = store.replay(&mut |replayed| {
        let (shard, bytes) = match replayed {
            Replayed::Chunk { shard, chunk } => (shard, chunk),
            Replayed::Record { shard, record } => (shard, record),
        };
        found.entry(shard).or_default().push(bytes.to_vec());
        ControlFlow::Continue(())
    });
    all.expect("what opens can be read");
    found
}

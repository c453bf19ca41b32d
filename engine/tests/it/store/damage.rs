//! Rot, missing files and strange files: the start is refused with place and cause, or nothing is lost.

use fulmen::store::{Disk, LogStore, StoreError};
use fulmen::wire::units::NodeId;
use fulmen_sim::{SimDisk, Survival};

use super::model::{Model, OPTIONS, Progress, open, script};

/// A disk after a script: segments, checkpoints, and a model of their content.
fn written() -> (SimDisk, Model) {
    let disk = SimDisk::new();
    let mut progress = Progress::default();
    script(&mut open(disk.clone()).unwrap(), 0..40, &mut progress).unwrap();
    (disk.after_crash(Survival::All, 0), progress.durable)
}

fn files(disk: &SimDisk) -> Vec<(String, u64)> {
    let files = disk.list().unwrap();
    for kind in [".log", ".checkpoint"] {
        let count = files.iter().filter(|(name, _)| name.ends_with(kind)).count();
        assert!(count > 1, "the script leaves too little: {files:?}");
    }
    files
}

/// A file without the zeros at its end.
fn written_bytes(disk: &SimDisk, name: &str) -> Vec<u8> {
    let mut bytes = disk.read(name).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    bytes
}

#[test]
fn any_flipped_bit_stops_the_start_or_costs_the_last_batch() {
    let (disk, model) = written();
    let last_segment =
        files(&disk).into_iter().map(|(name, _)| name).filter(|name| name.ends_with(".log")).max();
    let (mut refused, mut cut) = (0, 0);
    for (name, bytes) in files(&disk) {
        let written = written_bytes(&disk, &name).len() as u64;
        for bit in (0..bytes).map(|byte| byte * 8 + byte % 8) {
            let disk = disk.after_crash(Survival::All, 0);
            disk.flip(&name, bit);
            match open(disk) {
                Err(StoreError::Damaged { file, offset, .. }) => {
                    assert_eq!(file, name);
                    assert!(offset <= bit / 8, "the damage is at {}, not behind {offset}", bit / 8);
                    refused += 1;
                }
                Err(StoreError::UnknownVersion { file, .. }) => {
                    assert_eq!(file, name);
                    refused += 1;
                }
                Err(other) => panic!("{name}, bit {bit}: {other}"),
                // A rotten last batch cannot be distinguished from one that a crash has torn.
                Ok(mut store) => {
                    assert_eq!(Some(&name), last_segment.as_ref(), "bit {bit}");
                    let found = Model::replay(&mut store).unwrap();
                    if bit / 8 >= written {
                        assert_eq!(found, model, "in room, damage is none");
                        continue;
                    }
                    assert_ne!(found, model, "{name}, bit {bit}: damage goes unnoticed");
                    let lost = |(shard, records): (&u16, &Vec<Vec<u8>>)| {
                        records.len() - found.0.get(shard).map_or(0, Vec::len)
                    };
                    assert!(model.0.iter().map(lost).sum::<usize>() <= 5);
                    cut += 1;
                }
            }
        }
    }
    assert!(refused > 2_000 && cut > 20 && cut < 600, "{refused} refused, {cut} cut");
}

#[test]
fn a_missing_file_is_missed() {
    let (disk, model) = written();
    let last_segment =
        files(&disk).into_iter().map(|(name, _)| name).filter(|name| name.ends_with(".log")).max();
    for (name, _) in files(&disk) {
        let disk = disk.after_crash(Survival::All, 0);
        disk.remove(&name).unwrap();
        match open(disk) {
            Err(StoreError::Damaged { what, .. }) => assert!(what.contains("missing"), "{name}: {what}"),
            // Without its last segment a store is a rolled-back copy, which reestablishing the channels brings to
            // light.
            Ok(mut store) => {
                assert_eq!(Some(name), last_segment);
                assert_ne!(Model::replay(&mut store).unwrap(), model);
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn a_cut_file_stops_the_start_or_costs_the_last_batches() {
    let (disk, model) = written();
    let last_segment =
        files(&disk).into_iter().map(|(name, _)| name).filter(|name| name.ends_with(".log")).max();
    for (name, bytes) in files(&disk) {
        for length in 0..bytes {
            let disk = disk.after_crash(Survival::All, 0);
            disk.truncate(&name, length).unwrap();
            match open(disk) {
                Err(StoreError::Damaged { .. }) => {}
                Ok(mut store) => {
                    assert_eq!(Some(&name), last_segment.as_ref(), "cut to {length}");
                    let found = Model::replay(&mut store).unwrap();
                    for (shard, records) in &model.0 {
                        assert!(records.starts_with(found.0.get(shard).map_or(&[], Vec::as_slice)));
                    }
                }
                Err(other) => panic!("{name}: {other}"),
            }
        }
    }
}

#[test]
fn another_node_is_refused() {
    let (disk, _) = written();
    let other = NodeId([3; 33]);
    let refused = LogStore::open_on(std::sync::Arc::new(disk), other, OPTIONS).unwrap_err();
    assert!(matches!(refused, StoreError::OtherNode { expected, .. } if expected == other), "{refused}");
}

/// A peer decides some bytes of every record: those of an onion. It must not be able to write bytes that look like a
/// frame.
#[test]
fn a_frame_inside_a_torn_record_is_not_damage() {
    use fulmen::store::{Entry, Store};
    let disk = SimDisk::new();
    let mut store = open(disk.clone()).unwrap();
    store.append(&[Entry { shard: 0, record: b"first" }]).unwrap();
    // The next frame but one as it would look in a store of another salt, as a peer may guess it.
    let twin = SimDisk::new();
    let options = fulmen::store::LogOptions { salt: 1, ..OPTIONS };
    let mut guess =
        LogStore::open_on(std::sync::Arc::new(twin.clone()), super::model::NODE, options).unwrap();
    for record in [&b"first"[..], b"second", b"third"] {
        guess.append(&[Entry { shard: 0, record }]).unwrap();
    }
    let (name, _) = twin.list().unwrap().pop().unwrap();
    let third = written_bytes(&twin, &name).split_off(written_bytes(&twin, &name).len() - 40);
    let record = [&[0; 100][..], &third, &[0; 100]].concat();
    store.append(&[Entry { shard: 0, record: &record }]).unwrap();
    // The record ends in zeros, which are no room.
    let end = written_bytes(&disk, &name).len() + 100;
    let before = (end - record.len() - 35) as u64;
    disk.flip(&name, before * 8);
    let found = Model::replay(&mut open(disk).unwrap()).unwrap();
    assert_eq!(found.0[&0], [b"first".to_vec()]);
}

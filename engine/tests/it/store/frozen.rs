//! Stores of every format version, kept as files: each is opened by this version, or refused by name.
//!
//! `tests/vectors/store/VERSION/` holds the files of a store of node `02` × 33 and, as `contents.txt`, a line for each
//! record and chunk that a replay visits. They were written from `FORMAT.md` by another program than the engine: three
//! segments and two checkpoints, records in parts from version 2 on. A new version gets a new directory; none is ever
//! changed.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fulmen::store::{LogStore, Replayed, Store, StoreError};

use super::model::NODE;

/// A copy of a frozen store, since opening one may change it.
fn copy_of(version: &str) -> (tempfile::TempDir, String) {
    let from = vectors().join(version);
    let directory = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    let contents = fs::read_to_string(from.join("contents.txt")).unwrap();
    (directory, contents)
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/store")
}

/// The visits of a replay, in the form of `contents.txt`.
fn contents(store: &mut dyn Store) -> Result<String, StoreError> {
    let mut lines = String::new();
    store.replay(&mut |replayed| {
        let (kind, shard, bytes) = match replayed {
            Replayed::Chunk { shard, chunk } => ("chunk", shard, chunk),
            Replayed::Record { shard, record } => ("record", shard, record),
        };
        lines.push_str(&format!("{kind} {shard} {}\n", hex::encode(bytes)));
        ControlFlow::Continue(())
    })?;
    Ok(lines)
}

#[test]
fn every_version_so_far_is_opened() {
    let names = fs::read_dir(vectors()).unwrap();
    let mut versions: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, ["v1", "v2"], "each version has its frozen store");
    for version in versions {
        let (directory, expected) = copy_of(&version);
        let mut store = LogStore::open(directory.path(), NODE).unwrap();
        assert_eq!(contents(&mut store).unwrap(), expected, "{version}");
        assert!(expected.contains("chunk 1") && expected.contains("record 1"), "{version} holds too little");
    }
}

#[test]
fn a_version_to_come_is_refused_by_its_number() {
    let (directory, _) = copy_of("v1");
    for kind in ["log", "checkpoint"] {
        let copy = tempfile::tempdir().unwrap();
        let mut changed = None;
        for entry in fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            if path.extension().is_some_and(|extension| extension == kind) && changed.is_none() {
                bytes[8..10].copy_from_slice(&999_u16.to_be_bytes());
                changed = Some(path.file_name().unwrap().to_string_lossy().into_owned());
            }
            fs::write(copy.path().join(path.file_name().unwrap()), bytes).unwrap();
        }
        let refused = LogStore::open(copy.path(), NODE).unwrap_err();
        assert!(
            matches!(&refused, StoreError::UnknownVersion { file, found: 999, .. } if Some(file) == changed.as_ref()),
            "{refused}"
        );
    }
}

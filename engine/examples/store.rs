//! A store written against the public interface alone: one file for each batch, one for each checkpoint.
//!
//! Simple rather than fast: a batch costs a file, a rename and two syncs, and a restart reads every file. It keeps the
//! whole contract of `fulmen::store::Store`, but never deletes the files that a checkpoint covers.
//! `cargo test -p fulmen --example store` runs the conformance suite on it;
//! `cargo run -p fulmen --example store -- DIRECTORY` starts an engine on it, twice.
//!
//! - `NUMBER.batch`: for each record its shard (2 bytes), its length (4 bytes) and its bytes; big-endian.
//! - `SHARD-NUMBER.checkpoint`: stands for all records of the shard in batches up to `NUMBER`; for each chunk its
//!   length (4 bytes) and its bytes.
//!
//! A file is written under a temporary name, synced, renamed, and its directory is synced: so it is there whole or not
//! at all, and a batch is durable before the next one begins.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fulmen::Engine;
use fulmen::proto::forward::NodeConfig;
use fulmen::proto::keys::NodeSeed;
use fulmen::runtime::{Effects, Storage};
use fulmen::store::{
    CheckpointWriter, Entry, Operation, Replayed, Store, StoreError, StoreStats, WrittenCheckpoint,
};
use fulmen::wire::units::ChainHash;

/// A store in a directory that nothing else may write to; a real one takes a lock.
#[derive(Debug)]
struct FileStore {
    directory: PathBuf,
    /// The number of the last batch.
    last: u64,
    /// The attempt that began each shard's latest checkpoint; finishing an earlier attempt has no effect.
    begun: BTreeMap<u16, u64>,
    attempts: u64,
    stats: StoreStats,
}

/// A checkpoint in progress: its chunks are buffered and written as one file at the end.
#[derive(Debug)]
struct FileWriter {
    directory: PathBuf,
    shard: u16,
    attempt: u64,
    /// The number of the last batch whose records it replaces.
    covers: u64,
    bytes: Vec<u8>,
}

impl FileStore {
    fn open(directory: &Path) -> Result<FileStore, StoreError> {
        let list = |source| failed(Operation::List, directory, source);
        fs::create_dir_all(directory).map_err(list)?;
        let mut store = FileStore {
            directory: directory.to_owned(),
            last: 0,
            begun: BTreeMap::new(),
            attempts: 0,
            stats: StoreStats::default(),
        };
        store.last = store.batches()?.into_iter().max().unwrap_or(0);
        for (_, covers) in store.checkpoints()? {
            store.last = store.last.max(covers);
        }
        Ok(store)
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let list = |source| failed(Operation::List, &self.directory, source);
        let entries = fs::read_dir(&self.directory).map_err(list)?;
        entries.map(|entry| Ok(entry.map_err(list)?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// The numbers of the batches, ascending.
    fn batches(&self) -> Result<Vec<u64>, StoreError> {
        let number = |name: &String| name.strip_suffix(".batch")?.parse().ok();
        let mut numbers: Vec<u64> = self.names()?.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// For each shard with a checkpoint, the number of the last batch that the newest one covers.
    fn checkpoints(&self) -> Result<BTreeMap<u16, u64>, StoreError> {
        let parts = |name: &String| {
            let (shard, covers) = name.strip_suffix(".checkpoint")?.split_once('-')?;
            Some((shard.parse().ok()?, covers.parse().ok()?))
        };
        let mut latest: BTreeMap<u16, u64> = BTreeMap::new();
        for (shard, covers) in self.names()?.iter().filter_map(parts) {
            let known = latest.entry(shard).or_insert(covers);
            *known = covers.max(*known);
        }
        Ok(latest)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.directory.join(name);
        fs::read(&path).map_err(|source| failed(Operation::Read, &path, source))
    }
}

impl Store for FileStore {
    fn append(&mut self, batch: &[Entry<'_>]) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for Entry { shard, record } in batch {
            bytes.extend(shard.to_be_bytes());
            push(&mut bytes, record)?;
        }
        write_durably(&self.directory, &format!("{}.batch", self.last + 1), &bytes)?;
        self.last += 1;
        self.stats.batches += 1;
        self.stats.records += batch.len() as u64;
        self.stats.record_bytes += bytes.len() as u64;
        self.stats.syncs += 2;
        Ok(())
    }

    fn replay(&mut self, visit: &mut dyn FnMut(Replayed<'_>) -> ControlFlow<()>) -> Result<(), StoreError> {
        let checkpoints = self.checkpoints()?;
        for (&shard, covers) in &checkpoints {
            let name = format!("{shard}-{covers}.checkpoint");
            let bytes = self.read(&name)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let chunk = take(&mut rest).ok_or_else(|| damaged(&name, bytes.len() - rest.len()))?;
                if visit(Replayed::Chunk { shard, chunk }).is_break() {
                    return Ok(());
                }
            }
        }
        for number in self.batches()? {
            let name = format!("{number}.batch");
            let bytes = self.read(&name)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let entry = rest.split_first_chunk().and_then(|(shard, tail)| {
                    rest = tail;
                    Some((u16::from_be_bytes(*shard), take(&mut rest)?))
                });
                let (shard, record) = entry.ok_or_else(|| damaged(&name, bytes.len() - rest.len()))?;
                let is_covered = checkpoints.get(&shard).is_some_and(|covers| number <= *covers);
                if !is_covered && visit(Replayed::Record { shard, record }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self, shard: u16) -> Result<Box<dyn CheckpointWriter>, StoreError> {
        self.attempts += 1;
        self.begun.insert(shard, self.attempts);
        let (directory, attempt, covers) = (self.directory.clone(), self.attempts, self.last);
        Ok(Box::new(FileWriter { directory, shard, attempt, covers, bytes: Vec::new() }))
    }

    fn finish_checkpoint(&mut self, written: WrittenCheckpoint) -> Result<(), StoreError> {
        let shard = written.shard();
        let FileWriter { attempt, covers, bytes, .. } = written.into_payload()?;
        let (from, to) = (format!("{shard}-{attempt}.written"), format!("{shard}-{covers}.checkpoint"));
        if self.begun.get(&shard) != Some(&attempt) {
            return Ok(()); // Another one was begun since.
        }
        self.begun.remove(&shard);
        rename_durably(&self.directory, &from, &to)?;
        self.stats.checkpoints += 1;
        self.stats.checkpoint_bytes += bytes.len() as u64;
        // A production store deletes the batches whose records are all covered, and the shard's older checkpoints.
        Ok(())
    }

    fn checkpoint_due(&self) -> Option<u16> {
        None // One that lasts asks for checkpoints once its batches exceed some size.
    }

    fn stats(&self) -> StoreStats {
        self.stats
    }
}

impl CheckpointWriter for FileWriter {
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        push(&mut self.bytes, chunk)
    }

    fn finish(self: Box<Self>) -> Result<WrittenCheckpoint, StoreError> {
        // Durable, but under a name that `replay` ignores until `finish_checkpoint` renames it.
        write_durably(&self.directory, &format!("{}-{}.written", self.shard, self.attempt), &self.bytes)?;
        Ok(WrittenCheckpoint::new(self.shard, *self))
    }
}

/// Appends the length of `bytes` (4 bytes, big-endian), then `bytes`.
fn push(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), StoreError> {
    let most = u32::MAX as usize;
    let length = u32::try_from(bytes.len());
    out.extend(length.map_err(|_| StoreError::TooLarge { bytes: bytes.len(), most })?.to_be_bytes());
    out.extend(bytes);
    Ok(())
}

/// Splits off what [`push`] appended; `None` if `rest` is too short.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk()?;
    let (bytes, tail) = tail.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = tail;
    Some(bytes)
}

fn write_durably(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = format!("{name}.new");
    let at = |operation| move |source| failed(operation, Path::new(name), source);
    let mut file = File::create(directory.join(&temporary)).map_err(at(Operation::Create))?;
    file.write_all(bytes).map_err(at(Operation::Write))?;
    file.sync_all().map_err(at(Operation::Sync))?;
    rename_durably(directory, &temporary, name)
}

fn rename_durably(directory: &Path, from: &str, to: &str) -> Result<(), StoreError> {
    let at = |operation| move |source| failed(operation, Path::new(to), source);
    fs::rename(directory.join(from), directory.join(to)).map_err(at(Operation::Rename))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(at(Operation::Sync))
}

fn failed(operation: Operation, file: &Path, source: io::Error) -> StoreError {
    StoreError::Io { operation, file: file.display().to_string(), source }
}

fn damaged(file: &str, offset: usize) -> StoreError {
    StoreError::Damaged { file: file.to_owned(), offset: offset as u64, what: "it is cut".to_owned() }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).ok_or("name a directory for the node's records")?;
    for start in ["first", "second"] {
        let closing_script = [[0x00, 0x14].as_slice(), &[7; 20]].concat();
        let config = NodeConfig::new(ChainHash::REGTEST, closing_script);
        let storage = Storage::Store(Box::new(FileStore::open(Path::new(&directory))?));
        let engine = Engine::builder(NodeSeed::new([7; 32]), config, storage).start(|_: Effects| {})?;
        println!("{start} start: node {} with {:?}", engine.id(), engine.stats().store);
        engine.shutdown()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fulmen::store::conformance::{Subject, run};

    use super::*;

    struct Directories(Vec<tempfile::TempDir>);

    impl Subject for Directories {
        fn fresh(&mut self) -> Box<dyn Store> {
            let directory = tempfile::tempdir().expect("a directory for temporary files");
            let store = FileStore::open(directory.path()).expect("an empty directory");
            self.0.push(directory);
            Box::new(store)
        }

        fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
            drop(store);
            let directory = self.0.last().expect("a store was opened");
            Box::new(FileStore::open(directory.path()).expect("what it left"))
        }
    }

    #[test]
    fn the_example_conforms() {
        run(&mut Directories(Vec::new()));
    }
}

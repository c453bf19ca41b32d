//! The stores that are compared, each used as its manual says for this work.
//!
//! A database keeps records under shard and number, and snapshots under shard and chunk; a checkpoint writes the chunks
//! and deletes the shard's records in one transaction. LMDB is not among them: its Rust bindings open a file only by
//! an unsafe call, whose promise (nobody else maps the file) the engine could not keep for its embedder. Neither is
//! RocksDB: its C++ build takes longer than all of the engine's.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use fulmen::store::{Entry, LogStore, Replayed, Store};
use fulmen::wire::units::NodeId;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};

/// A store to be measured.
pub(super) trait Candidate {
    /// Makes records durable, all with one commit.
    fn append(&mut self, records: &[(u16, Vec<u8>)]);

    /// Puts a snapshot in the place of a shard's records.
    fn checkpoint(&mut self, shard: u16, chunks: &[Vec<u8>]);

    /// Reads everything: how many chunks and records, and how many bytes of them.
    fn replay(&mut self) -> (usize, usize);
}

/// The numbers of records: each shard's first that is kept, and its next.
#[derive(Default)]
struct Numbers(BTreeMap<u16, (u64, u64)>);

impl Numbers {
    fn next(&mut self, shard: u16) -> [u8; 10] {
        let (_, next) = self.0.entry(shard).or_default();
        *next += 1;
        key(shard, *next)
    }

    /// The keys of a shard's records, which are to be deleted.
    fn take(&mut self, shard: u16) -> impl Iterator<Item = [u8; 10]> + use<> {
        let (first, next) = self.0.entry(shard).or_default();
        let kept = *first + 1..*next + 1;
        *first = *next;
        kept.map(move |number| key(shard, number))
    }
}

/// Shard and number, sorted by both.
fn key(shard: u16, number: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Fulmen's own.
pub(super) struct Log(LogStore);

impl Log {
    pub(super) fn open(home: &Path) -> Log {
        Log(LogStore::open(home, NodeId([2; 33])).expect("it opens"))
    }
}

impl Candidate for Log {
    fn append(&mut self, records: &[(u16, Vec<u8>)]) {
        let entries: Vec<Entry<'_>> =
            records.iter().map(|(shard, record)| Entry { shard: *shard, record }).collect();
        self.0.append(&entries).expect("it appends");
    }

    fn checkpoint(&mut self, shard: u16, chunks: &[Vec<u8>]) {
        let mut writer = self.0.begin_checkpoint(shard).expect("it begins");
        chunks.iter().for_each(|chunk| writer.chunk(chunk).expect("it writes"));
        let written = writer.finish().expect("it is durable");
        self.0.finish_checkpoint(written).expect("it is taken up");
    }

    fn replay(&mut self) -> (usize, usize) {
        let (mut things, mut bytes) = (0, 0);
        let all = self.0.replay(&mut |replayed| {
            things += 1;
            bytes += match replayed {
                Replayed::Chunk { chunk, .. } => chunk.len(),
                Replayed::Record { record, .. } => record.len(),
            };
            ControlFlow::Continue(())
        });
        all.expect("it reads");
        (things, bytes)
    }
}

/// A log-structured merge tree.
pub(super) struct Fjall {
    database: Database,
    records: Keyspace,
    snapshots: Keyspace,
    numbers: Numbers,
}

impl Fjall {
    pub(super) fn open(home: &Path) -> Fjall {
        let database = Database::builder(home).open().expect("it opens");
        let keyspace =
            |name| database.keyspace(name, KeyspaceCreateOptions::default).expect("it has the keyspace");
        let (records, snapshots) = (keyspace("records"), keyspace("snapshots"));
        Fjall { database, records, snapshots, numbers: Numbers::default() }
    }
}

impl Candidate for Fjall {
    fn append(&mut self, records: &[(u16, Vec<u8>)]) {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (shard, record) in records {
            batch.insert(&self.records, self.numbers.next(*shard), record.as_slice());
        }
        batch.commit().expect("it commits");
    }

    fn checkpoint(&mut self, shard: u16, chunks: &[Vec<u8>]) {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (number, chunk) in (0..).zip(chunks) {
            batch.insert(&self.snapshots, key(shard, number), chunk.as_slice());
        }
        for key in self.numbers.take(shard) {
            batch.remove(&self.records, key);
        }
        batch.commit().expect("it commits");
    }

    fn replay(&mut self) -> (usize, usize) {
        let (mut things, mut bytes) = (0, 0);
        for guard in self.snapshots.iter().chain(self.records.iter()) {
            things += 1;
            bytes += guard.value().expect("it reads").len();
        }
        (things, bytes)
    }
}

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
const SNAPSHOTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("snapshots");

/// A copy-on-write B-tree.
pub(super) struct Redb {
    database: redb::Database,
    numbers: Numbers,
}

impl Redb {
    pub(super) fn open(home: &Path) -> Redb {
        let database = redb::Database::create(home.join("redb")).expect("it opens");
        Redb { database, numbers: Numbers::default() }
    }
}

impl Candidate for Redb {
    fn append(&mut self, records: &[(u16, Vec<u8>)]) {
        let transaction = self.database.begin_write().expect("it begins");
        {
            let mut table = transaction.open_table(RECORDS).expect("it has the table");
            for (shard, record) in records {
                let key = self.numbers.next(*shard);
                table.insert(&key[..], record.as_slice()).expect("it inserts");
            }
        }
        transaction.commit().expect("it commits");
    }

    fn checkpoint(&mut self, shard: u16, chunks: &[Vec<u8>]) {
        let transaction = self.database.begin_write().expect("it begins");
        {
            let mut snapshots = transaction.open_table(SNAPSHOTS).expect("it has the table");
            for (number, chunk) in (0..).zip(chunks) {
                snapshots.insert(&key(shard, number)[..], chunk.as_slice()).expect("it inserts");
            }
            let mut records = transaction.open_table(RECORDS).expect("it has the table");
            for key in self.numbers.take(shard) {
                records.remove(&key[..]).expect("it removes");
            }
        }
        transaction.commit().expect("it commits");
    }

    fn replay(&mut self) -> (usize, usize) {
        let transaction = self.database.begin_read().expect("it begins");
        let (mut things, mut bytes) = (0, 0);
        for table in [SNAPSHOTS, RECORDS] {
            let table = transaction.open_table(table).expect("it has the table");
            for entry in table.iter().expect("it reads") {
                let (_, value) = entry.expect("it reads");
                things += 1;
                bytes += value.value().len();
            }
        }
        (things, bytes)
    }
}

//! Restoring shards from a store.
//!
//! Owns the reading of a store into shards, and the engine's own record in it: the number of shards that the channels
//! are dealt out to, which never changes. Does not interpret the records of shards.
//!
//! Invariant: the shards restored are exactly those whose turns were durable. Handoffs without an answer are delivered
//! again.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::path::PathBuf;

use bitcoin::Transaction;
use fulmen_proto::forward::{NodeConfig, Record, Restored, Restoring, Shard};
use fulmen_proto::keys::{NodeSeed, secp};
use fulmen_wire::units::NodeId;

use super::error::StartError;
use super::events::EventLog;
use crate::store::{Entry, LogStore, Replayed, Store};

/// Where an engine keeps its records and checkpoints.
#[derive(Debug)]
pub enum Storage {
    /// In this directory, made if there is none and used by this engine alone: a log with checkpoints.
    Directory(PathBuf),
    /// In a store of the embedder; see [`Store`] and `examples/store.rs`.
    Store(Box<dyn Store>),
    /// Nowhere: for tests and measurements. A node that restarts without its records loses money.
    Nowhere,
}

/// The shard number of the engine's own record in the store.
pub(super) const ENGINE_SHARD: u16 = u16::MAX;
/// The version of that record, its first byte.
const VERSION: u8 = 1;

/// The contents of a store, restored.
pub(super) struct Opened {
    pub(super) store: Option<Box<dyn Store>>,
    pub(super) shards: Vec<Shard>,
    /// The durable events of each shard.
    pub(super) events: Vec<EventLog>,
    /// Transactions that a crash may have kept from being broadcast.
    pub(super) broadcast: Vec<Transaction>,
}

/// The engine's own record.
pub(super) fn engine_record(shards: u16) -> Vec<u8> {
    let [high, low] = shards.to_be_bytes();
    vec![VERSION, high, low]
}

fn read_engine_record(bytes: &[u8]) -> Result<u16, StartError> {
    match bytes {
        [VERSION, high, low] => Ok(u16::from_be_bytes([*high, *low])),
        bytes => Err(StartError::EngineRecord { found: bytes.to_vec() }),
    }
}

impl Storage {
    /// Opens the store and restores the shards in it; `wanted` says how many to begin with where there are none.
    pub(super) fn open(
        self,
        seed: &NodeSeed,
        config: &NodeConfig,
        wanted: u16,
        insist: bool,
    ) -> Result<Opened, StartError> {
        // A start is behind the chain until the embedder says otherwise.
        let config =
            |number, shards| NodeConfig { shard: number, shards, awaits_chain: true, ..config.clone() };
        let mut store: Box<dyn Store> = match self {
            Storage::Nowhere => {
                let shards =
                    (0..wanted).map(|number| Shard::new(seed.clone(), config(number, wanted))).collect();
                let events = (0..wanted).map(|_| EventLog::default()).collect();
                return Ok(Opened { store: None, shards, events, broadcast: Vec::new() });
            }
            Storage::Store(store) => store,
            Storage::Directory(path) => {
                Box::new(LogStore::open(path, NodeId(seed.node_secret().public_key(secp()).serialize()))?)
            }
        };
        // How many shards there are is read with them.
        let begin = |number| Restoring::new(seed.clone(), config(number, 1));
        let mut reading = Reading { begin: &begin, shards: None, restoring: BTreeMap::new(), error: None };
        store.replay(&mut |replayed| reading.take(replayed))?;
        let Reading { shards: kept, mut restoring, error, .. } = reading;
        if let Some(error) = error {
            return Err(error);
        }
        let count = match kept {
            Some(kept) if insist && kept != wanted => return Err(StartError::OtherShards { kept, wanted }),
            Some(kept) => kept,
            None if restoring.is_empty() => {
                store.append(&[Entry { shard: ENGINE_SHARD, record: &engine_record(wanted) }])?;
                wanted
            }
            None => return Err(StartError::EngineRecord { found: Vec::new() }),
        };
        let (mut shards, mut events, mut broadcast) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..count {
            let (restoring, log) =
                restoring.remove(&number).unwrap_or_else(|| (begin(number), EventLog::default()));
            events.push(log);
            let restored = restoring.of_shards(count).finish();
            let Restored { shard, broadcast: owed } =
                restored.map_err(|error| StartError::Restore { shard: number, error })?;
            shards.push(shard);
            broadcast.extend(owed);
        }
        match restoring.keys().next() {
            Some(&shard) => Err(StartError::NoSuchShard { shard, shards: count }),
            None => Ok(Opened { store: Some(store), shards, events, broadcast }),
        }
    }
}

/// The shards as read so far.
struct Reading<'a> {
    begin: &'a dyn Fn(u16) -> Restoring,
    shards: Option<u16>,
    restoring: BTreeMap<u16, (Restoring, EventLog)>,
    error: Option<StartError>,
}

impl Reading<'_> {
    fn take(&mut self, replayed: Replayed<'_>) -> ControlFlow<()> {
        match self.fold(replayed) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn fold(&mut self, replayed: Replayed<'_>) -> Result<(), StartError> {
        match replayed {
            Replayed::Chunk { shard: ENGINE_SHARD, chunk: bytes }
            | Replayed::Record { shard: ENGINE_SHARD, record: bytes } => {
                self.shards = Some(read_engine_record(bytes)?);
                Ok(())
            }
            Replayed::Chunk { shard, chunk } => {
                let (restoring, events) = self.restoring(shard);
                let is_events =
                    events.restore_chunk(chunk).map_err(|error| StartError::Record { shard, error })?;
                let folded = if is_events { Ok(()) } else { restoring.chunk(chunk) };
                folded.map_err(|error| StartError::Restore { shard, error })
            }
            Replayed::Record { shard, record } => {
                let (restoring, events) = self.restoring(shard);
                let record =
                    events.restore_record(record).map_err(|error| StartError::Record { shard, error })?;
                if record.is_empty() {
                    return Ok(());
                }
                let record = Record::decode(record).map_err(|error| StartError::Record { shard, error })?;
                let folded = restoring.record(record);
                folded.map_err(|error| StartError::Restore { shard, error })
            }
        }
    }

    fn restoring(&mut self, shard: u16) -> &mut (Restoring, EventLog) {
        self.restoring.entry(shard).or_insert_with(|| ((self.begin)(shard), EventLog::default()))
    }
}

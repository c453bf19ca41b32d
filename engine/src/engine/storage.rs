//! What a restart begins with: shards from what the store kept.
//!
//! Owns the reading of a store into shards, and the engine's own record in it: how many shards the channels are dealt out
//! to, which must never change. Does not know what records say.
//!
//! Invariant: the shards that come back are those whose turns were durable; what one owes another is delivered again.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::ControlFlow;

use bitcoin::Transaction;
use fulmen_proto::forward::{NodeConfig, Record, Restored, Shard};
use fulmen_proto::keys::NodeSeed;

use super::error::StartError;
use crate::store::{Entry, Replayed, Store};

/// Where an engine keeps what must survive it.
#[derive(Debug)]
pub enum Storage {
    /// In a store of the embedder's.
    Store(Box<dyn Store>),
    /// Nowhere: for tests and measurements. A node that comes back without its records loses money.
    Nowhere,
}

/// The number that the engine's own record has among the shards' in the store.
pub(super) const ENGINE_SHARD: u16 = u16::MAX;
/// The version of that record, its first byte.
const VERSION: u8 = 1;

/// What a store gave back.
pub(super) struct Opened {
    pub(super) store: Option<Box<dyn Store>>,
    pub(super) shards: Vec<Shard>,
    /// Transactions that may not have been broadcast.
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
        let config = |number| NodeConfig { shard: number, ..config.clone() };
        let mut store: Box<dyn Store> = match self {
            Storage::Nowhere => {
                let shards = (0..wanted).map(|number| Shard::new(seed.clone(), config(number))).collect();
                return Ok(Opened { store: None, shards, broadcast: Vec::new() });
            }
            Storage::Store(store) => store,
        };
        let mut reading = Reading::default();
        store.replay(&mut |replayed| reading.take(replayed))?;
        let Reading { shards: kept, mut records, error } = reading;
        if let Some(error) = error {
            return Err(error);
        }
        let count = match kept {
            Some(kept) if insist && kept != wanted => return Err(StartError::OtherShards { kept, wanted }),
            Some(kept) => kept,
            None if records.is_empty() => {
                store.append(&[Entry { shard: ENGINE_SHARD, record: &engine_record(wanted) }])?;
                wanted
            }
            None => return Err(StartError::EngineRecord { found: Vec::new() }),
        };
        let (mut shards, mut broadcast) = (Vec::new(), Vec::new());
        for number in 0..count {
            let records = records.remove(&number).unwrap_or_default();
            let restored = Shard::restore(seed.clone(), config(number), records);
            let Restored { shard, broadcast: owed } =
                restored.map_err(|error| StartError::Restore { shard: number, error })?;
            shards.push(shard);
            broadcast.extend(owed);
        }
        match records.keys().next() {
            Some(&shard) => Err(StartError::NoSuchShard { shard, shards: count }),
            None => Ok(Opened { store: Some(store), shards, broadcast }),
        }
    }
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    shards: Option<u16>,
    records: BTreeMap<u16, Vec<Record>>,
    error: Option<StartError>,
}

impl Reading {
    fn take(&mut self, replayed: Replayed<'_>) -> ControlFlow<()> {
        let taken = match replayed {
            Replayed::Chunk { shard: ENGINE_SHARD, chunk: bytes }
            | Replayed::Record { shard: ENGINE_SHARD, record: bytes } => {
                read_engine_record(bytes).map(|shards| self.shards = Some(shards))
            }
            Replayed::Chunk { shard, .. } => Err(StartError::NoSuchShard { shard, shards: 0 }),
            Replayed::Record { shard, record } => Record::decode(record)
                .map(|record| self.records.entry(shard).or_default().push(record))
                .map_err(|error| StartError::Record { shard, error }),
        };
        match taken {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}

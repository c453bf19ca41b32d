//! One engine without threads, on a simulated disk.
//!
//! Owns the start of an engine and the queue of effects it emits. Does not execute the effects: a world of machines
//! does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulmen::Engine;
use fulmen::runtime::{Effects, Fatal, Handler, StartError, Storage};
use fulmen::store::{LogOptions, LogStore};
use fulmen_proto::forward::{NodeConfig, Shard};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::units::NodeId;

use crate::disk::SimDisk;

/// Everything that determines a machine besides the content of its disk.
#[derive(Clone, Debug)]
pub(crate) struct MachineSpec {
    pub(crate) seed: [u8; 32],
    pub(crate) config: NodeConfig,
    pub(crate) shards: u16,
}

impl MachineSpec {
    /// The id of the machine's node.
    pub(crate) fn node_id(&self) -> NodeId {
        Shard::new(NodeSeed::new(self.seed), self.config.clone()).node_id()
    }
}

/// Effects that an engine emitted and its world has not executed yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<Mutex<Emitted>>);

#[derive(Debug, Default)]
struct Emitted {
    effects: Vec<Effects>,
    stopped: Option<String>,
}

impl Outbox {
    /// Removes all effects, in the order they were emitted.
    pub(crate) fn take(&self) -> Vec<Effects> {
        std::mem::take(&mut self.lock().effects)
    }

    /// Why the engine stopped itself, if it did.
    pub(crate) fn stopped(&self) -> Option<String> {
        self.lock().stopped.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Emitted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Outbox {
    fn effects(&self, effects: Effects) {
        self.lock().effects.push(effects);
    }

    fn stopped(&self, fatal: &Fatal) {
        self.lock().stopped = Some(fatal.to_string());
    }
}

/// A running engine and its disk.
pub(crate) struct Machine {
    pub(crate) spec: MachineSpec,
    pub(crate) disk: SimDisk,
    pub(crate) engine: Engine,
    pub(crate) outbox: Outbox,
}

impl Machine {
    /// Starts an engine from the records on `disk`.
    ///
    /// # Errors
    /// When the store or the engine does not start.
    pub(crate) fn start(spec: MachineSpec, disk: SimDisk, log: LogOptions) -> Result<Machine, StartError> {
        let outbox = Outbox::default();
        let store = LogStore::open_on(Arc::new(disk.clone()), spec.node_id(), log)?;
        let builder =
            Engine::builder(NodeSeed::new(spec.seed), spec.config.clone(), Storage::Store(Box::new(store)));
        let engine = builder.shards(spec.shards).inline(outbox.clone())?;
        engine.chain_in_step(); // a restarted machine gets the blocks it missed before it is connected
        Ok(Machine { spec, disk, engine, outbox })
    }
}

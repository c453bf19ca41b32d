//! From settings to an engine that runs.
//!
//! Owns the settings and their defaults, and the start of threads. What a setting means is said where it is set.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam::channel::bounded;
use crossbeam::sync::Parker;
use fulmen_proto::forward::{NodeConfig, Shard};
use fulmen_proto::keys::NodeSeed;

use super::Engine;
use super::clock::{Clock, SystemClock};
use super::commit::Committer;
use super::directory::Directory;
use super::effects::Handler;
use super::error::StartError;
use super::slot::{QueueBounds, Slot};
use super::worker::Core;
use crate::watch::Watch;

/// An engine to be started; made by [`Engine::builder`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    seed: NodeSeed,
    config: NodeConfig,
    workers: Option<usize>,
    shards: Option<u16>,
    bounds: QueueBounds,
    clock: Box<dyn Clock>,
}

impl Builder {
    pub(super) fn new(seed: NodeSeed, config: NodeConfig) -> Builder {
        let clock = Box::new(SystemClock::default());
        Builder { seed, config, workers: None, shards: None, bounds: QueueBounds::default(), clock }
    }

    /// How many threads run turns: one a core unless set.
    pub fn workers(self, workers: usize) -> Builder {
        Builder { workers: Some(workers), ..self }
    }

    /// How many shards the channels are dealt out to, by their peers' ids: as many as workers unless set. A forward
    /// between two peers of one shard takes one turn and one record, one between two shards takes two of each; so more
    /// shards than workers only cost.
    ///
    /// Where a channel is kept is for ever: a store that has channels already decides, not this.
    pub fn shards(self, shards: u16) -> Builder {
        Builder { shards: Some(shards), ..self }
    }

    /// How many messages, and bytes of messages, of one peer may wait; a peer may always have one waiting.
    pub fn peer_credit(self, messages: usize, bytes: usize) -> Builder {
        let bounds = QueueBounds { peer_messages_max: messages, peer_bytes_max: bytes, ..self.bounds };
        Builder { bounds, ..self }
    }

    /// How many bytes of messages may wait for one shard, whoever they are from, and how many commands.
    pub fn shard_queue(self, bytes: usize, commands: usize) -> Builder {
        let bounds = QueueBounds { shard_bytes_max: bytes, commands_max: commands, ..self.bounds };
        Builder { bounds, ..self }
    }

    /// The clock to go by: the machine's unless set.
    pub fn clock(self, clock: impl Clock) -> Builder {
        Builder { clock: Box::new(clock), ..self }
    }

    /// Starts the engine on threads of its own, whose names begin with `fulmen-`.
    ///
    /// # Errors
    /// When it cannot run.
    pub fn start(self, handler: impl Handler) -> Result<Engine, StartError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.workers.unwrap_or_else(cores).max(1);
        let parker: Option<Parker> = None;
        let mut core = self.core(handler, workers)?;
        core.persister = parker.as_ref().map(|parker| parker.unparker().clone());
        Engine::spawn(Arc::new(core), workers, parker)
    }

    /// An engine without threads: it does what waits when [`Engine::step`] is called, on the caller's thread, always in
    /// the same order.
    ///
    /// # Errors
    /// When it cannot run.
    pub fn inline(self, handler: impl Handler) -> Result<Engine, StartError> {
        let shards = self.shards.unwrap_or(1);
        Ok(Engine::without_threads(Arc::new(Builder { shards: Some(shards), ..self }.core(handler, 0)?)))
    }

    fn core(self, handler: impl Handler, workers: usize) -> Result<Core, StartError> {
        let shards = self.shards.unwrap_or(u16::try_from(workers).unwrap_or(u16::MAX));
        if shards == 0 {
            return Err(StartError::NoShards);
        }
        let slot = |number| {
            let config = NodeConfig { shard: number, ..self.config.clone() };
            Slot::new(number, Shard::new(self.seed.clone(), config), Watch::default())
        };
        Ok(Core {
            slots: (0..shards).map(slot).collect(),
            config: self.config,
            bounds: self.bounds,
            directory: Directory::default(),
            committer: Committer::new(Box::new(handler)),
            clock: self.clock,
            ready: bounded(usize::from(shards) + workers),
            workers,
            persister: None,
            ending: AtomicBool::new(false),
        })
    }
}

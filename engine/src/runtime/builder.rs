//! From settings to a running engine.
//!
//! Owns the settings with their defaults, and the start: shards are restored from the store, and handoffs without an
//! answer are delivered again. Each setting's method documents its meaning.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam::sync::Parker;
use fulmen_proto::forward::{Input, NodeConfig, Shard};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::units::Scid;

use super::Engine;
use super::allowance::Allowances;
use super::channel_index::ChannelIndex;
use super::clock::{Clock, SystemClock};
use super::effects::{Effects, Handler};
use super::error::StartError;
use super::events::{EventId, EventLog};
use super::journal::{FinishedTurn, Journal};
use super::ready::Ready;
use super::replays::NodeReplays;
use super::shard_cell::{Item, QueueBounds, ShardCell, lock};
use super::storage::{Opened, Storage};
use super::worker::Runtime;
use crate::monitor::FundingMonitor;

/// Shards per worker, if there are several. With 100 or 400 HTLCs in flight, two workers with one shard each leave an
/// eighth of two cores idle; with two each a twentieth, for 4 to 7 % more work; more shards gain nothing. The example
/// `workers` of `bench` measures it.
const SHARDS_PER_WORKER: usize = 2;

/// The settings of an engine; made by [`Engine::builder`].
///
/// # Examples
///
/// ```
/// use fulmen::proto::forward::NodeConfig;
/// use fulmen::proto::keys::NodeSeed;
/// use fulmen::runtime::{Effects, Engine, Storage};
/// use fulmen::wire::units::ChainHash;
///
/// let closing_script = [&[0x00, 0x14][..], &[7; 20]].concat(); // P2WPKH: our balance on mutual close
/// let config = NodeConfig::new(ChainHash::REGTEST, closing_script);
/// let engine = Engine::builder(NodeSeed::new([1; 32]), config, Storage::Nowhere)
///     .workers(2)
///     .peer_credit(512, 1 << 20)
///     .start(|effects: Effects| println!("{} messages to send", effects.send.len()))?;
/// assert_eq!(engine.shards(), 4);
/// engine.shutdown()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Builder {
    seed: NodeSeed,
    config: NodeConfig,
    storage: Storage,
    workers: Option<usize>,
    shards: Option<u16>,
    bounds: QueueBounds,
    keeps_events: bool,
    is_copy: bool,
    clock: Box<dyn Clock>,
}

impl Builder {
    pub(super) fn new(seed: NodeSeed, config: NodeConfig, storage: Storage) -> Builder {
        let clock = Box::new(SystemClock::default());
        let (bounds, keeps_events, is_copy) = (QueueBounds::default(), false, false);
        Builder { seed, config, storage, workers: None, shards: None, bounds, keeps_events, is_copy, clock }
    }

    /// The number of threads that run turns. Default: one per core.
    pub fn workers(self, workers: usize) -> Builder {
        Builder { workers: Some(workers), ..self }
    }

    /// The number of shards, to which channels are dealt out by the ids of their peers. Default: one for a single
    /// worker, two for each of several. A forward between two peers of one shard takes one turn and one record, one
    /// between two shards takes two of each: shards have a cost. But one worker runs a shard's turn over all its
    /// inputs: with no more shards than workers, one worker often finds nothing to run while another has all the work.
    ///
    /// The shard of a channel never changes: without this setting an engine takes the number that its storage has, and
    /// one that asks for another number does not start.
    pub fn shards(self, shards: u16) -> Builder {
        Builder { shards: Some(shards), ..self }
    }

    /// The credit of a peer: messages, and bytes of messages, that may be queued. Default: 2,048 messages and 2 MiB.
    /// One message may always be queued, whatever its length.
    pub fn peer_credit(self, messages: usize, bytes: usize) -> Builder {
        let bounds = QueueBounds { peer_messages_max: messages, peer_bytes_max: bytes, ..self.bounds };
        Builder { bounds, ..self }
    }

    /// How fast messages that serve no channel are read from a connection: bytes at once, and bytes per second. A
    /// message counts for at least a few hundred bytes. Updates of a peer with a ready channel, and gossip, are not
    /// slowed. Default: 256 KiB and 32 KiB.
    pub fn allowance(self, bytes: u32, bytes_per_second: u32) -> Builder {
        let allowances = Allowances { bytes_max: bytes, bytes_per_second };
        Builder { bounds: QueueBounds { allowances, ..self.bounds }, ..self }
    }

    /// The queue of a shard: bytes of messages, of all peers together, and commands. Default: 64 MiB and 4,096
    /// commands.
    pub fn shard_queue(self, bytes: usize, commands: usize) -> Builder {
        let bounds = QueueBounds { shard_bytes_max: bytes, commands_max: commands, ..self.bounds };
        Builder { bounds, ..self }
    }

    /// Keeps durable events ([`Event::is_durable`](fulmen_proto::forward::Event::is_durable)) in the storage until
    /// [`Engine::acknowledge`] names them: a start delivers those without an acknowledgement again, at least once each,
    /// and none is missing after a crash. Default: events are delivered once, and a crash before the handler returns
    /// loses them.
    ///
    /// While 16 MiB of a shard's events are unacknowledged, it accepts no messages from peers.
    pub fn keep_events(self) -> Builder {
        Builder { keeps_events: true, ..self }
    }

    /// Declares that the storage is a copy, a backup for instance, and may lack the latest records. Nothing in it
    /// tells, so the embedder has to: a start counter kept elsewhere that is ahead of the one kept with the storage is
    /// a sure sign. Until its peer has confirmed a channel's state (`channel_reestablish`), or
    /// [`Command::InsistOnState`](fulmen_proto::forward::Command::InsistOnState) names it, no deadline fails the
    /// channel and no commitment of it may be broadcast. That outlasts further starts. Transactions that are final,
    /// agreed closings and fundings, are broadcast as always.
    pub fn from_copy(self) -> Builder {
        Builder { is_copy: true, ..self }
    }

    /// The clock. Default: the machine's.
    pub fn clock(self, clock: impl Clock) -> Builder {
        Builder { clock: Box::new(clock), ..self }
    }

    /// Starts the engine on threads whose names begin with `fulmen-`.
    ///
    /// # Errors
    /// When the storage cannot be read, or a thread cannot be started.
    pub fn start(self, handler: impl Handler) -> Result<Engine, StartError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.workers.unwrap_or_else(cores).max(1);
        let mut runtime = self.runtime(handler, workers)?;
        let parker = runtime.keeps_records.then(Parker::new);
        runtime.persister = parker.as_ref().map(|parker| parker.unparker().clone());
        Engine::spawn(Arc::new(runtime), workers, parker)
    }

    /// An engine without threads: [`Engine::step`] does all queued work on the caller's thread, in an order that
    /// depends on the inputs alone.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub fn inline(self, handler: impl Handler) -> Result<Engine, StartError> {
        Ok(Engine::without_threads(Arc::new(self.runtime(handler, 0)?)))
    }

    fn runtime(self, handler: impl Handler, workers: usize) -> Result<Runtime, StartError> {
        let by_default = if workers > 1 { SHARDS_PER_WORKER.saturating_mul(workers) } else { 1 };
        let wanted = self.shards.unwrap_or(u16::try_from(by_default).unwrap_or(u16::MAX));
        if wanted == 0 {
            return Err(StartError::NoShards);
        }
        let opened = self.storage.open(&self.seed, &self.config, wanted, self.shards.is_some())?;
        let Opened { store, mut shards, events, broadcast } = opened;
        if shards.len() > 1 {
            let replays = Arc::new(NodeReplays::default());
            shards.iter_mut().for_each(|shard| shard.share_replay_claims(replays.clone()));
        }
        if self.is_copy {
            shards.iter_mut().for_each(Shard::doubt_state);
        }
        let keeps_records = store.is_some();
        let shard_count = u16::try_from(shards.len()).expect("shards are numbered by a u16");
        let runtime = Runtime {
            ready: Ready::new(shards.len() + workers),
            cells: (0..)
                .zip(shards)
                .zip(events)
                .map(|((number, shard), events)| cell(number, shard, events, self.bounds.allowances))
                .collect(),
            config: NodeConfig { shards: shard_count, ..self.config },
            bounds: self.bounds,
            channels: ChannelIndex::default(),
            journal: Journal::new(Box::new(handler), store, workers > 0),
            clock: self.clock,
            workers,
            keeps_records,
            keeps_events: self.keeps_events,
            persister: None,
            ending: AtomicBool::new(false),
            shards_wait: AtomicBool::new(false),
        };
        introduce(&runtime);
        deliver_kept_events(&runtime)?;
        if !broadcast.is_empty() {
            let effects = Effects { broadcast, ..Effects::default() };
            let (since, commanded) = (runtime.clock.elapsed(), false);
            runtime.journal.queue(FinishedTurn { record: Vec::new(), effects, since, commanded });
        }
        Ok(runtime)
    }
}

/// A restored shard with its queue and monitor.
fn cell(number: u16, shard: Shard, events: EventLog, allowances: Allowances) -> ShardCell {
    let monitor = FundingMonitor::of(&shard);
    ShardCell::new(number, shard, events, monitor, allowances)
}

/// Sends each shard the channels of the others, and delivers handoffs without an answer again.
fn introduce(runtime: &Runtime) {
    let mut owned: Vec<(u16, Scid)> = Vec::new();
    let mut owed = Vec::new();
    for cell in &runtime.cells {
        let running = lock(&cell.running);
        for channel in running.shard.channels() {
            runtime.channels.add(channel.id(), cell.number);
            if let Some(scid) = channel.scid()
                && runtime.channels.place(scid, cell.number)
            {
                owned.push((cell.number, scid));
            }
        }
        owed.push((cell.number, running.shard.unanswered_handoffs().collect()));
    }
    for cell in &runtime.cells {
        let others = owned.iter().filter(|(shard, _)| *shard != cell.number);
        let others: Vec<Scid> = others.map(|(_, scid)| *scid).collect();
        if !others.is_empty() {
            runtime.push(cell.number, Item::Input(Input::SiblingChannels(others)));
        }
    }
    for (from, handoffs) in owed {
        runtime.hand_over(from, handoffs, &HashMap::new());
    }
}

/// Queues the events that were not acknowledged before the start.
fn deliver_kept_events(runtime: &Runtime) -> Result<(), StartError> {
    for cell in &runtime.cells {
        let running = lock(&cell.running);
        let kept = running.events.unacknowledged();
        let events = kept.map_err(|error| StartError::Record { shard: cell.number, error })?;
        if events.is_empty() {
            continue;
        }
        let last_event = Some(EventId { shard: cell.number, number: running.events.last() });
        let effects = Effects { shard: cell.number, events, last_event, ..Effects::default() };
        let (since, commanded) = (runtime.clock.elapsed(), false);
        runtime.journal.queue(FinishedTurn { record: Vec::new(), effects, since, commanded });
    }
    Ok(())
}

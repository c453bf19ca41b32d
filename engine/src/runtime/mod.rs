//! The runtime: a node's shards on threads, fed with bytes, blocks and commands.
//!
//! Owns: the engine's threads (the only ones), the shards' queues, the order in which what a turn did becomes durable and
//! leaves, and the embedding API. Does not: hold sockets, keep time (a [`Clock`] does), or know what a message means.
//!
//! **Threads.** Workers run turns over the shards that have something waiting, round-robin. What a turn did is made
//! durable by group commit (`commit`), on the worker itself while nothing else waits, by a thread of its own while there
//! are turns to run. Nothing is shared by all shards on the way of an HTLC but two lock-free queues that are touched once
//! a turn: the list of ready shards, with a lock for those that fall asleep at it (`ready`), and the turns to be made durable. The shard of a peer is a function of its id
//! (`directory`), so a message is queued under its own shard's lock and no other, and non-strict forwarding, which
//! chooses among the channels of one peer, stays inside a shard.
//!
//! **Bounds.** See `slot` for queues, `commit` for turns that wait for the disk. Feeding never waits: a peer without credit
//! gets [`ReceiveError::WouldBlock`].
//!
//! Invariant: what leaves is justified by what is durable, in the order of the turns; after a failure nothing leaves.

mod builder;
mod clock;
mod commit;
mod directory;
mod effects;
mod error;
mod ready;
mod slot;
mod stats;
mod storage;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::sync::Parker;
use fulmen_proto::channel::Channel;
use fulmen_proto::forward::{
    ChannelRef, Command, CryptoCounters, NodeConfig, Now, Occupancy, Shard, local_init, negotiate,
};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::message::Message;
use fulmen_wire::units::NodeId;

pub use builder::Builder;
pub use clock::{Clock, SystemClock};
pub use effects::{Connection, Effects, Handler};
pub use error::{ConnectError, Fatal, ReceiveError, StartError, Stopped, SubmitError};
pub use stats::{LatencyHistogram, ShardStats, Stats};
pub use storage::Storage;

use crate::chain::ChainEvent;
use directory::shard_of_peer;
use slot::{Item, Slot, lock};
use worker::Core;

/// A Lightning node that runs: the embedder feeds it, and it gives back [`Effects`] through a [`Handler`].
///
/// Feeding calls may be made from any thread; they queue and return. What is fed by one thread for one peer is taken up in
/// that order. Dropping the engine ends its threads at once, as a crash would, and loses nothing that has left;
/// [`Engine::shutdown`] finishes what waits first.
#[derive(Debug)]
pub struct Engine {
    core: Arc<Core>,
    node_id: NodeId,
    connections: AtomicU64,
    closing: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What an engine leaves unfinished: nothing of it is lost, a restart goes on with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// Received HTLCs that are not removed for good.
    pub circuits: usize,
    /// Offered HTLCs that are not resolved.
    pub offered: usize,
    /// Payments to this node that wait for more parts.
    pub incomplete_sets: usize,
    /// What shards ask of each other and is not acknowledged.
    pub handoffs: usize,
    /// Channels with updates or a `commitment_signed` under way.
    pub settling_channels: usize,
}

impl Engine {
    /// Settings of an engine whose keys all derive from `seed`, and which keeps what must survive it in `storage`.
    pub fn builder(seed: NodeSeed, config: NodeConfig, storage: Storage) -> Builder {
        Builder::new(seed, config, storage)
    }

    fn without_threads(core: Arc<Core>) -> Engine {
        let node_id = lock(&core.slot(0).running).shard.node_id();
        let (connections, closing) = (AtomicU64::new(1), AtomicBool::new(false));
        Engine { core, node_id, connections, closing, threads: Mutex::default() }
    }

    fn spawn(core: Arc<Core>, workers: usize, parker: Option<Parker>) -> Result<Engine, StartError> {
        let engine = Engine::without_threads(core);
        for worker in 0..workers {
            let core = Arc::clone(&engine.core);
            engine.thread(format!("fulmen-work-{worker}"), move || core.work(worker))?;
        }
        if let Some(parker) = parker {
            let core = Arc::clone(&engine.core);
            engine.thread("fulmen-persist".to_owned(), move || core.persist(&parker))?;
        }
        Ok(engine)
    }

    fn thread(&self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let spawned = std::thread::Builder::new().name(name.clone()).spawn(run);
        lock(&self.threads).push(spawned.map_err(|error| StartError::Thread { name, error })?);
        Ok(())
    }

    /// The node's public key.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.node_id
    }

    /// The `init` to send first on every connection.
    #[must_use]
    pub fn init(&self) -> Vec<u8> {
        Message::from(local_init(&self.core.config)).encode()
    }

    /// A connection to `peer` stands, and `init` is the first message it sent. A connection that stood before is over.
    ///
    /// The handler may be given messages for the new connection before this returns: an embedder that looks sockets up by
    /// connection keeps its table locked meanwhile.
    ///
    /// # Errors
    /// When the connection is to be closed; nothing has changed then.
    pub fn connected(&self, peer: NodeId, init: &[u8]) -> Result<Connection, ConnectError> {
        self.check_running()?;
        let message = Message::decode(init)?;
        let Message::Init(init) = message else { return Err(ConnectError::NotInit(message.name())) };
        let features = negotiate(&self.core.config, &init)?;
        let connection = Connection { peer, number: self.connections.fetch_add(1, Ordering::Relaxed) };
        let slot = self.slot_of(peer);
        let schedule = lock(&slot.inbox).connect(connection, features, &*self.core.clock);
        if schedule {
            self.core.schedule(slot.number);
        }
        Ok(connection)
    }

    /// A connection is gone. One that is over already is no concern.
    pub fn disconnected(&self, connection: Connection) {
        let slot = self.slot_of(connection.peer);
        let mut inbox = lock(&slot.inbox);
        let schedule =
            inbox.unlink(connection) && inbox.push(Item::Disconnected { connection }, &*self.core.clock);
        drop(inbox);
        if schedule {
            self.core.schedule(slot.number);
        }
    }

    /// A message came, as its bytes from the type on.
    ///
    /// # Errors
    /// When the message is not taken; nothing has changed then.
    pub fn receive(&self, connection: Connection, message: &[u8]) -> Result<(), ReceiveError> {
        self.receive_all(connection, [message])
    }

    /// Messages came. Giving all at once that were read at once keeps one turn from seeing only some of them, so that
    /// updates which belong to one `commitment_signed` are answered by one.
    ///
    /// # Errors
    /// When they are not all taken; the error says how many were.
    pub fn receive_all<'a>(
        &self,
        connection: Connection,
        messages: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), ReceiveError> {
        self.check_running()?;
        let mut decoded = Vec::new();
        let mut broken = None;
        for bytes in messages {
            match Message::decode(bytes) {
                Ok(message) => decoded.push((message, bytes.len())),
                Err(error) => {
                    broken = Some(ReceiveError::Broken { accepted: decoded.len(), error });
                    break;
                }
            }
        }
        let core = &*self.core;
        let slot = self.slot_of(connection.peer);
        let (schedule, taken) = lock(&slot.inbox).receive(connection, decoded, &core.bounds, &*core.clock);
        if schedule {
            core.schedule(slot.number);
        }
        taken.and(broken.map_or(Ok(()), Err))
    }

    /// The operator wants something. What comes of it is told by an event.
    ///
    /// # Errors
    /// When the command is not taken up; nothing has changed then.
    pub fn command(&self, command: Command) -> Result<(), SubmitError> {
        self.check_running()?;
        let shard = self.shard_of(&command)?;
        let core = &*self.core;
        let submitted = lock(&core.slot(shard).inbox).submit(command, &core.bounds, &*core.clock);
        if submitted? {
            core.schedule(shard);
        }
        Ok(())
    }

    /// The chain took a step. Steps are given in the order the chain reports them.
    pub fn chain_event(&self, event: &ChainEvent) {
        for slot in &self.core.slots {
            let mut watch = lock(&slot.watch);
            let told = watch.chain_event(event);
            self.core.push(slot.number, Item::Told(told));
        }
    }

    /// Does everything that waits, on this thread: what an engine without threads lives by. The handler is called from
    /// within. With threads there is no need for it, and it does no harm.
    pub fn step(&self, now: Now) {
        self.core.run_all(now);
    }

    /// Whether [`Engine::step`] would find something to do besides the passing of time.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.core.slots.iter().any(|slot| lock(&slot.inbox).scheduled) || self.core.committer.is_due()
    }

    /// Tells an engine without threads that time has passed: once a second keeps timeouts sharp.
    pub fn tick(&self) {
        self.core.tick();
    }

    /// Looks at a channel, between two turns of its shard. A turn waits meanwhile; `look` must not call the engine.
    pub fn channel<T>(&self, channel: ChannelRef, look: impl FnOnce(&Channel) -> T) -> Option<T> {
        let shard = self.core.directory.shard_of(channel)?;
        lock(&self.core.slot(shard).running).shard.channel(channel).map(look)
    }

    /// Looks at each shard, between two of its turns; `look` must not call the engine.
    pub fn for_each_shard(&self, mut look: impl FnMut(&Shard)) {
        for slot in &self.core.slots {
            look(&lock(&slot.running).shard);
        }
    }

    /// How many shards the channels are dealt out to.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.core.slots.len()).unwrap_or(u16::MAX)
    }

    /// What the engine has done and holds. Waits for the turn that each shard is in.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let committer = &self.core.committer;
        let (store, uncommitted_turns) = (committer.store_stats(), committer.waiting() as u64);
        let mut stats = Stats { store, uncommitted_turns, ..Stats::default() };
        for slot in &self.core.slots {
            let (occupancy, crypto) = {
                let running = lock(&slot.running);
                (running.shard.occupancy(), running.shard.counters())
            };
            stats.crypto = plus(stats.crypto, crypto);
            stats.latency.add(&slot.counters);
            stats.shards.push(shard_stats(slot, occupancy));
        }
        stats
    }

    /// Takes nothing more, does everything that waits, makes it durable, releases it, and ends the threads. Says what is
    /// left in flight with peers.
    ///
    /// # Errors
    /// When the engine has stopped itself before.
    pub fn shutdown(&self) -> Result<Unfinished, Stopped> {
        self.closing.store(true, Ordering::SeqCst);
        if self.core.workers == 0 {
            self.core.run_all(self.core.clock.now());
        }
        while self.has_work() && !self.core.committer.has_failed() {
            std::thread::sleep(DRAIN_POLL);
        }
        self.core.committer.flush(&self.core.slots, &*self.core.clock);
        self.end_threads();
        if let Some(fatal) = self.core.committer.fatal() {
            return Err(Stopped::Failed(fatal));
        }
        let mut unfinished = Unfinished::default();
        self.for_each_shard(|shard| {
            let Occupancy { circuits, offered, incomplete_sets, .. } = shard.occupancy();
            unfinished.circuits += circuits;
            unfinished.offered += offered;
            unfinished.incomplete_sets += incomplete_sets;
            unfinished.handoffs += shard.unanswered_handoffs().count();
            unfinished.settling_channels += shard.channels().filter(|channel| channel.is_settling()).count();
        });
        Ok(unfinished)
    }

    fn end_threads(&self) {
        self.core.end();
        for thread in lock(&self.threads).drain(..) {
            // One that panicked has said so on its own; there is nobody left to tell.
            let _ = thread.join();
        }
    }

    fn check_running(&self) -> Result<(), Stopped> {
        if let Some(fatal) = self.core.committer.fatal() {
            return Err(Stopped::Failed(fatal));
        }
        if self.closing.load(Ordering::Relaxed) {
            return Err(Stopped::ShutDown);
        }
        Ok(())
    }

    fn slot_of(&self, peer: NodeId) -> &Slot {
        self.core.slot(shard_of_peer(peer, self.shards()))
    }

    fn shard_of(&self, command: &Command) -> Result<u16, SubmitError> {
        let by_id = |channel_id| {
            let shard = self.core.directory.shard_of(ChannelRef::Id(channel_id));
            shard.ok_or(SubmitError::UnknownChannel(channel_id))
        };
        match command {
            Command::OpenChannel(open) => Ok(shard_of_peer(open.peer, self.shards())),
            Command::FundingTransaction { temporary_channel_id: channel_id, .. }
            | Command::CloseChannel { channel_id, .. }
            | Command::FailChannel { channel_id, .. }
            | Command::SetPolicy { channel_id, .. }
            | Command::UpdateFee { channel_id, .. } => by_id(*channel_id),
            // Any shard can say that it knows no such channel, as the outcome of the attempt.
            Command::ResumeHtlc { incoming } | Command::FailHtlc { incoming, .. } => {
                by_id(incoming.channel_id)
            }
            Command::ExpectPayment(invoice) => Ok(self.core.config.receiver(invoice.payment_hash)),
            Command::SendHtlc(send) => Ok(self.core.directory.shard_of(send.channel).unwrap_or(0)),
            _ => Ok(0),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !lock(&self.threads).is_empty() {
            self.core.committer.abandon();
            self.end_threads();
        }
    }
}

/// How often a shutdown looks whether everything is done.
const DRAIN_POLL: Duration = Duration::from_micros(200);

fn plus(one: CryptoCounters, other: CryptoCounters) -> CryptoCounters {
    CryptoCounters {
        ecdsa_verified: one.ecdsa_verified + other.ecdsa_verified,
        ecdsa_signed: one.ecdsa_signed + other.ecdsa_signed,
        onions_peeled: one.onions_peeled + other.onions_peeled,
    }
}

fn shard_stats(slot: &Slot, occupancy: Occupancy) -> ShardStats {
    let (queued, queued_bytes) = {
        let inbox = lock(&slot.inbox);
        (inbox.len() as u64, inbox.bytes() as u64)
    };
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    ShardStats {
        turns: load(&slot.counters.turns),
        inputs: load(&slot.counters.inputs),
        inputs_max: load(&slot.counters.inputs_max),
        handoffs: load(&slot.counters.handoffs),
        queued,
        queued_bytes,
        occupancy,
    }
}

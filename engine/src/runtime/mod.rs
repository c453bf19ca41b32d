//! The runtime: a node's shards on threads, fed with bytes, blocks and commands.
//!
//! Owns: the engine's threads (the only ones), the shards' queues, the order in which what a turn did becomes durable and
//! leaves, and the embedding API. Does not: hold sockets, keep time (a [`Clock`] does), or know what a message means.
//!
//! **Threads.** Workers run turns over the shards that have something waiting, round-robin. What a turn did is made
//! durable by group commit (`journal`), on the worker itself while nothing else waits, by a thread of its own while there
//! are turns to run. Nothing is shared by all shards on the way of an HTLC but two lock-free queues that are touched once
//! a turn: the list of ready shards, with a lock for those that fall asleep at it (`ready`), and the turns to be made durable. The shard of a peer is a function of its id
//! (`channel_index`), so a message is queued under its own shard's lock and no other, and non-strict forwarding, which
//! chooses among the channels of one peer, stays inside a shard.
//!
//! **Bounds.** See `shard_cell` for queues, `journal` for turns that wait for the disk. Feeding never waits: a peer without credit
//! gets [`ReceiveError::WouldBlock`].
//!
//! Invariant: what leaves is justified by what is durable, in the order of the turns; after a failure nothing leaves.

mod builder;
mod channel_index;
mod clock;
mod connection;
mod effects;
mod error;
mod journal;
mod ready;
mod shard_cell;
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
    ChannelRef, Command, CryptoCounters, Input, NodeConfig, Now, Occupancy, Shard, local_init,
};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::message::Message;
use fulmen_wire::units::{FeeratePerKw, NodeId};

pub use builder::Builder;
pub use clock::{Clock, SystemClock};
pub use connection::Connection;
pub use effects::{Effects, Handler};
pub use error::{ConnectError, Fatal, ReceiveError, StartError, Stopped, SubmitError};
pub use stats::{LatencyHistogram, ShardStats, Stats};
pub use storage::Storage;

use crate::chain::ChainEvent;
use crate::init::accept_init;
use channel_index::shard_of_peer;
use shard_cell::{Item, ShardCell, lock};
use worker::Runtime;

/// A Lightning node that runs: the embedder feeds it, and it gives back [`Effects`] through a [`Handler`].
///
/// Feeding calls may be made from any thread; they queue and return. What is fed by one thread for one peer is taken up in
/// that order. Dropping the engine ends its threads at once, as a crash would, and loses nothing that has left;
/// [`Engine::shutdown`] finishes what waits first.
#[derive(Debug)]
pub struct Engine {
    runtime: Arc<Runtime>,
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

    fn without_threads(runtime: Arc<Runtime>) -> Engine {
        let node_id = lock(&runtime.cell(0).running).shard.node_id();
        let (connections, closing) = (AtomicU64::new(1), AtomicBool::new(false));
        Engine { runtime, node_id, connections, closing, threads: Mutex::default() }
    }

    fn spawn(runtime: Arc<Runtime>, workers: usize, parker: Option<Parker>) -> Result<Engine, StartError> {
        let engine = Engine::without_threads(runtime);
        for worker in 0..workers {
            let runtime = Arc::clone(&engine.runtime);
            engine.thread(format!("fulmen-work-{worker}"), move || runtime.work(worker))?;
        }
        if let Some(parker) = parker {
            let runtime = Arc::clone(&engine.runtime);
            engine.thread("fulmen-persist".to_owned(), move || runtime.run_journal_thread(&parker))?;
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
        Message::from(local_init(&self.runtime.config)).encode()
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
        let features = accept_init(&self.runtime.config, init)?;
        let connection = Connection { peer, number: self.connections.fetch_add(1, Ordering::Relaxed) };
        let cell = self.cell_of(peer);
        let schedule = lock(&cell.inbox).connect(connection, features, &*self.runtime.clock);
        if schedule {
            self.runtime.schedule(cell.number);
        }
        Ok(connection)
    }

    /// A connection is gone. One that is over already is no concern.
    pub fn disconnected(&self, connection: Connection) {
        let cell = self.cell_of(connection.peer);
        let mut inbox = lock(&cell.inbox);
        let schedule =
            inbox.unlink(connection) && inbox.push(Item::Disconnected { connection }, &*self.runtime.clock);
        drop(inbox);
        if schedule {
            self.runtime.schedule(cell.number);
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
        let runtime = &*self.runtime;
        let cell = self.cell_of(connection.peer);
        let (schedule, taken) =
            lock(&cell.inbox).queue_messages(connection, decoded, &runtime.bounds, &*runtime.clock);
        if schedule {
            runtime.schedule(cell.number);
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
        let runtime = &*self.runtime;
        let submitted = lock(&runtime.cell(shard).inbox).submit(command, &runtime.bounds, &*runtime.clock);
        if submitted? {
            runtime.schedule(shard);
        }
        Ok(())
    }

    /// The chain took a step. Steps are given in the order the chain reports them.
    pub fn chain_event(&self, event: &ChainEvent) {
        for cell in &self.runtime.cells {
            // Held while the input is queued, so that two callers cannot swap two steps.
            let mut monitor = lock(&cell.monitor);
            self.runtime.push(cell.number, Item::Input(monitor.chain_event(event)));
        }
    }

    /// The fee rate at which a transaction is expected to confirm within a few blocks: see [`Input::Feerate`].
    pub fn feerate(&self, feerate: FeeratePerKw) {
        self.for_each_cell(|| Input::Feerate(feerate));
    }

    /// Every block that the chain had when the engine started was given: see [`Input::ChainInStep`].
    pub fn chain_in_step(&self) {
        self.for_each_cell(|| Input::ChainInStep);
    }

    fn for_each_cell(&self, input: impl Fn() -> Input) {
        for cell in &self.runtime.cells {
            self.runtime.push(cell.number, Item::Input(input()));
        }
    }

    /// Does everything that waits, on this thread: what an engine without threads lives by. The handler is called from
    /// within. With threads there is no need for it, and it does no harm.
    pub fn step(&self, now: Now) {
        self.runtime.run_all(now);
    }

    /// Whether [`Engine::step`] would find something to do besides the passing of time.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.runtime.cells.iter().any(|cell| lock(&cell.inbox).scheduled) || self.runtime.journal.is_due()
    }

    /// Tells an engine without threads that time has passed: once a second keeps timeouts sharp.
    pub fn tick(&self) {
        self.runtime.tick();
    }

    /// Looks at a channel, between two turns of its shard. A turn waits meanwhile; `look` must not call the engine.
    pub fn channel<T>(&self, channel: ChannelRef, look: impl FnOnce(&Channel) -> T) -> Option<T> {
        let shard = self.runtime.channels.shard_of(channel)?;
        lock(&self.runtime.cell(shard).running).shard.channel(channel).map(look)
    }

    /// Looks at each shard, between two of its turns; `look` must not call the engine.
    pub fn for_each_shard(&self, mut look: impl FnMut(&Shard)) {
        for cell in &self.runtime.cells {
            look(&lock(&cell.running).shard);
        }
    }

    /// How many shards the channels are dealt out to.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.runtime.cells.len()).unwrap_or(u16::MAX)
    }

    /// What the engine has done and holds. Waits for the turn that each shard is in.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let journal = &self.runtime.journal;
        let (store, unwritten_turns) = (journal.store_stats(), journal.waiting() as u64);
        let mut stats = Stats { store, unwritten_turns, ..Stats::default() };
        for cell in &self.runtime.cells {
            let (occupancy, crypto) = {
                let running = lock(&cell.running);
                (running.shard.occupancy(), running.shard.counters())
            };
            stats.crypto = plus(stats.crypto, crypto);
            stats.latency.add(&cell.counters);
            stats.shards.push(shard_stats(cell, occupancy));
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
        if self.runtime.workers == 0 {
            self.runtime.run_all(self.runtime.clock.now());
        }
        while self.has_work() && !self.runtime.journal.has_failed() {
            std::thread::sleep(DRAIN_POLL);
        }
        self.runtime.journal.write_all(&self.runtime.cells, &*self.runtime.clock);
        self.end_threads();
        if let Some(fatal) = self.runtime.journal.fatal() {
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
        self.runtime.end();
        for thread in lock(&self.threads).drain(..) {
            // One that panicked has said so on its own; there is nobody left to tell.
            let _ = thread.join();
        }
    }

    fn check_running(&self) -> Result<(), Stopped> {
        if let Some(fatal) = self.runtime.journal.fatal() {
            return Err(Stopped::Failed(fatal));
        }
        if self.closing.load(Ordering::Relaxed) {
            return Err(Stopped::ShutDown);
        }
        Ok(())
    }

    fn cell_of(&self, peer: NodeId) -> &ShardCell {
        self.runtime.cell(shard_of_peer(peer, self.shards()))
    }

    fn shard_of(&self, command: &Command) -> Result<u16, SubmitError> {
        let by_id = |channel_id| {
            let shard = self.runtime.channels.shard_of(ChannelRef::Id(channel_id));
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
            Command::ExpectPayment(invoice) => Ok(self.runtime.config.receiver(invoice.payment_hash)),
            Command::SendHtlc(send) => Ok(self.runtime.channels.shard_of(send.channel).unwrap_or(0)),
            _ => Ok(0),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !lock(&self.threads).is_empty() {
            self.runtime.journal.abandon();
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

fn shard_stats(cell: &ShardCell, occupancy: Occupancy) -> ShardStats {
    let (queued, queued_bytes) = {
        let inbox = lock(&cell.inbox);
        (inbox.len() as u64, inbox.bytes() as u64)
    };
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    ShardStats {
        turns: load(&cell.counters.turns),
        inputs: load(&cell.counters.inputs),
        inputs_max: load(&cell.counters.inputs_max),
        handoffs: load(&cell.counters.handoffs),
        queued,
        queued_bytes,
        occupancy,
    }
}

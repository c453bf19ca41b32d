//! The runtime: a node's shards on threads, fed with bytes, blocks and commands.
//!
//! Owns: the engine's threads (the only ones of the crate), the shards' queues, the order in which turns become durable
//! and their effects leave, and the embedding API. Does not hold sockets, read a clock (a [`Clock`] does), or interpret
//! messages.
//!
//! **Threads.** Workers run turns over the shards with queued inputs, round-robin. Turns become durable by group commit
//! (`journal`): on the worker itself while no shard is ready, on the journal thread while there are turns to run. All
//! shards together share two lock-free queues, touched once a turn: the ready shards, with a lock for workers that fall
//! asleep (`ready`), and the turns to be made durable. The shard of a peer is a function of its id (`channel_index`),
//! so a message takes the lock of its own shard and no other, and non-strict forwarding, which chooses among the
//! channels of one peer, stays inside a shard.
//!
//! **Bounds.** `shard_cell` bounds queues, `journal` turns that wait for the disk. Feeding never blocks: a peer without
//! credit gets [`ReceiveError::WouldBlock`].
//!
//! Invariant: every effect that leaves is justified by a durable record, in the order of the turns; after a failure
//! nothing leaves.

mod allowance;
mod builder;
mod channel_index;
mod clock;
mod connection;
mod effects;
mod error;
mod events;
mod journal;
mod ready;
mod replays;
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
pub use events::EventId;
pub use stats::{LatencyHistogram, ShardStats, Stats};
pub use storage::Storage;

use crate::chain::ChainEvent;
use crate::init::accept_init;
use channel_index::shard_of_peer;
use shard_cell::{Item, ShardCell, lock, message_cost};
use worker::Runtime;

/// A running Lightning node. The embedder feeds it inputs; it gives back [`Effects`] through a [`Handler`].
///
/// Feeding calls may come from any thread; they queue and return. Inputs that one thread feeds for one peer are
/// processed in that order. Dropping the engine ends its threads at once, as a crash would: no effect that has left is
/// lost. [`Engine::shutdown`] finishes queued work first.
///
/// # Examples
///
/// An engine without threads answers a `ping`:
///
/// ```
/// use std::sync::mpsc;
///
/// use fulmen::proto::forward::{NodeConfig, Now};
/// use fulmen::proto::keys::NodeSeed;
/// use fulmen::runtime::{Effects, Engine, Storage};
/// use fulmen::wire::units::ChainHash;
///
/// let node = |seed| {
///     let closing_script = [&[0x00, 0x14][..], &[seed; 20]].concat();
///     let config = NodeConfig::new(ChainHash::REGTEST, closing_script);
///     let (sender, effects) = mpsc::channel::<Effects>();
///     let builder = Engine::builder(NodeSeed::new([seed; 32]), config, Storage::Nowhere);
///     builder.inline(move |effects| sender.send(effects).unwrap_or_default()).map(|engine| (engine, effects))
/// };
/// let ((alice, effects), (bob, _)) = (node(1)?, node(2)?);
/// alice.chain_in_step(); // here an embedder gives the blocks it missed first
/// let to_bob = alice.connected(bob.id(), &bob.init())?;
/// alice.receive(to_bob, &[0, 18, 0, 2, 0, 0])?; // BOLT 1: type 18, asks for 2 bytes, carries none
/// alice.step(Now { unix_ms: 0 });
/// let pong = vec![0, 19, 0, 2, 0, 0]; // type 19, 2 bytes
/// assert_eq!(effects.recv()?.send, [(to_bob, pong)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    runtime: Arc<Runtime>,
    node_id: NodeId,
    connections: AtomicU64,
    closing: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Work in flight with peers when an engine was shut down. It is durable, and a restart continues it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// Received HTLCs that are not irrevocably removed.
    pub circuits: usize,
    /// Offered HTLCs that are not resolved.
    pub offered: usize,
    /// Payments to this node that wait for more parts.
    pub incomplete_sets: usize,
    /// Handoffs between shards without an acknowledgement.
    pub handoffs: usize,
    /// Channels with updates or a `commitment_signed` in flight.
    pub settling_channels: usize,
}

impl Engine {
    /// The settings of an engine whose keys all derive from `seed`, and which keeps its records in `storage`.
    pub fn builder(seed: NodeSeed, config: NodeConfig, storage: Storage) -> Builder {
        Builder::new(seed, config, storage)
    }

    fn without_threads(runtime: Arc<Runtime>) -> Engine {
        let node_id = lock(&runtime.cell(0).running).shard.node_id();
        Engine {
            runtime,
            node_id,
            connections: AtomicU64::new(1),
            closing: AtomicBool::new(false),
            threads: Mutex::default(),
        }
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

    /// Begins a connection: transport to `peer` is established, and `init` is the first message it sent. An earlier
    /// connection to the peer ends.
    ///
    /// The handler may get messages for the new connection before this returns: an embedder that looks sockets up by
    /// connection keeps its table locked meanwhile.
    ///
    /// # Errors
    /// When the connection cannot be used and is to be closed; nothing has changed then.
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

    /// Ends a connection. Does nothing if it has ended already.
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

    /// Declares that every block up to the chain's present tip was given to [`Engine::chain_event`]. Call it once after
    /// a start; until then peers may connect, but no HTLC is forwarded, fulfilled or offered.
    ///
    /// Those decisions depend on the height. With the height of the last stop, days behind the chain, a node would
    /// forward HTLCs that have expired on both sides: the payee claims downstream, the payer times out upstream.
    pub fn chain_in_step(&self) {
        self.for_each_cell(|| Input::ChainInStep);
    }

    /// Queues a message of a peer, given as its bytes from the type on.
    ///
    /// # Errors
    /// When the message is not accepted; nothing has changed then.
    pub fn receive(&self, connection: Connection, message: &[u8]) -> Result<(), ReceiveError> {
        self.receive_all(connection, [message])
    }

    /// Queues messages of a peer. Messages that were read together are best given together: one turn then sees them
    /// all, and answers updates that belong to one `commitment_signed` with one.
    ///
    /// # Errors
    /// When not all are accepted; the error has the number of those that were.
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
                Ok(message) => {
                    decoded.push((message, message_cost(bytes.len())));
                }
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

    /// Queues a command of the operator. Its outcome is an event.
    ///
    /// # Errors
    /// When the command is not accepted; nothing has changed then.
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

    /// Acknowledges all durable events of a shard up to this one: they are not delivered again after a restart.
    ///
    /// An acknowledgement becomes durable with the shard's next record, a second later at most. A crash before that
    /// repeats the events, so handle an event by its [`EventId`] once.
    pub fn acknowledge(&self, event: EventId) {
        if let Some(cell) = self.runtime.cells.get(usize::from(event.shard)) {
            self.runtime.push(cell.number, Item::Acknowledged { number: event.number });
        }
    }

    /// Queues a step of the chain. Give the steps in the order in which [`Chain::poll`](crate::chain::Chain::poll)
    /// reports them.
    pub fn chain_event(&self, event: &ChainEvent) {
        for cell in &self.runtime.cells {
            // Held while the input is queued, so that two callers cannot swap two steps.
            let mut monitor = lock(&cell.monitor);
            for input in monitor.chain_event(event) {
                self.runtime.push(cell.number, Item::Input(input));
            }
        }
    }

    /// Gives every shard the fee rate at which a transaction is expected to confirm within a few blocks: see
    /// [`Input::Feerate`].
    pub fn feerate(&self, feerate: FeeratePerKw) {
        self.for_each_cell(|| Input::Feerate(feerate));
    }

    fn for_each_cell(&self, input: impl Fn() -> Input) {
        for cell in &self.runtime.cells {
            self.runtime.push(cell.number, Item::Input(input()));
        }
    }

    /// Does all queued work on this thread, which an engine without threads depends on. Calls the handler. An engine
    /// with threads does not need it; calling it is harmless.
    pub fn step(&self, now: Now) {
        self.runtime.run_all(now);
    }

    /// Whether [`Engine::step`] would find queued work, the passing of time aside.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.runtime.cells.iter().any(|cell| lock(&cell.inbox).scheduled) || self.runtime.journal.is_due()
    }

    /// Queues a tick in every shard of an engine without threads. One per second keeps timeouts exact to a second.
    pub fn tick(&self) {
        self.runtime.tick();
    }

    /// Calls `look` with a channel, between two turns of its shard, which waits meanwhile; `look` must not call the
    /// engine.
    pub fn channel<T>(&self, channel: ChannelRef, look: impl FnOnce(&Channel) -> T) -> Option<T> {
        let shard = self.runtime.channels.shard_of(channel)?;
        lock(&self.runtime.cell(shard).running).shard.channel(channel).map(look)
    }

    /// Calls `look` with each shard, between two of its turns; `look` must not call the engine.
    pub fn for_each_shard(&self, mut look: impl FnMut(&Shard)) {
        for cell in &self.runtime.cells {
            look(&lock(&cell.running).shard);
        }
    }

    /// The number of shards that the channels are dealt out to.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.runtime.cells.len()).unwrap_or(u16::MAX)
    }

    /// Counters and present load. Waits for the running turn of each shard.
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

    /// Stops accepting inputs, does all queued work, makes it durable, releases its effects, and ends the threads.
    /// Returns the work in flight with peers.
    ///
    /// # Errors
    /// When the engine has failed.
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
            // The panic hook has reported a thread that panicked.
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
            | Command::InsistOnState { channel_id }
            | Command::SetPolicy { channel_id, .. }
            | Command::UpdateFee { channel_id, .. } => by_id(*channel_id),
            Command::ResumeHtlc { incoming } | Command::FailHtlc { incoming, .. } => {
                by_id(incoming.channel_id)
            }
            Command::ExpectPayment(invoice) => Ok(self.runtime.config.receiver(invoice.payment_hash)),
            // Any shard can report that it knows no such channel, as the outcome of the attempt.
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

/// The period in which a shutdown checks for queued work.
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

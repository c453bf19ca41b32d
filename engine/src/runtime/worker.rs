//! Workers: which thread runs the turn of which shard, and where the results of a turn go.
//!
//! Owns the loops of the threads, and the handoffs between shards. A shard with queued inputs is in the ready queue
//! once; a worker takes the first, runs one turn over its inputs, and appends the shard again if more have come
//! meanwhile. So shards are served round-robin.
//!
//! Does not make turns durable: they are queued in the [`Journal`], and the next turn of the same shard may run before
//! they are durable, since no effect is released until then.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::sync::{Parker, Unparker};
use fulmen_proto::forward::{
    ChannelRef, Command, Event, Handoff, HandoffStep, IncomingHtlc, Input, NodeConfig, Now, Resolution, Turn,
};
use fulmen_proto::onion::Failure;
use fulmen_wire::message::Message;

use super::channel_index::ChannelIndex;
use super::clock::Clock;
use super::connection::Connection;
use super::effects::Effects;
use super::error::{Fatal, FundingTaken};
use super::events::EventId;
use super::journal::{FinishedTurn, Journal};
use super::ready::Ready;
use super::shard_cell::{Item, QueueBounds, Running, ShardCell, Taken, lock};

/// The period in which every shard gets an `Input::Tick` and turns without effects are made durable.
const TICK: Duration = Duration::from_secs(1);
/// The period in which shards with a wake-up time are checked.
const LOOK: Duration = Duration::from_millis(20);

/// An element of the ready queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Run a turn of this shard.
    Shard(u16),
    /// End the thread.
    Stop,
}

/// The state that all threads of an engine share.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) config: NodeConfig,
    pub(super) bounds: QueueBounds,
    pub(super) cells: Box<[ShardCell]>,
    pub(super) channels: ChannelIndex,
    pub(super) journal: Journal,
    pub(super) clock: Box<dyn Clock>,
    /// Has room for every shard once and a `Stop` for every worker, so that a push never fails.
    pub(super) ready: Ready<Next>,
    /// Wakes the journal thread, if there is one.
    pub(super) persister: Option<Unparker>,
    pub(super) workers: usize,
    /// Whether there is a store.
    pub(super) keeps_records: bool,
    /// Whether durable events are kept until they are acknowledged.
    pub(super) keeps_events: bool,
    pub(super) ending: AtomicBool,
    /// Whether some shard has a wake-up time.
    pub(super) shards_wait: AtomicBool,
}

impl Runtime {
    pub(super) fn cell(&self, number: u16) -> &ShardCell {
        &self.cells[usize::from(number)]
    }

    /// Appends a shard to the ready queue. The caller has just set `scheduled`.
    pub(super) fn schedule(&self, number: u16) {
        // The queue has room for every shard, and this one is not in it.
        self.ready.push(Next::Shard(number));
    }

    /// Queues an item that is not subject to credit.
    pub(super) fn push(&self, number: u16, item: Item) {
        let schedule = lock(&self.cell(number).inbox).push(item, &*self.clock);
        if schedule {
            self.schedule(number);
        }
    }

    /// The loop of a worker. The first worker also sends ticks.
    pub(super) fn work(&self, worker: usize) {
        let mut ticked = self.clock.elapsed();
        let mut looked = ticked;
        loop {
            // The worker that ran a turn after which a shard has a wake-up time comes by here next.
            let timeout = match worker {
                _ if self.shards_wait.load(Ordering::SeqCst) => Some(LOOK),
                0 => Some(TICK),
                _ => None,
            };
            match self.ready.take(timeout) {
                Some(Next::Shard(number)) => {
                    self.run(number, self.clock.now());
                    self.guarded(|| self.write_journal());
                }
                Some(Next::Stop) => return,
                None => {}
            }
            if worker == 0 && self.clock.elapsed().saturating_sub(ticked) >= TICK {
                ticked = self.clock.elapsed();
                self.guarded(|| self.tick());
            }
            if self.shards_wait.load(Ordering::SeqCst) && self.clock.elapsed().saturating_sub(looked) >= LOOK
            {
                looked = self.clock.elapsed();
                self.wake_shards(self.clock.now());
            }
        }
    }

    /// The loop of the journal thread, which waits for the disk while workers have turns to run.
    pub(super) fn run_journal_thread(&self, parker: &Parker) {
        while !self.ending.load(Ordering::SeqCst) {
            parker.park();
            self.guarded(|| self.journal.write_urgent(&self.cells, &*self.clock, || false));
        }
    }

    /// Runs `work`, and stops the engine if it panics: in the handler, or in the engine itself.
    fn guarded(&self, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.journal.fail(Fatal::HandlerPanicked { message: message_of(&*panic) });
        }
    }

    /// Tells all threads to end.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        for _ in 0..self.workers {
            self.ready.push(Next::Stop);
        }
        if let Some(persister) = &self.persister {
            persister.unpark();
        }
    }

    /// Schedules the shards whose wake-up time has come.
    fn wake_shards(&self, now: Now) {
        self.shards_wait.store(false, Ordering::SeqCst);
        for cell in &self.cells {
            let wake_at = cell.wake_at_unix_ms.load(Ordering::SeqCst);
            if wake_at <= now.unix_ms {
                self.push(cell.number, Item::Input(Input::Wake));
            }
            if wake_at < u64::MAX {
                self.shards_wait.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Runs turns on the calling thread until no shard is ready.
    pub(super) fn run_all(&self, now: Now) {
        self.wake_shards(now);
        while let Some(Next::Shard(number)) = self.ready.try_take() {
            self.run(number, now);
            if self.ready.is_empty() {
                self.journal.write_urgent(&self.cells, &*self.clock, || false);
            }
        }
    }

    /// Sends a tick to every shard, and makes all queued turns durable.
    pub(super) fn tick(&self) {
        for cell in &self.cells {
            self.push(cell.number, Item::Input(Input::Tick));
        }
        self.journal.write_all(&self.cells, &*self.clock);
    }

    /// Writes and releases urgent turns, or leaves that to the journal thread if shards are ready.
    fn write_journal(&self) {
        if !self.journal.is_due() {
            return;
        }
        match &self.persister {
            Some(persister) if !self.ready.is_empty() => persister.unpark(),
            Some(persister) => self.journal.write_urgent(&self.cells, &*self.clock, || {
                let leave = !self.ready.is_empty();
                if leave {
                    persister.unpark();
                }
                leave
            }),
            None => self.journal.write_urgent(&self.cells, &*self.clock, || false),
        }
    }

    /// Runs one turn of a shard over its queued inputs. The caller has taken the shard from the ready queue.
    fn run(&self, number: u16, now: Now) {
        let cell = self.cell(number);
        let taken = lock(&cell.inbox).take(now);
        if !self.journal.has_failed() {
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn(cell, taken, now)));
            if let Err(panic) = turn {
                self.journal.fail(Fatal::Panicked { shard: number, message: message_of(&*panic) });
            }
        }
        if lock(&cell.inbox).stays_scheduled() {
            self.schedule(number);
        }
    }

    fn turn(&self, cell: &ShardCell, taken: Taken, now: Now) {
        let Taken { items, since, mut resume } = taken;
        let mut guard = lock(&cell.running);
        let running = &mut *guard;
        let given = items.len();
        let commanded = items.iter().any(|item| matches!(item, Item::Command(_)));
        // An `Ack` goes to the shard whose `Resolve` it answers in the same turn.
        let mut askers: HashMap<IncomingHtlc, u16> = HashMap::new();
        let inputs = inputs_of(items, running, &mut askers);
        let Turn { record, send, disconnect, broadcast, events, handoffs } = running.shard.turn(inputs, now);
        let wake_at = running.shard.wake_at();
        cell.wake_at_unix_ms.store(wake_at.map_or(u64::MAX, |at| at.unix_ms), Ordering::SeqCst);
        if wake_at.is_some() {
            self.shards_wait.store(true, Ordering::SeqCst);
        }
        cell.counters.turn(given, handoffs.len());
        let connections = &mut running.connections;
        let send = send.into_iter().filter_map(|(peer, message)| {
            let connection = *connections.get(&peer)?;
            Some((connection, message.encode()))
        });
        let send = send.collect();
        let disconnect: Vec<Connection> =
            disconnect.into_iter().filter_map(|peer| connections.remove(&peer)).collect();
        if !disconnect.is_empty() {
            let mut inbox = lock(&cell.inbox);
            for connection in &disconnect {
                inbox.unlink(*connection);
            }
        }
        if !events.is_empty() {
            lock(&cell.monitor).follow(&events, &running.shard);
        }
        for event in &events {
            self.note(cell, running, event);
            if let Event::ChannelReady { peer, .. } = event {
                lock(&cell.inbox).add_channel_peer(*peer);
            }
        }
        let mut bytes = Vec::new();
        if self.keeps_records && !record.is_empty() {
            record.encode(&mut bytes);
        }
        let (record, last_event) = self.keep_events(cell, running, bytes, &events, &mut resume);
        let effects = Effects { shard: cell.number, send, disconnect, broadcast, events, last_event, resume };
        self.journal.queue(FinishedTurn { record, effects, since, commanded });
        drop(guard);
        self.hand_over(cell.number, handoffs, &askers);
    }

    /// Puts the durable events of a turn, and acknowledgements, into its record. Holds peers off while too many events
    /// are unacknowledged, and adds them to `resume` when that ends.
    fn keep_events(
        &self,
        cell: &ShardCell,
        running: &mut Running,
        record: Vec<u8>,
        events: &[Event],
        resume: &mut Vec<Connection>,
    ) -> (Vec<u8>, Option<EventId>) {
        if !self.keeps_records {
            return (record, None);
        }
        let log = &mut running.events;
        let (before, was_full) = (log.last(), running.is_full_of_events);
        let record = log.record(record, if self.keeps_events { events } else { &[] });
        running.is_full_of_events = log.is_full();
        if running.is_full_of_events != was_full {
            resume.extend(lock(&cell.inbox).set_full_of_events(running.is_full_of_events));
        }
        let number = log.last();
        (record, (number > before).then_some(EventId { shard: cell.number, number }))
    }

    /// Follows the channels that an event opens, places, announces or ends.
    fn note(&self, cell: &ShardCell, running: &Running, event: &Event) {
        match event {
            Event::FundingNeeded { temporary_channel_id, .. } => {
                self.channels.add(*temporary_channel_id, cell.number);
            }
            Event::ChannelFunded { channel_id, peer, .. }
                if self.channels.add(*channel_id, cell.number).is_some() =>
            {
                let (channel_id, peer) = (*channel_id, *peer);
                let reason = FundingTaken { channel_id, peer }.to_string();
                let command = Command::FailChannel { channel_id, reason };
                self.push(cell.number, Item::Input(Input::Command(command)));
            }
            Event::ChannelReady { scid, .. } if self.channels.place(*scid, cell.number) => {
                for other in self.cells.iter().filter(|other| other.number != cell.number) {
                    self.push(other.number, Item::Input(Input::SiblingChannel(*scid)));
                }
            }
            // The first shard announces the node, and only once a channel is.
            Event::OwnGossip { message }
                if cell.number != 0 && matches!(**message, Message::ChannelAnnouncement(_)) =>
            {
                self.push(0, Item::Input(Input::SiblingAnnounced));
            }
            Event::ChannelFailed { channel_id, .. }
                if running.shard.channel(ChannelRef::Id(*channel_id)).is_none() =>
            {
                self.channels.forget(*channel_id, cell.number);
            }
            _ => {}
        }
    }

    /// Queues the handoffs of a turn in their shards, in each all at once, so that one turn sees them together.
    pub(super) fn hand_over(&self, from: u16, handoffs: Vec<Handoff>, askers: &HashMap<IncomingHtlc, u16>) {
        let mut items: Vec<Vec<Item>> = Vec::new();
        for handoff in handoffs {
            let Some((to, handoff)) = self.addressed(from, handoff, askers) else { continue };
            items.resize_with(items.len().max(usize::from(to) + 1), Vec::new);
            items[usize::from(to)].push(Item::Handoff { from, handoff });
        }
        for (to, items) in (0..).zip(items) {
            if items.is_empty() {
                continue;
            }
            let mut inbox = lock(&self.cell(to).inbox);
            let mut schedule = false;
            for item in items {
                schedule |= inbox.push(item, &*self.clock);
            }
            drop(inbox);
            if schedule {
                self.schedule(to);
            }
        }
    }

    /// The shard that a handoff goes to, and the handoff.
    fn addressed(
        &self,
        from: u16,
        handoff: Handoff,
        askers: &HashMap<IncomingHtlc, u16>,
    ) -> Option<(u16, Handoff)> {
        let incoming = handoff.incoming;
        let to = match &handoff.step {
            HandoffStep::Offer { offer, .. } => self.channels.shard_of(ChannelRef::Scid(offer.scid)),
            HandoffStep::Part(part) => Some(self.config.receiver(part.payment_hash)),
            HandoffStep::Resolve(_) => self.channels.shard_of(ChannelRef::Id(incoming.channel_id)),
            HandoffStep::Ack => askers.get(&incoming).copied(),
        };
        match (to, &handoff.step) {
            (Some(to), _) => Some((to, handoff)),
            (None, HandoffStep::Offer { .. }) => {
                // No shard has the channel any more: the sender gets the refusal that its shard would have sent.
                let step = HandoffStep::Resolve(Resolution::Fail(Failure::UnknownNextPeer));
                Some((from, Handoff { incoming, step }))
            }
            (None, step) => {
                tracing::debug!(?incoming, ?step, "nobody to hand over to");
                None
            }
        }
    }
}

/// The shard's inputs. Follows connections and acknowledgements, and notes which shard sent which handoff.
fn inputs_of(
    items: impl IntoIterator<Item = Item>,
    running: &mut Running,
    askers: &mut HashMap<IncomingHtlc, u16>,
) -> Vec<Input> {
    let input = |item| match item {
        Item::Connected { connection, features } => {
            running.connections.insert(connection.peer, connection);
            Some(Input::connected(connection.peer, features))
        }
        Item::Disconnected { connection } => {
            running.connections.remove(&connection.peer);
            Some(Input::disconnected(connection.peer))
        }
        Item::Message { input, .. } => Some(Input::Peer(input)),
        Item::Command(command) => Some(Input::Command(command)),
        Item::Input(input) => Some(input),
        Item::Handoff { from, handoff } => {
            askers.insert(handoff.incoming, from);
            Some(Input::Handoff(handoff))
        }
        Item::Acknowledged { number } => {
            running.events.acknowledge(number);
            None
        }
    };
    items.into_iter().filter_map(input).collect()
}

/// The message of a panic.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

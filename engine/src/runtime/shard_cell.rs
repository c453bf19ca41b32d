//! One shard in the runtime: its lock, its queue of inputs, and the credit of its peers.
//!
//! Owns the bounded queue of a shard. One turn takes all queued inputs, up to [`TURN_BYTES_MAX`], so an input waits for
//! the running turn, and for one more with each [`TURN_BYTES_MAX`] queued before it. Does not decide which thread runs
//! a turn, nor when; see [`super::worker`].
//!
//! **Bounds**, in bytes, as [`Item::cost`] counts them. A peer has credit for a number of messages and of bytes, and
//! all peers of a shard share a bound; one message is always accepted from a peer with nothing queued. Commands are
//! bounded by number. Messages that serve no channel with the peer draw on an allowance that grows with time
//! (`allowance`). Blocks, ticks, acknowledgements and changes of connections come from the embedder, and are not
//! bounded here. Handoffs of other shards are never refused, since a circuit would hang: each belongs to an HTLC that
//! occupies one of the 483 slots of its incoming channel until it is irrevocably removed, and a circuit has one handoff
//! in flight at a time. So the channels of the other shards times 483 times the longest handoff (a relayed failure of
//! 4 kB) bound them.
//!
//! Invariant: a shard is in the ready queue, or held by a worker, exactly while `scheduled` is set: one worker runs it
//! at a time, and a shard with queued inputs is never stranded.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fulmen_proto::forward::{
    Command, Handoff, HandoffStep, Input, Now, PeerEvent, PeerInput, Resolution, Shard,
};
use fulmen_wire::features::Features;
use fulmen_wire::message::Message;
use fulmen_wire::units::NodeId;

use super::allowance::{Allowance, Allowances, needs_allowance};
use super::clock::Clock;
use super::connection::Connection;
use super::error::{ReceiveError, SubmitError};
use super::events::EventLog;
use super::stats::ShardCounters;
use crate::monitor::FundingMonitor;

/// The largest total cost of one turn's inputs, in bytes, unless a single input costs more. It bounds how long other
/// peers wait, and the memory of a turn's messages. The turn's record may be longer: the store takes any length.
const TURN_BYTES_MAX: usize = 4 << 20;
/// The cost of an input other than a message, in bytes: an onion of 1,366 bytes and the fields around it. Longer parts
/// are added.
const ITEM_BYTES: usize = 2_048;

/// The shortest time between two growths of the allowances, in milliseconds.
const GROWTH_MS: u64 = 100;

/// Bounds of the queue of a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueBounds {
    pub(super) peer_messages_max: usize,
    pub(super) peer_bytes_max: usize,
    pub(super) shard_bytes_max: usize,
    pub(super) commands_max: usize,
    pub(super) allowances: Allowances,
}

impl Default for QueueBounds {
    fn default() -> QueueBounds {
        QueueBounds {
            // Both sides' 483 HTLCs added and removed at once, with room for their commitments.
            peer_messages_max: 2_048,
            peer_bytes_max: 2 << 20,
            shard_bytes_max: 64 << 20,
            commands_max: 4_096,
            allowances: Allowances::default(),
        }
    }
}

/// A shard with its queue, monitor and counters.
#[derive(Debug)]
pub(super) struct ShardCell {
    pub(super) number: u16,
    pub(super) inbox: Mutex<Inbox>,
    /// Locked by the worker that runs a turn, and by callers that read the shard between two turns.
    pub(super) running: Mutex<Running>,
    pub(super) monitor: Mutex<FundingMonitor>,
    pub(super) counters: ShardCounters,
    /// The time at which the shard wants a turn without any input; `u64::MAX` for never.
    pub(super) wake_at_unix_ms: AtomicU64,
}

/// The state that a turn changes.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) shard: Shard,
    /// The connections that the shard knows: those of the inputs that turns have taken.
    pub(super) connections: HashMap<NodeId, Connection>,
    pub(super) events: EventLog,
    /// Whether the inbox refuses messages, since too many events are unacknowledged.
    pub(super) is_full_of_events: bool,
}

/// A queued input of a shard.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every item is a message: boxing each would cost more")]
pub(super) enum Item {
    Connected {
        connection: Connection,
        features: Features,
    },
    Disconnected {
        connection: Connection,
    },
    /// A message of a peer, which counts `bytes` against the peer's credit.
    Message {
        input: PeerInput,
        bytes: usize,
    },
    /// A command of the embedder, which counts against the bound of commands.
    Command(Command),
    /// An input that is not subject to credit.
    Input(Input),
    /// A handoff of the shard `from`.
    Handoff {
        from: u16,
        handoff: Handoff,
    },
    /// The embedder has handled the durable events up to this one.
    Acknowledged {
        number: u64,
    },
}

/// The queued inputs of a shard.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    items: VecDeque<Item>,
    /// The cost of all items together, as [`Item::cost`] counts.
    cost: usize,
    pub(super) scheduled: bool,
    /// The arrival of the oldest item.
    since: Duration,
    bytes: usize,
    commands: usize,
    links: HashMap<NodeId, Link>,
    /// Peers with a channel that is ready, or was.
    channel_peers: HashSet<NodeId>,
    allowances: Allowances,
    /// The time of the last growth of the allowances.
    grown_at: Now,
    /// Whether so many events are unacknowledged that no messages are accepted.
    is_full_of_events: bool,
    /// Peers with queued messages.
    talking: Vec<NodeId>,
}

/// A connection and its use of credit.
#[derive(Debug)]
struct Link {
    connection: Connection,
    messages: usize,
    bytes: usize,
    /// Whether a message was refused for lack of credit.
    blocked: bool,
    allowance: Allowance,
    /// Whether a message was refused for lack of allowance.
    is_slowed: bool,
    /// Whether the peer has a channel that is ready, or was.
    has_channel: bool,
}

/// The inputs that a turn takes.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) items: VecDeque<Item>,
    pub(super) since: Duration,
    /// Connections that have credit again.
    pub(super) resume: Vec<Connection>,
}

impl ShardCell {
    pub(super) fn new(
        number: u16,
        shard: Shard,
        events: EventLog,
        monitor: FundingMonitor,
        allowances: Allowances,
    ) -> ShardCell {
        let inbox = Inbox { channel_peers: shard.channel_peers().collect(), allowances, ..Inbox::default() };
        ShardCell {
            number,
            inbox: Mutex::new(inbox),
            running: Mutex::new(Running {
                shard,
                connections: HashMap::new(),
                events,
                is_full_of_events: false,
            }),
            monitor: Mutex::new(monitor),
            counters: ShardCounters::default(),
            wake_at_unix_ms: AtomicU64::new(u64::MAX),
        }
    }
}

impl Item {
    /// The bytes that count for the item against the bounds of its queue.
    fn cost(&self) -> usize {
        match self {
            Item::Message { bytes, .. } => *bytes,
            Item::Handoff { handoff, .. } => ITEM_BYTES + variable_bytes(&handoff.step),
            _ => ITEM_BYTES,
        }
    }
}

/// The bytes that count for a message of `bytes` bytes against a peer's credit: at least those of its decoded form, so
/// that short messages cannot hold much more memory than they count for.
pub(super) fn message_cost(bytes: usize) -> usize {
    bytes.max(size_of::<Item>())
}

/// The bytes of a handoff whose number others decide.
fn variable_bytes(step: &HandoffStep) -> usize {
    match step {
        HandoffStep::Part(part) => part.payload.len(),
        HandoffStep::Resolve(Resolution::Relay(reason)) => reason.len(),
        HandoffStep::Offer { .. } | HandoffStep::Resolve(_) | HandoffStep::Ack => 0,
    }
}

impl Inbox {
    /// Queues an item that is not subject to credit. Returns whether the caller must schedule the shard.
    pub(super) fn push(&mut self, item: Item, clock: &dyn Clock) -> bool {
        if self.items.is_empty() {
            self.since = clock.elapsed();
        }
        self.cost += item.cost();
        self.items.push_back(item);
        !std::mem::replace(&mut self.scheduled, true)
    }

    /// Begins a connection, and ends the one before.
    pub(super) fn connect(&mut self, connection: Connection, features: Features, clock: &dyn Clock) -> bool {
        let link = Link {
            connection,
            messages: 0,
            bytes: 0,
            blocked: false,
            allowance: Allowance::new(self.allowances),
            is_slowed: false,
            has_channel: self.channel_peers.contains(&connection.peer),
        };
        let mut schedule = false;
        if let Some(old) = self.links.insert(connection.peer, link) {
            schedule |= self.push(Item::Disconnected { connection: old.connection }, clock);
        }
        schedule |= self.push(Item::Connected { connection, features }, clock);
        schedule
    }

    /// Removes a connection; false if it had ended already.
    pub(super) fn unlink(&mut self, connection: Connection) -> bool {
        let is_last = self.links.get(&connection.peer).is_some_and(|link| link.connection == connection);
        if is_last {
            self.links.remove(&connection.peer);
        }
        is_last
    }

    /// Queues messages of a peer, each with its length, up to its credit. Returns whether the caller must schedule the
    /// shard.
    pub(super) fn queue_messages(
        &mut self,
        connection: Connection,
        messages: Vec<(Message, usize)>,
        bounds: &QueueBounds,
        clock: &dyn Clock,
    ) -> (bool, Result<(), ReceiveError>) {
        let mut schedule = false;
        for (accepted, (message, bytes)) in messages.into_iter().enumerate() {
            match self.links.get_mut(&connection.peer) {
                Some(link) if link.connection == connection => {
                    let is_over = link.messages >= bounds.peer_messages_max
                        || link.bytes + bytes > bounds.peer_bytes_max
                        || self.bytes + bytes > bounds.shard_bytes_max;
                    if self.is_full_of_events || (is_over && link.messages > 0) {
                        link.blocked = true;
                        return (schedule, Err(ReceiveError::WouldBlock { accepted }));
                    }
                    if needs_allowance(&message, link.has_channel) && !link.allowance.spend(bytes) {
                        link.is_slowed = true;
                        return (schedule, Err(ReceiveError::WouldBlock { accepted }));
                    }
                    if link.messages == 0 {
                        self.talking.push(connection.peer);
                    }
                    link.messages += 1;
                    link.bytes += bytes;
                }
                _ => return (schedule, Err(ReceiveError::NotConnected(connection))),
            }
            self.bytes += bytes;
            let input = PeerInput { peer: connection.peer, event: PeerEvent::Message(message) };
            schedule |= self.push(Item::Message { input, bytes }, clock);
        }
        (schedule, Ok(()))
    }

    /// Queues a command of the operator. Returns whether the caller must schedule the shard.
    pub(super) fn submit(
        &mut self,
        command: Command,
        bounds: &QueueBounds,
        clock: &dyn Clock,
    ) -> Result<bool, SubmitError> {
        if self.commands >= bounds.commands_max {
            return Err(SubmitError::WouldBlock { waiting: self.commands });
        }
        self.commands += 1;
        Ok(self.push(Item::Command(command), clock))
    }

    /// Takes the inputs of one turn, and returns their credit to the peers.
    pub(super) fn take(&mut self, now: Now) -> Taken {
        let since = self.since;
        let mut resume = self.grow_allowances(now);
        if self.cost > TURN_BYTES_MAX {
            let mut taken = self.take_some();
            taken.resume.append(&mut resume);
            return taken;
        }
        for peer in self.talking.drain(..) {
            if let Some(link) = self.links.get_mut(&peer) {
                (link.messages, link.bytes) = (0, 0);
                if std::mem::take(&mut link.blocked) {
                    resume.push(link.connection);
                }
            }
        }
        (self.bytes, self.commands, self.cost) = (0, 0, 0);
        Taken { items: std::mem::take(&mut self.items), since, resume }
    }

    /// Grows the allowances of all connections. Returns those that lacked one and have some again. Every shard has a
    /// turn each second, for its tick.
    fn grow_allowances(&mut self, now: Now) -> Vec<Connection> {
        let elapsed_ms = now.unix_ms.saturating_sub(self.grown_at.unix_ms);
        if elapsed_ms < GROWTH_MS {
            return Vec::new();
        }
        self.grown_at = now;
        let mut resume = Vec::new();
        for link in self.links.values_mut() {
            if link.allowance.grow(elapsed_ms, self.allowances) && std::mem::take(&mut link.is_slowed) {
                resume.push(link.connection);
            }
        }
        resume.sort_unstable();
        resume
    }

    /// The peer's channel is ready: its updates need no allowance from now on.
    pub(super) fn add_channel_peer(&mut self, peer: NodeId) {
        self.channel_peers.insert(peer);
        if let Some(link) = self.links.get_mut(&peer) {
            link.has_channel = true;
        }
    }

    fn take_some(&mut self) -> Taken {
        let mut taken = Taken { items: VecDeque::new(), since: self.since, resume: Vec::new() };
        let mut cost = 0;
        while cost <= TURN_BYTES_MAX
            && let Some(item) = self.items.pop_front()
        {
            cost += item.cost();
            match &item {
                Item::Message { input, bytes } => {
                    self.bytes -= bytes;
                    if let Some(link) = self.links.get_mut(&input.peer).filter(|link| link.messages > 0) {
                        link.messages -= 1;
                        link.bytes = link.bytes.saturating_sub(*bytes);
                        if link.messages == 0 && std::mem::take(&mut link.blocked) {
                            taken.resume.push(link.connection);
                        }
                    }
                }
                Item::Command(_) => self.commands -= 1,
                _ => {}
            }
            taken.items.push_back(item);
        }
        self.cost -= cost;
        let links = &self.links;
        self.talking.retain(|peer| links.get(peer).is_some_and(|link| link.messages > 0));
        taken
    }

    /// Accepts messages, or refuses all of them while too many events are unacknowledged. Returns the connections that
    /// may be read from again.
    pub(super) fn set_full_of_events(&mut self, is_full: bool) -> Vec<Connection> {
        let opens = std::mem::replace(&mut self.is_full_of_events, is_full) && !is_full;
        let mut resume = Vec::new();
        for link in self.links.values_mut().filter(|_| opens) {
            if std::mem::take(&mut link.blocked) {
                resume.push(link.connection);
            }
        }
        resume.sort_unstable();
        resume
    }

    /// Whether inputs are queued; if not, the shard is no longer scheduled.
    pub(super) fn stays_scheduled(&mut self) -> bool {
        self.scheduled = !self.items.is_empty();
        self.scheduled
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Locks, ignoring poisoning: a panic under the lock has already stopped the engine, so this state is at most read for
/// statistics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

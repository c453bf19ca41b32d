//! A node of one shard without a runtime: for simulators, and for embedders who bring their own threads and store.
//!
//! Owns the step from bytes to messages, and the monitoring of the shard's channels in blocks. Does not hold
//! connections, keep threads, read a clock or make a record durable: the caller does, in the order of the fields of
//! [`Outbox`].
//!
//! Invariant: a peer's bytes reach the shard only as messages that decoded, and only after its `init` was accepted.

use std::collections::BTreeSet;

use bitcoin::Transaction;
use fulmen_proto::forward::{
    Command, CryptoCounters, Event, Input, NodeConfig, Now, Occupancy, Record, Shard, Turn, local_init,
};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::codec::DecodeError;
use fulmen_wire::message::Message;
use fulmen_wire::units::{FeeratePerKw, NodeId};

use crate::chain::ChainEvent;
use crate::init::{FirstMessageError, accept_init};
use crate::monitor::FundingMonitor;

/// The period of `Input::Tick`, in milliseconds.
const TICK_MS: u64 = 1_000;

/// A Lightning node of one shard, without threads, sockets or clock.
///
/// Feed it with [`connected`](ShardDriver::connected), [`receive`](ShardDriver::receive),
/// [`command`](ShardDriver::command) and [`chain_event`](ShardDriver::chain_event), in the order things happen; then
/// call [`turn`](ShardDriver::turn) and execute the [`Outbox`] in the order of its fields. Feeding only queues: all
/// work is done by the turn.
#[derive(Debug)]
pub struct ShardDriver {
    shard: Shard,
    inbox: Vec<Input>,
    peers: BTreeSet<NodeId>,
    monitor: FundingMonitor,
    /// The time of the last tick.
    ticked: Now,
}

/// The results of a turn, to be carried out in the order of the fields.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The record, which must be durable before anything below happens.
    pub record: Record,
    /// Serialized messages to peers, in order.
    pub send: Vec<(NodeId, Vec<u8>)>,
    /// Peers to disconnect once their messages are sent.
    pub disconnect: Vec<NodeId>,
    /// Transactions to broadcast.
    pub broadcast: Vec<Transaction>,
    /// Events for the operator.
    pub events: Vec<Event>,
}

/// Why a message cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverReceiveError {
    /// There is no connection to the peer.
    #[error("{0} is not connected")]
    NotConnected(NodeId),
    /// The message does not decode. Close the connection.
    #[error(transparent)]
    Broken(#[from] DecodeError),
}

impl ShardDriver {
    /// A node without channels, its keys derived from `seed`.
    #[must_use]
    pub fn new(seed: NodeSeed, config: NodeConfig) -> ShardDriver {
        ShardDriver::restored(Shard::new(seed, config))
    }

    /// A node after a restart, without connections. Give the blocks again from the one below the oldest funding whose
    /// channel is not ready; blocks at heights that were passed already are harmless. Give every block up to the
    /// chain's tip before the first connection: with a height far behind, expired HTLCs would be forwarded.
    #[must_use]
    pub fn restored(shard: Shard) -> ShardDriver {
        let monitor = FundingMonitor::of(&shard);
        ShardDriver { shard, inbox: Vec::new(), peers: BTreeSet::new(), monitor, ticked: Now::default() }
    }

    /// The node's public key.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.shard.node_id()
    }

    /// The shard, to read channels and balances.
    #[must_use]
    pub const fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Cryptographic operations so far.
    #[must_use]
    pub const fn counters(&self) -> CryptoCounters {
        self.shard.counters()
    }

    /// Channels, circuits and HTLCs that the node holds.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        self.shard.occupancy()
    }

    /// The `init` to send first on every connection.
    #[must_use]
    pub fn init(&self) -> Vec<u8> {
        Message::from(local_init(self.shard.config())).encode()
    }

    /// Begins a connection: transport to `peer` is established, and `init` is the first message it sent.
    ///
    /// # Errors
    /// When the connection is to be closed; nothing has changed then.
    pub fn connected(&mut self, peer: NodeId, init: &[u8]) -> Result<(), FirstMessageError> {
        let features = accept_init(self.shard.config(), init)?;
        if !self.peers.insert(peer) {
            self.inbox.push(Input::disconnected(peer));
        }
        self.inbox.push(Input::connected(peer, features));
        Ok(())
    }

    /// Ends the connection to `peer`.
    pub fn disconnected(&mut self, peer: NodeId) {
        if self.peers.remove(&peer) {
            self.inbox.push(Input::disconnected(peer));
        }
    }

    /// Queues a message of `peer`, given as its bytes from the type on.
    ///
    /// # Errors
    /// When the message cannot be accepted; nothing has changed then.
    pub fn receive(&mut self, peer: NodeId, message: &[u8]) -> Result<(), DriverReceiveError> {
        if !self.peers.contains(&peer) {
            return Err(DriverReceiveError::NotConnected(peer));
        }
        let message = Message::decode(message)?;
        self.inbox.push(Input::message(peer, message));
        Ok(())
    }

    /// Queues a command of the operator. Its outcome is an event.
    pub fn command(&mut self, command: Command) {
        self.inbox.push(Input::Command(command));
    }

    /// Queues a step of the chain. Give the steps in the order in which the chain reports them.
    pub fn chain_event(&mut self, event: &ChainEvent) {
        self.inbox.extend(self.monitor.chain_event(event));
    }

    /// The fee rate at which a transaction is expected to confirm within a few blocks: see [`Input::Feerate`].
    pub fn feerate(&mut self, feerate: FeeratePerKw) {
        self.inbox.push(Input::Feerate(feerate));
    }

    /// Every block that the chain had at the start was given: see [`Input::ChainInStep`].
    pub fn chain_in_step(&mut self) {
        self.inbox.push(Input::ChainInStep);
    }

    /// Runs a turn over all queued inputs. Call it once a second at least, and whenever [`ShardDriver::has_work`] says
    /// so.
    pub fn turn(&mut self, now: Now) -> Outbox {
        let mut inputs = std::mem::take(&mut self.inbox);
        if now.unix_ms >= self.ticked.unix_ms + TICK_MS {
            self.ticked = now;
            inputs.push(Input::Tick);
        }
        let Turn { record, send, disconnect, broadcast, events, handoffs } = self.shard.turn(inputs, now);
        debug_assert!(handoffs.is_empty(), "a node of one shard has no other shard to hand anything to");
        for peer in &disconnect {
            self.disconnected(*peer);
        }
        self.monitor.follow(&events, &self.shard);
        let send = send.into_iter().map(|(peer, message)| (peer, message.encode())).collect();
        Outbox { record, send, disconnect, broadcast, events }
    }

    /// Whether inputs are queued, or the time of [`Shard::wake_at`] has come.
    #[must_use]
    pub fn has_work(&self, now: Now) -> bool {
        !self.inbox.is_empty() || self.shard.wake_at().is_some_and(|at| at <= now)
    }
}

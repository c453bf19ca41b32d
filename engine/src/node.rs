//! One node: a shard of channels, the bytes its peers send, and the blocks that confirm its channels.
//!
//! Owns the step from bytes to messages. Does not hold connections, keep threads, read a clock or make a record durable:
//! whoever drives the node does, in the order the fields of [`Outbox`] stand in.
//!
//! Invariant: a peer's bytes reach the shard only as messages that decoded, and only after its `init` was accepted.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, Transaction};
use fulmen_proto::forward::{
    Command, CryptoCounters, Event, InitError, Input, NodeConfig, Now, Occupancy, Record, Shard, Turn,
    local_init, negotiate,
};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::codec::DecodeError;
use fulmen_wire::message::Message;
use fulmen_wire::units::NodeId;

use crate::chain::ChainEvent;
use crate::watch::Watch;

/// How often the shard is told that time passes, in milliseconds.
const TICK_MS: u64 = 1_000;

/// A Lightning node without threads, sockets or clock.
///
/// Feed it with [`connected`](Node::connected), [`receive`](Node::receive), [`command`](Node::command) and
/// [`chain_event`](Node::chain_event), in the order things happen; then call [`turn`](Node::turn) and execute the
/// [`Outbox`] in the order of its fields. Feeding only queues: all work is done by the turn.
#[derive(Debug)]
pub struct Node {
    shard: Shard,
    inbox: Vec<Input>,
    peers: BTreeSet<NodeId>,
    watch: Watch,
    /// When the shard was last told that time passes.
    ticked: Now,
}

/// What a turn asks of the world, to be executed in the order of the fields.
#[derive(Debug, Default)]
pub struct Outbox {
    /// What must be durable before anything below happens.
    pub record: Record,
    /// Serialized messages to peers, in order.
    pub send: Vec<(NodeId, Vec<u8>)>,
    /// Peers to disconnect once their messages are sent.
    pub disconnect: Vec<NodeId>,
    /// Transactions to broadcast.
    pub broadcast: Vec<Transaction>,
    /// What the operator is told.
    pub events: Vec<Event>,
}

/// A peer that cannot be talked to: the connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Its first message does not decode.
    #[error("the peer's first message is broken: {0}")]
    Broken(#[from] DecodeError),
    /// Its first message is not `init`.
    #[error("the peer's first message is {0}, not init")]
    NotInit(&'static str),
    /// What it asks for cannot be given.
    #[error(transparent)]
    Refused(#[from] InitError),
}

/// A message that cannot be taken. The peer is sent a `warning` where BOLT 1 asks for one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// There is no connection to the peer.
    #[error("{0} is not connected")]
    NotConnected(NodeId),
    /// The message does not decode; the connection is to be closed.
    #[error(transparent)]
    Broken(#[from] DecodeError),
}

impl Node {
    /// A node without channels, its keys derived from `seed`.
    #[must_use]
    pub fn new(seed: NodeSeed, config: NodeConfig) -> Node {
        Node {
            shard: Shard::new(seed, config),
            inbox: Vec::new(),
            peers: BTreeSet::new(),
            watch: Watch::default(),
            ticked: Now::default(),
        }
    }

    /// A node after a restart, without connections. The blocks from below the oldest funding that is not confirmed for good
    /// are to be given again; heights that were passed already do no harm.
    #[must_use]
    pub fn restored(shard: Shard) -> Node {
        let mut watch = Watch::new(shard.occupancy().height);
        let unplaced = shard.channels().filter(|channel| channel.scid().is_none());
        unplaced.filter_map(|channel| channel.funding_outpoint()).for_each(|outpoint| watch.add(outpoint));
        Node { shard, inbox: Vec::new(), peers: BTreeSet::new(), watch, ticked: Now::default() }
    }

    /// The node's public key.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.shard.node_id()
    }

    /// The shard, for what it can tell about channels and balances.
    #[must_use]
    pub const fn shard(&self) -> &Shard {
        &self.shard
    }

    /// How much cryptography was done so far.
    #[must_use]
    pub const fn counters(&self) -> CryptoCounters {
        self.shard.counters()
    }

    /// How much the node holds.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        self.shard.occupancy()
    }

    /// The `init` to send first on every connection.
    #[must_use]
    pub fn init(&self) -> Vec<u8> {
        Message::from(local_init(self.shard.config())).encode()
    }

    /// A connection to `peer` stands, and `init` is the first message it sent.
    ///
    /// # Errors
    /// When the connection is to be closed; nothing has changed then.
    pub fn connected(&mut self, peer: NodeId, init: &[u8]) -> Result<(), ConnectError> {
        let message = Message::decode(init)?;
        let Message::Init(init) = message else { return Err(ConnectError::NotInit(message.name())) };
        let features = negotiate(self.shard.config(), &init)?;
        if !self.peers.insert(peer) {
            self.inbox.push(Input::PeerDisconnected { peer });
        }
        self.inbox.push(Input::PeerConnected { peer, features });
        Ok(())
    }

    /// The connection to `peer` is gone.
    pub fn disconnected(&mut self, peer: NodeId) {
        if self.peers.remove(&peer) {
            self.inbox.push(Input::PeerDisconnected { peer });
        }
    }

    /// A message came from `peer`, as its bytes from the type on.
    ///
    /// # Errors
    /// When the message cannot be taken; nothing has changed then.
    pub fn receive(&mut self, peer: NodeId, message: &[u8]) -> Result<(), ReceiveError> {
        if !self.peers.contains(&peer) {
            return Err(ReceiveError::NotConnected(peer));
        }
        let message = Message::decode(message)?;
        self.inbox.push(Input::Message { peer, message });
        Ok(())
    }

    /// The operator wants something.
    pub fn command(&mut self, command: Command) {
        self.inbox.push(Input::Command(command));
    }

    /// The chain took a step. Steps are given in the order the chain reports them.
    pub fn chain_event(&mut self, event: &ChainEvent) {
        let told = self.watch.chain_event(event);
        self.inbox.push(told);
    }

    /// Does everything that waits. One turn a second at least, and whenever [`Node::has_work`], keeps timeouts sharp.
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
        for event in &events {
            match event {
                Event::ChannelFunded { funding_outpoint, .. } => self.watch.add(*funding_outpoint),
                Event::ChannelFailed { .. } => self.watch.retain(&self.fundings()),
                _ => {}
            }
        }
        let send = send.into_iter().map(|(peer, message)| (peer, message.encode())).collect();
        Outbox { record, send, disconnect, broadcast, events }
    }

    /// Whether something waits to be done, or has waited for this moment to come.
    #[must_use]
    pub fn has_work(&self, now: Now) -> bool {
        !self.inbox.is_empty() || self.shard.wake_at().is_some_and(|at| at <= now)
    }

    fn fundings(&self) -> BTreeSet<OutPoint> {
        self.shard.channels().filter_map(|channel| channel.funding_outpoint()).collect()
    }
}

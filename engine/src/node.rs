//! One node: a shard of channels, the bytes its peers send, and the blocks that confirm its channels.
//!
//! Owns the step from bytes to messages and from blocks to the depths of funding transactions. Does not hold
//! connections, keep threads, read a clock or make a record durable: whoever drives the node does, in the order the
//! fields of [`Outbox`] stand in.
//!
//! Invariant: a peer's bytes reach the shard only as messages that decoded, and only after its `init` was accepted.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::Hash;
use bitcoin::{Block, OutPoint, Transaction, TxOut};
use fulmen_proto::forward::{
    Command, Confirmation, CryptoCounters, Event, InitError, Input, NodeConfig, Now, Occupancy, Record,
    Shard, Turn, local_init, negotiate,
};
use fulmen_proto::keys::NodeSeed;
use fulmen_wire::codec::DecodeError;
use fulmen_wire::message::Message;
use fulmen_wire::units::{BlockHeight, NodeId, Scid, Txid};

use crate::chain::ChainEvent;

/// The depth at which a funding transaction is no longer watched: BOLT 7 announces channels six blocks deep, and a
/// reorganisation past twice that is beyond what any channel survives.
const FUNDING_WATCH_BLOCKS: u32 = 12;

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
    height: BlockHeight,
    /// The funding outputs that are watched, and where each stands once it does.
    fundings: BTreeMap<OutPoint, Option<Place>>,
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

/// A funding output in the chain.
#[derive(Clone, Debug)]
struct Place {
    height: BlockHeight,
    scid: Scid,
    output: TxOut,
}

impl Node {
    /// A node without channels, its keys derived from `seed`.
    #[must_use]
    pub fn new(seed: NodeSeed, config: NodeConfig) -> Node {
        Node {
            shard: Shard::new(seed, config),
            inbox: Vec::new(),
            peers: BTreeSet::new(),
            height: BlockHeight(0),
            fundings: BTreeMap::new(),
        }
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
        match event {
            ChainEvent::Connected { height, block } => self.block_connected(*height, block),
            ChainEvent::Disconnected { height, .. } => self.block_disconnected(*height),
        }
    }

    /// Does everything that waits.
    pub fn turn(&mut self, now: Now) -> Outbox {
        let inputs = std::mem::take(&mut self.inbox);
        let Turn { record, send, disconnect, broadcast, events, handoffs } = self.shard.turn(inputs, now);
        debug_assert!(handoffs.is_empty(), "a node of one shard has no other shard to hand anything to");
        for peer in &disconnect {
            self.disconnected(*peer);
        }
        for event in &events {
            match event {
                Event::ChannelFunded { funding_outpoint, .. } => self.watch(*funding_outpoint),
                Event::ChannelFailed { .. } => self.unwatch(),
                _ => {}
            }
        }
        let send = send.into_iter().map(|(peer, message)| (peer, message.encode())).collect();
        Outbox { record, send, disconnect, broadcast, events }
    }

    /// Whether a turn would have anything to work on besides the passing of time.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Looks for a funding output in the blocks to come.
    fn watch(&mut self, outpoint: OutPoint) {
        self.fundings.insert(outpoint, None);
    }

    /// Stops looking for what funds no channel any more.
    fn unwatch(&mut self) {
        let funding: BTreeSet<OutPoint> =
            self.shard.channels().filter_map(|channel| channel.funding_outpoint()).collect();
        self.fundings.retain(|outpoint, _| funding.contains(outpoint));
    }

    fn block_connected(&mut self, height: BlockHeight, block: &Block) {
        self.height = height;
        if !self.fundings.is_empty() {
            for (index, transaction) in (0..).zip(&block.txdata) {
                let txid = transaction.compute_txid();
                let all = OutPoint::new(txid, 0)..=OutPoint::new(txid, u32::MAX);
                for (outpoint, place) in self.fundings.range_mut(all) {
                    *place = find(height, index, transaction, outpoint.vout);
                }
            }
        }
        self.tell_height();
        self.fundings.retain(|_, place| {
            place.as_ref().is_none_or(|place| height.blocks_above(place.height) < FUNDING_WATCH_BLOCKS)
        });
    }

    fn block_disconnected(&mut self, height: BlockHeight) {
        self.height = BlockHeight(height.0.saturating_sub(1));
        for place in self.fundings.values_mut() {
            *place = place.take().filter(|place| place.height < height);
        }
        self.tell_height();
    }

    /// Tells the shard the height, and how deep the funding transactions that still matter are.
    fn tell_height(&mut self) {
        let confirmations = self.fundings.iter().filter_map(|(outpoint, place)| {
            let Place { height, scid, output } = place.as_ref()?;
            let depth = self.height.blocks_above(*height) + 1;
            let txid = Txid(outpoint.txid.to_byte_array());
            Some(Confirmation { txid, scid: *scid, depth, output: output.clone() })
        });
        let confirmations = confirmations.collect();
        self.inbox.push(Input::Block { height: self.height, confirmations });
    }
}

/// What a transaction at this place has at an output that a peer named; it may not be there.
fn find(height: BlockHeight, index: u32, transaction: &Transaction, vout: u32) -> Option<Place> {
    let output = transaction.output.get(usize::try_from(vout).ok()?)?;
    // BOLT 2 carries a funding output's index in 16 bits, so that a larger one never comes to be a channel.
    let scid = Scid::new(height.0, index, u16::try_from(vout).ok()?)?;
    Some(Place { height, scid, output: output.clone() })
}

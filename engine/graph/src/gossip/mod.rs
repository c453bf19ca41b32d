//! Gossip in (BOLT 7): what the network says about itself, believed only when its signatures are.
//!
//! [`Gossip`] is fed with messages in batches and gives back an [`GossipOutcome`]: the [`GraphChange`]s that whoever holds a
//! graph applies, funding outputs to look up, and peers to disconnect. It keeps each message it believes in a store (the
//! file behind a [`Log`]), answers queries and filters from there, and opens again without verifying anything twice.
//!
//! Does no I/O, reads no clock and connects to nobody: log, time and funding answers are handed in. Does not find routes
//! and does not hold policies.
//!
//! Invariants: what is believed does not depend on the order in which messages came, nor on how they were cut into
//! batches, as long as no limit is passed, no two messages differ in one timestamp, and no peer mixes forgeries into what it
//! relays (which can cost it, and nobody else, what it relays); nothing is believed without its signatures; every memory a
//! peer can fill has a bound in [`GossipConfig`].
//!
//! Budget: a `channel_announcement` in 15 us and a `channel_update` in 3 us of one core in batches of 64 and more, at most
//! 300 bytes of memory a channel; `cargo bench --bench gossip` and `bench/peers -- gossip` check the times.

mod budget;
mod change;
mod compact;
mod config;
mod held;
mod index;
mod ingest;
mod limits;
mod load;
mod outcome;
mod peer;
mod pending;
mod policy;
mod prune;
mod serve;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use fulmen_secp::Verifier;
use fulmen_wire::units::{NodeId, Sat, Scid};

pub use budget::ByteLimit;
pub use change::GraphChange;
pub use config::{FundingCheck, GossipConfig, GossipTime, Rate};
pub use outcome::{
    FundingAnswer, FundingLookup, GossipOutcome, GossipReaction, IncomingGossip, Refusal, Refused, Source,
};
pub use serve::QueryRefusal;
pub use store::{Log, OpenError, StoreWriter};

use crate::Direction;
use held::HeldMessages;
use index::Index;
use peer::{Peer, PeerQueries};
use pending::PendingAnnouncements;
use store::Store;

/// Keeps gossip: takes it in, stores it, prunes it, tells it to others.
///
/// Feeding: [`Gossip::ingest`] with messages, [`Gossip::funding_answered`] with what [`GossipOutcome::lookups`] asked for,
/// [`Gossip::funding_spent`] with what the chain says, [`Gossip::prune`] now and then, [`Gossip::peer_disconnected`] when a peer
/// has left. Each may be called at any time; [`Gossip::flush`] after any of them writes what is new to the log, and
/// [`Gossip::compact`] now and then keeps the log short.
///
/// Draining: after [`Gossip::query`], a peer's messages are drawn with [`Gossip::answer`] at once, and with
/// [`Gossip::relay`] once a minute, until nothing comes.
#[derive(Debug)]
pub struct Gossip<L> {
    config: GossipConfig,
    verifier: Verifier,
    index: Index,
    store: Store<L>,
    held: HeldMessages,
    /// Announcements that are valid and wait for their funding outputs to be looked up.
    pending: PendingAnnouncements,
    banned: BTreeSet<NodeId>,
    peers: BTreeMap<NodeId, Peer>,
}

/// What is known of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Its nodes, the lower id first.
    pub nodes: [NodeId; 2],
    /// As in [`GraphChange::ChannelAdded`].
    pub capacity: Sat,
    /// The timestamps of the last updates, in the order of the nodes.
    pub timestamps: [Option<u32>; 2],
}

impl<L: Log> Gossip<L> {
    /// How many channels are known.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.index.channel_count()
    }

    /// How many nodes have a known channel.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.index.node_count()
    }

    /// How many messages are held until the channel they refer to is announced.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// The bytes that these messages take; bounded by [`GossipConfig::held_bytes`].
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }

    /// The bytes of announcements whose funding outputs are being looked up; bounded by [`GossipConfig::pending_bytes`].
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes()
    }

    /// What is known of a channel.
    #[must_use]
    pub fn channel(&self, scid: Scid) -> Option<ChannelInfo> {
        let channel = self.index.channel(scid)?;
        let timestamps = channel.updates.map(|update| update.map(|update| update.timestamp));
        Some(ChannelInfo { nodes: self.index.ends(channel), capacity: channel.capacity(), timestamps })
    }

    /// The `channel_announcement` of a channel.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn channel_announcement(&self, scid: Scid) -> io::Result<Option<Vec<u8>>> {
        self.index.channel(scid).map(|channel| self.store.message(channel.announcement)).transpose()
    }

    /// The last `channel_update` of a direction.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn channel_update(&self, scid: Scid, direction: Direction) -> io::Result<Option<Vec<u8>>> {
        let update = self.index.channel(scid).and_then(|channel| channel.updates[direction.origin()]);
        update.map(|update| self.store.message(update.location)).transpose()
    }

    /// The last `node_announcement` of a node.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn node_announcement(&self, node: NodeId) -> io::Result<Option<Vec<u8>>> {
        let location = self.index.node(node).and_then(|node| node.announcement);
        location.map(|location| self.store.message(location)).transpose()
    }

    /// Writes to the log what came since the last time.
    ///
    /// # Errors
    /// When the log cannot be written; what is new stays in memory, and the next call tries again.
    pub fn flush(&mut self) -> io::Result<()> {
        self.store.flush()
    }

    /// Forgets a peer that has left, all but what it has used of its limits.
    pub fn peer_disconnected(&mut self, peer: NodeId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.connected = false;
            peer.open_queries = PeerQueries::default();
        }
    }

    /// Gives the log back; what was not flushed is lost.
    #[must_use]
    pub fn into_log(self) -> L {
        self.store.into_log()
    }
}

#[cfg(test)]
mod tests;

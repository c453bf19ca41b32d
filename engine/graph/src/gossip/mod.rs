//! The gossip store (BOLT 7): announcements of channels and nodes, accepted only with valid signatures.
//!
//! [`Gossip`] takes in messages in batches and returns a [`GossipOutcome`]: the [`GraphChange`]s to apply to every
//! graph, funding outputs to look up, and peers to disconnect. It keeps each accepted message in a store (the file
//! behind a [`Log`]), answers queries and filters from there, and opens again without verifying a signature twice.
//!
//! Does I/O only through the [`Log`] given to [`Gossip::open`]; reads no clock and has no connections: time and answers
//! about funding outputs are arguments.
//! Does not find routes and does not keep policies.
//!
//! Invariants: the accepted messages depend neither on the order of arrival nor on how messages were cut into
//! batches, as long as no limit is exceeded, no two messages have the same timestamp, and no peer mixes forgeries
//! into the messages it relays (which can only cost its own messages); nothing is accepted without valid signatures;
//! held messages, pending announcements and the state of peers are bounded by [`GossipConfig`], bans by a constant. The
//! number of accepted channels is bounded only by the lookup of their funding outputs.
//!
//! Budget: 15 us for a `channel_announcement` and 3 us for a `channel_update` on one core in batches of 64 and more,
//! and at most 300 bytes of memory per channel; `cargo bench --bench gossip` and `bench/peers -- gossip` check the
//! times.

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

/// The gossip store: takes in gossip, keeps it, prunes it, and relays it.
///
/// Feeding: [`Gossip::ingest`] with messages, [`Gossip::funding_answered`] with the answers to
/// [`GossipOutcome::lookups`], [`Gossip::funding_spent`] for spent funding outputs and [`Gossip::spend_reverted`] when
/// the spend was reorganised away, [`Gossip::prune`] about once an hour, [`Gossip::peer_disconnected`]. Each may be
/// called at any time. [`Gossip::flush`] after any of them writes new records to the log, and [`Gossip::compact`] about
/// once an hour keeps the log short.
///
/// Draining: after [`Gossip::query`], call [`Gossip::answer`] until it returns nothing, and [`Gossip::relay`] once a
/// minute while the peer has a backlog.
///
/// ```
/// use fulmen_graph::ChannelGraph;
/// use fulmen_graph::gossip::{Gossip, GossipConfig, GossipTime, IncomingGossip, Source};
/// use fulmen_secp::Verifier;
/// use fulmen_wire::units::ChainHash;
///
/// let mut graph = ChannelGraph::new();
/// // A `Vec<u8>` is a log in memory; `fulmen::gossip::FileLog` is one on disk.
/// let mut gossip = Gossip::open(GossipConfig::new(ChainHash::REGTEST), Verifier::new(), Vec::new(), |change| {
///     graph.apply(&change).expect("an opened store's changes fit an empty graph");
/// })?;
///
/// let now = GossipTime { unix_seconds: 1_700_000_000, tip: None };
/// let truncated = [1, 0, 0];
/// let outcome = gossip.ingest(&[IncomingGossip { from: Source::Own, message: &truncated }], now);
/// assert_eq!((outcome.accepted, outcome.refused.len()), (0, 1));
/// for change in &outcome.changes {
///     graph.apply(change)?;
/// }
/// gossip.flush()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Gossip<L> {
    config: GossipConfig,
    verifier: Verifier,
    index: Index,
    store: Store<L>,
    held: HeldMessages,
    /// Announcements with valid signatures whose funding outputs are being looked up.
    pending: PendingAnnouncements,
    banned: BTreeSet<NodeId>,
    peers: BTreeMap<NodeId, Peer>,
}

/// A channel as the gossip store knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Its nodes, the lower id first.
    pub nodes: [NodeId; 2],
    /// As in [`GraphChange::ChannelAdded`].
    pub capacity: Sat,
    /// The timestamps of the last updates, in the order of the nodes; `None` without an update.
    pub timestamps: [Option<u32>; 2],
}

impl<L: Log> Gossip<L> {
    /// The number of channels.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.index.channel_count()
    }

    /// The number of nodes with a channel.
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

    /// The bytes of announcements whose funding outputs are being looked up; bounded by
    /// [`GossipConfig::pending_bytes`].
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes()
    }

    /// A channel's nodes, capacity and timestamps; `None` for an unknown channel.
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

    /// Writes new records to the log.
    ///
    /// # Errors
    /// When the log cannot be written. The records stay in memory, and the next call tries again.
    pub fn flush(&mut self) -> io::Result<()> {
        self.store.flush()
    }

    /// Drops the open queries of a peer that has disconnected. Its use of rate limits is kept until [`Gossip::prune`]
    /// finds them unused.
    pub fn peer_disconnected(&mut self, peer: NodeId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.connected = false;
            peer.open_queries = PeerQueries::default();
        }
    }

    /// Returns the log; records not flushed are lost.
    #[must_use]
    pub fn into_log(self) -> L {
        self.store.into_log()
    }
}

#[cfg(test)]
mod tests;

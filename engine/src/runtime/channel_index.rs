//! The shard of each channel, by channel id and by short channel id.
//!
//! Owns the map from the names of a channel to its shard, written when a channel opens and read for commands and
//! handoffs. Messages do not use it: the shard of a peer is a function of its id, so that all channels with one peer
//! share a shard.
//!
//! Readers lock a cache line of their own ([`ShardedLock`]); a turn reads once, and only if it hands something over.

use std::collections::HashMap;
use std::sync::PoisonError;

use crossbeam::sync::ShardedLock;
use fulmen_proto::forward::ChannelRef;
use fulmen_wire::units::{ChannelId, NodeId, Scid};

/// The channels of all shards by name.
#[derive(Debug, Default)]
pub(super) struct ChannelIndex {
    names: ShardedLock<Names>,
}

#[derive(Debug, Default)]
struct Names {
    channels: HashMap<ChannelId, u16>,
    scids: HashMap<Scid, u16>,
}

impl ChannelIndex {
    /// The shard of a channel, by its channel id, its temporary id if we opened it, or its short channel id.
    pub(super) fn shard_of(&self, channel: ChannelRef) -> Option<u16> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        match channel {
            ChannelRef::Id(channel_id) => names.channels.get(&channel_id).copied(),
            ChannelRef::Scid(scid) => names.scids.get(&scid).copied(),
        }
    }

    /// Adds a channel id. Returns the shard that has a channel of this id already, if it is another.
    pub(super) fn add(&self, channel_id: ChannelId, shard: u16) -> Option<u16> {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let owner = *names.channels.entry(channel_id).or_insert(shard);
        (owner != shard).then_some(owner)
    }

    /// Adds a short channel id; false if it was known.
    pub(super) fn place(&self, scid: Scid, shard: u16) -> bool {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.scids.insert(scid, shard).is_none()
    }

    /// Removes the id of a channel that was never funded.
    pub(super) fn forget(&self, channel_id: ChannelId, shard: u16) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if names.channels.get(&channel_id) == Some(&shard) {
            names.channels.remove(&channel_id);
        }
    }
}

/// The shard of a peer. It never changes for a node with durable channels: it decides which shard has their records.
pub(super) fn shard_of_peer(peer: NodeId, shards: u16) -> u16 {
    // The bytes of a public key's x coordinate are as good as random. A peer that grinds its key to share a shard with
    // another gains nothing but a shared lock.
    let bytes = peer.0.last_chunk::<8>().copied().unwrap_or_default();
    (u64::from_be_bytes(bytes) % u64::from(shards)) as u16
}

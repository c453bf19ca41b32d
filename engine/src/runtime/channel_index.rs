//! Which shard owns what: channels by id and by place in the chain.
//!
//! Owns the map from a channel's names to its shard, written when a channel opens and read for commands and for handoffs.
//! Messages never ask it: the shard of a peer is a function of its id, so that all channels with one peer share a shard.
//!
//! Readers lock a cache line of their own ([`ShardedLock`]); a turn reads once, and only if it hands something over.

use std::collections::HashMap;
use std::sync::PoisonError;

use crossbeam::sync::ShardedLock;
use fulmen_proto::forward::ChannelRef;
use fulmen_wire::units::{ChannelId, NodeId, Scid};

/// The channels of all shards.
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
    /// The shard that owns a channel, by its permanent id, its temporary one if we opened it, or its place.
    pub(super) fn shard_of(&self, channel: ChannelRef) -> Option<u16> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        match channel {
            ChannelRef::Id(channel_id) => names.channels.get(&channel_id).copied(),
            ChannelRef::Scid(scid) => names.scids.get(&scid).copied(),
        }
    }

    /// Takes down a channel's id; gives the shard that has a channel of this id already, if it is another.
    pub(super) fn add(&self, channel_id: ChannelId, shard: u16) -> Option<u16> {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let owner = *names.channels.entry(channel_id).or_insert(shard);
        (owner != shard).then_some(owner)
    }

    /// Takes down a channel's place; false if it was known.
    pub(super) fn place(&self, scid: Scid, shard: u16) -> bool {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.scids.insert(scid, shard).is_none()
    }

    /// Forgets the id of a channel that was never funded.
    pub(super) fn forget(&self, channel_id: ChannelId, shard: u16) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if names.channels.get(&channel_id) == Some(&shard) {
            names.channels.remove(&channel_id);
        }
    }
}

/// The shard of a peer. It must never change for a node whose channels are durable: it decides where their records are.
pub(super) fn shard_of_peer(peer: NodeId, shards: u16) -> u16 {
    // The bytes of a public key's x coordinate are as good as random, and a peer that grinds its key to share a shard
    // with another gains nothing but its company.
    let bytes = peer.0.last_chunk::<8>().copied().unwrap_or_default();
    (u64::from_be_bytes(bytes) % u64::from(shards)) as u16
}

//! The channels of a shard, found by id and by peer.
//!
//! Owns the index by peer. Does not look into channels.
//!
//! Invariant: the index names exactly the channels there are, each under its peer, so that what concerns one peer costs
//! nothing for the channels of others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use fulmen_wire::units::{ChannelId, NodeId};

use super::record::ChannelEntry;

/// The least and the greatest id: what the channels of one peer stand between.
const IDS: (ChannelId, ChannelId) = (ChannelId([0; 32]), ChannelId([0xff; 32]));

/// Channels by id; reading is that of the map.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    by_id: BTreeMap<ChannelId, ChannelEntry>,
    by_peer: BTreeSet<(NodeId, ChannelId)>,
}

impl Deref for Channels {
    type Target = BTreeMap<ChannelId, ChannelEntry>;

    fn deref(&self) -> &BTreeMap<ChannelId, ChannelEntry> {
        &self.by_id
    }
}

impl Channels {
    /// The ids of a peer's channels, in order.
    pub(crate) fn of(&self, peer: NodeId) -> impl Iterator<Item = ChannelId> + '_ {
        self.by_peer.range((peer, IDS.0)..=(peer, IDS.1)).map(|(_, channel_id)| *channel_id)
    }

    /// A channel, to be changed. Its peer stays.
    pub(crate) fn get_mut(&mut self, channel_id: &ChannelId) -> Option<&mut ChannelEntry> {
        self.by_id.get_mut(channel_id)
    }

    /// All channels, to be changed. Their peers stay.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut ChannelEntry> {
        self.by_id.values_mut()
    }

    pub(crate) fn insert(&mut self, channel_id: ChannelId, entry: ChannelEntry) {
        let peer = entry.peer;
        if let Some(replaced) = self.by_id.insert(channel_id, entry) {
            self.by_peer.remove(&(replaced.peer, channel_id));
        }
        self.by_peer.insert((peer, channel_id));
    }

    pub(crate) fn remove(&mut self, channel_id: &ChannelId) -> Option<ChannelEntry> {
        let entry = self.by_id.remove(channel_id)?;
        self.by_peer.remove(&(entry.peer, *channel_id));
        Some(entry)
    }
}

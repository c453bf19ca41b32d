//! What the announcing of channels remembers between turns, of this run alone.
//!
//! Owns the queue of channels to look at, and for each connection which messages of BOLT 7 it has carried. Does not
//! decide anything; see `announce`. All of it begins anew after a restart, when every channel is looked at once.
//!
//! Bound: a few hundred bytes a channel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fulmen_wire::message::AnnouncementSignatures;
use fulmen_wire::units::{ChannelId, Scid};

use crate::forward::terms::time::Now;

/// Channels published in a second: after a start all of them are, and the gossip service is to keep up.
const PUBLISHED_PER_SECOND: usize = 256;

/// The state of announcing that is not durable.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    queue: VecDeque<ChannelId>,
    /// The same channels.
    queued: BTreeSet<ChannelId>,
    links: BTreeMap<ChannelId, AnnouncingLink>,
    /// Since when a peer is away from a channel for which we made an update.
    away_since: BTreeMap<ChannelId, Now>,
    /// The announcements handed to the embedder, by channel.
    pub(crate) published: BTreeMap<ChannelId, Scid>,
    /// The last sweep over all channels.
    pub(crate) swept: Option<Now>,
    /// The second in which channels were last published, and how many.
    pace: (u32, usize),
    /// Whether another shard of the node has announced a channel.
    pub(crate) sibling_announced: bool,
    /// Whether the node's announcement is to be looked at.
    pub(crate) node_due: bool,
    /// Whether the node's announcement was handed to the embedder.
    pub(crate) node_published: bool,
}

/// The messages of BOLT 7 that a channel's present connection has carried.
#[derive(Debug, Default)]
pub(crate) struct AnnouncingLink {
    /// The place for which we sent `announcement_signatures`.
    pub(crate) signatures_sent: Option<Scid>,
    /// Whether the peer sent valid ones.
    pub(crate) signatures_received: bool,
    /// The peer's latest `announcement_signatures` that could not be used: its view of the chain may be ahead of ours.
    pub(crate) early: Option<AnnouncementSignatures>,
    /// The timestamp of the last `channel_update` that we sent.
    pub(crate) update_sent: Option<u32>,
}

impl Announcer {
    /// Has a channel looked at in this turn or a later one.
    pub(crate) fn mark(&mut self, channel_id: ChannelId) {
        if self.queued.insert(channel_id) {
            self.queue.push_back(channel_id);
        }
    }

    /// Takes the next channel to look at.
    pub(crate) fn take(&mut self) -> Option<ChannelId> {
        let channel_id = self.queue.pop_front()?;
        self.queued.remove(&channel_id);
        Some(channel_id)
    }

    /// The present connection of a channel.
    pub(crate) fn link(&mut self, channel_id: ChannelId) -> &mut AnnouncingLink {
        self.links.entry(channel_id).or_default()
    }

    /// Whether our signatures for a place left on the present connection.
    pub(crate) fn has_sent_signatures(&self, channel_id: ChannelId, scid: Scid) -> bool {
        self.links.get(&channel_id).is_some_and(|link| link.signatures_sent == Some(scid))
    }

    /// The connection of a channel broke.
    pub(crate) fn end_connection(&mut self, channel_id: ChannelId) {
        self.links.remove(&channel_id);
        self.mark(channel_id);
    }

    /// Notes whether a channel's peer is there.
    pub(crate) fn note_presence(&mut self, channel_id: ChannelId, is_connected: bool, now: Now) {
        if is_connected {
            self.away_since.remove(&channel_id);
        } else {
            self.away_since.entry(channel_id).or_insert(now);
        }
    }

    /// For how many milliseconds a channel's peer has been away; 0 if it is there.
    pub(crate) fn away_ms(&self, channel_id: ChannelId, now: Now) -> u64 {
        let since = self.away_since.get(&channel_id);
        since.map_or(0, |since| now.unix_ms.saturating_sub(since.unix_ms))
    }

    /// Whether more channels may be published in this second.
    pub(crate) fn may_publish(&self, now: Now) -> bool {
        self.pace.0 != now.unix_seconds() || self.pace.1 < PUBLISHED_PER_SECOND
    }

    /// Notes that a channel is published at this place.
    pub(crate) fn publish(&mut self, channel_id: ChannelId, scid: Scid, now: Now) {
        let second = now.unix_seconds();
        self.pace = if self.pace.0 == second { (second, self.pace.1 + 1) } else { (second, 1) };
        self.published.insert(channel_id, scid);
        self.node_due = true;
    }

    /// Forgets a channel that no longer exists.
    pub(crate) fn forget(&mut self, channel_id: ChannelId) {
        self.links.remove(&channel_id);
        self.away_since.remove(&channel_id);
        self.published.remove(&channel_id);
    }
}

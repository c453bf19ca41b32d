//! The channels of a shard, found by id and by peer.
//!
//! Owns the index by peer. Does not look into channels.
//!
//! Invariant: the index names exactly the channels there are, each under its peer, so that an operation on one peer
//! does not visit the channels of others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use bitcoin::hashes::Hash;
use fulmen_wire::units::{BlockHeight, ChannelId, NodeId, Txid};

use super::announcing::ChannelAnnouncements;
use crate::channel::{Channel, Side};
use crate::forward::terms::config::ForwardingPolicy;
use crate::forward::terms::time::Now;

/// The least and the greatest id: the bounds of one peer's channels.
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

/// A channel with the shard's data about it.
#[derive(Debug)]
pub(crate) struct ChannelEntry {
    pub(crate) peer: NodeId,
    pub(crate) user_id: u64,
    /// Which of the node's channel keys it uses.
    pub(crate) key_index: u64,
    pub(crate) policies: Policies,
    /// The height at which it was begun.
    pub(crate) begun_at: BlockHeight,
    /// Whether the funding transaction was seen in the chain, if the peer opened the channel. In any phase, somebody's
    /// money is in it then.
    pub(crate) confirmed: bool,
    /// Whether the channel's state may be old, since it comes from a copy of the store.
    pub(crate) in_doubt: bool,
    pub(crate) channel: Channel,
    pub(crate) announcements: ChannelAnnouncements,
}

/// A channel's policy, and the one before it for as long as senders may not know better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policies {
    pub(crate) current: ForwardingPolicy,
    pub(crate) previous: Option<PreviousPolicy>,
}

/// A policy that was replaced, and until when it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PreviousPolicy {
    pub(crate) policy: ForwardingPolicy,
    pub(crate) until: Now,
}

impl Policies {
    pub(crate) const fn new(current: ForwardingPolicy) -> Policies {
        Policies { current, previous: None }
    }

    pub(crate) fn set(&mut self, policy: ForwardingPolicy, until: Now) {
        self.previous = Some(PreviousPolicy { policy: self.current, until });
        self.current = policy;
    }

    /// The policies an HTLC may satisfy, the current one first. Disabling a channel takes effect at once.
    pub(crate) fn accepted(&self, now: Now) -> impl Iterator<Item = ForwardingPolicy> + use<> {
        let disabled = self.current.disabled;
        let previous = self.previous.filter(|previous| now < previous.until);
        let previous = previous.map(|previous| ForwardingPolicy { disabled, ..previous.policy });
        [Some(self.current), previous].into_iter().flatten()
    }
}

impl ChannelEntry {
    /// A channel that has just begun.
    pub(crate) fn begun(
        peer: NodeId,
        user_id: u64,
        key_index: u64,
        policy: ForwardingPolicy,
        begun_at: BlockHeight,
        channel: Channel,
    ) -> ChannelEntry {
        ChannelEntry {
            peer,
            user_id,
            key_index,
            policies: Policies::new(policy),
            begun_at,
            confirmed: false,
            in_doubt: false,
            channel,
            announcements: ChannelAnnouncements::default(),
        }
    }

    /// Whether a peer opens the channel and has named no funding transaction yet.
    pub(crate) fn is_unfunded(&self) -> bool {
        self.channel.opener() == Side::Remote && self.channel.funding_outpoint().is_none()
    }

    /// Whether a peer opened the channel, and the funding transaction it named was not seen to confirm.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        self.channel.opener() == Side::Remote
            && !self.confirmed
            && self.channel.funding_outpoint().is_some()
            && self.channel.scid().is_none()
    }

    /// Whether this output of this transaction is the channel's funding output.
    pub(crate) fn is_funded_by(&self, txid: Txid, output: u16) -> bool {
        self.channel.funding_outpoint().is_some_and(|outpoint| {
            outpoint.txid.to_byte_array() == txid.0 && outpoint.vout == u32::from(output)
        })
    }
}

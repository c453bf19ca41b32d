//! The durable state of a shard, and how changes fold into it.
//!
//! Owns [`State`] and the one function that folds a [`Change`] into it. Does not decide anything. Connections and
//! deferred commitments are no state: they begin anew after a restart.
//!
//! Invariant: a shard's state changes through `State::apply` alone, and each change applied is in the turn's record, so
//! folding the records from the first gives the same state again.

use std::collections::BTreeMap;

use fulmen_wire::message::NodeAnnouncement;
use fulmen_wire::units::{BlockHeight, ChannelId, Scid};

use super::change::Change;
use super::channels::Channels;
use super::circuits::Circuits;
use super::receiver::Receiver;
use super::replay::ReplayMemory;
use crate::channel::{Htlc, Side};
use crate::forward::terms::ids::IncomingHtlc;

/// The durable state of a shard.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) height: BlockHeight,
    pub(crate) next_key_index: u64,
    pub(crate) channels: Channels,
    pub(crate) scids: BTreeMap<Scid, ChannelId>,
    pub(crate) circuits: Circuits,
    pub(crate) receiver: Receiver,
    pub(crate) replay: ReplayMemory,
    /// Our latest announcement of the node, as it was sent.
    pub(crate) node_announcement: Option<Box<NodeAnnouncement>>,
}

impl State {
    /// A received HTLC, while its channel has it.
    pub(crate) fn received_htlc(&self, incoming: IncomingHtlc) -> Option<&Htlc> {
        let entry = self.channels.get(&incoming.channel_id)?;
        entry.channel.htlc(Side::Remote, incoming.htlc_id).map(|entry| &entry.htlc)
    }

    /// The state of a shard without channels. Key indexes carry the shard's number on top, so that two shards of a node
    /// never use one twice.
    pub(crate) fn new(shard: u16) -> State {
        State { next_key_index: u64::from(shard) << 48, ..State::default() }
    }

    /// Forgets a place that a channel's funding output has no longer. It follows from the channel's own delta, in the
    /// record, which whoever folds a record sees in the channel.
    pub(crate) fn unplace(&mut self, channel_id: ChannelId, previous: Scid) {
        if self.scids.get(&previous) == Some(&channel_id) {
            self.scids.remove(&previous);
        }
    }

    /// Folds a change into the state. The deltas of channels are folded by the channels themselves.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Height(height) => {
                if self.height == BlockHeight(0) {
                    // Channels begun before the first block input age from here on.
                    self.channels.values_mut().for_each(|entry| entry.begun_at = *height);
                }
                self.height = *height;
                self.replay.prune(*height);
            }
            Change::ChannelBegun { key_index, .. } => self.next_key_index = key_index + 1,
            Change::Channel { .. } => {}
            Change::ChannelNamed { temporary_channel_id, channel_id } => {
                if let Some(entry) = self.channels.remove(temporary_channel_id) {
                    self.channels.insert(*channel_id, entry);
                }
            }
            Change::ChannelReady { channel_id, scid } => {
                self.scids.insert(*scid, *channel_id);
            }
            Change::FundingConfirmed { channel_id } => {
                if let Some(entry) = self.channels.get_mut(channel_id) {
                    entry.confirmed = true;
                }
            }
            Change::StateDoubted { channel_id } | Change::DoubtEnded { channel_id } => {
                if let Some(entry) = self.channels.get_mut(channel_id) {
                    entry.in_doubt = matches!(change, Change::StateDoubted { .. });
                }
            }
            Change::ChannelForgotten { channel_id } => {
                self.channels.remove(channel_id);
            }
            Change::Policy { channel_id, policy, previous_until } => {
                if let Some(entry) = self.channels.get_mut(channel_id) {
                    entry.policies.set(*policy, *previous_until);
                }
            }
            Change::AliasReceived { channel_id, .. }
            | Change::AnnouncementSigned { channel_id, .. }
            | Change::ChannelUpdated { channel_id, .. }
            | Change::PeerPolicy { channel_id, .. } => {
                if let Some(entry) = self.channels.get_mut(channel_id) {
                    entry.announcements.apply(change);
                }
            }
            Change::NodeAnnounced(announcement) => self.node_announcement = Some(announcement.clone()),
            Change::PaymentExpected(payment) => self.receiver.register(payment.clone()),
            Change::ExpectedPaymentsPruned(now) => self.receiver.prune(*now),
            Change::OnionSeen { tag, htlc, cltv_expiry } => self.replay.remember(*tag, *htlc, *cltv_expiry),
            Change::PartHeld { payment_hash, incoming, total, deadline } => {
                self.receiver.hold(*payment_hash, *incoming, *total, *deadline);
            }
            Change::SetClosed { payment_hash, paid } => self.receiver.close_set(*payment_hash, *paid),
            circuits => self.circuits.apply(circuits),
        }
    }
}

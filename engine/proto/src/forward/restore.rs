//! A shard restored from its checkpoint and the records after it, at a restart.
//!
//! Owns [`Restoring`], which folds chunks and records one by one. Does not read them from anywhere.
//!
//! Invariant: the shard that comes back is the one that wrote them, without connections: its channels wait to be
//! reestablished, its circuits and its memory of onions are those of its last durable turn. Only the onions of HTLCs
//! that other shards handed over may be missing: those shards repeat them, see [`Shard::unanswered_handoffs`], and
//! until then no connection of the peer concerned is taken.
//!
//! Budget: 10,000 idle channels in well under a second.

use std::collections::BTreeMap;

use bitcoin::Transaction;
use fulmen_wire::units::{BlockHeight, ChannelId, NodeId};

use crate::RecordError;
use crate::channel::{self, Channel};
use crate::durable::{Decoder, Durable};
use crate::keys::{ChannelSecrets, NodeSeed};
use crate::onion::{PeelJob, Peeled, peel_batch};

use super::shard::Shard;
use super::state::change::{Change, Record};
use super::state::channels::ChannelEntry;
use super::state::checkpoint::{CHUNK_CONTINUES, CHUNK_ENDS, CHUNK_VERSION};
use super::state::item::CheckpointItem;
use super::terms::circuit::Origin;
use super::terms::config::NodeConfig;
use super::terms::ids::OutgoingHtlc;
use super::turn::open_turn::NewChannel;

/// A checkpoint or records that do not make a shard: they are damaged, or not all there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// A change concerns a channel that was never begun.
    #[error("the records change channel {0}, which they never begin")]
    UnknownChannel(ChannelId),
    /// A channel's part of the records is not a channel's.
    #[error("channel {channel_id}: {error}")]
    Channel {
        /// The channel.
        channel_id: ChannelId,
        /// The error of its state machine.
        error: channel::ReplayError,
    },
    /// A chunk of the checkpoint does not decode.
    #[error("chunk {chunk} of the checkpoint: {error}")]
    Chunk {
        /// Which, from 0.
        chunk: u64,
        /// Why.
        error: RecordError,
    },
    /// The checkpoint is another shard's, or another node's.
    #[error(
        "the checkpoint is of shard {found_shard} of node {found}, this is shard {shard} of node {node_id}"
    )]
    OtherShard {
        /// This node.
        node_id: NodeId,
        /// This shard.
        shard: u16,
        /// Whose checkpoint it is.
        found: NodeId,
        /// Which shard's.
        found_shard: u16,
    },
    /// The checkpoint does not begin as one, does not end, or goes on behind its end or among the records.
    #[error("the checkpoint is not whole, or its chunks are out of order")]
    NotWhole,
    /// An HTLC was offered whose onion can neither be found nor derived.
    #[error("HTLC {} of channel {} was offered without a trace of its onion", .0.htlc_id, .0.channel_id)]
    OnionMissing(OutgoingHtlc),
}

/// A shard restored from a checkpoint and records.
#[derive(Debug)]
pub struct Restored {
    /// The shard.
    pub shard: Shard,
    /// Transactions that may not have been broadcast before the restart; broadcasting one again does no harm.
    pub broadcast: Vec<Transaction>,
}

/// A shard on its way back: give it the chunks of the latest checkpoint in their order, if there is one, then the
/// records written since, oldest first, and then ask for the shard.
#[derive(Debug)]
pub struct Restoring {
    shard: Shard,
    /// Channels begun, whose first delta has not come yet.
    begun: BTreeMap<ChannelId, (NewChannel, BlockHeight)>,
    chunks: u64,
    /// The items of chunks that go on in the next one, behind a version byte.
    continued: Vec<u8>,
    items_read: u64,
    at: Progress,
}

/// Where the restoring of a shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing came.
    Nothing,
    /// Chunks, not yet the last.
    Chunks,
    /// Records may come.
    Records,
}

impl Restoring {
    /// Starts to restore a shard; neither chunks nor records have been read.
    #[must_use]
    pub fn new(seed: NodeSeed, config: NodeConfig) -> Restoring {
        let shard = Shard::new(seed, config);
        Restoring {
            shard,
            begun: BTreeMap::new(),
            chunks: 0,
            continued: Vec::new(),
            items_read: 0,
            at: Progress::Nothing,
        }
    }

    /// Folds the next chunk of the checkpoint.
    ///
    /// # Errors
    /// When it is damaged, out of order or another shard's. The restoring is over then.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        if self.at == Progress::Records {
            return Err(RestoreError::NotWhole);
        }
        let chunk = self.chunks;
        self.chunks += 1;
        let wrong = |error| RestoreError::Chunk { chunk, error };
        let mut input = Decoder::new(bytes, "chunk", CHUNK_VERSION).map_err(wrong)?;
        let ends = match input.tag().map_err(wrong)? {
            (_, CHUNK_ENDS) => true,
            (_, CHUNK_CONTINUES) => false,
            (offset, tag) => return Err(wrong(RecordError::UnknownTag { offset, what: "chunk", tag })),
        };
        if ends && self.continued.is_empty() {
            return self.items(&mut input, chunk);
        }
        if self.continued.is_empty() {
            self.continued.push(CHUNK_VERSION);
        }
        self.continued.extend(&bytes[input.offset()..]);
        if ends {
            let whole = std::mem::take(&mut self.continued);
            let mut input = Decoder::new(&whole, "chunk", CHUNK_VERSION).map_err(wrong)?;
            self.items(&mut input, chunk)?;
        }
        Ok(())
    }

    /// Folds all items of a chunk.
    fn items(&mut self, input: &mut Decoder<'_>, chunk: u64) -> Result<(), RestoreError> {
        while !input.is_empty() {
            let item = CheckpointItem::read(input).map_err(|error| RestoreError::Chunk { chunk, error })?;
            self.at = match (self.at, &item) {
                (Progress::Nothing, CheckpointItem::Shard { .. }) => Progress::Chunks,
                (Progress::Chunks, CheckpointItem::End { items }) if *items == self.items_read => {
                    Progress::Records
                }
                (Progress::Chunks, CheckpointItem::Shard { .. } | CheckpointItem::End { .. }) => {
                    return Err(RestoreError::NotWhole);
                }
                (Progress::Chunks, _) => Progress::Chunks,
                _ => return Err(RestoreError::NotWhole),
            };
            self.items_read += 1;
            self.item(item, input, chunk)?;
        }
        Ok(())
    }

    fn item(
        &mut self,
        item: CheckpointItem,
        input: &mut Decoder<'_>,
        chunk: u64,
    ) -> Result<(), RestoreError> {
        let state = &mut self.shard.state;
        match item {
            CheckpointItem::Shard { node_id: found, shard: found_shard, height, next_key_index } => {
                let (node_id, shard) = (self.shard.node_id, self.shard.config.shard);
                if (found, found_shard) != (node_id, shard) {
                    return Err(RestoreError::OtherShard { node_id, shard, found, found_shard });
                }
                state.height = height;
                state.next_key_index = next_key_index;
            }
            CheckpointItem::Channel { peer, user_id, key_index, policies, begun_at, placed, confirmed } => {
                let channel = Channel::read_snapshot(input, &self.shard.seed, key_index)
                    .map_err(|error| RestoreError::Chunk { chunk, error })?;
                let channel_id = channel.id();
                if let Some(scid) = channel.scid().filter(|_| placed) {
                    state.scids.insert(scid, channel_id);
                }
                let begun =
                    ChannelEntry::begun(peer, user_id, key_index, policies.current, begun_at, channel);
                state.channels.insert(channel_id, ChannelEntry { policies, confirmed, ..begun });
            }
            CheckpointItem::InDoubt { channel_id } => {
                if let Some(entry) = state.channels.get_mut(&channel_id) {
                    entry.in_doubt = true;
                }
            }
            CheckpointItem::Circuit { .. }
            | CheckpointItem::Offered { .. }
            | CheckpointItem::Handoff { .. } => state.circuits.restore(item),
            CheckpointItem::ExpectedPayment { .. }
            | CheckpointItem::Set { .. }
            | CheckpointItem::Part { .. } => state.receiver.restore(item),
            CheckpointItem::Onion { tag, htlc, cltv_expiry } => state.replay.remember(tag, htlc, cltv_expiry),
            CheckpointItem::Announcements { channel_id, announcements } => {
                let entry = state.channels.get_mut(&channel_id);
                entry.ok_or(RestoreError::UnknownChannel(channel_id))?.announcements = announcements;
            }
            CheckpointItem::NodeAnnouncement(announcement) => state.node_announcement = Some(announcement),
            CheckpointItem::End { .. } => {}
        }
        Ok(())
    }

    /// Folds the next record.
    ///
    /// # Errors
    /// When it does not continue what came before. The restoring is over then.
    pub fn record(&mut self, record: Record) -> Result<(), RestoreError> {
        if self.at == Progress::Chunks || !self.continued.is_empty() {
            return Err(RestoreError::NotWhole);
        }
        self.at = Progress::Records;
        record.changes.into_iter().try_for_each(|change| self.change(change))
    }

    fn change(&mut self, change: Change) -> Result<(), RestoreError> {
        let state = &mut self.shard.state;
        let known = |channel_id: &ChannelId| match state.channels.contains_key(channel_id) {
            true => Ok(()),
            false => Err(RestoreError::UnknownChannel(*channel_id)),
        };
        match &change {
            Change::ChannelNamed { temporary_channel_id, .. } => known(temporary_channel_id)?,
            Change::ChannelForgotten { channel_id }
            | Change::FundingConfirmed { channel_id }
            | Change::StateDoubted { channel_id }
            | Change::DoubtEnded { channel_id }
            | Change::AliasReceived { channel_id, .. }
            | Change::AnnouncementSigned { channel_id, .. }
            | Change::ChannelUpdated { channel_id, .. }
            | Change::PeerPolicy { channel_id, .. }
            | Change::Policy { channel_id, .. } => known(channel_id)?,
            Change::ChannelBegun { channel_id, peer, user_id, key_index, policy } => {
                let new_channel =
                    NewChannel { peer: *peer, user_id: *user_id, key_index: *key_index, policy: *policy };
                self.begun.insert(*channel_id, (new_channel, state.height));
            }
            _ => {}
        }
        state.apply(&change);
        let Change::Channel { channel_id, delta } = change else { return Ok(()) };
        let failed = |error| RestoreError::Channel { channel_id, error };
        if let Some((new_channel, begun_at)) = self.begun.remove(&channel_id) {
            let NewChannel { peer, user_id, key_index, policy } = new_channel;
            let secrets = ChannelSecrets::derive(&self.shard.seed, key_index);
            let channel = Channel::begin(secrets, delta).map_err(failed)?;
            let entry = ChannelEntry::begun(peer, user_id, key_index, policy, begun_at, channel);
            state.channels.insert(channel_id, entry);
            return Ok(());
        }
        let entry = state.channels.get_mut(&channel_id).ok_or(RestoreError::UnknownChannel(channel_id))?;
        let before = entry.channel.scid();
        entry.channel.replay_delta(delta).map_err(failed)?;
        if let (Some(previous), now) = (before, entry.channel.scid())
            && now != before
        {
            state.unplace(channel_id, previous);
        }
        Ok(())
    }

    /// Sets [`NodeConfig::shards`], for a caller that learns the number of shards only while it reads the store.
    #[must_use]
    pub fn of_shards(mut self, shards: u16) -> Restoring {
        self.shard.config.shards = shards;
        self
    }

    /// The restored shard. [`Shard::unanswered_handoffs`] has the handoffs to deliver again.
    ///
    /// # Errors
    /// When something is missing that must have been stored.
    pub fn finish(mut self) -> Result<Restored, RestoreError> {
        if self.at == Progress::Chunks || !self.continued.is_empty() {
            return Err(RestoreError::NotWhole);
        }
        if let Some((channel_id, _)) = self.begun.pop_first() {
            let error = channel::ReplayError::NoBeginning;
            return Err(RestoreError::Channel { channel_id, error });
        }
        let mut broadcast = Vec::new();
        for entry in self.shard.state.channels.values_mut() {
            entry.channel.replay_end();
            let owed = entry.channel.closing_transaction().or(entry.channel.funding_transaction());
            broadcast.extend(owed.cloned());
        }
        supply_onions(&mut self.shard)?;
        self.shard.restored = true;
        Ok(Restored { shard: self.shard, broadcast })
    }
}

/// Derives the onions that records left out and that may have to be sent again.
fn supply_onions(shard: &mut Shard) -> Result<(), RestoreError> {
    let state = &mut shard.state;
    let mut missing = Vec::new();
    for (channel_id, entry) in state.channels.iter() {
        for htlc_id in entry.channel.missing_onions() {
            let outgoing = OutgoingHtlc { channel_id: *channel_id, htlc_id };
            match state.circuits.origin(outgoing) {
                Some(Origin::Forward(forward)) => missing.push((outgoing, forward.incoming)),
                Some(Origin::Handoff(forward)) => {
                    shard.onions_awaited.insert(forward.incoming, outgoing);
                }
                Some(Origin::Attempt { .. }) | None => return Err(RestoreError::OnionMissing(outgoing)),
            }
        }
    }
    let mut jobs = Vec::new();
    for (outgoing, incoming) in &missing {
        let htlc = state.received_htlc(*incoming).ok_or(RestoreError::OnionMissing(*outgoing))?;
        let packet = htlc.onion_routing_packet.as_ref().ok_or(RestoreError::OnionMissing(*outgoing))?;
        jobs.push(PeelJob { packet, associated_data: &htlc.payment_hash.0 });
    }
    let peeled = peel_batch(&shard.node_secret, &jobs);
    for ((outgoing, _), peeled) in missing.into_iter().zip(peeled) {
        let Ok(Peeled::Forward { next_packet, .. }) = peeled else {
            return Err(RestoreError::OnionMissing(outgoing));
        };
        if let Some(entry) = state.channels.get_mut(&outgoing.channel_id) {
            entry.channel.supply_onion(outgoing.htlc_id, next_packet);
        }
    }
    Ok(())
}

impl Shard {
    /// Rebuilds a shard from all its records, oldest first, without a checkpoint.
    ///
    /// # Errors
    /// When the records are not a shard's.
    pub fn restore(
        seed: NodeSeed,
        config: NodeConfig,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Restored, RestoreError> {
        let mut restoring = Restoring::new(seed, config);
        records.into_iter().try_for_each(|record| restoring.record(record))?;
        restoring.finish()
    }
}

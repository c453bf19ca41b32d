//! A shard from its records: what a restart begins with.
//!
//! Owns the replay of records. Does not read them from anywhere, and does not know checkpoints.
//!
//! Invariant: the shard that comes back is the one that wrote the records, without connections: its channels wait to
//! be reestablished, its circuits and its memory of onions are those of its last durable turn.

use std::collections::BTreeMap;

use bitcoin::Transaction;
use fulmen_wire::units::{BlockHeight, ChannelId};

use crate::channel::{self, Channel, Delta};
use crate::keys::{ChannelSecrets, NodeSeed};

use super::config::NodeConfig;
use super::record::{Change, ChannelEntry, Record};
use super::shard::{Begun, Shard};

/// Records that do not make a shard: they are damaged, or not all there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A change concerns a channel that was never begun.
    #[error("the records change channel {0}, which they never begin")]
    UnknownChannel(ChannelId),
    /// A channel's part of the records is not a channel's.
    #[error("channel {channel_id}: {error}")]
    Channel {
        /// The channel.
        channel_id: ChannelId,
        /// What its machine says.
        error: channel::ReplayError,
    },
}

/// What records give back.
#[derive(Debug)]
pub struct Restored {
    /// The shard.
    pub shard: Shard,
    /// Transactions that may not have been broadcast before the restart; broadcasting one again does no harm.
    pub broadcast: Vec<Transaction>,
}

/// A channel's part of the records.
struct Written {
    begun: Begun,
    begun_at: BlockHeight,
    deltas: Vec<Delta>,
}

impl Shard {
    /// Rebuilds a shard from all its records, oldest first. What it owes other shards, [`Shard::owed_handoffs`] says.
    ///
    /// # Errors
    /// When the records are not a shard's.
    pub fn restore(
        seed: NodeSeed,
        config: NodeConfig,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Restored, RestoreError> {
        let mut shard = Shard::new(seed, config);
        let mut written: BTreeMap<ChannelId, Written> = BTreeMap::new();
        for change in records.into_iter().flat_map(|record| record.changes) {
            shard.state.apply(&change);
            collect(&mut written, change, shard.state.height)?;
        }
        let mut broadcast = Vec::new();
        for (channel_id, Written { begun, begun_at, deltas }) in written {
            let secrets = ChannelSecrets::derive(&shard.seed, begun.key_index);
            let channel = Channel::replay(secrets, deltas)
                .map_err(|error| RestoreError::Channel { channel_id, error })?;
            let owed = channel.closing_transaction().or(channel.funding_transaction());
            broadcast.extend(owed.cloned());
            let Begun { peer, user_id, policy, .. } = begun;
            shard
                .state
                .channels
                .insert(channel_id, ChannelEntry { peer, user_id, policy, begun_at, channel });
        }
        Ok(Restored { shard, broadcast })
    }
}

/// Puts a change that concerns a channel where the channel's others are.
fn collect(
    written: &mut BTreeMap<ChannelId, Written>,
    change: Change,
    height: BlockHeight,
) -> Result<(), RestoreError> {
    match change {
        Change::ChannelBegun { channel_id, peer, user_id, key_index, policy } => {
            let begun = Begun { peer, user_id, key_index, policy };
            written.insert(channel_id, Written { begun, begun_at: height, deltas: Vec::new() });
        }
        Change::Channel { channel_id, delta } => {
            let channel = written.get_mut(&channel_id).ok_or(RestoreError::UnknownChannel(channel_id))?;
            channel.deltas.push(delta);
        }
        Change::ChannelNamed { temporary_channel_id, channel_id } => {
            let unknown = RestoreError::UnknownChannel(temporary_channel_id);
            let channel = written.remove(&temporary_channel_id).ok_or(unknown)?;
            written.insert(channel_id, channel);
        }
        Change::ChannelForgotten { channel_id } => {
            written.remove(&channel_id).ok_or(RestoreError::UnknownChannel(channel_id))?;
        }
        Change::Policy { channel_id, policy } => {
            let channel = written.get_mut(&channel_id).ok_or(RestoreError::UnknownChannel(channel_id))?;
            channel.begun.policy = policy;
        }
        _ => {}
    }
    Ok(())
}

//! Deriving the keys of commitments for all channels of a turn at once (BOLT 3, "Key Derivation").
//!
//! Owns which derivations share a batch. Eight take as long as one, so that idle lanes derive keys that will be needed
//! next: the peers' commitments whose points are known, then our own to come. Does not keep keys; the channels
//! do.
//!
//! Invariant: deriving ahead changes no outcome, only the time of the computation.
//!
//! Budget, of a lone forward: two batches of eight sets, where one by one it would be eight sets alone.

use std::collections::BTreeSet;

use fulmen_wire::units::ChannelId;

use crate::channel::{Channel, Side};
use crate::keys::{CommitmentKeyJob, CommitmentKeys};

use crate::forward::shard::Shard;

/// The derivations that share one batch of lanes.
const LANES: usize = 8;

/// Derivations to be done together, and where their keys belong.
#[derive(Default)]
struct Jobs<'a> {
    jobs: Vec<CommitmentKeyJob<'a>>,
    owners: Vec<(ChannelId, Side)>,
}

impl<'a> Jobs<'a> {
    fn push(
        &mut self,
        channel_id: ChannelId,
        side: Side,
        jobs: impl IntoIterator<Item = CommitmentKeyJob<'a>>,
    ) {
        self.jobs.extend(jobs);
        self.owners.resize(self.jobs.len(), (channel_id, side));
    }

    /// The lanes that would idle.
    const fn lanes_left(&self) -> usize {
        self.jobs.len().next_multiple_of(LANES) - self.jobs.len()
    }
}

impl Shard {
    /// Derives the keys that these channels are about to need: those of our next commitments, or of the peers'.
    pub(crate) fn derive_keys(&mut self, channels: &BTreeSet<ChannelId>, side: Side) {
        let channel =
            |channel_id: &ChannelId| self.state.channels.get(channel_id).map(|entry| &entry.channel);
        let lacking: Vec<(ChannelId, &Channel)> = channels
            .iter()
            .filter_map(|channel_id| Some((*channel_id, channel(channel_id)?)))
            .filter(|(_, channel)| channel.lacks_keys(side))
            .collect();
        if lacking.is_empty() {
            return;
        }
        let mut jobs = Jobs::default();
        for (channel_id, channel) in &lacking {
            match side {
                Side::Local => {
                    let needed = channel.local_keys_lacking().needed;
                    jobs.push(*channel_id, side, channel.local_key_jobs(needed));
                }
                Side::Remote => jobs.push(*channel_id, side, channel.remote_key_job()),
            }
        }
        let mut served = Vec::new();
        for channel_id in &self.keyless {
            if side == Side::Remote && channels.contains(channel_id) {
                served.push(*channel_id);
            } else if jobs.lanes_left() > 0 {
                served.push(*channel_id);
                jobs.push(*channel_id, Side::Remote, channel(channel_id).and_then(Channel::remote_key_job));
            } else {
                break;
            }
        }
        for (channel_id, channel) in &lacking {
            let lacking = channel.local_keys_lacking();
            let from = if side == Side::Local { lacking.useful.start } else { lacking.needed.start };
            let until = lacking.useful.end.min(from + jobs.lanes_left());
            jobs.push(*channel_id, Side::Local, channel.local_key_jobs(from..until));
        }
        let Jobs { jobs, owners } = jobs;
        for (keys, (channel_id, side)) in CommitmentKeys::derive_batch(&jobs).into_iter().zip(owners) {
            let Some(entry) = self.state.channels.get_mut(&channel_id) else { continue };
            match side {
                Side::Local => entry.channel.put_local_keys(keys),
                Side::Remote => entry.channel.put_remote_keys(keys),
            }
        }
        for channel_id in served {
            self.keyless.remove(&channel_id);
        }
    }
}

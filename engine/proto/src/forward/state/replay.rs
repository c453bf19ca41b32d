//! The memory against replayed onions (BOLT 4, "Onion Decryption": an onion received before is refused).
//!
//! Owns the tags of the onions whose HTLCs were carried on or held, until those expire. A refused HTLC moved nothing,
//! and its onion may be sent again. Does not peel: the tag comes from the shared secret and reveals nothing of it.
//!
//! The tags are a shard's own, in its records and checkpoints. Where a node has several shards, they share a
//! [`ReplayClaims`] besides, which is memory alone: each shard claims its tags again after a restart.
//!
//! Invariant: one tag belongs to one HTLC. The same HTLC asked about again (after a reconnection or a restart) is not a
//! replay; any other is, until the first one's expiry has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use fulmen_wire::units::BlockHeight;

use crate::onion::ReplayTag;

use super::item::CheckpointItem;
use crate::forward::terms::ids::IncomingHtlc;

/// The onions that the shards of one node have accepted, by tag: an onion accepted by one shard is a replay in every
/// other. Its size is that of the shards' own memories together, which
/// [`NodeConfig::replay_tags_max`](crate::forward::NodeConfig::replay_tags_max) bounds.
pub trait ReplayClaims: Debug + Send + Sync {
    /// Claims a tag for an HTLC. False if it is another HTLC's: the onion is a replay then.
    fn claim(&self, tag: ReplayTag, htlc: IncomingHtlc) -> bool;

    /// Ends the claim of an HTLC, if it has the tag.
    fn release(&self, tag: ReplayTag, htlc: IncomingHtlc);
}

/// The claims of a node of one shard, whose own memory knows every onion.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoneShard;

impl ReplayClaims for LoneShard {
    fn claim(&self, _: ReplayTag, _: IncomingHtlc) -> bool {
        true
    }

    fn release(&self, _: ReplayTag, _: IncomingHtlc) {}
}

/// The onions seen, by tag and by when they may be forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplayMemory {
    owners: BTreeMap<ReplayTag, IncomingHtlc>,
    by_expiry: BTreeSet<(BlockHeight, ReplayTag)>,
}

impl ReplayMemory {
    /// Whether the onion came before, with another HTLC.
    pub(crate) fn is_replay(&self, tag: ReplayTag, htlc: IncomingHtlc) -> bool {
        self.owners.get(&tag).is_some_and(|owner| *owner != htlc)
    }

    /// Whether the onion came before, with this HTLC.
    pub(crate) fn knows(&self, tag: ReplayTag, htlc: IncomingHtlc) -> bool {
        self.owners.get(&tag) == Some(&htlc)
    }

    /// Remembers the onion until `cltv_expiry` has passed.
    pub(crate) fn remember(&mut self, tag: ReplayTag, htlc: IncomingHtlc, cltv_expiry: BlockHeight) {
        if self.owners.insert(tag, htlc).is_none() {
            self.by_expiry.insert((cltv_expiry, tag));
        }
    }

    /// The onions whose HTLCs expired below `height`: such an HTLC would be refused for its expiry.
    pub(crate) fn expired(
        &self,
        height: BlockHeight,
    ) -> impl Iterator<Item = (ReplayTag, IncomingHtlc)> + '_ {
        let expired = self.by_expiry.iter().take_while(move |(expiry, _)| *expiry < height);
        expired.filter_map(|(_, tag)| Some((*tag, *self.owners.get(tag)?)))
    }

    /// Forgets the expired onions.
    pub(crate) fn prune(&mut self, height: BlockHeight) {
        while let Some(&(expiry, tag)) = self.by_expiry.first() {
            if expiry >= height {
                break;
            }
            self.by_expiry.pop_first();
            self.owners.remove(&tag);
        }
    }

    /// All onions, with their HTLCs.
    pub(crate) fn owners(&self) -> impl Iterator<Item = (ReplayTag, IncomingHtlc)> + '_ {
        self.owners.iter().map(|(tag, htlc)| (*tag, *htlc))
    }

    /// The checkpoint items of the onions.
    pub(crate) fn items(&self) -> impl Iterator<Item = CheckpointItem> + '_ {
        self.by_expiry.iter().filter_map(|(cltv_expiry, tag)| {
            let htlc = *self.owners.get(tag)?;
            Some(CheckpointItem::Onion { tag: *tag, htlc, cltv_expiry: *cltv_expiry })
        })
    }

    /// How many onions are remembered.
    pub(crate) fn len(&self) -> usize {
        self.owners.len()
    }
}

#[cfg(test)]
mod tests {
    use fulmen_wire::units::ChannelId;

    use super::*;

    #[test]
    fn an_onion_belongs_to_one_htlc_until_it_expires() {
        let mut memory = ReplayMemory::default();
        let first = IncomingHtlc { channel_id: ChannelId([1; 32]), htlc_id: 7 };
        let other = IncomingHtlc { htlc_id: 8, ..first };
        let tag = ReplayTag([3; 16]);
        assert!(!memory.is_replay(tag, first));
        memory.remember(tag, first, BlockHeight(100));
        assert!(!memory.is_replay(tag, first));
        assert!(memory.is_replay(tag, other));
        assert!(!memory.is_replay(ReplayTag([4; 16]), other));
        memory.prune(BlockHeight(100));
        assert!(memory.is_replay(tag, other), "the HTLC has not expired before its expiry has passed");
        memory.prune(BlockHeight(101));
        assert!(!memory.is_replay(tag, other));
        assert_eq!(memory.len(), 0);
    }
}

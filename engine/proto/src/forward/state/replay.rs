//! The memory against replayed onions (BOLT 4, "Onion Decryption": an onion received before is refused).
//!
//! Owns the tags of the onions whose HTLCs were carried on or held, until those expire. A refused HTLC moved nothing,
//! and its onion may be sent again. Does not peel: the tag comes from the shared secret and reveals nothing of it.
//!
//! Invariant: one tag belongs to one HTLC. The same HTLC asked about again (after a reconnection or a restart) is not a
//! replay; any other is, until the first one's expiry has passed.

use std::collections::{BTreeMap, BTreeSet};

use fulmen_wire::units::BlockHeight;

use crate::onion::ReplayTag;

use super::item::CheckpointItem;
use crate::forward::terms::ids::IncomingHtlc;

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

    /// Remembers the onion until `cltv_expiry` has passed.
    pub(crate) fn remember(&mut self, tag: ReplayTag, htlc: IncomingHtlc, cltv_expiry: BlockHeight) {
        if self.owners.insert(tag, htlc).is_none() {
            self.by_expiry.insert((cltv_expiry, tag));
        }
    }

    /// Forgets the onions whose HTLCs expired below `height`: such an HTLC would be refused for its expiry.
    pub(crate) fn prune(&mut self, height: BlockHeight) {
        while let Some(&(expiry, tag)) = self.by_expiry.first() {
            if expiry >= height {
                break;
            }
            self.by_expiry.pop_first();
            self.owners.remove(&tag);
        }
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

//! The onions accepted by any shard of the engine (BOLT 4, "Onion Decryption": an onion received before is refused).
//!
//! Owns the claims that the shards share. Does not decide when one begins or ends: the shards do, whose records have
//! the tags; a start claims them all again before the first input.
//!
//! **Bound.** An entry takes some 80 bytes, and there are as many as the shards' own memories have:
//! [`NodeConfig::replay_tags_max`](fulmen_proto::forward::NodeConfig::replay_tags_max) times the number of shards at
//! most.

use std::collections::HashMap;
use std::sync::Mutex;

use fulmen_proto::forward::{IncomingHtlc, ReplayClaims};
use fulmen_proto::onion::ReplayTag;

use super::shard_cell::lock;

/// The maps that a tag's first byte chooses between, so that shards seldom wait for each other.
const MAPS: usize = 16;

/// The HTLC that each onion was accepted with.
#[derive(Debug, Default)]
pub(super) struct NodeReplays {
    maps: [Mutex<HashMap<ReplayTag, IncomingHtlc>>; MAPS],
}

impl NodeReplays {
    fn map(&self, tag: ReplayTag) -> &Mutex<HashMap<ReplayTag, IncomingHtlc>> {
        // The bytes of a tag are those of a hash.
        &self.maps[usize::from(tag.0[0]) % MAPS]
    }
}

impl ReplayClaims for NodeReplays {
    fn claim(&self, tag: ReplayTag, htlc: IncomingHtlc) -> bool {
        *lock(self.map(tag)).entry(tag).or_insert(htlc) == htlc
    }

    fn release(&self, tag: ReplayTag, htlc: IncomingHtlc) {
        let mut map = lock(self.map(tag));
        if map.get(&tag) == Some(&htlc) {
            map.remove(&tag);
        }
    }
}

#[cfg(test)]
mod tests {
    use fulmen_wire::units::ChannelId;

    use super::*;

    #[test]
    fn a_tag_is_one_htlcs_until_that_one_releases_it() {
        let replays = NodeReplays::default();
        let first = IncomingHtlc { channel_id: ChannelId([1; 32]), htlc_id: 7 };
        let other = IncomingHtlc { channel_id: ChannelId([2; 32]), htlc_id: 7 };
        let tag = ReplayTag([3; 16]);
        assert!(replays.claim(tag, first) && replays.claim(tag, first));
        assert!(!replays.claim(tag, other));
        replays.release(tag, other);
        assert!(!replays.claim(tag, other));
        assert!(replays.claim(ReplayTag([4; 16]), other));
        replays.release(tag, first);
        assert!(replays.claim(tag, other));
    }
}

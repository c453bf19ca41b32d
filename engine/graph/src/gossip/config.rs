//! What the keeper of gossip can be told to do, and the time it is told.
//!
//! Owns: limits, all of which have defaults that suit a node on the main network, and whether funding outputs are looked
//! up. Reads no clock: [`GossipTime`] comes with each call.

use fulmen_wire::units::{BlockHeight, ChainHash};

use super::budget::ByteLimit;

/// The most channels in one `reply_channel_range`, so that it fits into a message.
pub(super) const RANGE_SCIDS_MAX: usize = 8_000;

/// Whether channels are believed before their funding outputs have been looked up (BOLT 7, `channel_announcement`). Who
/// looks them up is the caller's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FundingCheck {
    /// Signatures are enough. Anybody can then announce channels that do not exist.
    Off,
    /// Channels are used at once and dropped when their output turns out to be missing. Until then an invented channel can
    /// stand in a real one's place.
    Later,
    /// No channel is used before its output was found.
    First,
}

/// How often something may happen: `burst` times at once, and `per_hour` times an hour in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many times at once.
    pub burst: u32,
    /// How many times an hour.
    pub per_hour: u32,
}

/// What time it is, to the caller's knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GossipTime {
    /// Seconds since 1970.
    pub unix_seconds: u64,
    /// The chain's height; without it the age of funding outputs is not checked and none are forgotten.
    pub tip: Option<BlockHeight>,
}

/// The rules gossip is kept by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GossipConfig {
    /// The only chain whose channels are kept.
    pub chain_hash: ChainHash,
    /// Whether funding outputs are looked up.
    pub funding_check: FundingCheck,
    /// How far ahead of our clock a timestamp may be.
    pub future_max_seconds: u32,
    /// How old the last update of either direction may be before the channel is forgotten.
    pub stale_after_seconds: u32,
    /// How many blocks after its funding output was spent a channel is forgotten.
    pub forget_spent_after_blocks: u32,
    /// How many confirmations a channel needs to be announced; one less is allowed for a block not yet seen.
    pub confirmations_min: u32,
    /// Bytes of messages that are held, unverified, until the channel they refer to is announced.
    pub held_bytes: ByteLimit,
    /// How long a message is held.
    pub held_seconds_max: u32,
    /// Bytes of announcements whose funding outputs are being looked up.
    pub pending_bytes: ByteLimit,
    /// How many peers are known at a time; messages of further ones are refused.
    pub peers_max: usize,
    /// Messages of one peer.
    pub messages: Rate,
    /// Messages of one peer that are malformed or wrongly signed; one more, and it should be disconnected.
    pub faults: Rate,
    /// Queries of one peer.
    pub queries: Rate,
    /// How many channels one `reply_channel_range` tells at most; what fits into a message bounds it too.
    pub reply_scids_max: usize,
    /// How many bytes may wait to be written to the store; beyond, messages are refused.
    pub unwritten_bytes_max: usize,
}

impl GossipConfig {
    /// The defaults for a chain.
    #[must_use]
    pub const fn new(chain_hash: ChainHash) -> GossipConfig {
        GossipConfig {
            chain_hash,
            funding_check: FundingCheck::First,
            future_max_seconds: 24 * 60 * 60,
            stale_after_seconds: 14 * 24 * 60 * 60,
            forget_spent_after_blocks: 72,
            confirmations_min: 6,
            held_bytes: ByteLimit { total: 16 << 20, per_peer: 4 << 20 },
            held_seconds_max: 60 * 60,
            pending_bytes: ByteLimit { total: 32 << 20, per_peer: 16 << 20 },
            peers_max: 10_000,
            messages: Rate { burst: 500_000, per_hour: 1_000_000 },
            faults: Rate { burst: 3, per_hour: 1 },
            queries: Rate { burst: 200, per_hour: 1_000 },
            reply_scids_max: RANGE_SCIDS_MAX,
            unwritten_bytes_max: 64 << 20,
        }
    }
}

//! The configuration of the gossip store, and the time that is passed to its calls.
//!
//! Owns the limits, whose defaults suit a node on the main network, and the choice whether funding outputs are looked
//! up. Reads no clock: [`GossipTime`] is passed to each call.

use fulmen_wire::units::{BlockHeight, ChainHash};

use super::budget::ByteLimit;

/// The most channels in one `reply_channel_range`, so that it fits into a message.
pub(super) const RANGE_SCIDS_MAX: usize = 8_000;

/// Whether channels are accepted before their funding outputs were looked up (BOLT 7, `channel_announcement`). The
/// caller looks them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FundingCheck {
    /// Never look up. Anybody can then announce channels that do not exist.
    Off,
    /// Use channels at once and remove them when the output turns out to be missing. Until then an invented channel
    /// can occupy the id of a real one.
    Later,
    /// Use no channel before its output was found.
    First,
}

/// A rate limit: at most `burst` events at once, and `per_hour` events per hour in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Events at once.
    pub burst: u32,
    /// Events per hour.
    pub per_hour: u32,
}

/// The current time and height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GossipTime {
    /// Seconds since 1970.
    pub unix_seconds: u64,
    /// The chain's height. Without it the age of funding outputs is not checked, and no spent channel is removed.
    pub tip: Option<BlockHeight>,
}

/// The configuration of a gossip store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GossipConfig {
    /// The only chain whose channels are kept.
    pub chain_hash: ChainHash,
    /// Whether funding outputs are looked up.
    pub funding_check: FundingCheck,
    /// How many seconds a timestamp may lie ahead of the current time.
    pub future_max_seconds: u32,
    /// A channel is removed once the last update of one of its directions, or the announcement where that has none, is
    /// older than this, in seconds.
    pub stale_after_seconds: u32,
    /// The number of blocks after the spend of its funding output at which a channel is removed.
    pub forget_spent_after_blocks: u32,
    /// The confirmations that a channel needs to be announced; one less is accepted for a block not seen yet.
    pub confirmations_min: u32,
    /// Limit on the bytes of messages that are held, unverified, until the channel they refer to is announced.
    pub held_bytes: ByteLimit,
    /// For how many seconds a message is held, and a lookup may be unanswered.
    pub held_seconds_max: u32,
    /// Limit on the bytes of announcements whose funding outputs are being looked up.
    pub pending_bytes: ByteLimit,
    /// Limit on the peers whose state is kept; messages of further peers are refused.
    pub peers_max: usize,
    /// The rate of messages of one peer.
    pub messages: Rate,
    /// The rate of malformed or wrongly signed messages of one peer; it should be disconnected when it exceeds the
    /// rate.
    pub faults: Rate,
    /// The rate of queries of one peer.
    pub queries: Rate,
    /// Limit on the channels in one `reply_channel_range`; the size of a message limits them as well.
    pub reply_scids_max: usize,
    /// Limit on the bytes that wait to be written to the store; beyond it, messages are refused.
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
            held_bytes: ByteLimit { total: 16 << 20, per_source: 4 << 20 },
            held_seconds_max: 60 * 60,
            pending_bytes: ByteLimit { total: 32 << 20, per_source: 16 << 20 },
            peers_max: 10_000,
            messages: Rate { burst: 500_000, per_hour: 1_000_000 },
            faults: Rate { burst: 3, per_hour: 1 },
            queries: Rate { burst: 200, per_hour: 1_000 },
            reply_scids_max: RANGE_SCIDS_MAX,
            unwritten_bytes_max: 64 << 20,
        }
    }
}

//! Counters of a shard, for measurements and tests.
//!
//! Owns the values that [`Shard::counters`](super::Shard::counters) and [`Shard::occupancy`](super::Shard::occupancy)
//! return. No decision depends on them.

use fulmen_wire::units::BlockHeight;

/// How much cryptography a shard has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CryptoCounters {
    /// ECDSA signatures checked.
    pub ecdsa_verified: u64,
    /// ECDSA signatures made.
    pub ecdsa_signed: u64,
    /// Onions peeled, valid or not.
    pub onions_peeled: u64,
}

/// How many items of each kind a shard holds, for measurements and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// The height of the chain's tip as of the last block input.
    pub height: BlockHeight,
    /// Channels in any phase.
    pub channels: usize,
    /// Received HTLCs not yet removed for good.
    pub circuits: usize,
    /// Offered HTLCs not yet resolved.
    pub offered: usize,
    /// Onions remembered against replay.
    pub replay_tags: usize,
    /// Payments to us that wait for more parts.
    pub incomplete_sets: usize,
}

//! The time of a turn.
//!
//! Owns [`Now`]: the shard reads no clock, each turn is given the time.

/// The time of a turn. The height of the chain is not part of it: that is known from
/// [`Input::Block`](super::input::Input::Block).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds since the Unix epoch, or virtual milliseconds: only differences and invoice expiries matter.
    pub unix_ms: u64,
}

impl Now {
    /// Whole seconds since the Unix epoch, as BOLT 7 has them in `timestamp`; the largest possible from 2106 on.
    pub(crate) fn unix_seconds(self) -> u32 {
        u32::try_from(self.unix_ms / 1_000).unwrap_or(u32::MAX)
    }
}

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

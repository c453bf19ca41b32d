//! The state of a channel as its owner sees it.
//!
//! Owns: [`State`] and its names. Does not: hold the state itself; see [`Channel::state`](super::Channel::state).

/// The public view of a channel's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not funded yet.
    Opening,
    /// The funding transaction is to confirm, and both sides to say `channel_ready`.
    Confirming,
    /// In use.
    Normal,
    /// HTLCs are to be settled before the channel closes.
    ShuttingDown,
    /// Agreeing on the closing transaction.
    Negotiating,
    /// The closing transaction is signed by both.
    Closed,
    /// Failed: only the chain can settle it.
    Failed,
}

impl State {
    /// The state in words, for errors and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Opening => "opening",
            State::Confirming => "confirming",
            State::Normal => "normal",
            State::ShuttingDown => "shutting down",
            State::Negotiating => "negotiating",
            State::Closed => "closed",
            State::Failed => "failed",
        }
    }
}

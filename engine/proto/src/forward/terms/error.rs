//! Why a command is refused, and why an HTLC of our own never left.
//!
//! Owns the errors an operator sees. A peer's mistake is the channel's error; a sender's mistake is a
//! BOLT 4 failure.

use fulmen_wire::units::{BlockHeight, ChannelId, NodeId, PaymentHash, Sat};

use crate::channel;

use super::config::PolicyError;
use super::ids::{ChannelRef, IncomingHtlc};

/// Why a command was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// No channel has this name.
    #[error("no channel {0:?}")]
    UnknownChannel(ChannelRef),
    /// The peer is not connected.
    #[error("peer {0} is not connected")]
    PeerNotConnected(NodeId),
    /// The channel would be larger than configured.
    #[error("capacity {capacity} is above {max}")]
    CapacityTooLarge {
        /// The capacity asked for.
        capacity: Sat,
        /// The most allowed.
        max: Sat,
    },
    /// The channel refused.
    #[error("channel {channel_id}: {error}")]
    Channel {
        /// The channel.
        channel_id: ChannelId,
        /// Why.
        #[source]
        error: channel::ChannelCommandError,
    },
    /// The node was started from a copy of its store, and the peer has not confirmed the channel's state since.
    #[error("the state of channel {0} may be old; wait for its peer, or insist on it first")]
    StateInDoubt(ChannelId),
    /// Nothing is to be insisted on.
    #[error("the state of channel {0} is not in doubt")]
    StateNotInDoubt(ChannelId),
    /// The policy cannot be meant.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The preimage does not hash to the payment hash.
    #[error("the preimage does not hash to {0}")]
    WrongPreimage(PaymentHash),
    /// The payment hash was registered before.
    #[error("payment hash {0} was registered before")]
    DuplicatePaymentHash(PaymentHash),
    /// No such HTLC waits for the operator's decision: it never did, or it was resolved.
    #[error("HTLC {} of channel {} is not held", .0.htlc_id, .0.channel_id)]
    NotIntercepted(IncomingHtlc),
    /// The blocks up to the chain's tip have not been input yet.
    #[error("the chain is not in step yet")]
    ChainNotInStep,
    /// The attempt is in flight already.
    #[error("attempt {0} is in flight already")]
    DuplicateAttempt(u64),
}

/// Why an HTLC of our own never left this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalFailure {
    /// No channel of this shard has this name.
    #[error("no channel {0:?}")]
    UnknownChannel(ChannelRef),
    /// The channel refused: not connected, closing, or short of balance, slots, value in flight or dust exposure.
    #[error("channel {channel_id}: {error}")]
    Refused {
        /// The channel.
        channel_id: ChannelId,
        /// Why.
        #[source]
        error: channel::ChannelCommandError,
    },
    /// The blocks up to the chain's tip have not been input yet.
    #[error("the chain is not in step yet")]
    ChainNotInStep,
    /// A failure from before a restart; only its text was stored.
    #[error("{text}")]
    Recorded {
        /// The text.
        text: String,
    },
    /// The HTLC expires too soon to be offered.
    #[error("expiry at {cltv_expiry} is too near to {height}")]
    ExpiryTooSoon {
        /// When it would expire.
        cltv_expiry: BlockHeight,
        /// The height of the chain.
        height: BlockHeight,
    },
}

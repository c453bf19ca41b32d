//! The commands that the owner of a channel may give it, and the reasons to refuse them.
//!
//! Owns: [`OpenRequest`], [`AcceptRequest`], [`ChannelCommand`] and [`ChannelCommandError`]. Does not: check or execute
//! them; see [`Channel::plan_command`](super::Channel::plan_command).

use bitcoin::{Transaction, TxOut};
use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::{
    BlockHeight, ChannelId, FeeratePerKw, Msat, PaymentHash, PaymentPreimage, Point, Sat, Scid,
};
use thiserror::Error;

use super::config::{ChannelConfig, NegotiatedFeatures};
use super::error::{AwaitedAnswer, ChannelError, Excerpt};
use super::removal::RemovalError;
use crate::keys::ChannelSecrets;

/// How to open a channel.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// Our terms.
    pub config: ChannelConfig,
    /// The features that both `init` messages agreed on.
    pub features: NegotiatedFeatures,
    /// Our keys for this channel, never used for another.
    pub secrets: ChannelSecrets,
    /// An id no other channel with this peer has: 32 random bytes.
    pub temporary_channel_id: ChannelId,
    /// The channel's capacity.
    pub funding: Sat,
    /// The part of the funding that belongs to the peer from the start.
    pub push: Msat,
    /// The commitment transactions' first fee rate.
    pub feerate: FeeratePerKw,
}

/// How to answer a peer's `open_channel`.
#[derive(Clone, Debug)]
pub struct AcceptRequest {
    /// Our terms.
    pub config: ChannelConfig,
    /// The features that both `init` messages agreed on.
    pub features: NegotiatedFeatures,
    /// Our keys for this channel, never used for another.
    pub secrets: ChannelSecrets,
}

/// Something to do with a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelCommand {
    /// After [`ChannelEvent::FundingNeeded`](super::ChannelEvent::FundingNeeded): the transaction that pays the
    /// funding output, complete, signed or not, its inputs all segregated-witness so that its id is final.
    Fund {
        /// The transaction.
        transaction: Transaction,
    },
    /// The funding transaction has this many confirmations. Given with each block until
    /// [`ChannelEvent::Ready`](super::ChannelEvent::Ready), and once more when a reorganisation has moved the funding
    /// output. In a failed or closing channel it records the place of the funding output.
    FundingConfirmed {
        /// Where the funding output stands.
        scid: Scid,
        /// Confirmations, the first block counted.
        depth: u32,
        /// The output that the chain has there: the peer that opened a channel may have lied about it.
        output: TxOut,
    },
    /// Offers an HTLC. Its id is [`Channel::next_htlc_id`](super::Channel::next_htlc_id) at that time.
    AddHtlc {
        /// The amount that the peer receives for the preimage.
        amount: Msat,
        /// The hash that locks it.
        payment_hash: PaymentHash,
        /// When it times out.
        cltv_expiry: BlockHeight,
        /// The onion for the peer.
        onion_routing_packet: OnionPacket,
        /// The point of a blinded path, if the payment is inside one.
        path_key: Option<Point>,
    },
    /// Claims an HTLC of the peer with its preimage. Accepted while disconnected too, and kept until committed.
    FulfillHtlc {
        /// The HTLC.
        id: u64,
        /// Its preimage.
        preimage: PaymentPreimage,
    },
    /// Fails an HTLC of the peer with an encrypted reason. Accepted while disconnected too, and kept until committed.
    FailHtlc {
        /// The HTLC.
        id: u64,
        /// The failure onion.
        reason: Vec<u8>,
    },
    /// Fails an HTLC of the peer whose onion cannot be read. Accepted while disconnected too, and kept until committed.
    FailMalformedHtlc {
        /// The HTLC.
        id: u64,
        /// The hash of that onion.
        sha256_of_onion: [u8; 32],
        /// The code, its BADONION bit set.
        failure_code: u16,
    },
    /// Sets the commitment transactions' fee rate; only the opener may.
    UpdateFee {
        /// The new rate.
        feerate: FeeratePerKw,
    },
    /// Closes the channel once its HTLCs are gone. Accepted while disconnected too.
    Shutdown {
        /// Where our money goes; `None` for the script of our terms.
        scriptpubkey: Option<Vec<u8>>,
    },
    /// Drops our additions that no commitment holds yet. Not possible while messages flow: the peer has received them,
    /// and forgets them only with the connection.
    DropAdditions,
    /// The connection is lost.
    Disconnected,
    /// There is a new connection, both `init` messages exchanged: sends `channel_reestablish`.
    Connected {
        /// The features that these `init` messages agreed on.
        features: NegotiatedFeatures,
    },
    /// The funding transaction is not in the best chain any more, after a reorganisation. No HTLC is offered until
    /// [`ChannelCommand::FundingConfirmed`] reports it again.
    FundingUnconfirmed,
    /// The [awaited answer](super::Channel::awaited_answer) has not come for longer than the owner waits.
    AnswerOverdue {
        /// The answer; refused unless it is still awaited.
        answer: AwaitedAnswer,
    },
    /// Fails the channel: sends an `error`; our latest commitment may be broadcast.
    Fail {
        /// The text of the `error` for the peer.
        reason: String,
    },
}

impl ChannelCommand {
    /// The command's name, for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            ChannelCommand::Fund { .. } => "fund",
            ChannelCommand::FundingConfirmed { .. } => "funding confirmed",
            ChannelCommand::AddHtlc { .. } => "add HTLC",
            ChannelCommand::FulfillHtlc { .. } => "fulfill HTLC",
            ChannelCommand::FailHtlc { .. } => "fail HTLC",
            ChannelCommand::FailMalformedHtlc { .. } => "fail malformed HTLC",
            ChannelCommand::UpdateFee { .. } => "update fee",
            ChannelCommand::Shutdown { .. } => "shutdown",
            ChannelCommand::DropAdditions => "drop additions",
            ChannelCommand::Disconnected => "disconnected",
            ChannelCommand::Connected { .. } => "connected",
            ChannelCommand::FundingUnconfirmed => "funding unconfirmed",
            ChannelCommand::AnswerOverdue { .. } => "answer overdue",
            ChannelCommand::Fail { .. } => "fail",
        }
    }
}

/// A command that the channel refuses. Nothing has changed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChannelCommandError {
    /// The command has no place in the channel's phase.
    #[error("{command} is not possible while {state}")]
    NotPossible {
        /// The command.
        command: &'static str,
        /// The channel's phase.
        state: &'static str,
    },
    /// The peer is not connected, or not reestablished yet.
    #[error("the peer is not connected")]
    NotConnected,
    /// Shutdown has begun: no HTLC may be added, nor the fee rate changed.
    #[error("the channel is shutting down")]
    ShuttingDown,
    /// Shutdown has begun before.
    #[error("shutdown was asked for already")]
    AlreadyShuttingDown,

    // Opening.
    /// Our own terms break a rule that the peer would refuse them for.
    #[error("our terms are not valid: {0}")]
    Terms(ChannelError),
    /// No output of the transaction is the funding output.
    #[error("no output pays {amount} to the funding script")]
    NoFundingOutput {
        /// The amount it must hold.
        amount: Sat,
    },

    // Adding.
    /// The amount is zero.
    #[error("an HTLC of nothing")]
    HtlcAmountZero,
    /// The amount is below the peer's `htlc_minimum_msat`.
    #[error("HTLC amount {amount} is below the peer's {min}")]
    HtlcBelowMinimum {
        /// The amount.
        amount: Msat,
        /// The peer's least.
        min: Msat,
    },
    /// The peer's `max_accepted_htlcs` is reached.
    #[error("the peer accepts no more than {max} HTLCs")]
    TooManyHtlcs {
        /// The peer's most.
        max: u16,
    },
    /// The peer's `max_htlc_value_in_flight_msat` would be exceeded.
    #[error("{total} in flight exceed the peer's {max}")]
    TooMuchInFlight {
        /// With this one.
        total: Msat,
        /// The peer's most.
        max: Msat,
    },
    /// The amount exceeds our balance less reserve, fee, fee-spike buffer and anchors.
    #[error("HTLC of {amount} exceeds the available {available}")]
    InsufficientBalance {
        /// The amount.
        amount: Msat,
        /// [`Channel::available_out`](super::Channel::available_out).
        available: Msat,
    },
    /// The dust exposure would exceed our limit.
    #[error("dust exposure would be {exposure}, above {max}")]
    DustExposure {
        /// With this HTLC.
        exposure: Msat,
        /// Our most.
        max: Msat,
    },
    /// `cltv_expiry` is a time.
    #[error("cltv_expiry {0} is not a height")]
    CltvExpiryNotAHeight(BlockHeight),

    // Removing.
    /// The removal breaks a rule of BOLT 2.
    #[error(transparent)]
    Removal(#[from] RemovalError),
    /// The failure's reason does not fit its message.
    #[error("a reason of {0} bytes does not fit")]
    ReasonTooLong(usize),

    // Fees and closing.
    /// Only the opener sets the fee.
    #[error("the peer pays the fee")]
    NotOpener,
    /// The rate is outside our own limits.
    #[error("fee rate {found} is not between {min} and {max}")]
    FeerateOutOfRange {
        /// The rate.
        found: FeeratePerKw,
        /// The least.
        min: FeeratePerKw,
        /// The most.
        max: FeeratePerKw,
    },
    /// The rate is the one in force: an `update_fee` would change nothing.
    #[error("the fee rate is {0} already")]
    FeerateUnchanged(FeeratePerKw),
    /// We cannot pay the new fee and keep the reserve.
    #[error("fee rate {feerate} costs {cost} above the reserve of {reserve}, we have {balance}")]
    FeeNotAffordable {
        /// The rate.
        feerate: FeeratePerKw,
        /// Fee and anchors.
        cost: Sat,
        /// Our reserve.
        reserve: Sat,
        /// Our balance.
        balance: Msat,
    },
    /// The closing script has none of the allowed forms.
    #[error("closing script {} has no allowed form", Excerpt(.0))]
    ShutdownScriptForm(Vec<u8>),
    /// We committed to another closing script when opening.
    #[error("we committed to another closing script")]
    ShutdownScriptMismatch,
}

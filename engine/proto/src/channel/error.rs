//! The errors with which a channel refuses a message, and the reaction to each.
//!
//! Owns: [`ChannelError`] and [`Reaction`]. Each check of BOLT 2 has its own variant, with the values that failed it.
//! Does not: react; [`Channel::plan_reaction`](super::Channel::plan_reaction) gives the plan that does. Refusals of our
//! own commands are [`ChannelCommandError`](super::CommandError)s.

use std::fmt;

use bitcoin::{OutPoint, ScriptBuf};
use fulmen_wire::features::Features;
use fulmen_wire::units::{BlockHeight, ChainHash, ChannelId, CltvDelta, FeeratePerKw, Msat, Sat, Scid};
use thiserror::Error;

use super::removal::RemovalError;
use crate::commitment::{ClosingError, CommitmentError};
use crate::keys::{CommitmentNumber, InvalidPoint, SecretStoreError};

/// How a channel responds to an error. `REFUSALS.md` lists the reaction to each error with the words of BOLT 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reaction {
    /// Nothing: the message has no effect.
    Ignore,
    /// Send a `warning` and keep the connection. The channel stays as it is until the peer acts.
    Wait,
    /// Send a `warning` and close the connection; the channel continues with the next connection.
    Warn,
    /// Send an `error` and fail the channel. [`ChannelError::broadcast_allowed`] says whether our latest commitment may
    /// be broadcast.
    Fail,
}

/// A message that the peer is to send next, so that the channel can go on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AwaitedAnswer {
    /// `accept_channel`, after our `open_channel`.
    AcceptChannel,
    /// `funding_created`, after our `accept_channel`.
    FundingCreated,
    /// `funding_signed`, after our `funding_created`.
    FundingSigned,
    /// `channel_reestablish`, after ours.
    ChannelReestablish,
    /// `revoke_and_ack`, after our `commitment_signed`.
    RevokeAndAck,
    /// `shutdown`, after ours.
    Shutdown,
    /// `closing_signed`, after ours or after both `shutdown`s.
    ClosingSigned,
}

impl AwaitedAnswer {
    /// The message's BOLT name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            AwaitedAnswer::AcceptChannel => "accept_channel",
            AwaitedAnswer::FundingCreated => "funding_created",
            AwaitedAnswer::FundingSigned => "funding_signed",
            AwaitedAnswer::ChannelReestablish => "channel_reestablish",
            AwaitedAnswer::RevokeAndAck => "revoke_and_ack",
            AwaitedAnswer::Shutdown => "shutdown",
            AwaitedAnswer::ClosingSigned => "closing_signed",
        }
    }

    /// Whether a new connection makes the peer send it again. BOLT 2 asks to fail the channel only for
    /// `closing_signed`; before the channel is funded, failing it costs nothing.
    const fn ends_with_reconnection(self) -> bool {
        matches!(
            self,
            AwaitedAnswer::ChannelReestablish | AwaitedAnswer::RevokeAndAck | AwaitedAnswer::Shutdown
        )
    }
}

/// Bytes of a peer in the text of an error: hex, cut off after [`EXCERPT_BYTES_MAX`]. A `shutdown` may carry a script
/// of 65 kB, and to write it out takes longer than everything else that a node does about the message.
pub(super) struct Excerpt<'a>(pub(super) &'a [u8]);

/// No closing script of an allowed form is longer.
const EXCERPT_BYTES_MAX: usize = 42;

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, rest) = self.0.split_at(self.0.len().min(EXCERPT_BYTES_MAX));
        shown.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        if rest.is_empty() { Ok(()) } else { write!(f, "... ({} bytes)", self.0.len()) }
    }
}

/// A message of the peer that the channel refuses. Nothing has changed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// The message has no place in the channel's phase.
    #[error("{message} is not expected while {state}")]
    UnexpectedMessage {
        /// The message's BOLT name.
        message: &'static str,
        /// The channel's phase.
        state: &'static str,
    },
    /// The message is for another channel.
    #[error("the message is for channel {found}, this is {expected}")]
    WrongChannel {
        /// This channel.
        expected: ChannelId,
        /// The channel named in the message.
        found: ChannelId,
    },
    /// The peer reported an error: the channel is over.
    #[error("the peer failed the channel: {0}")]
    PeerError(String),
    /// We gave the channel up ourselves.
    #[error("we failed the channel: {0}")]
    OurDecision(String),
    /// An HTLC we offered is past its expiry and still in a commitment: only the chain can return it (BOLT 2,
    /// "`cltv_expiry_delta` Selection").
    #[error("HTLC {id}, which we offered, expired at {cltv_expiry} and is pending at {height}")]
    OfferedHtlcExpired {
        /// The HTLC.
        id: u64,
        /// Its expiry.
        cltv_expiry: BlockHeight,
        /// The height of the chain.
        height: BlockHeight,
    },
    /// An HTLC we have the preimage of comes near its expiry and is still in a commitment: only the chain can fulfill
    /// it in time (BOLT 2, "`cltv_expiry_delta` Selection").
    #[error("HTLC {id}, which we fulfilled, expires at {cltv_expiry} and is pending at {height}")]
    FulfilledHtlcNearExpiry {
        /// The HTLC.
        id: u64,
        /// Its expiry.
        cltv_expiry: BlockHeight,
        /// The height of the chain.
        height: BlockHeight,
    },
    /// The connection was lost before the channel was funded: it is forgotten on both sides.
    #[error("the connection was lost while opening")]
    DisconnectedWhileOpening,

    // Opening.
    /// `chain_hash` names another chain.
    #[error("chain_hash is {found}, we are on {expected}")]
    UnknownChain {
        /// Ours.
        expected: ChainHash,
        /// Theirs.
        found: ChainHash,
    },
    /// `channel_type` is missing.
    #[error("channel_type is missing")]
    ChannelTypeMissing,
    /// `channel_type` is none we support, or not the one that was asked for.
    #[error("channel_type {} is not suitable", Excerpt(.0.as_bytes()))]
    ChannelTypeUnsuitable(Features),
    /// The channel is smaller than we accept.
    #[error("funding of {funding} is below {min}")]
    FundingTooSmall {
        /// `funding_satoshis`.
        funding: Sat,
        /// Our least.
        min: Sat,
    },
    /// The channel needs `option_support_large_channel`.
    #[error("funding of {funding} needs option_support_large_channel")]
    FundingTooLarge {
        /// `funding_satoshis`.
        funding: Sat,
    },
    /// `push_msat` exceeds the funding.
    #[error("push of {push} exceeds the funding of {funding}")]
    PushTooLarge {
        /// `push_msat`.
        push: Msat,
        /// `funding_satoshis`.
        funding: Sat,
    },
    /// `dust_limit_satoshis` is below 354.
    #[error("dust limit {found} is below {min}")]
    DustLimitTooSmall {
        /// Theirs.
        found: Sat,
        /// The least BOLT 2 allows.
        min: Sat,
    },
    /// `dust_limit_satoshis` is larger than we accept.
    #[error("dust limit {found} is above {max}")]
    DustLimitTooLarge {
        /// Theirs.
        found: Sat,
        /// Our most.
        max: Sat,
    },
    /// A dust limit exceeds the channel reserve it has to stay under.
    #[error("reserve {reserve} is below the dust limit {dust_limit}")]
    ReserveBelowDustLimit {
        /// The reserve.
        reserve: Sat,
        /// The dust limit.
        dust_limit: Sat,
    },
    /// The reserve asked of us is larger than we accept.
    #[error("reserve {found} is above {max}")]
    ReserveTooLarge {
        /// Theirs.
        found: Sat,
        /// Our most.
        max: Sat,
    },
    /// `max_accepted_htlcs` exceeds 483.
    #[error("max_accepted_htlcs {found} is above {max}")]
    MaxAcceptedHtlcsTooLarge {
        /// Theirs.
        found: u16,
        /// The most BOLT 2 allows.
        max: u16,
    },
    /// `max_accepted_htlcs` is smaller than we accept.
    #[error("max_accepted_htlcs {found} is below {min}")]
    MaxAcceptedHtlcsTooSmall {
        /// Theirs.
        found: u16,
        /// Our least.
        min: u16,
    },
    /// `htlc_minimum_msat` is larger than we accept.
    #[error("htlc_minimum_msat {found} is above {max}")]
    HtlcMinimumTooLarge {
        /// Theirs.
        found: Msat,
        /// Our most.
        max: Msat,
    },
    /// `max_htlc_value_in_flight_msat` is smaller than we accept.
    #[error("max_htlc_value_in_flight_msat {found} is below {min}")]
    MaxHtlcValueInFlightTooSmall {
        /// Theirs.
        found: Msat,
        /// Our least.
        min: Msat,
    },
    /// `to_self_delay` is longer than we accept.
    #[error("to_self_delay of {found} is above {max}")]
    ToSelfDelayTooLong {
        /// Theirs.
        found: CltvDelta,
        /// Our most.
        max: CltvDelta,
    },
    /// `minimum_depth` is longer than we accept.
    #[error("minimum_depth {found} is above {max}")]
    MinimumDepthTooLarge {
        /// Theirs.
        found: u32,
        /// Our most.
        max: u32,
    },
    /// A fee rate is too low for timely processing.
    #[error("fee rate {found} is below {min}")]
    FeerateTooLow {
        /// Theirs.
        found: FeeratePerKw,
        /// Our least.
        min: FeeratePerKw,
    },
    /// A fee rate is unreasonably large.
    #[error("fee rate {found} is above {max}")]
    FeerateTooHigh {
        /// Theirs.
        found: FeeratePerKw,
        /// Our most.
        max: FeeratePerKw,
    },
    /// The opener cannot pay for the first commitment.
    #[error("the opener has {balance}, fee and anchors cost {cost}")]
    OpenerCannotPay {
        /// The opener's balance.
        balance: Msat,
        /// The cost of the commitment.
        cost: Sat,
    },
    /// Neither side has more than the reserve.
    #[error("{opener} and {acceptor} are both within the reserve of {reserve}")]
    BothWithinReserve {
        /// The opener's output.
        opener: Msat,
        /// The acceptor's output.
        acceptor: Msat,
        /// The larger reserve.
        reserve: Sat,
    },
    /// `funding_created` names an output that funds another channel of ours.
    #[error("{0} funds another channel")]
    FundingOutpointTaken(OutPoint),
    /// The output that was to fund the channel holds something else, or pays to somebody else.
    #[error("the funding output holds {found} for {}, not {expected} for both of us", Excerpt(script_pubkey.as_bytes()))]
    FundingOutputWrong {
        /// The funding amount agreed on.
        expected: Sat,
        /// Its amount.
        found: Sat,
        /// Its script.
        script_pubkey: ScriptBuf,
    },
    /// A point is not on the curve.
    #[error(transparent)]
    InvalidPoint(#[from] InvalidPoint),

    // Normal operation: adding.
    /// The HTLC's `id` is not the next one.
    #[error("HTLC id {found} where {expected} is next")]
    HtlcIdOutOfOrder {
        /// The next id.
        expected: u64,
        /// Theirs.
        found: u64,
    },
    /// The amount is zero.
    #[error("HTLC {id} is of nothing")]
    HtlcAmountZero {
        /// The HTLC.
        id: u64,
    },
    /// The amount is below our `htlc_minimum_msat`.
    #[error("HTLC amount {amount} is below {min}")]
    HtlcBelowMinimum {
        /// Its amount.
        amount: Msat,
        /// Our least.
        min: Msat,
    },
    /// The peer exceeds our `max_accepted_htlcs`.
    #[error("{count} HTLCs exceed max_accepted_htlcs of {max}")]
    TooManyHtlcs {
        /// With this one.
        count: usize,
        /// Our most.
        max: u16,
    },
    /// The peer exceeds our `max_htlc_value_in_flight_msat`.
    #[error("{total} in flight exceed {max}")]
    TooMuchInFlight {
        /// With this one.
        total: Msat,
        /// Our most.
        max: Msat,
    },
    /// The peer cannot pay the HTLC and keep its reserve (and, as opener, pay fee and anchors).
    #[error(
        "HTLC of {amount} exceeds the sender's {available}: it holds {balance}, owes {reserve} reserve and {cost} cost"
    )]
    HtlcNotAffordable {
        /// Its amount.
        amount: Msat,
        /// The amount the sender may spend.
        available: Msat,
        /// The sender's balance.
        balance: Msat,
        /// Its reserve.
        reserve: Sat,
        /// Fee and anchors, if the sender pays them.
        cost: Sat,
    },
    /// With this HTLC we, as opener, could no longer pay for our commitment and keep our reserve.
    #[error("with the HTLC the commitment costs {cost} above the reserve of {reserve}, we hold {balance}")]
    FeeOfOpenerNotAffordable {
        /// Fee and anchors of our commitment with the HTLC.
        cost: Sat,
        /// Our reserve.
        reserve: Sat,
        /// Our balance.
        balance: Msat,
    },
    /// `cltv_expiry` is a time.
    #[error("cltv_expiry {0} is not a height")]
    CltvExpiryNotAHeight(BlockHeight),
    /// An HTLC was added after `shutdown`.
    #[error("HTLC {id} was added after shutdown")]
    AddAfterShutdown {
        /// The HTLC.
        id: u64,
    },

    // Normal operation: removing.
    /// A removal breaks a rule of BOLT 2.
    #[error(transparent)]
    Removal(#[from] RemovalError),

    // Normal operation: fees.
    /// The side that did not open the channel sent `update_fee`.
    #[error("update_fee from the side that does not pay the fee")]
    UpdateFeeNotByOpener,
    /// The opener cannot pay the new fee.
    #[error("fee rate {feerate} costs {cost} above the reserve of {reserve}, the opener has {balance}")]
    FeeNotAffordable {
        /// The new rate.
        feerate: FeeratePerKw,
        /// Fee and anchors.
        cost: Sat,
        /// The opener's reserve.
        reserve: Sat,
        /// The opener's balance.
        balance: Msat,
    },
    /// The new rate would turn too many HTLCs to dust.
    #[error("fee rate {feerate} brings dust exposure to {exposure}, above {max}")]
    DustExposure {
        /// The new rate.
        feerate: FeeratePerKw,
        /// The exposure it brings.
        exposure: Msat,
        /// Our most.
        max: Msat,
    },

    // Normal operation: commitments.
    /// The number of `htlc_signature`s is not that of the commitment's HTLC outputs.
    #[error("{found} HTLC signatures for {expected} HTLC outputs")]
    HtlcSignatureCount {
        /// Outputs.
        expected: usize,
        /// Signatures.
        found: usize,
    },
    /// The commitment transaction's signature is not valid.
    #[error("the signature of the commitment transaction is not valid")]
    BadCommitmentSignature,
    /// An HTLC transaction's signature is not valid.
    #[error("HTLC signature {index} is not valid")]
    BadHtlcSignature {
        /// Its place in the message.
        index: usize,
    },
    /// The commitment cannot be built.
    #[error(transparent)]
    Commitment(#[from] CommitmentError),
    /// The commitment to be signed pays so little that nodes would not relay it.
    #[error("the commitment pays {found}, below the {min} that relay")]
    CommitmentFeeTooLow {
        /// The fee it pays: everything without an output.
        found: Sat,
        /// The fee it must pay.
        min: Sat,
    },
    /// The commitment to be signed turns more HTLCs to dust than we tolerate.
    #[error("the commitment turns {exposure} in HTLCs to dust, above {max}")]
    CommitmentDustExposure {
        /// The sum of the HTLCs without an output.
        exposure: Msat,
        /// Our most.
        max: Msat,
    },
    /// `revoke_and_ack` though nothing is to be revoked.
    #[error("revoke_and_ack without an unanswered commitment_signed")]
    UnexpectedRevocation,
    /// The secret is no secret key, or not that of the commitment's point.
    #[error("the revocation secret of {0} is wrong")]
    WrongRevocationSecret(CommitmentNumber),
    /// The secret does not come from the same seed as the earlier ones.
    #[error(transparent)]
    RevocationSecretNotDerived(#[from] SecretStoreError),

    // Closing.
    /// The closing script has none of the allowed forms.
    #[error("closing script {} has no allowed form", Excerpt(.0))]
    ShutdownScriptForm(Vec<u8>),
    /// The closing script is not the one committed to when opening.
    #[error("closing script {} is not the one committed to, {}", Excerpt(found), Excerpt(expected))]
    ShutdownScriptMismatch {
        /// Committed to.
        expected: Vec<u8>,
        /// Sent.
        found: Vec<u8>,
    },
    /// The closing script given when opening has none of the allowed forms.
    #[error("upfront closing script {} has no allowed form", Excerpt(.0))]
    UpfrontScriptForm(Vec<u8>),
    /// `shutdown` with additions of its sender still uncommitted.
    #[error("shutdown with uncommitted HTLCs of its sender")]
    ShutdownWithPendingUpdates,
    /// The fee is more than the opener has.
    #[error("closing fee {fee} exceeds the opener's {balance}")]
    ClosingFeeTooLarge {
        /// The fee.
        fee: Sat,
        /// The opener's balance.
        balance: Msat,
    },
    /// The closing transaction cannot be built.
    #[error(transparent)]
    Closing(#[from] ClosingError),
    /// The fee ranges do not overlap.
    #[error("closing fee range {theirs:?} does not meet ours, {ours:?}")]
    ClosingFeeRangesDisjoint {
        /// Ours.
        ours: (Sat, Sat),
        /// Theirs.
        theirs: (Sat, Sat),
    },
    /// A peer that sends no `fee_range` proposes a fee that is not strictly between the last two proposals.
    #[error("closing fee {fee} is not between {min} and {max}")]
    ClosingFeeOutOfRange {
        /// Theirs.
        fee: Sat,
        /// The lower of the last two proposals.
        min: Sat,
        /// The higher of them.
        max: Sat,
    },
    /// The fee is outside the overlap of both sides' `fee_range`, or not the one that was proposed within it.
    #[error("closing fee {fee} is not between {min} and {max}, which both fee ranges allow")]
    ClosingFeeOutsideOverlap {
        /// Theirs.
        fee: Sat,
        /// The least possible.
        min: Sat,
        /// The most possible.
        max: Sat,
    },
    /// The negotiation has taken too many rounds on this connection.
    #[error("no closing fee agreed on after {0} rounds")]
    ClosingRoundsExceeded(u32),
    /// Our own closing script has a form that needs a feature which the peer does not offer.
    #[error("our closing script needs option_shutdown_anysegwit")]
    OwnShutdownScriptForm,
    /// The signature fits no variant of the closing transaction.
    #[error("the signature of the closing transaction with fee {fee} is not valid")]
    BadClosingSignature {
        /// The fee.
        fee: Sat,
    },

    // Reestablishment.
    /// `next_commitment_number` is one that cannot be.
    #[error("the peer expects commitment {found}, our next is {expected}")]
    ReestablishCommitmentNumber {
        /// Our next.
        expected: CommitmentNumber,
        /// Theirs.
        found: u64,
    },
    /// `next_revocation_number` is one that cannot be.
    #[error("the peer expects revocation {found}, our next is {expected}")]
    ReestablishRevocationNumber {
        /// Our next.
        expected: CommitmentNumber,
        /// Theirs.
        found: u64,
    },
    /// `your_last_per_commitment_secret` is not the secret we revealed.
    #[error("the peer does not know the secret we revealed for commitment {0}")]
    ReestablishSecret(u64),
    /// The peer proves that our state is outdated. Ours must not be broadcast.
    #[error("we lost state: the peer knows our secret of commitment {proven}, we are at {ours}")]
    WeFellBehind {
        /// The latest commitment whose secret the peer knows.
        proven: u64,
        /// Our latest commitment.
        ours: CommitmentNumber,
    },

    /// The peer proves with a secret of ours that its state is outdated. It may still recover it; until then its
    /// commitments must not be provoked by an `error`.
    #[error("the peer lost state: it expects commitment {commitment} and revocation {revocation}")]
    PeerFellBehind {
        /// Its `next_commitment_number`.
        commitment: u64,
        /// Its `next_revocation_number`.
        revocation: u64,
    },

    // Announcing.
    /// `announcement_signatures` are for another place than the funding output has.
    #[error("announcement_signatures are for {found}, the funding output is at {expected}")]
    AnnouncementScid {
        /// Where the funding output is.
        expected: Scid,
        /// Theirs.
        found: Scid,
    },
    /// A signature of `announcement_signatures` is not valid.
    #[error("the {signature} of announcement_signatures is not valid")]
    BadAnnouncementSignature {
        /// The field's BOLT name.
        signature: &'static str,
    },
    /// The signature of the peer's `channel_update` for this channel is not valid.
    #[error("the signature of the channel_update is not valid")]
    BadChannelUpdateSignature,

    // Answers that never came.
    /// The peer has not sent a message that is due, for longer than the driver allows.
    #[error("the peer has not sent {} in time", .0.name())]
    AnswerOverdue(AwaitedAnswer),

    // After a restart.
    /// An error of a channel whose state comes from a copy of the store and may be old. Ours must not be broadcast.
    #[error("{0}; our state may be old")]
    StateInDoubt(String),
    /// The error of a channel that failed before a restart, as its record keeps it.
    #[error("{text}")]
    Recorded {
        /// The error's text.
        text: String,
        /// [`ChannelError::broadcast_allowed`] of the error.
        broadcast_allowed: bool,
    },
}

impl ChannelError {
    /// How a funded channel responds; [`Channel::reaction`](super::Channel::reaction) covers all phases.
    #[must_use]
    pub fn reaction(&self) -> Reaction {
        use ChannelError as E;
        match self {
            E::WrongChannel { .. } => Reaction::Ignore,
            E::PeerFellBehind { .. } | E::AnnouncementScid { .. } => Reaction::Wait,
            E::UnexpectedMessage { .. }
            | E::FeerateTooLow { .. }
            | E::FeerateTooHigh { .. }
            | E::HtlcIdOutOfOrder { .. }
            | E::HtlcAmountZero { .. }
            | E::HtlcBelowMinimum { .. }
            | E::TooManyHtlcs { .. }
            | E::TooMuchInFlight { .. }
            | E::HtlcNotAffordable { .. }
            | E::FeeOfOpenerNotAffordable { .. }
            | E::CltvExpiryNotAHeight(_)
            | E::AddAfterShutdown { .. }
            | E::Removal(_)
            | E::UpdateFeeNotByOpener
            | E::FeeNotAffordable { .. }
            | E::DustExposure { .. }
            | E::HtlcSignatureCount { .. }
            | E::BadCommitmentSignature
            | E::BadHtlcSignature { .. }
            | E::Commitment(_)
            | E::CommitmentFeeTooLow { .. }
            | E::CommitmentDustExposure { .. }
            | E::UnexpectedRevocation
            | E::RevocationSecretNotDerived(_)
            | E::ShutdownScriptForm(_)
            | E::ShutdownScriptMismatch { .. }
            | E::ShutdownWithPendingUpdates
            | E::OwnShutdownScriptForm
            | E::ClosingFeeTooLarge { .. }
            | E::Closing(_)
            | E::ClosingFeeRangesDisjoint { .. }
            | E::ClosingFeeOutOfRange { .. }
            | E::ClosingRoundsExceeded(_)
            | E::BadClosingSignature { .. }
            | E::BadAnnouncementSignature { .. }
            | E::BadChannelUpdateSignature => Reaction::Warn,
            E::AnswerOverdue(answer) if answer.ends_with_reconnection() => Reaction::Warn,
            _ => Reaction::Fail,
        }
    }

    /// Whether our latest commitment may be broadcast when the channel fails for this reason.
    #[must_use]
    pub fn broadcast_allowed(&self) -> bool {
        match self {
            ChannelError::WeFellBehind { .. }
            | ChannelError::FundingOutputWrong { .. }
            | ChannelError::StateInDoubt(_) => false,
            ChannelError::Recorded { broadcast_allowed, .. } => *broadcast_allowed,
            _ => true,
        }
    }
}

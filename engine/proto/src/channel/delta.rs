//! The changes a channel's state can undergo, as data.
//!
//! Owns: [`Delta`]. A plan is a list of them; the deltas of a channel's plans, in order, are its record, and folding
//! them from the first ([`Channel::replay`](super::Channel::replay)) gives the same channel again. Does not: contain
//! secrets of ours, nor our own signatures: both follow from the channel's keys.
//!
//! Invariant: a delta that a plan contains can be folded without a check.

use bitcoin::{OutPoint, Transaction};
use fulmen_wire::message::{AcceptChannel, OpenChannel};
use fulmen_wire::units::{FeeratePerKw, Point, Sat, Scid, Signature};

use super::config::{ChannelConfig, NegotiatedFeatures};
use super::error::ChannelError;
use super::htlc::{Htlc, Removal, Side};

/// One change of a channel's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// We opened a channel with this message; always a record's first delta, or `Accepted` is.
    Opened {
        /// Our terms.
        config: Box<ChannelConfig>,
        /// The negotiated features.
        features: NegotiatedFeatures,
        /// The message we sent.
        open: Box<OpenChannel>,
    },
    /// We accepted a channel that the peer opens.
    Accepted {
        /// Our terms.
        config: Box<ChannelConfig>,
        /// The negotiated features.
        features: NegotiatedFeatures,
        /// The peer's message.
        open: Box<OpenChannel>,
        /// The message we sent.
        accept: Box<AcceptChannel>,
    },
    /// The peer accepted our channel.
    AcceptReceived {
        /// Its message.
        accept: Box<AcceptChannel>,
    },
    /// We got the funding transaction and sent `funding_created`.
    FundingCreatedSent {
        /// The transaction, not to be broadcast before the peer signed.
        transaction: Box<Transaction>,
        /// Which output is the funding output.
        output: u16,
    },
    /// The peer sent `funding_created`, and we `funding_signed`.
    FundingCreatedReceived {
        /// The funding output.
        outpoint: OutPoint,
        /// The signature for our first commitment.
        signature: Signature,
    },
    /// The peer sent `funding_signed`.
    FundingSignedReceived {
        /// The signature for our first commitment.
        signature: Signature,
    },
    /// The funding transaction is deep enough; we sent `channel_ready` (or will once connected).
    FundingLocked {
        /// Where it stands.
        scid: Scid,
    },
    /// The peer sent `channel_ready`.
    ChannelReadyReceived {
        /// The point of its second commitment.
        second_per_commitment_point: Point,
    },
    /// An HTLC was offered.
    Added {
        /// By whom.
        by: Side,
        /// The HTLC.
        htlc: Htlc,
        /// Whether it took the dust exposure over our limit.
        over_dust_exposure: bool,
    },
    /// The removal of an HTLC was proposed.
    Removed {
        /// By whom: the side that received the HTLC.
        by: Side,
        /// The HTLC's id.
        id: u64,
        /// How it ends.
        removal: Removal,
    },
    /// The opener proposed a fee rate.
    FeeUpdated {
        /// The rate.
        feerate: FeeratePerKw,
    },
    /// We sent `commitment_signed`.
    CommitmentSent,
    /// The peer sent `commitment_signed`, and we revoked our previous commitment.
    CommitmentReceived {
        /// The signature of our commitment transaction.
        signature: Signature,
        /// The signatures of its HTLC transactions.
        htlc_signatures: Vec<Signature>,
    },
    /// The peer sent `revoke_and_ack`.
    RevocationReceived {
        /// The secret of its previous commitment.
        per_commitment_secret: [u8; 32],
        /// The point of its next one.
        next_per_commitment_point: Point,
    },
    /// We want to shut down, and will say so once our updates are signed.
    ShutdownWanted {
        /// Where our money goes.
        scriptpubkey: Vec<u8>,
    },
    /// One side sent `shutdown`.
    Shutdown {
        /// Which.
        by: Side,
        /// Where its money goes.
        scriptpubkey: Vec<u8>,
    },
    /// We sent `closing_signed`.
    ClosingOffered {
        /// The fee we proposed.
        fee: Sat,
        /// The range we gave with it.
        range: (Sat, Sat),
    },
    /// The peer sent `closing_signed` with another fee than ours.
    ClosingReceived {
        /// The fee it proposed.
        fee: Sat,
    },
    /// Both agreed on a closing transaction.
    ClosingAgreed {
        /// The fee.
        fee: Sat,
        /// The transaction, signed by both.
        transaction: Box<Transaction>,
    },
    /// We gave up those of our additions that no commitment holds. The peer has forgotten them, or will hear no more.
    AdditionsDropped,
    /// The connection was lost: uncommitted updates of the peer are forgotten.
    Disconnected,
    /// There is a new connection: `channel_reestablish` was sent.
    Connected,
    /// The peer's `channel_reestablish` was answered.
    Reestablished,
    /// The channel failed.
    Failed {
        /// Why.
        error: ChannelError,
    },
    /// A new connection's `init` messages agreed on other features than before.
    FeaturesChanged {
        /// The features.
        features: NegotiatedFeatures,
    },
    /// The funding transaction left the best chain.
    FundingUnlocked,
}

//! The interface between a channel and its driver: plans, jobs, and the effects of applying a plan.
//!
//! Owns: [`Plan`] (the changes), [`SignJob`] (signatures to make), [`ChannelEffects`] (messages and events, due once
//! the record is durable) and [`ChannelEvent`]. Does not: execute anything. Invariant: effects are values, complete
//! when [`Channel::apply`](super::Channel::apply) returns; nothing of them may leave before the plan's deltas are
//! durable.

use bitcoin::Transaction;
use fulmen_secp::{DeriveJob, VerifyJob};
use fulmen_wire::message::Message;
use fulmen_wire::units::{ChannelId, PaymentPreimage, Sat, Scid, Signature};
use secp256k1::SecretKey;

use super::delta::Delta;
use super::error::ChannelError;
use super::htlc::{Htlc, Removal};
use crate::keys::sign;

/// The changes that one message or command makes to a channel, not yet applied.
///
/// Driving it: have [`verify`](Plan::verify) checked (any batch, any order); if one fails, the plan is void, and
/// [`Plan::bad_signature`] is the error to react to. Otherwise have [`sign`](Plan::sign) executed and hand the plan to
/// [`Channel::apply`](super::Channel::apply) with the signatures in the same order. A plan is only good for the state
/// it was made on.
#[must_use]
#[derive(Debug, Default)]
pub struct Plan {
    /// The record: folding these into the state is all that `apply` does.
    pub deltas: Vec<Delta>,
    /// Signatures of the peer on which the plan depends.
    pub verify: Vec<VerifyJob>,
    /// The derivation of the key of all [`verify`](Plan::verify) jobs but the first, if there are others: a verifier
    /// may know its basepoint well.
    pub verify_by: Option<DeriveJob>,
    /// Signatures to make; they belong to the `commitment_signed` in `send`.
    pub sign: Vec<SignJob>,
    /// Messages for the peer, in order; the signatures of a `commitment_signed` are still blank.
    pub send: Vec<Message>,
    /// Whether to close the connection once they are sent.
    pub disconnect: bool,
}

impl Plan {
    /// A plan of one change that sends nothing.
    pub(super) fn of(delta: Delta) -> Plan {
        Plan { deltas: vec![delta], ..Plan::default() }
    }

    /// The error when the signature of the [`verify`](Plan::verify) job at `index` is not valid.
    #[must_use]
    pub fn bad_signature(&self, index: usize) -> ChannelError {
        match index.checked_sub(1) {
            None => ChannelError::BadCommitmentSignature,
            Some(index) => ChannelError::BadHtlcSignature { index },
        }
    }
}

/// A signature to make with one of the channel's keys.
pub struct SignJob {
    secret: SecretKey,
    digest: [u8; 32],
}

impl SignJob {
    pub(super) fn new(secret: SecretKey, digest: [u8; 32]) -> SignJob {
        SignJob { secret, digest }
    }

    /// Makes the signature, compact form, low S (BOLT 3); the nonce is RFC 6979's.
    #[must_use]
    pub fn sign(&self) -> Signature {
        sign(&self.digest, &self.secret)
    }
}

impl std::fmt::Debug for SignJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignJob").finish_non_exhaustive()
    }
}

/// The actions due once a plan's deltas are durable: send, then broadcast, then notify.
#[must_use]
#[derive(Debug, Default)]
pub struct ChannelEffects {
    /// Messages for the peer, in order.
    pub send: Vec<Message>,
    /// Whether to close the connection once they are sent.
    pub disconnect: bool,
    /// Transactions to publish.
    pub broadcast: Vec<Transaction>,
    /// Events for the channel's owner.
    pub events: Vec<ChannelEvent>,
}

/// Something the channel's owner must know.
#[non_exhaustive]
#[derive(Debug)]
pub enum ChannelEvent {
    /// As opener: the peer accepted; give us a transaction with exactly this output
    /// ([`ChannelCommand::Fund`](super::ChannelCommand::Fund)), and do not broadcast it yet.
    FundingNeeded {
        /// The funding output's script.
        script_pubkey: Vec<u8>,
        /// Its amount.
        amount: Sat,
    },
    /// As opener: the peer has signed our first commitment, so the funding transaction may be broadcast. It is an event
    /// rather than a broadcast because a transaction that funds several channels waits for all of them.
    FundingBroadcast {
        /// The transaction given with [`ChannelCommand::Fund`](super::ChannelCommand::Fund).
        transaction: Transaction,
    },
    /// The channel got its permanent id: from here on messages carry it instead of the temporary one.
    IdAssigned {
        /// The id derived from the funding outpoint.
        channel_id: ChannelId,
    },
    /// Both sides sent `channel_ready`.
    Ready {
        /// Where the funding output stands in the chain.
        scid: Scid,
    },
    /// A reorganisation moved the funding output to another place in the chain.
    FundingMoved {
        /// Its earlier place.
        previous: Scid,
        /// Its place now.
        scid: Scid,
    },
    /// The funding transaction left the best chain: the channel holds nothing unless it confirms again.
    FundingUnconfirmed {
        /// Its earlier place.
        previous: Scid,
    },
    /// An HTLC of the peer is irrevocably committed: forward it, keep it or fail it.
    AddLockedIn {
        /// The HTLC.
        htlc: Htlc,
        /// Whether it must be failed for the dust exposure it brings.
        over_dust_exposure: bool,
    },
    /// The peer fulfilled an HTLC of ours: the preimage counts at once, even if the update is lost again. The same
    /// HTLC may be reported again after a reconnection.
    Fulfilled {
        /// The HTLC's id.
        id: u64,
        /// The preimage, checked against the payment hash.
        preimage: PaymentPreimage,
    },
    /// An HTLC of ours was dropped before any commitment held it: fail the incoming one. Its id may be used again.
    AddDropped {
        /// The HTLC's id.
        id: u64,
    },
    /// The peer's failure of an HTLC of ours is irrevocably committed: fail the incoming one.
    FailLockedIn {
        /// The HTLC's id.
        id: u64,
        /// How it failed; never [`Removal::Fulfill`].
        removal: Removal,
    },
    /// The fulfillment of an HTLC of ours is irrevocably committed: nothing of it is left.
    FulfillLockedIn {
        /// The HTLC's id.
        id: u64,
    },
    /// Our removal of an HTLC of the peer is irrevocably committed: nothing of it is left.
    RemovalLockedIn {
        /// The HTLC's id.
        id: u64,
        /// Whether it was fulfilled, so that its amount is ours now.
        fulfilled: bool,
    },
    /// One side sent `shutdown`: no HTLC may be added any more.
    ShutdownStarted,
    /// Both sides agreed on the closing transaction; it is in [`ChannelEffects::broadcast`] too. After a reconnection
    /// the negotiation may run again and report another.
    Closed {
        /// The signed transaction.
        transaction: Transaction,
    },
    /// The channel failed: it will not do anything any more, and only the chain can settle it.
    Failed {
        /// Why.
        error: ChannelError,
        /// Whether our latest commitment may be broadcast. False when we are the ones with outdated state: then only
        /// the peer may.
        broadcast_allowed: bool,
    },
}

/// Puts signatures, commitment first, into the one message that awaits them.
pub(super) fn fill_signatures(messages: &mut [Message], signatures: &[Signature]) {
    let Some((first, rest)) = signatures.split_first() else { return };
    for message in messages {
        if let Message::CommitmentSigned(commitment) = message {
            commitment.signature = *first;
            commitment.htlc_signatures = rest.to_vec();
        }
    }
}

//! The outputs of a payer: HTLCs to send, and how a payment ended.
//!
//! Owns the types alone.

use fulmen_graph::path::{NoRoute, Route};
use fulmen_proto::forward::SendHtlc;
use fulmen_proto::onion::{FailureCode, OnionBuildError};
use fulmen_wire::units::{Msat, PaymentHash, PaymentPreimage};
use thiserror::Error;

use super::failure::FailedPart;
use super::request::PaymentId;

/// Something a payer wants done or known. Updates are handled in the order they are given.
#[derive(Debug)]
#[must_use = "an HTLC that is not sent keeps its payment open for ever"]
#[non_exhaustive]
pub enum PaymentUpdate {
    /// Give this to the engine as [`Command::SendHtlc`](fulmen_proto::forward::Command::SendHtlc).
    Send(SendHtlc),
    /// The payee has been paid: the preimage is the proof. Other parts may still be in flight.
    Proven {
        /// The payment.
        id: PaymentId,
        /// The proof.
        preimage: PaymentPreimage,
    },
    /// The payment is over: none of its HTLCs is in flight, and none will be.
    Ended(Box<PaymentOutcome>),
}

/// How a payment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentOutcome {
    /// The payment.
    pub id: PaymentId,
    /// The hash that locked its HTLCs.
    pub payment_hash: PaymentHash,
    /// The preimage, or why it failed.
    pub result: Result<PaymentPreimage, PaymentFailure>,
    /// How often parts were sent.
    pub rounds: u32,
    /// How many HTLCs were sent: those fulfilled and those that failed.
    pub htlcs: u32,
    /// The most parts that were in flight at once.
    pub parts_at_once: usize,
    /// The parts that were fulfilled.
    pub settled: Vec<SettledPart>,
    /// The HTLCs that failed, in the order they did: at most [`PaymentOutcome::htlcs`].
    pub failures: Vec<FailedPart>,
}

impl PaymentOutcome {
    /// The amount that left this node for good, fees included.
    #[must_use]
    pub fn sent(&self) -> Msat {
        self.settled.iter().map(|part| part.route.total_amount).sum()
    }

    /// The fees in it.
    #[must_use]
    pub fn fee(&self) -> Msat {
        self.settled.iter().map(|part| part.route.fee).sum()
    }
}

/// A part that was fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledPart {
    /// Its HTLC.
    pub attempt_id: u64,
    /// Its route.
    pub route: Route,
}

/// Why a payment failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PaymentFailure {
    /// No routes are left that keep its limits and avoid its failures.
    #[error("no route is left: {0}")]
    NoRoute(#[source] NoRoute),
    /// Its rounds are used up.
    #[error("{rounds} rounds of parts failed")]
    RoundsExhausted {
        /// How many there were.
        rounds: u32,
    },
    /// The time for it is over.
    #[error("its deadline has passed")]
    DeadlinePassed,
    /// The payee does not take it; the code says why, where it can be read.
    #[error("the payee refused it ({0:?})")]
    Refused(Option<FailureCode>),
    /// The embedder gave it up.
    #[error("it was abandoned")]
    Abandoned,
    /// The router answered with routes that break the payment's limits: in all, they would have sent this much.
    #[error("its router offered {parts} parts of {total} in all, above its limits")]
    OverLimits {
        /// How many parts would have been in flight.
        parts: usize,
        /// The amount that would have been in flight, fees included.
        total: Msat,
    },
    /// No onion can be built for a route.
    #[error("no onion can be built: {0}")]
    Onion(#[source] OnionBuildError),
}

/// Why a payment is not begun. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BeginError {
    /// A payment of this name is under way.
    #[error("payment {} is under way", .0.number())]
    DuplicateId(PaymentId),
    /// Another payment with this hash is under way. Sent side by side, both might be paid.
    #[error("payment {} with the same hash is under way", .0.number())]
    DuplicateHash(PaymentId),
    /// As many payments are under way as the payer may have.
    #[error("{max} payments are under way, as many as may be")]
    TooManyPayments {
        /// The most allowed.
        max: usize,
    },
}

/// The payer has no attempt with this id in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("attempt {0} is not in flight")]
pub struct UnknownAttempt(pub u64);

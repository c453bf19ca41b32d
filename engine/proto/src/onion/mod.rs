//! The onion: how a payment's route and its failures travel encrypted (BOLT 4).
//!
//! Owns: building packets ([`build`]), peeling them ([`peel`], [`peel_batch`]), the payloads inside ([`Payload`]), and
//! failures on their way back ([`create_failure`], [`wrap_failure`], [`SharedSecrets::read_failure`]). Does not decide
//! whether to forward, does not remember onions, and leaves out route blinding and `attribution_data`.
//!
//! A forwarding node calls, in this order: [`peel`] when an HTLC is irrevocably committed; then one of
//! [`Payload::into_forward`] or [`Payload::into_final`]; and if the HTLC fails, [`create_failure`] where it fails here
//! or [`wrap_failure`] where it failed further on, with the same [`SharedSecret`].
//!
//! Invariant: bytes from a peer or an origin never panic and never allocate beyond their own length.

mod failure;
mod failure_packet;
mod keys;
mod packet;
mod payload;
mod peel;

pub use failure::{Failure, FailureCode, NotBadOnion};
pub use failure_packet::{ReturnedFailure, SharedSecrets, create_failure, wrap_failure};
pub use keys::{ReplayTag, SharedSecret};
pub use packet::{OnionBuildError, OnionHop, PAYLOAD_LENGTH_MIN, build, hop_size, payload_size};
pub use payload::{FinalPayload, ForwardPayload, OtherRecord, Payload, PayloadError, PaymentData};
pub use peel::{PeelError, PeelJob, PeelReaction, Peeled, peel, peel_batch};

#[cfg(test)]
mod tests;

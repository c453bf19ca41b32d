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
//! ```
//! use fulmen_proto::keys::secp;
//! use fulmen_proto::onion::{OnionHop, Peeled, build, peel};
//! use fulmen_wire::units::NodeId;
//! use secp256k1::SecretKey;
//!
//! let (payment_hash, session_key) = ([3; 32], SecretKey::from_slice(&[1; 32])?);
//! let node_key = SecretKey::from_slice(&[2; 32])?;
//! let node_id = NodeId(node_key.public_key(secp()).serialize());
//! let hops = [OnionHop { node_id, payload: vec![0, 1, 2] }];
//! let (packet, _secrets) = build(&session_key, &hops, &payment_hash)?;
//! let Peeled::Final { payload, .. } = peel(&node_key, &packet, &payment_hash)? else { unreachable!() };
//! assert_eq!(payload, hops[0].payload);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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

//! The keys of a channel (BOLT 3, "Keys").
//!
//! Owns: the secrets of one channel and how they follow from a node's seed, per-commitment secrets and their compact
//! storage, and the derivation of every public and private key that a commitment uses. Signs; does not decide what to
//! sign. Does no I/O and draws no randomness: seeds are arguments.
//!
//! Invariant: no type here prints a secret; secrets meet libsecp256k1 only.

mod channel;
mod derive;
mod secrets;

use std::sync::OnceLock;

use fulmen_wire::units::{Point, Signature};
use secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey, ecdsa};
use thiserror::Error;

pub use channel::{Basepoints, ChannelSecrets, NodeSeed};
pub use derive::{
    CommitmentKeyJob, CommitmentKeys, derive_private_key, derive_public_key, revocation_private_key,
    revocation_public_key,
};
pub use secrets::{CommitmentNumber, PerCommitmentSecret, SecretStore, SecretStoreError};

/// Bytes that a peer sent as a point are not a point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{field} {value} is not a point of secp256k1")]
pub struct InvalidPoint {
    /// What the bytes were meant to be, in BOLT words.
    pub field: &'static str,
    /// The bytes.
    pub value: Point,
}

/// The one context of libsecp256k1; its tables are built once a process.
pub fn secp() -> &'static Secp256k1<All> {
    static CONTEXT: OnceLock<Secp256k1<All>> = OnceLock::new();
    CONTEXT.get_or_init(Secp256k1::new)
}

/// Parses a point; `field` names it in the error.
pub fn parse_point(field: &'static str, value: &Point) -> Result<PublicKey, InvalidPoint> {
    PublicKey::from_slice(&value.0).map_err(|_| InvalidPoint { field, value: *value })
}

/// The wire form of a public key.
#[must_use]
pub fn to_point(key: &PublicKey) -> Point {
    Point(key.serialize())
}

/// Signs a digest deterministically (RFC 6979). The nonce is not ground for a short `r`: that would double the cost of
/// a signature to save a byte which off-chain nobody pays for.
#[must_use]
pub fn sign(digest: &[u8; 32], key: &SecretKey) -> Signature {
    Signature(secp().sign_ecdsa(&Message::from_digest(*digest), key).serialize_compact())
}

/// Checks one signature. High-`s` signatures are refused, as BOLT 2 requires of `commitment_signed`. Whoever has many
/// signatures to check hands them to `fulmen_secp` as a batch instead.
#[must_use]
pub fn verify(digest: &[u8; 32], signature: &Signature, key: &PublicKey) -> bool {
    ecdsa::Signature::from_compact(&signature.0)
        .is_ok_and(|parsed| secp().verify_ecdsa(&Message::from_digest(*digest), &parsed, key).is_ok())
}

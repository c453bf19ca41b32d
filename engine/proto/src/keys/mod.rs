//! The keys of a channel (BOLT 3, "Keys").
//!
//! Owns: the secrets of one channel and how they follow from a node's seed, per-commitment secrets and their compact
//! storage, and the derivation of every public and private key that a commitment uses. Signs; does not decide when to
//! sign. Does no I/O and draws no randomness: seeds are arguments.
//!
//! Invariant: no type here prints a secret; secrets meet libsecp256k1 only.
//!
//! ```
//! use fulmen_proto::keys::{ChannelSecrets, CommitmentNumber, NodeSeed};
//!
//! let secrets = ChannelSecrets::derive(&NodeSeed::new([1; 32]), 7);
//! let secret = secrets.per_commitment_secret(CommitmentNumber::FIRST);
//! assert_eq!(secret.point(), secrets.per_commitment_point(CommitmentNumber::FIRST));
//! ```

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
    /// The name of the field in the BOLTs.
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
///
/// # Errors
/// If the bytes are not a compressed point of secp256k1.
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

#[cfg(test)]
pub(crate) mod tests {
    use bitcoin::hashes::{Hash, sha256};

    use super::*;

    /// The vectors of appendices D and E.
    pub(crate) fn vectors() -> serde_json::Value {
        serde_json::from_str(include_str!("../../../tests/vectors/bolt03-keys.json")).unwrap()
    }

    /// Decodes a vector's hexadecimal string.
    pub(crate) fn bytes<const N: usize>(value: &serde_json::Value) -> [u8; N] {
        hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
    }

    #[test]
    fn a_signature_verifies_only_where_it_belongs() {
        let secrets = ChannelSecrets::derive(&NodeSeed::new([1; 32]), 0);
        let key = secrets.basepoints().funding;
        let signature = secrets.sign_funding(&[5; 32]);
        assert!(verify(&[5; 32], &signature, &key));
        assert!(!verify(&[6; 32], &signature, &key));
        assert!(!verify(&[5; 32], &signature, &secrets.basepoints().htlc));
        for byte in 0..64 {
            let mut damaged = signature;
            damaged.0[byte] ^= 1;
            assert!(!verify(&[5; 32], &damaged, &key), "byte {byte}");
        }
        assert!(!verify(&[5; 32], &Signature([0; 64]), &key));
        assert!(!verify(&[5; 32], &Signature([0xff; 64]), &key));
    }

    #[test]
    fn the_secrets_of_a_channel_are_its_own() {
        let seed = NodeSeed::new([1; 32]);
        let all = |secrets: &ChannelSecrets| {
            let of = secrets.basepoints();
            let point = secrets.per_commitment_point(CommitmentNumber::FIRST);
            [of.funding, of.revocation, of.payment, of.delayed_payment, of.htlc, point]
        };
        let mut keys = vec![seed.node_secret().public_key(secp())];
        for (seed, index) in [(1, 0), (1, 1), (1, 1 << 40), (2, 0)] {
            let seed = NodeSeed::new([seed; 32]);
            let secrets = ChannelSecrets::derive(&seed, index);
            assert_eq!(secrets, ChannelSecrets::derive(&seed, index));
            keys.extend(all(&secrets));
        }
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    /// A node finds its channels' secrets again by seed and index alone: derivation may never change.
    #[test]
    fn derivation_from_the_seed_is_frozen() {
        let seed = NodeSeed::new(core::array::from_fn(|i| i as u8));
        let secrets = ChannelSecrets::derive(&seed, 7);
        let of = secrets.basepoints();
        let point = secrets.per_commitment_point(CommitmentNumber::FIRST);
        let node = seed.node_secret().public_key(secp());
        let all = [node, of.funding, of.revocation, of.payment, of.delayed_payment, of.htlc, point];
        let all: Vec<u8> = all.iter().flat_map(PublicKey::serialize).collect();
        assert_eq!(
            sha256::Hash::hash(&all).to_string(),
            "c237309313961906da2e2982db67922640d074d8850fecbe4d7b0dd2c5d800c9"
        );
    }

    #[test]
    fn a_point_off_the_curve_is_named() {
        let good = to_point(&NodeSeed::new([1; 32]).node_secret().public_key(secp()));
        // No point of the curve has x = 5.
        let bad = Point(core::array::from_fn(|i| if i == 0 { 2 } else { 5 * u8::from(i == 32) }));
        assert!(Basepoints::parse(&good, &good, &good, &good, &good).is_ok());
        let error = Basepoints::parse(&good, &good, &good, &bad, &good).unwrap_err();
        assert_eq!(error, InvalidPoint { field: "delayed_payment_basepoint", value: bad });
        let unparsed = Point([0; 33]);
        assert_eq!(parse_point("x", &unparsed), Err(InvalidPoint { field: "x", value: unparsed }));
    }

    #[test]
    fn secrets_do_not_print() {
        let seed = NodeSeed::new([0xab; 32]);
        assert_eq!(format!("{seed:?}"), "NodeSeed(..)");
        let secrets = ChannelSecrets::derive(&seed, 0);
        let printed = format!("{secrets:?}");
        assert!(printed.ends_with(", .. }") && !printed.contains("seed"), "{printed}");
        assert!(!printed.contains(&hex::encode(secrets.funding_key().secret_bytes())));
    }
}

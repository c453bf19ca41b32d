//! Derivation of a commitment's keys (BOLT 3, "Key Derivation").
//!
//! Owns: the formulas for public and private keys, and the set of public keys one commitment uses. Does not know
//! scripts.
//!
//! Invariant: a private key derived here belongs to the public key derived from the same basepoint and point.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use secp256k1::{PublicKey, Scalar, SecretKey};

use super::{Basepoints, PerCommitmentSecret, secp};

/// Why none of the sums and products below can fail, whatever a peer chooses.
const NO_COLLISION: &str = "meeting the group's neutral element needs a preimage of SHA-256";

/// `SHA256(first || second)` as a scalar.
fn hash_of(first: &PublicKey, second: &PublicKey) -> Scalar {
    let mut engine = sha256::Hash::engine();
    engine.input(&first.serialize());
    engine.input(&second.serialize());
    Scalar::from_be_bytes(sha256::Hash::from_engine(engine).to_byte_array())
        .expect("a SHA-256 output outside the group's order has never been found")
}

/// `basepoint + SHA256(per_commitment_point || basepoint) * G`.
#[must_use]
pub fn derive_public_key(basepoint: &PublicKey, per_commitment_point: &PublicKey) -> PublicKey {
    basepoint.add_exp_tweak(secp(), &hash_of(per_commitment_point, basepoint)).expect(NO_COLLISION)
}

/// The private key of [`derive_public_key`]; `basepoint` is the public key of `secret`.
#[must_use]
pub fn derive_private_key(
    secret: &SecretKey,
    basepoint: &PublicKey,
    per_commitment_point: &PublicKey,
) -> SecretKey {
    secret.add_tweak(&hash_of(per_commitment_point, basepoint)).expect(NO_COLLISION)
}

/// The key that may punish a revoked commitment: from its owner's `per_commitment_point` and the other side's
/// `revocation_basepoint`.
#[must_use]
pub fn revocation_public_key(
    revocation_basepoint: &PublicKey,
    per_commitment_point: &PublicKey,
) -> PublicKey {
    let base = revocation_basepoint
        .mul_tweak(secp(), &hash_of(revocation_basepoint, per_commitment_point))
        .expect(NO_COLLISION);
    let point = per_commitment_point
        .mul_tweak(secp(), &hash_of(per_commitment_point, revocation_basepoint))
        .expect(NO_COLLISION);
    base.combine(&point).expect(NO_COLLISION)
}

/// The private key of [`revocation_public_key`], once the commitment's secret is revealed; `revocation_basepoint` is
/// the public key of `revocation_secret`.
#[must_use]
pub fn revocation_private_key(
    revocation_secret: &SecretKey,
    revocation_basepoint: &PublicKey,
    per_commitment_secret: &PerCommitmentSecret,
) -> SecretKey {
    let point = per_commitment_secret.point();
    let base = revocation_secret.mul_tweak(&hash_of(revocation_basepoint, &point)).expect(NO_COLLISION);
    let secret =
        per_commitment_secret.key().mul_tweak(&hash_of(&point, revocation_basepoint)).expect(NO_COLLISION);
    base.add_tweak(&Scalar::from(secret)).expect(NO_COLLISION)
}

/// What the keys of one commitment follow from.
#[derive(Clone, Copy, Debug)]
pub struct CommitmentKeyJob<'a> {
    /// The basepoints of the commitment's owner.
    pub owner: &'a Basepoints,
    /// The basepoints of the other side.
    pub other: &'a Basepoints,
    /// The owner's point for this commitment.
    pub per_commitment_point: PublicKey,
}

/// The public keys of one commitment. As everywhere in BOLT 3, *local* is the commitment's owner, whoever that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitmentKeys {
    /// The owner's point for this commitment.
    pub per_commitment_point: PublicKey,
    /// Whose private key punishes the commitment once revoked.
    pub revocation_pubkey: PublicKey,
    /// Receives the owner's funds after the delay.
    pub local_delayed_pubkey: PublicKey,
    /// The owner's key in HTLC outputs.
    pub local_htlc_pubkey: PublicKey,
    /// The other side's key in HTLC outputs.
    pub remote_htlc_pubkey: PublicKey,
    /// Receives the other side's funds: its plain `payment_basepoint`.
    pub remote_pubkey: PublicKey,
}

impl CommitmentKeys {
    /// Derives the keys of one commitment.
    #[must_use]
    pub fn derive(owner: &Basepoints, other: &Basepoints, per_commitment_point: PublicKey) -> CommitmentKeys {
        let point = &per_commitment_point;
        CommitmentKeys {
            revocation_pubkey: revocation_public_key(&other.revocation, point),
            local_delayed_pubkey: derive_public_key(&owner.delayed_payment, point),
            local_htlc_pubkey: derive_public_key(&owner.htlc, point),
            remote_htlc_pubkey: derive_public_key(&other.htlc, point),
            remote_pubkey: other.payment,
            per_commitment_point,
        }
    }

    /// Derives the keys of many commitments; the results stand in the order of the jobs.
    #[must_use]
    pub fn derive_batch(jobs: &[CommitmentKeyJob<'_>]) -> Vec<CommitmentKeys> {
        jobs.iter()
            .map(|job| CommitmentKeys::derive(job.owner, job.other, job.per_commitment_point))
            .collect()
    }
}

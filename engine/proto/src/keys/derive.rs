//! Derivation of a commitment's keys (BOLT 3, "Key Derivation").
//!
//! Owns: the formulas for public and private keys, and the set of public keys one commitment uses. Does not know
//! scripts.
//!
//! Invariant: a private key derived here belongs to the public key derived from the same basepoint and point.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use fulmen_secp::{DeriveJob, KeyError, derive_pubkeys, derive_revocation_pubkeys};
use secp256k1::{PublicKey, Scalar, SecretKey};

use super::{Basepoints, PerCommitmentSecret};

/// The reason why none of the sums and products below can fail for any point a peer chooses.
const NO_COLLISION: &str = "meeting the group's neutral element needs a preimage of SHA-256";

/// `SHA256(first || second)` as a scalar.
fn hash_of(first: &PublicKey, second: &PublicKey) -> Scalar {
    let mut engine = sha256::Hash::engine();
    engine.input(&first.serialize());
    engine.input(&second.serialize());
    Scalar::from_be_bytes(sha256::Hash::from_engine(engine).to_byte_array())
        .expect("a SHA-256 output outside the group's order has never been found")
}

/// The keys of a batch. No job fails for any point a peer chose.
fn all<const N: usize>(keys: Vec<Result<PublicKey, KeyError>>) -> [PublicKey; N] {
    let keys: Vec<PublicKey> = keys.into_iter().map(|key| key.expect(NO_COLLISION)).collect();
    keys.try_into().expect("a batch gives one key for each job")
}

/// `basepoint + SHA256(per_commitment_point || basepoint) * G`.
#[must_use]
pub fn derive_public_key(basepoint: &PublicKey, per_commitment_point: &PublicKey) -> PublicKey {
    let [key] = all(derive_pubkeys(&[job(basepoint, per_commitment_point)]));
    key
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
    let [key] = all(derive_revocation_pubkeys(&[job(revocation_basepoint, per_commitment_point)]));
    key
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

/// The inputs of the keys of one commitment.
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
        let jobs = [CommitmentKeyJob { owner, other, per_commitment_point }];
        CommitmentKeys::derive_batch(&jobs).pop().expect("a batch gives one set of keys for each job")
    }

    /// Derives the keys of many commitments; the results stand in the order of the jobs.
    #[must_use]
    pub fn derive_batch(jobs: &[CommitmentKeyJob<'_>]) -> Vec<CommitmentKeys> {
        let mut plain = Vec::with_capacity(3 * jobs.len());
        let mut revocation = Vec::with_capacity(jobs.len());
        for of in jobs {
            let point = &of.per_commitment_point;
            plain.push(job(&of.owner.delayed_payment, point));
            plain.push(job(&of.owner.htlc, point));
            plain.push(job(&of.other.htlc, point));
            revocation.push(job(&of.other.revocation, point));
        }
        let (plain, revocation) = (derive_pubkeys(&plain), derive_revocation_pubkeys(&revocation));
        let sets = jobs.iter().zip(plain.chunks_exact(3)).zip(revocation);
        sets.map(|((of, plain), revocation)| {
            let [local_delayed_pubkey, local_htlc_pubkey, remote_htlc_pubkey] = all(plain.to_vec());
            CommitmentKeys {
                per_commitment_point: of.per_commitment_point,
                revocation_pubkey: revocation.expect(NO_COLLISION),
                local_delayed_pubkey,
                local_htlc_pubkey,
                remote_htlc_pubkey,
                remote_pubkey: of.other.payment,
            }
        })
        .collect()
    }
}

/// One derivation, as `fulmen_secp` takes it.
const fn job(basepoint: &PublicKey, per_commitment_point: &PublicKey) -> DeriveJob {
    DeriveJob { basepoint: *basepoint, per_commitment_point: *per_commitment_point }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::secp;
    use crate::keys::tests::{bytes, vectors};

    /// BOLT 3, appendix E.
    #[test]
    fn derivation_vectors() {
        let vector = &vectors()["derivation"];
        let secret_key = |name: &str| SecretKey::from_slice(&bytes::<32>(&vector[name])).unwrap();
        let public_key = |name: &str| PublicKey::from_slice(&bytes::<33>(&vector[name])).unwrap();

        let (base_secret, base) = (secret_key("base_secret"), public_key("base_point"));
        let point = public_key("per_commitment_point");
        let secret = PerCommitmentSecret::from_bytes(&bytes(&vector["per_commitment_secret"])).unwrap();
        assert_eq!(base_secret.public_key(secp()), base);
        assert_eq!(secret.point(), point);
        assert_eq!(derive_public_key(&base, &point), public_key("localpubkey"));
        assert_eq!(derive_private_key(&base_secret, &base, &point), secret_key("localprivkey"));
        assert_eq!(revocation_public_key(&base, &point), public_key("revocationpubkey"));
        assert_eq!(revocation_private_key(&base_secret, &base, &secret), secret_key("revocationprivkey"));
    }
}

//! BOLT 3, "Key Derivation", from public data.
//!
//! Owns the hashes and the choice of the backend. libsecp256k1 parses each key that lanes find, so that only a
//! point of the curve can come out; it computes those that they leave open.

use secp256k1::{PublicKey, Scalar};
use sha2::{Digest, Sha256};

use crate::backend::Work;
use crate::simd::{Combination, Offset};
use crate::{Backend, KeyError, fallback, scalar};

/// One BOLT 3 key derivation from public data: a basepoint bound to one commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeriveJob {
    /// The channel's basepoint for the key's purpose.
    pub basepoint: PublicKey,
    /// The point of the commitment the key is for.
    pub per_commitment_point: PublicKey,
}

impl DeriveJob {
    /// The multiple of the generator that is added to the basepoint.
    pub(crate) fn offset(&self) -> [u8; 32] {
        hash(&self.per_commitment_point, &self.basepoint)
    }
}

/// Derives `basepoint + SHA256(per_commitment_point || basepoint) * G` for each job (BOLT 3, "Key Derivation").
#[must_use]
pub fn derive_pubkeys(jobs: &[DeriveJob]) -> Vec<Result<PublicKey, KeyError>> {
    derive_pubkeys_with(Backend::selected(), jobs)
}

/// As [`derive_pubkeys`], with a backend of the caller's choice.
#[must_use]
pub fn derive_pubkeys_with(backend: Backend, jobs: &[DeriveJob]) -> Vec<Result<PublicKey, KeyError>> {
    let tweaks: Vec<[u8; 32]> =
        jobs.iter().map(|job| hash(&job.per_commitment_point, &job.basepoint)).collect();
    let mut fast = offsets(backend, jobs, &tweaks).into_iter();
    jobs.iter()
        .zip(&tweaks)
        .map(|(job, tweak)| {
            let slow = || fallback::offset(&job.basepoint, &Scalar::from_be_bytes(*tweak).ok()?);
            parsed(fast.next().flatten()).or_else(slow).ok_or(KeyError::Infinity(job.basepoint.serialize()))
        })
        .collect()
}

/// Derives the revocation key of each job: `basepoint` is the revocation basepoint (BOLT 3, `revocationpubkey`).
#[must_use]
pub fn derive_revocation_pubkeys(jobs: &[DeriveJob]) -> Vec<Result<PublicKey, KeyError>> {
    derive_revocation_pubkeys_with(Backend::selected(), jobs)
}

/// As [`derive_revocation_pubkeys`], with a backend of the caller's choice.
#[must_use]
pub fn derive_revocation_pubkeys_with(
    backend: Backend,
    jobs: &[DeriveJob],
) -> Vec<Result<PublicKey, KeyError>> {
    let tweaks: Vec<[[u8; 32]; 2]> = jobs
        .iter()
        .map(|DeriveJob { basepoint, per_commitment_point: point }| {
            [hash(basepoint, point), hash(point, basepoint)]
        })
        .collect();
    let mut fast = combinations(backend, jobs, &tweaks).into_iter();
    jobs.iter()
        .zip(&tweaks)
        .map(|(job, [base_tweak, point_tweak])| {
            let slow = || {
                fallback::combination(&[
                    (job.basepoint, Scalar::from_be_bytes(*base_tweak).ok()?),
                    (job.per_commitment_point, Scalar::from_be_bytes(*point_tweak).ok()?),
                ])
            };
            parsed(fast.next().flatten()).or_else(slow).ok_or(KeyError::Infinity(job.basepoint.serialize()))
        })
        .collect()
}

/// The keys that the lanes find; none from a backend without lanes.
fn offsets(backend: Backend, jobs: &[DeriveJob], tweaks: &[[u8; 32]]) -> Vec<Option<[u8; 65]>> {
    if let Some(leaf) = backend.leaf_for(Work::Offset, jobs.len()) {
        let offset = |(job, tweak): (&DeriveJob, &[u8; 32])| Offset {
            point: job.basepoint,
            scalar: scalar::Scalar::remainder(tweak),
        };
        let offsets: Vec<Offset> = jobs.iter().zip(tweaks).map(offset).collect();
        let mut found = leaf.offsets(&offsets);
        refuse_out_of_range(&mut found, tweaks.iter());
        return found;
    }
    Vec::new()
}

/// The keys that the lanes find; none from a backend without lanes, or for a single job.
fn combinations(backend: Backend, jobs: &[DeriveJob], tweaks: &[[[u8; 32]; 2]]) -> Vec<Option<[u8; 65]>> {
    if let Some(leaf) = backend.leaf_for(Work::Multiply, jobs.len()) {
        let offset =
            |point: PublicKey, tweak: &[u8; 32]| Offset { point, scalar: scalar::Scalar::remainder(tweak) };
        let combination = |(job, [base_tweak, point_tweak]): (&DeriveJob, &[[u8; 32]; 2])| Combination {
            terms: [offset(job.basepoint, base_tweak), offset(job.per_commitment_point, point_tweak)],
        };
        let combinations: Vec<Combination> = jobs.iter().zip(tweaks).map(combination).collect();
        let mut found = leaf.combinations(&combinations);
        refuse_out_of_range(&mut found, tweaks.iter().map(|[base, _]| base));
        refuse_out_of_range(&mut found, tweaks.iter().map(|[_, point]| point));
        return found;
    }
    Vec::new()
}

/// Leaves to libsecp256k1 the keys whose hash it would refuse, one that is not in [1, n). None was ever seen.
fn refuse_out_of_range<'a>(found: &mut [Option<[u8; 65]>], tweaks: impl Iterator<Item = &'a [u8; 32]>) {
    for (key, tweak) in found.iter_mut().zip(tweaks) {
        if scalar::Scalar::parse_r(tweak).is_none() {
            *key = None;
        }
    }
}

/// The key, checked by libsecp256k1 to be on the curve.
fn parsed(uncompressed: Option<[u8; 65]>) -> Option<PublicKey> {
    PublicKey::from_slice(&uncompressed?).ok()
}

/// SHA-256 of two points.
fn hash(first: &PublicKey, second: &PublicKey) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(first.serialize());
    hash.update(second.serialize());
    hash.finalize().into()
}

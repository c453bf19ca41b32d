//! secp256k1 over public data, in batches: signature verification, key parsing and BOLT 3 key derivation.
//!
//! Owns the shape of the jobs and their results. The arithmetic is libsecp256k1's, one job after the other; a
//! vectorised backend fits behind the same functions, which is why every one of them takes a slice.
//!
//! Secrets never come here: signing, ECDH and per-commitment secrets use libsecp256k1 directly, where they are held.
//!
//! Invariant: a job's result depends on that job alone, never on what else is in the batch.
//!
//! ```
//! use fulmen_secp::{Batch, VerifyJob};
//! use secp256k1::{Message, Secp256k1, SecretKey};
//!
//! let secp = Secp256k1::new();
//! let secret = SecretKey::from_slice(&[7; 32])?;
//! let digest = [1; 32];
//! let signature = secp.sign_ecdsa(&Message::from_digest(digest), &secret).serialize_compact();
//!
//! let mut batch = Batch::new();
//! let job = VerifyJob { key: secret.public_key(&secp), digest, signature };
//! let good = batch.push(job);
//! let bad = batch.push(VerifyJob { digest: [2; 32], ..job });
//! let verdicts = batch.verify();
//! assert!(verdicts.is_valid(good) && !verdicts.is_valid(bad));
//! # Ok::<(), secp256k1::Error>(())
//! ```

#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::LazyLock;

use secp256k1::ecdsa::Signature;
use secp256k1::{Message, PublicKey, Scalar, Secp256k1, VerifyOnly};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// One signature to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyJob {
    /// The signer's key.
    pub key: PublicKey,
    /// The 32 bytes that were signed.
    pub digest: [u8; 32],
    /// The signature in compact form: r, then s, big-endian.
    pub signature: [u8; 64],
}

/// One BOLT 3 key derivation from public data: a basepoint bound to one commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeriveJob {
    /// The channel's basepoint for the key's purpose.
    pub basepoint: PublicKey,
    /// The point of the commitment the key is for.
    pub per_commitment_point: PublicKey,
}

/// Signature checks that are gathered from many places and made at once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    jobs: Vec<VerifyJob>,
}

/// What a batch found, job by job in the order they were pushed.
#[must_use = "a signature that was not looked at is a signature that was not checked"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdicts {
    valid: Vec<bool>,
}

/// A public key that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes are not a compressed point of the curve.
    #[error("not a compressed point of secp256k1: {}", Hex(.0))]
    NotAPoint([u8; 33]),
    /// The key derived from the basepoint would be the point at infinity.
    #[error("the key derived from basepoint {} is the point at infinity", Hex(.0))]
    Infinity([u8; 33]),
}

impl Batch {
    /// A batch without jobs.
    #[must_use]
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a job; the index finds its verdict.
    pub fn push(&mut self, job: VerifyJob) -> usize {
        self.jobs.push(job);
        self.jobs.len() - 1
    }

    /// Adds the jobs of one caller; the range finds their verdicts.
    pub fn extend(&mut self, jobs: impl IntoIterator<Item = VerifyJob>) -> Range<usize> {
        let start = self.jobs.len();
        self.jobs.extend(jobs);
        start..self.jobs.len()
    }

    /// How many jobs wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether no job waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Checks every job.
    pub fn verify(&self) -> Verdicts {
        verify_all(&self.jobs)
    }
}

impl Verdicts {
    /// Whether job `index` carried a valid signature; an index never pushed did not.
    #[must_use]
    pub fn is_valid(&self, index: usize) -> bool {
        self.valid.get(index).copied().unwrap_or(false)
    }

    /// Whether all jobs of `range` carried valid signatures; a range reaching past the batch did not.
    #[must_use]
    pub fn are_valid(&self, range: Range<usize>) -> bool {
        self.valid.get(range).is_some_and(|valid| valid.iter().all(|valid| *valid))
    }

    /// Whether every job carried a valid signature.
    #[must_use]
    pub fn all_valid(&self) -> bool {
        self.valid.iter().all(|valid| *valid)
    }

    /// The jobs that failed, in order.
    pub fn invalid(&self) -> impl Iterator<Item = usize> + '_ {
        self.valid.iter().enumerate().filter_map(|(index, valid)| (!valid).then_some(index))
    }
}

/// Checks every job. Accepts exactly what libsecp256k1's `ecdsa_verify` accepts: a signature with a high s is invalid.
pub fn verify_all(jobs: &[VerifyJob]) -> Verdicts {
    Verdicts { valid: jobs.iter().map(verify).collect() }
}

/// Parses compressed keys, each on its own.
#[must_use]
pub fn parse_keys(keys: &[[u8; 33]]) -> Vec<Result<PublicKey, KeyError>> {
    keys.iter().map(|key| PublicKey::from_slice(key).map_err(|_| KeyError::NotAPoint(*key))).collect()
}

/// Derives `basepoint + SHA256(per_commitment_point || basepoint) * G` for each job (BOLT 3, "Key Derivation").
#[must_use]
pub fn derive_pubkeys(jobs: &[DeriveJob]) -> Vec<Result<PublicKey, KeyError>> {
    jobs.iter()
        .map(|job| {
            let tweak = tweak(&job.per_commitment_point, &job.basepoint);
            tweak
                .and_then(|tweak| job.basepoint.add_exp_tweak(&CONTEXT, &tweak).ok())
                .ok_or(KeyError::Infinity(job.basepoint.serialize()))
        })
        .collect()
}

/// Derives the revocation key of each job: `basepoint` is the revocation basepoint (BOLT 3, `revocationpubkey`).
#[must_use]
pub fn derive_revocation_pubkeys(jobs: &[DeriveJob]) -> Vec<Result<PublicKey, KeyError>> {
    jobs.iter()
        .map(|job| {
            let base_tweak = tweak(&job.basepoint, &job.per_commitment_point);
            let point_tweak = tweak(&job.per_commitment_point, &job.basepoint);
            let base = base_tweak.and_then(|tweak| job.basepoint.mul_tweak(&CONTEXT, &tweak).ok());
            let point =
                point_tweak.and_then(|tweak| job.per_commitment_point.mul_tweak(&CONTEXT, &tweak).ok());
            base.zip(point)
                .and_then(|(base, point)| base.combine(&point).ok())
                .ok_or(KeyError::Infinity(job.basepoint.serialize()))
        })
        .collect()
}

fn verify(job: &VerifyJob) -> bool {
    Signature::from_compact(&job.signature).is_ok_and(|signature| {
        CONTEXT.verify_ecdsa(&Message::from_digest(job.digest), &signature, &job.key).is_ok()
    })
}

/// SHA-256 of two points as a scalar; `None` for the hashes, never yet seen, that are not below the group order.
fn tweak(first: &PublicKey, second: &PublicKey) -> Option<Scalar> {
    let mut hash = Sha256::new();
    hash.update(first.serialize());
    hash.update(second.serialize());
    Scalar::from_be_bytes(hash.finalize().into()).ok()
}

struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

static CONTEXT: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secp256k1::SecretKey;

    use super::*;

    fn key(hex: &str) -> PublicKey {
        hex.parse().expect("a valid key")
    }

    fn signed(secret: [u8; 32], digest: [u8; 32]) -> Option<VerifyJob> {
        let secp = Secp256k1::new();
        let secret = SecretKey::from_slice(&secret).ok()?;
        let signature = secp.sign_ecdsa(&Message::from_digest(digest), &secret).serialize_compact();
        Some(VerifyJob { key: secret.public_key(&secp), digest, signature })
    }

    /// BOLT 3, Appendix E.
    #[test]
    fn derivation_vectors() {
        let job = DeriveJob {
            basepoint: key("036d6caac248af96f6afa7f904f550253a0f3ef3f5aa2fe6838a95b216691468e2"),
            per_commitment_point: key("025f7117a78150fe2ef97db7cfc83bd57b2e2c0d0dd25eaf467a4a1c2a45ce1486"),
        };
        let derived = key("0235f2dbfaa89b57ec7b055afe29849ef7ddfeb1cefdb9ebdc43f5494984db29e5");
        let revocation = key("02916e326636d19c33f13e8c0c3a03dd157f332f3e99c317c141dd865eb01f8ff0");
        assert_eq!(derive_pubkeys(&[job]), [Ok(derived)]);
        assert_eq!(derive_revocation_pubkeys(&[job]), [Ok(revocation)]);
    }

    #[test]
    fn keys_are_parsed_each_on_its_own() {
        let point = signed([3; 32], [0; 32]).expect("a valid secret").key;
        let not_a_point = [0xff; 33];
        assert_eq!(
            parse_keys(&[not_a_point, point.serialize()]),
            [Err(KeyError::NotAPoint(not_a_point)), Ok(point)]
        );
    }

    #[test]
    fn high_s_is_refused() {
        let job = signed([5; 32], [9; 32]).expect("a valid secret");
        let low_s = Scalar::from_be_bytes(job.signature[32..].try_into().expect("32 bytes"))
            .expect("below the order");
        let high_s = SecretKey::from_slice(&low_s.to_be_bytes()).expect("not zero").negate();
        let mut signature = job.signature;
        signature[32..].copy_from_slice(&high_s.secret_bytes());
        assert!(verify_all(&[job]).all_valid());
        assert!(!verify_all(&[VerifyJob { signature, ..job }]).all_valid());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_flipped_bit_fails_its_own_job_only(secret: [u8; 32], digests: [[u8; 32]; 3], bad in 0usize..3, bit in 0usize..768) {
            let jobs: Option<Vec<_>> = digests.iter().map(|digest| signed(secret, *digest)).collect();
            prop_assume!(jobs.is_some());
            let mut batch = Batch::new();
            let range = batch.extend(jobs.unwrap_or_default());
            prop_assert!(batch.verify().are_valid(range.clone()));
            let job = &mut batch.jobs[bad];
            if bit < 512 {
                job.signature[bit / 8] ^= 1 << (bit % 8);
            } else {
                job.digest[(bit - 512) / 8] ^= 1 << (bit % 8);
            }
            let verdicts = batch.verify();
            prop_assert_eq!(verdicts.invalid().collect::<Vec<_>>(), vec![bad]);
            prop_assert!(!verdicts.are_valid(range) && !verdicts.all_valid());
        }
    }
}

//! Signature checks: the batch and its verdicts.
//!
//! Owns the public types of verification, and the choice of the backend for each batch. A single signature always goes
//! to libsecp256k1: lanes that stay empty cost as much as full ones.

use std::ops::Range;

use crate::verifier::verify_here;
use crate::{Backend, DeriveJob, VerifyJob};

/// Signature checks that are gathered from many places and made at once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    jobs: Vec<VerifyJob>,
    /// Runs of jobs whose key is derived, and the derivation.
    derived: Vec<(Range<usize>, DeriveJob)>,
}

/// The verdicts on a batch, job by job in the order they were pushed.
#[must_use = "a signature that was not looked at is a signature that was not checked"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdicts {
    valid: Vec<bool>,
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

    /// Adds the jobs of one caller, all by the key that [`derive_pubkeys`](crate::derive_pubkeys) gives for `from`: a
    /// [`Verifier`](crate::Verifier) that knows the basepoint well checks them as fast as if it knew the key. What is
    /// said of a job whose key is another means nothing.
    pub fn extend_derived(
        &mut self,
        jobs: impl IntoIterator<Item = VerifyJob>,
        from: DeriveJob,
    ) -> Range<usize> {
        let range = self.extend(jobs);
        self.derived.push((range.clone(), from));
        range
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

    /// The jobs.
    pub(crate) fn jobs(&self) -> &[VerifyJob] {
        &self.jobs
    }

    /// The runs of jobs whose key is derived, and the derivation, in order.
    pub(crate) fn derived(&self) -> &[(Range<usize>, DeriveJob)] {
        &self.derived
    }
}

impl Verdicts {
    pub(crate) fn new(valid: Vec<bool>) -> Verdicts {
        Verdicts { valid }
    }

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

/// Checks every job. Accepts the signatures that libsecp256k1's `ecdsa_verify` accepts, no others: a signature with a
/// high s is invalid.
pub fn verify_all(jobs: &[VerifyJob]) -> Verdicts {
    verify_all_with(Backend::selected(), jobs)
}

/// As [`verify_all`], with a backend of the caller's choice.
pub(crate) fn verify_all_with(backend: Backend, jobs: &[VerifyJob]) -> Verdicts {
    let mut valid = vec![false; jobs.len()];
    let _ = verify_here(backend, jobs, &mut valid);
    Verdicts { valid }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secp256k1::{Message, PublicKey, Scalar, Secp256k1, SecretKey};

    use super::*;
    use crate::{DeriveJob, KeyError, derive_pubkeys, derive_revocation_pubkeys, parse_keys};

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

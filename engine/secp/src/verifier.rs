//! A verifier that is set up: its backend, tables of the keys it meets often, and the threads it may use.
//!
//! Owns the distribution of work: signatures by keys with tables and by others apart, in chunks that threads
//! share. Neither tables nor threads change an answer.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use secp256k1::PublicKey;

use crate::backend::Work;
use crate::scalar::Scalar;
use crate::simd::{KeyCache, KnownKey, Leaf};
use crate::{Backend, BackendError, Batch, CHUNK_MAX, DeriveJob, Verdicts, VerifyJob, fallback};

/// Verifies batches with a backend of the caller's choice, tables of the keys met often, and on the threads of a pool.
///
/// ```
/// use fulmen_secp::Verifier;
///
/// let mut verifier = Verifier::new().with_key_cache(64 << 20);
/// let verdicts = verifier.verify(&[]);
/// assert!(verdicts.all_valid());
/// ```
#[derive(Debug)]
pub struct Verifier {
    backend: Backend,
    cache: Option<KeyCache>,
    /// Signatures by keys without tables that go to libsecp256k1 before lanes are tried again.
    pub(crate) suspended: usize,
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Verifier {
    /// A verifier on this thread, with the backend selected for the process and no tables.
    #[must_use]
    pub fn new() -> Verifier {
        Verifier { backend: Backend::selected(), cache: None, suspended: 0, pool: None }
    }

    /// Uses another backend.
    ///
    /// # Errors
    ///
    /// The processor lacks it.
    pub fn with_backend(self, backend: Backend) -> Result<Verifier, BackendError> {
        Ok(Verifier { backend: backend.available()?, ..self })
    }

    /// The backend it uses.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Keeps tables of keys met often, in no more than this much memory: 44 KiB a key. A key gets one with its
    /// sixteenth signature, and verifies twice as fast or more from then on. [`Backend::Libsecp256k1`] has
    /// no use for tables.
    #[must_use]
    pub fn with_key_cache(self, memory_max_bytes: usize) -> Verifier {
        Verifier { cache: Some(KeyCache::new(memory_max_bytes)), ..self }
    }

    /// Splits batches of more than [`CHUNK_MAX`] over the threads of a pool.
    #[must_use]
    pub fn with_pool(self, pool: Arc<rayon::ThreadPool>) -> Verifier {
        Verifier { pool: Some(pool), ..self }
    }

    /// Checks every job. Accepts the signatures that libsecp256k1's `ecdsa_verify` accepts, no others: a signature with
    /// a high s is invalid.
    pub fn verify(&mut self, jobs: &[VerifyJob]) -> Verdicts {
        self.verify_derived(jobs, &[])
    }

    /// Checks every job of a batch, as [`Verifier::verify`] does.
    pub fn verify_batch(&mut self, batch: &Batch) -> Verdicts {
        self.verify_derived(batch.jobs(), batch.derived())
    }

    /// Checks every job; runs of them are by derived keys.
    fn verify_derived(&mut self, jobs: &[VerifyJob], derived: &[(Range<usize>, DeriveJob)]) -> Verdicts {
        if let (Some(leaf), Some(cache)) = (self.backend.leaf(), &mut self.cache) {
            let mut keys: Vec<(&PublicKey, Option<Scalar>)> =
                jobs.iter().map(|job| (&job.key, None)).collect();
            for (range, from) in derived {
                let offset = Scalar::remainder(&from.offset());
                keys[range.clone()].fill((&from.basepoint, Some(offset)));
            }
            let slots = leaf.assign(cache, keys.iter().map(|(key, _)| *key));
            let known = slots
                .iter()
                .zip(&keys)
                .map(|(slot, (_, offset))| Some(KnownKey { table: cache.table((*slot)?), offset: *offset }));
            let known: Vec<_> = known.collect();
            let fresh = |jobs: &[VerifyJob]| {
                verify_fresh(self.backend, self.pool.as_deref(), &mut self.suspended, jobs)
            };
            return verify_apart(leaf, self.pool.as_deref(), jobs, &known, fresh);
        }
        Verdicts::new(verify_fresh(self.backend, self.pool.as_deref(), &mut self.suspended, jobs))
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Verifier::new()
    }
}

/// Whether each signature is valid, by one thread; returns how many lanes left theirs to libsecp256k1.
pub(crate) fn verify_here(backend: Backend, jobs: &[VerifyJob], valid: &mut [bool]) -> usize {
    if let Some(leaf) = backend.leaf_for(Work::Verify, jobs.len()) {
        return leaf.verify(jobs, valid);
    }
    for (job, valid) in jobs.iter().zip(valid) {
        *valid = fallback::verify(job);
    }
    0
}

/// Signatures that go straight to libsecp256k1, for each of a batch of which most were exceptional in their lanes.
///
/// Only signatures made for it are exceptional, and each costs lanes and libsecp256k1 both. Whoever sends them so slows
/// verification to libsecp256k1's speed, no further.
const SUSPENSION: usize = 15;

/// Whether each signature by a key without a table is valid, by the threads of the pool if there are any.
fn verify_fresh(
    backend: Backend,
    pool: Option<&rayon::ThreadPool>,
    suspended: &mut usize,
    jobs: &[VerifyJob],
) -> Vec<bool> {
    let backend = if *suspended > 0 { Backend::Libsecp256k1 } else { backend };
    let left = AtomicUsize::new(0);
    let mut valid = vec![false; jobs.len()];
    share(pool, &mut valid, |start, valid| {
        let here = verify_here(backend, &jobs[start..start + valid.len()], valid);
        left.fetch_add(here, Ordering::Relaxed);
    });
    *suspended = suspended.saturating_sub(jobs.len());
    if 2 * left.into_inner() > jobs.len() {
        *suspended = SUSPENSION * jobs.len();
    }
    valid
}

/// Jobs whose keys have tables apart from the others.
fn verify_apart(
    leaf: Leaf,
    pool: Option<&rayon::ThreadPool>,
    jobs: &[VerifyJob],
    keys: &[Option<KnownKey<'_>>],
    verify_fresh: impl FnOnce(&[VerifyJob]) -> Vec<bool>,
) -> Verdicts {
    let (mut known, mut tables, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    for (job, key) in jobs.iter().zip(keys) {
        match key {
            Some(key) => {
                known.push(*job);
                tables.push(*key);
            }
            None => fresh.push(*job),
        }
    }
    let mut known_valid = vec![false; known.len()];
    share(pool, &mut known_valid, |start, valid| {
        let range = start..start + valid.len();
        leaf.verify_with_tables(&known[range.clone()], &tables[range], valid);
    });
    let fresh_valid = verify_fresh(&fresh);
    let (mut known_valid, mut fresh_valid) = (known_valid.into_iter(), fresh_valid.into_iter());
    let valid = keys.iter().map(|key| {
        let next = if key.is_some() { known_valid.next() } else { fresh_valid.next() };
        next.expect("one verdict for each job of its kind")
    });
    Verdicts::new(valid.collect())
}

/// Calls `work` with parts of `valid` and where each starts, on the threads of the pool if there is more than one part.
fn share(pool: Option<&rayon::ThreadPool>, valid: &mut [bool], work: impl Fn(usize, &mut [bool]) + Sync) {
    match pool {
        Some(pool) if valid.len() > CHUNK_MAX => pool.install(|| {
            let parts = valid.par_chunks_mut(CHUNK_MAX).enumerate();
            parts.for_each(|(index, valid)| work(index * CHUNK_MAX, valid));
        }),
        _ => work(0, valid),
    }
}

//! The verifier with tables, with threads, and with both.

use std::sync::Arc;

use secp256k1::SecretKey;

use super::{BACKENDS, count, random_secret, signed};
use crate::oracle::Source;
use crate::{Backend, Verifier, VerifyJob, fallback};

#[test]
fn tables_and_threads_change_no_answer() {
    let mut source = Source::new(61);
    let often: Vec<SecretKey> = (0..20).map(|_| random_secret(&mut source)).collect();
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    let mut verifiers = Vec::new();
    for backend in BACKENDS {
        // Room for every key, for a few, and for none.
        for memory in [1 << 20, 6 << 15, 0] {
            let verifier = || Verifier::new().with_backend(backend).with_key_cache(memory);
            verifiers.extend([verifier(), verifier().with_pool(Arc::clone(&pool))]);
        }
        verifiers.push(Verifier::new().with_backend(backend).with_pool(Arc::clone(&pool)));
    }
    for round in 0..count(12, 2_000) {
        let size = if round % 4 == 0 { 200 } else { 1 + source.below(60) };
        let jobs: Vec<VerifyJob> = (0..size)
            .map(|_| {
                // Some keys are met more often than others.
                let among = 1 + source.below(often.len());
                let by = if source.below(8) == 0 {
                    random_secret(&mut source)
                } else {
                    often[source.below(among)]
                };
                let mut job = signed(&mut source, &by);
                if source.below(5) == 0 {
                    job.signature[source.below(64)] ^= 1 << source.below(8);
                }
                job
            })
            .collect();
        let expected: Vec<bool> = jobs.iter().map(fallback::verify).collect();
        for verifier in &mut verifiers {
            let verdicts = verifier.verify(&jobs);
            let found: Vec<bool> = (0..jobs.len()).map(|index| verdicts.is_valid(index)).collect();
            assert_eq!(found, expected, "{verifier:?}");
        }
    }
}

/// Crafted equations whose key has a table: equal and opposite sums come up in the tree.
#[test]
fn crafted_equations_with_tables() {
    let jobs = super::crafted::special_jobs(&mut Source::new(62), count(400, 20_000));
    let expected: Vec<bool> = jobs.iter().map(fallback::verify).collect();
    let mut verifier = Verifier::new().with_backend(Backend::Avx512Ifma).with_key_cache(64 << 20);
    for _ in 0..17 {
        let verdicts = verifier.verify(&jobs);
        let found: Vec<bool> = (0..jobs.len()).map(|index| verdicts.is_valid(index)).collect();
        assert_eq!(found, expected);
    }
}

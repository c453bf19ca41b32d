//! The verifier with tables, with threads, and with both.

use std::sync::Arc;

use secp256k1::{Secp256k1, SecretKey};
use sha2::{Digest, Sha256};

use super::{MODELS, backends, count, random_secret, signed};
use crate::oracle::Source;
use crate::{Backend, Batch, DeriveJob, Verifier, VerifyJob, fallback};

fn verifier(backend: Backend) -> Verifier {
    Verifier::new().with_backend(backend).unwrap()
}

#[test]
fn tables_and_threads_change_no_answer() {
    let mut source = Source::new(61);
    let often: Vec<SecretKey> = (0..20).map(|_| random_secret(&mut source)).collect();
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    let mut verifiers = Vec::new();
    for backend in backends() {
        // Room for every key, for a few, and for none.
        for memory in [1 << 20, 6 << 15, 0] {
            let cached = || verifier(backend).with_key_cache(memory);
            verifiers.extend([cached(), cached().with_pool(Arc::clone(&pool))]);
        }
        verifiers.push(verifier(backend).with_pool(Arc::clone(&pool)));
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
    for (backends, count) in [(&backends()[..], jobs.len()), (&MODELS[..], 24)] {
        for backend in backends {
            let mut verifier = verifier(*backend).with_key_cache(64 << 20);
            for _ in 0..17 {
                let verdicts = verifier.verify(&jobs[..count]);
                let found: Vec<bool> = (0..count).map(|index| verdicts.is_valid(index)).collect();
                assert_eq!(found, expected[..count], "{backend:?}");
            }
        }
    }
}

/// Batches of which most are exceptional suspend the lanes for a while, which changes no answer.
#[test]
fn suspended_lanes_change_no_answer() {
    let mut source = Source::new(65);
    let mut jobs = |hostile: bool| -> Vec<VerifyJob> {
        let mut job = |_| {
            let secret = random_secret(&mut source);
            let job = signed(&mut source, &secret);
            // With m = -r q the sum is the point at infinity.
            let r = secp256k1::Scalar::from_be_bytes(*job.signature.first_chunk().unwrap()).unwrap();
            let digest = secret.mul_tweak(&r).unwrap().negate().secret_bytes();
            if hostile { VerifyJob { digest, ..job } } else { job }
        };
        (0..12).map(&mut job).collect()
    };
    let (hostile, honest) = (jobs(true), jobs(false));
    for backend in backends() {
        let mut verifier = verifier(backend);
        for round in 0..40 {
            let (jobs, invalid) = if round % 20 < 3 { (&hostile, 12) } else { (&honest, 0) };
            assert_eq!(verifier.verify(jobs).invalid().count(), invalid);
            let expected = backend != Backend::Libsecp256k1 && round % 20 < 15;
            assert_eq!(verifier.suspended > 0, expected, "{backend}, round {round}");
        }
    }
}

/// What fails its range check takes no lane: of known keys nothing may be left to be done.
#[test]
fn ranges_are_all_that_fails_in_a_batch_of_known_keys() {
    let mut source = Source::new(64);
    for mut verifier in
        backends().into_iter().map(|backend| verifier(backend).with_key_cache(1 << 20)).collect::<Vec<_>>()
    {
        let secret = random_secret(&mut source);
        let job = signed(&mut source, &secret);
        for _ in 0..20 {
            assert!(verifier.verify(&[job]).all_valid());
        }
        let out_of_range = VerifyJob { signature: [0xff; 64], ..job };
        for count in [1, 2, 9] {
            let verdicts = verifier.verify(&vec![out_of_range; count]);
            assert_eq!(verdicts.invalid().count(), count);
        }
        let verdicts = verifier.verify(&[out_of_range, job]);
        assert_eq!(verdicts.invalid().collect::<Vec<_>>(), [0]);
    }
}

/// Signatures by BOLT 3 keys, whose basepoints get tables while the keys themselves change all the time.
#[test]
fn derived_keys_change_no_answer() {
    let mut source = Source::new(63);
    let secp = Secp256k1::new();
    let bases: Vec<SecretKey> = (0..6).map(|_| random_secret(&mut source)).collect();
    let mut verifiers =
        backends().into_iter().map(|backend| verifier(backend).with_key_cache(1 << 20)).collect::<Vec<_>>();
    for _ in 0..count(30, 3_000) {
        let mut batch = Batch::new();
        let mut expected = Vec::new();
        for _ in 0..1 + source.below(4) {
            let base = bases[source.below(bases.len())];
            let point = random_secret(&mut source).public_key(&secp);
            let from = DeriveJob { basepoint: base.public_key(&secp), per_commitment_point: point };
            let hash = Sha256::new().chain_update(point.serialize()).chain_update(from.basepoint.serialize());
            let offset = secp256k1::Scalar::from_be_bytes(hash.finalize().into()).unwrap();
            let derived = base.add_tweak(&offset).unwrap();
            let plain = signed(&mut source, &base);
            let mut jobs: Vec<VerifyJob> =
                (0..source.below(12)).map(|_| signed(&mut source, &derived)).collect();
            for job in jobs.iter_mut().filter(|_| source.below(5) == 0) {
                job.signature[0] ^= 1;
            }
            batch.push(plain);
            expected.push(fallback::verify(&plain));
            expected.extend(jobs.iter().map(fallback::verify));
            batch.extend_derived(jobs, from);
        }
        for verifier in &mut verifiers {
            let verdicts = verifier.verify_batch(&batch);
            let found: Vec<bool> = (0..batch.len()).map(|index| verdicts.is_valid(index)).collect();
            assert_eq!(found, expected, "{verifier:?}");
        }
    }
}

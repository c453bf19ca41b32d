//! The batches of `fulmen-secp`: signatures by fresh keys and by keys with tables, key parsing, key derivation.
//!
//! Checks the budgets of `fulmen_secp`: per signature 2.8 us by fresh keys from 64 on and 1.5 us by a key with a table;
//! 0.4 us per parsed key, 1 us per derived pubkey and 4.5 us per revocation key in batches of 16. `libsecp256k1` is the
//! same on the fallback.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fulmen_secp::{
    Backend, DeriveJob, Verifier, VerifyJob, derive_pubkeys, derive_revocation_pubkeys, parse_keys,
};
use secp256k1::{Message, Secp256k1, SecretKey};

/// Signatures of different digests, number `i` by key `i` modulo `keys`.
fn signed(count: usize, keys: usize) -> Vec<VerifyJob> {
    let secp = Secp256k1::signing_only();
    let numbered = |prefix: u8, number: usize| {
        let mut bytes = [prefix; 32];
        bytes[24..].copy_from_slice(&(number as u64).to_be_bytes());
        bytes
    };
    (0..count)
        .map(|index| {
            let secret = SecretKey::from_slice(&numbered(7, index % keys)).expect("below the order");
            let digest = numbered(9, index);
            let signature = secp.sign_ecdsa(&Message::from_digest(digest), &secret).serialize_compact();
            VerifyJob { key: secret.public_key(&secp), digest, signature }
        })
        .collect()
}

fn signatures(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    let fresh = signed(256, 256);
    println!("digest of the signatures: {:02x?}", &fresh[255].signature[56..]);
    for batch in [1, 8, 16, 64, 256] {
        group.throughput(Throughput::Elements(batch as u64));
        let mut verifier = Verifier::new();
        group.bench_function(format!("fresh/{batch}"), |bencher| {
            bencher.iter(|| assert!(verifier.verify(black_box(&fresh[..batch])).all_valid()));
        });
    }
    group.throughput(Throughput::Elements(64));
    let mut verifier = Verifier::new().with_backend(Backend::Libsecp256k1).expect("every processor has it");
    group.bench_function("libsecp256k1/64", |bencher| {
        bencher.iter(|| assert!(verifier.verify(black_box(&fresh[..64])).all_valid()));
    });
    for keys in [10, 100] {
        let often = signed(1_000, keys);
        let mut verifier = Verifier::new().with_key_cache(64 << 20);
        for _ in 0..17 {
            assert!(verifier.verify(&often).all_valid());
        }
        group.throughput(Throughput::Elements(often.len() as u64));
        group.bench_function(format!("cached/{keys}"), |bencher| {
            bencher.iter(|| assert!(verifier.verify(black_box(&often)).all_valid()));
        });
    }
    group.finish();
}

fn keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify/keys");
    let points: Vec<_> = signed(128, 128).into_iter().map(|job| job.key).collect();
    let compressed: Vec<[u8; 33]> = points.iter().map(|key| key.serialize()).collect();
    for batch in [8, 64] {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("parse/{batch}"), |bencher| {
            bencher.iter(|| parse_keys(black_box(&compressed[..batch])));
        });
    }
    let jobs: Vec<DeriveJob> = points
        .chunks_exact(2)
        .map(|pair| DeriveJob { basepoint: pair[0], per_commitment_point: pair[1] })
        .collect();
    for batch in [8, 16, 64] {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("derive/pubkey/{batch}"), |bencher| {
            bencher.iter(|| derive_pubkeys(black_box(&jobs[..batch])));
        });
        group.bench_function(format!("derive/revocation/{batch}"), |bencher| {
            bencher.iter(|| derive_revocation_pubkeys(black_box(&jobs[..batch])));
        });
    }
    group.finish();
}

criterion_group!(benches, signatures, keys);
criterion_main!(benches);

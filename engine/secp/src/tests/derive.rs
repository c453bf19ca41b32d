//! BOLT 3 derivation, and the sums below it for scalars no hash gives.

use secp256k1::{PublicKey, Scalar};

use super::{MODELS, backends, count, public};
use crate::oracle::{self, N, Source};
use crate::{
    Backend, DeriveJob, MultiplyJob, derive_pubkeys_with, derive_revocation_pubkeys_with, fallback,
    multiply_points_with,
};

#[test]
fn every_backend_derives_the_same_keys() {
    let mut source = Source::new(51);
    let jobs: Vec<DeriveJob> = (0..count(300, 50_000))
        .map(|_| {
            let basepoint = public(source.nonzero(N));
            // A peer may choose its points as it likes.
            let per_commitment_point = match source.below(4) {
                0 => basepoint,
                1 => basepoint.negate(&secp256k1::Secp256k1::new()),
                _ => public(source.nonzero(N)),
            };
            DeriveJob { basepoint, per_commitment_point }
        })
        .collect();
    let expected = derive_pubkeys_with(Backend::Libsecp256k1, &jobs);
    let revocation = derive_revocation_pubkeys_with(Backend::Libsecp256k1, &jobs);
    assert!(expected.iter().chain(&revocation).all(Result::is_ok));
    for backend in MODELS {
        assert_eq!(derive_pubkeys_with(backend, &jobs[..17]), expected[..17]);
        assert_eq!(derive_revocation_pubkeys_with(backend, &jobs[..17]), revocation[..17]);
    }
    for size in [1, 2, 7, 8, 9, 16, 33, 64, 65, 200] {
        for ((jobs, expected), revocation) in
            jobs.chunks(size).zip(expected.chunks(size)).zip(revocation.chunks(size)).take(count(4, 1_000))
        {
            for backend in backends() {
                assert_eq!(derive_pubkeys_with(backend, jobs), expected);
                assert_eq!(derive_revocation_pubkeys_with(backend, jobs), revocation);
            }
        }
    }
    for backend in backends() {
        assert_eq!(derive_pubkeys_with(backend, &[]), []);
        assert_eq!(derive_revocation_pubkeys_with(backend, &[]), []);
    }
}

/// Scalars that bring about sums of equal and opposite points, and infinity: what a hash would have to be.
#[test]
fn exceptional_sums_are_left_to_libsecp256k1() {
    use crate::scalar::Scalar as Lane;
    use crate::simd::{Combination, Offset};

    let mut source = Source::new(52);
    let lane = |number: oracle::Big| Lane::remainder(&number.to_bytes());
    let tweak = |number: oracle::Big| Scalar::from_be_bytes(number.to_bytes()).unwrap();
    let key = |found: &Option<[u8; 65]>| found.map(|key| PublicKey::from_slice(&key).unwrap());
    let (mut singles, mut doubles, mut slow_singles, mut slow_doubles) = (vec![], vec![], vec![], vec![]);
    for round in 0..count(160, 4_000) {
        let k = source.nonzero(N);
        let t = match round % 5 {
            0 => k,
            1 => oracle::negate(k, N),
            2 => oracle::ONE,
            _ => source.nonzero(N),
        };
        singles.push(Offset { point: public(k), scalar: lane(t) });
        slow_singles.push(fallback::offset(&public(k), &tweak(t)));
        // j (u Q) + u (j Q): equal; with one negated: opposite.
        let (j, u) = (source.nonzero(N), source.nonzero(N));
        let second = if round % 3 == 0 { oracle::negate(u, N) } else { u };
        let second = if round % 3 == 2 { source.nonzero(N) } else { second };
        let terms = [(public(oracle::multiply(u, k, N)), j), (public(oracle::multiply(j, k, N)), second)];
        doubles
            .push(Combination { terms: terms.map(|(point, scalar)| Offset { point, scalar: lane(scalar) }) });
        slow_doubles.push(fallback::combination(&terms.map(|(point, scalar)| (point, tweak(scalar)))));
    }
    let leaves = backends().into_iter().chain(MODELS).filter_map(Backend::leaf);
    let found = leaves.flat_map(|leaf| {
        [(leaf.offsets(&singles), &slow_singles), (leaf.combinations(&doubles), &slow_doubles)]
    });
    for (found, slow) in found {
        let left = found.iter().zip(slow).filter(|(found, slow)| {
            assert!(found.is_none() || key(found) == **slow, "{found:x?} for {slow:?}");
            found.is_none()
        });
        let left = left.count();
        assert!(left > 0 && left < found.len(), "{left} of {} left", found.len());
        assert!(slow.iter().any(Option::is_none), "no infinity came up");
    }
}

#[test]
fn every_backend_multiplies_alike() {
    let mut source = Source::new(53);
    let scalar = |number: oracle::Big| Scalar::from_be_bytes(number.to_bytes()).unwrap();
    let jobs: Vec<MultiplyJob> = (0..count(200, 20_000))
        .map(|round| {
            let scalar = match round % 20 {
                0 => Scalar::ZERO,
                1 => Scalar::ONE,
                2 => scalar(oracle::negate(oracle::ONE, N)),
                // Scalars of few digits leave most positions of the chain at zero.
                3 => scalar(oracle::Big([1 + source.below(1 << 20) as u64, 0, 0, 0])),
                _ => scalar(source.nonzero(N)),
            };
            MultiplyJob { point: public(source.nonzero(N)), scalar }
        })
        .collect();
    let expected = multiply_points_with(Backend::Libsecp256k1, &jobs);
    assert_eq!(expected.iter().filter(|found| found.is_none()).count(), jobs.len() / 20, "the zeros");
    for backend in MODELS {
        assert_eq!(multiply_points_with(backend, &jobs[..21]), expected[..21]);
    }
    for size in [1, 2, 7, 8, 9, 16, 33, 64, 65, 200] {
        for (jobs, expected) in jobs.chunks(size).zip(expected.chunks(size)).take(count(4, 1_000)) {
            for backend in backends() {
                assert_eq!(multiply_points_with(backend, jobs), expected);
            }
        }
    }
    assert!(backends().into_iter().all(|backend| multiply_points_with(backend, &[]).is_empty()));
}

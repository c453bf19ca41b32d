//! Equations no honest signer makes: those where the arithmetic has an exception, or a bound is met.
//!
//! With any R and any u1, u2 there is a key for which R = u1 G + u2 Q, and then r = x(R), s = r / u2 and m = u1 s make
//! a valid signature: everything about the sum can be chosen.

use secp256k1::{PublicKey, Scalar, Secp256k1};

use super::{agree, count, public, secret, signed};
use crate::VerifyJob;
use crate::oracle::{self, Big, N, P, Source, ZERO};

/// The signature for these scalars and this key, its s made low: (n - s, -m, -Q) has the same sum.
fn forge(r: Big, u1: Big, u2: Big, key: PublicKey) -> VerifyJob {
    let s = oracle::multiply(r, oracle::invert(u2, N), N);
    let m = oracle::multiply(u1, s, N);
    let secp = Secp256k1::verification_only();
    let (s, m, key) = if is_high(s) {
        (oracle::negate(s, N), oracle::negate(m, N), key.negate(&secp))
    } else {
        (s, m, key)
    };
    job(r, s, m, key)
}

fn is_high(s: Big) -> bool {
    // 2 s wraps around n exactly if s > (n - 1) / 2, and n is odd.
    s != ZERO && oracle::add(s, s, N).bit(0)
}

fn job(r: Big, s: Big, m: Big, key: PublicKey) -> VerifyJob {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r.to_bytes());
    signature[32..].copy_from_slice(&s.to_bytes());
    VerifyJob { key, digest: m.to_bytes(), signature }
}

fn x_of(key: &PublicKey) -> Big {
    Big::from_bytes(key.serialize()[1..].try_into().unwrap())
}

fn small(number: u64) -> Big {
    Big([number, 0, 0, 0])
}

fn lambda() -> Big {
    Big::hex("5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72")
}

/// Scalars that recodings and tables treat apart: small ones, powers of two, the endomorphism, and their opposites.
fn special() -> Vec<Big> {
    let mut numbers = vec![lambda(), oracle::multiply(lambda(), lambda(), N)];
    numbers.extend((1..=64).map(small));
    for index in 0..256 {
        let mut power = ZERO;
        power.0[index / 64] = 1 << (index % 64);
        let power = power.modulo(N);
        numbers.extend([power, oracle::subtract(power, small(1), N)]);
    }
    let multiples: Vec<Big> = (1..32).map(|k| oracle::multiply(lambda(), small(k), N)).collect();
    numbers.extend(multiples);
    let negated: Vec<Big> = numbers.iter().map(|number| oracle::negate(*number, N)).collect();
    numbers.extend(negated);
    numbers.retain(|number| *number != ZERO);
    numbers
}

/// Q = k G for special k, with scalars special, equal, opposite or zero: doublings, infinity, sums at every step. Each
/// equation is followed by one with another digest.
pub(super) fn special_jobs(source: &mut Source, count: usize) -> Vec<VerifyJob> {
    let special = special();
    let mut jobs = Vec::new();
    for round in 0..count {
        let pick = |source: &mut Source| special[source.below(special.len())];
        let k = pick(source);
        let u2 = if round % 3 == 0 { source.nonzero(N) } else { pick(source) };
        let u2_k = oracle::multiply(u2, k, N);
        let u1 = match round % 6 {
            0 => pick(source),
            1 => u2_k,
            2 => oracle::negate(u2_k, N),
            3 => ZERO,
            4 => oracle::add(u2_k, pick(source), N),
            _ => source.number(N),
        };
        let sum = oracle::add(u1, u2_k, N);
        // At infinity there is no r to accept.
        let r = if sum == ZERO { source.nonzero(N) } else { x_of(&public(sum)).modulo(N) };
        let job = forge(r, u1, u2, public(k));
        jobs.push(job);
        jobs.push(VerifyJob { digest: source.bytes(), ..job });
    }
    jobs
}

#[test]
fn special_keys_and_scalars() {
    let jobs = special_jobs(&mut Source::new(21), count(1_500, 30_000));
    let valid = agree(&jobs);
    assert!(
        valid > jobs.len() / 3,
        "{valid} of {} valid: the equations are not what they should be",
        jobs.len()
    );
    // The same ones alone and in small batches, where lanes stand in for others.
    for (size, jobs) in [2, 3, 7, 9].iter().zip(jobs.chunks(jobs.len() / 4)) {
        jobs.chunks(*size).take(40).for_each(|jobs| {
            agree(jobs);
        });
    }
}

/// Points whose x-coordinates are near p, near n, at or above n (so that r + n < p), and small.
#[test]
fn x_coordinates_near_the_bounds() {
    let mut source = Source::new(22);
    let mut jobs = Vec::new();
    let from = |start: Big, step: Big| {
        let coordinates = std::iter::successors(Some(start), move |x| Some(oracle::add(*x, step, P)));
        coordinates.take(count(12, 60))
    };
    let minus_one = oracle::negate(small(1), P);
    let candidates = from(minus_one, minus_one)
        .chain(from(N, small(1)))
        .chain(from(N, minus_one))
        .chain(from(small(1), small(1)))
        .chain(from(oracle::subtract(P, N, P), small(1)))
        .chain(from(oracle::subtract(P, N, P), minus_one));
    for x in candidates {
        let mut compressed = [2; 33];
        compressed[1..].copy_from_slice(&x.to_bytes());
        let Ok(point) = PublicKey::from_slice(&compressed) else { continue };
        let r = x.modulo(N);
        let (u1, u2) = (source.nonzero(N), source.nonzero(N));
        let Some(key) = key_for(&point, u1, u2) else { continue };
        if r != ZERO {
            jobs.push(forge(r, u1, u2, key));
        }
        // r itself where only r + n is right, and the other way round.
        for r in [oracle::add(x, small(1), P), oracle::subtract(x, N, P)] {
            if r != ZERO && r.modulo(N) == r {
                jobs.push(forge(r, u1, u2, key));
            }
        }
    }
    let valid = agree(&jobs);
    assert!(valid >= count(30, 150), "{valid} valid");
    let r_plus_n = jobs.iter().filter(|job| {
        let r = Big::from_bytes(job.signature[..32].try_into().unwrap());
        r < oracle::subtract(P, N, P) && crate::fallback::verify(job)
    });
    assert!(r_plus_n.count() > 4, "no signature with r + n below p");
}

/// Q with u1 G + u2 Q = R.
fn key_for(point: &PublicKey, u1: Big, u2: Big) -> Option<PublicKey> {
    let secp = Secp256k1::new();
    let difference = point.combine(&public(u1).negate(&secp)).ok()?;
    let inverse = Scalar::from_be_bytes(oracle::invert(u2, N).to_bytes()).ok()?;
    difference.mul_tweak(&secp, &inverse).ok()
}

/// s at the ends of its range and around the middle; r at its ends; digests at and above n.
#[test]
fn ranges_end_where_libsecp256k1_ends_them() {
    let mut source = Source::new(23);
    let minus_one = oracle::negate(small(1), N);
    let half = oracle::multiply(minus_one, oracle::invert(small(2), N), N);
    let mut jobs = Vec::new();
    let middle = [-2i64, -1, 0, 1, 2].map(|offset| {
        let size = small(offset.unsigned_abs());
        if offset < 0 { oracle::subtract(half, size, N) } else { oracle::add(half, size, N) }
    });
    for s in [small(1), small(2), minus_one].into_iter().chain(middle) {
        for m in [ZERO, small(1), minus_one, source.number(N)] {
            // k G = R and s k = m + r q give the key q G.
            let k = source.nonzero(N);
            let r = x_of(&public(k)).modulo(N);
            let q = oracle::subtract(oracle::multiply(s, k, N), m, N);
            let q = oracle::multiply(q, oracle::invert(r, N), N);
            if q != ZERO {
                jobs.push(job(r, s, m, public(q)));
                // The digest m + n is the same number, if it has 256 bits.
                let mut again = job(r, s, m, public(q));
                if m == ZERO || m == small(1) {
                    again.digest = N.to_bytes();
                    again.digest[31] += u8::from(m == small(1));
                }
                jobs.push(again);
            }
        }
    }
    let out_of_range = [ZERO, N, Big([u64::MAX; 4]), P];
    let valid = signed(&mut source, &secret(small(77)));
    for bad in out_of_range {
        for range in [0..32, 32..64] {
            let mut job = valid;
            job.signature[range].copy_from_slice(&bad.to_bytes());
            jobs.push(job);
            jobs.push(valid);
        }
    }
    let valid = agree(&jobs);
    assert!(valid > 20 && valid < jobs.len() - 10, "{valid} of {} valid", jobs.len());
    // Only signatures out of range.
    jobs.retain(|job| job.signature[..32] == [0; 32]);
    assert_eq!(agree(&jobs), 0);
}

//! Which leaf is fastest here: sixteen signatures verified by those that may be, in a few milliseconds.
//!
//! The instructions that a processor has are not enough to tell: some split 256-bit or 512-bit operations. The result
//! changes no answer, only how soon it comes.

use std::time::{Duration, Instant};

use secp256k1::{PublicKey, Scalar, Secp256k1};
use sha2::{Digest, Sha256};

use crate::simd::{G, Leaf};
use crate::{VerifyJob, fallback};

/// Signatures that each leaf verifies at a time.
const JOBS: usize = 16;
/// Times that each does, of which the shortest counts.
const ROUNDS: usize = 3;
/// How many times faster than libsecp256k1 a leaf is taken without looking at those after it, whose tables of the
/// generator would be made for nothing: the scalar one is nowhere so much faster.
const FAST_ENOUGH: u32 = 2;

/// The index of the fastest leaf, given the ones with the most lanes first; `None` if libsecp256k1 is faster.
pub(crate) fn fastest(leaves: &[Leaf]) -> Option<usize> {
    let jobs = jobs();
    let alone = time(|| jobs.iter().filter(|job| fallback::verify(job)).count());
    let mut best = (None, alone);
    for (index, leaf) in leaves.iter().enumerate() {
        let mut valid = [false; JOBS];
        let duration = time(|| {
            leaf.verify(&jobs, &mut valid);
            valid.len()
        });
        tracing::debug!(?leaf, ?duration, libsecp256k1 = ?alone, "probed {JOBS} signatures");
        if duration < best.1 {
            best = (Some(index), duration);
        }
        if duration * FAST_ENOUGH <= alone {
            break;
        }
    }
    best.0
}

fn time(mut verify: impl FnMut() -> usize) -> Duration {
    // Once without the clock: tables are made, memory is fetched.
    std::hint::black_box(verify());
    let round = |_| {
        let start = Instant::now();
        std::hint::black_box(verify());
        start.elapsed()
    };
    (0..ROUNDS).map(round).min().expect("at least one round")
}

/// Signatures by no one: that they are invalid is seen last, so they take the time of valid ones.
fn jobs() -> Vec<VerifyJob> {
    let secp = Secp256k1::verification_only();
    let hash = |number: u8, purpose: u8| -> [u8; 32] { Sha256::digest([number, purpose]).into() };
    (0..JOBS as u8)
        .map(|number| {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&hash(number, 0));
            signature[32..].copy_from_slice(&hash(number, 1));
            // s in the lower half of its range, r above p - n.
            signature[32] &= 0x3f;
            signature[0] |= 0x40;
            signature[0] &= 0x7f;
            let generator = PublicKey::from_slice(&G).expect("G is a point");
            let scalar = Scalar::from_be_bytes(hash(number, 2)).unwrap_or(Scalar::ONE);
            let key = generator.add_exp_tweak(&secp, &scalar).unwrap_or(generator);
            VerifyJob { key, digest: hash(number, 3), signature }
        })
        .collect()
}

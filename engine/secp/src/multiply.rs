//! Multiples of points that come from a peer, by scalars that need not be hidden from an observer who measures time.
//!
//! Owns the choice of the backend. Does not serve ECDH: that scalar is a secret, and its product too.
//!
//! Purpose: the blinding of an onion's ephemeral key (BOLT 4, "Ephemeral Onion Keys"). The factor is a hash that
//! sender and hop know; from factor or time nothing follows for the secret that went into the hash, and libsecp256k1's
//! own function for it takes varying time too.

use secp256k1::{PublicKey, Scalar};

use crate::backend::Work;
use crate::simd::Offset;
use crate::{Backend, fallback};

/// A point and its multiplier.
#[derive(Clone, Copy, Debug)]
pub struct MultiplyJob {
    /// The point.
    pub point: PublicKey,
    /// The scalar.
    pub scalar: Scalar,
}

/// The product of each job; `None` where the scalar is zero.
#[must_use]
pub fn multiply_points(jobs: &[MultiplyJob]) -> Vec<Option<PublicKey>> {
    multiply_points_with(Backend::selected(), jobs)
}

/// As [`multiply_points`], with a backend of the caller's choice.
#[must_use]
pub fn multiply_points_with(backend: Backend, jobs: &[MultiplyJob]) -> Vec<Option<PublicKey>> {
    let mut fast = multiples(backend, jobs).into_iter();
    jobs.iter()
        .map(|job| {
            let found = fast.next().flatten().and_then(|key| PublicKey::from_slice(&key).ok());
            found.or_else(|| fallback::multiple(&job.point, &job.scalar))
        })
        .collect()
}

/// What the lanes find; nothing at all from a backend without lanes, or for a single job.
fn multiples(backend: Backend, jobs: &[MultiplyJob]) -> Vec<Option<[u8; 65]>> {
    if let Some(leaf) = backend.leaf_for(Work::Multiply, jobs.len()) {
        let offset = |job: &MultiplyJob| Offset {
            point: job.point,
            scalar: crate::scalar::Scalar::remainder(&job.scalar.to_be_bytes()),
        };
        let offsets: Vec<Offset> = jobs.iter().map(offset).collect();
        return leaf.multiples(&offsets);
    }
    Vec::new()
}

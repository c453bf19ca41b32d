//! libsecp256k1, one job after the other: the backend of every processor, and the judge of exceptional cases.
//!
//! Owns the calls into libsecp256k1. Invariant: its answer is the crate's answer.

use std::sync::LazyLock;

use secp256k1::ecdsa::Signature;
use secp256k1::{Message, PublicKey, Scalar, Secp256k1, VerifyOnly};

use crate::VerifyJob;

/// Whether a signature is valid.
pub(crate) fn verify(job: &VerifyJob) -> bool {
    Signature::from_compact(&job.signature).is_ok_and(|signature| {
        CONTEXT.verify_ecdsa(&Message::from_digest(job.digest), &signature, &job.key).is_ok()
    })
}

/// `point + scalar * G`, unless it is the point at infinity.
pub(crate) fn offset(point: &PublicKey, scalar: &Scalar) -> Option<PublicKey> {
    point.add_exp_tweak(&CONTEXT, scalar).ok()
}

/// `scalar * point`, unless the scalar is zero.
pub(crate) fn multiple(point: &PublicKey, scalar: &Scalar) -> Option<PublicKey> {
    point.mul_tweak(&CONTEXT, scalar).ok()
}

/// The sum of two points, each times a scalar, unless it or a term is the point at infinity.
pub(crate) fn combination(terms: &[(PublicKey, Scalar); 2]) -> Option<PublicKey> {
    let [(p, by_p), (q, by_q)] = terms;
    let (p, q) = (p.mul_tweak(&CONTEXT, by_p).ok()?, q.mul_tweak(&CONTEXT, by_q).ok()?);
    p.combine(&q).ok()
}

/// A context that can only verify.
static CONTEXT: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

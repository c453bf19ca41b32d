//! Eight lanes at a time: the backend for processors with AVX-512 IFMA.
//!
//! Layers, each on the one before: `lanes` (registers), `field`, `point`, `invert` (many inverses at once), `table`
//! (multiples and look-ups), `multiply` (sums of multiples), and the operations of the crate.
//!
//! The stages are compiled for the instructions they need (`target_feature`), everything they call is inlined into
//! them. This file enters them; the proof that the processor has the instructions is the caller's [`Ifma`].
#![allow(
    unsafe_code,
    reason = "entering code compiled for more than the baseline is unsafe; `Ifma` is the proof"
)]

use std::cell::RefCell;

use secp256k1::PublicKey;

pub(crate) use lanes::Ifma;

use crate::VerifyJob;
use cache::Builder;
pub(crate) use cache::{KeyCache, KnownKey};
use derive::Deriver;
pub(crate) use derive::{Combination, Offset};
use verify::Verifier;

mod cache;
mod derive;
mod field;
mod invert;
mod lanes;
mod multiply;
mod parse;
mod point;
mod table;
#[cfg(test)]
mod tests;
mod verify;

/// Writes whether each signature is valid.
pub(crate) fn verify(ifma: Ifma, jobs: &[VerifyJob], valid: &mut [bool]) {
    // SAFETY: `ifma` proves the features that `Verifier::verify` is compiled for.
    VERIFIER.with_borrow_mut(|verifier| unsafe { verifier.verify(ifma, jobs, valid) });
}

/// The slot of each key in the cache, if it has one; builds the tables that are earned.
pub(crate) fn assign<'a>(
    ifma: Ifma,
    cache: &mut KeyCache,
    keys: impl Iterator<Item = &'a PublicKey>,
) -> Vec<Option<usize>> {
    // SAFETY: `ifma` proves the features that `KeyCache::assign` is compiled for.
    BUILDER.with_borrow_mut(|builder| unsafe { cache.assign(ifma, builder, keys) })
}

/// Writes whether each signature is valid, given the tables of its keys.
pub(crate) fn verify_with_tables(
    ifma: Ifma,
    jobs: &[VerifyJob],
    tables: &[KnownKey<'_>],
    valid: &mut [bool],
) {
    // SAFETY: `ifma` proves the features that `Verifier::verify_with_tables` is compiled for.
    VERIFIER.with_borrow_mut(|verifier| unsafe { verifier.verify_with_tables(ifma, jobs, tables, valid) });
}

/// The uncompressed form of each compressed key, if it is a key; other bytes give no point.
pub(crate) fn uncompress(ifma: Ifma, keys: &[[u8; 33]]) -> Vec<[u8; 65]> {
    let mut uncompressed = Vec::with_capacity(keys.len());
    // SAFETY: `ifma` proves the features that `parse::uncompress` is compiled for.
    unsafe { parse::uncompress(ifma, keys, &mut uncompressed) };
    uncompressed
}

/// `point + scalar * G` of each job, uncompressed, or `None` where libsecp256k1 has to say.
pub(crate) fn offsets(ifma: Ifma, jobs: &[Offset]) -> Vec<Option<[u8; 65]>> {
    let mut keys = Vec::with_capacity(jobs.len());
    // SAFETY: `ifma` proves the features that `Deriver::offsets` is compiled for.
    DERIVER.with_borrow_mut(|deriver| unsafe { deriver.offsets(ifma, jobs, &mut keys) });
    keys
}

/// The combination of each job, uncompressed, or `None` where libsecp256k1 has to say.
pub(crate) fn combinations(ifma: Ifma, jobs: &[Combination]) -> Vec<Option<[u8; 65]>> {
    let mut keys = Vec::with_capacity(jobs.len());
    // SAFETY: `ifma` proves the features that `Deriver::combinations` is compiled for.
    DERIVER.with_borrow_mut(|deriver| unsafe { deriver.combinations(ifma, jobs, &mut keys) });
    keys
}

/// `scalar * point` of each job, uncompressed, or `None` where libsecp256k1 has to say.
pub(crate) fn multiples(ifma: Ifma, jobs: &[Offset]) -> Vec<Option<[u8; 65]>> {
    let mut keys = Vec::with_capacity(jobs.len());
    // SAFETY: `ifma` proves the features that `Deriver::multiples` is compiled for.
    DERIVER.with_borrow_mut(|deriver| unsafe { deriver.multiples(ifma, jobs, &mut keys) });
    keys
}

thread_local! {
    static BUILDER: RefCell<Builder> = RefCell::default();
    static DERIVER: RefCell<Deriver> = RefCell::default();
    static VERIFIER: RefCell<Verifier> = RefCell::default();
}

//! Several lanes at a time: one algorithm over the arithmetic of several processors.
//!
//! Layers, each on the one before: `field` (the interface of a leaf), `point`, `invert` (many inverses at once),
//! `table` (multiples and look-ups), `multiply` (sums of multiples), and the operations of the crate. The leaves:
//! `words52` for AVX-512 IFMA, eight lanes; `doubles` for AVX2 with FMA, four; `words64` for every 64-bit processor,
//! one. `FIELDS.md` explains them to a reviewer.
//!
//! Owns the choice among leaves for each call, [`Leaf`], and the room that each thread keeps from one call to the next.

use std::cell::RefCell;
use std::sync::OnceLock;

use secp256k1::PublicKey;

use crate::VerifyJob;
use cache::Builder;
pub(crate) use cache::{KeyCache, KnownKey};
use derive::Deriver;
pub(crate) use derive::{Combination, Offset};
use doubles::Doubles;
#[cfg(target_arch = "x86_64")]
pub(crate) use doubles::avx2::Avx2;
use field::Field;
pub(crate) use table::G;
use table::{Generator, make_generator};
use verify::Verifier;
use words52::Words52;
#[cfg(target_arch = "x86_64")]
pub(crate) use words52::ifma::Ifma;
use words64::Words64;

mod cache;
mod derive;
mod doubles;
mod field;
mod invert;
mod multiply;
mod parse;
mod point;
mod table;
#[cfg(test)]
mod tests;
mod verify;
mod words52;
mod words64;

/// A leaf that the processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leaf {
    #[cfg(target_arch = "x86_64")]
    Ifma(Words52<Ifma>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Doubles<Avx2>),
    Words64(Words64),
    #[cfg(test)]
    Words52Model(Words52<words52::model::Model>),
    #[cfg(test)]
    DoublesModel(Doubles<doubles::model::Model>),
}

/// Room that a thread works in with one leaf, and the leaf's tables of the generator.
struct Rooms<F: Field> {
    builder: Builder<F>,
    deriver: Deriver<F>,
    verifier: Verifier<F>,
}

impl<F: Field> Default for Rooms<F> {
    fn default() -> Self {
        Rooms { builder: Builder::default(), deriver: Deriver::default(), verifier: Verifier::default() }
    }
}

/// The statics of a leaf.
trait Home: Field {
    /// Lends this thread's room.
    fn with_rooms<R>(self, work: impl FnOnce(&mut Rooms<Self>) -> R) -> R;
    /// The generator's tables, made at the first call.
    fn generator(self) -> &'static Generator;
}

macro_rules! home {
    ($leaf:ty) => {
        impl Home for $leaf {
            fn with_rooms<R>(self, work: impl FnOnce(&mut Rooms<Self>) -> R) -> R {
                thread_local! {
                    static ROOMS: RefCell<Rooms<$leaf>> = RefCell::default();
                }
                ROOMS.with_borrow_mut(work)
            }
            fn generator(self) -> &'static Generator {
                static GENERATOR: OnceLock<Generator> = OnceLock::new();
                GENERATOR.get_or_init(|| make_generator(self))
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
home!(Words52<Ifma>);
#[cfg(target_arch = "x86_64")]
home!(Doubles<Avx2>);
home!(Words64);
#[cfg(test)]
home!(Words52<words52::model::Model>);
#[cfg(test)]
home!(Doubles<doubles::model::Model>);

/// The same expression for whichever leaf it is.
macro_rules! on_leaf {
    ($leaf:expr, $f:ident => $work:expr) => {
        match $leaf {
            #[cfg(target_arch = "x86_64")]
            Leaf::Ifma($f) => $work,
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx2($f) => $work,
            Leaf::Words64($f) => $work,
            #[cfg(test)]
            Leaf::Words52Model($f) => $work,
            #[cfg(test)]
            Leaf::DoublesModel($f) => $work,
        }
    };
}

impl Leaf {
    /// AVX-512 IFMA, if the processor has it.
    pub(crate) fn ifma() -> Option<Leaf> {
        #[cfg(target_arch = "x86_64")]
        return Ifma::detect().map(|ifma| Leaf::Ifma(Words52(ifma)));
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// AVX2 with FMA, if the processor has them.
    pub(crate) fn avx2() -> Option<Leaf> {
        #[cfg(target_arch = "x86_64")]
        return Avx2::detect().map(|avx2| Leaf::Avx2(Doubles(avx2)));
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Words of 64 bits, one lane.
    pub(crate) fn words64() -> Leaf {
        Leaf::Words64(Words64)
    }

    /// The code of [`Leaf::ifma`] over plain integers.
    #[cfg(test)]
    pub(crate) fn words52_model() -> Leaf {
        Leaf::Words52Model(Words52(words52::model::Model))
    }

    /// The code of [`Leaf::avx2`] over plain doubles.
    #[cfg(test)]
    pub(crate) fn doubles_model() -> Leaf {
        Leaf::DoublesModel(Doubles(doubles::model::Model))
    }

    /// Writes whether each signature is valid; returns how many lanes left theirs to libsecp256k1.
    pub(crate) fn verify(self, jobs: &[VerifyJob], valid: &mut [bool]) -> usize {
        on_leaf!(self, f => f.with_rooms(|rooms| rooms.verifier.verify(f, f.generator(), jobs, valid)))
    }

    /// The slot of each key in the cache, if it has one; builds the tables that are earned.
    pub(crate) fn assign<'a>(
        self,
        cache: &mut KeyCache,
        keys: impl Iterator<Item = &'a PublicKey>,
    ) -> Vec<Option<usize>> {
        on_leaf!(self, f => f.with_rooms(|rooms| cache.assign(f, &mut rooms.builder, keys)))
    }

    /// Writes whether each signature is valid, given the tables of its keys.
    pub(crate) fn verify_with_tables(self, jobs: &[VerifyJob], tables: &[KnownKey<'_>], valid: &mut [bool]) {
        on_leaf!(self, f => f.with_rooms(|rooms| {
            rooms.verifier.verify_with_tables(f, f.generator(), jobs, tables, valid);
        }));
    }

    /// The uncompressed form of each compressed key, if it is a key; other bytes give no point.
    pub(crate) fn uncompress(self, keys: &[[u8; 33]]) -> Vec<[u8; 65]> {
        let mut uncompressed = Vec::with_capacity(keys.len());
        on_leaf!(self, f => parse::uncompress(f, keys, &mut uncompressed));
        uncompressed
    }

    /// `point + scalar * G` of each job, uncompressed, or `None` where libsecp256k1 has to say.
    pub(crate) fn offsets(self, jobs: &[Offset]) -> Vec<Option<[u8; 65]>> {
        let mut keys = Vec::with_capacity(jobs.len());
        on_leaf!(self, f => f.with_rooms(|rooms| rooms.deriver.offsets(f, f.generator(), jobs, &mut keys)));
        keys
    }

    /// The combination of each job, uncompressed, or `None` where libsecp256k1 has to say.
    pub(crate) fn combinations(self, jobs: &[Combination]) -> Vec<Option<[u8; 65]>> {
        let mut keys = Vec::with_capacity(jobs.len());
        on_leaf!(self, f => f.with_rooms(|rooms| rooms.deriver.combinations(f, jobs, &mut keys)));
        keys
    }

    /// `scalar * point` of each job, uncompressed, or `None` where libsecp256k1 has to say.
    pub(crate) fn multiples(self, jobs: &[Offset]) -> Vec<Option<[u8; 65]>> {
        let mut keys = Vec::with_capacity(jobs.len());
        on_leaf!(self, f => f.with_rooms(|rooms| rooms.deriver.multiples(f, jobs, &mut keys)));
        keys
    }
}

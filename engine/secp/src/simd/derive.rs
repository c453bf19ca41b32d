//! BOLT 3 derivation, up to 64 keys at a time.
//!
//! `pubkey` is a sum of 27 affine points, 26 from the generator's comb, added as a tree: no doublings.
//! `revocationpubkey` is a sum of two multiples of points that come from a peer: tables and a chain, as in `verify`.
//! The multiple of one point is the same with one term.
//!
//! Where a sum on the way is exceptional or the result is at infinity, the key is marked and left to libsecp256k1.
//!
//! Budget: 1 us a pubkey and 4.5 us a revocation key in batches of 16 (bench `verify`, `derive/*/16`).

use secp256k1::PublicKey;

use super::field::Factor;
use super::invert::invert_all;
use super::lanes::{Ifma, LaneMask};
use super::multiply::{Splits, Terms, chain, join, lanes_of, sum_groups};
use super::point::{Accumulator, Affine, Jacobian};
use super::table::{DIGITS, Entry, G_DIGITS, Table, Workspace, build, generator, load_points};
use crate::CHUNK_MAX;
use crate::scalar::{Scalar, bytes};

/// Room that derivation works in, kept from one batch to the next.
#[derive(Default)]
pub(crate) struct Deriver {
    points: Vec<Affine>,
    tables: Vec<Table>,
    terms: Terms,
    sums: Vec<Affine>,
    joined: Vec<Affine>,
    accumulated: Vec<Jacobian<1>>,
    inverses: Vec<Factor>,
    room: Workspace,
    exceptional: Vec<LaneMask>,
}

/// point + scalar * G.
#[derive(Clone, Copy)]
pub(crate) struct Offset {
    pub(crate) point: PublicKey,
    pub(crate) scalar: Scalar,
}

/// The sum of two points, each times a scalar.
#[derive(Clone, Copy)]
pub(crate) struct Combination {
    pub(crate) terms: [Offset; 2],
}

impl Deriver {
    /// Appends `point + scalar * G`, uncompressed, of each job, or `None` where libsecp256k1 has to say.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn offsets(&mut self, ifma: Ifma, jobs: &[Offset], keys: &mut Vec<Option<[u8; 65]>>) {
        let generator = generator(ifma);
        for jobs in jobs.chunks(CHUNK_MAX) {
            let Deriver { points, terms, sums, joined, room, exceptional, .. } = self;
            exceptional.clear();
            points.clear();
            for group in jobs.chunks(8) {
                let lanes = lanes_of(group);
                let splits = Splits::new(ifma, &lanes.map(|job| job.scalar.split()));
                terms.push_comb(ifma, generator, &splits);
                points.push(load_points(ifma, &lanes.map(|job| Entry::of(&job.point))));
                exceptional.push(LaneMask::NONE);
            }
            joined.clear();
            terms.sum(ifma, room, joined);
            sums.clear();
            for (of_generator, point) in joined.chunks_exact(G_DIGITS).zip(points.iter()) {
                sums.extend_from_slice(of_generator);
                sums.push(*point);
            }
            sum_groups(ifma, room, sums, joined, exceptional);
            write(jobs.len(), sums, exceptional, keys);
        }
    }

    /// Appends the combination of each job, uncompressed, or `None` where libsecp256k1 has to say.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn combinations(
        &mut self,
        ifma: Ifma,
        jobs: &[Combination],
        keys: &mut Vec<Option<[u8; 65]>>,
    ) {
        for jobs in jobs.chunks(CHUNK_MAX) {
            self.add_terms(ifma, jobs);
            self.finish(ifma, jobs.len(), keys);
        }
    }

    /// Appends `scalar * point`, uncompressed, of each job, or `None` where libsecp256k1 has to say.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn multiples(&mut self, ifma: Ifma, jobs: &[Offset], keys: &mut Vec<Option<[u8; 65]>>) {
        for jobs in jobs.chunks(CHUNK_MAX) {
            let Deriver { points, tables, terms, joined, room, exceptional, .. } = self;
            points.clear();
            exceptional.clear();
            for group in jobs.chunks(8) {
                points.push(load_points(ifma, &lanes_of(group).map(|job| Entry::of(&job.point))));
                exceptional.push(LaneMask::NONE);
            }
            build(ifma, points, room, tables);
            for (group, tables) in jobs.chunks(8).zip(tables.as_chunks::<8>().0) {
                let splits = Splits::new(ifma, &lanes_of(group).map(|job| job.scalar.split()));
                terms.push_points(ifma, tables.each_ref(), &splits);
            }
            // What the chains run over are half sums as they are: a single term has nothing to be joined with.
            joined.clear();
            terms.sum(ifma, room, joined);
            self.finish(ifma, jobs.len(), keys);
        }
    }

    /// Tables, half sums and joins of both terms.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn add_terms(&mut self, ifma: Ifma, jobs: &[Combination]) {
        let Deriver { points, tables, terms, sums, joined, room, exceptional, .. } = self;
        points.clear();
        exceptional.clear();
        for group in jobs.chunks(8) {
            let lanes = lanes_of(group);
            for term in 0..2 {
                points.push(load_points(ifma, &lanes.map(|job| Entry::of(&job.terms[term].point))));
            }
            exceptional.push(LaneMask::NONE);
        }
        build(ifma, points, room, tables);
        for (group, tables) in jobs.chunks(8).zip(tables.as_chunks::<16>().0) {
            let lanes = lanes_of(group);
            for (term, tables) in tables.as_chunks::<8>().0.iter().enumerate() {
                let splits = Splits::new(ifma, &lanes.map(|job| job.terms[term].scalar.split()));
                terms.push_points(ifma, tables.each_ref(), &splits);
            }
        }
        sums.clear();
        terms.sum(ifma, room, sums);
        joined.clear();
        let sums: &[Affine] = sums;
        join(
            ifma,
            DIGITS * exceptional.len(),
            room,
            joined,
            |index| {
                let (group, position) = (index / DIGITS, index % DIGITS);
                (&sums[2 * DIGITS * group + position], &sums[2 * DIGITS * group + DIGITS + position])
            },
            |index, lanes| exceptional[index / DIGITS] = exceptional[index / DIGITS].union(lanes),
        );
    }

    /// Runs the chains of all groups over `joined`, and appends `count` keys.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn finish(&mut self, ifma: Ifma, count: usize, keys: &mut Vec<Option<[u8; 65]>>) {
        self.accumulated.clear();
        let groups = self.exceptional.len();
        let mut group = 0;
        while group < groups {
            group += match groups - group {
                2.. => self.accumulate::<2>(ifma, group),
                _ => self.accumulate::<1>(ifma, group),
            };
        }
        let Deriver { accumulated, inverses, room, sums, exceptional, .. } = self;
        inverses.clear();
        inverses.extend(accumulated.iter().map(|point| point.z[0]));
        invert_all(ifma, inverses, &mut room.products, |group, lanes| {
            exceptional[group] = exceptional[group].union(lanes);
        });
        sums.clear();
        for (point, inverse) in accumulated.iter().zip(inverses.iter()) {
            sums.push(point.to_affine(ifma, inverse));
        }
        write(count, sums, exceptional, keys);
    }

    /// Runs the chain of N groups; returns N.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn accumulate<const N: usize>(&mut self, ifma: Ifma, first: usize) -> usize
    where
        Jacobian<N>: Accumulator<N>,
    {
        let joined = &self.joined;
        let point = chain::<N>(ifma, |position| {
            core::array::from_fn(|group| &joined[DIGITS * (first + group) + position])
        });
        for group in 0..N {
            self.accumulated.push(Jacobian {
                x: [point.x[group]],
                y_twice: [point.y_twice[group]],
                z: [point.z[group]],
            });
        }
        N
    }
}

/// Appends `count` points, uncompressed; none where a lane is exceptional.
fn write(count: usize, points: &[Affine], exceptional: &[LaneMask], keys: &mut Vec<Option<[u8; 65]>>) {
    let end = keys.len() + count;
    for (point, exceptional) in points.iter().zip(exceptional) {
        let (x, y): ([[u64; 4]; 8], [[u64; 4]; 8]) = (point.x.to_lanes(), point.y.to_lanes());
        for lane in 0..8 {
            if keys.len() == end {
                return;
            }
            let mut key = [4; 65];
            key[1..33].copy_from_slice(&bytes(&x[lane]));
            key[33..].copy_from_slice(&bytes(&y[lane]));
            keys.push((!exceptional.contains(lane)).then_some(key));
        }
    }
}

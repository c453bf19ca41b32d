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

use super::field::{Entry, Field, LANES_MAX, LaneMask};
use super::invert::invert_all;
use super::multiply::{Splits, Terms, chain, join, member, sum_groups};
use super::point::{Affine, Jacobian};
use super::table::{DIGITS, G_DIGITS, Generator, Table, Workspace, build, load_points, to_affine_all};
use crate::CHUNK_MAX;
use crate::scalar::{Scalar, bytes};

/// Room that derivation works in, kept from one batch to the next.
pub(crate) struct Deriver<F: Field> {
    points: Vec<Affine<F>>,
    tables: Vec<Table>,
    terms: Terms<F>,
    sums: Vec<Affine<F>>,
    joined: Vec<Affine<F>>,
    accumulated: Vec<Jacobian<F, 1>>,
    inverses: Vec<F::Factor>,
    room: Workspace<F>,
    exceptional: Vec<LaneMask>,
}

impl<F: Field> Default for Deriver<F> {
    fn default() -> Self {
        Deriver {
            points: Vec::new(),
            tables: Vec::new(),
            terms: Terms::default(),
            sums: Vec::new(),
            joined: Vec::new(),
            accumulated: Vec::new(),
            inverses: Vec::new(),
            room: Workspace::default(),
            exceptional: Vec::new(),
        }
    }
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

impl<F: Field> Deriver<F> {
    /// Appends `point + scalar * G`, uncompressed, of each job, or `None` where libsecp256k1 has to say.
    pub(crate) fn offsets(
        &mut self,
        f: F,
        generator: &Generator,
        jobs: &[Offset],
        keys: &mut Vec<Option<[u8; 65]>>,
    ) {
        for jobs in jobs.chunks(CHUNK_MAX) {
            let Deriver { points, terms, sums, joined, room, exceptional, .. } = self;
            exceptional.clear();
            points.clear();
            for group in jobs.chunks(F::LANES) {
                terms.push_comb(f, generator, &Splits::new::<F>(|lane| member(group, lane).scalar.split()));
                points.push(load_group(f, group, |job| &job.point));
                exceptional.push(LaneMask::NONE);
            }
            joined.clear();
            terms.sum(f, room, joined);
            sums.clear();
            for (of_generator, point) in joined.chunks_exact(G_DIGITS).zip(points.iter()) {
                sums.extend_from_slice(of_generator);
                sums.push(*point);
            }
            sum_groups(f, room, sums, joined, exceptional);
            write(f, jobs.len(), sums, exceptional, keys);
        }
    }

    /// Appends the combination of each job, uncompressed, or `None` where libsecp256k1 has to say.
    pub(crate) fn combinations(&mut self, f: F, jobs: &[Combination], keys: &mut Vec<Option<[u8; 65]>>) {
        for jobs in jobs.chunks(CHUNK_MAX) {
            self.add_terms(f, jobs);
            self.finish(f, jobs.len(), keys);
        }
    }

    /// Appends `scalar * point`, uncompressed, of each job, or `None` where libsecp256k1 has to say.
    pub(crate) fn multiples(&mut self, f: F, jobs: &[Offset], keys: &mut Vec<Option<[u8; 65]>>) {
        for jobs in jobs.chunks(CHUNK_MAX) {
            let Deriver { points, tables, terms, joined, room, exceptional, .. } = self;
            points.clear();
            exceptional.clear();
            for group in jobs.chunks(F::LANES) {
                points.push(load_group(f, group, |job| &job.point));
                exceptional.push(LaneMask::NONE);
            }
            build(f, points, room, tables);
            for (group, tables) in jobs.chunks(F::LANES).zip(tables.chunks_exact(F::LANES)) {
                terms.push_points(f, tables, &Splits::new::<F>(|lane| member(group, lane).scalar.split()));
            }
            // What the chains run over are half sums as they are: a single term has nothing to be joined with.
            joined.clear();
            terms.sum(f, room, joined);
            self.finish(f, jobs.len(), keys);
        }
    }

    /// Tables, half sums and joins of both terms.
    fn add_terms(&mut self, f: F, jobs: &[Combination]) {
        let Deriver { points, tables, terms, sums, joined, room, exceptional, .. } = self;
        points.clear();
        exceptional.clear();
        for group in jobs.chunks(F::LANES) {
            for term in 0..2 {
                points.push(load_group(f, group, |job| &job.terms[term].point));
            }
            exceptional.push(LaneMask::NONE);
        }
        build(f, points, room, tables);
        for (group, tables) in jobs.chunks(F::LANES).zip(tables.chunks_exact(2 * F::LANES)) {
            for (term, tables) in tables.chunks_exact(F::LANES).enumerate() {
                let split = |lane| member(group, lane).terms[term].scalar.split();
                terms.push_points(f, tables, &Splits::new::<F>(split));
            }
        }
        sums.clear();
        terms.sum(f, room, sums);
        joined.clear();
        let sums: &[Affine<F>] = sums;
        join(
            f,
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
    fn finish(&mut self, f: F, count: usize, keys: &mut Vec<Option<[u8; 65]>>) {
        self.accumulated.clear();
        let groups = self.exceptional.len();
        let mut group = 0;
        while group < groups {
            group += match groups - group {
                2.. => self.accumulate::<2>(f, group),
                _ => self.accumulate::<1>(f, group),
            };
        }
        let Deriver { accumulated, inverses, room, sums, exceptional, .. } = self;
        inverses.clear();
        inverses.extend(accumulated.iter().map(|point| point.z[0]));
        invert_all(f, inverses, &mut room.products, |group, lanes| {
            exceptional[group] = exceptional[group].union(lanes);
        });
        sums.clear();
        to_affine_all(f, accumulated, inverses, sums);
        write(f, count, sums, exceptional, keys);
    }

    /// Runs the chain of N groups; returns N.
    fn accumulate<const N: usize>(&mut self, f: F, first: usize) -> usize {
        let joined = &self.joined;
        let point = chain::<F, N>(f, |position| {
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

/// The points of a group's jobs.
fn load_group<F: Field, T>(f: F, group: &[T], point: impl Fn(&T) -> &PublicKey) -> Affine<F> {
    let mut entries = [Entry::ZERO; LANES_MAX];
    for (entry, job) in entries.iter_mut().zip(group) {
        *entry = Entry::of(point(job));
    }
    load_points(f, &entries[..group.len()])
}

/// Appends `count` points, uncompressed; none where a lane is exceptional.
fn write<F: Field>(
    f: F,
    count: usize,
    points: &[Affine<F>],
    exceptional: &[LaneMask],
    keys: &mut Vec<Option<[u8; 65]>>,
) {
    let end = keys.len() + count;
    for (point, exceptional) in points.iter().zip(exceptional) {
        let (x, y) = coordinates(f, point);
        for lane in 0..F::LANES.min(end - keys.len()) {
            let mut key = [4; 65];
            key[1..33].copy_from_slice(&bytes(&x[lane]));
            key[33..].copy_from_slice(&bytes(&y[lane]));
            keys.push((!exceptional.contains(lane)).then_some(key));
        }
    }
}

/// The canonical coordinates of each lane.
fn coordinates<F: Field>(f: F, point: &Affine<F>) -> ([[u64; 4]; LANES_MAX], [[u64; 4]; LANES_MAX]) {
    f.enter(
        #[inline(always)]
        || (f.to_lanes(&point.x), f.to_lanes(&point.y)),
    )
}

//! ECDSA verification of up to 64 signatures at a time: more share an inversion, fewer stay in the cache.
//!
//! A signature (r, s) of digest m under Q is valid if r and s are in range and the x-coordinate of
//! (m / s) G + (r / s) Q, modulo n, is r. Ranges are checked first, and signatures that fail there take no lane.
//!
//! Three things send a signature to libsecp256k1 instead, whose answer then stands: an exceptional sum on the way, a
//! point at infinity at the end (both leave a mark, see `multiply`), and an r below p - n, for which there are two
//! x-coordinates to compare. Signatures can be made to do so, each at the cost of lanes and libsecp256k1 both, about a
//! fifth more than libsecp256k1 alone; those beside it in the batch pay at most a second pass of the products in
//! `invert`.
//!
//! Budget: 2.4 us a signature from 64 on, 3.4 us at 8 (bench `verify/fresh`); about 0.8 MB of room a thread.

use super::cache::KnownKey;
use super::field::{Entry, Field, LANES_MAX, LaneMask};
use super::multiply::{KnownPoints, Splits, Terms, chain, compare_x, join, member, sum_groups};
use super::point::{Affine, Jacobian};
use super::table::{DIGITS, G_DIGITS, Generator, KEY_DIGITS, Table, Workspace, build, load_points};
use crate::scalar::{Montgomery, Scalar, Split, invert_all};
use crate::{CHUNK_MAX, VerifyJob, fallback};

/// Room that verification works in, kept from one batch to the next.
pub(crate) struct Verifier<F: Field> {
    prepared: Vec<Prepared>,
    inverses: Vec<Scalar>,
    running: Vec<Montgomery>,
    points: Vec<Affine<F>>,
    tables: Vec<Table>,
    terms: Terms<F>,
    sums: Vec<Affine<F>>,
    joined: Vec<Affine<F>>,
    room: Workspace<F>,
    exceptional: Vec<LaneMask>,
}

impl<F: Field> Default for Verifier<F> {
    fn default() -> Self {
        Verifier {
            prepared: Vec::new(),
            inverses: Vec::new(),
            running: Vec::new(),
            points: Vec::new(),
            tables: Vec::new(),
            terms: Terms::default(),
            sums: Vec::new(),
            joined: Vec::new(),
            room: Workspace::default(),
            exceptional: Vec::new(),
        }
    }
}

/// A signature whose r and s are in range.
#[derive(Clone, Copy)]
struct Prepared {
    index: usize,
    r: Scalar,
    digest: Scalar,
    u1: Split,
    u2: Split,
}

impl<F: Field> Verifier<F> {
    /// Writes whether each signature is valid; returns how many lanes left theirs to libsecp256k1.
    pub(crate) fn verify(
        &mut self,
        f: F,
        generator: &Generator,
        jobs: &[VerifyJob],
        valid: &mut [bool],
    ) -> usize {
        assert_eq!(jobs.len(), valid.len(), "one verdict a job");
        let size = even_chunk::<F>(jobs.len());
        let chunks = jobs.chunks(size).zip(valid.chunks_mut(size));
        chunks.map(|(jobs, valid)| self.verify_chunk(f, generator, jobs, valid)).sum()
    }

    fn verify_chunk(&mut self, f: F, generator: &Generator, jobs: &[VerifyJob], valid: &mut [bool]) -> usize {
        self.prepare(jobs, |_| None, valid);
        if self.verify_single(jobs, valid) {
            return 0;
        }
        self.build_tables(f, jobs);
        self.add_terms(f, generator);
        let groups = self.exceptional.len();
        let mut left = 0;
        for group in (0..groups).step_by(2) {
            left += match groups - group {
                2.. => self.finish::<2>(f, group, jobs, valid),
                _ => self.finish::<1>(f, group, jobs, valid),
            };
        }
        left
    }

    /// Writes whether each signature is valid, given the tables of its keys.
    pub(crate) fn verify_with_tables(
        &mut self,
        f: F,
        generator: &Generator,
        jobs: &[VerifyJob],
        tables: &[KnownKey<'_>],
        valid: &mut [bool],
    ) {
        assert!(jobs.len() == valid.len() && jobs.len() == tables.len(), "one table and one verdict a job");
        let size = even_chunk::<F>(jobs.len());
        for ((jobs, tables), valid) in jobs.chunks(size).zip(tables.chunks(size)).zip(valid.chunks_mut(size))
        {
            self.verify_chunk_with_tables(f, generator, jobs, tables, valid);
        }
    }

    fn verify_chunk_with_tables(
        &mut self,
        f: F,
        generator: &Generator,
        jobs: &[VerifyJob],
        tables: &[KnownKey<'_>],
        valid: &mut [bool],
    ) {
        // (m / s) G + (r / s) (B + t G) is ((m + r t) / s) G + (r / s) B: a derived key has need of its base's table
        // only.
        self.prepare(jobs, |index| tables[index].offset, valid);
        if self.prepared.is_empty() {
            return;
        }
        self.add_known_terms(f, generator, tables);
        let Verifier { prepared, sums, joined, room, exceptional, .. } = self;
        if exceptional.len() <= few_groups::<F>() {
            for (group, points) in prepared.chunks(F::LANES).zip(sums.chunks_exact(KEY_DIGITS + G_DIGITS)) {
                let point = add_up(f, points);
                let r = |lane| *member(group, lane).r.words();
                let (equal, infinite) = compare_x(f, &point.x[0], &point.z[0], r);
                write_verdicts(group, infinite, equal, jobs, valid);
            }
            return;
        }
        sum_groups(f, room, sums, joined, exceptional);
        for ((group, point), exceptional) in
            prepared.chunks(F::LANES).zip(sums.iter()).zip(exceptional.iter())
        {
            let equal = equal_x(f, &point.x, |lane| *member(group, lane).r.words());
            write_verdicts(group, *exceptional, equal, jobs, valid);
        }
    }

    /// Half sums of keys with tables and the generator.
    fn add_known_terms(&mut self, f: F, generator: &Generator, tables: &[KnownKey<'_>]) {
        let Verifier { prepared, terms, sums, room, exceptional, .. } = self;
        sums.clear();
        exceptional.clear();
        let known = |group: &[Prepared]| {
            KnownPoints::new::<F>(
                |lane| tables[member(group, lane).index].table,
                |lane| member(group, lane).u2,
            )
        };
        let piece = piece::<F>(prepared.len().div_ceil(F::LANES));
        let mut groups = prepared.chunks(F::LANES).peekable();
        let mut this = groups.peek().map(|group| known(group));
        while let (Some(group), Some(points)) = (groups.next(), this) {
            let next = groups.peek().map(|group| known(group));
            terms.push_known_points(f, &points, next.as_ref().unwrap_or(&points));
            terms.push_comb(f, generator, &Splits::new::<F>(|lane| member(group, lane).u1));
            exceptional.push(LaneMask::NONE);
            if exceptional.len() % piece == 0 || next.is_none() {
                terms.sum(f, room, sums);
            }
            this = next;
        }
    }

    /// Leaves to libsecp256k1 a job that would be alone in its lanes; returns whether that is all there is.
    fn verify_single(&self, jobs: &[VerifyJob], valid: &mut [bool]) -> bool {
        if let [prepared] = &self.prepared[..] {
            valid[prepared.index] = fallback::verify(&jobs[prepared.index]);
        }
        self.prepared.len() < 2
    }

    /// Checks ranges and computes the scalars of what passes. Signatures by keys with an offset are turned into such by
    /// their bases.
    fn prepare(&mut self, jobs: &[VerifyJob], offset: impl Fn(usize) -> Option<Scalar>, valid: &mut [bool]) {
        let Verifier { prepared, inverses, running, .. } = self;
        prepared.clear();
        inverses.clear();
        for (index, job) in jobs.iter().enumerate() {
            valid[index] = false;
            let (halves, _) = job.signature.as_chunks::<32>();
            let (Some(r), Some(s)) = (Scalar::parse_r(&halves[0]), Scalar::parse_s(&halves[1])) else {
                continue;
            };
            if r.may_be_of_two_points() {
                valid[index] = fallback::verify(job);
                continue;
            }
            let mut digest = Scalar::remainder(&job.digest);
            if let Some(offset) = offset(index) {
                digest = digest.plus(&r.times(&offset.montgomery()));
            }
            prepared.push(Prepared { index, r, digest, u1: Split::NONE, u2: Split::NONE });
            inverses.push(s);
        }
        invert_all(inverses, running, |at, inverse| {
            let prepared = &mut prepared[at];
            prepared.u1 = prepared.digest.times(&inverse).split();
            prepared.u2 = prepared.r.times(&inverse).split();
        });
    }

    fn build_tables(&mut self, f: F, jobs: &[VerifyJob]) {
        self.points.clear();
        for group in self.prepared.chunks(F::LANES) {
            let mut entries = [Entry::ZERO; LANES_MAX];
            for (entry, prepared) in entries.iter_mut().zip(group) {
                *entry = Entry::of(&jobs[prepared.index].key);
            }
            self.points.push(load_points(f, &entries[..group.len()]));
        }
        build(f, &self.points, &mut self.room, &mut self.tables);
    }

    /// Half sums and joins; notes exceptional joins.
    fn add_terms(&mut self, f: F, generator: &Generator) {
        let Verifier { prepared, tables, terms, sums, joined, room, exceptional, .. } = self;
        sums.clear();
        exceptional.clear();
        let piece = F::LANES * piece::<F>(prepared.len().div_ceil(F::LANES));
        for (groups, tables) in prepared.chunks(piece).zip(tables.chunks(piece)) {
            for (group, tables) in groups.chunks(F::LANES).zip(tables.chunks_exact(F::LANES)) {
                terms.push_points(f, tables, &Splits::new::<F>(|lane| member(group, lane).u2));
                terms.push_generator(f, generator, &Splits::new::<F>(|lane| member(group, lane).u1));
                exceptional.push(LaneMask::NONE);
            }
            terms.sum(f, room, sums);
        }
        joined.clear();
        let sums: &[Affine<F>] = sums;
        join(
            f,
            G_DIGITS * exceptional.len(),
            room,
            joined,
            |index| {
                let (group, position) = (index / G_DIGITS, index % G_DIGITS);
                (&sums[STRIDE * group + 2 * position], &sums[STRIDE * group + DIGITS + position])
            },
            |index, lanes| exceptional[index / G_DIGITS] = exceptional[index / G_DIGITS].union(lanes),
        );
    }

    /// Runs the chain of N groups and writes their verdicts; returns how many lanes are exceptional.
    fn finish<const N: usize>(&self, f: F, first: usize, jobs: &[VerifyJob], valid: &mut [bool]) -> usize {
        let point = chain::<F, N>(f, |position| {
            core::array::from_fn(|group| {
                let group = first + group;
                if position % 2 == 0 {
                    &self.joined[G_DIGITS * group + position / 2]
                } else {
                    &self.sums[STRIDE * group + position]
                }
            })
        });
        let mut left = 0;
        for at in 0..N {
            let group = self.prepared.chunks(F::LANES).nth(first + at).unwrap_or_default();
            if group.is_empty() {
                continue;
            }
            let r = |lane| *member(group, lane).r.words();
            let (equal, infinite) = compare_x(f, &point.x[at], &point.z[at], r);
            left += write_verdicts(group, self.exceptional[first + at].union(infinite), equal, jobs, valid);
        }
        left
    }
}

/// The sum of all points; Z is zero where a sum on the way is exceptional.
fn add_up<F: Field>(f: F, points: &[Affine<F>]) -> Jacobian<F, 1> {
    f.enter(
        #[inline(always)]
        || {
            let mut point = Jacobian::start(f, [&points[0]]);
            for other in &points[1..] {
                point = point.plus(f, [other]);
            }
            point
        },
    )
}

/// The lanes where the x-coordinates are equal.
fn equal_x<F: Field>(f: F, x: &F::Fe, other: impl Fn(usize) -> [u64; 4]) -> LaneMask {
    f.enter(
        #[inline(always)]
        || {
            let difference = f.minus::<1, 1, 2>(&F::lazy(x), &F::lazy(&f.load_lanes(other)));
            f.zeros(&f.reduce(&f.factor(&difference)))
        },
    )
}

/// The sums of a group: those of the key, then those of the generator.
const STRIDE: usize = DIGITS + G_DIGITS;

/// How many groups with tables have their half sums added up one after the other: a tree takes half the products, but
/// an inversion a level, which more must share.
fn few_groups<F: Field>() -> usize {
    16 / F::LANES
}

/// Writes a group's verdicts: libsecp256k1's in exceptional lanes, whether the x-coordinates are equal in the others.
/// Returns how many are exceptional.
fn write_verdicts(
    group: &[Prepared],
    exceptional: LaneMask,
    equal: LaneMask,
    jobs: &[VerifyJob],
    valid: &mut [bool],
) -> usize {
    let mut left = 0;
    for (lane, prepared) in group.iter().enumerate() {
        valid[prepared.index] = if exceptional.contains(lane) {
            left += 1;
            fallback::verify(&jobs[prepared.index])
        } else {
            equal.contains(lane)
        };
    }
    left
}

/// How many groups have their half sums made at once: what they take in between, 6 kB a job looked up and 3 kB more to
/// invert, then stays in the cache beside the rest, which is worth more than the inversion it costs.
fn piece<F: Field>(groups: usize) -> usize {
    if groups * F::LANES > 32 { groups.div_ceil(2) } else { groups }
}

/// The size of chunks of at most [`CHUNK_MAX`] that are as even as whole groups allow.
fn even_chunk<F: Field>(jobs: usize) -> usize {
    let chunks = jobs.div_ceil(CHUNK_MAX).max(1);
    F::LANES * jobs.div_ceil(F::LANES).div_ceil(chunks).max(1)
}

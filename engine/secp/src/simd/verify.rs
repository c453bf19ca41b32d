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
use super::field::Fe;
use super::lanes::{Ifma, LaneMask};
use super::multiply::{KnownPoints, Splits, Terms, chain, compare_x, join, lanes_of, sum_groups};
use super::point::{Accumulator, Affine, Jacobian};
use super::table::{DIGITS, Entry, G_DIGITS, KEY_DIGITS, Table, Workspace, build, generator, load_points};
use crate::scalar::{Montgomery, Scalar, Split, invert_all};
use crate::{CHUNK_MAX, VerifyJob, fallback};

/// Room that verification works in, kept from one batch to the next.
#[derive(Default)]
pub(crate) struct Verifier {
    prepared: Vec<Prepared>,
    inverses: Vec<Scalar>,
    running: Vec<Montgomery>,
    points: Vec<Affine>,
    tables: Vec<Table>,
    terms: Terms,
    sums: Vec<Affine>,
    joined: Vec<Affine>,
    room: Workspace,
    exceptional: Vec<LaneMask>,
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

impl Verifier {
    /// Writes whether each signature is valid.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn verify(&mut self, ifma: Ifma, jobs: &[VerifyJob], valid: &mut [bool]) {
        assert_eq!(jobs.len(), valid.len(), "one verdict a job");
        let size = even_chunk(jobs.len());
        for (jobs, valid) in jobs.chunks(size).zip(valid.chunks_mut(size)) {
            self.verify_chunk(ifma, jobs, valid);
        }
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn verify_chunk(&mut self, ifma: Ifma, jobs: &[VerifyJob], valid: &mut [bool]) {
        self.prepare(jobs, |_| None, valid);
        if self.verify_single(jobs, valid) {
            return;
        }
        self.build_tables(ifma, jobs);
        self.add_terms(ifma);
        let groups = self.exceptional.len();
        let mut group = 0;
        while group < groups {
            group += match groups - group {
                2.. => self.finish::<2>(ifma, group, jobs, valid),
                _ => self.finish::<1>(ifma, group, jobs, valid),
            };
        }
    }

    /// Writes whether each signature is valid, given the tables of its keys.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn verify_with_tables(
        &mut self,
        ifma: Ifma,
        jobs: &[VerifyJob],
        tables: &[KnownKey<'_>],
        valid: &mut [bool],
    ) {
        assert!(jobs.len() == valid.len() && jobs.len() == tables.len(), "one table and one verdict a job");
        let size = even_chunk(jobs.len());
        for ((jobs, tables), valid) in jobs.chunks(size).zip(tables.chunks(size)).zip(valid.chunks_mut(size))
        {
            self.verify_chunk_with_tables(ifma, jobs, tables, valid);
        }
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn verify_chunk_with_tables(
        &mut self,
        ifma: Ifma,
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
        let Verifier { prepared, terms, sums, joined, room, exceptional, .. } = self;
        let generator = generator(ifma);
        sums.clear();
        exceptional.clear();
        let known = |group: &[Prepared]| {
            let lanes = lanes_of(group);
            KnownPoints::new(ifma, lanes.map(|lane| tables[lane.index].table), &lanes.map(|lane| lane.u2))
        };
        let piece = piece(prepared.len().div_ceil(8));
        let mut groups = prepared.chunks(8).peekable();
        while let Some(group) = groups.next() {
            let lanes = lanes_of(group);
            let next = groups.peek().unwrap_or(&group);
            terms.push_known_points(ifma, &known(group), &known(next));
            terms.push_comb(ifma, generator, &Splits::new(ifma, &lanes.map(|lane| lane.u1)));
            exceptional.push(LaneMask::NONE);
            if exceptional.len() % piece == 0 || groups.peek().is_none() {
                terms.sum(ifma, room, sums);
            }
        }
        let r = |group: &[Prepared]| Fe::from_lanes(ifma, &lanes_of(group).map(|lane| *lane.r.words()));
        if exceptional.len() <= FEW_GROUPS {
            for (group, points) in prepared.chunks(8).zip(sums.chunks_exact(KEY_DIGITS + G_DIGITS)) {
                let mut point = Jacobian::<1>::start(ifma, [&points[0]]);
                for other in &points[1..] {
                    point = point.plus([other]);
                }
                let (equal, infinite) = compare_x(&point.x[0], &point.z[0], &r(group));
                write_verdicts(group, infinite, equal, jobs, valid);
            }
            return;
        }
        sum_groups(ifma, room, sums, joined, exceptional);
        for ((group, point), exceptional) in prepared.chunks(8).zip(sums.iter()).zip(exceptional.iter()) {
            let difference = point.x.lazy().plus::<2, 3>(r(group).lazy().negated()).reduce();
            write_verdicts(group, *exceptional, difference.zeros(), jobs, valid);
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

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn build_tables(&mut self, ifma: Ifma, jobs: &[VerifyJob]) {
        self.points.clear();
        for group in self.prepared.chunks(8) {
            let entries = lanes_of(group).map(|prepared| Entry::of(&jobs[prepared.index].key));
            self.points.push(load_points(ifma, &entries));
        }
        build(ifma, &self.points, &mut self.room, &mut self.tables);
    }

    /// Half sums and joins; notes exceptional joins.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn add_terms(&mut self, ifma: Ifma) {
        let Verifier { prepared, tables, terms, sums, joined, room, exceptional, .. } = self;
        let generator = generator(ifma);
        sums.clear();
        exceptional.clear();
        let piece = piece(prepared.len().div_ceil(8));
        for (groups, tables) in prepared.chunks(8 * piece).zip(tables.chunks(8 * piece)) {
            for (group, tables) in groups.chunks(8).zip(tables.as_chunks::<8>().0) {
                let lanes = lanes_of(group);
                terms.push_points(ifma, tables.each_ref(), &Splits::new(ifma, &lanes.map(|lane| lane.u2)));
                terms.push_generator(ifma, generator, &Splits::new(ifma, &lanes.map(|lane| lane.u1)));
                exceptional.push(LaneMask::NONE);
            }
            terms.sum(ifma, room, sums);
        }
        joined.clear();
        let sums: &[Affine] = sums;
        join(
            ifma,
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

    /// Runs the chain of N groups and writes their verdicts; returns N.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn finish<const N: usize>(
        &self,
        ifma: Ifma,
        first: usize,
        jobs: &[VerifyJob],
        valid: &mut [bool],
    ) -> usize
    where
        Jacobian<N>: Accumulator<N>,
    {
        let point = chain::<N>(ifma, |position| {
            core::array::from_fn(|group| {
                let group = first + group;
                if position % 2 == 0 {
                    &self.joined[G_DIGITS * group + position / 2]
                } else {
                    &self.sums[STRIDE * group + position]
                }
            })
        });
        for at in 0..N {
            let group = self.prepared.chunks(8).nth(first + at).unwrap_or_default();
            if group.is_empty() {
                continue;
            }
            let r = Fe::from_lanes(ifma, &lanes_of(group).map(|lane| *lane.r.words()));
            let (equal, infinite) = compare_x(&point.x[at], &point.z[at], &r);
            write_verdicts(group, self.exceptional[first + at].union(infinite), equal, jobs, valid);
        }
        N
    }
}

/// The sums of a group: those of the key, then those of the generator.
const STRIDE: usize = DIGITS + G_DIGITS;

/// How many groups with tables have their half sums added up one after the other: a tree takes half the products, but
/// an inversion a level, which more must share.
const FEW_GROUPS: usize = 2;

/// Writes a group's verdicts: libsecp256k1's in exceptional lanes, whether the x-coordinates are equal in the others.
fn write_verdicts(
    group: &[Prepared],
    exceptional: LaneMask,
    equal: LaneMask,
    jobs: &[VerifyJob],
    valid: &mut [bool],
) {
    for (lane, prepared) in group.iter().enumerate() {
        valid[prepared.index] = if exceptional.contains(lane) {
            fallback::verify(&jobs[prepared.index])
        } else {
            equal.contains(lane)
        };
    }
}

/// How many groups have their half sums made at once: what they take in between, 50 kB a group looked up and 25 kB more
/// to invert, then stays in the cache beside the rest, which is worth more than the inversion it costs.
fn piece(groups: usize) -> usize {
    if groups > 4 { groups.div_ceil(2) } else { groups }
}

/// The size of chunks of at most [`CHUNK_MAX`] that are as even as whole groups of eight allow.
fn even_chunk(jobs: usize) -> usize {
    let chunks = jobs.div_ceil(CHUNK_MAX).max(1);
    8 * jobs.div_ceil(8).div_ceil(chunks).max(1)
}

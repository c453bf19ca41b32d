//! Sums of multiples of points, the core of verification and derivation.
//!
//! Owns the three steps. *Half sums*: for each digit position j of each point Q, a_j Q + b_j lambda Q, from the point's
//! table, with one inversion for all positions of all groups. *Joins*: sums of two such at the same position, for two
//! points or for a point and G, again with one inversion. *Chain*: from the top position down, times 32, plus the next.
//!
//! Exceptional sums (equal or opposite points) cannot come up in half sums: d + e lambda is not zero modulo n for
//! digits d, e. In joins an adversary can bring them about; they are reported. In the chain they leave Z = 0.
//!
//! Operations a verification: 106 M + 26 S half sums and look-ups of Q, 78 M + 13 S of G, 78 M + 13 S joins, 579 M +
//! 579 S chain; and the tables' 100.

use super::cache::KeyTable;
use super::field::{Digits, Field, Halves, LANES_MAX, LaneMask, each_lane};
use super::invert::invert_all;
use super::point::{Affine, Jacobian, Signed, Term, sum_denominator};
use super::table::{
    DIGIT_BITS, DIGITS, G_DIGIT_BITS, G_DIGITS, Generator, KEY_DIGIT_BITS, KEY_DIGITS, Table, Workspace,
    beta, look_up, not_exceptional, prefetch, sum_all,
};
use crate::scalar::Split;

/// The scalars of a group of points.
#[derive(Clone, Copy)]
pub(crate) struct Splits {
    plain: Halves,
    by_lambda: Halves,
}

/// A group of points with tables for every position, and their scalars.
#[derive(Clone, Copy)]
pub(crate) struct KnownPoints<'a> {
    tables: [&'a KeyTable; LANES_MAX],
    splits: Splits,
}

impl<'a> KnownPoints<'a> {
    /// Lane i gets `table(i)` and `split(i)`.
    #[inline(always)]
    pub(crate) fn new<F: Field>(
        table: impl Fn(usize) -> &'a KeyTable,
        split: impl Fn(usize) -> Split,
    ) -> KnownPoints<'a> {
        let Splits { plain, by_lambda } = Splits::new::<F>(split);
        let splits = Splits { plain: for_key_digits(plain), by_lambda: for_key_digits(by_lambda) };
        KnownPoints { tables: each_lane::<F, _>(table), splits }
    }

    #[inline(always)]
    fn digits<F: Field>(&self, f: F, position: usize) -> [Digits; 2] {
        let Splits { plain, by_lambda } = &self.splits;
        [f.digits::<KEY_DIGIT_BITS>(plain, position), f.digits::<KEY_DIGIT_BITS>(by_lambda, position)]
    }
}

/// The same halves, to be read in [`KEY_DIGITS`] digits: 132 bits instead of 130, so that what is stored,
/// (h + 2^130 - 1) / 2, grows by 2^131 - 2^129, which is six in the top word.
#[inline(always)]
fn for_key_digits(mut halves: Halves) -> Halves {
    for top in &mut halves.0[2] {
        *top += 6;
    }
    halves
}

/// Room for the terms of half sums.
pub(crate) struct Terms<F: Field> {
    pairs: Vec<(Signed<F>, Signed<F>)>,
}

impl<F: Field> Default for Terms<F> {
    fn default() -> Self {
        Terms { pairs: Vec::new() }
    }
}

impl Splits {
    /// Lane i gets `split(i)`.
    #[inline(always)]
    pub(crate) fn new<F: Field>(split: impl Fn(usize) -> Split) -> Splits {
        let splits = each_lane::<F, _>(split);
        Splits {
            plain: Halves::new::<F>(|lane| splits[lane].plain),
            by_lambda: Halves::new::<F>(|lane| splits[lane].by_lambda),
        }
    }
}

impl<F: Field> Terms<F> {
    /// Looks up the terms of a group of points, one table a lane: [`DIGITS`] half sums, position 0 first.
    pub(crate) fn push_points(&mut self, f: F, tables: &[Table], splits: &Splits) {
        f.enter(
            #[inline(always)]
            || {
                let beta = beta(f);
                let table = |lane: usize| &tables[lane];
                for position in 0..DIGITS {
                    let plain = look_up(f, table, &f.digits::<DIGIT_BITS>(&splits.plain, position));
                    let by_lambda = look_up(f, table, &f.digits::<DIGIT_BITS>(&splits.by_lambda, position));
                    self.pairs.push((plain, times_lambda(f, by_lambda, &beta)));
                }
            },
        );
    }

    /// Looks up the terms of the generator: [`G_DIGITS`] half sums, position 0 first, for a chain.
    pub(crate) fn push_generator(&mut self, f: F, generator: &Generator, splits: &Splits) {
        f.enter(
            #[inline(always)]
            || {
                let table = |_: usize| &generator.comb[0];
                let lambda_table = |_: usize| &generator.lambda;
                for position in 0..G_DIGITS {
                    let plain = look_up(f, table, &f.digits::<G_DIGIT_BITS>(&splits.plain, position));
                    let by_lambda =
                        look_up(f, lambda_table, &f.digits::<G_DIGIT_BITS>(&splits.by_lambda, position));
                    self.pairs.push((plain, by_lambda));
                }
            },
        );
    }

    /// Looks up the terms of a group of points with tables for every position: [`KEY_DIGITS`] half sums.
    ///
    /// The tables of a hundred keys are larger than the nearer caches: the entries of the `next` group are sent for.
    pub(crate) fn push_known_points(&mut self, f: F, group: &KnownPoints<'_>, next: &KnownPoints<'_>) {
        f.enter(
            #[inline(always)]
            || {
                let beta = beta(f);
                for position in 0..KEY_DIGITS {
                    let [plain, by_lambda] = next.digits(f, position);
                    let table = |lane: usize| next.tables[lane].at(position);
                    prefetch(f, table, &plain);
                    prefetch(f, table, &by_lambda);
                    let [plain, by_lambda] = group.digits(f, position);
                    let table = |lane: usize| group.tables[lane].at(position);
                    let plain = look_up(f, table, &plain);
                    let by_lambda = look_up(f, table, &by_lambda);
                    self.pairs.push((plain, times_lambda(f, by_lambda, &beta)));
                }
            },
        );
    }

    /// Looks up the terms of the generator: [`G_DIGITS`] half sums that need no doublings, from the comb.
    pub(crate) fn push_comb(&mut self, f: F, generator: &Generator, splits: &Splits) {
        f.enter(
            #[inline(always)]
            || {
                let beta = beta(f);
                for (position, table) in generator.comb.iter().enumerate() {
                    let table = |_: usize| table;
                    let plain = look_up(f, table, &f.digits::<G_DIGIT_BITS>(&splits.plain, position));
                    let by_lambda = look_up(f, table, &f.digits::<G_DIGIT_BITS>(&splits.by_lambda, position));
                    self.pairs.push((plain, times_lambda(f, by_lambda, &beta)));
                }
            },
        );
    }

    /// Appends the sum of each pair of terms, in the order they were looked up, and forgets the terms.
    pub(crate) fn sum(&mut self, f: F, room: &mut Workspace<F>, sums: &mut Vec<Affine<F>>) {
        let Workspace { denominators, products, .. } = room;
        let pairs = &self.pairs;
        let pair = |index: usize| (&pairs[index].0, &pairs[index].1);
        denominators_of(f, pairs.len(), denominators, pair);
        invert_all(f, denominators, products, not_exceptional);
        sum_all(f, denominators, sums, pair);
        self.pairs.clear();
    }
}

/// lambda times a point.
#[inline(always)]
fn times_lambda<F: Field>(f: F, point: Signed<F>, beta: &F::Fe) -> Signed<F> {
    let [x] = f.product_reduced([F::as_factor(&point.x)], [F::as_factor(beta)]);
    Signed { x, y: point.y }
}

/// Fills `denominators` with those of the sums of `count` pairs.
fn denominators_of<'a, F: Field, P: Term<F> + 'a, Q: Term<F> + 'a>(
    f: F,
    count: usize,
    denominators: &mut Vec<F::Factor>,
    pair: impl Fn(usize) -> (&'a P, &'a Q),
) {
    f.enter(
        #[inline(always)]
        || {
            denominators.clear();
            for index in 0..count {
                let (p, q) = pair(index);
                denominators.push(sum_denominator(f, p, q));
            }
        },
    );
}

/// Appends the sums of `count` pairs; reports the lanes of those that are exceptional, whose sums are rubbish.
pub(crate) fn join<'a, F: Field>(
    f: F,
    count: usize,
    room: &mut Workspace<F>,
    joined: &mut Vec<Affine<F>>,
    pair: impl Fn(usize) -> (&'a Affine<F>, &'a Affine<F>),
    exceptional: impl FnMut(usize, LaneMask),
) {
    let Workspace { denominators, products, .. } = room;
    denominators_of(f, count, denominators, &pair);
    invert_all(f, denominators, products, exceptional);
    sum_all(f, denominators, joined, pair);
}

/// Adds up the points of each group, which stand together, until one a group is left; notes exceptional lanes.
///
/// `joined` is room to work in.
pub(crate) fn sum_groups<F: Field>(
    f: F,
    room: &mut Workspace<F>,
    points: &mut Vec<Affine<F>>,
    joined: &mut Vec<Affine<F>>,
    exceptional: &mut [LaneMask],
) {
    let groups = exceptional.len();
    let mut len = points.len() / groups;
    // Point k of group g stands at k * by_point + g * by_group. After the first round, the groups' k-th points stand
    // together, so that one left over of an odd number only has to be put behind the sums.
    let (mut by_point, mut by_group) = (1, len);
    while len > 1 {
        let half = len / 2;
        joined.clear();
        let from: &[Affine<F>] = points;
        join(
            f,
            half * groups,
            room,
            joined,
            |index| {
                let at = by_point * (index / groups) + by_group * (index % groups);
                (&from[at], &from[at + by_point * half])
            },
            |index, lanes| exceptional[index % groups] = exceptional[index % groups].union(lanes),
        );
        if len % 2 == 1 {
            joined.extend((0..groups).map(|group| from[by_point * (len - 1) + by_group * group]));
        }
        core::mem::swap(points, joined);
        len = len.div_ceil(2);
        (by_point, by_group) = (groups, 1);
    }
}

/// A member of a group of at least one, the first standing in for those that lack.
#[inline(always)]
pub(crate) fn member<T>(group: &[T], lane: usize) -> &T {
    group.get(lane).unwrap_or(&group[0])
}

/// The sum of 32^j `sums(j)` over the positions j, for N groups.
pub(crate) fn chain<'a, F: Field, const N: usize>(
    f: F,
    sums: impl Fn(usize) -> [&'a Affine<F>; N],
) -> Jacobian<F, N> {
    f.enter(
        #[inline(always)]
        || {
            let mut point = Jacobian::start(f, sums(DIGITS - 1));
            for position in (0..DIGITS - 1).rev() {
                point = point.doubled::<DIGIT_BITS>(f).plus(f, sums(position));
            }
            point
        },
    )
}

/// The lanes where X / Z^2 = x, and those where Z = 0.
pub(crate) fn compare_x<F: Field>(
    f: F,
    point_x: &F::Fe,
    point_z: &F::Factor,
    x: impl Fn(usize) -> [u64; 4],
) -> (LaneMask, LaneMask) {
    f.enter(
        #[inline(always)]
        || {
            let x = f.load_lanes(x);
            let squared = f.square([point_z]);
            let [difference] = f.product_minus([F::as_factor(&x)], [&squared[0]], [F::lazy(point_x)]);
            (f.zeros(&difference), f.zeros(&f.reduce(point_z)))
        },
    )
}

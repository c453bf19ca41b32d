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
use super::field::{Factor, Fe, product, product_plus, square};
use super::invert::invert_all;
use super::lanes::{Ifma, LaneMask};
use super::point::{Accumulator, Affine, Jacobian, Signed, sum_denominator};
use super::table::{
    DIGIT_BITS, DIGITS, Digits, G_DIGIT_BITS, G_DIGITS, Generator, Halves, KEY_DIGIT_BITS, KEY_DIGITS, Table,
    Workspace, beta, look_up, prefetch, sum_all,
};
use crate::scalar::Split;

/// The scalars of eight points.
#[derive(Clone, Copy)]
pub(crate) struct Splits {
    plain: Halves,
    by_lambda: Halves,
}

/// Eight points with tables for every position, and their scalars.
#[derive(Clone, Copy)]
pub(crate) struct KnownPoints<'a> {
    tables: [&'a KeyTable; 8],
    splits: Splits,
}

impl<'a> KnownPoints<'a> {
    /// Lane i gets `tables[i]` and `splits[i]`.
    #[inline(always)]
    pub(crate) fn new(ifma: Ifma, tables: [&'a KeyTable; 8], splits: &[Split; 8]) -> KnownPoints<'a> {
        let Splits { plain, by_lambda } = Splits::new(ifma, splits);
        let splits = Splits { plain: plain.for_key_digits(), by_lambda: by_lambda.for_key_digits() };
        KnownPoints { tables, splits }
    }

    #[inline(always)]
    fn digits(&self, position: usize) -> [Digits; 2] {
        let Splits { plain, by_lambda } = &self.splits;
        [plain.digits::<KEY_DIGIT_BITS>(position), by_lambda.digits::<KEY_DIGIT_BITS>(position)]
    }
}

/// Room for the terms of half sums.
#[derive(Default)]
pub(crate) struct Terms {
    pairs: Vec<(Signed, Signed)>,
}

impl Splits {
    /// Lane i gets `splits[i]`.
    #[inline(always)]
    pub(crate) fn new(ifma: Ifma, splits: &[Split; 8]) -> Splits {
        let s = splits;
        let plain =
            [s[0].plain, s[1].plain, s[2].plain, s[3].plain, s[4].plain, s[5].plain, s[6].plain, s[7].plain];
        let by_lambda = [
            s[0].by_lambda,
            s[1].by_lambda,
            s[2].by_lambda,
            s[3].by_lambda,
            s[4].by_lambda,
            s[5].by_lambda,
            s[6].by_lambda,
            s[7].by_lambda,
        ];
        Splits { plain: Halves::new(ifma, &plain), by_lambda: Halves::new(ifma, &by_lambda) }
    }
}

impl Terms {
    /// Looks up the terms of a group of points: [`DIGITS`] half sums, position 0 first.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn push_points(&mut self, ifma: Ifma, tables: [&Table; 8], splits: &Splits) {
        let beta = beta(ifma);
        for position in 0..DIGITS {
            let plain = look_up(ifma, tables, &splits.plain.digits::<DIGIT_BITS>(position));
            let mut by_lambda = look_up(ifma, tables, &splits.by_lambda.digits::<DIGIT_BITS>(position));
            by_lambda.x = product(&by_lambda.x, &beta).reduce();
            self.pairs.push((plain, by_lambda));
        }
    }

    /// Looks up the terms of the generator: [`G_DIGITS`] half sums, position 0 first, for a chain.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn push_generator(&mut self, ifma: Ifma, generator: &Generator, splits: &Splits) {
        let (tables, lambda_tables) = ([&generator.comb[0]; 8], [&generator.lambda; 8]);
        for position in 0..G_DIGITS {
            let plain = look_up(ifma, tables, &splits.plain.digits::<G_DIGIT_BITS>(position));
            let by_lambda = look_up(ifma, lambda_tables, &splits.by_lambda.digits::<G_DIGIT_BITS>(position));
            self.pairs.push((plain, by_lambda));
        }
    }

    /// Looks up the terms of a group of points with tables for every position: [`KEY_DIGITS`] half sums.
    ///
    /// The tables of a hundred keys are larger than the nearer caches: the entries of the `next` group are sent for.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn push_known_points(&mut self, ifma: Ifma, group: &KnownPoints<'_>, next: &KnownPoints<'_>) {
        let beta = beta(ifma);
        for position in 0..KEY_DIGITS {
            let [plain, by_lambda] = next.digits(position);
            let tables = next.tables.map(|table| table.at(position));
            prefetch(ifma, tables, &plain);
            prefetch(ifma, tables, &by_lambda);
            let [plain, by_lambda] = group.digits(position);
            let tables = group.tables.map(|table| table.at(position));
            let plain = look_up(ifma, tables, &plain);
            let mut by_lambda = look_up(ifma, tables, &by_lambda);
            by_lambda.x = product(&by_lambda.x, &beta).reduce();
            self.pairs.push((plain, by_lambda));
        }
    }

    /// Looks up the terms of the generator: [`G_DIGITS`] half sums that need no doublings, from the comb.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn push_comb(&mut self, ifma: Ifma, generator: &Generator, splits: &Splits) {
        let beta = beta(ifma);
        for (position, table) in generator.comb.iter().enumerate() {
            let plain = look_up(ifma, [table; 8], &splits.plain.digits::<G_DIGIT_BITS>(position));
            let mut by_lambda = look_up(ifma, [table; 8], &splits.by_lambda.digits::<G_DIGIT_BITS>(position));
            by_lambda.x = product(&by_lambda.x, &beta).reduce();
            self.pairs.push((plain, by_lambda));
        }
    }

    /// Appends the sum of each pair of terms, in the order they were looked up, and forgets the terms.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn sum(&mut self, ifma: Ifma, room: &mut Workspace, sums: &mut Vec<Affine>) {
        let Workspace { denominators, products, .. } = room;
        denominators.clear();
        for (p, q) in &self.pairs {
            denominators.push(sum_denominator(p, q));
        }
        invert_all(ifma, denominators, products, |_, _| debug_assert!(false, "digits cannot cancel"));
        sum_all(denominators, sums, |index| (&self.pairs[index].0, &self.pairs[index].1));
        self.pairs.clear();
    }
}

/// Appends the sums of `count` pairs; reports the lanes of those that are exceptional, whose sums are rubbish.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn join<'a>(
    ifma: Ifma,
    count: usize,
    room: &mut Workspace,
    joined: &mut Vec<Affine>,
    pair: impl Fn(usize) -> (&'a Affine, &'a Affine),
    exceptional: impl FnMut(usize, LaneMask),
) {
    let Workspace { denominators, products, .. } = room;
    denominators.clear();
    for index in 0..count {
        let (p, q) = pair(index);
        denominators.push(sum_denominator(p, q));
    }
    invert_all(ifma, denominators, products, exceptional);
    sum_all(denominators, joined, pair);
}

/// Adds up the points of each group, which stand together, until one a group is left; notes exceptional lanes.
///
/// `joined` is room to work in.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn sum_groups(
    ifma: Ifma,
    room: &mut Workspace,
    points: &mut Vec<Affine>,
    joined: &mut Vec<Affine>,
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
        let from: &[Affine] = points;
        join(
            ifma,
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

/// Eight lanes from up to eight, the first standing in for those that lack; there must be a first.
pub(crate) fn lanes_of<T: Copy>(group: &[T]) -> [T; 8] {
    core::array::from_fn(|lane| *group.get(lane).unwrap_or(&group[0]))
}

/// The sum of 32^j `sum(group, j)` over the positions j, for N groups.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn chain<'a, const N: usize>(ifma: Ifma, sums: impl Fn(usize) -> [&'a Affine; N]) -> Jacobian<N>
where
    Jacobian<N>: Accumulator<N>,
{
    let mut point = Jacobian::start(ifma, sums(DIGITS - 1));
    for position in (0..DIGITS - 1).rev() {
        point = point.doubled::<5>().plus(sums(position));
    }
    point
}

/// The lanes where X / Z^2 = x, and those where Z = 0.
#[inline(always)]
pub(crate) fn compare_x(point_x: &Fe, point_z: &Factor, x: &Fe) -> (LaneMask, LaneMask) {
    let squared = square(point_z).factor();
    let difference = product_plus(x, &squared, point_x.lazy().negated::<2>()).reduce();
    (difference.zeros(), point_z.reduce().zeros())
}

//! Tables of odd multiples, and looking up a different entry of a different table in each lane.
//!
//! Owns: how the entries are computed for a group of points with inversions shared by all groups, and the tables of the
//! generator G, made once a leaf.
//!
//! Entry i of a table for Q is (2 i + 1) Q, so that the digit d of an odd recoding finds |d| Q at (|d| - 1) / 2, and
//! there is no digit zero to be treated apart.
//!
//! Memory: 1 KiB a point in a batch; 448 KiB for G, once a leaf in use.

use secp256k1::{PublicKey, Scalar, Secp256k1};

use super::field::{Digits, Entry, Field, LaneMask, each, each_lane};
use super::invert::invert_all;
use super::point::{Affine, Jacobian, Signed, Term, sum, sum_denominator};

/// Bits of a digit of a variable point's scalar, and how many digits a half scalar has.
pub(crate) const DIGIT_BITS: u32 = 5;
pub(crate) const DIGITS: usize = 26;
/// Entries of a variable point's table: one for each odd digit's size.
pub(crate) const ENTRIES: usize = 1 << (DIGIT_BITS - 1);
/// The same for a key with tables for every position: fewer digits, each from a larger table.
pub(crate) const KEY_DIGIT_BITS: u32 = 6;
pub(crate) const KEY_DIGITS: usize = 22;
pub(crate) const KEY_ENTRIES: usize = 1 << (KEY_DIGIT_BITS - 1);
/// The same for the generator.
pub(crate) const G_DIGIT_BITS: u32 = 10;
pub(crate) const G_DIGITS: usize = 13;
pub(crate) const G_ENTRIES: usize = 1 << (G_DIGIT_BITS - 1);

/// The odd multiples of one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table<const SIZE: usize = ENTRIES>([Entry; SIZE]);

/// Multiples of the generator.
pub(crate) struct Generator {
    /// Table j is that of 2^(10 j) G.
    pub(crate) comb: Vec<Table<G_ENTRIES>>,
    /// The table of lambda G.
    pub(crate) lambda: Table<G_ENTRIES>,
}

/// Room for sums of many points with shared inversions.
pub(crate) struct Workspace<F: Field> {
    pub(crate) denominators: Vec<F::Factor>,
    pub(crate) products: Vec<F::Factor>,
    odd: Vec<Affine<F>>,
    even: Vec<Affine<F>>,
    sums: Vec<Affine<F>>,
    row: Vec<Jacobian<F, 1>>,
}

impl<F: Field> Default for Workspace<F> {
    fn default() -> Self {
        Workspace {
            denominators: Vec::new(),
            products: Vec::new(),
            odd: Vec::new(),
            even: Vec::new(),
            sums: Vec::new(),
            row: Vec::new(),
        }
    }
}

impl<const SIZE: usize> Table<SIZE> {
    pub(crate) const EMPTY: Table<SIZE> = Table([Entry::ZERO; SIZE]);

    /// The entry at an index that a digit gave.
    #[inline(always)]
    fn at(&self, index: u64) -> &Entry {
        const { assert!(SIZE.is_power_of_two()) }
        &self.0[index as usize & (SIZE - 1)]
    }
}

/// The digits' multiples, from each lane's own table.
#[inline(always)]
pub(crate) fn look_up<'a, F: Field, const SIZE: usize>(
    f: F,
    table: impl Fn(usize) -> &'a Table<SIZE>,
    digits: &Digits,
) -> Signed<F> {
    let [x, y] = f.load(
        #[inline(always)]
        |lane| table(lane).at(digits.index[lane]),
    );
    Signed { x, y: f.signed(&y, digits.negative) }
}

/// Prefetches the entries that [`look_up`] will read into the nearest cache.
#[inline(always)]
pub(crate) fn prefetch<'a, F: Field, const SIZE: usize>(
    f: F,
    table: impl Fn(usize) -> &'a Table<SIZE>,
    digits: &Digits,
) {
    for lane in 0..F::LANES {
        f.prefetch(table(lane).at(digits.index[lane]));
    }
}

/// Appends the sum of each pair, given the inverses of their denominators.
pub(crate) fn sum_all<'a, F: Field, P: Term<F> + 'a, Q: Term<F> + 'a>(
    f: F,
    inverses: &[F::Factor],
    sums: &mut Vec<Affine<F>>,
    pair: impl Fn(usize) -> (&'a P, &'a Q),
) {
    f.enter(
        #[inline(always)]
        || {
            let (blocks, rest) = inverses.as_chunks::<4>();
            for (index, block) in blocks.iter().enumerate() {
                let pairs = each!(4, i => pair(4 * index + i));
                let found = sum(f, each!(4, i => pairs[i].0), each!(4, i => pairs[i].1), block);
                sums.extend_from_slice(&found);
            }
            for (index, inverse) in rest.iter().enumerate() {
                let (p, q) = pair(4 * blocks.len() + index);
                sums.extend_from_slice(&sum(f, [p], [q], &[*inverse]));
            }
        },
    );
}

/// Computes the tables of a group's points; table `F::LANES * group + lane` of `tables` is that of the point in that
/// lane.
///
/// No sum here is exceptional: a point of prime order n differs from its small multiples' opposites.
pub(crate) fn build<F: Field, const SIZE: usize>(
    f: F,
    points: &[Affine<F>],
    room: &mut Workspace<F>,
    tables: &mut Vec<Table<SIZE>>,
) {
    let groups = points.len();
    match points {
        [point] => odd_multiples_in_a_row(f, point, SIZE, room),
        _ => odd_multiples(f, points, SIZE, room),
    }
    if tables.len() < F::LANES * groups {
        tables.resize(F::LANES * groups, Table::EMPTY);
    }
    f.enter(
        #[inline(always)]
        || {
            for (entry, points) in room.odd.chunks_exact(groups).enumerate() {
                for (point, tables) in points.iter().zip(tables.chunks_exact_mut(F::LANES)) {
                    f.store(
                        &point.x,
                        &point.y,
                        #[inline(always)]
                        |lane, packed| tables[lane].0[entry] = packed,
                    );
                }
            }
        },
    );
}

/// Leaves (2 e + 1) times `points[g]` at `e * points.len() + g` of `room.odd`, for e below `count`, a power of two:
/// from the first 2^k odd multiples of Q, adding 2^(k + 1) Q gives the next 2^k.
fn odd_multiples<F: Field>(f: F, points: &[Affine<F>], count: usize, room: &mut Workspace<F>) {
    let Workspace { denominators, products, odd, even, sums, .. } = room;
    let groups = points.len();
    odd.clear();
    odd.extend_from_slice(points);
    even.clear();
    even.extend_from_slice(points);
    // The first step only doubles, the last only adds.
    let mut done = 0;
    while done < count {
        let last = 2 * done == count;
        odd_denominators(f, &odd[..done * groups], even, !last, denominators);
        invert_all(f, denominators, products, not_exceptional);
        let (for_sums, for_doubles) = denominators.split_at(done * groups);
        sums.clear();
        sum_all(f, for_sums, sums, |index| (&even[index % groups], &odd[index]));
        odd.extend_from_slice(sums);
        double_all(f, even, for_doubles);
        done = (2 * done).max(1);
    }
}

/// The denominators of the sums of each odd multiple and its group's even one, and those of doubling if asked.
fn odd_denominators<F: Field>(
    f: F,
    odd: &[Affine<F>],
    even: &[Affine<F>],
    doubles: bool,
    denominators: &mut Vec<F::Factor>,
) {
    f.enter(
        #[inline(always)]
        || {
            denominators.clear();
            for (index, point) in odd.iter().enumerate() {
                denominators.push(sum_denominator(f, &even[index % even.len()], point));
            }
            if doubles {
                for point in even {
                    denominators.push(point.double_denominator(f));
                }
            }
        },
    );
}

/// Doubles each point that has an inverse.
fn double_all<F: Field>(f: F, points: &mut [Affine<F>], inverses: &[F::Factor]) {
    f.enter(
        #[inline(always)]
        || {
            for (point, inverse) in points.iter_mut().zip(inverses) {
                *point = point.double(f, inverse);
            }
        },
    );
}

/// The same for a single group, where an inversion costs more than the products it saves: two of them instead of one
/// for each doubling of `count`. Adding 2 Q over and over is never exceptional, and no multiple met is at infinity.
fn odd_multiples_in_a_row<F: Field>(f: F, point: &Affine<F>, count: usize, room: &mut Workspace<F>) {
    let Workspace { denominators, products, odd, row, even, .. } = room;
    even.clear();
    even.push(*point);
    odd_denominators(f, &[], even, true, denominators);
    invert_all(f, denominators, products, not_exceptional);
    double_all(f, even, denominators);
    f.enter(
        #[inline(always)]
        || {
            row.clear();
            denominators.clear();
            let mut multiple = Jacobian::start(f, [point]);
            for _ in 1..count {
                multiple = multiple.plus(f, [&even[0]]);
                row.push(multiple);
                denominators.push(multiple.z[0]);
            }
        },
    );
    invert_all(f, denominators, products, not_exceptional);
    odd.clear();
    odd.push(*point);
    to_affine_all(f, row, denominators, odd);
}

/// Appends the affine points, given the inverses of their Z.
pub(crate) fn to_affine_all<F: Field>(
    f: F,
    points: &[Jacobian<F, 1>],
    inverses: &[F::Factor],
    affine: &mut Vec<Affine<F>>,
) {
    f.enter(
        #[inline(always)]
        || {
            for (point, inverse) in points.iter().zip(inverses) {
                affine.push(point.to_affine(f, inverse));
            }
        },
    );
}

/// For inversions that never meet a zero.
pub(crate) fn not_exceptional(index: usize, lanes: LaneMask) {
    debug_assert!(false, "the sum {index} is exceptional in lanes {lanes:?}");
}

/// Makes the generator's tables for a leaf, in a few milliseconds at most.
pub(crate) fn make_generator<F: Field>(f: F) -> Generator {
    let secp = Secp256k1::verification_only();
    // G is the point with scalar one; each 2^10 times the one before. Lanes beyond the last repeat it.
    let mut base = PublicKey::from_slice(&G).expect("G is a point");
    let step = Scalar::from_be_bytes(small_bytes(1 << G_DIGIT_BITS)).expect("below the order");
    let mut bases = Vec::with_capacity(16);
    for _ in 0..16 {
        bases.push(Entry::of(&base));
        if bases.len() < G_DIGITS {
            base = base.mul_tweak(&secp, &step).expect("not a multiple of the order");
        }
    }
    let points: Vec<Affine<F>> = bases.chunks(F::LANES).map(|entries| load_points(f, entries)).collect();
    let mut comb = Vec::new();
    build(f, &points, &mut Workspace::default(), &mut comb);
    comb.truncate(G_DIGITS);
    let mut lambda = comb[0];
    f.enter(
        #[inline(always)]
        || {
            let beta = beta(f);
            for block in lambda.0.chunks_exact_mut(F::LANES) {
                let [x, y] = f.load(
                    #[inline(always)]
                    |lane| &block[lane],
                );
                let [x] = f.product_reduced([F::as_factor(&x)], [F::as_factor(&beta)]);
                f.store(
                    &x,
                    &y,
                    #[inline(always)]
                    |lane, packed| block[lane] = packed,
                );
            }
        },
    );
    Generator { comb, lambda }
}

/// Lane i gets the point with the canonical coordinates `entries[i]`, lanes beyond the last repeat the first.
pub(crate) fn load_points<F: Field>(f: F, entries: &[Entry]) -> Affine<F> {
    let packed = each_lane::<F, _>(|lane| F::pack(*entries.get(lane).unwrap_or(&entries[0])));
    f.enter(
        #[inline(always)]
        || {
            let [x, y] = f.load(
                #[inline(always)]
                |lane| &packed[lane],
            );
            Affine { x, y }
        },
    )
}

/// The cube root of one that lambda goes with: lambda (x, y) = (beta x, y).
#[inline(always)]
pub(crate) fn beta<F: Field>(f: F) -> F::Fe {
    const BETA: [u64; 4] =
        [0xC139_6C28_7195_01EE, 0x9CF0_4975_12F5_8995, 0x6E64_479E_AC34_34E9, 0x7AE9_6A2B_657C_0710];
    f.load_lanes(
        #[inline(always)]
        |_| BETA,
    )
}

/// G, compressed.
pub(crate) const G: [u8; 33] = [
    0x02, 0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87, 0x0b, 0x07,
    0x02, 0x9b, 0xfc, 0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16, 0xf8, 0x17, 0x98,
];

fn small_bytes(value: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[28..].copy_from_slice(&value.to_be_bytes());
    bytes
}

//! Tables of odd multiples, and looking up a different entry of a different table in each lane.
//!
//! Owns: the entries (affine, canonical, 64 bytes: one cache line and one register), how they are computed for eight
//! points a group with inversions shared by all groups, and the tables of the generator G, made once.
//!
//! Entry i of a table for Q is (2 i + 1) Q, so that the digit d of an odd recoding finds |d| Q at (|d| - 1) / 2, and
//! there is no digit zero to be treated apart.
//!
//! Memory: 1 KiB a point in a batch; 416 KiB for G, once a process.

use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use secp256k1::{PublicKey, Scalar, Secp256k1};

use super::field::{Factor, Fe, product};
use super::invert::invert_all;
use super::lanes::{Ifma, LaneMask, Lanes, transpose};
use super::point::{Accumulator, Affine, Jacobian, Signed, Term, each, sum, sum_4, sum_denominator};
use crate::scalar::{Half, words};

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

/// A point, x then y, little-endian words, canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Entry([u64; 8]);

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

/// The same half of eight scalars.
#[derive(Clone, Copy)]
pub(crate) struct Halves([Lanes; 3]);

/// A digit in each lane: where its size is in a table, and whether it is negative.
#[derive(Clone, Copy)]
pub(crate) struct Digits {
    index: [u64; 8],
    negative: LaneMask,
}

/// Room for sums of many points with shared inversions.
#[derive(Default)]
pub(crate) struct Workspace {
    pub(crate) denominators: Vec<Factor>,
    pub(crate) products: Vec<Factor>,
    odd: Vec<Affine>,
    even: Vec<Affine>,
    sums: Vec<Affine>,
    row: Vec<Jacobian<1>>,
}

/// Half of the x-coordinate is as good as all of it to tell points apart, and the hasher is keyed.
impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
        state.write_u64(self.0[1]);
    }
}

impl Entry {
    pub(crate) const ZERO: Entry = Entry([0; 8]);

    /// The coordinates of a key.
    pub(crate) fn of(key: &PublicKey) -> Entry {
        let bytes = key.serialize_uncompressed();
        let (coordinates, _) = bytes[1..].as_chunks::<32>();
        let (x, y) = (words(&coordinates[0]), words(&coordinates[1]));
        Entry([x[0], x[1], x[2], x[3], y[0], y[1], y[2], y[3]])
    }
}

impl<const SIZE: usize> Table<SIZE> {
    pub(crate) const EMPTY: Table<SIZE> = Table([Entry::ZERO; SIZE]);
}

impl Halves {
    /// Lane i gets `halves[i]`.
    #[inline(always)]
    pub(crate) fn new(ifma: Ifma, halves: &[Half; 8]) -> Halves {
        let mut words = [[0; 8]; 3];
        for (lane, half) in halves.iter().enumerate() {
            for (word, values) in words.iter_mut().enumerate() {
                values[lane] = half.0[word];
            }
        }
        Halves([ifma.load(&words[0]), ifma.load(&words[1]), ifma.load(&words[2])])
    }

    /// The same halves, to be read in [`KEY_DIGITS`] digits: 132 bits instead of 130, so that what is stored,
    /// (h + 2^130 - 1) / 2, grows by 2^131 - 2^129, which is six in the top word.
    #[inline(always)]
    pub(crate) fn for_key_digits(self) -> Halves {
        let [low, middle, top] = self.0;
        let six = top.proof().splat(6);
        Halves([low, middle, top + six])
    }

    /// Digit `position` in radix 2^`BITS`.
    #[inline(always)]
    pub(crate) fn digits<const BITS: u32>(&self, position: usize) -> Digits {
        let from = BITS as usize * position;
        let (word, shift) = (from / 64, (from % 64) as u32);
        let ifma = self.0[0].proof();
        let mut value = self.0[word].shr_by(shift);
        if word < 2 {
            value = value | self.0[word + 1].shl_by(64 - shift);
        }
        // The digit is 2 v - (2^BITS - 1): negative where the top bit of v is clear, and then the lower bits of v,
        // which are (|d| - 1) / 2 of a positive one, are inverted.
        let positive = value.test(ifma.splat(1 << (BITS - 1)));
        let negative = LaneMask(!positive.0);
        let low_bits = ifma.splat((1 << (BITS - 1)) - 1);
        let index = (value ^ ifma.zero().replaced(negative, low_bits)) & low_bits;
        Digits { index: index.to_array(), negative }
    }
}

/// The digits' multiples, from each lane's own table.
#[inline(always)]
pub(crate) fn look_up<const SIZE: usize>(ifma: Ifma, tables: [&Table<SIZE>; 8], digits: &Digits) -> Signed {
    const { assert!(SIZE.is_power_of_two()) }
    let index = digits.index.map(|index| index as usize & (SIZE - 1));
    let rows = [
        ifma.load(&tables[0].0[index[0]].0),
        ifma.load(&tables[1].0[index[1]].0),
        ifma.load(&tables[2].0[index[2]].0),
        ifma.load(&tables[3].0[index[3]].0),
        ifma.load(&tables[4].0[index[4]].0),
        ifma.load(&tables[5].0[index[5]].0),
        ifma.load(&tables[6].0[index[6]].0),
        ifma.load(&tables[7].0[index[7]].0),
    ];
    let [x0, x1, x2, x3, y0, y1, y2, y3] = transpose(rows);
    let y = Fe::from_words(&[y0, y1, y2, y3]).lazy().negated_in(digits.negative);
    Signed { x: Fe::from_words(&[x0, x1, x2, x3]), y }
}

/// Prefetches the entries that [`look_up`] will read into the nearest cache.
#[inline(always)]
pub(crate) fn prefetch<const SIZE: usize>(ifma: Ifma, tables: [&Table<SIZE>; 8], digits: &Digits) {
    const { assert!(SIZE.is_power_of_two()) }
    for (table, index) in tables.iter().zip(digits.index) {
        ifma.prefetch(&table.0[index as usize & (SIZE - 1)].0);
    }
}

/// Appends the sum of each pair, given the inverses of their denominators.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn sum_all<'a, P: Term + 'a, Q: Term + 'a>(
    inverses: &[Factor],
    sums: &mut Vec<Affine>,
    pair: impl Fn(usize) -> (&'a P, &'a Q),
) {
    let (blocks, rest) = inverses.as_chunks::<4>();
    for (index, block) in blocks.iter().enumerate() {
        let [a, b, c, d] = each!(4, i => pair(4 * index + i));
        sums.extend_from_slice(&sum_4([a.0, b.0, c.0, d.0], [a.1, b.1, c.1, d.1], block));
    }
    for (index, inverse) in rest.iter().enumerate() {
        let (p, q) = pair(4 * blocks.len() + index);
        sums.push(sum(p, q, inverse));
    }
}

/// Computes the tables of eight points a group; table `8 * group + lane` of `tables` is that of the point in that lane.
///
/// No sum here is exceptional: a point of prime order n differs from its small multiples' opposites.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn build<const SIZE: usize>(
    ifma: Ifma,
    points: &[Affine],
    room: &mut Workspace,
    tables: &mut Vec<Table<SIZE>>,
) {
    let groups = points.len();
    match points {
        [point] => odd_multiples_in_a_row(ifma, point, SIZE, room),
        _ => odd_multiples(ifma, points, SIZE, room),
    }
    if tables.len() < 8 * groups {
        tables.resize(8 * groups, Table::EMPTY);
    }
    for (entry, points) in room.odd.chunks_exact(groups).enumerate() {
        for (point, tables) in points.iter().zip(tables.as_chunks_mut::<8>().0) {
            store_points(point, tables.each_mut().map(|table| &mut table.0[entry]));
        }
    }
}

/// Leaves (2 e + 1) times `points[g]` at `e * points.len() + g` of `room.odd`, for e below `count`, a power of two:
/// from the first 2^k odd multiples of Q, adding 2^(k + 1) Q gives the next 2^k.
#[target_feature(enable = "avx512f,avx512ifma")]
fn odd_multiples(ifma: Ifma, points: &[Affine], count: usize, room: &mut Workspace) {
    let Workspace { denominators, products, odd, even, sums, .. } = room;
    let groups = points.len();
    odd.clear();
    odd.extend_from_slice(points);
    even.clear();
    even.extend_from_slice(points);
    // The first step only doubles, the last only adds.
    let mut done = 0;
    while done < count {
        denominators.clear();
        for (index, point) in odd[..done * groups].iter().enumerate() {
            denominators.push(sum_denominator(&even[index % groups], point));
        }
        let last = 2 * done == count;
        if !last {
            for point in even.iter() {
                denominators.push(point.double_denominator());
            }
        }
        invert_all(ifma, denominators, products, |_, _| debug_assert!(false, "a point of prime order"));
        let (for_sums, for_doubles) = denominators.split_at(done * groups);
        sums.clear();
        sum_all(for_sums, sums, |index| (&even[index % groups], &odd[index]));
        odd.extend_from_slice(sums);
        for (point, inverse) in even.iter_mut().zip(for_doubles) {
            *point = point.double(inverse);
        }
        done = (2 * done).max(1);
    }
}

/// The same for a single group, where an inversion costs more than the products it saves: two of them instead of one
/// for each doubling of `count`. Adding 2 Q over and over is never exceptional, and no multiple met is at infinity.
#[target_feature(enable = "avx512f,avx512ifma")]
fn odd_multiples_in_a_row(ifma: Ifma, point: &Affine, count: usize, room: &mut Workspace) {
    let Workspace { denominators, products, odd, row, .. } = room;
    denominators.clear();
    denominators.push(point.double_denominator());
    invert_all(ifma, denominators, products, |_, _| debug_assert!(false, "a point of prime order"));
    let double = point.double(&denominators[0]);
    row.clear();
    denominators.clear();
    let mut multiple = Jacobian::<1>::start(ifma, [point]);
    for _ in 1..count {
        multiple = multiple.plus([&double]);
        row.push(multiple);
        denominators.push(multiple.z[0]);
    }
    invert_all(ifma, denominators, products, |_, _| debug_assert!(false, "a point of prime order"));
    odd.clear();
    odd.push(*point);
    for (multiple, inverse) in row.iter().zip(denominators.iter()) {
        odd.push(multiple.to_affine(ifma, inverse));
    }
}

/// The generator's tables, made at the first call, in less than a millisecond.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn generator(ifma: Ifma) -> &'static Generator {
    static GENERATOR: OnceLock<Generator> = OnceLock::new();
    GENERATOR.get_or_init(|| {
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
        let (bases, _) = bases.as_chunks::<8>();
        let points: Vec<Affine> = bases.iter().map(|entries| load_points(ifma, entries)).collect();
        let mut comb = Vec::new();
        build(ifma, &points, &mut Workspace::default(), &mut comb);
        comb.truncate(G_DIGITS);
        let mut lambda = comb[0];
        let (blocks, _) = lambda.0.as_chunks_mut::<8>();
        for block in blocks {
            let mut points = load_points(ifma, block);
            points.x = product(&points.x, &beta(ifma)).reduce();
            store_points(&points, block.each_mut());
        }
        Generator { comb, lambda }
    })
}

/// Lane i gets the point `entries[i]`.
#[inline(always)]
pub(crate) fn load_points(ifma: Ifma, entries: &[Entry; 8]) -> Affine {
    let e = entries;
    let rows = [
        ifma.load(&e[0].0),
        ifma.load(&e[1].0),
        ifma.load(&e[2].0),
        ifma.load(&e[3].0),
        ifma.load(&e[4].0),
        ifma.load(&e[5].0),
        ifma.load(&e[6].0),
        ifma.load(&e[7].0),
    ];
    let [x0, x1, x2, x3, y0, y1, y2, y3] = transpose(rows);
    Affine { x: Fe::from_words(&[x0, x1, x2, x3]), y: Fe::from_words(&[y0, y1, y2, y3]) }
}

/// Writes the point of lane i to `entries[i]`.
#[inline(always)]
pub(crate) fn store_points(points: &Affine, entries: [&mut Entry; 8]) {
    let ([x0, x1, x2, x3], [y0, y1, y2, y3]) = (points.x.to_words(), points.y.to_words());
    for (entry, row) in entries.into_iter().zip(transpose([x0, x1, x2, x3, y0, y1, y2, y3])) {
        row.store(&mut entry.0);
    }
}

/// The cube root of one that lambda goes with: lambda (x, y) = (beta x, y).
#[inline(always)]
pub(crate) fn beta(ifma: Ifma) -> Fe {
    const BETA: [u64; 4] =
        [0xC139_6C28_7195_01EE, 0x9CF0_4975_12F5_8995, 0x6E64_479E_AC34_34E9, 0x7AE9_6A2B_657C_0710];
    Fe::from_lanes(ifma, &[BETA; 8])
}

/// G, compressed.
const G: [u8; 33] = [
    0x02, 0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87, 0x0b, 0x07,
    0x02, 0x9b, 0xfc, 0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16, 0xf8, 0x17, 0x98,
];

fn small_bytes(value: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[28..].copy_from_slice(&value.to_be_bytes());
    bytes
}

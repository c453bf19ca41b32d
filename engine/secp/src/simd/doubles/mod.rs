//! Elements as five doubles, for processors that multiply doubles fast but not integers: the representation of the
//! AVX2 leaf.
//!
//! Limb i is a multiple of 2^E\[i\], E = 0, 52, 103, 154, 205, and carries its weight in its exponent: the value is the
//! sum of the limbs. Digits are balanced: limb 0 of an `Fe` is at most 2^51 + 2^37 units in size, the others 2^50 + 8.
//! So an `Fe` is below p in size, and zero modulo p exactly if every limb is. Negating is flipping signs.
//!
//! A product of limbs has twice the bits of a double. It is added to a column in two parts, each exactly: with h a
//! large multiple of the unit that the column's high part is to have, h' = fma(a, b, h) rounds to that unit, h - h' is
//! exact, and fma(a, b, h - h') is the part that rounding took away, exact as well. `FIELDS.md` argues each bound; the
//! model in `model` does every operation with a check of its exactness.
//!
//! Only two kinds of operation round: those named `rounded`, whose error the next operations recover or which only
//! choose a carry. Rounding must be to nearest, which [`Processor::enter`] asserts.
//!
//! Products are called out of line, for all groups at once: inlined, point formulas outgrow the cache of decoded
//! instructions.
//!
//! Budget: 28 ns a product of four and 22 ns a square on a 2.45 GHz Zen 3, from two groups on.

use super::field::{Entry, Field, LANES_MAX, LaneMask, each};
use super::words64;
use crate::scalar::{add, less as less_than, subtract};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;

/// Lanes of doubles, as the processor has them or a model.
pub(crate) trait Lanes: Copy {
    /// self + other, exactly.
    fn plus(self, other: Self) -> Self;
    /// self - other, exactly.
    fn minus(self, other: Self) -> Self;
    /// self * by + addend, exactly.
    fn times_plus(self, by: Self, addend: Self) -> Self;
    /// self + other, rounded to nearest.
    fn rounded_plus(self, other: Self) -> Self;
    /// self - other, rounded to nearest.
    fn rounded_minus(self, other: Self) -> Self;
    /// self * by + addend, rounded to nearest.
    fn rounded_times_plus(self, by: Self, addend: Self) -> Self;
}

/// What makes lanes, and runs stages and operations that use them.
pub(crate) trait Processor: Copy + 'static {
    /// Its lanes.
    type Lanes: Lanes;
    /// How many there are.
    const LANES: usize;

    /// Runs a stage; rounding must be to nearest.
    fn enter<R>(self, stage: impl FnOnce() -> R) -> R;
    /// Runs an operation out of line.
    fn operate<R>(self, operation: impl FnOnce() -> R) -> R;
    /// The same double in every lane.
    fn splat(self, value: f64) -> Self::Lanes;
    /// Lane `i` gets the balanced limbs of the coordinates that `entry(i)` has packed.
    fn unpack<'a>(self, entry: impl Fn(usize) -> &'a Entry) -> [Limbs<Self::Lanes>; 2];
    /// The lanes, in an array.
    fn to_array(self, lanes: Self::Lanes) -> [f64; 4];
    /// The sign flipped in the lanes of `mask`.
    fn flipped(self, lanes: Self::Lanes, mask: LaneMask) -> Self::Lanes;
    /// `other` in the lanes of `mask`, `lanes` elsewhere.
    fn replaced(self, lanes: Self::Lanes, mask: LaneMask, other: Self::Lanes) -> Self::Lanes;
    /// The lanes that are zero in all limbs.
    fn zeros(self, limbs: &Limbs<Self::Lanes>) -> LaneMask;
    /// Asks for a cache line.
    fn prefetch(self, entry: &Entry);
    /// Checks bounds of an element, in the model.
    #[inline(always)]
    fn check(self, limbs: Limbs<Self::Lanes>) -> Limbs<Self::Lanes> {
        limbs
    }
}

/// The leaf: a processor's lanes of doubles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubles<P>(pub(crate) P);

/// Reduced elements, which are factors and have signs as well: limb 0 at most 2^51 + 2^37 units, the others 2^50 + 8.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Limbs<D>(pub(crate) [D; 5]);

/// A sum of `M` elements of either sign: each limb at most `M` times that of an element.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Lazy<D, const M: u64>([D; 5]);

/// The weight of limb i is 2^E\[i\]; 256 and above are those of a product's columns.
const E: [u32; 9] = [0, 52, 103, 154, 205, 256, 308, 359, 410];
/// (2^256 mod p) / 2^256.
const FOLD: f64 = 0x1_0000_03D1_u64 as f64 * power(-256);
/// Where each column's high part starts: adding a product rounds it to a multiple of the start's last place. That is
/// 2^52 units of the column or, for columns of three and fewer products of narrow limbs, 2^51.
const START: [f64; 9] = [
    1.5 * power(104 + E[0] as i32),
    1.5 * power(104 + E[1] as i32),
    1.5 * power(104 + E[2] as i32),
    1.25 * power(104 + E[3] as i32),
    1.25 * power(104 + E[4] as i32),
    1.5 * power(104 + E[5] as i32),
    1.5 * power(103 + E[6] as i32),
    1.5 * power(103 + E[7] as i32),
    1.5 * power(103 + E[8] as i32),
];
/// Added and taken away, it rounds limb i to a multiple of limb i + 1's unit.
const ROUND: [f64; 5] = [
    1.5 * power(52 + E[1] as i32),
    1.5 * power(52 + E[2] as i32),
    1.5 * power(52 + E[3] as i32),
    1.5 * power(52 + E[4] as i32),
    1.5 * power(52 + E[5] as i32),
];
/// What packing adds: half of each limb's range, so that a packed number's plain digits are the balanced ones, raised.
const BIAS: [u64; 4] = [1 << 51, 1 << (102 - 64), 1 << (153 - 128), 1 << (204 - 192) | 1 << 63];
const P: [u64; 4] = [0xFFFF_FFFE_FFFF_FC2F, u64::MAX, u64::MAX, u64::MAX];
/// 2^256 mod p.
const FOLD_256: u64 = 0x1_0000_03D1;

/// A power of two.
const fn power(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// One column of a product: the high part, a multiple of 2^52 or 2^51 units, with its start; and the low part.
#[derive(Clone, Copy)]
struct Column<D> {
    high: D,
    low: D,
}

impl<D: Lanes> Column<D> {
    /// start + a b.
    #[inline(always)]
    fn new(start: D, a: D, b: D) -> Column<D> {
        let high = a.rounded_times_plus(b, start);
        Column { high, low: a.times_plus(b, start.minus(high)) }
    }

    /// self + a b.
    #[inline(always)]
    fn plus(self, a: D, b: D) -> Column<D> {
        let high = a.rounded_times_plus(b, self.high);
        let low = a.times_plus(b, self.high.minus(high));
        Column { high, low: self.low.plus(low) }
    }

    /// The same sum, the low part at most half of the high part's unit.
    #[inline(always)]
    fn carried(self) -> Column<D> {
        let high = self.high.rounded_plus(self.low);
        Column { high, low: self.low.plus(self.high.minus(high)) }
    }
}

/// The columns of a product: `low` of columns 0 to 4, the high parts passed to columns 1 to 4, and the upper half, a
/// number of columns 5 to 9.
struct Columns<D> {
    low: [D; 5],
    passed: [D; 4],
    upper: [D; 5],
}

impl<D: Lanes> Columns<D> {
    /// From the columns; `fifth` is taken from what column 5 passes on.
    #[inline(always)]
    fn new(starts: &[D; 9], c: [Column<D>; 9], fifth: D) -> Columns<D> {
        let passed = |k: usize| c[k].high.minus(starts[k]);
        Columns {
            low: [c[0].low, c[1].low, c[2].low, c[3].low, c[4].low],
            passed: [passed(0), passed(1), passed(2), passed(3)],
            upper: [
                c[5].low.plus(passed(4)),
                c[6].low.plus(passed(5).minus(fifth)),
                c[7].low.plus(passed(6)),
                c[8].low.plus(passed(7)),
                passed(8),
            ],
        }
    }

    /// The product less `less`, its upper half folded onto the lower, carried.
    #[inline(always)]
    fn fold<P: Processor<Lanes = D>>(self, p: P, less: Option<&[D; 5]>) -> Limbs<D> {
        let fold = p.splat(FOLD);
        let round = rounds(p);
        let Columns { low: mut a, passed, upper } = self;
        let mut b = [passed[0], passed[0], passed[1], passed[2], passed[3]];
        if let Some(less) = less {
            for i in 1..5 {
                b[i] = b[i].minus(less[i]);
            }
        }
        for i in 0..5 {
            let minus_high = round[i].minus(upper[i].rounded_times_plus(fold, round[i]));
            a[i] = a[i].plus(upper[i].times_plus(fold, minus_high));
            if i < 4 {
                b[i + 1] = b[i + 1].minus(minus_high);
            } else {
                // Of weight 2^256 again: once more.
                let high = round[0].minus(minus_high.rounded_times_plus(fold, round[0]));
                a[0] = a[0].minus(minus_high.times_plus(fold, high));
                b[1] = b[1].plus(high);
            }
        }
        // Both parts together may have more bits than a double; less the carry, they do not.
        let (mut x, mut carry) = (a, a);
        let sum = less.map_or(
            a[0],
            #[inline(always)]
            |less| a[0].rounded_minus(less[0]),
        );
        carry[0] = sum.rounded_plus(round[0]).minus(round[0]);
        x[0] = a[0].minus(less.map_or(
            carry[0],
            #[inline(always)]
            |less| less[0].plus(carry[0]),
        ));
        for i in 1..5 {
            carry[i] = a[i].rounded_plus(b[i]).rounded_plus(round[i]).minus(round[i]);
            x[i] = b[i].minus(carry[i]).plus(a[i]);
        }
        passed_on(p, x, carry)
    }
}

/// The limbs and their carries, each added to the next limb, the last folded.
#[inline(always)]
fn passed_on<P: Processor>(p: P, x: [P::Lanes; 5], c: [P::Lanes; 5]) -> Limbs<P::Lanes> {
    let fold = p.splat(FOLD);
    let limbs =
        [c[4].times_plus(fold, x[0]), x[1].plus(c[0]), x[2].plus(c[1]), x[3].plus(c[2]), x[4].plus(c[3])];
    p.check(Limbs(limbs))
}

#[inline(always)]
fn rounds<P: Processor>(p: P) -> [P::Lanes; 5] {
    [p.splat(ROUND[0]), p.splat(ROUND[1]), p.splat(ROUND[2]), p.splat(ROUND[3]), p.splat(ROUND[4])]
}

#[inline(always)]
fn starts<P: Processor>(p: P) -> [P::Lanes; 9] {
    let s = &START;
    [
        p.splat(s[0]),
        p.splat(s[1]),
        p.splat(s[2]),
        p.splat(s[3]),
        p.splat(s[4]),
        p.splat(s[5]),
        p.splat(s[6]),
        p.splat(s[7]),
        p.splat(s[8]),
    ]
}

/// a b - less.
///
/// Columns 3, 4 and 5 would sum up low parts beyond a double's 53 bits: they are carried once. The last product of
/// column 5 has a high part apart, or its low part would pass the bound by 2^-46 of it.
#[inline(always)]
fn product<P: Processor>(
    p: P,
    a: &[P::Lanes; 5],
    b: &[P::Lanes; 5],
    less: Option<&[P::Lanes; 5]>,
) -> Limbs<P::Lanes> {
    let s = starts(p);
    let c0 = Column::new(s[0], a[0], b[0]);
    let c1 = Column::new(s[1], a[0], b[1]).plus(a[1], b[0]);
    let c2 = Column::new(s[2], a[0], b[2]).plus(a[1], b[1]).plus(a[2], b[0]);
    let c3 = Column::new(s[3], a[0], b[3]).plus(a[1], b[2]).plus(a[2], b[1]).carried().plus(a[3], b[0]);
    let c4 = Column::new(s[4], a[0], b[4]).plus(a[1], b[3]).plus(a[2], b[2]).plus(a[3], b[1]);
    let c4 = c4.carried().plus(a[4], b[0]);
    let c5 = Column::new(s[5], a[1], b[4]).plus(a[2], b[3]).plus(a[3], b[2]);
    let (c5, fifth) = plus_apart(s[5], c5, a[4], b[1]);
    let c6 = Column::new(s[6], a[2], b[4]).plus(a[3], b[3]).plus(a[4], b[2]);
    let c7 = Column::new(s[7], a[3], b[4]).plus(a[4], b[3]);
    let c8 = Column::new(s[8], a[4], b[4]);
    Columns::new(&s, [c0, c1, c2, c3, c4, c5, c6, c7, c8], fifth).fold(p, less)
}

/// a^2 - less: the products of different limbs once, doubled.
#[inline(always)]
fn square<P: Processor>(p: P, a: &[P::Lanes; 5], less: Option<&[P::Lanes; 5]>) -> Limbs<P::Lanes> {
    let s = starts(p);
    let d = [a[0].plus(a[0]), a[1].plus(a[1]), a[2].plus(a[2]), a[3].plus(a[3])];
    let c0 = Column::new(s[0], a[0], a[0]);
    let c1 = Column::new(s[1], d[0], a[1]);
    let c2 = Column::new(s[2], d[0], a[2]).plus(a[1], a[1]);
    let c3 = Column::new(s[3], d[0], a[3]).plus(d[1], a[2]);
    let c4 = Column::new(s[4], d[0], a[4]).plus(d[1], a[3]).plus(a[2], a[2]).carried();
    let c5 = Column::new(s[5], d[1], a[4]);
    let (c5, fifth) = plus_apart(s[5], c5, d[2], a[3]);
    let c6 = Column::new(s[6], d[2], a[4]).plus(a[3], a[3]);
    let c7 = Column::new(s[7], d[3], a[4]);
    let c8 = Column::new(s[8], a[4], a[4]);
    Columns::new(&s, [c0, c1, c2, c3, c4, c5, c6, c7, c8], fifth).fold(p, less)
}

/// A column plus a b, whose high part is returned apart, negated; the column is carried.
#[inline(always)]
fn plus_apart<D: Lanes>(start: D, column: Column<D>, a: D, b: D) -> (Column<D>, D) {
    let minus_high = start.minus(a.rounded_times_plus(b, start));
    let low = column.low.plus(a.times_plus(b, minus_high));
    (Column { high: column.high, low }.carried(), minus_high)
}

/// Carries limbs of at most three times those of an element, or of twice even ones.
#[inline(always)]
fn carried<P: Processor>(p: P, a: &[P::Lanes; 5]) -> Limbs<P::Lanes> {
    let round = rounds(p);
    let (mut x, mut carry) = (*a, *a);
    for i in 0..5 {
        carry[i] = a[i].rounded_plus(round[i]).minus(round[i]);
        x[i] = a[i].minus(carry[i]);
    }
    passed_on(p, x, carry)
}

#[inline(always)]
fn added<D: Lanes>(a: &[D; 5], b: &[D; 5]) -> [D; 5] {
    [a[0].plus(b[0]), a[1].plus(b[1]), a[2].plus(b[2]), a[3].plus(b[3]), a[4].plus(b[4])]
}

#[inline(always)]
fn subtracted<D: Lanes>(a: &[D; 5], b: &[D; 5]) -> [D; 5] {
    [a[0].minus(b[0]), a[1].minus(b[1]), a[2].minus(b[2]), a[3].minus(b[3]), a[4].minus(b[4])]
}

/// The packed form of an element's limbs: its value plus [`BIAS`], modulo p, below 2^256.
#[inline(always)]
fn packed(limbs: [f64; 5]) -> [u64; 4] {
    let mut d = [0i64; 5];
    for (i, digit) in d.iter_mut().enumerate() {
        let half = if i == 0 { 1 << 51 } else { 1 << 50 };
        *digit = (limbs[i] * power(-(E[i] as i32))) as i64 + half;
    }
    // What is above 2^256, minus one, zero or one, is folded; a second time only if folding passes 2^256 again.
    loop {
        d[1] += d[0] >> 52;
        d[2] += d[1] >> 51;
        d[3] += d[2] >> 51;
        d[4] += d[3] >> 51;
        let above = d[4] >> 51;
        d[0] &= (1 << 52) - 1;
        for digit in &mut d[1..] {
            *digit &= (1 << 51) - 1;
        }
        if above == 0 {
            break;
        }
        d[0] += above * FOLD_256 as i64;
    }
    let d = d.map(i64::cast_unsigned);
    [d[0] | d[1] << 52, d[1] >> 12 | d[2] << 39, d[2] >> 25 | d[3] << 26, d[3] >> 38 | d[4] << 13]
}

/// The packed form of any 256-bit number.
#[inline(always)]
fn biased(words: &[u64; 4]) -> [u64; 4] {
    let (sum, passed) = add(words, &BIAS);
    if passed { add(&sum, &[FOLD_256, 0, 0, 0]).0 } else { sum }
}

/// The canonical value of a packed number.
#[inline(always)]
fn canonical(packed: &[u64; 4]) -> [u64; 4] {
    let below = less_than(packed, &BIAS);
    let value = subtract(packed, &BIAS);
    let value = if below { subtract(&value, &[FOLD_256, 0, 0, 0]) } else { value };
    if less_than(&value, &P) { value } else { subtract(&value, &P) }
}

impl<P: Processor> Doubles<P> {
    #[inline(always)]
    fn limbs_of(self, limbs: &Limbs<P::Lanes>) -> [[f64; 5]; 4] {
        let a = &limbs.0;
        let mut lanes = [[0.0; 5]; 4];
        for (i, limb) in a.iter().enumerate() {
            for (lane, value) in self.0.to_array(*limb).into_iter().enumerate() {
                lanes[lane][i] = value;
            }
        }
        lanes
    }

    #[inline(always)]
    fn product_less<const N: usize>(
        self,
        a: [&Limbs<P::Lanes>; N],
        b: [&Limbs<P::Lanes>; N],
        c: &[[P::Lanes; 5]; N],
    ) -> [Limbs<P::Lanes>; N] {
        self.0.operate(
            #[inline(always)]
            || each!(N, i => product(self.0, &a[i].0, &b[i].0, Some(&c[i]))),
        )
    }

    #[inline(always)]
    fn square_less<const N: usize>(
        self,
        a: [&Limbs<P::Lanes>; N],
        c: &[[P::Lanes; 5]; N],
    ) -> [Limbs<P::Lanes>; N] {
        self.0.operate(
            #[inline(always)]
            || each!(N, i => square(self.0, &a[i].0, Some(&c[i]))),
        )
    }
}

impl<P: Processor> Field for Doubles<P> {
    const LANES: usize = P::LANES;
    type Fe = Limbs<P::Lanes>;
    type Factor = Limbs<P::Lanes>;
    type Signed = Limbs<P::Lanes>;
    type Lazy<const M: u64> = Lazy<P::Lanes, M>;

    #[inline(always)]
    fn enter<R>(self, stage: impl FnOnce() -> R) -> R {
        self.0.enter(stage)
    }
    #[inline(always)]
    fn small(self, value: u32) -> Self::Fe {
        let zero = self.0.splat(0.0);
        Limbs([self.0.splat(value.into()), zero, zero, zero, zero])
    }
    #[inline(always)]
    fn load_lanes(self, value: impl Fn(usize) -> [u64; 4]) -> Self::Fe {
        let entries = super::field::each_lane::<Self, _>(
            #[inline(always)]
            |lane| Entry::join(biased(&value(lane)), [0; 4]),
        );
        let [value, _] = self.0.unpack(
            #[inline(always)]
            |lane| &entries[lane],
        );
        value
    }
    #[inline(always)]
    fn to_lanes(self, value: &Self::Fe) -> [[u64; 4]; LANES_MAX] {
        let limbs = self.limbs_of(value);
        let mut values = [[0; 4]; LANES_MAX];
        for (limbs, value) in limbs.into_iter().zip(&mut values).take(P::LANES) {
            *value = canonical(&packed(limbs));
        }
        values
    }
    #[inline(always)]
    fn zeros(self, value: &Self::Fe) -> LaneMask {
        self.0.zeros(value)
    }
    #[inline(always)]
    fn select(self, value: &Self::Factor, mask: LaneMask, other: &Self::Factor) -> Self::Factor {
        let mut limbs = *value;
        for (limb, other) in limbs.0.iter_mut().zip(other.0) {
            *limb = self.0.replaced(*limb, mask, other);
        }
        limbs
    }
    #[inline(always)]
    fn pack(entry: Entry) -> Entry {
        let [x, y] = entry.split();
        Entry::join(biased(&x), biased(&y))
    }
    #[inline(always)]
    fn load<'a>(self, entry: impl Fn(usize) -> &'a Entry) -> [Self::Fe; 2] {
        self.0.unpack(entry)
    }
    #[inline(always)]
    fn store(self, x: &Self::Fe, y: &Self::Fe, mut put: impl FnMut(usize, Entry)) {
        let (x, y) = (self.limbs_of(x), self.limbs_of(y));
        for lane in 0..P::LANES {
            put(lane, Entry::join(packed(x[lane]), packed(y[lane])));
        }
    }
    #[inline(always)]
    fn prefetch(self, entry: &Entry) {
        self.0.prefetch(entry);
    }
    #[inline(always)]
    fn as_factor(value: &Self::Fe) -> &Self::Factor {
        value
    }
    #[inline(always)]
    fn lazy(value: &Self::Fe) -> Self::Lazy<1> {
        Lazy(value.0)
    }
    #[inline(always)]
    fn signed(self, value: &Self::Fe, mask: LaneMask) -> Self::Signed {
        let mut limbs = *value;
        for limb in &mut limbs.0 {
            *limb = self.0.flipped(*limb, mask);
        }
        limbs
    }
    #[inline(always)]
    fn unsigned(value: &Self::Fe) -> Self::Signed {
        *value
    }
    #[inline(always)]
    fn plus<const M: u64, const N: u64, const R: u64>(
        self,
        a: &Lazy<P::Lanes, M>,
        b: &Lazy<P::Lanes, N>,
    ) -> Lazy<P::Lanes, R> {
        // Three times 2^51 + 2^37 is below 2^53.
        const { assert!(M + N <= R && R <= 3) }
        Lazy(added(&a.0, &b.0))
    }
    #[inline(always)]
    fn minus<const M: u64, const N: u64, const R: u64>(
        self,
        a: &Lazy<P::Lanes, M>,
        b: &Lazy<P::Lanes, N>,
    ) -> Lazy<P::Lanes, R> {
        const { assert!(M + N <= R && R <= 3) }
        Lazy(subtracted(&a.0, &b.0))
    }
    #[inline(always)]
    fn factor<const M: u64>(self, value: &Self::Lazy<M>) -> Self::Factor {
        const { assert!(M <= 3) }
        carried(self.0, &value.0)
    }
    #[inline(always)]
    fn doubled_factor<const M: u64>(self, value: &Self::Lazy<M>) -> Self::Factor {
        const { assert!(M <= 2) }
        carried(self.0, &added(&value.0, &value.0))
    }
    #[inline(always)]
    fn signed_difference(self, a: &Self::Signed, b: &Self::Signed) -> Self::Factor {
        carried(self.0, &subtracted(&a.0, &b.0))
    }
    #[inline(always)]
    fn reduce(self, value: &Self::Factor) -> Self::Fe {
        *value
    }
    #[inline(always)]
    fn product<const N: usize>(self, a: [&Self::Factor; N], b: [&Self::Factor; N]) -> [Self::Factor; N] {
        self.0.operate(
            #[inline(always)]
            || each!(N, i => product(self.0, &a[i].0, &b[i].0, None)),
        )
    }
    #[inline(always)]
    fn product_reduced<const N: usize>(self, a: [&Self::Factor; N], b: [&Self::Factor; N]) -> [Self::Fe; N] {
        self.product(a, b)
    }
    #[inline(always)]
    fn product_minus<const N: usize, const M: u64>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [Self::Lazy<M>; N],
    ) -> [Self::Fe; N] {
        const { assert!(M <= 3) }
        self.product_less(a, b, &each!(N, i => c[i].0))
    }
    #[inline(always)]
    fn product_minus_signed<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [Self::Signed; N],
    ) -> [Self::Fe; N] {
        self.product_less(a, b, &each!(N, i => c[i].0))
    }
    #[inline(always)]
    fn product_doubled_minus<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [&Self::Fe; N],
    ) -> [Self::Factor; N] {
        let ab = self.product(a, b);
        each!(N, i => carried(self.0, &subtracted(&added(&ab[i].0, &ab[i].0), &c[i].0)))
    }
    #[inline(always)]
    fn product_minus_product<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [&Self::Factor; N],
        d: [&Self::Factor; N],
    ) -> [Self::Fe; N] {
        let cd = self.product(c, d);
        self.product_less(a, b, &each!(N, i => cd[i].0))
    }
    #[inline(always)]
    fn product_minus_square<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [&Self::Factor; N],
    ) -> [Self::Fe; N] {
        let cc = self.square(c);
        self.product_less(a, b, &each!(N, i => cc[i].0))
    }
    #[inline(always)]
    fn square<const N: usize>(self, a: [&Self::Factor; N]) -> [Self::Factor; N] {
        self.0.operate(
            #[inline(always)]
            || each!(N, i => square(self.0, &a[i].0, None)),
        )
    }
    #[inline(always)]
    fn square_tripled<const N: usize>(self, a: [&Self::Factor; N]) -> [Self::Factor; N] {
        let aa = self.square(a);
        each!(N, i => carried(self.0, &added(&added(&aa[i].0, &aa[i].0), &aa[i].0)))
    }
    #[inline(always)]
    fn square_minus<const N: usize, const M: u64>(
        self,
        a: [&Self::Factor; N],
        c: [Self::Lazy<M>; N],
    ) -> [Self::Fe; N] {
        const { assert!(M <= 3) }
        self.square_less(a, &each!(N, i => c[i].0))
    }
    #[inline(always)]
    fn invert_lanes(self, value: &Self::Fe) -> Self::Factor {
        let inverses = words64::invert_each(&self.to_lanes(value)[..P::LANES]);
        self.load_lanes(
            #[inline(always)]
            |lane| inverses[lane],
        )
    }
}

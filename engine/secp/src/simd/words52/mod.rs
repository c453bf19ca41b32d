//! Elements as five limbs of 52 bits, eight at a time: the representation of the AVX-512 IFMA leaf.
//!
//! An element is five limbs of 52 bits, one vector a limb: value = sum of limb k * 2^(52 k). Four types say what is
//! known of the limbs; the compiler keeps them apart, and where a bound grows with a sum it is a const parameter
//! checked when the code is compiled:
//!
//! * [`Fe`], reduced: limbs 0 to 3 below 2^52, limb 4 at most [`TOP`] = 2^48 + 2^12. Below 2p, not canonical.
//! * [`Factor`], for multiplying only: as `Fe`, but limbs 0 to 3 may hold rubbish above bit 52, which the
//!   instructions ignore. It saves four masks.
//! * [`Lazy`]`<M>`, a sum of M elements of either sign: each limb at most 2 M - 1 times the largest limb of an `Fe`. A
//!   difference adds the multiple of p that keeps limbs from passing below zero, one more than what it takes away.
//! * [`Signed`]: limbs at most twice the largest of an `Fe`.
//! * [`Product`]`<W>`, a product folded once: five limbs below W * 2^57, and a sixth below W * 2^38.
//!
//! Why nothing is lost. A product column sums at most nine 52-bit halves, so it stays below 9 * 2^52 < 2^56; of two
//! products, below 2^57. Carries run through the high columns first (5 to 9). Column 9 is the high half of limb 4
//! times limb 4, below 2^97 / 2^52 = 2^45, plus a carry: below 2^52, so that reading each high column modulo 2^52
//! after its carry was passed on drops nothing. The high columns times 2^260 mod p = [`FOLD_260`] < 2^37 are added to
//! the low ones: below 2^57 again, and column 9's upper half is the sixth limb, below 2^37. Reducing takes what is
//! above bit 256 (below W * 2^43), times 2^256 mod p < 2^33, and carries once: limb 4 ends below 2^48 + 2^9.
//!
//! Debug builds assert the bound that is left to be seen, of limb 4, for every `Factor` made by carrying.
//!
//! The code is generic over the lanes, so that a model of them in plain integers, which checks that no sum passes its
//! word, runs all of it on every machine.
//!
//! Budget: 9.3 ns per product of eight, 7.9 ns per square, when two or more are independent.

use core::ops::{Add, BitAnd, BitOr, BitXor, Sub};

use super::field::{Digits, Entry, Field, Halves, LANES_MAX, LaneMask, each};
use crate::inverse::FIELD;

#[cfg(target_arch = "x86_64")]
pub(crate) mod ifma;
#[cfg(test)]
pub(crate) mod model;

/// Eight lanes of 64-bit integers, as the processor has them or a model.
pub(crate) trait Words:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + BitXor<Output = Self>
{
    /// The proof that there are such lanes.
    type Proof: Processor<Words = Self>;

    /// The proof that this value is.
    fn proof(self) -> Self::Proof;
    /// The lanes as an array.
    fn to_array(self) -> [u64; 8];
    /// `self + (a * b mod 2^52)`, of each factor only the low 52 bits.
    fn add_low(self, a: Self, b: Self) -> Self;
    /// `self + floor(a * b / 2^52)`, of each factor only the low 52 bits.
    fn add_high(self, a: Self, b: Self) -> Self;
    /// Each lane shifted right by a constant.
    fn shr<const BITS: u32>(self) -> Self;
    /// Each lane shifted left by a constant.
    fn shl<const BITS: u32>(self) -> Self;
    /// Each lane shifted right; by 64 or more, zero.
    fn shr_by(self, bits: u32) -> Self;
    /// Each lane shifted left; by 64 or more, zero.
    fn shl_by(self, bits: u32) -> Self;
    /// The lanes that are zero.
    fn zeros(self) -> LaneMask;
    /// The lanes that share a set bit with `bits`.
    fn test(self, bits: Self) -> LaneMask;
    /// `other` in the lanes of `mask`, `self` elsewhere.
    fn replaced(self, mask: LaneMask, other: Self) -> Self;
    /// Lane `i` gets lane `(i + BY) mod 8`.
    fn rotated<const BY: i32>(self) -> Self;
    /// The same values; instructions are not sorted across the call.
    fn in_order(values: [Self; 5]) -> [Self; 5];
    /// Lane `j` of result `i` is lane `i` of row `j`.
    fn transpose(rows: [Self; 8]) -> [Self; 8];

    /// Twice each lane.
    #[inline(always)]
    fn doubled(self) -> Self {
        self + self
    }
}

/// What makes lanes, and runs stages that use them.
pub(crate) trait Processor: Copy + 'static {
    /// Its lanes.
    type Words: Words<Proof = Self>;

    /// Runs a stage.
    fn enter<R>(self, stage: impl FnOnce() -> R) -> R;
    /// Runs one operation of the field, inline or out of line.
    fn operate<R>(self, operation: impl FnOnce() -> R) -> R;
    /// All lanes zero.
    fn zero(self) -> Self::Words;
    /// The same integer in every lane.
    fn splat(self, value: u64) -> Self::Words;
    /// Lane `i` gets `values[i]`.
    fn load(self, values: &[u64; 8]) -> Self::Words;
    /// Asks for the cache line of `values`.
    fn prefetch(self, values: &[u64; 8]);
}

/// The leaf: a processor's lanes, of 52-bit limbs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words52<P>(pub(crate) P);

/// Eight reduced field elements: limbs 0 to 3 below 2^52, limb 4 at most [`TOP`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Fe<V>(Factor<V>);

/// Eight field elements fit for multiplying only: the digits are the low 52 bits of limbs 0 to 3.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Factor<V>([V; 5]);

/// Eight elements, negated in some lanes: limbs at most twice the largest of an [`Fe`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Signed<V>([V; 5]);

/// A sum of up to `M` elements: each limb at most `2 M - 1` times the largest limb of an [`Fe`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Lazy<V, const M: u64>([V; 5]);

/// A product folded once: value = limbs + `above` * 2^260; limbs below `W` * 2^57, `above` below `W` * 2^38.
#[derive(Clone, Copy)]
pub(crate) struct Product<V, const W: u64> {
    limbs: [V; 5],
    above: V,
}

/// The low 52 bits.
const MASK_52: u64 = (1 << 52) - 1;
/// The low 48 bits: the part of limb 4 below 2^256.
const MASK_48: u64 = (1 << 48) - 1;
/// The largest limb 4 of an [`Fe`].
pub(crate) const TOP: u64 = (1 << 48) + (1 << 12);
/// 2^256 mod p.
const FOLD_256: u64 = 0x1_0000_03D1;
/// 2^260 mod p.
const FOLD_260: u64 = 0x10_0000_3D10;
/// p in limbs.
pub(crate) const P: [u64; 5] = [0xF_FFFE_FFFF_FC2F, MASK_52, MASK_52, MASK_52, MASK_48];

impl<P: Processor> Field for Words52<P> {
    const LANES: usize = 8;
    type Fe = Fe<P::Words>;
    type Factor = Factor<P::Words>;
    type Signed = Signed<P::Words>;
    type Lazy<const M: u64> = Lazy<P::Words, M>;

    #[inline(always)]
    fn enter<R>(self, stage: impl FnOnce() -> R) -> R {
        self.0.enter(stage)
    }
    #[inline(always)]
    fn small(self, value: u32) -> Self::Fe {
        self.0.operate(
            #[inline(always)]
            || {
                let zero = self.0.zero();
                Fe(Factor([self.0.splat(value.into()), zero, zero, zero, zero]))
            },
        )
    }
    #[inline(always)]
    fn load_lanes(self, value: impl Fn(usize) -> [u64; 4]) -> Self::Fe {
        self.0.operate(
            #[inline(always)]
            || {
                let mut words = [[0; 8]; 4];
                for lane in 0..8 {
                    let value = value(lane);
                    for (word, values) in words.iter_mut().enumerate() {
                        values[lane] = value[word];
                    }
                }
                from_words(&each!(4, k => self.0.load(&words[k])))
            },
        )
    }
    #[inline(always)]
    fn to_lanes(self, value: &Self::Fe) -> [[u64; 4]; LANES_MAX] {
        self.0.operate(
            #[inline(always)]
            || {
                let words = to_words(value);
                let words = each!(4, k => words[k].to_array());
                let mut values = [[0; 4]; 8];
                for (lane, value) in values.iter_mut().enumerate() {
                    *value = each!(4, k => words[k][lane]);
                }
                values
            },
        )
    }
    #[inline(always)]
    fn zeros(self, value: &Self::Fe) -> LaneMask {
        self.0.operate(
            #[inline(always)]
            || {
                let n = canonical(value);
                ((n[0] | n[1]) | (n[2] | n[3]) | n[4]).zeros()
            },
        )
    }
    #[inline(always)]
    fn select(self, value: &Self::Factor, mask: LaneMask, other: &Self::Factor) -> Self::Factor {
        self.0.operate(
            #[inline(always)]
            || Factor(select(&value.0, mask, &other.0)),
        )
    }
    #[inline(always)]
    fn pack(entry: Entry) -> Entry {
        entry
    }
    #[inline(always)]
    fn load<'a>(self, entry: impl Fn(usize) -> &'a Entry) -> [Self::Fe; 2] {
        self.0.operate(
            #[inline(always)]
            || {
                let ifma = self.0;
                let rows = [
                    ifma.load(&entry(0).0),
                    ifma.load(&entry(1).0),
                    ifma.load(&entry(2).0),
                    ifma.load(&entry(3).0),
                    ifma.load(&entry(4).0),
                    ifma.load(&entry(5).0),
                    ifma.load(&entry(6).0),
                    ifma.load(&entry(7).0),
                ];
                let [x0, x1, x2, x3, y0, y1, y2, y3] = P::Words::transpose(rows);
                [from_words(&[x0, x1, x2, x3]), from_words(&[y0, y1, y2, y3])]
            },
        )
    }
    #[inline(always)]
    fn store(self, x: &Self::Fe, y: &Self::Fe, mut put: impl FnMut(usize, Entry)) {
        let ([x0, x1, x2, x3], [y0, y1, y2, y3]) = (to_words(x), to_words(y));
        let rows = P::Words::transpose([x0, x1, x2, x3, y0, y1, y2, y3]);
        for (lane, row) in rows.into_iter().enumerate() {
            put(lane, Entry(row.to_array()));
        }
    }
    #[inline(always)]
    fn prefetch(self, entry: &Entry) {
        self.0.prefetch(&entry.0);
    }
    #[inline(always)]
    fn digits<const BITS: u32>(self, halves: &Halves, position: usize) -> Digits {
        self.0.operate(
            #[inline(always)]
            || {
                let from = BITS as usize * position;
                let (word, shift) = (from / 64, (from % 64) as u32);
                let ifma = self.0;
                let mut value = ifma.load(&halves.0[word]).shr_by(shift);
                if word < 2 {
                    value = value | ifma.load(&halves.0[word + 1]).shl_by(64 - shift);
                }
                // As the plain function does it.
                let positive = value.test(ifma.splat(1 << (BITS - 1)));
                let negative = LaneMask(!positive.0);
                let low_bits = ifma.splat((1 << (BITS - 1)) - 1);
                let index = (value ^ ifma.zero().replaced(negative, low_bits)) & low_bits;
                Digits { index: index.to_array(), negative }
            },
        )
    }
    #[inline(always)]
    fn as_factor(value: &Self::Fe) -> &Self::Factor {
        &value.0
    }
    #[inline(always)]
    fn lazy(value: &Self::Fe) -> Self::Lazy<1> {
        Lazy(value.0.0)
    }
    #[inline(always)]
    fn signed(self, value: &Self::Fe, mask: LaneMask) -> Self::Signed {
        self.0.operate(
            #[inline(always)]
            || {
                let negated = less(&zeros(self.0), &value.0.0, 2);
                Signed(select(&value.0.0, mask, &negated))
            },
        )
    }
    #[inline(always)]
    fn unsigned(value: &Self::Fe) -> Self::Signed {
        Signed(value.0.0)
    }
    #[inline(always)]
    fn plus<const M: u64, const N: u64, const R: u64>(
        self,
        a: &Lazy<P::Words, M>,
        b: &Lazy<P::Words, N>,
    ) -> Lazy<P::Words, R> {
        const { assert!(M + N <= R) }
        self.0.operate(
            #[inline(always)]
            || Lazy(add(&a.0, &b.0)),
        )
    }
    #[inline(always)]
    fn minus<const M: u64, const N: u64, const R: u64>(
        self,
        a: &Lazy<P::Words, M>,
        b: &Lazy<P::Words, N>,
    ) -> Lazy<P::Words, R> {
        const { assert!(M + N <= R && R < 1 << 11) }
        self.0.operate(
            #[inline(always)]
            || Lazy(less(&a.0, &b.0, 2 * N)),
        )
    }
    #[inline(always)]
    fn factor<const M: u64>(self, value: &Self::Lazy<M>) -> Self::Factor {
        const { assert!(2 * M - 1 <= 255) }
        self.0.operate(
            #[inline(always)]
            || carried::<_, 255>(&value.0),
        )
    }
    #[inline(always)]
    fn doubled_factor<const M: u64>(self, value: &Self::Lazy<M>) -> Self::Factor {
        const { assert!(2 * (2 * M - 1) <= 255) }
        self.0.operate(
            #[inline(always)]
            || carried::<_, 255>(&add(&value.0, &value.0)),
        )
    }
    #[inline(always)]
    fn signed_difference(self, a: &Self::Signed, b: &Self::Signed) -> Self::Factor {
        self.0.operate(
            #[inline(always)]
            || carried::<_, 5>(&less(&a.0, &b.0, 3)),
        )
    }
    #[inline(always)]
    fn reduce(self, value: &Self::Factor) -> Self::Fe {
        self.0.operate(
            #[inline(always)]
            || value.reduce(),
        )
    }
    #[inline(always)]
    fn product<const N: usize>(self, a: [&Self::Factor; N], b: [&Self::Factor; N]) -> [Self::Factor; N] {
        self.0.operate(
            #[inline(always)]
            || each!(N, i => product(a[i], b[i]).factor()),
        )
    }
    #[inline(always)]
    fn product_reduced<const N: usize>(self, a: [&Self::Factor; N], b: [&Self::Factor; N]) -> [Self::Fe; N] {
        self.0.operate(
            #[inline(always)]
            || each!(N, i => product(a[i], b[i]).reduce()),
        )
    }
    #[inline(always)]
    fn product_minus<const N: usize, const M: u64>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [Self::Lazy<M>; N],
    ) -> [Self::Fe; N] {
        const { assert!(2 * M <= 31) }
        self.0.operate(
            #[inline(always)]
            || each!(N, i => product_plus(a[i], b[i], &c[i].negated()).reduce()),
        )
    }
    #[inline(always)]
    fn product_minus_signed<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [Self::Signed; N],
    ) -> [Self::Fe; N] {
        self.0.operate(
            #[inline(always)]
            || each!(N, i => product_plus(a[i], b[i], &less(&zeros(self.0), &c[i].0, 3)).reduce()),
        )
    }
    #[inline(always)]
    fn product_doubled_minus<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [&Self::Fe; N],
    ) -> [Self::Factor; N] {
        self.0.operate(
            #[inline(always)]
            || {
                each!(N, i => {
                    product(a[i], b[i]).times::<2, 2>().plus::<3>(&Self::lazy(c[i]).negated()).factor()
                })
            },
        )
    }
    #[inline(always)]
    fn product_minus_product<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [&Self::Factor; N],
        d: [&Self::Factor; N],
    ) -> [Self::Fe; N] {
        self.0.operate(
            #[inline(always)]
            || each!(N, i => product_minus_product(a[i], b[i], c[i], d[i]).reduce()),
        )
    }
    #[inline(always)]
    fn product_minus_square<const N: usize>(
        self,
        a: [&Self::Factor; N],
        b: [&Self::Factor; N],
        c: [&Self::Factor; N],
    ) -> [Self::Fe; N] {
        self.0.operate(
            #[inline(always)]
            || each!(N, i => product_minus_square(a[i], b[i], c[i]).reduce()),
        )
    }
    #[inline(always)]
    fn square<const N: usize>(self, a: [&Self::Factor; N]) -> [Self::Factor; N] {
        self.0.operate(
            #[inline(always)]
            || each!(N, i => square(a[i]).factor()),
        )
    }
    #[inline(always)]
    fn square_tripled<const N: usize>(self, a: [&Self::Factor; N]) -> [Self::Factor; N] {
        self.0.operate(
            #[inline(always)]
            || each!(N, i => square(a[i]).times::<3, 3>().factor()),
        )
    }
    #[inline(always)]
    fn square_minus<const N: usize, const M: u64>(
        self,
        a: [&Self::Factor; N],
        c: [Self::Lazy<M>; N],
    ) -> [Self::Fe; N] {
        const { assert!(2 * M <= 31) }
        self.0.operate(
            #[inline(always)]
            || each!(N, i => square_plus(a[i], &c[i].negated()).reduce()),
        )
    }
    #[inline(always)]
    fn invert_lanes(self, value: &Self::Fe) -> Self::Factor {
        self.0.operate(
            #[inline(always)]
            || {
                // Products of lanes four apart, then two, then one: the last is that of all eight lanes, in each.
                let by_four = product(&value.0, &rotated::<_, 4>(value).0).reduce();
                let by_two = product(&by_four.0, &rotated::<_, 2>(&by_four).0).reduce();
                let all = product(&by_two.0, &rotated::<_, 1>(&by_two).0).reduce();
                let inverse = FIELD.invert(&self.to_lanes(&all)[0]);
                let all = self.load_lanes(
                    #[inline(always)]
                    |_| inverse,
                );
                let by_two = product(&all.0, &rotated::<_, 1>(&by_two).0).factor();
                let by_four = product(&by_two, &rotated::<_, 2>(&by_four).0).factor();
                product(&by_four, &rotated::<_, 4>(value).0).factor()
            },
        )
    }
}

/// Lane `i` gets lane `(i + BY) mod 8`.
#[inline(always)]
fn rotated<V: Words, const BY: i32>(value: &Fe<V>) -> Fe<V> {
    let a = &value.0.0;
    Fe(Factor([
        a[0].rotated::<BY>(),
        a[1].rotated::<BY>(),
        a[2].rotated::<BY>(),
        a[3].rotated::<BY>(),
        a[4].rotated::<BY>(),
    ]))
}

#[inline(always)]
fn zeros<P: Processor>(ifma: P) -> [P::Words; 5] {
    [ifma.zero(); 5]
}

/// From little-endian 64-bit words, words[k] holding word k of each lane. Any 256-bit value is reduced enough.
#[inline(always)]
fn from_words<V: Words>(words: &[V; 4]) -> Fe<V> {
    let mask = words[0].proof().splat(MASK_52);
    Fe(Factor([
        words[0] & mask,
        (words[0].shr::<52>() | words[1].shl::<12>()) & mask,
        (words[1].shr::<40>() | words[2].shl::<24>()) & mask,
        (words[2].shr::<28>() | words[3].shl::<36>()) & mask,
        words[3].shr::<16>(),
    ]))
}

/// The canonical values as little-endian 64-bit words, word k of each lane in result k.
#[inline(always)]
fn to_words<V: Words>(value: &Fe<V>) -> [V; 4] {
    let n = canonical(value);
    [
        n[0] | n[1].shl::<52>(),
        n[1].shr::<12>() | n[2].shl::<40>(),
        n[2].shr::<24>() | n[3].shl::<28>(),
        n[3].shr::<36>() | n[4].shl::<16>(),
    ]
}

/// The limbs of the same values below p.
#[inline(always)]
fn canonical<V: Words>(value: &Fe<V>) -> [V; 5] {
    let a = &value.0.0;
    let ifma = a[0].proof();
    let (mask, fold) = (ifma.splat(MASK_52), ifma.splat(FOLD_256));
    // a < 2p, and a >= p exactly if a + 2^256 - p reaches 2^256: `over` is 1 then, else 0.
    let carry = (a[0] + fold).shr::<52>();
    let carry = (a[1] + carry).shr::<52>();
    let carry = (a[2] + carry).shr::<52>();
    let carry = (a[3] + carry).shr::<52>();
    let over = (a[4] + carry).shr::<48>();
    let c0 = a[0].add_low(over, fold);
    let c1 = a[1] + c0.shr::<52>();
    let c2 = a[2] + c1.shr::<52>();
    let c3 = a[3] + c2.shr::<52>();
    let c4 = a[4] + c3.shr::<52>();
    [c0 & mask, c1 & mask, c2 & mask, c3 & mask, c4 & ifma.splat(MASK_48)]
}

impl<V: Words> Factor<V> {
    #[inline(always)]
    fn new(limbs: [V; 5]) -> Factor<V> {
        if cfg!(debug_assertions) {
            assert_top(&limbs[4]);
        }
        Factor(limbs)
    }

    /// The same values without the rubbish.
    #[inline(always)]
    fn reduce(&self) -> Fe<V> {
        let a = &self.0;
        let mask = a[0].proof().splat(MASK_52);
        Fe(Factor([a[0] & mask, a[1] & mask, a[2] & mask, a[3] & mask, a[4]]))
    }
}

impl<V: Words, const M: u64> Lazy<V, M> {
    /// A multiple of p less the value, each limb at most 2 M times the largest limb of an `Fe`.
    #[inline(always)]
    fn negated(&self) -> [V; 5] {
        less(&zeros(self.0[0].proof()), &self.0, 2 * M)
    }
}

/// a - b + `times` p, for b with limbs at most `times - 1` times the largest limb of an `Fe`. Limb by limb, (K + 1) p
/// is at least K times that, for (K + 1) (2^52 - 2^33) >= K * 2^52 and (K + 1) (2^48 - 1) >= K * (2^48 + 2^12) while K
/// is below 2^12.
#[inline(always)]
fn less<V: Words>(a: &[V; 5], b: &[V; 5], times: u64) -> [V; 5] {
    add(a, &subtract(&multiple_of_p(a[0].proof(), times), b))
}

/// Carries a sum whose limbs are at most `K` times the largest of an `Fe`.
#[inline(always)]
fn carried<V: Words, const K: u64>(c: &[V; 5]) -> Factor<V> {
    // Limbs are below 2^60, so the part of limb 4 above 2^256 is below 2^12, and times 2^256 mod p below 2^45.
    const { assert!(K <= 255) }
    let ifma = c[0].proof();
    let above = c[4].shr::<48>();
    let c0 = c[0].add_low(above, ifma.splat(FOLD_256));
    let c1 = c[1] + c0.shr::<52>();
    let c2 = c[2] + c1.shr::<52>();
    let c3 = c[3] + c2.shr::<52>();
    Factor::new([c0, c1, c2, c3, (c[4] & ifma.splat(MASK_48)) + c3.shr::<52>()])
}

impl<V: Words, const W: u64> Product<V, W> {
    /// `TIMES` (two or three) times the value.
    #[inline(always)]
    fn times<const TIMES: u64, const R: u64>(self) -> Product<V, R> {
        const { assert!((TIMES == 2 || TIMES == 3) && TIMES * W <= R) }
        let (mut limbs, mut above) = (add(&self.limbs, &self.limbs), self.above + self.above);
        if TIMES == 3 {
            (limbs, above) = (add(&limbs, &self.limbs), above + self.above);
        }
        Product { limbs, above }
    }

    /// The sum with limbs below 2^57, at most 31 times the largest of an `Fe`.
    #[inline(always)]
    fn plus<const R: u64>(self, other: &[V; 5]) -> Product<V, R> {
        const { assert!(W < R) }
        Product { limbs: add(&self.limbs, other), above: self.above }
    }

    /// The value reduced.
    #[inline(always)]
    fn reduce(self) -> Fe<V> {
        self.factor().reduce()
    }

    /// The value, for multiplying only.
    #[inline(always)]
    fn factor(self) -> Factor<V> {
        // Limbs are below 2^60, `above` below 2^41: the part above 2^256 is below 2^46.
        const { assert!(W <= 8) }
        let c = &self.limbs;
        let ifma = c[0].proof();
        let fold = ifma.splat(FOLD_256);
        let above = c[4].shr::<48>() + self.above.shl::<4>();
        let c0 = c[0].add_low(above, fold);
        let c1 = c[1].add_high(above, fold) + c0.shr::<52>();
        let c2 = c[2] + c1.shr::<52>();
        let c3 = c[3] + c2.shr::<52>();
        Factor::new(V::in_order([c0, c1, c2, c3, (c[4] & ifma.splat(MASK_48)) + c3.shr::<52>()]))
    }
}

/// a * b.
#[inline(always)]
fn product<V: Words>(a: &Factor<V>, b: &Factor<V>) -> Product<V, 1> {
    let zero = zeros(a.0[0].proof());
    let high = carry_high(&high_columns(a, b, &zero));
    fold(&low_columns(a, b, &zero), &high)
}

/// a * b + c, for c with limbs at most 31 times the largest of an `Fe`.
#[inline(always)]
fn product_plus<V: Words>(a: &Factor<V>, b: &Factor<V>, c: &[V; 5]) -> Product<V, 2> {
    let zero = zeros(a.0[0].proof());
    let high = carry_high(&high_columns(a, b, &zero));
    let Product { limbs, above } = fold(&low_columns(a, b, c), &high);
    Product { limbs, above }
}

/// a * b - c * d. The subtrahend comes first: where b is ready last, the rest is done meanwhile.
#[inline(always)]
fn product_minus_product<V: Words>(
    a: &Factor<V>,
    b: &Factor<V>,
    c: &Factor<V>,
    d: &Factor<V>,
) -> Product<V, 8> {
    let ifma = a.0[0].proof();
    let (bias_low, bias_high) = bias(ifma);
    let zero = zeros(ifma);
    let start = subtract(&bias_high, &high_columns(c, d, &zero));
    let high = carry_high(&high_columns(a, b, &start));
    let start = subtract(&bias_low, &low_columns(c, d, &zero));
    let low = low_columns(a, b, &start);
    let Product { limbs, above } = fold(&low, &high);
    Product { limbs, above }
}

/// a * b - c^2, the square first as above.
#[inline(always)]
fn product_minus_square<V: Words>(a: &Factor<V>, b: &Factor<V>, c: &Factor<V>) -> Product<V, 8> {
    let (bias_low, bias_high) = bias(a.0[0].proof());
    let start = subtract(&bias_high, &square_high_columns(c));
    let high = carry_high(&high_columns(a, b, &start));
    let start = subtract(&bias_low, &square_low_columns(c));
    let low = low_columns(a, b, &start);
    let Product { limbs, above } = fold(&low, &high);
    Product { limbs, above }
}

/// a^2.
#[inline(always)]
fn square<V: Words>(a: &Factor<V>) -> Product<V, 1> {
    let high = carry_high(&square_high_columns(a));
    fold(&square_low_columns(a), &high)
}

/// a^2 + c, for c with limbs at most 31 times the largest of an `Fe`.
#[inline(always)]
fn square_plus<V: Words>(a: &Factor<V>, c: &[V; 5]) -> Product<V, 2> {
    let high = carry_high(&square_high_columns(a));
    let Product { limbs, above } = fold(&add(&square_low_columns(a), c), &high);
    Product { limbs, above }
}

/// Columns 0 to 4 of a * b, added to `start`. A column is one chain of sums: by rows, so that the next step of a column
/// is never waited for, and columns summed in parts would have to be added up.
#[inline(always)]
fn low_columns<V: Words>(a: &Factor<V>, b: &Factor<V>, start: &[V; 5]) -> [V; 5] {
    let (a, b) = (&a.0, &b.0);
    let [t0, t1, t2, t3, t4] = *start;
    let [t0, t1, t2, t3, t4] = V::in_order([
        t0.add_low(a[0], b[0]),
        t1.add_low(a[0], b[1]),
        t2.add_low(a[0], b[2]),
        t3.add_low(a[0], b[3]),
        t4.add_low(a[0], b[4]),
    ]);
    let [t0, t1, t2, t3, t4] = V::in_order([
        t0,
        t1.add_high(a[0], b[0]),
        t2.add_high(a[0], b[1]),
        t3.add_high(a[0], b[2]),
        t4.add_high(a[0], b[3]),
    ]);
    let [t0, t1, t2, t3, t4] = V::in_order([
        t0,
        t1.add_low(a[1], b[0]),
        t2.add_low(a[1], b[1]),
        t3.add_low(a[1], b[2]),
        t4.add_low(a[1], b[3]),
    ]);
    let [t0, t1, t2, t3, t4] = V::in_order([
        t0,
        t1,
        t2.add_high(a[1], b[0]).add_low(a[2], b[0]),
        t3.add_high(a[1], b[1]).add_low(a[2], b[1]),
        t4.add_high(a[1], b[2]).add_low(a[2], b[2]),
    ]);
    [
        t0,
        t1,
        t2,
        t3.add_high(a[2], b[0]).add_low(a[3], b[0]),
        t4.add_high(a[2], b[1]).add_low(a[3], b[1]).add_high(a[3], b[0]).add_low(a[4], b[0]),
    ]
}

/// Columns 5 to 9 of a * b, added to `start`, before carrying.
#[inline(always)]
fn high_columns<V: Words>(a: &Factor<V>, b: &Factor<V>, start: &[V; 5]) -> [V; 5] {
    let (a, b) = (&a.0, &b.0);
    let [h5, h6, h7, h8, h9] = *start;
    let [h5, h6, h7, h8, h9] = V::in_order([
        h5.add_low(a[4], b[1]),
        h6.add_low(a[4], b[2]),
        h7.add_low(a[4], b[3]),
        h8.add_low(a[4], b[4]),
        h9.add_high(a[4], b[4]),
    ]);
    let [h5, h6, h7, h8, h9] = V::in_order([
        h5.add_high(a[4], b[0]),
        h6.add_high(a[4], b[1]),
        h7.add_high(a[4], b[2]),
        h8.add_high(a[4], b[3]),
        h9,
    ]);
    let [h5, h6, h7, h8, h9] = V::in_order([
        h5.add_low(a[3], b[2]),
        h6.add_low(a[3], b[3]),
        h7.add_low(a[3], b[4]),
        h8.add_high(a[3], b[4]),
        h9,
    ]);
    let [h5, h6, h7, h8, h9] = V::in_order([
        h5.add_high(a[3], b[1]).add_low(a[2], b[3]),
        h6.add_high(a[3], b[2]).add_low(a[2], b[4]),
        h7.add_high(a[3], b[3]).add_high(a[2], b[4]),
        h8,
        h9,
    ]);
    [
        h5.add_high(a[2], b[2]).add_low(a[1], b[4]).add_high(a[1], b[3]).add_high(a[0], b[4]),
        h6.add_high(a[2], b[3]).add_high(a[1], b[4]),
        h7,
        h8,
        h9,
    ]
}

/// Columns 0 to 4 of a^2: the products of different limbs once, doubled.
#[inline(always)]
fn square_low_columns<V: Words>(a: &Factor<V>) -> [V; 5] {
    let a = &a.0;
    let zero = a[0].proof().zero();
    let x4 = zero.add_low(a[0], a[4]).add_high(a[0], a[3]);
    let y4 = zero.add_low(a[1], a[3]).add_high(a[1], a[2]);
    let x3 = zero.add_low(a[0], a[3]).add_low(a[1], a[2]).add_high(a[0], a[2]);
    let x2 = zero.add_low(a[0], a[2]).add_high(a[0], a[1]);
    let x1 = zero.add_low(a[0], a[1]);
    [
        zero.add_low(a[0], a[0]),
        x1.doubled().add_high(a[0], a[0]),
        x2.doubled().add_low(a[1], a[1]),
        x3.doubled().add_high(a[1], a[1]),
        (x4 + y4).doubled().add_low(a[2], a[2]),
    ]
}

/// Columns 5 to 9 of a^2, before carrying.
#[inline(always)]
fn square_high_columns<V: Words>(a: &Factor<V>) -> [V; 5] {
    let a = &a.0;
    let zero = a[0].proof().zero();
    let x5 = zero.add_low(a[1], a[4]).add_high(a[0], a[4]);
    let y5 = zero.add_low(a[2], a[3]).add_high(a[1], a[3]);
    let x6 = zero.add_low(a[2], a[4]).add_high(a[1], a[4]).add_high(a[2], a[3]);
    let x7 = zero.add_low(a[3], a[4]).add_high(a[2], a[4]);
    let x8 = zero.add_high(a[3], a[4]);
    [
        (x5 + y5).doubled().add_high(a[2], a[2]),
        x6.doubled().add_low(a[3], a[3]),
        x7.doubled().add_high(a[3], a[3]),
        x8.doubled().add_low(a[4], a[4]),
        zero.add_high(a[4], a[4]),
    ]
}

/// Passes the carries of columns 5 to 9 on without taking them away below: the fold reads 52 bits only.
#[inline(always)]
fn carry_high<V: Words>(h: &[V; 5]) -> [V; 5] {
    let h = &V::in_order(*h);
    let h6 = h[1] + h[0].shr::<52>();
    let h7 = h[2] + h6.shr::<52>();
    let h8 = h[3] + h7.shr::<52>();
    let h9 = h[4] + h8.shr::<52>();
    V::in_order([h[0], h6, h7, h8, h9])
}

/// Adds columns 5 to 9 to columns 0 to 4, times 2^260 mod p. The caller answers for the weight: one if the low columns
/// are below 2^56, two below 2^57, eight below 2^59.
#[inline(always)]
fn fold<V: Words>(low: &[V; 5], high: &[V; 5]) -> Product<V, 1> {
    let ifma = low[0].proof();
    let by = ifma.splat(FOLD_260);
    let low = &V::in_order(*low);
    Product {
        limbs: [
            low[0].add_low(high[0], by),
            low[1].add_high(high[0], by).add_low(high[1], by),
            low[2].add_high(high[1], by).add_low(high[2], by),
            low[3].add_high(high[2], by).add_low(high[3], by),
            low[4].add_high(high[3], by).add_low(high[4], by),
        ],
        above: ifma.zero().add_high(high[4], by),
    }
}

/// A multiple of p in ten columns, each large enough that a product's column can be taken from it: columns 0 to 8 are
/// at least 2^58, where a product's are below 2^56; column 9 is 2^48, where a product's is below 2^45.
const BIAS: [u64; 10] = {
    // 2^58 in columns 0 to 8 and 2^48 in column 9, modulo p, columns 5 to 9 folded onto 0 to 4.
    let mut value = [(1u128 << 58) + (1u128 << 58) * FOLD_260 as u128; 5];
    value[4] = (1 << 58) + (1 << 48) * FOLD_260 as u128;
    let mut round = 0;
    while round < 4 {
        let mut k = 0;
        while k < 4 {
            value[k + 1] += value[k] >> 52;
            value[k] &= MASK_52 as u128;
            k += 1;
        }
        value[0] += (value[4] >> 48) * FOLD_256 as u128;
        value[4] &= MASK_48 as u128;
        round += 1;
    }
    // Adding 4p less that makes it a multiple of p.
    let mut bias = [1 << 58; 10];
    bias[9] = 1 << 48;
    let mut k = 0;
    while k < 5 {
        bias[k] += 4 * P[k] - value[k] as u64;
        k += 1;
    }
    bias
};

#[inline(always)]
fn bias<P: Processor>(ifma: P) -> ([P::Words; 5], [P::Words; 5]) {
    let b = &BIAS;
    (
        [ifma.splat(b[0]), ifma.splat(b[1]), ifma.splat(b[2]), ifma.splat(b[3]), ifma.splat(b[4])],
        [ifma.splat(b[5]), ifma.splat(b[6]), ifma.splat(b[7]), ifma.splat(b[8]), ifma.splat(b[9])],
    )
}

#[inline(always)]
fn multiple_of_p<P: Processor>(ifma: P, times: u64) -> [P::Words; 5] {
    [
        ifma.splat(times * P[0]),
        ifma.splat(times * P[1]),
        ifma.splat(times * P[2]),
        ifma.splat(times * P[3]),
        ifma.splat(times * P[4]),
    ]
}

#[inline(always)]
fn add<V: Words>(a: &[V; 5], b: &[V; 5]) -> [V; 5] {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4]]
}

#[inline(always)]
fn subtract<V: Words>(a: &[V; 5], b: &[V; 5]) -> [V; 5] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3], a[4] - b[4]]
}

#[inline(always)]
fn select<V: Words>(a: &[V; 5], mask: LaneMask, b: &[V; 5]) -> [V; 5] {
    [
        a[0].replaced(mask, b[0]),
        a[1].replaced(mask, b[1]),
        a[2].replaced(mask, b[2]),
        a[3].replaced(mask, b[3]),
        a[4].replaced(mask, b[4]),
    ]
}

/// Checks the bound of limb 4, in each lane.
#[inline(never)]
fn assert_top<V: Words>(limb: &V) {
    for value in limb.to_array() {
        assert!(value <= TOP, "limb 4 is {value:#x}");
    }
}

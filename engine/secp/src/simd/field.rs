//! The field of secp256k1, p = 2^256 - 2^32 - 977, eight elements at a time.
//!
//! An element is five limbs of 52 bits, one vector a limb: value = sum of limb k * 2^(52 k). Four types say what is
//! known of the limbs; the compiler keeps them apart, and where a bound grows with a sum it is a const parameter
//! checked when the code is compiled:
//!
//! * [`Fe`], reduced: limbs 0 to 3 below 2^52, limb 4 at most [`TOP`] = 2^48 + 2^12. Below 2p, not canonical.
//! * [`Factor`], for multiplying only: as `Fe`, but limbs 0 to 3 may hold rubbish above bit 52, which the
//!   instructions ignore. It saves four masks.
//! * [`Lazy`]`<M>`, a sum: each limb at most M times the largest limb of an `Fe`.
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
//! Budget: 9.3 ns per product of eight, 7.9 ns per square, when two or more are independent.

use super::lanes::{Ifma, LaneMask, Lanes, in_order};

/// Eight reduced field elements: limbs 0 to 3 below 2^52, limb 4 at most [`TOP`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Fe([Lanes; 5]);

/// Eight field elements fit for multiplying only: the digits are the low 52 bits of limbs 0 to 3.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Factor([Lanes; 5]);

/// A sum of up to `M` elements: each limb at most `M` times the largest limb of an [`Fe`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Lazy<const M: u64>([Lanes; 5]);

/// A product folded once: value = limbs + `above` * 2^260; limbs below `W` * 2^57, `above` below `W` * 2^38.
#[derive(Clone, Copy)]
pub(crate) struct Product<const W: u64> {
    limbs: [Lanes; 5],
    above: Lanes,
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

/// An operand of products.
pub(crate) trait Multiplicand: Copy {
    /// The limbs; of 0 to 3 only the low 52 bits count, limb 4 is at most [`TOP`].
    fn limbs(&self) -> &[Lanes; 5];
}

impl Multiplicand for Fe {
    #[inline(always)]
    fn limbs(&self) -> &[Lanes; 5] {
        &self.0
    }
}

impl Multiplicand for Factor {
    #[inline(always)]
    fn limbs(&self) -> &[Lanes; 5] {
        &self.0
    }
}

impl Fe {
    /// The same small number in every lane.
    #[inline(always)]
    pub(crate) fn small(ifma: Ifma, value: u32) -> Fe {
        let zero = ifma.zero();
        Fe([ifma.splat(value.into()), zero, zero, zero, zero])
    }

    /// From little-endian 64-bit words, words[k] holding word k of each lane. Any 256-bit value is reduced enough.
    #[inline(always)]
    pub(crate) fn from_words(words: &[Lanes; 4]) -> Fe {
        let mask = words[0].proof().splat(MASK_52);
        Fe([
            words[0] & mask,
            (words[0].shr::<52>() | words[1].shl::<12>()) & mask,
            (words[1].shr::<40>() | words[2].shl::<24>()) & mask,
            (words[2].shr::<28>() | words[3].shl::<36>()) & mask,
            words[3].shr::<16>(),
        ])
    }

    /// From one 256-bit number a lane, little-endian words.
    #[inline(always)]
    pub(crate) fn from_lanes(ifma: Ifma, values: &[[u64; 4]; 8]) -> Fe {
        let mut words = [[0; 8]; 4];
        for (lane, value) in values.iter().enumerate() {
            for (word, values) in words.iter_mut().enumerate() {
                values[lane] = value[word];
            }
        }
        Fe::from_words(&[
            ifma.load(&words[0]),
            ifma.load(&words[1]),
            ifma.load(&words[2]),
            ifma.load(&words[3]),
        ])
    }

    /// The canonical values as little-endian 64-bit words, word k of each lane in result k.
    #[inline(always)]
    pub(crate) fn to_words(self) -> [Lanes; 4] {
        let n = self.canonical().0;
        [
            n[0] | n[1].shl::<52>(),
            n[1].shr::<12>() | n[2].shl::<40>(),
            n[2].shr::<24>() | n[3].shl::<28>(),
            n[3].shr::<36>() | n[4].shl::<16>(),
        ]
    }

    /// The canonical value of each lane, little-endian words.
    #[inline(always)]
    pub(crate) fn to_lanes(self) -> [[u64; 4]; 8] {
        let [w0, w1, w2, w3] = self.to_words();
        let (w0, w1, w2, w3) = (w0.to_array(), w1.to_array(), w2.to_array(), w3.to_array());
        let mut values = [[0; 4]; 8];
        for (lane, value) in values.iter_mut().enumerate() {
            *value = [w0[lane], w1[lane], w2[lane], w3[lane]];
        }
        values
    }

    /// The same values below p.
    #[inline(always)]
    pub(crate) fn canonical(self) -> Fe {
        let a = &self.0;
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
        Fe([c0 & mask, c1 & mask, c2 & mask, c3 & mask, c4 & ifma.splat(MASK_48)])
    }

    /// The lanes that hold zero modulo p.
    #[inline(always)]
    pub(crate) fn zeros(self) -> LaneMask {
        let n = self.canonical().0;
        ((n[0] | n[1]) | (n[2] | n[3]) | n[4]).zeros()
    }

    /// The lanes whose canonical value is odd; `self` must be canonical.
    #[inline(always)]
    pub(crate) fn odd_lanes(self) -> LaneMask {
        self.0[0].test(self.0[0].proof().splat(1))
    }

    /// For multiplying.
    #[inline(always)]
    pub(crate) fn factor(self) -> Factor {
        Factor(self.0)
    }

    /// For adding.
    #[inline(always)]
    pub(crate) fn lazy(self) -> Lazy<1> {
        Lazy(self.0)
    }

    /// `other` in the lanes of `mask`, `self` elsewhere.
    #[inline(always)]
    pub(crate) fn replaced(self, mask: LaneMask, other: Fe) -> Fe {
        Fe(select(&self.0, mask, &other.0))
    }

    /// Lane `i` gets lane `(i + BY) mod 8`.
    #[inline(always)]
    pub(crate) fn rotated<const BY: i32>(self) -> Fe {
        let a = &self.0;
        Fe([
            a[0].rotated::<BY>(),
            a[1].rotated::<BY>(),
            a[2].rotated::<BY>(),
            a[3].rotated::<BY>(),
            a[4].rotated::<BY>(),
        ])
    }
}

impl Factor {
    #[inline(always)]
    fn new(limbs: [Lanes; 5]) -> Factor {
        if cfg!(debug_assertions) {
            assert_top(&limbs[4]);
        }
        Factor(limbs)
    }

    /// The same values without the rubbish.
    #[inline(always)]
    pub(crate) fn reduce(self) -> Fe {
        let a = &self.0;
        let mask = a[0].proof().splat(MASK_52);
        Fe([a[0] & mask, a[1] & mask, a[2] & mask, a[3] & mask, a[4]])
    }

    /// `other` in the lanes of `mask`, `self` elsewhere.
    #[inline(always)]
    pub(crate) fn replaced(self, mask: LaneMask, other: Factor) -> Factor {
        Factor(select(&self.0, mask, &other.0))
    }
}

impl<const M: u64> Lazy<M> {
    /// The same under a wider bound.
    #[inline(always)]
    pub(crate) fn widened<const R: u64>(self) -> Lazy<R> {
        const { assert!(M <= R) }
        Lazy(self.0)
    }

    /// The sum.
    #[inline(always)]
    pub(crate) fn plus<const N: u64, const R: u64>(self, other: Lazy<N>) -> Lazy<R> {
        const { assert!(M + N <= R) }
        Lazy(add(&self.0, &other.0))
    }

    /// Twice the value.
    #[inline(always)]
    pub(crate) fn doubled<const R: u64>(self) -> Lazy<R> {
        const { assert!(2 * M <= R) }
        Lazy(add(&self.0, &self.0))
    }

    /// A multiple of p less the value. Limb by limb, (M + 1) p is at least M times the largest `Fe`, for
    /// (M + 1) (2^52 - 2^33) >= M * 2^52 and (M + 1) (2^48 - 1) >= M * (2^48 + 2^12) while M is below 2^12.
    #[inline(always)]
    pub(crate) fn negated<const R: u64>(self) -> Lazy<R> {
        const { assert!(M < R && R < 1 << 12) }
        Lazy(subtract(&multiple_of_p(self.0[0].proof(), M + 1), &self.0))
    }

    /// Negated in the lanes of `mask`, as it is elsewhere.
    #[inline(always)]
    pub(crate) fn negated_in<const R: u64>(self, mask: LaneMask) -> Lazy<R> {
        const { assert!(M < R) }
        Lazy(select(&self.0, mask, &self.negated::<R>().0))
    }

    #[inline(always)]
    fn carried(self) -> [Lanes; 5] {
        // Limbs are below 2^60, so the part of limb 4 above 2^256 is below 2^12, and times 2^256 mod p below 2^45.
        const { assert!(M <= 255) }
        let c = &self.0;
        let ifma = c[0].proof();
        let above = c[4].shr::<48>();
        let c0 = c[0].add_low(above, ifma.splat(FOLD_256));
        let c1 = c[1] + c0.shr::<52>();
        let c2 = c[2] + c1.shr::<52>();
        let c3 = c[3] + c2.shr::<52>();
        [c0, c1, c2, c3, (c[4] & ifma.splat(MASK_48)) + c3.shr::<52>()]
    }

    /// The same value reduced.
    #[inline(always)]
    pub(crate) fn reduce(self) -> Fe {
        self.factor().reduce()
    }

    /// The same value, for multiplying only.
    #[inline(always)]
    pub(crate) fn factor(self) -> Factor {
        Factor::new(self.carried())
    }
}

impl<const W: u64> Product<W> {
    /// `TIMES` (two or three) times the value.
    #[inline(always)]
    pub(crate) fn times<const TIMES: u64, const R: u64>(self) -> Product<R> {
        const { assert!((TIMES == 2 || TIMES == 3) && TIMES * W <= R) }
        let (mut limbs, mut above) = (add(&self.limbs, &self.limbs), self.above + self.above);
        if TIMES == 3 {
            (limbs, above) = (add(&limbs, &self.limbs), above + self.above);
        }
        Product { limbs, above }
    }

    /// The sum with a lazy value, whose limbs are below 2^57.
    #[inline(always)]
    pub(crate) fn plus<const M: u64, const R: u64>(self, other: Lazy<M>) -> Product<R> {
        const { assert!(M <= 31 && W < R) }
        Product { limbs: add(&self.limbs, &other.0), above: self.above }
    }

    /// The value reduced.
    #[inline(always)]
    pub(crate) fn reduce(self) -> Fe {
        self.factor().reduce()
    }

    /// The value, for multiplying only.
    #[inline(always)]
    pub(crate) fn factor(self) -> Factor {
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
        Factor::new(in_order([c0, c1, c2, c3, (c[4] & ifma.splat(MASK_48)) + c3.shr::<52>()]))
    }
}

/// a * b.
#[inline(always)]
pub(crate) fn product(a: &impl Multiplicand, b: &impl Multiplicand) -> Product<1> {
    let zero = [a.limbs()[0].proof().zero(); 5];
    let high = carry_high(&high_columns(a, b, &zero));
    fold(&low_columns(a, b, &zero), &high)
}

/// a * b + c.
#[inline(always)]
pub(crate) fn product_plus<const M: u64>(
    a: &impl Multiplicand,
    b: &impl Multiplicand,
    c: Lazy<M>,
) -> Product<2> {
    const { assert!(M <= 31) }
    let zero = [a.limbs()[0].proof().zero(); 5];
    let high = carry_high(&high_columns(a, b, &zero));
    let Product { limbs, above } = fold(&low_columns(a, b, &c.0), &high);
    Product { limbs, above }
}

/// a * b - c * d. The subtrahend comes first: where b is ready last, the rest is done meanwhile.
#[inline(always)]
pub(crate) fn product_minus_product(
    a: &impl Multiplicand,
    b: &impl Multiplicand,
    c: &impl Multiplicand,
    d: &impl Multiplicand,
) -> Product<8> {
    let ifma = a.limbs()[0].proof();
    let (bias_low, bias_high) = bias(ifma);
    let zero = [ifma.zero(); 5];
    let start = subtract(&bias_high, &high_columns(c, d, &zero));
    let high = carry_high(&high_columns(a, b, &start));
    let start = subtract(&bias_low, &low_columns(c, d, &zero));
    let low = low_columns(a, b, &start);
    let Product { limbs, above } = fold(&low, &high);
    Product { limbs, above }
}

/// a * b - c^2, the square first as above.
#[inline(always)]
pub(crate) fn product_minus_square(
    a: &impl Multiplicand,
    b: &impl Multiplicand,
    c: &impl Multiplicand,
) -> Product<8> {
    let (bias_low, bias_high) = bias(a.limbs()[0].proof());
    let start = subtract(&bias_high, &square_high_columns(c));
    let high = carry_high(&high_columns(a, b, &start));
    let start = subtract(&bias_low, &square_low_columns(c));
    let low = low_columns(a, b, &start);
    let Product { limbs, above } = fold(&low, &high);
    Product { limbs, above }
}

/// a^2.
#[inline(always)]
pub(crate) fn square(a: &impl Multiplicand) -> Product<1> {
    let high = carry_high(&square_high_columns(a));
    fold(&square_low_columns(a), &high)
}

/// a^2 + c.
#[inline(always)]
pub(crate) fn square_plus<const M: u64>(a: &impl Multiplicand, c: Lazy<M>) -> Product<2> {
    const { assert!(M <= 31) }
    let high = carry_high(&square_high_columns(a));
    let Product { limbs, above } = fold(&add(&square_low_columns(a), &c.0), &high);
    Product { limbs, above }
}

/// Columns 0 to 4 of a * b, added to `start`. A column is one chain of sums: by rows, so that the next step of a column
/// is never waited for, and columns summed in parts would have to be added up.
#[inline(always)]
fn low_columns(a: &impl Multiplicand, b: &impl Multiplicand, start: &[Lanes; 5]) -> [Lanes; 5] {
    let (a, b) = (a.limbs(), b.limbs());
    let [t0, t1, t2, t3, t4] = *start;
    let [t0, t1, t2, t3, t4] = in_order([
        t0.add_low(a[0], b[0]),
        t1.add_low(a[0], b[1]),
        t2.add_low(a[0], b[2]),
        t3.add_low(a[0], b[3]),
        t4.add_low(a[0], b[4]),
    ]);
    let [t0, t1, t2, t3, t4] = in_order([
        t0,
        t1.add_high(a[0], b[0]),
        t2.add_high(a[0], b[1]),
        t3.add_high(a[0], b[2]),
        t4.add_high(a[0], b[3]),
    ]);
    let [t0, t1, t2, t3, t4] = in_order([
        t0,
        t1.add_low(a[1], b[0]),
        t2.add_low(a[1], b[1]),
        t3.add_low(a[1], b[2]),
        t4.add_low(a[1], b[3]),
    ]);
    let [t0, t1, t2, t3, t4] = in_order([
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
fn high_columns(a: &impl Multiplicand, b: &impl Multiplicand, start: &[Lanes; 5]) -> [Lanes; 5] {
    let (a, b) = (a.limbs(), b.limbs());
    let [h5, h6, h7, h8, h9] = *start;
    let [h5, h6, h7, h8, h9] = in_order([
        h5.add_low(a[4], b[1]),
        h6.add_low(a[4], b[2]),
        h7.add_low(a[4], b[3]),
        h8.add_low(a[4], b[4]),
        h9.add_high(a[4], b[4]),
    ]);
    let [h5, h6, h7, h8, h9] = in_order([
        h5.add_high(a[4], b[0]),
        h6.add_high(a[4], b[1]),
        h7.add_high(a[4], b[2]),
        h8.add_high(a[4], b[3]),
        h9,
    ]);
    let [h5, h6, h7, h8, h9] = in_order([
        h5.add_low(a[3], b[2]),
        h6.add_low(a[3], b[3]),
        h7.add_low(a[3], b[4]),
        h8.add_high(a[3], b[4]),
        h9,
    ]);
    let [h5, h6, h7, h8, h9] = in_order([
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
fn square_low_columns(a: &impl Multiplicand) -> [Lanes; 5] {
    let a = a.limbs();
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
fn square_high_columns(a: &impl Multiplicand) -> [Lanes; 5] {
    let a = a.limbs();
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
fn carry_high(h: &[Lanes; 5]) -> [Lanes; 5] {
    let h = &in_order(*h);
    let h6 = h[1] + h[0].shr::<52>();
    let h7 = h[2] + h6.shr::<52>();
    let h8 = h[3] + h7.shr::<52>();
    let h9 = h[4] + h8.shr::<52>();
    in_order([h[0], h6, h7, h8, h9])
}

/// Adds columns 5 to 9 to columns 0 to 4, times 2^260 mod p. The caller answers for the weight: one if the low columns
/// are below 2^56, two below 2^57, eight below 2^59.
#[inline(always)]
fn fold(low: &[Lanes; 5], high: &[Lanes; 5]) -> Product<1> {
    let ifma = low[0].proof();
    let by = ifma.splat(FOLD_260);
    let low = &in_order(*low);
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
fn bias(ifma: Ifma) -> ([Lanes; 5], [Lanes; 5]) {
    let b = &BIAS;
    (
        [ifma.splat(b[0]), ifma.splat(b[1]), ifma.splat(b[2]), ifma.splat(b[3]), ifma.splat(b[4])],
        [ifma.splat(b[5]), ifma.splat(b[6]), ifma.splat(b[7]), ifma.splat(b[8]), ifma.splat(b[9])],
    )
}

#[inline(always)]
fn multiple_of_p(ifma: Ifma, times: u64) -> [Lanes; 5] {
    [
        ifma.splat(times * P[0]),
        ifma.splat(times * P[1]),
        ifma.splat(times * P[2]),
        ifma.splat(times * P[3]),
        ifma.splat(times * P[4]),
    ]
}

#[inline(always)]
fn add(a: &[Lanes; 5], b: &[Lanes; 5]) -> [Lanes; 5] {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4]]
}

#[inline(always)]
fn subtract(a: &[Lanes; 5], b: &[Lanes; 5]) -> [Lanes; 5] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3], a[4] - b[4]]
}

#[inline(always)]
fn select(a: &[Lanes; 5], mask: LaneMask, b: &[Lanes; 5]) -> [Lanes; 5] {
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
fn assert_top(limb: &Lanes) {
    for value in limb.to_array() {
        assert!(value <= TOP, "limb 4 is {value:#x}");
    }
}
